"""Packages as their registries hold them: named, fetched by the ordinary client, kept in the cache, checked by hash.

`npm pack`, `apt-get download` and `pip download` of a wheel run no script of a package, and nothing is installed. An
archive is read in one pass and never unpacked: it cannot write anywhere.
"""

import contextlib
import enum
import os
import posixpath
import re
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from lensmith.core.errors import InputError
from lensmith.core.files import sha256_of_bytes, sha256_of_file, write_atomic

FETCH_LIMIT_S = 180.0
_NPM_SETTINGS = {"npm_config_fetch_retry_mintimeout": "1000", "npm_config_fetch_retry_maxtimeout": "5000"}
"""npm waits 10 s and then a minute, before it says that there is no network."""
MOST_TOTAL_BYTES = 2 << 30
"""Of an archive's files together: what grows without end is given up while it is read."""
_PATTERNS = {
    "npm": re.compile(r"((?:@[a-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*)(?:@([0-9A-Za-z][\w.+-]*))?"),
    "deb": re.compile(r"([a-z0-9][a-z0-9+.-]+)(?:=([0-9][\w.+:~-]*))?"),
    "pypi": re.compile(r"([A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?)(?:==([0-9A-Za-z][\w.+!-]*))?"),
}


class Registry(enum.Enum):
    """Where a package is published."""

    NPM = "npm"
    DEB = "deb"
    PYPI = "pypi"


_JOINTS = {Registry.NPM: "@", Registry.DEB: "=", Registry.PYPI: "=="}
"""What stands between a package's name and its version."""


@dataclass(frozen=True, kw_only=True)
class PackageName:
    """A published package; `version` None is whichever its registry gives."""

    registry: Registry
    name: str
    version: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """`npm:NAME[@VERSION]`, `deb:NAME[=VERSION]` or `pypi:NAME[==VERSION]`. Raises InputError."""
        registry, _, rest = text.partition(":")
        pattern = _PATTERNS.get(registry)
        said = pattern and pattern.fullmatch(rest)
        if not said:
            raise InputError(
                "this names no package",
                expected="npm:NAME, npm:NAME@VERSION, deb:NAME, deb:NAME=VERSION, pypi:NAME or pypi:NAME==VERSION",
                actual=text,
            )
        return cls(registry=Registry(registry), name=said[1], version=said[2])

    def __str__(self) -> str:
        version = f"{_JOINTS[self.registry]}{self.version}" if self.version else ""
        return f"{self.registry.value}:{self.name}{version}"

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


@dataclass(frozen=True, kw_only=True)
class PackageEntry:
    """A file of a package, or a symbolic link to the file or folder at `target`; paths count from the package's top."""

    path: str
    content: bytes = b""
    target: str | None = None


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
            hint="look at which registry is used: npm config get registry, /etc/apt/sources.list, or pip config list",
        )
    exact = PackageName(registry=name.registry, name=name.name, version=version)
    path = cache_dir / name.registry.value / f"{name.slug}-{version}.{_SUFFIXES[name.registry]}"
    write_atomic(path, data)
    return Package(name=exact, path=path, sha256=actual)


def files_in(package: Package, wanted: Callable[[str, int], bool]) -> Iterator[tuple[str, bytes]]:
    """Path and content of the files that `wanted` takes by path and size in bytes, in the archive's order.

    Raises as `entries_in`.
    """
    return ((entry.path, entry.content) for entry in entries_in(package, wanted) if entry.target is None)


def entries_in(package: Package, wanted: Callable[[str, int], bool]) -> Iterator[PackageEntry]:
    """The files that `wanted` takes, and all symbolic links of a Debian package; the others' archives have none.

    Raises InputError for an archive that is damaged, too large, or names a file outside it.
    """
    problem = f"{package.name} cannot be read"
    is_npm = package.name.registry is Registry.NPM
    try:
        if package.name.registry is Registry.PYPI:
            yield from _entries_of_wheel(package.path, problem, wanted)
            return
        with package.path.open("rb") if is_npm else _files_of_debian(package.path, problem) as file:
            # npm's files lie in one folder, which is not part of their paths.
            yield from _entries(file, "r|*" if is_npm else "r|", problem, wanted, top=is_npm)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, RuntimeError) as error:
        # RuntimeError: zipfile's, for what is encrypted or packed in a way that it does not know.
        hint = f"delete {package.path}, so that it is fetched again"
        raise InputError(f"{problem}: its archive is damaged", actual=error, hint=hint) from error


@contextlib.contextmanager
def _files_of_debian(path: Path, problem: str) -> Iterator[IO[bytes]]:
    """The files of a Debian package, as a tar archive."""
    program = client("dpkg-deb", problem, install="install dpkg, which Debian has")
    command = [program, "--fsys-tarfile", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:  # noqa: S603
        assert process.stdout is not None  # a pipe
        try:
            yield process.stdout
        finally:
            process.kill()


def _entries(
    file: IO[bytes], mode: str, problem: str, wanted: Callable[[str, int], bool], *, top: bool
) -> Iterator[PackageEntry]:
    total = 0
    with tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]  # a mode of a stream
        for member in archive:
            path = _inside(member.name, problem)
            path = path.partition("/")[2] if top else path
            total += member.size
            _check_total(total, problem)
            if member.issym() and not top:
                target = posixpath.normpath(posixpath.join("/", posixpath.dirname(path), member.linkname))[1:]
                yield PackageEntry(path=path, target=target)
            elif member.isfile() and wanted(path, member.size):
                content = archive.extractfile(member)
                assert content is not None  # of what is a file
                yield PackageEntry(path=path, content=content.read())


def _entries_of_wheel(path: Path, problem: str, wanted: Callable[[str, int], bool]) -> Iterator[PackageEntry]:
    """The files of a wheel, which is a zip archive."""
    total = 0
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = _inside(member.filename, problem)
            total += member.file_size
            _check_total(total, problem)
            if not member.is_dir() and wanted(name, member.file_size):
                yield PackageEntry(path=name, content=archive.read(member))


def _check_total(total_bytes: int, problem: str) -> None:
    if total_bytes > MOST_TOTAL_BYTES:
        raise InputError(f"{problem}: it holds too much", expected=f"at most {MOST_TOTAL_BYTES:,} bytes")


def _inside(name: str, problem: str) -> str:
    """A member's path. Raises InputError where it leads out of the archive."""
    path = posixpath.normpath(name)
    if path.startswith(("/", "../")) or path == "..":
        raise InputError(f"{problem}: it names a file outside itself", actual=name, hint="do not trust this package")
    return path


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


def _from_pypi(name: PackageName, limit_s: float) -> tuple[bytes, str]:
    """The wheel, and its version. Wheels alone: for the name of a source archive's version, pip would run its setup."""
    wanted = f"{name.name}=={name.version}" if name.version else name.name
    command = ["pip", "download", wanted, "--no-deps", "--only-binary", ":all:", "--no-input", "--quiet"]
    install = "install pip (Debian: apt install python3-pip)"
    file, data = _fetched(name, command, "*.whl", limit_s, install=install)
    return data, file.split("-")[1]


_SUFFIXES = {Registry.NPM: "tgz", Registry.DEB: "deb", Registry.PYPI: "whl"}
_FETCHERS = {Registry.NPM: _from_npm, Registry.DEB: _from_debian, Registry.PYPI: _from_pypi}


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
    lines = [re.sub(r"^(?:npm (?:error|ERR!) |E: |ERROR: )", "", line) for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if not line.startswith(("W:", "N:", "npm warn", "WARNING:"))]
    return "; ".join((errors or lines)[:2]) or "it said nothing"
