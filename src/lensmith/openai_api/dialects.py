"""How servers differ in naming what OpenAI's interface lacks, as one value a server.

Sources: vLLM's, SGLang's and llama.cpp's servers and llama-cpp-python as their code stood in 2025 and 2026. A dialect
says what can be *asked*; whether the server answers is for the auditor to find out.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from lensmith.core.endpoint import Feature
from lensmith.openai_api.types import Kind


class WantedIds(enum.Enum):
    """Where the logprobs of wanted ids (`logprob_token_ids`) stand in an answer."""

    AFTER_TOP = "after the top logprobs"
    INSTEAD_OF_TOP = "instead of the top logprobs"


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How one kind of server names things.

    `features` can be asked for at all, `wanted_in` says at which of the two interfaces wanted ids can.
    `vocabulary_count` is the number of top logprobs that asks for all. `names_ids`: tokens can be named by id in
    logprobs (`return_tokens_as_token_ids`); `returns_ids`: an answer's ids can stand beside it (`return_token_ids`).
    `least_top` and `least_tokens` are the smallest numbers of top logprobs and of tokens (at completions) that do not
    mean something else; `most_choices` is the largest `n` (None: as OpenAI's). `max_top_logprobs` is what the server is
    known to allow.
    """

    name: str
    features: Feature
    wanted_in: frozenset[Kind] = frozenset()
    wanted_ids: WantedIds = WantedIds.AFTER_TOP
    vocabulary_count: int | None = None
    names_ids: bool = False
    returns_ids: bool = False
    chat_tokens_field: str = "max_tokens"
    least_top: int = 0
    least_tokens: int = 0
    most_choices: int | None = None
    max_top_logprobs: int | None = None


_COMMON = (
    Feature.MESSAGES
    | Feature.PICTURES
    | Feature.PROMPT_TEXT
    | Feature.SEED
    | Feature.STOP
    | Feature.LOGIT_BIAS
    | Feature.PRESENCE_PENALTY
    | Feature.FREQUENCY_PENALTY
    | Feature.TOP_LOGPROBS
    | Feature.SAMPLED_LOGPROB
    | Feature.PROMPT_LOGPROBS
)
_BY_ID = (
    Feature.REPETITION_PENALTY
    | Feature.TOKEN_IDS
    | Feature.ALLOWED_IDS
    | Feature.WANTED_IDS
    | Feature.VOCABULARY_LOGPROBS
)
_MANY = 1 << 20  # more than any vocabulary

OPENAI = Dialect(
    name="openai",
    features=_COMMON | Feature.TOKEN_IDS,
    chat_tokens_field="max_completion_tokens",
    max_top_logprobs=20,
)
COMPATIBLE = Dialect(name="compatible", features=_COMMON | Feature.TOKEN_IDS)
LENSMITH = Dialect(
    name="lensmith",
    features=_COMMON | _BY_ID,
    wanted_in=frozenset(Kind),
    vocabulary_count=-1,
    names_ids=True,
    returns_ids=True,
)
VLLM = Dialect(
    name="vllm",
    features=_COMMON | _BY_ID,
    wanted_in=frozenset(Kind),
    wanted_ids=WantedIds.INSTEAD_OF_TOP,
    vocabulary_count=-1,
    names_ids=True,
    returns_ids=True,
    max_top_logprobs=20,
)
SGLANG = Dialect(name="sglang", features=_COMMON | Feature.TOKEN_IDS | Feature.REPETITION_PENALTY)
LLAMA_CPP_PYTHON = Dialect(
    name="llama-cpp-python",
    features=_COMMON | Feature.VOCABULARY_LOGPROBS,
    vocabulary_count=_MANY,
    least_tokens=1,  # 0 means: until the context is full
    most_choices=1,
)
LLAMA_SERVER = Dialect(
    name="llama-server",
    features=(_COMMON | Feature.TOKEN_IDS | Feature.VOCABULARY_LOGPROBS) & ~Feature.PROMPT_LOGPROBS,
    vocabulary_count=_MANY,
    least_top=1,  # 0 means: no logprobs at all
    least_tokens=1,
    most_choices=1,
)

DIALECTS: Mapping[str, Dialect] = {
    dialect.name: dialect for dialect in (OPENAI, COMPATIBLE, LENSMITH, VLLM, SGLANG, LLAMA_CPP_PYTHON, LLAMA_SERVER)
}
