"""Limit orders by hand: each test has its arithmetic, and the oracle and the engine play it."""

import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.strategies import Constant, VolTarget
from tests.agreement import FLAT, assert_agrees, bracket, flat, near, play, scene, tape
from tests.kit import check_refused

NAN = math.nan
COARSE = {"contract": {"tick": 0.5}}
SAFE = {"*": {"brackets": [bracket(0.02)]}}  # 20x is not liquidated at once


def rest(*bars, targets, offset=0.01, venue=None, **account):
    """Play limit orders of one instrument with ticks of 0.5."""
    terms = {"fill": "limit", "offset": offset, **account}
    return play(*bars, targets=targets, venue=COARSE | (venue or {}), **terms)


@pytest.mark.parametrize(("low", "is_filled"), [(99.0, False), (98.6, False), (98.5, True)])
def test_an_order_fills_only_if_the_bar_trades_a_tick_through_it(low, is_filled):
    """The limit is 99: a touch is not enough, nor is half a tick."""
    out = rest(FLAT, (100, 101, low, 100), targets=(1.0,))
    assert near(out.quantity[1], Fraction(1000, 99) if is_filled else 0)
    assert near(out.equity[1], 1000 + (Fraction(1000, 99) if is_filled else 0))


def test_a_sale_fills_above_the_close():
    """Short 1x: the limit is 101, 101.5 fills it: 1000 / 101 sold at 101 and worth 100 each."""
    out = rest(FLAT, (100, 101.5, 100, 100), targets=(1.0,), signals=-1.0)
    assert near(out.equity[1], 1000 + Fraction(1000, 101))


def test_a_gap_fills_at_the_limit_and_at_the_maker_fee():
    """Open 95, under the limit of 99: 1000 / 99 at 99, never better; 2 bp of 1000."""
    fees = {"fees": {"taker": 1e-3, "maker": 2e-4}}
    out = rest(FLAT, flat(95), targets=(1.0,), venue=fees)
    assert near(out.fees[1], 0.2)
    assert near(out.equity[1], 1000 - Fraction(1000, 99) * 4 - Fraction(2, 10))


def test_margin_is_reserved_for_all_resting_orders_together():
    """12x and 18x need 1.5 equities: both rest with 2/3, and A fills alone with 80."""
    tapes = {"A": tape([FLAT, (100, 100, 99, 99)], (12.0,)), "B": tape([flat(1)] * 2, (18.0,))}
    case = scene(tapes, {"A": 1.0, "B": 1.0}, venues=SAFE, fill="limit", offset=0.0)
    out = assert_agrees(case, "by hand")
    assert near(out.quantity[1][0], 80)
    assert near(out.quantity[1][1], 0)


def test_margin_leaves_room_for_what_a_gap_costs_at_once():
    """10x at a limit of 100, the open at 96: N/10 + N 4 % = 1000."""
    venue = {"brackets": [bracket(leverage=10.0)]}
    out = rest(FLAT, flat(96), targets=(10.0,), offset=0.0, venue=venue)
    assert near(out.quantity[1], Fraction(1000) / Fraction(14, 100) / 100)


TWO = (FLAT, (100, 100, 99, 100))
"""An order at 100 fills in the second bar."""


def test_reductions_go_to_market():
    """From 2x to 1x, decided at 100: 10 sold at the next open, 102, as taker."""
    fees = {"fees": {"taker": 1e-3, "maker": 0.0}}
    out = rest(*TWO, flat(102), targets=(2.0, 1.0, NAN), offset=0.0, venue=fees)
    assert near(out.quantity[2], 10)
    assert near(out.equity[2], 1040 - Fraction(102, 100))


def test_reductions_may_rest_too():
    """2x bought at 99; to 1x at a limit of 101: E / 101 are left."""
    out = rest(
        FLAT, (100, 100, 98, 100), (100, 102, 100, 100), targets=(2.0, 1.0, NAN), closing="limit"
    )
    held, equity = Fraction(2000, 99), 1000 + Fraction(2000, 99)
    left = equity / 101
    assert near(out.quantity[2], left)
    assert near(out.equity[2], equity + (held - left))


def test_a_flip_closes_at_market_and_opens_at_its_limit():
    """Long 10 at 100; short 1x decided at 100: sold at the open of 103, 1000 / 101 short at 101."""
    out = rest(*TWO, (103, 103, 100, 100), targets=(1.0,), signals=(1.0, -1.0, -1.0), offset=0.0)
    assert near(out.quantity[2], -10)
    assert near(out.equity[2], 1000 + 10 * 3 + 0)


def test_a_stop_acts_on_what_the_same_bar_has_filled():
    """Bought at 99 on the way down to 95, with a stop of 2 %: out at 97.02."""
    out = rest(FLAT, (100, 100, 95, 96), targets=(1.0,), stop_loss=0.02)
    assert [each.kind for each in out.events if each.bar == 1][:3] == [
        "limit_order",
        "fill",
        "stop",
    ]
    assert near(out.equity[1], 980)


def test_a_stop_cancels_the_order_of_its_instrument():
    """Long 1x from 100 with a stop at 97; an order at 96 does not fill in the fall to 90."""
    bars = (FLAT, (100, 100, 90, 90), (100, 100, 90, 90))
    out = rest(*bars, targets=(1.0, 2.0, NAN), offset=0.04, stop_loss=0.03)
    # bar 1: 1000/96 at 96, stopped at 93.12; bar 2 is decided at 90
    assert near(out.quantity[1], 0)
    assert near(out.equity[1], 970)


def test_a_liquidation_of_the_same_bar():
    """10x at 99: 1000 - 10000 + q P = 5 % of q P with q = 10000 / 99; nothing else is taken."""
    out = rest(FLAT, (100, 100, 90, 90), targets=(10.0,))
    assert near(out.equity[1], 9000 * (1 / Fraction(95, 100) - 1))


def test_a_liquidation_of_the_pool_cancels_what_rests():
    """A falls 20 % and is liquidated on the way; B would reach its limit of 0.9 later."""
    tapes = {
        "A": tape([FLAT, (100, 100, 80, 80)], (10.0,)),
        "B": tape([flat(1), (1, 1, 0.8, 0.8)], (1.0,)),
    }
    offsets = {"A": 0.0, "B": 0.1}
    case = scene(tapes, {"A": 1.0, "B": 1.0}, fill="limit", offset=offsets)
    out = assert_agrees(case, "by hand")
    assert [each.instrument for each in out.of_kind("liquidation")] == ["A"]
    assert near(out.quantity[1][1], 0)


def test_an_order_lives_for_one_bar():
    """Decided once at 100: the bar after the next trades through 99, too late."""
    out = rest(FLAT, FLAT, (100, 100, 95, 100), targets=(1.0, NAN))
    assert near(out.equity[2], 1000)


MARKET = bt.Market.sample(bars=600)
VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT@2023-01-01")
LIMIT = bt.Account(band=0.05, fill="limit", offset=0.002)


def test_the_result_tells_what_filled_and_where_the_price_went():
    """Filled orders have a fill at their price; moves are from close to close."""
    result = bt.run(MARKET, VolTarget(), venue=VENUE, account=LIMIT, compile=False)
    orders = result.limit_orders
    events = result.events[result.events["kind"] == "fill"]
    filled = orders[orders["is_filled"]]
    assert 0 < len(filled) < len(orders)
    assert filled["time"].isin(events["time"]).all()
    assert not orders[~orders["is_filled"]]["time"].isin(events["time"]).any()
    low = pd.Series(MARKET.low, index=pd.to_datetime(MARKET.time, utc=True))
    buys = orders[orders["side"] == "buy"]
    assert ((low[buys["time"]].to_numpy() <= buys["price"] - 0.1 + 1e-6) == buys["is_filled"]).all()
    row = filled.iloc[0]
    t = int(np.searchsorted(MARKET.time, row["time"].as_unit("ns").value))
    move = MARKET.mark_close[t + 1] / MARKET.mark_close[t] - 1.0
    assert row["next_move"] == pytest.approx(-move if row["side"] == "buy" else move, abs=1e-15)
    unfilled = result.target_cuts().loc["unfilled", "decisions"]
    assert unfilled == len(orders) - len(filled)
    trades = result.trades
    gain = result.metrics["final_equity"] - 10_000
    assert trades["profit"].sum() + trades.unallocated.sum() == pytest.approx(gain, abs=1e-8)


def run_with(venue=VENUE, **account):
    markets = bt.Markets({"A": MARKET, "B": MARKET})
    return bt.run(markets, Constant(), venue=venue, account=bt.Account(fill="limit", **account))


@pytest.mark.parametrize(
    ("make", "words"),
    [
    (lambda: run_with(offset={"A": 0.001}), "got none for B"),
    (lambda: run_with(VENUE.override({"fees.maker_share": 0.5}), offset=0.0), "got 0.5"),
],
)  # fmt: skip
def test_limit_orders_that_cannot_be_are_refused(make, words):
    check_refused(make, words)


def test_a_live_decision_gives_the_order_that_the_next_bar_places():
    """Contracts and limit of the order, filled or not."""
    terms = {"venue": VENUE, "account": LIMIT}
    whole = bt.run(MARKET, VolTarget(), compile=False, **terms)
    row = whole.limit_orders.iloc[3]
    t = int(np.searchsorted(MARKET.time, row["time"].as_unit("ns").value))
    known = MARKET.between(None, row["time"])
    before = bt.run(known, VolTarget(), compile=False, **terms)
    at = float(MARKET.open[t])
    found = bt.decide(VolTarget(), known, state=before, at=at, mark=at, **terms)
    (name,) = found.order
    assert abs(found.order[name]) == pytest.approx(row["quantity"])
    assert found.fill_price[name] == pytest.approx(row["price"])
