"""A tiny model of every part, its processor, and pictures for it. Weights are random; nothing is downloaded."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image
from transformers import PreTrainedConfig, PreTrainedTokenizerFast

from lensmith.models import PictureConfig, VisionLanguageConfig, VisionLanguageModel, VisionLanguageProcessor
from lensmith.models.connectors import ConnectorConfig, MlpConnectorConfig
from lensmith.models.towers import TowerConfig
from tests.support.tiny_vlm import IMAGE_TOKEN_ID, byte_tokenizer, tiny_llama, tiny_siglip

# A busy machine is no reason to fail: pytest's own time limit is enough.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

ModelMaker = Callable[..., VisionLanguageModel]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    # Small matrices: threads only cost, and sums in one order make runs comparable.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return byte_tokenizer()


@pytest.fixture
def make_config() -> Callable[..., VisionLanguageConfig]:
    def make(
        vision: TowerConfig | None = None,
        connector: ConnectorConfig | None = None,
        language: PreTrainedConfig | None = None,
    ) -> VisionLanguageConfig:
        return VisionLanguageConfig(
            vision=vision or tiny_siglip(),
            connector=connector or MlpConnectorConfig(),
            language=language or tiny_llama(),
            image_token_id=IMAGE_TOKEN_ID,
        )

    return make


@pytest.fixture
def make_model(make_config: Callable[..., VisionLanguageConfig]) -> ModelMaker:
    def make(seed: int = 0, **parts: object) -> VisionLanguageModel:
        torch.manual_seed(seed)
        return VisionLanguageModel(make_config(**parts)).eval()

    return make


@pytest.fixture
def model(make_model: ModelMaker) -> VisionLanguageModel:
    return make_model()


@pytest.fixture
def processor(model: VisionLanguageModel, tokenizer: PreTrainedTokenizerFast) -> VisionLanguageProcessor:
    pictures = PictureConfig(patch_px=8, max_width_px=64, max_height_px=96)
    return VisionLanguageProcessor.for_model(model.config, tokenizer, pictures)


@pytest.fixture
def picture() -> Callable[..., Image.Image]:
    """A picture of noise: `picture(width_px, height_px, seed)`."""

    def make(width_px: int, height_px: int, seed: int = 0) -> Image.Image:
        noise = np.random.default_rng(seed).integers(0, 256, (height_px, width_px, 3), dtype=np.uint8)
        return Image.fromarray(noise)

    return make
