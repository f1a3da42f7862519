"""Pages of a folder: read as the browser reads them, and one that cannot be used costs itself only."""

import json
import sys

import pytest

from lensmith.cli.app import app
from lensmith.cli.app import run as run_command
from lensmith.core.errors import InputError
from lensmith.data.webpages.real.archives import PackageFiles
from lensmith.data.webpages.real.pinned import Split, pinned_packages
from lensmith.data.webpages.real.prepare import Preparer
from lensmith.render import Capture, RenderConfig, Renderer
from lensmith.workflows.html.evaluate import FailedPage, TargetPage, run, target_pages

WORDS = "Übergröße „naïve“ – 50 €"
TOO_HIGH = "<div style='height:99999px'>"
ENCODINGS = {
    "windows-1252": (f"<meta charset=windows-1252><p>{WORDS}", "cp1252"),
    "declared by http-equiv": (
        f"<meta http-equiv=content-type content='text/html; charset=windows-1252'><p>{WORDS}",
        "cp1252",
    ),
    "utf-8, undeclared": (f"<p>{WORDS}", "utf-8"),
    "utf-8 with a mark": (f"<p>{WORDS}", "utf-8-sig"),
    "utf-16 with a mark": (f"<p>{WORDS}", "utf-16"),
    "koi8-r": ("<meta charset=koi8-r><p>Привет, мир", "koi8-r"),
}


@pytest.fixture(scope="module")
def renderer():
    with Renderer(RenderConfig(viewport_width_px=384, viewport_height_px=64)) as warm:
        yield warm


@pytest.mark.parametrize("name", ENCODINGS)
def test_a_file_is_decoded_as_it_declares(name, renderer, tmp_path):
    text, encoding = ENCODINGS[name]
    (tmp_path / "page.html").write_bytes(text.encode(encoding))
    (target,) = target_pages(str(tmp_path), renderer)
    assert [block.text for block in target.page.texts] == [text.rpartition(">")[2]]
    assert target.page.png == renderer.render(text.encode(encoding), Capture.PICTURE).png
    source = f"<html>{text}".encode(encoding)
    assert text.rpartition(">")[2] in Preparer(PackageFiles(content={"page.html": source})).prepare("page.html")


def test_a_file_reads_its_folder(renderer, tmp_path):
    (tmp_path / "a.css").write_text("p{margin:0;color:#0a0}")
    (tmp_path / "page.html").write_text("<link rel=stylesheet href=a.css><link rel=stylesheet href=../b.css><p>green")
    (target,) = target_pages(str(tmp_path), renderer)
    assert [block.colour for block in target.page.texts] == [(0, 170, 0)]


def test_what_cannot_be_rendered_or_read_keeps_its_place(renderer, tmp_path):
    (tmp_path / "a.html").write_text("<p>first")
    (tmp_path / "b.html").write_text(TOO_HIGH)
    (tmp_path / "c.html").symlink_to("nowhere")
    (tmp_path / "d.html").mkdir()
    (tmp_path / "e.html").write_text("<p>last")
    found = target_pages(str(tmp_path), renderer)
    assert [(page.name, isinstance(page, TargetPage)) for page in found] == [
        ("a.html", True), ("b.html", False), ("c.html", False), ("d.html", False), ("e.html", True)
    ]  # fmt: skip
    assert [page.page.texts[0].text for page in found if isinstance(page, TargetPage)] == ["first", "last"]
    problems = [page.problem for page in found if isinstance(page, FailedPage)]
    for problem, words in zip(problems, ("too high", "No such file", "directory"), strict=True):
        assert words in problem
        assert "\n" not in problem


def test_a_folder_of_bad_pages_only_is_bad_input(tmp_path):
    (tmp_path / "b.html").write_text(TOO_HIGH)
    with pytest.raises(InputError, match=r"b\.html: the page is too high"):
        run(str(tmp_path), nearest_among=0)


def test_the_command_scores_the_others_and_says_which_failed(tmp_path, monkeypatch, capsys):
    (tmp_path / "a.html").write_text("<body style='margin:0'><h1>Hello</h1>")
    (tmp_path / "b.html").write_text(TOO_HIGH)
    for more in ([], ["--json"]):
        arguments = ["lensmith", "eval", "html", "--pages", str(tmp_path), "--nearest-among", "0", *more]
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as caught:
            run_command(app)
        assert caught.value.code == 2
        out = capsys.readouterr().out
        if more:
            record = json.loads(out)
            assert [page["name"] for page in record["failed"]] == ["b.html"]
            assert record["model"]["n"] == 1
        else:
            assert "1 pages, 1 more cannot be rendered" in out
            assert out.count("b.html: the page is too high") == 1


@pytest.mark.parametrize("pages", ["real:", "real:all", "real:tune:0", "real:test:x"])
def test_a_set_of_real_pages_that_is_none_is_named(renderer, pages):
    with pytest.raises(InputError, match="no set of real pages") as caught:
        target_pages(pages, renderer)
    assert caught.value.actual == pages


def test_the_first_real_pages_are_of_several_packages(renderer):
    try:
        found = target_pages("real:tune:3", renderer)
    except InputError as error:
        pytest.skip(f"REAL PAGES WERE NOT TESTED: {error}")
    packages = [package.pages[0].file for package in pinned_packages(Split.TUNE)][:3]
    assert [page.name for page in found] == packages
    assert all(isinstance(page, TargetPage) and page.page.texts for page in found)
