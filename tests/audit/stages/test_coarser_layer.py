"""Tokens that only the layer needs may be read less exactly than those of the width, and the same each time."""

from dataclasses import replace

import pytest

from lensmith.audit.weights.head import open_weights
from lensmith.core.exposure import Exposure
from tests.support.coarser import CoarserAt
from tests.support.fake_audits import WIDTH, finding, write_weights

FINE = replace(Exposure(), wanted_ids=128)


def read(folder, decimals, **switches):
    coarse = replace(FINE, decimals=decimals)
    endpoint = CoarserAt("layer", fine=FINE, coarse=coarse, **{"vocabulary": 512, "width": WIDTH, "seed": 3} | switches)
    truth = {"lm_head__weight": endpoint.truth.head_VH, "model__norm__weight": endpoint.truth.gain_H}
    return endpoint.audited(folder, truth=open_weights(write_weights(folder / "model.safetensors", **truth)))


def test_directions_below_what_was_read_are_no_layer(tmp_path):
    report = read(tmp_path, 0, anisotropy=1.5)
    assert report.width == WIDTH
    assert finding(report, "LAYER") is None and finding(report, "ROTATION") is None
    (reason,) = [sentence for sentence in report.unresolved if sentence.startswith("the layer")]
    assert "directions lie below what its tokens were read to" in reason


def test_a_layer_whose_directions_are_all_seen_is_found_with_its_error(tmp_path):
    report = read(tmp_path, 2)
    layer = finding(report, "LAYER").evidence
    assert layer["rms"] < layer["rms_unrelated"] / 100


@pytest.mark.parametrize("decimals", [1, 2])
def test_the_error_up_to_a_rotation_is_no_more_than_what_is_said(tmp_path, decimals):
    """The contexts that the fit leaves out are placed by tokens that were read exactly, so that they show nothing."""
    rotation = finding(read(tmp_path, decimals), "ROTATION").evidence
    error, reading_error = rotation["error_up_to_rotation"], rotation["reading_error"]
    assert reading_error / 5 < error < 3 * reading_error
    assert rotation["misfit"] < error / 10


def test_rows_that_were_read_too_coarsely_are_not_called_recovered(tmp_path):
    report = read(tmp_path, 0, logit_std=1.5)
    assert finding(report, "ROTATION") is None
    assert "too coarsely" in finding(report, "LAYER").evidence["up_to_rotation"]
