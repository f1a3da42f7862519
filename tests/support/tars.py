"""Tar archives of a few files, whole or broken."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path


def make_tar(path: Path, files: Iterable[tuple[str, str | bytes]], mode: str = "w") -> Path:
    """Writes files by name, in that order; the same name may stand twice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, content in files:
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path
