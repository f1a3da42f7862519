"""What a model makes of captions that it is never trained on: losses, what pictures do for them, names, and samples."""

import io
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from lensmith.core.errors import InputError
from lensmith.core.files import write_atomic
from lensmith.core.images import DEFAULT_LIMITS, open_picture
from lensmith.data.documents import AnyDocument, BadRecordError, PictureRef, Source
from lensmith.data.plan.reading import PlannedDocument, PlannedSequence
from lensmith.data.plan.tokens import Span, encode
from lensmith.data.sources.texts import CaptionTexts
from lensmith.evaluate.captions import cider
from lensmith.evaluate.stats import Share, estimate_mean
from lensmith.models.language.isolation import attending
from lensmith.models.processor import VisionLanguageProcessor
from lensmith.models.vlm import VisionLanguageModel
from lensmith.train.objectives.documents import DocumentBatch, DocumentBatches, token_losses
from lensmith.train.objectives.pictures import blank_picture

SAMPLES_FILE, PICTURES_FOLDER = "samples.jsonl", "samples"
_OPTIONS = 10
_THUMBNAIL_PX = 96
_TEXTS = "without pictures"

Pictures = Mapping[str, Tensor]
Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Captioned:
    """A picture and what is written about it; `record` is its number in its source."""

    record: int
    key: str
    picture: PictureRef
    caption: str


def captioned(source: Source, count: int) -> list[Captioned]:
    """Up to `count` documents from all over a source, those of them that are a picture and a text behind it."""
    found: list[Captioned] = []
    for record in spread(range(len(source)), count):
        try:
            document = source.document(record)
        except BadRecordError:
            continue
        match document.pieces:
            case (PictureRef() as picture, str() as caption):
                found.append(Captioned(record=record, key=document.key, picture=picture, caption=caption))
    return found


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """Up to `count` of them, from all over."""
    return [items[place * len(items) // count] for place in range(count)] if count < len(items) else list(items)


class HeldOut:
    """Measures a model on up to `most` captions of a source, from all over it, between steps.

    `loss` is nats a token; `loss_other_picture` the same with each caption behind the next one's picture: a model that
    does not look has the same loss twice. `nats_by_picture` is that difference a caption, with its 95 % interval over
    pictures: paired, since both losses are of one caption.

    `named` is how often a picture's own caption is the likeliest of ten, the others drawn from the same source (chance:
    0.1), with its interval. Beside it the same of three that do not see the picture: before the next picture, before a
    blank one, and without any. `cider` is of `written` captions, which go to `samples.jsonl` in `folder`,
    with their pictures, small, in `samples` beside it.
    """

    def __init__(
        self,
        *,
        name: str,
        source: Source,
        batches: DocumentBatches,
        folder: Path,
        keeps_samples: bool = True,
        most: int = 256,
        written: int = 64,
        documents_a_batch: int = 32,
    ) -> None:
        self.name, self.source, self.folder, self.keeps_samples = name, source, folder, keeps_samples
        texts = CaptionTexts(source)
        # Batches are made when they are measured: all pictures together may be more than memory holds.
        self.batches = batches.with_source(name, source).with_source(_TEXTS, texts)
        self.processor = batches.processor
        self.captioned = captioned(source, most)
        if not self.captioned:
            raise InputError(f"{name} has no caption to measure", expected="documents that are a picture and a text")
        self.samples = spread(self.captioned, written)
        self.planned = [self._whole(one.record, source.document(one.record)) for one in self.captioned]
        self.planned_texts = [self._whole(one.record, texts.document(one.record)) for one in self.captioned]
        self.parts = _evenly(len(self.captioned), documents_a_batch)
        self.questions = _questions([one.caption for one in self.captioned])

    def __call__(self, model: VisionLanguageModel, step: int) -> dict[str, float]:
        """`Validate`: the numbers; the samples are written."""
        own, tokens = self._losses(model, self.planned)
        other, _ = self._losses(model, self.planned, _of_next)
        by_picture = estimate_mean(other - own)
        numbers = {
            "loss": float(own.sum() / tokens),
            "loss_other_picture": float(other.sum() / tokens),
            "nats_by_picture": by_picture.mean,
            "nats_by_picture_low": by_picture.low,
            "nats_by_picture_high": by_picture.high,
        }
        if self.questions:
            numbers |= self._named(model)
        numbers["cider"] = self._written(model, step)
        return {f"{self.name}_{name}": value for name, value in numbers.items()}

    def _named(self, model: VisionLanguageModel) -> dict[str, float]:
        """How often the first caption of a question is the likeliest, before its picture and before others."""
        own = Share.of(self._right(model, shown=0), len(self.questions))
        blank = self.batches.pictures_of([blank_picture()])
        before_blank, _ = self._losses(model, self.planned, lambda pictures: _all_alike(blank, pictures))
        alone, _ = self._losses(model, self.planned_texts)
        right = {
            "named_other_picture": self._right(model, shown=1),
            "named_blank_picture": sum(_is_first(before_blank[options]) for options in self.questions),
            "named_without_picture": sum(_is_first(alone[options]) for options in self.questions),
        }
        shares = {name: count / len(self.questions) for name, count in right.items()}
        return {"named": own.share, "named_low": own.low, "named_high": own.high, **shares}

    def _right(self, model: VisionLanguageModel, *, shown: int) -> int:
        """The same where all captions of a question stand behind the picture of its option `shown`."""

        def pictures_of_one(pictures: Pictures) -> Pictures:
            return _all_alike({name: value[shown : shown + 1] for name, value in pictures.items()}, pictures)

        right = 0
        for options in self.questions:
            losses = self._of_batch(model, [self.planned[option] for option in options], pictures_of_one)
            right += _is_first(losses.sums_C)
        return right

    def _losses(
        self,
        model: VisionLanguageModel,
        planned: Sequence[PlannedDocument],
        shown: Callable[[Pictures], Pictures] = lambda pictures: pictures,
    ) -> tuple[np.ndarray, int]:
        """Nats a caption (C), and how many tokens all have; `shown` changes a batch's pictures."""
        found = [self._of_batch(model, planned[part], shown) for part in self.parts]
        return np.concatenate([each.sums_C for each in found]), sum(each.tokens for each in found)

    def _of_batch(
        self, model: VisionLanguageModel, planned: Sequence[PlannedDocument], shown: Callable[[Pictures], Pictures]
    ) -> "_Losses":
        has_pictures = any(document.span.pictures for document in planned)
        sequence = PlannedSequence(source=self.name if has_pictures else _TEXTS, documents=tuple(planned))
        batch = self.batches.batch_of([sequence])
        return _losses_of(model, replace(batch, pictures=shown(batch.pictures)).to(model.device))

    def _whole(self, record: int, document: AnyDocument) -> PlannedDocument:
        encoded = encode(document, self.batches.tokens)
        return PlannedDocument(record, Span(0, len(encoded.ids_T), len(encoded.picture_starts)))

    def _written(self, model: VisionLanguageModel, step: int) -> float:
        # Of several processes all write captions, since each holds a share of the model; the first one keeps them.
        pictures = [self.source.picture(sample.picture) for sample in self.samples]
        written = [write_caption(model, self.processor, picture) for picture in pictures]
        if self.keeps_samples:
            self._keep_samples(step, pictures, written)
        return float(cider(written, [[sample.caption] for sample in self.samples]).mean())

    def _keep_samples(self, step: int, pictures: Sequence[bytes], written: Sequence[str]) -> None:
        # What an interrupted run wrote after its checkpoint is written again.
        lines = [line for line in read_samples(self.folder) if line["step"] < step]
        for place, (sample, content, text) in enumerate(zip(self.samples, pictures, written, strict=True)):
            picture = Path(PICTURES_FOLDER) / f"{place}.png"
            if not (self.folder / picture).exists():
                write_atomic(self.folder / picture, _small(content))
            line = {"step": step, "key": sample.key, "caption": sample.caption, "written": text}
            lines.append(line | {"picture": picture.as_posix()})
        write_atomic(self.folder / SAMPLES_FILE, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def read_samples(folder: Path) -> list[dict[str, Any]]:
    """What a model wrote while it was trained, in order: lines of `samples.jsonl`; [] where there is none."""
    path = folder / SAMPLES_FILE
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _small(content: bytes) -> bytes:
    picture = open_picture(content)
    picture.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


@dataclass(frozen=True)
class _Losses:
    """Nats a caption (C), and how many tokens all have."""

    sums_C: np.ndarray
    tokens: int


def _losses_of(model: VisionLanguageModel, batch: DocumentBatch) -> _Losses:
    losses_T = token_losses(model, batch)
    # A blank picture without a word may stand behind the captions.
    bounds = batch.bounds if batch.has_pictures else batch.bounds[:-1]
    sums_C = np.array([float(losses_T[begin:end].sum()) for begin, end in pairwise(bounds)])
    return _Losses(sums_C, batch.target_tokens)


def write_caption(
    model: VisionLanguageModel, processor: VisionLanguageProcessor, picture: bytes, *, max_tokens: int = 24
) -> str:
    """What the model writes about a picture, taking the likeliest token each time."""
    tokenizer = processor.tokenizer
    prompt = f"{tokenizer.bos_token or ''}{processor.image_token}"
    opened = processor.open_picture(picture, DEFAULT_LIMITS)
    inputs = processor(images=[[opened]], text=[prompt], add_special_tokens=False).to(model.device)
    with attending(model.language_model, "sdpa"), torch.no_grad():
        ids_1T = model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)
    new = ids_1T[0, inputs["input_ids"].shape[1] :]
    return str(tokenizer.decode(new, skip_special_tokens=True)).strip()


def _questions(captions: Sequence[str]) -> list[list[int]]:
    """For each caption: itself, and nine that say something else; the same at every call."""
    draw = random.Random(0)  # no secret
    questions = []
    for own, caption in enumerate(captions):
        others = [other for other, said in enumerate(captions) if said != caption]
        if len(others) >= _OPTIONS - 1:
            questions.append([own, *draw.sample(others, _OPTIONS - 1)])
    return questions


def _evenly(count: int, most: int) -> list[slice]:
    """Parts of about one size: no caption is alone with its picture, unless there is no other."""
    ends = np.linspace(0, count, -(-count // most) + 1).round().astype(int).tolist()
    return [slice(begin, end) for begin, end in pairwise(ends)]


def _is_first(losses: Sequence[float] | np.ndarray) -> bool:
    return int(np.argmin(losses)) == 0


def _of_next(pictures: Pictures) -> Pictures:
    return {name: value.roll(-1, 0) for name, value in pictures.items()}


def _all_alike(one: Pictures, pictures: Pictures) -> Pictures:
    """The one picture in the place of each."""
    return {name: one[name].expand(len(value), *one[name].shape[1:]) for name, value in pictures.items()}
