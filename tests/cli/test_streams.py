"""`-` is standard input or standard output, and what is no file stays what it is, in every command that has a file."""

import io
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForCausalLM

from lensmith.audit.change.compare import load_snapshot
from lensmith.endpoints.fake.endpoint import FakeEndpoint
from lensmith.endpoints.fake.server import FakeServer
from tests.support.tiny_vlm import tiny_chat_model

PAGE = "<!doctype html><body style='margin:0'><p style='color:#c00'>hello</p></body>"
LIMIT_S = 240


def lensmith(
    *arguments: object, stdin: bytes = b"", cwd: Path, code: int = 0, stdout: int = subprocess.PIPE
) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-m", "lensmith.cli", *map(str, arguments)]
    done = subprocess.run(
        command, input=stdin, stdout=stdout, stderr=subprocess.PIPE, cwd=cwd, timeout=LIMIT_S, check=False
    )
    assert done.returncode == code, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def screenshot() -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", (384, 80), (240, 240, 250)).save(encoded, "PNG")
    return encoded.getvalue()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model that reads pictures, and one that does not."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    model, processor = tiny_chat_model()
    model.save_pretrained(folder / "vision")
    processor.save_pretrained(folder / "vision")
    AutoModelForCausalLM.from_config(model.config.language).save_pretrained(folder / "text")
    processor.tokenizer.save_pretrained(folder / "text")
    return folder


# --- html ---------------------------------------------------------------------------------------------------------


def test_html_from_standard_input_to_standard_output(screenshot, tmp_path):
    done = lensmith("html", "-", "-o", "-", stdin=screenshot, cwd=tmp_path)
    assert done.stdout.startswith(b"<!doctype html>")
    assert done.stdout.rstrip().endswith(b"</html>")
    assert b"like the screenshot" in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert Path("/dev/stdout").is_symlink()


def test_html_follows_a_link(screenshot, tmp_path):
    (tmp_path / "picture.png").write_bytes(screenshot)
    (tmp_path / "real.html").write_text("old")
    (tmp_path / "link").symlink_to("real.html")
    done = lensmith("html", "picture.png", "-o", "link", cwd=tmp_path)
    assert (tmp_path / "link").is_symlink()
    assert "<html" in (tmp_path / "real.html").read_text()
    assert b"like the screenshot" in done.stdout


# --- render -------------------------------------------------------------------------------------------------------


def test_render_from_standard_input_to_standard_output(tmp_path):
    done = lensmith("render", "-", "-o", "-", "--width", 300, "--height", 200, stdin=PAGE.encode(), cwd=tmp_path)
    assert Image.open(io.BytesIO(done.stdout)).size == (300, 200)
    assert b"/dev/stdin: rendered: /dev/stdout" in done.stderr
    lensmith("render", "-", "-o", "out", "--text", stdin=PAGE.encode(), cwd=tmp_path)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["stdin.json", "stdin.png"]


def test_a_page_from_standard_input_reads_only_a_folder_that_is_named(tmp_path):
    (tmp_path / "a.css").write_text("body{background:#0a0}")
    corners = []
    for options in ((), ("--assets-root", ".")):
        page = b"<link rel=stylesheet href=a.css><p>x"
        done = lensmith("render", "-", "-o", "-", *options, stdin=page, cwd=tmp_path)
        corners.append(Image.open(io.BytesIO(done.stdout)).convert("RGB").getpixel((600, 600)))
    assert corners == [(255, 255, 255), (0, 170, 0)]


def test_standard_output_takes_one_picture(tmp_path):
    for name in ("a.html", "b.html"):
        (tmp_path / name).write_text(PAGE)
    for arguments in (("a.html", "b.html"), ("a.html", "--text")):
        done = lensmith("render", *arguments, "-o", "-", cwd=tmp_path, code=2)
        assert done.stdout == b""
        assert b"takes one picture" in done.stderr


def test_a_disk_that_takes_no_more_while_rendering_is_said_with_the_file(tmp_path):
    (tmp_path / "a.html").write_text(PAGE)
    (tmp_path / "out").mkdir()
    full = Path("/dev/full")
    if os.geteuid() == 0:  # a twin, since a mistake would replace the machine's own
        full = tmp_path / "full"
        os.mknod(full, stat.S_IFCHR | 0o666, Path("/dev/full").stat().st_rdev)
    (tmp_path / "out" / "a.png").symlink_to(full)
    done = lensmith("render", "a.html", "-o", "out", "--overwrite", cwd=tmp_path, code=2)
    assert b"a.png cannot be written" in done.stdout
    assert b"No space left" in done.stdout


# --- chat ---------------------------------------------------------------------------------------------------------


def test_chat_reads_a_picture_from_standard_input(screenshot, models, tmp_path):
    asked = ("What?", "--model", models / "vision", "--max-tokens", 4, "--json")
    answer = json.loads(lensmith("chat", "-", *asked, stdin=screenshot, cwd=tmp_path).stdout)
    assert (answer["pictures"], answer["tokens"]) == (1, 4)


def test_standard_input_is_a_picture_or_the_conversation(tmp_path):
    refused = lensmith("chat", "-", "--endpoint", "http://127.0.0.1:9/v1", cwd=tmp_path, code=2)
    assert b"a question after the pictures" in refused.stderr


# --- eval, audit --------------------------------------------------------------------------------------------------


def test_eval_choice_writes_its_results_to_standard_output(models, tmp_path):
    Image.fromarray(np.zeros((24, 40, 3), np.uint8)).save(tmp_path / "p.png")
    question = {"question": "What?", "options": ["a dog", "a cat"], "answer": "B", "picture": "p.png"}
    (tmp_path / "q.jsonl").write_text(json.dumps(question) + "\n")
    done = lensmith("eval", "choice", "q.jsonl", "--model", models / "vision", "--out", "-", cwd=tmp_path)
    head, result = map(json.loads, done.stdout.splitlines())
    assert head["format"] == "lensmith choice results"
    assert result["asked"][0]["answer"] == "B"
    assert b"likelihood" in done.stderr
    assert not (tmp_path / "-").exists()


def test_eval_html_writes_its_report_to_standard_output(tmp_path):
    done = lensmith("eval", "html", "--pages", "grammar:1", "--nearest-among", 0, "--report", "-", cwd=tmp_path)
    assert done.stdout.startswith(b"<!doctype html>")
    assert b"grammar:1: 1 pages" in done.stderr


def test_audit_snapshot_writes_to_standard_output(tmp_path):
    with FakeServer(FakeEndpoint(vocabulary=61, width=12, seed=1)) as url:
        done = lensmith("audit", "snapshot", url, "-o", "-", "--contexts", 16, "--columns", 24, cwd=tmp_path)
    (tmp_path / "s.npz").write_bytes(done.stdout)
    assert load_snapshot(tmp_path / "s.npz").outputs_NM.shape[0] == 16
    assert b"queries" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"s.npz", "snapshot.events"}


def test_a_reader_that_leaves_is_no_mistake(tmp_path):
    """As `| head` does: no traceback, and a status that is not 0."""
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        lensmith("render", "-", "-o", "-", stdin=PAGE.encode(), cwd=tmp_path, stdout=theirs, code=2)
    finally:
        os.close(theirs)
