"""Widths of last layers with a known truth: never a wrong one, abstentions counted."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensmith.audit.estimators.gaps import may_hide_a_rival, read_rank, shows_gap_at, significant_gaps
from lensmith.audit.estimators.rank_watch import RankWatch
from lensmith.audit.estimators.spectrum import Spectra, WholeLimits
from lensmith.audit.estimators.width import Confirmation, NormType, Status, estimate_width, next_size, width_of
from lensmith.core.errors import InputError, ShapeError
from tests.support.last_layers import PRECISIONS, SPECTRA, Norm, make_layer, told

# What the common reading of the two centrings answers; the other norms get an interval with the truth in it.
_COMMON = {
    Norm.RMS: NormType.RMS_NORM,
    Norm.LAYER_NORM_BIAS: NormType.LAYER_NORM,
    Norm.LAYER_HEAD_BIAS: NormType.LAYER_NORM,
}


def _outputs(
    width: int, contexts: int, tokens: int, *, precision: str = "float32", seed: int = 0, **layer
) -> np.ndarray:
    made = make_layer(width, tokens, **({"spectrum": "moderate", "norm": Norm.RMS, "seed": seed} | layer))
    return told(made.logits(contexts, np.random.default_rng(seed + 1)), precision)


def _grid(width: int, *, sizes: int, seed: int) -> Counter:
    """Follows the doubling until resolved, at most `sizes` times, for every spectrum, precision and norm."""
    outcomes: Counter = Counter()
    for spectrum in SPECTRA:
        for norm in Norm:
            layer = make_layer(width, 8 * width + 48, spectrum=spectrum, norm=norm, seed=seed)
            logits = layer.logits(4 * width + 24, np.random.default_rng(seed + 1))
            for precision in PRECISIONS:
                contexts, tokens = math.ceil(1.25 * width), 2 * width + 2
                for attempt in range(sizes):
                    found = estimate_width(told(logits, precision)[:contexts, :tokens])
                    if found.status is not Status.UNRESOLVED or attempt + 1 == sizes:
                        break
                    assert found.needs.contexts > contexts
                    contexts, tokens = min(found.needs.contexts, len(logits)), min(found.needs.tokens, logits.shape[1])
                place = f"{spectrum}, {precision}, {norm.value}: {found}"
                if found.status is Status.UNRESOLVED:
                    outcomes["unresolved"] += 1
                    assert found.width is found.interval is None, place
                    continue
                outcomes[f"{found.status.value}, size {attempt + 1}"] += 1
                assert found.interval[0] <= width <= found.interval[1], place
                assert found.interval[1] - found.interval[0] <= 2, place
                assert found.width == width, place
                # A weak bias can drown in noise: then the pair of ranks reads as if there were none.
                assert found.status is Status.INTERVAL or norm in _COMMON, place
                if found.status is Status.EXACT:
                    assert found.norm in {_COMMON[norm], NormType.UNKNOWN}, place
    print(f"width {width}:", dict(outcomes))  # noqa: T201  # abstentions are part of the result
    return outcomes


def test_no_width_is_wrong_over_spectra_precisions_and_norms():
    outcomes = _grid(64, sizes=1, seed=65)
    assert sum(outcomes.values()) == 4 * 5 * 5
    assert outcomes["exact, size 1"] >= 55
    assert outcomes["unresolved"] <= 5


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("width", [64, 128, 256])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_width_is_wrong_as_the_readings_double(width, seed):
    outcomes = _grid(width, sizes=3, seed=seed)
    assert sum(outcomes.values()) == 4 * 5 * 5
    assert outcomes["unresolved"] <= 2


def _noting_spectra() -> tuple[type[Spectra], list[str]]:
    """Spectra, and what is computed of them and of their parts: "whole" spectra, and "end" for the last values."""
    computed = []

    class Noting(Spectra):
        def of(self, *centring, **options):
            computed.append("whole")
            return super().of(*centring, **options)

        def end(self, *centring, **options):
            computed.append("end")
            return super().end(*centring, **options)

    return Noting, computed


@pytest.mark.parametrize("norm", Norm)
def test_the_ends_of_the_spectra_alone_decide_the_same(norm):
    """As they do from a thousand contexts on; here for all sizes."""
    noting, computed = _noting_spectra()
    for spectrum, precision in itertools.product(SPECTRA, PRECISIONS):
        outputs = _outputs(64, 90, 140, precision=precision, spectrum=spectrum, norm=norm)
        whole = width_of(noting(outputs))
        assert computed.count("end") == computed.count("whole") - 1  # each from all values
        computed.clear()
        by_ends = width_of(noting(outputs, limits=WholeLimits(values_side=0, end_share=1.0)))
        assert by_ends == whole
        assert computed == ["whole"] + (len(computed) - 1) * ["end"]
        assert (len(computed) > 1) == (whole.rank is not None)
        computed.clear()


@pytest.mark.parametrize("norm", [Norm.RMS, Norm.LAYER_NORM_BIAS])
def test_a_large_width_from_the_ends_of_its_spectra(norm):
    noting, computed = _noting_spectra()
    found = width_of(noting(_outputs(1056, 1096, 1370, norm=norm)))
    assert computed == ["whole", "end", "end", "end"]  # without a bias, and the two parts that confirm
    assert (found.status, found.width, found.norm) == (Status.EXACT, 1056, _COMMON[norm])
    assert found.rank == 1056
    assert found.confirmation is Confirmation.OVERLAPPING


def test_a_fall_that_a_bias_hides_is_looked_for_in_the_whole_spectrum():
    smooth = np.linspace(2, 1, 60)
    assert not may_hide_a_rival(np.concatenate([smooth, smooth / 40]))
    assert may_hide_a_rival(np.concatenate([smooth, [0.15], smooth / 100]))


@settings(max_examples=40)
@given(width=st.integers(3, 40), seed=st.integers(0, 2**16), spectrum=st.sampled_from(sorted(SPECTRA)))
def test_small_widths_from_exact_logprobs(width, seed, spectrum):
    found = estimate_width(_outputs(width, width + 30, 2 * width + 40, seed=seed, spectrum=spectrum))
    if found.status is Status.UNRESOLVED:
        assert spectrum == "outliers"
        assert found.width is None
    else:
        assert found.width == found.rank == width
        assert found.norm is NormType.RMS_NORM


@settings(max_examples=40)
@given(
    width=st.integers(2, 30),
    seed=st.integers(0, 2**16),
    spectrum=st.sampled_from(sorted(SPECTRA)),
    precision=st.sampled_from(PRECISIONS),
    norm=st.sampled_from(list(Norm)),
    spare=st.integers(0, 60),
)
def test_small_widths_are_never_wrong_however_coarse(width, seed, spectrum, precision, norm, spare):
    outputs = _outputs(
        width, width + spare, 2 * width + spare, precision=precision, seed=seed, spectrum=spectrum, norm=norm
    )
    found = estimate_width(outputs)
    assert found.status is Status.UNRESOLVED or found.interval[0] <= width <= found.interval[1], found


@settings(max_examples=40)
@given(contexts=st.integers(2, 90), tokens=st.integers(2, 200), seed=st.integers(0, 2**16))
def test_random_logits_of_full_rank_have_no_width(contexts, tokens, seed):
    outputs = told(3 * np.random.default_rng(seed).standard_normal((contexts, tokens)))
    found = estimate_width(outputs)
    assert found.status is Status.UNRESOLVED
    assert found.width is found.interval is found.rank is None
    assert found.reason
    assert found.needs.contexts > contexts


@pytest.mark.parametrize("contexts", [40, 100, 150, 155, 158, 160, 161, 163])
def test_a_model_wider_than_the_budget_is_unresolved_with_a_lower_bound(contexts):
    found = estimate_width(_outputs(160, contexts, 340), noise_nats=1e-6)
    assert found.status is Status.UNRESOLVED
    assert contexts - 6 <= found.at_least + 4 <= 164
    assert found.at_least <= 160


def test_too_few_tokens_are_unresolved_too():
    assert estimate_width(_outputs(160, 340, 120)).status is Status.UNRESOLVED


def test_repeated_contexts_or_tokens_are_no_width():
    rng = np.random.default_rng(0)
    outputs = _outputs(128, 40, 280)
    repeated = outputs[rng.integers(0, 40, 200)]
    assert "different contexts" in estimate_width(repeated).reason
    assert "different contexts" in estimate_width(repeated + 1e-3 * rng.standard_normal(repeated.shape)).reason
    few_tokens = _outputs(128, 200, 40)[:, rng.integers(0, 40, 280)]
    assert estimate_width(few_tokens).status is Status.UNRESOLVED


def test_directions_that_single_contexts_alone_show_are_no_width():
    rng = np.random.default_rng(0)
    outputs = rng.standard_normal((300, 40)) @ rng.standard_normal((40, 400))
    outputs[:20] = 6 * rng.standard_normal((20, 400))
    outputs += 1e-4 * rng.standard_normal(outputs.shape)
    found = estimate_width(outputs)
    assert [gap.rank for gap in found.gaps][-1] == 60
    assert found.status is Status.UNRESOLVED
    assert "not found again" in found.reason


@pytest.mark.parametrize("outputs", [np.zeros((30, 60)), np.full((30, 60), -3.0), np.full((30, 60), np.nan)])
def test_outputs_that_say_nothing_are_unresolved(outputs):
    found = estimate_width(outputs)
    assert found.status is Status.UNRESOLVED
    assert found.needs


def test_values_that_were_not_told_are_dropped():
    outputs = _outputs(48, 100, 200)
    outputs[np.random.default_rng(0).random(outputs.shape) < 5e-4] = np.nan
    outputs[:, 5] = -np.inf
    found = estimate_width(outputs)
    assert found.status is Status.EXACT
    assert found.width == 48
    assert 60 < found.contexts <= 100
    assert found.tokens < 200


@pytest.mark.parametrize(("amplitude", "second"), [(1e-3, 20.0), (1e-2, 2.0), (1e-1, None), (1.0, None)])
def test_padding_shows_its_own_width_and_the_true_one_as_a_second_gap(amplitude, second):
    padding = amplitude * np.random.default_rng(3).standard_normal((600, 32))
    found = estimate_width(_outputs(128, 256, 600, padding_VP=padding))
    assert found.width == 160
    assert found.status is Status.EXACT
    earlier = {gap.rank: gap.ratio for gap in found.gaps if gap.rank < 160}
    if second is None:
        assert 128 not in earlier
    else:
        assert earlier[128] > second


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("cap", [30.0, 50.0])
def test_a_soft_cap_hides_no_width(cap, precision):
    found = estimate_width(_outputs(128, 256, 600, precision=precision, spectrum="flat", soft_cap=cap))
    assert found.status is Status.EXACT
    assert found.width == 128
    assert found.ratio < 100


@pytest.mark.parametrize(("size", "expected"), [(1e-7, {64}), (2e-7, {64}), (1e-5, {None, 66})])
def test_directions_that_float32_arithmetic_makes_are_no_width(size, expected):
    outputs = _outputs(64, 140, 200)
    largest = np.linalg.norm(outputs - outputs.mean(axis=1, keepdims=True), 2)
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.standard_normal((side, 2)))[0] for side in outputs.shape)
    found = estimate_width(outputs + size * largest * left * [1.0, 0.6] @ right.T)
    assert (found.rank if found.status is not Status.UNRESOLVED else None) in expected


def test_noise_hides_the_width_before_it_makes_a_wrong_one():
    outputs = _outputs(64, 256, 512)
    rng = np.random.default_rng(0)
    resolved = []
    for sigma in (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0):
        found = estimate_width(outputs + sigma * rng.standard_normal(outputs.shape), noise_nats=sigma)
        resolved.append(found.status is not Status.UNRESOLVED)
        assert found.width in {64, None}
        assert found.at_least is None or found.at_least <= 64
    assert resolved == sorted(resolved, reverse=True)
    assert resolved[0]
    assert not resolved[-1]


def test_many_outputs_confirm_on_disjoint_halves_and_few_on_overlapping_parts():
    many, few = _outputs(64, 256, 256), _outputs(64, 90, 140)
    assert estimate_width(many).confirmation is Confirmation.DISJOINT
    assert estimate_width(few).confirmation is Confirmation.OVERLAPPING


def test_the_answer_does_not_depend_on_order_or_scale():
    outputs = _outputs(64, 100, 150)
    rng = np.random.default_rng(0)
    shuffled = outputs[rng.permutation(100)][:, rng.permutation(150)]
    assert estimate_width(shuffled).width == estimate_width(1000 * outputs).width == 64


def test_rules_on_literal_spectra():
    smooth = np.linspace(2, 1, 60)
    assert significant_gaps(smooth) == ()
    fallen = np.concatenate([smooth, smooth / 1000])
    assert [gap.rank for gap in significant_gaps(fallen)] == [60]
    assert read_rank(fallen).rank == 60
    assert shows_gap_at(fallen, 60)
    assert not shows_gap_at(fallen, 59)
    twice = np.concatenate([smooth, smooth / 30, smooth / 30000])
    assert [gap.rank for gap in significant_gaps(twice)] == [60, 120]
    assert read_rank(twice).rank == 120
    assert read_rank(fallen[:64]).rank is None
    steep = np.concatenate([2.0 ** -np.arange(16), 2.0**-17.85 * smooth])  # hardly steeper than the signal before it
    assert read_rank(steep).gaps[-1].rank == 16
    assert read_rank(steep).rank is None
    rival = np.concatenate([smooth, smooth / 300, smooth / 1500])  # such as a soft cap's next order
    assert [gap.rank for gap in read_rank(rival).gaps] == [60, 120]
    assert read_rank(rival).rank is None
    few = np.concatenate([[3.0, 2.9, 2.8], 0.2 * smooth])  # three values say little of what the fourth would be
    assert read_rank(few).gaps[-1].rank == 3
    assert read_rank(few).rank is None
    assert read_rank(np.concatenate([[3.0, 2.9, 2.8], 0.02 * smooth])).rank == 3
    assert read_rank(np.array([3.0, 2.0, 1.0])).rank is None


def test_rules_on_the_end_of_a_spectrum_are_those_on_the_whole():
    smooth = np.linspace(2, 1, 60)
    whole = np.concatenate([smooth, smooth / 30, smooth / 30000])
    for before in (65, 95):
        assert read_rank(whole[before:], largest=2.0, before=before).gap == read_rank(whole).gap
        for rank in (119, 120, 121):
            assert shows_gap_at(whole[before:], rank, before=before) == shows_gap_at(whole, rank) == (rank == 120)
    beside = np.concatenate([smooth, [0.05], smooth / 300])
    assert shows_gap_at(beside[36:], 61, beside=60, before=36) == shows_gap_at(beside, 61, beside=60)
    assert shows_gap_at(beside[36:], 60, before=36) == shows_gap_at(beside, 60)


def test_sizes_grow_by_the_suspected_rank():
    assert next_size(50, 60).contexts == 100
    assert next_size(50, 60, rank=100).contexts == 149
    assert next_size(150, 60, rank=100).contexts == 224
    assert next_size(300, 60, rank=100).contexts == 424
    assert next_size(500, 60, rank=100).contexts == 1000


@pytest.mark.parametrize("batch", [1, 7, 64, 200])
@pytest.mark.parametrize("width", [5, 48, 300])
def test_the_watch_sees_the_rank_soon_after_it_is_reached(batch, width):
    outputs = _outputs(width, width + 40, 2 * width + 60)
    watch = RankWatch()
    for start in range(0, len(outputs), batch):
        reached = watch.push(outputs[start : start + batch])
        assert reached in {None, width}
        if watch.contexts < width + 4:
            assert reached is None
    assert watch.reached == width


def test_the_watch_is_silent_on_noise_and_takes_back_what_later_contexts_refute():
    rng = np.random.default_rng(0)
    watch = RankWatch()
    assert watch.push(rng.standard_normal((80, 120))) is None
    watch = RankWatch()
    layer = make_layer(48, 200, spectrum="moderate", norm=Norm.RMS, seed=0)
    few, many = told(layer.logits(20, rng)), told(layer.logits(100, rng))
    assert watch.push(np.concatenate([few, few])) == 20
    assert watch.push(many) in {None, 48}


def test_the_watch_refuses_other_tokens_and_missing_values():
    watch = RankWatch()
    watch.push(np.random.default_rng(0).standard_normal((3, 9)))
    with pytest.raises(ShapeError):
        watch.push(np.zeros((3, 8)))
    with pytest.raises(InputError):
        watch.push(np.full((3, 9), np.nan))
