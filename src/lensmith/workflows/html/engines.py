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
from lensmith.core.types import OnStep, Page, untold
from lensmith.data.webpages.grammar.stylesheet import PALETTE, stand_alone
from lensmith.data.webpages.markup.repair import repair
from lensmith.render import Renderer
from lensmith.workflows.html.seen import Measurer, hints, remarks
from lensmith.workflows.html.writers import REVISION, Completion, InstructedWriter, OnText, PageWriter

WIDEST_PX = 1920
"""A wider screenshot of a page is taken to be of a display with more pixels, unless its text says otherwise."""
NO_TEXT = "no text was read: this may be no screenshot of a page"
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

    `finish` says whether a writer came to its own end; `repairs` what was mended in what it wrote; `notes` what a
    person should know of it.
    """

    html: str
    width_px: int
    finish: Finish = Finish.STOP
    repairs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ShownPage:
    """A page that an engine proposed, and its rendering.

    `round` counts from 1 how often its page of this picture is made again; `in_vain` how often this very page was shown
    before, and nothing better came.
    """

    html: str
    page: Page
    round: int
    in_vain: int


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

    def why_not_refined(self) -> str:
        """Why it cannot make its page of a picture better; empty where it can."""

    def refined(
        self, picture: Image.Image, shown: ShownPage, *, seed: int, on_text: OnText, on_step: OnStep
    ) -> Proposal | None:
        """A page that may come closer to the picture than the one that is shown; None where there is nothing to do.

        Of an engine that can: see `why_not_refined`.
        """


class WriterEngine:
    """Pages that a model writes. They are parsed and written again, so they are well formed and stand alone."""

    name = EngineName.MODEL.value

    def __init__(
        self,
        writer: PageWriter | Callable[[], PageWriter],
        suits: Callable[[Image.Image], bool] = lambda picture: True,
        *,
        width_px: int | None = None,
        measurer: Measurer | None = None,
        is_hinted: bool = False,
    ) -> None:
        """`writer`: who writes, or what loads it when it is first asked. `suits`: the cheap look. `width_px`: of the
        windows that its pages are meant for, None for the screenshot's. `measurer`: who measures screenshots.
        `is_hinted`: whether a writer that takes words is told what was measured."""
        self._writer = writer
        self._suits = suits
        self._width_px = width_px
        self._measurer = measurer or Measurer()
        self._is_hinted = is_hinted

    @functools.cached_property
    def writer(self) -> PageWriter:
        """Who writes."""
        return self._writer() if callable(self._writer) else self._writer

    def suits(self, picture: Image.Image) -> bool:
        return self._suits(picture)

    def propose(
        self, picture: Image.Image, *, samples: int, seed: int, on_text: OnText, on_step: OnStep = untold
    ) -> list[Proposal]:
        writer = self._writer_of(picture, on_step)
        on_step("a model writes the page")
        written = [writer.greedy(picture, on_text)]
        if samples > 1:
            on_step("a model writes further pages")
            written += writer.sampled(picture, samples - 1, seed)
        return [self._proposal(completion, picture) for completion in written]

    def propose_many(self, pictures: Sequence[Image.Image]) -> list[Proposal]:
        if self._is_hinted:
            return [self.propose(picture, samples=1, seed=0, on_text=_unheard)[0] for picture in pictures]
        written = self.writer.greedy_many(pictures)
        return [self._proposal(completion, picture) for completion, picture in zip(written, pictures, strict=True)]

    def why_not_refined(self) -> str:
        takes_words = isinstance(self.writer, InstructedWriter)
        return "" if takes_words else "its model takes no words, so it cannot be told what differs"

    def refined(
        self, picture: Image.Image, shown: ShownPage, *, seed: int, on_text: OnText, on_step: OnStep
    ) -> Proposal | None:
        writer = self._writer_of(picture, on_step)
        assert isinstance(writer, InstructedWriter)
        found = remarks(self._measurer.measured(picture, on_step), shown.page)
        if not found:
            return None
        listed = "\n".join(f"- {remark}" for remark in found)
        words = REVISION.format(width_px=shown.page.width_px, remarks=listed)
        on_step("a model writes the page again")
        # Told the same once more, a greedy model would say the same.
        again = None if shown.in_vain == 0 else seed + shown.in_vain
        return self._proposal(writer.revised(picture, shown.html, words, on_text, seed=again), picture)

    def _window_of(self, picture: Image.Image) -> int:
        """How wide the window is that a page is for: as the hints said, where there were any."""
        is_told = self._is_hinted and isinstance(self.writer, InstructedWriter)
        return self._measurer.measured(picture).width if is_told else width_of(picture)

    def _writer_of(self, picture: Image.Image, on_step: OnStep) -> PageWriter:
        """Who writes, with hints if they are wanted."""
        if not (self._is_hinted and isinstance(self.writer, InstructedWriter)):
            return self.writer
        return self.writer.hinted(hints(self._measurer.measured(picture, on_step)))

    def _proposal(self, completion: Completion, picture: Image.Image) -> Proposal:
        repaired = repair(completion.text)
        is_whole = repaired.html.lstrip()[:9].lower().startswith(("<!doctype", "<html"))
        return Proposal(
            html=repaired.html if is_whole else stand_alone(repaired.html),  # what is whole has a style of its own
            width_px=self._width_px or self._window_of(picture),
            finish=completion.finish,
            repairs=repaired.changes,
        )


class LayoutEngine:
    """Pages that are measured and rebuilt (`lensmith.layout`). It has one answer a picture, for any page."""

    name = EngineName.LAYOUT.value

    def __init__(self, renderer_of: Callable[[int], Renderer], measurer: Measurer | None = None) -> None:
        """`renderer_of`: a renderer whose window has that width. `measurer`: who measures screenshots."""
        self._renderer_of = renderer_of
        self._measurer = measurer or Measurer()

    def suits(self, picture: Image.Image) -> bool:
        return True

    def propose(
        self, picture: Image.Image, *, samples: int, seed: int, on_text: OnText, on_step: OnStep = untold
    ) -> list[Proposal]:
        return [self._proposal(picture, on_step)]

    def propose_many(self, pictures: Sequence[Image.Image]) -> list[Proposal]:
        return [self._proposal(picture, untold) for picture in pictures]

    def why_not_refined(self) -> str:
        return ""

    def refined(
        self, picture: Image.Image, shown: ShownPage, *, seed: int, on_text: OnText, on_step: OnStep
    ) -> Proposal | None:
        """One more round of fitting than before, where that changes the page."""
        proposal = self._proposal(picture, on_step, further=shown.round)
        return None if proposal.html == shown.html else proposal

    def _proposal(self, picture: Image.Image, on_step: OnStep, *, further: int = 0) -> Proposal:
        from lensmith.layout.fit import ROUNDS, rebuild  # noqa: PLC0415 - an extra

        page = rebuild(picture, self._renderer_of, on_step, rounds=ROUNDS + further, measuring=self._measurer.measured)
        return Proposal(html=page.html, width_px=page.width_px, notes=() if page.texts else (NO_TEXT,))


def _unheard(piece: str) -> None:
    """An `OnText` where nobody listens."""


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
