"""Mixtures as papers give them, over leaves that a person fills with sources of their own (`Mixture.filled`).

Weights of MM1 (arXiv 2403.09611, section 3.2) and of MM1.5, its follow-up, count packed sequences. Those of DeepSeek-VL
(arXiv 2403.05525, tables 1 and 2) have no unit in the paper; here they count sequences too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from lensmith.core.errors import ConfigError
from lensmith.data.mixture import Mixture

MIXTURES: Mapping[str, Mixture] = MappingProxyType(
    {
        "mm1": Mixture.of(captions=0.45, interleaved=0.45, text=0.1),
        "mm1_5": Mixture.of(captions=0.5, interleaved=0.1, text=0.4),
        "deepseek_vl_pretraining": Mixture.of(
            text=0.7,
            interleaved=0.131,
            captions=0.111,
            tables_charts=0.021,
            document_ocr=0.021,
            scene_text_ocr=0.012,
            web_code=0.004,
        ),
        "deepseek_vl_sft": Mixture.of(text=0.479, multimodal=0.355, taxonomy=0.105, tables_charts=0.041, web_code=0.02),
    }
)
"""By name. `taxonomy` is what DeepSeek made in house for the uses of its own list."""


@dataclass(frozen=True, kw_only=True)
class ShownMixture:
    """A mixture with what follows from it: each source's share of the whole, and a hash of all of it."""

    mixture: Mixture
    shares: dict[str, float]
    hash: str


@dataclass(frozen=True, kw_only=True)
class MixtureList:
    """Mixtures by name; printed as trees."""

    mixtures: dict[str, ShownMixture]

    def __str__(self) -> str:
        return "\n\n".join(f"{name}: {shown.mixture}" for name, shown in self.mixtures.items())


def mixtures_named(name: str | None = None) -> MixtureList:
    """The mixture of this name, or all. Raises ConfigError that lists them where there is none."""
    if name is not None and name not in MIXTURES:
        raise ConfigError("there is no such mixture", expected=", ".join(MIXTURES), actual=name)
    wanted = {each: mixture for each, mixture in MIXTURES.items() if name in (None, each)}
    return MixtureList(
        mixtures={
            each: ShownMixture(mixture=mixture, shares=mixture.shares, hash=mixture.hash)
            for each, mixture in wanted.items()
        }
    )
