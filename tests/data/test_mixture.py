"""Mixtures: what is refused, what is printed, and that what is drawn has the shares that were asked for."""

from collections import Counter
from itertools import islice

import pytest

from lensmith.core.config import from_json, to_json
from lensmith.core.errors import ConfigError
from lensmith.data.mixture import Mixture, Unit, Weighted, choices

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
