"""A recipe of pre-training on documents: sources, mixture, packing, model, stages. `mm1` has the named ones.

After MM1 (arXiv 2403.09611, section 3): captions, interleaved documents and text in one mixture, packed, with all parts
learning. Where a recipe differs, it says so.
"""

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import cast

import torch
from transformers import PreTrainedTokenizerFast

from lensmith.core.config import content_hash
from lensmith.core.errors import ConfigError
from lensmith.data.documents import Source, documents
from lensmith.data.mixture import Mixture
from lensmith.data.plan.packing import PackingConfig
from lensmith.data.plan.writing import PlanConfig
from lensmith.data.sources import AnySource
from lensmith.models import VisionLanguageModel
from lensmith.models.families.mm1.config import Mm1Parts, mm1_toy_config
from lensmith.models.families.mm1.processor import Mm1Processor, train_tokenizer
from lensmith.models.towers import EfficientNetTowerConfig
from lensmith.models.towers.efficientnet import EfficientNetTower
from lensmith.recipes.weights import PackagedWeights
from lensmith.train import TrainConfig


class ModelPart(enum.Enum):
    """A part of the model, which a stage may leave as it is."""

    TOWER = "vision_tower"
    CONNECTOR = "connector"
    LANGUAGE = "language_model"


@dataclass(frozen=True, kw_only=True)
class NamedSource:
    """A source under the name that the mixture calls it."""

    name: str
    source: AnySource


@dataclass(frozen=True, kw_only=True)
class PretrainingStage:
    """One stage: how long and how fast, and what does not learn."""

    name: str
    train: TrainConfig
    frozen: tuple[ModelPart, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PretrainingRecipe:
    """A complete run. `vocabulary_size`: of the tokenizer that is made from the first `tokenizer_documents` of each
    source. `held_out` is measured while training; it is no part of the plan. `tower_weights`: what the tower has learnt
    before; without them it starts from random weights, as the other parts do.
    """

    name: str
    sources: tuple[NamedSource, ...]
    held_out: NamedSource | None = None
    mixture: Mixture
    packing: PackingConfig
    sequences_per_step: int
    parts: Mm1Parts
    tower_weights: PackagedWeights | None = None
    vocabulary_size: int
    tokenizer_documents: int = 5_000
    stages: tuple[PretrainingStage, ...]
    data_seed: int = 0
    weights_seed: int = 0

    def __post_init__(self) -> None:
        if self.packing.max_tokens > self.parts.decoder.max_positions:
            raise ConfigError(
                "sequences are longer than the language model reads",
                expected=f"packing.max_tokens of at most {self.parts.decoder.max_positions}",
                actual=self.packing.max_tokens,
            )
        if self.tower_weights is not None and not isinstance(self.parts.tower, EfficientNetTowerConfig):
            raise ConfigError(
                "these weights are for another tower", expected="efficientnet", actual=self.parts.tower.kind
            )

    @property
    def steps(self) -> int:
        return sum(stage.train.schedule.total_steps for stage in self.stages)

    @property
    def plan(self) -> PlanConfig:
        """What the plan is: a sequence for each that a step takes."""
        return PlanConfig(
            mixture=self.mixture,
            packing=self.packing,
            sequences=self.steps * self.sequences_per_step,
            seed=self.data_seed,
        )

    @property
    def model_hash(self) -> str:
        """Of all that decides what the model is before it is trained."""
        return content_hash(
            ModelIdentity(parts=self.parts, tower_weights=self.tower_weights, weights_seed=self.weights_seed)
        )


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """What a model's starting weights follow from, beside its tokenizer."""

    parts: Mm1Parts
    tower_weights: PackagedWeights | None
    weights_seed: int


def build_tokenizer(recipe: PretrainingRecipe, sources: Mapping[str, Source]) -> PreTrainedTokenizerFast:
    """Made from the beginnings of the recipe's sources. The same documents give the same tokenizer."""
    return train_tokenizer(_texts(recipe, sources), vocabulary_size=recipe.vocabulary_size)


def build_processor(recipe: PretrainingRecipe, tokenizer: PreTrainedTokenizerFast) -> Mm1Processor:
    """The processor of the recipe's model."""
    return Mm1Processor.for_model(mm1_toy_config(tokenizer, recipe.parts), tokenizer)


def build_model(recipe: PretrainingRecipe, processor: Mm1Processor) -> VisionLanguageModel:
    """The model with its starting weights, drawn from `weights_seed`, but for a tower that has learnt before.

    Raises as `PackagedWeights.read`, and CheckpointError where these weights are not the tower's.
    """
    torch.manual_seed(recipe.weights_seed)
    model = VisionLanguageModel(mm1_toy_config(processor.tokenizer, recipe.parts))
    if recipe.tower_weights is not None:
        cast(EfficientNetTower, model.vision_tower).load_published(recipe.tower_weights.read())
    return model


def _texts(recipe: PretrainingRecipe, sources: Mapping[str, Source]) -> Iterator[str]:
    for source in sources.values():
        for document in islice(documents(source), recipe.tokenizer_documents):
            yield from (piece for piece in document.pieces if isinstance(piece, str))
