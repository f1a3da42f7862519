"""Small Sightseer models: screenshots of generated pages to their HTML.

After WebSight and Sightseer (arXiv 2403.09029): a vision-language model fine-tuned on synthetic screenshot/HTML pairs.
Where we differ: the pages come from a grammar, the tower is taught to read letters before the language model learns to
write, and the whole is small enough for a laptop's processor.
"""

import enum
import html
import re
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedTokenizerFast

from lensmith.data.webpages.grammar.pages import VIEWPORT_WIDTH_PX, generate_page
from lensmith.data.webpages.grammar.stylesheet import UTILITIES
from lensmith.models import VisionLanguageModel
from lensmith.models.connectors.mlp import MlpConnectorConfig
from lensmith.models.families.sightseer.config import DecoderConfig, sightseer_config
from lensmith.models.families.sightseer.processor import IMAGE, markup_pieces, train_tokenizer
from lensmith.models.pictures import PictureConfig, TooTall
from lensmith.models.processor import VisionLanguageProcessor
from lensmith.models.towers.conv import ConvTowerConfig
from lensmith.train import OptimConfig, ScheduleConfig, TrainConfig
from lensmith.train.objectives.reading import ReadingConfig

TOKENIZER_PAGES = 3000


class Lesson(enum.Enum):
    """What a stage teaches: the tower to see characters, or the whole model to write pages."""

    CHARACTERS = "characters"
    PAGES = "pages"


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """One stage of training: what it teaches, how many pages a micro-batch holds, and for how long."""

    name: str
    lesson: Lesson
    batch_pages: int
    train: TrainConfig


@dataclass(frozen=True, kw_only=True)
class SightseerRecipe:
    """A complete run: pages of stream `page_seed`, picture geometry, model, and the stages in order."""

    name: str
    page_seed: int
    pages: int
    vocabulary_size: int
    picture: PictureConfig
    tower: ConvTowerConfig
    connector: MlpConnectorConfig
    decoder: DecoderConfig
    reading: ReadingConfig
    stages: tuple[StageConfig, ...]
    weights_seed: int = 0

    @property
    def image_token(self) -> str:
        """What stands in a text for a picture."""
        return IMAGE


def build_tokenizer(recipe: SightseerRecipe) -> PreTrainedTokenizerFast:
    """Trained on the recipe's own page stream; the same recipe gives the same tokenizer."""
    pages = [generate_page(recipe.page_seed, index).html for index in range(TOKENIZER_PAGES)]
    tags = set(re.findall(r"</?([a-z0-9]+)", " ".join(pages)))
    texts = [html.unescape(text) for page in pages for text in re.findall(r">([^<]+)<", page)]
    return train_tokenizer(texts, markup=markup_pieces(tags, UTILITIES), vocabulary_size=recipe.vocabulary_size)


def build_model(recipe: SightseerRecipe, tokenizer: PreTrainedTokenizerFast) -> VisionLanguageModel:
    """The model with its starting weights, drawn from `weights_seed`."""
    torch.manual_seed(recipe.weights_seed)
    config = sightseer_config(
        recipe.tower, recipe.connector, recipe.decoder, tokenizer, vocabulary_size=recipe.vocabulary_size
    )
    return VisionLanguageModel(config)


def build_processor(
    recipe: SightseerRecipe, model: VisionLanguageModel, tokenizer: PreTrainedTokenizerFast
) -> VisionLanguageProcessor:
    """The processor of the recipe's model."""
    return VisionLanguageProcessor.for_model(model.config, tokenizer, recipe.picture, IMAGE)


def sightseer_nano() -> SightseerRecipe:
    """The model that ships: hours on two processor cores."""
    width = 320
    return SightseerRecipe(
        name="sightseer_nano",
        page_seed=1,
        pages=9_000,
        vocabulary_size=1280,
        picture=PictureConfig(
            patch_px=16,
            max_width_px=VIEWPORT_WIDTH_PX,
            max_height_px=1152,
            too_tall=TooTall.CROP,
            drop_repeated_patches=True,
        ),
        tower=ConvTowerConfig(width=width, stem_width=96, stem_blocks=4, max_rows=72, max_columns=24),
        connector=MlpConnectorConfig(depth=1, norm=True),
        decoder=DecoderConfig(width=width, layers=5),
        reading=ReadingConfig(),
        stages=(
            StageConfig(
                name="letters",
                lesson=Lesson.CHARACTERS,
                batch_pages=16,
                train=TrainConfig(
                    optim=OptimConfig(peak_lr=2e-3, weight_decay=0.01),
                    schedule=ScheduleConfig(total_steps=300, warmup_steps=50, final_lr_fraction=0.1),
                    log_every_steps=20,
                ),
            ),
            StageConfig(
                name="pages",
                lesson=Lesson.PAGES,
                batch_pages=8,
                train=TrainConfig(
                    optim=OptimConfig(peak_lr=1.3e-3, weight_decay=0.05),
                    schedule=ScheduleConfig(total_steps=3000, warmup_steps=100, final_lr_fraction=0.02),
                    ema_decay=0.998,
                    checkpoint_every_s=300.0,
                    log_every_steps=20,
                    prefetch_batches=8,
                ),
            ),
        ),
    )


def sightseer_test() -> SightseerRecipe:
    """`sightseer_nano` in miniature: the same path in seconds, for tests. It learns nothing useful."""
    nano = sightseer_nano()
    stages = tuple(
        replace(
            stage,
            batch_pages=2,
            train=replace(
                stage.train,
                schedule=ScheduleConfig(total_steps=3, warmup_steps=1),
                log_every_steps=1,
            ),
        )
        for stage in nano.stages
    )
    return replace(
        nano,
        name="sightseer_test",
        pages=8,
        tower=replace(nano.tower, width=64, stem_width=24, stem_blocks=1),
        decoder=DecoderConfig(width=64, layers=3, head_width=32),
        reading=replace(nano.reading, pointer_layers=(1, 2)),
        stages=stages,
    )
