"""A manifest says what ran, and notices when it, or a file it names, was changed."""

import json
import subprocess
from dataclasses import dataclass
from datetime import datetime

import numpy
import pytest

from lensmith.core.config import content_hash, from_dict, load, save
from lensmith.core.errors import ConfigError, InputError
from lensmith.core.files import sha256_of_bytes
from lensmith.core.manifest import (
    FileRecord,
    Manifest,
    end_manifest,
    git_revision,
    record_files,
    start_manifest,
)


@dataclass(frozen=True, kw_only=True)
class Run:
    lr: float = 1e-3
    sizes: tuple[int, ...] = (1, 2)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "b.bin").write_bytes(b"bb")
    (tmp_path / "data" / "deep" / "a.bin").write_bytes(b"")
    (tmp_path / "alone.txt").write_text("x")
    return tmp_path


def test_a_run_from_start_to_end(folder):
    inputs = record_files([folder / "data"], root=folder)
    started = start_manifest("train", Run(), inputs=inputs, accelerators=["a card"])
    path = folder / "run" / "manifest.json"
    save(started, path)
    assert load(Manifest, path) == started
    assert started.ended_at is None
    ended = end_manifest(started, record_files([folder / "alone.txt"], root=folder))
    save(ended, path)
    read = load(Manifest, path)
    assert read == ended
    assert from_dict(Run, read.config) == Run()
    assert read.config_sha256 == content_hash(Run())
    assert read.packages["numpy"] == numpy.__version__
    assert read.machine.cores >= 1
    assert read.machine.accelerators == ("a card",)
    assert datetime.fromisoformat(read.ended_at) >= datetime.fromisoformat(read.started_at)
    assert [entry.name for entry in path.parent.iterdir()] == ["manifest.json"]


def test_files_are_recorded_by_relative_path_size_and_hash(folder):
    assert record_files([folder / "data", folder / "alone.txt"], root=folder) == (
        FileRecord(path="alone.txt", num_bytes=1, sha256=sha256_of_bytes(b"x")),
        FileRecord(path="data/b.bin", num_bytes=2, sha256=sha256_of_bytes(b"bb")),
        FileRecord(path="data/deep/a.bin", num_bytes=0, sha256=sha256_of_bytes(b"")),
    )


def test_a_missing_file_or_one_outside_the_root_is_an_input_error(folder):
    with pytest.raises(InputError, match="no such file"):
        record_files([folder / "nothing"], root=folder)
    with pytest.raises(InputError, match="outside the folder"):
        record_files([folder / "alone.txt"], root=folder / "data")


def test_an_altered_or_incomplete_manifest_is_refused(folder):
    path = folder / "manifest.json"
    save(start_manifest("train", Run()), path)
    values = json.loads(path.read_text())

    def rewritten(**changes):
        path.write_text(json.dumps({**values, **changes}))
        return path

    assert load(Manifest, rewritten()).name == "train"
    with pytest.raises(ConfigError, match="changed since its hash"):
        load(Manifest, rewritten(config={**values["config"], "lr": 1.0}))
    with pytest.raises(ConfigError, match="outputz: unknown key"):
        load(Manifest, rewritten(outputz=[]))
    with pytest.raises(ConfigError, match=r"inputs\[0\].sha256: required"):
        load(Manifest, rewritten(inputs=[{"path": "a", "num_bytes": 1}]))
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ConfigError, match="not valid JSON"):
        load(Manifest, path)


def test_the_revision_of_a_checkout_and_its_changes(tmp_path):
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        return subprocess.run(
            ["git", *who, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.strip()

    (tmp_path / "code.py").write_text("1")
    (tmp_path / "ignored").mkdir()
    (tmp_path / "ignored" / "package.py").write_text("1")
    assert git_revision(tmp_path) is None
    git("init", "--quiet")
    (tmp_path / ".gitignore").write_text("ignored/")
    assert git_revision(tmp_path) is None
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    assert git_revision(tmp_path) == git("rev-parse", "HEAD")
    (tmp_path / "code.py").write_text("2")
    assert git_revision(tmp_path) == git("rev-parse", "HEAD") + "+changes"
    assert git_revision(tmp_path / "ignored") is None
