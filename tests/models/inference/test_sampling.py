import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lensmith.core.errors import ConfigError
from lensmith.models.inference.sampling import Dice, GenerateSettings, choose_tokens


def frequencies(settings, logits, draws=4000):
    dice = [Dice(settings, 0)]
    counts = np.zeros(len(logits))
    for _ in range(draws):
        counts[choose_tokens(torch.tensor([logits]), settings, dice)[0]] += 1
    return counts / draws


def test_tokens_come_as_often_as_their_probability():
    logits = [0.0, 1.0, 2.0, -1.0]
    settings = GenerateSettings(temperature=0.7, seed=3)
    expected = torch.softmax(torch.tensor(logits) / 0.7, 0).numpy()
    # Four standard errors of a share of 4000 draws.
    np.testing.assert_allclose(frequencies(settings, logits), expected, atol=4 * 0.5 / 4000**0.5)


def test_the_nucleus_is_what_reaches_the_mass():
    logits = np.log([0.5, 0.3, 0.15, 0.05]).tolist()
    shares = frequencies(GenerateSettings(temperature=1.0, top_p=0.7, seed=1), logits)
    np.testing.assert_allclose(shares, [0.625, 0.375, 0, 0], atol=4 * 0.5 / 4000**0.5)
    assert frequencies(GenerateSettings(temperature=1.0, top_p=1e-9), logits, draws=50)[0] == 1


@given(
    logits=st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=8),
    temperature=st.floats(0.01, 10),
    top_p=st.floats(0.01, 1),
    banned=st.integers(0, 7),
)
def test_a_choice_is_always_a_token_that_is_allowed(logits, temperature, top_p, banned):
    settings = GenerateSettings(temperature=temperature, top_p=top_p)
    row = torch.tensor([logits], dtype=torch.float64)
    row[0, banned % len(logits)] = -torch.inf
    chosen = choose_tokens(row, settings, [Dice(settings, 0)])[0]
    assert 0 <= chosen < len(logits)
    assert chosen != banned % len(logits)


def test_a_row_draws_the_same_whatever_stands_beside_it():
    settings = GenerateSettings(temperature=1.0, seed=5, num_samples=3)
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    together = [Dice(settings, sample) for sample in range(3)]
    rounds = [choose_tokens(logits, settings, together) for _ in range(20)]
    for row in range(3):
        alone = [Dice(settings, row)]
        assert [choose_tokens(logits[row : row + 1], settings, alone)[0] for _ in range(20)] == [r[row] for r in rounds]
    assert len({tuple(r[row] for r in rounds) for row in range(3)}) == 3


def test_greedy_takes_the_first_of_the_highest_and_rolls_no_dice():
    settings = GenerateSettings()
    dice = Dice(settings, 0)
    assert choose_tokens(torch.tensor([[1.0, 3.0, 3.0]]), settings, [dice]) == [1]
    assert dice.roll() == Dice(settings, 0).roll()


def test_the_first_sample_can_be_greedy():
    settings = GenerateSettings(temperature=5.0, num_samples=2, greedy_first=True)
    logits = torch.tensor([[0.0, 0.1, 0.0, 0.0]] * 2)
    dice = [Dice(settings, 0), Dice(settings, 1)]
    rounds = [choose_tokens(logits, settings, dice) for _ in range(30)]
    assert {first for first, _ in rounds} == {1}
    assert len({second for _, second in rounds}) > 1


@pytest.mark.parametrize(
    "values",
    [
        {"max_new_tokens": 0},
        {"num_samples": 0},
        {"temperature": -1.0},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"seed": -1},
        {"num_samples": 2},
        {"num_samples": 3, "greedy_first": True},
    ],
)
def test_impossible_settings_are_refused(values):
    with pytest.raises(ConfigError):
        GenerateSettings(**values)
