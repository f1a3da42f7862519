"""Screenshot to HTML: generate, repair, render each candidate, keep the one that looks closest.

After Sightseer (WebSight, arXiv 2403.09029). Where we differ: the result is never a model's raw output. It is parsed
and written again, so it is well formed; it stands alone; and it is rendered and compared with the screenshot, so that
of several candidates the best can be kept and a person is told how close it came.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from PIL import Image

from lensmith.core.endpoint import Finish
from lensmith.core.errors import InputError, RenderError
from lensmith.core.files import write_atomic
from lensmith.core.images import open_picture
from lensmith.core.types import Page
from lensmith.data.webpages.grammar.pages import VIEWPORT_WIDTH_PX
from lensmith.data.webpages.grammar.stylesheet import stand_alone
from lensmith.data.webpages.markup.repair import repair
from lensmith.evaluate.visual.picture_score import PictureScore, PictureTarget
from lensmith.render import Capture, RenderConfig, Renderer
from lensmith.workflows.html.writers import Completion, PageWriter

CAPTURE = Capture.PICTURE | Capture.TEXTS


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One answer: a whole document, its rendering, and how close that comes. `error` says why it did not render."""

    html: str
    finish: Finish
    repairs: tuple[str, ...]
    page: Page | None = None
    score: PictureScore | None = None
    error: str | None = None

    @property
    def rank(self) -> float:
        return -1.0 if self.score is None else self.score.overall


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """All candidates in the order they were made; `best` is the one that looks closest."""

    picture: Image.Image
    candidates: tuple[Candidate, ...]
    seconds: float

    @property
    def best(self) -> Candidate:
        return max(self.candidates, key=lambda candidate: candidate.rank)


@dataclass(frozen=True, kw_only=True)
class ConvertedFile:
    """What `lensmith html` prints. `scores` are the candidates' in order, None for one that did not render."""

    out: Path
    score: PictureScore | None
    overall: float | None
    chosen: int
    scores: tuple[float | None, ...]
    complete: bool
    repairs: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        closeness = "its rendering failed" if self.overall is None else f"looks {self.overall:.0%} like the screenshot"
        lines = [f"{self.out}: {closeness} ({self.seconds:.1f} s)"]
        if len(self.scores) > 1:
            shown = ", ".join("failed" if score is None else f"{score:.3f}" for score in self.scores)
            lines.append(f"  kept candidate {self.chosen + 1} of {len(self.scores)}: {shown}")
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
    """A writer and a browser, kept warm. A context manager; `convert` may be called any number of times."""

    def __init__(self, writer: PageWriter) -> None:
        self.writer = writer
        self.renderer = Renderer(RenderConfig(viewport_width_px=VIEWPORT_WIDTH_PX, viewport_height_px=64))

    @classmethod
    def load(cls, folder: str | Path | None = None) -> Self:
        """The model in `folder`, or the one that ships. Raises InputError where there is none."""
        from lensmith.workflows.html.local import LocalWriter  # noqa: PLC0415 - an endpoint's pages need no torch

        return cls(LocalWriter.load(folder))

    def __enter__(self) -> Self:
        self.renderer.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.renderer.close()

    def convert(
        self,
        picture: Image.Image,
        *,
        samples: int = 1,
        seed: int = 0,
        on_text: Callable[[str], None] | None = None,
    ) -> Conversion:
        """The first candidate is greedy and is streamed to `on_text`; further ones are sampled."""
        if samples < 1:
            raise InputError("there is nothing to make", expected="at least one sample", actual=samples)
        began = time.monotonic()
        texts = [self.writer.greedy(picture, on_text or (lambda piece: None))]
        if samples > 1:
            texts += self.writer.sampled(picture, samples - 1, seed)
        target = PictureTarget(_at_page_width(picture))
        candidates = tuple(self._scored(candidate, target) for candidate in map(self._candidate, texts))
        return Conversion(picture=picture, candidates=candidates, seconds=time.monotonic() - began)

    def convert_many(self, pictures: list[Image.Image]) -> Iterator[Candidate]:
        """One greedy candidate a picture, rendered but not scored, several at a time."""
        candidates = [self._candidate(completion) for completion in self.writer.greedy_many(pictures)]
        pages = self.renderer.render_many((candidate.html for candidate in candidates), CAPTURE)
        for candidate, page in zip(candidates, pages, strict=True):
            if isinstance(page, RenderError):
                yield replace(candidate, error=page.problem)
            else:
                yield replace(candidate, page=page)

    def _candidate(self, completion: Completion) -> Candidate:
        repaired = repair(completion.text)
        return Candidate(html=stand_alone(repaired.html), finish=completion.finish, repairs=repaired.changes)

    def _scored(self, candidate: Candidate, target: PictureTarget) -> Candidate:
        try:
            page = self.renderer.render(candidate.html, CAPTURE)
        except RenderError as error:
            return replace(candidate, error=error.problem)
        return replace(candidate, page=page, score=target.score(page))


def _at_page_width(picture: Image.Image) -> Image.Image:
    """A wider picture scaled down to the width that the page is rendered at, as the model sees it too."""
    if picture.width <= VIEWPORT_WIDTH_PX:
        return picture
    height_px = max(1, round(picture.height * VIEWPORT_WIDTH_PX / picture.width))
    return picture.resize((VIEWPORT_WIDTH_PX, height_px), Image.Resampling.LANCZOS)


def convert_file(
    picture: Path,
    out: Path,
    *,
    model: str | Path | None = None,
    writer: PageWriter | None = None,
    samples: int = 1,
    seed: int = 0,
    on_text: Callable[[str], None] | None = None,
) -> ConvertedFile:
    """Convert one picture file, by `writer` or else by the model in `model` or the one that ships.

    Raises ImageError where it is no usable picture, before any model is loaded or asked.
    """
    image = open_picture(picture)
    with Converter.load(model) if writer is None else Converter(writer) as converter:
        conversion = converter.convert(image, samples=samples, seed=seed, on_text=on_text)
    best = conversion.best
    write_atomic(out, best.html.encode())
    return ConvertedFile(
        out=out,
        score=best.score,
        overall=None if best.score is None else best.score.overall,
        chosen=conversion.candidates.index(best),
        scores=tuple(None if c.score is None else c.score.overall for c in conversion.candidates),
        complete=best.finish is Finish.STOP,
        repairs=best.repairs,
        seconds=conversion.seconds,
    )
