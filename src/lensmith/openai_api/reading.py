"""Strict reading of an answer: each part has the type that the protocol says, or an error names it.

One reader for whoever gets an answer. A client may repeat in its error what came instead; a guard may not, because its
errors reach a log, and so it names the type only.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from lensmith.core.endpoint import Finish
from lensmith.openai_api.types import MalformedAnswerError, shortened

_LONGEST_SHOWN = 120


@dataclass(frozen=True, kw_only=True)
class FinishReason:
    """Why an answer ended: the word of OpenAI's for it, and whether the limit or something else ended it."""

    word: str
    finish: Finish


FINISH_REASONS: Mapping[str, FinishReason] = {
    **{
        word: FinishReason(word=word, finish=Finish.STOP)
        for word in ("stop", "tool_calls", "function_call", "content_filter", "abort")
    },
    **dict.fromkeys(("eos", "eos_token", "stop_sequence"), FinishReason(word="stop", finish=Finish.STOP)),
    **dict.fromkeys(("length", "max_tokens"), FinishReason(word="length", finish=Finish.LENGTH)),
}
"""What servers and gateways write as the reason of an end. TGI has words of its own. vLLM and SGLang write `abort` for
an answer that they broke off, and OpenAI has no word for that: as `stop` it would look complete."""


@dataclass(frozen=True, kw_only=True)
class LogprobColumns:
    """The logprobs of a completion before its values are looked at: lists of one length T."""

    tokens: list[str]
    logprobs: list[Any]
    tops: list[Mapping[str, Any] | None]


@dataclass(frozen=True, kw_only=True)
class AnswerReader:
    """Takes parts out of an answer. `show` is what an error may tell of a value that has another type.

    All methods raise MalformedAnswerError, which starts with `where` the part stands.
    """

    show: Callable[[object], str]

    def fail(self, where: str, expected: str, actual: object) -> NoReturn:
        """Raises the error for a part that is something else than `expected`."""
        raise MalformedAnswerError(f"the answer is malformed: {where}", expected=expected, actual=self.show(actual))

    def as_object(self, value: object, where: str) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            self.fail(where, "an object", value)
        return value

    def as_list(self, value: object, where: str) -> list[Any]:
        if not isinstance(value, list):
            self.fail(where, "a list", value)
        return value

    def as_text(self, value: object, where: str) -> str:
        if not isinstance(value, str):
            self.fail(where, "text", value)
        return value

    def as_texts(self, value: object, where: str) -> list[str]:
        """A list of nothing but texts."""
        texts = self.as_list(value, where)
        if not set(map(type, texts)) <= {str}:
            self.fail(where, "texts", next(text for text in texts if not isinstance(text, str)))
        return texts

    def as_count(self, value: object, where: str, most: int) -> int:
        """A whole number from 0 to `most`; true is no number."""
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            self.fail(where, f"a whole number from 0 to {most}", value)
        return value

    def finish_reason(self, value: object, where: str) -> FinishReason:
        if not isinstance(value, str) or value not in FINISH_REASONS:
            self.fail(where, " or ".join(FINISH_REASONS), value)
        return FINISH_REASONS[value]

    def columns(self, logprobs: Mapping[str, Any], where: str) -> LogprobColumns:
        """The logprobs of a completion; without `top_logprobs`, nothing stands beside the tokens."""
        tokens = self.as_texts(logprobs.get("tokens"), f"{where}.tokens")
        values = self.as_list(logprobs.get("token_logprobs"), f"{where}.token_logprobs")
        given = logprobs.get("top_logprobs")
        tops = [None] * len(tokens) if given is None else self.as_list(given, f"{where}.top_logprobs")
        if not len(tokens) == len(values) == len(tops):
            self.fail(where, "lists of one length", (len(tokens), len(values), len(tops)))
        for place, top in enumerate(tops):
            if top is not None and not isinstance(top, dict):
                self.fail(f"{where}.top_logprobs[{place}]", "an object of names and logprobs", top)
        return LogprobColumns(tokens=tokens, logprobs=values, tops=tops)

    def entries(self, value: object, where: str) -> list[Mapping[str, Any]]:
        """Tokens as chats have them, each an object; a list that is left out or null is empty."""
        entries = [] if value is None else self.as_list(value, where)
        for place, entry in enumerate(entries):
            if not isinstance(entry, dict):
                self.fail(f"{where}[{place}]", "an object", entry)
        return entries


def short_repr(value: object) -> str:
    """A value as Python writes it, cut to a line."""
    return shortened(repr(value), _LONGEST_SHOWN)


CLIENT = AnswerReader(show=short_repr)
"""For whoever asked the server itself: an error repeats what came."""
