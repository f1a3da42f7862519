"""The pictures within a page: named for the editor, put back, and files in the ZIP that a person downloads.

A page stands alone, so its pictures are `data:` addresses in it, which nobody can read or edit and which a model that
is asked for a change would have to repeat letter by letter.
"""

import io
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass

from lensmith.workflows.html.pictures import PictureMode, with_pictures

FOLDER = "pictures"
_ADDRESS = re.compile(r"data:image/([a-z0-9]+)[a-z0-9.+-]*(?:;[a-z0-9=-]+)*;base64,[A-Za-z0-9+/=]+", re.IGNORECASE)
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Parted:
    """A page with short names in the places of its pictures. `addresses`: what each name stands for."""

    html: str
    addresses: Mapping[str, str]


def parted(html: str) -> Parted:
    """The page with each picture's address named, each once. All else stays as it is, to the letter."""
    names: dict[str, str] = {}

    def named(match: re.Match[str]) -> str:
        return names.setdefault(match[0], f"{FOLDER}/{len(names) + 1}.{match[1].lower()}")

    page = _ADDRESS.sub(named, html)
    return Parted(html=page, addresses={name: address for address, name in names.items()})


def joined(html: str, addresses: Mapping[str, str]) -> str:
    """The page with its pictures put back wherever their names stand."""
    if not addresses:
        return html
    names = re.compile("|".join(map(re.escape, addresses)))
    return names.sub(lambda match: addresses[match.group()], html)


def zipped(html: str) -> bytes:
    """A ZIP with `index.html` and its pictures as files; the same page gives the same bytes."""
    page = with_pictures(html, PictureMode.FILES, FOLDER)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (("index.html", page.html.encode()), *page.files.items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, data)
    return stream.getvalue()
