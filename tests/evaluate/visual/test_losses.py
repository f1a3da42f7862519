"""What a report says was lost is what the score counted."""

from dataclasses import replace

from lensmith.core.types import Box, Page, TextBlock
from lensmith.evaluate.visual.losses import find_losses

BLACK, RED = (0, 0, 0), (255, 0, 0)


def text(words: str, top: float, colour=BLACK, left: float = 10) -> TextBlock:
    return TextBlock(words, Box(left, top, 100, 20), colour)


TARGET = Page(
    width_px=400,
    height_px=400,
    texts=(text("a heading", 10), text("some words", 100), text("a link", 200), text("the end of it", 300)),
)


def test_nothing_is_lost_on_the_page_itself():
    losses = find_losses(TARGET, TARGET)
    assert str(losses) == "nothing was lost"
    assert losses.missing == losses.moved == ()


def test_each_kind_of_loss_is_named():
    heading, words, link, _ = TARGET.texts
    moved = words._replace(box=words.box._replace(left_px=110))
    answer = replace(TARGET, texts=(heading, moved, link._replace(colour=RED), text("zzzzzzzzz", 370)))
    losses = find_losses(TARGET, answer)
    assert [loss.text for loss in losses.missing] == ["the end of it"]
    assert [loss.text for loss in losses.invented] == ["zzzzzzzzz"]
    assert [loss.text for loss in losses.moved] == ["some words"]
    assert [loss.text for loss in losses.recoloured] == ["a link"]
    assert losses.missing[0].box == Box(10, 300, 100, 20)
    assert losses.missing_surfaces == ()
    assert str(losses) == (
        '1 text missing ("the end of it"); 1 text that the page does not have ("zzzzzzzzz"); 1 text elsewhere '
        '("some words"); 1 text in another colour ("a link")'
    )


def test_a_blank_answer_lost_everything():
    losses = find_losses(TARGET, replace(TARGET, texts=()))
    assert len(losses.missing) == 4
    assert str(losses) == '4 texts missing ("a heading", "some words", "a link", ...)'
