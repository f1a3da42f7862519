"""Who answers where screenshots of known pages are converted: engines, other tools, and baselines that cannot read.

Engines of one run share a memory: what `layout` and the model proposed for a picture is not proposed anew for `auto`.
Each column of answers is a list of scored pages, in the order of the targets.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from lensmith.core.endpoint import Finish
from lensmith.core.errors import InputError, RenderError
from lensmith.core.images import open_picture
from lensmith.core.types import OnStep, Page, untold
from lensmith.evaluate.visual.baselines import blank_page
from lensmith.evaluate.visual.score import VisualScore, score_pages
from lensmith.render import Assets, HtmlFile, Renderer
from lensmith.workflows.html.convert import CAPTURE, Candidate, Converter
from lensmith.workflows.html.engines import EngineName, PageEngine, Proposal, ShownPage
from lensmith.workflows.html.writers import OnText

PAGES_AT_ONCE = 8
BLANK_HTML = '<!DOCTYPE html><html><head><meta charset="utf-8"><title></title></head><body></body></html>'


@dataclass(frozen=True, kw_only=True)
class TargetPage:
    """A page to convert: its name, its HTML, its rendering, and what of its folder it may read."""

    name: str
    html: str | bytes
    page: Page
    assets: Assets | None = None

    @property
    def text(self) -> str:
        """Its HTML, read as UTF-8, as Design2Code's code does."""
        return self.html if isinstance(self.html, str) else self.html.decode("utf-8", "replace")

    @property
    def document(self) -> HtmlFile:
        """What a browser is to read."""
        return HtmlFile(html=self.html, assets=self.assets)


@dataclass(frozen=True, kw_only=True)
class ScoredPage:
    """A target, what was made of it, and how close that looks. `file`: the answer, where it is a file in a folder."""

    target: TargetPage
    prediction: Candidate
    score: VisualScore
    file: HtmlFile | None = None

    @property
    def document(self) -> HtmlFile:
        """What a browser is to read."""
        return self.file or HtmlFile(html=self.prediction.html, assets=None)


@dataclass(frozen=True, kw_only=True)
class Answered:
    """All answers of one who answers, in the order of the targets, and the seconds that it would take alone."""

    pages: tuple[ScoredPage, ...]
    seconds: float = 0.0

    @property
    def ended(self) -> float:
        """The share of answers that came to their own end."""
        return sum(page.prediction.finish is Finish.STOP for page in self.pages) / len(self.pages)

    @property
    def failed(self) -> int:
        """How many answers are missing or cannot be rendered."""
        return sum(page.prediction.page is None for page in self.pages)


class Remembered:
    """An engine that proposes for each picture once, and gives the same when it is asked again."""

    def __init__(self, engine: PageEngine) -> None:
        self._engine = engine
        self._known: dict[tuple[bytes, int, int], tuple[list[Proposal], float]] = {}
        self.spared_s = 0.0
        """Seconds that were not spent, because the proposals were known."""

    @property
    def name(self) -> str:
        return self._engine.name

    def suits(self, picture: Image.Image) -> bool:
        return self._engine.suits(picture)

    def propose(
        self, picture: Image.Image, *, samples: int, seed: int, on_text: OnText, on_step: OnStep = untold
    ) -> list[Proposal]:
        key = _key(picture, samples, seed)
        if key not in self._known:
            began = time.monotonic()
            proposals = self._engine.propose(picture, samples=samples, seed=seed, on_text=on_text, on_step=on_step)
            self._known[key] = proposals, time.monotonic() - began
            return proposals
        return self._recalled(key)

    def propose_many(self, pictures: Sequence[Image.Image]) -> list[Proposal]:
        keys = [_key(picture, 1, 0) for picture in pictures]
        new = {key: picture for key, picture in zip(keys, pictures, strict=True) if key not in self._known}
        began = time.monotonic()
        made = self._engine.propose_many(list(new.values())) if new else []
        each_s = (time.monotonic() - began) / max(1, len(new))
        for key, proposal in zip(new, made, strict=True):
            self._known[key] = [proposal], each_s
        return [self._known[key][0][0] if key in new else self._recalled(key)[0] for key in keys]

    def why_not_refined(self) -> str:
        return self._engine.why_not_refined()

    def refined(
        self, picture: Image.Image, shown: ShownPage, *, seed: int, on_text: OnText, on_step: OnStep
    ) -> Proposal | None:
        return self._engine.refined(picture, shown, seed=seed, on_text=on_text, on_step=on_step)

    def _recalled(self, key: tuple[bytes, int, int]) -> list[Proposal]:
        proposals, seconds = self._known[key]
        self.spared_s += seconds
        return proposals


def _key(picture: Image.Image, samples: int, seed: int) -> tuple[bytes, int, int]:
    """What a proposal depends on; the first answer of a writer is greedy, so that one sample has no seed."""
    content = hashlib.sha256(f"{picture.mode} {picture.size} ".encode() + picture.tobytes()).digest()
    return content, samples, seed if samples > 1 else 0


def load_converter(engines: Sequence[EngineName], model: str | Path | None) -> Converter:
    """A converter with all engines that are to answer, each with a memory. Raises InputError without a model."""
    if not engines:
        return Converter()
    converter = Converter.load(model, engine=engines[0] if len(set(engines)) == 1 else EngineName.AUTO)
    converter.engines = [Remembered(engine) for engine in converter.engines]
    return converter


def engine_answers(
    converter: Converter,
    name: EngineName,
    targets: Sequence[TargetPage],
    *,
    samples: int = 1,
    on_page: Callable[[], None] = lambda: None,
) -> Answered:
    """The answers of one of the engines of `load_converter`, or of all together."""
    every = converter.engines
    asked = [engine for engine in every if name is EngineName.AUTO or engine.name == name.value]
    memories = [engine for engine in asked if isinstance(engine, Remembered)]
    began, spared_s = time.monotonic(), sum(memory.spared_s for memory in memories)
    converter.engines = asked
    try:
        pages = []
        for page in scored_pages(converter, targets, samples=samples):
            pages.append(page)
            on_page()
    finally:
        converter.engines = every
    spared_s = sum(memory.spared_s for memory in memories) - spared_s
    return Answered(pages=tuple(pages), seconds=time.monotonic() - began + spared_s)


def scored_pages(converter: Converter, targets: Sequence[TargetPage], *, samples: int = 1) -> Iterator[ScoredPage]:
    """Convert and score each target, in order. With one sample, several pages are generated together."""
    if samples > 1:
        for target in targets:
            best = converter.convert(open_picture(target.page.png), samples=samples).best
            yield _scored(target, best)
        return
    for first in range(0, len(targets), PAGES_AT_ONCE):
        group = targets[first : first + PAGES_AT_ONCE]
        candidates = converter.convert_many([open_picture(target.page.png) for target in group])
        for target, candidate in zip(group, candidates, strict=True):
            yield _scored(target, candidate)


def peer_answers(folder: Path, targets: Sequence[TargetPage], renderer: Renderer) -> Answered:
    """Answers that another tool wrote: `NAME.html` for the target NAME or NAME.html, which may read their folder.

    They are not changed. A missing one is a failure. Raises InputError where the folder has none of them.
    """
    paths = [folder / f"{target.name.removesuffix('.html')}.html" for target in targets]
    if not any(path.is_file() for path in paths):
        expected = ", ".join(path.name for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
        raise InputError(f"{folder} has no answer to any of the {len(targets)} pages", expected=expected)
    documents: list[HtmlFile | str] = []
    for path in paths:
        try:
            documents.append(HtmlFile(html=path.read_bytes(), assets=Assets.beside(path)))
        except OSError as error:
            is_missing = isinstance(error, FileNotFoundError)
            documents.append("there is no answer" if is_missing else f"the answer cannot be read: {error.strerror}")
    return Answered(pages=tuple(_judged("peer", targets, documents, renderer)))


def document_answers(
    name: str, targets: Sequence[TargetPage], documents: Sequence[str], renderer: Renderer
) -> Answered:
    """Answers that are documents, rendered as they are."""
    files = [HtmlFile(html=document, assets=None) for document in documents]
    return Answered(pages=tuple(_judged(name, targets, files, renderer)))


def blank_answers(targets: Sequence[TargetPage]) -> Answered:
    """A white page as large as each target."""
    sizes = [(target.page.width_px, target.page.height_px) for target in targets]
    blank = Candidate(html=BLANK_HTML, finish=Finish.STOP, repairs=(), engine="blank", width_px=sizes[0][0])
    pages = [replace(blank, page=blank_page(*size)) for size in sizes]
    return Answered(pages=tuple(_scored(target, page) for target, page in zip(targets, pages, strict=True)))


def _judged(
    name: str, targets: Sequence[TargetPage], documents: Sequence[HtmlFile | str], renderer: Renderer
) -> Iterator[ScoredPage]:
    """Scores documents in one window; a text in the place of a document says why there is none."""
    width_px = renderer.config.viewport_width_px
    pages = renderer.render_many((file for file in documents if isinstance(file, HtmlFile)), CAPTURE)
    for target, file in zip(targets, documents, strict=True):
        failed = Candidate(html="", finish=Finish.STOP, repairs=(), engine=name, width_px=width_px)
        if isinstance(file, str):
            yield _scored(target, replace(failed, error=file))
            continue
        html = file.html if isinstance(file.html, str) else file.html.decode("utf-8", "replace")
        page = next(pages)
        if isinstance(page, RenderError):
            yield _scored(target, replace(failed, html=html, error=page.problem), file)
        else:
            yield _scored(target, replace(failed, html=html, page=page), file)


def _scored(target: TargetPage, candidate: Candidate, file: HtmlFile | None = None) -> ScoredPage:
    score = VisualScore.of_failure() if candidate.page is None else score_pages(target.page, candidate.page)
    return ScoredPage(target=target, prediction=candidate, score=score, file=file)
