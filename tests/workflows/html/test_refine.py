"""A page is shown to who made it, with what differs in words, and made again; hints tell a writer what was measured."""

import io
import json

import pytest
from PIL import Image

from lensmith.cli.app import app
from lensmith.cli.app import run as run_command
from lensmith.core.endpoint import Finish
from lensmith.core.errors import InputError
from lensmith.core.types import Page
from lensmith.evaluate.visual.picture_score import PictureTarget
from lensmith.layout.measure import LayoutStep, measure
from lensmith.workflows.html.convert import Converter, at_width, convert_file
from lensmith.workflows.html.engines import EngineName, Proposal, WriterEngine
from lensmith.workflows.html.seen import hints, remarks
from lensmith.workflows.html.writers import Completion, endpoint_writer
from tests.support.screenshots import screenshot
from tests.support.scripted_server import ScriptedServer

TARGET = """<!DOCTYPE html><html lang="en"><head><title>Solarised</title></head>
<body style="margin:0;font:16px Arial;background:#fdf6e3;color:#073642">
<div style="background:#268bd2;color:#fdf6e3;padding:20px"><b>Solarised</b></div>
<h1 style="padding:20px;margin:0;font-size:30px">Colours that no generated page has</h1>
<p style="padding:0 20px;color:#dc322f">They were chosen by somebody else, a long time ago.</p>
<p style="padding:0 20px">Two of them were changed in the year after that.</p></body></html>"""
LACKING = (
    TARGET.replace("#268bd2", "#ffffff")
    .replace('<p style="padding:0 20px">Two of them were changed in the year after that.</p>', "")
    .replace("color:#dc322f", "color:#073642;padding-left:120px")
)
WORSE = '<!DOCTYPE html><html lang="en"><head><title>x</title></head><body>Something else.</body></html>'


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return Image.fromarray(screenshot(TARGET, width_px=800)[0])


def texts_of(message):
    content = message["content"]
    return [content] if isinstance(content, str) else [part["text"] for part in content if part["type"] == "text"]


def test_what_differs_is_said_in_words(picture):
    told = "\n".join(remarks(measure(picture), screenshot(LACKING, width_px=800)[1]))
    assert "Missing" in told
    assert '"Two of them were changed in the year after that."' in told
    assert "is #ffffff and should be #268bd2" in told
    assert "and should begin at 20," in told
    assert "and should be #d" in told  # the paragraph's own colour, as far as its strokes show it
    assert told.count("\n") < 12
    strange = "\n".join(remarks(measure(picture), screenshot(WORSE, width_px=800)[1]))
    assert '"Something else."' in strange
    assert "px high" in strange
    assert len("\n".join(remarks(measure(picture), screenshot(WORSE, width_px=800)[1], max_chars=120))) <= 120


def test_of_the_page_itself_nothing_is_said(picture):
    assert remarks(measure(picture), screenshot(TARGET, width_px=800)[1]) == ()


def test_a_worse_answer_is_not_kept_and_a_better_one_is(picture):
    server = ScriptedServer([LACKING, WORSE, f"Here it is:\n```html\n{TARGET}\n```"])
    pieces = []
    with server as url, endpoint_writer(url) as writer, Converter.load(engine=EngineName.MODEL, writer=writer) as own:
        conversion = own.convert(picture, refine=2, on_text=pieces.append)
    first, second, third = server.bodies
    assert [message["role"] for message in second["messages"]] == ["user", "assistant", "user"]
    assert second["messages"][0] == first["messages"][0]
    [shown] = texts_of(second["messages"][1])
    assert "Solarised" in shown
    [told] = texts_of(second["messages"][2])
    assert "Two of them were changed" in told
    assert "should be #268bd2" in told
    # The worse answer was not shown to it; told the same once more, it is to say something else.
    assert texts_of(third["messages"][1]) == [shown]
    assert (second["temperature"], third["temperature"]) == (0.0, 0.5)
    rounds = conversion.refinement.rounds
    assert [each.is_kept for each in rounds] == [False, True]
    assert rounds[0].before == rounds[1].before == conversion.candidates[0].rank
    assert rounds[1].after == conversion.best.rank > 0.99
    assert conversion.best is conversion.candidates[2]
    heard = "".join(pieces)
    assert heard.count("<b>Solarised</b>") == 2
    assert "Something else." in heard


def test_a_page_that_lacks_nothing_is_left_alone(picture):
    server = ScriptedServer([TARGET])
    with server as url, endpoint_writer(url) as writer, Converter.load(engine=EngineName.MODEL, writer=writer) as own:
        conversion = own.convert(picture, refine=3)
    assert len(server.bodies) == 1
    assert conversion.refinement.rounds == ()
    assert "nothing was found" in conversion.refinement.ended


class Mute:
    """Writes one page, whatever it is told."""

    def greedy(self, picture, on_text):
        return Completion(text=LACKING, finish=Finish.STOP)

    def sampled(self, picture, samples, seed):
        return [self.greedy(picture, None)] * samples

    def greedy_many(self, pictures):
        return [self.greedy(picture, None) for picture in pictures]


def test_who_takes_no_words_is_not_refined_and_that_is_said(picture, tmp_path):
    picture.save(tmp_path / "page.png")
    result = convert_file(tmp_path / "page.png", tmp_path / "a.html", engine=EngineName.MODEL, writer=Mute(), refine=2)
    assert result.refinement.rounds == ()
    assert "not refined at all: its model takes no words" in str(result)
    with pytest.raises(InputError, match="takes an instruction"):
        convert_file(tmp_path / "page.png", tmp_path / "a.html", writer=Mute(), ocr=True)


def test_layout_fits_further_without_reading_again(picture):
    steps = []
    with Converter.load(engine=EngineName.LAYOUT) as converter:
        conversion = converter.convert(picture, refine=2, on_step=steps.append)
    refinement = conversion.refinement
    assert steps.count(LayoutStep.READING) == 1
    assert steps.count(LayoutStep.FITTING) == 1 + len(refinement.rounds) + (1 if refinement.ended else 0)
    assert bool(refinement.ended) == (len(refinement.rounds) < 2)
    assert conversion.best.rank == max(candidate.rank for candidate in conversion.candidates)


def test_the_command_refines_with_hints(picture, tmp_path, monkeypatch, capsys):
    picture.save(tmp_path / "page.png")
    server = ScriptedServer([LACKING, TARGET])
    with server as url:
        arguments = ["html", "page.png", "-o", "out.html", "--engine", "model", "--endpoint", url, "--ocr", "--json"]
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["lensmith", *arguments, "--refine", "1"])
        with pytest.raises(SystemExit) as ended:
            run_command(app)
    assert not ended.value.code
    told = json.loads(capsys.readouterr().out)
    assert [each["after"] > each["before"] for each in told["refinement"]["rounds"]] == [True]
    assert told["overall"] > 0.99
    asked = "\n".join(texts_of(server.bodies[0]["messages"][0]))
    assert "Write one complete HTML document" in asked
    assert '"Colours that no generated page has"' in asked
    assert "#268bd2" in asked
    assert texts_of(server.bodies[1]["messages"][0]) == texts_of(server.bodies[0]["messages"][0])


def test_hints_are_bounded_and_the_largest_are_told(picture):
    measured = measure(picture)
    whole = hints(measured)
    places = [whole.index(text) for text in ("Solarised", "Colours that", "They were", "Two of them")]
    assert places == sorted(places)
    assert "800 px wide" in whole
    short = hints(measured, max_chars=480)
    assert len(short) <= 480
    assert "Colours that no generated page has" in short  # the largest
    assert "Solarised" not in short  # the smallest
    assert "The largest" in short


class Narrow:
    """An engine whose page is for a narrower window than the screenshot's."""

    name = "narrow"

    def suits(self, picture):
        return True

    def propose(self, picture, *, samples, seed, on_text, on_step):
        return [Proposal(html=WORSE, width_px=400)]


def test_pages_for_windows_of_two_widths_are_compared_at_one(picture):
    with Converter() as converter:
        converter.engines = [Narrow(), WriterEngine(Mute())]
        conversion = converter.convert(picture)
    narrow, wide = conversion.candidates
    assert (narrow.width_px, wide.width_px) == (400, 800)
    assert narrow.at_one_width == pytest.approx(narrow.score.overall)
    scaled = io.BytesIO()
    at_width(Image.open(io.BytesIO(wide.page.png)).convert("RGB"), 400).save(scaled, "PNG")
    page = Page(width_px=400, height_px=1, png=scaled.getvalue())
    assert wide.at_one_width == pytest.approx(PictureTarget(at_width(picture, 400)).score(page).overall)
    assert wide.rank == wide.at_one_width != wide.score.overall
    assert conversion.best is wide
