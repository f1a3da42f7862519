"""Engines: functions of a screenshot that propose pages. What is proposed is rendered and compared by one judge.

`LayoutEngine` measures and rebuilds; `WriterEngine` lets a model write, in this process or behind a URL.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from PIL import Image

from lensmith.core.endpoint import Finish
from lensmith.core.types import OnStep, untold
from lensmith.data.webpages.grammar.stylesheet import PALETTE, stand_alone
from lensmith.data.webpages.markup.repair import repair
from lensmith.render import Renderer
from lensmith.workflows.html.writers import Completion, OnText, PageWriter

WIDEST_PX = 1920
"""A wider screenshot of a page is taken to be of a display with more pixels, unless its text says otherwise."""
_SHOWN_SHARE = 0.005
"""Colours that cover less of a screenshot are smoothed edges and pictures."""


class EngineName(StrEnum):
    """What may be asked for: one engine, or whichever comes closest."""

    AUTO = "auto"
    LAYOUT = "layout"
    MODEL = "model"


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A page that an engine proposes: a whole document, and the width of the window that it is meant for.

    `finish` says whether a writer came to its own end; `repairs` what was mended in what it wrote.
    """

    html: str
    width_px: int
    finish: Finish = Finish.STOP
    repairs: tuple[str, ...] = ()


class PageEngine(Protocol):
    """Proposes pages for a screenshot."""

    @property
    def name(self) -> str:
        """What a report calls it."""

    def suits(self, picture: Image.Image) -> bool:
        """Whether a cheap look at the picture gives it a chance to come closest."""

    def propose(
        self, picture: Image.Image, *, samples: int, seed: int, on_text: OnText, on_step: OnStep = untold
    ) -> list[Proposal]:
        """Its pages, the most likely first; up to `samples`, as far as it has more than one.

        `on_text` hears a page as it is written, `on_step` which step begins.
        """

    def propose_many(self, pictures: Sequence[Image.Image]) -> list[Proposal]:
        """The most likely page of each picture."""


class WriterEngine:
    """Pages that a model writes. They are parsed and written again, so they are well formed and stand alone."""

    name = EngineName.MODEL.value

    def __init__(
        self,
        writer: PageWriter | Callable[[], PageWriter],
        suits: Callable[[Image.Image], bool] = lambda picture: True,
        *,
        width_px: int | None = None,
    ) -> None:
        """`writer`: who writes, or what loads it when it is first asked. `suits`: the cheap look. `width_px`: of the
        windows that its pages are meant for, None for the screenshot's."""
        self._writer = writer
        self._suits = suits
        self._width_px = width_px

    @functools.cached_property
    def writer(self) -> PageWriter:
        """Who writes."""
        return self._writer() if callable(self._writer) else self._writer

    def suits(self, picture: Image.Image) -> bool:
        return self._suits(picture)

    def propose(
        self, picture: Image.Image, *, samples: int, seed: int, on_text: OnText, on_step: OnStep = untold
    ) -> list[Proposal]:
        on_step("a model writes the page")
        written = [self.writer.greedy(picture, on_text)]
        if samples > 1:
            on_step("a model writes further pages")
            written += self.writer.sampled(picture, samples - 1, seed)
        return [self._proposal(completion, picture) for completion in written]

    def propose_many(self, pictures: Sequence[Image.Image]) -> list[Proposal]:
        written = self.writer.greedy_many(pictures)
        return [self._proposal(completion, picture) for completion, picture in zip(written, pictures, strict=True)]

    def _proposal(self, completion: Completion, picture: Image.Image) -> Proposal:
        repaired = repair(completion.text)
        is_whole = repaired.html.lstrip()[:9].lower().startswith(("<!doctype", "<html"))
        return Proposal(
            html=repaired.html if is_whole else stand_alone(repaired.html),  # what is whole has a style of its own
            width_px=self._width_px or width_of(picture),
            finish=completion.finish,
            repairs=repaired.changes,
        )


class LayoutEngine:
    """Pages that are measured and rebuilt (`lensmith.layout`). It has one answer a picture, for any page."""

    name = EngineName.LAYOUT.value

    def __init__(self, renderer_of: Callable[[int], Renderer]) -> None:
        """`renderer_of`: a renderer whose window has that width."""
        self._renderer_of = renderer_of

    def suits(self, picture: Image.Image) -> bool:
        return True

    def propose(
        self, picture: Image.Image, *, samples: int, seed: int, on_text: OnText, on_step: OnStep = untold
    ) -> list[Proposal]:
        return [self._proposal(picture, on_step)]

    def propose_many(self, pictures: Sequence[Image.Image]) -> list[Proposal]:
        return [self._proposal(picture, untold) for picture in pictures]

    def _proposal(self, picture: Image.Image, on_step: OnStep) -> Proposal:
        from lensmith.layout.fit import rebuild  # noqa: PLC0415 - an extra

        page = rebuild(picture, self._renderer_of, on_step)
        return Proposal(html=page.html, width_px=page.width_px)


def width_of(picture: Image.Image) -> int:
    """How wide the window was that a screenshot shows, as far as its width tells."""
    return picture.width if picture.width <= WIDEST_PX else picture.width // 2


def has_our_colours(picture: Image.Image) -> bool:
    """Whether the colours that cover a screenshot are those of the style sheet that the shipped model knows."""
    pixels_P3 = np.asarray(picture.convert("RGB"))[::2, ::2].reshape(-1, 3)
    packed = pixels_P3.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)
    values, counts = np.unique(packed, return_counts=True)
    shown = values[counts >= _SHOWN_SHARE * len(packed)].tolist()
    return bool(shown) and set(shown) <= PALETTE
