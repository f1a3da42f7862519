"""What the whole last layer costs through each read-out: as it was paid, where it was read; else worked out.

Working out takes the number of contexts and the queries a logit of the width that was read, where one was; what the
readers expect before anything was read stands in for the rest.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from lensmith.audit.findings import Cost, Finding, ReadOut
from lensmith.audit.price import CONTEXTS_PER_WIDTH, extrapolated
from lensmith.audit.reader_choice import reader_for
from lensmith.audit.stages import Stage, WidthOutcome

WHOLE_IS = "whole_is"
ASSUMED_WIDTH = 4_096
ASSUMED_VOCABULARY = 128_000
"""For extrapolating where nothing is known: a common model of 7 billion parameters."""


def with_whole_costs(stage: Stage, findings: Sequence[Finding], width: WidthOutcome) -> list[Finding]:
    """The findings, each leak with what the whole last layer takes through it."""
    layer = next((finding for finding in findings if finding.code == "LAYER"), None)
    return [_with_whole_cost(stage, finding, width, layer) for finding in findings]


def _with_whole_cost(stage: Stage, finding: Finding, width: WidthOutcome, layer: Finding | None) -> Finding:
    """The width is the one found, else the least that is proven, else an assumed one, as the evidence then says."""
    read_out = finding.read_out
    if read_out is None or not finding.code.startswith("LEAK") or not finding.spent.queries:
        return finding
    if WHOLE_IS in finding.evidence:
        return finding
    if layer is not None and layer.read_out is read_out:
        return replace(finding, whole=layer.whole)
    known = width.width or (width.interval or (0, 0))[1] or width.at_least
    hidden = known or ASSUMED_WIDTH
    vocabulary = stage.probed.vocabulary_size or ASSUMED_VOCABULARY
    rows = max(math.ceil(CONTEXTS_PER_WIDTH * hidden), 0 if width.finding is None else width.rows)
    queries = reader_for(read_out, stage.probed).queries_for(rows, vocabulary).queries
    evidence = {**finding.evidence, WHOLE_IS: f"the last layer, {rows} contexts x {vocabulary} tokens"}
    if not known:
        evidence["assumed_width"] = hidden
    paid = finding.spent
    if width.finding is not None and width.read_out is read_out:
        paid = width.finding.spent
        queries = max(paid.queries, math.ceil(queries * _paid_share(stage, read_out, width, paid)))
    return replace(finding, whole=extrapolated(paid, queries, stage.price), evidence=evidence)


def _paid_share(stage: Stage, read_out: ReadOut, width: WidthOutcome, paid: Cost) -> float:
    """What the width's matrix took, as a part of what its reader expected."""
    expected = reader_for(read_out, stage.probed).queries_for(width.rows, width.columns + 1).queries
    return paid.queries / max(1, expected)
