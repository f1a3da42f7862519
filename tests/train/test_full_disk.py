"""A full disk, or a limit on files: older checkpoints stay whole; the error says what, where and how much."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from lensmith.train import Curves, LossParts, StepContext, StorageError, newest
from lensmith.train.log import LOG_FILE, StepLog
from lensmith.train.status import RunState, read_status
from tests.support.toy_run import ToyBatch, ToyModel, curve, same_bits, toy_config, toy_loss, toy_train

DISK_BYTES = 200_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with little room, which only root can make."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def files_limited(tmp_path: Path) -> Iterator[Any]:
    """What it gives limits how large a file may become, as `ulimit -f` does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda most: resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def filling(folder: Path, step: int) -> Any:
    """The toy loss, which fills the disk in an update (counted from 0)."""

    def loss(model: nn.Module, batch: ToyBatch, context: StepContext) -> LossParts:
        if (context.step, context.micro) == (step, 0):
            free = os.statvfs(folder)
            (folder / "other").write_bytes(b"x" * (free.f_bavail * free.f_frsize))
        return toy_loss(model, batch, context)

    return loss


def test_a_full_disk_ends_the_run_and_leaves_the_older_checkpoint_whole(small_disk: Path, tmp_path: Path) -> None:
    reference = toy_train(tmp_path / "reference")
    out = small_disk / "run"
    toy_train(out, steps=7)
    # The log's last block has room for a few lines; the checkpoint of step 8 has none.
    with pytest.raises(StorageError) as caught:
        toy_train(out, loss=filling(small_disk, 7), steps=1)
    message = str(caught.value)
    assert "No space left on device" in message
    assert "model.safetensors" in message
    assert str(out / "step-000007") in message
    assert "MiB for it" in message
    assert "0.0 MiB free" in message
    found = newest(out)
    assert not found.damaged
    assert found.checkpoint is not None
    assert found.checkpoint.step == 7
    assert not list(out.glob(".unfinished-*"))
    (small_disk / "other").unlink()
    run = toy_train(out)
    assert curve(out) == curve(tmp_path / "reference")
    assert same_bits(run.model, reference.model)


def test_a_log_that_cannot_grow_ends_the_run_by_name(tmp_path: Path, files_limited: Any) -> None:
    toy_train(tmp_path, steps=7)
    files_limited((tmp_path / LOG_FILE).stat().st_size + 20)
    with pytest.raises(StorageError) as caught:
        toy_train(tmp_path)
    assert str(tmp_path / LOG_FILE) in str(caught.value)
    assert "File too large" in str(caught.value)
    assert str(tmp_path / "step-000007") in str(caught.value)
    status = read_status(tmp_path)
    assert status is not None
    assert status.state is RunState.FAILED
    assert status.why is not None
    assert LOG_FILE in status.why


def test_a_line_that_was_written_in_part_is_cut_as_the_run_goes_on(tmp_path: Path, files_limited: Any) -> None:
    reference = toy_train(tmp_path / "reference")
    out = tmp_path / "run"
    toy_train(out, steps=7)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    files_limited((out / LOG_FILE).stat().st_size + 20)
    with pytest.raises(StorageError):
        toy_train(out)
    assert not (out / LOG_FILE).read_bytes().endswith(b"\n")
    files_limited(limit)
    run = toy_train(out)
    assert curve(out) == curve(tmp_path / "reference")
    assert same_bits(run.model, reference.model)


def test_a_file_limit_that_a_checkpoint_exceeds_is_told(tmp_path: Path, files_limited: Any) -> None:
    toy_train(tmp_path, steps=1)
    files_limited(3_500)
    with pytest.raises(StorageError, match=r"(?s)step 7 .*File too large.*step-000001"):
        toy_train(tmp_path)
    assert newest(tmp_path).checkpoint.step == 1


def test_what_was_not_written_does_not_come_up_again_as_the_log_closes(tmp_path: Path, files_limited: Any) -> None:
    log = StepLog(tmp_path, step=0, curves=Curves.JSONL)
    log.write({"step": 1, "loss": 2.0})
    files_limited((tmp_path / LOG_FILE).stat().st_size)
    with pytest.raises(OSError, match=LOG_FILE):
        log.write({"step": 2, "loss": 2.0})
    log.close()
    assert json.loads((tmp_path / LOG_FILE).read_text())["step"] == 1


def test_the_command_says_so_without_a_traceback(small_disk: Path) -> None:
    out = small_disk / "run"
    (small_disk / "other").write_bytes(b"x" * (DISK_BYTES - 40_000))
    program = (
        "import sys\nfrom pathlib import Path\nimport typer\nfrom lensmith.cli.app import run\n"
        "from tests.support.toy_run import toy_train\napp = typer.Typer()\n"
        "@app.command()\ndef train(out: Path) -> None:\n    toy_train(out)\nrun(app)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("lensmith: the checkpoint of step 7 could not be written")
    assert "Traceback" not in done.stderr


def test_toy_checkpoints_need_more_room_than_the_small_disk_leaves() -> None:
    # What the tests above take for granted: four files, of which the model's alone is not small.
    assert sum(p.numel() * 4 for p in ToyModel().parameters()) > 3_000
    assert toy_config().checkpoint_every_steps == 7
