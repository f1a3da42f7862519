"""Who answers: engines that share a memory, other tools' folders, and what a missing answer counts as."""

import pytest
from PIL import Image

from lensmith.core.endpoint import Finish
from lensmith.core.errors import InputError
from lensmith.data.webpages.grammar.pages import VIEWPORT_WIDTH_PX
from lensmith.render import Assets, HtmlFile
from lensmith.workflows.html.answers import (
    Remembered,
    TargetPage,
    blank_answers,
    document_answers,
    engine_answers,
    load_converter,
    peer_answers,
)
from lensmith.workflows.html.convert import CAPTURE, Converter
from lensmith.workflows.html.engines import EngineName, Proposal
from tests.support.screenshots import renderer_of

PAGES = {
    "first": "<body style='margin:0'><h1>First</h1><p>with some words</p>",
    "second": "<body style='margin:0;background:#eef'><h1>Second</h1><p>with other words</p>",
}


class Counting:
    """An engine that gives one page, under a name, and counts the pictures that it is asked for."""

    def __init__(self, name: str, html: str, *, suits: bool = True) -> None:
        self.name, self._html, self._suits = name, html, suits
        self.asked = 0

    def suits(self, picture):
        return self._suits

    def propose(self, picture, *, samples, seed, on_text, **more):
        self.asked += 1
        return [Proposal(html=self._html, width_px=picture.width)] * samples

    def propose_many(self, pictures):
        return [self.propose(picture, samples=1, seed=0, on_text=lambda piece: None)[0] for picture in pictures]


def target(name: str, html: str, assets: Assets | None = None) -> TargetPage:
    page = renderer_of(VIEWPORT_WIDTH_PX).render(html, CAPTURE, assets=assets)
    return TargetPage(name=name, html=html, page=page, assets=assets)


@pytest.fixture(scope="module")
def targets() -> list[TargetPage]:
    return [target(f"{name}.html", html) for name, html in PAGES.items()]


def test_what_two_engines_proposed_is_not_proposed_anew_for_both(targets):
    good, bad = Counting("layout", PAGES["first"]), Counting("model", "<p>nothing alike</p>")
    with Converter() as converter:
        converter.engines = [Remembered(bad), Remembered(good)]
        alone = {name: engine_answers(converter, name, targets) for name in (EngineName.LAYOUT, EngineName.MODEL)}
        assert (good.asked, bad.asked) == (2, 2)
        both = engine_answers(converter, EngineName.AUTO, targets)
        assert (good.asked, bad.asked) == (2, 2)
        assert len(converter.engines) == 2
    assert [page.prediction.engine for page in both.pages] == ["layout", "layout"]
    assert [page.score for page in both.pages] == [page.score for page in alone[EngineName.LAYOUT].pages]


def test_auto_alone_answers_as_after_the_others(targets):
    def asked(*before: EngineName):
        engines = [Counting("model", PAGES["second"], suits=False), Counting("layout", PAGES["first"])]
        with Converter() as converter:
            converter.engines = [Remembered(engine) for engine in engines]
            for name in before:
                engine_answers(converter, name, targets)
            return [page.prediction.html for page in engine_answers(converter, EngineName.AUTO, targets).pages]

    assert asked() == asked(EngineName.LAYOUT, EngineName.MODEL)


def test_a_memory_tells_pictures_and_samples_apart():
    engine = Counting("layout", "<p>x</p>")
    memory = Remembered(engine)
    white, black = (Image.new("RGB", (9, 9), colour) for colour in ("white", "black"))
    assert len(memory.propose_many([white, white.copy(), black])) == 3
    assert engine.asked == 2
    memory.propose(white, samples=1, seed=5, on_text=print)
    assert engine.asked == 2  # the first answer has no seed
    assert len(memory.propose(white, samples=3, seed=5, on_text=print)) == 3
    memory.propose(white, samples=3, seed=6, on_text=print)
    memory.propose(white, samples=3, seed=6, on_text=print)
    assert engine.asked == 4
    assert memory.spared_s > 0


def test_the_engines_that_are_needed_are_loaded():
    with load_converter([EngineName.LAYOUT], None) as converter:
        assert [engine.name for engine in converter.engines] == ["layout"]
    with load_converter([EngineName.LAYOUT, EngineName.MODEL], None) as converter:
        assert sorted(engine.name for engine in converter.engines) == ["layout", "model"]
    with load_converter([], None) as converter:
        assert converter.engines == []


def test_a_peer_s_folder_is_scored_and_a_missing_answer_is_a_failure(targets, tmp_path):
    (tmp_path / "first.html").write_text(PAGES["first"])
    answered = peer_answers(tmp_path, targets, renderer_of(VIEWPORT_WIDTH_PX))
    first, second = answered.pages
    assert first.score.overall == pytest.approx(1)
    assert second.score.overall == 0
    assert second.prediction.error == "there is no answer"
    assert (answered.failed, answered.ended) == (1, 1)


def test_a_peer_s_answer_reads_its_own_folder_and_encoding(targets, tmp_path):
    (tmp_path / "first.css").write_text("body{background:#eef;margin:0}")
    text = "<meta charset=windows-1252><link rel=stylesheet href=first.css><h1>Größe</h1>"
    (tmp_path / "first.html").write_bytes(text.encode("cp1252"))
    first, _ = peer_answers(tmp_path, targets, renderer_of(VIEWPORT_WIDTH_PX)).pages
    page = first.prediction.page
    assert [block.text for block in page.texts] == ["Größe"]
    assert page.styles[0].fill == (238, 238, 255)
    assert isinstance(first.document, HtmlFile) and first.document.assets is not None


def test_a_folder_without_answers_is_bad_input(targets, tmp_path):
    with pytest.raises(InputError, match="has no answer to any of the 2 pages") as caught:
        peer_answers(tmp_path, targets, renderer_of(VIEWPORT_WIDTH_PX))
    assert caught.value.expected == "first.html, second.html"


def test_baselines_answer_each_page(targets):
    blank = blank_answers(targets)
    assert [page.score.block_match for page in blank.pages] == [0, 0]
    assert [page.score.page_size_error for page in blank.pages] == [0, 0]
    documents = document_answers("nearest", targets, list(PAGES.values()), renderer_of(VIEWPORT_WIDTH_PX))
    assert [page.score.overall for page in documents.pages] == pytest.approx([1, 1])
    assert {page.prediction.finish for page in documents.pages} == {Finish.STOP}
