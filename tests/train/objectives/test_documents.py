"""Training on planned sequences: what a batch holds, packed = alone, the same batches for any number of ranks."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from lensmith.core.errors import CheckpointError, ConfigError, InputError
from lensmith.data.mixture import Mixture
from lensmith.data.plan.packing import PackingConfig
from lensmith.data.plan.reading import Plan, PlannedDocument, PlannedSequence
from lensmith.data.plan.tokens import Span
from lensmith.data.plan.writing import PlanConfig, write_plan
from lensmith.models import PictureConfig, VisionLanguageConfig, VisionLanguageModel, VisionLanguageProcessor
from lensmith.models.config import IGNORED_LABEL
from lensmith.models.connectors import PerceiverConnectorConfig
from lensmith.models.language.experts import ExpertLlamaConfig, balance_loss, router_z_loss, routers
from lensmith.models.language.isolation import isolated_documents
from lensmith.models.towers import SiglipTowerConfig
from lensmith.train import StepContext
from lensmith.train.objectives.documents import (
    DocumentBatches,
    Ranks,
    RouterLossConfig,
    document_loss,
    documents_loss,
    token_losses,
    tokens_of,
)
from tests.support.documents import MemorySource

CONTEXT = StepContext(step=0, micro=0, total_steps=1, device=torch.device("cpu"))
COLOURS = ("red", "green", "blue", "black", "white", "gray")
SOURCES = {
    "captions": MemorySource([(f"<{colour}>", colour) for colour in COLOURS]),
    "text": MemorySource([(f"This is text {index}. " * (1 + index % 5),) for index in range(20)]),
}
NO_ROUTER_LOSSES = RouterLossConfig(balance=0, z=0)
PACKING = PackingConfig(max_tokens=96, max_pictures=4, max_waiting=8)


@pytest.fixture(scope="module")
def processor():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({piece: index for index, piece in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",  # noqa: S106  # no password
        bos_token="<begin>",  # noqa: S106  # no password
        eos_token="<end>",  # noqa: S106  # no password
        additional_special_tokens=["<image>"],
    )
    return VisionLanguageProcessor(fast, PictureConfig(patch_px=8, max_width_px=16, max_height_px=16), 4)


@pytest.fixture(scope="module")
def tokens(processor):
    return tokens_of(processor)


@pytest.fixture(scope="module", params=[LlamaConfig, ExpertLlamaConfig], ids=["dense", "experts"])
def model(processor, request):
    return made(processor, request.param)


@pytest.fixture
def experts(processor):
    return made(processor, ExpertLlamaConfig)


def made(processor, kind):
    torch.manual_seed(0)
    config = VisionLanguageConfig(
        vision=SiglipTowerConfig(width=16, hidden_width=16, layers=1, heads=2, patch_px=8, native_px=16),
        connector=PerceiverConnectorConfig(latents=4, depth=1, heads=2, key_heads=1, head_width=8),
        language=kind(
            vocab_size=len(processor.tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
        ),
        image_token_id=processor.image_token_id,
    )
    return VisionLanguageModel(config)


@pytest.fixture(scope="module")
def plan(tmp_path_factory, tokens):
    path = tmp_path_factory.mktemp("plan") / "plan.parquet"
    config = PlanConfig.of(mixture=Mixture.of(captions=0.5, text=0.5), packing=PACKING, sequences=24)
    write_plan(path, config, SOURCES, tokens)
    return Plan(path)


def batches_of(plan, tokens, processor, **more):
    return DocumentBatches(plan, SOURCES, tokens, processor, **({"sequences_per_step": 4} | more))


def sequence(source, *records):
    """Whole documents of small sources, as a plan names them."""
    ends = {"captions": lambda record: 6 + len(COLOURS[record]), "text": lambda record: 2 + 16 * (1 + record % 5)}
    return PlannedSequence(
        source=source,
        documents=tuple(
            PlannedDocument(record, Span(0, ends[source](record), int(source == "captions"))) for record in records
        ),
    )


# --- what a batch holds -------------------------------------------------------------------------------------------


def test_a_batch_in_eleven_tokens(plan, tokens, processor):
    batch = batches_of(plan, tokens, processor).batch_of([sequence("captions", 0)])
    begin, end, image = (processor.tokenizer.convert_tokens_to_ids(token) for token in ("<begin>", "<end>", "<image>"))
    r, e, d = processor.tokenizer.convert_tokens_to_ids(list("red"))
    no = IGNORED_LABEL
    assert batch.input_ids_1T.tolist() == [[begin, image, image, image, image, r, e, d, end]]
    assert batch.labels_1T.tolist() == [[no, no, no, no, no, r, e, d, end]]
    assert batch.position_ids_1T.tolist() == [list(range(9))]
    assert batch.bounds == (0, 9)
    assert batch.pictures["pixel_values"].shape == (1, 3, 16, 16)


def test_a_span_in_the_middle_takes_its_own_pictures(tokens, processor, plan):
    source = MemorySource([("ab", "<red>", "cd", "<blue>", "ef")])
    batches = batches_of(plan, tokens, processor)
    batches.sources = {"captions": source}
    batch = batches.batch_of([PlannedSequence(source="captions", documents=(PlannedDocument(0, Span(7, 16, 1)),))])
    assert processor.tokenizer.decode(batch.input_ids_1T[0]) == "cd" + "<image>" * 4 + "ef<end>"
    blue = batch.pictures["pixel_values"][0].mean((1, 2))
    assert blue.tolist() == pytest.approx([-1, -1, 1])
    assert batch.labels_1T[0, 0] == IGNORED_LABEL, "what a part begins with has no context"


def test_a_text_that_spells_special_tokens_is_text(tokens, processor):
    spelt = tokens.encode("an <image> and an <end>")
    assert len(spelt) == len("an <image> and an <end>")
    assert not {tokens.image, tokens.end} & set(spelt)


# --- packed = alone -----------------------------------------------------------------------------------------------


def test_packed_documents_have_the_losses_and_gradients_that_they_have_alone(plan, tokens, processor, model):
    batches = batches_of(plan, tokens, processor)
    together = [sequence("captions", 0, 3, 1), sequence("text", 4, 0), sequence("captions", 5)]
    apart = [sequence(each.source, document.record) for each in together for document in each.documents]

    def summed(parts):
        model.zero_grad()
        with isolated_documents(model.language_model):
            losses = [
                document_loss(model, batches.batch_of(part), CONTEXT, router_losses=NO_ROUTER_LOSSES) for part in parts
            ]
            sum(loss.loss_sum for loss in losses).backward()
        gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
        return (
            sum(float(loss.loss_sum.detach()) for loss in losses),
            sum(loss.target_tokens for loss in losses),
            gradients,
        )

    loss, count, gradients = summed([together])
    loss_apart, count_apart, gradients_apart = summed([[each] for each in apart])
    assert count == count_apart
    assert loss == pytest.approx(loss_apart, rel=1e-6)
    for name, gradient in gradients_apart.items():
        # float32 sums in another order.
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def test_two_hundred_documents_have_each_token_s_loss_packed_as_alone(tokens, processor, model, tmp_path):
    draw = random.Random(0)

    def piece():
        words = draw.choices(COLOURS, k=draw.randint(1, 12))
        return f"<{words[0]}>" if draw.random() < 0.3 else " ".join(words)

    records = [tuple(piece() for _ in range(draw.randint(1, 5))) for _ in range(240)]
    sources = {"mixed": MemorySource(records)}
    packing = PackingConfig(max_tokens=512, max_pictures=16, max_waiting=64)
    config = PlanConfig.of(mixture=Mixture.of(mixed=1.0), packing=packing, sequences=44)
    write_plan(tmp_path / "plan.parquet", config, sources, tokens)
    batches = DocumentBatches(Plan(tmp_path / "plan.parquet"), sources, tokens, processor, sequences_per_step=44)
    sequences = [batches.plan.sequence(number) for number in range(44)]
    documents = [replace(each, documents=(one,)) for each in sequences for one in each.documents]
    assert len({one.documents[0].record for one in documents}) >= 200
    with isolated_documents(model.language_model), torch.no_grad():
        packed = torch.cat([token_losses(model, batches.batch_of([each])) for each in sequences])
        batched = [batches.batch_of([each]) for each in documents]
        alone = torch.cat([token_losses(model, batch)[: batch.bounds[1]] for batch in batched])
    own = torch.cat([planned_losses(packed_part, batch) for packed_part, batch in _parts(packed, batches, sequences)])
    # float32; sums run over other blocks than alone.
    torch.testing.assert_close(own, alone, rtol=0, atol=1e-5)


def _parts(losses, batches, sequences):
    """Each sequence's own losses, with its batch."""
    begin = 0
    for each in sequences:
        batch = batches.batch_of([each])
        yield losses[begin : begin + batch.bounds[-1]], batch
        begin += batch.bounds[-1]


def planned_losses(losses_T, batch):
    return losses_T[: batch.bounds[-1 if batch.has_pictures else -2]]


def test_training_without_isolation_is_refused(plan, tokens, processor, model):
    batch = batches_of(plan, tokens, processor).batch_at(0, 0)
    with pytest.raises(InputError, match="documents would see each other"):
        document_loss(model, batch, CONTEXT)


def test_a_batch_without_pictures_gives_the_tower_zeros_and_not_nothing(plan, tokens, processor, model):
    batches = batches_of(plan, tokens, processor)
    batch = batches.batch_of([sequence("text", 2)])
    assert not batch.has_pictures
    assert (batch.input_ids_1T[0, batch.bounds[1] :] == tokens.image).all()
    model.zero_grad()
    with isolated_documents(model.language_model):
        loss = document_loss(model, batch, CONTEXT, router_losses=NO_ROUTER_LOSSES)
        loss.loss_sum.backward()
    text = slice(None), slice(batch.bounds[1])
    alone = model.language_model(input_ids=batch.input_ids_1T[text], labels=batch.labels_1T[text]).loss
    assert loss.samples == 1
    assert float(loss.loss_sum.detach()) / loss.target_tokens == pytest.approx(float(alone.detach()), rel=1e-5)
    for part in (model.vision_tower, model.connector):
        gradients = [parameter.grad for parameter in part.parameters()]
        assert all(gradient is not None and not gradient.any() for gradient in gradients)


def planned_ids(batch):
    """A batch's tokens without those of the blank picture that stands behind documents without any."""
    return batch.input_ids_1T[0, : batch.bounds[-1 if batch.has_pictures else -2]]


# --- experts ------------------------------------------------------------------------------------------------------


def losses_of(model, batch, **more):
    with isolated_documents(model.language_model):
        return document_loss(model, batch, CONTEXT, **more)


def router_losses_by_hand(model, batch, tokens):
    """Balance and z of the first `tokens` tokens, from what the routers are given; the mean over layers."""
    given = []
    hooks = [router.register_forward_pre_hook(lambda _, states: given.append(states[0])) for router in routers(model)]
    with isolated_documents(model.language_model), torch.no_grad():
        documents_loss(model, batch)
    for hook in hooks:
        hook.remove()
    logits = [states @ router.weight.T for states, router in zip(given, routers(model), strict=True)]
    assert len(logits) == 1
    return tuple(float(loss(logits[0][:tokens]).detach()) for loss in (balance_loss, router_z_loss))


@pytest.mark.parametrize("records", [("captions", 0, 3, 1), ("text", 2, 4)], ids=["pictures", "a blank picture"])
def test_the_routers_losses_join_the_loss_and_are_told(plan, tokens, processor, experts, records):
    batch = batches_of(plan, tokens, processor).batch_of([sequence(*records)])
    assert batch.planned_tokens == len(planned_ids(batch))
    balance, z = router_losses_by_hand(experts, batch, batch.planned_tokens)
    parts = losses_of(experts, batch)
    plain = losses_of(experts, batch, router_losses=NO_ROUTER_LOSSES)
    added = float((parts.loss_sum - plain.loss_sum).detach()) / parts.target_tokens
    # float32: a difference of two sums of some hundred nats.
    assert added == pytest.approx(0.01 * balance + 0.001 * z, rel=1e-2)
    assert float(parts.scalars["balance_loss"]) == pytest.approx(balance, rel=1e-5)
    assert float(parts.scalars["router_z_loss"]) == pytest.approx(z, rel=1e-5)
    assert float(parts.scalars["cross_entropy"]) == pytest.approx(float(plain.loss_sum.detach()) / plain.target_tokens)
    heavier = losses_of(experts, batch, router_losses=RouterLossConfig(balance=1, z=0))
    assert float((heavier.loss_sum - plain.loss_sum).detach()) / parts.target_tokens == pytest.approx(balance, rel=1e-3)


def test_the_blank_picture_is_neither_balanced_nor_learnt_from(plan, tokens, processor, experts):
    batch = batches_of(plan, tokens, processor).batch_of([sequence("text", 2, 4)])
    with_blank = router_losses_by_hand(experts, batch, len(batch.input_ids_1T[0]))
    told = losses_of(experts, batch).scalars
    assert abs(with_blank[0] - float(told["balance_loss"])) > 1e-4, "the comparison would see it"
    experts.zero_grad()
    losses_of(experts, batch, router_losses=RouterLossConfig(balance=1, z=1)).loss_sum.backward()
    for part in (experts.vision_tower, experts.connector):
        assert all(parameter.grad is not None and not parameter.grad.any() for parameter in part.parameters())
    assert routers(experts)[0].weight.grad.any()


def test_what_is_before_a_router_that_does_not_learn_is_not_bent_to_it(plan, tokens, processor, experts):
    batch = batches_of(plan, tokens, processor).batch_of([sequence("captions", 0, 3)])
    experts.language_model.requires_grad_(False)

    def gradient(weights):
        experts.zero_grad()
        losses_of(experts, batch, router_losses=weights).loss_sum.backward()
        return [parameter.grad.clone() for parameter in experts.connector.parameters()]

    for one, other in zip(gradient(RouterLossConfig(balance=9, z=9)), gradient(NO_ROUTER_LOSSES), strict=True):
        assert torch.equal(one, other)


def test_a_dense_model_is_told_nothing_of_experts(plan, tokens, processor):
    batch = batches_of(plan, tokens, processor).batch_of([sequence("captions", 0)])
    assert losses_of(made(processor, LlamaConfig), batch).scalars.keys() == {"loss_captions"}
    with pytest.raises(ConfigError, match="0 or more"):
        RouterLossConfig(balance=-1)


# --- which sequences ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("accumulate", "ranks"), [(1, 1), (2, 1), (1, 2), (2, 2), (1, 4), (4, 1)])
def test_a_step_has_the_same_sequences_for_any_micro_batches_and_ranks(plan, tokens, processor, accumulate, ranks):
    def ids_of(step, accumulate, ranks):
        rows = []
        for micro in range(accumulate):
            for rank in range(ranks):
                batches = batches_of(
                    plan, tokens, processor, accumulate=accumulate, ranks=Ranks(rank=rank, ranks=ranks)
                )
                rows.append(planned_ids(batches.batch_at(step, micro)))
        return torch.cat(rows).tolist()

    for step in (0, 5):
        assert ids_of(step, accumulate, ranks) == ids_of(step, 1, 1)


def test_steps_go_through_the_plan_once(plan, tokens, processor):
    batches = batches_of(plan, tokens, processor)
    assert batches.steps == 6
    total = sum(len(planned_ids(batches.batch_at(step, 0))) for step in range(6))
    assert total == plan.report.tokens
    assert batches_of(plan, tokens, processor, first=8).steps == 4
    later = batches_of(plan, tokens, processor, first=8).batch_at(0, 0)
    np.testing.assert_array_equal(later.input_ids_1T, batches.batch_at(2, 0).input_ids_1T)


def test_uneven_shares_and_other_sources_are_refused(plan, tokens, processor):
    with pytest.raises(ConfigError, match=r"(?s)shared out evenly.*multiple of 3 micro-batches x 1 ranks"):
        batches_of(plan, tokens, processor, accumulate=3)
    with pytest.raises(CheckpointError, match="made from something else"):
        DocumentBatches(plan, SOURCES | {"text": SOURCES["captions"]}, tokens, processor, sequences_per_step=4)
