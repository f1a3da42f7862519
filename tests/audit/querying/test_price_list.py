import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensmith.audit.findings.finding import Cost
from lensmith.audit.querying.price import (
    Price,
    extrapolated,
    load_prices,
    total,
    with_price,
)
from lensmith.core.errors import ConfigError

DOLLAR = Price(model="*", usd_per_million_input_tokens=1.0, usd_per_million_output_tokens=1.0)


def test_extrapolation_scales_what_was_measured_and_says_so():
    spent = Cost(queries=1000, tokens=11_000, seconds=50.0)
    whole = extrapolated(spent, 160, DOLLAR)
    assert whole == Cost(queries=160, tokens=1760, seconds=8.0, usd=pytest.approx(0.00176), extrapolated=True)
    assert extrapolated(Cost(queries=0), 5, DOLLAR) == Cost(queries=5, extrapolated=True)


def test_money_counts_input_output_and_requests():
    price = Price(
        model="x", usd_per_million_input_tokens=2.0, usd_per_million_output_tokens=10.0, usd_per_request=0.001
    )
    assert price.usd(1000, 500_000, 100_000) == pytest.approx(3.0)
    # One written token a query: 99,000 sent and 1,000 written.
    assert with_price(Cost(queries=1000, tokens=100_000), price).usd == pytest.approx(0.198 + 0.01 + 1.0)
    assert with_price(Cost(queries=5), DOLLAR).usd == 0


@given(
    st.lists(st.builds(Cost, queries=st.integers(0, 10**9), tokens=st.integers(0, 10**9), extrapolated=st.booleans()))
)
def test_a_total_is_the_sum_and_extrapolated_if_any_part_is(costs):
    found = total(costs)
    assert found.queries == sum(cost.queries for cost in costs)
    assert found.tokens == sum(cost.tokens for cost in costs)
    assert found.extrapolated == any(cost.extrapolated for cost in costs)


def test_the_list_that_ships_loads_and_says_how_old_it_is():
    prices = load_prices()
    assert len(prices.prices) >= 5 and prices.updated and prices.source
    assert prices.of("GPT-4o-mini-2024-07-18").usd_per_million_input_tokens == 0.15
    assert prices.of("gpt-4o").usd_per_million_output_tokens == 10.0
    assert prices.of("my-own-model") == prices.fallback
    patterns = [price.model for price in prices.prices]
    assert [prices.of(pattern.rstrip("*")).model for pattern in patterns] == patterns  # none hides a later one


FALLBACK = "[fallback]\nmodel = '*'\nusd_per_million_input_tokens = 1\nusd_per_million_output_tokens = 1\n"


def test_a_list_of_ones_own(tmp_path):
    path = tmp_path / "prices.toml"
    entry = "[[prices]]\nmodel = 'mine-?'\nusd_per_million_input_tokens = 3\nusd_per_million_output_tokens = 4\n"
    path.write_text(FALLBACK + entry)
    assert load_prices(path).of("mine-7").usd_per_million_output_tokens == 4
    assert load_prices(path).of("mine-70").usd_per_million_output_tokens == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "fallback: required"),
        ("[fallback", "not valid TOML"),
        (FALLBACK + "usd_per_milion_input_tokens = 3", "did you mean 'usd_per_million_input_tokens'"),
        (FALLBACK.replace("= 1\n", "= -1\n", 1), "not a price"),
        (FALLBACK.replace("= 1\n", "= nan\n", 1), "finite"),
        (FALLBACK.replace("= 1\n", "= 'one'\n", 1), "fallback.usd_per_million_input_tokens: wrong type"),
        (FALLBACK.replace("'*'", "''"), "model: empty"),
    ],
)
def test_a_bad_list_is_refused_by_name(tmp_path, text, told):
    path = tmp_path / "prices.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"prices\.toml") as error:
        load_prices(path)
    assert told in str(error.value)


def test_a_missing_list_and_binary_rubbish_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot read"):
        load_prices(tmp_path / "none.toml")
    (tmp_path / "rubbish.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_prices(tmp_path / "rubbish.toml")
