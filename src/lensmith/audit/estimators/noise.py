"""How far a value that was read may be from the model's own, and what such errors make of a matrix of them.

Reading the same twice tells only the noise that differs: rounding, the width of a search's last interval and the
lattice of 16-bit logits come out equal every time. Each read-out therefore states its resolution; the lattice, which
no read-out knows of, is found in the values themselves.

Legend: N contexts, M tokens, G tokens of similar size.
"""

import math

import numpy as np

from lensmith.core.arrays import Float64Array, FloatArray

FLOAT32_ERROR_NATS = 1e-6
"""What is usually left of a float32 logprob: a server subtracts numbers of about 20, whose steps are 2e-6."""
_LATTICE_ROWS, _LATTICE_COLUMNS, _GROUP = 256, 192, 12
_LEAST_VALUES = 64
_MOST_VALUES = 4096
_STEPS_NATS = 2.0 ** np.arange(3, -14, -1)
_RESOLVED_STEPS = 6.0
"""A lattice whose steps are fewer times the resolution than this is lost in it."""


def rounding_nats(decimals: int | None) -> float:
    """The standard deviation that rounding to so many decimals adds."""
    return 0.0 if decimals is None else 10.0**-decimals / math.sqrt(12)


def decimals_of(values: Float64Array) -> int | None:
    """How many decimals all values have; None for more than six, and for no values."""
    finite = values[np.isfinite(values)]
    some = finite[:: -(-len(finite) // _MOST_VALUES)] if len(finite) else finite
    for decimals in range(7) if len(some) else ():
        if np.allclose(some, np.round(some, decimals), rtol=0, atol=1e-9):
            return decimals
    return None


def logprob_resolution_nats(values: Float64Array, logprob_error_nats: float) -> float:
    """To how many nats logprobs are exact: `logprob_error_nats`, or what the decimals that they have leave of them."""
    return max(logprob_error_nats, rounding_nats(decimals_of(values.ravel())))


def float32_nats(largest: float) -> float:
    """The same for float32 arithmetic with numbers up to `largest`: a score with a large bias loses its last bits."""
    return float(np.spacing(np.float32(abs(largest)))) / math.sqrt(12)


def noise_edge(contexts: float, tokens: float, noise_nats: float) -> float:
    """The largest singular value that independent errors of this standard deviation make (Bai and Yin, 1993)."""
    return noise_nats * (math.sqrt(contexts) + math.sqrt(tokens))


def lattice_nats(logits_NM: FloatArray, resolution_nats: float = 0.0) -> float:
    """The standard deviation by which logits of 16 bits miss what the model computed, at most; 0 without a lattice.

    `logits_NM`: complete, up to a constant a row. Their lattice is coarser where they are larger, in either direction,
    so it is looked for among tokens of similar size. Each group may reach into the next binade, whose steps are double.
    """
    rows, columns = logits_NM.shape
    some_NM = logits_NM[:: -(-rows // _LATTICE_ROWS), :: -(-columns // _LATTICE_COLUMNS)]
    sorted_NM = np.sort(some_NM.astype(np.float64), axis=1)
    groups = [sorted_NM[:, start : start + _GROUP] for start in range(0, sorted_NM.shape[1] - _GROUP + 1, _GROUP)]
    steps = np.array([_step_nats(group_NG, resolution_nats) for group_NG in groups])
    if not steps.any():
        return 0.0
    # Around zero steps are too fine to be seen; they are no coarser than those beside.
    beside = np.maximum(np.append(steps[1:], 0.0), np.append(0.0, steps[:-1]))
    steps = np.where(steps > 0, steps, beside)
    return float(2 * np.sqrt((steps**2).mean() / 12))


def _step_nats(group_NG: Float64Array, resolution_nats: float) -> float:
    """The coarsest step of which the differences within a row are multiples; 0 for none that can be resolved."""
    differences = (group_NG[:, 1:] - group_NG[:, :1]).ravel()
    differences = differences[differences > 4 * resolution_nats]
    if len(differences) < _LEAST_VALUES:
        return 0.0
    spread = float(differences.std())
    for step in _STEPS_NATS:
        if step < _RESOLVED_STEPS * resolution_nats:
            break
        # Differences that are small beside a step are near a multiple of it, 0, by themselves.
        if spread < 0.5 * step:
            continue
        expected = math.exp(-((2 * math.pi * resolution_nats / step) ** 2))
        if np.cos(2 * np.pi * differences / step).mean() > 0.6 * expected:
            return float(step)
    return 0.0
