"""A folder of screenshots becomes a folder of pages: resumable, each page whole, a bad picture costs one line."""

import enum
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lensmith.core.errors import InputError, LensmithError
from lensmith.core.images import open_picture
from lensmith.core.types import OnStep, Page, untold
from lensmith.evaluate.visual.picture_score import PictureScore
from lensmith.render import Assets
from lensmith.workflows.html.convert import Conversion, Converter, Kept, at_width, closeness
from lensmith.workflows.html.gallery import ReportPage, picture_png, write_report
from lensmith.workflows.html.pictures import PictureMode

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
"""Names of pictures end so; the content of the file decides whether it is one."""


class BatchStatus(enum.Enum):
    """What became of one screenshot."""

    CONVERTED = "converted"
    KEPT = "kept"
    """Its page was there already."""
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class BatchFile:
    """One screenshot and its page: how close that looks, which engine made it, or why there is none."""

    source: Path
    status: BatchStatus
    out: Path | None = None
    overall: float | None = None
    engine: str | None = None
    seconds: float = 0.0
    error: LensmithError | None = None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.error is not None:
            return f"{self.source}: failed: {str(self.error).replace(chr(10), ';')}"
        if self.status is BatchStatus.KEPT:
            return f"{self.source}: kept: {self.out} was there"
        looks = "; ".join([closeness(self.overall, None), *self.notes])
        return f"{self.source}: {self.out}: {looks} ({self.engine}, {self.seconds:.1f} s)"


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """What a report shows of a screenshot."""

    file: BatchFile
    picture: Image.Image
    html: str
    page: Page | None
    score: PictureScore | None


def convert_folder(
    folder: Path,
    out: Path,
    converter: Converter,
    *,
    samples: int = 1,
    seed: int = 0,
    refine: int = 0,
    overwrite: bool = False,
    assets: PictureMode = PictureMode.EMBED,
    report: Path | None = None,
    on_file: Callable[[BatchFile], None] = lambda file: None,
    on_step: OnStep = untold,
) -> tuple[BatchFile, ...]:
    """Writes `<name>.html` into `out` for each picture right in `folder`, by name; pages that are there are kept.

    `assets`: what becomes of the pages' pictures. `report`: also one HTML file with all side by side, the least alike
    first. `on_file` is told each as it is done, `on_step` the steps of each on the way.
    Raises InputError where there are no pictures, or `out` is no folder.
    """
    jobs = _jobs(folder, out)
    files, shown = [], []
    convert = functools.partial(converter.convert, samples=samples, seed=seed, refine=refine, on_step=on_step)
    for source, target in jobs:
        file, look = _one(source, target, converter, convert, overwrite=overwrite, assets=assets, report=report)
        files.append(file)
        shown += [look] if look is not None else []
        on_file(file)
    if report is not None:
        failed = [file for file in files if file.error is not None]
        lead = f"{len(shown)} screenshots and the pages made of them, the least alike first."
        lead += "".join(f"\n{file}" for file in failed)
        worst_first = sorted(shown, key=lambda look: -1.0 if look.score is None else look.score.overall)
        write_report(report, [_report_page(look) for look in worst_first], title="Screenshots to HTML", lead=lead)
    return tuple(files)


def _jobs(folder: Path, out: Path) -> list[tuple[Path, Path]]:
    sources = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in PICTURES and path.is_file()]
    if not sources:
        raise InputError(f"{folder} holds no pictures", expected=", ".join(sorted(PICTURES)))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out} cannot be a folder of pages", actual=error.strerror) from error
    stems = [source.stem for source in sources]
    # Two pictures of one name keep their endings, so that neither page replaces the other.
    names = [source.stem if stems.count(source.stem) == 1 else source.name for source in sources]
    return [(source, out / f"{name}.html") for source, name in zip(sources, names, strict=True)]


def _one(
    source: Path,
    target: Path,
    converter: Converter,
    convert: Callable[[Image.Image], Conversion],
    *,
    overwrite: bool,
    assets: PictureMode,
    report: Path | None,
) -> tuple[BatchFile, _Shown | None]:
    began = time.monotonic()
    try:
        if target.exists() and not overwrite:
            there = BatchFile(source=source, status=BatchStatus.KEPT, out=target)
            return there, _as_kept(there, converter) if report is not None else None
        picture = open_picture(source)
        kept = _kept(converter, convert(picture), target, assets)
    except OSError as error:  # a page that is there and cannot be read
        failed = InputError(f"{target} cannot be read", actual=error.strerror)
        return BatchFile(source=source, status=BatchStatus.FAILED, error=failed), None
    except LensmithError as error:
        return BatchFile(source=source, status=BatchStatus.FAILED, error=error), None
    best = kept.candidate
    file = BatchFile(
        source=source,
        status=BatchStatus.CONVERTED,
        out=target,
        overall=None if best.score is None else best.score.overall,
        engine=best.engine,
        seconds=time.monotonic() - began,
        notes=(*best.notes, *kept.notes),
    )
    return file, _Shown(file=file, picture=picture, html=best.html, page=best.page, score=best.score)


def _kept(converter: Converter, conversion: Conversion, target: Path, assets: PictureMode) -> Kept:
    try:
        return converter.keep(conversion.best, conversion.picture, target, assets)
    except OSError as error:
        raise InputError(f"{target} cannot be written", actual=error.strerror) from error


def _as_kept(file: BatchFile, converter: Converter) -> _Shown:
    """A page that was there already, rendered and compared for the report."""
    picture = open_picture(file.source)
    assert file.out is not None
    html = file.out.read_text(encoding="utf-8", errors="replace")
    judged = converter.judge(html, picture, Assets.beside(file.out))
    return _Shown(file=file, picture=picture, html=html, page=judged.page, score=judged.score)


def _report_page(look: _Shown) -> ReportPage:
    score = look.score
    terms = ("block_match", "text_recall", "position_recall", "colour_recall", "pixel")
    width_px = look.picture.width if look.page is None else look.page.width_px
    return ReportPage(
        name=look.file.source.name,
        target_png=picture_png(at_width(look.picture, width_px)),
        answer_png=look.page.png if look.page is not None else None,
        answer_html=look.html,
        scores={} if score is None else {"likeness": score.overall} | {term: getattr(score, term) for term in terms},
        remark=str(look.file),
    )
