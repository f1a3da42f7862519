"""Every picture of a page becomes one placeholder: a plain area that takes exactly the room of the picture.

Design2Code (arXiv 2403.03163, section 3.1) puts one photograph in place of all pictures. Ours is an SVG of one colour
that says of itself what the picture says (its pixels, or an SVG's own width, height and viewBox), so a browser lays the
page out as it did with the picture, whatever its style makes of it.
"""

import base64
import binascii
import io
import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote, unquote, unquote_to_bytes

from PIL import ExifTags, Image

from lensmith.core.images import FORMATS

COLOUR = "#9fb0c3"
MOST_SIDE_PX = 10_000
_SIZE_IN_ADDRESS = re.compile(r"(?<!\d)(\d{1,4})[x*,/](\d{1,4})(?!\d)")
_WIDTH_IN_QUERY, _HEIGHT_IN_QUERY = (
    re.compile(r"[?&]w(?:idth)?=(\d{1,4})(?!\d)"),
    re.compile(r"[?&]h(?:eight)?=(\d{1,4})(?!\d)"),
)
_SVG_ROOT = re.compile(rb"<svg\b[^>]*>", re.IGNORECASE)
_SVG_SIZE = re.compile(r"\b(width|height|viewBox)\s*=\s*[\"']([0-9eE.,%a-z \-]{1,60})[\"']")
_FIRST_TURNED = 5  # of EXIF's orientations: from here on the sides change places


@dataclass(frozen=True, kw_only=True)
class PictureSize:
    """What a picture says of its own size, as an SVG's attributes; "" where it says nothing."""

    width: str = ""
    height: str = ""
    view_box: str = ""

    @classmethod
    def of_pixels(cls, width_px: int, height_px: int) -> Self:
        return cls(width=str(min(width_px, MOST_SIDE_PX)), height=str(min(height_px, MOST_SIDE_PX)))

    def placeholder(self) -> str:
        """A `data:` address of a picture of one colour and this size."""
        said = {"width": self.width, "height": self.height, "viewBox": self.view_box}
        attributes = "".join(f" {name}='{value}'" for name, value in said.items() if value)
        svg = (
            f"<svg xmlns='http://www.w3.org/2000/svg'{attributes}>"
            f"<rect x='-1000%' y='-1000%' width='3000%' height='3000%' fill='{COLOUR}'/></svg>"
        )
        return f"data:image/svg+xml,{quote(svg, safe=' /:=')}"


UNKNOWN_SIZE = PictureSize.of_pixels(300, 200)
"""Of a picture that is outside the package and whose address does not tell its size."""


def size_of_picture(content: bytes) -> PictureSize | None:
    """The size that a picture's file tells; None where it is no picture that a browser shows."""
    if b"<svg" in content[:4096].lower():
        return size_of_svg(content)
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width_px, height_px = image.size
            turn = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001  # decoders raise SyntaxError, struct.error, zlib.error and more
        return None
    turned = isinstance(turn, int) and turn >= _FIRST_TURNED
    return PictureSize.of_pixels(height_px, width_px) if turned else PictureSize.of_pixels(width_px, height_px)


def size_of_svg(content: bytes) -> PictureSize | None:
    """What the root element of an SVG says; None where there is none."""
    root = _SVG_ROOT.search(content)
    if root is None:
        return None
    said = dict(_SVG_SIZE.findall(root.group().decode("utf-8", "replace")))
    return PictureSize(width=said.get("width", ""), height=said.get("height", ""), view_box=said.get("viewBox", ""))


def size_of_data_address(address: str) -> PictureSize | None:
    """The size of the picture that a `data:` address holds; None where it holds none."""
    kind, _, content = address.partition(",")
    try:
        data = base64.b64decode(unquote(content)) if kind.endswith(";base64") else unquote_to_bytes(content)
    except (binascii.Error, ValueError):
        return None
    return size_of_picture(data)


def size_in_address(address: str) -> PictureSize:
    """The size that an address speaks of, as those of picture services do (`/450x300/`, `?w=450&h=300`)."""
    width, height = _WIDTH_IN_QUERY.search(address), _HEIGHT_IN_QUERY.search(address)
    if width and height:
        return PictureSize.of_pixels(int(width[1]), int(height[1]))
    sizes = [(int(one), int(other)) for one, other in _SIZE_IN_ADDRESS.findall(address)]
    return next((PictureSize.of_pixels(*size) for size in sizes if min(size) >= 8), UNKNOWN_SIZE)
