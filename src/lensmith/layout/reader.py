"""Who reads: RapidOCR on all cores, by readers of one thread each that share their weights.

What the weights do with a line is too little work to share out: two readers are done in 0.6 of the time that one with
two threads takes.

Of the detector's deepest filters a quarter and two thirds are subnormal numbers: training left them below 1e-38, and
processors need a hundred times as long for a product with one. That was two thirds of the time in which text was found.
Here they are zero, and what is found is the same.
"""

import functools
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

WIDEST_PX = 2000
"""What the detector is shown is no wider or higher."""
_MOST_READERS = 4
"""Each holds what the weights make of a strip: some 250 MB."""
_PARAMS = {
    "Global.log_level": "error",
    "EngineConfig.onnxruntime.intra_op_num_threads": 1,
    "Global.use_cls": False,
    # As they are: by default narrow strips are enlarged until they fill the memory, and wide ones shrunk.
    "Global.use_vertical_padding": False,
    "Global.max_side_len": WIDEST_PX,
    "Det.limit_type": "max",
    "Det.limit_side_len": WIDEST_PX,
    # Of several lines that are read together all are filled up to the longest: a third of the work for nothing.
    "Rec.rec_batch_num": 1,
}
_OWN = threading.local()
# The fields of an ONNX file that lead to its weights, and what says that these are 32-bit floats (onnx.proto).
_GRAPH, _INITIALIZER, _DATA_TYPE, _RAW_DATA, _FLOAT = 7, 5, 2, 9, 1


@functools.cache
def readers() -> ThreadPoolExecutor:
    """The threads that read, each with a reader of its own (`own_reader`)."""
    import rapidocr  # noqa: PLC0415 - half a second, and it is an extra
    from omegaconf import flag_override  # noqa: PLC0415 - comes with it

    sessions = _sessions(Path(rapidocr.__file__).parent / "models")

    def load() -> None:
        _OWN.reader = rapidocr.RapidOCR(params=_PARAMS)
        for part, session in sessions.items():
            with flag_override(_OWN.reader.cfg[part], "allow_objects", True):
                _OWN.reader.cfg[part].session = session

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return ThreadPoolExecutor(min(cores, _MOST_READERS), thread_name_prefix="reading", initializer=load)


def own_reader() -> Any:
    """The RapidOCR of a thread of `readers`."""
    return _OWN.reader


def _sessions(folder: Path) -> dict[str, Any]:
    """What finds text and what reads it, without subnormal weights. Where a later RapidOCR keeps them otherwise it
    loads its own."""
    import onnxruntime  # noqa: PLC0415 - an extra

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = False  # it would keep what the largest strip took
    sessions = {}
    for part, pattern in (("Det", "*_det_*.onnx"), ("Rec", "*_rec_*.onnx")):
        files = list(folder.glob(pattern))
        if len(files) == 1:
            model = bytearray(files[0].read_bytes())
            flush_subnormals(model)
            sessions[part] = onnxruntime.InferenceSession(bytes(model), options, providers=["CPUExecutionProvider"])
    return sessions


def flush_subnormals(model: bytearray) -> int:
    """Makes the weights of an ONNX file zero, in place, that are too small for a normal float. Returns how many."""
    tiny, flushed = np.finfo(np.float32).tiny, 0
    for _, graph, graph_end in _fields(model, 0, len(model), _GRAPH):
        for _, tensor, tensor_end in _fields(model, graph, graph_end, _INITIALIZER):
            if any(kind != _FLOAT for kind, _, _ in _fields(model, tensor, tensor_end, _DATA_TYPE)):
                continue
            for _, start, stop in _fields(model, tensor, tensor_end, _RAW_DATA):
                weights = np.frombuffer(model, dtype="<f4", count=(stop - start) // 4, offset=start)
                is_subnormal = (weights != 0) & (np.abs(weights) < tiny)
                weights[is_subnormal] = 0
                flushed += int(is_subnormal.sum())
    return flushed


def _fields(data: bytearray, start: int, stop: int, wanted: int) -> Iterator[tuple[int, int, int]]:
    """The fields of one number in a message of protocol buffers: each its value (0 of bytes), its start and its end."""
    at = start
    while at < stop:
        key, at = _varint(data, at)
        value, begin = 0, at
        match key & 7:
            case 0:  # a number
                value, at = _varint(data, at)
            case 1:
                at += 8
            case 2:  # so many bytes
                length, begin = _varint(data, at)
                at = begin + length
            case 5:
                at += 4
            case kind:
                raise ValueError(f"no ONNX file: a field of kind {kind} at byte {begin:,}")
        if key >> 3 == wanted:
            yield value, begin, at


def _varint(data: bytearray, at: int) -> tuple[int, int]:
    """A number in groups of 7 bits, the lowest first, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
