"""Whole audits of fake endpoints with a known truth: the right width, or none, and never a wrong one."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from lensmith.audit.estimators.layer import PUBLISHED_RMS
from lensmith.audit.findings.finding import ReadOut, Severity, Verdict
from lensmith.audit.querying.contexts import ContextForm
from lensmith.audit.run import AuditConfig, audit
from lensmith.audit.weights.head import open_weights
from lensmith.core.errors import ConfigError, NotExposedError
from lensmith.core.exposure import Exposure, Noise, Sampled, Taken, Together
from lensmith.endpoints.fake.endpoint import FakeEndpoint, Lattice, Norm
from tests.support.fake_audits import session_in

EVERYTHING = Exposure.everything()
WIDTH, VOCABULARY = 32, 256


def run(tmp_path, exposure, *, max_queries=40_000, switches=None, **options):
    endpoint = FakeEndpoint(
        **{"vocabulary": VOCABULARY, "width": WIDTH, "seed": 3, "exposes": exposure, **(switches or {})}
    )
    asked = {key: options.pop(key) for key in ("form", "seed") if key in options}
    session = session_in(tmp_path / "audit", max_queries=max_queries, **asked)
    return audit(endpoint, AuditConfig(session=session, **options)), endpoint


def codes(report):
    return [finding.code for finding in report.findings]


OPEN = {
    "whole vocabulary": (EVERYTHING, "P1"),
    "chosen ids": (replace(Exposure(), wanted_ids=16), "P2"),
    "echo": (replace(Exposure(), echo=True, sampled_logprob=Sampled.SHOWN, logit_bias=0.0), "P5"),
    "top moved by a bias": (replace(Exposure(), logprobs_taken=Taken.AFTER_BIAS, top_logprobs=5), "P3"),
    "forced token": (replace(Exposure(), sampled_logprob=Sampled.SHOWN), "P4a"),
    "allow-list": (replace(Exposure(), sampled_logprob=Sampled.SHOWN, allowed_ids=1, logit_bias=0.0), "P4b"),
    "single top": (replace(Exposure(), logprobs_taken=Taken.AFTER_BIAS, top_logprobs=1), "P6"),
    "greedy": (replace(Exposure(), top_logprobs=0, sampled_logprob=Sampled.HIDDEN), "P7"),
    "apart": (replace(EVERYTHING, bias_with_logprobs=Together.REFUSED, top_logprobs=5, wanted_ids=0, echo=False), "P7"),
}


ENOUGH = {"P1": 4_000, "P2": 3_000, "P3": 6_000, "P4b": 6_000, "P5": 6_000, "P6": 12_000}
"""Queries for the width; with more, an audit goes on to the layer, up to a rotation where it is read fast."""
PLENTY = 40_000


@pytest.mark.parametrize("name", OPEN)
def test_the_width_is_found_through_whatever_is_open(tmp_path, name):
    exposure, through = OPEN[name]
    report, _ = run(tmp_path, exposure, max_queries=ENOUGH.get(through, PLENTY))
    assert report.width == WIDTH
    assert report.verdict is Verdict.FINDINGS
    width = next(finding for finding in report.findings if finding.code == "WIDTH")
    assert width.read_out.value == through
    assert width.severity is Severity.HIGH
    leak = next(finding for finding in report.findings if finding.code == f"LEAK-{through}")
    assert leak.whole.extrapolated is ("LAYER" not in codes(report))  # what was paid is not worked out
    assert leak.whole.queries > 0
    assert leak.cure


@pytest.mark.slow
@pytest.mark.parametrize("name", ["echo", "forced token", "allow-list", "single top"])
def test_the_layer_follows_through_whatever_tells_one_logit_a_query(tmp_path, name):
    report, _ = run(tmp_path, OPEN[name][0], max_queries=PLENTY)
    assert report.width == WIDTH
    assert {"LAYER", "IMAGE"} <= set(codes(report))


@pytest.mark.parametrize(
    "exposure",
    [
        Exposure.text_only(),
        replace(Exposure(), logit_bias=0.0),
        replace(Exposure(), logit_bias=0.0, top_logprobs=1),
    ],
    ids=["text", "no bias", "top-1, no bias"],
)
def test_what_gives_nothing_away_is_clean(tmp_path, exposure):
    report, _ = run(tmp_path, exposure)
    assert report.verdict is Verdict.CLEAN
    assert report.width is None
    assert codes(report) == []


def test_a_model_wider_than_the_budget_is_unresolved_with_what_is_proven(tmp_path):
    report, endpoint = run(tmp_path, replace(Exposure(), sampled_logprob=Sampled.SHOWN), max_queries=3_000)
    assert report.width is None
    assert endpoint.queries <= 3_000
    assert any("queries" in line for line in report.unresolved)
    assert report.verdict is Verdict.FINDINGS  # the read-out works, whatever the width


def test_a_head_of_full_rank_is_never_given_a_width(tmp_path):
    report, _ = run(tmp_path, EVERYTHING, max_queries=4_000, switches={"width": VOCABULARY})
    assert report.width is None
    assert "WIDTH" not in codes(report)


@pytest.mark.parametrize(
    ("switches", "exposure"),
    [
        ({"lattice": Lattice.BFLOAT16}, EVERYTHING),
        ({"soft_cap": 30.0}, EVERYTHING),
        ({"jitter_nats": 1e-4}, EVERYTHING),
        ({}, replace(EVERYTHING, decimals=3)),
        ({}, replace(EVERYTHING, noise_nats=1e-3, noise=Noise.FROZEN)),
        ({"head_bias": True}, EVERYTHING),
        ({"norm": Norm.LAYER, "norm_bias": True}, EVERYTHING),
        ({"duplicate_texts": 8}, EVERYTHING),
        ({"padded_vocabulary": 16}, EVERYTHING),
        ({"replicas": 2}, EVERYTHING),
    ],
    ids=str,
)
def test_a_hard_model_gives_the_right_width_or_none(tmp_path, switches, exposure):
    report, _ = run(tmp_path, exposure, switches=switches, max_queries=2_000)
    if report.width is not None:
        assert report.width == WIDTH
    if report.width_interval is not None:
        assert report.width_interval[0] <= WIDTH <= report.width_interval[1]


@pytest.mark.parametrize(
    "switches", [{}, {"norm": Norm.LAYER, "norm_bias": True}, {"norm": Norm.LAYER, "head_bias": True}], ids=str
)
def test_the_layer_is_scored_against_the_weights(tmp_path, switches):
    endpoint = FakeEndpoint(vocabulary=VOCABULARY, width=WIDTH, seed=3, exposes=EVERYTHING, **switches)
    head = write_head(tmp_path / "head.safetensors", endpoint.truth.head_VH)
    report, _ = run(tmp_path, EVERYTHING, truth=open_weights(head), switches=switches)
    layer = next(finding for finding in report.findings if finding.code == "LAYER")
    assert layer.severity is Severity.CRITICAL
    assert layer.evidence["rms_seen"] < PUBLISHED_RMS[1]
    assert layer.evidence["rms_unrelated"] > 100 * layer.evidence["rms_seen"]


def write_head(path, head_VH):
    data = np.ascontiguousarray(head_VH, dtype=np.float32).tobytes()
    header = {"lm_head.weight": {"dtype": "F32", "shape": list(head_VH.shape), "data_offsets": [0, len(data)]}}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def test_an_interrupted_audit_goes_on_and_pays_for_nothing_twice(tmp_path):
    exposure = replace(Exposure(), sampled_logprob=Sampled.SHOWN)
    whole, _ = run(tmp_path / "whole", exposure)
    short, endpoint_1 = run(tmp_path / "parts", exposure, max_queries=3_000)
    report, endpoint_2 = run(tmp_path / "parts", exposure)
    assert short.width is None
    assert report.width == WIDTH
    assert report.spent.queries == pytest.approx(whole.spent.queries, abs=40)
    # What was under way when the budget ended is asked again; nothing that was answered or refused is. (Refusals are
    # paid for, and the fake does not count them.)
    assert endpoint_1.queries + endpoint_2.queries == pytest.approx(whole.spent.queries, abs=100)


def test_a_folder_of_another_audit_is_refused(tmp_path):
    run(tmp_path, Exposure.text_only())
    with pytest.raises(ConfigError, match="another audit"):
        run(tmp_path, Exposure.text_only(), seed=1)


def test_only_the_read_outs_that_are_named_are_tried(tmp_path):
    report, _ = run(tmp_path, replace(EVERYTHING, wanted_ids=128), read_outs=(ReadOut.P2,))
    assert codes(report) == ["LEAK-P2", "WIDTH", "LAYER", "IMAGE", "ROTATION"]


def test_contexts_of_one_form_can_be_asked_for(tmp_path):
    report, _ = run(tmp_path, EVERYTHING, form=ContextForm.TOKEN_IDS)
    assert report.width == WIDTH
    with pytest.raises(NotExposedError):
        run(tmp_path / "other", EVERYTHING, form=ContextForm.PICTURE, switches={"context_tokens": 1})


def test_metadata_that_states_a_size_is_a_finding(tmp_path):
    report, _ = run(tmp_path, replace(Exposure.text_only(), metadata=True), switches={"metadata": {"n_embd": WIDTH}})
    assert codes(report) == ["META"]
    assert report.findings[0].evidence == {"n_embd": WIDTH}


def test_what_was_spent_is_what_was_asked(tmp_path):
    report, endpoint = run(tmp_path, EVERYTHING)
    assert report.spent.queries >= endpoint.queries
    assert report.spent.usd > 0
    assert math.isfinite(report.seconds)
