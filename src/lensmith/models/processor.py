"""Text and pictures to what the model reads: token ids with one placeholder a visual token, pixels, patch masks.

A transformers processor: `save_pretrained`, `from_pretrained` and `AutoProcessor` work, and so do chat templates.
In the text, one `<image>` stands for one picture; here it is repeated once for each visual token that the connector
will make of it, which follows from the patch mask alone.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from lensmith.core.config import from_dict, to_dict
from lensmith.core.errors import ConfigError, InputError
from lensmith.core.images import ImageLimits, open_picture
from lensmith.core.types import Message
from lensmith.models.config import IGNORED_LABEL, VisionLanguageConfig
from lensmith.models.pictures import PictureBatch, PictureConfig, PictureInput, prepare_pictures

Pictures = PictureInput | Sequence[PictureInput] | Sequence[Sequence[PictureInput]]


class PictureInputs(NamedTuple):
    """What the model reads of pictures, by the names of its arguments, and how many tokens each picture becomes."""

    values: dict[str, NDArray[Any]]
    tokens: list[int]


class VisionLanguageProcessor(ProcessorMixin):
    """Prepares text and pictures for a `VisionLanguageModel`.

    `tokens_per_picture` is the connector's: a fixed number, or None for one a real patch. `for_model` takes it from
    the model's configuration. The tokenizer must know `image_token` as one token. Raises ConfigError otherwise.

    A family whose pictures or prompts are made otherwise overrides `picture_kind`, `picture_reading`, `open_picture`,
    `picture_inputs` and `chat_text`.
    """

    picture_kind: ClassVar[type[Any]] = PictureConfig
    """The configuration of pictures."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        pictures: PictureConfig | Mapping[str, Any],
        tokens_per_picture: int | None = None,
        image_token: str = "<image>",  # noqa: S107  # a placeholder, not a secret
        chat_template: str | None = None,
    ) -> None:
        super().__init__(tokenizer, chat_template=chat_template)
        is_read = isinstance(pictures, self.picture_kind)
        self.pictures: Any = pictures if is_read else from_dict(self.picture_kind, cast(Mapping[str, Any], pictures))
        self.tokens_per_picture = tokens_per_picture
        self.image_token = image_token
        self.image_token_id = cast(int, tokenizer.convert_tokens_to_ids(image_token))
        if self.image_token_id in (None, tokenizer.unk_token_id) or tokenizer.tokenize(image_token) != [image_token]:
            raise ConfigError(
                "the tokenizer does not know the image placeholder",
                expected=f"{image_token!r} as one special token",
                actual=tokenizer.tokenize(image_token),
                hint=f"tokenizer.add_special_tokens({{'additional_special_tokens': [{image_token!r}]}})",
            )
        for name in ("pad_token", "eos_token"):
            if getattr(tokenizer, name) is None:
                raise ConfigError(f"the tokenizer has no {name}", hint=f"tokenizer.{name} = ...")

    @classmethod
    def for_model(
        cls,
        config: VisionLanguageConfig,
        tokenizer: PreTrainedTokenizerBase,
        pictures: PictureConfig,
        image_token: str = "<image>",  # noqa: S107  # a placeholder, not a secret
    ) -> "VisionLanguageProcessor":
        """The processor whose placeholders are those that the model expects. Raises ConfigError where they differ."""
        processor = cls(tokenizer, pictures, config.connector.tokens_per_picture, image_token)
        if pictures.patch_px != config.vision.patch_px:
            raise ConfigError(
                "processor and tower differ in the patch", expected=config.vision.patch_px, actual=pictures.patch_px
            )
        processor.check_placeholder(config)
        return processor

    def check_placeholder(self, config: VisionLanguageConfig) -> None:
        """Raises ConfigError where the model's placeholder is another token."""
        if self.image_token_id != config.image_token_id:
            raise ConfigError(
                "tokenizer and model differ in the image placeholder",
                expected=config.image_token_id,
                actual=self.image_token_id,
            )

    def __call__(
        self,
        images: Pictures | None = None,
        text: str | Sequence[str] | None = None,
        targets: Sequence[str] | str | None = None,
        padding_side: str = "left",
        return_tensors: str | None = "pt",
        **tokenizer_arguments: Any,
    ) -> BatchFeature:
        """`input_ids`, `attention_mask`, `pixel_values` (N, 3, H, W) and `patch_mask` (N, Hp, Wp), padded alike.

        `images`: one picture; a list, shared out by the placeholders in `text`; or one list a sample. `targets`, for
        training, is what the model shall write after each text: it is appended with the end-of-text token, and
        `labels` has -100 elsewhere. Raises InputError where a sample's pictures and placeholders differ in number, or
        truncation has cut into placeholders.
        """
        _refuse_other_media(tokenizer_arguments)
        pictures = list(_flat(images))
        texts = None if text is None else [text] if isinstance(text, str) else list(text)
        if texts is None and not pictures:
            raise InputError("nothing to prepare", expected="text, images or both", actual="neither")
        if texts is not None:
            self._check_pictures(texts, images)
        inputs = self.picture_inputs(pictures) if pictures else PictureInputs({}, [])
        values, counts = dict(inputs.values), inputs.tokens
        if texts is None:
            return BatchFeature(values, tensor_type=return_tensors)
        prompts = self._with_placeholders(texts, counts)
        if targets is None:
            values |= self._tokenize(prompts, padding_side, return_tensors, tokenizer_arguments)
        else:
            answers = [targets] if isinstance(targets, str) else list(targets)
            values |= self._with_labels(prompts, answers, padding_side)
        self._check_placeholders(values["input_ids"], sum(counts))
        return BatchFeature(values, tensor_type=return_tensors)

    @property
    def picture_reading(self) -> str:
        """How `open_picture` reads, as a name: processors that read one picture in two ways have two."""
        return "as-seen"

    def open_picture(self, source: bytes | str, limits: ImageLimits) -> Image.Image:
        """A picture from encoded bytes or a file, as RGB. Raises ImageError."""
        return open_picture(source, limits)

    def picture_inputs(self, pictures: Sequence[PictureInput]) -> PictureInputs:
        """Pictures (at least one) as one batch. Raises ImageError where one cannot be read."""
        batch = prepare_pictures(pictures, self.pictures)
        values = {"pixel_values": batch.pixels_N3HW, "patch_mask": batch.patch_mask_NHpWp}
        return PictureInputs(values, self.visual_tokens(batch))

    def chat_text(self, messages: Sequence[Message]) -> str | None:
        """The prompt of a conversation, without the token that begins every text. None: the chat template decides."""
        return None

    def visual_tokens(self, batch: PictureBatch) -> list[int]:
        """How many visual tokens each picture becomes."""
        if self.tokens_per_picture is None:
            return batch.patches_per_picture
        return [self.tokens_per_picture] * len(batch.patch_mask_NHpWp)

    def to_dict(self) -> dict[str, Any]:
        """What is saved beside the tokenizer."""
        return {
            "processor_class": type(self).__name__,
            "pictures": to_dict(self.pictures),
            "tokens_per_picture": self.tokens_per_picture,
            "image_token": self.image_token,
        }

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "pixel_values", "patch_mask"]

    def _check_pictures(self, texts: list[str], images: Pictures | None) -> None:
        wanted = [text.count(self.image_token) for text in texts]
        nested = _per_sample(images, len(texts))
        if nested is None:
            given = len(list(_flat(images)))
            if sum(wanted) != given:
                raise InputError(
                    "placeholders and pictures differ in number",
                    expected=f"{sum(wanted)} pictures, one for each {self.image_token} ({wanted} a sample)",
                    actual=f"{given} pictures",
                    hint="give one list of pictures for each text, and it is checked text by text",
                )
            return
        if len(nested) != len(texts):
            raise InputError("texts and lists of pictures differ in number", expected=len(texts), actual=len(nested))
        for sample, (count, pictures) in enumerate(zip(wanted, nested, strict=True)):
            if count != len(pictures):
                raise InputError(
                    f"sample {sample}: placeholders and pictures differ in number",
                    expected=f"{count} pictures, one for each {self.image_token} in its text",
                    actual=f"{len(pictures)} pictures",
                    hint=f"write one {self.image_token} where each picture stands, and leave it out where none does",
                )

    def _with_placeholders(self, texts: list[str], counts: list[int]) -> list[str]:
        remaining = iter(counts)
        expanded = []
        for text in texts:
            first, *others = text.split(self.image_token)
            expanded.append(first + "".join(self.image_token * next(remaining) + other for other in others))
        return expanded

    def _tokenize(
        self, prompts: list[str], padding_side: str, return_tensors: str | None, arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        defaults = {"padding": True, "return_tensors": return_tensors, "padding_side": padding_side}
        encoded = self.tokenizer(prompts, **(defaults | dict(arguments)))
        return {name: encoded[name] for name in ("input_ids", "attention_mask") if name in encoded}

    def _with_labels(self, prompts: list[str], targets: list[str], padding_side: str) -> dict[str, Any]:
        if len(prompts) != len(targets):
            raise InputError("texts and targets differ in number", expected=len(prompts), actual=len(targets))
        end = [self.tokenizer.eos_token_id]
        questions = self.tokenizer(prompts)["input_ids"]
        answers = [[*ids, *end] for ids in self.tokenizer(targets, add_special_tokens=False)["input_ids"]]
        longest = max(len(question) + len(answer) for question, answer in zip(questions, answers, strict=True))
        shape = (len(prompts), longest)
        ids = np.full(shape, self.tokenizer.pad_token_id, dtype=np.int64)
        mask = np.zeros(shape, dtype=np.int64)
        labels = np.full(shape, IGNORED_LABEL, dtype=np.int64)
        for row, (question, answer) in enumerate(zip(questions, answers, strict=True)):
            length = len(question) + len(answer)
            start = longest - length if padding_side == "left" else 0
            ids[row, start : start + length] = question + answer
            mask[row, start : start + length] = 1
            labels[row, start + len(question) : start + length] = answer
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    def _check_placeholders(self, input_ids: Any, expected: int) -> None:
        rows = input_ids if isinstance(input_ids, list) else input_ids.tolist()
        per_sample = [row.count(self.image_token_id) for row in rows]
        if sum(per_sample) != expected:
            raise InputError(
                "the token ids do not have one placeholder for each visual token",
                expected=f"{expected} placeholders",
                actual=f"{sum(per_sample)} placeholders ({per_sample} a sample)",
                hint="do not truncate a text with pictures",
            )


def _is_one(images: object) -> bool:
    return isinstance(images, Image.Image | np.ndarray | bytes | str | os.PathLike)


def _flat(images: Any) -> Iterator[PictureInput]:
    if images is None:
        return
    if _is_one(images):
        yield images
        return
    for item in images:
        yield from _flat(item)


def _per_sample(images: Any, samples: int) -> list[list[PictureInput]] | None:
    """The pictures of each sample where the caller says whose they are; None for a flat list over several samples."""
    if images is None:
        return [[] for _ in range(samples)]
    if _is_one(images):
        return [[images]]
    items = list(images)
    if items and not any(_is_one(item) for item in items):
        return [[] if item is None else list(_flat(item)) for item in items]
    return [items] if samples == 1 else None


def _refuse_other_media(arguments: dict[str, Any]) -> None:
    for name in ("videos", "audio"):
        if arguments.pop(name, None) is not None:
            raise InputError(f"{name} cannot be read by this model", expected="text and images", actual=name)
