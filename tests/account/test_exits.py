"""Take-profit, trailing, equity and time stops, and stops in multiples of a column, by hand."""

import math

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.account.position import place_stop
from tests import kit, scenes
from tests.account.test_fills import make_market as make_days
from tests.account.test_fills import run
from tests.agreement import FLAT, bracket, check_outcome, later, play_legs
from tests.draws import HOUR, START, utc
from tests.kit import flat
from tests.scenes import Follow, Hand, by_hand, happened, market_of, venue_of

NAN = math.nan
DOWN = (100, 100, 90, 90)
BEST = (FLAT, (100, 130, 95, 125))
FLIPPED = (FLAT, (100, 120, 100, 120), (120, 131, 119, 125), (125, 133, 125, 130))
LATE = (FLAT, (100, 130, 100, 100), (100, 104, 92, 100), (100, 101, 90, 95))
FALLING = (FLAT, FLAT, (100, 100, 85, 95), (95, 95, 95, 95), (95, 95, 80, 90))
COSTLY = {"fees": {"taker": 0.001}, "slippage": {"rate": 0.01}}
HELD = [100.0, 100.0, 100.0, (100, 100, 99, 100), (100, 100, 96, 97), 97.0, *[96.0] * 3]
LONG = 1.0
SHORT = -1.0


def beside(*bars, other=None, targets=(0.5, NAN), **terms):
    """Play A, and B that stands still at 50 or has bars of its own, when it is called."""
    first = (bars, targets)
    second = (other or [flat(50)] * len(bars), targets)
    return lambda: play_legs(first, second, **terms)


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
    # A goes at 105: 5 x 5
    "a take-profit closes its own position only": (
        beside(FLAT, FLAT, (100, 110, 100, 108), take_profit=0.05),
        {"quantity 2": [0, 10], "equity 2": 1025, "take_profit.instrument": ["A"],
         "take_profit.price": [105]}),
    # 10 % under the 120 of the bar before: 5 x 8
    "a trailing stop follows the best price of its own position": (
        beside(FLAT, FLAT, (100, 120, 100, 120), (120, 120, 100, 100), trailing_stop=0.1),
        {"quantity 3": [0, 10], "equity 3": 1040}),
    # 25 A long, 50 B short: the open loses 625 + 300, and 75 is under 5 % of 1,875 + 2,800. Closed
    # at 75 x 0.99 and 56 x 1.01: 18.75 + 28 more
    "liquidation slippage is against longs and shorts": (
        beside(FLAT, FLAT, flat(75), other=(flat(50), flat(50), flat(56)), targets=(2.5, NAN),
               signal=(1.0, -1.0), venues={"*": {"liquidation": {"slippage": 0.01}}}),
        {"liquidation_loss 2": 46.75, "equity 2": 28.25}),
    # A posts 100 for 20 contracts; 100 + 20 (P - 100) = 0.2 P at 95.96, where the wallet adds 100.
    # At the close, at 95, the account is worth 900, and A goes to 2 x 900
    "margin that the wallet adds drops no decision": (
        lambda: play_legs(([FLAT, FLAT, (100, 100, 95, 95)], (2.0,)), ([flat(50)] * 3, (0.0,)),
                          venues={"*": {"brackets": [bracket(0.01)]}}, fill="next_close",
                          margin="isolated", venue_leverage=20.0, auto_margin=True),
        {"margin_added.n": 1, "quantity 2 0": 1800 / 95}),
}  # fmt: skip


@by_hand(HAND)
def test_exits_of_one_instrument(run, numbers):
    check_outcome(run(), numbers)


def test_a_forced_reduction_reaches_the_ratio_after_its_fees():
    """50 A and 100 B, for fees of 10: at 95.5 and 47.75 the ratio is 477.5 / 540, over 0.8. To sell
    a part x costs 9.55 x: 477.5 (1 - x) = 0.8 (540 - 9.55 x)."""
    out = beside(
        FLAT, FLAT, (100, 100, 95.5, 95.5), flat(95.5), targets=(5.0, NAN), margin_call=0.8,
        other=(flat(50), flat(50), (50, 50, 47.75, 47.75), flat(47.75)),
        venues={"*": {"fees": {"taker": 0.001}, "venue": {"call_grace": 0}}},
    )()  # fmt: skip

    left = 1 - 45.5 / 469.86
    ratios = [float(ratio) for ratio in out.margin_ratio[2:]]
    held = [float(quantity) for quantity in out.quantity[3]]
    assert ratios == pytest.approx([477.5 / 540, 0.8], rel=1e-9)
    assert held == pytest.approx([50 * left, 100 * left], rel=1e-9)


@pytest.mark.parametrize("stop", [
    bt.Multiple(2.0, "width"), bt.Multiple(2.0, "part", unit="fraction"),
    bt.Multiple(2.0, "width", fixed=True), bt.Multiple(2.0, "part", unit="fraction", fixed=True),
])  # fmt: skip
def test_a_multiple_is_taken_from_the_previous_close(stop):
    """Every stop of a run of 1x lies at entry less twice the column of the bar before. A fixed one
    takes the column of the bar before the entry."""
    rng = np.random.default_rng(1)
    width = rng.uniform(0.5, 2.0, 300)
    part = rng.uniform(0.005, 0.02, 300)
    width[50:60] = NAN
    part[50:60] = NAN
    market = make_days(width=width, part=part)

    result = run(1.0, market, account=bt.Account(stop_loss=stop))
    events = result.events
    stopped = events[events["kind"] == "stop"]
    assert len(stopped) > 4

    is_price = stop.unit == "price"
    column = width if is_price else part
    entry = NAN
    opened = 0  # the bar before the entry
    checked = 0
    for row in events[events["kind"].isin(["fill", "stop"])].to_dict("records"):
        t = result.bars.index.get_loc(row["time"])
        is_stop = row["kind"] == "stop"

        if is_stop:
            assert stop.fixed or not 51 <= t <= 60
            width_before = column[opened if stop.fixed else t - 1]
            distance = 2.0 * width_before * (1.0 if is_price else entry)
            price = min(entry - distance, market.open[t])  # a gap fills at the open
            assert row["price"] == pytest.approx(price, rel=1e-9)
            checked += 1

        # What is bought next opens a position anew. One that a stop ends in the bar in which it
        # was bought has no entry at the close.
        if np.isnan(entry) or is_stop:
            opened = t - 1
        entry = result.bars["entry"].iloc[t]
        if not is_stop and np.isnan(entry):
            entry = row["price"]

    assert checked == len(stopped)


def test_the_last_bar_has_the_multiple_of_the_close_before_it():
    bars = make_days(4).bars() * 0.0 + 100.0
    bars["atr"] = [1.0, 1.0, 4.0, 9.0]
    bars.iloc[-1, bars.columns.get_indexer(["low", "close"])] = 90.0

    account = bt.Account(stop_loss=bt.Multiple(2.0, "atr"))
    result = run(1.0, bt.Market.from_frames(bars), account=account)

    (price,) = result.events.loc[result.events["kind"] == "stop", "price"]
    assert price == pytest.approx(100.0 - 2.0 * 4.0)


def test_a_column_that_is_not_there_is_refused():
    market = make_days(atr=np.full(300, 2.0), below=np.linspace(1.0, -1.0, 300))

    with pytest.raises(bt.ParameterError, match=r"no column 'art' \(did you mean 'atr'"):
        run(1.0, market, account=bt.Account(stop_loss=bt.Multiple(2.0, "art")))

    with pytest.raises(bt.DataError, match=r"account\.trailing_stop must be a distance"):
        run(1.0, market, account=bt.Account(trailing_stop=bt.Multiple(2.0, "below")))


def timed(asked, signal=None, holding="3h", fee=0.0, **account):
    """Run a price of 100 with a time stop, when it is called."""
    terms = scenes.account_of(max_holding=holding, **account)
    venue = venue_of(contract={"min_notional": 5.0}, fees={"taker": fee, "maker": fee})
    bars = [100.0] * len(asked)
    return scenes.later(*bars, targets=asked, signal=signal, venue=venue, account=terms)


TIMED: Hand = {
    # opened at the open of bar 1, closed at that of bar 4 after 3 hours, opened again in 5
    "a position is closed at the first open after its time": (
        timed([1.0] * 10, fee=0.001),
        {"time_stop.hours": [4, 8], "time_stop.price": [100, 100], "fill.hours": [1, 5, 9],
         "metrics.stops": 2}),
    "an increase does not restart the time": (timed([1, 1, 2, 2, 2, 2]), {"time_stop.hours": [4]}),
    "nor does a reduction": (timed([2, 2, 1, 1, 1, 1]), {"time_stop.hours": [4]}),
    "a flip does": (timed([1] * 7, [1, 1, -1, -1, -1, -1, -1]), {"time_stop.hours": [6]}),
    "and closing does": (timed([1, 0, 1, 1, 1, 1, 1]), {"time_stop.hours": [6]}),
    # at the close of bar 1, which is the open of bar 2; or at that of bar 0, the open of bar 1
    **{
        f"the time begins with the fill, {fill}": (
            timed([1.0] * 11, fill=fill), {"time_stop.hours": hours})
        for fill, hours in (("next_close", [5, 10]), ("same_close", [4, 8]))
    },
}  # fmt: skip


@by_hand(TIMED)
def test_time_stops(run, numbers):
    scenes.check_numbers(run(), numbers)


def test_trades_say_that_a_time_stop_ended_them():
    assert list(timed([1.0] * 10)().trades["ended"]) == ["time_stop", "time_stop", "open"]


def test_each_instrument_has_its_own_time():
    markets = bt.Markets({"A": market_of(*[100.0] * 6), "B": market_of(*[50.0] * 6)})
    account = scenes.account_of(max_holding={"A": "2h", "B": None})
    result = bt.run(markets, Follow(), venue=venue_of(), account=account)
    assert set(happened(result, "time_stop")["instrument"]) == {"A"}


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


def limited(prices, targets=(2.0,), **account):
    """Run bars of eight hours from a Monday at 2x; the last target is held."""
    rows = np.array([np.broadcast_to(bar, 4) for bar in prices])
    index = pd.date_range("2024-01-01", periods=len(rows), freq="8h", tz="UTC")
    bars = pd.DataFrame(rows, index=index, columns=("open", "high", "low", "close"))
    market = bt.Market.from_frames(bars)
    market = market.with_columns(target=np.resize(np.array(targets), len(rows)))

    terms = {"venue": kit.free_venue(), "account": bt.Account(capital=1000.0, **account)}
    return bt.run(market, Follow(), **terms, compile=False)


def find_stops(run):
    """List the stops of the whole account: bar, kind, price."""
    kinds = ["daily_loss", "weekly_loss", "equity_stop"]
    stops = run.events[run.events["kind"].isin(kinds)]
    return [(run.bars.index.get_loc(row.time), row.kind, row.price) for row in stops.itertuples()]


SAWS = [100.0, 100.0, (100, 100, 90, 92), 90.0, 90.0, (90, 90, 80, 82), *[80.0] * 3]
"""At 2x 1,000 buy 20 at 100. A stop of 10 % acts at 95."""


def list_pauses(run):
    events = run.events[run.events["kind"] == "pause"]
    return [run.bars.index.get_loc(time) for time in events["time"]]


def test_after_its_equity_stop_an_account_goes_on_at_once():
    """At 95 all is closed at 900; it buys 1,800 / 90 at the next open. 90 x .9 at 85.5: 810."""
    run = limited(SAWS, equity_stop=0.1, after_stop="continue")

    assert find_stops(run) == [(2, "equity_stop", 95.0), (5, "equity_stop", 85.5)]
    assert run.bars["position"].iloc[[2, 3, 5]].tolist() == pytest.approx([0, 20, 0])
    assert list_pauses(run) == []

    plain = limited(SAWS, equity_stop=0.1)
    assert run.record.values.tobytes() == plain.record.values.tobytes()


@pytest.mark.parametrize(("after", "bought"), [
    ("16h", 4),  # bar 2 opens at 16:00, so the first order fills at 08:00, bar 4
    ("17h", 5),  # bars open each 8 hours: the first at or after 09:00
    ("1d", 5),
    ("halt", None),
])  # fmt: skip
def test_a_pause_after_an_equity_stop_ends_at_the_first_open_at_its_time(after, bought):
    """The highest starts anew there, at 900."""
    run = limited([*SAWS[:5], *[90.0] * 4], equity_stop=0.1, after_stop=after)

    held = run.bars["position"].to_numpy()
    expected = np.full(9, 20.0)
    expected[[0, 2]] = 0.0
    expected[3:bought] = 0.0

    assert held.tolist() == pytest.approx(expected.tolist())
    assert list_pauses(run) == [2]
    assert run.bars["equity"].iloc[2:].tolist() == pytest.approx([900.0] * 7)


@pytest.mark.parametrize(("zone", "bought"), [("UTC", 93), ("Asia/Tokyo", 92)])
def test_next_month_begins_at_midnight_of_the_zone(zone, bought):
    """93 bars of eight hours from the first of January: Tokyo's February begins at 15:00 of the
    31st of January, and the next bar opens at 16:00."""
    terms = {"after_stop": "next month", "day": zone}
    run = limited([*SAWS[:3], *[90.0] * 92], equity_stop=0.1, **terms)

    held = np.flatnonzero(run.bars["position"].to_numpy()).tolist()
    assert held == [1, *range(bought, 95)]


def test_after_a_pause_the_peak_starts_anew_with_interest_and_flows():
    """900 earn interest in a pause of 30 days, and 100 are withdrawn at its end: the next stop acts
    at 90 % of what is there, not of the old high."""
    index = utc([START + day * 24 * HOUR for day in range(34)])
    prices = [100.0, 100.0, (100, 100, 90, 92), *[100.0] * 30, (100, 100, 80, 90)]
    rows = np.array([np.broadcast_to(bar, 4) for bar in prices])
    bars = pd.DataFrame(rows, index=index, columns=("open", "high", "low", "close"))
    market = bt.Market.from_frames(bars).with_columns(target=[2.0] * 32 + [NAN] * 2)

    withdrawal = pd.Series([-100.0], index=index[32:33])
    account = bt.Account(capital=1000.0, equity_stop=0.1, after_stop="30d", flows=withdrawal)
    venue = kit.free_venue().override(interest_on="balance", cash_rate=0.365)
    run = bt.run(market, Follow(), venue=venue, account=account, compile=False)

    before, after = run.bars["equity"].iloc[[31, 32]]
    assert before > 920.0

    (_, (bar, kind, price)) = find_stops(run)
    assert (bar, kind) == (33, "equity_stop")

    # the highest is the equity at the close of bar 32, at least that of bar 31 less the flow
    interest = run.bars["interest"].iloc[33]
    held = run.bars["position"].iloc[32]
    lost = after - interest - 0.9 * after
    assert price == pytest.approx(100.0 - lost / held, rel=1e-9)


def test_whatever_leaves_an_account_flat_at_its_equity_stop_it_pauses():
    """A gap takes 400 of margin: no equity stop acts, and what is left is under its level."""
    gap = [100.0, 100.0, 70.0, *[70.0] * 4]
    terms = {"equity_stop": 0.1, "targets": (2.0,), "margin": "isolated", "venue_leverage": 5.0}

    run = limited(gap, **terms, after_stop="halt")
    assert run.metrics["liquidations"] == 1.0
    assert find_stops(run) == []
    assert list_pauses(run) == [2]
    assert not run.bars["position"].iloc[2:].any()

    unpaused = limited(gap, **terms)
    assert unpaused.bars["position"].iloc[3] > 0.0


def test_a_halt_is_the_run_cut_at_that_bar_and_held_in_cash():
    market = bt.Market.sample(bars=1500)
    terms = {"venue": "binance-usdm:BTCUSDT", "compile": False}
    policy = kit.Hold(level=5.0)
    stopping = bt.Account(equity_stop=0.1)
    halting = bt.Account(equity_stop=0.1, after_stop="halt")

    # The account that goes on meets its stop many times; the one that halts, once.
    going = bt.run(market, policy, account=stopping, **terms)
    stops = going.events[going.events["kind"] == "equity_stop"]
    assert len(stops) > 10

    halted = bt.run(market, policy, account=halting, **terms)
    (bar,) = list_pauses(halted)
    cut = bt.run(market.prefix(bar + 1), policy, account=stopping, **terms)
    assert halted.record.values[: bar + 1].tobytes() == cut.record.values.tobytes()

    equity = halted.bars["equity"].to_numpy()
    assert set(equity[bar:]) == {equity[bar]}
    assert halted.metrics["stops"] == cut.metrics["stops"] == 1.0


def test_several_positions_pause_together_and_a_resumed_run_goes_on_with_the_pause():
    """At 1x each, A at 90 has lost 10 %: both close in bar 3, which opens at 03:00, until 07:00."""
    falling = market_of(*[100.0] * 3, (100, 100, 70, 80), *[80.0] * 6)
    markets = bt.Markets({"A": falling, "B": market_of(*[50.0] * 10)})
    account = scenes.account_of(equity_stop=0.1, after_stop="4h")
    terms = {"venue": venue_of(), "account": account, "compile": False}
    policies = {"A": kit.Hold(level=1.0), "B": kit.Hold(level=1.0)}

    whole = bt.run(markets, policies, **terms)
    held = np.abs(whole.record.positions.quantity).sum(axis=1)
    assert np.flatnonzero(held == 0.0).tolist() == [0, 3, 4, 5, 6]

    head = bt.run(markets.prefix(5), policies, **terms)
    tail = bt.run(markets, policies, resume=head, **terms)
    joined = np.concatenate([head.record.values, tail.record.values])
    assert joined.tobytes() == whole.record.values.tobytes()


@pytest.mark.parametrize(("given", "message"), [
    ({"after_stop": "halt"}, "after_stop: is used only with equity_stop, 0.1 for example"),
    ({"equity_stop": 0.1, "after_stop": "stop"}, "continue, halt, next month, or a duration"),
    ({"equity_stop": 0.1, "after_stop": "hallt"}, "did you mean 'halt'?"),
    ({"equity_stop": 0.1, "after_stop": "0d"}, "or a duration such as '7d'"),
    ({"equity_stop": 0.1, "after_stop": 7}, "or a duration such as '7d', got 7"),
    ({"equity_stop": 0.1, "after_stop": "7d", "day": "Asia/Tokyo"}, "after_stop='next month'"),
])  # fmt: skip
def test_what_follows_an_equity_stop_is_checked(given, message):
    kit.check_refused(lambda: bt.Account(**given), message)


def test_a_daily_loss_closes_all_until_the_next_day():
    """Bought 20 at 100. Tuesday begins at 1,000: 5 % are lost at 97.5. At Wednesday's open, 96, the
    target of 2x is 1,900 / 96 = 19.79 contracts."""
    run = limited(HELD, daily_loss=0.05)

    assert find_stops(run) == [(4, "daily_loss", 97.5)]
    assert run.bars["equity"].iloc[4] == pytest.approx(950.0, rel=1e-12)
    assert run.bars["position"].iloc[[4, 5, 6]].tolist() == pytest.approx([0.0, 0.0, 1900 / 96])

    early = limited(HELD, daily_loss=0.05, day="Asia/Tokyo")  # its Tuesday ends before bar 5
    assert early.bars["position"].iloc[5] == pytest.approx(1900 / 97)


def test_what_another_stop_lost_counts_too():
    """20 contracts close at 97 in a gap, by the stop-loss at 98: 60 of 1,000 are lost, over 5 %."""
    gap = [100.0, 100.0, 100.0, 100.0, 97.0, 97.0, 97.0]

    run = limited(gap, daily_loss=0.05, stop_loss=0.02)
    assert run.events["kind"].tolist().count("fill") == 2
    assert run.bars["position"].tolist() == pytest.approx([0, 20, 20, 20, 0, 0, 1880 / 97])

    weekly = limited(gap, weekly_loss=0.05, stop_loss=0.02)
    assert not weekly.bars["position"].iloc[4:].any()


def test_the_higher_of_several_floors_acts_and_the_equity_stop_of_equal_ones():
    equal = limited(HELD, daily_loss=0.05, equity_stop=0.05)
    assert find_stops(equal) == [(4, "equity_stop", 97.5)]
    assert equal.bars["position"].iloc[5] == 0.0  # it stands at the floor of the day too

    both = limited(HELD, daily_loss=0.06, weekly_loss=0.05)
    assert find_stops(both) == [(4, "weekly_loss", 97.5)]
    assert not both.bars["position"].iloc[4:].any()  # until Monday


WITHDRAWN = pd.Series([-100.0], index=pd.to_datetime(["2024-01-02 00:00"], utc=True))


@pytest.mark.parametrize(("terms", "price"), [
    ({"daily_basis": "initial"}, 102.5),  # 5 % of the 1,000 paid in: 1,000 + 20 (P - 100) = 1,050
    ({}, 102.25),  # 5 % of the 1,100 of the morning: 1,045
    ({"flows": WITHDRAWN}, 102.5),  # 5 % of 1,100 - 100: 900 + 20 (P - 100) = 950
])  # fmt: skip
def test_flows_move_the_floor_and_the_basis_may_be_what_was_paid_in(terms, price):
    """20 contracts from 100 end the first day at 105, with 1,100; the second falls from there."""
    rising = [100.0, 100.0, 105.0, (105.0, 105.0, 95.0, 100.0), 100.0]
    targets = (2.0, NAN, NAN, NAN, NAN)
    run = limited(rising, targets=targets, daily_loss=0.05, **terms)

    assert find_stops(run) == [(3, "daily_loss", pytest.approx(price))]


def test_a_day_must_be_a_time_zone_and_needs_a_daily_loss():
    words = "must be a time zone, 'Europe/Prague' for example, got 'Europe/Prag'"
    with pytest.raises(bt.ParameterError) as refused:
        bt.Account(day="Europe/Prag", daily_loss=0.1)
    assert str(refused.value).endswith(words)  # once
    kit.check_refused(lambda: bt.Account(day="Asia/Tokyo"), "is used only with daily_loss")


def test_the_names_of_time_zones_are_read_once(monkeypatch):
    """They are files, and a sweep makes thousands of accounts."""
    bt.Account(daily_loss=0.05, day="Europe/Prague")

    monkeypatch.setattr("zoneinfo.available_timezones", None)
    bt.Account(daily_loss=0.05, day="Asia/Tokyo")
    kit.check_refused(lambda: bt.Account(day="Europe/Prag", daily_loss=0.1), "must be a time zone")
