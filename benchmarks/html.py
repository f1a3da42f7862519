"""Time and memory of a screenshot's way to a page (`lensmith html --engine layout`), step by step, and by its height.

Pages: of `real:tune`, made by others, as a browser shows them 1280 px wide. For the table of steps, the first 2,000 px
of those that are as high. For the series, all of them one below the other, of which the first so many px are taken.

Each conversion is a process of its own, started cold, on two cores: the reader's weights are loaded within reading, the
browser starts within fitting, and `whole` is that process from its start to its end, imports included. Beside seconds
on the clock stand seconds of both cores together, which others on the machine disturb less: of a step those of Python
and its reader, of the whole also those of the browser. Memory is that of the process and its browser together, looked
at ten times a second: RSS counts what processes share once for each of them, PSS (twice a second) once.

    python -m benchmarks.html [--quick] [--json]
"""

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.cores import CORES, keep_to_cores
from lensmith.core.images import open_picture
from lensmith.layout.measure import LayoutStep
from lensmith.render import RenderConfig, Renderer
from lensmith.workflows.html import Converter
from lensmith.workflows.html.convert import COMPARING
from lensmith.workflows.html.engines import EngineName

WIDTH_PX, HEIGHT_PX = 1280, 2000
MOST_S, AIM_S, MOST_MB = 10.0, 6.0, 1500
LARGEST_RESIDUAL = 0.25
"""Of a straight line through the series: how far, in shares of its value, a conversion may be off it."""
STEPS = (*LayoutStep, COMPARING)
_LOOK_S, _LOOKS_A_PSS = 0.1, 5


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Median, lowest and highest."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(median=statistics.median(values), lowest=min(values), highest=max(values))


@dataclass(frozen=True, kw_only=True)
class Run:
    """One conversion in a process of its own: seconds a step and in all, by the clock and by the cores, memory in MB,
    how alike the page looks."""

    height_px: int
    steps: dict[str, float]
    steps_cpu: dict[str, float]
    whole_s: float
    whole_cpu_s: float
    rss_mb: float
    pss_mb: float
    python_mb: float
    overall: float

    @property
    def conversion_s(self) -> float:
        return sum(self.steps.values())

    @property
    def conversion_cpu_s(self) -> float:
        return sum(self.steps_cpu.values())


@dataclass(frozen=True, kw_only=True)
class Line:
    """A straight line through (height, seconds): where it begins, its slope, the largest distance from it in shares of
    its value; and the power of the height with which the time grows, which is 1 where it is linear."""

    start_s: float
    s_per_1000px: float
    largest_residual: float
    power: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """One run of the benchmark."""

    pages: tuple[str, ...]
    rounds: int
    cores: int
    steps: dict[str, Spread]
    steps_cpu: dict[str, Spread]
    conversion_s: Spread
    conversion_cpu_s: Spread
    whole_s: Spread
    whole_cpu_s: Spread
    rss_mb: Spread
    pss_mb: Spread
    python_mb: Spread
    overall: Spread
    series: tuple[Run, ...]
    line: Line
    cpu_line: Line

    @property
    def is_within_limits(self) -> bool:
        return (
            self.whole_s.median <= MOST_S
            and self.rss_mb.median <= MOST_MB
            and self.line.largest_residual <= LARGEST_RESIDUAL
        )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.html", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2 pages, 1 round, up to 4,000 px")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--worker", type=Path, metavar="PICTURE", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    keep_to_cores()
    if options.worker:
        print(json.dumps(_work(options.worker)))
        return 0
    report = measure(is_quick=options.quick)
    print(json.dumps(asdict(report), indent=1) if options.json else as_table(report))
    return 0 if options.quick or report.is_within_limits else 1


def measure(*, is_quick: bool = False) -> Report:
    """All pages round after round, then the series."""
    count, rounds = (2, 1) if is_quick else (5, 3)
    heights = (1000, 2000, 4000) if is_quick else (1000, 2000, 5000, 10_000, 20_000)
    names, pages, stacked = _screenshots(count, max(heights))
    runs, series = [], []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "page.png"
        for number in range(rounds):
            for name, page in zip(names, pages, strict=True):
                _say(f"round {number + 1} of {rounds}: {name}")
                page.save(place)
                runs.append(_converted(place, page.height))
        for height in heights:
            for _ in range(1 if is_quick else 2):
                _say(f"{height:,} px high")
                stacked.crop((0, 0, stacked.width, height)).save(place)
                series.append(_converted(place, height))
    return Report(
        pages=names,
        rounds=rounds,
        cores=CORES,
        steps={step: Spread.of([run.steps[step] for run in runs]) for step in STEPS},
        steps_cpu={step: Spread.of([run.steps_cpu[step] for run in runs]) for step in STEPS},
        conversion_s=Spread.of([run.conversion_s for run in runs]),
        conversion_cpu_s=Spread.of([run.conversion_cpu_s for run in runs]),
        whole_s=Spread.of([run.whole_s for run in runs]),
        whole_cpu_s=Spread.of([run.whole_cpu_s for run in runs]),
        rss_mb=Spread.of([run.rss_mb for run in runs]),
        pss_mb=Spread.of([run.pss_mb for run in runs]),
        python_mb=Spread.of([run.python_mb for run in runs]),
        overall=Spread.of([run.overall for run in runs]),
        series=tuple(series),
        line=_line_through([run.height_px for run in series], [run.conversion_s for run in series]),
        cpu_line=_line_through([run.height_px for run in series], [run.conversion_cpu_s for run in series]),
    )


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def _screenshots(count: int, height_px: int) -> tuple[tuple[str, ...], list[Image.Image], Image.Image]:
    """Names and first pixels of `count` pages, and pages one below the other, `height_px` high."""
    # Here, because it loads torch, which no conversion by the layout engine does.
    from lensmith.workflows.html.evaluate import FailedPage, target_pages  # noqa: PLC0415

    names, cut, column, filled = [], [], [], 0
    with Renderer(RenderConfig(viewport_width_px=WIDTH_PX)) as renderer:
        for target in target_pages("real:tune", renderer):
            if isinstance(target, FailedPage):
                continue
            picture = Image.open(io.BytesIO(target.page.png)).convert("RGB")
            if picture.height >= HEIGHT_PX and len(cut) < count:
                names.append(target.name)
                cut.append(picture.crop((0, 0, picture.width, HEIGHT_PX)))
            if filled < height_px:
                column.append(picture)
                filled += picture.height
    if len(cut) < count or filled < height_px:
        sys.exit(f"real:tune has {len(cut)} pages that are {HEIGHT_PX:,} px high, and {filled:,} px in all: too few")
    stacked = Image.new("RGB", (WIDTH_PX, filled))
    top = 0
    for picture in column:
        stacked.paste(picture, (0, top))
        top += picture.height
    return tuple(names), cut, stacked


def _line_through(heights: Sequence[int], seconds: Sequence[float]) -> Line:
    slope, start = np.polyfit(heights, seconds, 1)
    expected = start + slope * np.array(heights)
    power, _ = np.polyfit(np.log(heights), np.log(seconds), 1)
    return Line(
        start_s=float(start),
        s_per_1000px=float(1000 * slope),
        largest_residual=float(np.abs(np.array(seconds) / expected - 1).max()),
        power=float(power),
    )


# --- one conversion ---------------------------------------------------------------------------------------------------


def _converted(place: Path, height_px: int) -> Run:
    """Runs a conversion in a process of its own, and looks at its memory meanwhile."""
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.html", "--worker", str(place)], stdout=subprocess.PIPE, text=True
    ) as process:
        rss_kb = pss_kb = looks = 0
        cpu_s: dict[int, float] = {}
        while process.poll() is None:
            members = list(_family(process.pid))
            rss_kb = max(rss_kb, sum(_kb(f"/proc/{each}/status", "VmRSS:") for each in members))
            if looks % _LOOKS_A_PSS == 0:
                pss_kb = max(pss_kb, sum(_kb(f"/proc/{each}/smaps_rollup", "Pss:") for each in members))
            cpu_s |= {each: seconds for each in members if (seconds := _cpu_s(each))}
            looks += 1
            time.sleep(_LOOK_S)
        whole_s = time.perf_counter() - began
        assert process.stdout is not None
        said = process.stdout.read()
    if process.returncode:
        sys.exit(f"the conversion of a page {height_px:,} px high failed")
    told = json.loads(said.splitlines()[-1])
    return Run(
        height_px=height_px,
        steps=told["steps"],
        steps_cpu=told["steps_cpu"],
        whole_cpu_s=sum(cpu_s.values()),
        whole_s=whole_s,
        rss_mb=rss_kb / 1000,
        pss_mb=pss_kb / 1000,
        python_mb=told["peak_kb"] / 1000,
        overall=told["overall"],
    )


def _family(pid: int) -> Iterator[int]:
    """A process and all below it, as far as they are still there."""
    yield pid
    with contextlib.suppress(OSError):
        for task in os.scandir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                for child in Path(task.path, "children").read_text().split():
                    yield from _family(int(child))


def _cpu_s(pid: int) -> float:
    """The seconds of cores that a process took; 0 where it has gone."""
    with contextlib.suppress(OSError, IndexError):
        user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _kb(file: str, field: str) -> int:
    """The number after a name in a file of /proc; 0 where the process has gone."""
    with contextlib.suppress(OSError):
        for line in Path(file).read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1])
    return 0


def _work(place: Path) -> dict[str, Any]:
    """Converts a picture: seconds of each step, this process's highest memory, and how alike the page looks."""
    marks: list[tuple[str, float, float]] = []

    def on_step(step: str) -> None:
        marks.append((step, time.perf_counter(), time.process_time()))

    picture = open_picture(place)
    with Converter.load(engine=EngineName.LAYOUT) as converter:
        best = converter.convert(picture, on_step=on_step).best
        on_step("")
    seconds, seconds_cpu = (dict.fromkeys(STEPS, 0.0) for _ in range(2))
    for (step, clock, cores), (_, later_clock, later_cores) in pairwise(marks):
        seconds[step] += later_clock - clock
        seconds_cpu[step] += later_cores - cores
    return {
        "steps": seconds,
        "steps_cpu": seconds_cpu,
        "peak_kb": _kb("/proc/self/status", "VmHWM:"),
        "overall": 0.0 if best.score is None else best.score.overall,
    }


# --- how it is shown --------------------------------------------------------------------------------------------------


def as_table(report: Report) -> str:
    lines = [
        f"{len(report.pages)} pages of {WIDTH_PX} x {HEIGHT_PX:,} px, {report.rounds} rounds, "
        f"{report.cores} cores; likeness {_shown(report.overall, '.2f')}",
        "",
        f"{'median, range':42}{'s':>8}{'':16}{'s of cores':>12}",
    ]
    rows = {step: (report.steps[step], report.steps_cpu[step]) for step in report.steps}
    rows["conversion"] = (report.conversion_s, report.conversion_cpu_s)
    rows["whole, with the browser"] = (report.whole_s, report.whole_cpu_s)
    for name, (clock, cores) in rows.items():
        lines.append(f"{name:42}{_in_columns(clock)}{_in_columns(cores)}")
    lines += [
        f"  limit {MOST_S:g} s, aim {AIM_S:g} s",
        "",
        f"memory, highest, MB: RSS {_shown(report.rss_mb, '.0f')}, PSS {_shown(report.pss_mb, '.0f')}, "
        f"of Python alone {_shown(report.python_mb, '.0f')}; limit {MOST_MB:,} (RSS)",
        "",
        f"{'height px':>10}{'s':>9}{'a 1,000 px':>12}{'s of cores':>12}{'a 1,000 px':>12}{'RSS MB':>9}{'PSS MB':>9}",
    ]
    for run in report.series:
        cells = (run.conversion_s, 1000 * run.conversion_s / run.height_px)
        cells_cpu = (run.conversion_cpu_s, 1000 * run.conversion_cpu_s / run.height_px)
        lines.append(
            f"{run.height_px:10,}{cells[0]:9.2f}{cells[1]:12.2f}{cells_cpu[0]:12.2f}{cells_cpu[1]:12.2f}"
            f"{run.rss_mb:9.0f}{run.pss_mb:9.0f}"
        )
    for name, line in (("by the clock", report.line), ("by the cores", report.cpu_line)):
        lines.append(
            f"a straight line {name}: {line.start_s:.2f} s + {line.s_per_1000px:.2f} s a 1,000 px, off it by at most "
            f"{line.largest_residual:.0%} (limit {LARGEST_RESIDUAL:.0%}); grows with the height to {line.power:.2f}"
        )
    return "\n".join(lines)


def _in_columns(spread: Spread) -> str:
    return f"{spread.median:8.2f}{f'{spread.lowest:.2f} to {spread.highest:.2f}':>16}"


def _shown(spread: Spread, form: str) -> str:
    return f"{spread.median:{form}} ({spread.lowest:{form}} to {spread.highest:{form}})"


if __name__ == "__main__":
    sys.exit(main())
