"""Heads read from files as others wrote them, and files that are no such thing."""

import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from lensmith.audit.weights.gguf import gguf_format
from lensmith.audit.weights.head import GAIN_NAMES, HEAD_NAMES, TIED_NAMES, open_gain, open_head
from lensmith.core.errors import InputError, ShapeError

HEAD = np.random.default_rng(0).standard_normal((40, 256)).astype(np.float32)
COMMON = {2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K"}


def _write_gguf(path, tensors, **metadata):
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_array("tokenizer.ggml.tokens", ["a", "ä", "<s>"])
    writer.add_array("tokenizer.ggml.scores", [0.5, 1.5, 2.5])
    writer.add_bool("some.flag", True)
    for key, value in metadata.items():
        writer.add_uint32(key.replace("_", "."), value)
    for name, (data, kind) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=None if kind is None else gguf.GGMLQuantizationType(kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_bf16(path, matrix, name="lm_head.weight"):
    """By hand, because numpy knows no bf16."""
    data = (matrix.astype(np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
    entry = {"dtype": "BF16", "shape": list(matrix.shape), "data_offsets": [0, len(data)]}
    header = json.dumps({"__metadata__": {"format": "pt"}, name: entry}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16])
def test_safetensors_of_any_precision(tmp_path, kind):
    save_file(
        {"model.norm.weight": np.ones(256, kind), "lm_head.weight": HEAD.astype(kind)}, tmp_path / "m.safetensors"
    )
    head = open_head(tmp_path / "m.safetensors")
    assert head.shape == (40, 256)
    assert head[0:40].dtype == np.float32
    assert np.array_equal(head[5:9], HEAD.astype(kind)[5:9].astype(np.float32))
    assert np.array_equal(head.rows(np.array([7, 3, 3])), HEAD.astype(kind)[[7, 3, 3]].astype(np.float32))


def test_safetensors_of_bf16(tmp_path):
    rounded = (HEAD.view(np.uint32) & 0xFFFF0000).view(np.float32)
    _write_bf16(tmp_path / "model.safetensors", rounded)
    assert np.array_equal(open_head(tmp_path)[0:40], rounded)


def test_bf16_equals_what_torch_wrote(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch  # noqa: PLC0415  # torch may be missing

    weights = torch.from_numpy(HEAD).to(torch.bfloat16)
    save_torch({"lm_head.weight": weights}, tmp_path / "model.safetensors")
    assert np.array_equal(open_head(tmp_path)[0:40], weights.float().numpy())


def test_shards_are_found_by_their_index(tmp_path):
    save_file({"model.embed_tokens.weight": HEAD * 2}, tmp_path / "model-1.safetensors")
    save_file({"lm_head.weight": HEAD}, tmp_path / "model-2.safetensors")
    names = {"model.embed_tokens.weight": "model-1.safetensors", "lm_head.weight": "model-2.safetensors"}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    for place in (tmp_path, index):
        assert np.array_equal(open_head(place)[0:40], HEAD)
    assert np.array_equal(open_head(tmp_path, "model.embed_tokens.weight")[1:2], HEAD[1:2] * 2)
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(InputError, match="shard is missing"):
        open_head(tmp_path)
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": "../../secret.safetensors"}}))
    with pytest.raises(InputError, match="shard is missing"):
        open_head(tmp_path)
    for broken in ("{", "[]", '{"weight_map": 3}', '{"weight_map": {"a": 3}}'):
        index.write_text(broken)
        with pytest.raises(InputError, match="no index"):
            open_head(tmp_path)


@pytest.mark.parametrize("name", [*HEAD_NAMES, *TIED_NAMES, "language_model.lm_head.weight", "transformer.wte.weight"])
def test_the_head_is_found_by_its_name(tmp_path, name):
    save_file({name: HEAD, "layer.output.weight": HEAD[:3], "norm.weight": HEAD[0]}, tmp_path / "m.safetensors")
    assert open_head(tmp_path).name == name


def test_a_head_of_its_own_comes_before_the_embedding_and_two_heads_are_a_question(tmp_path):
    tensors = {"lm_head.weight": HEAD, "model.embed_tokens.weight": HEAD[:3]}
    save_file(tensors, tmp_path / "m.safetensors")
    assert open_head(tmp_path).name == "lm_head.weight"
    save_file(tensors | {"other.lm_head.weight": HEAD}, tmp_path / "m.safetensors")
    with pytest.raises(InputError, match="more than one head") as refused:
        open_head(tmp_path)
    # Whoever gives a place on a command line cannot name a tensor, so the advice is of files.
    assert "a file that holds only the model" in str(refused.value)
    assert open_head(tmp_path, "other.lm_head.weight").shape == (40, 256)
    with pytest.raises(InputError, match="no tensor"):
        open_head(tmp_path, "absent")


@pytest.mark.parametrize(("kind", "name"), COMMON.items())
def test_every_common_block_format_is_read(kind, name):
    gguf = pytest.importorskip("gguf")
    stored = gguf_format(kind)
    assert stored.name == name
    assert gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)] == (stored.numbers, stored.size)
    raw = np.random.default_rng(kind).integers(0, 256, (40, 3, stored.size), dtype=np.uint8)
    with np.errstate(all="ignore"):  # random bytes are also infinite and missing scales
        ours = stored.read(raw.reshape(40, -1))
        theirs = gguf.quants.dequantize(raw.reshape(40, -1), gguf.GGMLQuantizationType(kind))
    assert np.array_equal(ours, theirs, equal_nan=True)
    assert ours.shape == (40, 3 * stored.numbers)
    # By hand, where the specification is short: a half's worth of scale (and of offset) and numbers behind it.
    if name == "Q8_0":
        scale = raw[..., :2].copy().view("<f2").astype(np.float32)
        with np.errstate(all="ignore"):
            assert np.array_equal(ours.reshape(40, 3, 32), scale * raw[..., 2:].view(np.int8), equal_nan=True)


@pytest.mark.parametrize("kind", [24, 27, 99])
def test_whole_numbers_and_unknown_types_are_no_weights(tmp_path, kind):
    assert gguf_format(kind) is None
    _write_gguf(tmp_path / "m.gguf", {"output.weight": (HEAD, None)})
    content = (tmp_path / "m.gguf").read_bytes()
    at = content.index(b"output.weight") + len(b"output.weight") + 4 + 2 * 8  # after its two axes
    (tmp_path / "m.gguf").write_bytes(content[:at] + kind.to_bytes(4, "little") + content[at + 4 :])
    with pytest.raises(InputError, match="unknown format"):
        open_head(tmp_path / "m.gguf")


@pytest.mark.parametrize("kind", [0, 1, 30, 8, 2, 6], ids=lambda kind: gguf_format(kind).name)
def test_gguf_files_are_read_as_the_reference_wrote_them(tmp_path, kind):
    gguf = pytest.importorskip("gguf")
    quantised = gguf.quants.quantize(HEAD, gguf.GGMLQuantizationType(kind))
    expected = gguf.quants.dequantize(quantised, gguf.GGMLQuantizationType(kind))
    tensors = {"output_norm.weight": (HEAD[0], None), "token_embd.weight": (quantised, kind)}
    _write_gguf(tmp_path / "m.gguf", tensors, some_number=7)
    head = open_head(tmp_path)
    assert (head.name, head.shape, head.format) == ("token_embd.weight", (40, 256), gguf_format(kind))
    assert np.array_equal(head[3:30], expected[3:30])
    assert np.array_equal(head.rows(np.array([39, 0])), expected[[39, 0]])
    with pytest.raises(ShapeError):
        head.rows(np.array([40]))


def test_a_gguf_head_comes_before_its_embedding(tmp_path):
    _write_gguf(tmp_path / "m.gguf", {"token_embd.weight": (HEAD, None), "output.weight": (HEAD[::-1].copy(), None)})
    assert np.array_equal(open_head(tmp_path / "m.gguf")[0:1], HEAD[39:])


GAIN = np.linspace(0.5, 1.5, HEAD.shape[1], dtype=np.float32)


@pytest.mark.parametrize("name", GAIN_NAMES)
def test_the_last_norms_gain_is_found_by_its_name(tmp_path, name):
    inner = {"model.layers.0.input_layernorm.weight": GAIN + 1, "model.vision.norm.weight": GAIN + 2}
    save_file({"lm_head.weight": HEAD, name: GAIN, **inner}, tmp_path / "m.safetensors")
    assert np.array_equal(open_gain(tmp_path / "m.safetensors"), GAIN)


def test_the_gain_of_a_gguf_and_of_shards(tmp_path):
    _write_gguf(tmp_path / "m.gguf", {"output.weight": (HEAD, None), "output_norm.weight": (GAIN, None)})
    assert np.array_equal(open_gain(tmp_path / "m.gguf"), GAIN)
    save_file({"lm_head.weight": HEAD}, tmp_path / "a.safetensors")
    save_file({"model.norm.weight": GAIN}, tmp_path / "b.safetensors")
    shards = {"lm_head.weight": "a.safetensors", "model.norm.weight": "b.safetensors"}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shards}))
    assert np.array_equal(open_gain(index), GAIN)
    assert np.array_equal(open_head(index)[:], HEAD)


def test_without_a_known_name_there_is_no_gain(tmp_path):
    save_file({"lm_head.weight": HEAD, "blocks.3.norm.weight": GAIN}, tmp_path / "m.safetensors")
    assert open_gain(tmp_path / "m.safetensors") is None
    save_file({"lm_head.weight": HEAD, "model.norm.weight": HEAD}, tmp_path / "m.safetensors")
    with pytest.raises(InputError):
        open_gain(tmp_path / "m.safetensors")


def _refuses(path):
    with pytest.raises(InputError) as caught:
        open_head(path)
    assert path.name in str(caught.value)


def test_no_truncation_of_either_format_gives_a_head(tmp_path):
    save_file({"lm_head.weight": HEAD[:4, :32]}, tmp_path / "a.safetensors")
    _write_gguf(tmp_path / "a.gguf", {"output.weight": (HEAD[:4, :32].copy(), None)})
    for name in ("a.safetensors", "a.gguf"):
        whole = (tmp_path / name).read_bytes()
        cut = tmp_path / f"cut{(tmp_path / name).suffix}"
        for length in range(0, len(whole) - 1 if name == "a.safetensors" else len(whole) - 64, 7):
            cut.write_bytes(whole[:length])
            _refuses(cut)


@settings(max_examples=60)
@given(data=st.data(), kind=st.sampled_from([".safetensors", ".gguf"]))
def test_damaged_headers_are_errors_or_harmless(tmp_path_factory, data, kind):
    folder = tmp_path_factory.mktemp("damaged")
    path = folder / f"m{kind}"
    if kind == ".gguf":
        _write_gguf(path, {"output.weight": (HEAD[:4, :32].copy(), None)})
    else:
        save_file({"lm_head.weight": HEAD[:4, :32]}, path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, min(len(content), 300) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        head = open_head(path)
        assert head[0:1].shape == (1, head.shape[1])
    except InputError as error:
        assert path.name in str(error)


@pytest.mark.parametrize(
    "header",
    [
        {"lm_head.weight": {"dtype": "I8", "shape": [2, 2], "data_offsets": [0, 4]}},
        {"lm_head.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 12]}},
        {"lm_head.weight": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}},
        {"lm_head.weight": {"dtype": "F32", "shape": [2, -2], "data_offsets": [0, 16]}},
        {"lm_head.weight": {"dtype": "F32", "shape": [2, 2]}},
        {"lm_head.weight": 3},
        {"something": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}},
        [1, 2],
    ],
)
def test_malformed_entries_are_refused(tmp_path, header):
    text = json.dumps(header).encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(16))
    _refuses(path)


def test_places_that_hold_no_weights_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        open_head(tmp_path / "absent")
    with pytest.raises(InputError, match="holds no weights"):
        open_head(tmp_path)
    (tmp_path / "m.bin").write_bytes(b"x")
    with pytest.raises(InputError, match="no kind of weights"):
        open_head(tmp_path / "m.bin")
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF" + bytes(40))
    with pytest.raises(InputError, match="2 files"):
        open_head(tmp_path)
    with pytest.raises(InputError, match="version"):
        open_head(tmp_path / "a.gguf")


def test_a_folder_of_two_models_is_a_question_whose_answer_is_a_path(tmp_path):
    for name in ("a", "b"):
        save_file({"lm_head.weight": HEAD}, tmp_path / f"{name}.safetensors")
    with pytest.raises(InputError, match="2 files of weights") as refused:
        open_head(tmp_path)
    assert str(tmp_path / "a.safetensors") in str(refused.value)
    assert open_head(tmp_path / "a.safetensors").shape == HEAD.shape
