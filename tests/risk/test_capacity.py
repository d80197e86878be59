"""Capacity: the square-root law by hand, the root, participation, and bad input."""

import math

import numpy as np
import pytest

import backtest as bt
from backtest.risk.variations import find_half
from backtest.strategies import Constant
from tests.kit import free_venue, market_of

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
        RISING, Constant(2.0), venue=costly(0.1), capitals=[1.0, 1e4, 4e4, 16e4],
        **TERMS,
    )  # fmt: skip
    one, four, sixteen = found.table["impact"].iloc[1:]
    assert four / one == pytest.approx(2.0, rel=0.02)
    assert sixteen / four == pytest.approx(2.0, rel=0.02)


def test_the_capital_at_which_growth_is_half_is_a_root():
    grid = [1e3, 1e8, 1e10]
    found = bt.capacity(RISING, Constant(2.0), venue=costly(), capitals=grid, **TERMS)
    growths = []
    for capital in (grid[0], found.half_growth):
        account = bt.Account(capital=capital)
        run = bt.run(RISING, Constant(2.0), venue=costly(), account=account, compile=False)
        growths.append(run.metrics["cagr"])
    assert growths[1] == pytest.approx(0.5 * growths[0], rel=0.05)
    assert grid[0] < found.half_growth < grid[-1]
    assert found.table.loc[grid[0], "growth"] == growths[0]


def test_the_first_crossing_is_found_to_one_per_cent_and_none_is_unknown():
    def falling(capital: float) -> dict[str, float]:
        return {"growth": 1.0 - math.log10(capital) / 8.0}

    grid = [1.0, 10.0, 1e3, 1e5, 1e6]
    assert find_half("growth", grid, falling) == pytest.approx(1e4, rel=1e-2)
    assert math.isnan(find_half("growth", grid[:3], falling))
    assert math.isnan(find_half("growth", grid, lambda _: {"growth": -0.1}))


def test_participation_alone_holds_a_large_account_back():
    found = bt.capacity(
        RISING, Constant(2.0), venue=costly(0.0, 0.01), capitals=[1e3, 1e7], **TERMS
    )
    small, large = found.table["mean_leverage"]
    assert small == pytest.approx(2.0, rel=0.05)
    assert large < 0.5 * small


@pytest.mark.parametrize(("change", "message"), [
    ({"venue": free_venue()}, "costs or limits that depend on size"),
    ({"capitals": [1e4, 1e3]}, "two or more increasing numbers"),
    ({"capitals": "1e4"}, "capitals must be two or more"),
])  # fmt: skip
def test_a_wrong_argument_is_one_clear_error(change, message):
    with pytest.raises(bt.ParameterError, match=message):
        bt.capacity(RISING, Constant(2.0), **{"venue": costly(), **TERMS, **change})


def test_a_ruined_account_has_no_half_of_its_sharpe_ratio():
    """Its ratio is that of the time before; a line said that it is not halved at any capital."""
    grid = [1e3, 1e4, 1e5]
    assert math.isnan(find_half("sharpe", grid, lambda _: {"sharpe": 2.0, "ruined": 1.0}))

    def dying(capital):
        return {"sharpe": 2.0, "ruined": float(capital > 3e4)}

    assert find_half("sharpe", grid, dying) == pytest.approx(3e4, rel=1e-2)
    market = bt.Market.sample(bars=200, seed=1)
    venue = bt.Venue.simple(
        taker=0.05, slippage=0.0, maintenance_rate=0.005, max_leverage=100.0, liquidation_fee=0.0
    ).override({"slippage.impact": 1.0})
    given = {"capitals": [1e3, 1e4], "account": bt.Account(), "compile": False}
    found = bt.capacity(market, Constant(leverage=50.0), venue=venue, **given)
    assert found.table["ruined"].tolist() == [1.0, 1.0]
