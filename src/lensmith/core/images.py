"""Reads a picture that anyone may have made, as it looks on a white page: 8-bit RGB, upright, at most so large.

Decoders meet hostile input, so the header is checked before a pixel is decoded, only common raster formats are tried
(no EPS, which would start an interpreter), and whatever goes wrong inside a decoder becomes an ImageError.

What is returned, where there is a choice: the first frame of an animation; transparent parts over white, as a browser
shows them; rotated as EXIF says; the upper 8 of 16 bits; CMYK by the plain formula, without colour profiles.
"""

import io
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from lensmith.core.errors import ImageError
from lensmith.core.files import open_input

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")

_SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N")
_WHITE = (255, 255, 255, 255)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By EXIF's orientation; 1 is upright."""


@dataclass(frozen=True, kw_only=True)
class ImageLimits:
    """The largest picture that is read. The pixel limit bounds memory: decoding takes up to 12 bytes a pixel."""

    max_bytes: int = 128 << 20
    max_pixels: int = 1 << 26
    max_side_px: int = 1 << 15


DEFAULT_LIMITS = ImageLimits()


def open_picture(source: str | os.PathLike[str] | bytes, limits: ImageLimits = DEFAULT_LIMITS) -> Image.Image:
    """The picture in a file or in encoded bytes, as a decoded RGB image without metadata.

    Raises ImageError where there is no file, no picture in it, a damaged one, or one beyond `limits`.
    """
    return decode_picture(source, lambda image: _to_rgb(upright(image)), limits)


def encoded_picture(path: str | os.PathLike[str], limits: ImageLimits = DEFAULT_LIMITS) -> bytes:
    """The bytes in a file that `open_picture` can read. They are read once: the file may be a pipe.

    Raises ImageError as `open_picture` does.
    """
    data = _read(path, str(path), limits)
    decode_picture(data, lambda image: _to_rgb(upright(image)), limits, name=str(path))
    return data


def decode_picture(
    source: str | os.PathLike[str] | bytes,
    to_rgb: Callable[[Image.Image], Image.Image],
    limits: ImageLimits = DEFAULT_LIMITS,
    *,
    name: str | None = None,
) -> Image.Image:
    """As `open_picture`, where `to_rgb` decides how what was decoded looks: its mode, transparency and rotation.

    `name` is what errors call the picture; the file's by default.
    """
    name = name or ("the picture" if isinstance(source, bytes) else str(source))
    data = _read(source, name, limits)
    with _open(data, name) as image:
        _check_size(image, name, limits)
        try:
            image.load()
            rgb = to_rgb(image)
        except ImageError as error:
            problem = f"{name}: {error.problem}"
            raise ImageError(problem, expected=error.expected, actual=error.actual, hint=error.hint) from error
        except Exception as error:  # decoders raise SyntaxError, struct.error, zlib.error and more
            raise ImageError(f"{name} is damaged or cut short", actual=_describe(error)) from error
    rgb.info = {}
    return rgb


def orientation(image: Image.Image) -> int:
    """What EXIF says of which side is up, from 1 (as it is stored) to 8. Metadata that cannot be read says nothing."""
    image.load()  # which turns a TIFF, and its tag with it
    try:
        told = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001  # as decoders do; the pixels are good all the same
        return 1
    return int(told) if told in _TURNS else 1


def upright(image: Image.Image) -> Image.Image:
    """The picture turned as EXIF says; its metadata are left as they were.

    Pillow's own way writes the metadata anew, which fails where a camera or an editor wrote a tag with a wrong type.
    """
    turn = _TURNS.get(orientation(image))
    return image if turn is None else image.transpose(turn)


def _read(source: str | os.PathLike[str] | bytes, name: str, limits: ImageLimits) -> bytes:
    if isinstance(source, bytes):
        data = source
    else:
        try:
            with open_input(source) as file:
                data = file.read(limits.max_bytes + 1)
        except (OSError, ValueError) as error:
            raise ImageError(f"cannot read {name}", actual=_describe(error)) from error
    if not data:
        raise ImageError(f"{name} is empty", expected="a picture", actual="0 bytes")
    if len(data) > limits.max_bytes:
        raise ImageError(f"{name} is too large", expected=f"at most {limits.max_bytes:,} bytes", actual="more")
    return data


def _open(data: bytes, name: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{name} is not a picture that can be read",
            expected=", ".join(FORMATS),
            actual=f"content that starts with {data[:24]!r}",
            hint="the content of the file decides, not its name",
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name} is too large", actual=_describe(error), hint="scale the picture down") from error
    except Exception as error:  # as above: a damaged header can raise anything
        raise ImageError(f"{name} has a damaged header", actual=_describe(error)) from error


def _check_size(image: Image.Image, name: str, limits: ImageLimits) -> None:
    width_px, height_px = image.size
    if width_px < 1 or height_px < 1:
        raise ImageError(f"{name} has no pixels", actual=f"{width_px} x {height_px}")
    if width_px * height_px > limits.max_pixels or max(width_px, height_px) > limits.max_side_px:
        raise ImageError(
            f"{name} is too large",
            expected=f"at most {limits.max_pixels:,} pixels, and {limits.max_side_px:,} on each side",
            actual=f"{width_px} x {height_px} = {width_px * height_px:,} pixels",
            hint="scale the picture down",
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _SIXTEEN_BIT_MODES:
        # Pillow's own conversion cuts values over 255 to white; for colour pictures it takes the upper byte, as here.
        grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.mode in ("I", "F"):
        raise ImageError(
            "a picture with 32 bits a channel has no defined white",
            actual=f"mode {image.mode}",
            hint="save it with 8 or 16 bits a channel",
        )
    return on_white(image)


def on_white(image: Image.Image) -> Image.Image:
    """As RGB; what is transparent shows white."""
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, _WHITE), rgba)
    return image.convert("RGB")


def _describe(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
