"""Files: where bytes come from and go to, whole or not at all, and the hash of what is in them.

What lensmith writes goes through `open_output`, apart from logs that grow line by line and what libraries write into a
new folder; what a person names as an input is read through `open_input`. So links, pipes, devices and the process's own
streams mean the same to every command.
"""

import contextlib
import errno
import hashlib
import logging
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lensmith.core.errors import InputError

StrPath = str | os.PathLike[str]

STANDARD_INPUT, STANDARD_OUTPUT = Path("/dev/stdin"), Path("/dev/stdout")
_TERMINALS = ("/dev/tty", "/dev/pts/", "/dev/console")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full")
"""Besides terminals, the devices that may be written into: nothing of anybody's is behind them."""

_MOST_LINKS = 40
_NO_LOCKS = (errno.EBADF, errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)

_log = logging.getLogger(__name__)


def write_atomic(path: StrPath, data: bytes | str) -> None:
    """Writes `data` (text as UTF-8) by `open_output`, and raises as it does."""
    with open_output(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextlib.contextmanager
def open_output(path: StrPath) -> Iterator[BinaryIO]:
    """Opens `path` for writing, so that a reader, or a crash, sees the old file or the new one, never a part.

    Makes missing parent folders. A file that is replaced hands on its mode and its owner; a link goes on pointing at
    what it points at, and that is replaced. What is no file cannot be replaced: pipes, terminals, /dev/null and the
    process's own streams (/dev/stdout, /dev/stderr, /dev/fd/N) are written into. Other devices and sockets are refused.

    On failure the old file stays and no temporary file is left. Raises InputError for what is refused, and OSError that
    names `path`.
    """
    with naming(path), _opened(Path(path)) as file:
        yield file


@contextlib.contextmanager
def naming(path: StrPath) -> Iterator[None]:
    """An OSError that names no file, as those of writing do, or a temporary one, comes out as one that names `path`."""
    try:
        yield
    except OSError as error:
        if error.filename is not None and not str(error.filename).endswith(".tmp"):
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def open_input(path: StrPath) -> BinaryIO:
    """Opens `path` for reading; the process's own streams as they are, sockets among them. Raises OSError."""
    descriptor = own_descriptor(path)
    return Path(path).open("rb") if descriptor is None else os.fdopen(os.dup(descriptor), "rb")


def own_descriptor(path: StrPath) -> int | None:
    """N where `path` is another name of /dev/fd/N, such as /dev/stdout: a stream that this process was given.

    Such a stream is used as it is. Opened by its name it would begin at its file's start once more, over what is there;
    and a socket cannot be opened.
    """
    folders = {"/dev/fd", "/proc/self/fd", os.path.realpath("/dev/fd")}
    step = os.path.abspath(path)  # noqa: PTH100  # resolve() would follow the last link, which leads out of the folder
    for _ in range(_MOST_LINKS):
        parent, name = os.path.realpath(os.path.dirname(step)), os.path.basename(step)  # noqa: PTH119, PTH120
        if parent in folders:
            return int(name) if name.isdecimal() else None
        try:
            step = os.path.join(parent, os.readlink(os.path.join(parent, name)))  # noqa: PTH115, PTH118
        except OSError:  # no link, or nothing there
            return None
    return None


def is_stream(path: StrPath) -> bool:
    """Whether `path` is written into rather than replaced: a pipe, a device, a stream of this process."""
    place = Path(path)
    return own_descriptor(path) is not None or (place.exists() and not place.is_file() and not place.is_dir())


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    descriptor = own_descriptor(path)
    if descriptor is not None:
        for stream in filter(None, (sys.stdout, sys.stderr)):  # what was printed before stands before
            stream.flush()
        with os.fdopen(os.dup(descriptor), "wb") as file:
            yield file
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    target = Path(os.path.realpath(path))
    try:
        before = target.stat()
    except FileNotFoundError:
        before = None
    if before is None or stat.S_ISREG(before.st_mode):
        with _replacing(target, before) as file:
            yield file
    elif stat.S_ISDIR(before.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    else:
        with os.fdopen(_open_special(path, target, before), "wb") as file:
            yield file


@contextlib.contextmanager
def _replacing(target: Path, before: os.stat_result | None) -> Iterator[BinaryIO]:
    # Beside the target, because a rename is atomic only within one file system. Opened by `open`, not by `tempfile`,
    # whose files nobody else may read.
    temporary = target.with_name(f".{target.name[:200]}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            if before is not None and os.name == "posix":
                with contextlib.suppress(PermissionError):  # only root gives files away
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
                os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode))
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _open_special(path: Path, target: Path, before: os.stat_result) -> int:
    """The descriptor of a pipe, or of a device that may be written into. Raises InputError for any other."""
    is_pipe, is_character = stat.S_ISFIFO(before.st_mode), stat.S_ISCHR(before.st_mode)
    # Not told apart by opening it, which some devices take for an order.
    is_terminal = str(target).startswith(_TERMINALS)
    if is_pipe or (is_character and (is_terminal or _is_harmless(before))):
        return os.open(target, os.O_WRONLY | os.O_NOCTTY)
    kind = "a block device" if stat.S_ISBLK(before.st_mode) else "a device" if is_character else "a socket"
    raise InputError(
        f"{path} is not written to",
        expected="a file, a pipe, a terminal, /dev/null, or a stream of this process such as /dev/stdout",
        actual=kind,
    )


def _is_harmless(device: os.stat_result) -> bool:
    return any(Path(name).stat().st_rdev == device.st_rdev for name in _DEVICES if Path(name).exists())


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Holds a lock on a folder. Raises as `lock` does."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def lock(descriptor: int, path: Path) -> None:
    """Locks an open file or folder until it is closed; the system drops the lock even when the process is killed.

    Raises InputError, which names `path`, where another process holds it. Where there are no such locks, a warning.
    """
    try:
        import fcntl  # noqa: PLC0415  # not on every system

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(f"{path}: another run is writing here", hint="wait for it, or give another place") from error
    except (ImportError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        _log.warning("%s cannot be locked (%s): make sure that only one run writes there", path, error)


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of a file (`lock`). False also where there is no such file, or no such locks."""
    try:
        import fcntl  # noqa: PLC0415  # not on every system

        with path.open("rb") as file:
            # Shared, so that two that ask do not see each other.
            fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return False
    return False


def sha256_of_bytes(data: bytes) -> str:
    """SHA-256 as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: StrPath) -> str:
    """SHA-256 of a file's content as 64 hex digits, read in pieces. Raises OSError as `open` does."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def default_cache_dir() -> Path:
    """Where lensmith keeps what it has fetched or converted: `$XDG_CACHE_HOME/lensmith`, or `~/.cache/lensmith`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "lensmith"
