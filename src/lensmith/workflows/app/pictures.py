"""The pictures within a page: taken out into files, put back, and the ZIP that a person downloads.

A page stands alone, so its pictures are `data:` addresses in it, which nobody can read or edit and which a model that
is asked for a change would have to repeat letter by letter.
"""

import base64
import binascii
import hashlib
import io
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass

FOLDER = "pictures"
_KINDS = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/webp": "webp",
    "image/gif": "gif",
    "image/svg+xml": "svg",
    "image/avif": "avif",
    "image/bmp": "bmp",
}
_ADDRESS = re.compile(r"data:(image/[a-z0-9.+-]+)(?:;[a-z0-9=-]+)*;base64,([A-Za-z0-9+/=]+)", re.IGNORECASE)
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Parted:
    """A page whose pictures are files beside it. `pictures`: each file's name, its bytes, and its address before."""

    html: str
    pictures: Mapping[str, bytes]
    addresses: Mapping[str, str]


def parted(html: str) -> Parted:
    """The page with its pictures taken out, each once; what is not base64 of a usual kind stays where it is."""
    pictures: dict[str, bytes] = {}
    addresses: dict[str, str] = {}
    names: dict[str, str] = {}

    def named(match: re.Match[str]) -> str:
        address = match.group()
        data = _decoded(match[2])
        ending = _KINDS.get(match[1].lower())
        if data is None or ending is None:
            return address
        digest = hashlib.sha256(data).hexdigest()
        if digest not in names:
            names[digest] = f"{FOLDER}/{len(names) + 1}.{ending}"
        name = names[digest]
        pictures[name], addresses[name] = data, address
        return name

    return Parted(html=_ADDRESS.sub(named, html), pictures=pictures, addresses=addresses)


def joined(html: str, addresses: Mapping[str, str]) -> str:
    """The page with its pictures put back wherever their names stand."""
    if not addresses:
        return html
    names = re.compile("|".join(map(re.escape, addresses)))
    return names.sub(lambda match: addresses[match.group()], html)


def zipped(html: str) -> bytes:
    """A ZIP with `index.html` and its pictures as files; the same page gives the same bytes."""
    page = parted(html)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (("index.html", page.html.encode()), *page.pictures.items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, data)
    return stream.getvalue()


def _decoded(data: str) -> bytes | None:
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error:
        return None
