"""A folder of real pages from packages: fetched, prepared, measured, told apart, and written with a manifest.

Kept are pages of the size that Design2Code's have: 50 to 600 visible elements, 200 to 5,000 characters of visible text.
"""

import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from lensmith.core import config
from lensmith.core.errors import InputError, RenderError
from lensmith.core.files import alone_in, default_cache_dir, sha256_of_bytes, write_atomic
from lensmith.core.types import OnProgress, Page, unwatched
from lensmith.data.packages import Package, PackageName, fetch_package
from lensmith.data.webpages.real.archives import PackageFiles, read_package
from lensmith.data.webpages.real.likeness import TagShape, choose_different, shape_of
from lensmith.data.webpages.real.prepare import Preparer
from lensmith.data.webpages.real.unfit import Cause, UnfitPageError
from lensmith.render import Capture, RenderConfig, Renderer

MANIFEST = "pages.json"
REAL_RENDERING = RenderConfig(viewport_width_px=1280, viewport_height_px=720)
_CAPTURE = Capture.PICTURE | Capture.TEXTS | Capture.ELEMENTS


@dataclass(frozen=True, kw_only=True)
class PageLimits:
    """Which pages are kept, as rendered at 1280 px. `near`: markup more alike than this is one page (`likeness`)."""

    elements: tuple[int, int] = (50, 600)
    characters: tuple[int, int] = (200, 5_000)
    max_height_px: int = 8_000
    max_one_colour: float = 0.99
    near: float = 0.7
    most_per_package: int = 12
    stylesheets: tuple[str, ...] = ()
    """Paths in a package of stylesheets for pages that link none, because a script of theirs would."""


@dataclass(frozen=True, kw_only=True)
class PageRecord:
    """A page that was kept: `file` in the folder is the page at `path` in its package, prepared."""

    file: str
    path: str
    sha256: str
    elements: int
    characters: int
    width_px: int
    height_px: int


@dataclass(frozen=True, kw_only=True)
class PackageRecord:
    """What became of a package: `asked` is how it was named, `sha256` that of its file, `left_out` counts by cause.

    `stylesheets` are those of `PageLimits` that it holds.
    """

    asked: str
    registry: str
    name: str
    version: str
    license: str
    sha256: str
    stylesheets: tuple[str, ...]
    left_out: dict[str, int]
    pages: tuple[PageRecord, ...]


@dataclass(frozen=True, kw_only=True)
class PagesManifest:
    """What is in a folder of real pages, written again after each package."""

    limits: PageLimits
    packages: tuple[PackageRecord, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CollectResult:
    """The folder, and what of each package is in it."""

    folder: Path
    packages: tuple[PackageRecord, ...]
    failed: tuple[str, ...] = field(default=())
    """Packages that could not be fetched or read, and why."""

    @property
    def pages(self) -> int:
        return sum(len(package.pages) for package in self.packages)

    def __str__(self) -> str:
        left_out = Counter[str]()
        lines = []
        for package in self.packages:
            left_out.update(package.left_out)
            license_name = package.license or "no license named"
            total = len(package.pages) + sum(package.left_out.values())
            lines.append(f"{package.name} {package.version} ({license_name}): {len(package.pages)} of {total} pages")
        lines += [f"left out, {cause}: {count}" for cause, count in left_out.most_common()]
        lines += [*self.failed, f"{self.pages} pages of {len(self.packages)} packages: {self.folder}"]
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """A page that keeps the limits."""

    path: str
    html: str
    shape: TagShape
    elements: int
    characters: int
    page: Page


def collect_pages(
    names: Sequence[str],
    out_dir: Path,
    *,
    limits: PageLimits = PageLimits(),
    cache_dir: Path | None = None,
    on_progress: OnProgress = unwatched,
) -> CollectResult:
    """Pages of the packages that `names` name (see `PackageName.parse`) as files in `out_dir`, with `pages.json`.

    A run that was stopped goes on behind the last package that it finished, and needs no network for those; a package
    that cannot be fetched costs itself only. `on_progress` is called with each package.

    Raises InputError for a name that is none, where `out_dir` holds pages that were chosen otherwise, and where no
    package can be fetched; BrowserNotFoundError.
    """
    wanted = [PackageName.parse(name) for name in dict.fromkeys(names)]
    out_dir.mkdir(parents=True, exist_ok=True)
    failed: list[str] = []
    with alone_in(out_dir), Renderer(REAL_RENDERING) as renderer:
        manifest = _begun(out_dir, limits)
        shapes = [
            shape_of((out_dir / page.file).read_text("utf-8")) for pack in manifest.packages for page in pack.pages
        ]
        for done, name in enumerate(wanted):
            on_progress(done, len(wanted))
            if any(record.asked == str(name) for record in manifest.packages):
                continue
            try:
                package = fetch_package(name, cache_dir or default_cache_dir())
                files = read_package(package)
            except InputError as error:
                failed.append(str(error))
                continue
            taken = {page.file.lower() for record in manifest.packages for page in record.pages}
            chosen, left_out = _chosen(files, limits, renderer, shapes)
            pages = tuple(_write(fit, package, out_dir, taken) for fit in chosen)
            shapes += [fit.shape for fit in chosen]
            record = _record(asked=name, package=package, files=files, limits=limits, left_out=left_out, pages=pages)
            manifest = PagesManifest(limits=limits, packages=(*manifest.packages, record))
            config.save(manifest, out_dir / MANIFEST)
    on_progress(len(wanted), len(wanted))
    if failed and not manifest.packages:
        raise InputError("no package can be fetched", actual="\n".join(failed))
    return CollectResult(folder=out_dir, packages=manifest.packages, failed=tuple(failed))


def _begun(folder: Path, limits: PageLimits) -> PagesManifest:
    """What an earlier run finished. Raises InputError where it chose otherwise, or a page of it is gone or changed."""
    path = folder / MANIFEST
    if not path.exists():
        return PagesManifest(limits=limits)
    manifest = config.load(PagesManifest, path)
    hint = "give another folder, or delete this one"
    if manifest.limits != limits:
        raise InputError(
            f"{folder} holds pages that were chosen otherwise", expected=limits, actual=manifest.limits, hint=hint
        )
    for page in (page for package in manifest.packages for page in package.pages):
        file = folder / page.file
        if not file.is_file() or sha256_of_bytes(file.read_bytes()) != page.sha256:
            raise InputError(f"{file} is not the page that {path} names", expected=f"sha256 {page.sha256}", hint=hint)
    return manifest


def _chosen(
    files: PackageFiles, limits: PageLimits, renderer: Renderer, known: Sequence[TagShape]
) -> tuple[list[_Fit], Counter[str]]:
    """The pages of a package that are kept, in the order of their paths, and how many others there are by cause."""
    left_out: Counter[str] = Counter()
    fits: list[_Fit] = []
    for outcome in _measured(files, limits, renderer):
        if isinstance(outcome, Cause):
            left_out[outcome.value] += 1
        else:
            fits.append(outcome)
    shapes = [fit.shape for fit in fits]
    chosen, near = choose_different(shapes, most=limits.most_per_package, near=limits.near, known=known)
    left_out.update({Cause.NEAR.value: len(near), Cause.MOST.value: len(fits) - len(chosen) - len(near)})
    return [fits[index] for index in sorted(chosen)], +left_out


def _measured(files: PackageFiles, limits: PageLimits, renderer: Renderer) -> Iterator[_Fit | Cause]:
    preparer = Preparer(files, stylesheets=limits.stylesheets)
    prepared: list[tuple[str, str]] = []

    def documents() -> Iterator[str]:
        for path in files.pages:
            try:
                html = preparer.prepare(path)
            except UnfitPageError as error:
                unfit.append(error.cause)
                continue
            prepared.append((path, html))
            yield html

    unfit: list[Cause] = []
    for page in renderer.render_many(documents(), _CAPTURE):
        path, html = prepared.pop(0)
        yield Cause.NOT_RENDERED if isinstance(page, RenderError) else _judged(path, html, page, limits)
    yield from unfit


def _judged(path: str, html: str, page: Page, limits: PageLimits) -> _Fit | Cause:
    elements, characters = visible_elements(page), sum(len(block.text) for block in page.texts)
    if not limits.elements[0] <= elements <= limits.elements[1]:
        return Cause.ELEMENTS
    if not limits.characters[0] <= characters <= limits.characters[1]:
        return Cause.CHARACTERS
    if page.height_px > limits.max_height_px:
        return Cause.HEIGHT
    if share_of_one_colour(page.png) > limits.max_one_colour:
        return Cause.BLANK
    return _Fit(path=path, html=html, shape=shape_of(html), elements=elements, characters=characters, page=page)


def visible_elements(page: Page) -> int:
    """How many elements have a box with an area on the page."""
    boxes = (element.box for element in page.elements)
    return sum(
        1
        for box in boxes
        if min(box.right_px, page.width_px) > max(box.left_px, 0)
        and min(box.bottom_px, page.height_px) > max(box.top_px, 0)
    )


def share_of_one_colour(png: bytes) -> float:
    """The share of the pixels, every other one each way, that have the colour most of them have."""
    with Image.open(io.BytesIO(png)) as picture:
        pixels_N3 = np.asarray(picture.convert("RGB"))[::2, ::2].reshape(-1, 3).astype(np.uint32)
    packed_N = (pixels_N3[:, 0] << 16) | (pixels_N3[:, 1] << 8) | pixels_N3[:, 2]
    return float(np.bincount(np.unique(packed_N, return_inverse=True)[1]).max() / packed_N.size)


def _write(fit: _Fit, package: Package, folder: Path, taken: set[str]) -> PageRecord:
    data = fit.html.encode("utf-8", "replace")
    file = page_file(package.name, fit.path, taken)
    taken.add(file.lower())
    write_atomic(folder / file, data)
    return PageRecord(
        file=file,
        path=fit.path,
        sha256=sha256_of_bytes(data),
        elements=fit.elements,
        characters=fit.characters,
        width_px=fit.page.width_px,
        height_px=fit.page.height_px,
    )


def page_file(package: PackageName, path: str, taken: set[str]) -> str:
    """The name of a page's file: its package and path, in letters that every system has; none that is `taken` (in lower
    case)."""
    stem = re.sub(r"[^A-Za-z0-9.]+", "-", path.rpartition(".")[0])[-100:].strip("-.")
    file = f"{package.slug}--{stem}.html"
    return f"{package.slug}--{stem}-{sha256_of_bytes(path.encode())[:8]}.html" if file.lower() in taken else file


def _record(
    *,
    asked: PackageName,
    package: Package,
    files: PackageFiles,
    limits: PageLimits,
    left_out: Counter[str],
    pages: tuple[PageRecord, ...],
) -> PackageRecord:
    return PackageRecord(
        asked=str(asked),
        registry=package.name.registry.value,
        name=package.name.name,
        version=package.name.version or "",
        license=files.license,
        sha256=package.sha256,
        stylesheets=tuple(path for path in limits.stylesheets if path in files.content),
        left_out=dict(sorted(left_out.items())),
        pages=pages,
    )
