"""What a screenshot shows, in words: hints for a model that is to write its page, and what a page of it still lacks.

All is measured as the layout engine measures it (`lensmith.layout`). Words have a bounded length: of what does not fit,
the largest things are told.
"""

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from lensmith.core.types import Box, OnStep, Page, Rgb, TextBlock, untold
from lensmith.evaluate.visual.pixels import background_colour, rgb_array

if TYPE_CHECKING:
    from lensmith.layout.measure import Measured

HINT_CHARS = 6000
REMARK_CHARS = 3000
_MOST_OF_A_KIND = 8
_SHOWN_CHARS, _QUOTED_CHARS = 300, 60
_ALIKE = 0.75
"""Of 1: texts that share so much are one text, of which some letters were read or written wrongly."""
_MOVED_PX, _WIDER = 10.0, 0.15
_OTHER_COLOUR_LEVELS = 40
_LOWER_PX, _LOWER_SHARE = 24, 0.03
_NO_BOX = Box(0, 0, 0, 0)
_AREA_SHARE = 0.002
"""The least share of the page that an area takes which is worth a word."""


class Measurer:
    """Measures screenshots. What the last one came to stays, since several ask: engines, hints, remarks."""

    def __init__(self) -> None:
        self._last: tuple[Image.Image, Measured] | None = None

    def measured(self, picture: Image.Image, on_step: OnStep = untold) -> "Measured":
        """What stands where on a screenshot."""
        from lensmith.layout.measure import measure  # noqa: PLC0415 - an extra

        if self._last is None or self._last[0] is not picture:
            self._last = (picture, measure(picture, on_step))
        return self._last[1]


class _Remark(NamedTuple):
    """A difference in words, and how large what differs is."""

    box: Box
    words: str


class _Text(NamedTuple):
    """A text of a screenshot: the box of its lines, in px of the window, how it is set, and its letters alone."""

    text: str
    box: Box
    size_px: float
    is_bold: bool
    colour: Rgb
    is_one_line: bool
    letters: str


class _Area(NamedTuple):
    """A surface of a screenshot, in px of the window."""

    box: Box
    colour: Rgb


def hints(measured: "Measured", max_chars: int = HINT_CHARS) -> str:
    """The measured texts and surfaces with their boxes, at most so many characters, in reading order."""
    texts, areas = _texts(measured, 1.0), _areas(measured, 1.0)
    head = (
        f"Measured on the screenshot, in CSS px of a window {measured.width} px wide, in which the page is "
        f"{measured.height} px high on {_hex(measured.ground.colour)}."
    )
    if measured.scale > 1:
        head += f" The picture has {measured.scale} pixels to each of them."
    said = [_said(text) for text in texts]
    painted = [f"{_place(area.box)} {_hex(area.colour)}" for area in areas]
    room = max_chars - len(head) - 200
    kept = _largest_that_fit(said, [text.box for text in texts], room)
    room -= sum(len(said[index]) + 1 for index in kept)
    below = _largest_that_fit(painted, [area.box for area in areas], min(room, max_chars // 4))
    parts = [head]
    if kept:
        which = "Its texts" if len(kept) == len(said) else f"The largest {len(kept)} of its {len(said)} texts"
        parts += [f"{which} (left,top width x height, letters, colour):", *(said[index] for index in kept)]
    if below:
        parts += ["Its surfaces (left,top width x height, colour):", *(painted[index] for index in below)]
    return "\n".join(parts)[:max_chars]


def remarks(measured: "Measured", page: Page, max_chars: int = REMARK_CHARS) -> tuple[str, ...]:
    """What a rendered page lacks of the screenshot, a sentence each; empty where nothing is found.

    In this order: its height, texts that are missing, areas of another colour, texts that stand elsewhere, are of
    another width or colour, and texts that the screenshot does not have; of each kind the largest first. Places are in
    px of the window that the page was rendered in.
    """
    scale = page.width_px / measured.width
    texts = _texts(measured, scale)
    pairs = _paired(texts, page.texts)
    matched = [(texts[index], page.texts[other]) for index, other in pairs.items()]
    others = [block for index, block in enumerate(page.texts) if index not in pairs.values()]
    whole = _letters("".join(block.text for block in page.texts))
    # A text that was cut into pieces, or is part of another, is there.
    missing = [text for index, text in enumerate(texts) if index not in pairs and text.letters not in whole]
    kinds = (
        _heights(round(measured.height * scale), page),
        [_Remark(text.box, f"Missing: {_said(text)}.") for text in missing],
        _recoloured_areas(measured, page, scale),
        [remark for pair in matched if (remark := _moved(*pair))],
        [remark for pair in matched if (remark := _of_another_width(*pair))],
        [remark for pair in matched if (remark := _recoloured(*pair))],
        [remark for block in others if (remark := _strange(block, texts))],
    )
    return tuple(_that_fit([words for kind in kinds for words in _largest(kind)], max_chars))


# --- what there is ----------------------------------------------------------------------------------------------------


def _texts(measured: "Measured", scale: float) -> list[_Text]:
    from lensmith.layout.fit import letters_box  # noqa: PLC0415 - an extra

    texts = []
    for block in measured.blocks:
        left, top, right, bottom = (side * scale for side in letters_box(block))
        texts.append(
            _Text(
                text=block.text,
                box=Box(left, top, right - left, bottom - top),
                size_px=block.style.size_px * scale,
                is_bold=block.style.is_bold,
                colour=block.style.colour,
                is_one_line=len(block.lines) == 1,
                letters=_letters(block.text),
            )
        )
    return texts


def _areas(measured: "Measured", scale: float) -> list[_Area]:
    """Surfaces that are large enough to speak of, from top to bottom."""
    least = _AREA_SHARE * measured.width * measured.height
    areas = [
        _Area(
            box=Box(*(side * scale for side in (*surface.rect[:2], surface.rect.width, surface.rect.height))),
            colour=surface.colour,
        )
        for surface in measured.ground.surfaces
        if surface.rect.area >= least
    ]
    return sorted(areas, key=lambda area: (area.box.top_px, area.box.left_px))


def _letters(text: str) -> str:
    return "".join(char for char in text.casefold() if char.isalnum())


# --- what differs -----------------------------------------------------------------------------------------------------


def _paired(texts: Sequence[_Text], blocks: Sequence[TextBlock]) -> dict[int, int]:
    """The text block of the page that is each text; each is one text at most. First those that are the same, then those
    that are alike; long texts choose first, and among equals the nearest."""
    letters = [_letters(block.text) for block in blocks]
    pairs: dict[int, int] = {}
    free = set(range(len(blocks)))
    for likeness_of in (_sameness, _likeness):
        for index in sorted(set(range(len(texts))) - pairs.keys(), key=lambda i: -len(texts[i].letters)):
            text = texts[index]
            likely = [
                (likeness, -_distance(text.box, blocks[other].box), other)
                for other in free
                if (likeness := likeness_of(text.letters, letters[other])) >= _ALIKE
            ]
            if likely:
                pairs[index] = max(likely)[2]
                free.remove(pairs[index])
    return pairs


def _sameness(first: str, second: str) -> float:
    return float(first == second)


def _likeness(first: str, second: str) -> float:
    """The share of letters, in [0, 1], that two texts have in common, in their order; 0 where that is too little."""
    if 2 * min(len(first), len(second)) < _ALIKE * (len(first) + len(second)):
        return 0.0
    matcher = SequenceMatcher(None, first, second, autojunk=False)
    return matcher.ratio() if matcher.quick_ratio() >= _ALIKE else 0.0


def _distance(first: Box, second: Box) -> float:
    return abs(first.left_px - second.left_px) + abs(first.top_px - second.top_px)


def _heights(wanted_px: int, page: Page) -> list[_Remark]:
    if abs(page.height_px - wanted_px) <= max(_LOWER_PX, _LOWER_SHARE * wanted_px):
        return []
    return [_Remark(_NO_BOX, f"The page is {page.height_px} px high and should be {wanted_px} px high.")]


def _recoloured_areas(measured: "Measured", page: Page, scale: float) -> list[_Remark]:
    rgb = rgb_array(page.png)
    ground = _Area(box=Box(0, 0, measured.width * scale, measured.height * scale), colour=measured.ground.colour)
    found = []
    for area in (ground, *_areas(measured, scale)):
        left, top, right, bottom = (round(max(0.0, side)) for side in _sides(area.box))
        patch = rgb[top:bottom, left:right]
        if not patch.size:
            continue
        red, green, blue = (round(float(level)) for level in background_colour(patch))
        if _is_far((red, green, blue), area.colour):
            what = "page's own ground" if area is ground else f"area {_place(area.box)}"
            words = f"The {what} is {_hex((red, green, blue))} and should be {_hex(area.colour)}."
            found.append(_Remark(area.box, words))
    return found


def _moved(text: _Text, block: TextBlock) -> _Remark | None:
    if max(abs(block.box.left_px - text.box.left_px), abs(block.box.top_px - text.box.top_px)) <= _MOVED_PX:
        return None
    here, there = (f"{box.left_px:.0f},{box.top_px:.0f}" for box in (block.box, text.box))
    return _Remark(text.box, f"{_quoted(text)} begins at {here} and should begin at {there}.")


def _of_another_width(text: _Text, block: TextBlock) -> _Remark | None:
    if not text.is_one_line or abs(block.box.width_px / max(1.0, text.box.width_px) - 1) <= _WIDER:
        return None
    widths = f"{block.box.width_px:.0f} px wide and should be {text.box.width_px:.0f} px"
    return _Remark(text.box, f"{_quoted(text)} is {widths}: it is set in {_style(text)}.")


def _recoloured(text: _Text, block: TextBlock) -> _Remark | None:
    if not _is_far(text.colour, block.colour):
        return None
    return _Remark(text.box, f"{_quoted(text)} is {_hex(block.colour)} and should be {_hex(text.colour)}.")


def _strange(block: TextBlock, texts: Sequence[_Text]) -> _Remark | None:
    letters = _letters(block.text)
    if len(letters) < 2 or letters in "".join(text.letters for text in texts):
        return None
    return _Remark(block.box, f"The screenshot does not have this text: {_cut(block.text, _QUOTED_CHARS)}.")


def _is_far(first: Rgb, second: Rgb) -> bool:
    return max(abs(a - b) for a, b in zip(first, second, strict=True)) > _OTHER_COLOUR_LEVELS


# --- in so many words -------------------------------------------------------------------------------------------------


def _largest(found: Sequence[_Remark]) -> list[str]:
    """The words of the largest of one kind, and how many more there are."""
    ordered = sorted(found, key=lambda remark: -_area(remark.box))
    words = [remark.words for remark in ordered[:_MOST_OF_A_KIND]]
    more = len(ordered) - len(words)
    return [*words, f"And {more} more of this kind."] if more else words


def _that_fit(words: Sequence[str], max_chars: int) -> list[str]:
    """The first sentences that have so many characters together at most."""
    kept, used = [], 0
    for each in words:
        used += len(each) + 1
        if used > max_chars:
            break
        kept.append(each)
    return kept


def _largest_that_fit(lines: Sequence[str], boxes: Sequence[Box], max_chars: int) -> list[int]:
    """Which lines, in their order, have so many characters together: those of the largest boxes."""
    kept, used = [], 0
    for index in sorted(range(len(lines)), key=lambda i: -_area(boxes[i])):
        if used + len(lines[index]) + 1 <= max_chars:
            used += len(lines[index]) + 1
            kept.append(index)
    return sorted(kept)


def _area(box: Box) -> float:
    return box.width_px * box.height_px


def _sides(box: Box) -> tuple[float, float, float, float]:
    return box.left_px, box.top_px, box.right_px, box.bottom_px


def _place(box: Box) -> str:
    return f"{box.left_px:.0f},{box.top_px:.0f} {box.width_px:.0f}x{box.height_px:.0f}"


def _said(text: _Text) -> str:
    return f"{_place(text.box)} {_style(text)}: {_cut(text.text, _SHOWN_CHARS)}"


def _style(text: _Text) -> str:
    return f"{text.size_px:.3g}px{' bold' if text.is_bold else ''} {_hex(text.colour)}"


def _quoted(text: _Text) -> str:
    return _cut(text.text, _QUOTED_CHARS)


def _cut(text: str, chars: int) -> str:
    return f'"{text}"' if len(text) <= chars else f'"{text[:chars]}..."'


def _hex(colour: Rgb) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
