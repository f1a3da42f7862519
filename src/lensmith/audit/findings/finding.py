"""What an audit says: findings with their evidence, price and cure, and one verdict over all of them.

A finding is a fact about the interface, never a guess: what could not be resolved is said to be so, and a figure that
was extrapolated from a small block is marked as extrapolated.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SCHEMA_VERSION = 1


class Severity(enum.IntEnum):
    """How much an interface gives away."""

    INFO = 0
    """A capability, noted; it leaks nothing by itself."""
    LOW = 1
    """A signature or a fact about the model, which lets a customer recognise it."""
    MEDIUM = 2
    """A read-out that works; the attack was proven on a small block and not completed."""
    HIGH = 3
    """The model's width was found, or its image was learned."""
    CRITICAL = 4
    """Its last layer was recovered, or can be within the budget."""


class FindingKind(enum.Enum):
    """What a finding is about."""

    METADATA = "META"
    LEAK = "LEAK"
    """A read-out that reads logits."""
    WIDTH = "WIDTH"
    IMAGE = "IMAGE"
    LAYER = "LAYER"
    """Up to a linear map."""
    ROTATION = "ROTATION"
    """The layer up to a rotation."""


class ReadOut(enum.Enum):
    """The ways to read logits through an interface, with what each is. The numbers are names that reports keep: a new
    one takes the next free, whatever it costs (`YIELDS` in `audit/probe/capabilities.py` says that)."""

    title: str

    P0 = "P0", "metadata, embeddings or hidden states"
    P1 = "P1", "logprobs of the whole vocabulary"
    P2 = "P2", "logprobs of chosen token ids"
    P3 = "P3", "top logprobs that a bias moves"
    P4A = "P4a", "the true logprob of a token forced by a bias"
    P4B = "P4b", "the true logprob of a token forced by an allow-list or a grammar"
    P5 = "P5", "logprobs of the prompt's tokens (echo)"
    P6 = "P6", "the single top logprob, moved by a bias"
    P7 = "P7", "the greedy token, steered by a bias"
    P8 = "P8", "the order of the top tokens"
    P9 = "P9", "text alone"

    def __new__(cls, value: str, title: str) -> "ReadOut":
        read_out = object.__new__(cls)
        read_out._value_, read_out.title = value, title
        return read_out


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What something takes. `usd` by the price list in use. `extrapolated`: computed from a block, not spent."""

    queries: int
    tokens: int = 0
    seconds: float = 0.0
    usd: float = 0.0
    extrapolated: bool = False


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that the interface gives away.

    `read_out`: through which it was found. `was_read` says what was read, in a sentence with its figures; `evidence`
    holds the figures as JSON values. `spent` is what this audit paid, `whole` what the complete attack would cost.
    `cure` is an exact server setting, `retest` the command that checks it.
    """

    kind: FindingKind
    title: str
    severity: Severity
    read_out: ReadOut
    was_read: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    spent: Cost = field(default_factory=lambda: Cost(queries=0))
    whole: Cost | None = None
    cure: str = ""
    retest: str = ""

    @property
    def code(self) -> str:
        """What reports call it; stable over versions: `WIDTH`, `LEAK-P1`."""
        return f"{self.kind.value}-{self.read_out.value}" if self.kind is FindingKind.LEAK else self.kind.value


class Verdict(enum.Enum):
    """What all findings come to, and so the exit status of `lensmith audit`."""

    CLEAN = "clean"
    FINDINGS = "findings"
    COULD_NOT_TELL = "could not tell"

    @property
    def exit_code(self) -> int:
        return {Verdict.CLEAN: 0, Verdict.FINDINGS: 1, Verdict.COULD_NOT_TELL: 3}[self]


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """One audit of one endpoint.

    `capabilities` maps a probe's name to what it found, as JSON values. `singular_values` are those of the matrix that
    the width was read from, largest first; `width` is None where nothing was resolved, and `width_note` says why.
    `unresolved` lists, in sentences, what the audit could not tell. `only_read_outs`: those that were tried where the
    audit was restricted to some; empty where all were.
    """

    schema_version: int = SCHEMA_VERSION
    target: str
    model: str
    seed: int
    started_at: str
    seconds: float
    threshold: Severity
    capabilities: Mapping[str, Any]
    findings: tuple[Finding, ...]
    unresolved: tuple[str, ...] = ()
    only_read_outs: tuple[ReadOut, ...] = ()
    width: int | None = None
    width_interval: tuple[int, int] | None = None
    width_note: str = ""
    singular_values: tuple[float, ...] = ()
    spent: Cost

    @property
    def verdict(self) -> Verdict:
        """Findings at or above the threshold count first; then what stayed open; clean only if nothing did."""
        if any(finding.severity >= self.threshold for finding in self.findings):
            return Verdict.FINDINGS
        return Verdict.COULD_NOT_TELL if self.unresolved else Verdict.CLEAN
