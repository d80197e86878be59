"""The leverage decay of several positions counts from the close before a position was opened."""

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.strategies import Constant
from tests.kit import bars_market

VENUE = bt.Venue.simple(
    taker=5e-4, slippage=1e-4, maintenance_rate=0.005, max_leverage=100, liquidation_fee=0.01
)
DECAYS = ("volatility_drag", "carry_decay", "leverage_decay")


def run_twice(prices: np.ndarray, signal: np.ndarray) -> tuple[bt.Result, bt.Result]:
    """Run a market alone, and twice at half the size."""
    market = bars_market(prices, prices)
    terms = {"venue": VENUE, "account": bt.Account()}
    both = bt.Markets({"A": market, "B": market}, currency="USDT")
    halves = pd.DataFrame({"A": signal / 2.0, "B": signal / 2.0}, index=both.times)
    alone = pd.Series(signal, index=both.times)
    one = bt.run(market, Constant(2.0), signal=alone, **terms)
    return one, bt.run(both, Constant(2.0), signal=halves, **terms)


def test_constant_prices_have_no_drag():
    signal = np.r_[np.zeros(10), np.ones(20), np.zeros(10), np.ones(20)]
    _, both = run_twice(np.full(60, 100.0), signal)
    assert len(both.events.query("kind == 'fill'")) >= 6
    assert both.metrics["volatility_drag"] == 0.0


def test_the_same_market_twice_at_half_the_size_decays_as_one_does():
    """Also where a position is opened again at a price far from where it was closed."""
    prices = 100.0 * np.exp(np.cumsum(np.sin(np.arange(90.0)) / 20.0 + 0.01))
    signal = np.r_[np.zeros(10), np.ones(20), np.zeros(30), np.ones(30)]
    one, both = run_twice(prices, signal)
    assert one.metrics["volatility_drag"] > 0.0
    for name in DECAYS:
        assert both.metrics[name] == pytest.approx(one.metrics[name], rel=1e-9, abs=1e-12)
