"""Packages as npm's registry has them, made in a cache folder, where they are found instead of fetched."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image


def make_npm_package(
    cache_dir: Path,
    files: Mapping[str, str | bytes],
    *,
    name: str = "themes",
    version: str = "1.0.0",
    members: Sequence[tarfile.TarInfo] = (),
) -> str:
    """Writes a tarball of `files`, and of `members` without content; what the package is called there."""
    described = {"package.json": json.dumps({"name": name, "version": version, "license": "MIT"}), **files}
    path = cache_dir / "npm" / f"{name}-{version}.tgz"
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode="w:gz") as archive:
        for file, content in described.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(f"package/{file}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for member in members:
            archive.addfile(member)
    return f"npm:{name}@{version}"


def png(width_px: int, height_px: int) -> bytes:
    """A picture of that size."""
    stream = io.BytesIO()
    Image.new("RGB", (width_px, height_px), "red").save(stream, "PNG")
    return stream.getvalue()
