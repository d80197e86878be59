"""Time-series momentum: its published construction, on simulated trends."""

import math
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest

from backtest.features import ewma_volatility, trend_sign, trend_strength
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
