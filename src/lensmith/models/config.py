"""The configuration of a vision-language model: a tower, a connector, a language model and the placeholder's id.

transformers keeps any key that it is given and saves only plain values, so a misspelt key would be lost without a word
and a dataclass would not be saved at all. Therefore this class has its own `__init__`, which takes dataclasses or
dictionaries and refuses what it does not know, and its own `to_dict`.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar, cast

from transformers import AutoConfig, PreTrainedConfig

from lensmith.core.config import from_dict, nearest_hint, to_dict
from lensmith.core.errors import ConfigError
from lensmith.models.connectors import CONNECTORS, ConnectorConfig
from lensmith.models.language.causal import language_config
from lensmith.models.towers import TOWERS, TowerConfig

Component = TypeVar("Component")

IGNORED_LABEL = -100
"""Stands where no target does; the cross entropies of torch and transformers skip it."""

# What transformers itself writes into a configuration or passes while it loads one.
_TRANSFORMERS_KEYS = frozenset(
    {field.name for field in dataclasses.fields(PreTrainedConfig)}
    | {"attn_implementation", "experts_implementation", "output_attentions", "torch_dtype", "name_or_path"}
    | {"_name_or_path", "_commit_hash", "auto_map", "processor_class", "quantization_config", "use_cache"}
)
_TOKEN_IDS = ("pad_token_id", "bos_token_id", "eos_token_id")
_OWN_KEYS = ("vision", "connector", "language", "image_token_id", *_TOKEN_IDS)


class VisionLanguageConfig(PreTrainedConfig):
    """How a `VisionLanguageModel` is built.

    `vision` and `connector`: a component's dataclass, or a mapping with the key `kind`. `language`: the configuration
    of any causal language model in transformers, or a mapping with the key `model_type`. `image_token_id`: the token
    that stands for one visual token in `input_ids`. `pad_token_id`, `bos_token_id` and `eos_token_id` are kept in
    `language`, where generation looks for them. Raises ConfigError for any other key, naming the nearest.
    """

    model_type = "lensmith_vlm"
    sub_configs: ClassVar[dict[str, type[Any]]] = {"language": AutoConfig}

    def __init__(
        self,
        *,
        vision: TowerConfig | Mapping[str, Any] | None = None,
        connector: ConnectorConfig | Mapping[str, Any] | None = None,
        language: PreTrainedConfig | Mapping[str, Any] | None = None,
        image_token_id: int | None = None,
        pad_token_id: int | None = None,
        bos_token_id: int | None = None,
        eos_token_id: int | list[int] | None = None,
        **transformers_values: Any,
    ) -> None:
        _refuse_unknown(transformers_values, self.model_type)
        self.vision = _component(vision, TOWERS, "vision")
        self.connector = _component(connector, CONNECTORS, "connector")
        self.language = language_config(_required(language, "language"))
        self.image_token_id = _required(image_token_id, "image_token_id")
        for name, value in zip(_TOKEN_IDS, (pad_token_id, bos_token_id, eos_token_id), strict=True):
            if value is not None:
                setattr(self.language, name, value)
        if not 0 <= self.image_token_id < self.language.vocab_size:
            raise ConfigError(
                "image_token_id is not in the vocabulary",
                expected=f"0 to {self.language.vocab_size - 1}",
                actual=self.image_token_id,
            )
        transformers_values.pop("model_type", None)
        super().__init__(**transformers_values)

    def to_dict(self) -> dict[str, Any]:
        """JSON values from which `from_dict` makes an equal configuration."""
        values = cast(dict[str, Any], super().to_dict())
        for name in ("vision", "connector"):
            component = getattr(self, name)
            values[name] = {"kind": component.kind, **to_dict(component)}
        return values

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """The language model's configuration: what caches and generation ask for layers, heads and token ids."""
        return cast(PreTrainedConfig, self.language.get_text_config(decoder=decoder, encoder=encoder))

    def __eq__(self, other: object) -> bool:
        # Equal where they would be saved alike: wherever loaded from, whatever attention runs here. transformers makes
        # every subclass a dataclass, whose own equality would see only the fields of the base.
        return isinstance(other, VisionLanguageConfig) and bool(self.to_diff_dict() == other.to_diff_dict())

    __hash__ = None  # type: ignore[assignment]  # mutable, like every configuration of transformers


def _component(given: Component | Mapping[str, Any] | None, kinds: dict[str, type[Component]], name: str) -> Component:
    value: Any = _required(given, name)
    if not isinstance(value, Mapping):
        if type(value) not in kinds.values():
            raise ConfigError(f"{name}: not a configuration that can be saved", expected=_choice(kinds), actual=value)
        return cast(Component, value)
    kind = value.get("kind")
    if kind not in kinds:
        raise ConfigError(
            f"{name}.kind: says which component this is",
            expected=_choice(kinds),
            actual=repr(kind),
            hint=nearest_hint(str(kind), kinds),
        )
    try:
        # A component that was saved in another form before reads that itself.
        read = getattr(kinds[kind], "from_saved", functools.partial(from_dict, kinds[kind]))
        return cast(Component, read({key: item for key, item in value.items() if key != "kind"}))
    except ConfigError as error:
        problem = f"{name}.{error.problem}"
        raise ConfigError(problem, expected=error.expected, actual=error.actual, hint=error.hint) from error


def _required(value: Any, name: str) -> Any:
    if value is None:
        raise ConfigError(f"{name}: required, but missing")
    return value


def _refuse_unknown(values: Mapping[str, Any], model_type: str) -> None:
    if values.get("model_type", model_type) != model_type:
        raise ConfigError("not a configuration of this model", expected=model_type, actual=values["model_type"])
    for key in values:
        if key not in _TRANSFORMERS_KEYS and key != "model_type":
            known = (*_OWN_KEYS, *sorted(_TRANSFORMERS_KEYS))
            raise ConfigError(
                f"{key}: unknown key of VisionLanguageConfig",
                expected=", ".join(_OWN_KEYS),
                hint=nearest_hint(key, known),
            )


def _choice(kinds: Mapping[str, object]) -> str:
    return " or ".join(map(repr, kinds))
