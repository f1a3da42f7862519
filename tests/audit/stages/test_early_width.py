"""Precise read-outs are read only until the rank shows, and not stopped by a fall that is none."""

from dataclasses import replace

import numpy as np
import pytest

from lensmith.audit.findings.finding import ReadOut
from lensmith.audit.stages import width as stages
from lensmith.audit.stages.matrix import GrowingMatrix
from lensmith.core.exposure import Exposure
from tests.support.fake_audits import EVERYTHING, audited, fake, finding

WIDTH = 110
PADDED = {"padded_width": 40, "padding_amplitude": 1e-3}


def contexts_of(report):
    return finding(report, "WIDTH").evidence["contexts"]


@pytest.mark.parametrize(
    ("read_out", "exposure"),
    [(ReadOut.P1, EVERYTHING), (ReadOut.P2, replace(Exposure(), wanted_ids=128))],
    ids=["P1", "P2"],
)
def test_fewer_contexts_are_read_and_the_width_is_the_same(tmp_path, monkeypatch, read_out, exposure):
    early = audited(fake(exposure, vocabulary=512, width=WIDTH), tmp_path / "early", read_outs=(read_out,))
    monkeypatch.setattr(stages, "_WATCHED", ())
    whole = audited(fake(exposure, vocabulary=512, width=WIDTH), tmp_path / "whole", read_outs=(read_out,))
    assert early.width == whole.width or early.width_interval == whole.width_interval
    assert (contexts_of(early), contexts_of(whole)) == (128, 144)
    assert finding(early, "WIDTH").spent.queries < finding(whole, "WIDTH").spent.queries


def test_coarse_values_are_read_as_planned(tmp_path):
    report = audited(fake(replace(EVERYTHING, decimals=4), vocabulary=512, width=WIDTH), tmp_path)
    assert contexts_of(report) == 144


def test_a_padding_is_no_reason_to_stop_before_it_is_seen_whole(tmp_path, monkeypatch):
    """The fall after the true width is large, and what lies behind it is no noise."""
    early = audited(fake(vocabulary=512, width=WIDTH, **PADDED), tmp_path / "early", max_queries=1_000)
    monkeypatch.setattr(stages, "_WATCHED", ())
    whole = audited(fake(vocabulary=512, width=WIDTH, **PADDED), tmp_path / "whole", max_queries=1_000)
    assert (early.width, early.width_interval) == (whole.width, whole.width_interval)
    assert finding(early, "WIDTH") is None or contexts_of(early) > 128


@pytest.mark.parametrize(("told", "contexts"), [(512, 192), (300, 192), (240, 486)])
def test_columns_that_are_not_told_keep_nobody_from_watching_the_others(tmp_path, monkeypatch, told, contexts):
    """Where too few are told to see all rows of a size as independent, it is read as planned."""
    read = GrowingMatrix.whole

    def partly_told(*given, **where):
        part = read(*given, **where)
        part.logits_NM[:, told:] = np.nan
        return part

    monkeypatch.setattr(GrowingMatrix, "whole", partly_told)
    report = audited(fake(vocabulary=512, width=150), tmp_path)
    assert contexts_of(report) == contexts
    assert report.width == 150 or report.width_interval[0] <= 150 <= report.width_interval[1]
