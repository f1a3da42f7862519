"""What Design2Code's scorer does to a prediction before it looks at it, done to a copy in memory.

Its authors' code writes the outcome over the prediction's file. The steps and their limits are theirs, oddities
included: text without its tags is cut into pieces of 100 characters, and from the first of five alike pieces on the
page is dropped. But that place is looked for in the page with its tags, and counts only where it lies before the length
of the text alone: so it is mostly pages with more text than markup that are cut. Style sheets count as text, and tags
that span lines: a page with a long style sheet or much white space can be cut down to nothing, and so score 0 against
itself. Only predictions are cleaned, never targets.
"""

import re
from collections import Counter
from collections.abc import Iterator

import numpy as np
from cydifflib import SequenceMatcher

from lensmith.evaluate.visual.design2code.markup import (
    UNESCAPED,
    MarkupElement,
    MarkupString,
    one_kind_of_newline,
    read,
    write,
)

_PIECE_CHARS = 100
_ALIKE_PIECES = 5
_ALIKE_RATIO = 0.8
_MOST_COPIES = 50
_BINS = 128
_TAG = re.compile(r"<.*?>")
_HTML_TAG = re.compile(r"<html[^>]*>", re.IGNORECASE)


def clean_prediction(html: str) -> str:
    """The page that is scored in place of a prediction.

    Repeated text is cut off, a page without an `html` tag is wrapped into `html`, `body` and `p`, and of elements whose
    markup is the same the first fifty stay.
    """
    cut = without_repeated_text(one_kind_of_newline(html))
    root = read(cut if _HTML_TAG.search(cut) else f"<html><body><p>{cut}</p></body></html>")
    drop_repeated_elements(root)
    return write(root)


def without_repeated_text(html: str) -> str:
    """The page up to where its text begins to repeat itself. The work grows with the square of the text."""
    text = _TAG.sub("", html)
    end = len(text)
    for start in _repeated_from(text):
        end = min(end, _place_in(html, text, min(end, start)))
    return html if end == len(text) else html[:end]


def drop_repeated_elements(root: MarkupElement) -> None:
    """Take out every element that is the 51st or a later one with the same markup, with all that is in it."""
    kinds = _kinds(root)
    seen = Counter[int]()
    dropped: set[MarkupElement | MarkupString] = set()
    stack = [root]
    while stack:
        element = stack.pop()
        # In the order of the markup: an element counts before what is in it, and what is in a dropped one never does.
        if element is not root:
            seen[kinds[element]] += 1
            if seen[kinds[element]] > _MOST_COPIES:
                dropped.add(element)
                continue
        stack.extend(child for child in reversed(element.children) if isinstance(child, MarkupElement))
    for element in [root, *root.elements()]:
        element.children = [child for child in element.children if child not in dropped]


def _repeated_from(text: str) -> Iterator[int]:
    """Each time that a piece of the text is alike to enough before it: where the first of them begins."""
    pieces = [text[begin : begin + _PIECE_CHARS] for begin in range(0, len(text), _PIECE_CHARS)]
    lengths = np.array([len(piece) for piece in pieces])
    counts = np.zeros((len(pieces), _BINS), dtype=np.uint8)
    for row, piece in zip(counts, pieces, strict=True):
        row[:] = np.bincount([ord(char) % _BINS for char in piece], minlength=_BINS)
    kinds: list[list[int]] = []  # the pieces of each kind; the first is the one that others are compared with
    firsts = np.zeros(len(pieces), dtype=np.intp)
    first_counts = np.zeros_like(counts)
    for index, piece in enumerate(pieces):
        known = len(kinds)
        # The ratio is at most what the characters that both have give, in any order: this spares nearly all of them.
        shared = np.minimum(first_counts[:known], counts[index]).sum(axis=1, dtype=np.int64)
        most = 2.0 * shared / (lengths[firsts[:known]] + lengths[index])
        for kind in np.flatnonzero(most >= _ALIKE_RATIO):
            members = kinds[kind]
            if SequenceMatcher(None, piece, pieces[members[0]]).ratio() >= _ALIKE_RATIO:
                members.append(index)
                if len(members) >= _ALIKE_PIECES:
                    yield members[0] * _PIECE_CHARS
                break
        else:
            firsts[known], first_counts[known] = index, counts[index]
            kinds.append([index])


def _place_in(html: str, text: str, start: int) -> int:
    """Where character `start` of the text is found in the page, if each character is looked for behind the one before.

    Characters within tags are found too, so this is mostly too early.
    """
    if start >= len(text):
        return len(html)
    place = -1
    for char in text[: start + 1]:
        place = html.index(char, place + 1)
    return place


def _kinds(root: MarkupElement) -> dict[MarkupElement, int]:
    """A number for each element, the same for two whose markup is the same."""
    numbers: dict[tuple[str | int, ...], int] = {}
    kinds: dict[MarkupElement, int] = {}
    for element in reversed(list(root.elements())):  # what is in an element is numbered before it
        escaped = element.name not in UNESCAPED
        parts = (
            child.written(escaped=escaped) if isinstance(child, MarkupString) else kinds[child]
            for child in element.children
        )
        kinds[element] = numbers.setdefault((element.start_tag, *parts), len(numbers))
    return kinds
