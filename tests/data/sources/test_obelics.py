"""Interleaved documents in parquet."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lensmith.core.errors import ConfigError
from lensmith.data.documents import PictureRef, documents
from lensmith.data.sources.base import problems
from lensmith.data.sources.obelics import ObelicsConfig
from tests.support.packages import png

PICTURES = [png(3, 4), png(5, 6)]
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def written(path, rows, kind):
    """Parquet of (images, texts), two rows a group."""
    images, texts = ([row[place] for row in rows] for place in (0, 1))
    if pa.types.is_struct(kind):
        images = [row and [each and {"bytes": each, "path": "a"} for each in row] for row in images]
    table = pa.table({"images": pa.array(images, pa.list_(kind)), "texts": pa.array(texts, pa.list_(pa.string()))})
    pq.write_table(table, path, row_group_size=2)
    return ObelicsConfig(paths=(path,)).open()


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), STRUCT], ids=str)
def test_texts_and_pictures_stand_in_their_order(tmp_path, kind):
    one, two = PICTURES
    rows = [
        ([None, one, None, two], ["before", None, " between ", None]),
        ([None, None, None], ["alone", None, "goes on"]),
        ([two], [None]),
    ]
    source = written(tmp_path / "a.parquet", rows, kind)
    assert [document.pieces for document in documents(source)] == [
        ("before", PictureRef(place="0/1"), "between", PictureRef(place="0/3")),
        ("alone\n\ngoes on",),
        (PictureRef(place="2/0"),),
    ]
    refs = [ref for document in documents(source) for ref in document.pictures]
    assert [source.picture(ref) for ref in refs] == [one, two, two]
    assert source.document(2).key == "a.parquet, row group 1, row 0"


def test_a_struct_without_bytes_is_a_picture_that_could_not_be_fetched(tmp_path):
    images = pa.array([[{"bytes": None, "path": "http://a"}, None]], pa.list_(STRUCT))
    pq.write_table(pa.table({"images": images, "texts": [["", "b"]]}), tmp_path / "a.parquet")
    assert ObelicsConfig(paths=(tmp_path,)).open().document(0).pieces == ("b",)


def test_a_bad_row_costs_itself_and_says_its_cause(tmp_path):
    one = PICTURES[0]
    rows = [([one], ["both"]), ([None], ["a", "b"]), (None, ["a"]), ([None], [None]), ([], []), ([None], ["good"])]
    source = written(tmp_path / "a.parquet", rows, pa.binary())
    assert problems(source).counts == {
        "its lists of pictures and texts differ in length": 2,
        "it has no text and no picture": 2,
        "a picture and a text stand in one place": 1,
    }
    assert [document.pieces for document in documents(source)] == [("good",)]


def test_addresses_of_pictures_are_refused(tmp_path):
    pq.write_table(pa.table({"images": [["http://a", None]], "texts": [[None, "b"]]}), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match="no fitting column 'images'") as caught:
        ObelicsConfig(paths=(tmp_path,)).open()
    assert "bytes" in caught.value.expected
    assert "images (list<" in caught.value.actual
    with pytest.raises(ConfigError, match="no fitting column 'pictures'"):
        ObelicsConfig(paths=(tmp_path,), images="pictures").open()
