"""The races that tokens won, kept because each goes on to bound its tokens while their intervals shrink.

Only the last ones are kept: a race between wide intervals says nothing of narrow ones.
Legend: Q races, E all tokens of all races, one race after the other.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Placement:
    """One race: the tokens in it and their biases, by place in the race's columns."""

    columns_C: NDArray[np.int64]
    biases_C: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class JoinedWins:
    """All kept races as flat arrays: race q has the `sizes_Q[q]` entries from `starts_Q[q]`."""

    columns_E: NDArray[np.int64]
    biases_E: NDArray[np.float64]
    starts_Q: NDArray[np.int64]
    sizes_Q: NDArray[np.int64]
    winners_Q: NDArray[np.int64]
    winner_biases_Q: NDArray[np.float64]


@dataclass(kw_only=True)
class Wins:
    """The last `most` races with a winner."""

    most: int
    _races: list[tuple[Placement, int]] = field(default_factory=list)

    def add(self, placement: Placement, winner: int) -> None:
        """`winner` is a place in the placement."""
        self._races.append((placement, winner))
        if len(self._races) > self.most:
            del self._races[: len(self._races) - self.most]

    def joined(self) -> JoinedWins:
        """Flat arrays of at least one race."""
        sizes_Q = np.array([len(placement.columns_C) for placement, _ in self._races], dtype=np.int64)
        return JoinedWins(
            columns_E=np.concatenate([placement.columns_C for placement, _ in self._races]),
            biases_E=np.concatenate([placement.biases_C for placement, _ in self._races]),
            starts_Q=np.cumsum(sizes_Q) - sizes_Q,
            sizes_Q=sizes_Q,
            winners_Q=np.array([placement.columns_C[winner] for placement, winner in self._races], dtype=np.int64),
            winner_biases_Q=np.array([placement.biases_C[winner] for placement, winner in self._races]),
        )
