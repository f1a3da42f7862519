import itertools
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lensmith.audit.findings.cures import (
    GUARD_WORDS,
    NOTHING_TO_CLOSE,
    SAFE_WORDS,
    SERVERS,
    cure,
    exposed_read_outs,
    server_name,
)
from lensmith.audit.findings.finding import ReadOut
from lensmith.core.endpoint import RefusedError, Request, Reveal
from lensmith.core.exposure import Exposure, Sampled, Taken, Together, apply, parse_exposure

LEAKS = [read_out for read_out in ReadOut if read_out is not ReadOut.P9]


@pytest.mark.parametrize("server", [*SERVERS, None, "some other server"])
@pytest.mark.parametrize("read_out", LEAKS)
def test_every_read_out_has_an_exact_cure_on_every_server(read_out, server):
    text = cure(read_out, server)
    assert len(text) > 40 and text.count("`") % 2 == 0 and text.endswith(".")
    command = "lensmith serve MODEL" if server == "lensmith" else "lensmith guard --upstream URL"
    assert f"`{command} --expose {GUARD_WORDS[read_out]}`" in text
    if server in SERVERS:
        assert text.lower().startswith(server)


def test_text_alone_needs_no_cure():
    assert all(cure(ReadOut.P9, server) == NOTHING_TO_CLOSE for server in [*SERVERS, None])


@pytest.mark.parametrize("taken", Taken)
@pytest.mark.parametrize("read_out", LEAKS)
def test_the_guards_words_close_the_read_out_and_text_still_comes(read_out, taken):
    everything = replace(Exposure.everything(), logprobs_taken=taken)
    assert read_out in exposed_read_outs(everything) or taken is not (
        Taken.BEFORE_BIAS if read_out is ReadOut.P4A else Taken.AFTER_BIAS
    )
    closed = parse_exposure(f"everything,logprobs-taken={taken.value},{GUARD_WORDS[read_out]}")
    assert read_out not in exposed_read_outs(closed)


def test_the_safe_words_leave_no_read_out_of_logits():
    assert exposed_read_outs(parse_exposure(SAFE_WORDS)) == (ReadOut.P8,)
    assert exposed_read_outs(Exposure.text_only()) == (ReadOut.P9,)


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("vLLM/0.11.0", "vllm"),
        ("llama.cpp", "llama.cpp"),
        ("llama-server b8681", "llama.cpp"),
        ("llama_cpp.server", "llama-cpp-python"),
        ("llama-cpp-python 0.3", "llama-cpp-python"),
        ("SGLang", "sglang"),
        ("uvicorn", None),
        ("", None),
        (None, None),
    ],
)
def test_a_server_is_known_by_what_it_calls_itself(told, name):
    assert server_name(told) == name


def exposures():
    """All combinations of the switches that decide which read-outs exist."""
    for top, sampled, taken, bias, together, wanted, allowed, echo in itertools.product(
        (0, 1, 2, 5, None), Sampled, Taken, (0.0, 100.0), Together, (0, 4), (0, 1, 2), (False, True)
    ):
        yield Exposure(
            top_logprobs=top,
            sampled_logprob=sampled,
            logprobs_taken=taken,
            logit_bias=bias,
            bias_with_logprobs=together,
            wanted_ids=wanted,
            allowed_ids=allowed,
            echo=echo,
            metadata=False,
        )


def test_an_open_read_out_answers_and_a_closed_one_does_not():
    """Against the one enforcement, for each combination: is a rare token's logprob (or a difference) told?"""
    rng = np.random.default_rng(0)
    logits_TV = rng.normal(0, 3, (1, 24))
    order = np.argsort(-logits_TV[0])
    rare, reference = int(order[-3]), int(order[0])
    seen = set()
    for exposure in exposures():
        opened = set(exposed_read_outs(exposure))
        assert _works(exposure, logits_TV, rare, reference) == opened & {
            ReadOut.P1, ReadOut.P2, ReadOut.P3, ReadOut.P4A, ReadOut.P4B, ReadOut.P5, ReadOut.P6, ReadOut.P7
        }, exposure  # fmt: skip
        seen |= opened
    assert seen == {*LEAKS, ReadOut.P9} - {ReadOut.P0}


def _works(exposure, logits_TV, rare, reference):
    plain = Request(prompt="x", max_tokens=1, temperature=0.0)
    gap = logits_TV[0, reference] - logits_TV[0, rare]
    near = {rare: gap - 0.5}
    biased = replace(plain, logit_bias={rare: 60.0})
    top = 0 if exposure.top_logprobs == 0 else 1
    steps = {
        ReadOut.P1: (replace(plain, reveal=Reveal.VOCABULARY), "vocabulary_TV"),
        ReadOut.P2: (replace(plain, wanted_ids=(rare,)), "wanted_TW"),
        ReadOut.P3: (replace(plain, logit_bias={rare: 40.0, reference: 40.0}, top_logprobs=2), "top_TK"),
        ReadOut.P4A: (replace(biased, reveal=Reveal.SAMPLED), "sampled_T"),
        ReadOut.P4B: (replace(plain, allowed_ids=(rare,), reveal=Reveal.SAMPLED), "sampled_T"),
        ReadOut.P5: (replace(plain, reveal=Reveal.PROMPT | Reveal.SAMPLED), "sampled_T"),
        ReadOut.P6: (replace(plain, logit_bias=near, reveal=Reveal.SAMPLED), "sampled_T"),
    }
    if exposure.logprobs_taken is Taken.AFTER_BIAS:
        steps[ReadOut.P4B] = (
            replace(plain, allowed_ids=(rare, reference), top_logprobs=top, reveal=Reveal.SAMPLED),
            "any",
        )
        steps[ReadOut.P6] = (replace(plain, logit_bias=near, top_logprobs=top), "any")
        if not top:
            steps[ReadOut.P6] = (replace(plain, logit_bias=near, reveal=Reveal.SAMPLED), "any")
        elif exposure.sampled_logprob is Sampled.HIDDEN:
            steps[ReadOut.P4B] = (replace(plain, allowed_ids=(rare, reference), top_logprobs=top), "any")
    works = set()
    for read_out, (request, part) in steps.items():
        before = exposure.logprobs_taken is Taken.BEFORE_BIAS
        if (read_out in (ReadOut.P3, ReadOut.P6) and before) or (read_out is ReadOut.P4A and not before):
            continue
        forced = np.array([rare]) if read_out is ReadOut.P5 else None
        try:
            told = apply(logits_TV, request, exposure, forced_T=forced).logprobs
        except RefusedError:
            continue
        assert told is not None
        values = [told.sampled_T, told.top_TK] if part == "any" else [getattr(told, part)]
        if any(value is not None and np.isfinite(value).any() for value in values):
            works.add(read_out)
    try:
        assert apply(logits_TV, biased, exposure).token_ids_T[0] == rare
        works.add(ReadOut.P7)
    except RefusedError:
        pass
    return works


def test_the_guide_holds_every_cure_of_every_server():
    """The operators' guide is checked against the table, so that neither goes stale."""

    guide = " ".join(Path(__file__).parents[3].joinpath("docs/audit.md").read_text().split())
    for read_out, words in GUARD_WORDS.items():
        assert f"`{words}`" in guide, read_out
    flags = {
        flag
        for server in SERVERS
        for one in LEAKS
        for flag in re.findall(r"`(--[a-z-]+ ?[a-z0-9_]*)`", cure(one, server))
    }
    assert len(flags) >= 5
    assert [flag for flag in sorted(flags) if f"`{flag}" not in guide] == []
