"""The parts of a local endpoint: what is kept, rows that join and leave, what tokens are called, what is loaded."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import AutoModelForCausalLM, FalconMambaConfig, PreTrainedTokenizerFast

from lensmith.core.errors import InputError
from lensmith.models.families.sightseer import SHIPPED
from lensmith.models.inference.kv_cache import KeysValues, SlotCache
from lensmith.models.inference.loading import load_answering
from lensmith.models.inference.lru import ByteLru
from lensmith.models.inference.token_table import TokenTable
from lensmith.models.language.loading import load_language_model
from tests.support.tiny_vlm import tiny_llama

# --- a store that forgets -----------------------------------------------------------------------------------------


def test_the_least_used_is_forgotten_first():
    store = ByteLru(10, len)
    for name in "abc":
        store.put(name, name * 3)
    assert store.get("a") == "aaa"
    store.put("d", "dddd")
    assert [*store] == ["d", "a", "c"]
    assert store.bytes_held == 10
    store.put("c", "c" * 11)
    assert [*store] == ["d", "a"]  # what is too large is not kept, nor is what it replaces


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 12)), max_size=40))
def test_it_never_holds_more_than_allowed(puts):
    store = ByteLru(20, len)
    for key, size in puts:
        store.put(key, "x" * size)
        assert store.bytes_held == sum(len(store.peek(each)) for each in store) <= 20


# --- rows ---------------------------------------------------------------------------------------------------------


class Rows:
    """What a `SlotCache` should hold, as plain lists of numbers a token."""

    def __init__(self, slots):
        self.cache, self.rows, self.next = SlotCache(slots, spare_columns=3), [], 1.0

    def numbers(self, count):
        self.next += count
        return [self.next + i for i in range(count)]

    def join(self, length):
        row = self.numbers(length)
        tensor = torch.tensor(row)[None, :, None].repeat(2, 1, 3)
        memory = KeysValues(keys=(tensor, tensor + 0.5), values=(-tensor, -tensor - 0.5))
        assert self.cache.join(memory) == len(self.rows)
        self.rows.append(row)

    def leave(self, number):
        self.cache.leave(number)
        last = self.rows.pop()
        if number < len(self.rows):
            self.rows[number] = last

    def step(self):
        new = self.numbers(len(self.rows))
        states = torch.tensor(new)[:, None, None, None].repeat(1, 2, 1, 3)
        self.cache.make_room_for_step()
        mask = self.cache.mask(torch.device("cpu"))
        seen = [self.cache.update(states + 0.5 * layer, -states - 0.5 * layer, layer) for layer in (0, 1)]
        self.cache.stepped()
        self.rows = [[*row, number] for row, number in zip(self.rows, new, strict=True)]
        for layer, (keys, values) in enumerate(seen):
            assert torch.equal(values, -keys)
            for index, row in enumerate(self.rows):
                real = keys.shape[2] if mask is None else int(mask[index].sum())
                assert real == len(row)
                assert (keys[index, 1, -real:, 2] - 0.5 * layer).tolist() == row


@pytest.mark.parametrize("seed", range(20))
def test_rows_keep_what_is_theirs_whoever_joins_and_leaves(seed):
    dice = random.Random(seed)
    rows = Rows(slots=4)
    for _ in range(60):
        if len(rows.rows) < 4 and dice.random() < 0.4:
            rows.join(dice.randint(1, 12))
        elif rows.rows and dice.random() < 0.4:
            rows.leave(dice.randrange(len(rows.rows)))
        if rows.rows:
            rows.step()


# --- what tokens are called ---------------------------------------------------------------------------------------


def test_bytes_of_a_byte_level_vocabulary(tokenizer):
    table = TokenTable(tokenizer)
    for text in ("plain", "\u00e9\u20ac", " \n\t", "\x00\x7f"):
        ids = tokenizer(text)["input_ids"]
        assert b"".join(map(table.data, ids)) == text.encode()
    assert table.text(3) == "<image>"
    assert table.text(tokenizer("\u00e9")["input_ids"][0]) == "\ufffd"
    assert table.text(9999) == "<token 9999>"
    assert 9999 not in table
    assert table.longest_bytes == len("<image>")


def test_bytes_of_a_sentencepiece_vocabulary():
    names = ["<unk>", "\u2581Hello", "lo", "<0x0A>", "<0xC3>"]
    pieces = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>"))  # noqa: S106  # a token, not a secret
    pieces.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    table = TokenTable(PreTrainedTokenizerFast(tokenizer_object=pieces, unk_token="<unk>"))  # noqa: S106  # a token, not a secret
    assert [table.data(index) for index in range(5)] == [b"<unk>", b" Hello", b"lo", b"\n", b"\xc3"]


# --- loading ------------------------------------------------------------------------------------------------------


def test_the_shipped_model_is_loaded_by_name_and_by_folder():
    by_name, by_folder = load_answering(None), load_answering(SHIPPED["sightseer_nano"], name="other", max_length=100)
    assert (by_name.name, by_folder.name) == ("sightseer_nano", "other")
    assert by_name.facts()["width"] == by_folder.facts()["width"] == 320
    assert (by_name.max_length, by_folder.max_length) == (4096, 100)


def test_a_folder_of_transformers(tmp_path, tokenizer):
    model = AutoModelForCausalLM.from_config(tiny_llama())
    model.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    answering = load_answering(tmp_path / "saved", dtype=torch.bfloat16)
    assert answering.name == "saved"
    assert answering.facts()["dtype"] == "bfloat16"
    assert answering.text.end_ids == {2}
    (tmp_path / "saved" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match="no language model can be loaded"):
        load_language_model(tmp_path / "saved")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_the_size_that_is_told_is_the_published_one(tmp_path, tokenizer, dtype, tied):
    """Large enough that layers are packed for the processor, which hides them from torch's own count."""
    wide = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 1, "vocab_size": 1024}
    model = AutoModelForCausalLM.from_config(tiny_llama(**wide, tie_word_embeddings=tied))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    facts = load_answering(tmp_path, dtype=dtype).facts()
    assert facts["parameters"] == model.num_parameters()
    assert facts["dtype"] == str(dtype).removeprefix("torch.")


def test_a_recurrent_model_is_refused(tmp_path, tokenizer):
    config = FalconMambaConfig(
        hidden_size=16, num_hidden_layers=1, state_size=4, vocab_size=260, intermediate_size=16, time_step_rank=2
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="cannot be served"):
        load_answering(tmp_path)
