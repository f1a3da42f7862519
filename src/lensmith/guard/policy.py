"""What a guard lets through to the server behind it: fields it knows, in a body that it writes itself.

A request is read as our own server reads it (`openai_api`), refused exactly where `core.exposure.check` refuses, and
sent on with the fields that the table of fields (`openai_api.fields`) lets through and no other. Fields by which some
server reads logprobs or steers tokens unseen never pass. Those that steer tokens and that honest clients need (tools, a
response format, penalties) pass where no logprobs are asked for, because a grammar is an allow-list: it forces a token
whose logprob is then read.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lensmith.core.config import nearest_hint
from lensmith.core.endpoint import Feature, RefusedError, Request, Reveal
from lensmith.core.errors import ConfigError
from lensmith.core.exposure import Exposure, PenaltyUse, Sampled, Together, check
from lensmith.guard.config import GuardConfig, OnRefusal, TokenNaming, UnknownFields
from lensmith.guard.frozen_noise import check_frozen, one_text, text_hash
from lensmith.guard.messages import api_messages, clean_messages, prompt_hash
from lensmith.guard.patterns import Observation, ids_look_random, looks_random
from lensmith.guard.strict_json import Json
from lensmith.openai_api import (
    FIELDS,
    PARAMS,
    Bounds,
    GuardFate,
    Kind,
    WireError,
    WireRequest,
    field_of,
    read_requests,
    visible_request,
)

_FORCING_BIAS = 30.0
_ONE_TOKEN = 2
_FIELD_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_STEERED = Feature.SAMPLED_LOGPROB | Feature.ALLOWED_IDS


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A request that may go on: what is sent upstream, what the client may be told, and what it looks like.

    `wires` are the request as `openai_api` reads it, one for each prompt; `request` is the first without what
    the exposure hides silently. `asked` are the client's fields that go on, without what the guard adds for `upstream`;
    `stripped` names those that were left out.
    """

    wires: tuple[WireRequest, ...]
    request: Request
    asked: Json
    upstream: Json
    stripped: tuple[str, ...]
    seen: Observation

    @property
    def kind(self) -> Kind:
        return self.wires[0].kind

    @property
    def choices(self) -> int:
        """How many choices the answer has."""
        return len(self.wires) * self.request.n


def decide(kind: Kind, body: Mapping[str, Any], config: GuardConfig) -> Decision:
    """What becomes of a body. Raises WireError and RefusedError, as the server with this exposure would."""
    fields, stripped = _known_fields(kind, body, config)
    if kind is Kind.CHAT:
        fields["messages"] = clean_messages(fields.get("messages"), config)
    elif config.is_noise_frozen:
        fields["prompt"] = one_text(fields.get("prompt"))
    removed: list[str] = []
    while True:
        wires = _read(kind, fields, config)
        visible = visible_request(wires[0].request, config.exposure)
        try:
            _check(visible, wires, fields, config)
            break
        except RefusedError as error:
            if config.on_refusal is OnRefusal.REJECT:
                raise
            fields, names = _without(fields, error, kind, config.exposure)
            removed += names
    return Decision(
        wires=wires,
        request=visible,
        asked=fields,
        upstream=_upstream_body(kind, fields, visible, config),
        stripped=tuple(dict.fromkeys(stripped + removed)),
        seen=_observe(kind, fields, wires),
    )


def check_field_names(config: GuardConfig) -> None:
    """Raises ConfigError for a field to refuse that the guard does not know, and so does not let through anyway."""
    for name in config.refuse_fields:
        if name not in FIELDS:
            hint = f"{nearest_hint(name, FIELDS)} Fields that are not known never pass"
            raise ConfigError("refuse_fields: not a known field", expected="a known field", actual=name, hint=hint)


# --- fields -------------------------------------------------------------------------------------------------------


def _known_fields(kind: Kind, body: Mapping[str, Any], config: GuardConfig) -> tuple[Json, list[str]]:
    """The fields that the guard knows, and the names of those that it left out."""
    fields: Json = {}
    stripped: list[str] = []
    for name, value in body.items():
        fate = _fate(name, kind, config)
        if fate in (GuardFate.JUDGED, GuardFate.SENT):
            fields |= {} if value is None else {name: value}
        elif field_of(name).is_off(value):
            continue
        elif fate is GuardFate.WITHHELD:
            stripped.append(_refused(name, config))
        else:
            is_name = _FIELD_NAME.fullmatch(name) is not None
            if config.unknown_fields is UnknownFields.REFUSE:
                raise WireError("a field is not known here", param=name if is_name else None, hint="leave it out")
            stripped += [name] if is_name else []
    if config.is_noise_frozen and fields.get("return_tokens_as_token_ids") and config.token_naming != TokenNaming.IDS:
        stripped.append(_refused("return_tokens_as_token_ids", config))
        del fields["return_tokens_as_token_ids"]
    for name in fields.keys() - set(config.pass_fields):
        _check_values(name, fields[name])
    return fields, stripped


def _fate(name: str, kind: Kind, config: GuardConfig) -> GuardFate:
    """What the table says, unless the configuration says otherwise."""
    if name in config.refuse_fields:
        return GuardFate.WITHHELD
    fate = field_of(name).guard_fate(kind)
    return GuardFate.SENT if name in config.pass_fields and fate is not GuardFate.JUDGED else fate


def _refused(name: str, config: GuardConfig) -> str:
    """The name, where what is not allowed is left out; else raises WireError."""
    if config.on_refusal is OnRefusal.REJECT:
        raise WireError(f"{name}: is not allowed here", param=name, hint=f"leave {name} out")
    return name


def _check_values(name: str, value: object) -> None:
    """Raises WireError for a value that no server takes in a field that is sent on as it comes."""
    field = field_of(name)
    if field.guard is GuardFate.SENT and field.values is not None and not field.values.fits(value):
        raise WireError(f"{name}: not possible", param=name, expected=field.values.expected)


# --- judging ------------------------------------------------------------------------------------------------------


def _read(kind: Kind, fields: Mapping[str, Any], config: GuardConfig) -> tuple[WireRequest, ...]:
    view = {name: value for name, value in fields.items() if field_of(name).guard_fate(kind) is GuardFate.JUDGED}
    if kind is Kind.CHAT:
        view["messages"] = api_messages(fields["messages"], config)
        if {"max_tokens", "max_completion_tokens"} <= view.keys():
            raise WireError("max_tokens: stands beside max_completion_tokens", param="max_tokens", hint="leave one out")
    wires = read_requests(kind, view, bounds=Bounds.GUARD)
    most = config.limits.choices
    if len(wires) * wires[0].request.n > most:
        raise WireError("n: too many choices of all prompts together", param="n", expected=f"at most {most}")
    names_ids = wires[0].tokens_as_ids or config.token_naming is TokenNaming.IDS
    if kind is Kind.COMPLETION and wires[0].request.wanted_ids and not names_ids:
        # In completions, top tokens and wanted ids share one object whose keys are names: texts do not tell them apart.
        raise WireError(
            "logprob_token_ids: only with names by id", param="logprob_token_ids", hint="return_tokens_as_token_ids"
        )
    return wires


def _check(request: Request, wires: tuple[WireRequest, ...], fields: Mapping[str, Any], config: GuardConfig) -> None:
    exposure = config.exposure
    # How many ids a prompt's biases name can be counted; what penalties move cannot.
    counts_bias = config.patterns.bias_per_prompt is not None and exposure.penalties is PenaltyUse.WITH_BIAS
    check(request, replace(exposure, penalties=PenaltyUse.REFUSED) if counts_bias else exposure)
    if not request.wants_logprobs:
        return
    if request.steers and config.is_bias_out_of_reach:
        problem = "refused: bias, penalties or allow-list with logprobs, which this server takes at another time"
        raise RefusedError(problem, feature=Feature.LOGIT_BIAS | Feature.ALLOWED_IDS)
    # What may move or restrict tokens: the fields that are let through, and whatever else is passed on.
    steers = [name for name in fields if field_of(name).may_steer(wires[0].kind)]
    names = [name for name in steers if not field_of(name).is_off(fields[name])]
    is_open = exposure.allowed_ids is None and exposure.bias_with_logprobs is Together.ALLOWED
    if names and (config.is_bias_out_of_reach or not is_open):
        raise RefusedError(f"refused: {names[0]} together with logprobs", feature=_STEERED)
    if config.is_noise_frozen:
        check_frozen(wires, fields, config)


def _without(
    fields: Mapping[str, Any], error: RefusedError, kind: Kind, exposure: Exposure
) -> tuple[Json, tuple[str, ...]]:
    """The fields without what was refused, and the names of those that changed; never the same fields again."""
    top = "top_logprobs" if kind is Kind.CHAT else "logprobs"
    logprobs = ("logprobs", "top_logprobs", "logprob_token_ids")
    dropped: Mapping[Feature, tuple[str, ...]] = {
        Feature.LOGIT_BIAS: ("logit_bias",),
        Feature.ALLOWED_IDS: ("allowed_token_ids",),
        Feature.WANTED_IDS: ("logprob_token_ids",),
        Feature.PROMPT_LOGPROBS: ("echo",),
    }
    is_top = error.feature in (Feature.TOP_LOGPROBS, Feature.VOCABULARY_LOGPROBS)
    # Without the sampled token, 0 top logprobs are no logprobs at all.
    if is_top and (exposure.top_logprobs or exposure.sampled_logprob is not Sampled.HIDDEN):
        return {**fields, top: exposure.top_logprobs or 0}, (top,)
    # A bias changes the text, logprobs do not: where the two do not go together, the text stays what was asked for.
    are_penalties = error.feature and error.feature in Feature.PENALTIES
    refused = [PARAMS[feature] for feature in error.feature] if are_penalties else dropped.get(error.feature, logprobs)
    names = [name for name in refused if name in fields]
    assert names, error.feature
    return {name: value for name, value in fields.items() if name not in names}, tuple(names)


# --- what goes on -------------------------------------------------------------------------------------------------


def _upstream_body(kind: Kind, fields: Mapping[str, Any], request: Request, config: GuardConfig) -> Json:
    body = {name: value for name, value in fields.items() if name not in ("logprobs", "top_logprobs", "user")}
    # What has several spellings in JSON is written in one.
    if request.logit_bias:
        body["logit_bias"] = {str(token_id): bias for token_id, bias in request.logit_bias.items()}
    body |= {name: int(body[name]) for name in ("max_tokens", "max_completion_tokens", "n", "seed") if name in body}
    body |= {"allowed_token_ids": list(request.allowed_ids)} if request.allowed_ids is not None else {}
    body |= {"logprob_token_ids": list(request.wanted_ids)} if request.wanted_ids else {}
    body["stream"] = bool(fields.get("stream"))
    options = body.pop("stream_options", {})
    if options:  # only with `stream`, as `read_requests` has checked
        body["stream_options"] = {"include_usage": bool(options.get("include_usage"))}
    if request.wants_logprobs:
        top = upstream_top(request, config)
        body |= {"logprobs": True, "top_logprobs": top} if kind is Kind.CHAT else {"logprobs": top}
        if config.token_naming is TokenNaming.IDS:
            body["return_tokens_as_token_ids"] = True
    else:
        body.pop("return_tokens_as_token_ids", None)
    return body


def upstream_top(request: Request, config: GuardConfig) -> int:
    """How many top logprobs the upstream is asked for (-1: all).

    One more than the tokens that may be told, because vLLM lists the sampled token among the top ones though it is not.
    With one more, it stands last and is recognised. The tokens that may be told are those asked for, and where a
    sampled token is told only inside the cap, those inside the cap.
    """
    if Reveal.VOCABULARY in request.reveal:
        return -1
    cap = config.exposure.top_logprobs
    if config.exposure.sampled_logprob is Sampled.SHOWN or cap is None:
        enough = request.top_logprobs + 1 if request.top_logprobs else 0
    else:
        enough = (cap if Reveal.SAMPLED in request.reveal else request.top_logprobs) + 1
    return max(request.top_logprobs, min(enough, config.upstream.top_logprobs))


# --- what it looks like -------------------------------------------------------------------------------------------


def _observe(kind: Kind, fields: Mapping[str, Any], wires: tuple[WireRequest, ...]) -> Observation:
    request = wires[0].request
    is_one_token = request.max_tokens <= _ONE_TOKEN
    allowed = request.allowed_ids or ()
    is_forced = len(allowed) == 1 or any(bias >= _FORCING_BIAS for bias in request.logit_bias.values())
    reads = request.wants_logprobs or bool(request.logit_bias) or bool(allowed)
    return Observation(
        prompts=_prompt_hashes(kind, fields, wires) if reads else (),
        bias=tuple(sorted(request.logit_bias.items())),
        named_ids=(*request.logit_bias, *allowed, *request.wanted_ids),
        reads_logprobs=request.wants_logprobs,
        is_one_token=is_one_token,
        is_forced=is_forced and is_one_token,
        is_random=reads and _is_random(kind, fields, wires),
    )


def _prompt_hashes(kind: Kind, fields: Mapping[str, Any], wires: tuple[WireRequest, ...]) -> tuple[bytes, ...]:
    if kind is Kind.CHAT:
        return (prompt_hash(fields["messages"]),)
    return tuple(
        hashlib.sha256(repr(wire.request.token_ids).encode()).digest()
        if wire.request.token_ids
        else text_hash([wire.request.prompt])
        for wire in wires
    )


def _is_random(kind: Kind, fields: Mapping[str, Any], wires: tuple[WireRequest, ...]) -> bool:
    if kind is Kind.CHAT:
        contents = [message.get("content") for message in fields["messages"] if message["role"] == "user"]
        return any(isinstance(content, str) and looks_random(content) for content in contents[-1:])
    return any(looks_random(wire.request.prompt) or ids_look_random(wire.request.token_ids) for wire in wires)
