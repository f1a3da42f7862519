"""A read-out is known to each part of an audit: it is found, read, priced, closed, and described."""

from dataclasses import replace
from pathlib import Path

import pytest

from lensmith.audit.findings.cures import GUARD_WORDS, SERVERS, cure
from lensmith.audit.findings.finding import ReadOut
from lensmith.audit.probe.capabilities import CHEAPEST_FIRST, SHOWS, Probed, SampledFound, Taken
from lensmith.audit.readouts.choose import reader_for
from lensmith.core.endpoint import Request
from lensmith.core.exposure import Exposure
from lensmith.workflows.defences.study import matrix_queries

GUIDE = Path(__file__).parents[2] / "docs" / "audit.md"
OPEN = Probed(
    context=Request(prompt="x"),
    returns_ids=True,
    top_logprobs=20,
    whole_vocabulary=True,
    wanted_ids=300,
    sampled=SampledFound.TRUE_VALUE,
    bias_steers=True,
    largest_bias=100.0,
    biased_ids=300,
    bias_with_logprobs=True,
    taken=Taken.AFTER_BIAS,
    allow_list=True,
    allow_list_true_value=True,
    echo=True,
    takes_token_ids=True,
)


def test_those_that_read_logits_are_ordered_once():
    assert len(set(CHEAPEST_FIRST)) == len(CHEAPEST_FIRST) >= 8
    assert set(CHEAPEST_FIRST) == set(ReadOut) - {ReadOut.P0, ReadOut.P8, ReadOut.P9}


def test_a_question_of_the_probe_shows_each():
    assert {read_out for shown in SHOWS.values() for read_out in shown} == set(CHEAPEST_FIRST)


def test_open_interfaces_have_all_of_them():
    single = replace(OPEN, whole_vocabulary=False, top_logprobs=1)  # P6 is what is left of P3 where one is returned
    assert {*OPEN.readable(), *single.readable()} == set(CHEAPEST_FIRST)
    assert not Probed(context=Request(prompt="x")).readable()


@pytest.mark.parametrize("read_out", CHEAPEST_FIRST)
def test_it_has_a_reader_a_price_a_cure_and_words(read_out):
    assert read_out.title
    assert reader_for(read_out, OPEN).read_out is read_out
    few, many = (
        matrix_queries(read_out, Exposure.everything(), contexts=contexts, tokens=2 * contexts)
        for contexts in (64, 640)
    )
    assert 0 < few < many
    assert GUARD_WORDS[read_out]
    assert all(cure(read_out, server) for server in (*SERVERS, None))
    assert read_out.value in GUIDE.read_text()
