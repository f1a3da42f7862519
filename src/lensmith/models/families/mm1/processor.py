"""What MM1 models read: square pictures, and text with pictures in it, without any words of a template.

MM1 (arXiv 2403.09611) reads squares of one size, and does not say how it makes them. CLIP cuts out the middle of a
picture. Here nothing is cut off or put out of shape: the longer side is scaled to the square's, and the rest is filled
with the mean colour, which is zero once it is normalised. Colours are normalised as the tower's weights learnt them.

A prompt is what documents are in pre-training: pictures where they stand, and text after them.

Legend: N pictures, H W pixels.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import numpy as np
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoProcessor, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lensmith.core.errors import ConfigError
from lensmith.core.images import on_white, open_picture
from lensmith.core.types import Message
from lensmith.models.config import VisionLanguageConfig
from lensmith.models.pictures import PictureConfig, PictureInput, Pixels, image_of
from lensmith.models.processor import PictureInputs, VisionLanguageProcessor
from lensmith.models.towers import ClipTowerConfig, EfficientNetTowerConfig
from lensmith.models.towers.efficientnet import LITE_MEAN, LITE_STD

PAD, BEGIN, END, IMAGE = "<pad>", "<s>", "</s>", "<image>"

Mm1Tower = ClipTowerConfig | EfficientNetTowerConfig
"""Those that read squares of any size, patch by patch."""


@dataclass(frozen=True, kw_only=True)
class Mm1PictureConfig:
    """How pictures become pixels. `image_px` is the side of the square; `mean` and `std` are CLIP's, for 0 to 1."""

    image_px: int = 378
    patch_px: int = 14
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)

    def __post_init__(self) -> None:
        if self.image_px < 1 or self.image_px % self.patch_px:
            raise ConfigError("image_px: not whole patches", expected=f"k * {self.patch_px}", actual=self.image_px)
        if min(self.std) <= 0:
            raise ConfigError("std: cannot be divided by", expected="> 0", actual=self.std)


def square_pixels(picture: PictureInput, config: Mm1PictureConfig) -> Pixels:
    """A picture in the middle of a square, as normalised pixels (3, H, W). Raises ImageError where it is unreadable."""
    image = _as_seen(picture)
    side_px, longer_px = config.image_px, max(image.size)
    width_px, height_px = (max(1, round(length_px * side_px / longer_px)) for length_px in image.size)
    if image.size != (width_px, height_px):
        image = image.resize((width_px, height_px), Image.Resampling.BICUBIC)
    mean_3, std_3 = np.asarray(config.mean, dtype=np.float32), np.asarray(config.std, dtype=np.float32)
    normal_HW3 = (np.asarray(image, dtype=np.float32) / 255 - mean_3) / std_3
    top_px, left_px = (side_px - height_px) // 2, (side_px - width_px) // 2
    square_3HW = np.zeros((3, side_px, side_px), dtype=np.float32)
    square_3HW[:, top_px : top_px + height_px, left_px : left_px + width_px] = normal_HW3.transpose(2, 0, 1)
    return square_3HW


class Mm1Processor(VisionLanguageProcessor):
    """Prepares text and pictures for an MM1 model; `for_model` takes the square from the tower's configuration."""

    picture_kind: ClassVar[type[Any]] = Mm1PictureConfig

    @classmethod
    def for_model(
        cls,
        config: VisionLanguageConfig,
        tokenizer: PreTrainedTokenizerBase,
        pictures: PictureConfig | Mm1PictureConfig | None = None,
        image_token: str = IMAGE,
    ) -> "Mm1Processor":
        """The processor that fits a model. `pictures` None: squares of the tower's native size.

        A larger square is read too, with interpolated positions. Raises ConfigError where model, pictures and tokenizer
        do not fit together.
        """
        tower, tokens = config.vision, config.connector.tokens_per_picture
        if not isinstance(tower, Mm1Tower) or tokens is None:
            raise ConfigError(
                "not an MM1 model",
                expected="vision clip or efficientnet, and a connector with a fixed number of tokens",
                actual=f"vision {tower.kind} with connector {config.connector.kind}",
            )
        given = pictures or _squares_of(tower)
        if not isinstance(given, Mm1PictureConfig) or given.patch_px != tower.patch_px:
            raise ConfigError(
                "pictures do not fit the tower", expected=f"squares in patches of {tower.patch_px} px", actual=given
            )
        processor = cls(tokenizer, cast(Any, given), tokens, image_token)
        processor.check_placeholder(config)
        return processor

    def picture_inputs(self, pictures: Sequence[PictureInput]) -> PictureInputs:
        pixels_N3HW = np.stack([square_pixels(picture, self.pictures) for picture in pictures])
        return PictureInputs({"pixel_values": pixels_N3HW}, [cast(int, self.tokens_per_picture)] * len(pixels_N3HW))

    def chat_text(self, messages: Sequence[Message]) -> str | None:
        """Pictures and words in their order. What the assistant says goes on where the question ends; every other
        message is a new line, as between the examples of a few-shot prompt."""
        text = ""
        for message in messages:
            own = "".join(part if isinstance(part, str) else self.image_token for part in message.parts)
            text += self._between(text, own, message.role == "assistant") + own
        return text

    def _between(self, before: str, after: str, is_answer: bool) -> str:
        if not before or not is_answer:
            return "\n" if before else ""
        words_meet = not before.endswith(self.image_token) and not before[-1].isspace() and after[:1].strip()
        return " " if words_meet else ""

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "pixel_values"]


def _squares_of(tower: Mm1Tower) -> Mm1PictureConfig:
    """Squares of the tower's native size, with the colours that published weights for it have learnt."""
    squares = Mm1PictureConfig(image_px=tower.grid_side * tower.patch_px, patch_px=tower.patch_px)
    if isinstance(tower, EfficientNetTowerConfig):
        return replace(squares, mean=(LITE_MEAN,) * 3, std=(LITE_STD,) * 3)
    return squares


# transformers finds a saved processor by the name of its class among those that are registered, whatever their key.
AutoProcessor.register(Mm1PictureConfig, Mm1Processor, exist_ok=True)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes and the special tokens, 260 tokens."""
    vocabulary = {PAD: 0, BEGIN: 1, END: 2, IMAGE: 3}
    for byte in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[byte] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.add_special_tokens([PAD, BEGIN, END, IMAGE])
    return byte_level(tokenizer)


def train_tokenizer(texts: Iterable[str], *, vocabulary_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE over texts, with the special tokens first. The same texts give the same tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[PAD, BEGIN, END, IMAGE],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return byte_level(tokenizer)


def byte_level(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """A byte-level vocabulary with the special tokens, for transformers: BEGIN first, END nowhere; pads on the left."""
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A",
        pair=f"{BEGIN} $A {BEGIN} $B",
        special_tokens=[(BEGIN, tokenizer.token_to_id(BEGIN))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=END,
        additional_special_tokens=[IMAGE],
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def _as_seen(picture: PictureInput) -> Image.Image:
    """As RGB, on white where it is transparent."""
    if isinstance(picture, np.ndarray):
        return image_of(picture)
    if not isinstance(picture, Image.Image):
        return open_picture(picture)
    return picture if picture.mode == "RGB" else on_white(picture)
