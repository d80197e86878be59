"""Capacity: the square-root law by hand, the root, participation, and bad input."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.scenarios.capacity import find_half, read_capitals
from backtest.strategies import Constant
from tests.markets import free_venue, market_of

N = 24 * 12
RISING = market_of(
    100.0 * np.exp(0.00004 * np.arange(N) + 0.004 * np.cos(np.arange(N))), volume=np.full(N, 1e4)
)
TERMS = {"account": bt.Account(capital=1000.0), "compile": False}


def costly(impact: float = 1.0, most: float | None = None) -> bt.Venue:
    return free_venue().override({"slippage.impact": impact, "slippage.max_participation": most})


def test_the_cost_of_impact_grows_with_the_root_of_the_capital():
    """Four times the capital: twice the cost of each trade, as a share of the equity."""
    found = bt.capacity(
        RISING, Constant(2.0), venue=costly(0.1), capitals=[1.0, 1e4, 4e4, 16e4], tolerance=0.2,
        **TERMS,
    )  # fmt: skip
    one, four, sixteen = found.table["impact"].iloc[1:]
    assert four / one == pytest.approx(2.0, rel=0.02)
    assert sixteen / four == pytest.approx(2.0, rel=0.02)
    assert found.table["volume_share"].iloc[2] == pytest.approx(
        4.0 * found.table["volume_share"].iloc[1], rel=0.02
    )


def test_the_capital_at_which_growth_is_half_is_a_root():
    grid = [1e3, 1e8, 1e10]
    found = bt.capacity(
        RISING, Constant(2.0), venue=costly(), capitals=grid, tolerance=0.05, **TERMS
    )
    growths = []
    for capital in (grid[0], found.half_growth):
        account = bt.Account(capital=capital)
        run = bt.run(RISING, Constant(2.0), venue=costly(), account=account, compile=False)
        growths.append(run.metrics["cagr"])
    assert growths[1] == pytest.approx(0.5 * growths[0], rel=0.05)
    assert grid[0] < found.half_growth < grid[-1]
    assert found.table.loc[grid[0], "growth"] == growths[0]


def test_the_first_crossing_is_bisected_to_the_tolerance_and_none_is_unknown():
    def falling(capital: float) -> dict[str, float]:
        return {"growth": 1.0 - math.log10(capital) / 8.0}

    grid = [1.0, 10.0, 1e3, 1e5, 1e6]
    assert find_half("growth", grid, falling, 1e-4) == pytest.approx(1e4, rel=1e-3)
    assert math.isnan(find_half("growth", grid[:3], falling, 1e-4))
    assert math.isnan(find_half("growth", grid, lambda _: {"growth": -0.1}, 1e-4))


def test_participation_alone_holds_a_large_account_back():
    found = bt.capacity(
        RISING, Constant(2.0), venue=costly(0.0, 0.01), capitals=[1e3, 1e7], tolerance=0.5, **TERMS
    )
    small, large = found.table["mean_leverage"]
    assert small == pytest.approx(2.0, rel=0.05)
    assert large < 0.5 * small


def test_several_instruments_share_the_capital():
    markets = bt.Markets({"A": RISING, "B": RISING}, currency="USD")
    found = bt.capacity(
        markets, Constant(2.0), venue=costly(), capitals=[1e3, 1e6], tolerance=0.5, **TERMS
    )
    assert found.table["growth"].is_monotonic_decreasing
    assert found.table["volume_share"].isna().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"venue": free_venue()}, "costs or limits that depend on size"),
        ({"capitals": [1e4]}, "two or more increasing numbers"),
        ({"capitals": [1e4, 1e3]}, "two or more increasing numbers"),
        ({"capitals": [1e4, math.nan]}, "capital must be"),
        ({"capitals": "1e4"}, "capitals must be a list of numbers"),
        ({"tolerance": 0.0}, "tolerance must be"),
        ({"account": bt.Account(flows=pd.Series([1.0], RISING.index[5:6]))}, "flows must be left"),
        ({"account": 5}, "account must be an Account"),
    ],
)
def test_a_wrong_argument_is_one_clear_error(change, message):
    with pytest.raises(bt.ParameterError, match=message):
        bt.capacity(RISING, Constant(2.0), **{"venue": costly(), **TERMS, **change})


def test_the_usual_capitals_are_seven_decades_from_the_account():
    grid = read_capitals(None, bt.Account(capital=1000.0))
    assert (grid[0], grid[2], len(grid)) == (1000.0, pytest.approx(1e4), 15)
    assert grid[-1] == pytest.approx(1e10)
