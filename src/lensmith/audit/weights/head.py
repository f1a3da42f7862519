"""The operator's own output head, read from its file without torch: what a recovered layer is scored against.

Safetensors (F64, F32, F16, BF16; one file, an index with its shards, or a folder with either) and GGUF (plain
or in blocks). The head is found by the names that it has in practice; a model that ties it to the input
embedding has only that.

Legend: V vocabulary, H width.
"""

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lensmith.audit.weights.gguf import BF16, F16, F32, F64, Format, StoredMatrix, gguf_format, read_gguf_header
from lensmith.core.arrays import Float32Array
from lensmith.core.errors import InputError

HEAD_NAMES = ("lm_head.weight", "output.weight", "embed_out.weight")
TIED_NAMES = ("embed_tokens.weight", "token_embd.weight", "wte.weight", "word_embeddings.weight")
GAIN_NAMES = (
    "model.norm.weight",
    "model.language_model.norm.weight",
    "language_model.model.norm.weight",
    "model.text_model.norm.weight",
    "model.final_layernorm.weight",
    "model.decoder.final_layer_norm.weight",
    "transformer.ln_f.weight",
    "transformer.norm_f.weight",
    "gpt_neox.final_layer_norm.weight",
    "backbone.norm_f.weight",
    "output_norm.weight",
)
"""The last norm's, as a whole: norms within layers end alike."""
_FORMATS = {"F64": F64, "F32": F32, "F16": F16, "BF16": BF16}
_MAX_HEADER_BYTES = 100_000_000
_INDEX_ENDING = ".safetensors.index.json"


@dataclass(frozen=True, kw_only=True)
class TrueWeights:
    """An operator's own: the head, not yet read, and the gain (H,) of the norm before it where its file has one."""

    head: StoredMatrix
    gain_H: Float32Array | None


def open_weights(place: str | Path) -> TrueWeights:
    """Both, from a place as `open_head` takes it. Raises as `open_head` does."""
    return TrueWeights(head=open_head(place), gain_H=open_gain(place))


def open_head(place: str | Path, name: str | None = None) -> StoredMatrix:
    """The head (V x H), not yet read. `place`: a .safetensors or .gguf file, an index of shards, or a folder with one.

    `name`: which tensor it is, where the known names do not fit. Raises InputError for a missing, truncated or
    malformed file, an unknown number format, or where no head, or more than one, is found.
    """
    path = _file_of(Path(place))
    try:
        return _stored(path, _choose(_names_in(path), name, path))
    except OSError as error:
        raise InputError(f"{path.name} cannot be read", actual=error.strerror or error) from error


def open_gain(place: str | Path) -> Float32Array | None:
    """The gain (H,) of the norm before the head, by the names that it has in practice; None where there is no such.

    Some models store it less one, which their files do not say. Raises as `open_head` does.
    """
    path = _file_of(Path(place))
    try:
        names = set(_names_in(path))
        known = [name for name in GAIN_NAMES if name in names]
        return _stored(path, known[0], axes=1)[:].reshape(-1) if known else None
    except OSError as error:
        raise InputError(f"{path.name} cannot be read", actual=error.strerror or error) from error


def _names_in(path: Path) -> list[str]:
    if path.suffix == ".gguf":
        return list(read_gguf_header(path))
    names = _read_index(path) if path.name.endswith(_INDEX_ENDING) else _safetensors_header(path)[0]
    return [name for name in names if name != "__metadata__"]


def _stored(path: Path, name: str, *, axes: int = 2) -> StoredMatrix:
    """The tensor as a matrix; one of one axis, where that is asked for, is a matrix of one row."""
    if path.suffix == ".gguf":
        return _from_gguf(path, name, axes)
    if not path.name.endswith(_INDEX_ENDING):
        return _from_safetensors(path, name, axes)
    file = _read_index(path)[name]
    shard = path.parent / file
    if file != Path(file).name or not shard.is_file():
        raise InputError(f"{path.name}: a shard is missing", expected=file, actual="no such file")
    return _from_safetensors(shard, name, axes)


def _file_of(path: Path) -> Path:
    if path.is_file():
        if path.suffix in {".gguf", ".safetensors"} or path.name.endswith(_INDEX_ENDING):
            return path
        raise InputError(f"{path.name} is no kind of weights that we read", expected=".safetensors or .gguf")
    if not path.is_dir():
        raise InputError(
            f"{path.name}: no such file or folder", hint="give a .safetensors or .gguf file, or its folder"
        )
    for pattern in ("*" + _INDEX_ENDING, "*.safetensors", "*.gguf"):
        found = sorted(path.glob(pattern))
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(file.name for file in found[:5])
            hint = f"give the file instead of its folder, as in {path / found[0].name}"
            raise InputError(f"{path.name} holds {len(found)} files of weights", actual=names, hint=hint)
    raise InputError(f"{path.name} holds no weights", expected="a .safetensors or .gguf file")


def _read_index(path: Path) -> dict[str, str]:
    try:
        shards = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path.name} is no index of shards", expected="JSON with a weight_map") from error
    if not isinstance(shards, dict) or not all(isinstance(file, str) for file in shards.values()):
        raise InputError(f"{path.name} is no index of shards", expected="a weight_map of names to files")
    return shards


def _choose(names: list[str], wanted: str | None, path: Path) -> str:
    """The wanted tensor, else the head, else the embedding that it is tied to."""
    if wanted is not None:
        if wanted in names:
            return wanted
        raise InputError(f"{path.name} has no tensor {wanted}", actual=", ".join(sorted(names)[:8]))
    for known in (HEAD_NAMES, TIED_NAMES):
        # `output.weight` ends the names of inner layers too, so it counts only as a whole.
        found = [
            name
            for name in names
            for ending in known
            if name == ending or (ending != "output.weight" and name.endswith("." + ending))
        ]
        if len(found) == 1:
            return found[0]
        if found:
            hint = "give a file that holds only the model that the endpoint serves, as its own checkpoint has it"
            raise InputError(f"{path.name} has more than one head", actual=", ".join(found), hint=hint)
    expected = ", ".join((*HEAD_NAMES, *TIED_NAMES))
    raise InputError(f"{path.name} has no output head", expected=expected, actual=", ".join(sorted(names)[:8]))


def _from_safetensors(path: Path, chosen: str, axes: int) -> StoredMatrix:
    header, data_start = _safetensors_header(path)
    if chosen not in header:
        raise InputError(f"{path.name} has no tensor {chosen}", actual=", ".join(sorted(header)[:8]))
    entry = header[chosen]
    try:
        kind, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        is_sound = all(type(number) is int and number >= 0 for number in (*shape, start, end))
    except (TypeError, KeyError, ValueError):
        is_sound = False
    if not is_sound:
        raise InputError(f"{path.name}: {chosen} is malformed", expected="dtype, shape and data_offsets", actual=entry)
    if kind not in _FORMATS:
        raise InputError(f"{path.name}: {chosen} has an unknown format", expected=", ".join(_FORMATS), actual=kind)
    matrix = _checked(path, chosen, _as_matrix(shape, axes), data_start + start, _FORMATS[kind])
    if end - start != math.prod(shape) * _FORMATS[kind].size:
        expected = math.prod(shape) * _FORMATS[kind].size
        raise InputError(
            f"{path.name}: {chosen} contradicts its shape", expected=f"{expected} bytes", actual=end - start
        )
    return matrix


def _safetensors_header(path: Path) -> tuple[dict[str, Any], int]:
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(8)
        length = struct.unpack("<Q", first)[0] if len(first) == 8 else size
        if length > min(size - 8, _MAX_HEADER_BYTES):
            raise InputError(
                f"{path.name} is truncated or no safetensors file",
                expected=f"a header of {length} bytes",
                actual=f"a file of {size} bytes",
                hint="download it again",
            )
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path.name} is no safetensors file", expected="a header of JSON") from error
    if not isinstance(header, dict):
        raise InputError(f"{path.name} is no safetensors file", expected="a header of names")
    return header, 8 + length


def _from_gguf(path: Path, chosen: str, axes: int) -> StoredMatrix:
    tensor = read_gguf_header(path)[chosen]
    stored_as = gguf_format(tensor.kind)
    if stored_as is None:
        expected = "F64, F32, F16, BF16, or blocks that the gguf package turns into floats"
        raise InputError(
            f"{path.name}: {chosen} has an unknown format", expected=expected, actual=f"type {tensor.kind}"
        )
    return _checked(path, chosen, _as_matrix(tensor.shape, axes), tensor.offset, stored_as)


def _as_matrix(shape: tuple[int, ...], axes: int) -> tuple[int, ...]:
    return (1, *shape) if axes == 1 else shape


def _checked(path: Path, name: str, shape: tuple[int, ...], offset: int, stored_as: Format) -> StoredMatrix:
    """The matrix, if it is one and lies within the file."""
    if len(shape) != 2 or min(shape) < 1 or shape[1] % stored_as.numbers:
        expected = f"two axes, the second a multiple of {stored_as.numbers}"
        raise InputError(f"{path.name}: {name} is no head", expected=expected, actual=shape)
    end = offset + math.prod(shape) // stored_as.numbers * stored_as.size
    size = path.stat().st_size
    if end > size:
        raise InputError(
            f"{path.name} is truncated", expected=f"{end} bytes for {name}", actual=size, hint="download it again"
        )
    return StoredMatrix(path=path, name=name, shape=(shape[0], shape[1]), offset=offset, format=stored_as)
