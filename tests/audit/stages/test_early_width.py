"""Precise read-outs are read only until the rank shows, and not stopped by a fall that is none."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lensmith.audit.findings.finding import ReadOut
from lensmith.core.exposure import Exposure
from tests.support.fake_audits import EVERYTHING, audited, fake, finding

WIDTH = 110
PADDED = {"padded_width": 40, "padding_amplitude": 1e-3}


def rounded(exposure):
    """What is told to a few decimals less than a float32 holds is read as planned, however close it is."""
    return replace(exposure, decimals=6)


def contexts_of(report):
    return finding(report, "WIDTH").evidence["contexts"]


@pytest.mark.parametrize(
    ("read_out", "exposure"),
    [(ReadOut.P1, EVERYTHING), (ReadOut.P2, replace(Exposure(), wanted_ids=128))],
    ids=["P1", "P2"],
)
def test_fewer_contexts_are_read_and_the_width_is_the_same(tmp_path, read_out, exposure):
    early = audited(fake(exposure, vocabulary=512, width=WIDTH), tmp_path / "early", read_outs=(read_out,))
    whole = audited(fake(rounded(exposure), vocabulary=512, width=WIDTH), tmp_path / "whole", read_outs=(read_out,))
    assert early.width == whole.width or early.width_interval == whole.width_interval
    assert (contexts_of(early), contexts_of(whole)) == (128, 144)
    assert finding(early, "WIDTH").spent.queries < finding(whole, "WIDTH").spent.queries


def test_coarse_values_are_read_as_planned(tmp_path):
    report = audited(fake(replace(EVERYTHING, decimals=4), vocabulary=512, width=WIDTH), tmp_path)
    assert contexts_of(report) == 144


def test_a_padding_is_no_reason_to_stop_before_it_is_seen_whole(tmp_path):
    """The fall after the true width is large, and what lies behind it is no noise."""
    early = audited(fake(vocabulary=512, width=WIDTH, **PADDED), tmp_path / "early", max_queries=1_000)
    whole = audited(
        fake(rounded(EVERYTHING), vocabulary=512, width=WIDTH, **PADDED), tmp_path / "whole", max_queries=1_000
    )
    assert (early.width, early.width_interval) == (whole.width, whole.width_interval)
    assert finding(early, "WIDTH") is None or contexts_of(early) > 128


class Withholding:
    """An endpoint that does not give the logprobs of some tokens."""

    def __init__(self, endpoint, token_ids):
        self._endpoint, self._token_ids = endpoint, token_ids

    def answer(self, requests):
        return [self._without(answer) for answer in self._endpoint.answer(requests)]

    def supports(self):
        return self._endpoint.supports()

    def metadata(self):
        return self._endpoint.metadata()

    def _without(self, answer):
        for choice in answer.choices:
            if choice.logprobs is not None and choice.logprobs.vocabulary_TV is not None:
                choice.logprobs.vocabulary_TV[:, self._token_ids] = np.nan
        return answer


@pytest.mark.parametrize(("told", "contexts"), [(512, 192), (300, 192), (240, 486)])
def test_columns_that_are_not_told_keep_nobody_from_watching_the_others(tmp_path, told, contexts):
    """Where too few are told to see all rows of a size as independent, it is read as planned."""
    audited(fake(vocabulary=512, width=24), tmp_path / "narrow")
    (file,) = (tmp_path / "narrow").rglob("P1-*.rows")
    columns = json.loads(file.read_bytes().split(b"\n", 1)[0])["columns"]  # in the order in which they are watched
    report = audited(Withholding(fake(vocabulary=512, width=150), columns[told - 1 :]), tmp_path)
    assert contexts_of(report) == contexts
    assert report.width == 150 or report.width_interval[0] <= 150 <= report.width_interval[1]
