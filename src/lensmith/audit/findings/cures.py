"""What closes each read-out: the exact setting of the server at hand, and the guard's where the server has none.

Sources: the servers' own documentation and code of 2025-26 (vLLM engine arguments and sampling parameters, SGLang
server arguments, llama.cpp's server README, llama-cpp-python's server settings). Most servers have no switch for most
read-outs, and then what closes it stands in front of them: `lensmith guard`, or a gateway that drops the same fields.

`exposed_read_outs` is the other direction: which read-outs an `Exposure` leaves. It is also how the cures are tested.
"""

from collections.abc import Mapping
from types import MappingProxyType

from lensmith.audit.findings.finding import ReadOut
from lensmith.core.exposure import Exposure, Sampled, Taken, Together

SAFE_WORDS = "top-logprobs=5,no-logit-bias,no-metadata"
"""An exposure that leaves chat, streaming and the five most likely tokens, and closes every read-out of logits."""

GUARD_WORDS: Mapping[ReadOut, str] = MappingProxyType(
    {
        ReadOut.P0: "no-metadata",
        ReadOut.P1: "top-logprobs=5",
        ReadOut.P2: "no-wanted-ids",
        ReadOut.P3: "bias-with-logprobs=refused",
        ReadOut.P4A: "sampled-logprob=masked,top-logprobs=5",
        ReadOut.P4B: "no-allowed-ids",
        ReadOut.P5: "no-echo",
        ReadOut.P6: "bias-with-logprobs=refused",
        ReadOut.P7: "no-logit-bias",
        ReadOut.P8: "top-logprobs=1,no-allowed-ids",
    }
)
"""What `--expose` of the guard must hold to close a read-out."""

# Names by which a server may be known; the first that stands in the given name counts, so the longer come first.
_ALIASES = (
    ("llama-cpp-python", "llama-cpp-python"),
    ("llama_cpp", "llama-cpp-python"),
    ("llama.cpp", "llama.cpp"),
    ("llama-server", "llama.cpp"),
    ("llamacpp", "llama.cpp"),
    ("lensmith", "lensmith"),
    ("sglang", "sglang"),
    ("vllm", "vllm"),
)

_VLLM = {
    ReadOut.P0: "vLLM: pass `--served-model-name NAME`, leave VLLM_SERVER_DEV_MODE unset, and let only `id` of "
    "`/v1/models` through the gateway (`root` is the model's path, `max_model_len` its context).",
    ReadOut.P1: "vLLM: `--max-logprobs 5` (the default is 20; -1 tells the whole vocabulary). It caps "
    "`prompt_logprobs` too.",
    ReadOut.P2: "vLLM has no switch for it: refuse the field `logprob_token_ids` at the gateway; `--max-logprobs` does "
    "not bound it.",
    ReadOut.P3: "vLLM: `--logprobs-mode raw_logprobs` (the default); the modes `processed_logprobs` and "
    "`processed_logits` open this.",
    ReadOut.P4A: "vLLM has no switch for it: in raw mode the sampled token's own logprob is always told. Mask it at "
    "the gateway where the token is not among the top ones, or refuse `logit_bias` together with logprobs.",
    ReadOut.P4B: "vLLM has no switch for it: refuse `allowed_token_ids`, `bad_words`, `structured_outputs` and "
    "`response_format` at the gateway wherever a request asks for logprobs.",
    ReadOut.P5: "vLLM has no switch for it: refuse `prompt_logprobs`, and `echo` together with logprobs, at the "
    "gateway.",
    ReadOut.P6: "vLLM: `--logprobs-mode raw_logprobs` (the default), so that no bias moves a logprob.",
    ReadOut.P7: "vLLM has no switch for it: refuse or bound `logit_bias` at the gateway (vLLM takes -100 to 100 on "
    "any number of ids).",
    ReadOut.P8: "vLLM: `--max-logprobs 1` leaves no order to read.",
}
_SGLANG = {
    ReadOut.P0: "SGLang: leave out `--enable-return-hidden-states`, pass `--served-model-name NAME`, and route only "
    "`/v1/chat/completions` and `/v1/completions`: `/model_info` and `/server_info` tell path and architecture.",
    ReadOut.P1: "SGLang has no cap: bound `top_logprobs` (and `top_logprobs_num` of `/generate`) at the gateway.",
    ReadOut.P2: "SGLang has no switch for it: refuse `token_ids_logprob`, or do not route `/generate` at all.",
    ReadOut.P3: "SGLang adds the bias before it takes logprobs: refuse `logit_bias` together with logprobs at the "
    "gateway.",
    ReadOut.P4A: "SGLang has no switch for it: refuse `logit_bias` together with logprobs at the gateway, and mask the "
    "sampled token outside the top ones.",
    ReadOut.P4B: "SGLang has no switch for it: refuse `regex`, `ebnf`, `json_schema` and `response_format` together "
    "with logprobs at the gateway; `--grammar-backend none` turns grammars off for everyone.",
    ReadOut.P5: "SGLang has no switch for it: refuse `logprob_start_len`, and `echo` together with logprobs, at the "
    "gateway.",
    ReadOut.P6: "SGLang adds the bias before it takes logprobs: refuse `logit_bias` together with logprobs at the "
    "gateway.",
    ReadOut.P7: "SGLang has no switch for it: refuse or bound `logit_bias` at the gateway; it clamps nothing.",
    ReadOut.P8: "SGLang has no cap: bound `top_logprobs` at 1 at the gateway.",
}
_LLAMA_CPP = {
    ReadOut.P0: "llama.cpp: `llama-server --alias NAME --no-slots` without `--props` and `--embeddings`, and at the "
    "gateway drop `meta` of `/v1/models` (it holds n_embd and n_vocab) and refuse `/props`, `/slots`, `/tokenize`.",
    ReadOut.P1: "llama.cpp has no cap: bound `n_probs`, `logprobs` and `top_logprobs` at the gateway.",
    ReadOut.P2: "llama.cpp knows no chosen ids; what was found came through a layer in front of it: refuse the field "
    "there.",
    ReadOut.P3: "llama.cpp: refuse `post_sampling_probs` at the gateway; without it logprobs are taken before the "
    "bias.",
    ReadOut.P4A: "llama.cpp has no switch for it: it tells the sampled token's own logprob from before the bias. Mask "
    "it at the gateway where the token is not among the top ones, or refuse `logit_bias` together with logprobs.",
    ReadOut.P4B: "llama.cpp has no switch for it: refuse `grammar`, `json_schema` and `response_format` together with "
    "`n_probs` or logprobs at the gateway.",
    ReadOut.P5: "llama.cpp tells no prompt logprobs itself; what was found came through a layer in front of it: refuse "
    "`echo` together with logprobs there.",
    ReadOut.P6: "llama.cpp: refuse `post_sampling_probs` at the gateway; without it logprobs are taken before the "
    "bias.",
    ReadOut.P7: "llama.cpp has no switch for it: refuse or bound `logit_bias` at the gateway; it clamps nothing.",
    ReadOut.P8: "llama.cpp has no cap: bound `n_probs` and `top_logprobs` at 1 at the gateway.",
}
_NO_LOGITS = "llama-cpp-python: `python -m llama_cpp.server --logits_all false` refuses every request for logprobs"
_LLAMA_CPP_PYTHON = {
    ReadOut.P0: "llama-cpp-python: `--model_alias NAME --embedding false` (else `/v1/models` tells the file's path).",
    ReadOut.P1: f"{_NO_LOGITS}; to keep a few, bound `logprobs` and `top_logprobs` at the gateway: it has no cap.",
    ReadOut.P2: "llama-cpp-python knows no chosen ids; what was found came through a layer in front of it: refuse the "
    "field there.",
    ReadOut.P3: f"{_NO_LOGITS}; to keep a few, refuse `logit_bias` together with logprobs at the gateway.",
    ReadOut.P4A: f"{_NO_LOGITS}; to keep a few, mask the sampled token outside the top ones at the gateway: logprobs "
    "are taken before the bias, which does not close this.",
    ReadOut.P4B: f"{_NO_LOGITS}; to keep a few, refuse `grammar` and `response_format` together with logprobs at the "
    "gateway.",
    ReadOut.P5: f"{_NO_LOGITS}; to keep a few, refuse `echo` together with logprobs at the gateway.",
    ReadOut.P6: f"{_NO_LOGITS}; to keep a few, refuse `logit_bias` together with logprobs at the gateway.",
    ReadOut.P7: "llama-cpp-python has no switch for it: refuse or bound `logit_bias` at the gateway.",
    ReadOut.P8: f"{_NO_LOGITS}; to keep one, bound `top_logprobs` at 1 at the gateway.",
}
_ANY = {
    ReadOut.P0: "Tell no more of a model than its name: no sizes, paths, embeddings or hidden states.",
    ReadOut.P1: "Cap `top_logprobs` at 5 or less, and never tell the whole vocabulary.",
    ReadOut.P2: "Refuse fields that name the tokens whose logprobs are wanted (`logprob_token_ids`, "
    "`token_ids_logprob`).",
    ReadOut.P3: "Take logprobs before the bias, or refuse `logit_bias` together with logprobs.",
    ReadOut.P4A: "Mask the sampled token's logprob where it is not among the top ones that are told anyway (taking "
    "logprobs before the bias does not close this), or refuse `logit_bias` together with logprobs.",
    ReadOut.P4B: "Refuse allow-lists, grammars and schemas together with logprobs.",
    ReadOut.P5: "Refuse `echo` and `prompt_logprobs`.",
    ReadOut.P6: "Take logprobs before the bias, or refuse `logit_bias` together with logprobs.",
    ReadOut.P7: "Refuse `logit_bias`, or allow only a small range on a few ids and limit requests of one prompt.",
    ReadOut.P8: "Tell one top logprob at most.",
}
_TABLE: Mapping[str, Mapping[ReadOut, str]] = {
    "vllm": _VLLM,
    "sglang": _SGLANG,
    "llama.cpp": _LLAMA_CPP,
    "llama-cpp-python": _LLAMA_CPP_PYTHON,
    "lensmith": {
        read_out: f"lensmith: `lensmith serve MODEL --expose {words}`." for read_out, words in GUARD_WORDS.items()
    },
}
SERVERS = tuple(_TABLE)
"""The servers whose settings are known by name."""

NOTHING_TO_CLOSE = "Nothing to close: text alone tells no logits."


def cure(read_out: ReadOut, server: str | None) -> str:
    """What closes `read_out` on `server` (its name as a probe found it, or None), and the guard's line."""
    if read_out is ReadOut.P9:
        return NOTHING_TO_CLOSE
    name = server_name(server)
    setting = _TABLE.get(name or "", _ANY)[read_out]
    if name == "lensmith":
        return setting
    return f"{setting} Or in front of it: `lensmith guard --upstream URL --expose {GUARD_WORDS[read_out]}`."


def server_name(banner: str | None) -> str | None:
    """The server of `SERVERS` that a banner, a header or an owner field names; None where it names none of them."""
    text = (banner or "").lower()
    return next((name for alias, name in _ALIASES if alias in text), None)


def exposed_read_outs(exposure: Exposure) -> tuple[ReadOut, ...]:
    """The read-outs that an exposure leaves, in the order of `ReadOut`; P9 alone where only text is left.

    What noise and rounding leave of a read-out's precision is another question.
    """
    any_top = exposure.top_logprobs is None or exposure.top_logprobs >= 1
    several = exposure.top_logprobs is None or exposure.top_logprobs >= 2
    any_sampled = exposure.sampled_logprob is Sampled.SHOWN or (
        exposure.sampled_logprob is Sampled.MASKED and exposure.top_logprobs is None
    )
    biased = exposure.logit_bias > 0 and exposure.biased_ids != 0
    together = exposure.bias_with_logprobs is Together.ALLOWED
    after = exposure.logprobs_taken is Taken.AFTER_BIAS
    listed = exposure.allowed_ids != 0
    pair_listed = exposure.allowed_ids is None or exposure.allowed_ids >= 2
    listed_shown = pair_listed and (any_top or any_sampled) if after else listed and any_sampled
    opened = {
        ReadOut.P0: exposure.metadata,
        ReadOut.P1: exposure.top_logprobs is None,
        ReadOut.P2: exposure.wanted_ids != 0,
        ReadOut.P3: after and several and biased and together,
        ReadOut.P4A: not after and any_sampled and biased and together,
        ReadOut.P4B: listed_shown and together,
        ReadOut.P5: exposure.echo and any_sampled,
        ReadOut.P6: after and (any_top or any_sampled) and biased and together,
        ReadOut.P7: biased,
        ReadOut.P8: several or pair_listed,
    }
    found = tuple(read_out for read_out, is_open in opened.items() if is_open)
    return found or (ReadOut.P9,)
