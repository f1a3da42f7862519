"""Tables of addresses and captions, before and after their pictures were fetched; OBELICS as it is published."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lensmith.core.errors import ConfigError, InputError
from lensmith.core.files import sha256_of_bytes
from lensmith.data.documents import PictureRef, documents
from lensmith.data.fetching.ledger import LEDGER_FILE, Fetched, Outcome
from lensmith.data.sources import JsonlConfig, LinkedConfig, ObelicsConfig, addresses_of, source_of
from lensmith.data.sources.base import problems
from tests.support.packages import png

PICTURE = png(5, 4)
A, B, C = (f"http://example.com/{name}.jpg" for name in "abc")


@pytest.fixture(autouse=True)
def _own_cache(cache_dir):
    pass


@pytest.fixture
def fetched(tmp_path):
    """A folder as a fetch leaves it: a and c are there, b is gone."""
    folder = tmp_path / "fetched"
    folder.mkdir()
    rows = []
    for name, url in (("a", A), ("c", C)):
        (folder / f"{name}.png").write_bytes(PICTURE)
        digest = sha256_of_bytes(PICTURE)
        rows.append(Fetched(url=url, outcome=Outcome.OK, file=f"{name}.png", size_bytes=len(PICTURE), sha256=digest))
    rows.insert(1, Fetched(url=B, outcome=Outcome.GONE))
    (folder / LEDGER_FILE).write_bytes(b"".join(row.to_line() for row in rows))
    return folder


ROWS = [(A, "one "), (B, "two"), (None, "three"), (C, ""), (C, "four")]
CAUSES = {"its picture was not fetched": 1, "it has no text 'url'": 1, "it has no text 'caption'": 1}


def table_of(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    records = [{"url": url, "caption": caption, "width": 3} for url, caption in ROWS]
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    else:
        path.write_text("\n".join(map(json.dumps, records)) if suffix == ".jsonl" else json.dumps(records))
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json"])
def test_a_table_of_each_kind(tmp_path, fetched, suffix):
    path = table_of(tmp_path, suffix)
    source = LinkedConfig(paths=(path,), pictures=(fetched,)).open()
    assert [document.pieces for document in documents(source)] == [
        (PictureRef(place=A), "one"),
        (PictureRef(place=C), "four"),
    ]
    assert source.picture(PictureRef(place=C)) == PICTURE
    assert problems(source).counts == CAUSES
    assert list(LinkedConfig(paths=(path,)).addresses()) == [A, B, C]


def test_files_of_two_kinds_are_refused(tmp_path):
    for suffix in (".parquet", ".jsonl"):
        table_of(tmp_path, suffix)
    with pytest.raises(ConfigError, match="files of one kind"):
        LinkedConfig(paths=(tmp_path,)).open()


def published(path, rows):
    """OBELICS: lists of addresses and of texts, and two columns of JSON."""
    table = pa.table(
        {
            "images": pa.array([images for images, _ in rows], pa.list_(pa.string())),
            "texts": pa.array([texts for _, texts in rows], pa.list_(pa.string())),
            "metadata": ["[]"] * len(rows),
            "general_metadata": ["{}"] * len(rows),
        }
    )
    pq.write_table(table, path)
    return path


def test_obelics_is_read_as_it_is_published_once_its_pictures_are_fetched(tmp_path, fetched):
    rows = [([A, None, B, None], [None, "x", None, "y"]), ([B, None], [None, "z"]), ([None], ["w"])]
    path = published(tmp_path / "a.parquet", rows)
    source = ObelicsConfig(paths=(path,), pictures=(fetched,)).open()
    assert [document.pieces for document in documents(source)] == [(PictureRef(place=A), "x\n\ny"), ("w",)]
    assert source.picture(PictureRef(place=A)) == PICTURE
    assert problems(source).counts == {"none of its pictures is there": 1}
    assert list(ObelicsConfig(paths=(path,)).addresses()) == [A, B, B]
    with pytest.raises(ConfigError, match="no fitting column 'images'") as caught:
        ObelicsConfig(paths=(path,)).open()
    assert "fetch-pictures" in caught.value.expected


def test_sources_as_they_are_named_on_a_command_line(tmp_path):
    config = source_of("linked", [tmp_path], pictures=[tmp_path / "p"], settings=["url=URL", "caption=TEXT"])
    assert config == LinkedConfig(paths=(tmp_path,), pictures=(tmp_path / "p",), url="URL", caption="TEXT")
    assert source_of("jsonl", [tmp_path]) == JsonlConfig(paths=(tmp_path,))
    assert source_of("pages", [tmp_path]).path == tmp_path
    for kind, settings in (("linkd", []), ("linked", ["url"]), ("linked", ["uri=a"]), ("linked", ["paths=a"])):
        with pytest.raises(ConfigError):
            source_of(kind, [tmp_path], settings=settings)
    with pytest.raises(InputError, match="names no addresses"):
        addresses_of(JsonlConfig(paths=(tmp_path,)))
