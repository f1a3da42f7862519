"""What single answers to a probe's questions say."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lensmith.audit.probed import SampledFound
from lensmith.core.endpoint import Choice

LEAST_FALL_NATS = 2.0
"""A forced token's logprob taken before the bias lies at least this far below one taken after it (which is near 0)."""


def bisect(works: int, fails: int, test: Callable[[int], bool]) -> int:
    """The largest count that works, between one that does and one that does not."""
    while fails - works > 1:
        middle = (works + fails) // 2
        works, fails = (middle, fails) if test(middle) else (works, middle)
    return works


def num_told(choice: Choice) -> int:
    """How many top logprobs the first position has."""
    logprobs = choice.logprobs
    if logprobs is None or not logprobs.top_TK.size:
        return 0
    return int(np.isfinite(logprobs.top_TK[0]).sum())


def same_answer(one: Choice, other: Choice) -> bool:
    """Whether both say the same: by token ids where both tell them, else by text."""
    if len(one.token_ids_T) and len(other.token_ids_T):
        return bool(np.array_equal(one.token_ids_T, other.token_ids_T))
    return one.text == other.text


def sampled_found(values: Sequence[float]) -> SampledFound:
    """What the sampled tokens' logprobs, each forced from outside the top, say of how they are told."""
    told = [value for value in values if math.isfinite(value)]
    if not values:
        return SampledFound.UNKNOWN
    if not told:
        return SampledFound.MASKED
    # One token may be likely by itself; a true value is known by one that lies far below.
    return SampledFound.TRUE_VALUE if min(told) < -LEAST_FALL_NATS else SampledFound.AFTER_BIAS


def flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """The pairs of a nested mapping, their names joined by dots."""
    pairs: list[tuple[str, Any]] = []
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping):
            pairs += flat(item, f"{name}.")
        elif isinstance(item, list | tuple):
            pairs += flat({str(index): inner for index, inner in enumerate(item)}, f"{name}.")
        else:
            pairs.append((name, item))
    return pairs
