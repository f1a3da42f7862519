"""Scores of who turns screenshots into HTML, on pages with known HTML, beside two baselines that cannot read.

Pages are rendered, converted by free-running greedy generation, rendered again, and compared (`evaluate.visual`).
Several engines, and folders of answers that other tools wrote, stand in one table. Generated pages come from a stream
that no recipe trains on.
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
from lensmith.evaluate.visual.baselines import nearest_pages, thumbnail
from lensmith.evaluate.visual.pixels import RgbArray
from lensmith.evaluate.visual.score import VisualSummary
from lensmith.evaluate.visual.ways import ScoreWay
from lensmith.recipes import shipped_page_seed
from lensmith.render import Assets, Capture, HtmlFile, Renderer
from lensmith.workflows.html.answers import (
    Answered,
    ScoredPage,
    TargetPage,
    blank_answers,
    document_answers,
    engine_answers,
    load_converter,
    peer_answers,
)
from lensmith.workflows.html.comparison import (
    BLANK,
    SideBySide,
    compare_answers,
    design2code_table,
    editability_table,
    geometry_table,
    page_table,
)
from lensmith.workflows.html.comparison_report import write_comparison
from lensmith.workflows.html.convert import CAPTURE, Converter
from lensmith.workflows.html.engines import EngineName
from lensmith.workflows.html.gallery import ReportPage

HELD_OUT_SEED = 1_000_003
REAL_WIDTH_PX = 1280
NEAREST = "nearest"


@dataclass(frozen=True, kw_only=True)
class FailedPage:
    """A page that cannot be converted, because it cannot be read or rendered; it is in no score."""

    name: str
    problem: str


@dataclass(frozen=True, kw_only=True)
class ComparedScores:
    """Who answers first (`model`, whoever it is) beside the baselines, scored on the same pages, in the same way."""

    model: VisualSummary
    blank: VisualSummary
    nearest: VisualSummary | None
    nearest_among: int


@dataclass(frozen=True, kw_only=True)
class HtmlScores(ComparedScores):
    """What `lensmith eval html` gives: everybody's scores in `comparison`, and apart those of who answers first.

    Of who answers first, `ended` is the share of pages whose generation came to its own end, and `seconds` conversion
    and rendering together. `failed` pages are in no number.
    """

    pages: str
    ended: float
    seconds: float
    comparison: SideBySide
    answering: tuple[str, ...]
    """The columns that are no baselines, in order."""
    failed: tuple[FailedPage, ...] = ()
    way: ScoreWay = ScoreWay.GEOMETRY
    design2code: ComparedScores | None = None

    def __str__(self) -> str:
        columns = self.comparison.columns
        failed = f", {len(self.failed)} more cannot be rendered" if self.failed else ""
        lines = [f"{self.pages}: {self.model.n} pages{failed}"]
        for name in self.answering:
            column = columns[name]
            missing = f", {column.failed} failed" if column.failed else ""
            took = f", {column.seconds:.0f} s" if column.seconds else ""
            lines.append(f"{column.title}: {column.ended:.0%} ended{missing}{took}")
        if self.way is not ScoreWay.DESIGN2CODE:
            lines += geometry_table(columns)
        lines += design2code_table(columns)
        lines += editability_table(self.comparison)
        lines += [f"{page.name}: {page.problem}" for page in self.failed]
        return "\n".join(lines)

    def by_page(self) -> str:
        """A line for each page and each who answered, the pages first that the first engine did worst."""
        return "\n".join(page_table(self.comparison, self.answering))


def run(
    pages: str,
    *,
    engines: Sequence[EngineName] = (EngineName.MODEL,),
    model: str | Path | None = None,
    width_px: int | None = None,
    samples: int = 1,
    nearest_among: int = 1000,
    peers: Sequence[Path] = (),
    report: Path | None = None,
    way: ScoreWay = ScoreWay.GEOMETRY,
    on_progress: OnProgress = unwatched,
) -> HtmlScores:
    """Score engines (their model the one in `model`, or that which ships) on `grammar:N`, `real:SPLIT[:N]`, or a folder
    of HTML files.

    `width_px`: the window that the targets are rendered in; None for the one that generated pages are meant for, or
    1280 where pages are of the real web or measured.
    The nearest-page baseline looks among the first `nearest_among` pages of the shipped model's training stream; 0
    leaves it out. `peers`: folders of answers that other tools wrote. Geometry is scored whatever `way` says, as the
    report shows it. A page that cannot be rendered costs itself only. Raises InputError where no page can.
    """
    engines = tuple(dict.fromkeys(engines))
    if not engines and not peers:
        raise InputError("nobody answers", expected="an engine, or a folder of answers")
    if width_px is None:
        is_generated = set(engines) == {EngineName.MODEL} and not pages.startswith("real:")
        width_px = VIEWPORT_WIDTH_PX if is_generated else REAL_WIDTH_PX
    began = time.monotonic()
    with load_converter(engines, model) as converter:
        found = target_pages(pages, converter.windows.renderer(width_px))
        targets = [page for page in found if isinstance(page, TargetPage)]
        failed = tuple(page for page in found if isinstance(page, FailedPage))
        if not targets:
            problems = "; ".join(f"{page.name}: {page.problem}" for page in failed[:5])
            raise InputError(f"none of the {len(failed)} pages can be rendered", actual=problems)
        loaded_s = time.monotonic() - began
        columns, titles = all_answers(
            converter, targets, engines, peers, samples=samples, nearest_among=nearest_among, on_progress=on_progress
        )
    comparison = compare_answers(targets, columns, titles, as_design2code=way is not ScoreWay.GEOMETRY)
    answering = tuple(name for name in columns if name not in (BLANK, NEAREST))
    if report is not None:
        shown = ", ".join(titles[name] for name in answering)
        lead = f"{pages}, by {shown}. The pages come first that {titles[answering[0]]} did worst."
        write_comparison(report, comparison, columns, answering, title="Screenshot to HTML", lead=lead)
    first, scores = columns[answering[0]], comparison.columns
    terms = {name: column.design2code for name, column in scores.items() if column.design2code is not None}
    return HtmlScores(
        model=scores[answering[0]].geometry,
        blank=scores[BLANK].geometry,
        nearest=scores[NEAREST].geometry if NEAREST in scores else None,
        nearest_among=nearest_among,
        pages=pages,
        comparison=comparison,
        answering=answering,
        ended=first.ended,
        seconds=loaded_s + first.seconds,
        failed=failed,
        way=way,
        design2code=ComparedScores(
            model=terms[answering[0]], blank=terms[BLANK], nearest=terms.get(NEAREST), nearest_among=nearest_among
        )
        if terms
        else None,
    )


def all_answers(
    converter: Converter,
    targets: Sequence[TargetPage],
    engines: Sequence[EngineName],
    peers: Sequence[Path],
    *,
    samples: int,
    nearest_among: int,
    on_progress: OnProgress,
) -> tuple[dict[str, Answered], dict[str, str]]:
    """Who answers, by the name of the column, and the columns' titles. `auto` comes last of the engines: it is then
    spared what the others have proposed."""
    columns: dict[str, Answered] = {}
    done = 0

    def on_page() -> None:
        nonlocal done
        done += 1
        on_progress(done, len(engines) * len(targets))

    asked = {
        engine: engine_answers(converter, engine, targets, samples=samples, on_page=on_page)
        for engine in sorted(engines, key=lambda engine: engine is EngineName.AUTO)
    }
    columns |= {engine.value: asked[engine] for engine in engines}
    renderer = converter.windows.renderer(targets[0].page.width_px)
    columns |= {name: peer_answers(folder, targets, renderer) for name, folder in peer_names(peers).items()}
    columns[BLANK] = blank_answers(targets)
    if nearest_among:
        lookalikes = nearest_documents(targets, converter.renderer, nearest_among)
        columns[NEAREST] = document_answers(NEAREST, targets, lookalikes, converter.renderer)
    baselines = {BLANK: "blank page", NEAREST: f"nearest of {nearest_among}"}
    return columns, {name: baselines.get(name, name) for name in columns}


def peer_names(folders: Sequence[Path]) -> dict[str, Path]:
    """What folders of answers are called: by their last names, and of equal ones the later by a number too."""
    names: dict[str, Path] = {}
    for folder in folders:
        name = f"peer {folder.resolve().name}"
        alike = sum(other == name or other.startswith(f"{name} (") for other in names)
        names[name if not alike else f"{name} ({alike + 1})"] = folder
    return names


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
            content, assets = (html.html, html.assets) if isinstance(html, HtmlFile) else (html, None)
            found.append(TargetPage(name=name, html=content, page=page, assets=assets))
        else:
            found.append(FailedPage(name=name, problem=str(page).replace("\n", ";")))
    return found


def _content(path: Path) -> HtmlFile | OSError:
    try:
        return HtmlFile(html=path.read_bytes(), assets=Assets.beside(path))
    except OSError as error:
        return error


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


def _training_document(index: int) -> str:
    return stand_alone(generate_page(shipped_page_seed(), index).html)


def _training_pages(renderer: Renderer, among: int) -> Iterator[tuple[RgbArray, int]]:
    documents = (_training_document(index) for index in range(among))
    for index, page in enumerate(renderer.render_many(documents, Capture.PICTURE)):
        if not isinstance(page, RenderError):
            yield thumbnail(open_picture(page.png)), index
