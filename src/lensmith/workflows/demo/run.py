"""The demonstration: a page by others, and pages that the model never saw, converted, scored, shown in one report."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lensmith.core.images import open_picture
from lensmith.core.types import OnProgress, unwatched
from lensmith.data.webpages.grammar.pages import generate_page
from lensmith.data.webpages.grammar.stylesheet import stand_alone
from lensmith.evaluate.visual.score import VisualSummary, summarise
from lensmith.models.linear.packed import count_parameters
from lensmith.workflows.demo.chat import ChatResult, chat_chapter, run_chat
from lensmith.workflows.demo.leaks import LEAK_STEPS, LeaksResult, leaks_chapter, run_leaks
from lensmith.workflows.demo.rebuilt import (
    RebuiltPage,
    own_screenshot,
    page_by_others,
    rebuild_given,
    rebuilt_section,
    write_rebuilt,
)
from lensmith.workflows.html.answers import ScoredPage, TargetPage, scored_pages
from lensmith.workflows.html.convert import CAPTURE, Converter
from lensmith.workflows.html.evaluate import report_page
from lensmith.workflows.html.gallery import Chapter, write_report
from lensmith.workflows.html.local import LocalWriter

DEMO_SEED = 2_000_003
GENERATED_PAGES = 4
LEAD = (
    "A screenshot becomes HTML, in two ways: any page is measured and rebuilt, and pages of one kind are written by a "
    "small model. Then what an API gives away of that model, and a conversation about a picture."
)
WRITTEN = (
    "Each screenshot on the left was given to a model of {millions:.1f} million parameters, which wrote HTML. That was "
    "repaired where it was not well formed, rendered, and compared with the screenshot. The first {generated} pages "
    "come from lensmith's page generator, from a stream that the model was not trained on."
)
FAR = " The last is the page above that someone else made, far from what the model knows."


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """`real` is the score of what the model made of the page by others, None where there is none."""

    report: Path
    rebuilt: RebuiltPage
    generated: VisualSummary
    real: float | None
    leaks: LeaksResult
    chat: ChatResult

    def __str__(self) -> str:
        means = self.generated.metrics
        means_text = "  ".join(
            f"{name} {means[name].mean:.2f}" for name in ("block_match", "text", "position", "colour", "overall")
        )
        lines = [str(self.rebuilt), f"{self.generated.n} unseen generated pages, by the model: {means_text}"]
        if self.real is not None:
            lines.append(f"the page by others, by the same model: overall {self.real:.2f}")
        lines += [str(self.leaks), str(self.chat)]
        lines.append(f"open {self.report}")
        return "\n".join(lines)


def run(
    out_dir: Path,
    *,
    picture: Path | None = None,
    model: str | Path | None = None,
    on_progress: OnProgress = unwatched,
) -> DemoResult:
    """Write `report.html` into `out_dir`, and the page made of `picture`, or else of a page by others (`rebuilt`).

    Works offline. Raises ImageError where `picture` cannot be used, before anything is loaded.
    """
    named = [
        (f"Generated page {index + 1}", stand_alone(generate_page(DEMO_SEED, index).html))
        for index in range(GENERATED_PAGES)
    ]
    given = page_by_others(instead=named[0][1]) if picture is None else own_screenshot(picture)
    named += [(given.name, given.html)] if given.is_by_others else []
    steps = 1 + len(named) + LEAK_STEPS + 1
    on_progress(0, steps)
    conversion = rebuild_given(given)
    rebuilt = write_rebuilt(given, conversion, out_dir)
    on_progress(1, steps)
    writer = LocalWriter.load(model)
    written = _written(writer, named, lambda done: on_progress(1 + done, steps))
    done = 1 + len(named)
    first = open_picture(written[0].target.page.png)
    leaks = run_leaks(out_dir / "leaks", writer, first, lambda more, _: on_progress(done + more, steps))
    chat = run_chat(conversion.picture)
    on_progress(steps, steps)
    report = out_dir / "report.html"
    chapters = [_written_chapter(written, writer), leaks_chapter(leaks, out_dir), chat_chapter(chat)]
    write_report(report, [rebuilt_section(given, conversion)], title="lensmith", lead=LEAD, chapters=chapters)
    return DemoResult(
        report=report,
        rebuilt=rebuilt,
        generated=summarise([page.score for page in written[:GENERATED_PAGES]]),
        real=written[-1].score.overall if given.is_by_others else None,
        leaks=leaks,
        chat=chat,
    )


def _written(writer: LocalWriter, named: Sequence[tuple[str, str]], on_page: Callable[[int], None]) -> list[ScoredPage]:
    """What the model makes of pages, in order; `on_page` is told how many are done."""
    scored: list[ScoredPage] = []
    with Converter.load(writer=writer) as converter:
        for name, document in named:
            target = TargetPage(name=name, html=document, page=converter.renderer.render(document, CAPTURE))
            scored += scored_pages(converter, [target])
            on_page(len(scored))
    return scored


def _written_chapter(written: Sequence[ScoredPage], writer: LocalWriter) -> Chapter:
    """The chapter of the pages that the model wrote; what follows the generated ones is by others."""
    lead = WRITTEN.format(millions=count_parameters(writer.answering.model) / 1e6, generated=GENERATED_PAGES)
    lead += FAR if len(written) > GENERATED_PAGES else ""
    pages = [report_page(page) for page in written]
    return Chapter(title="Pages that a small model wrote", lead=lead, pages=pages)
