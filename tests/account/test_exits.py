"""Take-profit, trailing, equity and time stops, and stops in multiples of a column, by hand."""

import math

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.account.position import place_stop
from tests import scenes
from tests.account.test_fills import make_market as make_days
from tests.account.test_fills import run
from tests.agreement import FLAT, check_outcome, later
from tests.draws import HOUR, START, utc
from tests.kit import Hold, Once, flat, make_market, make_venue
from tests.scenes import Follow, Hand, by_hand, happened, market_of, venue_of

NAN = math.nan


DOWN = (100, 100, 90, 90)
BEST = (FLAT, (100, 130, 95, 125))
FLIPPED = (FLAT, (100, 120, 100, 120), (120, 131, 119, 125), (125, 133, 125, 130))
LATE = (FLAT, (100, 130, 100, 100), (100, 104, 92, 100), (100, 101, 90, 95))
FALLING = (FLAT, FLAT, (100, 100, 85, 95), (95, 95, 95, 95), (95, 95, 80, 90))
COSTLY = {"fees": {"taker": 0.001}, "slippage": {"rate": 0.01}}
HAND: Hand = {
    # 20 contracts at 101, which is 100 and 1 %; 101 x (1 + 0.1 / 1.01) = 111, less 1 % 109.89
    "a take-profit fills at its price worsened and pays the taker fee": (
        later(FLAT, FLAT, (100, 115, 100, 112), targets=(2.0, NAN), venue=COSTLY,
              take_profit=0.1 / 1.01),
        {"take_profit.bar": [2], "take_profit.price": [109.89], "slippage 2": 20 * 1.11,
         "fees 2": 0.001 * 20 * 109.89}),
    # sold at 120, better than 110; the decision of that open is dropped
    "a take-profit that the open has passed fills at the open": (
        later(FLAT, FLAT, (120, 120, 90, 90), targets=(2.0,), take_profit=0.1),
        {"take_profit.bar": [2], "take_profit.price": [120], "equity 2": 1400, "quantity 2": 0}),
    "a short takes its profit below": (
        later(FLAT, FLAT, (100, 100, 85, 95), targets=(2.0, NAN), signals=-1.0, take_profit=0.1),
        {"take_profit.bar": [2], "take_profit.price": [90], "equity 2": 1200}),
    # from 94 to 112: the stop at 95 counts, not the profit at 110
    "losses come first where a bar reaches both sides": (
        later(FLAT, FLAT, (100, 112, 94, 100), targets=(2.0, NAN), take_profit=0.1, stop_loss=0.05),
        {"stop.bar": [2], "stop.price": [95], "take_profit.n": 0}),
    # 10x dies at 90 / 0.95 = 94.74 in a bar that also reaches 110
    "a liquidation comes before a profit": (
        later(FLAT, FLAT, (100, 112, 90, 100), targets=(10.0, NAN), take_profit=0.1),
        {"take_profit.n": 0, "liquidation.n": 1}),
    # bought at 100; bar 1 reaches 130: the stop of bar 2 is 117, though bar 2 reaches 140. Its own
    # high raises the stop to 126 for bar 3, which opens at 120, already through it
    "a trailing stop follows completed bars only": (
        later(*BEST, (125, 140, 118, 120), (120, 121, 119, 120), targets=(1.0, NAN),
              trailing_stop=0.1),
        {"trailing_stop.bar": [3], "trailing_stop.price": [120]}),
    "a trailing stop is reached inside the bar": (
        later(*BEST, (125, 140, 116, 120), (120, 121, 119, 120), targets=(1.0, NAN),
              trailing_stop=0.1),
        {"trailing_stop.bar": [2], "trailing_stop.price": [117]}),
    # long from 100 to 120, flipped at 120: the best low of completed bars is 119, the stop 130.9
    "the trailing stop of a flipped position starts at its entry": (
        later(*FLIPPED, targets=(1.0, 1.0, NAN), signals=[1.0, -1.0, -1.0, -1.0],
              trailing_stop=0.1),
        {"trailing_stop.bar": [3], "trailing_stop.price": [130.9]}),
    # bought at the close of bar 1, at 100: its high of 130 came before. 104 x 0.9
    "a late fill does not count the bar before it": (
        later(*LATE, targets=(1.0, NAN), trailing_stop=0.1, fill="next_close"),
        {"trailing_stop.bar": [3], "trailing_stop.price": [93.6]}),
    # 1000 at 2x: -1000 + 20 u = 800 at u = 90. Then 800 at 2x from 95: 640 at 85.5
    "an equity stop closes at the price of its equity and starts anew": (
        later(*FALLING, targets=(2.0,), equity_stop=0.2),
        {"equity_stop.bar": [2, 4], "equity_stop.price": [90, 85.5], "equity 2": 800,
         "equity 4": 640}),
    # 10 contracts at 100, and 300 withdrawn: the highest is 700, the level 560, at u = 86
    "a withdrawal takes its share of the highest equity": (
        later(FLAT, FLAT, FLAT, (100, 100, 80, 90), targets=(1.0, NAN), equity_stop=0.2,
              flows=pd.Series([-300.0], index=utc([START + 2 * HOUR]))),
        {"equity_stop.bar": [3], "equity_stop.price": [86], "equity 3": 560}),
    # at 10x the liquidation is at 94.74; an equity stop of 40 % at 96 comes before it
    "an equity stop that is nearer comes before the liquidation": (
        later(FLAT, FLAT, DOWN, targets=(10.0, NAN), equity_stop=0.4),
        {"equity_stop.bar": [2], "equity_stop.price": [96]}),
    "a liquidation that is nearer comes before the equity stop": (
        later(FLAT, FLAT, DOWN, targets=(10.0, NAN), equity_stop=0.6),
        {"equity_stop.n": 0, "liquidation.n": 1}),
}  # fmt: skip


@by_hand(HAND)
def test_exits_of_one_instrument(run, numbers):
    check_outcome(run(), numbers)


@pytest.mark.parametrize(
    "stop", [bt.Multiple(2.0, "width"), bt.Multiple(2.0, "part", unit="fraction")]
)
def test_a_multiple_is_taken_from_the_previous_close(stop):
    """Every stop of a run of 1x lies at entry less twice the column of the bar before."""
    rng = np.random.default_rng(1)
    width, part = rng.uniform(0.5, 2.0, 300), rng.uniform(0.005, 0.02, 300)
    width[50:60], part[50:60] = NAN, NAN
    market = make_days(width=width, part=part)
    found = run(1.0, market, account=bt.Account(stop_loss=stop))
    bars, events = found.bars, found.events
    stopped = events[events["kind"] == "stop"]
    assert len(stopped) > 4
    is_price = stop.unit == "price"
    column = width if is_price else part
    entry = np.nan
    checked = 0
    for row in events[events["kind"].isin(["fill", "stop"])].to_dict("records"):
        t = bars.index.get_loc(row["time"])
        if row["kind"] == "stop":
            assert not 51 <= t <= 60
            distance = 2.0 * column[t - 1] * (1.0 if is_price else entry)
            expected = min(entry - distance, market.open[t])
            assert row["price"] == pytest.approx(expected, rel=1e-9)
            checked += 1
        entry = bars["entry"].iloc[t]
        if row["kind"] == "fill" and np.isnan(entry):
            entry = row["price"]
    assert checked == len(stopped)


def test_the_last_bar_has_the_multiple_of_the_close_before_it():
    flat = make_days(4).bars() * 0.0 + 100.0
    flat["atr"] = [1.0, 1.0, 4.0, 9.0]
    flat.iloc[-1, flat.columns.get_indexer(["low", "close"])] = 90.0
    account = bt.Account(stop_loss=bt.Multiple(2.0, "atr"))
    found = run(1.0, bt.Market.from_frames(flat), account=account)
    (price,) = found.events.loc[found.events["kind"] == "stop", "price"]
    assert price == pytest.approx(100.0 - 2.0 * 4.0)


def test_a_column_that_is_not_there_is_refused():
    market = make_days(atr=np.full(300, 2.0), below=np.linspace(1.0, -1.0, 300))
    with pytest.raises(bt.ParameterError, match="no column 'art'; did you mean 'atr'"):
        run(1.0, market, account=bt.Account(stop_loss=bt.Multiple(2.0, "art")))
    with pytest.raises(bt.DataError, match=r"account\.trailing_stop must be a distance"):
        run(1.0, market, account=bt.Account(trailing_stop=bt.Multiple(2.0, "below")))


def live(market, *, fee=0.0, signal=None, **terms):
    venue = venue_of(contract={"min_notional": 5.0}, fees={"taker": fee, "maker": fee})
    account = bt.Account(**{"capital": 1000.0, **terms})
    return bt.run(market, Follow(), venue=venue, account=account, signal=signal)


def hours_of(result, kind):
    return [
        int(each) for each in (happened(result, kind)["time"] - scenes.START) // pd.Timedelta("1h")
    ]


def test_a_position_is_closed_at_the_first_open_after_its_time():
    """Opened at the open of bar 1, closed at that of bar 4 after 3 hours, opened again in 5."""
    result = live(market_of(*[100.0] * 10), max_holding="3h", fee=0.001)
    assert hours_of(result, "time_stop") == [4, 8]
    assert hours_of(result, "fill") == [1, 5, 9]
    assert list(result.trades["ended"]) == ["time_stop", "time_stop", "open"]
    assert result.metrics["stops"] == 2.0
    event = result.events[result.events["kind"] == "time_stop"].iloc[0]
    assert (event["price"], event["quantity"]) == (100.0, -10.0)


@pytest.mark.parametrize(("asked", "signal", "stops"), [
    ([1, 1, 2, 2, 2, 2], None, [4]),  # an increase in bar 3 does not restart the time
    ([2, 2, 1, 1, 1, 1], None, [4]),  # nor does a reduction
    ([1, 1, 1, 1, 1, 1, 1], [1, 1, -1, -1, -1, -1, -1], [6]),  # a flip in bar 3 does
    ([1, 0, 1, 1, 1, 1, 1], None, [6]),  # and closing does
])  # fmt: skip
def test_the_time_runs_from_flat_to_flat(asked, signal, stops):
    market = market_of(*[100.0] * len(asked), targets=asked)
    given = None if signal is None else np.array(signal, dtype=float)
    result = live(market, signal=given, max_holding="3h")
    assert hours_of(result, "time_stop") == stops


@pytest.mark.parametrize(("fill", "stops"), [("next_close", [5, 10]), ("same_close", [4, 8])])
def test_the_time_begins_with_the_fill(fill, stops):
    """At the close of bar 1, which is the open of bar 2; or at that of bar 0, the open of bar 1."""
    result = live(market_of(*[100.0] * 11), max_holding="3h", fill=fill)
    assert hours_of(result, "time_stop") == stops


def test_each_instrument_has_its_own_time():
    markets = bt.Markets({"A": market_of(*[100.0] * 6), "B": market_of(*[50.0] * 6)})
    result = live(markets, max_holding={"A": "2h", "B": None})
    events = result.events[result.events["kind"] == "time_stop"]
    assert set(events["instrument"]) == {"A"}


def run_two(a, b, policy=None, venue=None, signal=1.0, **account):
    markets = bt.Markets({"A": make_market(a), "B": make_market(b)}, currency="USDT")
    weights = {"A": 0.5, "B": 0.5 * signal}
    account = bt.Account(capital=1_000.0, **account)
    terms = {"venue": venue or make_venue(), "account": account, "signal": weights}
    return bt.run(markets, policy or Once(1.0), **terms)


def test_a_take_profit_closes_its_own_position_only():
    rising = [flat(100), flat(100), (100, 110, 100, 108)]
    result = run_two(rising, [flat(50)] * 3, take_profit=0.05)
    # A goes at 105: 5 x 5
    assert result.quantities.iloc[-1].tolist() == [0.0, 10.0]
    assert result.bars["equity"].iloc[-1] == pytest.approx(1_025.0)
    (event,) = result.events[result.events["kind"] == "take_profit"].itertuples()
    assert (event.instrument, event.price) == ("A", pytest.approx(105.0))


def test_a_trailing_stop_follows_the_best_price_of_its_own_position():
    there_and_back = [flat(100), flat(100), (100, 120, 100, 120), (120, 120, 100, 100)]
    result = run_two(there_and_back, [flat(50)] * 4, trailing_stop=0.1)
    # 10 % under the 120 of the bar before: 5 x 8
    assert result.quantities.iloc[-1].tolist() == [0.0, 10.0]
    assert result.bars["equity"].iloc[-1] == pytest.approx(1_040.0)


def test_liquidation_slippage_is_against_longs_and_shorts():
    # 25 A long, 50 B short: the open loses 625 + 300, and 75 is under 5 % of 1,875 + 2,800.
    # Closed at 75 x 0.99 and 56 x 1.01: 18.75 + 28 more
    result = run_two(
        [flat(100), flat(100), flat(75)],
        [flat(50), flat(50), flat(56)],
        policy=Once(5.0),
        venue=make_venue(liquidation_slippage=0.01),
        signal=-1.0,
    )
    assert result.bars["liquidation_loss"].iloc[-1] == pytest.approx(46.75)
    assert result.bars["equity"].iloc[-1] == pytest.approx(28.25)


def test_a_forced_reduction_reaches_the_ratio_after_its_fees():
    # 50 A and 100 B, for fees of 10: at 95.5 and 47.75 the ratio is 477.5 / 540, over 0.8
    venue = make_venue(taker=0.001).override(call_grace=0)
    falling = [flat(100), flat(100), (100, 100, 95.5, 95.5), flat(95.5)]
    half = [flat(50), flat(50), (50, 50, 47.75, 47.75), flat(47.75)]
    result = run_two(falling, half, policy=Once(10.0), venue=venue, margin_call=0.8)
    assert result.bars["margin_ratio"].tolist()[2:] == [
        pytest.approx(477.5 / 540), pytest.approx(0.8, rel=1e-9),
    ]  # fmt: skip
    held = result.quantities.iloc[-1]
    assert held["A"] / 50 == pytest.approx(held["B"] / 100, rel=1e-9)


def test_margin_that_the_wallet_adds_drops_no_decision():
    # A posts 100 for 20 contracts; 100 + 20 (P - 100) = 0.2 P at 95.96, where the wallet adds 100.
    # At the close, at 95, the account is worth 900, and A goes to 2 x 900.
    result = run_two(
        [flat(100), flat(100), (100, 100, 95, 95)], [flat(50)] * 3,
        policy={"A": Hold(4.0), "B": Hold(0.0)}, venue=make_venue(maintenance_rate=0.01),
        fill="next_close", margin="isolated", venue_leverage=20.0, auto_margin=True,
    )  # fmt: skip
    assert (result.events["kind"] == "margin_added").sum() == 1
    assert result.quantities["A"].iloc[-1] == pytest.approx(1_800 / 95)


LONG, SHORT = 1.0, -1.0


@pytest.mark.parametrize(("side", "start", "end", "stop", "place", "price"), [
    (LONG, 100.0, 90.0, 95.0, 0.5, 95.0),  # 5 of the 10 down
    (LONG, 100.0, 80.0, 95.0, 0.25, 95.0),
    (SHORT, 100.0, 120.0, 115.0, 0.75, 115.0),
    (LONG, 94.0, 90.0, 95.0, 0.0, 94.0),  # beyond it already: at once, at the price of now
    (SHORT, 116.0, 120.0, 115.0, 0.0, 116.0),
    (LONG, 100.0, 100.0, 95.0, 1.0, 100.0),  # no way to go
])  # fmt: skip
def test_a_stop_acts_where_the_segment_meets_it(side, start, end, stop, place, price):
    assert place_stop(side, start, end, stop) == (place, price)
