"""Renders HTML files to PNG files, with what was measured beside them as JSON."""

import enum
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lensmith.core.errors import InputError, LensmithError, RenderError
from lensmith.core.files import is_stream, open_input, write_atomic
from lensmith.core.types import Box, Page, PageNote
from lensmith.render.assets import Assets
from lensmith.render.config import Capture, RenderConfig
from lensmith.render.renderer import HtmlFile, Renderer

MEASURED = Capture.TEXTS | Capture.ELEMENTS | Capture.CHARS


class FileStatus(enum.Enum):
    """What became of one input file."""

    RENDERED = "rendered"
    SKIPPED = "skipped"
    """Its outputs were there already."""
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class FileResult:
    """One input file, what was written for it, and why not if it failed."""

    source: Path
    status: FileStatus
    outputs: tuple[Path, ...] = ()
    error: LensmithError | None = None
    notes: tuple[PageNote, ...] = ()
    """What the page holds and the picture does not show, and what it named and was not given."""

    def __str__(self) -> str:
        outcome = self.error or ", ".join(map(str, self.outputs))
        return "\n  ".join([f"{self.source}: {self.status.value}: {outcome}", *map(str, self.notes)])


class Existing(enum.Enum):
    """What to do with outputs that are there already."""

    KEEP = "keep"
    OVERWRITE = "overwrite"


def render_files(
    paths: Sequence[Path],
    out: Path,
    config: RenderConfig = RenderConfig(),  # noqa: B008 - frozen
    capture: Capture = Capture.PICTURE,
    on_progress: Callable[[FileResult], None] = lambda result: None,
    *,
    existing: Existing = Existing.KEEP,
    assets_of: Callable[[Path], Assets | None] = Assets.beside,
) -> tuple[FileResult, ...]:
    """Writes `<stem>.png`, and `<stem>.json` when more than the picture is asked for, into the folder `out`.

    `out` may also be a stream (see `core.files.is_stream`), which gets the picture of the one page.

    A page may read what `assets_of` gives for its file: its own folder by default. A file for which it raises
    InputError fails with that.

    Each output appears whole or not at all, so an interrupted run continues where it stopped. A file that fails does
    not stop the others. `on_progress` is called with each result, in the order of the results. Raises
    BrowserNotFoundError, and InputError when `out` cannot be written to.
    """
    if is_stream(out):
        jobs = [_Job(source=_only(paths, out, capture), outputs=(out,))]
    else:
        _make_folder(out)
        jobs = _plan(paths, out, capture, existing)
    results = []
    with Renderer(config) as renderer:
        for result in _run(jobs, renderer, capture, assets_of):
            results.append(result)
            on_progress(result)
    return tuple(results)


@dataclass(frozen=True, kw_only=True)
class _Job:
    source: Path
    outputs: tuple[Path, ...]
    settled: FileResult | None = None
    """Known before rendering: nothing to do, or nothing that can be done."""


def _only(paths: Sequence[Path], stream: Path, capture: Capture) -> Path:
    if len(paths) != 1 or capture != Capture.PICTURE:
        raise InputError(
            f"{stream} takes one picture",
            expected="one page, and its picture alone; or a folder",
            actual=f"{len(paths)} pages" if len(paths) != 1 else "a picture and what was measured",
        )
    return paths[0]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be used as a folder for output", expected="a writable folder", actual=error.strerror
        ) from error


def _plan(paths: Iterable[Path], out_dir: Path, capture: Capture, existing: Existing) -> list[_Job]:
    suffixes = [".png"] * bool(capture & Capture.PICTURE) + [".json"] * bool(capture & MEASURED)
    jobs = []
    taken: dict[str, Path] = {}
    for source in paths:
        outputs = tuple(out_dir / f"{source.stem}{suffix}" for suffix in suffixes)
        settled = None
        first = taken.setdefault(source.stem, source)
        if first != source:
            problem = f"{source} would be written over the rendering of {first}"
            settled = _failed(source, InputError(problem, hint="give one of them another name or folder"))
        elif existing is Existing.KEEP and all(output.exists() for output in outputs):
            settled = FileResult(source=source, status=FileStatus.SKIPPED, outputs=outputs)
        jobs.append(_Job(source=source, outputs=outputs, settled=settled))
    return jobs


def _run(
    jobs: list[_Job], renderer: Renderer, capture: Capture, assets_of: Callable[[Path], Assets | None]
) -> Iterator[FileResult]:
    """Results in the order of `jobs`; files are read only as rendering gets to them."""
    settled = {index: job.settled for index, job in enumerate(jobs) if job.settled is not None}
    in_flight: deque[int] = deque()

    def contents() -> Iterator[HtmlFile]:
        for index, job in enumerate(jobs):
            if index in settled:
                continue
            try:
                assets = assets_of(job.source)
                with open_input(job.source) as file:
                    content = file.read()
            except InputError as error:
                settled[index] = _failed(job.source, error)
                continue
            except OSError as error:
                problem = InputError(f"{job.source} cannot be read", actual=error.strerror)
                settled[index] = _failed(job.source, problem)
                continue
            in_flight.append(index)
            yield HtmlFile(html=content, assets=assets)

    following = 0
    for page in renderer.render_many(contents(), capture):
        index = in_flight.popleft()
        settled[index] = _write(jobs[index], page)
        while following in settled:
            yield settled[following]
            following += 1
    yield from (settled[index] for index in range(following, len(jobs)))


def _write(job: _Job, page: Page | RenderError) -> FileResult:
    if isinstance(page, RenderError):
        return _failed(job.source, page)
    try:
        for output in job.outputs:
            write_atomic(output, _as_json(page) if output.suffix == ".json" else page.png)
    except OSError as error:
        return _failed(job.source, InputError(f"{error.filename} cannot be written", actual=error.strerror))
    return FileResult(source=job.source, status=FileStatus.RENDERED, outputs=job.outputs, notes=page.notes)


def _failed(source: Path, error: LensmithError) -> FileResult:
    return FileResult(source=source, status=FileStatus.FAILED, error=error)


def _as_json(page: Page) -> bytes:
    record = {
        "width_px": page.width_px,
        "height_px": page.height_px,
        "notes": [asdict(note) for note in page.notes],
        "texts": [{"text": block.text, "box": _numbers(block.box), "colour": block.colour} for block in page.texts],
        "elements": [{"tag": element.tag, "box": _numbers(element.box)} for element in page.elements],
        "chars": [{"char": char.char, "box": _numbers(char.box)} for char in page.chars],
    }
    return json.dumps(record, ensure_ascii=False, indent=1).encode()


def _numbers(box: Box) -> list[float]:
    return [round(value, 3) for value in box]
