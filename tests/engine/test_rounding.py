"""Rounding is no peek: honest columns by FFT of long histories pass, or declare a tolerance."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import signal as filters

import backtest as bt
from backtest.engine.lookahead import ENOUGH, observe_checked
from tests.honest_columns import HONEST, find_tolerance
from tests.kit import market_of, walk
from tests.peeks import PEEKS, log_returns, observing

LONG = walk(35_064, 1.1, 0.8, seed=4)
"""Four years of hours in which the price rises from 100 to several thousand."""
TICKS = market_of(100.0 + 0.5 * np.cumsum(np.random.default_rng(2).integers(-2, 3, 2000)) % 50)
"""Prices in ticks of 0.5 %: a third of all sums of a few moves are 0."""
ONE_TICK = market_of(100.0 + 1e-5 * np.cumsum(np.random.default_rng(1).integers(-1, 2, 2000)))
"""Bars of at most one small tick: a flag that looks ahead shows only where moves are equal."""


@pytest.mark.parametrize("name", ["centered 1, claim", "gradient, claim", "interpolate 1, claim"])
def test_a_peek_that_shows_only_at_equal_moves_is_caught(name: str):
    with pytest.raises(bt.PolicyError, match="looks ahead"):
        observe_checked(observing(PEEKS[name]), ONE_TICK)


FFTS = [name for name in HONEST if "fft" in name or "single" in name]
ROUND = [name for name in FFTS if "deviation" not in name or "value" in name]
"""Without the signs of deviations: where these are 0, rounding alone decides their sign."""


@pytest.mark.slow
@pytest.mark.parametrize("market", [LONG, TICKS], ids=["long", "ticks"])
@pytest.mark.parametrize("name", ROUND)
def test_no_fft_with_its_tolerance_is_accused(name: str, market: bt.Market):
    policy = observing(HONEST[name], find_tolerance(name))
    assert observe_checked(policy, market)[1].cuts >= ENOUGH


def test_a_function_of_a_panel_declares_its_tolerance_too():
    """B is listed later; the signs of sums that are 0 are rounded away."""
    markets = bt.Markets({"A": TICKS, "B": TICKS.slice(700, 2000)})

    def weigh(markets: Any) -> pd.DataFrame:
        columns = {}
        for name, market in markets.items():
            sums = filters.fftconvolve(log_returns(market).astype(np.float32), np.ones(6, "f4"))
            columns[name] = pd.Series(np.tanh(sums[: market.n_bars]), index=market.times)
        return pd.DataFrame(columns).fillna(0.0)

    with pytest.raises(bt.PolicyError, match="the signal weigh looks ahead"):
        bt.signals.from_function(markets, weigh)
    weigh.tolerance = 1e-3  # type: ignore[attr-defined] # as a function declares it
    assert "B" in bt.signals.from_function(markets, weigh)
    weigh.tolerance = 1e-9  # type: ignore[attr-defined]
