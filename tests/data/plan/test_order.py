"""The order of records: a permutation for each pass, the same wherever it is asked for."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensmith.core.errors import InputError
from lensmith.data.plan.order import Order


@given(count=st.integers(1, 300), seed=st.integers(0, 2**32), passes=st.integers(1, 3))
def test_each_pass_has_every_record_once(count, seed, passes):
    order = Order(count, seed=seed, name="captions")
    for number in range(passes):
        assert sorted(order.record(number * count + place) for place in range(count)) == list(range(count))


def test_passes_seeds_and_sources_differ():
    def pass_of(seed, name, number):
        order = Order(50, seed=seed, name=name)
        return tuple(order.record(50 * number + place) for place in range(50))

    assert len({pass_of(seed, name, number) for seed in (0, 1) for name in "ab" for number in (0, 1)}) == 8


def test_places_may_be_asked_for_in_any_order():
    forward, back = (Order(97, seed=3, name="text") for _ in range(2))
    places = range(300)
    assert [forward.record(place) for place in places] == [back.record(place) for place in reversed(places)][::-1]


def test_every_order_of_four_is_about_as_likely():
    seen = Counter(tuple(Order(4, seed=seed, name="text").record(place) for place in range(4)) for seed in range(4_800))
    # 24 orders, 200 of each expected, standard deviation 14: an order that never comes, or half of them, would show.
    assert len(seen) == 24
    assert 140 < min(seen.values()) <= max(seen.values()) < 260


def test_an_empty_source_is_refused():
    with pytest.raises(InputError, match="'captions' has no records"):
        Order(0, seed=0, name="captions")
