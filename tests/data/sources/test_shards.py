"""Shards that we write: the same content gives the same bytes."""

import random
import tarfile

import pytest

from lensmith.core.errors import InputError
from lensmith.core.files import sha256_of_file
from lensmith.data.documents import documents
from lensmith.data.sources.members import write_tar
from lensmith.data.sources.tars import CaptionRecord, TarConfig, write_shard
from tests.support.packages import png

RECORDS = [
    CaptionRecord(key=f"{group}/{number}", caption=f"ä {number}", picture=png(number, 2), suffix="png", group=group)
    for group in ("b", "a")
    for number in range(1, 9)
]


def test_what_is_written_is_read(tmp_path, cache_dir):
    path = tmp_path / "a.tar"
    assert write_shard(RECORDS, path) == 16
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        assert [member.name for member in members[:3]] == ["a/1.json", "a/1.png", "a/1.txt"]
        assert archive.extractfile(members[0]).read() == b'{"group": "a"}'
        assert {(member.mtime, member.uid, member.uname, member.mode) for member in members} == {(0, 0, "", 0o644)}
    source = TarConfig(paths=(path,)).open()
    read = [(document.key, document.pieces[1], source.picture(document.pictures[0])) for document in documents(source)]
    assert read == sorted((record.key, record.caption, record.picture) for record in RECORDS)


def test_the_same_content_gives_the_same_bytes(tmp_path):
    hashes = set()
    for seed in range(4):
        write_shard(random.Random(seed).sample(RECORDS, len(RECORDS)), tmp_path / f"{seed}.tar")
        hashes.add(sha256_of_file(tmp_path / f"{seed}.tar"))
    assert len(hashes) == 1


@pytest.mark.parametrize("key", ["a.b", "a/c.d", "a/1"])
def test_keys_that_a_reader_would_cut_or_confuse_are_refused(tmp_path, key):
    record = CaptionRecord(key=key, caption="x", picture=b"", suffix="png", group="")
    with pytest.raises(InputError, match="keys") as caught:
        write_shard([*RECORDS, record], tmp_path / "a.tar")
    assert caught.value.actual == key
    assert not list(tmp_path.iterdir())


def test_a_folder_with_a_dot_is_no_matter(tmp_path, cache_dir):
    record = CaptionRecord(key="v1.2/a", caption="x", picture=png(2, 2), suffix="png", group="g")
    write_shard([record], tmp_path / "a.tar")
    assert TarConfig(paths=(tmp_path / "a.tar",)).open().document(0).key == "v1.2/a"


def test_a_crash_leaves_the_old_shard(tmp_path):
    path = tmp_path / "a.tar"
    write_tar([("a", b"1")], path)
    before = path.read_bytes()

    def broken():
        yield "a", b"2"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_tar(broken(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
