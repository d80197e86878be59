"""Signal rules: moving averages, relative strength, Bollinger bands, breakouts; signals by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import pandas as pd

from backtest.base import Choice, FloatArray, ParameterError, Range, checked, did_you_mean
from backtest.engine.directions import choose_directions
from backtest.engine.signal_checks import name_signal
from backtest.engine.signal_rule import SignalRule
from backtest.market import Market, Markets, find_clock

Window = Annotated[int, Range(1, 100_000, "bars", log=True)]
TradedSides = Annotated[str, Choice("both", "long", "short")]


class MaCross(SignalRule):
    """Long while the fast moving average of closes is over the slow one, short under it.

    sign(MA_fast - MA_slow); flat until the slow average is known. With ``ewm`` the averages are
    exponentially weighted with these spans, by recursion.
    """

    fast: Window = 24
    slow: Window = 168
    sides: TradedSides = "both"
    ewm: bool = False

    def check(self) -> None:
        """Require that fast lies below slow."""
        if not self.fast < self.slow:
            raise ParameterError(
                f"fast must be below slow {self.slow}, got {self.fast}; for the opposite direction "
                "take the negative of the signal"
            )

    @checked
    def direction(self, market: Market) -> FloatArray:
        """Return the sign of the difference of the averages."""
        one, two = (average(closes(market), n, ewm=self.ewm) for n in (self.fast, self.slow))
        return keep_sides(np.sign((one - two).to_numpy()), self.sides)


class Rsi(SignalRule):
    """Long after the relative strength index was under ``low``, until it is over 50.

    Short after it was over ``high``, until it is under 50: a bet on reversal. The index is
    100 - 100 / (1 + gains / losses), with plain means over the window. Source: Wilder (1978), New
    Concepts in Technical Trading Systems.
    """

    window: Window = 14
    low: Annotated[float, Range(0.0, 50.0)] = 30.0
    high: Annotated[float, Range(50.0, 100.0)] = 70.0
    sides: TradedSides = "both"

    def direction(self, market: Market) -> FloatArray:
        """Return what a trader holds who bets on reversal from either end."""
        move = closes(market).diff()
        gains, losses = (
            average(each.clip(lower=0.0), self.window, ewm=False) for each in (move, -move)
        )
        index = 100.0 - 100.0 / (1.0 + gains / losses)
        long = hold_between(index < self.low, index > 50.0)
        return keep_sides(long - hold_between(index > self.high, index < 50.0), self.sides)


class Bollinger(SignalRule):
    """Long after a close under the lower Bollinger band, until one over the middle.

    Short after a close over the upper band, until one under the middle: a bet on reversal. The
    bands are ``width`` standard deviations (of the whole window, ddof 0) around the mean. Source:
    Bollinger (2001), Bollinger on Bollinger Bands.
    """

    window: Window = 20
    width: Annotated[float, Range(0.01, 100.0, "deviations", log=True)] = 2.0
    sides: TradedSides = "both"

    def direction(self, market: Market) -> FloatArray:
        """Return what a trader holds who bets on reversal from either band."""
        price = closes(market)
        middle = average(price, self.window, ewm=False)
        reach = self.width * price.rolling(self.window).std(ddof=0)
        long = hold_between(price < middle - reach, price > middle)
        short = hold_between(price > middle + reach, price < middle)
        return keep_sides(long - short, self.sides)


class Breakout(SignalRule):
    """Long from a close over the highest high of a channel, short from one under its lowest low.

    The direction holds until the opposite breakout. The channel is that of the ``window`` bars
    before the bar. Source: Donchian (1960), High Finance in Copper.
    """

    window: Window = 48
    sides: TradedSides = "both"

    def direction(self, market: Market) -> FloatArray:
        """Return the side of the last breakout, 0 before the first."""
        price = closes(market)
        top = pd.Series(market.high).rolling(self.window).max().shift(1)
        bottom = pd.Series(market.low).rolling(self.window).min().shift(1)
        long = hold_between(price > top, price < bottom)
        return keep_sides(long - hold_between(price < bottom, price > top), self.sides)


RULES: dict[str, type[SignalRule]] = {
    each.title(): each for each in (MaCross, Rsi, Bollinger, Breakout)
}


def closes(market: Market) -> pd.Series:
    return pd.Series(market.close)


def average(values: pd.Series, window: int, *, ewm: bool) -> pd.Series:
    if ewm:
        return values.ewm(span=window, adjust=False, min_periods=window).mean()
    return values.rolling(window).mean()


def hold_between(enter: Any, leave: Any) -> FloatArray:
    events = np.where(np.asarray(leave), 0.0, np.where(np.asarray(enter), 1.0, np.nan))
    return np.asarray(pd.Series(events).ffill().fillna(0.0), dtype=np.float64)


def keep_sides(values: FloatArray, sides: str) -> FloatArray:
    low, high = {"both": (-1.0, 1.0), "long": (0.0, 1.0), "short": (-1.0, 0.0)}[sides]
    return np.clip(values, low, high)


def resolve_signal(signal: Any, market: Market | Markets) -> Any:
    market = find_clock(market).seen
    named = read_text(signal, market) if isinstance(signal, str) else signal
    if not isinstance(named, SignalRule):
        return named
    return choose_directions(market).follow(named, market)


def read_named(signal: Any, market: Market | Markets) -> Any:
    return read_text(signal, find_clock(market).seen) if isinstance(signal, str) else signal


def read_text(text: str, seen: Market | Markets) -> Any:
    columns = choose_directions(seen).list_columns(seen)
    if text in columns:
        values = pd.Series(columns[text], index=seen.times, name="signal")
        return name_signal(values, f"column {text}")
    return read_rule(text, columns=columns)


def read_rule(
    text: str,
    settings: Mapping[str, object] | None = None,
    *,
    columns: Mapping[str, object] | None = None,
) -> SignalRule:
    name, *words = text.split(":")
    if name not in RULES:
        known = ", ".join(columns or ()) or "none"
        raise ParameterError(
            f"signal must be a number from -1 to 1, a further column of the bars ({known}) or a "
            f"rule, {', '.join(RULES)}, as in rsi:14:30:70, got {text!r}"
            + did_you_mean(name, [*(columns or ()), *RULES])
        )
    declared = list(RULES[name].parameters())
    if len(words) > len(declared):
        raise ParameterError(
            f"signal must be {':'.join([name, *(each.upper() for each in declared)])}, got {text!r}"
        )
    given: dict[str, object] = dict(zip(declared, words, strict=False))
    try:
        return RULES[name].from_settings({**given, **(settings or {})})
    except ParameterError as error:
        raise ParameterError(f"signal {text!r}: {error}") from error


def change_rule(rule: SignalRule, settings: Mapping[str, Any]) -> SignalRule:
    return type(rule)(**{**rule.settings(), **settings})
