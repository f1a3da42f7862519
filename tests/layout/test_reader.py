"""The detector's weights without subnormal numbers find what they found before."""

import struct
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import rapidocr

from lensmith.layout.reader import flush_subnormals, own_reader, readers
from tests.support.screenshots import screenshot

TINY = float(np.finfo(np.float32).tiny)


def field(number: int, kind: int, value: bytes) -> bytes:
    return bytes([number << 3 | kind]) + value


def message(number: int, content: bytes) -> bytes:
    assert len(content) < 1 << 14
    return field(number, 2, bytes([len(content) & 0x7F | 0x80, len(content) >> 7]) + content)


def onnx_of(weights: bytes, *, data_type: int) -> bytearray:
    """A file with a version, and a graph of a name and one tensor with a name."""
    tensor = field(2, 0, bytes([data_type])) + message(8, b"weights") + message(9, weights)
    return bytearray(field(1, 0, b"\x08") + message(7, message(2, b"a graph") + message(5, tensor)))


def test_only_what_is_too_small_for_a_normal_float_becomes_zero():
    weights = [0.0, 1.0, -3e-39, TINY, -TINY, TINY / 2, 1e-45, -0.25]
    model = onnx_of(struct.pack("<8f", *weights), data_type=1)
    before = bytes(model)
    assert flush_subnormals(model) == 3
    assert model == onnx_of(struct.pack("<8f", 0, 1, 0, TINY, -TINY, 0, 0, -0.25), data_type=1) != before
    assert flush_subnormals(model) == 0


def test_other_kinds_of_numbers_are_left_alone():
    model = onnx_of(struct.pack("<4q", 1, 2, 3, 4), data_type=7)  # as floats all of them would be subnormal
    before = bytes(model)
    assert flush_subnormals(model) == 0
    assert model == before


def test_what_is_no_onnx_file_is_refused():
    with pytest.raises(ValueError, match="no ONNX file"):
        flush_subnormals(bytearray(b"\x07\x07\x07\x07"))


def test_the_detector_finds_the_same_without_them():
    [file] = (Path(rapidocr.__file__).parent / "models").glob("*_det_*.onnx")
    model = bytearray(file.read_bytes())
    assert flush_subnormals(model) > 100_000
    html = "<body style='margin:0;font:16px Arial;padding:20px'><h1>Quarterly results</h1><p>All went well.</p></body>"
    rgb_HW3, _ = screenshot(html, width_px=640)
    seen_13HW = (rgb_HW3[:96, :, ::-1].astype(np.float32) / 127.5 - 1).transpose(2, 0, 1)[None]
    maps = []
    for weights in (file.read_bytes(), bytes(model)):
        session = onnxruntime.InferenceSession(weights, providers=["CPUExecutionProvider"])
        maps.append(session.run(None, {session.get_inputs()[0].name: seen_13HW})[0])
    assert maps[0].max() > 0.9
    # What was taken away is below 1e-38 and adds up to nothing that a float beside it can hold.
    np.testing.assert_array_equal(maps[0], maps[1])


def test_readers_share_their_weights():
    sessions = readers().map(lambda _: (id(own_reader().cfg.Det.session), id(own_reader().cfg.Rec.session)), range(8))
    assert len(set(sessions)) == 1
