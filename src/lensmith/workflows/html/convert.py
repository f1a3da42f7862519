"""Screenshot to HTML: engines propose pages, each is rendered and compared, the one that looks closest is kept.

It can be refined: its engine sees what its page came to and tries again, and an answer is kept only if it is closer.

After Sightseer (WebSight, arXiv 2403.09029). Where we differ: the result is never a model's raw output. It is well
formed and stands alone, and it is rendered and compared with the screenshot, so that of several candidates the best can
be kept and a person is told how close it came; and a model is not the only one that may propose a page.
"""

import io
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Self

from PIL import Image

from lensmith.core.endpoint import Finish
from lensmith.core.errors import InputError, RenderError
from lensmith.core.images import open_picture
from lensmith.core.types import OnStep, Page, untold
from lensmith.data.webpages.grammar.pages import VIEWPORT_WIDTH_PX
from lensmith.evaluate.visual.picture_score import PictureScore, PictureTarget
from lensmith.render import Assets, Capture, RenderConfig, Renderer
from lensmith.workflows.html.engines import (
    EngineName,
    LayoutEngine,
    PageEngine,
    Proposal,
    ShownPage,
    WriterEngine,
    has_our_colours,
    width_of,
)
from lensmith.workflows.html.pictures import PageWithPictures, PictureMode, check_place, write_page
from lensmith.workflows.html.seen import Measurer
from lensmith.workflows.html.writers import InstructedWriter, OnText, PageWriter

CAPTURE = Capture.PICTURE | Capture.TEXTS | Capture.STYLES
COMPARING = "comparing the page with the screenshot"
"""What an `OnStep` is told where a candidate is judged."""
CLOSE_ENOUGH = 0.93
"""A page that looks so like its screenshot ends the search: the other engines are not asked."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One answer: a whole document, its rendering, and how close that comes. `error` says why it did not render.

    `engine` made it, for a window of `width_px`. Of candidates for windows of different widths, `at_one_width` says how
    close each comes where all are as wide as the narrowest. `notes`: what a person should know of it.
    """

    html: str
    finish: Finish
    repairs: tuple[str, ...]
    engine: str
    width_px: int
    page: Page | None = None
    score: PictureScore | None = None
    error: str | None = None
    at_one_width: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def rank(self) -> float:
        if self.at_one_width is not None:
            return self.at_one_width
        return -1.0 if self.score is None else self.score.overall


@dataclass(frozen=True, kw_only=True)
class RefineRound:
    """One round of render and compare: how close its engine's page came before and after; None: it did not render."""

    engine: str
    before: float
    after: float | None

    @property
    def is_kept(self) -> bool:
        return self.after is not None and self.after > self.before

    def __str__(self) -> str:
        came = "did not render" if self.after is None else f"{self.after:.3f}"
        return f"{self.before:.3f} -> {came}, {'kept' if self.is_kept else 'not kept'}"


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """The rounds that refined a page, and why there were no more of them; empty where all that were asked for were."""

    rounds: tuple[RefineRound, ...] = ()
    ended: str = ""

    def lines(self) -> list[str]:
        """What each round gave, for people."""
        lines = [f"refined, round {number}: {each}" for number, each in enumerate(self.rounds, start=1)]
        return [*lines, f"not refined {'further' if lines else 'at all'}: {self.ended}"] if self.ended else lines


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """All candidates in the order they were made; `best` is the one that looks closest.

    `unasked`: the engines that were not asked, and why. Answers of `refinement` are candidates too.
    """

    picture: Image.Image
    candidates: tuple[Candidate, ...]
    seconds: float
    unasked: dict[str, str]
    refinement: Refinement = Refinement()

    @property
    def best(self) -> Candidate:
        return max(self.candidates, key=lambda candidate: candidate.rank)


@dataclass(frozen=True, kw_only=True)
class ConvertedFile:
    """What `lensmith html` prints. `scores` are the candidates' in order, all at one width, None for one that did not
    render, `engines` who made them; `unasked` says of the other engines why they were not asked. `score` is of the page
    as it was written; `notes` say what else there is to say of it, `error` why it did not render."""

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
    notes: tuple[str, ...] = ()
    error: str | None = None
    refinement: Refinement = Refinement()

    def __str__(self) -> str:
        lines = [f"{self.out}: {closeness(self.overall, self.error)} ({self.seconds:.1f} s)"]
        if len(self.scores) > 1:
            shown = ", ".join(
                f"{engine} {'failed' if score is None else f'{score:.3f}'}"
                for engine, score in zip(self.engines, self.scores, strict=True)
            )
            lines.append(f"  kept candidate {self.chosen + 1} of {len(self.scores)}: {shown}")
        else:
            lines.append(f"  by the engine {self.engines[0]}")
        lines += [f"  not asked: {engine}, {reason}" for engine, reason in self.unasked.items()]
        lines += [f"  {line}" for line in self.refinement.lines()]
        if self.score is not None:
            lines.append(
                f"  blocks {self.score.block_match:.2f}  text {self.score.text_recall:.2f}"
                f"  position {self.score.position_recall:.2f}  colour {self.score.colour_recall:.2f}"
                f"  pixels {self.score.pixel:.2f}"
            )
        if not self.complete:
            lines.append("  the model had not finished when its limit came; the page may lack its end")
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def closeness(overall: float | None, error: str | None) -> str:
    """How a page came out, in words."""
    if overall is None:
        return f"its rendering failed: {error}" if error else "its rendering failed"
    return f"looks {overall:.0%} like the screenshot"


class Converter:
    """Engines and a browser, kept warm. A context manager; `convert` may be called any number of times."""

    def __init__(self, engines: Sequence[PageEngine] = ()) -> None:
        """`engines` are asked in this order; `windows` and `measurer` are theirs too."""
        self.windows = Windows()
        self.measurer = Measurer()
        self.engines = list(engines)

    @classmethod
    def load(
        cls,
        folder: str | Path | None = None,
        *,
        engine: EngineName = EngineName.MODEL,
        writer: PageWriter | None = None,
        ocr: bool = False,
    ) -> Self:
        """The engines of that name. Who writes is `writer`, else the model in `folder`, else the one that ships.

        `ocr`: a writer is told the measured texts and their boxes. Raises InputError where it takes no words, or where
        there is no model.
        """
        if ocr and not isinstance(writer, InstructedWriter):
            raise InputError(
                "hints from the screenshot's text need a writer that takes an instruction",
                expected="an endpoint",
                actual="none" if writer is None else "a model that is shown the picture alone",
            )
        converter = cls()
        if engine is not EngineName.LAYOUT:
            is_lazy = engine is EngineName.AUTO
            converter.engines.append(_writing(folder, writer, converter.measurer, is_lazy=is_lazy, is_hinted=ocr))
        if engine is not EngineName.MODEL:
            converter.engines.append(LayoutEngine(converter.windows.renderer, converter.measurer))
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
        refine: int = 0,
        on_text: OnText | None = None,
        on_step: OnStep = untold,
    ) -> Conversion:
        """Candidates of each engine that has a chance, until one is close enough.

        A writer's first is greedy and is streamed to `on_text`; further ones, up to `samples`, are sampled. The closest
        is then refined in up to `refine` rounds. `on_step` is told of the engines' steps, and of each comparison.
        """
        if samples < 1 or refine < 0:
            raise InputError(
                "there is nothing to make",
                expected="at least one sample, and no less than 0 rounds",
                actual=f"{samples} and {refine}",
            )
        began = time.monotonic()
        on_text = on_text or (lambda piece: None)
        candidates: list[Candidate] = []
        unasked: dict[str, str] = {}
        # What the screenshot shows is found while the engines are at work: they seldom have a use for all cores.
        with ThreadPoolExecutor(1, thread_name_prefix="looking") as looking:
            likely_px = width_of(picture)
            targets = {likely_px: looking.submit(PictureTarget, at_width(picture, likely_px))}
            for engine in _likely_first(self.engines, picture):
                reason = _why_not(engine, picture, candidates)
                if reason:
                    unasked[engine.name] = reason
                    continue
                for proposal in engine.propose(picture, samples=samples, seed=seed, on_text=on_text, on_step=on_step):
                    on_step(COMPARING)
                    width_px = proposal.width_px
                    if width_px not in targets:
                        targets[width_px] = looking.submit(PictureTarget, at_width(picture, width_px))
                    candidates.append(self._scored(_candidate(proposal, engine), targets[width_px].result()))
        candidates = _at_one_width(candidates, picture)
        refinement = Refinement()
        if refine and candidates:
            best = max(candidates, key=lambda candidate: candidate.rank)
            engine = next(engine for engine in self.engines if engine.name == best.engine)
            better, refinement = self._refined(best, engine, picture, rounds=refine, seed=seed, told=(on_text, on_step))
            candidates = _at_one_width([*candidates, *better], picture)
        return Conversion(
            picture=picture,
            candidates=tuple(candidates),
            seconds=time.monotonic() - began,
            unasked=unasked,
            refinement=refinement,
        )

    def _refined(
        self,
        best: Candidate,
        engine: PageEngine,
        picture: Image.Image,
        *,
        rounds: int,
        seed: int,
        told: tuple[OnText, OnStep],
    ) -> tuple[list[Candidate], Refinement]:
        """The answers of an engine that is shown its page, the closest so far each time, and what each round gave."""
        on_text, on_step = told
        answers: list[Candidate] = []
        done: list[RefineRound] = []
        ended, in_vain = engine.why_not_refined(), 0
        target = PictureTarget(at_width(picture, best.width_px))
        while not ended and len(done) < rounds:
            if best.page is None or best.score is None:
                ended = "its page did not render"
                break
            shown = ShownPage(html=best.html, page=best.page, round=len(done) + 1, in_vain=in_vain)
            proposal = engine.refined(picture, shown, seed=seed, on_text=on_text, on_step=on_step)
            if proposal is None:
                ended = "nothing was found that could be done better"
                break
            on_step(COMPARING)
            answer = self._scored(_candidate(replace(proposal, width_px=best.width_px), engine), target)
            after = None if answer.score is None else answer.score.overall
            done.append(RefineRound(engine=engine.name, before=best.score.overall, after=after))
            answers.append(answer)
            if done[-1].is_kept:
                best, in_vain = answer, 0
            else:
                in_vain += 1
        return answers, Refinement(rounds=tuple(done), ended=ended)

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

    def judge(
        self, html: str, picture: Image.Image, assets: Assets | None = None, *, width_px: int | None = None
    ) -> Candidate:
        """A page that someone made, as a candidate for a picture, in a window of that width; None: the picture's.

        `assets`: the folder that it may read.
        """
        width_px = width_px or width_of(picture)
        candidate = Candidate(html=html, finish=Finish.STOP, repairs=(), engine="file", width_px=width_px)
        return self._scored(candidate, PictureTarget(at_width(picture, width_px)), assets)

    def keep(self, candidate: Candidate, picture: Image.Image, out: Path, mode: PictureMode) -> "Kept":
        """Writes a candidate's page, by `write_page`, which says what it raises.

        One that lost its pictures looks otherwise: it is rendered and compared again.
        """
        page = write_page(out, candidate.html, mode)
        if mode is PictureMode.NONE and page.pictures:
            bare = replace(candidate, html=page.html, page=None, score=None, error=None)
            candidate = self._scored(bare, PictureTarget(at_width(picture, candidate.width_px)))
        return Kept(candidate=candidate, notes=_of_pictures(page, mode, out))

    def _scored(self, candidate: Candidate, target: PictureTarget, assets: Assets | None = None) -> Candidate:
        try:
            page = self.windows.renderer(candidate.width_px).render(candidate.html, CAPTURE, assets=assets)
        except RenderError as error:
            return replace(candidate, error=error.problem)
        return replace(candidate, page=page, score=target.score(page))


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A candidate as it was written, and what there is to say of that."""

    candidate: Candidate
    notes: tuple[str, ...]


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


def _at_one_width(candidates: Sequence[Candidate], picture: Image.Image) -> list[Candidate]:
    """The candidates, comparable: where their windows differ, renderings and screenshot are made as wide as the
    narrowest, because what is scaled down looks more alike."""
    shown = [candidate for candidate in candidates if candidate.page is not None]
    widths = {candidate.width_px for candidate in shown}
    if len(widths) < 2:
        return list(candidates)
    narrowest = min(widths)
    target = PictureTarget(at_width(picture, narrowest))
    return [
        replace(candidate, at_one_width=_overall_at(narrowest, candidate.page, target)) if candidate.page else candidate
        for candidate in candidates
    ]


def _overall_at(width_px: int, page: Page, target: PictureTarget) -> float:
    scaled = at_width(Image.open(io.BytesIO(page.png)).convert("RGB"), width_px)
    data = io.BytesIO()
    scaled.save(data, "PNG", compress_level=1)
    return target.score(Page(width_px=scaled.width, height_px=scaled.height, png=data.getvalue())).overall


def _writing(
    folder: str | Path | None, writer: PageWriter | None, measurer: Measurer, *, is_lazy: bool, is_hinted: bool
) -> WriterEngine:
    """Who was named writes any page. The model that ships knows pages of one kind, and loads when such a one comes."""
    if writer is not None:
        return WriterEngine(writer, measurer=measurer, is_hinted=is_hinted)

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


def _of_pictures(page: PageWithPictures, mode: PictureMode, out: Path) -> tuple[str, ...]:
    """What became of a page's pictures, where it has any that are not inside it."""
    if not page.pictures:
        return ()
    many = "1 picture" if page.pictures == 1 else f"{page.pictures:,} pictures"
    return (
        (f"{many} beside it in {out.stem}_files",)
        if mode is PictureMode.FILES
        else (f"without its {many}: grey boxes stand in their places",)
    )


def _candidate(proposal: Proposal, engine: PageEngine) -> Candidate:
    return Candidate(
        html=proposal.html,
        finish=proposal.finish,
        repairs=proposal.repairs,
        engine=engine.name,
        width_px=proposal.width_px,
        notes=proposal.notes,
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
    refine: int = 0,
    ocr: bool = False,
    assets: PictureMode = PictureMode.EMBED,
    on_text: Callable[[str], None] | None = None,
    on_step: OnStep = untold,
) -> ConvertedFile:
    """Convert one picture file. Who writes, where the engine is not layout: `writer`, else the model in `model`, else
    the one that ships; `ocr` tells it what was measured. `assets`: what becomes of the page's pictures.

    Raises ImageError where it is no usable picture, before any model is loaded or asked; InputError as `write_page`.
    """
    check_place(out, assets)
    image = open_picture(picture)
    with Converter.load(model, engine=engine, writer=writer, ocr=ocr) as converter:
        conversion = converter.convert(
            image, samples=samples, seed=seed, refine=refine, on_text=on_text, on_step=on_step
        )
        kept = converter.keep(conversion.best, image, out, assets)
    best = kept.candidate
    return ConvertedFile(
        out=out,
        score=best.score,
        overall=None if best.score is None else best.score.overall,
        chosen=conversion.candidates.index(conversion.best),
        scores=tuple(None if c.score is None else c.rank for c in conversion.candidates),
        engines=tuple(c.engine for c in conversion.candidates),
        unasked=conversion.unasked,
        complete=best.finish is Finish.STOP,
        repairs=best.repairs,
        seconds=conversion.seconds,
        notes=(*best.notes, *kept.notes),
        error=best.error,
        refinement=conversion.refinement,
    )
