"""What becomes of each field of a request, as literal data, in our server, our client, a guard and an audit."""

import pytest

from lensmith.audit.findings.finding import ReadOut
from lensmith.core.endpoint import Feature, Penalties, Request, Reveal
from lensmith.core.types import Message
from lensmith.openai_api import (
    DIALECTS,
    FIELDS,
    PARAMS,
    Bounds,
    GuardFate,
    Kind,
    Purpose,
    ServerFate,
    field_of,
    write_request,
)

FATES = {
    (ServerFate.READ, GuardFate.JUDGED): """
        model messages prompt max_tokens max_completion_tokens temperature top_p n seed stop logit_bias
        allowed_token_ids logprobs top_logprobs logprob_token_ids echo return_tokens_as_token_ids stream
        stream_options user frequency_penalty presence_penalty repetition_penalty
    """,
    (ServerFate.READ, GuardFate.WITHHELD): """
        return_token_ids
    """,
    (ServerFate.REFUSED, GuardFate.SENT): """
        min_p top_k response_format tools tool_choice
    """,
    (ServerFate.IGNORED, GuardFate.SENT): """
        parallel_tool_calls
    """,
    (ServerFate.REFUSED, GuardFate.WITHHELD): """
        bad_words custom_logit_processor dynatemp_range ebnf function_call functions grammar guided_choice
        guided_grammar guided_json guided_regex ignore_eos json_schema logits_processors min_tokens regex
        samplers stop_token_ids structured_outputs typical_p use_beam_search vllm_xargs logprob_start_len
        n_probs post_sampling_probs prompt_logprobs return_hidden_states return_logprob token_ids_logprob
        top_logprobs_num lora_path suffix truncate_prompt_tokens best_of
    """,
    (ServerFate.IGNORED, GuardFate.WITHHELD): """
        custom_params logit_bias_type decoder_input_details details hidden_states include_hidden_states
        prompt_top_logprobs return_logits return_prompt_token_ids return_text_in_logprobs return_tokens
        sampling_params top_n_tokens n_keep return_full_text
    """,
    (ServerFate.REFUSED, GuardFate.REMOVED): """
        dry_multiplier min_new_tokens mirostat no_repeat_ngram_size repeat_penalty tfs_z top_n_sigma
        xtc_probability add_generation_prompt chat_template chat_template_kwargs continue_final_message
        documents lora mm_processor_kwargs prompt_embeds web_search_options n_predict stop_regex audio
        include_stop_str_in_output modalities no_stop_trim skip_special_tokens
    """,
    (ServerFate.IGNORED, GuardFate.REMOVED): """
        metadata priority service_tier store
    """,
}
SENT_BY_CLIENT = """
    model messages prompt max_tokens max_completion_tokens temperature top_p n seed stop logit_bias allowed_token_ids
    logprobs top_logprobs logprob_token_ids echo return_tokens_as_token_ids return_token_ids stream
    frequency_penalty presence_penalty repetition_penalty
"""
USED_BY_READ_OUTS = {
    "P1": "logprobs top_logprobs",
    "P2": "logprob_token_ids",
    "P3": "logit_bias logprobs top_logprobs",
    "P4a": "logit_bias logprobs",
    "P4b": "allowed_token_ids logprobs",
    "P5": "logprobs echo",
    "P6": "logit_bias logprobs top_logprobs",
    "P7": "logit_bias",
    "P8": "logprobs top_logprobs",
}


@pytest.mark.parametrize("fates", FATES, ids=lambda fates: "-".join(fate.value for fate in fates))
def test_the_fate_of_each_field_in_our_server_and_a_guard(fates):
    found = {name for name, field in FIELDS.items() if (field.server, field.guard) == fates}
    assert found == set(FATES[fates].split())


def test_every_field_has_a_fate():
    assert FIELDS.keys() == set(" ".join(FATES.values()).split())
    assert len(FIELDS) == len(" ".join(FATES.values()).split()) > 100


def test_a_field_that_nobody_knows_is_ignored_by_our_server_and_removed_by_a_guard():
    unknown = field_of("surprise")
    assert (unknown.server, unknown.guard, unknown.is_sent_by_client) == (ServerFate.IGNORED, GuardFate.REMOVED, False)
    assert not any(unknown.guard_fate(kind) is GuardFate.JUDGED for kind in Kind)


def test_no_read_out_of_another_server_passes_a_guard():
    kept_out = (GuardFate.WITHHELD, GuardFate.JUDGED)
    assert all(field.guard in kept_out for field in FIELDS.values() if field.purpose is Purpose.READ_OUT)
    assert all(
        field.may_steer(kind)
        for kind in Kind
        for field in FIELDS.values()
        if field.guard in (GuardFate.SENT, GuardFate.WITHHELD)
    )


def test_a_judged_field_is_unknown_on_the_other_route():
    judged = {kind: {name for name in FIELDS if FIELDS[name].guard_fate(kind) is GuardFate.JUDGED} for kind in Kind}
    assert judged[Kind.CHAT] - judged[Kind.COMPLETION] == {"messages", "max_completion_tokens", "top_logprobs"}
    assert judged[Kind.COMPLETION] - judged[Kind.CHAT] == {"prompt", "echo"}


def test_what_a_client_sends():
    shared = {
        "n": 2,
        "seed": 1,
        "stop": ("a",),
        "logit_bias": {1: 1.0},
        "allowed_ids": (1,),
        "top_logprobs": 1,
        "wanted_ids": (1,),
        "penalties": Penalties(presence=1.0, frequency=1.0, repetition=2.0),
    }
    messages = (Message(role="user", parts=("hello",)),)
    chat = Request(messages=messages, reveal=Reveal.SAMPLED, **shared)
    completion = Request(prompt="hello", reveal=Reveal.SAMPLED | Reveal.PROMPT, **shared)
    sent = set()
    for kind, request in ((Kind.CHAT, chat), (Kind.COMPLETION, completion)):
        sent |= write_request(request, kind=kind, model="m", dialect=DIALECTS["vllm"], stream=True).keys()
    sent |= write_request(Request(messages=messages), kind=Kind.CHAT, model="m", dialect=DIALECTS["openai"]).keys()
    assert sent == set(SENT_BY_CLIENT.split())
    assert sent == {name for name, field in FIELDS.items() if field.is_sent_by_client}


def test_every_read_out_of_the_interface_uses_fields():
    used = {code: {name for name, field in FIELDS.items() if code in field.read_outs} for code in USED_BY_READ_OUTS}
    assert used == {code: set(names.split()) for code, names in USED_BY_READ_OUTS.items()}
    without_fields = {ReadOut.P0, ReadOut.P9}  # metadata and text alone
    assert USED_BY_READ_OUTS.keys() == {read_out.value for read_out in set(ReadOut) - without_fields}


def test_every_feature_has_one_field_to_ask_for_it():
    assert PARAMS.keys() == set(Feature)
    assert PARAMS[Feature.PICTURES] == "messages"
    assert PARAMS[Feature.TOKEN_IDS] == "prompt"
    assert PARAMS[Feature.VOCABULARY_LOGPROBS] == "top_logprobs"
    assert PARAMS[Feature.PROMPT_LOGPROBS] == "echo"


@pytest.mark.parametrize(
    ("name", "value", "is_off"),
    [
        ("prompt_logprobs", None, True),
        ("prompt_logprobs", 0, False),
        ("return_hidden_states", False, True),
        ("return_hidden_states", 0, False),
        ("n_probs", 0, True),
        ("n_probs", False, False),
        ("top_k", -1, True),
        ("min_p", 0.0, True),
        ("response_format", {"type": "text"}, True),
        ("surprise", False, False),
    ],
)
def test_what_switches_a_field_off(name, value, is_off):
    assert field_of(name).is_off(value) is is_off


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("presence_penalty", (-2, 0.5, 2), (2.1, True, "1", None)),
        ("top_k", (-1, 40), (1.5, -2)),
        ("parallel_tool_calls", (True, False), (1, "true")),
        ("response_format", ({},), ("json", [])),
        ("tools", ([], [{}]), ("all", [5], {})),
        ("tool_choice", ("auto", {}), (1, [])),
    ],
)
def test_what_a_guard_may_send_on(name, good, bad):
    values = FIELDS[name].values
    assert all(map(values.fits, good))
    assert not any(map(values.fits, bad))


def test_a_guard_is_never_stricter_than_our_server():
    bounded = [field.values for field in FIELDS.values() if field.values is not None]
    assert len(bounded) > 15
    assert all(values.upper(Bounds.GUARD) >= values.upper(Bounds.SERVER) for values in bounded)
