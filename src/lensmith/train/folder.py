"""A run's folder of checkpoints: each one whole or absent, verified before it is believed.

A checkpoint is written under a temporary name, synced to disk, and renamed. Its `manifest.json` states the size and
SHA-256 of every other file and its own hash, so that a torn or rotten checkpoint is known as such before it is loaded.
"""

import contextlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lensmith.core.errors import CheckpointError
from lensmith.core.files import sha256_of_bytes, sha256_of_file, write_atomic

MANIFEST_FILE = "manifest.json"

_NAME = re.compile(r"step-(\d{6,})")
_UNFINISHED = ".unfinished-"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A complete checkpoint on disk: the number of updates it stands after, and the notes its writer left."""

    path: Path
    step: int
    notes: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Found:
    """The newest good checkpoint (None if there is none), and what is wrong with each newer one."""

    checkpoint: Checkpoint | None
    damaged: Mapping[Path, str]


# --- writing ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def writing(folder: Path, *, step: int, notes: Mapping[str, Any]) -> Iterator[Path]:
    """Gives an empty folder to write files into; on leaving without an error it becomes `step-NNNNNN` all at once."""
    for leftover in folder.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(leftover)
    temporary = folder / f"{_UNFINISHED}{step}"
    temporary.mkdir()
    try:
        yield temporary
        manifest = _write_manifest(temporary, step, notes)
        for file in temporary.iterdir():
            # safetensors makes files that only their owner may read; all get the mode that this process gives others.
            shutil.copymode(manifest, file)
            _sync(file)
        _sync(temporary)
    except Exception:
        # On a full disk this is the room that the next attempt needs. What cannot be removed, the next one removes.
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    final = checkpoint_path(folder, step)
    if final.exists():
        _remove(final)
    temporary.rename(final)
    _sync(folder)


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of `step` updates lies."""
    return folder / f"step-{step:06d}"


def keep_newest(folder: Path, count: int) -> None:
    """Removes all but the newest `count` checkpoints."""
    for _, path in _candidates(folder)[count:]:
        _remove(path)


def _write_manifest(folder: Path, step: int, notes: Mapping[str, Any]) -> Path:
    files = {
        file.name: {"bytes": file.stat().st_size, "sha256": sha256_of_file(file)} for file in sorted(folder.iterdir())
    }
    content: dict[str, Any] = {"step": step, "notes": dict(notes), "files": files}
    content["sha256"] = _content_hash(content)
    path = folder / MANIFEST_FILE
    write_atomic(path, json.dumps(content, indent=2, sort_keys=True) + "\n")
    return path


def _content_hash(content: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in content.items() if key != "sha256"}
    return sha256_of_bytes(json.dumps(rest, sort_keys=True).encode())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    # Renamed first: a crash halfway through the removal must not leave something that looks like a checkpoint.
    doomed = path.with_name(f"{_UNFINISHED}{path.name}")
    path.rename(doomed)
    shutil.rmtree(doomed)


# --- finding ------------------------------------------------------------------------------------------------------


def newest(folder: Path) -> Found:
    """The newest checkpoint whose every file has the size and hash that its manifest states. Changes nothing."""
    damaged: dict[Path, str] = {}
    for step, path in _candidates(folder):
        try:
            return Found(checkpoint=_verified(path, step), damaged=damaged)
        except _DamagedError as problem:
            damaged[path] = str(problem)
    return Found(checkpoint=None, damaged=damaged)


def newest_usable(folder: Path) -> Checkpoint | None:
    """As `newest`, but renames damaged checkpoints to `*.damaged`, with a warning. None if none was ever written.

    Raises CheckpointError where there are checkpoints and all are damaged: starting over is a person's decision.
    """
    found = newest(folder)
    if found.checkpoint is None and found.damaged:
        raise CheckpointError(
            f"every checkpoint in {folder} is damaged",
            actual="; ".join(f"{path.name}: {problem}" for path, problem in found.damaged.items()),
            hint="bring one back from a backup, or train into another folder",
        )
    for path, problem in found.damaged.items():
        aside = path.with_name(f"{path.name}.damaged")
        if aside.exists():
            shutil.rmtree(aside)
        path.rename(aside)
        logger.warning("checkpoint %s is damaged (%s) and was set aside as %s", path, problem, aside.name)
    if found.damaged and found.checkpoint is not None:
        logger.warning("going back to %s", found.checkpoint.path)
    return found.checkpoint


class _DamagedError(Exception):
    """What is wrong with a checkpoint."""


def _candidates(folder: Path) -> list[tuple[int, Path]]:
    matches = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir() if path.is_dir())
    return sorted(((int(match[1]), path) for match, path in matches if match), reverse=True)


def _verified(path: Path, step: int) -> Checkpoint:
    try:
        manifest = json.loads((path / MANIFEST_FILE).read_bytes())
        if manifest["sha256"] != _content_hash(manifest) or manifest["step"] != step:
            raise _DamagedError(f"{MANIFEST_FILE} is not as it was written")
        for name, expected in manifest["files"].items():
            if (size := (path / name).stat().st_size) != expected["bytes"]:
                raise _DamagedError(f"{name} has {size} bytes instead of {expected['bytes']}")
            if sha256_of_file(path / name) != expected["sha256"]:
                raise _DamagedError(f"{name} has another SHA-256 than was written")
    except FileNotFoundError as error:
        raise _DamagedError(f"{Path(error.filename).name} is missing") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _DamagedError(f"{MANIFEST_FILE} cannot be read") from error
    return Checkpoint(path=path, step=step, notes=manifest["notes"])
