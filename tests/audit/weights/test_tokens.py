"""The texts of token ids, from every form in which a tokenizer is stored."""

import json

import pytest

from lensmith.audit.weights.tokens import read_token_bytes
from lensmith.core.errors import InputError

PIECES = ["<unk>", "<0x0A>", "▁hello", "world", "é", "▁hello"]
SPELLED = {0: b"<unk>", 1: b"\n", 3: b"world", 4: "é".encode()}
"""Of two ids with one text, neither is named by it."""


def write(path, table):
    path.write_text(json.dumps(table), encoding="utf-8")
    return path


def test_a_byte_level_table_is_read_as_its_library_reads_it(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the rose, the rosé and the bread\n"] * 50, trainer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    found = read_token_bytes(tmp_path)
    assert len(found) == tokenizer.get_vocab_size()
    assert found[tokenizer.token_to_id("<|end|>")] == b"<|end|>"
    whole = {each: tokenizer.decode([each], skip_special_tokens=False) for each in found}
    readable = {each: text for each, text in whole.items() if "\N{REPLACEMENT CHARACTER}" not in text}
    assert len(readable) > 140
    assert {each: found[each].decode() for each in readable} == readable


def test_a_list_of_pieces_is_read(tmp_path):
    model = {"type": "Unigram", "vocab": [[piece, -1.0] for piece in PIECES]}
    added = [{"id": 6, "content": "<pad>"}]
    path = write(tmp_path / "tokenizer.json", {"model": model, "added_tokens": added, "decoder": {"type": "Metaspace"}})
    assert read_token_bytes(path) == {**SPELLED, 6: b"<pad>"}


@pytest.mark.parametrize(
    ("kind", "tokens", "spelled"),
    [
        ("llama", PIECES, SPELLED),
        ("gpt2", ["Ġhello", "Ċ", "world", "Ã©"], {0: b" hello", 1: b"\n", 2: b"world", 3: "é".encode()}),
    ],
)
def test_a_gguf_file_holds_them_too(tmp_path, kind, tokens, spelled):
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_tokenizer_model(kind)
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert read_token_bytes(tmp_path / "model.gguf") == spelled
    assert read_token_bytes(tmp_path) == spelled


def test_what_is_no_tokenizer_is_said_to_be_none(tmp_path):
    for place in (tmp_path, tmp_path / "missing.json"):
        with pytest.raises(InputError):
            read_token_bytes(place)
    for broken in ({}, {"model": {}}, {"model": {"vocab": 3}}, [], {"model": {"vocab": {"a": "b"}}}):
        with pytest.raises(InputError, match="no tokenizer"):
            read_token_bytes(write(tmp_path / "tokenizer.json", broken))
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + b"\0" * 40)
    with pytest.raises(InputError):
        read_token_bytes(tmp_path / "bad.gguf")
