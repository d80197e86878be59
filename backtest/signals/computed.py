"""Signals that functions compute: asked, checked for lookahead, and noted with their checks."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

import numpy as np

from backtest import core
from backtest import market as m
from backtest._compile.bytecode import format_location
from backtest.core.code_names import is_frame, is_series, pd
from backtest.market import Market, Markets
from backtest.policies.lookahead import TOLERANCE, LookAheadCheck, describe_cuts

SignalT = TypeVar("SignalT", "pd.Series[float]", "pd.DataFrame")
NOTE = "backtest.signal"
NOT_CHECKED = "signal not checked: it was given as data"
Sides: TypeAlias = Literal["both", "long", "short"]


def write_note(signal: SignalT, **facts: Any) -> SignalT:
    """Keep facts in a signal with the hash of its values, after whose change they are void."""
    known = {**read_note(signal), **facts}
    digest = hash_values(np.asarray(signal))
    signal.attrs[NOTE] = {**known, "sha256": digest}
    return signal


def read_note(signal: object, *, or_negative: bool = False) -> dict[str, Any]:
    """Return the facts that a signal keeps; none if its values have changed.

    With ``or_negative`` they also hold for the signal with all its signs turned.
    """
    if not (is_series(signal) or is_frame(signal)):
        return {}
    note = signal.attrs.get(NOTE)
    if not isinstance(note, dict):
        return {}

    # pandas hands the note on to whatever is computed from the signal, so it has a hash of the
    # values that it is about.
    values = np.asarray(signal, dtype=np.float64)
    hashes = [hash_values(values)]
    if or_negative:
        hashes.append(hash_values(-values))
    return note if note.get("sha256") in hashes else {}


def describe_signal_check(signal: object) -> str:
    """Return at how many cuts a signal was checked, in words; nothing for a constant."""
    if signal is None or np.ndim(signal) == 0:  # type: ignore[arg-type]
        return ""
    note = read_note(signal, or_negative=True)
    cuts = note.get("cuts")
    if not cuts:
        return NOT_CHECKED
    return describe_cuts("signal", int(cuts))


def join_checks(columns: object, signal: object) -> str:
    """Return how columns and a signal were checked, in one clause."""
    checks = (str(columns), describe_signal_check(signal))
    return "; ".join(filter(None, checks))


def hash_values(values: core.FloatArray) -> str:
    """Return a hash of numbers; adding 0 makes 0 of -0."""
    numbers = np.asarray(values, dtype=np.float64) + 0.0
    return hashlib.sha256(numbers.tobytes()).hexdigest()


def require_unit(
    name: str,
    values: core.FloatArray,
    is_bad: core.BoolArray,
    market: Market,
    cure: str = "",
) -> None:
    """Raise ParameterError if values are marked as outside of [-1, 1], with the first of them."""
    bad = np.flatnonzero(is_bad)
    if len(bad):
        first = bad[0]
        value = float(values[first])
        time = core.format_time(int(market.time[first]))
        raise core.ParameterError(
            f"{name} must lie in [-1, 1], got {value!r} in {len(bad)} of "
            f"{market.n_bars} bars, first at {time} UTC{cure}"
        )


def make_signal(
    market: Market,
    values: core.FloatArray,
    sides: Sides,
    name: str = "signal",
) -> pd.Series:
    """Return values by bar as a signal: checked to lie in [-1, 1], and flat where unknown."""
    is_beyond = np.abs(values) > 1.0
    require_unit(name, values, is_beyond, market)

    known = np.where(np.isnan(values), 0.0, values)
    kept = keep_sides(known, sides)
    return pd.Series(kept, index=market.times, name="signal")


def keep_sides(
    values: core.FloatArray,
    sides: str,
    most: float = 1.0,
) -> core.FloatArray:
    """Return values up to ``most`` in size, those of a side that is not traded as 0."""
    low = 0.0 if sides == "long" else -most
    high = 0.0 if sides == "short" else most
    return np.clip(values, low, high)


def compute_signal(
    market: Any,
    function: Callable[[Any], Any],
    sides: Sides = "both",
    *,
    name: str = "",
    is_checked: bool = True,
) -> Any:
    """Return the signal that a function computes: a Series, or weights of several instruments.

    Raises PolicyError if the function raises, returns something else or, unless it is not checked,
    looks ahead.
    """
    name = name or getattr(function, "__name__", type(function).__name__)
    question = SignalQuestion(function, f"the signal {name}", market)
    if not is_checked:
        return question.make_signal(question.ask_whole(), sides)

    # The tolerance is that of the function, or of the rule that it is a method of.
    owner = getattr(function, "__self__", function)
    tolerance = float(getattr(owner, "tolerance", TOLERANCE))
    check = LookAheadCheck(question.title, question.ask_part, market, tolerance)
    columns = check.run(question.ask_whole)
    signal = question.make_signal(columns, sides)
    return write_note(signal, cuts=check.causality.cuts)


class SignalQuestion(NamedTuple):
    """A function that is asked for the signal of a market, and of parts of it."""

    function: Callable[[Any], Any]
    title: str
    market: Any

    @property
    def names(self) -> Sequence[str]:
        """The instruments of the market; a single one has no name."""
        return getattr(self.market, "names", ("",))

    def ask_part(self, part: Any) -> dict[str, core.FloatArray] | None:
        """Return the values of a part of the market, None where the function raises."""
        try:
            answer = self.function(part)
        except core.RAISED:  # of too few bars; the whole raises it again
            return None
        return read_answer(answer, part, self.title, self.names)

    def ask_whole(self) -> dict[str, core.FloatArray]:
        """Return the values of the whole market; raise PolicyError where the function raises."""
        try:
            answer = self.function(self.market)
        except core.BacktestError:
            raise
        except core.RAISED as error:
            raise self._make_error(error) from error
        return read_answer(answer, self.market, self.title, self.names)

    def _make_error(self, error: BaseException) -> core.PolicyError:
        """Return the error of a function that raised: what, where, and given which market."""
        code = self.function
        if isinstance(code, functools.partial):
            code = code.func
        place = core.repr_plain(self.function)
        if hasattr(code, "__code__"):
            place = format_location(error, code)

        parts = "it also receives other parts of the market"
        if isinstance(self.market, Markets):
            parts = f"{parts}; instruments that are not listed yet are missing in them"
        return core.PolicyError(
            f"{self.title} raised {type(error).__name__}: {error}, in {place}, given "
            f"{self.market.n_bars} bars; {parts}"
        )

    def make_signal(self, columns: Mapping[str, core.FloatArray], sides: Sides) -> Any:
        """Return values by instrument as a signal of the market."""
        if not isinstance(self.market, Markets):
            return make_signal(self.market, columns[""], sides, self.title)
        frame = pd.DataFrame(columns, index=self.market.times)
        weights = m.read_weights(frame, self.market)
        return m.weights_to_frame(keep_sides(weights, sides, np.inf), self.market)


def read_answer(
    answer: Any,
    market: Any,
    title: str,
    names: Sequence[str],
) -> dict[str, core.FloatArray]:
    """Return the answer of a function as arrays of one number per bar, by instrument."""
    if isinstance(market, Markets):
        return read_weight_answer(answer, market, title, names)

    values = core.to_numbers(answer, title)
    has_other_times = is_series(answer) and not is_by_bars(answer, market)
    if values.shape != (market.n_bars,) or has_other_times:
        problem = "a Series by other times" if is_series(answer) else f"shape {values.shape}"
        raise core.PolicyError(
            f"{title} must return one number per bar, {market.n_bars}, as an array or a "
            f"Series by market.times, returned {problem}"
        )
    return {"": values}


def read_weight_answer(
    answer: Any,
    markets: Markets,
    title: str,
    names: Sequence[str],
) -> dict[str, core.FloatArray]:
    """Return weights as arrays by instrument: 0 for those that a part does not have."""
    problem = ""
    if not isinstance(answer, pd.DataFrame | np.ndarray | Mapping):
        problem = type(answer).__name__
    if is_frame(answer) and not is_by_bars(answer, markets):
        problem = f"frame of {len(answer)} by other times"
    if problem:
        raise core.PolicyError(
            f"{title} must return a frame by markets.times and name, or an array of shape "
            f"(n_bars, n_instruments), returned a {problem}"
        )

    # What is said of an instrument outside of its bars does not count.
    columns = {name: np.zeros(markets.n_bars) for name in names}
    weights = m.read_raw_weights(answer, markets, argument=title)
    for name, column, span in zip(markets.names, weights, markets.spans, strict=True):
        first, stop = span
        columns[name][first:stop] = column[first:stop]
    return columns


def is_by_bars(answer: pd.Series | pd.DataFrame, market: Market | Markets) -> bool:
    """Return whether a table is by the times of the bars, or a Series by numbers."""
    index = core.as_dates(answer.index)
    if isinstance(index, pd.DatetimeIndex):
        return index.equals(market.times)
    return is_series(answer) and isinstance(answer.index, pd.RangeIndex)
