"""Scores of all who answered, side by side: one column each, page by page and summed up, as tables and as data."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lensmith.core.endpoint import Finish
from lensmith.core.errors import RenderError
from lensmith.evaluate.stats import MeanEstimate, MedianEstimate
from lensmith.evaluate.visual.design2code.score import (
    WINDOW,
    Design2CodeScore,
    TextPage,
    cleaned,
    compare,
    text_pages,
)
from lensmith.evaluate.visual.editability import (
    Editability,
    EditabilitySummary,
    editability,
    summarise_editability,
)
from lensmith.evaluate.visual.reflow import Reflow, reflow
from lensmith.evaluate.visual.score import VisualScore, VisualSummary, summarise
from lensmith.render import HtmlFile, Renderer
from lensmith.workflows.html.answers import Answered, ScoredPage, TargetPage

BLANK = "blank"
"""The column of blank pages, which Design2Code gives 0 by definition: they have no text."""


@dataclass(frozen=True, kw_only=True)
class AnswerScores:
    """One answer: how close its page comes, and what its code is like. `engine` made it; `error`: why it has no page.

    `complete`: whether its writer came to its own end. `design2code` is None where it was not asked for.
    """

    engine: str
    complete: bool
    overall: float
    geometry: VisualScore
    design2code: Design2CodeScore | None
    editability: Editability
    error: str | None


@dataclass(frozen=True, kw_only=True)
class PageScores:
    """One page: what its own code is like, and each answer by its column."""

    name: str
    target: Editability
    answers: dict[str, AnswerScores]


@dataclass(frozen=True, kw_only=True)
class ColumnScores:
    """All answers of one who answers. `failed` of them have no page; `ended` is the share that came to its own end.

    `seconds` is conversion and rendering, as if this column alone had been asked for.
    """

    title: str
    geometry: VisualSummary
    design2code: VisualSummary | None
    editability: EditabilitySummary
    failed: int
    ended: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class SideBySide:
    """Columns by their names, what the targets' own code is like, and all page by page."""

    columns: dict[str, ColumnScores]
    targets: EditabilitySummary
    per_page: tuple[PageScores, ...]


def compare_answers(
    targets: Sequence[TargetPage], columns: Mapping[str, Answered], titles: Mapping[str, str], *, as_design2code: bool
) -> SideBySide:
    """Scores of all columns, whose pages are in the order of the targets. Raises BrowserNotFoundError."""
    by_column = {name: answered.pages for name, answered in columns.items()}
    terms = design2code_scores(targets, by_column) if as_design2code else None
    own, codes = _editability(targets, by_column)
    per_page = tuple(
        PageScores(
            name=target.name,
            target=own[place],
            answers={
                name: _answer(pages[place], codes[name][place], None if terms is None else terms[name][place])
                for name, pages in by_column.items()
            },
        )
        for place, target in enumerate(targets)
    )
    return SideBySide(
        columns={
            name: ColumnScores(
                title=titles[name],
                geometry=summarise([page.score for page in answered.pages]),
                design2code=None if terms is None else summarise(terms[name]),
                editability=summarise_editability(codes[name]),
                failed=answered.failed,
                ended=answered.ended,
                seconds=answered.seconds,
            )
            for name, answered in columns.items()
        },
        targets=summarise_editability(own),
        per_page=per_page,
    )


def _answer(page: ScoredPage, code: Editability, terms: Design2CodeScore | None) -> AnswerScores:
    return AnswerScores(
        engine=page.prediction.engine,
        complete=page.prediction.finish is Finish.STOP,
        overall=page.score.overall,
        geometry=page.score,
        design2code=terms,
        editability=code,
        error=page.prediction.error,
    )


def design2code_scores(
    targets: Sequence[TargetPage], columns: Mapping[str, Sequence[ScoredPage]]
) -> dict[str, list[Design2CodeScore]]:
    """Design2Code's terms of every answer. Each target is rendered once; files are read as UTF-8, as its code does."""
    with Renderer(WINDOW) as renderer:
        wanted = list(text_pages((HtmlFile(html=each.text, assets=each.assets) for each in targets), renderer))
        return {
            name: [Design2CodeScore.of_failure()] * len(targets)
            if name == BLANK
            else list(_terms(wanted, pages, renderer))
            for name, pages in columns.items()
        }


def _terms(
    wanted: Sequence[TextPage | RenderError], pages: Sequence[ScoredPage], renderer: Renderer
) -> Iterator[Design2CodeScore]:
    predicted = text_pages((cleaned(page.document) for page in pages), renderer)
    for target, prediction in zip(wanted, predicted, strict=True):
        if isinstance(target, RenderError) or isinstance(prediction, RenderError):
            yield Design2CodeScore.of_failure()
        else:
            yield compare(target, prediction)


def _editability(
    targets: Sequence[TargetPage], columns: Mapping[str, Sequence[ScoredPage]]
) -> tuple[list[Editability], dict[str, list[Editability]]]:
    """What the code of the targets, and of every answer, is like."""
    documents = [target.document for target in targets]
    documents += [page.document for pages in columns.values() for page in pages]
    narrow = iter(reflow(documents))
    own = [editability(target.text, target.text, target.page, next(narrow)) for target in targets]
    codes = {name: [_code(page, next(narrow)) for page in pages] for name, pages in columns.items()}
    return own, codes


def _code(page: ScoredPage, narrow: tuple[Reflow, ...]) -> Editability:
    if page.prediction.page is None:
        return Editability.of_failure()
    return editability(page.target.text, page.prediction.html, page.prediction.page, narrow)


def geometry_table(columns: Mapping[str, ColumnScores]) -> list[str]:
    """Lines of text: means by geometry and pixels, with their intervals."""
    return _table("", {column.title: _means(column.geometry) for column in columns.values()})


def design2code_table(columns: Mapping[str, ColumnScores]) -> list[str]:
    """Lines of text: Design2Code's terms, with their intervals."""
    asked = {column.title: _means(column.design2code) for column in columns.values() if column.design2code is not None}
    return _table("as Design2Code", asked) if asked else []


def editability_table(comparison: SideBySide) -> list[str]:
    """Lines of text: what the code is like, that of the targets too."""
    summaries = {column.title: column.editability for column in comparison.columns.values()}
    summaries["the pages themselves"] = comparison.targets
    return _table("the code", {title: _code_cells(summary) for title, summary in summaries.items()})


def _means(summary: VisualSummary) -> dict[str, str]:
    return {name: _cell(mean, mean.mean) for name, mean in summary.metrics.items()}


def _code_cells(summary: EditabilitySummary) -> dict[str, str]:
    cells = {name: f"{share.share:.0%} [{share.low:.0%}, {share.high:.0%}]" for name, share in summary.shares.items()}
    for name, median in summary.medians.items():
        places = 2 if name.endswith("_ratio") else 0
        cells[f"{name}, median"] = _cell(median, median.median, places)
    return cells | {name: _cell(mean, mean.mean) for name, mean in summary.means.items()}


def _cell(estimate: MeanEstimate | MedianEstimate, value: float, places: int = 3) -> str:
    return f"{value:,.{places}f} [{estimate.low:,.{places}f}, {estimate.high:,.{places}f}]"


def _table(title: str, columns: Mapping[str, Mapping[str, str]]) -> list[str]:
    """A line for each row that any column has; "-" where one has it not."""
    rows = list(dict.fromkeys(name for cells in columns.values() for name in cells))
    first = max(24, *(len(row) + 1 for row in rows))
    widths = {head: 2 + max(len(head), *(len(cells.get(row, "-")) for row in rows)) for head, cells in columns.items()}
    lines = [f"{title:{first}}" + "".join(f"{head:>{width}}" for head, width in widths.items())]
    for row in rows:
        shown = (f"{columns[head].get(row, '-'):>{width}}" for head, width in widths.items())
        lines.append(f"{row:{first}}" + "".join(shown))
    return lines


TERMS: dict[str, Callable[[AnswerScores], float | None]] = {
    "overall": lambda answer: answer.overall,
    "block": lambda answer: answer.geometry.block_match,
    "text": lambda answer: answer.geometry.text,
    "position": lambda answer: answer.geometry.position,
    "colour": lambda answer: answer.geometry.colour,
    "recall": lambda answer: (
        (answer.geometry.text_recall + answer.geometry.position_recall + answer.geometry.colour_recall) / 3
    ),
    "surfaces": lambda answer: answer.geometry.surface_match,
    "pixels": lambda answer: answer.geometry.pixel,
    "four terms": lambda answer: None if answer.design2code is None else answer.design2code.four_term_mean,
    "code": lambda answer: answer.editability.markup_ratio,
}
"""What a page's line shows of an answer: its score by geometry, the mean of Design2Code's terms, the markup's ratio."""


def page_table(comparison: SideBySide, names: Sequence[str]) -> list[str]:
    """Lines of text: a page's answers in the named columns, the pages first that the first column did worst."""
    first = [each.answers[names[0]] for each in comparison.per_page]
    shown = [name for name, term in TERMS.items() if any(term(answer) is not None for answer in first)]
    wide = max(len("page"), *(len(each.name) for each in comparison.per_page)) + 2
    by = max(len(comparison.columns[name].title) for name in names) + 2
    lines = [f"{'page':{wide}}{'':{by}}" + "".join(f"{name:>11}" for name in shown) + "  reflow"]
    for each in worst_first(comparison.per_page, names[0]):
        for name in names:
            answer = each.answers[name]
            values = [TERMS[term](answer) for term in shown]
            cells = "".join(f"{'-' if value is None else f'{value:.3f}':>11}" for value in values)
            passed = " ".join(str(one.width_px) if one.passed else "-" * 3 for one in answer.editability.reflow)
            problem = f"  {answer.error}" if answer.error else ""
            lines.append(f"{each.name:{wide}}{comparison.columns[name].title:{by}}{cells}  {passed}{problem}")
    return lines


def worst_first(pages: Sequence[PageScores], name: str) -> list[PageScores]:
    """The pages by the score of one column, the lowest first."""
    return sorted(pages, key=lambda page: page.answers[name].overall)
