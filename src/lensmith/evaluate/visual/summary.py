"""Many pages' scores as one: each metric's mean and standard error, ready for a table or `--json`."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from lensmith.core.errors import InputError
from lensmith.evaluate.stats import MeanEstimate, estimate_mean
from lensmith.evaluate.visual.picture_score import PictureScore
from lensmith.evaluate.visual.score import VisualScore

Score = VisualScore | PictureScore


@dataclass(frozen=True, kw_only=True)
class VisualSummary:
    """Scores of `n` pages. `metrics` holds every field of the score and `overall`, in that order.

    A metric that no page has (pixel similarity without pictures) is left out; one that only some have is the mean over
    those, and says so in its own `n`.
    """

    n: int
    metrics: dict[str, MeanEstimate]

    def to_dict(self) -> dict[str, object]:
        """Plain numbers for JSON."""
        return {"n": self.n, "metrics": {name: estimate.to_dict() for name, estimate in self.metrics.items()}}


def summarise(scores: Sequence[Score], *, confidence: float = 0.95) -> VisualSummary:
    """The summary of scores of one kind. Pages that failed to render belong in it, as `of_failure()`."""
    if not scores:
        raise InputError("no scores to sum up", expected="at least one page", actual=0)
    kinds = {type(score) for score in scores}
    if len(kinds) > 1:
        raise InputError(
            "scores of different kinds cannot be averaged", actual=", ".join(sorted(kind.__name__ for kind in kinds))
        )
    names = [field.name for field in fields(scores[0])] + ["overall"]
    columns = {name: [getattr(score, name) for score in scores] for name in names}
    known = {name: [value for value in column if value is not None] for name, column in columns.items()}
    return VisualSummary(
        n=len(scores),
        metrics={name: estimate_mean(values, confidence=confidence) for name, values in known.items() if values},
    )
