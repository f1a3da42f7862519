"""lensmith's models in VLMEvalKit (read at commit e8e78f0), which asks by generation only.

VLMEvalKit has no plugins; its list of models is a dictionary:

    from lensmith.adapters.vlmevalkit import register
    register("my_model", "FOLDER")          # then as usual: run.main() with --model my_model

For likelihoods with pictures, which VLMEvalKit has no way to ask for, see `lensmith eval choice`: it reads the same
tables and puts the same question.
"""

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from vlmeval.vlm.base import BaseModel  # type: ignore[import-not-found]  # the framework is its user's to install

from lensmith.adapters.common import as_picture, load_model
from lensmith.core.endpoint import Request
from lensmith.core.errors import InputError
from lensmith.core.types import Message, Part

_MOST_TOKENS = 512
"""As VLMEvalKit's own adapter of DeepSeek-VL."""


class LensmithVLM(BaseModel):  # type: ignore[misc]  # Any, where the framework is not installed
    """A model that `lensmith serve` can load, greedy. `model_path`: its folder; `loading`: see `load_model`."""

    INSTALL_REQ = False
    INTERLEAVE = True

    def __init__(
        self,
        model_path: str,
        *,
        max_new_tokens: int = _MOST_TOKENS,
        **loading: Any,
    ) -> None:
        if unknown := loading.keys() - inspect.signature(load_model).parameters.keys():
            raise InputError("unknown arguments", actual=", ".join(sorted(unknown)))
        super().__init__()
        self.max_new_tokens = max_new_tokens
        self.model = load_model(model_path, **loading)

    def generate_inner(self, message: Sequence[Mapping[str, str]], dataset: str | None = None) -> str:
        """The answer to a list of `{"type": "text" | "image", "value": text or path}`."""
        return self._write([_turn("user", message)])

    def chat_inner(self, message: Sequence[Mapping[str, Any]], dataset: str | None = None) -> str:
        """The answer to a conversation: turns with `role` and `content`, the latter as in `generate_inner`."""
        return self._write([_turn(turn["role"], turn["content"]) for turn in message])

    def _write(self, messages: Sequence[Message]) -> str:
        request = Request(messages=tuple(messages), max_tokens=self.max_new_tokens, temperature=0.0)
        [text] = self.model.write([request])
        return text.strip()


def register(name: str, model_path: str, **arguments: Any) -> None:
    """Makes a folder known to VLMEvalKit as the model `name`; it is loaded when it is first asked for."""
    from vlmeval.config import supported_VLM  # type: ignore[import-not-found]  # noqa: PLC0415  # loads all its models

    supported_VLM[name] = functools.partial(LensmithVLM, model_path, **arguments)


def _turn(role: Literal["user", "assistant"], content: Sequence[Mapping[str, str]]) -> Message:
    parts: list[Part] = []
    for part in content:
        if part["type"] not in ("text", "image"):
            raise InputError("only words and pictures are read", actual=part["type"])
        parts.append(part["value"] if part["type"] == "text" else as_picture(part["value"]))
    return Message(role=role, parts=tuple(parts))
