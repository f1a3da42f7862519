import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensmith.audit.findings.finding import Cost, ReadOut
from lensmith.audit.querying.price import (
    Abilities,
    Price,
    Target,
    Usage,
    extrapolated,
    load_prices,
    total,
    whole_queries,
    with_price,
)
from lensmith.core.errors import ConfigError, InputError

H, V = 4096, 128_000
DOLLAR = Price(model="*", usd_per_million_input_tokens=1.0, usd_per_million_output_tokens=1.0)


def queries(read_out, target=Target.WIDTH, **abilities):
    return whole_queries(read_out, width=H, vocabulary=V, target=target, abilities=Abilities(**abilities))


@pytest.mark.parametrize(
    ("read_out", "abilities", "published"),
    [
        (ReadOut.P0, {}, 1),
        (ReadOut.P1, {}, 5_120),
        (ReadOut.P2, {"wanted_ids": 128}, 330e3),
        (ReadOut.P2, {"wanted_ids": 128, "positions": 256}, 1_300),
        (ReadOut.P3, {"top_logprobs": 20}, 2.2e6),
        (ReadOut.P4A, {}, 42e6),
        (ReadOut.P4B, {}, 42e6),
        (ReadOut.P5, {}, 42e6),
    ],
)
def test_the_work_to_show_a_width_of_4096_is_the_tables(read_out, abilities, published):
    assert queries(read_out, **abilities) == pytest.approx(published, rel=0.02)


def test_dearer_read_outs_cost_more_and_the_hopeless_none():
    ladder = [
        queries(ReadOut.P1),
        queries(ReadOut.P2, wanted_ids=128),
        queries(ReadOut.P3, top_logprobs=20),
        queries(ReadOut.P4A),
        queries(ReadOut.P6),
        queries(ReadOut.P7),
    ]
    assert ladder == sorted(ladder) and 2 * 42e6 <= ladder[-1] <= 4 * 42e6
    for hopeless in (ReadOut.P8, ReadOut.P9):
        assert queries(hopeless) is None
    assert queries(ReadOut.P0, Target.LAYER) is None


def test_the_layer_takes_every_token_of_the_same_contexts():
    assert queries(ReadOut.P4A, Target.LAYER) == 5_120 * V
    assert queries(ReadOut.P1, Target.LAYER) == queries(ReadOut.P1)


@given(
    width=st.integers(1, 5000),
    vocabulary=st.integers(1, 300_000),
    read_out=st.sampled_from([one for one in ReadOut if one not in (ReadOut.P0, ReadOut.P8, ReadOut.P9)]),
    k=st.integers(2, 50),
    target=st.sampled_from(Target),
)
def test_enough_logits_are_paid_for_and_not_many_too_many(width, vocabulary, read_out, k, target):
    abilities = Abilities(top_logprobs=k, wanted_ids=k)
    found = whole_queries(read_out, width=width, vocabulary=vocabulary, target=target, abilities=abilities)
    tokens = vocabulary if target is Target.LAYER else min(2 * width, vocabulary)
    a_call = {ReadOut.P1: tokens, ReadOut.P2: k, ReadOut.P3: k - 1, ReadOut.P6: 1 / 2, ReadOut.P7: 1 / 3}
    logits_a_call = a_call.get(read_out, 1)
    needed = 1.25 * width * tokens
    assert needed <= found * logits_a_call <= (1.25 * width + 1) * (tokens + logits_a_call)


def test_a_measured_figure_stands_instead_of_the_tables():
    assert queries(ReadOut.P7, queries_per_logit=2.0) == 2 * queries(ReadOut.P4A)
    assert queries(ReadOut.P3, top_logprobs=5, queries_per_logit=0.25) == queries(ReadOut.P4A) // 4
    more = whole_queries(ReadOut.P1, width=H, vocabulary=V, target=Target.WIDTH, abilities=Abilities(), contexts=2 * H)
    assert more == 2 * H


def test_extrapolation_scales_what_was_measured_and_says_so():
    spent = Cost(queries=1000, tokens=11_000, seconds=50.0)
    whole = extrapolated(spent, 160, DOLLAR)
    assert whole == Cost(queries=160, tokens=1760, seconds=8.0, usd=pytest.approx(0.00176), extrapolated=True)
    assert extrapolated(Cost(queries=0), 5, DOLLAR) == Cost(queries=5, extrapolated=True)


def test_money_counts_input_output_and_requests():
    price = Price(
        model="x", usd_per_million_input_tokens=2.0, usd_per_million_output_tokens=10.0, usd_per_request=0.001
    )
    usage = Usage(queries=1000, input_tokens=500_000, output_tokens=100_000, seconds=9.0)
    assert price.usd(usage) == pytest.approx(3.0)
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


def test_impossible_sizes_are_refused():
    with pytest.raises(InputError, match="size of a model"):
        whole_queries(ReadOut.P1, width=0, vocabulary=5, target=Target.WIDTH, abilities=Abilities())
    for wrong in ({"positions": 0}, {"queries_per_logit": 0.0}, {"queries_per_logit": float("nan")}):
        with pytest.raises(InputError):
            Abilities(**wrong)
    with pytest.raises(InputError):
        Usage(queries=-1)
