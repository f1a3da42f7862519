"""Screenshot to HTML: engines propose pages, each is rendered and compared, the one that looks closest is kept.

After Sightseer (WebSight, arXiv 2403.09029). Where we differ: the result is never a model's raw output. It is well
formed and stands alone, and it is rendered and compared with the screenshot, so that of several candidates the best can
be kept and a person is told how close it came; and a model is not the only one that may propose a page.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Self

from PIL import Image

from lensmith.core.endpoint import Finish
from lensmith.core.errors import InputError, RenderError
from lensmith.core.files import write_atomic
from lensmith.core.images import open_picture
from lensmith.core.types import OnStep, Page, untold
from lensmith.data.webpages.grammar.pages import VIEWPORT_WIDTH_PX
from lensmith.evaluate.visual.picture_score import PictureScore, PictureTarget
from lensmith.render import Capture, RenderConfig, Renderer
from lensmith.workflows.html.engines import (
    EngineName,
    LayoutEngine,
    PageEngine,
    Proposal,
    WriterEngine,
    has_our_colours,
    width_of,
)
from lensmith.workflows.html.writers import OnText, PageWriter

CAPTURE = Capture.PICTURE | Capture.TEXTS | Capture.STYLES
COMPARING = "comparing the page with the screenshot"
"""What an `OnStep` is told where a candidate is judged."""
CLOSE_ENOUGH = 0.93
"""A page that looks so like its screenshot ends the search: the other engines are not asked."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One answer: a whole document, its rendering, and how close that comes. `error` says why it did not render.

    `engine` made it, for a window of `width_px`.
    """

    html: str
    finish: Finish
    repairs: tuple[str, ...]
    engine: str
    width_px: int
    page: Page | None = None
    score: PictureScore | None = None
    error: str | None = None

    @property
    def rank(self) -> float:
        return -1.0 if self.score is None else self.score.overall


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """All candidates in the order they were made; `best` is the one that looks closest.

    `unasked`: the engines that were not asked, and why.
    """

    picture: Image.Image
    candidates: tuple[Candidate, ...]
    seconds: float
    unasked: dict[str, str]

    @property
    def best(self) -> Candidate:
        return max(self.candidates, key=lambda candidate: candidate.rank)


@dataclass(frozen=True, kw_only=True)
class ConvertedFile:
    """What `lensmith html` prints. `scores` are the candidates' in order, None for one that did not render, `engines`
    who made them; `unasked` says of the other engines why they were not asked."""

    out: Path
    score: PictureScore | None
    overall: float | None
    chosen: int
    scores: tuple[float | None, ...]
    engines: tuple[str, ...]
    unasked: dict[str, str]
    complete: bool
    repairs: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        closeness = "its rendering failed" if self.overall is None else f"looks {self.overall:.0%} like the screenshot"
        lines = [f"{self.out}: {closeness} ({self.seconds:.1f} s)"]
        if len(self.scores) > 1:
            shown = ", ".join(
                f"{engine} {'failed' if score is None else f'{score:.3f}'}"
                for engine, score in zip(self.engines, self.scores, strict=True)
            )
            lines.append(f"  kept candidate {self.chosen + 1} of {len(self.scores)}: {shown}")
        else:
            lines.append(f"  by the engine {self.engines[0]}")
        lines += [f"  not asked: {engine}, {reason}" for engine, reason in self.unasked.items()]
        if self.score is not None:
            lines.append(
                f"  blocks {self.score.block_match:.2f}  text {self.score.text_recall:.2f}"
                f"  position {self.score.position_recall:.2f}  colour {self.score.colour_recall:.2f}"
                f"  pixels {self.score.pixel:.2f}"
            )
        if not self.complete:
            lines.append("  the model had not finished when its limit came; the page may lack its end")
        return "\n".join(lines)


class Converter:
    """Engines and a browser, kept warm. A context manager; `convert` may be called any number of times."""

    def __init__(self, engines: Sequence[PageEngine] = ()) -> None:
        """`engines` are asked in this order; `Windows.renderer` is theirs too."""
        self.windows = Windows()
        self.engines = list(engines)

    @classmethod
    def load(
        cls,
        folder: str | Path | None = None,
        *,
        engine: EngineName = EngineName.MODEL,
        writer: PageWriter | None = None,
    ) -> Self:
        """The engines of that name. Who writes is `writer`, else the model in `folder`, else the one that ships.

        Raises InputError where there is no model.
        """
        converter = cls()
        if engine is not EngineName.LAYOUT:
            converter.engines.append(_writing(folder, writer, is_lazy=engine is EngineName.AUTO))
        if engine is not EngineName.MODEL:
            converter.engines.append(LayoutEngine(converter.windows.renderer))
        return converter

    @property
    def renderer(self) -> Renderer:
        """With a window as wide as generated pages are meant for."""
        return self.windows.renderer(VIEWPORT_WIDTH_PX)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.windows.close()

    def convert(
        self,
        picture: Image.Image,
        *,
        samples: int = 1,
        seed: int = 0,
        on_text: OnText | None = None,
        on_step: OnStep = untold,
    ) -> Conversion:
        """Candidates of each engine that has a chance, until one is close enough.

        A writer's first is greedy and is streamed to `on_text`; further ones, up to `samples`, are sampled. `on_step`
        is told of the engines' steps, and of each comparison.
        """
        if samples < 1:
            raise InputError("there is nothing to make", expected="at least one sample", actual=samples)
        began = time.monotonic()
        targets: dict[int, PictureTarget] = {}
        candidates: list[Candidate] = []
        unasked: dict[str, str] = {}
        for engine in _likely_first(self.engines, picture):
            reason = _why_not(engine, picture, candidates)
            if reason:
                unasked[engine.name] = reason
                continue
            for proposal in engine.propose(
                picture, samples=samples, seed=seed, on_text=on_text or (lambda piece: None), on_step=on_step
            ):
                on_step(COMPARING)
                width_px = proposal.width_px
                if width_px not in targets:
                    targets[width_px] = PictureTarget(at_width(picture, width_px))
                candidates.append(self._scored(_candidate(proposal, engine), targets[width_px]))
        return Conversion(
            picture=picture, candidates=tuple(candidates), seconds=time.monotonic() - began, unasked=unasked
        )

    def convert_many(self, pictures: list[Image.Image]) -> Iterator[Candidate]:
        """One candidate a picture, rendered: a single engine's first, not scored; of several engines the closest."""
        if len(self.engines) > 1:
            for picture in pictures:
                yield self.convert(picture).best
            return
        [engine] = self.engines
        candidates = [_candidate(proposal, engine) for proposal in engine.propose_many(pictures)]
        for width_px, group in groupby(candidates, key=lambda candidate: candidate.width_px):
            alike = list(group)
            pages = self.windows.renderer(width_px).render_many((candidate.html for candidate in alike), CAPTURE)
            for candidate, page in zip(alike, pages, strict=True):
                if isinstance(page, RenderError):
                    yield replace(candidate, error=page.problem)
                else:
                    yield replace(candidate, page=page)

    def judge(self, html: str, picture: Image.Image, *, width_px: int | None = None) -> Candidate:
        """A page that someone made, as a candidate for a picture, in a window of that width; None: the picture's."""
        width_px = width_px or width_of(picture)
        candidate = Candidate(html=html, finish=Finish.STOP, repairs=(), engine="file", width_px=width_px)
        return self._scored(candidate, PictureTarget(at_width(picture, width_px)))

    def _scored(self, candidate: Candidate, target: PictureTarget) -> Candidate:
        try:
            page = self.windows.renderer(candidate.width_px).render(candidate.html, CAPTURE)
        except RenderError as error:
            return replace(candidate, error=error.problem)
        return replace(candidate, page=page, score=target.score(page))


class Windows:
    """Renderers by the width of their window: the usual one stays, of the others the last."""

    def __init__(self) -> None:
        self._renderers: dict[int, Renderer] = {}

    def renderer(self, width_px: int) -> Renderer:
        """The renderer whose window has that width."""
        if width_px not in self._renderers:
            for other in self._renderers.keys() - {VIEWPORT_WIDTH_PX}:
                self._renderers.pop(other).close()
            config = RenderConfig(viewport_width_px=width_px, viewport_height_px=64)
            self._renderers[width_px] = Renderer(config)
        return self._renderers[width_px]

    def close(self) -> None:
        """Ends all browsers."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()


def _writing(folder: str | Path | None, writer: PageWriter | None, *, is_lazy: bool) -> WriterEngine:
    """Who was named writes any page. The model that ships knows pages of one kind, and loads when such a one comes."""
    if writer is not None:
        return WriterEngine(writer)

    def load() -> PageWriter:
        from lensmith.workflows.html.local import LocalWriter  # noqa: PLC0415 - the other engines need no torch

        return LocalWriter.load(folder)

    if folder is not None:
        return WriterEngine(load(), width_px=VIEWPORT_WIDTH_PX)
    return WriterEngine(load if is_lazy else load(), has_our_colours, width_px=VIEWPORT_WIDTH_PX)


def _likely_first(engines: Sequence[PageEngine], picture: Image.Image) -> list[PageEngine]:
    """As they stand, but those last that the picture does not suit."""
    return sorted(engines, key=lambda engine: not engine.suits(picture))


def _why_not(engine: PageEngine, picture: Image.Image, candidates: Sequence[Candidate]) -> str:
    """Why an engine is not asked after the candidates that there are; empty if it is."""
    best = max((candidate.rank for candidate in candidates), default=-1.0)
    if best >= CLOSE_ENOUGH:
        return f"as there is a page that looks {best:.0%} like the screenshot"
    if best >= 0 and not engine.suits(picture):
        return "as the screenshot has colours that its pages do not have"
    return ""


def _candidate(proposal: Proposal, engine: PageEngine) -> Candidate:
    return Candidate(
        html=proposal.html,
        finish=proposal.finish,
        repairs=proposal.repairs,
        engine=engine.name,
        width_px=proposal.width_px,
    )


def at_width(picture: Image.Image, width_px: int) -> Image.Image:
    """A wider picture scaled down to the width of the window, as the model sees it too."""
    if picture.width <= width_px:
        return picture
    height_px = max(1, round(picture.height * width_px / picture.width))
    return picture.resize((width_px, height_px), Image.Resampling.LANCZOS)


def convert_file(
    picture: Path,
    out: Path,
    *,
    engine: EngineName = EngineName.AUTO,
    model: str | Path | None = None,
    writer: PageWriter | None = None,
    samples: int = 1,
    seed: int = 0,
    on_text: Callable[[str], None] | None = None,
    on_step: OnStep = untold,
) -> ConvertedFile:
    """Convert one picture file. Who writes, where the engine is not layout: `writer`, else the model in `model`, else
    the one that ships.

    Raises ImageError where it is no usable picture, before any model is loaded or asked.
    """
    image = open_picture(picture)
    with Converter.load(model, engine=engine, writer=writer) as converter:
        conversion = converter.convert(image, samples=samples, seed=seed, on_text=on_text, on_step=on_step)
    best = conversion.best
    write_atomic(out, best.html.encode())
    return ConvertedFile(
        out=out,
        score=best.score,
        overall=None if best.score is None else best.score.overall,
        chosen=conversion.candidates.index(best),
        scores=tuple(None if c.score is None else c.score.overall for c in conversion.candidates),
        engines=tuple(c.engine for c in conversion.candidates),
        unasked=conversion.unasked,
        complete=best.finish is Finish.STOP,
        repairs=best.repairs,
        seconds=conversion.seconds,
    )
