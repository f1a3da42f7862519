"""Mixtures: what is refused, what is printed, and that what is drawn has the shares that were asked for."""

from collections import Counter
from fractions import Fraction
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensmith.core.config import from_json, to_json
from lensmith.core.errors import ConfigError
from lensmith.data.mixture import LanguageSchedule, Mixture, Unit, Weighted, choices, scheduled_choices

MM1 = Mixture.of(captions=0.45, interleaved=0.45, text=0.1)
TREE = Mixture(
    parts=(
        Weighted(
            name="captions",
            weight=0.6,
            parts=(Weighted(name="stamps", weight=0.25), Weighted(name="drawings", weight=0.75)),
        ),
        Weighted(name="text", weight=0.4),
    )
)
MIXED_MODALITIES = Mixture(
    parts=(
        Weighted(
            name="language", weight=0.7, parts=(Weighted(name="web", weight=0.75), Weighted(name="books", weight=0.25))
        ),
        Weighted(name="captions", weight=0.2),
        Weighted(name="pages", weight=0.1),
    )
)


def test_weights_must_sum_to_one_on_every_level():
    with pytest.raises(ConfigError, match=r"(?s)the mixture's parts do not sum to 1.*captions 0.5 \+ text 0.4 = 0.9"):
        Mixture.of(captions=0.5, text=0.4)
    with pytest.raises(ConfigError, match="the parts of 'captions' do not sum to 1"):
        Weighted(name="captions", weight=1.0, parts=(Weighted(name="stamps", weight=0.5),))
    with pytest.raises(ConfigError, match="no parts"):
        Mixture(parts=())


@pytest.mark.parametrize("weight", [0, -0.1, 1.5, float("nan")])
def test_a_weight_is_a_share(weight):
    with pytest.raises(ConfigError, match="is no share"):
        Weighted(name="captions", weight=weight)


def test_a_source_stands_in_one_place():
    with pytest.raises(ConfigError, match="stands twice"):
        Mixture(parts=(Weighted(name="text", weight=0.5), Weighted(name="text", weight=0.5)))


def test_shares_are_products_down_the_tree():
    assert TREE.shares == pytest.approx({"stamps": 0.15, "drawings": 0.45, "text": 0.4})


def test_a_mixture_is_printed_with_both_shares():
    assert str(TREE).splitlines()[1:] == [
        "  captions                   60.0%",
        "    stamps                     25.0%  (15.0% of all)",
        "    drawings                   75.0%  (45.0% of all)",
        "  text                       40.0%",
    ]


def test_a_mixture_is_saved_and_its_hash_is_of_all_of_it():
    assert from_json(Mixture, to_json(TREE)) == TREE
    assert len({TREE.hash, MM1.hash, Mixture.of(unit=Unit.TOKENS, captions=0.45, interleaved=0.45, text=0.1).hash}) == 3


def test_sequences_are_drawn_by_weight():
    drawn = Counter(islice(choices(MM1, 0, {}), 20_000))
    # Four standard deviations of a binomial count.
    assert drawn["captions"] == pytest.approx(9_000, abs=4 * (20_000 * 0.45 * 0.55) ** 0.5)
    assert drawn["text"] == pytest.approx(2_000, abs=4 * (20_000 * 0.1 * 0.9) ** 0.5)


def test_a_draw_follows_from_the_seed_alone():
    one, again, other = (list(islice(choices(MM1, seed, {}), 9_000)) for seed in (1, 1, 2))
    assert one == again != other
    assert one[:4096] != one[4096:8192]


def test_tokens_are_kept_to_at_every_moment():
    """Sequences of the one source are ten times as long: it gets a tenth as many."""
    lengths, given = {"long": 1_000, "short": 100}, {"long": 0, "short": 0}
    for name in islice(choices(Mixture.of(unit=Unit.TOKENS, long=0.5, short=0.5), 0, given), 1_000):
        given[name] += lengths[name]
        assert abs(given["long"] - given["short"]) <= 1_000


def test_leaves_are_filled_and_the_rest_keeps_its_proportions():
    filled = MM1.filled(captions={"stamps": 0.25, "drawings": 0.75}, text="handbook")
    assert filled.shares == pytest.approx(
        {"stamps": 0.45 / 0.55 / 4, "drawings": 0.45 / 0.55 * 3 / 4, "handbook": 0.1 / 0.55}
    )
    assert MM1.filled(captions="captions", interleaved="interleaved", text="text") == MM1
    assert TREE.filled(stamps="stamps", text="text").shares == pytest.approx(
        {"stamps": 0.15 / 0.55, "text": 0.4 / 0.55}
    )
    with pytest.raises(ConfigError, match=r"(?s)no such leaf.*captions, interleaved, text.*audio"):
        MM1.filled(audio="clips")
    with pytest.raises(ConfigError, match="no parts"):
        MM1.filled()


def test_a_node_names_the_sources_below_it():
    assert TREE.below("captions") == {"stamps", "drawings"}
    assert TREE.below("drawings", "text") == {"drawings", "text"}
    with pytest.raises(ConfigError, match="no such node"):
        TREE.below("pages")


def drawn(schedule, *, steps, sequences_per_step, mixture=MM1, seed=3):
    names = islice(
        scheduled_choices(mixture, schedule, seed, sequences_per_step=sequences_per_step), steps * sequences_per_step
    )
    flat = list(names)
    return [flat[at : at + sequences_per_step] for at in range(0, len(flat), sequences_per_step)]


def wanted_so_far(steps, *, start, target, over):
    """A plain reference: the straight line, step by step, and its running sum, in exact numbers."""
    total, sums = Fraction(0), []
    for step in range(steps):
        part = min(Fraction(step, over) if over else Fraction(1), Fraction(1))
        total += start + (target - start) * part
        sums.append(total)
    return sums


@given(
    target=st.integers(1, 99),
    start=st.integers(0, 100),
    over=st.integers(0, 60),
    sequences_per_step=st.integers(1, 8),
    pure=st.booleans(),
)
def test_the_share_of_language_keeps_to_its_schedule_at_every_step(target, start, over, sequences_per_step, pure):
    mixture = Mixture.of(captions=1 - target / 100, text=target / 100)
    schedule = LanguageSchedule(start=start / 100, steps=over, pure_steps=pure)
    steps = drawn(schedule, steps=80, sequences_per_step=sequences_per_step, mixture=mixture)
    wanted = wanted_so_far(80, start=Fraction(start, 100), target=Fraction(target, 100), over=over)
    given_so_far = 0
    for step, sum_wanted in zip(steps, wanted, strict=True):
        given_so_far += step.count("text")
        # Whole steps, or whole sequences, cannot come closer than half of one; the rest is rounding.
        within = sequences_per_step / 2 if pure else 0.5
        assert abs(given_so_far - sequences_per_step * float(sum_wanted)) <= within + 1e-9


def test_a_step_is_of_one_modality_and_without_pure_steps_it_is_not():
    pure, mixed = (
        drawn(
            LanguageSchedule(parts=("language",), start=0.7, pure_steps=wanted),
            steps=400,
            sequences_per_step=8,
            mixture=MIXED_MODALITIES,
        )
        for wanted in (True, False)
    )
    kinds = [{"text" if name in ("web", "books") else "pictures" for name in step} for step in pure]
    assert {len(kind) for kind in kinds} == {1}
    assert sum(kind == {"text"} for kind in kinds) == 280, "70 % of 400"
    # A negative control: sequence by sequence no step is pure, and the share is the same.
    assert not any(len({name in ("web", "books") for name in step}) == 1 for step in mixed)
    assert sum(name in ("web", "books") for step in mixed for name in step) == 280 * 8


def test_within_a_modality_sources_have_their_shares():
    counted = Counter(
        name
        for step in drawn(
            LanguageSchedule(parts=("language",)), steps=2_500, sequences_per_step=8, mixture=MIXED_MODALITIES
        )
        for name in step
    )
    # Four standard deviations of a binomial count.
    for name, share, of in (("web", 0.75, 14_000), ("captions", 2 / 3, 6_000)):
        assert counted[name] == pytest.approx(share * of, abs=4 * (of * share * (1 - share)) ** 0.5)


@pytest.mark.parametrize(
    ("schedule", "mixture", "said"),
    [
        (LanguageSchedule(parts=("speech",)), MM1, "no such node"),
        (LanguageSchedule(parts=("captions", "interleaved", "text")), MM1, "with and without pictures"),
        (LanguageSchedule(), Mixture.of(unit=Unit.TOKENS, captions=0.3, text=0.7), "counts sequences"),
    ],
)
def test_a_schedule_that_a_mixture_cannot_have_is_refused(schedule, mixture, said):
    with pytest.raises(ConfigError, match=said):
        schedule.check(mixture)
    with pytest.raises(ConfigError, match="is no share"):
        LanguageSchedule(start=1.5)
