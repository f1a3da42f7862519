"""Weights to safetensors files, one tensor at a time.

safetensors' own functions take all tensors of a file at once, and as copies; a shard of a large model would then be in
memory once more.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lensmith.core.errors import CheckpointError
from lensmith.core.files import open_output, write_atomic
from lensmith.models.checkpoints.shards import INDEX, SAFETENSORS, Shape

SHARD_BYTES = 5_000_000_000
_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
_ALIGNMENT = 64


@dataclass(frozen=True, kw_only=True)
class Header:
    """What is known of a tensor before it is read."""

    shape: Shape
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        return int(torch.Size(self.shape).numel()) * self.dtype.itemsize


def write_weights(
    folder: Path,
    headers: Mapping[str, Header],
    read: Callable[[str], Tensor],
    *,
    shard_bytes: int = SHARD_BYTES,
    on_written: Callable[[int], None] | None = None,
) -> list[Path]:
    """One file, or shards of at most `shard_bytes` (a larger tensor alone) with an index, as transformers names them.

    `read` is asked for each tensor once, when it is its turn; `on_written` is told the bytes of each.
    """
    unknown = sorted({str(header.dtype) for header in headers.values()} - {str(dtype) for dtype in _TYPES})
    if unknown:
        raise CheckpointError("precision that safetensors files cannot hold", actual=", ".join(unknown))
    shards = _shards(headers, shard_bytes)
    stem, suffix = SAFETENSORS.rsplit(".", 1)
    count = len(shards)
    names = [SAFETENSORS] if count == 1 else [f"{stem}-{n:05d}-of-{count:05d}.{suffix}" for n in range(1, count + 1)]
    for name, shard in zip(names, shards, strict=True):
        _write_file(folder / name, {key: headers[key] for key in shard}, read, on_written)
    if count > 1:
        index = {
            "metadata": {"total_size": sum(header.bytes for header in headers.values())},
            "weight_map": {key: name for name, shard in zip(names, shards, strict=True) for key in shard},
        }
        write_atomic(folder / f"{SAFETENSORS}{INDEX}", json.dumps(index, indent=2, sort_keys=True) + "\n")
    return [folder / name for name in names]


def _shards(headers: Mapping[str, Header], shard_bytes: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    room = shard_bytes
    for name, header in headers.items():
        if shards[-1] and header.bytes > room:
            shards.append([])
            room = shard_bytes
        shards[-1].append(name)
        room -= header.bytes
    return shards


def _write_file(
    path: Path,
    headers: Mapping[str, Header],
    read: Callable[[str], Tensor],
    on_written: Callable[[int], None] | None,
) -> None:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    # Wide types first, as safetensors does: then every tensor starts at a multiple of its type's size.
    order = sorted(headers, key=lambda name: -headers[name].dtype.itemsize)
    start = 0
    for name in order:
        header = headers[name]
        end = start + header.bytes
        entries[name] = {"dtype": _TYPES[header.dtype], "shape": list(header.shape), "data_offsets": [start, end]}
        start = end
    head = json.dumps(entries, separators=(",", ":")).encode()
    head += b" " * (-(len(head) + 8) % _ALIGNMENT)
    with open_output(path) as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for name in order:
            tensor = read(name)
            header = headers[name]
            assert (tuple(tensor.shape), tensor.dtype) == (header.shape, header.dtype), f"{name} is as announced"
            file.write(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
            if on_written is not None:
                on_written(header.bytes)
