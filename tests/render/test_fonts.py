"""The font list that a run's manifest keeps."""

import re

from lensmith.render import font_hash, font_list


def test_list_is_sorted_and_not_empty():
    found = font_list()
    assert found
    assert list(found) == sorted(set(found))


def test_hash_is_stable_and_changes_with_the_fonts():
    before = font_hash()
    assert re.fullmatch("[0-9a-f]{64}", before)
    assert font_hash() == font_hash(font_list()) == before
    assert font_hash((*font_list(), "another.ttf: Another, Regular, 1")) != before


def test_without_fontconfig_the_files_are_listed(monkeypatch, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/some.ttf").write_bytes(b"12345")
    (tmp_path / "readme.txt").write_bytes(b"no font")
    monkeypatch.setenv("PATH", "")
    assert font_list(folders=[str(tmp_path)]) == ("some.ttf: 5",)
