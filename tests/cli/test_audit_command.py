"""`lensmith audit`: what is refused before anything is asked, how to test again, and what is heard on the way."""

import json
import shlex
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from lensmith.audit.findings.wording import figure
from lensmith.audit.run import AuditConfig
from lensmith.audit.stages.runner import AuditProgress, ProgressReporter
from lensmith.cli import audit as command
from lensmith.cli.console.progress import status_line
from lensmith.core.errors import InputError
from lensmith.core.exposure import Exposure
from lensmith.endpoints.fake.endpoint import FakeEndpoint
from lensmith.endpoints.fake.server import FakeServer
from lensmith.workflows.audit import audit_url
from tests.support.fake_audits import session_in, write_weights

NOWHERE = "http://127.0.0.1:9/v1"


@pytest.fixture(scope="module")
def closed():
    with FakeServer(FakeEndpoint(vocabulary=64, width=8, exposes=Exposure.text_only())) as url:
        yield url


@pytest.mark.parametrize("name", ["P0", "P8", "P9", "p4", "all"])
def test_read_outs_that_cannot_be_tried_alone_are_refused_before_anything_is_asked(tmp_path, name):
    refusal = CliRunner().invoke(command.app, [NOWHERE, "--out", str(tmp_path), "--read-out", name]).exception
    assert isinstance(refusal, InputError)
    assert "--read-out: no such value" in str(refusal) or "tells no logits and cannot be tried alone" in str(refusal)
    assert "P1, P2, P3, P4a, P4b, P5, P6, P7" in str(refusal.expected)


@pytest.mark.parametrize("option", ["truth", "prices"])
def test_files_that_cannot_be_read_are_refused_before_anything_is_asked(tmp_path, option):
    line = [NOWHERE, "--out", str(tmp_path / "out"), f"--{option}", str(tmp_path / "missing.file")]
    refusal = CliRunner().invoke(command.app, line).exception
    assert isinstance(refusal, InputError) and "missing.file" in str(refusal)


def test_an_interface_that_is_closed_is_clean_by_every_read_out_that_can_be_named(tmp_path, closed):
    line = [closed, "--out", str(tmp_path), "--read-out", "p7", "--rate", "1e4", "--json"]
    result = CliRunner().invoke(command.app, line)
    assert (result.exit_code, json.loads(result.stdout)["only_read_outs"]) == (0, ["P7"])
    assert "only P7 was tried" in (tmp_path / "report.json").read_text() + (tmp_path / "report.html").read_text()


def parsed(line):
    """What the command line makes of a line, before anything is run."""
    return typer.main.get_command(command.app).commands["run"].make_context("run", list(line))


@pytest.mark.parametrize(
    "typed",
    [
        [],
        "--i-operate-this-endpoint --contexts token-ids --read-out P1 --read-out p4a --threshold high --seed 3".split(),
        ["--truth", "a folder/it's; here.safetensors", "--prices", "$HOME p.toml"],
        ["--budget-queries", "7", "--budget-tokens", "9"],
        ["--rate", "0.5"],
    ],
    ids=str,
)
def test_the_command_that_tests_again_is_the_one_that_was_typed(tmp_path, monkeypatch, typed):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a folder").mkdir()
    write_weights(tmp_path / "a folder" / "it's; here.safetensors", lm_head__weight=np.ones((4, 3)))
    shipped = resources.files("lensmith.audit").joinpath("prices.toml").read_text()
    (tmp_path / "$HOME p.toml").write_text(shipped)
    first = parsed([NOWHERE, "--out", "first", *typed])
    command_again = command.retest_command(first, "a model; rm -rf /")
    again = shlex.split(command_again)
    assert again[:2] == ["lensmith", "audit"] and again[-2:] == ["--out", "NEW-FOLDER"]
    assert sorted(typed) == sorted(again[5:-2])
    second = parsed(again[2:])
    assert second.params == {**first.params, "model": "a model; rm -rf /", "out": Path("NEW-FOLDER")}
    assert command.retest_command(second, "a model; rm -rf /") == command_again


def test_every_option_that_decides_what_is_found_is_in_the_command_that_tests_again():
    """One that is forgotten there would be dropped in silence."""
    options = {option.name for option in typer.main.get_command(command.app).commands["run"].params}
    assert options - set(command.IN_RETEST) == {"url", "model", "out", "api_key", "as_json"}


def test_findings_say_how_they_are_tested_again(tmp_path):
    with FakeServer(FakeEndpoint(vocabulary=64, width=8)) as url:
        line = [url, "--seed", "3", "--rate", "10000.0", "--read-out", "p1"]
        result = CliRunner().invoke(command.app, [*line, "--out", str(tmp_path), "--json"])
    again = shlex.join(["lensmith", "audit", url, "--model", "fake", *line[1:], "--out", "NEW-FOLDER"])
    assert {finding["retest"] for finding in json.loads(result.stdout)["findings"]} == {again}


def test_the_command_that_tests_again_tells_no_secret():
    line = ["https://me:hunter2@host/v1?key=hunter2", "--api-key", "hunter2"]
    again = command.retest_command(parsed(line), "a model")
    assert "hunter2" not in again and "https://host/v1" in again


def test_the_event_log_tells_no_secret(tmp_path, closed):
    with_password = closed.replace("http://", "http://me:hunter2@")
    audit_url(AuditConfig(session=session_in(tmp_path, target=with_password)))
    assert "hunter2" not in (tmp_path / "events.jsonl").read_text() and (tmp_path / "report.json").is_file()


def test_an_audit_is_heard_stage_by_stage_and_promises_no_end(tmp_path, closed):
    heard = []
    audit_url(AuditConfig(session=session_in(tmp_path, target=closed, max_queries=20_000)), on_progress=heard.append)
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
