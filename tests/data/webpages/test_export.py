"""Shards that other people's tools read, byte for byte the same, whole or absent."""

import inspect
import io
import json
from typing import get_args, get_type_hints

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from lensmith.cli import data as cli_data
from lensmith.core.errors import InputError
from lensmith.data.webpages.export import (
    EIGHTHS,
    PAGE_RENDERING,
    Columns,
    pack_boxes,
    unpack_boxes,
    write_shards,
)
from lensmith.data.webpages.grammar.pages import VIEWPORT_WIDTH_PX, generate_page
from lensmith.data.webpages.grammar.stylesheet import stand_alone
from lensmith.data.webpages.markup.alignment import Alignment, align
from lensmith.render import Capture

SEED = 31
WEBSIGHT_COLUMNS = ["image", "text", "llm_generated_idea"]


@pytest.fixture(scope="module")
def websight(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("websight"), count=5, seed=SEED, shard_pages=2)


@pytest.fixture(scope="module")
def reading(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("reading"), count=2, seed=SEED, start=3, columns=Columns.READING)


def bytes_of(result):
    return [path.read_bytes() for path in result.shards]


# --- what others read ---------------------------------------------------------------------------------------------


def test_datasets_reads_the_shards_as_websight(websight, tmp_path):
    loaded = datasets.load_dataset(
        "parquet", data_files=list(map(str, websight.shards)), split="train", cache_dir=str(tmp_path)
    )
    assert loaded.column_names == WEBSIGHT_COLUMNS
    assert loaded.features["image"] == datasets.Image()
    assert loaded.features["text"] == loaded.features["llm_generated_idea"] == datasets.Value("string")
    assert len(loaded) == websight.pages == 5
    for index, row in enumerate(loaded):
        page = generate_page(SEED, index)
        assert row["llm_generated_idea"] == page.idea
        assert page.html in row["text"]
        assert row["image"].width == VIEWPORT_WIDTH_PX
        assert row["image"].height > 100
        assert len(row["image"].convert("RGB").getcolors(1 << 24)) > 10


def test_pages_are_in_order_and_shards_are_named_by_their_range(websight):
    assert [path.name for path in websight.shards] == [
        f"seed{SEED}-websight-{first:08d}-{last:08d}.parquet" for first, last in ((0, 2), (2, 4), (4, 5))
    ]
    assert [pq.read_metadata(path).num_rows for path in websight.shards] == [2, 2, 1]
    assert str(websight) == f"5 pages in 3 shards: {websight.shards[0].parent}"


def test_a_row_is_the_picture_of_its_text(websight, page_renderer):
    row = pq.read_table(websight.shards[1]).to_pylist()[1]
    assert row["image"]["bytes"] == page_renderer.render(row["text"], Capture.PICTURE).png
    assert row["image"]["path"] == f"{SEED}-{3:08d}.png"


def test_reading_columns_say_where_each_character_shows(reading, page_renderer):
    table = pq.read_table(reading.shards[0])
    assert table.column_names == [*WEBSIGHT_COLUMNS, "body", "boxes"]
    note = json.loads(table.schema.metadata[b"huggingface"])
    assert list(note["info"]["features"]) == table.column_names
    for index, row in enumerate(table.to_pylist(), start=3):
        body = generate_page(SEED, index).html
        assert row["body"] == body
        page = page_renderer.render(stand_alone(body), Capture.CHARS | Capture.ELEMENTS)
        expected, found = align(body, page), unpack_boxes(row["boxes"])
        assert np.abs(found.boxes_C4 - np.maximum(expected.boxes_C4, 0)).max() <= 0.5 / EIGHTHS
        assert (found.shown_C == expected.shown_C).all()


def test_datasets_reads_the_reading_columns(reading, tmp_path):
    loaded = datasets.load_dataset(
        "parquet", data_files=[str(reading.shards[0])], split="train", cache_dir=str(tmp_path)
    )
    assert loaded.features["boxes"] == datasets.Value("binary")
    assert len(unpack_boxes(loaded[0]["boxes"]).boxes_C4) == len(loaded[0]["body"])
    assert isinstance(loaded[0]["image"], Image.Image)


# --- the same bytes, whole or absent ------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes(websight, tmp_path):
    again = write_shards(tmp_path, count=5, seed=SEED, shard_pages=2)
    assert bytes_of(again) == bytes_of(websight)


def test_another_seed_gives_other_pages(websight, tmp_path):
    other = write_shards(tmp_path, count=2, seed=SEED + 1)
    texts = pq.read_table(other.shards[0])["text"].to_pylist()
    assert not set(texts) & set(pq.read_table(websight.shards[0])["text"].to_pylist())


def test_a_stopped_run_keeps_its_shards_and_makes_the_rest(websight, tmp_path):
    class StopError(Exception):
        pass

    def stop_after_two(done: int, total: int) -> None:
        assert total == 5
        if done == 4:
            raise StopError

    with pytest.raises(StopError):
        write_shards(tmp_path, count=5, seed=SEED, shard_pages=2, on_progress=stop_after_two)
    first, second = sorted(tmp_path.iterdir())
    first.write_bytes(b"kept as it is")
    unfinished = websight.shards[2].with_suffix(".partial").name
    (tmp_path / unfinished).write_bytes(b"cut short")
    reported = []
    again = write_shards(
        tmp_path, count=5, seed=SEED, shard_pages=2, on_progress=lambda *counts: reported.append(counts)
    )
    assert reported == [(2, 5), (4, 5), (5, 5)]
    assert [path.name for path in again.shards] == sorted(path.name for path in tmp_path.iterdir())
    assert first.read_bytes() == b"kept as it is"
    assert second.read_bytes() == websight.shards[1].read_bytes()
    assert again.shards[2].read_bytes() == websight.shards[2].read_bytes()


def test_both_kinds_of_shards_fit_in_one_folder(websight, tmp_path):
    for columns in Columns:
        write_shards(tmp_path, count=1, seed=SEED, columns=columns)
    assert len(list(tmp_path.glob("*.parquet"))) == 2


@pytest.mark.parametrize("wrong", [{"count": 0}, {"count": 1, "shard_pages": 0}, {"count": 1, "start": -1}])
def test_an_impossible_range_is_refused(wrong, tmp_path):
    with pytest.raises(InputError, match="nothing to write"):
        write_shards(tmp_path / "new", **wrong)
    assert not (tmp_path / "new").exists()


# --- boxes --------------------------------------------------------------------------------------------------------


@given(
    boxes=arrays(np.float32, (7, 2), elements=st.floats(0, 3900, width=32)),
    sizes=arrays(np.float32, (7, 2), elements=st.floats(0, 190, width=32)),
)
def test_boxes_come_back_to_an_eighth_of_a_pixel(boxes, sizes):
    boxes_C4 = np.concatenate([boxes, boxes + sizes], axis=1)
    shown_C = (sizes > 0).all(axis=1)
    found = unpack_boxes(pack_boxes(Alignment(boxes_C4=boxes_C4, shown_C=shown_C)))
    assert found.boxes_C4.dtype == np.float32
    assert np.abs(found.boxes_C4 - boxes_C4).max() <= 0.5 / EIGHTHS
    large = (sizes >= 1 / EIGHTHS).all(axis=1)
    assert found.shown_C[large].all()
    assert not found.shown_C[~shown_C].any()


def test_packed_boxes_are_what_the_format_says():
    boxes_C4 = np.array([[0, 1, 2.5, 4096], [-3, 0.0624, 0.0626, 1]], np.float32)
    packed = pack_boxes(Alignment(boxes_C4=boxes_C4, shown_C=np.ones(2, bool)))
    assert np.frombuffer(packed, "<i2").tolist() == [0, 8, 20, 32767, 0, 0, 1, 8]


def test_pages_fit_into_the_boxes():
    assert PAGE_RENDERING.viewport_width_px * EIGHTHS < 32767
    assert unpack_boxes(b"").boxes_C4.shape == (0, 4)


# --- the command line ---------------------------------------------------------------------------------------------


def test_the_command_offers_these_columns_and_defaults():
    choices = get_type_hints(cli_data.pages)["columns"]
    assert set(get_args(choices)) == {columns.value for columns in Columns}
    options, library = (inspect.signature(function).parameters for function in (cli_data.pages, write_shards))
    assert Columns(options["columns"].default) is library["columns"].default
    assert options["start"].default == library["start"].default


def test_pictures_are_png(websight):
    data = pq.read_table(websight.shards[0])["image"].to_pylist()[0]["bytes"]
    assert Image.open(io.BytesIO(data)).format == "PNG"
