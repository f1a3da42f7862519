"""The demonstration: pages that the model never saw, converted, scored, and shown in one report."""

from dataclasses import dataclass
from pathlib import Path

from lensmith.core.errors import InputError
from lensmith.core.images import open_picture
from lensmith.core.types import OnProgress, unwatched
from lensmith.data.webpages.grammar.pages import generate_page
from lensmith.data.webpages.grammar.stylesheet import stand_alone
from lensmith.data.webpages.real.pinned import real_page
from lensmith.evaluate.visual.score import VisualSummary, summarise
from lensmith.models.linear.packed import count_parameters
from lensmith.workflows.demo.chat import ChatResult, chat_chapter, run_chat
from lensmith.workflows.demo.leaks import LEAK_STEPS, LeaksResult, leaks_chapter, run_leaks
from lensmith.workflows.html.answers import ScoredPage, TargetPage, scored_pages
from lensmith.workflows.html.convert import CAPTURE, Converter
from lensmith.workflows.html.evaluate import report_page
from lensmith.workflows.html.gallery import write_report
from lensmith.workflows.html.local import LocalWriter

DEMO_SEED = 2_000_003
GENERATED_PAGES = 6
REAL_PACKAGE, REAL_PAGE = "startbootstrap-sb-admin-2", "login.html"
LEAD = (
    "Each screenshot on the left was given to a model of {millions:.1f} million parameters, which wrote HTML. That was "
    "repaired where it was not well formed, rendered, and compared with the screenshot.\n"
    "The first {generated} pages come from lensmith's page generator, from a stream that the model was not trained on. "
    "{real}"
)


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """`real` is the score of the page made by someone else, None where it could not be fetched."""

    report: Path
    generated: VisualSummary
    real: float | None
    leaks: LeaksResult
    chat: ChatResult

    def __str__(self) -> str:
        means = self.generated.metrics
        means_text = "  ".join(
            f"{name} {means[name].mean:.2f}" for name in ("block_match", "text", "position", "colour", "overall")
        )
        lines = [f"{self.generated.n} unseen generated pages: {means_text}"]
        if self.real is not None:
            lines.append(f"a real page by someone else: overall {self.real:.2f}")
        lines += [str(self.leaks), str(self.chat)]
        lines.append(f"open {self.report}")
        return "\n".join(lines)


def run(out_dir: Path, *, on_progress: OnProgress = unwatched, model: str | Path | None = None) -> DemoResult:
    """Write `report.html` into `out_dir`. Works offline; without the real page where that cannot be fetched."""
    try:
        real = [(f"{REAL_PACKAGE}: {REAL_PAGE}", real_page(REAL_PACKAGE, REAL_PAGE))]
        remark = f"The last is a real page that someone else made ({REAL_PACKAGE}), far from what the model knows."
    except InputError as error:
        real = []
        remark = f"A real page made by someone else would stand last, but could not be fetched: {error.problem}."
    named = [
        (f"Generated page {index + 1}", stand_alone(generate_page(DEMO_SEED, index).html))
        for index in range(GENERATED_PAGES)
    ]
    named += real
    steps = len(named) + LEAK_STEPS + 1
    scored: list[ScoredPage] = []
    writer = LocalWriter.load(model)
    millions = count_parameters(writer.answering.model) / 1e6
    with Converter.load(writer=writer) as converter:
        for name, document in named:
            target = TargetPage(name=name, html=document, page=converter.renderer.render(document, CAPTURE))
            scored += scored_pages(converter, [target])
            on_progress(len(scored), steps)
    first = open_picture(scored[0].target.page.png)
    leaks = run_leaks(out_dir / "leaks", writer, first, lambda done, _: on_progress(len(named) + done, steps))
    chat = run_chat(first)
    on_progress(steps, steps)
    report = out_dir / "report.html"
    lead = LEAD.format(millions=millions, generated=GENERATED_PAGES, real=remark)
    chapters = [leaks_chapter(leaks, out_dir), chat_chapter(chat)]
    write_report(report, [report_page(page) for page in scored], title="lensmith", lead=lead, chapters=chapters)
    return DemoResult(
        report=report,
        generated=summarise([page.score for page in scored[:GENERATED_PAGES]]),
        real=scored[-1].score.overall if real else None,
        leaks=leaks,
        chat=chat,
    )
