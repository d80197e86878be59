"""Kelly: growth against Thorp's closed forms, and an estimate that finds what is known."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.features import ewma_volatility, long_returns, rolling_drift
from backtest.strategies import Constant, Kelly
from tests.kit import YEAR, live, market_of

MU, SIGMA = 0.5, 0.5
FULL = MU / SIGMA**2
"""Leverage of full Kelly; the Sharpe ratio is 1, and growth SR^2 / 2 = 0.5."""


def grow(market: bt.Market, turns: float) -> float:
    """Return the log growth a year of a constant leverage."""
    result = live(market, Constant(leverage=turns))
    return math.log(result.metrics["final_equity"] / 10_000.0) / (market.n_bars / YEAR)


def decide(policy: Kelly, drift: float, error: float, sigma: float) -> float:
    """Return the leverage at one bar."""
    values = {"drift": drift, "error": error, "sigma": sigma}
    bar = SimpleNamespace(**{name: np.float64(value) for name, value in values.items()})
    with np.errstate(divide="ignore"):
        return policy.leverage(bar, None)


@pytest.mark.slow
def test_full_kelly_grows_fastest_of_all_constant_leverages():
    """On a path whose drift and volatility are MU and SIGMA exactly only rebalancing by the hour is
    left: growth is f (2 - f) SR^2 / 2 but for the fourth moment, 3/4 L^4 sigma^4 / 8760 < 0.002."""
    noise = np.random.default_rng(32).standard_normal(5 * YEAR)
    noise = (noise - noise.mean()) / noise.std()
    steps = (MU - 0.5 * SIGMA**2) / YEAR + SIGMA / math.sqrt(YEAR) * noise
    market = market_of(100.0 * np.exp(np.concatenate([[0.0], np.cumsum(steps)])))
    growth = {f: grow(market, f * FULL) for f in (0.5, 0.8, 0.9, 1.0, 1.1, 1.2, 2.0)}
    for fraction, found in growth.items():
        assert found == pytest.approx(fraction * (2.0 - fraction) * 0.5, abs=0.002)
    assert max(growth, key=growth.get) == 1.0


def test_the_drift_is_that_of_what_is_traded():
    market = bt.Market.sample(bars=400)
    signal = np.where(np.arange(400) // 50 % 2, 1.0, -0.5)
    seen = market.with_signal(signal)
    windows = np.array([2, 30, 100])
    found = rolling_drift(seen, windows)
    earned = long_returns(market)[1:] * signal[:-1]  # no settlement where it changes
    for k, n in enumerate(windows):
        for t in (100, 237, 399):
            part = earned[t - n : t]
            mean = YEAR * part.mean()
            error = YEAR * part.std(ddof=1) / math.sqrt(n)
            assert found.mean[t, k] == pytest.approx(mean, rel=1e-9, abs=1e-12)
            assert found.error[t, k] == pytest.approx(error, rel=1e-9)
        assert np.isnan(found.mean[:n, k]).all()
        assert np.isnan(found.error[:n, k]).all()
        assert rolling_drift(seen, int(n)).mean.tobytes() == found.mean[:, k].tobytes()
        assert rolling_drift(seen, int(n)).error.tobytes() == found.error[:, k].tobytes()
    for n in (1, 2, 31, 101, 399):
        cut = rolling_drift(seen.prefix(n), windows)
        assert cut.mean.tobytes() == found.mean[:n].tobytes()
        assert cut.error.tobytes() == found.error[:n].tobytes()


def test_kelly_is_its_formula():
    market = bt.Market.sample(bars=300)
    policy = Kelly(fraction=0.7, window=100, shrinkage=2.0, half_life=24.0, cap=3.0)
    drift, sigma = rolling_drift(market, 100), ewma_volatility(market, 24.0)
    t = drift.mean / drift.error
    mu = drift.mean * t**2 / (t**2 + 2.0)
    expected = np.clip(0.7 * mu / sigma**2, 0.0, 3.0)
    bars = live(market, policy, compile=False).bars
    np.testing.assert_allclose(bars["target"], expected, rtol=1e-12)
    assert 0.0 < (expected[100:] == 0.0).mean() < 1.0


def test_a_drift_of_one_standard_error_counts_for_half():
    policy = Kelly(fraction=1.0, shrinkage=1.0, cap=50.0)
    assert decide(policy, drift=0.6, error=0.6, sigma=0.5) == pytest.approx(1.2, rel=1e-12)
    assert decide(policy, drift=0.6, error=1e-9, sigma=0.5) == pytest.approx(2.4, rel=1e-12)
    assert decide(policy, drift=0.6, error=1.2, sigma=0.5) == pytest.approx(0.48, rel=1e-12)
    plain = Kelly(fraction=1.0, shrinkage=0.0, cap=50.0)
    assert decide(plain, drift=0.6, error=6.0, sigma=0.5) == pytest.approx(2.4, rel=1e-12)


def test_kelly_stays_out_of_what_loses_and_is_capped():
    policy = Kelly(fraction=1.0, shrinkage=0.0, cap=3.0)
    assert decide(policy, drift=-0.1, error=0.1, sigma=0.5) == 0.0
    assert decide(policy, drift=0.0, error=0.0, sigma=0.0) == 0.0
    assert decide(policy, drift=9.0, error=0.1, sigma=0.5) == 3.0
    assert decide(policy, drift=0.1, error=0.1, sigma=0.0) == 3.0
    assert math.isnan(decide(policy, math.nan, math.nan, math.nan))


def test_funding_is_part_of_the_drift():
    """A price that moves about without end and longs that pay 0.1 % every 8 hours, 109 % a year."""
    noise = 0.002 * np.random.default_rng(36).standard_normal(1000)
    close = 100.0 * np.exp(noise)
    index = pd.date_range("2020-01-01", periods=1000, freq="1h", tz="UTC")
    opens = np.concatenate([close[:1], close[:-1]])
    bars = {"open": opens, "close": close}
    bars |= {"high": np.maximum(opens, close), "low": np.minimum(opens, close)}
    rates = pd.Series(0.001, index=index[8::8])
    market = bt.Market.from_frames(pd.DataFrame(bars, index=index), funding=rates)
    drift = rolling_drift(market, 800).mean[-1]
    assert drift == pytest.approx(-0.001 * YEAR / 8, rel=0.1)
    policy = Kelly(window=800, shrinkage=0.0)
    target = [
        live(market, policy, signal=s, compile=False).bars["target"].iloc[-1] for s in (1, -1)
    ]
    assert target[0] == 0.0
    assert target[1] == policy.cap
