"""The fields of a request, in one table: what each does, who reads it, and what becomes of it here.

One line a field, whichever server it comes from. A field of another server that is to be known takes one line: its
purpose decides what becomes of it unless the line says otherwise. `docs/api.md` is written from the table.

Sources: OpenAI's reference and the servers of vLLM, SGLang, llama.cpp and TGI as their code stood in 2025 and 2026.
"""

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lensmith.core.endpoint import Feature
from lensmith.openai_api.types import Kind


class Purpose(enum.Enum):
    """What a field is for."""

    PROMPT = "prompt"
    """What the model sees, and which model it is."""
    SAMPLING = "sampling"
    """How tokens are drawn, how many answers there are, and where they end."""
    STEERING = "steering"
    """Moves, restricts or cuts off tokens, so that a read-out can force them."""
    READ_OUT = "read-out"
    """Asks for numbers or tokens beside the text."""
    ANSWER = "answer"
    """The form of the answer."""
    BOOKKEEPING = "bookkeeping"
    """Changes nothing in an answer."""


class Vendor(enum.Flag):
    """Whose servers know a field."""

    OPENAI = enum.auto()
    VLLM = enum.auto()
    SGLANG = enum.auto()
    LLAMA_CPP = enum.auto()
    """llama.cpp's own server, and llama-cpp-python's."""
    TGI = enum.auto()
    OTHERS = enum.auto()


class ServerFate(enum.Enum):
    """What our own server does with a field."""

    READ = "read"
    REFUSED = "refused"
    """Unless it is switched off: to ignore it would answer something else than was asked."""
    IGNORED = "ignored"


class GuardFate(enum.Enum):
    """What a guard does with a field."""

    JUDGED = "judged"
    """Read as our server reads it, checked against the exposure, and written anew; elsewhere than on its routes, as
    `REMOVED`."""
    SENT = "sent"
    """Sent on as it comes, once its type and range are checked; beside logprobs only where the exposure is open."""
    WITHHELD = "withheld"
    """Refused or left out, as what the exposure does not allow (`OnRefusal`); dropped where it is switched off."""
    REMOVED = "removed"
    """Left out or refused, as a field that nobody knows (`UnknownFields`); dropped where it is switched off."""


class Bounds(enum.Enum):
    """Whose bounds a request's values are held to."""

    SERVER = "server"
    GUARD = "guard"
    """Wider: a limit that protects nothing here belongs to the server behind."""


@dataclass(frozen=True, kw_only=True)
class Values:
    """What a field may hold, as JSON types; `least` and `most` bound a number, or how many texts or prompts there are.

    `guard_most` is the upper bound in a guard, where it is another one.
    """

    words: str
    types: tuple[type, ...]
    least: float = -math.inf
    most: float = math.inf
    guard_most: float | None = None

    def upper(self, bounds: Bounds) -> float:
        """The largest value that these bounds allow."""
        return self.most if self.guard_most is None or bounds is Bounds.SERVER else self.guard_most

    @property
    def expected(self) -> str:
        """What to say to who sent something else."""
        if math.isinf(self.most):
            return self.words
        if math.isinf(self.least):
            return f"at most {self.most:g} {self.words}"
        return f"{self.words} from {_shown(self.least)} to {_shown(self.most)}"

    def fits(self, value: object) -> bool:
        """Whether a guard may send this value on."""
        if isinstance(value, bool) or not isinstance(value, self.types):
            return isinstance(value, bool) and bool in self.types
        if isinstance(value, list):
            return all(isinstance(item, dict) for item in value)
        return not isinstance(value, int | float) or self.least <= value <= self.most


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field. `off` are the values that ask for nothing; null is one for every field.

    `kinds` are the routes that read it, `features` what it can ask for, `read_outs` the audit's read-outs that use it.
    """

    name: str
    purpose: Purpose
    known_by: Vendor
    off: tuple[Any, ...] = ()
    values: Values | None = None
    kinds: tuple[Kind, ...] = tuple(Kind)
    server: ServerFate = ServerFate.IGNORED
    guard: GuardFate = GuardFate.REMOVED
    is_sent_by_client: bool = False
    features: Feature = Feature.NOTHING
    read_outs: tuple[str, ...] = ()

    def is_off(self, value: object) -> bool:
        """Whether this value asks for nothing. True is not 1, and 0 is not False."""
        return value is None or any(
            value == off and isinstance(value, bool) == isinstance(off, bool) for off in self.off
        )

    def guard_fate(self, kind: Kind) -> GuardFate:
        """What a guard does with it on a route."""
        return GuardFate.REMOVED if self.guard is GuardFate.JUDGED and kind not in self.kinds else self.guard

    def may_steer(self, kind: Kind) -> bool:
        """Whether it may move tokens or read something out where a guard sends it on as it comes."""
        if self.guard_fate(kind) is GuardFate.JUDGED:
            return False
        purposes = (Purpose.STEERING, Purpose.READ_OUT, Purpose.SAMPLING)
        return self.purpose in purposes or self.guard is not GuardFate.REMOVED


def _shown(number: float) -> str:
    """Digits where they can be read: 1048576 and not 1.04858e+06, but 1e+300."""
    return str(int(number)) if number == int(number) and abs(number) < 1e9 else f"{number:.3g}"


def field_of(name: str) -> Field:
    """The field of this name; one that nobody knows is ignored by our server and removed by a guard."""
    return FIELDS.get(name) or Field(name=name, purpose=Purpose.BOOKKEEPING, known_by=Vendor(0))


def _number(least: float, most: float, *, guard_most: float | None = None) -> Values:
    return Values(words="a number", types=(int, float), least=least, most=most, guard_most=guard_most)


def _whole(least: float, most: float, *, guard_most: float | None = None) -> Values:
    return Values(words="a whole number", types=(int,), least=least, most=most, guard_most=guard_most)


_CHAT, _COMPLETION = (Kind.CHAT,), (Kind.COMPLETION,)
_OPENAI, _VLLM, _SGLANG, _LLAMA, _TGI, _OTHERS = Vendor
_ALL = _OPENAI | _VLLM | _SGLANG | _LLAMA | _TGI
_OPEN_SERVERS = _ALL & ~_OPENAI
_PROMPT, _SAMPLING, _STEERING, _READ_OUT, _ANSWER, _BOOKKEEPING = Purpose
_IGNORED, _WITHHELD, _REMOVED = ServerFate.IGNORED, GuardFate.WITHHELD, GuardFate.REMOVED
_INT64 = 1 << 63
_MOST_TOKENS = 1 << 20
_PENALTY = _number(-2.0, 2.0)
_FLAG = Values(words="true or false", types=(bool,))
_OBJECT = Values(words="an object", types=(dict,))
_OBJECTS = Values(words="a list of objects", types=(list,))
_TEXT_OR_OBJECT = Values(words="a name or an object", types=(str, dict))
_TEXTS = Values(words="texts", types=(str, list), most=4, guard_most=math.inf)


def _vendor(
    name: str,
    purpose: Purpose,
    known_by: Vendor,
    *off: Any,
    server: ServerFate | None = None,
    guard: GuardFate | None = None,
    **more: Any,
) -> Field:
    """A field of other servers that is not done here; by default what its purpose says becomes of it."""
    if server is None:
        server = ServerFate.IGNORED if purpose is _BOOKKEEPING else ServerFate.REFUSED
    if guard is None:
        guard = GuardFate.WITHHELD if purpose in (_STEERING, _READ_OUT) else GuardFate.REMOVED
    return Field(name=name, purpose=purpose, known_by=known_by, off=off, server=server, guard=guard, **more)


def _read(name: str, purpose: Purpose, known_by: Vendor, *off: Any, is_sent: bool = True, **more: Any) -> Field:
    """A field that our server reads and a guard judges."""
    fates = {"server": ServerFate.READ, "guard": GuardFate.JUDGED, **more}
    return _vendor(name, purpose, known_by, *off, is_sent_by_client=is_sent, **fates)


def _sent(name: str, known_by: Vendor, values: Values, *off: Any, **more: Any) -> Field:
    """A field that steers tokens, and that honest clients need: a guard sends it on where nothing is read out."""
    return _vendor(name, _STEERING, known_by, *off, values=values, guard=GuardFate.SENT, **more)


_TABLE = (
    # What our server reads and a guard judges.
    _read("model", _PROMPT, _ALL),
    _read("messages", _PROMPT, _ALL, kinds=_CHAT, features=Feature.MESSAGES | Feature.PICTURES),
    _read("prompt", _PROMPT, _ALL, kinds=_COMPLETION, features=Feature.PROMPT_TEXT | Feature.TOKEN_IDS,
          values=Values(words="prompts", types=(str, list), least=1, most=128, guard_most=4096)),
    _read("max_tokens", _SAMPLING, _ALL, values=_whole(0, _MOST_TOKENS, guard_most=_INT64)),
    _read("max_completion_tokens", _SAMPLING, _ALL, kinds=_CHAT, values=_whole(1, _MOST_TOKENS, guard_most=_INT64)),
    _read("temperature", _SAMPLING, _ALL, values=_number(0.0, 2.0, guard_most=1e300)),
    _read("top_p", _SAMPLING, _ALL, values=_number(0.0, 1.0)),
    _read("n", _SAMPLING, _ALL, 1, values=_whole(1, 128, guard_most=4096)),
    _read("seed", _SAMPLING, _ALL, values=_whole(-_INT64, _INT64 - 1), features=Feature.SEED),
    _read("stop", _SAMPLING, _ALL, [], values=_TEXTS, features=Feature.STOP),
    _read("logit_bias", _STEERING, _ALL, {}, values=_number(-1e300, 1e300), features=Feature.LOGIT_BIAS,
          read_outs=("P3", "P4a", "P6", "P7")),
    _read("allowed_token_ids", _STEERING, _VLLM, features=Feature.ALLOWED_IDS, read_outs=("P4b",)),
    _read("frequency_penalty", _STEERING, _ALL, 0, values=_PENALTY, features=Feature.FREQUENCY_PENALTY),
    _read("presence_penalty", _STEERING, _ALL, 0, values=_PENALTY, features=Feature.PRESENCE_PENALTY),
    _read("repetition_penalty", _STEERING, _VLLM | _SGLANG | _TGI, 1, values=_number(0.0, 2.0, guard_most=1e300),
          features=Feature.REPETITION_PENALTY),
    _read("logprobs", _READ_OUT, _ALL, False, values=_whole(-1, _MOST_TOKENS), features=Feature.SAMPLED_LOGPROB,
          read_outs=("P1", "P3", "P4a", "P4b", "P5", "P6", "P8")),
    _read("top_logprobs", _READ_OUT, _ALL, 0, kinds=_CHAT, values=_whole(-1, _MOST_TOKENS),
          features=Feature.TOP_LOGPROBS | Feature.VOCABULARY_LOGPROBS, read_outs=("P1", "P3", "P6", "P8")),
    _read("logprob_token_ids", _READ_OUT, _VLLM, [], features=Feature.WANTED_IDS, read_outs=("P2",)),
    _read("echo", _READ_OUT, _ALL, False, kinds=_COMPLETION, features=Feature.PROMPT_LOGPROBS, read_outs=("P5",)),
    _read("return_tokens_as_token_ids", _READ_OUT, _VLLM, False),
    _read("return_token_ids", _READ_OUT, _VLLM, False, guard=_WITHHELD),
    _read("stream", _ANSWER, _ALL, False),
    _read("stream_options", _ANSWER, _ALL, {}, is_sent=False),
    _read("user", _BOOKKEEPING, _OPENAI | _VLLM | _SGLANG, is_sent=False),
    # What steers tokens, and what honest clients need.
    _sent("min_p", _VLLM | _SGLANG | _LLAMA, _number(0.0, 1.0), 0),
    _sent("top_k", _OPEN_SERVERS, _whole(-1, _MOST_TOKENS), -1, 0),
    _sent("response_format", _ALL, _OBJECT, {"type": "text"}),
    _sent("tools", _ALL, _OBJECTS, []),
    _sent("tool_choice", _ALL, _TEXT_OR_OBJECT, "none", "auto"),
    _sent("parallel_tool_calls", _OPENAI | _VLLM | _LLAMA, _FLAG, False, server=_IGNORED),
    # Other ways to restrict or move tokens.
    _vendor("bad_words", _STEERING, _VLLM, []),
    _vendor("custom_logit_processor", _STEERING, _SGLANG, ""),
    _vendor("custom_params", _STEERING, _SGLANG, server=_IGNORED),
    _vendor("dry_multiplier", _STEERING, _LLAMA, 0, guard=_REMOVED),
    _vendor("dynatemp_range", _STEERING, _LLAMA, 0),
    _vendor("ebnf", _STEERING, _SGLANG, ""),
    _vendor("function_call", _STEERING, _OPENAI | _LLAMA, "none"),
    _vendor("functions", _STEERING, _OPENAI | _LLAMA, []),
    _vendor("grammar", _STEERING, _LLAMA | _TGI, ""),
    _vendor("guided_choice", _STEERING, _VLLM, []),
    _vendor("guided_grammar", _STEERING, _VLLM, ""),
    _vendor("guided_json", _STEERING, _VLLM),
    _vendor("guided_regex", _STEERING, _VLLM, ""),
    _vendor("ignore_eos", _STEERING, _VLLM | _SGLANG | _LLAMA, False),
    _vendor("json_schema", _STEERING, _SGLANG | _LLAMA),
    _vendor("logit_bias_type", _STEERING, _LLAMA, server=_IGNORED),
    _vendor("logits_processors", _STEERING, _VLLM, []),
    _vendor("min_new_tokens", _STEERING, _SGLANG, 0, guard=_REMOVED),
    _vendor("min_tokens", _STEERING, _VLLM | _SGLANG, 0),
    _vendor("mirostat", _STEERING, _LLAMA, 0, guard=_REMOVED),
    _vendor("no_repeat_ngram_size", _STEERING, _OTHERS, 0, guard=_REMOVED),
    _vendor("regex", _STEERING, _SGLANG, ""),
    _vendor("repeat_penalty", _STEERING, _LLAMA, 1, guard=_REMOVED),
    _vendor("samplers", _STEERING, _LLAMA, []),
    _vendor("stop_token_ids", _STEERING, _VLLM | _SGLANG, []),
    _vendor("structured_outputs", _STEERING, _VLLM),
    _vendor("tfs_z", _STEERING, _LLAMA, 1, guard=_REMOVED),
    _vendor("top_n_sigma", _STEERING, _LLAMA, -1, 0, guard=_REMOVED),
    _vendor("typical_p", _STEERING, _LLAMA | _TGI, 1),
    _vendor("use_beam_search", _STEERING, _VLLM, False),
    _vendor("vllm_xargs", _STEERING, _VLLM, {}),
    _vendor("xtc_probability", _STEERING, _LLAMA, 0, guard=_REMOVED),
    # Other ways to read numbers and tokens.
    _vendor("decoder_input_details", _READ_OUT, _TGI, False, server=_IGNORED),
    _vendor("details", _READ_OUT, _TGI, False, server=_IGNORED),
    _vendor("hidden_states", _READ_OUT, _OTHERS, False, server=_IGNORED),
    _vendor("include_hidden_states", _READ_OUT, _OTHERS, False, server=_IGNORED),
    _vendor("logprob_start_len", _READ_OUT, _SGLANG, -1),
    _vendor("n_probs", _READ_OUT, _LLAMA, 0),
    _vendor("post_sampling_probs", _READ_OUT, _LLAMA, False),
    _vendor("prompt_logprobs", _READ_OUT, _VLLM, features=Feature.PROMPT_LOGPROBS),
    _vendor("prompt_top_logprobs", _READ_OUT, _OTHERS, False, server=_IGNORED),
    _vendor("return_hidden_states", _READ_OUT, _SGLANG, False),
    _vendor("return_logits", _READ_OUT, _OTHERS, False, server=_IGNORED),
    _vendor("return_logprob", _READ_OUT, _SGLANG, False),
    _vendor("return_prompt_token_ids", _READ_OUT, _OTHERS, False, server=_IGNORED),
    _vendor("return_text_in_logprobs", _READ_OUT, _SGLANG, False, server=_IGNORED),
    _vendor("return_tokens", _READ_OUT, _LLAMA, False, server=_IGNORED),
    _vendor("sampling_params", _READ_OUT, _SGLANG, {}, server=_IGNORED),
    _vendor("token_ids_logprob", _READ_OUT, _SGLANG, [], features=Feature.WANTED_IDS),
    _vendor("top_logprobs_num", _READ_OUT, _SGLANG, 0),
    _vendor("top_n_tokens", _READ_OUT, _TGI, 0, server=_IGNORED),
    # What changes the prompt, the number of answers, or their form.
    _vendor("add_generation_prompt", _PROMPT, _VLLM | _LLAMA, True),
    _vendor("chat_template", _PROMPT, _VLLM, ""),
    _vendor("chat_template_kwargs", _PROMPT, _VLLM | _SGLANG | _LLAMA, {}),
    _vendor("continue_final_message", _PROMPT, _VLLM | _SGLANG, False),
    _vendor("documents", _PROMPT, _VLLM, []),
    _vendor("lora", _PROMPT, _LLAMA, []),
    _vendor("lora_path", _PROMPT, _SGLANG, "", guard=_WITHHELD),
    _vendor("mm_processor_kwargs", _PROMPT, _VLLM, {}),
    _vendor("n_keep", _PROMPT, _LLAMA, 0, server=_IGNORED, guard=_WITHHELD),
    _vendor("prompt_embeds", _PROMPT, _VLLM),
    _vendor("suffix", _PROMPT, _OPENAI | _SGLANG | _TGI, "", guard=_WITHHELD),
    _vendor("truncate_prompt_tokens", _PROMPT, _VLLM, -1, guard=_WITHHELD),
    _vendor("web_search_options", _PROMPT, _OPENAI),
    _vendor("best_of", _SAMPLING, _OPENAI | _VLLM | _SGLANG, 1, guard=_WITHHELD),
    _vendor("n_predict", _SAMPLING, _LLAMA, -1),
    _vendor("stop_regex", _SAMPLING, _SGLANG, "", []),
    _vendor("audio", _ANSWER, _OPENAI),
    _vendor("include_stop_str_in_output", _ANSWER, _VLLM, False),
    _vendor("modalities", _ANSWER, _OPENAI, ["text"]),
    _vendor("no_stop_trim", _ANSWER, _SGLANG, False),
    _vendor("return_full_text", _ANSWER, _TGI, False, server=_IGNORED, guard=_WITHHELD),
    _vendor("skip_special_tokens", _ANSWER, _VLLM | _SGLANG, True),
    # What changes nothing.
    _vendor("metadata", _BOOKKEEPING, _OPENAI),
    _vendor("priority", _BOOKKEEPING, _VLLM | _SGLANG),
    _vendor("service_tier", _BOOKKEEPING, _OPENAI),
    _vendor("store", _BOOKKEEPING, _OPENAI),
)  # fmt: skip

FIELDS: Mapping[str, Field] = {field.name: field for field in _TABLE}
"""All request fields that are known here, by name. What becomes of any other: see `field_of`."""

PARAMS: Mapping[Feature, str] = {
    feature: field.name for field in _TABLE if field.is_sent_by_client for feature in field.features
}
"""The field of a request by which each feature is asked for."""
