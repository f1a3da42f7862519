"""`lensmith audit`: what is refused before anything is asked, how to test again, and what is heard on the way."""

import shlex

import pytest
from typer.testing import CliRunner

from lensmith.audit.findings.finding import ReadOut
from lensmith.audit.findings.wording import figure
from lensmith.audit.stages.runner import AuditProgress, ProgressReporter
from lensmith.cli import audit as command
from lensmith.cli.console.progress import status_line
from lensmith.core.errors import InputError
from lensmith.core.exposure import Exposure
from lensmith.endpoints.fake.endpoint import FakeEndpoint
from lensmith.endpoints.fake.server import FakeServer
from lensmith.workflows import audit as workflow
from lensmith.workflows.audit import AuditOptions, audit_url

NOWHERE = "http://127.0.0.1:9/v1"


@pytest.fixture(scope="module")
def closed():
    with FakeServer(FakeEndpoint(vocabulary=64, width=8, exposes=Exposure.text_only())) as url:
        yield url


@pytest.mark.parametrize("name", ["P0", "P8", "P9", "p4", "all"])
def test_read_outs_that_cannot_be_tried_alone_are_refused_before_anything_is_asked(tmp_path, name):
    with pytest.raises(InputError, match="--read-out") as refusal:
        audit_url(AuditOptions(url=NOWHERE, out=tmp_path, read_outs=(name,)))
    assert refusal.value.expected == "P1, P2, P3, P4a, P4b, P5, P6, P7"


@pytest.mark.parametrize("option", ["truth", "prices"])
def test_files_that_cannot_be_read_are_refused_before_anything_is_asked(tmp_path, option):
    with pytest.raises(InputError, match=r"missing\.file"):
        audit_url(AuditOptions(url=NOWHERE, out=tmp_path / "out", **{option: tmp_path / "missing.file"}))


def test_an_interface_that_is_closed_is_clean_by_every_read_out_that_can_be_named(tmp_path, closed):
    report = audit_url(AuditOptions(url=closed, out=tmp_path, read_outs=("p7",), queries_per_s=1e4))
    assert (report.verdict.exit_code, report.only_read_outs) == (0, (ReadOut.P7,))
    assert "only P7 was tried" in (tmp_path / "report.json").read_text() + (tmp_path / "report.html").read_text()


def parsed(monkeypatch, line):
    """The options that the command line makes of a printed command."""
    heard = {}

    def listen(options, **others):
        heard["options"] = options
        raise InputError("heard enough")

    monkeypatch.setattr(workflow, "audit_url", listen)
    CliRunner().invoke(command.app, shlex.split(line)[2:])
    return heard["options"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"owned": True, "contexts": "token-ids", "read_outs": ("P1", "p4a"), "threshold": "high", "seed": 3},
        {"truth": "a folder/it's; here.gguf", "prices": "$HOME/p.toml", "max_queries": 7, "max_tokens": 9},
        {"queries_per_s": 0.5},
    ],
    ids=str,
)
def test_the_command_that_tests_again_is_the_one_that_was_typed(tmp_path, monkeypatch, changes):
    files = {key: tmp_path / changes[key] for key in ("truth", "prices") if key in changes}
    options = AuditOptions(**{"url": NOWHERE, "out": tmp_path, **changes, **files})
    again = parsed(monkeypatch, options.command("a model; rm -rf /"))
    assert again.model == "a model; rm -rf /" and str(again.out) == "NEW-FOLDER"
    for name in changes:
        assert getattr(again, name) == getattr(options, name), name


def test_the_command_that_tests_again_tells_no_secret(tmp_path):
    options = AuditOptions(url="https://me:hunter2@host/v1?key=hunter2", out=tmp_path)
    assert "hunter2" not in options.command("m") and "https://host/v1" in options.command("m")


def test_an_audit_is_heard_stage_by_stage_and_promises_no_end(tmp_path, closed):
    heard = []
    audit_url(AuditOptions(url=closed, out=tmp_path, queries_per_s=1e4), on_progress=heard.append)
    assert str(heard[0]) == "1 query (at most 20,000): probe"
    assert [each.queries for each in heard] == sorted(each.queries for each in heard)


def test_a_stage_tells_its_contexts():
    heard = []
    reporter = ProgressReporter(None, lambda progress: heard.append(str(progress)))
    reporter.begin("width, P1")
    reporter.rows(160, 1_641)
    assert heard == ["0 queries: width, P1", "0 queries: width, P1, 160 of 1,641 contexts"]


def test_the_status_line_goes_to_stderr_without_a_time_left(capsys):
    with status_line() as show:
        show(AuditProgress(stage="width, P1 [bold]", queries=1_132, most_queries=20_000))
    captured = capsys.readouterr()
    assert captured.out == "" and "1,132 queries (at most 20,000): width, P1 [bold]" in captured.err
    assert "%" not in captured.err and "left" not in captured.err


def test_no_status_without_work(capsys):
    with status_line():
        pass
    assert capsys.readouterr().err == ""


def test_figures_are_written_one_way():
    values = (0, 0.25, 2.2, 0.00321, 3.1e-9, 535_321.0, 4.1e12, float("inf"))
    told = ["0", "0.25", "2.2", "0.00321", "3.1e-9", "535,000", "4.1e12", "inf"]
    assert [figure(value) for value in values] == told
