"""What a model makes of captions that it is never trained on: their loss, what pictures do for it, and samples."""

import io
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from lensmith.core.files import write_atomic
from lensmith.core.images import DEFAULT_LIMITS, open_picture
from lensmith.data.documents import AnyDocument, PictureRef, Source
from lensmith.data.plan.reading import PlannedDocument, PlannedSequence
from lensmith.data.plan.tokens import Span, Tokens, encode
from lensmith.models.language.isolation import attending
from lensmith.models.processor import VisionLanguageProcessor
from lensmith.models.vlm import VisionLanguageModel
from lensmith.train.objectives.documents import DocumentBatch, documents_loss, token_losses

SAMPLES_FILE, PICTURES_FOLDER = "samples.jsonl", "samples"
_OPTIONS = 10
_THUMBNAIL_PX = 96


@dataclass(frozen=True, kw_only=True)
class Captioned:
    """A picture and what is written about it."""

    key: str
    picture: bytes
    caption: str


def captioned(source: Source, count: int) -> list[Captioned]:
    """Up to `count` documents from all over a source, those of them that are a picture and a text behind it."""
    found: list[Captioned] = []
    for place in range(min(count, len(source))):
        document = source.document(place * len(source) // min(count, len(source)))
        match document.pieces:
            case (PictureRef() as ref, str() as caption):
                found.append(Captioned(key=document.key, picture=source.picture(ref), caption=caption))
    return found


class HeldOut:
    """Measures a model on a source's first `most` captions between steps.

    Samples go to `samples.jsonl` in `folder`, their pictures, small, into `samples` beside it.

    `loss` is nats a token; `loss_other_picture` the same with each caption behind the next one's picture: a model that
    does not look has the same loss twice. `named` is how often a picture's own caption is the likeliest of ten, the
    others drawn from the same source (chance: 0.1); `named_other_picture` the same before the next picture.
    """

    def __init__(
        self,
        *,
        name: str,
        source: Source,
        tokens: Tokens,
        processor: VisionLanguageProcessor,
        batch_of: Callable[[list[PlannedSequence]], DocumentBatch],
        folder: Path,
        keeps_samples: bool = True,
        most: int = 256,
        samples: int = 4,
        named: int = 100,
        documents_a_batch: int = 32,
    ) -> None:
        self.name, self.processor, self.folder, self.keeps_samples = name, processor, folder, keeps_samples
        self.samples: Sequence[Captioned] = captioned(source, samples)
        planned = [_whole(index, source.document(index), tokens) for index in range(min(most, len(source)))]
        # Batches are made when they are measured: all pictures together may be more than memory holds.
        self.batch_of = batch_of
        self.sequences = [
            PlannedSequence(source=name, documents=tuple(planned[begin : begin + documents_a_batch]))
            for begin in range(0, len(planned), documents_a_batch)
        ]
        self.questions = [
            PlannedSequence(source=name, documents=tuple(planned[one] for one in options))
            for options in _options(len(planned), named)
        ]

    def __call__(self, model: VisionLanguageModel, step: int) -> dict[str, float]:
        """`Validate`: the losses; the samples are written."""
        own = self._loss(model, lambda batch: batch)
        other = self._loss(model, _with_next_picture)
        self._write_samples(model, step)
        numbers = {"loss": own, "loss_other_picture": other}
        if self.questions:
            numbers |= {"named": self._named(model, shift=0), "named_other_picture": self._named(model, shift=1)}
        return {f"{self.name}_{name}": value for name, value in numbers.items()}

    def _named(self, model: VisionLanguageModel, *, shift: int) -> float:
        """How often the first caption of a question is the likeliest behind the picture of its option `shift`."""
        right = 0
        for question in self.questions:
            batch = self.batch_of([question]).to(model.device)
            shown = {name: value[shift : shift + 1].expand_as(value) for name, value in batch.pictures.items()}
            losses_T = token_losses(model, replace(batch, pictures=shown))
            losses = [float(losses_T[begin:end].sum()) for begin, end in pairwise(batch.bounds)]
            right += losses.index(min(losses)) == 0
        return right / len(self.questions)

    def _loss(self, model: VisionLanguageModel, changed: Callable[[DocumentBatch], DocumentBatch]) -> float:
        batches = (changed(self.batch_of([sequence])) for sequence in self.sequences)
        parts = [documents_loss(model, batch.to(model.device)) for batch in batches]
        return sum(float(part.loss_sum) for part in parts) / sum(part.target_tokens for part in parts)

    def _write_samples(self, model: VisionLanguageModel, step: int) -> None:
        # Of several processes all write captions, since each holds a share of the model; the first one keeps them.
        written = [write_caption(model, self.processor, sample.picture) for sample in self.samples]
        if not self.keeps_samples:
            return
        # What an interrupted run wrote after its checkpoint is written again.
        lines = [line for line in read_samples(self.folder) if line["step"] < step]
        for place, (sample, text) in enumerate(zip(self.samples, written, strict=True)):
            picture = Path(PICTURES_FOLDER) / f"{place}.png"
            if not (self.folder / picture).exists():
                write_atomic(self.folder / picture, _small(sample.picture))
            line = {"step": step, "key": sample.key, "caption": sample.caption, "written": text}
            lines.append(line | {"picture": picture.as_posix()})
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_atomic(self.folder / SAMPLES_FILE, text)


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


def _whole(index: int, document: AnyDocument, tokens: Tokens) -> PlannedDocument:
    encoded = encode(document, tokens)
    return PlannedDocument(index, Span(0, len(encoded.ids_T), len(encoded.picture_starts)))


def _options(count: int, questions: int) -> list[list[int]]:
    """For each of the first captions: itself, and nine others of the same source; the same at every call."""
    if count < _OPTIONS:
        return []
    draw = random.Random(0)  # no secret
    return [
        [own, *draw.sample([other for other in range(count) if other != own], _OPTIONS - 1)]
        for own in range(min(count, questions))
    ]


def _with_next_picture(batch: DocumentBatch) -> DocumentBatch:
    return replace(batch, pictures={name: value.roll(-1, 0) for name, value in batch.pictures.items()})
