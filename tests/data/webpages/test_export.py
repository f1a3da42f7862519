"""Shards that other people's tools read, byte for byte the same, whole or absent."""

import inspect
import io
import json
import shutil
import signal
import subprocess
import sys
from typing import get_args, get_type_hints

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from lensmith.cli import data as cli_data
from lensmith.core.errors import InputError
from lensmith.core.files import alone_in
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
    before = first.stat().st_ino
    unfinished = websight.shards[2].with_suffix(".partial").name
    (tmp_path / unfinished).write_bytes(b"cut short")
    (tmp_path / f".{websight.shards[2].name}.123.abcd.tmp").write_bytes(b"cut short")
    reported = []
    again = write_shards(
        tmp_path, count=5, seed=SEED, shard_pages=2, on_progress=lambda *counts: reported.append(counts)
    )
    assert reported == [(2, 5), (4, 5), (5, 5)]
    assert [path.name for path in again.shards] == sorted(path.name for path in tmp_path.iterdir())
    assert first.stat().st_ino == before
    assert second.read_bytes() == websight.shards[1].read_bytes()
    assert again.shards[2].read_bytes() == websight.shards[2].read_bytes()


# --- a folder holds one run ---------------------------------------------------------------------------------------


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("shard_pages", [2, 3, 1000])
def test_a_larger_count_goes_on_as_if_it_had_been_one_run(tmp_path, shard_pages):
    at_once = write_shards(tmp_path / "once", count=7, seed=SEED, shard_pages=shard_pages)
    for count in (1, 5, 7, 7):
        result = write_shards(tmp_path / "grown", count=count, seed=SEED, shard_pages=shard_pages)
        assert result.pages == count
        texts = [text for path in result.shards for text in pq.read_table(path)["text"].to_pylist()]
        assert len(set(texts)) == len(texts) == count
    assert files_of(tmp_path / "grown") == files_of(tmp_path / "once")
    assert str(at_once).startswith("7 pages in ")


@pytest.mark.parametrize(
    "other",
    [
        {"count": 4},
        {"seed": SEED + 1},
        {"start": 1},
        {"columns": Columns.READING},
        {"shard_pages": 3},
        {"shard_pages": 1},
    ],
)
def test_pages_of_another_run_are_refused_untouched(websight, tmp_path, other):
    folder = tmp_path / "shards"
    shutil.copytree(websight.shards[0].parent, folder)
    with pytest.raises(InputError, match="not of this run"):
        write_shards(folder, **({"count": 5, "seed": SEED, "shard_pages": 2} | other))
    assert files_of(folder) == files_of(websight.shards[0].parent)


def test_somebody_elses_shards_are_refused(tmp_path):
    pq.write_table(pa.table({"x": [1]}), tmp_path / "train-00000.parquet")
    with pytest.raises(InputError, match="train-00000"):
        write_shards(tmp_path, count=1)
    assert [path.name for path in tmp_path.iterdir()] == ["train-00000.parquet"]


def spoil(path, kind):
    content = path.read_bytes()
    match kind:
        case "cut":
            path.write_bytes(content[: len(content) // 2])
        case "flipped":
            # In the middle of a picture, where only a checksum tells.
            at = content.index(b"\x89PNG") + 200
            path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        case "other":
            pq.write_table(pa.table({"text": ["x", "y"]}), path)
        case "short":
            pq.write_table(pq.read_table(path).slice(0, 1), path)


@pytest.mark.parametrize("kind", ["cut", "flipped", "other", "short"])
def test_a_shard_that_does_not_read_is_made_again(websight, tmp_path, kind):
    folder = tmp_path / "shards"
    shutil.copytree(websight.shards[0].parent, folder)
    spoil(folder / websight.shards[1].name, kind)
    assert files_of(folder) != files_of(websight.shards[0].parent)
    assert write_shards(folder, count=5, seed=SEED, shard_pages=2).pages == 5
    assert files_of(folder) == files_of(websight.shards[0].parent)


def test_a_damaged_short_shard_is_not_gone_on_from(websight, tmp_path):
    short = write_shards(tmp_path, count=1, seed=SEED, shard_pages=2).shards[0]
    spoil(short, "cut")
    write_shards(tmp_path, count=5, seed=SEED, shard_pages=2)
    assert files_of(tmp_path) == files_of(websight.shards[0].parent)


def test_an_interrupt_keeps_the_pages_that_were_rendered(tmp_path):
    """The very command, stopped within its first shard."""
    out = tmp_path / "shards"
    command = [sys.executable, "-m", "lensmith.cli", "data", "pages", "-o", str(out), "--seed", str(SEED), "--count"]
    running = subprocess.Popen([*command, "2000"], stderr=subprocess.DEVNULL)
    try:
        # There is no outer sign of a page; a thousand take a minute or so.
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(timeout=12)
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=60) == 130
    finally:
        running.kill()
    (path,) = out.iterdir()
    kept = pq.read_metadata(path).num_rows
    assert 0 < kept < 1000
    assert path.name.endswith(f"{kept:08d}.parquet")
    more = kept + 2
    result = write_shards(out, count=more, seed=SEED)
    assert result.pages == more
    assert pq.read_table(result.shards[0])["text"].to_pylist()[-1] == document(more - 1)
    assert len(list(out.iterdir())) == 1


def document(index):
    page = generate_page(SEED, index)
    return stand_alone(page.html, title=page.idea.split(":")[0])


def test_two_runs_in_one_folder_do_not_meet(tmp_path):
    with alone_in(tmp_path):
        program = f"from lensmith.data.webpages.export import *; write_shards(Path({str(tmp_path)!r}), count=1)"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "another run is writing here" in done.stderr
    assert list(tmp_path.iterdir()) == []


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
