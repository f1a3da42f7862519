"""The defences that a study compares, and what an honest application asks of an interface.

The defences are those of the two leak papers (Carlini et al., arXiv 2403.06634, section 8; Finlayson et al., arXiv
2403.09539) and those that servers have today, each written as an exposure.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from lensmith.core.endpoint import RefusedError, Request, Reveal
from lensmith.core.exposure import Exposure, check, parse_exposure

HONEST: Mapping[str, Request] = {
    "chat": Request(prompt="x"),
    "five top logprobs": Request(prompt="x", top_logprobs=5),
    "twenty top logprobs": Request(prompt="x", top_logprobs=20),
    "the answer's own logprobs": Request(prompt="x", reveal=Reveal.SAMPLED),
    "ban a word": Request(prompt="x", logit_bias={1: -100.0}),
    "nudge ten words": Request(prompt="x", logit_bias=dict.fromkeys(range(10), 2.0)),
    "ban a word and see logprobs": Request(prompt="x", logit_bias={1: -100.0}, top_logprobs=5),
    "answer with one of four labels": Request(prompt="x", allowed_ids=(1, 2, 3, 4)),
    "score a given text": Request(prompt="x", reveal=Reveal.PROMPT | Reveal.SAMPLED),
}
"""What an application asks for in good faith."""


@dataclass(frozen=True, kw_only=True)
class Defence:
    """A defence: its name, and what it leaves, in the words of `--expose`. Raises ConfigError for other words."""

    name: str
    words: str

    def __post_init__(self) -> None:
        parse_exposure(self.words)

    @property
    def exposure(self) -> Exposure:
        return parse_exposure(self.words)


def common_defences() -> tuple[Defence, ...]:
    """The defences that the papers, servers and gateways use, from none to text alone."""
    words = {
        "No defence": "everything",
        "Top 5, bias moves logprobs": "top-logprobs=5,logprobs-taken=after-bias",
        "Top 1, bias moves logprobs": "top-logprobs=1,logprobs-taken=after-bias",
        "Logprobs before the bias": "top-logprobs=5,sampled-logprob=shown",
        "... and the sampled token masked": "top-logprobs=5,sampled-logprob=masked",
        "Bias or logprobs, not both": "top-logprobs=5,sampled-logprob=shown,bias-with-logprobs=refused",
        "Small bias (2) on 10 ids": "top-logprobs=5,logit-bias=2,biased-ids=10",
        "No bias, top 5": "top-logprobs=5,no-logit-bias",
        "No bias, but chosen ids": "top-logprobs=5,no-logit-bias,wanted-ids=128",
        "No bias, but echo": "top-logprobs=5,no-logit-bias,sampled-logprob=shown,echo",
        "No bias, but an allow-list": "top-logprobs=5,no-logit-bias,sampled-logprob=shown,allowed-ids=all",
        "4 decimals": "everything,decimals=4",
        "2 decimals": "everything,decimals=2",
        "1 decimal": "everything,decimals=1",
        "Fresh noise, 0.03 nats": "everything,noise-nats=0.03",
        "Fresh noise, 0.1 nats": "everything,noise-nats=0.1",
        "Fresh noise, 0.3 nats": "everything,noise-nats=0.3",
        "Frozen noise, 0.1 nats": "everything,noise-nats=0.1,noise=frozen",
        "Frozen noise, 0.3 nats": "everything,noise-nats=0.3,noise=frozen",
        "Text only": "text-only",
    }
    return tuple(Defence(name=name, words=text) for name, text in words.items())


def refused_requests(exposure: Exposure) -> tuple[str, ...]:
    """Names of the requests of `HONEST` that an exposure does not serve."""
    names = []
    for name, request in HONEST.items():
        try:
            check(request, exposure)
        except RefusedError:
            names.append(name)
    return tuple(names)
