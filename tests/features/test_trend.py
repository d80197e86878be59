"""Trends and hidden regimes."""

import math
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from statsmodels.tsa.regime_switching.markov_regression import MarkovRegression

from backtest import Market
from backtest.features import (
    ewma_volatility,
    learned_regimes,
    log_returns,
    trend_sign,
    trend_strength,
)
from backtest.features.trends import find_moves
from tests.features.test_features import market_of as funded_market
from tests.kit import YEAR, market_of, walk

Phi = NormalDist().cdf


def test_momentum_is_the_log_return_net_of_funding():
    """ln 1.1, ln 1.2, ln(1.2 / 1.1) less the 0.01 settled in the third bar, with its stamp."""
    stamp = pd.DatetimeIndex(["2024-01-01 02:00"], tz="UTC")
    market = funded_market([1.0, 1.1, 1.2], funding=pd.Series([0.01], index=stamp))
    found = find_moves(market, np.array([1, 2, 3]))
    expected = [[math.nan] * 3, [math.log(1.1), *[math.nan] * 2]]
    expected += [[math.log(1.2 / 1.1) - 0.01, math.log(1.2) - 0.01, math.nan]]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_strength_is_the_move_in_deviations_clipped():
    """Moves of 1 %, 1 %, 2 %: sigma^2 = 0.0001 (4 + 1/2 + 1/4) / 1.75 with half-life 1."""
    market = market_of(np.exp([0.0, 0.01, 0.02, 0.04]))
    sigma = 0.01 * math.sqrt(4.75 / 1.75)
    z = 0.04 / (sigma * math.sqrt(3.0))
    assert trend_strength(market, 3, 1.0, full=5.0)[3] == pytest.approx(z / 5.0, rel=1e-12)
    assert trend_strength(market, 3, 1.0, full=1.0)[3] == 1.0
    falling = market_of(np.exp([0.0, -0.01, -0.02, -0.04]))
    assert trend_strength(falling, 3, 1.0, full=1.0)[3] == -1.0
    assert np.isnan(trend_strength(market, 3, 1.0)[:3]).all()


def test_a_price_that_stands_still_has_no_trend():
    market = market_of(np.full(20, 100.0))
    assert (trend_sign(market, 5)[5:] == 0.0).all()
    assert (trend_strength(market, 5, 10.0)[5:] == 0.0).all()


@pytest.mark.parametrize(("drift", "sigma", "lookback"), [(1.0, 0.5, 720), (-0.6, 0.8, 2160)])
def test_the_sign_is_right_as_often_as_the_normal_law_has_it(drift, sigma, lookback):
    """P = Phi(|m| sqrt(T) / sigma), m the drift of log prices; windows apart are independent.

    Standard error sqrt(P (1 - P) / windows); over 400 windows that is 2.5 % at most.
    """
    n = 400 * lookback
    market = walk(n + 1, drift + 0.5 * sigma**2, sigma, seed=lookback)
    signs = trend_sign(market, lookback)[lookback::lookback]
    chance = Phi(abs(drift) * math.sqrt(lookback / YEAR) / sigma)
    found = np.mean(signs == np.sign(drift))
    assert len(signs) == 400
    assert found == pytest.approx(chance, abs=3 * math.sqrt(chance * (1 - chance) / 400))


def test_the_strategy_of_the_paper_earns_what_the_sign_is_right():
    """sign(r_{t-n,t}) 40 % / sigma r_{t,t+1}: mean 0.4 SR (2 Phi(SR sqrt T) - 1) per year.

    SR = m / sigma, with a drift of log prices whose sign changes every year; the first lookback of
    each year is left out. 40 years of hours at a volatility of 40 % have an error of 0.4 / sqrt 40.
    """
    drift, sigma, lookback, years = 2.0, 0.5, 720, 40
    rng = np.random.default_rng(5)
    sides = np.repeat(np.tile([1.0, -1.0], years // 2), YEAR)
    noise = sigma / math.sqrt(YEAR) * rng.standard_normal(years * YEAR)
    steps = sides * drift / YEAR + noise
    market = market_of(100.0 * np.exp(np.cumsum(steps)))
    weight = trend_sign(market, lookback) * 0.4 / ewma_volatility(market, 2000.0)
    earned = (weight[:-1] * steps[1:]).reshape(-1)
    settled = (np.arange(1, years * YEAR) % YEAR > lookback) & np.isfinite(earned)
    ratio = drift / sigma
    expected = 0.4 * ratio * (2 * Phi(ratio * math.sqrt(lookback / YEAR)) - 1)
    error = 0.4 / math.sqrt(settled.sum() / YEAR)
    assert earned[settled].mean() * YEAR == pytest.approx(expected, abs=3 * error)


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
