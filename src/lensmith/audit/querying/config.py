"""What every command that asks an endpoint is given: whom, what, and how much it may take."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lensmith
from lensmith.audit.findings.wording import public_target
from lensmith.audit.querying.contexts import ContextForm
from lensmith.audit.querying.meter import Budget
from lensmith.audit.querying.price import PriceList
from lensmith.audit.querying.tokens import TokenBytes


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """`target` is where the endpoint is, for the log and the report, and `model` its name there; empty for the only one
    that is listed, where a URL is asked.

    `folder` takes the event log and what is read, so that an interrupted session goes on. `form`: how contexts are put;
    None for the first form that the endpoint answers. `prices`: None for the list that ships. `retest`: the command
    that checks a cure, as reports print it. `tokens`: what the model's own tokenizer calls its tokens, for a server
    that names them by text. `use_whole_budget`: greedy answers are read on though no width is expected to show.
    """

    target: str
    model: str = ""
    folder: Path
    budget: Budget = field(default_factory=Budget)
    form: ContextForm | None = None
    seed: int = 0
    prices: PriceList | None = None
    retest: str = ""
    tokens: TokenBytes | None = None
    use_whole_budget: bool = False

    def header(self, **subject: str) -> Mapping[str, Any]:
        """What the event log begins with, and so whose it is. No secrets that the target may hold."""
        target = public_target(self.target)
        return {"target": target, "seed": self.seed, "lensmith": lensmith.__version__, **subject}
