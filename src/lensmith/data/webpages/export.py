"""Generated pages as parquet shards that `datasets.load_dataset` reads.

Columns as WebSight's: `image` (PNG), `text` (a document that stands alone), `llm_generated_idea`. With
`Columns.READING` two more: `body` (the markup that a model learns to write) and `boxes`, where each of its characters
shows (int16, eighths of a pixel; see `alignment`), which teaches a model to read.
"""

import enum
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lensmith.core.errors import InputError, RenderError
from lensmith.core.files import alone_in, open_output
from lensmith.core.types import OnProgress, unwatched
from lensmith.data.webpages.grammar.pages import VIEWPORT_WIDTH_PX, generate_page
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
    """Shards in order, and how many pages are in their folder."""

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
    on_progress: OnProgress = unwatched,
) -> ExportResult:
    """Write pages `start` to `start + count` of stream `seed`.

    A folder holds one run's pages. A run that was stopped goes on where it was, and one with a larger `count` goes on
    from a smaller one; either way the folder ends as if it had been made at once, to the byte. A shard that does not
    read is made again. `on_progress` is called after each shard with how many pages are there, of how many.

    Raises InputError for an impossible range, and where the folder holds other pages, or more, or another run works in
    it; RenderError where a page cannot be rendered.
    """
    if count < 1 or shard_pages < 1 or start < 0:
        raise InputError(
            "there is nothing to write",
            expected="count and shard_pages of at least 1, start of at least 0",
            actual=f"count={count}, shard_pages={shard_pages}, start={start}",
        )
    firsts = range(start, start + count, shard_pages)
    wanted = [_Shard(seed, columns, first, min(first + shard_pages, start + count)) for first in firsts]
    out_dir.mkdir(parents=True, exist_ok=True)
    with alone_in(out_dir), Renderer(PAGE_RENDERING) as renderer:
        found = _found(out_dir, wanted)
        for leftover in (*out_dir.glob(".seed*.tmp"), *out_dir.glob("seed*.partial")):  # of a run that was killed
            leftover.unlink()
        for shard in wanted:
            _complete(shard, out_dir, [known for known in found if known.first == shard.first], renderer)
            on_progress(shard.last - start, count)
        pages = sum(pq.read_metadata(path).num_rows for path in out_dir.glob("*.parquet"))
    return ExportResult(shards=tuple(shard.path(out_dir) for shard in wanted), pages=pages)


class _Shard(NamedTuple):
    """Pages `first` to `last` (not included) of a stream."""

    seed: int
    columns: Columns
    first: int
    last: int

    def path(self, folder: Path) -> Path:
        return folder / f"seed{self.seed}-{self.columns.value}-{self.first:08d}-{self.last:08d}.parquet"

    def rows(self, folder: Path) -> list[dict[str, object]] | None:
        """What it holds; None where it does not read, or holds something else."""
        try:
            table = pq.read_table(self.path(folder), page_checksum_verification=True)
        except (OSError, pa.ArrowException):
            return None
        is_whole = len(table) == self.last - self.first and table.schema.equals(schema(self.columns))
        return table.to_pylist() if is_whole else None


def _found(folder: Path, wanted: Sequence[_Shard]) -> list[_Shard]:
    """The shards in the folder. Raises InputError for one that is not, or begins, one of those that are wanted."""
    shards = []
    for path in sorted(folder.glob("*.parquet")):
        name = re.fullmatch(r"seed(\d+)-(websight|reading)-(\d{8,})-(\d{8,})\.parquet", path.name)
        shard = name and _Shard(int(name[1]), Columns(name[2]), int(name[3]), int(name[4]))
        if not shard or not any(shard[:3] == other[:3] and shard.last <= other.last for other in wanted):
            raise InputError(
                f"{folder} holds pages that are not of this run",
                expected=f"{wanted[0].path(folder).name} to {wanted[-1].path(folder).name}, or shorter ones",
                actual=path.name,
                hint="give another folder, or the seed, start, columns, shard size and at least the count of before",
            )
        shards.append(shard)
    return shards


def _complete(shard: _Shard, folder: Path, known: Sequence[_Shard], renderer: Renderer) -> None:
    """Sees that the shard is there, from the longest of those `known` that begin it and can be read.

    What was rendered when something stops it is written, as a shorter shard.
    """
    rows: list[dict[str, object]] = []
    there = shard.first
    for candidate in sorted(known, reverse=True):
        if (held := candidate.rows(folder)) is not None:
            rows, there = held, candidate.last
            break
    try:
        for row in _rows(renderer, shard.seed, range(there, shard.last), shard.columns):
            rows.append(row)
    finally:
        last = shard.first + len(rows)
        if last > there:
            with open_output(shard._replace(last=last).path(folder)) as file:
                table = pa.Table.from_pylist(rows, schema(shard.columns))
                pq.write_table(table, file, row_group_size=100, write_page_checksum=True)
        for candidate in known:
            if candidate.last != last:
                candidate.path(folder).unlink()


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
            row |= {"body": page.html, "boxes": pack_boxes(align(page.html, rendered))}
        yield row
