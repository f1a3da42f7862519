"""Scores of a screenshot-to-HTML model on pages with known HTML, beside two baselines that cannot read.

Pages are rendered, converted by free-running greedy generation, rendered again, and compared (`evaluate.visual`).
Generated pages come from a stream that no recipe trains on.
"""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lensmith.core.endpoint import Finish
from lensmith.core.errors import InputError, RenderError
from lensmith.core.images import open_picture
from lensmith.core.types import OnProgress, Page, unwatched
from lensmith.data.webpages.grammar.pages import VIEWPORT_WIDTH_PX, generate_page
from lensmith.data.webpages.grammar.stylesheet import stand_alone
from lensmith.data.webpages.real.pinned import real_pages_named
from lensmith.evaluate.visual.baselines import blank_page, nearest_pages, thumbnail
from lensmith.evaluate.visual.design2code.score import WINDOW, Design2CodeScore, score_pairs
from lensmith.evaluate.visual.pixels import RgbArray
from lensmith.evaluate.visual.score import VisualScore, VisualSummary, score_pages, summarise
from lensmith.evaluate.visual.ways import ScoreWay
from lensmith.models.families.registry import DEFAULT_MODEL
from lensmith.recipes import recipe_named
from lensmith.render import Assets, Capture, HtmlFile, Renderer
from lensmith.workflows.html.convert import CAPTURE, Candidate, Converter
from lensmith.workflows.html.engines import EngineName
from lensmith.workflows.html.gallery import ReportPage, write_report

HELD_OUT_SEED = 1_000_003
PAGES_AT_ONCE = 8
REAL_WIDTH_PX = 1280


@dataclass(frozen=True, kw_only=True)
class TargetPage:
    """A page to convert: its name, its HTML and its rendering."""

    name: str
    html: str | bytes
    page: Page


@dataclass(frozen=True, kw_only=True)
class FailedPage:
    """A page that cannot be converted, because it cannot be read or rendered; it is in no score."""

    name: str
    problem: str


@dataclass(frozen=True, kw_only=True)
class ScoredPage:
    """A target, what the model made of it, and how close that looks."""

    target: TargetPage
    prediction: Candidate
    score: VisualScore


@dataclass(frozen=True, kw_only=True)
class ComparedScores:
    """The model beside its baselines, which are scored on the same pages, in the same way."""

    model: VisualSummary
    blank: VisualSummary
    nearest: VisualSummary | None
    nearest_among: int

    def table(self, title: str = "") -> list[str]:
        """Lines of text."""
        columns = {"model": self.model, "blank page": self.blank}
        if self.nearest is not None:
            columns[f"nearest of {self.nearest_among}"] = self.nearest
        lines = [f"{title:24}" + "".join(f"{column:>20}" for column in columns)]
        for name in self.model.metrics:
            cells = [summary.metrics.get(name) for summary in columns.values()]
            shown = ["-" if cell is None else f"{cell.mean:.3f} ± {cell.stderr or 0:.3f}" for cell in cells]
            lines.append(f"{name:24}" + "".join(f"{cell:>20}" for cell in shown))
        return lines


@dataclass(frozen=True, kw_only=True)
class HtmlScores(ComparedScores):
    """What `lensmith eval html` prints: scores by geometry, and Design2Code's terms where they were asked for.

    `ended` is the share of pages whose generation came to its own end. `seconds` is conversion and rendering together.
    `failed` pages are in no number.
    """

    pages: str
    ended: float
    seconds: float
    failed: tuple[FailedPage, ...] = ()
    way: ScoreWay = ScoreWay.GEOMETRY
    design2code: ComparedScores | None = None

    def __str__(self) -> str:
        failed = f"{len(self.failed)} more cannot be rendered, " if self.failed else ""
        lines = [f"{self.pages}: {self.model.n} pages, {failed}{self.ended:.0%} ended, {self.seconds:.0f} s"]
        if self.way is not ScoreWay.DESIGN2CODE:
            lines += self.table()
        if self.design2code is not None:
            lines += self.design2code.table("as Design2Code")
        lines += [f"{page.name}: {page.problem}" for page in self.failed]
        return "\n".join(lines)


def run(
    pages: str,
    *,
    engine: EngineName = EngineName.MODEL,
    model: str | Path | None = None,
    width_px: int | None = None,
    samples: int = 1,
    nearest_among: int = 1000,
    report: Path | None = None,
    way: ScoreWay = ScoreWay.GEOMETRY,
    on_progress: OnProgress = unwatched,
) -> HtmlScores:
    """Score an engine (its model the one in `model`, or that which ships) on `grammar:N`, `real:SPLIT[:N]`, or a folder
    of HTML files.

    `width_px`: the window that the targets are rendered in; None for the one that generated pages are meant for, or
    1280 where pages are of the real web or measured.
    The nearest-page baseline looks among the first `nearest_among` pages of the shipped model's training stream; 0
    leaves it out. Geometry is scored whatever `way` says, as the report shows it. A page that cannot be rendered costs
    itself only. Raises InputError where no page can.
    """
    began = time.monotonic()
    if width_px is None:
        is_generated = engine is EngineName.MODEL and not pages.startswith("real:")
        width_px = VIEWPORT_WIDTH_PX if is_generated else REAL_WIDTH_PX
    with Converter.load(model, engine=engine) as converter:
        found = target_pages(pages, converter.windows.renderer(width_px))
        targets = [page for page in found if isinstance(page, TargetPage)]
        failed = tuple(page for page in found if isinstance(page, FailedPage))
        if not targets:
            problems = "; ".join(f"{page.name}: {page.problem}" for page in failed[:5])
            raise InputError(f"none of the {len(failed)} pages can be rendered", actual=problems)
        scored = []
        for page in scored_pages(converter, targets, samples=samples):
            scored.append(page)
            on_progress(len(scored), len(targets))
        seconds = time.monotonic() - began
        lookalikes = nearest_documents(targets, converter.renderer, nearest_among) if nearest_among else None
        nearest = None if lookalikes is None else geometry_scores(targets, lookalikes, converter.renderer)
    if report is not None:
        write_report(
            report,
            [report_page(page) for page in scored],
            title="Screenshot to HTML",
            lead=f"{pages}, engine {engine.value}, one answer each.",
        )
    return HtmlScores(
        pages=pages,
        model=summarise([page.score for page in scored]),
        blank=summarise(
            [score_pages(target.page, blank_page(target.page.width_px, target.page.height_px)) for target in targets]
        ),
        nearest=None if nearest is None else summarise(nearest),
        nearest_among=nearest_among,
        ended=sum(page.prediction.finish is Finish.STOP for page in scored) / len(scored),
        seconds=seconds,
        failed=failed,
        way=way,
        design2code=None if way is ScoreWay.GEOMETRY else compared_as_design2code(scored, lookalikes, nearest_among),
    )


def target_pages(pages: str, renderer: Renderer) -> list[TargetPage | FailedPage]:
    """The pages that `grammar:N`, `real:SPLIT[:N]` or a folder names, rendered, in order.

    Files are decoded as `Renderer.render` decodes bytes, and may read their folder. Raises InputError where there are
    none.
    """
    documents: list[tuple[str, str | HtmlFile | OSError]]
    match = re.fullmatch(r"grammar:([1-9]\d*)", pages)
    if match:
        named = [(f"grammar:{index}", generate_page(HELD_OUT_SEED, index)) for index in range(int(match[1]))]
        documents = [(name, stand_alone(page.html, title=page.idea.split(":")[0])) for name, page in named]
    elif pages.startswith("real:"):
        documents = [(page.file.name, _content(page.file)) for page in real_pages_named(pages)]
    else:
        documents = [(path.name, _content(path)) for path in sorted(Path(pages).glob("*.html"))]
    if not documents:
        expected = "grammar:N, real:tune[:N], real:test[:N] or a folder of .html files"
        raise InputError("there are no pages to convert", expected=expected, actual=pages)
    rendered = renderer.render_many((html for _, html in documents if not isinstance(html, OSError)), CAPTURE)
    found: list[TargetPage | FailedPage] = []
    for name, html in documents:
        page = html if isinstance(html, OSError) else next(rendered)
        if isinstance(page, Page) and not isinstance(html, OSError):
            found.append(TargetPage(name=name, html=html.html if isinstance(html, HtmlFile) else html, page=page))
        else:
            found.append(FailedPage(name=name, problem=str(page).replace("\n", ";")))
    return found


def _content(path: Path) -> HtmlFile | OSError:
    try:
        return HtmlFile(html=path.read_bytes(), assets=Assets.beside(path))
    except OSError as error:
        return error


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


def _scored(target: TargetPage, candidate: Candidate) -> ScoredPage:
    score = VisualScore.of_failure() if candidate.page is None else score_pages(target.page, candidate.page)
    return ScoredPage(target=target, prediction=candidate, score=score)


def report_page(page: ScoredPage) -> ReportPage:
    """The page as a report shows it."""
    answer = page.prediction.page
    return ReportPage(
        name=page.target.name,
        target_png=page.target.page.png,
        answer_png=answer.png if answer else None,
        answer_html=page.prediction.html,
        scores={
            "blocks": page.score.block_match,
            "text": page.score.text,
            "position": page.score.position,
            "colour": page.score.colour,
            "pixels": page.score.pixel or 0.0,
        },
        remark=page.prediction.error or ("" if page.prediction.finish is Finish.STOP else "generation hit its limit"),
    )


def nearest_documents(targets: Sequence[TargetPage], renderer: Renderer, among: int) -> list[str]:
    """For each target the training page that looks most like it."""
    found = nearest_pages(
        [thumbnail(open_picture(target.page.png)) for target in targets], _training_pages(renderer, among)
    )
    return [_training_document(nearest.page) for nearest in found]


def geometry_scores(targets: Sequence[TargetPage], answers: Sequence[str], renderer: Renderer) -> list[VisualScore]:
    """The scores of answering each target with a document."""
    scores = []
    for target, page in zip(targets, renderer.render_many(answers, CAPTURE), strict=True):
        scores.append(VisualScore.of_failure() if isinstance(page, RenderError) else score_pages(target.page, page))
    return scores


def compared_as_design2code(
    scored: Sequence[ScoredPage], lookalikes: Sequence[str] | None, among: int
) -> ComparedScores:
    """Design2Code's terms of the same answers and baselines. A blank page has no text, and so scores 0 there."""
    targets = [page.target for page in scored]
    with Renderer(WINDOW) as renderer:
        model = design2code_scores(targets, [page.prediction.html for page in scored], renderer)
        nearest = None if lookalikes is None else design2code_scores(targets, lookalikes, renderer)
    return ComparedScores(
        model=summarise(model),
        blank=summarise([Design2CodeScore.of_failure() for _ in targets]),
        nearest=None if nearest is None else summarise(nearest),
        nearest_among=among,
    )


def design2code_scores(
    targets: Sequence[TargetPage], answers: Sequence[str], renderer: Renderer
) -> list[Design2CodeScore]:
    """The scores of answering each target with a document. Files are read as UTF-8, as Design2Code's code does."""
    wanted = (
        target.html if isinstance(target.html, str) else target.html.decode("utf-8", "replace") for target in targets
    )
    scores = score_pairs(zip(wanted, answers, strict=True), renderer)
    return [Design2CodeScore.of_failure() if isinstance(score, RenderError) else score for score in scores]


def _training_document(index: int) -> str:
    return stand_alone(generate_page(recipe_named(DEFAULT_MODEL).page_seed, index).html)


def _training_pages(renderer: Renderer, among: int) -> Iterator[tuple[RgbArray, int]]:
    documents = (_training_document(index) for index in range(among))
    for index, page in enumerate(renderer.render_many(documents, Capture.PICTURE)):
        if not isinstance(page, RenderError):
            yield thumbnail(open_picture(page.png)), index
