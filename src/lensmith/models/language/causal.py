"""The language model: any causal language model of transformers, built from its own configuration.

One kind is ours, a Llama with experts, and is registered here with the others.
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from lensmith.core.errors import ConfigError
from lensmith.models.language.experts import ExpertLlamaConfig, ExpertLlamaForCausalLM

AutoConfig.register(ExpertLlamaConfig.model_type, ExpertLlamaConfig, exist_ok=True)
AutoModelForCausalLM.register(ExpertLlamaConfig, ExpertLlamaForCausalLM, exist_ok=True)


def language_config(values: PreTrainedConfig | Mapping[str, Any]) -> PreTrainedConfig:
    """A transformers configuration; a mapping needs the key `model_type`. Raises ConfigError."""
    if isinstance(values, PreTrainedConfig):
        return values
    fields = dict(values)
    model_type = fields.pop("model_type", None)
    if not isinstance(model_type, str):
        raise ConfigError(
            "language.model_type: required, but missing",
            expected="the name of a causal language model in transformers, such as 'llama'",
            actual=repr(model_type),
        )
    try:
        return cast(PreTrainedConfig, AutoConfig.for_model(model_type, **fields))
    except ValueError as error:
        raise ConfigError(
            "language: transformers refuses the configuration", actual=str(error).split("\n")[0]
        ) from error


def build_language_model(config: PreTrainedConfig) -> PreTrainedModel:
    """A model with random weights in torch's default precision. It keeps this very `config` object, not a copy."""
    try:
        model = AutoModelForCausalLM.from_config(config, dtype=torch.get_default_dtype())
    except ValueError as error:
        raise ConfigError("language: not a causal language model", actual=config.model_type) from error
    return cast(PreTrainedModel, model)
