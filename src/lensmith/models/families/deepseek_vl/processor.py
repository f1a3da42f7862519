"""DeepSeek-VL's processor: conversations or prompts with pictures to what the model reads.

Source: the code that the weights were published with (github.com/deepseek-ai/DeepSeek-VL, `processing_vlm.py`); see
`prompt` for the chat format and `pictures` for the pixels, and for how `exact="transformers"` differs in each.

Where we differ: pictures and placeholders are compared sample by sample before anything is computed (the original
looks at none of them, transformers at their sum); a batch holds the pictures that there are, not blank ones in the
place of missing ones. The original's default of one placeholder for each picture in the text and 576 in the token ids
is kept; its `add_special_token`, off by default, is left out.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

from PIL import Image
from transformers import AutoProcessor, BatchFeature, PreTrainedTokenizerBase

from lensmith.core.errors import ConfigError
from lensmith.core.images import ImageLimits
from lensmith.core.types import Message
from lensmith.models.config import VisionLanguageConfig
from lensmith.models.families.deepseek_vl.config import exactness_of, parts_of
from lensmith.models.families.deepseek_vl.options import EXACT, Exactness
from lensmith.models.families.deepseek_vl.pictures import DeepseekPictureConfig, open_as, prepare_squares
from lensmith.models.families.deepseek_vl.prompt import Conversation, chat_prompt, read_conversations
from lensmith.models.families.deepseek_vl.tokenizer import IMAGE
from lensmith.models.pictures import PictureConfig, PictureInput
from lensmith.models.processor import PictureInputs, VisionLanguageProcessor
from lensmith.models.towers import HybridTowerConfig


class DeepseekVlProcessor(VisionLanguageProcessor):
    """Prepares text, conversations and pictures for a DeepSeek-VL model.

    Called with `text` and `images` it is a `VisionLanguageProcessor` whose placeholder is `<image_placeholder>`;
    `chat` takes conversations. `tokens_per_picture` follows from the model's configuration: see `for_model`.
    """

    picture_kind: ClassVar[type[Any]] = DeepseekPictureConfig

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        pictures: DeepseekPictureConfig | Mapping[str, Any],
        tokens_per_picture: int,
        image_token: str = IMAGE,
        chat_template: str | None = None,
    ) -> None:
        super().__init__(tokenizer, cast(Any, pictures), tokens_per_picture, image_token, chat_template)

    @classmethod
    def for_model(
        cls,
        config: VisionLanguageConfig,
        tokenizer: PreTrainedTokenizerBase,
        pictures: PictureConfig | DeepseekPictureConfig | None = None,
        image_token: str = IMAGE,
        *,
        exact: Exactness | str | None = None,
    ) -> "DeepseekVlProcessor":
        """The processor that fits a model. `pictures` None: those that the published models of this tower have.

        `exact` is by default that of `pictures`, else the tower's, else the original's. Raises ConfigError where the
        model is not of this family, or its tower or the tokenizer do not fit.
        """
        named = getattr(pictures, "exact", None) if exact is None else EXACT.read(exact)
        fitting = _picture_config(config, named)
        given = fitting if pictures is None else pictures
        if not isinstance(given, DeepseekPictureConfig) or _look(given) != _look(fitting):
            raise ConfigError("pictures do not fit the tower", expected=fitting, actual=given)
        processor = cls(tokenizer, given, parts_of(config).tokens_per_picture, image_token)
        processor.check_placeholder(config)
        return processor

    @property
    def exact(self) -> Exactness:
        """Whose prompts and pixels these are."""
        return cast(DeepseekPictureConfig, self.pictures).exact

    @property
    def picture_reading(self) -> str:
        return str(self.pictures.reads.value)

    def open_picture(self, source: bytes | str, limits: ImageLimits) -> Image.Image:
        return open_as(source, self.pictures.reads, limits)

    def picture_inputs(self, pictures: Sequence[PictureInput]) -> PictureInputs:
        squares = prepare_squares(pictures, self.pictures)
        values = {"pixel_values": squares.pixels_N3HW}
        if squares.low_pixels_N3hw is not None:
            values["low_pixel_values"] = squares.low_pixels_N3hw
        return PictureInputs(values, [cast(int, self.tokens_per_picture)] * len(squares.pixels_N3HW))

    def chat_text(self, messages: Sequence[Message]) -> str | None:
        return chat_prompt(messages, self.exact)

    def chat(
        self,
        conversations: Conversation | Sequence[Conversation],
        *,
        answers: bool = True,
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """One conversation or several as a batch, padded on the left: `input_ids`, `attention_mask`, pixels.

        A conversation is a list of messages: `core.types.Message`, or a mapping with `role` and `content`. That is a
        string, or a list of parts: strings, pictures, `{"type": "text", "text": ...}`, `{"type": "image", "image":
        ...}`, `{"type": "image_url", "image_url": {"url": ...}}`. As the original has it, a string may hold
        placeholders, one for each of the message's `images`. `answers`: the assistant speaks next; if its message is
        the last, it goes on with that. Raises InputError, naming the sample, where one makes no sense.
        """
        read = read_conversations(conversations, self.image_token)
        prompts = [chat_prompt(conversation.messages, self.exact, answers=answers) for conversation in read]
        pictures = [list(conversation.pictures) for conversation in read]
        return self(images=pictures, text=prompts, padding_side="left", return_tensors=return_tensors)

    def apply_chat_template(
        self,
        conversation: Conversation | Sequence[Conversation],
        chat_template: str | None = None,
        *,
        add_generation_prompt: bool = False,
        tokenize: bool = False,
        return_dict: bool = False,
        return_tensors: str | None = "pt",
        **others: Any,
    ) -> Any:
        """As transformers' processors have it: the prompt or prompts, or with `tokenize` what `chat` returns.

        A `chat_template` of the caller's own is rendered by transformers instead.
        """
        if chat_template is not None:
            return super().apply_chat_template(
                conversation,
                chat_template,
                add_generation_prompt=add_generation_prompt,
                tokenize=tokenize,
                return_dict=return_dict,
                return_tensors=return_tensors,
                **others,
            )
        if others:
            raise ConfigError("not an option of this processor", actual=", ".join(others))
        if tokenize:
            inputs = self.chat(conversation, answers=add_generation_prompt, return_tensors=return_tensors)
            return inputs if return_dict else inputs["input_ids"]
        read = read_conversations(conversation, self.image_token, text_only=True)
        prompts = [chat_prompt(one.messages, self.exact, answers=add_generation_prompt) for one in read]
        return prompts if read.is_batch else prompts[0]

    @property
    def model_input_names(self) -> list[str]:
        low = ["low_pixel_values"] if self.pictures.makes_low else []
        return ["input_ids", "attention_mask", "pixel_values", *low]


# transformers finds a saved processor by the name of its class among those that are registered, whatever their key.
AutoProcessor.register(DeepseekPictureConfig, DeepseekVlProcessor, exist_ok=True)


def _picture_config(config: VisionLanguageConfig, exact: Exactness | None) -> DeepseekPictureConfig:
    tower = config.vision
    if not isinstance(tower, HybridTowerConfig):
        siglip = parts_of(config).siglip
        return DeepseekPictureConfig(
            image_px=siglip.native_px, patch_px=siglip.patch_px, exact=exact or Exactness.ORIGINAL
        )
    followed = exactness_of(tower)
    if exact not in (None, followed):
        raise ConfigError(
            "processor and tower differ in whose numbers they follow",
            expected=followed.value,
            actual=exact and exact.value,
            hint="vision.makes_low in the model's configuration",
        )
    return DeepseekPictureConfig.hybrid(image_px=tower.high.image_px, low_px=tower.low.native_px, exact=followed)


def _look(pictures: DeepseekPictureConfig) -> tuple[object, ...]:
    """What a tower depends on."""
    return pictures.image_px, pictures.low_px, pictures.exact
