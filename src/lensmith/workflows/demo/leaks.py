"""The demonstration's second chapter: the shipped model behind an API, what that gives away, and the guard in front.

The same model that wrote the pages of the first chapter is served twice on loopback: telling all, and behind the guard.
Both are audited with pictures as questions, and one page is converted through the guard, which must cost it nothing.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lensmith.audit.findings.cures import SAFE_WORDS
from lensmith.audit.findings.finding import AuditReport, Finding, ReadOut
from lensmith.audit.querying.config import SessionConfig
from lensmith.audit.querying.contexts import ContextForm
from lensmith.audit.querying.meter import Budget
from lensmith.audit.run import AuditConfig
from lensmith.core.exposure import Exposure
from lensmith.core.types import OnProgress, unwatched
from lensmith.guard.config import GuardConfig, UpstreamConfig
from lensmith.guard.run import guard_exposure, running_guard
from lensmith.serve.engine import Engine
from lensmith.serve.run import running
from lensmith.workflows.audit import audit_url
from lensmith.workflows.html.convert import Converter
from lensmith.workflows.html.gallery import Chapter
from lensmith.workflows.html.local import LocalWriter
from lensmith.workflows.html.writers import endpoint_writer

SLOTS = 8
LEAK_STEPS = 3
READ_OUTS = (ReadOut.P1, ReadOut.P2, ReadOut.P4A)
"""Enough to show what leaks; the dearer ones take minutes."""


@dataclass(frozen=True, kw_only=True)
class LeaksResult:
    """Both audits, and whether a page that was converted through the guard is the one that the model itself wrote."""

    open_report: Path
    guarded_report: Path
    open: AuditReport
    guarded: AuditReport
    true_width: int
    same_page: bool

    def __str__(self) -> str:
        found = len(_worst_first(self.open))
        page = "the same page" if self.same_page else "another page"
        return (
            f"the same model behind an API that tells all: {found} findings, width {self.open.width} (it is "
            f"{self.true_width}); behind the guard: {self.guarded.verdict.value}, and it writes {page}"
        )


def run_leaks(
    out_dir: Path, writer: LocalWriter, picture: Image.Image, on_progress: OnProgress = unwatched
) -> LeaksResult:
    """Serves, audits, guards and audits again. Writes both reports below `out_dir`."""
    shutil.rmtree(out_dir, ignore_errors=True)  # an earlier demonstration was of another address
    with running(Engine(writer.answering, Exposure.everything(), slots=SLOTS)) as url:
        first = audit_url(_config(url, out_dir / "open"))
        on_progress(1, LEAK_STEPS)
        guard = GuardConfig(upstream=UpstreamConfig(url=url), exposure=guard_exposure(SAFE_WORDS))
        with running_guard(guard) as guarded_url:
            second = audit_url(_config(guarded_url, out_dir / "guarded"))
            on_progress(2, LEAK_STEPS)
            with endpoint_writer(guarded_url) as remote, Converter.load(writer=remote) as converter:
                through_guard = converter.convert(picture).best.html
    with Converter.load(writer=writer) as converter:
        alone = converter.convert(picture).best.html
    on_progress(3, LEAK_STEPS)
    return LeaksResult(
        open_report=out_dir / "open" / "report.html",
        guarded_report=out_dir / "guarded" / "report.html",
        open=first,
        guarded=second,
        true_width=int(writer.answering.model.config.get_text_config().hidden_size),
        same_page=through_guard == alone,
    )


def leaks_chapter(result: LeaksResult, folder: Path) -> Chapter:
    """The chapter for the demonstration's report, which lies in `folder`."""
    rows = [["the model behind", "what the audit says", "width", "queries", "full report"]]
    links = {}
    for name, report, link, path in (
        ("an API that tells all", result.open, "the open audit", result.open_report),
        (f"lensmith guard --expose {SAFE_WORDS}", result.guarded, "the guarded audit", result.guarded_report),
    ):
        found = _worst_first(report)
        said = "; ".join(f"{finding.severity.name.lower()}: {finding.title}" for finding in found)
        links[link] = path.relative_to(folder).as_posix()
        width = "not found" if report.width is None else str(report.width)
        rows.append([name, said or report.verdict.value, width, f"{report.spent.queries:,}", link])
    page = "the same page" if result.same_page else "another page"
    lead = (
        f"The model above was put behind an API on this machine and audited from outside, with pictures as questions. "
        f"Its true width is {result.true_width}. Then the guard was put in front, and it was audited again; through it "
        f"the model wrote {page}."
    )
    return Chapter(title="What an API gives away of this model", lead=lead, rows=rows, links=links)


def _worst_first(report: AuditReport) -> list[Finding]:
    """The findings that count, in the report's order."""
    found = [finding for finding in report.findings if finding.severity >= report.threshold]
    return sorted(found, key=lambda finding: finding.severity, reverse=True)


def _config(url: str, folder: Path) -> AuditConfig:
    budget = Budget(queries_per_s=1_000)
    session = SessionConfig(target=url, folder=folder, budget=budget, form=ContextForm.PICTURE)
    return AuditConfig(session=session, read_outs=READ_OUTS)
