"""An exposure as a person types it: `top-logprobs=5,no-logit-bias`.

Each part is a field of `Exposure` with dashes: `field=value`, or `no-field` for its strictest value (no rounding and no
noise for `no-decimals` and `no-noise-nats`), or `field` alone for a switch that is turned on. `all` lifts a limit. The
first part may be `text-only` or `everything`; without it, what is not named is as in `Exposure()`.
"""

import dataclasses
import difflib
import enum
from typing import Any

from lensmith.core.config import from_dict, to_dict
from lensmith.core.errors import ConfigError
from lensmith.core.exposure import Exposure, Sampled, Together

BASES = {"text-only": Exposure.text_only, "everything": Exposure.everything}
ALL = "all"

_OFF: dict[str, Any] = {
    "top_logprobs": 0,
    "sampled_logprob": Sampled.HIDDEN.value,
    "logit_bias": 0.0,
    "biased_ids": 0,
    "bias_with_logprobs": Together.REFUSED.value,
    "wanted_ids": 0,
    "allowed_ids": 0,
    "echo": False,
    "decimals": None,
    "noise_nats": 0.0,
    "metadata": False,
}
_FIELDS = {field.name: field for field in dataclasses.fields(Exposure)}


def parse_exposure(text: str) -> Exposure:
    """The exposure that `text` describes. Raises ConfigError, naming the nearest field or the possible values."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    base = BASES[words.pop(0)]() if words and words[0] in BASES else Exposure()
    changes: dict[str, Any] = {}
    for word in words:
        name, value = _parse_word(word)
        if name in changes:
            raise ConfigError(f"{_dashed(name)} stands twice in {text!r}")
        changes[name] = value
    return from_dict(Exposure, {**to_dict(base), **changes})


def spell_exposure(exposure: Exposure) -> str:
    """The shortest text that `parse_exposure` reads as this exposure without a base; empty for `Exposure()`."""
    values, usual = to_dict(exposure), to_dict(Exposure())
    return ",".join(_spell_word(name, values[name]) for name in values if values[name] != usual[name])


def _parse_word(word: str) -> tuple[str, Any]:
    key, equals, value = (part.strip() for part in word.partition("="))
    name = key.replace("-", "_")
    if not equals and name.startswith("no_") and name[3:] in _OFF:
        return name[3:], _OFF[name[3:]]
    if name not in _FIELDS:
        raise _unknown(key)
    if not equals:
        if not isinstance(_FIELDS[name].default, bool):
            raise ConfigError(f"{key}: needs a value", expected=f"{key}=..., or no-{key}", actual=word)
        return name, True
    return name, _parse_value(name, value, word)


def _parse_value(name: str, value: str, word: str) -> Any:
    default = _FIELDS[name].default
    if isinstance(default, enum.Enum):
        return value
    if isinstance(default, bool):
        raise ConfigError(f"{word}: takes no value", expected=f"{_dashed(name)} or no-{_dashed(name)}")
    if value == ALL and "None" in str(_FIELDS[name].type):
        return None
    try:
        return float(value) if isinstance(default, float) else int(value)
    except ValueError:
        expected = "a number" if isinstance(default, float) else f"a whole number, or {ALL}"
        raise ConfigError(f"{_dashed(name)}: not a number", expected=expected, actual=value) from None


def _spell_word(name: str, value: Any) -> str:
    if value is True:
        return _dashed(name)
    if name in _OFF and value == _OFF[name]:
        return f"no-{_dashed(name)}"
    return f"{_dashed(name)}={ALL if value is None else value}"


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _unknown(key: str) -> ConfigError:
    known = [*map(_dashed, _FIELDS), *(f"no-{_dashed(name)}" for name in _OFF), *BASES]
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
    where = "must come first" if key in BASES else "unknown"
    return ConfigError(f"{key}: {where}", expected=", ".join(known), hint=f"did you mean {nearest[0]!r}?")
