"""Engines propose and one judge decides: whose page is kept, who is not asked, and folders of screenshots."""

import io
import json
from collections.abc import Iterator

import pytest
from PIL import Image

from lensmith.cli.app import app
from lensmith.cli.app import run as run_command
from lensmith.core.endpoint import Finish
from lensmith.core.errors import InputError
from lensmith.data.webpages.grammar.pages import VIEWPORT_WIDTH_PX
from lensmith.data.webpages.markup.repair import is_well_formed
from lensmith.layout.measure import LayoutStep
from lensmith.workflows.html.batch import BatchStatus, convert_folder
from lensmith.workflows.html.convert import COMPARING, Converter, convert_file
from lensmith.workflows.html.engines import EngineName, LayoutEngine, WriterEngine, has_our_colours
from lensmith.workflows.html.evaluate import target_pages
from lensmith.workflows.html.writers import Completion
from tests.support.screenshots import screenshot

FOREIGN = """<body style="margin:0;font:16px Arial;background:#fdf6e3;color:#073642">
<div style="background:#268bd2;color:#fdf6e3;padding:20px"><b>Solarised</b></div>
<h1 style="padding:20px;margin:0;font-size:30px">Colours that no generated page has</h1>
<p style="padding:0 20px">They were chosen by somebody else, a long time ago.</p></body>"""

WHOLE = f"<!DOCTYPE html><html><head><title>x</title></head>{FOREIGN}</html>"


class Scribe:
    """Writes one page, and counts how often it is asked."""

    def __init__(self, html: str) -> None:
        self.html = html
        self.asked = 0

    def greedy(self, picture, on_text):
        self.asked += 1
        on_text(self.html)
        return Completion(text=self.html, finish=Finish.STOP)

    def sampled(self, picture, samples, seed):
        return [Completion(text=self.html, finish=Finish.STOP)] * samples

    def greedy_many(self, pictures):
        return [self.greedy(picture, lambda piece: None) for picture in pictures]


def picture_of(html: str, width_px: int = 800) -> Image.Image:
    return Image.fromarray(screenshot(html, width_px=width_px)[0])


@pytest.fixture(scope="module")
def layout() -> Iterator[Converter]:
    with Converter.load(engine=EngineName.LAYOUT) as converter:
        yield converter


@pytest.fixture(scope="module")
def generated(layout: Converter) -> Image.Image:
    [target] = target_pages("grammar:1", layout.renderer)
    return Image.open(io.BytesIO(target.page.png)).convert("RGB")


def test_layout_needs_no_model_and_comes_close(layout):
    conversion = layout.convert(picture_of(FOREIGN))
    assert [candidate.engine for candidate in conversion.candidates] == ["layout"]
    assert conversion.best.score is not None
    assert conversion.best.score.overall > 0.85
    assert is_well_formed(conversion.best.html)


def test_the_cheap_look_knows_generated_pages(generated):
    assert generated.width == VIEWPORT_WIDTH_PX
    assert has_our_colours(generated)
    assert not has_our_colours(picture_of(FOREIGN))


def test_who_cannot_come_closest_is_not_asked_and_that_is_said():
    scribe = Scribe("<body>nothing alike</body>")
    with Converter() as converter:
        converter.engines = [WriterEngine(scribe, has_our_colours), LayoutEngine(converter.windows.renderer)]
        conversion = converter.convert(picture_of(FOREIGN))
    assert scribe.asked == 0
    assert conversion.unasked.keys() == {"model"}
    assert conversion.best.engine == "layout"


@pytest.mark.parametrize(("html", "best"), [("<body>nothing alike</body>", "layout"), (WHOLE, "model")])
def test_of_several_engines_the_closest_is_kept(html, best):
    with Converter.load(engine=EngineName.AUTO, writer=Scribe(html)) as converter:
        conversion = converter.convert(picture_of(FOREIGN))
    assert conversion.best.engine == best
    asked = {candidate.engine for candidate in conversion.candidates}
    # A page that is close enough ends the search.
    assert asked == ({"model"} if best == "model" else {"model", "layout"})
    assert asked | conversion.unasked.keys() == {"model", "layout"}


def test_the_output_says_which_engine_and_why(tmp_path):
    picture_of(FOREIGN).save(tmp_path / "page.png")
    result = convert_file(tmp_path / "page.png", tmp_path / "out.html")
    assert result.engines == ("layout",)
    assert "by the engine layout" in str(result)
    assert "not asked: model" in str(result)


@pytest.fixture
def folder(tmp_path):
    shots = tmp_path / "shots"
    shots.mkdir()
    picture_of(FOREIGN).save(shots / "b.png")
    picture_of(FOREIGN.replace("Solarised", "Another")).save(shots / "a.jpg", quality=95)
    (shots / "c.png").write_bytes(b"no picture")
    (shots / "notes.txt").write_text("not a picture's name")
    return shots


def test_a_folder_of_screenshots_is_converted_resumed_and_reported(folder, layout, tmp_path):
    out, report = tmp_path / "pages", tmp_path / "report.html"
    told = []
    files = convert_folder(folder, out, layout, report=report, on_file=told.append)
    assert [(file.source.name, file.status) for file in files] == [
        ("a.jpg", BatchStatus.CONVERTED), ("b.png", BatchStatus.CONVERTED), ("c.png", BatchStatus.FAILED)
    ]  # fmt: skip
    assert tuple(told) == files
    assert "not a picture" in str(files[2])
    assert "\n" not in str(files[2])
    first = {path.name: path.read_text() for path in out.iterdir()}
    assert first.keys() == {"a.html", "b.html"}
    shown = report.read_text()
    assert is_well_formed(shown)
    assert shown.count("data:image/png") == 6
    assert "c.png: failed" in shown

    (out / "b.html").unlink()
    again = convert_folder(folder, out, layout, report=report)
    assert [file.status for file in again] == [BatchStatus.KEPT, BatchStatus.CONVERTED, BatchStatus.FAILED]
    assert {path.name: path.read_text() for path in out.iterdir()} == first
    assert report.read_text().count("data:image/png") == 6  # a page that was kept is in the report too


def test_two_pictures_of_one_name_get_two_pages(folder, layout, tmp_path):
    picture_of(FOREIGN).save(folder / "b.bmp")
    convert_folder(folder, tmp_path / "out", layout)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.html", "b.png.html", "b.bmp.html"}


def test_a_folder_without_pictures_is_named(layout, tmp_path):
    with pytest.raises(InputError, match="holds no pictures"):
        convert_folder(tmp_path, tmp_path / "out", layout)


def test_the_command_takes_a_folder(folder, tmp_path, monkeypatch, capsys):
    arguments = ["html", str(folder), "-o", str(tmp_path / "out"), "--engine", "layout", "--json"]
    monkeypatch.setattr("sys.argv", ["lensmith", *arguments])
    with pytest.raises(SystemExit) as ended:
        run_command(app)
    assert ended.value.code == 2
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["status"] for row in rows] == ["converted", "converted", "failed"]


def test_the_steps_are_told_as_they_begin(layout):
    steps = []
    layout.convert(picture_of(FOREIGN), on_step=steps.append)
    assert steps == [*LayoutStep, COMPARING]


def test_a_model_is_a_step_too_and_so_is_each_comparison():
    steps = []
    with Converter.load(engine=EngineName.MODEL, writer=Scribe(WHOLE)) as converter:
        converter.convert(picture_of(FOREIGN), samples=2, on_step=steps.append)
    assert steps == ["a model writes the page", "a model writes further pages", COMPARING, COMPARING]
