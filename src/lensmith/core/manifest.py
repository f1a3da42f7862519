"""What a run was: its configuration, the code and packages, the machine, and the hashes of what went in and came out.

A manifest lies beside a run's outputs, written when the run starts (so that a run that dies is known too) and again
when it ends. `core.config` saves and loads it; read back, it refuses a configuration that was edited after its hash
was taken.
"""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lensmith.core.config import hash_of_values, to_dict
from lensmith.core.errors import ConfigError, InputError
from lensmith.core.files import sha256_of_file

_GIT_LIMIT_S = 10


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """A file that a run read or wrote. `path` is relative to the folder that the caller gave, with forward slashes."""

    path: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where a run took place. `accelerators`: as their library names them; the core cannot see them itself."""

    system: str
    python: str
    processor: str
    cores: int
    memory_bytes: int | None
    accelerators: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One run. Times are UTC in ISO 8601; `ended_at` is None while it runs, and for ever where it died.

    `git_revision`: of the lensmith that ran, with `+changes` where files differed from it; None outside a checkout.
    `packages`: every installed distribution and its version.
    """

    name: str
    arguments: tuple[str, ...]
    config: dict[str, Any]
    config_sha256: str
    packages: dict[str, str]
    git_revision: str | None
    machine: Machine
    started_at: str
    ended_at: str | None = None
    inputs: tuple[FileRecord, ...] = ()
    outputs: tuple[FileRecord, ...] = ()

    def __post_init__(self) -> None:
        actual = hash_of_values(self.config)
        if actual != self.config_sha256:
            raise ConfigError("config: changed since its hash was taken", expected=self.config_sha256, actual=actual)


def start_manifest(
    name: str,
    config: object,
    *,
    inputs: Iterable[FileRecord] = (),
    accelerators: Iterable[str] = (),
) -> Manifest:
    """The manifest of a run that begins now. `config` is a configuration dataclass."""
    values = to_dict(config)
    packages = {dist.name: dist.version for dist in importlib.metadata.distributions() if dist.name}
    return Manifest(
        name=name,
        arguments=tuple(sys.argv),
        config=values,
        config_sha256=hash_of_values(values),
        packages=dict(sorted(packages.items(), key=lambda item: item[0].lower())),
        git_revision=git_revision(Path(__file__).parent),
        machine=Machine(
            system=platform.platform(),
            python=platform.python_version(),
            processor=_processor(),
            cores=os.cpu_count() or 1,
            memory_bytes=_memory_bytes(),
            accelerators=tuple(accelerators),
        ),
        started_at=utc_now(),
        inputs=tuple(inputs),
    )


def end_manifest(manifest: Manifest, outputs: Iterable[FileRecord] = ()) -> Manifest:
    """The same run, ended now, with what it wrote."""
    return replace(manifest, ended_at=utc_now(), outputs=tuple(outputs))


def record_files(paths: Iterable[str | os.PathLike[str]], *, root: str | os.PathLike[str]) -> tuple[FileRecord, ...]:
    """Size and hash of each file, of folders all files below, ordered by path.

    Raises InputError for a path that does not exist or lies outside `root`: an absolute path means nothing elsewhere.
    """
    base = Path(root).resolve()
    files: dict[str, Path] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise InputError("no such file or folder", actual=path)
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                if not file.resolve().is_relative_to(base):
                    raise InputError("the file lies outside the folder", expected=f"below {base}", actual=file)
                files[file.resolve().relative_to(base).as_posix()] = file
    return tuple(
        FileRecord(path=name, num_bytes=file.stat().st_size, sha256=sha256_of_file(file))
        for name, file in sorted(files.items())
    )


def git_revision(folder: str | os.PathLike[str]) -> str | None:
    """The commit that the files in `folder` stand on, with `+changes` where any differs; None without git.

    None also where git knows the surrounding folder but not these files, as for a package in somebody's environment.
    """
    if _git(folder, "ls-files", "--error-unmatch", ".") is None:
        return None
    revision, changes = _git(folder, "rev-parse", "HEAD"), _git(folder, "status", "--porcelain")
    if revision is None:
        return None
    return f"{revision}+changes" if changes else revision


def _git(folder: str | os.PathLike[str], *arguments: str) -> str | None:
    program = shutil.which("git")
    if program is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 - a fixed program with fixed arguments
            [program, *arguments], cwd=folder, capture_output=True, text=True, timeout=_GIT_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def utc_now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
