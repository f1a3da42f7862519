"""HTML files to PNG and JSON files."""

import json

import pytest
from PIL import Image

from lensmith.core.errors import BrowserNotFoundError, InputError, PageTooLargeError
from lensmith.core.types import NotLoaded
from lensmith.render import Assets, Capture, RenderConfig
from lensmith.render.files import Existing, FileStatus, render_files

CONFIG = RenderConfig(viewport_width_px=200, viewport_height_px=100, pages_in_flight=2)


@pytest.fixture
def pages(tmp_path):
    """Five HTML files."""
    paths = [tmp_path / f"page{index}.html" for index in range(5)]
    for index, path in enumerate(paths):
        path.write_text(f"<p>page {index}")
    return paths


def statuses(results):
    return [result.status for result in results]


def test_one_picture_a_file_in_order(pages, tmp_path):
    out = tmp_path / "deep" / "out"
    seen = []
    results = render_files(pages, out, CONFIG, on_progress=seen.append)
    assert [result.source for result in results] == pages
    assert seen == list(results)
    assert statuses(results) == [FileStatus.RENDERED] * 5
    assert sorted(path.name for path in out.iterdir()) == [f"page{index}.png" for index in range(5)]
    with Image.open(out / "page3.png") as picture:
        assert picture.size == (200, 100)


def test_measures_go_beside_the_picture_as_json(pages, tmp_path):
    capture = Capture.PICTURE | Capture.TEXTS | Capture.ELEMENTS
    (result,) = render_files(pages[2:3], tmp_path / "out", CONFIG, capture)
    assert [path.name for path in result.outputs] == ["page2.png", "page2.json"]
    record = json.loads((tmp_path / "out/page2.json").read_text())
    assert (record["width_px"], record["height_px"]) == (200, 100)
    assert [block["text"] for block in record["texts"]] == ["page 2"]
    assert record["texts"][0]["colour"] == [0, 0, 0]
    assert [element["tag"] for element in record["elements"]] == ["p"]


def test_what_is_there_is_kept_unless_asked(pages, tmp_path):
    out = tmp_path / "out"
    render_files(pages[:2], out, CONFIG)
    (out / "page0.png").write_bytes(b"mine")
    again = render_files(pages[:3], out, CONFIG)
    assert statuses(again) == [FileStatus.SKIPPED, FileStatus.SKIPPED, FileStatus.RENDERED]
    assert (out / "page0.png").read_bytes() == b"mine"
    over = render_files(pages[:1], out, CONFIG, existing=Existing.OVERWRITE)
    assert statuses(over) == [FileStatus.RENDERED]
    assert (out / "page0.png").read_bytes() != b"mine"


def test_missing_json_is_made_up_for(pages, tmp_path):
    out = tmp_path / "out"
    render_files(pages[:1], out, CONFIG)
    results = render_files(pages[:1], out, CONFIG, Capture.PICTURE | Capture.TEXTS)
    assert statuses(results) == [FileStatus.RENDERED]
    assert (out / "page0.json").exists()


def test_all_there_starts_no_browser(pages, tmp_path, monkeypatch):
    out = tmp_path / "out"
    render_files(pages, out, CONFIG)
    monkeypatch.setenv("LENSMITH_CHROMIUM", "/nowhere")
    assert statuses(render_files(pages, out, CONFIG)) == [FileStatus.SKIPPED] * 5


@pytest.mark.parametrize("bad", [0, 2, 4])
def test_file_that_fails_does_not_stop_the_others(pages, tmp_path, bad):
    pages[bad].unlink()
    pages[3].write_text("<div style='height:99999px'>")
    results = render_files(pages, tmp_path / "out", CONFIG)
    failed = {index for index, result in enumerate(results) if result.status is FileStatus.FAILED}
    assert failed == {bad, 3}
    assert isinstance(results[bad].error, InputError)
    assert pages[bad].name in str(results[bad].error)
    assert isinstance(results[3].error, PageTooLargeError)
    written = {path.stem for path in (tmp_path / "out").iterdir()}
    assert written == {f"page{index}" for index in range(5)} - {f"page{index}" for index in failed}


def test_each_picture_belongs_to_its_file(tmp_path):
    paths = []
    for index in range(12):
        path = tmp_path / f"{index}.html"
        if index % 4 != 0:  # the others do not exist
            path.write_text(f"<p>{index}")
        paths.append(path)
    results = render_files(paths, tmp_path / "out", CONFIG, Capture.TEXTS)
    for index, result in enumerate(results):
        assert result.source == paths[index]
        if index % 4 == 0:
            assert result.status is FileStatus.FAILED
        else:
            record = json.loads((tmp_path / f"out/{index}.json").read_text())
            assert record["texts"][0]["text"] == str(index)


def test_two_files_of_one_name_do_not_overwrite_each_other(pages, tmp_path):
    other = tmp_path / "other" / "page0.html"
    other.parent.mkdir()
    other.write_text("<p>another")
    results = render_files([pages[0], other], tmp_path / "out", CONFIG, Capture.TEXTS)
    assert statuses(results) == [FileStatus.RENDERED, FileStatus.FAILED]
    assert str(pages[0]) in str(results[1].error)
    assert "page 0" in (tmp_path / "out/page0.json").read_text()


def test_output_folder_that_is_a_file(pages, tmp_path):
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(InputError, match="out"):
        render_files(pages, tmp_path / "out", CONFIG)


def test_no_browser_is_said_once(pages, tmp_path, monkeypatch):
    monkeypatch.setenv("LENSMITH_CHROMIUM", "/nowhere")
    with pytest.raises(BrowserNotFoundError):
        render_files(pages, tmp_path / "out", CONFIG)
    assert list((tmp_path / "out").iterdir()) == []


# --- what lies beside the files -----------------------------------------------------------------------------------


@pytest.fixture
def styled(tmp_path):
    """Two pages with a stylesheet above them."""
    (tmp_path / "site/pages").mkdir(parents=True)
    (tmp_path / "site/a.css").write_text("body{background:#0a0}")
    paths = [tmp_path / "site/top.html", tmp_path / "site/pages/below.html"]
    for path, up in zip(paths, ("", "../"), strict=True):
        path.write_text(f"<link rel=stylesheet href={up}a.css><img src=none.png><p>x")
    return paths


def colours(results):
    found = []
    for result in results:
        with Image.open(result.outputs[0]) as picture:
            found.append(picture.convert("RGB").getpixel((199, 99)))
    return found


WHITE, GREEN = (255, 255, 255), (0, 170, 0)


def test_a_file_reads_its_own_folder_and_the_result_says_what_it_was_not_given(styled, tmp_path):
    results = render_files(styled, tmp_path / "out", CONFIG, Capture.PICTURE | Capture.TEXTS)
    assert colours(results) == [GREEN, WHITE]
    missing = NotLoaded(reason="missing", count=1, addresses=("none.png",))
    above = NotLoaded(reason="above", count=1, addresses=("../a.css",))
    assert [result.notes for result in results] == [(missing,), (above, missing)]
    assert "\n  not loaded, no such file: none.png" in str(results[0])
    record = json.loads((tmp_path / "out/top.json").read_text())
    assert record["notes"] == [{"kind": "not-loaded", "reason": "missing", "count": 1, "addresses": ["none.png"]}]


def test_who_may_read_what_is_the_callers_choice(styled, tmp_path):
    root = styled[0].parent
    wide = render_files(styled, tmp_path / "wide", CONFIG, assets_of=lambda page: Assets.beside(page, root))
    assert colours(wide) == [GREEN, GREEN]
    closed = render_files(styled, tmp_path / "closed", CONFIG, assets_of=lambda page: None)
    assert colours(closed) == [WHITE, WHITE]
    assert [result.notes for result in closed] == [(), ()]
    narrow = render_files(styled, tmp_path / "n", CONFIG, assets_of=lambda page: Assets.beside(page, root / "pages"))
    assert statuses(narrow) == [FileStatus.FAILED, FileStatus.RENDERED]
    assert "does not lie in the folder" in str(narrow[0].error)
