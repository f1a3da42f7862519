"""The published attack on the interface that it was published for: token texts, a bias by id, top logprobs after it.

Widths of made-up models (a vocabulary of 2,000, RMSNorm) behind a server that tells no ids, over HTTP: the probe, the
names of tokens and the matrix, all counted. Beside them stand the queries that the same matrix takes at the 0.25 a
logit of Carlini et al. (arXiv 2403.06634, their table, top-5 and the reference token), and the price of both by the
list price of babbage-002; their abstract names 20 dollars for the whole last layer of ada (1024) or babbage (2048).

    python -m benchmarks.text_only [--quick]
"""

import argparse
import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from lensmith.audit.findings.finding import Cost, ReadOut
from lensmith.audit.querying.config import SessionConfig
from lensmith.audit.querying.meter import Budget
from lensmith.audit.querying.price import load_prices, with_price
from lensmith.audit.session import open_session
from lensmith.audit.stages.width import WidthFound, find_width
from lensmith.core.exposure import Exposure, Taken
from lensmith.endpoints.fake.endpoint import FakeEndpoint
from lensmith.endpoints.fake.server import FakeServer
from lensmith.endpoints.http.client import HttpClient

VOCABULARY = 2_000
MODEL_OF_PRICE = "babbage-002"
MOST_QUERIES = 20_000
PAPER_QUERIES_A_LOGIT = 0.25


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model's width: what was found, and what it took."""

    top: int
    width: int
    found: str
    spent: Cost
    paper_queries: int
    seconds: float

    def __str__(self) -> str:
        spent = self.spent
        paper_usd = spent.usd / spent.queries * self.paper_queries
        return (
            f"| {self.top} | {self.width} | {self.found} | {spent.queries:,} | {spent.tokens:,} | {spent.usd:.3f} "
            f"| {self.paper_queries:,} | {paper_usd:.3f} | {self.seconds:.0f} |"
        )


def measure(width: int, top: int) -> Row:
    """One width through P3."""
    endpoint = FakeEndpoint(
        vocabulary=VOCABULARY,
        width=width,
        seed=width,
        exposes=Exposure(top_logprobs=top, logprobs_taken=Taken.AFTER_BIAS),
    )
    began = time.monotonic()
    with (
        FakeServer(endpoint, dialect="compatible") as url,
        HttpClient(url, "fake") as client,
        tempfile.TemporaryDirectory() as folder,
    ):
        budget = Budget(queries_per_s=None, max_queries=MOST_QUERIES, max_tokens=None)
        config = SessionConfig(target=url, model="fake", folder=Path(folder), budget=budget)
        with open_session(client, config, config.header(), texts=client.vocabulary) as session:
            stage = session.whole_stage()
            outcome = find_width(stage, ReadOut.P3)
            spent = stage.meter.spent
    has_width = isinstance(outcome, WidthFound)
    logits = outcome.estimate.contexts * outcome.estimate.tokens if has_width else 0
    return Row(
        top=top,
        width=width,
        found=str(outcome.width or outcome.interval) if has_width else f"unresolved: {outcome.reason}",
        spent=with_price(spent, load_prices().of(MODEL_OF_PRICE)),
        paper_queries=math.ceil(PAPER_QUERIES_A_LOGIT * logits),
        seconds=time.monotonic() - began,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Widths through token texts, with their queries and prices.")
    parser.add_argument("--quick", action="store_true", help="two small widths")
    quick = parser.parse_args().quick
    print("| top | width | found | queries | tokens | USD | at 0.25 queries a logit | USD | s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for top in (20, 5):
        for width in (64, 128) if quick else (64, 128, 256, 512, 768):
            print(measure(width, top), flush=True)


if __name__ == "__main__":
    main()
