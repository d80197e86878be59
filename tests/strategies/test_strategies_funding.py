"""Less leverage while it is expensive to hold: the cut by hand, and the carry that it saves."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.features import ewma_volatility, funding_forecast
from backtest.strategies import Constant, FundingAware, VolTarget
from tests.kit import free_venue, live, market_of

SAMPLE = bt.Market.sample(bars=800)


def funded(rate: float, n: int = 500, seed: int = 1) -> bt.Market:
    """Return a driftless walk at 60 % volatility whose longs pay a rate every 8 hours."""
    steps = 0.6 / math.sqrt(8760) * np.random.default_rng(seed).standard_normal(n)
    bars = market_of(100.0 * np.exp(np.cumsum(steps))).bars()
    stamps = pd.date_range(bars.index[0], bars.index[-1], freq="8h")
    return bt.Market.from_frames(bars, funding=pd.Series(rate, index=stamps))


def cut(policy: FundingAware, paid: float, sigma: float, asked: float = 2.0) -> float:
    """Return the leverage at one bar."""
    return policy.combine(SimpleNamespace(paid=paid, sigma=sigma), None, (asked,))


def test_the_cut_is_linear_in_the_funding_over_the_break_even():
    """k 2, f_0 0.1, sigma 0.5: 0.2 a year costs 2 * 0.1 / 0.5 = 0.4 of the leverage."""
    policy = FundingAware(Constant(), sensitivity=2.0, break_even=0.1)
    assert cut(policy, 0.2, 0.5) == pytest.approx(2.0 * 0.6, rel=1e-12)
    assert cut(policy, 0.35, 0.5) == pytest.approx(0.0, abs=1e-12)
    assert cut(policy, 9.0, 0.5) == 0.0
    assert cut(policy, 0.1, 0.5) == cut(policy, -3.0, 0.5) == cut(policy, math.nan, 0.5) == 2.0
    assert math.isnan(cut(policy, 0.2, 0.5, asked=math.nan))


@pytest.mark.slow
def test_without_sensitivity_it_is_the_policy_bit_for_bit():
    for inner in (VolTarget(), Constant(2.0)):
        alone, aware = live(SAMPLE, inner), live(SAMPLE, FundingAware(inner, sensitivity=0.0))
        assert np.array_equal(alone.record.values, aware.record.values, equal_nan=True)


def test_the_side_that_receives_funding_is_not_cut():
    """0.05 % every 8 hours is 55 % a year: a long is cut, a short of any size is not."""
    market = funded(0.0005)
    policy = FundingAware(Constant(2.0), sensitivity=2.0)
    long = live(market, policy, compile=False).bars["target"]
    assert (long[20:] < 2.0).all()
    assert long.iloc[-1] == pytest.approx(expected_cut(market), rel=1e-9)
    for size in (-1.0, -0.3):
        assert (live(market, policy, signal=size, compile=False).bars["target"] == 2.0).all()
    half = live(market, policy, signal=0.5, compile=False).bars["target"]
    assert half.equals(long)  # what is paid per unit of the position is the same


def expected_cut(market: bt.Market) -> float:
    """Return the last target of 2x, sensitivity 2, break-even 0.1 and half-lives of 72 bars."""
    paid, sigma = funding_forecast(market, 72.0)[-1], ewma_volatility(market, 72.0)[-1]
    return 2.0 * max(0.0, 1.0 - 2.0 * (paid - 0.1) / sigma)


def test_the_carry_saved_shows_in_the_cost_split():
    market = funded(0.0005)
    venue = free_venue()
    plain = live(market, Constant(2.0), venue=venue, compile=False).metrics
    aware = live(market, FundingAware(Constant(2.0), sensitivity=1.0), venue=venue, compile=False)
    saved = plain["funding"] - aware.metrics["funding"]
    assert plain["funding"] > 400.0
    assert saved > 0.3 * plain["funding"]
