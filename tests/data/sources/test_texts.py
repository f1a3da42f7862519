"""Text in lines of JSON and in parquet."""

import gzip
import json
import os
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lensmith.core.errors import ConfigError, InputError
from lensmith.data.documents import BadRecordError, PictureRef, documents
from lensmith.data.sources.base import problems
from lensmith.data.sources.texts import JsonlConfig, ParquetConfig


@pytest.fixture(autouse=True)
def _own_cache(cache_dir):
    pass


def lines(tmp_path, content, name="a.jsonl", **settings):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return JsonlConfig(paths=(path,), **settings).open()


def texts(source):
    return ["".join(document.pieces) for document in documents(source)]


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n \n"])
def test_a_document_is_a_line(tmp_path, end):
    source = lines(tmp_path, '{"text": "one"}\n\n{"text": "two\\nlines ä", "n": 1}' + end)
    assert len(source) == 2
    assert texts(source) == ["one", "two\nlines ä"]
    assert source.document(1).key == "a.jsonl, byte 17"


def test_a_line_may_hold_marks_that_other_readers_break_at(tmp_path):
    odd = "a\u2028b\x0bc\x85d\re"
    assert texts(lines(tmp_path, json.dumps({"text": odd}, ensure_ascii=False))) == [odd]


def test_the_field_has_any_name(tmp_path):
    source = lines(tmp_path, '{"content": "one"}\n{"text": "two"}', field="content")
    assert problems(source).counts == {"it has no text 'content'": 1}


def test_a_bad_line_costs_itself_and_says_its_cause(tmp_path):
    bad = [b"[", b"[" * 99_999, b'"text"', b"{}", b'{"text": 7}', b'{"text": " "}', b'{"text": "\xff"}']
    source = lines(tmp_path, b"\n".join([b'{"text": "good"}', *bad, b'{"text": "good"}']))
    found = problems(source)
    assert found.counts == {
        "its line is not JSON": 2,
        "it has no text 'text'": 2,
        "its line is no JSON object": 1,
        "its text is empty": 1,
        "its line is not UTF-8": 1,
    }
    assert found.first["its line is not UTF-8"] == (
        f"record 7: a.jsonl, byte {17 + sum(len(one) + 1 for one in bad[:6])}",
    )
    assert texts(source) == ["good", "good"]
    with pytest.raises(BadRecordError, match="no pictures"):
        source.picture(PictureRef(place="0"))


def test_compressed_lines_are_refused(tmp_path):
    with pytest.raises(InputError, match="is compressed") as caught:
        lines(tmp_path, gzip.compress(b'{"text": "one"}'))
    assert "gunzip" in caught.value.hint


def test_lines_are_indexed_once_and_again_when_the_file_changes(tmp_path):
    source = lines(tmp_path, '{"text": "one"}\n{"text": "two"}')
    times = (tmp_path / "a.jsonl").stat()
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "one"}\n{"text": "owt"}')
    os.utime(tmp_path / "a.jsonl", ns=(times.st_atime_ns, times.st_mtime_ns))
    trusting = JsonlConfig(paths=(tmp_path / "a.jsonl",)).open()
    assert trusting.fingerprint == source.fingerprint
    os.utime(tmp_path / "a.jsonl")
    assert JsonlConfig(paths=(tmp_path / "a.jsonl",)).open().fingerprint != source.fingerprint


def test_files_of_a_folder_follow_one_another(tmp_path):
    lines(tmp_path, '{"text": "two"}', "b.jsonl")
    lines(tmp_path, "", "aa.jsonl")
    lines(tmp_path, '{"text": "one"}', "a.jsonl")
    source = JsonlConfig(paths=(tmp_path,)).open()
    assert texts(source) == ["one", "two"]
    with pytest.raises(IndexError):
        source.document(2)
    with pytest.raises(IndexError):
        source.document(-1)


# --- parquet ------------------------------------------------------------------------------------------------------


def parquet(path, *groups, kind=None):
    kind = kind or pa.string()
    schema = pa.schema([("n", pa.int64()), ("text", kind)])
    with pq.ParquetWriter(path, schema) as writer:
        for group in groups:
            writer.write_table(pa.table({"n": range(len(group)), "text": pa.array(group, kind)}, schema))
    return path


def test_half_a_character_is_replaced(tmp_path):
    assert texts(lines(tmp_path, '{"text": "a\\ud83d"}')) == ["a\ufffd"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_a_document_is_a_row_over_groups_and_files(tmp_path, kind):
    parquet(tmp_path / "b.parquet", ["e"], kind=kind)
    parquet(tmp_path / "a.parquet", ["a", "b"], [], ["c", None, " "], ["d"], kind=kind)
    source = ParquetConfig(paths=(tmp_path,)).open()
    assert len(source) == 7
    assert texts(source) == list("abcde")
    assert source.document(2).key == "a.parquet, row group 2, row 0"
    assert problems(source).counts == {"it has no text 'text'": 1, "its text is empty": 1}


def test_threads_read_rows_as_one_does(tmp_path):
    groups = [[f"group {group}, row {row}" for row in range(50)] for group in range(20)]
    source = ParquetConfig(paths=(parquet(tmp_path / "a.parquet", *groups),)).open()
    order = [index * 37 % 1000 for index in range(1000)]
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda index: source.document(index).pieces[0], order))
    assert read == [groups[index // 50][index % 50] for index in order]


def test_what_is_no_parquet_or_has_no_such_column_is_refused(tmp_path):
    path = parquet(tmp_path / "a.parquet", ["a"])
    with pytest.raises(ConfigError, match="no fitting column 'content'") as caught:
        ParquetConfig(paths=(path,), field="content").open()
    assert caught.value.actual == "n (int64), text (string)"
    assert "text" in caught.value.expected
    with pytest.raises(ConfigError, match="no fitting column 'n'"):
        ParquetConfig(paths=(path,), field="n").open()
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="cannot be read as parquet"):
        ParquetConfig(paths=(path,)).open()


def test_a_damaged_row_group_is_named(tmp_path):
    path = parquet(tmp_path / "a.parquet", ["a"], ["b" * 99])
    with path.open("r+b") as file:
        file.seek(pq.ParquetFile(path).metadata.row_group(1).column(1).dictionary_page_offset)
        file.write(b"\xff" * 40)
    source = ParquetConfig(paths=(path,)).open()
    assert source.document(0).pieces == ("a",)
    with pytest.raises(InputError, match="row group 1 is damaged"):
        source.document(1)


def test_the_fingerprint_of_parquet_is_that_of_its_content(tmp_path):
    one = ParquetConfig(paths=(parquet(tmp_path / "a.parquet", ["a", "b"]),)).open()
    same = ParquetConfig(paths=(parquet(tmp_path / "c.parquet", ["a", "b"]),)).open()
    other = ParquetConfig(paths=(parquet(tmp_path / "d.parquet", ["a", "c"]),)).open()
    assert one.fingerprint == same.fingerprint != other.fingerprint
    empty = ParquetConfig(paths=(parquet(tmp_path / "e.parquet"),)).open()
    assert len(empty) == 0
    with pytest.raises(IndexError):
        empty.document(0)
