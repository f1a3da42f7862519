"""Batches for a model that learns to read pages: pictures, tokens, and where each token shows.

From the shards that `lensmith data pages --columns reading` writes. A sequence is the picture's kept patches, a begin
token, the body's tokens, an end token. Which pages make a batch is a pure function of the batch's number: pages of like
size go together, so that little is spent on padding.

Legend: N pages, H W pixels, Hp Wp patches, F kept patches of a page, T target tokens, h w cells, C characters.
"""

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from lensmith.core.errors import InputError
from lensmith.data.webpages.export import unpack_boxes
from lensmith.data.webpages.markup.alignment import Alignment, characters_by_cell
from lensmith.models.config import IGNORED_LABEL
from lensmith.models.pictures import PictureBatch, PictureConfig, prepare_pictures
from lensmith.models.towers.conv import CELL_HEIGHT_PX, CELL_WIDTH_PX
from lensmith.train.interfaces import StepWork

CHARACTERS = "".join(map(chr, range(33, 127))) + "©“”€£"
CHARACTER_CLASSES = len(CHARACTERS) + 2  # none, each character, any other
_INDEX_OF = {char: index + 1 for index, char in enumerate(CHARACTERS)}
_WINDOW_BATCHES = 32
# Batches come in few shapes: each new shape costs a kernel set-up, and memory that is not given back.
_ROUND_TOKENS = 64
_ROUND_PATCH_ROWS = 4


@dataclass(frozen=True, kw_only=True)
class ReadingBatch:
    """`pointers`: per page (T, F), which kept patches show each target token; rows without any are zero.

    `is_text`: per page (T,), 1 for a target token of visible text, 0 for markup.
    """

    pixels_N3HW: Tensor
    patch_mask_NHpWp: Tensor
    input_ids_NS: Tensor
    labels_NS: Tensor
    cells_Nhw: Tensor
    pointers: tuple[Tensor, ...]
    is_text: tuple[Tensor, ...]

    @property
    def target_tokens(self) -> int:
        return int((self.labels_NS != IGNORED_LABEL).sum())

    @property
    def work(self) -> StepWork:
        """All places of the rows, and those of them that are padding."""
        # A row is its page's patches, a begin token and the targets.
        real = sum(sum(pointer_TF.shape) + 1 for pointer_TF in self.pointers)
        return StepWork(tokens=self.labels_NS.numel(), padding_tokens=self.labels_NS.numel() - real)

    def to(self, device: torch.device) -> "ReadingBatch":
        """The same batch there; itself if it is there already."""
        if self.pixels_N3HW.device == device:
            return self

        def moved(part: Any) -> Any:
            return tuple(map(moved, part)) if isinstance(part, tuple) else part.to(device)

        return ReadingBatch(**{field.name: moved(getattr(self, field.name)) for field in fields(self)})


@dataclass(frozen=True, kw_only=True)
class ReadingPage:
    """One row of a shard, still packed."""

    png: bytes
    body: str
    boxes: bytes

    @property
    def height_px(self) -> int:
        return int(struct.unpack(">I", self.png[20:24])[0])  # from the PNG's header


def load_pages(shards: Sequence[Path]) -> list[ReadingPage]:
    """All pages of some shards, packed (about 50 kB a page)."""
    pages: list[ReadingPage] = []
    for shard in shards:
        table = pq.read_table(shard)
        if "boxes" not in table.column_names:
            raise InputError(
                f"{shard} has no boxes",
                expected="shards with reading columns",
                hint="write them with --columns reading",
            )
        columns = (table["image"].to_pylist(), table["body"].to_pylist(), table["boxes"].to_pylist())
        pages += [
            ReadingPage(png=image["bytes"], body=body, boxes=boxes) for image, body, boxes in zip(*columns, strict=True)
        ]
    if not pages:
        raise InputError("there are no pages to train on", expected="at least one shard", actual=list(shards))
    return pages


class ReadingBatches:
    """`batch_at(step, micro)` over the pages that are not taller than `picture` reads, each once an epoch.

    What is left of an epoch after its last whole batch waits for the next. Raises InputError where there is not even
    one batch.
    """

    def __init__(
        self,
        pages: Sequence[ReadingPage],
        tokenizer: PreTrainedTokenizerFast,
        picture: PictureConfig,
        *,
        image_token_id: int,
        batch_pages: int,
        accumulate: int = 1,
        seed: int = 0,
    ) -> None:
        self.pages = [page for page in pages if page.height_px <= picture.max_height_px]
        if len(self.pages) < batch_pages:
            raise InputError(
                "there are too few pages for a batch",
                expected=f"at least {batch_pages} pages of at most {picture.max_height_px} px",
                actual=f"{len(self.pages)} of {len(pages)}",
            )
        self.tokenizer = tokenizer
        self.picture = picture
        self.image_token_id = image_token_id
        self.batch_pages = batch_pages
        self.accumulate = accumulate
        self.seed = seed
        self._sizes = np.array([page.height_px + len(page.body) // 2 for page in self.pages])
        self._epoch: tuple[int, NDArray[np.int64]] | None = None

    @property
    def batches_per_epoch(self) -> int:
        return len(self.pages) // self.batch_pages

    def batch_at(self, step: int, micro: int) -> ReadingBatch:
        """The same batch for the same numbers, whatever was asked before."""
        epoch, index = divmod(step * self.accumulate + micro, self.batches_per_epoch)
        known = self._epoch
        if known is None or known[0] != epoch:
            known = self._epoch = (epoch, self._order(epoch))
        return self.collate([self.pages[row] for row in known[1][index]])

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """Page numbers of every batch of an epoch (batches, batch_pages)."""
        random = np.random.default_rng([self.seed, epoch])
        rows = random.permutation(len(self.pages))[: self.batches_per_epoch * self.batch_pages]
        window = _WINDOW_BATCHES * self.batch_pages
        parts = [
            part[np.argsort(self._sizes[part], kind="stable")]
            for part in np.split(rows, range(window, len(rows), window))
        ]
        batches = np.concatenate(parts).reshape(-1, self.batch_pages)
        return np.asarray(random.permutation(batches, axis=0), np.int64)

    def collate(self, pages: Sequence[ReadingPage]) -> ReadingBatch:
        """Pictures padded below, sequences padded on the right."""
        images = [Image.open(io.BytesIO(page.png)).convert("RGB") for page in pages]
        patch_px = self.picture.patch_px
        pixels, masks = _round_up(prepare_pictures(images, self.picture), patch_px)
        alignments = [unpack_boxes(page.boxes) for page in pages]
        encodings = [self.tokenizer(page.body, return_offsets_mapping=True) for page in pages]
        ids, labels = zip(
            *(
                self._sequence(encoding["input_ids"], int(mask.sum()))
                for encoding, mask in zip(encodings, masks, strict=True)
            ),
            strict=True,
        )
        pad = self.tokenizer.pad_token_id
        text_ids = self.tokenizer.backend_tokenizer.get_vocab_size(with_added_tokens=False)
        return ReadingBatch(
            pixels_N3HW=torch.from_numpy(pixels),
            patch_mask_NHpWp=torch.from_numpy(masks),
            input_ids_NS=_pad(ids, pad),
            labels_NS=_pad(labels, IGNORED_LABEL),
            cells_Nhw=_cells(pages, images, alignments, patch_px, masks.shape[1]),
            pointers=tuple(
                _pointers(encoding["offset_mapping"], alignment, mask, patch_px)
                for encoding, alignment, mask in zip(encodings, alignments, masks, strict=True)
            ),
            # Markup tokens were added to the vocabulary after the text's; the end token is neither.
            is_text=tuple(
                torch.tensor([float(token < text_ids) for token in encoding["input_ids"]] + [0.0])
                for encoding in encodings
            ),
        )

    def _sequence(self, tokens: list[int], visual_tokens: int) -> tuple[list[int], list[int]]:
        begin, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        ids = [self.image_token_id] * visual_tokens + [begin, *tokens, end]
        return ids, [IGNORED_LABEL] * (visual_tokens + 1) + [*tokens, end]


def _round_up(batch: PictureBatch, patch_px: int) -> PictureBatch:
    """The same pictures with padding below, up to a multiple of some patch rows."""
    missing = -batch.patch_mask_NHpWp.shape[1] % _ROUND_PATCH_ROWS
    below = ((0, 0), (0, 0), (0, missing * patch_px), (0, 0))
    return PictureBatch(
        np.pad(batch.pixels_N3HW, below), np.pad(batch.patch_mask_NHpWp, ((0, 0), (0, missing), (0, 0)))
    )


def _pad(rows: Sequence[list[int]], value: int) -> Tensor:
    longest = max(map(len, rows))
    padded = torch.full((len(rows), -(-longest // _ROUND_TOKENS) * _ROUND_TOKENS), value, dtype=torch.long)
    for row, line in enumerate(rows):
        padded[row, : len(line)] = torch.tensor(line)
    return padded


def _cells(
    pages: Sequence[ReadingPage],
    images: Sequence[Image.Image],
    alignments: Sequence[Alignment],
    patch_px: int,
    patch_rows: int,
) -> Tensor:
    """Character classes under each cell, -100 below a page's end."""
    rows, columns = patch_rows * patch_px // CELL_HEIGHT_PX, images[0].width // CELL_WIDTH_PX
    cells_Nhw = np.full((len(pages), rows, columns), IGNORED_LABEL, np.int64)
    for index, (page, image, alignment) in enumerate(zip(pages, images, alignments, strict=True)):
        labels_hw = characters_by_cell(
            page.body,
            alignment,
            width_px=image.width,
            height_px=image.height,
            cell_width_px=CELL_WIDTH_PX,
            cell_height_px=CELL_HEIGHT_PX,
            index_of=_INDEX_OF,
            other=CHARACTER_CLASSES - 1,
        )
        cells_Nhw[index, : labels_hw.shape[0], : labels_hw.shape[1]] = labels_hw
    return torch.from_numpy(cells_Nhw)


def _pointers(
    spans: Sequence[tuple[int, int]], alignment: Alignment, mask_HpWp: NDArray[np.bool_], patch_px: int
) -> Tensor:
    """The share of each target token's ink box that each kept patch holds (T, F); the end token has none."""
    boxes_T4 = np.zeros((len(spans) + 1, 4), np.float32)
    for token, (start, stop) in enumerate(spans):
        shown = np.flatnonzero(alignment.shown_C[start:stop]) + start
        if len(shown):
            boxes_T4[token] = _span_box(alignment.boxes_C4[shown])
    rows, columns = mask_HpWp.shape
    down_TH = _overlap(boxes_T4[:, 1], boxes_T4[:, 3], rows, patch_px)
    across_TW = _overlap(boxes_T4[:, 0], boxes_T4[:, 2], columns, patch_px)
    share_TF = (down_TH[:, :, None] * across_TW[:, None, :]).reshape(len(boxes_T4), -1)[:, mask_HpWp.reshape(-1)]
    total_T1 = share_TF.sum(1, keepdims=True)
    return torch.from_numpy(np.divide(share_TF, total_T1, out=np.zeros_like(share_TF), where=total_T1 > 0))


def _span_box(boxes_C4: NDArray[np.float32]) -> NDArray[np.float32]:
    """The first character's box, widened over the characters that follow it on the same line."""
    same_line = boxes_C4[np.abs(boxes_C4[:, 1] - boxes_C4[0, 1]) < 1]
    return np.array([*boxes_C4[0, :2], max(same_line[:, 2].max(), boxes_C4[0, 2]), boxes_C4[0, 3]], np.float32)


def _overlap(low_T: NDArray[np.float32], high_T: NDArray[np.float32], count: int, size_px: int) -> NDArray[np.float32]:
    """Length that each interval shares with each of `count` slots of `size_px` (T, count)."""
    edges = np.arange(count + 1, dtype=np.float32) * size_px
    shared: NDArray[np.float32] = np.minimum(high_T[:, None], edges[1:]) - np.maximum(low_T[:, None], edges[:-1])
    return shared.clip(min=0)
