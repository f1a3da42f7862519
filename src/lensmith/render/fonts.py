"""Which fonts the browser finds. They decide layout, so a run's manifest keeps their hash."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

FONT_FOLDERS = {
    "darwin": ("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts"),
    "linux": ("/usr/share/fonts", "/usr/local/share/fonts", "~/.fonts", "~/.local/share/fonts"),
}


def font_list(folders: Sequence[str] = FONT_FOLDERS.get(sys.platform, ())) -> tuple[str, ...]:
    """One line a font, sorted: file name, family, style and version; without fontconfig, name and size of each file in
    `folders`."""
    listing = shutil.which("fc-list")
    if listing is None:
        return _font_files([Path(name).expanduser() for name in folders])
    pattern = "%{file|basename}: %{family}, %{style}, %{fontversion}\n"
    done = subprocess.run(  # noqa: S603 - a fixed command, no shell
        [listing, "--format", pattern], capture_output=True, text=True, timeout=60, check=True
    )
    return tuple(sorted(set(done.stdout.splitlines())))


def font_hash(fonts: Sequence[str] | None = None) -> str:
    """SHA-256 of a list of fonts (None: this machine's `font_list()`), in hex: equal on two machines that lay the same
    page out alike."""
    return hashlib.sha256("\n".join(font_list() if fonts is None else fonts).encode()).hexdigest()


def _font_files(folders: Sequence[Path]) -> tuple[str, ...]:
    files = [
        path for folder in folders for path in folder.rglob("*") if path.suffix.lower() in {".ttf", ".otf", ".ttc"}
    ]
    return tuple(sorted({f"{path.name}: {path.stat().st_size}" for path in files}))
