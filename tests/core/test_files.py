"""A file is written whole or not at all, and hashes are the ones other tools compute."""

import os

import pytest

from lensmith.core.files import sha256_of_bytes, sha256_of_file, write_atomic

# printf 'abc' | sha256sum
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_hash_of_bytes_and_of_a_file_larger_than_one_read(tmp_path):
    assert sha256_of_bytes(b"abc") == ABC
    path = tmp_path / "big"
    path.write_bytes(b"x" * ((1 << 20) + 1))
    assert sha256_of_file(path) == sha256_of_bytes(path.read_bytes())


def test_write_makes_folders_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a" / "b.txt"
    write_atomic(path, "grün")
    write_atomic(path, b"blue")
    assert path.read_bytes() == b"blue"
    assert [entry.name for entry in path.parent.iterdir()] == ["b.txt"]


def test_others_may_read_the_file_as_usual(tmp_path):
    old = os.umask(0o022)
    try:
        write_atomic(tmp_path / "x", "")
    finally:
        os.umask(old)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o644


def test_a_write_that_fails_leaves_no_temporary_file(tmp_path):
    target = tmp_path / "folder"
    target.mkdir()
    with pytest.raises(OSError):
        write_atomic(target, "a folder stands here")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]
