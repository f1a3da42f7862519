"""A recipe of pre-training on documents: sources, mixture, packing, model, stages. `mm1` and `deepseek_vl` have some.

After MM1 (arXiv 2403.09611, section 3): captions, interleaved documents and text in one mixture, packed. A stage may
have a mixture, packing and batch of its own, and parts that do not learn, as DeepSeek-VL's have (arXiv 2403.05525,
section 3.2). Where a recipe differs, it says so.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import cast

import torch
from transformers import PreTrainedTokenizerFast

from lensmith.core.config import content_hash
from lensmith.core.errors import CheckpointError, ConfigError
from lensmith.data.documents import Source, documents
from lensmith.data.mixture import LanguageSchedule, Mixture
from lensmith.data.plan.packing import PackingConfig
from lensmith.data.plan.writing import PlanConfig, PlanStage
from lensmith.data.sources import AnySource
from lensmith.models import VisionLanguageModel
from lensmith.models.checkpoints.folder import Loaded
from lensmith.models.families.deepseek_vl.parts import DeepseekVlParts
from lensmith.models.families.mm1.config import Mm1Parts
from lensmith.models.inference.loading import load_vision_language
from lensmith.models.processor import VisionLanguageProcessor
from lensmith.models.towers import EfficientNetTowerConfig
from lensmith.models.towers.efficientnet import EfficientNetTower
from lensmith.recipes.weights import PackagedWeights
from lensmith.train import PartConfig, TrainConfig
from lensmith.train.objectives.documents import ROUTER_LOSSES, RouterLossConfig

AnyParts = DeepseekVlParts | Mm1Parts
"""What a model that is pre-trained may consist of; each is a `families.base.TrainableParts`."""

TOWER, CONNECTOR, LANGUAGE = "vision_tower", "connector", "language_model"
"""The parts of every model, as `PartConfig.name` has them."""


def frozen(*names: str) -> tuple[PartConfig, ...]:
    """Parts that do not learn, for `OptimConfig.parts`."""
    return tuple(PartConfig(name=name, lr_factor=0.0) for name in names)


@dataclass(frozen=True, kw_only=True)
class NamedSource:
    """A source under the name that the mixture calls it."""

    name: str
    source: AnySource


@dataclass(frozen=True, kw_only=True)
class PretrainingStage:
    """One stage: how long and how fast, on what. What does not learn, or at another rate, is in `train.optim.parts`.

    `mixture`, `packing` and `sequences_per_step` None: the recipe's. `language` schedules the share of language alone.
    """

    name: str
    train: TrainConfig
    mixture: Mixture | None = None
    packing: PackingConfig | None = None
    sequences_per_step: int | None = None
    language: LanguageSchedule | None = None


@dataclass(frozen=True, kw_only=True)
class PretrainingRecipe:
    """A complete run. `vocabulary_size`: of the tokenizer that is made from the first `tokenizer_documents` of each
    source. `held_out` is measured while training; it is no part of the plan. `router_losses` are those of a language
    model with experts.

    `starts_from`: the folder or name of a model of these parts, whose weights and tokenizer it begins with; None: both
    are made. `tower_weights`: what the tower of a model that is made has learnt before.
    """

    name: str
    sources: tuple[NamedSource, ...]
    held_out: NamedSource | None = None
    mixture: Mixture
    packing: PackingConfig
    sequences_per_step: int
    parts: AnyParts
    tower_weights: PackagedWeights | None = None
    vocabulary_size: int
    tokenizer_documents: int = 5_000
    stages: tuple[PretrainingStage, ...]
    router_losses: RouterLossConfig = ROUTER_LOSSES
    starts_from: str | None = None
    data_seed: int = 0
    weights_seed: int = 0

    def __post_init__(self) -> None:
        longest = max(stage.packing.max_tokens for stage in self.plan.stages)
        if longest > self.parts.max_positions:
            raise ConfigError(
                "sequences are longer than the language model reads",
                expected=f"packing.max_tokens of at most {self.parts.max_positions}",
                actual=longest,
            )
        if self.tower_weights is not None and not (
            isinstance(self.parts, Mm1Parts) and isinstance(self.parts.tower, EfficientNetTowerConfig)
        ):
            raise ConfigError("these weights are for another tower", expected="an EfficientNetTowerConfig")

    @property
    def steps(self) -> int:
        return sum(stage.train.schedule.total_steps for stage in self.stages)

    @property
    def plan(self) -> PlanConfig:
        """What the plan is: a sequence for each that a step takes, stage by stage."""
        return PlanConfig(stages=tuple(self._planned(stage) for stage in self.stages), seed=self.data_seed)

    def _planned(self, stage: PretrainingStage) -> PlanStage:
        each = stage.sequences_per_step or self.sequences_per_step
        return PlanStage(
            mixture=stage.mixture or self.mixture,
            packing=stage.packing or self.packing,
            sequences=stage.train.schedule.total_steps * each,
            sequences_per_step=each,
            language=stage.language,
        )

    @property
    def model_hash(self) -> str:
        """Of all that decides what the model is before it is trained."""
        return content_hash(
            ModelIdentity(
                parts=self.parts,
                tower_weights=self.tower_weights,
                weights_seed=self.weights_seed,
                starts_from=self.starts_from,
            )
        )


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """What a model's starting weights follow from, beside its tokenizer."""

    parts: AnyParts
    tower_weights: PackagedWeights | None
    weights_seed: int
    starts_from: str | None


def build_tokenizer(recipe: PretrainingRecipe, sources: Mapping[str, Source]) -> PreTrainedTokenizerFast:
    """Made from the beginnings of the recipe's sources, or that of the model that it starts from.

    The same documents give the same tokenizer. Raises InputError or CheckpointError where there is no such model.
    """
    if recipe.starts_from is not None:
        tokenizer: PreTrainedTokenizerFast = _loaded(recipe.starts_from).processor.tokenizer
        return tokenizer
    return recipe.parts.train_tokenizer(_texts(recipe, sources), vocabulary_size=recipe.vocabulary_size)


def build_processor(recipe: PretrainingRecipe, tokenizer: PreTrainedTokenizerFast) -> VisionLanguageProcessor:
    """The processor of the recipe's model."""
    return recipe.parts.processor(tokenizer)


def build_model(recipe: PretrainingRecipe, processor: VisionLanguageProcessor) -> VisionLanguageModel:
    """The model with its starting weights: drawn from `weights_seed`, but for a tower that has learnt before, or those
    of the model that it starts from.

    Raises as `PackagedWeights.read`, and CheckpointError where weights are those of other parts.
    """
    torch.manual_seed(recipe.weights_seed)
    model = VisionLanguageModel(recipe.parts.config(processor.tokenizer))
    if recipe.tower_weights is not None:
        cast(EfficientNetTower, model.vision_tower).load_published(recipe.tower_weights.read())
    if recipe.starts_from is not None:
        try:
            model.load_state_dict(_loaded(recipe.starts_from).model.state_dict())
        except RuntimeError as error:
            raise CheckpointError(
                f"{recipe.starts_from} does not consist of the recipe's parts",
                actual=error,
                hint="give the recipe the parts of that model",
            ) from error
    return model


def _loaded(source: str) -> Loaded:
    loaded = load_vision_language(source, dtype=torch.float32)
    if loaded is None:
        raise CheckpointError(f"{source} is no vision-language model", hint="a folder that `lensmith train` wrote")
    return loaded


def _texts(recipe: PretrainingRecipe, sources: Mapping[str, Source]) -> Iterator[str]:
    for source in sources.values():
        for document in islice(documents(source), recipe.tokenizer_documents):
            yield from (piece for piece in document.pieces if isinstance(piece, str))
