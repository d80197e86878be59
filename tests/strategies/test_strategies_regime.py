"""Regime, TrendVol and their signals: the formulas, on simulated regimes and trends."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

import backtest as bt
from backtest.features import (
    ewma_volatility,
    learned_regimes,
    trend_sign,
    trend_strength,
)
from backtest.strategies import Regime, TrendVol
from tests.kit import YEAR, live, market_of


def test_regime_weighs_two_leverages_with_the_probability_of_the_next_bar():
    policy = Regime(calm=3.0, stress=1.0, half_life=500.0, calm_bars=100.0, stress_bars=25.0)
    market = bt.Market.sample(bars=400)
    p = learned_regimes(market, 500.0, 100.0, 25.0).predicted
    target = live(market, policy, compile=False).bars["target"].to_numpy()
    np.testing.assert_allclose(target, 3.0 - 2.0 * p, rtol=1e-12)
    assert np.isnan(target[:100]).all()
    assert policy.leverage(SimpleNamespace(probability=0.25), None) == 2.5


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
