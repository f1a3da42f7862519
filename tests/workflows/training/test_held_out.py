"""What is measured of captions that are held out, against a model that is asked about each of them alone."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lensmith.core.errors import InputError
from lensmith.core.images import DEFAULT_LIMITS
from lensmith.data.mixture import Mixture
from lensmith.data.plan.packing import PackingConfig
from lensmith.data.plan.reading import Plan
from lensmith.data.plan.writing import PlanConfig, write_plan
from lensmith.evaluate.captions import cider
from lensmith.evaluate.stats import Share, estimate_mean
from lensmith.models import VisionLanguageModel
from lensmith.models.families.mm1 import TOY, Mm1Processor, mm1_toy_config
from lensmith.models.families.mm1.processor import tiny_tokenizer
from lensmith.models.language.isolation import isolated_documents
from lensmith.train.objectives.documents import DocumentBatches, tokens_of
from lensmith.train.objectives.pictures import blank_picture
from lensmith.workflows.training.held_out import HeldOut
from tests.support.documents import MemorySource, picture

COLOURS = (
    "red", "green", "blue", "black", "white", "gray", "yellow", "purple", "orange", "brown", "navy", "teal", "gold"
)  # fmt: skip
SOURCE = MemorySource([*((f"<{colour}>", f"{colour} square") for colour in COLOURS), "no caption", ("only text",)])
# Packed and alone, float32 sums differ in their order: over some twenty tokens, a few parts in a million.
CLOSE = {"rel": 2e-5, "abs": 2e-5}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    model = VisionLanguageModel(mm1_toy_config(tokenizer, TOY)).eval()
    for parameter in model.parameters():  # so that pictures change what is said
        parameter.data += 0.1 * torch.randn_like(parameter)
    processor = Mm1Processor.for_model(model.config, tokenizer)
    tokens = tokens_of(processor)
    path = tmp_path_factory.mktemp("plan") / "plan.parquet"
    packing = PackingConfig(max_tokens=96, max_pictures=4, max_waiting=8)
    write_plan(
        path,
        PlanConfig.of(mixture=Mixture.of(captions=1.0), packing=packing, sequences=2),
        {"captions": SOURCE},
        tokens,
    )
    batches = DocumentBatches(Plan(path), {"captions": SOURCE}, tokens, processor, sequences_per_step=1)
    return model, processor, batches


def measured(made, folder, **settings):
    model, _, batches = made
    held_out = HeldOut(name="held_out", source=SOURCE, batches=batches, folder=folder, **settings)
    with isolated_documents(model.language_model), torch.no_grad():
        numbers = held_out(model, 7)
    assert all(name.startswith("held_out_") for name in numbers)
    return {name.removeprefix("held_out_"): value for name, value in numbers.items()}


@torch.no_grad()
def nats(model, processor, caption, shown):
    """A caption's loss behind one picture, or None, by the model's own logits, token by token."""
    prompt = "<s><image>" if shown else "<s>"
    text = processor(
        images=[[processor.open_picture(shown, DEFAULT_LIMITS)]] if shown else None,
        text=[prompt],
        add_special_tokens=False,
    )
    wanted = [*processor.tokenizer(caption, add_special_tokens=False)["input_ids"], processor.tokenizer.eos_token_id]
    ids = torch.cat([text["input_ids"], torch.tensor([wanted])], dim=1)
    logits = model(input_ids=ids, **({"pixel_values": text["pixel_values"]} if shown else {})).logits[0]
    logprobs = F.log_softmax(logits.double(), dim=-1)
    first = text["input_ids"].shape[1]
    return -sum(float(logprobs[first + place - 1, token]) for place, token in enumerate(wanted)), len(wanted)


@pytest.fixture(scope="module")
def numbers(made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("held_out")
    return measured(made, folder, documents_a_batch=len(COLOURS)), folder


@pytest.fixture(scope="module")
def alone(made):
    """Nats of each caption behind the picture of each colour, a blank one, and none."""
    model, processor, _ = made
    shown = {**{colour: picture(colour) for colour in COLOURS}, "blank": blank_picture(), "none": None}
    return {
        (caption, name): nats(model, processor, f"{caption} square", data)
        for caption in COLOURS
        for name, data in shown.items()
    }


def test_losses_are_those_of_each_caption_alone_before_its_own_and_the_next_picture(numbers, alone):
    tokens = sum(alone[colour, colour][1] for colour in COLOURS)
    own = np.array([alone[colour, colour][0] for colour in COLOURS])
    other = np.array([alone[colour, COLOURS[(place + 1) % len(COLOURS)]][0] for place, colour in enumerate(COLOURS)])
    found, _ = numbers
    assert found["loss"] == pytest.approx(own.sum() / tokens, **CLOSE)
    assert found["loss_other_picture"] == pytest.approx(other.sum() / tokens, **CLOSE)
    expected = estimate_mean(other - own)
    assert found["nats_by_picture"] == pytest.approx(expected.mean, abs=1e-3)
    assert found["nats_by_picture_low"] == pytest.approx(expected.low, abs=1e-3)
    assert found["nats_by_picture_high"] == pytest.approx(expected.high, abs=1e-3)
    assert np.abs(other - own).max() > 0.1, "this model looks at pictures"


def test_names_are_chosen_by_likelihood_among_ten(numbers, alone):
    """Whichever nine are drawn of twelve: the likeliest of all is right, and what four are likelier than is not."""
    found, _ = numbers
    columns = {
        "named": lambda colour: colour,
        "named_blank_picture": lambda _: "blank",
        "named_without_picture": lambda _: "none",
    }
    for name, shown in columns.items():
        ranks = [
            sum(alone[other, shown(colour)][0] < alone[colour, shown(colour)][0] for other in COLOURS)
            for colour in COLOURS
        ]
        surely_right, possibly_right = sum(rank == 0 for rank in ranks), sum(rank <= 3 for rank in ranks)
        assert surely_right / 13 <= found[name] <= possibly_right / 13, name
    interval = Share.of(round(found["named"] * 13), 13)
    assert (found["named_low"], found["named_high"]) == (interval.low, interval.high)
    assert found["named_blank_picture"] <= 4 / 13, "the same caption cannot be the likeliest of all"


def test_captions_are_written_and_scored(made, numbers, tmp_path):
    found, folder = numbers
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert [(line["step"], line["caption"]) for line in lines] == [(7, f"{colour} square") for colour in COLOURS]
    scores = cider([line["written"] for line in lines], [[line["caption"]] for line in lines])
    assert found["cider"] == pytest.approx(scores.mean())
    measured(made, tmp_path, written=4, keeps_samples=False)
    assert not list(tmp_path.iterdir())


def test_a_model_that_does_not_look_gains_nothing_by_pictures(made, tmp_path, monkeypatch):
    model, _, _ = made
    shown = model.connector.mlp[-1]
    monkeypatch.setattr(shown.weight, "data", torch.zeros_like(shown.weight))
    found = measured(made, tmp_path)
    assert (found["nats_by_picture_low"], found["nats_by_picture_high"]) == pytest.approx((0, 0), abs=1e-4)
    assert found["named"] == found["named_other_picture"] == found["named_blank_picture"]


def test_batches_of_any_size_give_the_same_numbers(made, numbers, tmp_path):
    """But for which picture is the next one: so of those that do not use it."""
    found = measured(made, tmp_path, documents_a_batch=5)
    for name in ("loss", "named", "named_blank_picture", "named_without_picture"):
        assert found[name] == pytest.approx(numbers[0][name], rel=1e-5), name


def test_few_captions_are_no_question_and_none_is_refused(made, tmp_path):
    few = measured(made, tmp_path, most=9)
    assert "named" not in few and few["loss"] > 0
    with pytest.raises(InputError, match="has no caption to measure"):
        HeldOut(name="held_out", source=MemorySource([("text",)]), batches=made[2], folder=tmp_path)
