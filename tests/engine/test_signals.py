"""Signals: aligned, in range, known at their bar's close, and what their definitions say."""

import functools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import Market, PolicyError
from backtest.engine.signals import bollinger, from_function, from_series, ma_cross, rsi
from backtest.strategies import Constant
from tests.kit import check_refused, live, market_of


@pytest.fixture(scope="module")
def market() -> Market:
    return LONG


def hour(k: float) -> pd.Timestamp:
    """Return a time so many hours after the first open of :func:`tests.markets.market_of`."""
    return pd.Timestamp("2020-01-01", tz="UTC") + pd.Timedelta(hours=k)


def by_hours(values: dict[float, Any]) -> pd.Series:
    return pd.Series(list(values.values()), index=[hour(k) for k in values])


FLAT, LONG = market_of(np.full(6, 100.0)), Market.sample(bars=600)


# ----- from a Series -----


def test_a_value_belongs_to_the_bar_it_is_stamped_with_and_the_others_are_flat():
    signal = from_series(FLAT, by_hours({1: 1.0, 2: -0.5, 4: math.nan, 5: 1}))
    assert signal.tolist() == [0.0, 1.0, -0.5, 0.0, 0.0, 1.0]
    assert signal.index.equals(FLAT.times)


def test_values_outside_the_market_do_not_count():
    signal = from_series(FLAT, by_hours({-1.5: 5.0, 0: 1.0, 6.5: 9.0}))
    assert signal.tolist() == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]


def test_what_is_known_from_a_moment_on_is_carried_until_the_next():
    """Known at 1:30, bar 1 (1:00 to 2:00) has it; at 3:00, the close of bar 2, bar 3 has it."""
    signal = from_series(FLAT, by_hours({1.5: 1.0, 3: -1.0, 5.99: 0.0}), carry=True)
    assert signal.tolist() == [0.0, 1.0, 1.0, -1.0, -1.0, 0.0]
    known = from_series(FLAT, by_hours({-50: -1.0, 3: math.nan}), carry=True)
    assert known.tolist() == [-1.0, -1.0, -1.0, 0.0, 0.0, 0.0]


def test_daily_values_moved_by_their_length_do_not_look_ahead():
    """A day's value is known at its end: the first hour that closes after it is the next day's."""
    hours = market_of(np.full(72, 100.0))
    days = pd.Series([1.0, -1.0], index=[hour(0), hour(24)])
    signal = from_series(hours, days.set_axis(days.index + pd.Timedelta("1D")), carry=True)
    assert (signal[:24] == 0.0).all()
    assert (signal[24:48] == 1.0).all()
    assert (signal[48:] == -1.0).all()


def test_true_and_false_are_long_and_flat():
    assert from_series(FLAT, by_hours({0: True, 1: False, 2: True})).tolist()[:3] == [1, 0, 1]


def test_other_zones_and_units_of_time_are_the_same_moments():
    series = by_hours({0: 1.0, 3: -1.0})
    there = series.set_axis(series.index.tz_convert("Asia/Tokyo").as_unit("s"))
    assert from_series(FLAT, there).tolist() == [1.0, 0.0, 0.0, -1.0, 0.0, 0.0]


@pytest.mark.parametrize(("sides", "expected"), [
    ("both", [1.0, -0.5, 0.0, 0.0, 0.0, 0.0]),
    ("long", [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
    ("short", [0.0, -0.5, 0.0, 0.0, 0.0, 0.0]),
])  # fmt: skip
def test_a_side_that_is_not_taken_is_flat(sides, expected):
    assert from_series(FLAT, by_hours({0: 1.0, 1: -0.5}), sides).tolist() == expected


# ----- from a function -----


def momentum(seen: Market) -> pd.Series:
    return np.sign(seen.bars()["close"].diff(24))


def test_a_function_of_the_past_is_taken_as_it_is(market: Market):
    signal = from_function(market, momentum)
    expected = np.sign(market.close[24:] - market.close[:-24])
    assert (signal[:24] == 0.0).all()
    assert signal[24:].to_numpy().tobytes() == expected.tobytes()
    array = from_function(market, lambda seen: momentum(seen).to_numpy(), "short")
    assert array.tolist() == np.minimum(signal, 0.0).tolist()


class Fixed:
    """Something that is called, but is no function."""

    def __call__(self, seen: Market) -> np.ndarray:
        return np.ones(seen.n_bars)


def test_anything_that_can_be_called_will_do(market: Market):
    assert (from_function(market, Fixed()) == 1.0).all()
    half = functools.partial(constant, value=0.5)
    assert (from_function(market, half) == 0.5).all()


def constant(seen: Market, value: float) -> np.ndarray:
    return np.full(seen.n_bars, value)


def of_close(change: Any) -> Any:
    return lambda seen: change(seen.bars()["close"])


LOOKING_AHEAD = {
    "the next close": of_close(lambda c: np.sign(c.shift(-1) - c)),
    "the next close, as words of yes and no": of_close(lambda c: (c.shift(-1) > c).astype(float)),
    "a centered mean": of_close(lambda c: np.sign(c - c.rolling(9, center=True).mean())),
    "the mean of all": of_close(lambda c: np.sign(c - c.mean())),
    "the last close": of_close(lambda c: np.full(len(c), np.sign(c.iloc[-1] - c.iloc[0]))),
    "filled from behind": of_close(lambda c: np.sign(c.diff(50)).bfill()),
    "the length of the market": lambda seen: np.full(seen.n_bars, 1.0 / seen.n_bars),
}


@pytest.mark.parametrize("name", LOOKING_AHEAD)
def test_a_function_that_looks_ahead_is_refused(name: str, market: Market):
    with pytest.raises(PolicyError, match="looks ahead: it is"):
        from_function(market, LOOKING_AHEAD[name])


RARE = {
    "out before a crash": of_close(lambda c: np.where(c.pct_change().shift(-1) < -0.045, 0.0, 1.0)),
    "out before a leap": of_close(lambda c: np.where(c.pct_change().shift(-1) > 0.045, 0.0, 1.0)),
    "out before a crash, three bars ahead": of_close(
        lambda c: np.where(c.pct_change().shift(-1)[::-1].rolling(3).min()[::-1] < -0.045, 0.0, 1.0)
    ),
    "long before the largest range": lambda seen: (
        np.roll(np.log(seen.high / seen.low), -1) > 0.08
    ).astype(float),
}


@pytest.mark.parametrize("name", RARE)
def test_rare_look_ahead_is_found_where_it_pays(name: str):
    """Each says something else in a handful of 3000 bars only."""
    market = Market.sample(bars=3000)
    said = np.asarray(RARE[name](market))
    assert 0 < (said != np.median(said)).sum() <= 12
    with pytest.raises(PolicyError, match="looks ahead: it is"):
        from_function(market, RARE[name])


def broken(seen: Market) -> np.ndarray:
    return seen.columns["implied"]


LINE = broken.__code__.co_firstlineno + 1
SERIES = [
    (pd.Series([1.0] * 6), "got a Series by RangeIndex"),
    (by_hours({0: 1.0}).tz_localize(None), "has no time zone"),
    (by_hours({2: 1.0, 1: 0.0}), "its index goes back"),
    (by_hours({0: 1.0, 1.5: 0.0}), "must be the open of a bar, 1 of 2 are not"),
    (by_hours({0: 1.5}), "must lie in [-1, 1], got 1.5 in 1 of 6 bars"),
]
FUNCTIONS = [
    (broken, "the signal broken raised KeyError: 'implied', in "),
    (broken, f"test_signals.py, line {LINE}, given 600 bars"),
    (lambda seen: np.ones(3), "must return one number per bar, 600, "),
    (lambda seen: 1.0, "returned shape ()"),
    (lambda seen: pd.Series(1.0, index=seen.times + pd.Timedelta("1h")), "by other times"),
    (lambda seen: ["long"] * seen.n_bars, "must be numbers"),
]
RULES = [
    (lambda: rsi(FLAT, 2.5), "window must be"),
    (lambda: ma_cross(FLAT, 10, 10), "fast must be below slow 10, got 10"),
    (lambda: bollinger(FLAT, width=0.0), "width must be"),
    (lambda: from_series(FLAT, by_hours({0: 1.0}), "flat"), "sides must be one of both, long"),
]


@pytest.mark.parametrize(("make", "words"), [
    *((functools.partial(from_series, FLAT, series), words) for series, words in SERIES),
    *((functools.partial(from_function, LONG, rule), words) for rule, words in FUNCTIONS),
    *RULES,
])  # fmt: skip
def test_bad_input_is_refused(make, words):
    check_refused(make, words)


# ----- named rules -----


@pytest.mark.slow
def test_a_cross_is_the_sign_of_two_means_of_pandas(market: Market):
    close = pd.Series(market.close)
    difference = close.rolling(10).mean() - close.rolling(50).mean()
    found = ma_cross(market, 10, 50)
    assert (found[:49] == 0.0).all()
    assert found[49:].tolist() == np.sign(difference[49:]).tolist()
    weighted = close.ewm(span=10, adjust=False).mean()
    weighted -= close.ewm(span=50, adjust=False).mean()
    again = ma_cross(market, 10, 50, ewm=True)[49:]
    assert again.tolist() == np.sign(weighted[49:]).tolist()
    assert ma_cross(market, 10, 50, "long").tolist() == np.maximum(found, 0.0).tolist()


def walk_rules(enter_long, leave_long, enter_short, leave_short) -> list[float]:
    """Return what a trader holds who follows the four rules bar by bar."""
    held, path = 0.0, []
    for rules in zip(enter_long, leave_long, enter_short, leave_short, strict=True):
        if held == 1.0 and rules[1]:
            held = 0.0
        if held == -1.0 and rules[3]:
            held = 0.0
        held = 1.0 if rules[0] else -1.0 if rules[2] else held
        path.append(held)
    return path


@pytest.mark.slow
def test_the_strength_index_is_a_bet_on_reversal(market: Market):
    """RSI = 100 - 100 / (1 + gains / losses), by the definition of Wilder with plain means."""
    move = pd.Series(market.close).diff()
    gains, losses = move.clip(lower=0).rolling(14).mean(), (-move).clip(lower=0).rolling(14).mean()
    index = 100.0 - 100.0 / (1.0 + gains / losses)
    expected = walk_rules(index < 35, index > 50, index > 70, index < 50)
    found = rsi(market, 14, 35, 70)
    assert found.tolist() == expected
    assert set(expected) == {-1.0, 0.0, 1.0}


@pytest.mark.slow
def test_bollinger_bands_are_a_bet_on_reversal(market: Market):
    """Bands of two deviations (of the whole, ddof 0) around the mean of 20 closes."""
    close = pd.Series(market.close)
    middle, deviation = close.rolling(20).mean(), close.rolling(20).std(ddof=0)
    lower, upper = middle - 2 * deviation, middle + 2 * deviation
    expected = walk_rules(close < lower, close > middle, close > upper, close < middle)
    found = bollinger(market)
    assert found.tolist() == expected
    assert set(expected) == {-1.0, 0.0, 1.0}
    assert (-bollinger(market, sides="short")).tolist() == np.maximum(-found, 0.0).tolist()


# ----- in a run -----


@pytest.mark.slow
def test_a_run_trades_a_signal_at_the_open_after_its_bar(market: Market):
    signal = bt.signals.ma_cross(market, 10, 50)
    result = live(market, Constant(leverage=2.0), signal=signal, compile=False)
    held = np.sign(result.bars["position"].to_numpy())
    assert held[1:].tolist() == signal.to_numpy()[:-1].tolist()


def test_daily_values_on_hourly_bars_are_refused_without_a_word_on_when_they_were_known():
    """They would be flat but for one bar a day, and stamped a day before they are known."""
    market = bt.Market.sample(bars=480)
    days = pd.date_range(market.times[0], periods=20, freq="1D")
    daily = pd.Series(1.0, index=days)
    with pytest.raises(bt.ParameterError, match="got 20 for 457"):
        bt.signals.from_series(market, daily)
    assert (bt.signals.from_series(market, daily, carry=True) == 1.0).all()
