"""Regime probabilities: against statsmodels, against the truth of simulated states, and causal."""

import math

import numpy as np
import pytest
from statsmodels.tsa.regime_switching.markov_regression import MarkovRegression

from backtest import Market
from backtest.features import learned_regimes, log_returns
from tests.kit import YEAR, market_of


def filter_known(market: Market, volatility, bars) -> np.ndarray:
    """Return the probabilities of stress by statsmodels, at the parameters of a simulation."""
    returns = log_returns(market)[1:]
    model = MarkovRegression(returns, k_regimes=2, trend="n", switching_variance=True)
    found = model.filter([1 - 1 / bars[0], 1 / bars[1], *(np.square(volatility) / YEAR)])
    return np.append(np.nan, found.filtered_marginal_probabilities[:, 1])


def simulate(
    n: int, volatility: tuple[float, float], bars: tuple[float, float], seed: int
) -> tuple[Market, np.ndarray]:
    """Return an hourly market whose volatility jumps between two values, and which it has."""
    rng = np.random.default_rng(seed)
    moves, state = rng.random(n), np.zeros(n, dtype=int)
    for t in range(1, n):
        is_leaving = moves[t] < 1.0 / bars[state[t - 1]]
        state[t] = 1 - state[t - 1] if is_leaving else state[t - 1]
    steps = np.array(volatility)[state] / math.sqrt(YEAR) * rng.standard_normal(n)
    return market_of(100.0 * np.exp(np.cumsum(steps))), state


@pytest.mark.parametrize(
    ("volatility", "bars"), [((0.4, 1.2), (200.0, 50.0)), ((0.4, 0.8), (200.0, 100.0))]
)
def test_learning_recovers_the_states_nearly_as_well_as_knowing(volatility, bars):
    """The best filter knows the volatilities; learning with 0.4 and 1.2 loses hardly anything.

    Bars told right differ between both only where they disagree, a share d of the bars; if one is
    right as often as the other there, by sqrt(d / n_eff), n_eff = n / 50.
    """
    market, state = simulate(30_000, volatility, bars, seed=3)
    best = filter_known(market, volatility, bars)
    found = learned_regimes(market, 2000, *bars)
    later = slice(2000, None)
    right = ((found.filtered > 0.5) == state)[later].mean()
    most = ((best > 0.5) == state)[later].mean()
    differ = ((found.filtered > 0.5) != (best > 0.5))[later].mean()
    assert right >= most - 3 * math.sqrt(differ / (28_000 / 50))
    assert differ < 0.01


def test_what_is_learned_follows_a_market_that_grows_calm():
    """Volatilities fall from 0.8 and 2.4 to a quarter: some half-lives later both are found."""
    wild, _ = simulate(8000, (0.8, 2.4), (200.0, 50.0), seed=4)
    calm, state = simulate(12_000, (0.2, 0.6), (200.0, 50.0), seed=5)
    market = market_of(np.concatenate([wild.close, wild.close[-1] / 100.0 * calm.close]))
    found = learned_regimes(market, 500, 200, 50)
    later = slice(14_000, None)
    right = ((found.filtered[later] > 0.5) == state[6000:]).mean()
    assert right > 0.95


def test_a_market_of_one_regime_is_called_calm_and_can_still_part_in_two():
    """One regime first: stress keeps its distance, and is found when it comes."""
    one, _ = simulate(8000, (0.5, 0.5), (200.0, 50.0), seed=6)
    two, state = simulate(12_000, (0.5, 1.5), (200.0, 50.0), seed=7)
    market = market_of(np.concatenate([one.close, one.close[-1] / 100.0 * two.close]))
    found = learned_regimes(market, 500, 200, 50)
    assert np.mean(found.filtered[2000:8000]) < 0.2
    assert ((found.filtered[12_000:] > 0.5) == state[4000:]).mean() > 0.95


def test_a_price_that_stands_still_is_calm():
    market = market_of(np.full(400, 100.0))
    found = learned_regimes(market, 50, 200, 20)
    assert np.isfinite(found.filtered[100:]).all()
    assert (found.filtered[100:] < 0.1).all()


def test_nothing_is_said_before_a_hundred_returns_are_known():
    market = Market.sample(bars=150)
    for column in learned_regimes(market, 50, 200, 20):
        assert np.isnan(column[:100]).all()
        assert np.isfinite(column[100:]).all()
