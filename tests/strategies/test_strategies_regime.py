"""Regime, TrendVol and their signals: the formulas, on simulated regimes and trends."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

import backtest as bt
from backtest.features import (
    ewma_volatility,
    learned_regimes,
    trend_sign,
    trend_strength,
)
from backtest.strategies import Regime, TrendVol
from tests.features.test_regimes import filter_known, simulate
from tests.markets import YEAR, live, market_of, walk


def test_regime_weighs_two_leverages_with_the_probability_of_the_next_bar():
    policy = Regime(calm=3.0, stress=1.0, half_life=500.0, calm_bars=100.0, stress_bars=25.0)
    market = bt.Market.sample(bars=400)
    p = learned_regimes(market, 500.0, 100.0, 25.0).predicted
    target = live(market, policy, compile=False).bars["target"].to_numpy()
    np.testing.assert_allclose(target, 3.0 - 2.0 * p, rtol=1e-12)
    assert np.isnan(target[:100]).all()
    assert policy.leverage(SimpleNamespace(probability=0.25), None) == 2.5


@pytest.mark.slow
def test_regime_holds_each_leverage_in_its_regime():
    """As a filter that knows the truth does, but for the errors of the volatilities it learns.

    Of 2000 returns, a fifth in stress, those are 1 / sqrt(2 n) of each volatility. What they do to
    the mean leverage is seen by moving the known ones by as much.
    """
    market, state = simulate(20_000, (0.4, 1.2), (200.0, 50.0), seed=9)
    policy = Regime(calm=3.0, stress=1.0, half_life=3000.0, calm_bars=200.0, stress_bars=50.0)
    target = live(market, policy, compile=False).bars["target"].to_numpy()[2000:]
    moves = (1.0, 1.0), (1.0 + 1 / math.sqrt(3200), 1.0), (1.0, 1.0 + 1 / math.sqrt(800))
    known = [
        3.0 - 2.0 * (p * (1.0 - 1 / 200 - 1 / 50) + 1 / 200)[2000:]
        for p in (filter_known(market, (0.4 * a, 1.2 * b), (200, 50)) for a, b in moves)
    ]
    for each in (0, 1):
        chosen = state[2000:] == each
        best, *moved = (column[chosen].mean() for column in known)
        error = math.hypot(*(other - best for other in moved))
        assert target[chosen].mean() == pytest.approx(best, abs=3 * error)
        assert 0 < error < 0.03
    assert np.mean(target) == pytest.approx(3.0 - 2.0 * 0.2, abs=3 * state_error(18_000))


def state_error(n: int) -> float:
    """Return the standard error of the mean of 2 S_t: stays of 200 and 50 bars.

    A two-state chain with leaving rates a, b decorrelates as (1 - a - b)^k: the variance of a mean
    of n is p (1 - p) (2 / (a + b) - 1) / n.
    """
    a, b = 1 / 200, 1 / 50
    share = a / (a + b)
    return 2.0 * math.sqrt(share * (1 - share) * (2 / (a + b) - 1) / n)


@pytest.mark.parametrize("measure", ["sign", "strength"])
def test_trend_vol_is_its_formula(measure: str):
    policy = TrendVol(
        target=0.5, half_life=24.0, short=12, middle=36, long=90, measure=measure, full=1.5
    )
    market = bt.Market.sample(bars=300)
    looks = (12, 36, 90)
    trends = [trend_sign(market, n) for n in looks]
    if measure == "strength":
        trends = [trend_strength(market, n, 24.0, 1.5) for n in looks]
    base = 0.5 / ewma_volatility(market, 24.0)
    side = np.where(np.arange(300) % 50 < 25, 1.0, -0.4)
    for signal, sides in ((None, 1.0), (-1.0, -1.0), (side, np.sign(side))):
        target = live(market, policy, signal=signal, compile=False).bars["target"].to_numpy()
        expected = base * np.maximum(sides * np.mean(trends, axis=0), 0.0)
        np.testing.assert_allclose(target, expected, rtol=1e-12)
        assert np.isnan(target[:90]).all()
        assert (target[90:] == 0.0).any()
        assert (target[90:] > 0.0).any()


@pytest.mark.slow
def test_trend_vol_is_out_of_a_trend_against_it_and_all_in_for_one_with_it():
    """A drift of m = 20 deviations a year: z = 2.7, 3.8 and 5.3 deviations over the lookbacks.

    Of a strength min(N(z, 1), 1) the mean is 1 - g with g = phi(a) - a Phi(-a), a = z - 1, and the
    mean of (1 - strength)^2 is (1 + a^2) Phi(-a) - a phi(a). The shortest counts for nearly all of
    it: the mean over T bars is of T / 168 weeks. The volatility, of n = 208 bars, has the drift in
    it, 1 + m^2 / 8760 in the square. Against the trend it is out: P(N(3.8, 1) < 0) = 7e-5.
    """
    m = 20.0 - 0.6 / 2
    rising = walk(3000, 20 * 0.6, 0.6, seed=12)
    z = m * np.sqrt(np.array([168, 336, 672]) / YEAR) / math.sqrt(1.0 + m * m / YEAR)
    a = z - 1.0
    missed = stats.norm.pdf(a) - a * stats.norm.sf(a)
    square = (1.0 + a[0] ** 2) * stats.norm.sf(a[0]) - a[0] * stats.norm.pdf(a[0])
    with_it, against = (
        live(rising, TrendVol(), signal=side, compile=False).bars["target"].to_numpy()[672:]
        for side in (1.0, -1.0)
    )
    found = with_it / (0.4 / ewma_volatility(rising, 72.0)[672:])
    error = math.sqrt(square) / 3.0 / math.sqrt(len(found) / 168)
    assert found.mean() == pytest.approx(1.0 - missed.mean(), abs=3 * error)
    assert error < 0.012
    assert (against == 0.0).all()


@pytest.mark.slow
def test_trend_vol_with_the_sign_as_signal_is_the_published_strategy():
    """sign(r_{t-n,t}) 40 % / sigma_t, of either side; mean 0.4 SR (2 Phi(SR sqrt T) - 1) a year.

    The drift changes its side every half year. Here the run's own position is compared with the
    formula at each bar; what it earns is tested with the estimator.
    """
    rng = np.random.default_rng(13)
    sides = np.repeat(np.tile([1.0, -1.0], 2), YEAR // 8)
    steps = sides * 3.0 / YEAR + 0.5 / math.sqrt(YEAR) * rng.standard_normal(len(sides))
    market = market_of(100.0 * np.exp(np.cumsum(steps)))
    policy = TrendVol(target=0.4, half_life=400.0, short=240, middle=240, long=240, measure="sign")
    signal = np.nan_to_num(trend_sign(market, 240))
    bars = live(market, policy, signal=signal, compile=False).bars
    weight = signal * 0.4 / ewma_volatility(market, 400.0)
    held = bars["position"] * market.open / np.concatenate([[1e4], bars["equity"][:-1]])
    np.testing.assert_allclose(held[241:], weight[240:-1], rtol=1e-9)
