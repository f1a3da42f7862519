"""How exactly, and for how many requests, logits are read through each narrow interface, beside the paper's table.

The paper: Carlini et al., *Stealing Part of a Production Language Model* (arXiv 2403.06634), table of attacks. The
distributions are SmolLM2-135M's (real texts, its whole vocabulary of 49152), told as a float32 server tells them:
logits, bias and log-softmax in float32, no rounding where none is named. A sample of tokens is read.

Bits = log2((max - min of the true float64 logits) / root-mean-square error), the median error being taken out, since
rows are known up to a constant. The paper's exact definition of bits could not be checked, so the error in nats and the
bias stand beside it, and its own ways run on the same data: the bias of -1 for a single top logprob; binary search and
the simultaneous search as our races with their numbers, which start from the same fitted population as ours. Requests
count everything: the base request of a row, checks, repeats.

    python -m benchmarks.readouts [--quick] [--json]
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.readout_data import Float32Server, TrueLogits, true_logits
from lensmith.audit.findings.finding import Cost
from lensmith.audit.readouts.base import LogitReader, Prior, Reading
from lensmith.audit.readouts.greedy import GreedyReader
from lensmith.audit.readouts.top_bias import SingleTopReader, TopBiasReader
from lensmith.core.arrays import IdArray
from lensmith.core.endpoint import Request

SEED = 0
FLOAT32_TOP_NATS = 1e-7
EIGHTEEN_BITS = 2.0**-18.2  # a little more than 18, so that what is reached is not less


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Median, lowest and highest over the texts."""

    median: float
    lowest: float
    highest: float


@dataclass(frozen=True, kw_only=True)
class Paper:
    """A row of the paper's table."""

    name: str
    bits: float
    queries: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way to read: its precision and price, and the row of the paper that it stands against."""

    returns: str
    name: str
    bits: Spread
    rms_nats: Spread
    queries: Spread
    bias: str
    tokens: int
    unread: int
    paper: Paper | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """One run."""

    texts: int
    seconds: float
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class Known:
    """What may be known of a row: the columns in other texts; or, as from a learned image, each logit to about 1 nat.

    The second is made from the true row and noise of a standard deviation of 1.
    """

    other_texts: Prior
    to_one_nat: Prior


@dataclass(frozen=True, kw_only=True)
class Way:
    """A reader to measure, made for one text; on how many tokens; against which row of the paper."""

    returns: str
    name: str
    bias: str
    reader: Callable[[Known, float], LogitReader]
    paper: Paper | None = None
    part: float = 1.0
    decimals: int | None = None


TOP_5 = Paper(name="logprob-4", bits=23.0, queries=0.25)
TOP_1 = Paper(name="logprob-1", bits=6.1, queries=1.0)
BINARY = Paper(name="binary search", bits=7.2, queries=10.0)
RECTANGLE = Paper(name="hyperrectangle", bits=15.7, queries=5.4)
ONE_OF_N = Paper(name="one of n", bits=18.0, queries=3.7)


def ways() -> list[Way]:
    """What is measured. A reader is made from what is known before and the row's range in nats."""
    return [
        Way(
            returns="top-5",
            name="reference token, own bias a column",
            bias="prior + 4 spreads",
            reader=lambda known, _: TopBiasReader(top=5, prior=known.other_texts),
            paper=TOP_5,
            part=4.0,
        ),
        Way(
            returns="top-5",
            name="reference token, bias 40 for all",
            bias="40",
            reader=lambda _, __: TopBiasReader(top=5),
            paper=TOP_5,
            part=4.0,
        ),
        Way(
            returns="top-1",
            name="the paper's bias of -1",
            bias="-1",
            reader=lambda _, __: MinusOneReader(),
            paper=TOP_1,
        ),
        Way(
            returns="top-1",
            name="tie-seeking",
            bias="ties",
            reader=lambda _, __: SingleTopReader(logprob_error_nats=FLOAT32_TOP_NATS, accept_nats=1e-5),
            paper=TOP_1,
        ),
        Way(
            returns="top-1",
            name="tie-seeking to the last bit",
            bias="ties",
            reader=lambda _, __: SingleTopReader(logprob_error_nats=FLOAT32_TOP_NATS, accept_nats=5e-7),
            paper=TOP_1,
        ),
        Way(
            returns="top-1, 4 decimals",
            name="tie-seeking",
            bias="ties",
            reader=lambda _, __: SingleTopReader(logprob_error_nats=3e-5, accept_nats=5e-4),
            decimals=4,
        ),
        Way(
            returns="none",
            name="binary search",
            bias="1 id",
            reader=lambda _, span: GreedyReader.binary(target_nats=span * 2.0**-13),
            paper=BINARY,
            part=0.1,
        ),
        Way(
            returns="none",
            name="simultaneous search",
            bias="300 ids",
            reader=lambda _, span: GreedyReader.simultaneous(target_nats=span * 2.0**-15.7),
            paper=RECTANGLE,
        ),
        Way(
            returns="none",
            name="races to 18 bits, 1 expected to win",
            bias="300 ids",
            reader=lambda _, span: GreedyReader(target_nats=span * EIGHTEEN_BITS, expected_over=1.0),
            paper=ONE_OF_N,
        ),
        Way(
            returns="none",
            name="races to 18 bits",
            bias="300 ids",
            reader=lambda _, span: GreedyReader(target_nats=span * EIGHTEEN_BITS),
            paper=ONE_OF_N,
        ),
        Way(
            returns="none",
            name="races to 18 bits, prior of other texts",
            bias="300 ids",
            reader=lambda known, span: GreedyReader(target_nats=span * EIGHTEEN_BITS, prior=known.other_texts),
            paper=ONE_OF_N,
        ),
        Way(
            returns="none",
            name="races to 18 bits, logits known to 1 nat",
            bias="300 ids",
            reader=lambda known, span: GreedyReader(target_nats=span * EIGHTEEN_BITS, prior=known.to_one_nat),
            paper=ONE_OF_N,
        ),
        Way(
            returns="none",
            name="races to 18 bits, 64 ids",
            bias="64 ids",
            reader=lambda _, span: GreedyReader(target_nats=span * EIGHTEEN_BITS, biased_ids=64),
            paper=ONE_OF_N,
        ),
        Way(
            returns="none",
            name="races, 3.7 requests a logit",
            bias="300 ids",
            reader=lambda _, __: GreedyReader(target_nats=1e-9, most_queries=3.69),
            paper=ONE_OF_N,
        ),
    ]


class MinusOneReader:
    """The paper's way with a single top logprob (section 5.4): p = (e^(y - y') - 1) / (1/e - 1), bias -1."""

    read_out = SingleTopReader.read_out

    def read(self, endpoint: Float32Server, contexts: list[Request], token_ids: IdArray) -> Reading:
        base = [replace(context, max_tokens=1, temperature=0.0, top_logprobs=1) for context in contexts]
        tops_N = np.array([_top(answer) for answer in endpoint.answer(base)])
        biased = [replace(each, logit_bias={int(token_id): -1.0}) for each in base for token_id in token_ids]
        told_NM = np.array([_top(answer) for answer in endpoint.answer(biased)]).reshape(len(contexts), -1)
        chance_NM = np.expm1(tops_N[:, None] - told_NM) / np.expm1(-1.0)
        # A probability that vanishes in rounding is set to the smallest that can be seen, which flatters this way.
        logits_NM = np.log(np.maximum(chance_NM, 1e-8))
        spent = Cost(queries=len(base) + len(biased))
        return Reading(logits_NM=logits_NM, token_ids_M=token_ids, top_N=tops_N, resolution_nats=1.0, spent=spent)

    def queries_for(self, rows: int, columns: int, *, context_tokens: int = 0) -> Cost:
        return Cost(queries=rows * (columns + 1))


def _top(answer: object) -> float:
    return float(answer.choices[0].logprobs.top_TK[0, 0])  # type: ignore[attr-defined]  # a server of this file


def measure(data: TrueLogits, way: Way, *, texts: int, tokens: int) -> Row:
    """One way on some texts."""
    server = Float32Server(data.measured_NV[:texts], decimals=way.decimals)
    count = max(int(tokens * way.part), 50)
    ids = np.sort(np.random.default_rng(SEED).choice(data.measured_NV.shape[1], size=count, replace=False))
    prior = prior_of(data.known_NV, ids)
    bits, rms, queries, unread = [], [], [], 0
    for row in range(texts):
        true_V = data.measured_NV[row]
        span = float(true_V.max() - true_V.min())
        before = server.queries
        known = Known(other_texts=prior, to_one_nat=one_nat_prior(true_V, ids, row))
        reading = way.reader(known, span).read(server, [Request(token_ids=(row,))], ids)
        error_M = reading.logits_NM[0] - true_V[ids]
        read_M = np.isfinite(error_M)
        error_M = error_M[read_M] - np.median(error_M[read_M])
        rms.append(float(np.sqrt((error_M**2).mean())))
        bits.append(float(np.log2(span / rms[-1])))
        queries.append((server.queries - before) / len(ids))
        unread += int((~read_M).sum())
    return Row(
        returns=way.returns,
        name=way.name,
        bits=_spread(bits),
        rms_nats=_spread(rms),
        queries=_spread(queries),
        bias=way.bias,
        tokens=len(ids),
        unread=unread,
        paper=way.paper,
    )


def prior_of(known_NV: NDArray[np.float32], ids: IdArray) -> Prior:
    """What other texts say of each column."""
    known = known_NV.astype(np.float64)
    learned = Reading(
        logits_NM=known[:, ids],
        token_ids_M=ids,
        top_N=known.max(axis=1),
        resolution_nats=1e-6,
        spent=Cost(queries=0),
    )
    return Prior.from_rows(learned)


def one_nat_prior(true_V: NDArray[np.float64], ids: IdArray, seed: int) -> Prior:
    """The row itself with an error of 1 nat."""
    noise_M = np.random.default_rng([SEED, seed]).standard_normal(len(ids))
    return Prior(mean_M=true_V[ids] - true_V.max() + noise_M, spread_M=np.ones(len(ids)))


def _spread(values: list[float]) -> Spread:
    return Spread(median=statistics.median(values), lowest=min(values), highest=max(values))


def as_table(report: Report) -> str:
    lines = [
        f"{report.texts} texts, {report.seconds:.0f} s; median (lowest..highest) over the texts",
        f"{'returns':18} {'way':40} {'bits':>20} {'rms, nats':>10} {'requests/logit':>20} "
        f"{'bias':18} {'tokens':>6}  paper: bits @ requests",
    ]
    return "\n".join([*lines, *map(_line, report.rows)])


def _line(row: Row) -> str:
    paper = "" if row.paper is None else f"{row.paper.bits:.1f} @ {row.paper.queries:g} ({row.paper.name})"
    unread = f", {row.unread} unread" if row.unread else ""
    return (
        f"{row.returns:18} {row.name:40} {_text(row.bits, 1):>20} {row.rms_nats.median:10.1e} "
        f"{_text(row.queries, 3):>20} {row.bias:18} {row.tokens:6}  {paper}{unread}"
    )


def _text(spread: Spread, digits: int) -> str:
    return f"{spread.median:.{digits}f} ({spread.lowest:.{digits}f}..{spread.highest:.{digits}f})"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readouts", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2 texts and 500 tokens instead of 8 and 2000")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    texts, tokens = (2, 500) if options.quick else (8, 2000)
    data = true_logits()
    started = time.perf_counter()
    rows = []
    for way in ways():
        rows.append(measure(data, way, texts=texts, tokens=tokens))
        print(_line(rows[-1]), file=sys.stderr, flush=True)
    report = Report(texts=texts, seconds=time.perf_counter() - started, rows=tuple(rows))
    print(json.dumps(asdict(report), indent=1) if options.json else as_table(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
