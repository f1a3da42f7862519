"""Our computation of Design2Code's terms beside its authors' own code: the same pages, the numbers and the speed.

Both sides score the same pairs in one run, each pair by ours and then by theirs, on two cores and with the same
browser. Ours begins with a browser that is not started; CLIP is left out on both sides. A third way is our own score by
geometry (what `lensmith eval html` gives): how far it is from Design2Code's, and how alike the two rank the pairs, both
over the pairs that have a match there.

    python -m benchmarks.design2code --original DIR --original-python PATH [--pages FOLDER] [--quick] [--json]

Without `--original`, ours runs alone, and it is said how to get the other.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from scipy.stats import spearmanr

from benchmarks.cores import CORES, keep_to_cores
from benchmarks.design2code_original import HOW_TO_GET_IT, OriginalScore, original_scores
from benchmarks.design2code_pairs import PagePair, make_pairs
from lensmith.core.errors import RenderError
from lensmith.evaluate.visual.design2code.score import WINDOW, Design2CodeScore, score_pairs
from lensmith.evaluate.visual.score import VisualScore, score_pages
from lensmith.render import Capture, Renderer

TERMS = ("block_match", "text", "position", "colour")
TOLERANCE = 0.01
AIM_SHARE, AIM_SPEED = 0.95, 20.0

Terms = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One pair: the four terms by the original's code (None where it stopped), by ours, and by geometry."""

    name: str
    change: str
    original: Terms | None
    ours: Terms
    geometry: Terms
    original_s: float
    ours_s: float
    error: str = ""

    @property
    def difference(self) -> float:
        """The largest of the four; 1 where the original's code stopped."""
        if self.original is None:
            return 1.0
        return max(abs(a - b) for a, b in zip(self.original, self.ours, strict=True))


@dataclass(frozen=True, kw_only=True)
class Report:
    """One run. `geometry_off`: mean distance of each term by geometry from the original's. `rank`: Spearman's, of the
    two's means."""

    cores: int
    browser: str
    pairs: tuple[Compared, ...]
    within: float
    speed: float
    speed_low: float
    speed_high: float
    matched: int
    geometry_off: dict[str, float]
    rank: float

    @property
    def is_within_limits(self) -> bool:
        return self.within >= AIM_SHARE and self.speed >= AIM_SPEED


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.design2code", description=__doc__.splitlines()[0])
    parser.add_argument("--original", type=Path, help="a checkout of github.com/NoviScl/Design2Code at 7a575e4c")
    parser.add_argument("--original-python", type=Path, default=Path(sys.executable), help="a Python with its packages")
    parser.add_argument("--pages", type=Path, help="a folder of real pages, used as targets too")
    parser.add_argument("--quick", action="store_true", help="10 pairs instead of 50")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    keep_to_cores()
    pairs = make_pairs(10 if options.quick else 50, options.pages)
    if options.original is None:
        scored = list(ours(pairs))
        mean = statistics.mean(score.four_term_mean for score, _ in scored)
        print(f"{len(pairs)} pairs in {sum(seconds for _, seconds in scored):.1f} s, mean of the four terms {mean:.3f}")
        print(f"to compare with the original's code: {HOW_TO_GET_IT}", file=sys.stderr)
        return 0
    report = measure(pairs, options.original, options.original_python)
    print(json.dumps(asdict(report), indent=1) if options.json else as_table(report))
    return 0 if report.is_within_limits else 1


def measure(pairs: Sequence[PagePair], checkout: Path, python: Path) -> Report:
    """All three ways on all pairs."""
    by_geometry = geometry(pairs)
    compared = []
    theirs = original_scores(pairs, checkout.resolve(), python.absolute())
    for pair, (score, ours_s), other, original in zip(pairs, ours(pairs), by_geometry, theirs, strict=True):
        compared.append(_compared(pair, score, ours_s, other, original))
        print(f"{len(compared)} of {len(pairs)}: {_row(compared[-1])}", file=sys.stderr, flush=True)
    matched = [(one.original, one.geometry) for one in compared if one.original is not None and any(one.original)]
    ratios = [one.original_s / one.ours_s for one in compared]
    with Renderer(WINDOW) as renderer:
        browser = renderer.version()
    return Report(
        cores=CORES,
        browser=browser,
        pairs=tuple(compared),
        within=sum(one.difference <= TOLERANCE for one in compared) / len(compared),
        speed=sum(one.original_s for one in compared) / sum(one.ours_s for one in compared),
        speed_low=min(ratios),
        speed_high=max(ratios),
        matched=len(matched),
        geometry_off={
            term: statistics.mean(abs(a[place] - b[place]) for a, b in matched) for place, term in enumerate(TERMS)
        },
        rank=float(spearmanr(*([statistics.mean(pair[side]) for pair in matched] for side in (0, 1))).statistic),
    )


def ours(pairs: Sequence[PagePair]) -> Iterator[tuple[Design2CodeScore, float]]:
    """The score and the seconds of each pair as it is asked for; those of the first include the browser's start."""
    with Renderer(WINDOW) as renderer:
        for pair in pairs:
            began = time.perf_counter()
            (score,) = score_pairs([(pair.target, pair.prediction)], renderer)
            seconds = time.perf_counter() - began
            if isinstance(score, RenderError):
                raise score
            yield score, seconds


def geometry(pairs: Sequence[PagePair]) -> list[VisualScore]:
    with Renderer(WINDOW) as renderer:
        return [
            score_pages(
                renderer.render(pair.target, Capture.PICTURE | Capture.TEXTS),
                renderer.render(pair.prediction, Capture.PICTURE | Capture.TEXTS),
            )
            for pair in pairs
        ]


def _compared(
    pair: PagePair, score: Design2CodeScore, ours_s: float, other: VisualScore, original: OriginalScore
) -> Compared:
    return Compared(
        name=pair.name,
        change=pair.change,
        original=original.terms,
        ours=tuple(getattr(score, term) for term in TERMS),
        geometry=tuple(getattr(other, term) for term in TERMS),
        original_s=original.seconds,
        ours_s=ours_s,
        error=original.error,
    )


def as_table(report: Report) -> str:
    lines = [
        f"Design2Code's four terms, {len(report.pairs)} pairs, {report.cores} cores, {report.browser}",
        f"{'':41}{'':18}{'original':>25}{'ours':>25}{'there s':>10}{'here s':>8}",
    ]
    lines += [_row(one) for one in report.pairs]
    off = ", ".join(f"{term} {value:.3f}" for term, value in report.geometry_off.items())
    lines += [
        f"within {TOLERANCE} in all four terms: {report.within:.0%} of pairs, aim {AIM_SHARE:.0%} (stars: others)",
        f"time in all: {report.speed:.1f} times less (of a pair {report.speed_low:.0f} to {report.speed_high:.0f}), "
        f"aim {AIM_SPEED:.0f}",
        f"geometry, {report.matched} pairs with a match: mean distance {off}; rank correlation {report.rank:.3f}",
    ]
    return "\n".join(lines)


def _row(one: Compared) -> str:
    mark = " " if one.difference <= TOLERANCE else "*"
    there = one.error[:24] if one.original is None else _shown(one.original)
    seconds = f"{one.original_s:10.1f}{one.ours_s:8.2f}"
    return f"{mark}{one.name:40}{one.change:18}{there:>25}{_shown(one.ours):>25}{seconds}"


def _shown(terms: Terms) -> str:
    return " ".join(f"{term:.3f}" for term in terms)


if __name__ == "__main__":
    sys.exit(main())
