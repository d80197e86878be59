"""Directions for ``bt.run(signal=...)``: from named rules, a Series, or a function.

Each returns a Series by the opens of the market's bars, in [-1, 1]: 1 long, -1 short, 0 flat; for
several instruments a frame of weights, of a rule the direction of each times 1/n, where n can be
traded. The signal of a bar is known at its close and trades at the next open. Unknown values (NaN)
are flat. The values of a function are compared with those it computes when the market ends earlier,
to find functions that look ahead. A :class:`SignalRule` has named parameters that sweeps and
searches vary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, dataclass_transform

import numpy as np

from backtest import core
from backtest import market as m
from backtest.core.code_names import pd
from backtest.indicators import average_wilder
from backtest.market import Market, Markets
from backtest.policies import Parameterized, freeze
from backtest.signals.computed import compute_signal, keep_sides, write_note

LONGEST_WHOLE = 1e15
"""Size below which a whole number is written without a point or an exponent."""


@dataclass_transform(frozen_default=True)
class SignalRule(Parameterized):
    """The base of all signal rules; a subclass becomes a frozen dataclass of its parameters.

    Declare parameters as those of a policy, ``window: Annotated[int, Range(1, 1000, "bars")] = 9``,
    and define ``direction(self, market)``, which returns one number in [-1, 1] per bar, known at
    the bar's close: 1 long, -1 short, NaN or 0 flat. Rules between parameters go into ``check``.

    Raises
    ------
    ParameterError
        If a parameter is unknown, out of range or of the wrong type.

    Examples
    --------
    >>> from backtest.signals.rules import Rsi
    >>> Rsi(low=25).text()
    'rsi:14:25:70'
    """

    def __init_subclass__(cls) -> None:
        freeze(cls)

    def text(self) -> str:
        """Return the rule as a text, ``rsi:14:30:70``: its parameters in order.

        Words and flags at the end are left out while they are at their defaults.
        """
        values = self.settings()
        parameters = list(self.parameters().values())
        for parameter in reversed(parameters):
            is_word = parameter.kind in (bool, str)
            is_usual = values[parameter.name] == parameter.default
            if not (is_word and is_usual):
                break
            del values[parameter.name]

        words = map(write_word, values.values())
        return ":".join([self.title(), *words])

    def direction(self, market: Market) -> Any:  # noqa: ARG002 - for subclasses
        """Return one number in [-1, 1] per bar, each known at its bar's close; NaN is flat."""
        raise core.ParameterError(
            f"{type(self).__name__} must define direction(self, market), which returns a number in "
            "[-1, 1] per bar"
        )

    @core.checked
    def compute(self, market: Market) -> core.FloatArray:
        """Return the signal of shape (n_bars,), 0 where unknown, without a check for lookahead."""
        signal = compute_signal(
            market,
            self.direction,
            name=self.text(),
            is_checked=False,
        )
        return np.array(signal)

    @core.checked
    def apply(self, market: Market) -> pd.Series:
        """Return the signal by ``market.times``, checked for lookahead as columns are."""
        name = self.text()
        signal: pd.Series = compute_signal(market, self.direction, name=name)
        return write_note(signal, text=name)

    @core.checked
    def weigh(self, markets: Markets, *, is_checked: bool = True) -> pd.DataFrame:
        """Return the weights of several instruments by ``markets.times`` and name.

        The weight of an instrument is its direction times 1/n, n of them that can be traded.
        Without ``is_checked`` there is no check for lookahead. Raises as :meth:`apply` does.
        """
        name = self.text()
        frame: pd.DataFrame = compute_signal(
            markets,
            self._find_weights,
            name=name,
            is_checked=is_checked,
        )
        return write_note(frame, text=name)

    def _find_weights(self, markets: Markets) -> Any:
        """Return the directions of all instruments, each over how many can be traded at the bar."""
        directions = {}
        for name, market in markets.items():
            values = self.compute(market)
            directions[name] = pd.Series(values, index=market.times)

        n_tradable = markets.tradable().sum(axis=0)
        divisors = np.maximum(n_tradable, 1)
        table = pd.DataFrame(directions, markets.times)
        return table.fillna(0.0).div(divisors, axis=0)


def write_word(value: object) -> str:
    """Return a parameter as a word of a rule's text: whole numbers without a point."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < LONGEST_WHOLE:
        return str(int(value))
    return str(value)


Window = Annotated[int, core.Range(1, 100_000, "bars", log=True)]
TradedSides = Annotated[str, core.Choice("both", "long", "short")]


class MaCross(SignalRule):
    """Long while the fast moving average of closes is over the slow one, short under it.

    sign(MA_fast - MA_slow); flat until the slow average is known. With ``ewm`` the averages are
    exponentially weighted with these spans, by recursion.
    """

    fast: Window = 24
    slow: Window = 168
    sides: TradedSides = "both"
    ewm: bool = False

    def faults(self) -> core.Faults:
        """Require that fast lies below slow; the opposite is the negative of the signal."""
        if not self.fast < self.slow:
            yield "fast", f"must be below slow {self.slow}"

    @core.checked
    def direction(self, market: Market) -> core.FloatArray:
        """Return the sign of the difference of the averages."""
        fast = average(closes(market), self.fast, ewm=self.ewm)
        slow = average(closes(market), self.slow, ewm=self.ewm)
        gap = (fast - slow).to_numpy()
        return keep_sides(np.sign(gap), self.sides)


class Rsi(SignalRule):
    """Long from a relative strength index under ``low`` until one over ``high``.

    Short, where ``sides`` has it, from over ``high`` until under ``low``: a bet on reversal. The
    index is 100 - 100 / (1 + gains / losses), with Wilder's averages: the mean of the first
    ``window`` moves, then each bar 1/window of the new move and the rest of the average before.
    Source: Wilder (1978), New Concepts in Technical Trading Systems.
    """

    window: Window = 14
    low: Annotated[float, core.Range(0.0, 50.0)] = 30.0
    high: Annotated[float, core.Range(50.0, 100.0)] = 70.0
    sides: TradedSides = "long"

    def direction(self, market: Market) -> core.FloatArray:
        """Return what a trader holds who bets on reversal, flat until the index is known."""
        # The average rise and the average fall, each over all bars of the window.
        move = closes(market).diff()
        rises = move.clip(lower=0.0).to_numpy()
        falls = (-move).clip(lower=0.0).to_numpy()
        gains = average_wilder(rises, self.window)
        losses = average_wilder(falls, self.window)

        # The relative strength index, from 0 to 100.
        strength = pd.Series(gains) / pd.Series(losses)
        index = 100.0 - 100.0 / (1.0 + strength)

        # A bet on reversal: long after a low index until a high one, short the other way round.
        is_low = index < self.low
        is_high = index > self.high
        long = hold_between(is_low, is_high)
        short = hold_between(is_high, is_low)
        return keep_sides(long - short, self.sides)


class Bollinger(SignalRule):
    """Long after a close under the lower Bollinger band, until one over the middle.

    Short after a close over the upper band, until one under the middle: a bet on reversal. The
    bands are ``width`` standard deviations (of the whole window, ddof 0) around the mean. Source:
    Bollinger (2001), Bollinger on Bollinger Bands.
    """

    window: Window = 20
    width: Annotated[float, core.Range(0.01, 100.0, "deviations", log=True)] = 2.0
    sides: TradedSides = "both"

    def direction(self, market: Market) -> core.FloatArray:
        """Return what a trader holds who bets on reversal from either band."""
        price = closes(market)
        middle = average(price, self.window, ewm=False)
        deviation = price.rolling(self.window).std(ddof=0)
        half_band = self.width * deviation

        # From beyond a band back to the middle.
        long = hold_between(price < middle - half_band, price > middle)
        short = hold_between(price > middle + half_band, price < middle)
        return keep_sides(long - short, self.sides)


class Breakout(SignalRule):
    """Long from a close over the highest high of a channel, short from one under its lowest low.

    The direction holds until the opposite breakout. The channel is that of the ``window`` bars
    before the bar. Source: Donchian (1960), High Finance in Copper.
    """

    window: Window = 48
    sides: TradedSides = "both"

    def direction(self, market: Market) -> core.FloatArray:
        """Return the side of the last breakout, 0 before the first."""
        price = closes(market)
        high = pd.Series(market.high)
        low = pd.Series(market.low)
        highs = high.rolling(self.window).max()
        lows = low.rolling(self.window).min()

        # The bar itself is not part of the range that it breaks out of.
        is_above = price > highs.shift(1)
        is_below = price < lows.shift(1)
        long = hold_between(is_above, is_below)
        short = hold_between(is_below, is_above)
        return keep_sides(long - short, self.sides)


RULES: dict[str, type[SignalRule]] = {
    rule.title(): rule for rule in (MaCross, Rsi, Bollinger, Breakout)
}


def closes(market: Market) -> pd.Series:
    """Return the closes as a Series by number."""
    return pd.Series(market.close)


def average(values: pd.Series, window: int, *, ewm: bool) -> pd.Series:
    """Return the mean of the last values, or the weighted one with this span; NaN until full."""
    if ewm:
        return values.ewm(span=window, adjust=False, min_periods=window).mean()
    return values.rolling(window).mean()


def hold_between(enter: Any, leave: Any) -> core.FloatArray:
    """Return 1 from each bar that enters to the next that leaves, else 0; leaving wins in a tie."""
    entries = np.where(np.asarray(enter), 1.0, np.nan)
    events = np.where(np.asarray(leave), 0.0, entries)
    held = pd.Series(events).ffill().fillna(0.0)
    return np.asarray(held, dtype=np.float64)


def resolve_signal(signal: Any, market: Market | Markets) -> Any:
    """Return a signal as values: those of a rule, by name or as it is, else what was given."""
    named = read_named(signal, market)
    if not isinstance(named, SignalRule):
        return named
    seen = m.find_clock(market).seen
    if isinstance(seen, Markets):
        return named.weigh(seen)
    return named.apply(seen)


def read_named(signal: Any, market: Market | Markets) -> Any:
    """Return the column or the rule that a text names; any other signal as it is."""
    if not isinstance(signal, str):
        return signal

    # Several markets have no columns of their own.
    seen = m.find_clock(market).seen
    columns: Mapping[str, Any] = {}
    if not isinstance(seen, Markets):
        columns = seen.columns
    if signal in columns:
        values = pd.Series(columns[signal], index=seen.times, name="signal")
        return write_note(values, text=f"column {signal}")
    return read_rule(signal, columns=columns)


def read_rule(
    text: str,
    settings: Mapping[str, object] | None = None,
    *,
    columns: Mapping[str, object] | None = None,
) -> SignalRule:
    """Return the rule of a text such as ``rsi:14:30:70``; ``settings`` are more parameters.

    ``columns`` are those of the bars, which the error for an unknown name lists.
    """
    name, *words = text.split(":")
    if name not in RULES:
        known = list(columns or ())
        raise core.ParameterError(
            "signal must be a number from -1 to 1, a further column of the bars "
            f"({', '.join(known) or 'none'}) or a rule, {', '.join(RULES)}, as in rsi:14:30:70, "
            f"got {text!r}{core.did_you_mean(name, [*known, *RULES])}"
        )

    parameters = list(RULES[name].parameters())
    if len(words) > len(parameters):
        form = ":".join([name, *map(str.upper, parameters)])
        raise core.ParameterError(f"signal must be {form}, got {text!r}")
    by_place: dict[str, object] = dict(zip(parameters, words, strict=False))
    try:
        return RULES[name].from_settings({**by_place, **(settings or {})})
    except core.ParameterError as error:
        raise core.ParameterError(f"signal {text!r}: {error}") from error
