"""FLOPs of a step against a count of what each layer is called with; utilisation against a peak that is stated."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from lensmith.core.errors import InputError
from lensmith.models import VisionLanguageConfig, VisionLanguageModel
from lensmith.models.config import IGNORED_LABEL
from lensmith.models.connectors import MlpConnectorConfig
from lensmith.models.language.experts import ExpertLlamaConfig
from lensmith.models.language.isolation import isolated_documents, positions
from lensmith.models.towers import SiglipTowerConfig
from lensmith.train import LossParts, Precision, StepContext, StepWork
from lensmith.train.log import read
from lensmith.train.speed import flops_of_step, peak_of
from lensmith.train.status import read_status
from tests.support.tiny_vlm import IMAGE_TOKEN_ID, tiny_llama
from tests.support.toy_run import ToyBatch, toy_loss, toy_train

CPU = torch.device("cpu")
DOCUMENTS = (13, 6, 4)
PICTURES, PATCHES = 1, 4


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def model(request: pytest.FixtureRequest) -> VisionLanguageModel:
    torch.manual_seed(0)
    config = VisionLanguageConfig(
        vision=SiglipTowerConfig(width=16, hidden_width=24, layers=3, heads=2, patch_px=8, native_px=16),
        connector=MlpConnectorConfig(),
        language=tiny_llama(tie_word_embeddings=request.param),
        image_token_id=IMAGE_TOKEN_ID,
    )
    return VisionLanguageModel(config)


@contextmanager
def counted(model: nn.Module) -> Iterator[list[float]]:
    """Multiplications and additions of each matrix and filter, by the rows that it is called with."""
    found: list[float] = []

    def see(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if isinstance(module, nn.Linear):
            found.append(2.0 * module.weight.numel() * inputs[0].numel() / module.in_features)
        elif isinstance(module, nn.Conv2d):
            found.append(2.0 * module.weight.numel() * output.numel() / module.out_channels)

    hooks = [module.register_forward_hook(see) for module in model.modules()]
    yield found
    for hook in hooks:
        hook.remove()


def attention_by_hand(config: object) -> float:
    """Of each query with each key that it may see, and of each weight with each value."""
    total = 0.0
    for count in DOCUMENTS:
        for query in range(count):
            total += 2 * 2.0 * config.hidden_size * (query + 1)
    return total * config.num_hidden_layers


def test_flops_are_those_of_every_layer_that_is_called(model: VisionLanguageModel) -> None:
    tokens, bounds = sum(DOCUMENTS), (0, 13, 19, 23)
    ids_1T = torch.randint(4, 200, (1, tokens))
    ids_1T[0, : PICTURES * PATCHES] = IMAGE_TOKEN_ID
    labels_1T = torch.where(ids_1T == IMAGE_TOKEN_ID, IGNORED_LABEL, ids_1T)
    target_tokens = int((labels_1T[:, 1:] != IGNORED_LABEL).sum())
    with counted(model) as found, isolated_documents(model.language_model):
        model(
            input_ids=ids_1T,
            position_ids=positions(bounds),
            labels=labels_1T,
            document_bounds=bounds,
            pixel_values=torch.randn(PICTURES, 3, 16, 16),
        )
    tower_attention = 3 * 2 * 2.0 * 16 * PATCHES * PATCHES * PICTURES
    language = model.language_model.config
    by_hand = 3 * (sum(found) + tower_attention + attention_by_hand(language))
    ours = flops_of_step(
        model, document_tokens=DOCUMENTS, target_tokens=target_tokens, patches=PICTURES * PATCHES, pictures=PICTURES
    )
    # A causal square is counted as its half, so the diagonal by half too: for each document 1/2 a token a query.
    diagonal = 3 * 2 * 2.0 * language.hidden_size * language.num_hidden_layers * sum(DOCUMENTS) / 2
    assert ours == pytest.approx(by_hand - diagonal, rel=1e-12)


def test_what_does_not_learn_costs_less(model: VisionLanguageModel) -> None:
    def flops() -> float:
        return flops_of_step(model, document_tokens=DOCUMENTS, target_tokens=18, patches=4, pictures=1)

    everything = flops()
    model.vision_tower.requires_grad_(False)
    without_tower = flops()
    tower = (everything - without_tower) / 2
    assert tower > 0
    model.language_model.requires_grad_(False)  # its inputs' gradients are still needed
    without_both = flops()
    model.connector.requires_grad_(False)
    assert flops() * 3 == pytest.approx(everything)
    model.requires_grad_(True)
    model.language_model.requires_grad_(False)
    assert everything - flops() == pytest.approx(without_tower - without_both)


def with_work(model: nn.Module, batch: ToyBatch, context: StepContext) -> LossParts:
    parts = toy_loss(model, batch, context)
    work = StepWork(tokens=26, padding_tokens=2, blank_tokens=1, flops=1e6)
    return LossParts(loss_sum=parts.loss_sum, target_tokens=parts.target_tokens, samples=parts.samples, work=work)


def test_of_experts_those_count_that_a_token_goes_to() -> None:
    def flops(per_token: int) -> float:
        language = ExpertLlamaConfig(
            **{**tiny_llama().to_diff_dict(), "model_type": "lensmith_expert_llama"},
            experts={"count": 4, "every": 2, "per_token": per_token},
        )
        config = VisionLanguageConfig(
            vision=SiglipTowerConfig(width=16, hidden_width=24, layers=3, heads=2, patch_px=8, native_px=16),
            connector=MlpConnectorConfig(),
            language=language,
            image_token_id=IMAGE_TOKEN_ID,
        )
        return flops_of_step(
            VisionLanguageModel(config),
            document_tokens=DOCUMENTS,
            target_tokens=9,
            patches=PATCHES,
            pictures=PICTURES,
        )

    llama = tiny_llama()
    expert = 3 * llama.hidden_size * llama.intermediate_size
    layers = llama.num_hidden_layers // 2
    assert flops(4) - flops(2) == 6.0 * 2 * expert * layers * sum(DOCUMENTS)


def test_the_log_tells_tokens_shares_and_utilisation(tmp_path: Path) -> None:
    toy_train(tmp_path, loss=with_work, steps=3)
    status = read_status(tmp_path)
    assert status is not None
    assert status.peak_flops_per_s is not None
    assert status.peak_source is not None
    assert status.peak_source.startswith("measured: matrix products of")
    for line in read(tmp_path):
        took_s = line["step_s"]
        assert 0 <= line["data_wait_s"] <= took_s
        assert line["tokens_per_s"] == pytest.approx(4 * 26 / took_s)
        assert line["target_tokens_per_s"] == pytest.approx(line["tokens"] / took_s)
        assert line["padding_share"] == pytest.approx(2 / 26)
        assert line["blank_share"] == pytest.approx(1 / 26)
        assert line["mfu"] == pytest.approx(4e6 / took_s / status.peak_flops_per_s)


def test_what_is_not_known_is_not_told(tmp_path: Path) -> None:
    toy_train(tmp_path, steps=2)
    assert not read(tmp_path)[0].keys() & {"tokens_per_s", "padding_share", "blank_share", "mfu"}
    status = read_status(tmp_path)
    assert status is not None
    assert status.peak_source is None


@pytest.mark.alone
def test_a_measured_peak_is_one_that_products_reach() -> None:
    # Two measurements of one machine: the same within what other processes take meanwhile.
    peaks = [peak_of(CPU, Precision.FLOAT32).flops_per_s for _ in range(3)]
    assert all(math.isfinite(peak) and peak > 1e8 for peak in peaks)
    assert max(peaks) < 3 * min(peaks)


def test_scalars_may_not_be_called_as_the_speeds_are(tmp_path: Path) -> None:
    def loss(model: nn.Module, batch: ToyBatch, context: StepContext) -> LossParts:
        parts = toy_loss(model, batch, context)
        return LossParts(loss_sum=parts.loss_sum, target_tokens=parts.target_tokens, scalars={"step_s": 1.0})

    with pytest.raises(InputError, match=r"own: step_s$"):
        toy_train(tmp_path, loss=loss)
