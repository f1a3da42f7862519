"""Packed = alone, token by token, in losses and gradients; and whatever would undo it is refused."""

import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from lensmith.core.errors import InputError, ShapeError
from lensmith.models.language.experts import ExpertLlamaConfig
from lensmith.models.language.isolation import ISOLATED, isolated_documents, positions

LENGTHS = (5, 1, 40, 17, 100, 3)
BOUNDS = (0, 5, 6, 46, 63, 163, 166)


@pytest.fixture(params=[LlamaConfig, ExpertLlamaConfig])
def model(request):
    torch.manual_seed(0)
    config = request.param(
        vocab_size=99,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture
def ids():
    return torch.randint(0, 99, (1, BOUNDS[-1]), generator=torch.Generator().manual_seed(1))


def packed(model, ids, bounds=BOUNDS, **more):
    with isolated_documents(model):
        return model(
            input_ids=ids, position_ids=positions(bounds), use_cache=False, document_bounds=bounds, **more
        ).logits


def alone(model, ids):
    return torch.cat([model(input_ids=ids[:, begin:end]).logits for begin, end in pairwise(BOUNDS)], dim=1)


def test_positions_begin_anew_in_each_document():
    assert positions((0, 3, 4, 6)).tolist() == [[0, 1, 2, 0, 0, 1]]


def test_packed_equals_alone(model, ids):
    # float32; sums run over other blocks of keys than alone.
    torch.testing.assert_close(packed(model, ids), alone(model, ids), rtol=0, atol=1e-5)


def test_gradients_are_the_same_too(model, ids):
    def gradients(logits):
        model.zero_grad()
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten()).backward()
        return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    of_packed, of_alone = gradients(packed(model, ids)), gradients(alone(model, ids))
    for name, gradient in of_alone.items():
        torch.testing.assert_close(of_packed[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_the_comparison_sees_it_when_documents_see_each_other(model, ids):
    one_document = packed(model, ids, bounds=(0, BOUNDS[-1]))
    assert (one_document - alone(model, ids)).abs().max() > 1e-2


def test_restarted_positions_alone_are_not_enough_with_a_mask(model, ids):
    """The trap: transformers drops its own isolation without a word when it is given a mask."""
    open_logits = model(
        input_ids=ids,
        position_ids=positions(BOUNDS),
        attention_mask=torch.ones_like(ids),
        use_cache=False,
    ).logits
    assert (open_logits - alone(model, ids)).abs().max() > 1e-2


def test_the_model_is_what_it_was_afterwards(model, ids):
    before = model.config._attn_implementation
    with isolated_documents(model):
        assert model.config._attn_implementation == ISOLATED
    assert model.config._attn_implementation == before != ISOLATED


def test_a_cache_and_missing_bounds_are_refused(model, ids):
    with isolated_documents(model):
        with pytest.raises(InputError, match="nothing says where they begin"):
            model(input_ids=ids, use_cache=False)
        cache = model(input_ids=ids, document_bounds=BOUNDS, use_cache=True).past_key_values
        with pytest.raises(InputError, match="a cache is used"):
            model(input_ids=ids[:, :1], past_key_values=cache, document_bounds=(0, 1))


@pytest.mark.parametrize("shape", [(1, 1, BOUNDS[-1], BOUNDS[-1]), (1, BOUNDS[-1])])
def test_a_mask_is_refused(model, ids, shape):
    mask = torch.zeros(shape)
    with isolated_documents(model), pytest.raises(InputError, match="a mask is given"):
        model(input_ids=ids, attention_mask=mask, document_bounds=BOUNDS, use_cache=False)


@pytest.mark.parametrize("bounds", [(0, 5), (0, 166, 170), (1, 166), (0, 5, 5, 166), (), (0,)])
def test_bounds_that_are_not_those_of_the_row_are_refused(model, ids, bounds):
    with isolated_documents(model), pytest.raises(ShapeError, match="document_bounds"):
        model(input_ids=ids, document_bounds=bounds, use_cache=False)


def test_a_window_that_a_document_exceeds_is_refused():
    config = Qwen2Config(
        vocab_size=9,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        use_sliding_window=True,
        sliding_window=4,
        max_window_layers=0,
    )
    model = AutoModelForCausalLM.from_config(config)
    with isolated_documents(model):
        assert model(input_ids=torch.ones(1, 4, dtype=torch.long), document_bounds=(0, 4), use_cache=False).logits.shape
        with pytest.raises(InputError, match="within a window"):
            model(input_ids=torch.ones(1, 5, dtype=torch.long), document_bounds=(0, 5), use_cache=False)


@pytest.mark.slow
def test_memory_grows_with_the_tokens_and_no_faster():
    """Four documents of 16,384 tokens: a mask of T x T would have 4 GiB, a byte each."""
    peaks = {documents: _peak_bytes(documents) for documents in (2, 4)}
    # What the program takes by itself is in both, and up to 150 MB come and go with the allocator.
    assert peaks[4] < 2 * peaks[2]
    assert peaks[4] < 2 << 30


def _peak_bytes(documents):
    """Of a process of its own. Not `ru_maxrss`, which begins with what the process had that started it."""
    program = f"""
import torch
from transformers import AutoModelForCausalLM, LlamaConfig
from lensmith.models.language.experts import ExpertLlamaConfig
from lensmith.models.language.isolation import isolated_documents, positions
torch.set_num_threads(1)
config = LlamaConfig(vocab_size=9, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=1,
                     max_position_embeddings=1 << 17)
model = AutoModelForCausalLM.from_config(config)
bounds = [16_384 * index for index in range({documents} + 1)]
with isolated_documents(model):
    logits = model(input_ids=torch.ones(1, bounds[-1], dtype=torch.long), position_ids=positions(bounds),
                   document_bounds=bounds, use_cache=False).logits
    logits.square().mean().backward()
print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True)
    return 1024 * int(done.stdout)
