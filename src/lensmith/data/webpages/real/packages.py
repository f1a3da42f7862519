"""Packages as their registries hold them: named, fetched by the ordinary client, kept in the cache, checked by hash.

`npm pack` and `apt-get download` run no script of a package, and nothing is installed.
"""

import enum
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lensmith.core.errors import InputError
from lensmith.core.files import sha256_of_bytes, sha256_of_file, write_atomic

FETCH_LIMIT_S = 180.0
_NPM_SETTINGS = {"npm_config_fetch_retry_mintimeout": "1000", "npm_config_fetch_retry_maxtimeout": "5000"}
"""npm waits 10 s and then a minute, before it says that there is no network."""
_PATTERNS = {
    "npm": re.compile(r"((?:@[a-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*)(?:@([0-9A-Za-z][\w.+-]*))?"),
    "deb": re.compile(r"([a-z0-9][a-z0-9+.-]+)(?:=([0-9][\w.+:~-]*))?"),
}


class Registry(enum.Enum):
    """Where a package is published."""

    NPM = "npm"
    DEB = "deb"


@dataclass(frozen=True, kw_only=True)
class PackageName:
    """A published package; `version` None is whichever its registry gives."""

    registry: Registry
    name: str
    version: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """`npm:NAME[@VERSION]` or `deb:NAME[=VERSION]`. Raises InputError."""
        registry, _, rest = text.partition(":")
        pattern = _PATTERNS.get(registry)
        said = pattern and pattern.fullmatch(rest)
        if not said:
            raise InputError(
                "this names no package",
                expected="npm:NAME, npm:NAME@VERSION, deb:NAME or deb:NAME=VERSION",
                actual=text,
            )
        return cls(registry=Registry(registry), name=said[1], version=said[2])

    def __str__(self) -> str:
        joint = "@" if self.registry is Registry.NPM else "="
        return (
            f"{self.registry.value}:{self.name}{joint}{self.version}"
            if self.version
            else f"{self.registry.value}:{self.name}"
        )

    @property
    def slug(self) -> str:
        """The name as a part of file names."""
        return re.sub(r"[^A-Za-z0-9.+-]+", "-", self.name.lstrip("@"))


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package in the cache: its file there, which version it is, and the hash of the file."""

    name: PackageName
    path: Path
    sha256: str


def fetch_package(
    name: PackageName, cache_dir: Path, *, sha256: str | None = None, limit_s: float = FETCH_LIMIT_S
) -> Package:
    """The package, from the cache where its version is told, or else from its registry.

    Raises InputError with what to do where its client or the network is missing, where it gives no answer within
    `limit_s`, or where its file has another hash than `sha256`; what has another hash is not kept.
    """
    path = cache_dir / name.registry.value / f"{name.slug}-{name.version}.{_SUFFIXES[name.registry]}"
    if name.version and path.is_file():
        found = sha256_of_file(path)
        if sha256 in (None, found):
            return Package(name=name, path=path, sha256=found)
    data, version = _FETCHERS[name.registry](name, limit_s)
    actual = sha256_of_bytes(data)
    if sha256 not in (None, actual):
        raise InputError(
            f"{name} is not the package that is expected",
            expected=f"sha256 {sha256}",
            actual=f"sha256 {actual}",
            hint="look at which registry the client uses: npm config get registry, or /etc/apt/sources.list",
        )
    exact = PackageName(registry=name.registry, name=name.name, version=version)
    path = cache_dir / name.registry.value / f"{name.slug}-{version}.{_SUFFIXES[name.registry]}"
    write_atomic(path, data)
    return Package(name=exact, path=path, sha256=actual)


def _from_npm(name: PackageName, limit_s: float) -> tuple[bytes, str]:
    """The tarball, byte for byte as the registry has it, and its version."""
    wanted = f"{name.name}@{name.version}" if name.version else name.name
    command = ["npm", "pack", wanted, "--ignore-scripts", "--no-audit", "--no-fund"]
    install = "install Node.js (Debian: apt install npm)"
    file, data = _fetched(name, command, "*.tgz", limit_s, install=install, environment=_NPM_SETTINGS)
    return data, file.removeprefix(f"{name.slug}-").removesuffix(".tgz")


def _from_debian(name: PackageName, limit_s: float) -> tuple[bytes, str]:
    """The package's file, and its version."""
    wanted = f"{name.name}={name.version}" if name.version else name.name
    command = ["apt-get", "download", "--quiet", wanted]
    install = "apt-get is part of Debian and of what is made from it"
    file, data = _fetched(name, command, "*.deb", limit_s, install=install)
    return data, file.split("_")[1].replace("%3a", ":")


_SUFFIXES = {Registry.NPM: "tgz", Registry.DEB: "deb"}
_FETCHERS = {Registry.NPM: _from_npm, Registry.DEB: _from_debian}


def _fetched(
    name: PackageName,
    command: Sequence[str],
    pattern: str,
    limit_s: float,
    *,
    install: str,
    environment: Mapping[str, str] = {},
) -> tuple[str, bytes]:
    """Name and content of the one file that a client leaves in an empty folder. Raises InputError."""
    problem = f"{name} cannot be fetched"
    program = client(command[0], problem, install=install)
    with tempfile.TemporaryDirectory(prefix="lensmith-package-") as folder:
        try:
            done = subprocess.run(  # noqa: S603 - a known program; a package's name and version are what they look like
                [program, *command[1:]],
                cwd=folder,
                env=os.environ | environment,
                capture_output=True,
                timeout=limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise InputError(f"{problem}: {command[0]} gave no answer within {limit_s:g} s") from error
        files = list(Path(folder).glob(pattern))
        if done.returncode != 0 or len(files) != 1:
            raise InputError(
                f"{problem}: {' '.join(command[:2])} failed",
                actual=_reason(done.stderr.decode("utf-8", "replace")),
                hint=f"look whether the network is there, then type: {' '.join(command)}",
            )
        return files[0].name, files[0].read_bytes()


def client(program: str, problem: str, *, install: str) -> str:
    """Where a registry's client is. Raises InputError, which begins with `problem`, where it is missing."""
    place = shutil.which(program)
    if place is None:
        raise InputError(f"{problem}: {program} is not installed", expected=f"{program} on the PATH", hint=install)
    return place


def _reason(said: str) -> str:
    """A client's first lines of error, without its decoration."""
    lines = [re.sub(r"^(?:npm (?:error|ERR!) |E: )", "", line) for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if not line.startswith(("W:", "N:", "npm warn"))]
    return "; ".join((errors or lines)[:2]) or "it said nothing"
