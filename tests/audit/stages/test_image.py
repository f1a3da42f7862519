"""Whole audits: what the image gives, measured on contexts that it was not learned from."""

from dataclasses import replace

import numpy as np
import pytest

from lensmith.audit.estimators.image import choose_tokens, load_image, predict
from lensmith.audit.findings.finding import ReadOut, Severity
from lensmith.audit.stages.image import IMAGE_FILE, unrelated_image
from lensmith.core.endpoint import Request
from lensmith.core.exposure import Exposure, log_softmax
from tests.support.fake_audits import EVERYTHING, WIDTH, audited, fake, finding


def test_whole_outputs_follow_from_few_tokens_and_an_unrelated_image_gives_nothing(tmp_path):
    endpoint = fake(vocabulary=512)
    found = finding(audited(endpoint, tmp_path, max_queries=400), "IMAGE")
    assert found.severity is Severity.HIGH
    evidence = found.evidence
    assert evidence["tokens_read"] < 2 * WIDTH and evidence["gain"] == evidence["tokens"] / evidence["tokens_read"] > 8
    assert evidence["error_nats"] < 1e-5
    assert evidence["error_unrelated_nats"] > 1
    assert evidence["held_out"] == 16 == found.spent.queries
    with_image, without = evidence["queries_an_output"]["P4b"]
    assert with_image < without / 8


def test_the_file_predicts_an_output_that_the_audit_never_saw(tmp_path):
    endpoint = fake(vocabulary=512)
    audited(endpoint, tmp_path, max_queries=400)
    image = load_image(tmp_path / "audit" / IMAGE_FILE)
    true_V = endpoint.true_logits(Request(prompt="something else altogether"))
    tokens = choose_tokens(image, 2 * WIDTH)
    told_1M = log_softmax(predict(image, tokens, true_V[tokens][None]))
    np.testing.assert_allclose(told_1M[0], log_softmax(true_V[image.token_ids_M][None])[0], atol=1e-4)
    by_chance_1M = log_softmax(predict(unrelated_image(image, seed=0), tokens, true_V[tokens][None]))
    assert np.abs(by_chance_1M - told_1M).max() > 1


@pytest.mark.parametrize("decimals", [2, 3])
def test_the_error_grows_with_the_rounding(tmp_path, decimals):
    found = finding(audited(fake(replace(EVERYTHING, decimals=decimals)), tmp_path, max_queries=400), "IMAGE")
    assert 0.1 * 10**-decimals < found.evidence["error_nats"] < 2 * 10**-decimals


def test_without_a_width_there_is_no_image(tmp_path):
    report = audited(fake(width=256), tmp_path, max_queries=1_200)
    assert report.width is None and finding(report, "IMAGE") is None
    assert not (tmp_path / "audit" / IMAGE_FILE).exists()


def test_where_the_budget_ends_contexts_are_kept_apart_or_nothing_is_said(tmp_path):
    exposure = replace(Exposure(), wanted_ids=16)
    before = audited(fake(exposure), tmp_path / "whole", read_outs=(ReadOut.P2,))
    enough = before.spent.queries - finding(before, "IMAGE").spent.queries
    report = audited(fake(exposure), tmp_path / "short", max_queries=enough, read_outs=(ReadOut.P2,))
    assert report.spent.queries <= enough
    found = finding(report, "IMAGE").evidence
    assert found["contexts"] + found["held_out"] == finding(report, "WIDTH").evidence["contexts"]
    assert found["error_nats"] < 1e-5
