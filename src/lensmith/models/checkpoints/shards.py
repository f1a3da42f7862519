"""The weights in a folder, without reading them: which tensors there are, and each as a view of its mapped file.

safetensors or PyTorch's own format, in one file or in shards with an index. Files are mapped, so a tensor costs memory
only where something copies it. All that is wrong with the files is told at once, before any weight is used.
"""

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lensmith.core.errors import CheckpointError

SAFETENSORS, PICKLED = "model.safetensors", "pytorch_model.bin"
INDEX = ".index.json"

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The tensors of a folder by name. `files`: in which file each lies."""

    folder: Path
    files: Mapping[str, Path]
    tensors: Mapping[str, Tensor]

    @property
    def shapes(self) -> dict[str, Shape]:
        return {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}


def open_weights(folder: Path) -> Weights:
    """Raises CheckpointError for files that are missing, cut short or damaged, all of them in one message."""
    files, indexed = _find(folder)
    tensors: dict[str, Tensor] = {}
    found_in: dict[str, Path] = {}
    problems = []
    for path in files:
        try:
            content = _open(path)
        except CheckpointError as error:
            problems.append(f"{path.name}: {error.actual}")
            continue
        problems += [f"{path.name}: {name} is also in {found_in[name].name}" for name in content if name in found_in]
        tensors |= content
        found_in |= dict.fromkeys(content, path)
    if not problems:  # a shard that cannot be read would have all its tensors in this list
        for name, file in indexed.items():
            if name not in found_in:
                problems.append(f"{file}: lacks {name}, which the index places there")
            elif found_in[name].name != file:
                problems.append(f"{found_in[name].name}: has {name}, which the index places in {file}")
    _raise(folder, problems)
    return Weights(folder=folder, files=found_in, tensors=tensors)


def on_its_own(tensor: Tensor) -> Tensor:
    """The same memory, as a tensor that knows of no neighbours: whoever saves or measures it sees only its own part."""
    if not tensor.is_contiguous():
        return tensor
    size = tensor.element_size()
    start = tensor.storage_offset() * size
    storage = tensor.untyped_storage()[start : start + tensor.numel() * size]
    return torch.empty(0, dtype=tensor.dtype).set_(cast(Any, storage), 0, tensor.shape, tensor.stride())


def _find(folder: Path) -> tuple[list[Path], dict[str, str]]:
    """The files with weights, and what an index says of where each tensor lies (file names)."""
    for name in (SAFETENSORS, PICKLED):
        if (folder / f"{name}{INDEX}").is_file():
            indexed = _index(folder / f"{name}{INDEX}")
            files = sorted(set(indexed.values()))
            lost = [f"{file}: named by {name}{INDEX}, but not there" for file in files if not _is(folder, file)]
            _raise(folder, lost)
            return [folder / file for file in files], indexed
        if (folder / name).is_file():
            return [folder / name], {}
    lost = sorted(path.name for path in folder.glob("*-of-*") if path.suffix in (".safetensors", ".bin"))
    raise CheckpointError(
        "there are no weights in this folder",
        expected=f"{SAFETENSORS} or {PICKLED}, or shards of it with {SAFETENSORS}{INDEX} or {PICKLED}{INDEX}",
        actual=f"{folder}" + (f" with {', '.join(lost)} but no index" if lost else ""),
    )


def _is(folder: Path, file: str) -> bool:
    return Path(file).name == file and (folder / file).is_file()


def _index(path: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(path.read_bytes())["weight_map"]
        if weight_map and all(isinstance(item, str) for pair in weight_map.items() for item in pair):
            return cast(dict[str, str], weight_map)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"cannot read the index {path}", actual=f"{type(error).__name__}: {error}") from error
    raise CheckpointError(f"cannot read the index {path}", expected="weight_map: names of tensors to names of files")


def _open(path: Path) -> dict[str, Tensor]:
    try:
        return _open_safetensors(path) if path.suffix == ".safetensors" else _open_pickled(path)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}", actual=error.strerror or str(error)) from error


def _open_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    except (SafetensorError, RuntimeError, ValueError) as error:
        size = path.stat().st_size
        raise CheckpointError(
            f"cannot read {path}",
            expected="a whole safetensors file",
            actual=f"cut short or damaged ({error}; {size} bytes)",
        ) from error


def _open_pickled(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).split("\n")[0]
        raise CheckpointError(
            f"cannot read {path}",
            expected="a whole file of tensors, saved by torch 1.6 or later",
            actual=f"cut short, damaged or not tensors only ({reason})",
        ) from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"cannot read {path}", actual="holds other things than tensors by name")
    return content


def _raise(folder: Path, problems: list[str]) -> None:
    if problems:
        raise CheckpointError(
            f"{folder}: the weights cannot be read", actual="\n    ".join([f"{len(problems)} problems", *problems])
        )
