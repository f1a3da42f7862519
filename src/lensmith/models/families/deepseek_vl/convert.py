"""A checkpoint of one layout becomes one of another: weights, configuration, and what lies beside them.

Weights go from file to file, a tensor at a time and bit by bit as they are. All is written into a folder beside the
target, read again, and renamed; whoever looks finds all of it or nothing, and what an interrupted run left is removed
by the next.
"""

import contextlib
import functools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from lensmith.core.errors import CheckpointError, InputError
from lensmith.core.files import write_atomic
from lensmith.core.types import OnProgress, unwatched
from lensmith.models.checkpoints.folder import CONFIG
from lensmith.models.checkpoints.key_rules import KeyPlan
from lensmith.models.checkpoints.writing import SHARD_BYTES, Header, write_weights
from lensmith.models.families.deepseek_vl.assets import write_assets
from lensmith.models.families.deepseek_vl.checkpoint import PublishedCheckpoint, open_checkpoint
from lensmith.models.families.deepseek_vl.layouts import CheckpointLayout, Variant, layout_named, plan_for
from lensmith.models.families.deepseek_vl.loading import as_folder
from lensmith.models.families.deepseek_vl.published_config import write_original, write_transformers

_UNFINISHED = ".converting"
_MARGIN_BYTES = 64 << 20
"""For everything but the weights."""


@dataclass(frozen=True, kw_only=True)
class Converted:
    """`unused`: tensors of the source, by its own names, that nothing reads; they are left out.

    `has_tokenizer` false: the source has none, so the result has none either.
    """

    folder: Path
    source_layout: CheckpointLayout
    layout: CheckpointLayout
    family: Variant
    tensors: int
    weight_bytes: int
    unused: tuple[str, ...]
    has_tokenizer: bool

    def __str__(self) -> str:
        lines = [
            f"{self.folder}: {self.tensors} tensors, {self.weight_bytes / 1e9:.2f} GB, {self.layout.value} layout"
            f" (was {self.source_layout.value}, family {self.family.value})"
        ]
        if self.unused:
            lines.append(f"left out, since nothing reads them: {', '.join(self.unused)}")
        if not self.has_tokenizer:
            lines.append("without tokenizer: the source has none")
        return "\n".join(lines)


def convert(
    source: str | Path,
    out: str | Path,
    layout: CheckpointLayout | str,
    *,
    overwrite: bool = False,
    shard_bytes: int = SHARD_BYTES,
    on_progress: OnProgress = unwatched,
    progress_bytes: int = 1_000_000,
) -> Converted:
    """`source`: a folder of any layout, or a name on the Hub. `on_progress` gets units of `progress_bytes` (done, all).

    Raises CheckpointError where the source is not whole (see `open_checkpoint`), InputError where `out` is there
    already and not to be overwritten, lies in the source, or has no room.
    """
    target, wanted = Path(out), layout_named(layout) if isinstance(layout, str) else layout
    folder = as_folder(source)
    _check_target(folder, target, overwrite=overwrite)
    checkpoint = open_checkpoint(folder)
    plan = plan_for(checkpoint.shapes, wanted)
    headers = {name: _header(checkpoint, plan, name) for name in plan.stored}
    total = sum(header.bytes for header in headers.values())
    target.parent.mkdir(parents=True, exist_ok=True)
    _check_room(target.parent, total)
    with _unfinished(target) as made:
        write_atomic(made / CONFIG, _config_text(checkpoint, wanted))
        has_tokenizer = write_assets(checkpoint, made, wanted)
        write_weights(
            made,
            headers,
            lambda name: plan.stored[name].join(checkpoint.read),
            shard_bytes=shard_bytes,
            on_written=_in_units(on_progress, total, progress_bytes),
        )
        open_checkpoint(made)
        _put(made, target)
    return Converted(
        folder=target,
        source_layout=checkpoint.form.layout,
        layout=wanted,
        family=checkpoint.form.variant,
        tensors=len(plan.stored),
        weight_bytes=total,
        unused=tuple(checkpoint.unused),
        has_tokenizer=has_tokenizer,
    )


def _header(checkpoint: PublishedCheckpoint, plan: KeyPlan, name: str) -> Header:
    stored = plan.stored[name]
    dtypes = [checkpoint.read(piece).dtype for piece in stored.pieces]
    return Header(shape=stored.shape, dtype=functools.reduce(torch.promote_types, dtypes))


def _config_text(checkpoint: PublishedCheckpoint, layout: CheckpointLayout) -> str:
    config, dtype = checkpoint.config, str(checkpoint.dtype).removeprefix("torch.")
    if layout is CheckpointLayout.ORIGINAL:
        values = write_original(config, dtype)
    elif layout is CheckpointLayout.LENSMITH:
        values = config.to_dict() | {"architectures": ["VisionLanguageModel"], "dtype": dtype}
        values["language"]["tie_word_embeddings"] = False
    else:
        values = write_transformers(config, dtype, layout)
    return json.dumps(values, indent=2, sort_keys=True) + "\n"


def _check_target(folder: Path, target: Path, *, overwrite: bool) -> None:
    source, wanted = folder.resolve(), target.resolve()
    if source == wanted or source in wanted.parents or wanted in source.parents:
        raise InputError("source and result lie in each other", expected="another folder", actual=target)
    if target.is_dir() and any(target.iterdir()) and not overwrite:
        raise InputError("the folder is not empty", actual=target, hint="--overwrite, or another folder")
    if target.exists() and not target.is_dir():
        raise InputError("not a folder", expected="a new folder", actual=target)


def _check_room(parent: Path, needed: int) -> None:
    free = shutil.disk_usage(parent).free
    if free < needed + _MARGIN_BYTES:
        raise InputError(
            "not enough room on the disk", expected=f"{needed / 1e9:.1f} GB", actual=f"{free / 1e9:.1f} GB in {parent}"
        )


@contextlib.contextmanager
def _unfinished(target: Path) -> Iterator[Path]:
    """A folder beside the target, removed in the end whatever happens, with those that dead processes left."""
    for left in target.parent.glob(f".{target.name}.*{_UNFINISHED}"):
        process = left.name.removesuffix(_UNFINISHED).rpartition(".")[2]
        if process.isdigit() and not _is_alive(int(process)):
            shutil.rmtree(left, ignore_errors=True)
    made = target.parent / f".{target.name}.{os.getpid()}{_UNFINISHED}"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    try:
        yield made
    except OSError as error:
        raise CheckpointError("the result cannot be written", actual=f"{target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def _put(made: Path, target: Path) -> None:
    if not target.exists():
        made.rename(target)
        return
    old = target.with_name(f"{made.name}.old")
    target.rename(old)
    try:
        made.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _in_units(on_progress: OnProgress, total: int, unit: int) -> Callable[[int], None]:
    done = reported = 0
    all_units = -(-total // unit)

    def on_written(size: int) -> None:
        nonlocal done, reported
        done += size
        units = all_units if done == total else done // unit
        if units > reported:
            reported = units
            on_progress(units, all_units)

    return on_written
