"""Signals that functions compute: asked, checked for lookahead, and noted with their checks."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypeVar

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


def keep_sides(values: core.FloatArray, sides: str, most: float = 1.0) -> core.FloatArray:
    low, high = 0.0 if sides == "long" else -most, 0.0 if sides == "short" else most
    return np.clip(values, low, high)


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
