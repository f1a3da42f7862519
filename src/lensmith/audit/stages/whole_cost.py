"""What the whole last layer costs through each read-out: as it was paid, where it was read; else worked out.

Working out takes the number of contexts and the queries a logit of the width that was read, where one was; what the
readers expect before anything was read stands in for the rest.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from lensmith.audit.findings.finding import Finding, FindingKind
from lensmith.audit.querying.price import CONTEXTS_PER_WIDTH, extrapolated, total
from lensmith.audit.readouts.choose import reader_for
from lensmith.audit.stages.stage import AuditStage
from lensmith.audit.stages.width import WidthFound, WidthOutcome, WidthUnresolved

ASSUMED_WIDTH = 4_096
ASSUMED_VOCABULARY = 128_000
"""For extrapolating where nothing is known: a common model of 7 billion parameters."""


def after(earlier: Sequence[Finding], finding: Finding) -> Finding:
    """The finding with what the whole of it takes: what the ones took that it builds on, and its own."""
    return replace(finding, whole=total(part.spent for part in (*earlier, finding)))


def with_whole_costs(stage: AuditStage, findings: Sequence[Finding], width: WidthOutcome) -> list[Finding]:
    """The findings, each leak with what the whole last layer takes through it."""
    layer = next((finding for finding in findings if finding.kind is FindingKind.LAYER), None)
    return [
        _with_whole_cost(stage, finding, width, layer)
        if finding.kind is FindingKind.LEAK and finding.whole is None and finding.spent.queries
        else finding
        for finding in findings
    ]


def _with_whole_cost(stage: AuditStage, leak: Finding, width: WidthOutcome, layer: Finding | None) -> Finding:
    """The width is the one found, else the least that is proven, else an assumed one, as the evidence then says."""
    read_out = leak.read_out
    if layer is not None and layer.read_out is read_out:
        return replace(leak, whole=layer.whole)
    known = width.at_least if isinstance(width, WidthUnresolved) else width.width or (width.interval or (0, 0))[1]
    hidden = known or ASSUMED_WIDTH
    vocabulary = stage.probed.vocabulary_size or ASSUMED_VOCABULARY
    rows = max(math.ceil(CONTEXTS_PER_WIDTH * hidden), width.rows if isinstance(width, WidthFound) else 0)
    queries = reader_for(read_out, stage.probed).queries_for(rows, vocabulary).queries
    evidence = {**leak.evidence, "whole_is": f"the last layer, {rows} contexts x {vocabulary} tokens"}
    if not known:
        evidence["assumed_width"] = hidden
    paid = leak.spent
    if isinstance(width, WidthFound) and width.read_out is read_out:
        paid = width.finding.spent
        # What the width's matrix took, as a part of what its reader expected, is what the rest will take of it.
        expected = reader_for(read_out, stage.probed).queries_for(width.rows, width.columns + 1).queries
        queries = max(paid.queries, math.ceil(queries * (paid.queries / max(1, expected))))
    return replace(leak, whole=extrapolated(paid, queries, stage.price), evidence=evidence)
