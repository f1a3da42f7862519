"""Folders of real pages: which are kept, what the manifest says, and runs that go on."""

import json

import pytest

from lensmith.core.errors import InputError
from lensmith.core.files import sha256_of_bytes
from lensmith.data.webpages.real.collect import PageLimits, collect_pages, share_of_one_colour, visible_elements
from lensmith.data.webpages.real.unfit import Cause
from lensmith.render import Capture
from tests.support.packages import make_npm_package, png

WORDS = "Some words that a person can read. "


def page(body, *, head=""):
    return f"<!doctype html><html><head><title>t</title>{head}</head><body>{body}</body></html>"


CARDS = page("<main>" + f"<div><h3>{WORDS}</h3><p>{WORDS}</p></div>" * 20 + "</main>")
TABLE = page(
    "<table>" + f"<tr><td>{WORDS}</td><td>a</td></tr>" * 30 + "</table>", head="<link rel=stylesheet href=s.css>"
)
FORM = page("<form>" + f"<label>{WORDS}<input value=x></label><img src=dot.png>" * 20 + "</form>")
SITE = {
    "cards.html": CARDS,
    "deep/table.html": TABLE,
    "deep/s.css": "table{color:navy}",
    "form.html": FORM,
    "dot.png": png(40, 20),
    "more-cards.html": CARDS.replace("Some", "Other"),
    "few.html": page(f"<p>{WORDS}</p>" * 9),
    "many.html": page(f"<p>{WORDS}<b>x</b></p>" * 400),
    "wordless.html": page("<div>a</div>" * 60),
    "wordy.html": page(f"<p>{WORDS * 5}</p>" * 60),
    "high.html": page("<div style='height:9000px'></div>" + f"<p>{WORDS}</p>" * 60),
    "higher.html": page("<div style='height:90000px'></div>" + f"<p>{WORDS}</p>" * 60),
    "blank.html": page(
        "<div style='position:fixed;inset:0;background:#fff;z-index:9'></div>"
        + f"<p>{WORDS}</p>" * 16
        + "<b>x</b>" * 40
    ),
    "part.html": "<p>part</p>",
    "template.html": page("<p>{{ title }}</p>"),
}


def test_pages_are_kept_or_counted_by_cause(tmp_path):
    name = make_npm_package(tmp_path / "cache", SITE)
    seen = []
    result = collect_pages(
        [name], tmp_path / "out", cache_dir=tmp_path / "cache", on_progress=lambda *n: seen.append(n)
    )
    (package,) = result.packages
    assert [kept.path for kept in package.pages] == ["cards.html", "deep/table.html", "form.html"]
    assert package.left_out == {
        Cause.NEAR.value: 1, Cause.ELEMENTS.value: 2, Cause.CHARACTERS.value: 2, Cause.HEIGHT.value: 1,
        Cause.NOT_RENDERED.value: 1, Cause.FRAGMENT.value: 1, Cause.TEMPLATE.value: 1, Cause.BLANK.value: 1,
    }  # fmt: skip
    assert (package.name, package.version, package.license) == ("themes", "1.0.0", "MIT")
    assert package.sha256 == sha256_of_bytes((tmp_path / "cache/npm/themes-1.0.0.tgz").read_bytes())
    assert seen == [(0, 1), (1, 1)]
    assert f"left out, {Cause.HEIGHT.value}: 1" in str(result)
    assert "themes 1.0.0 (MIT): 3 of 13 pages" in str(result)


def test_the_manifest_tells_each_page_as_it_is(tmp_path, page_renderer):
    name = make_npm_package(tmp_path, SITE)
    collect_pages([name], tmp_path / "out", cache_dir=tmp_path)
    (package,) = json.loads((tmp_path / "out" / "pages.json").read_text())["packages"]
    assert [kept["file"] for kept in package["pages"]] == [
        "themes--cards.html", "themes--deep-table.html", "themes--form.html"
    ]  # fmt: skip
    for kept in package["pages"]:
        assert kept["sha256"] == sha256_of_bytes((tmp_path / "out" / kept["file"]).read_bytes())
    form = package["pages"][2]
    assert (form["elements"], form["width_px"]) == (1 + 3 * 20, 1280)
    assert form["characters"] == 20 * (len(WORDS.strip()) + 1)  # and what stands in each field
    assert "table{color:navy}" in (tmp_path / "out" / "themes--deep-table.html").read_text()


def test_no_package_dominates_and_what_differs_most_is_kept(tmp_path):
    name = make_npm_package(tmp_path, SITE)
    result = collect_pages([name], tmp_path / "out", limits=PageLimits(most_per_package=2), cache_dir=tmp_path)
    (package,) = result.packages
    assert len(package.pages) == 2
    assert package.left_out[Cause.MOST.value] == 1


def test_a_page_of_an_earlier_package_is_not_kept_again(tmp_path):
    names = [make_npm_package(tmp_path, {"cards.html": CARDS, f"{n}.html": n}, name=n) for n in ("one", "two")]
    result = collect_pages(names, tmp_path / "out", cache_dir=tmp_path)
    assert [len(package.pages) for package in result.packages] == [1, 0]
    assert result.packages[1].left_out[Cause.NEAR.value] == 1


def test_a_run_goes_on_where_it_was(tmp_path, monkeypatch):
    one = make_npm_package(tmp_path, {"cards.html": CARDS}, name="one")
    two = make_npm_package(tmp_path, {"table.html": TABLE, "cards.html": CARDS}, name="two")
    whole = collect_pages([one, two], tmp_path / "whole", cache_dir=tmp_path)
    collect_pages([one], tmp_path / "parts", cache_dir=tmp_path)
    (tmp_path / "npm" / "one-1.0.0.tgz").unlink()
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    again = collect_pages([one, two], tmp_path / "parts", cache_dir=tmp_path)
    assert again.packages == whole.packages
    folders = [{file.name: file.read_bytes() for file in (tmp_path / n).iterdir()} for n in ("whole", "parts")]
    assert folders[0] == folders[1]


def test_a_package_that_cannot_be_fetched_costs_itself_only(tmp_path, monkeypatch):
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm-cache"))
    name = make_npm_package(tmp_path, {"cards.html": CARDS})
    result = collect_pages(["npm:not-there@1.0.0", name], tmp_path / "out", cache_dir=tmp_path)
    assert result.pages == 1
    assert len(result.failed) == 1 and "npm:not-there@1.0.0 cannot be fetched" in result.failed[0]
    with pytest.raises(InputError, match="no package can be fetched"):
        collect_pages(["npm:not-there@1.0.0"], tmp_path / "other", cache_dir=tmp_path)


def test_a_folder_of_other_pages_is_left_alone(tmp_path):
    name = make_npm_package(tmp_path, {"cards.html": CARDS})
    collect_pages([name], tmp_path / "out", cache_dir=tmp_path)
    with pytest.raises(InputError, match="chosen otherwise"):
        collect_pages([name], tmp_path / "out", limits=PageLimits(near=0.5), cache_dir=tmp_path)
    file = tmp_path / "out" / "themes--cards.html"
    file.write_text("edited")
    with pytest.raises(InputError, match=r"themes--cards\.html is not the page"):
        collect_pages([name], tmp_path / "out", cache_dir=tmp_path)
    assert file.read_text() == "edited"


def test_files_of_one_name_are_told_apart(tmp_path):
    name = make_npm_package(tmp_path, {"a/b.html": CARDS, "a-b.html": TABLE, "A-B.HTML": FORM, "s.css": "p{}"})
    (package,) = collect_pages([name], tmp_path / "out", cache_dir=tmp_path).packages
    files = [kept.file for kept in package.pages]
    assert len({file.lower() for file in files}) == 3


def test_elements_are_visible_where_they_have_an_area_on_the_page(page_renderer):
    html = page(
        "<p>x</p><p style='display:none'>x</p><p style='position:absolute;left:-999px'>x</p><p></p>"
        "<div style='height:2px'></div>"
    )
    assert visible_elements(page_renderer.render(html, Capture.ELEMENTS)) == 2


def test_the_share_of_one_colour(page_renderer):
    width = page_renderer.config.viewport_width_px
    html = f"<!doctype html><body style='margin:0'><div style='background:red;width:{width // 4}px;height:64px'></div>"
    assert share_of_one_colour(page_renderer.render(html).png) == pytest.approx(0.75, abs=0.01)
