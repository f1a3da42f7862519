"""What passes over the wire of an OpenAI-compatible server, beside the core types: kinds, names, usage, errors.

Source: OpenAI's API reference (completions, chat completions) and, for the fields that it lacks, vLLM's names.
"""

import enum
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Unpack

from lensmith.core.endpoint import Request
from lensmith.core.errors import ErrorParts, InputError, LensmithError

MASKED_LOGPROB = -9999.0
"""Stands for a logprob that is not told, as OpenAI writes it; also for minus infinity, which JSON lacks."""

TOKEN_ID_PREFIX = "token_id:"
"""Before a token's id where a token is named by id (vLLM's `return_tokens_as_token_ids`)."""


class Kind(enum.Enum):
    """Which of the two interfaces a request is made to. The value is its path below the base URL."""

    CHAT = "chat/completions"
    COMPLETION = "completions"


@dataclass(frozen=True, kw_only=True)
class WireRequest:
    """A request as it came over the wire: the core request, and how its answer is to be written.

    `tokens_as_ids`: tokens are named `token_id:123` in logprobs. `token_ids`: the answer's token ids stand beside its
    text (vLLM's `return_token_ids`), whether or not logprobs are asked for. `echo`: the prompt stands before the
    answer's text.
    """

    kind: Kind
    request: Request
    model: str
    stream: bool = False
    include_usage: bool = False
    tokens_as_ids: bool = False
    token_ids: bool = False
    echo: bool = False
    user: str | None = None


class TokenNames(Protocol):
    """What tokens are called on the wire."""

    def text(self, token_id: int) -> str:
        """The token alone, as text; broken UTF-8 is replaced."""

    def data(self, token_id: int) -> bytes:
        """The token's bytes."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """How many tokens a request took."""

    prompt_tokens: int
    completion_tokens: int

    def to_json(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }


def shortened(text: str, most: int) -> str:
    """The text, cut to `most` characters where it has more; the last three are then dots."""
    return text if len(text) <= most else text[: most - 3] + "..."


class WireError(InputError):
    """A request that came over the wire makes no sense. `param` names the field that is wrong."""

    def __init__(self, problem: str, *, param: str | None = None, **parts: Unpack[ErrorParts]) -> None:
        self.param = param
        super().__init__(problem, **parts)


class EndpointError(LensmithError):
    """An endpoint failed, or answered something that is no answer."""

    exit_code: ClassVar[int] = 3


class MalformedAnswerError(EndpointError):
    """An endpoint's answer is not what the protocol says. `where` is the path to the wrong part."""


class BusyError(EndpointError):
    """An endpoint cannot answer now. `status` is 429 (a rate limit) or 503 (no room); None: no time is named."""

    def __init__(
        self, problem: str, *, status: int = 429, retry_after_s: float | None = None, **parts: Unpack[ErrorParts]
    ) -> None:
        self.status, self.retry_after_s = status, retry_after_s
        super().__init__(problem, **parts)
