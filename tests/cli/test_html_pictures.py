"""`lensmith html` and the pictures that people give it: the right page, or exit 2 with a reason; never a traceback.

A bad picture is refused by the command in a process of its own; what an odd one becomes needs no process for each.
"""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lensmith.data.webpages.grammar.pages import generate_page
from lensmith.data.webpages.grammar.stylesheet import stand_alone
from lensmith.data.webpages.markup.repair import is_well_formed
from lensmith.render import Capture, RenderConfig, Renderer
from lensmith.workflows.html.convert import convert_file
from lensmith.workflows.html.local import LocalWriter

PAGE = 114  # a short one


@pytest.fixture(scope="module")
def screenshot() -> Image.Image:
    with Renderer(RenderConfig(viewport_width_px=384, viewport_height_px=64)) as renderer:
        page = renderer.render(stand_alone(generate_page(1_000_003, PAGE).html), Capture.PICTURE)
    return Image.open(io.BytesIO(page.png)).convert("RGB")


@pytest.fixture(scope="module")
def writer() -> LocalWriter:
    return LocalWriter.load()


def run_html(picture: Path, out: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "lensmith.cli", "html", str(picture), "-o", str(out)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def bomb() -> bytes:
    """A PNG whose header promises 30,000 x 30,000 pixels."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunks = b""
    for name, body in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")):
        chunks += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return b"\x89PNG\r\n\x1a\n" + chunks


def bad_pictures(screenshot: Image.Image) -> dict[str, tuple[bytes, str]]:
    png = encoded(screenshot, "PNG")
    return {
        "empty.png": (b"", "empty"),
        "text.png": (b"just some words, not a picture", "picture"),
        "cut.png": (png[: len(png) // 2], "truncated"),
        "bomb.png": (bomb(), "too large"),
    }


@pytest.mark.parametrize("name", ["empty.png", "text.png", "cut.png", "bomb.png"])
def test_a_bad_picture_is_refused_with_a_reason(name: str, screenshot: Image.Image, tmp_path: Path) -> None:
    data, reason = bad_pictures(screenshot)[name]
    (tmp_path / name).write_bytes(data)
    done = run_html(tmp_path / name, tmp_path / "out.html")
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert reason in done.stderr.lower().replace(",", "")
    assert name in done.stderr
    assert not (tmp_path / "out.html").exists()


def test_a_missing_picture_is_refused(tmp_path: Path) -> None:
    done = run_html(tmp_path / "none.png", tmp_path / "out.html")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "none.png" in done.stderr


def odd_picture(kind: str, screenshot: Image.Image) -> bytes:
    if kind == "cmyk.jpg":
        return encoded(screenshot.convert("CMYK"), "JPEG", quality=95)
    if kind == "sixteen-bit.png":
        return encoded(Image.fromarray(np.asarray(screenshot.convert("L")).astype(np.uint16) * 257), "PNG")
    if kind == "animated.gif":
        later = Image.new("RGB", screenshot.size, "red")
        return encoded(screenshot, "GIF", save_all=True, append_images=[later], duration=100)
    if kind == "alpha.png":
        cut_out = screenshot.convert("RGBA")
        cut_out.putalpha(Image.fromarray(np.where(np.asarray(screenshot.convert("L")) > 250, 0, 255).astype(np.uint8)))
        return encoded(cut_out, "PNG")
    assert kind == "rotated.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    return encoded(screenshot.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, exif=exif)


@pytest.mark.parametrize("kind", ["cmyk.jpg", "sixteen-bit.png", "animated.gif", "alpha.png", "rotated.jpg"])
def test_an_odd_picture_becomes_the_same_page(
    kind: str, screenshot: Image.Image, writer: LocalWriter, tmp_path: Path
) -> None:
    (tmp_path / kind).write_bytes(odd_picture(kind, screenshot))
    convert_file(tmp_path / kind, tmp_path / "out.html", writer=writer)
    html = (tmp_path / "out.html").read_text()
    assert is_well_formed(html)
    # The page's footer stands at its end: a picture that was read sideways or in part could not give it.
    assert "Graz" in html
