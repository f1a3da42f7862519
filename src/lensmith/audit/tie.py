"""One logprob from one number: what the top logprob says of a token whose bias is known (read-out P6).

Let p be the token's probability without the bias and B its bias. Where another token stays on top, its logprob falls
by log(1 + p (e^B - 1)) (Carlini et al., arXiv 2403.06634, section 5.4, there with B = -1). Where the biased token is
on top with logprob y', the odds give log p (Finlayson et al., arXiv 2403.09539): logit(p) = logit(e^y') - B. Both lose
least where the token ties with all others together, p e^B = 1, and then about twice the told precision.
"""

from dataclasses import dataclass

import numpy as np

FAR_STEP_NATS = 12.0
"""How far to go where a bias was so far off that nothing can be seen: float32 sees about this far both ways."""

LOGPROB_FLOOR = -700.0


@dataclass(frozen=True, kw_only=True)
class Tie:
    """What one answer said: the token's logprob (NaN: nothing), its error, and the bias to try if that is too much."""

    logprob: float
    error_nats: float
    next_bias: float


def tied(logprob: float) -> float:
    """The bias with which a token of that logprob ties with all others together."""
    return -max(logprob, LOGPROB_FLOOR)


def tie_from_answer(base: float, top: float, bias: float, *, is_target: bool, told_nats: float) -> Tie:
    """The logprob of a token with `bias`, from the top logprob without (`base`) and with it (`top`).

    `is_target`: the token itself is on top. `told_nats` is the standard error of what is told.
    """
    return _from_odds(top, bias, told_nats) if is_target else _from_fall(base, top, bias, told_nats)


def _from_odds(top: float, bias: float, told_nats: float) -> Tie:
    others = -np.expm1(min(top, 0.0))
    if others <= 4 * told_nats:
        return Tie(logprob=np.nan, error_nats=np.inf, next_bias=bias - FAR_STEP_NATS)
    log_odds = top - np.log(others) - bias
    logprob = float(-np.log1p(np.exp(-log_odds)) if log_odds > -30 else log_odds)
    return Tie(logprob=logprob, error_nats=float(told_nats / others), next_bias=tied(logprob))


def _from_fall(base: float, top: float, bias: float, told_nats: float) -> Tie:
    added = np.expm1(base - top)
    if added <= 8 * told_nats or bias <= 0:
        return Tie(logprob=np.nan, error_nats=np.inf, next_bias=max(bias, 0.0) + FAR_STEP_NATS)
    logprob = float(np.log(added) - bias - np.log(-np.expm1(-bias)))
    error = np.sqrt(2.0) * told_nats * (1 + added) / added
    return Tie(logprob=logprob, error_nats=float(error), next_bias=tied(logprob))
