"""Costs over time: series and columns by hand, the spread, sweeps, and what is refused."""

import math

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.strategies import Constant
from tests.agreement import FLAT, assert_agrees, near, play, scene, tape
from tests.draws import HOUR, START, utc
from tests.kit import check_refused

RISING = utc([START, START + 2 * HOUR])


def series(*values: float) -> pd.Series:
    """Return costs of the first two hours, and of the rest."""
    return pd.Series(values, index=RISING[: len(values)])


def with_column(values: list[float]) -> dict[str, object]:
    """Return the tapes of one instrument that has a column, and trades 1 and 2 turns."""
    own = tape([FLAT] * len(values), (1.0, 2.0, 1.0))
    own.bars["cost"] = values
    return {"TEST": own}


def test_a_series_holds_from_its_stamp_on():
    """1000 bought at 0.1 % in bar 1, then 1x more at 0.2 % in bar 2: the fee of that open."""
    fees = {"fees": {"taker": series(1e-3, 2e-3)}}
    out = play(*[FLAT] * 4, targets=(1.0, 2.0, math.nan), venue=fees)
    assert near(out.fees[1], 1.0)
    assert near(out.fees[2], 0.002 * (2 * 999 - 1000))


def test_a_column_is_known_at_the_close_before_and_goes_on_where_it_is_missing():
    """Bar 1 pays the 10 bp of bar 0, bar 2 the 20 bp of bar 1, bar 3 them again."""
    out = assert_agrees(
        scene(
            with_column([1e-3, 2e-3, math.nan, 9e-3]),
            {"TEST": 1.0},
            venues={"*": {"fees": {"taker": "cost"}}},
        ),
        "by hand",
    )
    assert near(out.fees[1], 1.0)
    assert near(out.fees[2], 0.002 * (2 * 999 - 1000))
    equity = 999 - 0.002 * 998
    assert near(out.fees[3], 0.002 * (1998 - equity))


def test_a_fill_pays_half_the_spread_and_the_slippage():
    """10 bought at 100 (1 + 0.1 % + 0.4 % / 2): 3 of slippage."""
    out = play(FLAT, FLAT, targets=(1.0,), venue={"slippage": {"rate": 1e-3, "spread": 4e-3}})
    assert near(out.slippage[1], 3.0)


def test_a_liquidation_pays_the_fee_of_its_day():
    """10x at 100; 5 % maintenance: closed at 94.74 in bar 2, which pays 1 %, not 0.1 %."""
    venue = {"liquidation": {"fee": series(1e-3, 1e-2)}}
    out = play(FLAT, FLAT, (100, 100, 90, 90), targets=(10.0,), venue=venue)
    price = 90 / 0.95
    assert near(out.liquidation_loss[2], 0.01 * 100 * price)


def make_market() -> bt.Market:
    """Return a market of 300 hours with columns of costs."""
    market = bt.Market.sample(bars=300)
    wide = 1e-4 * (1.0 + np.arange(300) % 7)
    return market.with_columns(wide=wide, late=np.where(np.arange(300) < 3, np.nan, wide),
                               dear=np.where(np.arange(300) == 50, 1.5, wide))  # fmt: skip


def make_venue(**changes: object) -> bt.Venue:
    """Return a venue with some costs changed, by dotted names with two underscores."""
    own = bt.Venue.preset("binance-usdm", "BTCUSDT@2023-01-01")
    return own.override({name.replace("__", "."): value for name, value in changes.items()})


@pytest.mark.slow
def test_a_constant_spread_is_slippage_of_half_its_size():
    """Bit for bit, also in lanes whose slippage varies."""
    market, account = make_market(), bt.Account(band=0.01)
    terms = {"account": account, "compile": False}
    spread = make_venue(slippage__spread=5e-4, slippage__rate=1e-4)
    plain = make_venue(slippage__rate=1e-4 + 0.5 * 5e-4)
    one, other = (bt.run(market, Constant(leverage=2.0), venue=v, **terms) for v in (spread, plain))
    pd.testing.assert_frame_equal(one.bars, other.bars, check_exact=True)
    sets = {"venue.slippage.rate": np.linspace(0.0, 1e-3, 5)}
    table = bt.sweep(market, Constant(leverage=2.0), sets, venue=spread, account=account).table
    for row, rate in enumerate(sets["venue.slippage.rate"]):
        venue = spread.override({"slippage.rate": rate})
        run = bt.run(market, Constant(leverage=2.0), venue=venue, **terms)
        assert table["final_equity"][row] == run.metrics["final_equity"]


@pytest.mark.parametrize("is_panel", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_rows_of_a_sweep_equal_runs(is_panel):
    """Also where the sets are many enough for lanes."""
    market = make_market()
    venue = make_venue(fees__taker="wide", slippage__spread="wide", liquidation__fee=5e-3)
    given = bt.Markets({"A": market, "B": market}) if is_panel else market
    terms = {"venue": venue, "account": bt.Account(), "compile": False}
    levels = [0.5, 1.0, 2.0, 3.0, 5.0]
    table = bt.sweep(given, Constant(), {"leverage": levels}, **terms).table
    for row, level in enumerate(levels):
        run = bt.run(given, Constant(leverage=level), **terms)
        assert table["final_equity"][row] == run.metrics["final_equity"]
        assert table["fees"][row] == run.metrics["fees"]


def run_with(**changes: object) -> bt.Result:
    """Run a position of 1x with some costs."""
    venue = make_venue(**changes)
    return bt.run(make_market(), Constant(), venue=venue, account=bt.Account(), compile=False)


def sweep_over(cost: object) -> bt.Sweep:
    """Vary the taker fee over a number and something else."""
    terms = {"venue": make_venue(), "account": bt.Account()}
    return bt.sweep(make_market(), Constant(), {"venue.fees.taker": [5e-4, cost]}, **terms)


LATE = pd.Series([5e-4], index=pd.DatetimeIndex(["2024-01-01"], tz="UTC"))


@pytest.mark.parametrize(("make", "words"), [
    (lambda: run_with(fees__taker="wid"), "did you mean 'wide'"),
    (lambda: run_with(slippage__spread="late"), "got late nan"),
    (lambda: run_with(fees__taker=LATE), "must begin by the first bar"),
    (lambda: sweep_over("wide"), "got 'wide'"),
    (lambda: bt.stress(run_with(slippage__rate="wide"), [bt.Scenario("dry", spread=3.0)]),
     "got the column 'wide'"),
])  # fmt: skip
def test_costs_that_cannot_be_are_refused(make, words):
    check_refused(make, words)
