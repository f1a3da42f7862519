"""Chooses the next token of each row from its logits: greedy, or by temperature and nucleus, with the row's own dice.

Every row has a random state of its own, so a sample depends on its seed and not on what else is in the batch, and
asking again gives the same text. Choosing is done in float64 on the CPU, alike on every device.

Legend: B rows, W vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lensmith.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class GenerateSettings:
    """How text is generated. `temperature` 0 is greedy; `top_p` keeps the likeliest tokens that reach this mass.

    Sample i of a prompt draws from (`seed`, i). With `greedy_first`, sample 0 is greedy whatever the temperature.
    """

    max_new_tokens: int = 1024
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    num_samples: int = 1
    greedy_first: bool = False

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.num_samples < 1:
            raise ConfigError("max_new_tokens and num_samples: nothing to generate", expected=">= 1")
        if self.temperature < 0:
            raise ConfigError("temperature: negative", expected=">= 0", actual=self.temperature)
        if not 0 < self.top_p <= 1:
            raise ConfigError("top_p: not a share", expected="above 0, at most 1", actual=self.top_p)
        if self.seed < 0:
            raise ConfigError("seed: negative", expected=">= 0", actual=self.seed)
        if self.num_samples > 1 + self.greedy_first and self.temperature == 0:
            raise ConfigError(
                "several greedy samples would be equal",
                expected="a temperature above 0, or num_samples=1",
                actual=f"num_samples={self.num_samples}, temperature=0",
            )

    def is_greedy(self, sample: int) -> bool:
        return self.temperature == 0 or (self.greedy_first and sample == 0)


class Dice:
    """The random state of one sample."""

    def __init__(self, settings: GenerateSettings, sample: int) -> None:
        self._random = np.random.default_rng((settings.seed, sample))
        self.is_greedy = settings.is_greedy(sample)

    def roll(self) -> float:
        """Uniform in [0, 1)."""
        return float(self._random.random())


def choose_tokens(logits_BW: Tensor, settings: GenerateSettings, dice_B: Sequence[Dice]) -> list[int]:
    """One token a row. Ties rank by id. A row that is greedy rolls no dice."""
    logits_BW = logits_BW.detach().to(device="cpu", dtype=torch.float64)
    chosen = logits_BW.argmax(dim=1)
    rows = [row for row, dice in enumerate(dice_B) if not dice.is_greedy]
    if rows:
        rolls = torch.tensor([dice_B[row].roll() for row in rows], dtype=torch.float64)
        chosen[rows] = _sampled(logits_BW[rows] / settings.temperature, settings.top_p, rolls)
    return [int(token) for token in chosen]


def _sampled(logits_BW: Tensor, top_p: float, rolls_B: Tensor) -> Tensor:
    ranked_BW, ids_BW = torch.sort(logits_BW, dim=1, descending=True, stable=True)
    probabilities_BW = torch.softmax(ranked_BW, dim=1)
    # A token stays while those before it have not reached the mass; the likeliest always stays.
    before_BW = probabilities_BW.cumsum(dim=1) - probabilities_BW
    kept_BW = probabilities_BW * (before_BW < top_p)
    reached_BW = kept_BW.cumsum(dim=1)
    targets_B1 = rolls_B.unsqueeze(1) * reached_BW[:, -1:]
    index_B1 = torch.searchsorted(reached_BW, targets_B1, right=True)
    last_kept_B1 = (kept_BW > 0).sum(dim=1, keepdim=True) - 1
    return ids_BW.gather(1, torch.minimum(index_B1, last_kept_B1)).squeeze(1)
