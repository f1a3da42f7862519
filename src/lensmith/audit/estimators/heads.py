"""Whether all contexts come from one head: behind a router, the widths of replicas that differ would be added up.

Costeira and Kanade, A multibody factorization method for independently moving objects, IJCV 29 (1998): with the first
R left singular vectors U of outputs that come from independent spaces, U U' (their shape interaction matrix) is zero
between contexts of different spaces. We look at its complement I - U U', which has the same zeros, because it follows
from the few combinations of contexts that give nothing. What stands in it between two contexts of one head is spread
like a normal variable. So with one head some 4 % of all pairs are under a twentieth of the usual size, whatever the
spectrum; with two of which one answers the part p, 2 p (1 - p) of the pairs more.

A context that alone shows a direction, as those of a replica do of which fewer were read than it is wide, takes part in
no combination; of it nothing can be said. With the 8 combinations that a believed gap has at least, both are seen.
Replicas whose heads differ by a low rank only (a fine-tune of one of them) have most of their space in common; they are
not seen.

Legend: N contexts, P of them that are looked at, T combinations, B contexts of a sample, R rank.
"""

import enum
import math

import numpy as np

from lensmith.audit.estimators.spectrum import Spectra
from lensmith.core.arrays import Float64Array

_SMALL = 0.05
"""Under this part of the usual size two contexts have nothing to do with one another."""
_MOST_SMALL, _MOST_SMALL_BY_RANK = 0.12, 0.75
"""More pairs than the first and the second over the rank come from more than one head: a minority of 5 % is seen from a
rank of 40 on. Over random layers one head showed at most 0.10 from a rank of 8 on, 0.32 for a rank of 3."""
_ALONE = 1e-3
"""A context with less than this part of its share in the combinations stands alone. One head showed 4e-3 at least."""
_SAMPLE = 512


class Heads(enum.Enum):
    """What contexts tell of where they come from. The value says it in a report."""

    ONE = "all contexts come from one head"
    SOME_ALONE = "some contexts have nothing in common with the others"
    SEVERAL = "contexts come from more than one head (a router, or replicas that differ)"


def heads_of(found: Spectra, rank: int, *, down_to: float, seed: int) -> Heads:
    """What N contexts of this rank say, from a random P of them where that is enough. `down_to`: the last value before
    the gap, as a part of the largest."""
    rng = np.random.default_rng(seed)
    contexts = found.matrix_NM.shape[0]
    # A wide model's combinations are computed by themselves, and few of them; a narrow one's with all others.
    wanted = min(contexts, max(rank + 256, min(2 * rank + 256, 1536)))
    space_PT = found.nothing(np.sort(rng.permutation(contexts)[:wanted]), wanted - rank, down_to=down_to)
    energy_P = (space_PT**2).sum(axis=1)
    if energy_P.min() < _ALONE * energy_P.mean():
        return Heads.SOME_ALONE
    space_PT /= np.sqrt(energy_P)[:, None]
    usual = math.sqrt(rank / (wanted * (wanted - rank)))
    share = _small_share(space_PT, rng.permutation(wanted)[:_SAMPLE], _SMALL * usual)
    return Heads.SEVERAL if share > _MOST_SMALL + _MOST_SMALL_BY_RANK / rank else Heads.ONE


def _small_share(space_PT: Float64Array, sample_B: np.ndarray, size: float) -> float:
    """How many of the cosines of the sampled rows with all others are smaller than `size`."""
    cosines_BP = space_PT[sample_B] @ space_PT.T
    small = int((np.abs(cosines_BP) < size).sum())
    return small / (len(sample_B) * (len(space_PT) - 1))  # a row's cosine with itself is 1
