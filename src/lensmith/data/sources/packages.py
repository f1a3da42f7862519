"""Sources made from published packages: fetched and converted once, into a shard in the cache.

Pictures with captions are Tux Paint's stamps (Debian) and OpenMoji's drawings (npm); documentation of any package gives
interleaved documents or text. What of a package becomes no record is counted in the JSON file beside the shard.
"""

import base64
import csv
import io
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from lensmith.core import config
from lensmith.core.errors import ConfigError, ImageError, InputError, RenderError
from lensmith.core.files import default_cache_dir
from lensmith.core.images import open_picture
from lensmith.core.types import Page
from lensmith.data.packages import Package, PackageName, fetch_package, files_in
from lensmith.data.sources.base import HeldOutBy, Portion
from lensmith.data.sources.members import write_tar
from lensmith.data.sources.pages import (
    MOST_PAGE_BYTES,
    MOST_PICTURE_BYTES,
    PAGE_KINDS,
    PICTURE_KINDS,
    PageContent,
    PageReadingConfig,
    PagesConfig,
    PagesSource,
    kind_of,
)
from lensmith.data.sources.tars import CaptionRecord, TarConfig, TarSource, write_shard
from lensmith.render import Capture, RenderConfig, Renderer

_FORM = 1
"""Raised when packages are converted in another way, so that no older shard is taken for a new one."""
_STAMPS = "usr/share/tuxpaint/stamps/"
_STAMP_KINDS = frozenset(("png", "txt", "svg"))
_OPENMOJI_COLUMNS = frozenset(("hexcode", "group", "subgroups", "annotation", "skintone"))
_JPEG_QUALITY = 92
_DRAWINGS_A_SIDE = 5
_DRAWING_LIMIT_S = 120.0
"""For a page of them: some have many gradients, and a busy machine is no reason to fail."""
_UNREADABLE = "its picture cannot be read"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ShardManifest:
    """What became of a package: `sha256` is that of its file, `left_out` counts what is no record, by cause."""

    package: str
    sha256: str
    settings: dict[str, Any]
    records: int
    left_out: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class ConvertedPackage:
    """A shard in the cache, and what it was made of."""

    path: Path
    manifest: ShardManifest


@dataclass(frozen=True, kw_only=True)
class TuxpaintConfig:
    """Photographs and drawings with a caption: Tux Paint's stamps, on white, the longer side at most `longest_px`.

    Their group is their folder (animals/birds). Drawings that there are as SVG only are left out.
    """

    kind: ClassVar[str] = "tuxpaint"
    package: str = "deb:tuxpaint-stamps-default=2022.06.04-1"
    sha256: str | None = "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34"
    longest_px: int = 256
    portion: Portion = Portion.ALL

    def __post_init__(self) -> None:
        _check_positive("longest_px", self.longest_px)

    def convert(self) -> ConvertedPackage:
        """Raises InputError where the package cannot be fetched or is another one."""
        settings = {"longest_px": self.longest_px}
        return _converted(self.package, self.sha256, settings, lambda package: _stamps(package, self.longest_px))

    def open(self) -> TarSource:
        """Raises as `convert`."""
        return TarConfig(paths=(self.convert().path,), portion=self.portion).open()


@dataclass(frozen=True, kw_only=True)
class OpenmojiConfig:
    """OpenMoji's coloured drawings, `side_px` square on white, with their names as captions.

    Their group is OpenMoji's group and subgroup (animals-nature/animal-bird). `groups_left_out` are whole groups, such
    as flags; drawings that differ from another one in skin tone alone are left out unless `skin_tones`. The browser
    draws them: another version of it may draw other pixels, and the fingerprint says so.
    """

    kind: ClassVar[str] = "openmoji"
    package: str = "npm:openmoji@17.0.0"
    sha256: str | None = "55ee7d13485dec86e9f38c1f3a645a13382d33ff97c0cd845ee824b0aef45e68"
    side_px: int = 128
    groups_left_out: tuple[str, ...] = ("component", "extras-openmoji", "extras-unicode")
    skin_tones: bool = False
    portion: Portion = Portion.ALL
    held_out_by: HeldOutBy = HeldOutBy.GROUPS

    def __post_init__(self) -> None:
        _check_positive("side_px", self.side_px)

    def convert(self) -> ConvertedPackage:
        """Raises InputError where the package cannot be fetched or is another one; RenderError."""
        settings = {
            "side_px": self.side_px,
            "groups_left_out": list(self.groups_left_out),
            "skin_tones": self.skin_tones,
        }
        return _converted(self.package, self.sha256, settings, lambda package: _drawings(package, self))

    def open(self) -> TarSource:
        """Raises as `convert`."""
        path = self.convert().path
        return TarConfig(paths=(path,), portion=self.portion, held_out_by=self.held_out_by).open()


@dataclass(frozen=True, kw_only=True)
class FluentEmojiConfig:
    """Microsoft's Fluent emoji, `side_px` square on white, with their names as captions, in one or more styles.

    Many are of what OpenMoji draws too, by another hand. Of drawings that differ in skin tone alone one is taken. The
    group is the name, so the styles of a drawing are held out together. The browser draws them, as with OpenMoji.
    """

    kind: ClassVar[str] = "fluent_emoji"
    package: str = "npm:fluentui-emoji@1.3.0"
    sha256: str | None = "ec892e607e854859b812c7d827801756adc19955b0ef56d4ae8afcddd19492c5"
    side_px: int = 128
    styles: tuple[str, ...] = ("flat", "modern")
    portion: Portion = Portion.ALL

    def __post_init__(self) -> None:
        _check_positive("side_px", self.side_px)

    def convert(self) -> ConvertedPackage:
        """Raises InputError where the package cannot be fetched or is another one; RenderError."""
        settings = {"side_px": self.side_px, "styles": list(self.styles)}
        return _converted(self.package, self.sha256, settings, lambda package: _emoji(package, self))

    def open(self) -> TarSource:
        """Raises as `convert`."""
        return TarConfig(paths=(self.convert().path,), portion=self.portion).open()


@dataclass(frozen=True, kw_only=True)
class PackagePagesConfig:
    """The HTML documents of a package and its pictures, see `PagesConfig`.

    `pages_left_out` are paths of pages, with * for any part: what repeats others, such as a manual on one page.
    """

    kind: ClassVar[str] = "package_pages"
    package: str
    sha256: str | None = None
    pages_left_out: tuple[str, ...] = ()
    reading: PageReadingConfig = field(default_factory=PageReadingConfig)
    portion: Portion = Portion.ALL

    def convert(self) -> ConvertedPackage:
        """Raises InputError where the package cannot be fetched, is another one, or holds no page."""
        settings = {"pages_left_out": list(self.pages_left_out)}
        return _converted(self.package, self.sha256, settings, lambda package: _pages(package, self.pages_left_out))

    def open(self) -> PagesSource:
        """Raises as `convert`."""
        return PagesConfig(path=self.convert().path, reading=self.reading, portion=self.portion).open()


@dataclass(frozen=True, kw_only=True)
class _Made:
    """What a package holds: `write` makes the shard."""

    records: int
    left_out: Counter[str]
    write: Callable[[Path], object]


def _converted(
    package: str, sha256: str | None, settings: Mapping[str, Any], convert: Callable[[Package], _Made]
) -> ConvertedPackage:
    """The shard in the cache; where it is there already, nothing is fetched unless the version is left open."""
    cache_dir = default_cache_dir()
    name = PackageName.parse(package)
    if name.version is None or sha256 is None:
        fetched = fetch_package(name, cache_dir, sha256=sha256)
        name, sha256 = fetched.name, fetched.sha256
    digest = config.hash_of_values({"form": _FORM, "sha256": sha256, "settings": dict(settings)})[:12]
    path = cache_dir / "sources" / f"{name.slug}-{name.version}-{digest}.tar"
    record = path.with_name(f"{path.name}.json")
    if not (path.is_file() and record.is_file()):
        _log.info("%s is converted to %s", name, path)
        made = convert(fetch_package(name, cache_dir, sha256=sha256))
        if not made.records:
            raise InputError(f"{name} holds nothing that becomes a record", actual=dict(made.left_out))
        made.write(path)
        manifest = ShardManifest(
            package=str(name),
            sha256=sha256,
            settings=dict(settings),
            records=made.records,
            left_out=dict(sorted(made.left_out.items())),
        )
        config.save(manifest, record)
    return ConvertedPackage(path=path, manifest=config.load(ShardManifest, record))


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"{name} must be positive", expected="at least 1", actual=value)


def _captioned(records: Sequence[CaptionRecord], left_out: Counter[str]) -> _Made:
    return _Made(records=len(records), left_out=left_out, write=lambda path: write_shard(records, path))


# --- Tux Paint ----------------------------------------------------------------------------------------------------


def _stamps(package: Package, longest_px: int) -> _Made:
    """PNGs, and the first line, which is English, of the text of the same name."""
    pictures: dict[str, bytes | None] = {}
    captions: dict[str, str] = {}
    drawings = set()
    left_out = Counter[str]()
    for path, content in files_in(package, lambda path, _: path.startswith(_STAMPS) and kind_of(path) in _STAMP_KINDS):
        stem, _, kind = path.removeprefix(_STAMPS).rpartition(".")
        if kind == "svg":
            drawings.add(stem)
        elif kind == "txt":
            captions[stem] = content.decode("utf-8", "replace").partition("\n")[0].strip()
        else:
            pictures[stem] = _as_jpeg(content, longest_px)
    records = []
    left_out["there as SVG only"] = len(drawings - pictures.keys())
    for stem, picture in sorted(pictures.items()):
        if not captions.get(stem):
            left_out["no caption"] += 1
        elif picture is None:
            left_out[_UNREADABLE] += 1
        else:
            group, _, name = stem.rpartition("/")
            key = f"{group}/{name.replace('.', '-')}"
            records.append(CaptionRecord(key=key, caption=captions[stem], picture=picture, suffix="jpg", group=group))
    return _captioned(records, +left_out)


def _as_jpeg(content: bytes, longest_px: int) -> bytes | None:
    """The picture on white, made smaller where it must be; None where it cannot be read."""
    try:
        picture = open_picture(content)
    except ImageError:
        return None
    picture.thumbnail((longest_px, longest_px), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=_JPEG_QUALITY)
    return stream.getvalue()


# --- OpenMoji -----------------------------------------------------------------------------------------------------


def _drawings(package: Package, wanted: OpenmojiConfig) -> _Made:
    table, folder = "data/openmoji.csv", "color/svg/"
    held = dict(files_in(package, lambda path, _: path == table or path.startswith(folder)))
    reader = csv.DictReader(io.StringIO(held.get(table, b"").decode("utf-8-sig", "replace")))
    if missing := _OPENMOJI_COLUMNS - set(reader.fieldnames or ()):
        raise InputError(f"{package.name} lacks columns of {table}", expected=", ".join(sorted(missing)))
    left_out = Counter[str]()
    rows, svgs = [], []
    for row in reader:
        svg = held.get(f"{folder}{row['hexcode']}.svg")
        if row["group"] in wanted.groups_left_out:
            left_out[f"of the group {row['group']}"] += 1
        elif row["skintone"] and not wanted.skin_tones:
            left_out["a skin tone of another drawing"] += 1
        elif svg is None or not row["annotation"]:
            left_out["no drawing or no name"] += 1
        else:
            rows.append(row)
            svgs.append(svg)
    records = []
    for row, png in zip(rows, _drawn(svgs, wanted.side_px), strict=True):
        if png is None:
            left_out["its drawing stays blank"] += 1
            continue
        group = f"{row['group']}/{row['subgroups']}"
        records.append(
            CaptionRecord(key=row["hexcode"], caption=row["annotation"], picture=png, suffix="png", group=group)
        )
    return _captioned(records, left_out)


_TONES = ("-dark", "-medium-dark", "-medium-light", "-medium", "-light")
"""How the name of a drawing ends that another one stands for."""


def _emoji(package: Package, wanted: FluentEmojiConfig) -> _Made:
    folders = tuple(f"icons/{style}/" for style in wanted.styles)
    held = sorted(files_in(package, lambda path, _: path.startswith(folders) and path.endswith(".svg")))
    names = {path: path.rpartition("/")[2].removesuffix(".svg") for path, _ in held}
    left_out = Counter[str]()
    taken = []
    known = set(names.values())
    for path, svg in held:
        plain = next((names[path].removesuffix(tone) for tone in _TONES if names[path].endswith(tone)), "")
        if f"{plain}-default" in known:
            left_out["a skin tone of another drawing"] += 1
        else:
            taken.append((path, svg))
    records = []
    for (path, _), png in zip(taken, _drawn([svg for _, svg in taken], wanted.side_px), strict=True):
        if png is None:
            left_out["its drawing stays blank"] += 1
            continue
        name = names[path].removesuffix("-default")
        key = path.removeprefix("icons/").removesuffix(".svg")
        records.append(CaptionRecord(key=key, caption=name.replace("-", " "), picture=png, suffix="png", group=name))
    return _captioned(records, left_out)


def _drawn(svgs: Sequence[bytes], side_px: int) -> Iterator[bytes | None]:
    """Each drawing as a PNG, many to a rendered page; None for what stays blank. Raises RenderError."""
    most, width_px = _DRAWINGS_A_SIDE**2, _DRAWINGS_A_SIDE * side_px
    batches = [svgs[first : first + most] for first in range(0, len(svgs), most)]
    rendering = RenderConfig(
        viewport_width_px=width_px, viewport_height_px=width_px, full_page=False, timeout_s=_DRAWING_LIMIT_S
    )
    with Renderer(rendering) as renderer:
        pages = renderer.render_many((_sheet(batch, side_px) for batch in batches), Capture.PICTURE)
        for batch, page in zip(batches, pages, strict=True):
            if isinstance(page, RenderError):
                raise page
            yield from _cut(page, len(batch), side_px)


def _sheet(svgs: Sequence[bytes], side_px: int) -> str:
    """A page of drawings in rows, without gaps."""
    images = (f'<img decoding="sync" src="data:image/svg+xml;base64,{base64.b64encode(svg).decode()}">' for svg in svgs)
    style = f"body{{margin:0;line-height:0;background:#fff}}img{{width:{side_px}px;height:{side_px}px}}"
    return f"<!doctype html><style>{style}</style>{''.join(images)}"


def _cut(page: Page, count: int, side_px: int) -> Iterator[bytes | None]:
    sheet = open_picture(page.png)
    for index in range(count):
        top_px, left_px = (side_px * place for place in divmod(index, _DRAWINGS_A_SIDE))
        drawing = sheet.crop((left_px, top_px, left_px + side_px, top_px + side_px))
        if drawing.getextrema() == ((255, 255),) * 3:
            yield None
            continue
        stream = io.BytesIO()
        drawing.save(stream, "PNG")
        yield stream.getvalue()


# --- documentation ------------------------------------------------------------------------------------------------


def _pages(package: Package, patterns: Sequence[str]) -> _Made:
    """Pages and pictures as they are; `records` counts the pages."""
    left_out = Counter[str]()

    def wanted(path: str, size_bytes: int) -> bool:
        kind = kind_of(path)
        if kind not in PAGE_KINDS | PICTURE_KINDS:
            return False
        what, most_bytes = ("page", MOST_PAGE_BYTES) if kind in PAGE_KINDS else ("picture", MOST_PICTURE_BYTES)
        cause = f"its {what} is too large" if size_bytes > most_bytes else ""
        if kind in PAGE_KINDS and any(fnmatchcase(path, pattern) for pattern in patterns):
            cause = "its page is one of those to leave out"
        left_out.update([cause] if cause else [])
        return not cause

    files = dict(files_in(package, wanted))
    pages = sum(kind_of(path) in PAGE_KINDS for path in files)
    return _Made(records=pages, left_out=left_out, write=lambda path: write_tar(files.items(), path))


GIMP_HELP = PackagePagesConfig(
    package="deb:gimp-help-en=2.10.34-2",
    sha256="a2deec76763aaf2fcdd197bac0736cdcb0770ba993d48d233329e1c92b0bfe36",
    pages_left_out=("*/gimp-help-index.html",),
)
"""GIMP's manual: interleaved documents with many screenshots."""

DEBIAN_FAQ = PackagePagesConfig(
    package="deb:debian-faq=11.1",
    sha256="427426e0cfa6888622fc1d72631071cb4b5a1f86ccde722e7820bcef284de5d0",
    reading=PageReadingConfig(content=PageContent.TEXT),
)
"""Debian's answers to frequent questions: text."""

DEVELOPERS_REFERENCE = PackagePagesConfig(
    package="deb:developers-reference=12.18",
    sha256="0dba82f6fa16e373f2a84ad07e7971aa9264ad2e7d2ae46b37edbc9c5fd57e2e",
    pages_left_out=("*/developers-reference.html", "*/search.html"),
    reading=PageReadingConfig(content=PageContent.TEXT),
)
"""Debian's handbook for its developers: text."""
