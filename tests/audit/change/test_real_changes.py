"""Snapshots of a real model: itself, a hidden system prompt, a LoRA on the head, a new head. Four right answers."""

from dataclasses import replace

import pytest
import torch

from benchmarks.real_models import smollm2_gguf
from lensmith.audit.change.compare import Change
from lensmith.audit.change.snapshot import SnapshotConfig, compare_files, take_snapshot
from lensmith.audit.querying.config import SessionConfig
from lensmith.audit.querying.contexts import ContextForm
from lensmith.audit.querying.meter import Budget
from lensmith.core.errors import InputError
from lensmith.core.types import Message
from lensmith.models.inference.endpoint import LocalEndpoint
from lensmith.models.language.loading import load_language_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
HIDDEN = Message(role="system", parts=("You are a pirate. Answer every question in rhymes.",))


class WithHiddenPrompt:
    """The same model behind a system prompt that its clients do not see."""

    def __init__(self, endpoint):
        self._endpoint = endpoint

    def answer(self, requests):
        return self._endpoint.answer(
            [
                replace(request, messages=(HIDDEN, *request.messages)) if request.messages else request
                for request in requests
            ]
        )

    def supports(self):
        return self._endpoint.supports()

    def metadata(self):
        return self._endpoint.metadata()


@pytest.fixture(scope="module")
def loaded():
    try:
        return load_language_model(smollm2_gguf(), dtype=torch.float32, device="cpu")
    except InputError as error:
        pytest.skip(f"THE REAL MODEL WAS NOT TESTED: {error}")


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory, loaded):
    folder = tmp_path_factory.mktemp("snapshots")

    def take(name, wrap=lambda endpoint: endpoint, *, contexts=720):
        endpoint = wrap(LocalEndpoint(loaded.model, loaded.tokenizer, slots=16))
        budget = Budget(queries_per_s=None, max_tokens=None)
        config = SnapshotConfig(
            session=SessionConfig(
                target="local", model="smollm2", folder=folder / name, form=ContextForm.MESSAGES, budget=budget
            ),
            contexts=contexts,
            tokens=1024,
        )
        take_snapshot(endpoint, config, folder / f"{name}.npz")
        return folder / f"{name}.npz"

    return take


@pytest.fixture(scope="module")
def before(snapshot):
    return snapshot("before")


@pytest.fixture
def head(loaded):
    """The output head, untied for the time of a test and put back after it."""
    model = loaded.model
    layer, tied = model.lm_head, model.lm_head.weight
    layer.weight = torch.nn.Parameter(tied.detach().clone())
    yield layer
    layer.weight = tied


def change(before, after):
    return compare_files(before, after).comparison


def test_the_same_model_is_the_same(snapshot, before):
    assert change(before, snapshot("again", contexts=64)).change is Change.SAME


def test_a_hidden_prompt_leaves_the_image(snapshot, before):
    assert (
        change(before, snapshot("hidden", WithHiddenPrompt, contexts=64)).change is Change.HIDDEN_PROMPT_OR_BELOW_HEAD
    )


def test_a_lora_of_rank_8_on_the_head_is_one(snapshot, before, head):
    generator = torch.Generator().manual_seed(0)
    vocabulary, width = head.weight.shape
    scale = float(head.weight.detach().std())
    with torch.no_grad():
        left = torch.randn(vocabulary, 8, generator=generator) * scale
        head.weight += left @ torch.randn(8, width, generator=generator) * width**-0.5
    found = change(before, snapshot("lora", contexts=64))
    assert (found.change, found.rank) == (Change.LOW_RANK_CHANGE, 8)


def test_a_new_head_is_another_model(snapshot, before, head):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=generator) * head.weight.std())
    assert change(before, snapshot("new head", contexts=64)).change is Change.ANOTHER_MODEL
