"""Generated pages as parquet shards that `datasets.load_dataset` reads.

Columns as WebSight's: `image` (PNG), `text` (a document that stands alone), `llm_generated_idea`. With
`Columns.READING` two more: `body` (the markup that a model learns to write) and `boxes`, where each of its characters
shows (int16, eighths of a pixel; see `alignment`), which teaches a model to read.
"""

import enum
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lensmith.core.errors import InputError, RenderError
from lensmith.data.webpages.grammar.pages import VIEWPORT_WIDTH_PX, GeneratedPage, generate_page
from lensmith.data.webpages.grammar.stylesheet import stand_alone
from lensmith.data.webpages.markup.alignment import Alignment, align
from lensmith.render import Capture, RenderConfig, Renderer

EIGHTHS = 8  # boxes are kept in eighths of a pixel: finer than a browser lays out, and 4,096 px fit in int16
PAGE_RENDERING = RenderConfig(viewport_width_px=VIEWPORT_WIDTH_PX, viewport_height_px=64)


class Columns(enum.Enum):
    """Which columns a shard has."""

    WEBSIGHT = "websight"
    READING = "reading"


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """Shards in order, and how many pages they hold."""

    shards: tuple[Path, ...]
    pages: int

    def __str__(self) -> str:
        return f"{self.pages} pages in {len(self.shards)} shards: {self.shards[0].parent}"


def schema(columns: Columns) -> pa.Schema:
    """The arrow schema, with the note that tells `datasets` that `image` is a picture."""
    features = {
        "image": {"_type": "Image"},
        "text": {"dtype": "string", "_type": "Value"},
        "llm_generated_idea": {"dtype": "string", "_type": "Value"},
    }
    fields = [
        pa.field("image", pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])),
        pa.field("text", pa.string()),
        pa.field("llm_generated_idea", pa.string()),
    ]
    if columns is Columns.READING:
        features |= {"body": {"dtype": "string", "_type": "Value"}, "boxes": {"dtype": "binary", "_type": "Value"}}
        fields += [pa.field("body", pa.string()), pa.field("boxes", pa.binary())]
    note = json.dumps({"info": {"features": features}})
    return pa.schema(fields, metadata={"huggingface": note})


def pack_boxes(alignment: Alignment) -> bytes:
    """Boxes (C, 4) as little-endian int16 in eighths of a pixel."""
    return np.clip(np.rint(alignment.boxes_C4 * EIGHTHS), 0, 32767).astype("<i2").tobytes()


def unpack_boxes(packed: bytes) -> Alignment:
    """The inverse of `pack_boxes`, to an eighth of a pixel."""
    boxes_C4 = np.frombuffer(packed, "<i2").reshape(-1, 4).astype(np.float32) / np.float32(EIGHTHS)
    shown_C = (boxes_C4[:, 2] > boxes_C4[:, 0]) & (boxes_C4[:, 3] > boxes_C4[:, 1])
    return Alignment(boxes_C4=boxes_C4, shown_C=shown_C)


def write_shards(
    out_dir: Path,
    *,
    count: int,
    seed: int = 0,
    start: int = 0,
    shard_pages: int = 1000,
    columns: Columns = Columns.WEBSIGHT,
    on_progress: Callable[[int, int], None] | None = None,
) -> ExportResult:
    """Write pages `start` to `start + count` of stream `seed`. Shards that exist are kept, so a stopped run resumes.

    `on_progress` hears after each shard how many pages are there, of how many. Raises InputError for an impossible
    range, RenderError where a page cannot be rendered.
    """
    if count < 1 or shard_pages < 1 or start < 0:
        raise InputError(
            "there is nothing to write",
            expected="count and shard_pages of at least 1, start of at least 0",
            actual=f"count={count}, shard_pages={shard_pages}, start={start}",
        )
    out_dir.mkdir(parents=True, exist_ok=True)
    shards = []
    with Renderer(PAGE_RENDERING) as renderer:
        for first in range(start, start + count, shard_pages):
            last = min(first + shard_pages, start + count)
            path = out_dir / f"seed{seed}-{columns.value}-{first:08d}-{last:08d}.parquet"
            if not path.exists():
                rows = list(_rows(renderer, seed, range(first, last), columns))
                partial = path.with_suffix(".partial")
                pq.write_table(pa.Table.from_pylist(rows, schema(columns)), partial, row_group_size=100)
                partial.replace(path)
            shards.append(path)
            if on_progress is not None:
                on_progress(last - start, count)
    return ExportResult(shards=tuple(shards), pages=count)


def _rows(renderer: Renderer, seed: int, indices: range, columns: Columns) -> Iterator[dict[str, object]]:
    generated = [generate_page(seed, index) for index in indices]
    documents = [stand_alone(page.html, title=page.idea.split(":")[0]) for page in generated]
    capture = Capture.PICTURE
    if columns is Columns.READING:
        capture |= Capture.CHARS | Capture.ELEMENTS
    for index, page, document, rendered in zip(
        indices, generated, documents, renderer.render_many(documents, capture), strict=True
    ):
        if isinstance(rendered, RenderError):
            raise rendered
        row: dict[str, object] = {
            "image": {"bytes": rendered.png, "path": f"{seed}-{index:08d}.png"},
            "text": document,
            "llm_generated_idea": page.idea,
        }
        if columns is Columns.READING:
            row |= _reading_columns(page, align(page.html, rendered))
        yield row


def _reading_columns(page: GeneratedPage, alignment: Alignment) -> dict[str, object]:
    return {"body": page.html, "boxes": pack_boxes(alignment)}
