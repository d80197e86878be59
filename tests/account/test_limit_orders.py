"""Limit orders by hand: each test has its arithmetic, and the oracle and the engine play it."""

import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.strategies import Constant, VolTarget
from tests.agreement import FLAT, bracket, check_outcome, flat, later, play_legs
from tests.kit import check_refused
from tests.scenes import Hand, by_hand

NAN = math.nan
COARSE = {"contract": {"tick": 0.5}}
SAFE = {"*": {"brackets": [bracket(0.02)]}}  # 20x is not liquidated at once
MARKET = bt.Market.sample(bars=600)
VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT@2023-01-01")
LIMIT = bt.Account(band=0.05, fill="limit", offset=0.002)


def rest(*bars, offset=0.01, venue=None, **terms):
    """Play limit orders of one instrument with ticks of 0.5, when it is called."""
    return later(*bars, venue=COARSE | (venue or {}), fill="limit", offset=offset, **terms)


TWO = (FLAT, (100, 100, 99, 100))
"""An order at 100 fills in the second bar."""
ORDER = Fraction(1000, 99)
"""Contracts of 1x at a limit of 99."""
HAND: Hand = {
    # the limit is 99: a touch is not enough, nor is half a tick
    **{
        f"an order fills only if the bar trades a tick through it, {low}": (
            rest(FLAT, (100, 101, low, 100), targets=(1.0,)),
            {"quantity 1": filled, "equity 1": 1000 + filled})
        for low, filled in ((99.0, 0), (98.6, 0), (98.5, ORDER))
    },
    # the limit is 101, 101.5 fills it: 1000 / 101 sold at 101 and worth 100 each
    "a sale fills above the close": (
        rest(FLAT, (100, 101.5, 100, 100), targets=(1.0,), signals=-1.0),
        {"equity 1": 1000 + Fraction(1000, 101)}),
    # open 95, under the limit of 99: 1000 / 99 at 99, never better; 2 bp of 1000
    "a gap fills at the limit and at the maker fee": (
        rest(FLAT, flat(95), targets=(1.0,), venue={"fees": {"taker": 1e-3, "maker": 2e-4}}),
        {"fees 1": 0.2, "equity 1": 1000 - ORDER * 4 - Fraction(2, 10)}),
    # 12x and 18x need 1.5 equities: both rest with 2/3, and A fills alone with 80
    "margin is reserved for all resting orders together": (
        lambda: play_legs(([FLAT, (100, 100, 99, 99)], (12.0,)), ([flat(1)] * 2, (18.0,)),
                          venues=SAFE, fill="limit", offset=0.0),
        {"quantity 1": [80, 0]}),
    # 10x at a limit of 100, the open at 96: N/10 + N 4 % = 1000
    "margin leaves room for what a gap costs at once": (
        rest(FLAT, flat(96), targets=(10.0,), offset=0.0,
             venue={"brackets": [bracket(leverage=10.0)]}),
        {"quantity 1": Fraction(1000) / Fraction(14, 100) / 100}),
    "a rebate makes no room for a larger order": (
        rest(*TWO, targets=(20.0,), offset=0.0,
             venue={"brackets": [bracket(leverage=10.0)], "fees": {"maker": -1e-3}}),
        {"quantity 1": 100}),
    # from 2x to 1x, decided at 100: 10 sold at the next open, 102, as taker
    "reductions go to market": (
        rest(*TWO, flat(102), targets=(2.0, 1.0, NAN), offset=0.0,
             venue={"fees": {"taker": 1e-3, "maker": 0.0}}),
        {"quantity 2": 10, "equity 2": 1040 - Fraction(102, 100)}),
    # 2x bought at 99; to 1x at a limit of 101: E / 101 are left
    "reductions may rest too": (
        rest(FLAT, (100, 100, 98, 100), (100, 102, 100, 100), targets=(2.0, 1.0, NAN),
             closing="limit"),
        {"quantity 2": (1000 + 2 * ORDER) / 101,
         "equity 2": 1000 + 2 * ORDER + (2 * ORDER - (1000 + 2 * ORDER) / 101)}),
    # long 10 at 100; short 1x decided at 100: sold at the open of 103, 1000 / 101 short at 101
    "a flip closes at market and opens at its limit": (
        rest(*TWO, (103, 103, 100, 100), targets=(1.0,), signals=(1.0, -1.0, -1.0), offset=0.0),
        {"quantity 2": -10, "equity 2": 1000 + 10 * 3 + 0}),
    # bought at 99 on the way down to 95, with a stop of 2 %: out at 97.02
    "a stop acts on what the same bar has filled": (
        rest(FLAT, (100, 100, 95, 96), targets=(1.0,), stop_loss=0.02),
        {"events.kind": ["limit_order", "fill", "stop"], "equity 1": 980}),
    # an order at 96 does not fill again in the fall to 90: 1000 / 96 at 96, stopped at 93.12
    "a stop cancels the order of its instrument": (
        rest(FLAT, (100, 100, 90, 90), (100, 100, 90, 90), targets=(1.0, 2.0, NAN), offset=0.04,
             stop_loss=0.03),
        {"quantity 1": 0, "equity 1": 970}),
    # 10x at 99: 1000 - 10000 + q P = 5 % of q P with q = 10000 / 99; nothing else is taken
    "a liquidation of the same bar": (
        rest(FLAT, (100, 100, 90, 90), targets=(10.0,)),
        {"equity 1": 9000 * (1 / Fraction(95, 100) - 1)}),
    # A falls 20 % and is liquidated on the way; B would reach its limit of 0.9 later
    "a liquidation of the pool cancels what rests": (
        lambda: play_legs(([FLAT, (100, 100, 80, 80)], (10.0,)),
                          ([flat(1), (1, 1, 0.8, 0.8)], (1.0,)), fill="limit", offset=(0.0, 0.1)),
        {"liquidation.instrument": ["A"], "quantity 1 1": 0}),
    # decided once at 100: the bar after the next trades through 99, too late
    "an order lives for one bar": (
        rest(FLAT, FLAT, (100, 100, 95, 100), targets=(1.0, NAN)), {"equity 2": 1000}),
}  # fmt: skip


@by_hand(HAND)
def test_limit_orders_by_hand(run, numbers):
    check_outcome(run(), numbers)


def test_the_result_tells_what_filled_and_where_the_price_went():
    """Filled orders have a fill at their price; moves are from close to close."""
    result = bt.run(MARKET, VolTarget(), venue=VENUE, account=LIMIT, compile=False)
    orders = result.limit_orders
    filled = orders[orders["is_filled"]]
    unfilled = orders[~orders["is_filled"]]
    assert 0 < len(filled) < len(orders)

    fills = result.events[result.events["kind"] == "fill"]
    assert filled["time"].isin(fills["time"]).all()
    assert not unfilled["time"].isin(fills["time"]).any()
    assert result.target_cuts().loc["unfilled", "decisions"] == len(unfilled)

    # An order to buy fills where the bar trades a tick of 0.1 below its limit.
    low = pd.Series(MARKET.low, index=pd.to_datetime(MARKET.time, utc=True))
    buys = orders[orders["side"] == "buy"]
    is_through = low[buys["time"]].to_numpy() <= buys["price"] - 0.1 + 1e-6
    assert (is_through == buys["is_filled"]).all()

    # The move after a fill counts against the trader.
    row = filled.iloc[0]
    t = int(np.searchsorted(MARKET.time, row["time"].as_unit("ns").value))
    move = MARKET.mark_close[t + 1] / MARKET.mark_close[t] - 1.0
    against = -move if row["side"] == "buy" else move
    assert row["next_move"] == pytest.approx(against, abs=1e-15)

    trades = result.trades
    gain = result.metrics["final_equity"] - 10_000
    assert trades["profit"].sum() + trades.unallocated.sum() == pytest.approx(gain, abs=1e-8)


def run_with(venue=VENUE, **account):
    markets = bt.Markets({"A": MARKET, "B": MARKET})
    return bt.run(markets, Constant(), venue=venue, account=bt.Account(fill="limit", **account))


def test_limit_orders_that_cannot_be_are_refused():
    check_refused(lambda: run_with(offset={"A": 0.001}), "got none for B")

    shared = VENUE.override({"fees.maker_share": 0.5})
    check_refused(lambda: run_with(shared, offset=0.0), "got 0.5")


def test_a_live_decision_gives_the_order_that_the_next_bar_places():
    """Contracts and limit of the order, filled or not."""
    terms = {"venue": VENUE, "account": LIMIT}
    result = bt.run(MARKET, VolTarget(), compile=False, **terms)
    row = result.limit_orders.iloc[3]

    # What is known at the close before, and the price at which the next bar opens.
    known = MARKET.between(None, row["time"])
    before = bt.run(known, VolTarget(), compile=False, **terms)
    t = int(np.searchsorted(MARKET.time, row["time"].as_unit("ns").value))
    price = float(MARKET.open[t])
    test = bt.Backtest(known, **terms)
    decision = test.decide(VolTarget(), state=before, at=price, mark=price)

    (name,) = decision.order
    assert abs(decision.order[name]) == pytest.approx(row["quantity"])
    assert decision.fill_price[name] == pytest.approx(row["price"])


def test_a_liquidation_after_a_fill_leaves_what_limits_took_of_the_order():
    """The pool of two is closed in the bar in which its orders fill: its target is still 7.5x each.

    10,000 buy 75,000 of each at the limit of 99, all that was asked, though 80 then liquidates
    both. The orders of the next bar, at 79.2, rest: 7.5x is unfilled.
    """
    hours = pd.date_range("2024-01-01", periods=3, freq="h", tz="UTC")
    bars = {
        "open": [100.0, 100.0, 80.0],
        "high": [100.0, 100.0, 80.0],
        "low": [100.0, 80.0, 80.0],
        "close": [100.0, 80.0, 80.0],
    }
    frame = pd.DataFrame(bars, index=hours).assign(volume=1e6)
    market = bt.Market.from_frames(frame, mark=frame.drop(columns="volume"))
    markets = bt.Markets({"a": market, "b": market}, currency="USDT")

    venue = bt.Venue.simple(
        taker=0.0, slippage=0.0, maintenance_rate=0.02, max_leverage=25, liquidation_fee=0.0
    )
    account = bt.Account(margin="cross", fill="limit", offset=0.01)

    result = bt.run(markets, Constant(leverage=15.0), venue=venue, account=account, compile=False)
    assert (result.events["kind"] == "liquidation").sum() == 2

    for name in ("a", "b"):
        cuts = result.target_cuts().loc[name]
        assert cuts.index.tolist() == ["all", "unfilled"]
        assert cuts.loc["all", ["decisions", "mean_held"]].tolist() == pytest.approx([2, 7.5 / 2])
        unfilled = cuts.loc["unfilled", ["decisions", "mean_shortfall"]]
        assert unfilled.tolist() == pytest.approx([1, 7.5])


def test_the_report_of_cuts_tests_an_isolated_order_by_what_it_costs_at_its_limit():
    """10x of 1,000 at a limit of 100 that the open has passed, 96; a fee of 1 %, a setting of 10.

    An isolated order posts its margin at the limit, so the gap of 4 % is no cost of it:
    N / 10 + N / 100 = 1,000 leaves 10,000 / 1.1 of 10,000 asked. Its margin cut all of that, and
    the wallet no more. A cross order loses the gap from its backing: N / 10 + N 5 % = 1,000.
    """
    hours = pd.date_range("2024-01-01", periods=2, freq="h", tz="UTC")
    price = [100.0, 96.0]
    bars = {"open": price, "high": price, "low": price, "close": price}
    frame = pd.DataFrame(bars, index=hours).assign(volume=1e6)
    market = bt.Market.from_frames(frame, mark=frame.drop(columns="volume"))
    venue = bt.Venue.simple(
        taker=0.01, slippage=0.0, maintenance_rate=0.02, max_leverage=10, liquidation_fee=0.0
    )
    account = bt.Account(capital=1_000.0, fill="limit", offset=0.0, venue_leverage=10.0)

    for mode, notional in (("isolated", 10_000 / 1.1), ("cross", 1_000 / 0.15)):
        terms = account.override({"margin": mode})
        result = bt.run(market, Constant(leverage=10.0), venue=venue, account=terms, compile=False)
        assert result.bars["position"].tolist() == pytest.approx([0, notional / 100])

        cuts = result.target_cuts()
        assert cuts.index.tolist() == ["all", "venue_leverage"]
        cut = 10.0 - notional / 1_000
        assert cuts["mean_shortfall"].tolist() == pytest.approx([cut, cut])
        assert cuts["mean_held"].tolist() == pytest.approx([notional / 1_000] * 2)
