"""What `measure.js` found, as a page: boxes, texts, notes; and what lies in a frame, put where the frame is."""

from collections.abc import Iterator, Sequence

from lensmith.core.types import (
    BorderSide,
    Box,
    CharBox,
    CutOff,
    ElementBox,
    ElementStyle,
    LineBox,
    MissingGlyphs,
    Page,
    PageNote,
    Rgb,
    ScrolledAway,
    TextBlock,
)
from lensmith.render.devtools import Json

_UNIT = 1 / 64  # the browser's layout unit, in pixels


def page_of(found: Json, width_px: int, height_px: int, png: bytes, *, has_texts: bool) -> Page:
    """The page; texts are measured for frames too, and given only where they are wanted."""
    texts = zip(found["texts"], _boxes(found["textBoxes"]), _colours(found["textColours"]), strict=True)
    return Page(
        width_px=width_px,
        height_px=height_px,
        png=png,
        texts=tuple(TextBlock(*parts) for parts in texts) if has_texts else (),
        elements=tuple(map(ElementBox, found["tags"], _boxes(found["tagBoxes"]))),
        chars=tuple(map(CharBox, found["chars"], _boxes(found["charBoxes"]))),
        lines=tuple(map(LineBox, found["lineTexts"], _boxes(found["lineBoxes"]))),
        styles=tuple(_styles(found)),
        notes=tuple(_notes(found, width_px)),
    )


def nested_nodes(document: Json) -> Iterator[Json]:
    """Of a document as the DevTools list it: closed shadow roots, and frames whose documents are at hand.

    In the order of the markup. What lies in a frame's document is not looked into, nor what is the browser's own.
    """
    stack = [document]
    while stack:
        node = stack.pop()
        if node.get("shadowRootType") == "user-agent":
            continue
        if node.get("shadowRootType") == "closed" or (node.get("localName") == "iframe" and "contentDocument" in node):
            yield node
        stack += reversed([*node.get("shadowRoots", ()), *node.get("children", ())])


def put_frame(found: Json, place: Json, inner: Json) -> None:
    """Puts what was measured in a frame's document (`inner`) where the frame is, cut to what can be seen of it."""
    inside, seen = _boxes(place["boxes"])
    scale = inside.width_px / max(inner["windowWidth"], 1)
    texts: list[str] = []
    boxes: list[int] = []
    colours: list[int] = []
    for text, box, colour in zip(
        inner["texts"], _boxes(inner["textBoxes"]), _colours(inner["textColours"]), strict=True
    ):
        if (cut := _within(box, inner, inside, seen, scale)) is not None:
            texts.append(text)
            boxes += [round(value / _UNIT) for value in cut]
            colours += colour
    at = place["at"]
    found["lineTexts"] = [text + len(texts) if text >= at else text for text in found["lineTexts"]]
    found["texts"][at:at] = texts
    found["textBoxes"][4 * at : 4 * at] = boxes
    found["textColours"][3 * at : 3 * at] = colours
    found["nodes"] += inner["nodes"]
    found["missing"] += inner["missing"]
    found["missingChars"] += [char for char in inner["missingChars"] if char not in found["missingChars"]]
    hidden = (inner["width"] - inner["windowWidth"], inner["height"] - inner["windowHeight"])
    scrolled = [("iframe", seen, hidden)] if max(hidden) > 1 else []
    pixels = zip(inner["scrolledPx"][0::2], inner["scrolledPx"][1::2], strict=True)
    for tag, box, px in zip(inner["scrolledTags"], _boxes(inner["scrolledBoxes"]), pixels, strict=True):
        if (cut := _within(box, inner, inside, seen, scale)) is not None:
            scrolled.append((tag, cut, px))
    for tag, box, px in scrolled:
        found["scrolledTags"].append(tag)
        found["scrolledBoxes"] += [round(value / _UNIT) for value in box]
        found["scrolledPx"] += px


def _within(box: Box, inner: Json, inside: Box, seen: Box, scale: float) -> Box | None:
    """A box in a frame's document as it lies on the page; None where nothing of it shows."""
    left = max(inside.left_px + (box.left_px - inner["scrollX"]) * scale, seen.left_px)
    top = max(inside.top_px + (box.top_px - inner["scrollY"]) * scale, seen.top_px)
    right = min(inside.left_px + (box.right_px - inner["scrollX"]) * scale, seen.right_px)
    bottom = min(inside.top_px + (box.bottom_px - inner["scrollY"]) * scale, seen.bottom_px)
    # One pixel is what counts as hidden on the page itself.
    return Box(left, top, right - left, bottom - top) if right - left > 1 and bottom - top > 1 else None


def _notes(found: Json, picture_width_px: int) -> Iterator[PageNote]:
    if found["width"] > picture_width_px:
        yield CutOff(page_width_px=found["width"], window_width_px=picture_width_px)
    pixels = zip(found["scrolledPx"][0::2], found["scrolledPx"][1::2], strict=True)
    for tag, box, (width_px, height_px) in zip(
        found["scrolledTags"], _boxes(found["scrolledBoxes"]), pixels, strict=True
    ):
        yield ScrolledAway(tag=tag, box=box, hidden_width_px=max(width_px, 0), hidden_height_px=max(height_px, 0))
    if found["missing"]:
        yield MissingGlyphs(count=found["missing"], characters="".join(found["missingChars"][:40]))


def _styles(found: Json) -> Iterator[ElementStyle]:
    for (tag, depth, position), paint, box in zip(
        found["styles"], found["paints"], _boxes(found["styleBoxes"]), strict=True
    ):
        top, right, bottom, left = (None if side is None else _border(side) for side in paint["borders"])
        fill = paint["fill"]
        yield ElementStyle(
            tag=tag,
            depth=depth,
            position=position,
            box=box,
            fill=None if fill is None else _rgb(fill),
            behind=_rgb(paint["behind"]),
            borders=(top, right, bottom, left),
            is_picture=paint["picture"],
        )


def _border(side: list[float]) -> BorderSide:
    width_px, *colour = side
    return BorderSide(width_px, _rgb(colour))


def _rgb(levels: Sequence[float]) -> Rgb:
    red, green, blue = (int(level) for level in levels)
    return red, green, blue


def _boxes(flat: list[int]) -> list[Box]:
    """Boxes from left, top, width and height in 64ths of a pixel, one after the other."""
    parts = zip(flat[0::4], flat[1::4], flat[2::4], flat[3::4], strict=True)
    return [Box(left * _UNIT, top * _UNIT, width * _UNIT, height * _UNIT) for left, top, width, height in parts]


def _colours(flat: list[int]) -> list[Rgb]:
    return list(zip(flat[0::3], flat[1::3], flat[2::3], strict=True))
