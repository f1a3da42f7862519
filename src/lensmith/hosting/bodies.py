"""Compressed request bodies: expanded within a limit, which a few bytes could otherwise exceed a thousandfold.

    coding = coding_of(headers.getlist("content-encoding"))
    body = expand(body, coding, most_bytes=limits.body_bytes)

Only one coding, and of gzip only one member: nobody sends more, and many empty ones would cost a server seconds.
"""

import enum
import zlib
from collections.abc import Sequence


class Coding(enum.Enum):
    """How a body is compressed; the value is its name in the header."""

    IDENTITY = "identity"
    GZIP = "gzip"
    DEFLATE = "deflate"


ACCEPTED = "gzip, deflate"
"""What to say in `Accept-Encoding` of a 415 (RFC 9110, section 15.5.16)."""

_GZIP_WINDOW = 31
_ZLIB_WINDOW = 15
_RAW_WINDOW = -15


class BodyError(Exception):
    """A body that is not read. `status` is 400 (damaged), 413 (too large) or 415 (another coding)."""

    def __init__(self, status: int, problem: str) -> None:
        self.status, self.problem = status, problem
        super().__init__(problem)


def coding_of(headers: Sequence[str]) -> Coding:
    """The coding that a request's Content-Encoding headers name. Raises BodyError (415) for another, or several."""
    names = [name.strip().lower() for header in headers for name in header.split(",") if name.strip()]
    names = ["gzip" if name == "x-gzip" else name for name in names if name != "identity"]
    if not names:
        return Coding.IDENTITY
    if len(names) > 1 or names[0] not in {coding.value for coding in Coding}:
        raise BodyError(415, f"this content-encoding is not read; expected: {ACCEPTED}")
    return Coding(names[0])


def expand(data: bytes, coding: Coding, *, most_bytes: int) -> bytes:
    """The body without its compression.

    Never holds more than `most_bytes` and one byte of it. Raises BodyError: 413 where it would expand to more, 400
    where it is cut off, damaged, or followed by something else.
    """
    if coding is Coding.IDENTITY:
        return data
    decoder = zlib.decompressobj(_GZIP_WINDOW if coding is Coding.GZIP else _deflate_window(data))
    try:
        expanded = decoder.decompress(data, most_bytes + 1)
    except zlib.error:
        raise BodyError(400, f"the body is not {coding.value}") from None
    if len(expanded) > most_bytes:
        raise BodyError(413, f"the body expands to more than {most_bytes} bytes")
    if not decoder.eof or decoder.unused_data:
        raise BodyError(400, f"the body is cut off, or more than one {coding.value} stream")
    return expanded


def _deflate_window(data: bytes) -> int:
    """The standard says zlib's format; some clients send what is inside of it (zlib's header is told by a checksum)."""
    is_zlib = len(data) >= 2 and data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0
    return _ZLIB_WINDOW if is_zlib else _RAW_WINDOW
