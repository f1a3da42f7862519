"""Small helpers for files: whole or not at all, and the hash of what is in them."""

import contextlib
import hashlib
import os
import secrets
from pathlib import Path

_CHUNK_BYTES = 1 << 20


def write_atomic(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Writes `data` (text as UTF-8) so that a reader, or a crash, sees the old file or the new one, never a part.

    Makes missing parent folders. On failure the old file stays and no temporary file is left.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    content = data.encode() if isinstance(data, str) else data
    # Beside the target, because a rename is atomic only within one file system. Opened by `open`, not by `tempfile`,
    # whose files nobody else may read.
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def sha256_of_bytes(data: bytes) -> str:
    """SHA-256 as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content as 64 hex digits, read in pieces. Raises OSError as `open` does."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while piece := file.read(_CHUNK_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def default_cache_dir() -> Path:
    """Where lensmith keeps what it has fetched or converted: `$XDG_CACHE_HOME/lensmith`, or `~/.cache/lensmith`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "lensmith"
