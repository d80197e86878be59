"""Directions for ``bt.run(signal=...)``: from named rules, a Series, or a function.

Each returns a Series by the opens of the market's bars, in [-1, 1]: 1 long, -1 short, 0 flat; for
several instruments a frame of weights, of a rule the direction of each times 1/n, where n can be
traded. The signal of a bar is known at its close and trades at the next open. Unknown values (NaN)
are flat. The values of a function are compared with those it computes when the market ends earlier,
to find functions that look ahead. A :class:`SignalRule` has named parameters that sweeps and
searches vary.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, TypeVar, dataclass_transform

import numpy as np

from backtest import core
from backtest import market as m
from backtest._compile.bytecode import format_location
from backtest.core.code_names import is_frame, is_series, pd
from backtest.indicators import average_wilder
from backtest.market import Market, Markets
from backtest.policies import Parameterized, freeze
from backtest.policies.lookahead import TOLERANCE, LookAheadCheck, describe_cuts

SignalT = TypeVar("SignalT", "pd.Series[float]", "pd.DataFrame")

NOTE = "backtest.signal"
CARRY_SERIES = f"{m.CARRIED}bt.signals.from_series(market, signal.shift(1), carry=True)"
NOT_CHECKED = "signal not checked: it was given as data"


def write_note(signal: SignalT, **facts: Any) -> SignalT:
    """Keep facts in a signal with the hash of its values, after whose change they are void."""
    known = {**read_note(signal), **facts}
    signal.attrs[NOTE] = {**known, "sha256": hash_values(np.asarray(signal))}
    return signal


def read_note(signal: object, *, or_negative: bool = False) -> dict[str, Any]:
    note = signal.attrs.get(NOTE) if is_series(signal) or is_frame(signal) else None
    if not isinstance(note, dict):
        return {}
    values = np.asarray(signal, dtype=np.float64)
    hashes = [hash_values(values), *([hash_values(-values)] if or_negative else [])]
    return note if note.get("sha256") in hashes else {}


def describe_signal_check(signal: object) -> str:
    if signal is None or np.ndim(signal) == 0:  # type: ignore[arg-type]
        return ""
    cuts = read_note(signal, or_negative=True).get("cuts")
    return describe_cuts("signal", int(cuts)) if cuts else NOT_CHECKED


def join_checks(columns: object, signal: object) -> str:
    return "; ".join(filter(None, (str(columns), describe_signal_check(signal))))


def hash_values(values: core.FloatArray) -> str:
    return hashlib.sha256((np.asarray(values, dtype=np.float64) + 0.0).tobytes()).hexdigest()


Sides: TypeAlias = Literal["both", "long", "short"]


def require_unit(
    name: str, values: core.FloatArray, is_bad: core.BoolArray, market: Market, cure: str = ""
) -> None:
    bad = np.flatnonzero(is_bad)
    if len(bad):
        raise core.ParameterError(
            f"{name} must lie in [-1, 1], got {float(values[bad[0]])!r} in {len(bad)} of "
            f"{market.n_bars} bars, first at {core.format_time(int(market.time[bad[0]]))} UTC{cure}"
        )


def make_signal(
    market: Market, raw: core.FloatArray, sides: Sides, name: str = "signal"
) -> pd.Series:
    require_unit(name, raw, np.abs(raw) > 1.0, market)
    values = np.where(np.isnan(raw), 0.0, raw)
    return pd.Series(keep_sides(values, sides), index=market.times, name="signal")


def compute_signal(
    market: Any,
    function: Callable[[Any], Any],
    sides: Sides = "both",
    *,
    name: str = "",
    is_checked: bool = True,
) -> Any:
    name = name or getattr(function, "__name__", type(function).__name__)
    title, names = f"the signal {name}", getattr(market, "names", ("",))

    def observe_part(part: Any) -> dict[str, core.FloatArray] | None:
        try:
            answer = function(part)
        except core.RAISED:  # of too few bars; the whole raises it again
            return None
        return read_answer(answer, part, title, names)

    def observe_whole() -> dict[str, core.FloatArray]:
        try:
            answer = function(market)
        except core.BacktestError:
            raise
        except core.RAISED as error:
            also = "; instruments that are not listed yet are missing in them"
            also *= isinstance(market, Markets)
            inner = function.func if isinstance(function, functools.partial) else function
            is_code = hasattr(inner, "__code__")
            place = format_location(error, inner) if is_code else core.repr_plain(function)
            raise core.PolicyError(
                f"{title} raised {type(error).__name__}: {error}, in {place}, given "
                f"{market.n_bars} bars; it also receives other parts of the market{also}"
            ) from error
        return read_answer(answer, market, title, names)

    # of a function, or of the rule that it is a method of
    tolerance = float(getattr(getattr(function, "__self__", function), "tolerance", TOLERANCE))
    check = LookAheadCheck(title, observe_part, market, tolerance)
    columns = check.run(observe_whole) if is_checked else observe_whole()
    if isinstance(market, Markets):
        weights = m.read_weights(pd.DataFrame(columns, index=market.times), market)
        signal: Any = m.weights_to_frame(keep_sides(weights, sides, np.inf), market)
    else:
        signal = make_signal(market, columns[""], sides, title)
    return write_note(signal, cuts=check.causality.cuts) if is_checked else signal


def read_answer(
    answer: Any, market: Any, title: str, names: Sequence[str]
) -> dict[str, core.FloatArray]:
    """Return the answer of a function as arrays of one number per bar, by instrument."""
    if isinstance(market, Markets):
        is_odd = is_frame(answer) and not is_by_bars(answer, market)
        if is_odd or not isinstance(answer, pd.DataFrame | np.ndarray | Mapping):
            problem = f"frame of {len(answer)} by other times" if is_odd else type(answer).__name__
            raise core.PolicyError(
                f"{title} must return a frame by markets.times and name, or an array of shape "
                f"(n_bars, n_instruments), returned a {problem}"
            )
        columns = {name: np.zeros(market.n_bars) for name in names}
        raw = m.read_raw_weights(answer, market, argument=title)
        for name, own, (first, stop) in zip(market.names, raw, market.spans, strict=True):
            columns[name][first:stop] = own[first:stop]
        return columns
    is_by_time = is_series(answer)
    values = core.to_numbers(answer, title)
    if values.shape != (market.n_bars,) or (is_by_time and not is_by_bars(answer, market)):
        problem = "a Series by other times" if is_by_time else f"shape {values.shape}"
        raise core.PolicyError(
            f"{title} must return one number per bar, {market.n_bars}, as an array or a "
            f"Series by market.times, returned {problem}"
        )
    return {"": values}


def is_by_bars(answer: pd.Series | pd.DataFrame, market: Market | Markets) -> bool:
    index = core.as_dates(answer.index)
    if isinstance(index, pd.DatetimeIndex):
        return index.equals(market.times)
    return is_series(answer) and isinstance(answer.index, pd.RangeIndex)


def read_signal(signal: object, market: Market, first: int = 0) -> core.FloatArray:
    """Return the signal as an array of shape (n_bars,), or (1,) for a constant, checked."""
    n = market.n_bars
    if signal is None:
        return np.ones(1)
    if np.ndim(signal) == 0:  # type: ignore[arg-type]
        return np.array([core.check_range("signal", signal, low=-1.0, high=1.0)])
    if is_series(signal):
        signal = core.by_dates(signal)
        m.read_dates(signal.index, "signal", m.BY_BARS)
        values = core.to_numbers(signal.reindex(market.times), "signal")
    else:
        values = core.to_numbers(signal, "signal")
    if len(values) == n - first and first > 0:
        values = np.concatenate([np.full(first, np.nan), values])
    if values.shape != (n,):
        raise core.ParameterError(
            f"signal must have one value per bar, {n}, got {values.shape}; give a Series indexed "
            "as market.times"
        )
    is_late = np.arange(n) >= first
    require_unit(
        "signal", values, ~(np.abs(values) <= 1.0) & is_late, market, suggest(signal, values)
    )
    return np.ascontiguousarray(values)


def suggest(signal: object, values: core.FloatArray) -> str:
    if (np.abs(values) > 1.0).any():
        return "; np.clip(signal, -1, 1)"
    if not is_series(signal):
        return "; flat where it is unknown: np.nan_to_num(signal)"
    if 2 * np.isnan(values).sum() < len(values):
        return "; flat where it is unknown: bt.signals.from_series(market, signal)"
    return f"; {CARRY_SERIES}"


def cut_rows(given: Any, whole: Market | Markets, part: Market | Markets) -> Any:
    """Return the rows of a signal of a market that are of a part of it, with its note."""
    if isinstance(given, pd.Series | pd.DataFrame):
        given = core.by_dates(given)
        index, time = given.index, core.utc_index(part.time)
        if not isinstance(index, pd.DatetimeIndex) or index.tz is None:
            return given  # refused where it is read
        note, is_kept = read_note(given), index < time[-1] + pd.Timedelta(part.interval)
        if part.start > whole.start:
            is_kept &= index >= time[0]
        kept: Any = given[is_kept]
        return write_note(kept, **note) if note else kept
    if not isinstance(given, np.ndarray | list | tuple):
        return given
    known, own = (m.find_clock(each).seen.time for each in (whole, part))
    first = int(np.searchsorted(known, own[0]))
    gone = len(known) - first - len(own)
    return given[min(first, len(given)) : max(len(given) - gone, 0)]


def describe_weights(signal: Any, values: core.FloatArray) -> str:
    if len(np.atleast_2d(values)) == 1 and (signal is None or np.ndim(signal) == 0):
        return f"constant {values.flat[-1]:g}"
    if signal is None:
        return "equal weights"
    name = read_note(signal).get("text") or (
        "series" if values.ndim == 1 or np.ndim(signal) == 1 else "frame"
    )
    return f"{name} sha256:{hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()}"


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
        for parameter in reversed(list(self.parameters().values())):
            is_plain = parameter.kind in (bool, str) and values[parameter.name] == parameter.default
            if not is_plain:
                break
            del values[parameter.name]
        words = [self.title()]
        for value in values.values():
            is_whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e15
            text = str(int(value) if is_whole else value)
            words.append(text.lower() if isinstance(value, bool) else text)
        return ":".join(words)

    def direction(self, market: Market) -> Any:  # noqa: ARG002 - for subclasses
        """Return one number in [-1, 1] per bar, each known at its bar's close; NaN is flat."""
        raise core.ParameterError(
            f"{type(self).__name__} must define direction(self, market), which returns a number in "
            "[-1, 1] per bar"
        )

    @core.checked
    def compute(self, market: Market) -> core.FloatArray:
        """Return the signal of shape (n_bars,), 0 where unknown, without a check for lookahead."""
        return np.array(compute_signal(market, self.direction, name=self.text(), is_checked=False))

    @core.checked
    def apply(self, market: Market) -> pd.Series:
        """Return the signal by ``market.times``, checked for lookahead as columns are."""
        name = self.text()
        return write_note(compute_signal(market, self.direction, name=name), text=name)

    @core.checked
    def weigh(self, markets: Markets, *, is_checked: bool = True) -> pd.DataFrame:
        """Return the weights of several instruments by ``markets.times`` and name.

        The weight of an instrument is its direction times 1/n, n of them that can be traded.
        Without ``is_checked`` there is no check for lookahead. Raises as :meth:`apply` does.
        """
        name = self.text()
        frame: pd.DataFrame = compute_signal(
            markets, self._find_weights, name=name, is_checked=is_checked
        )
        return write_note(frame, text=name)

    def _find_weights(self, markets: Markets) -> Any:
        count = np.maximum(markets.tradable().sum(axis=0), 1)
        directions = {
            name: pd.Series(self.compute(market), index=market.times)
            for name, market in markets.items()
        }
        return pd.DataFrame(directions, markets.times).fillna(0.0).div(count, axis=0)


class Directions(NamedTuple):
    """A signal as it was given, and its values at the bars that policies see of a market.

    ``values`` are of shape (n_bars,), (1,) for a constant, or (n_instruments, n_bars).
    """

    given: Any
    values: core.FloatArray
    market: Any

    def describe(self) -> str:
        return describe_weights(self.given, self.values)

    def keep_times(self) -> Any:
        copy: Any
        if self.values.ndim == 2:
            copy = None if self.given is None else m.weights_to_frame(self.values, self.market)
        elif len(self.values) == 1:
            copy = float(self.values[0])
        else:
            copy = pd.Series(self.values, index=self.market.times)
        if isinstance(self.given, pd.Series | pd.DataFrame) and NOTE in self.given.attrs:
            copy.attrs[NOTE] = self.given.attrs[NOTE]
        return copy


def read_directions(signal: Any, market: Market | Markets, first: int = 0) -> Directions:
    """Return the signal on the bars of policies; before bar ``first`` it may be unknown."""
    clock = m.find_clock(market)
    read = m.read_weights if isinstance(clock.seen, Markets) else read_signal
    return Directions(signal, read(signal, clock.seen, first=clock.at(first)), clock.seen)


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
        one, two = (average(closes(market), n, ewm=self.ewm) for n in (self.fast, self.slow))
        return keep_sides(np.sign((one - two).to_numpy()), self.sides)


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
        move = closes(market).diff()
        gains, losses = (
            pd.Series(average_wilder(each.clip(lower=0.0).to_numpy(), self.window))
            for each in (move, -move)
        )
        index = 100.0 - 100.0 / (1.0 + gains / losses)
        is_low, is_high = index < self.low, index > self.high
        return keep_sides(hold_between(is_low, is_high) - hold_between(is_high, is_low), self.sides)


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

    def direction(self, market: Market) -> core.FloatArray:
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


def hold_between(enter: Any, leave: Any) -> core.FloatArray:
    events = np.where(np.asarray(leave), 0.0, np.where(np.asarray(enter), 1.0, np.nan))
    return np.asarray(pd.Series(events).ffill().fillna(0.0), dtype=np.float64)


def keep_sides(values: core.FloatArray, sides: str, most: float = 1.0) -> core.FloatArray:
    low, high = 0.0 if sides == "long" else -most, 0.0 if sides == "short" else most
    return np.clip(values, low, high)


def resolve_signal(signal: Any, market: Market | Markets) -> Any:
    named, seen = read_named(signal, market), m.find_clock(market).seen
    if not isinstance(named, SignalRule):
        return named
    return named.weigh(seen) if isinstance(seen, Markets) else named.apply(seen)


def read_named(signal: Any, market: Market | Markets) -> Any:
    if not isinstance(signal, str):
        return signal
    seen = m.find_clock(market).seen
    columns = {} if isinstance(seen, Markets) else seen.columns
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
    name, *words = text.split(":")
    if name not in RULES:
        known = ", ".join(columns or ()) or "none"
        raise core.ParameterError(
            f"signal must be a number from -1 to 1, a further column of the bars ({known}) or a "
            f"rule, {', '.join(RULES)}, as in rsi:14:30:70, got {text!r}"
            + core.did_you_mean(name, [*(columns or ()), *RULES])
        )
    declared = list(RULES[name].parameters())
    if len(words) > len(declared):
        raise core.ParameterError(
            f"signal must be {':'.join([name, *(each.upper() for each in declared)])}, got {text!r}"
        )
    given: dict[str, object] = dict(zip(declared, words, strict=False))
    try:
        return RULES[name].from_settings({**given, **(settings or {})})
    except core.ParameterError as error:
        raise core.ParameterError(f"signal {text!r}: {error}") from error


def find_carried(stamps: core.IntArray, market: Market | Markets) -> core.IntArray:
    """Return the last of some ordered stamps before the close of each bar, -1 for none."""
    before, after = stamps[stamps < market.start], stamps[stamps >= market.end]
    what = "rows of the carried signal lie outside the market"
    if before.size:
        what += f", whose first bars hold the row of {core.format_time(int(before[-1]))}"
    # the first after the end is not counted: it is known when the last of longer bars is over
    end = int(after[0]) + 1 if after.size else market.end
    core.warn_of_outside(what, stamps, market.start, end)
    return np.searchsorted(stamps, market.time + market.interval, side="left") - 1


Fills: TypeAlias = Literal["close", "open"]


@core.checked_only("sides", "carry")
def from_series(
    market: Market, series: pd.Series, sides: Sides = "both", *, carry: bool = False
) -> pd.Series:
    """Return a Series by UTC time as a signal.

    Parameters
    ----------
    market : Market
        Whose bars it is for.
    series : Series
        Numbers in [-1, 1], or True and False for long and flat; NaN is flat.
    sides : str
        ``"both"``, ``"long"`` or ``"short"``.
    carry : bool
        False: each stamp is the open of one of the market's bars, and the value was made of
        nothing after that bar's close; bars without a value are flat. True: each stamp is the
        moment from which the value is known, and it holds until the next: for slower bars
        stamped at their open, add their length to the index, ``daily.set_axis(daily.index +
        pd.Timedelta("1D"))``.

    Returns
    -------
    Series of shape (n_bars,)

    Notes
    -----
    With ``carry`` a bar takes the last value stamped before its close, never at it. Without it,
    values for fewer than half of the bars between the first stamp and the last are refused: they
    are mostly those of longer bars, known only when these close.
    """
    market = m.unwrap_market(
        market,
        "a signal of this kind is of one market (call it for each, markets[name], or use "
        "from_frame or from_function)",
    )
    if not is_series(series):
        raise core.ParameterError(
            f"signal must be a Series by time, got a {type(series).__name__}; give "
            "pd.Series(values, index=market.times)"
        )
    stamps = m.read_dates(series.index, "signal", m.BY_BARS)
    values = core.to_numbers(series, "signal")
    if not series.index.is_monotonic_increasing:
        raise core.ParameterError(
            "signal must be in order of time, its index goes back; sort_index()"
        )
    if carry:
        last = find_carried(stamps, market)
        return make_signal(market, np.where(last >= 0, values[last], np.nan), sides)
    m.check_bars(stamps, market, "signal", CARRY_SERIES)
    warn_of_weights(series, m.as_markets(market))
    return make_signal(market, pd.Series(values, stamps).reindex(market.time).to_numpy(), sides)


@core.checked_only("sides", "carry")
def from_frame(
    markets: Markets, frame: pd.DataFrame, sides: Sides = "both", *, carry: bool = False
) -> pd.DataFrame:
    """Return weights by UTC time and instrument as the signal of several instruments.

    Parameters
    ----------
    markets : Markets
        Whose bars it is for.
    frame : DataFrame
        Direction times weight, NaN for flat; the columns are names of instruments.
    sides : str
        ``"both"``, ``"long"`` or ``"short"``.
    carry : bool
        As in :func:`from_series`: True if each stamp is the moment from which its row is known.

    Returns
    -------
    DataFrame of shape (n_bars, n_instruments)
        0 where flat, and where an instrument cannot be traded.
    """
    m.require_panel(markets)
    if not is_frame(frame):
        raise core.ParameterError(
            f"weights must be a frame by time and instrument, were a {type(frame).__name__}; give "
            "pd.DataFrame(values, index=markets.times, columns=markets.names)"
        )
    given = frame
    if carry:
        named = m.name_columns(frame, markets, "signal")
        order = np.argsort(stamps := m.read_dates(named.index, "signal"), kind="stable")
        last = find_carried(stamps[order], markets)
        carried = named.iloc[order[last]].set_axis(markets.times)
        given = carried.where(pd.Series(last >= 0, index=markets.times), np.nan)
    weights = m.read_weights(given, markets)
    warn_of_weights(given, markets)
    return m.weights_to_frame(keep_sides(weights, sides, np.inf), markets)


@core.checked_only("market", "sides")
def from_function(
    market: Market | Markets, function: Callable[[Any], Any], sides: Sides = "both"
) -> Any:
    """Return the signal that a function computes from the market, checked for lookahead.

    Parameters
    ----------
    market : Market or Markets
        Whose bars it is for.
    function : callable
        Takes a market; returns one number in [-1, 1] per bar, as a Series by ``market.times`` or an
        array, True and False for long and flat; NaN is flat. Of several instruments it takes the
        markets and returns weights, as a frame by ``markets.times`` and name or an array of shape
        (n_bars, n_instruments); in a part of the panel, instruments that are not listed yet are
        missing.
    sides : str
        ``"both"``, ``"long"`` or ``"short"``.

    Returns
    -------
    Series of shape (n_bars,), or DataFrame of shape (n_bars, n_instruments)

    Raises
    ------
    PolicyError
        If it raises, looks ahead, or returns something else.

    Notes
    -----
    The market is cut at some 56 bars, and the values up to a cut must be the same whether the
    market ends there or goes on. Cuts are spread over the market, before large moves, where the
    signal changes, and at ends of days. They are a sample, not a proof: a function that looks ahead
    rarely, and elsewhere, is not found. See :mod:`backtest.policies.lookahead`.

    Examples
    --------
    >>> market = Market.sample(bars=48)
    >>> rising = from_function(market, lambda seen: seen.bars()["close"].diff() > 0, "long")
    >>> int(rising.sum())
    25
    """
    return compute_signal(market, function, sides)


@core.checked_only("fills", "sized")
def from_vectorbt(portfolio: Any, fills: Fills = "close", *, sized: bool = False) -> pd.Series:
    """Return what a portfolio of vectorbt held as a signal.

    Parameters
    ----------
    portfolio : vectorbt.Portfolio
        Of one column, and not grouped; its index is in UTC.
    fills : str
        ``"close"``: its orders filled at the close of their bar, where they were decided, as
        vectorbt does by default; the signal of a bar is what was held at its close. ``"open"``:
        they filled at the open, decided at the close before; the signal comes a bar earlier.
    sized : bool
        False for the direction, -1, 0 or 1; True for the share of its value that was invested, cut
        to [-1, 1].

    Returns
    -------
    Series of shape (n_bars,)
        By UTC time. It is data: a run says that it was not checked for lookahead.
    """
    if not (hasattr(portfolio, "asset_value") and hasattr(portfolio, "wrapper")):
        raise core.ParameterError(
            f"portfolio must be a vectorbt.Portfolio, got a {type(portfolio).__name__}"
        )
    held, worth = portfolio.asset_value(), portfolio.value()
    if np.ndim(held) != 1 or np.ndim(worth) != 1:
        raise core.ParameterError(
            f"portfolio must have one column, portfolio['name'], got {np.shape(held)[1:]}"
        )
    index = portfolio.wrapper.index
    stamps = core.read_stamps(
        index, name="the portfolio", timezone="UTC", error=core.ParameterError
    )
    money, wealth = (np.asarray(each, dtype=np.float64) for each in (held, worth))
    share = np.divide(money, wealth, out=np.zeros(len(money)), where=wealth > 0.0)
    values = np.clip(share, -1.0, 1.0) if sized else np.sign(share)
    if fills == "open":
        values = np.append(values[1:], values[-1:])
    return pd.Series(values + 0.0, index=core.utc_index(stamps), name="signal")


def warn_of_weights(signal: object, markets: Markets) -> None:
    signal = core.by_dates(signal)
    index = getattr(signal, "index", None)
    is_table = is_series(signal) or is_frame(signal)
    if is_table and isinstance(index, pd.DatetimeIndex):
        stamps = core.read_stamps(index, name="signal", error=core.ParameterError)
        what = "rows of the signal lie outside the market and are not used"
        core.warn_of_outside(what, stamps, markets.start, markets.end)
    frame: Any = None
    if is_frame(signal):
        frame, times = signal, m.find_clock(markets).seen.times[:-1]
        has_row = np.asarray(times.isin(frame.index))
        lacking, rows = np.flatnonzero(~has_row & (np.cumsum(has_row) > 0)), int(has_row.sum())
        if len(lacking):
            core.warn_caller(
                f"the weights have {rows:,} row{'s' * (rows != 1)}, and the {len(lacking):,} bars "
                f"without one are flat, first at {times[lacking[0]]:%Y-%m-%d %H:%M} UTC; "
                f"{m.CARRY}, or --carry-weights if so",
                core.WeightWarning,
            )
    elif isinstance(signal, np.ndarray) and signal.ndim == 2:
        frame = pd.DataFrame(signal, columns=[*markets.names])
    if frame is None or not len(frame):
        return
    if unknown := [str(name) for name in frame.columns[frame.isna().all()]]:
        core.warn_caller(
            f"the weights of {', '.join(unknown)} are NaN in all {len(frame):,} rows, which "
            "trades nothing; give numbers, 0 for flat, or leave the column out",
            core.WeightWarning,
        )
