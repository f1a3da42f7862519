import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensmith.audit.findings.finding import ReadOut
from lensmith.core.endpoint import RefusedError, Request, Reveal
from lensmith.core.errors import ConfigError, InputError, ShapeError
from lensmith.core.exposure import Exposure, Noise, Sampled, apply, log_softmax
from lensmith.endpoints.fake.endpoint import FakeEndpoint, LogitsEndpoint
from lensmith.workflows.defences.cases import HONEST, Defence, common_defences
from lensmith.workflows.defences.study import DefenceLab, matrix_queries, study_defences

WIDTH, VOCABULARY, CONTEXTS = 16, 160, 96


@pytest.fixture(scope="module", name="logits_NV")
def fake_logits():
    endpoint = FakeEndpoint(vocabulary=VOCABULARY, width=WIDTH, seed=3)
    return np.array([endpoint.true_logits(Request(token_ids=(number + 1, 5))) for number in range(CONTEXTS)])


@pytest.fixture(scope="module")
def study(logits_NV):
    return study_defences(logits_NV, model="tiny")


def row_of(study, name):
    return next(row for row in study.rows if row.defence.name == name)


def attack_of(study, name, read_out):
    return next(attack for attack in row_of(study, name).attacks if attack.read_out is read_out)


def opened(study, name):
    return {attack.read_out for attack in row_of(study, name).attacks}


def measure(logits_NV, *words):
    return study_defences(logits_NV, [Defence(name=each, words=each) for each in words])


def test_control_no_defence_costs_the_user_nothing_and_the_attacker_next_to_nothing(study):
    row = row_of(study, "No defence")
    assert (row.user.kl_nats, row.user.top_changed, row.user.text_changed) == (pytest.approx(0, abs=1e-12), 0, 0)
    assert row.user.refused == () and row.user.served == len(HONEST)
    assert study.width == WIDTH
    assert row.cheapest.read_out is ReadOut.P1
    assert row.cheapest.width_queries == math.ceil(1.25 * WIDTH) + 24
    # float32 logprobs of logits that span about 16 nats
    assert all(attack.bits > 20 for attack in row.attacks if attack.read_out not in (ReadOut.P7, ReadOut.P8))


def test_control_text_alone_leaves_nothing_to_read(study):
    row = row_of(study, "Text only")
    assert row.attacks == () and row.cheapest is None and row.sharpest is None
    assert row.user.kl_nats is None and row.user.top_changed is None
    assert row.user.served == 1 and "chat" not in row.user.refused


def test_control_logits_of_full_rank_have_no_width_to_show():
    rng = np.random.default_rng(0)
    study = measure(rng.normal(0, 3, (CONTEXTS, VOCABULARY)), "everything", "everything,decimals=1")
    assert study.width is None
    for row in study.rows:
        assert row.cheapest is None and all(attack.width_queries is None for attack in row.attacks)
        assert row.sharpest.bits > 5


def test_what_each_defence_closes(study):
    assert opened(study, "Top 5, bias moves logprobs") == {ReadOut.P3, ReadOut.P6, ReadOut.P7, ReadOut.P8}
    assert opened(study, "Logprobs before the bias") == {ReadOut.P4A, ReadOut.P7, ReadOut.P8}
    assert opened(study, "... and the sampled token masked") == {ReadOut.P7, ReadOut.P8}
    assert opened(study, "Bias or logprobs, not both") == {ReadOut.P7, ReadOut.P8}
    assert opened(study, "No bias, top 5") == {ReadOut.P8}
    assert opened(study, "No bias, but chosen ids") == {ReadOut.P2, ReadOut.P8}
    assert opened(study, "No bias, but echo") == {ReadOut.P5, ReadOut.P8}
    assert opened(study, "No bias, but an allow-list") == {ReadOut.P4B, ReadOut.P8}


def test_what_is_left_open_really_reads_and_what_is_closed_costs_more(study):
    for row in study.rows:
        for attack in row.attacks:
            if attack.read_out is not ReadOut.P8 and "Small bias" not in row.defence.name:
                assert attack.bits is not None and attack.read_fraction > 0.9, (row.defence.name, attack)
    ladder = ["No defence", "No bias, but chosen ids", "Top 5, bias moves logprobs", "Logprobs before the bias",
              "... and the sampled token masked"]  # fmt: skip
    costs = [row_of(study, name).cheapest.width_queries for name in ladder]
    assert costs == sorted(costs) and costs[-1] > 50 * costs[0]


def test_queries_a_logit_are_those_of_the_papers(study):
    assert attack_of(study, "Top 5, bias moves logprobs", ReadOut.P3).queries_per_logit == pytest.approx(0.25, abs=0.06)
    assert attack_of(study, "Logprobs before the bias", ReadOut.P4A).queries_per_logit == pytest.approx(1.0, abs=0.05)
    assert 1 <= attack_of(study, "Top 1, bias moves logprobs", ReadOut.P6).queries_per_logit <= 3
    assert 1 <= attack_of(study, "Bias or logprobs, not both", ReadOut.P7).queries_per_logit <= 5


def test_rounding_takes_bits_from_the_attacker_and_truth_from_the_user(study):
    rows = [row_of(study, name) for name in ("No defence", "4 decimals", "2 decimals", "1 decimal")]
    bits = [attack.bits for row in rows for attack in row.attacks if attack.read_out is ReadOut.P1]
    kls = [row.user.kl_nats for row in rows]
    assert bits == sorted(bits, reverse=True) and bits[1] - bits[2] == pytest.approx(math.log2(100), abs=0.4)
    assert kls == sorted(kls)
    # Uniform rounding errors of step s have the variance s * s / 12, and KL is about half the variance.
    assert 0.1 < kls[3] / (0.1**2 / 24) < 1.5


def test_noise_is_nothing_to_one_who_reads_the_choice(study):
    names = ("No defence", "1 decimal", "Fresh noise, 0.3 nats", "Frozen noise, 0.3 nats")
    assert len({attack_of(study, name, ReadOut.P7).bits for name in names}) == 1
    assert all(row.user.text_changed == 0 for row in study.rows)


def test_noise_of_a_known_size_is_measured_as_such(study):
    for name, sigma in (("Fresh noise, 0.1 nats", 0.1), ("Frozen noise, 0.3 nats", 0.3)):
        assert attack_of(study, name, ReadOut.P1).rms_nats == pytest.approx(sigma, rel=0.15)
        assert 0.2 < row_of(study, name).user.kl_nats / (sigma**2 / 2) < 1.1


def test_fresh_noise_averages_out_and_frozen_noise_does_not(logits_NV):
    fresh, frozen = (
        "no-logit-bias,wanted-ids=128,noise-nats=3",
        "no-logit-bias,wanted-ids=128,noise-nats=3,noise=frozen",
    )
    study = measure(logits_NV, fresh, frozen)
    averaged, kept = (attack_of(study, name, ReadOut.P2) for name in (fresh, frozen))
    assert averaged.width_queries is not None and averaged.repeats > 1
    assert averaged.width_queries % averaged.repeats == 0
    assert kept.width_queries is None and kept.tried > 0 and kept.repeats == 1


def test_too_few_contexts_claim_nothing(logits_NV):
    study = measure(logits_NV[: WIDTH - 4], "everything")
    assert study.width is None and study.rows[0].cheapest is None


def test_a_bias_too_small_to_reach_most_tokens_reads_too_few(study):
    attack = attack_of(study, "Small bias (2) on 10 ids", ReadOut.P7)
    assert attack.bits is None and attack.width_queries is None and attack.read_fraction < 0.5


def test_the_same_seed_gives_the_same_study(logits_NV):
    words = ("everything,noise-nats=0.1", "top-logprobs=5,logprobs-taken=after-bias")
    assert measure(logits_NV, *words) == measure(logits_NV, *words)


def test_bad_input_is_refused(logits_NV):
    with pytest.raises(ShapeError):
        study_defences(logits_NV[0])
    with pytest.raises(ShapeError):
        study_defences(logits_NV[:2])
    with pytest.raises(InputError, match="finite"):
        study_defences(np.full((8, 16), np.nan))
    with pytest.raises(ConfigError, match="top-logprobs"):
        Defence(name="x", words="top-logprob=5")


def test_every_common_defence_has_its_own_name_and_interface():
    defences = common_defences()
    assert len(defences) >= 18
    assert len({one.name for one in defences}) == len({one.exposure for one in defences}) == len(defences)


@pytest.mark.parametrize(
    ("read_out", "published"),
    [
        (ReadOut.P1, 5_120),
        (ReadOut.P2, 330e3),
        (ReadOut.P3, 2.2e6),
        (ReadOut.P4A, 42e6),
        (ReadOut.P4B, 42e6),
        (ReadOut.P5, 42e6),
    ],
)
def test_the_work_to_show_a_width_of_4096_is_the_papers(read_out, published):
    found = matrix_queries(read_out, Exposure.everything(), contexts=5_120, tokens=8_192)
    assert found == pytest.approx(published, rel=0.02)


@given(
    read_out=st.sampled_from((ReadOut.P1, ReadOut.P2, ReadOut.P3, ReadOut.P4A, ReadOut.P4B, ReadOut.P5)),
    contexts=st.integers(1, 5000),
    tokens=st.integers(1, 10_000),
    k=st.integers(2, 20),
)
def test_enough_logits_are_paid_for_and_not_many_too_many(read_out, contexts, tokens, k):
    exposure = dataclasses.replace(Exposure.everything(), top_logprobs=k, wanted_ids=k)
    found = matrix_queries(read_out, exposure, contexts=contexts, tokens=tokens)
    logits_a_call = {ReadOut.P1: tokens, ReadOut.P2: k, ReadOut.P3: k - 1}.get(read_out, 1)
    assert contexts * tokens <= found * logits_a_call <= contexts * (tokens + logits_a_call)


def test_what_was_measured_of_a_search_is_its_price():
    measured = matrix_queries(ReadOut.P7, Exposure.everything(), contexts=100, tokens=50, queries_per_logit=2.0)
    assert measured == 100 * 50 * 2


# --- the endpoint that the study reads ----------------------------------------------------------------------------


def test_the_endpoint_tells_what_apply_tells_in_float32(logits_NV):
    endpoint = LogitsEndpoint(logits_NV, Exposure.everything())
    (answer,) = endpoint.answer([Request(token_ids=(7,), max_tokens=1, temperature=0.0, reveal=Reveal.VOCABULARY)])
    told_V = answer.choices[0].logprobs.vocabulary_TV[0]
    true_V = log_softmax(logits_NV[7].astype(np.float64))
    assert np.array_equal(told_V, true_V.astype(np.float32).astype(np.float64))
    assert answer.choices[0].token_ids_T[0] == logits_NV[7].argmax()


def test_a_token_has_one_value_however_it_is_read(logits_NV):
    exposure = dataclasses.replace(Exposure.everything(), noise_nats=0.2, noise=Noise.FROZEN)
    endpoint = LogitsEndpoint(logits_NV, exposure)
    forced, echoed, wanted = endpoint.answer(
        [
            Request(token_ids=(3,), max_tokens=1, temperature=0.0, logit_bias={42: 90.0}, reveal=Reveal.SAMPLED),
            Request(token_ids=(3, 42), max_tokens=1, temperature=0.0, reveal=Reveal.PROMPT | Reveal.SAMPLED),
            Request(token_ids=(3,), max_tokens=1, temperature=0.0, wanted_ids=(42,)),
        ]
    )
    values = {
        float(forced.choices[0].logprobs.sampled_T[0]),
        float(echoed.prompt_logprobs.sampled_T[1]),
        float(wanted.choices[0].logprobs.wanted_TW[0, 0]),
    }
    assert len(values) == 1 and np.isnan(echoed.prompt_logprobs.sampled_T[0])


def test_the_endpoint_keeps_to_its_exposure(logits_NV):
    endpoint = LogitsEndpoint(logits_NV, Exposure(sampled_logprob=Sampled.MASKED, top_logprobs=5))
    for refused in ({"wanted_ids": (1,)}, {"reveal": Reveal.VOCABULARY}, {"top_logprobs": 6}):
        with pytest.raises(RefusedError):
            endpoint.answer([Request(token_ids=(0,), max_tokens=1, **refused)])
    for impossible in ({"token_ids": (CONTEXTS,)}, {"prompt": "x"}, {"token_ids": (1,), "max_tokens": 2}):
        with pytest.raises(InputError):
            endpoint.answer([Request(**{"max_tokens": 1, **impossible})])
    with pytest.raises(ShapeError):
        LogitsEndpoint(logits_NV[0], Exposure())
    assert endpoint.metadata() == {}


def test_logprobs_of_a_part_of_the_vocabulary_are_those_of_the_whole(logits_NV):
    """The matrix in which the width is looked for keeps all other tokens as one."""
    lab = DefenceLab(logits_NV, seed=0)
    returned_NM = lab.returned_matrix(Exposure.everything(), 10, 20, 1)
    rows, tokens = lab.row_order_N[:10], lab.token_order_V[:20]
    request = Request(prompt="x", temperature=0.0, reveal=Reveal.VOCABULARY)
    whole = apply(logits_NV[rows], request, Exposure.everything()).logprobs.vocabulary_TV
    assert np.allclose(returned_NM, whole[:, tokens], atol=2e-6)
