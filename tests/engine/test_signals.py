"""Signals: aligned, in range, known at their bar's close, by name, by weights, and to vectorbt."""

import dataclasses
import functools
import math
import re
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import Market, PolicyError, signals
from backtest.account.events import TRADED
from backtest.signals.rules import RULES
from backtest.strategies import Constant, VolTarget
from tests.kit import AT_BINANCE, check_refused, free_venue, live, market_of
from tests.scenes import happened

pytestmark = pytest.mark.peeks
HOURS = bt.Market.sample(bars=48)
BY_TEXT = pd.Series(1.0, index=HOURS.times.strftime("%F %T"))[::-1]
BY_NUMBER = pd.Series(1.0, index=range(48))
IN_3000 = pd.date_range("3000-01-01", periods=48, freq="1h", tz="UTC", unit="s")
SAMPLE = bt.Market.sample(bars=300)
PLAIN = dataclasses.replace(
    SAMPLE, funding_time=SAMPLE.funding_time[:0], funding_rate=SAMPLE.funding_rate[:0],
    funding_mark=SAMPLE.funding_mark[:0],
)  # fmt: skip
VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
TERMS = {"venue": VENUE}
FLAT = market_of(np.full(6, 100.0))
LONG = Market.sample(bars=600)


@pytest.fixture(scope="module")
def market() -> Market:
    return LONG


def hour(k: float) -> pd.Timestamp:
    """Return a time so many hours after the first open of :func:`tests.kit.market_of`."""
    return pd.Timestamp("2020-01-01", tz="UTC") + pd.Timedelta(hours=k)


def by_hours(values: dict[float, Any]) -> pd.Series:
    return pd.Series(list(values.values()), index=[hour(k) for k in values])


def test_a_value_belongs_to_the_bar_it_is_stamped_with_and_the_others_are_flat():
    signal = signals.from_series(FLAT, by_hours({1: 1.0, 2: -0.5, 4: math.nan, 5: 1}))
    assert signal.tolist() == [0.0, 1.0, -0.5, 0.0, 0.0, 1.0]
    assert signal.index.equals(FLAT.times)


def test_an_index_of_pyarrows_times_is_times_wherever_times_are_taken():
    """A contribution of 1 at bar 5 of a market at 100, held 1x: as with pandas' own index."""
    arrow = pd.Index(FLAT.times.astype("timestamp[ms, tz=UTC][pyarrow]"))
    bars = FLAT.bars()
    half = pd.Series(0.5, index=arrow)
    assert Market.from_frames(bars.set_axis(arrow)) == Market.from_frames(bars)
    assert signals.from_series(FLAT, half).index.equals(FLAT.times)
    assert FLAT.with_columns(half=half).columns["half"].tolist() == [0.5] * 6

    markets = bt.Markets({"A": FLAT, "B": FLAT})
    frame = pd.DataFrame(0.5, index=arrow, columns=["A", "B"])
    assert bt.signals.from_frame(markets, frame).index.equals(FLAT.times)

    class Half(bt.Policy):
        def observe(self, market: Market) -> dict[str, Any]:
            return {"view": pd.Series(0.5, index=arrow[: market.n_bars])}

        def leverage(self, bar: Any, account: Any) -> float:
            return bar.view

    def run(index: pd.Index, policy: bt.Policy) -> float:
        account = bt.Account(capital=1000.0, flows=pd.Series([1.0], index=index[[5]]))
        signal = pd.Series(0.5, index=index)
        terms = {"venue": free_venue(), "account": account, "signal": signal, "benchmark": signal}
        return bt.run(FLAT, policy, compile=False, **terms).metrics["final_equity"]

    assert run(arrow, Constant(1.0)) == run(FLAT.times, Constant(1.0)) == 1001.0
    assert run(arrow, Half()) == 1001.0


def test_values_outside_the_market_do_not_count_and_are_warned_of():
    with pytest.warns(bt.core.OutsideWarning, match="used: 2 of 3, 1 before 2020-01-01 and 1 from"):
        signal = signals.from_series(FLAT, by_hours({-1.5: 5.0, 0: 1.0, 6.5: 9.0}))
    assert signal.tolist() == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]


class Observing(Constant):
    """Observes a column by text."""

    def observe(self, market: Any) -> Any:
        return {"given": BY_TEXT.head(market.n_bars)}


@pytest.mark.parametrize(("terms", "words"), [
    ({"signal": BY_TEXT}, r"by Index; pd.Series\(values, index=market.times\)"),
    ({"signal": BY_NUMBER}, r"by RangeIndex; pd.Series\(values, index=market.times\)"),
    ({"signal": BY_NUMBER.to_frame("SYNTHETIC-PERP")}, "was by RangeIndex"),
    ({"signal": pd.Series(1.0, index=IN_3000)}, r"got 3000-01-01 00:00:00\+00:00 in 48 rows"),
    ({"benchmark": BY_NUMBER}, "benchmark must be an array, or be indexed by time, was by Range"),
    ({"policy": Observing()}, "column 'given' .* was by Index; pd.Series"),
])  # fmt: skip
def test_what_is_by_position_is_an_array(terms, words):
    """A signal by text, newest first, was taken in the order of its rows."""
    with pytest.raises(bt.BacktestError, match=words):
        bt.run(HOURS, **{"policy": Constant(1.0), **AT_BINANCE, **terms})


def test_rows_and_flows_outside_the_market_are_counted():
    signal = pd.Series(1.0, index=HOURS.times)
    day_later = signal.set_axis(signal.index + pd.Timedelta("1D"))
    too_long = pd.concat([signal, day_later[-24:]])
    stamps = pd.DatetimeIndex([HOURS.times[-1], HOURS.times[-1] + pd.Timedelta("2D")])
    account = bt.Account(flows=pd.Series([5.0, 5.0], index=stamps))

    with pytest.warns(bt.core.OutsideWarning) as caught:
        bt.run(HOURS, Constant(1.0), signal=too_long, **{**AT_BINANCE, "account": account})

    texts = [str(warning.message) for warning in caught]
    of_signal, of_flows = (text for text in texts if "outside" in text)
    assert of_signal.endswith("24 of 72, 0 before 2023-01-01 and 24 from 2023-01-03 on UTC")
    assert "flows lie outside the account's bars and are not booked: 1 of 2" in of_flows


def test_flows_need_times():
    for wrong in (BY_TEXT, BY_NUMBER):
        with pytest.raises(bt.ParameterError, match="flows: must be a series indexed by UTC"):
            bt.Account(flows=wrong)


def test_what_is_known_from_a_moment_on_is_carried_until_the_next():
    """Known at 1:30, bar 1 (1:00 to 2:00) has it; at 3:00, the close of bar 2, bar 3 has it."""
    signal = signals.from_series(FLAT, by_hours({1.5: 1.0, 3: -1.0, 5.99: 0.0}), carry=True)
    assert signal.tolist() == [0.0, 1.0, 1.0, -1.0, -1.0, 0.0]

    with pytest.warns(bt.core.OutsideWarning, match="first bars hold the row of 2019-12-29 22:00"):
        known = signals.from_series(FLAT, by_hours({-50: -1.0, 3: math.nan}), carry=True)
    assert known.tolist() == [-1.0, -1.0, -1.0, 0.0, 0.0, 0.0]


def test_other_zones_and_units_of_time_are_the_same_moments():
    series = by_hours({0: 1.0, 3: -1.0})
    there = series.set_axis(series.index.tz_convert("Asia/Tokyo").as_unit("s"))
    assert signals.from_series(FLAT, there).tolist() == [1.0, 0.0, 0.0, -1.0, 0.0, 0.0]


@pytest.mark.parametrize(("sides", "expected"), [
    ("both", [1.0, -0.5, 0.0, 0.0, 0.0, 0.0]),
    ("long", [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
    ("short", [0.0, -0.5, 0.0, 0.0, 0.0, 0.0]),
])  # fmt: skip
def test_a_side_that_is_not_taken_is_flat(sides, expected):
    assert signals.from_series(FLAT, by_hours({0: 1.0, 1: -0.5}), sides).tolist() == expected


def momentum(seen: Market) -> pd.Series:
    return np.sign(seen.bars()["close"].diff(24))


def test_a_function_of_the_past_is_taken_as_it_is(market: Market):
    signal = signals.from_function(market, momentum)

    expected = np.sign(market.close[24:] - market.close[:-24])
    assert (signal[:24] == 0.0).all()
    assert signal[24:].to_numpy().tobytes() == expected.tobytes()

    array = signals.from_function(market, lambda seen: momentum(seen).to_numpy(), "short")
    assert array.tolist() == np.minimum(signal, 0.0).tolist()


def find_next_return(seen: Market) -> pd.Series:
    return seen.bars()["close"].pct_change().shift(-1)


def leave_before_a_crash(seen: Market) -> Any:
    return np.where(find_next_return(seen) < -0.045, 0.0, 1.0)


def leave_before_a_leap(seen: Market) -> Any:
    return np.where(find_next_return(seen) > 0.045, 0.0, 1.0)


def leave_three_bars_before_a_crash(seen: Market) -> Any:
    backwards = find_next_return(seen)[::-1]
    lowest = backwards.rolling(3).min()[::-1]
    return np.where(lowest < -0.045, 0.0, 1.0)


def buy_before_the_largest_range(seen: Market) -> Any:
    ranges = np.log(seen.high / seen.low)
    return (np.roll(ranges, -1) > 0.08).astype(float)


RARE = [
    leave_before_a_crash,
    leave_before_a_leap,
    leave_three_bars_before_a_crash,
    buy_before_the_largest_range,
]


@pytest.mark.parametrize("peek", RARE, ids=lambda peek: peek.__name__)
def test_rare_look_ahead_is_found_where_it_pays(peek):
    """Each says something else in a handful of 3000 bars only."""
    market = Market.sample(bars=3000)
    values = np.asarray(peek(market))
    assert 0 < (values != np.median(values)).sum() <= 12

    with pytest.raises(PolicyError, match="looks ahead: it is"):
        signals.from_function(market, peek)


def daily_of(seen: Market) -> pd.Series:
    """Return signs of daily returns, each stamped with the open of its day, as pandas does."""
    return np.sign(seen.bars()["close"].resample("1D").last().pct_change().dropna())


def as_the_page_does(seen: Market) -> pd.Series:
    daily = daily_of(seen)
    return signals.from_series(seen, daily.set_axis(daily.index + pd.Timedelta("1D")), carry=True)


def as_the_refusal_says(seen: Market) -> pd.Series:
    """Take the code that the refusal of such a signal names."""
    signal = daily_of(seen)
    with pytest.raises(bt.ParameterError, match="values of longer bars") as refused:
        bt.run(seen, Constant(), signal=signal, venue=VENUE, account=bt.Account())

    code = re.search(r"bt\.signals\..*?carry=True\)", str(refused.value))[0]
    return eval(code, {"bt": bt, "market": seen, "signal": signal})


@pytest.mark.parametrize("way", [as_the_page_does, as_the_refusal_says])
def test_a_daily_signal_is_held_from_the_end_of_its_day(way):
    """Of days 1, 2, 3 with closes by hours: the sign of day 2 over day 1 is known at its end."""
    market = Market.sample(bars=24 * 12)
    signal = way(market)
    signs = daily_of(market)
    closes_at = market.times + pd.Timedelta("1h")

    for day in range(2, 10):
        is_in_day = (closes_at > signs.index[day]) & (closes_at < signs.index[day + 1])
        assert set(signal[is_in_day]) == {signs.iloc[day - 1]}

    signals.from_function(market, as_the_page_does)  # which is not accused


def broken(seen: Market) -> np.ndarray:
    return seen.columns["implied"]


SERIES = [  # a series that is no signal, and words of the refusal
    (pd.Series([1.0] * 6), "must be an array, or be indexed by time, was by RangeIndex"),
    (by_hours({0: 1.0}).tz_localize(None), "must have a time zone"),
    (by_hours({2: 1.0, 1: 0.0}), "its index goes back"),
    (by_hours({0: 1.0, 1.5: 0.0}), "must be stamped with the open of a bar, 1 of 2 are not"),
    (by_hours({0: 1.5}), "must lie in [-1, 1], got 1.5 in 1 of 6 bars"),
]
FUNCTIONS = [  # a function that gives no signal, and words of the refusal
    (broken, "the signal broken raised KeyError: 'implied', in "),
    (broken, f"test_signals.py, line {broken.__code__.co_firstlineno + 1}, given 600 bars"),
    (lambda seen: np.ones(3), "must return one number per bar, 600, "),
    (lambda seen: 1.0, "returned shape ()"),
    (lambda seen: pd.Series(1.0, index=seen.times + pd.Timedelta("1h")), "by other times"),
    (lambda seen: ["long"] * seen.n_bars, "must be numbers"),
]


def test_daily_values_on_hourly_bars_are_refused_without_a_word_on_when_they_were_known():
    """They would be flat but for one bar a day, and stamped a day before they are known."""
    market = bt.Market.sample(bars=480)
    daily = pd.Series(1.0, index=pd.date_range(market.times[0], periods=20, freq="1D"))

    words = "has 20 for 457"
    check_refused(lambda: bt.signals.from_series(market, daily), words, bt.ParameterError)
    assert (bt.signals.from_series(market, daily, carry=True) == 1.0).all()


WHOLE = {name: bt.Market.sample(bars=24 * 60, seed=k) for k, name in enumerate("ABC")}
MARKETS = bt.Markets({**WHOLE, "C": WHOLE["C"].slice(400, 1000)})
FEW = MARKETS.slice(0, 96)


def closes(markets: bt.Markets) -> pd.DataFrame:
    return pd.DataFrame(markets.panel().close.T, index=markets.times, columns=[*markets.names])


def third_by_day(markets: bt.Markets) -> pd.DataFrame:
    return np.sign(closes(markets).pct_change(24, fill_method=None)) / 3.0


def test_a_causal_function_gives_weights_that_say_how_they_were_checked():
    frame = bt.signals.from_function(MARKETS, third_by_day)
    assert frame.columns.tolist() == ["A", "B", "C"]
    assert frame.index.equals(MARKETS.times)
    assert not frame.isna().any(axis=None)
    assert (frame["C"].to_numpy()[:424] == 0.0).all()  # a day after it is listed
    assert frame["C"].iloc[999] == 0.0  # in its last bar nothing is decided
    assert "signal checked at" in signals.describe_signal_check(frame)


def peek_mean(markets: bt.Markets) -> pd.DataFrame:
    moves = closes(markets).pct_change(fill_method=None)
    return np.sign(moves - moves.mean())


def peek_at_another(markets: bt.Markets) -> pd.DataFrame:
    """B is held by what A does in the next bar: a lead that nobody knows."""
    prices = closes(markets)
    lead = np.sign(prices["A"].pct_change().shift(-1))
    return (prices * 0.0).assign(B=lead)


def peek_at_the_day(markets: bt.Markets) -> pd.DataFrame:
    prices = closes(markets)
    last_of_day = prices.groupby(prices.index.floor("D")).transform("last")
    return np.sign(last_of_day / prices - 1.0)


def peek_at_a_listing(markets: bt.Markets) -> pd.DataFrame:
    return (closes(markets) * 0.0).assign(A=0.5 if "C" in markets else 1.0)


PEEKS = (peek_mean, peek_at_another, peek_at_the_day, peek_at_a_listing)


@pytest.mark.parametrize("peek", PEEKS, ids=lambda each: each.__name__)
def test_functions_that_look_ahead_are_found(peek):
    with pytest.raises(PolicyError, match="looks ahead") as caught:
        bt.signals.from_function(MARKETS, peek)
    assert peek.__name__ in str(caught.value)


def test_rows_that_are_carried_hold_until_the_next():
    days = FEW.times[::24]
    daily = pd.DataFrame({"A": [0.1, 0.2, 0.3, np.nan], "B": 0.5}, index=days)
    frame = bt.signals.from_frame(FEW, daily, carry=True)
    # A row stamped 00:00 is known in the bar that closes at 01:00, not in the one before.
    assert frame["A"].tolist() == [0.1] * 24 + [0.2] * 24 + [0.3] * 24 + [0.0] * 24

    later = daily.set_axis(days + pd.Timedelta("1h"))
    assert bt.signals.from_frame(FEW, later, carry=True)["A"].tolist()[:3] == [0.0, 0.1, 0.1]

    backwards = bt.signals.from_frame(FEW, daily.iloc[::-1], carry=True)
    pd.testing.assert_frame_equal(backwards, frame)


GOOD = pd.DataFrame({"A": 0.5}, index=FEW.times)
FRAME = bt.signals.from_frame
FUNCTION = bt.signals.from_function
TEXTS = [  # a text that names no rule, and words of the refusal
    ("rsj", "did you mean 'rsi'"),
    ("rsi:60:1:2:both:5", "signal must be rsi:WINDOW:LOW:HIGH:SIDES, got"),
    ("rsi:14:60", "low must be 0 to 50"),
    ("ma-cross:50:20", "fast must be below slow 20, got 50"),
    ("breakout:x", "window must be a whole number"),
    ("breakout:9:up", "sides must be one of both, long, short"),
]
BAD = [  # what is called, and words of the refusal
    (lambda: FRAME(FEW, GOOD.rename(columns={"A": "X"})), "got 'X'"),
    (lambda: FRAME(FEW, GOOD.tz_localize(None)), "must have a time zone"),
    (lambda: FRAME(FEW, GOOD.iloc[[0, 0]], carry=True), "one row per time"),
    (lambda: FRAME(FEW, GOOD * np.inf), "must be finite"),
    (lambda: FRAME(FEW, GOOD.iloc[::24]), "bars without one would be flat"),
    (lambda: FUNCTION(FEW, lambda seen: GOOD.iloc[:50]), "of 50 by other times"),
    (lambda: FUNCTION(FEW, lambda seen: {"A": np.inf}), "finite"),
    (lambda: signals.Rsi(2.5), "window must be"),
    (lambda: signals.MaCross(10, 10), "fast must be below slow 10, got 10"),
    (lambda: signals.Bollinger(width=0.0), "width must be"),
    (lambda: signals.from_series(FLAT, by_hours({0: 1.0}), "flat"), "one of both, long"),
    (lambda: signals.from_vectorbt(1.0), "must be a vectorbt.Portfolio, got a float"),
    *((functools.partial(signals.from_series, FLAT, series), words) for series, words in SERIES),
    *((functools.partial(signals.from_function, LONG, rule), words) for rule, words in FUNCTIONS),
    *((functools.partial(signals.resolve_signal, text, LONG), words) for text, words in TEXTS),
]


@pytest.mark.parametrize(("make", "words"), BAD)
def test_bad_input_is_refused(make, words):
    check_refused(make, words)


def test_a_rule_at_the_call_is_the_rule_by_name():
    few = MARKETS.slice(380, 480)
    by_rule = signals.Rsi(14, 35, 65).weigh(few)
    by_name = signals.resolve_signal("rsi:14:35:65", few)
    pd.testing.assert_frame_equal(by_rule, by_name)
    assert signals.describe_signal_check(by_rule) == signals.describe_signal_check(by_name) != ""

    # C is listed later: until then A is one of two.
    alone = signals.Rsi(14, 35, 65).apply(few["A"])
    n_listed = np.where(few.tradable()[2], 3.0, 2.0)
    np.testing.assert_array_equal(by_rule["A"], alone / n_listed)


def test_columns_may_have_the_names_of_instruments():
    """A panel of folders btc and eth: weights of BTCUSDT and ETHUSDT are theirs."""
    btc = Market.from_frames(bt.Market.sample(bars=50, seed=0).bars(), instrument="BTCUSDT")
    eth = Market.from_frames(bt.Market.sample(bars=50, seed=1).bars(), instrument="ETHUSDT")
    markets = bt.Markets({"btc": btc, "eth": eth}, currency="USDT")
    frame = pd.DataFrame({"ETHUSDT": -0.5, "BTCUSDT": 0.3}, index=markets.times)

    for carry in (False, True):
        weights = bt.signals.from_frame(markets, frame, carry=carry)
        assert weights.iloc[-1].to_dict() == {"btc": 0.3, "eth": -0.5}

    twice = frame.assign(eth=0.1)
    text = "each instrument has one column, 'eth'"
    check_refused(lambda: bt.signals.from_frame(markets, twice), text, bt.ParameterError)


class Rising(bt.signals.SignalRule):
    bars: Annotated[int, bt.Range(1, 1000, "bars")] = 1

    def direction(self, market):
        return market.bars()["close"].diff(self.bars) > 0


class Peek(bt.signals.SignalRule):
    def direction(self, market):
        return market.bars()["close"].diff().shift(-1) > 0


def test_each_rule_by_hand():
    """Closes 10 11 12 9 9 13, each bar opening at the close before."""
    market = market_of(np.array([10.0, 11, 12, 9, 9, 13]))

    # averages of 1 and 2: the sign of close - mean, as 11 - 10.5, 12 - 11.5, 9 - 10.5, 0, 13 - 11
    assert bt.signals.MaCross(fast=1, slow=2).compute(market).tolist() == [0, 1, 1, -1, 0, 1]
    assert bt.signals.MaCross(1, 2, "long").compute(market).tolist() == [0, 1, 1, 0, 0, 1]

    # 12 > max(10, 11), 9 < min(10, 11), 9 is no new low of (11, 9), 13 > max(12, 9)
    assert bt.signals.Breakout(window=2).compute(market).tolist() == [0, 0, 1, -1, -1, 1]

    # gains 1, .5, .25, 2.125 and losses 0, 1.5, .75, .375: an index of 100, 25, 25, 85
    both_sides = bt.signals.Rsi(window=2, low=30, high=90, sides="both")
    assert both_sides.compute(market).tolist() == [0, 0, -1, 1, 1, 1]
    long_only = bt.signals.Rsi(window=2, low=30, high=90)
    assert long_only.compute(market).tolist() == [0, 0, 0, 1, 1, 1]

    # bands of 0.9 deviations around means of 2: a close is 1 deviation away, or 0
    bands = bt.signals.Bollinger(window=2, width=0.9).compute(market)
    assert bands.tolist() == [0, -1, -1, 1, 1, -1]


def test_the_index_holds_what_a_trader_by_wilder_holds():
    """The recursion bar by bar: long below 30, flat above 70, and the same rule by its text."""
    market = bt.Market.sample(bars=500)
    moves = np.diff(market.close)
    ups = np.maximum(moves, 0.0)
    downs = np.maximum(-moves, 0.0)
    up = ups[:14].mean()
    down = downs[:14].mean()
    held = 0.0
    expected = [0.0] * 14

    for number in range(13, len(moves)):
        if number > 13:
            up = (13.0 * up + ups[number]) / 14.0
            down = (13.0 * down + downs[number]) / 14.0
        index = 100.0 - 100.0 / (1.0 + up / down)
        if index < 30.0:
            held = 1.0
        elif index > 70.0:
            held = 0.0
        expected.append(held)

    assert sum(expected) == 163
    assert bt.signals.Rsi(window=14, low=30, high=70).apply(market).tolist() == expected
    assert signals.resolve_signal("rsi:14:30:70", market).tolist() == expected


def test_a_text_names_a_rule_with_its_parameters_in_order():
    for title, rule in RULES.items():
        named = signals.read_rule(title)
        assert repr(named) == repr(rule())
        assert repr(signals.read_rule(named.text())) == repr(rule())

    assert bt.signals.Rsi(low=20).text() == "rsi:14:20:70"
    assert signals.read_rule("ma-cross:20:50:long:true").text() == "ma-cross:20:50:long:true"
    assert signals.read_rule("rsi:14", {"high": 80}).settings()["high"] == 80.0


def test_a_run_takes_a_rule_its_text_or_a_column_and_the_manifest_keeps_the_name():
    market = bt.Market.sample(bars=200)
    policy = Constant(leverage=2.0)
    rule = bt.signals.Breakout(10)

    by_text = live(market, policy, signal="breakout:10")
    name, _, digest = by_text.manifest["signal"].partition(" sha256:")
    assert (name, len(digest)) == ("breakout:10", 64)
    assert "signal checked at" in by_text.manifest["causality"]

    by_rule = live(market, policy, signal=rule)
    by_series = live(market, policy, signal=rule.apply(market))
    assert by_rule.manifest["id"] == by_text.manifest["id"] == by_series.manifest["id"]

    by_column = live(market.with_columns(view=by_text.signal), policy, signal="view")
    assert by_column.manifest["signal"].startswith("column view sha256:")
    assert "signal not checked" in by_column.manifest["causality"]
    assert by_column.bars["equity"].tolist() == by_text.bars["equity"].tolist()

    changed = live(market, policy, signal=0.5 * by_text.signal)
    assert changed.manifest["signal"].startswith("series sha256:")


def test_an_own_rule_runs_and_one_that_looks_ahead_is_refused():
    market = bt.Market.sample(bars=200)
    result = live(market, Constant(leverage=1.0), signal=Rising(bars=3))
    expected = market.close[3:] > market.close[:-3]
    assert result.signal[3:].tolist() == expected.astype(float).tolist()

    with pytest.raises(bt.PolicyError, match="peek"):
        live(market, Constant(leverage=1.0), signal=Peek())


def test_a_rule_of_several_instruments_is_its_direction_in_each_times_one_over_n():
    pair = {"A": bt.Market.sample(bars=80), "B": bt.Market.sample(bars=80, seed=1)}
    markets = bt.Markets(pair)

    weights = signals.resolve_signal("breakout:10", markets)
    for name, market in pair.items():
        direction = bt.signals.Breakout(10).apply(market).to_numpy()
        assert weights[name].tolist()[:-1] == (0.5 * direction).tolist()[:-1]

    by_text = live(markets, Constant(1.0), signal="breakout:10")
    by_weights = live(markets, Constant(1.0), signal=weights)
    assert by_text.manifest["signal"].startswith("breakout:10 sha256:")
    assert by_text.manifest["id"] == by_weights.manifest["id"]


def make_portfolio(result):
    """Return vectorbt's portfolio of the fills of a result, with their fees."""
    import vectorbt  # noqa: PLC0415 - slow to import

    index = result.bars.index
    is_trade = result.events["kind"].isin([event.kind.name for event in TRADED])
    trades = result.events[is_trade].set_index("time").reindex(index)
    fees = happened(result, "fee").set_index("time")["amount"].reindex(index, fill_value=0.0)
    return vectorbt.Portfolio.from_orders(
        pd.Series(result.mark, index),
        size=trades["quantity"],
        price=trades["price"],
        fixed_fees=fees,
        init_cash=result.account.capital,
        freq="1h",
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of vectorbt
@pytest.mark.parametrize(("policy", "account", "signal"), [
    (Constant(leverage=0.9), bt.Account(band=0.05), 1.0),
    (Constant(leverage=3.0), bt.Account(band=0.1), -1.0),
    (VolTarget(target=0.3), bt.Account(stop_loss=0.04, max_leverage=0.95), "breakout:12"),
], ids=["long", "short at 3x", "both sides with stops"])  # fmt: skip
def test_orders_at_vectorbt_are_worth_the_equity_at_every_close(policy, account, signal):
    result = bt.run(PLAIN, policy, account=account, signal=signal, **TERMS)
    assert result.bars["position"].nunique() >= 2

    value = make_portfolio(result).value().to_numpy()
    assert value == pytest.approx(result.bars["equity"].to_numpy(), rel=1e-9)


class Portfolio:
    """A portfolio of vectorbt, of which a signal is made."""

    def __init__(self, held, value, index):
        self.wrapper = pd.Series(held, index=index)
        self._held = pd.Series(held, index=index)
        self._value = pd.Series(value, index=index)

    def asset_value(self):
        return self._held

    def value(self):
        return self._value


def test_directions_and_shares_by_hand():
    """Held 0, 50 of 100, -30 of 120, 0: shares 0, 0.5, -0.25, 0."""
    index = pd.date_range("2023-01-01", periods=4, freq="1h")
    portfolio = Portfolio([0.0, 50.0, -30.0, 0.0], [100.0, 100.0, 120.0, 110.0], index)

    assert bt.signals.from_vectorbt(portfolio).tolist() == [0.0, 1.0, -1.0, 0.0]
    assert bt.signals.from_vectorbt(portfolio, sized=True).tolist() == [0.0, 0.5, -0.25, 0.0]
    assert bt.signals.from_vectorbt(portfolio, "open").tolist() == [1.0, -1.0, 0.0, 0.0]
    assert str(bt.signals.from_vectorbt(portfolio).index.tz) == "UTC"


def test_a_portfolio_of_several_columns_is_refused():
    two = Portfolio([0.0], [1.0], pd.DatetimeIndex(["2023-01-01"]))
    two._held = pd.DataFrame(np.zeros((1, 2)))

    check_refused(lambda: bt.signals.from_vectorbt(two), "must have one column", bt.ParameterError)
