"""Pictures that people give by mistake or in malice, made by this script: what no screenshot of a page is, pages of odd
sizes, files of odd kinds, and files that are none."""

import functools
import io
import struct
import tarfile
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from lensmith.core.files import default_cache_dir
from lensmith.data.packages import PackageName, fetch_package
from tests.support.screenshots import screenshot

PHOTOGRAPH = ("npm:startbootstrap-creative@7.0.7", "package/dist/assets/img/portfolio/fullsize/1.jpg")

_PAGE = """<body style="margin:0;font:16px/1.5 Arial;background:{ground};color:{ink}">
<div style="background:{band};color:#fff;padding:16px 24px"><b>Harbour</b></div>
<div style="padding:24px"><h1 style="margin:0;font-size:28px">Boats for a week</h1>
<p>The harbour was quiet when the first boats came in, and the people went down to the water.</p>
<small>Prices from 2024, without fuel</small></div></body>"""
_SCRIPTS = """<body style="margin:0;font:20px/1.6 Arial,sans-serif;padding:30px">
<p>The harbour was quiet that morning</p><p>Гавань была тихой в то утро</p>
<p dir="rtl">كان الميناء هادئا في ذلك الصباح</p><p>那天早上港口很安静</p></body>"""


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """A file of that kind."""
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def png_of(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG by hand: what its header says need not be so."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = b""
    for name, body in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        chunks += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return b"\x89PNG\r\n\x1a\n" + chunks


@functools.cache
def shot(html: str, width_px: int) -> Image.Image:
    """A screenshot."""
    return Image.fromarray(screenshot(html, width_px=width_px)[0])


@functools.cache
def page() -> Image.Image:
    """A page as it should be."""
    return shot(_PAGE.format(ground="#fff", ink="#17202b", band="#123456"), 600)


@functools.cache
def photograph() -> Image.Image:
    """Taken with a camera, from a package. Raises InputError where that cannot be fetched."""
    name, member = PHOTOGRAPH
    package = fetch_package(PackageName.parse(name), default_cache_dir())
    with tarfile.open(package.path) as archive:
        file = archive.extractfile(member)
        assert file is not None
        return Image.open(io.BytesIO(file.read())).convert("RGB")


def made_photograph() -> Image.Image:
    """What a camera may see: shades, noise, no line and no letter."""
    rng, (height, width) = np.random.default_rng(0), (600, 800)
    across, down = np.meshgrid(np.linspace(0, 3, width), np.linspace(0, 2, height))
    shades = [128 + 90 * np.sin(across + turn) * np.cos(down - turn) for turn in (0.0, 1.0, 2.0)]
    return Image.fromarray(
        np.clip(np.stack(shades, 2) + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)
    )


def framed(times: int) -> Image.Image:
    """A picture of a page, shown on a page, shown on a page."""
    image = page()
    for _ in range(times):
        outer = Image.new("RGB", (image.width + 160, image.height + 140), "#e8ecf0")
        outer.paste(image, (80, 90))
        outer.paste(page().crop((0, 0, 200, 50)), (20, 10))
        image = outer
    return image


def _plain(colour: str, size: tuple[int, int]) -> Callable[[], bytes]:
    return lambda: encoded(Image.new("RGB", size, colour), "PNG")


def _noise() -> bytes:
    return encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 1280, 3), dtype=np.uint8)), "PNG")


def _checks() -> bytes:
    odd = np.indices((600, 800)).sum(0) % 2
    return encoded(Image.fromarray((odd * 255).astype(np.uint8)), "PNG")


def _wide() -> bytes:
    strip = Image.new("RGB", (8000, 200), "white")
    for left in range(0, 8000 - 600, 1300):
        strip.paste(page().crop((0, 0, 600, 200)), (left, 0))
    return encoded(strip, "PNG")


def _high() -> bytes:
    paragraphs = "".join(
        f"<h2>Part {number}</h2><p>The harbour was quiet when boat {number} came in, and the people who had waited for "
        "it went down to the water with their baskets and their questions.</p><div style='height:260px;background:"
        f"#{(number * 77_777) % 0xFFFFFF:06x}'></div>"
        for number in range(70)
    )
    html = f"<body style='margin:0;font:16px/1.5 Arial;padding:20px;height:19960px;overflow:hidden'>{paragraphs}</body>"
    return encoded(shot(html, 1280).crop((0, 0, 1280, 20_000)), "PNG")


def _gradient() -> bytes:
    ramp = np.tile(np.linspace(0, 255, 900).astype(np.uint8), (700, 1))
    return encoded(Image.fromarray(np.stack([ramp, np.full_like(ramp, 90), ramp[:, ::-1]], 2)), "PNG")


def _tiny_letters() -> bytes:
    words = "harbour boats morning water baskets questions " * 700
    return encoded(shot(f"<body style='font:6px Arial;margin:4px'>{words}</body>", 1000), "PNG")


def _giant_letter() -> bytes:
    return encoded(shot("<body style='font:bold 900px Arial;margin:0'>g</body>", 1000), "PNG")


def _animated() -> bytes:
    later = Image.new("RGB", page().size, "red")
    return encoded(page(), "GIF", save_all=True, append_images=[later] * 30, duration=20)


def _exif_rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    return encoded(page().transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, exif=exif)


def _transparent() -> bytes:
    clear = page().convert("RGBA")
    clear.putalpha(0)
    return encoded(clear, "PNG")


def _half_transparent() -> bytes:
    clear = page().convert("RGBA")
    clear.putalpha(Image.fromarray(np.where(np.asarray(page().convert("L")) > 250, 0, 255).astype(np.uint8)))
    return encoded(clear, "PNG")


def _sixteen_bit_colour() -> bytes:
    width, height = page().size
    rows = (np.asarray(page()).astype(">u2") * 257).reshape(height, -1)
    return png_of(width, height, 16, 2, b"".join(b"\0" + row.tobytes() for row in rows))


def _bad_checksum() -> bytes:
    data = bytearray(encoded(page(), "PNG"))
    data[data.index(b"IDAT") + 40] ^= 0xFF
    return bytes(data)


PAGES: dict[str, Callable[[], bytes]] = {
    "photograph.jpg": lambda: encoded(photograph(), "JPEG"),
    "made-photograph.jpg": lambda: encoded(made_photograph(), "JPEG"),
    "blank.png": _plain("white", (1280, 2000)),
    "black.png": _plain("black", (800, 600)),
    "one-pixel.png": _plain("red", (1, 1)),
    "line-down.png": _plain("#345", (1, 4000)),
    "line-across.png": _plain("#345", (4000, 1)),
    "noise.png": _noise,
    "checks.png": _checks,
    "gradient.png": _gradient,
    "wide.png": _wide,
    "high.png": _high,
    "scripts.png": lambda: encoded(shot(_SCRIPTS, 700), "PNG"),
    "dark.png": lambda: encoded(shot(_PAGE.format(ground="#0d1117", ink="#c9d1d9", band="#1f6feb"), 900), "PNG"),
    "scale-3.png": lambda: encoded(
        page().crop((0, 0, 390, page().height)).resize((1170, 3 * page().height), Image.Resampling.BICUBIC), "PNG"
    ),
    "page-of-a-page.png": lambda: encoded(framed(2), "PNG"),
    "tiny-letters.png": _tiny_letters,
    "giant-letter.png": _giant_letter,
    "palette.png": lambda: encoded(page().quantize(16), "PNG"),
    "one-bit.png": lambda: encoded(page().convert("1"), "PNG"),
    "sixteen-bit-grey.png": lambda: encoded(
        Image.fromarray(np.asarray(page().convert("L")).astype(np.uint16) * 257), "PNG"
    ),
    "sixteen-bit-colour.png": _sixteen_bit_colour,
    "cmyk.jpg": lambda: encoded(page().convert("CMYK"), "JPEG", quality=95),
    "half-transparent.png": _half_transparent,
    "transparent.png": _transparent,
    "rotated.jpg": _exif_rotated,
    "animated.gif": _animated,
    "lossy.webp": lambda: encoded(page(), "WEBP", quality=40),
    "blurred.jpg": lambda: encoded(page(), "JPEG", quality=5),
    "plain.bmp": lambda: encoded(page(), "BMP"),
    "two-pages.tif": lambda: encoded(page(), "TIFF", save_all=True, append_images=[page()]),
    "and-more.png": lambda: encoded(page(), "PNG") + b"<script>alert(1)</script>" * 1000,
}
"""What becomes a page."""

REFUSED: dict[str, Callable[[], bytes]] = {
    "empty.png": lambda: b"",
    "html.png": lambda: b"<!doctype html><title>A page</title><p>Not a picture of one",
    "drawing.png": lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="90" height="90"><rect width="9"/></svg>',
    "random.jpg": lambda: np.random.default_rng(1).bytes(4000),
    "cut-short.png": lambda: encoded(page(), "PNG")[: len(encoded(page(), "PNG")) // 2],
    "cut-short.jpg": lambda: encoded(page(), "JPEG")[:600],
    "bad-checksum.png": _bad_checksum,
    "promises-much.png": lambda: png_of(30_000, 30_000, 8, 2, b"\0" * 1000),
    "too-long.png": lambda: png_of(40_000, 2, 8, 0, (b"\0" * 40_001) * 2),
    "floats.tif": lambda: encoded(Image.fromarray(np.ones((40, 40), dtype=np.float32)), "TIFF"),
}
"""What is answered with a reason."""
