"""Read and check signals: one number per bar, in range, and known at the bar's close."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
import pandas as pd

from backtest.base import (
    BacktestError,
    Choice,
    FloatArray,
    IntArray,
    ParameterError,
    PolicyError,
    check_range,
    format_time,
    repr_plain,
)
from backtest.engine.lookahead import TOLERANCE, LookAheadCheck, describe_cuts
from backtest.market import Market, lend
from backtest.policy import format_location

SignalT = TypeVar("SignalT", pd.Series, pd.DataFrame)

KEY = "backtest.causality"
TEXT = "backtest.signal"
NOT_CHECKED = "signal not checked: it was given as data"


def mark_checked(signal: SignalT, cuts: int) -> SignalT:
    signal.attrs[KEY] = {"cuts": cuts, "sha256": hash_values(signal.to_numpy())}
    return signal


def name_signal(signal: SignalT, text: str) -> SignalT:
    signal.attrs[TEXT] = {"text": text, "sha256": hash_values(signal.to_numpy())}
    return signal


def find_name(signal: object) -> str:
    if not isinstance(signal, pd.Series | pd.DataFrame):
        return ""
    note = signal.attrs.get(TEXT)
    if not isinstance(note, dict):
        return ""
    is_same = note.get("sha256") == hash_values(signal.to_numpy(dtype=np.float64))
    return str(note.get("text", "")) if is_same else ""


def describe_signal_check(signal: object) -> str:
    if signal is None or np.ndim(signal) == 0:  # type: ignore[arg-type]
        return ""
    if not isinstance(signal, pd.Series | pd.DataFrame):
        return NOT_CHECKED
    note = signal.attrs.get(KEY)
    if not isinstance(note, dict) or not note.get("cuts"):
        return NOT_CHECKED
    values = signal.to_numpy(dtype=np.float64)
    if note.get("sha256") not in (hash_values(values), hash_values(-values)):
        return NOT_CHECKED
    return describe_cuts("signal", int(note["cuts"]))


def keep_note(signal: object, copy: SignalT) -> SignalT:
    if isinstance(signal, pd.Series | pd.DataFrame):
        copy.attrs.update({key: signal.attrs[key] for key in (KEY, TEXT) if key in signal.attrs})
    return copy


def join_checks(columns: object, signal: object) -> str:
    return "; ".join(filter(None, (str(columns), describe_signal_check(signal))))


def hash_values(values: FloatArray) -> str:
    return hashlib.sha256((np.asarray(values, dtype=np.float64) + 0.0).tobytes()).hexdigest()


Sides: TypeAlias = Literal["both", "long", "short"]


def read_stamps(series: object) -> IntArray:
    """Return the stamps of a Series as sorted int64 UTC ns."""
    if not isinstance(series, pd.Series) or not isinstance(series.index, pd.DatetimeIndex):
        raise ParameterError(
            f"signal must be a Series by time, got a {type(series).__name__}"
            + (f" by {type(series.index).__name__}" if isinstance(series, pd.Series) else "")
            + "; give pd.Series(values, index=market.times)"
        )
    index = series.index
    check_index(index)
    if not index.is_monotonic_increasing:
        raise ParameterError("signal must be in order of time, its index goes back; sort_index()")
    return index.tz_convert("UTC").as_unit("ns").asi8


def check_index(index: pd.DatetimeIndex) -> None:
    if index.tz is None:
        raise ParameterError(
            "the index of a signal must be in UTC, has no time zone; series.tz_localize('UTC')"
        )
    if index.has_duplicates or index.hasnans:
        raise ParameterError(
            "signal must have one value per time, its index has duplicates or NaT; "
            "series[~series.index.duplicated() & series.index.notna()]"
        )


def read_numbers(values: object, name: str = "signal") -> FloatArray:
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ParameterError(f"{name} must be numbers: {error}") from error


def align_to_opens(market: Market, stamps: IntArray, values: FloatArray) -> FloatArray:
    inside = (stamps >= market.start) & (stamps < market.end)
    bars = np.minimum(np.searchsorted(market.time, stamps[inside]), market.n_bars - 1)
    odd = np.flatnonzero(market.time[bars] != stamps[inside])
    if len(odd):
        raise ParameterError(
            f"each stamp of a signal must be the open of a bar, {len(odd)} of {len(bars)} are not, "
            f"first {format_time(int(stamps[inside][odd[0]]))} UTC; stamp each value with the "
            "moment from which it is known and pass carry=True"
        )
    if not len(bars):
        raise ParameterError(
            "signal must have a value inside the market, has none from "
            f"{format_time(market.start)} to {format_time(market.end)} UTC"
        )
    raw = np.full(market.n_bars, np.nan)
    raw[bars] = values[inside]
    return raw


def make_signal(market: Market, raw: FloatArray, sides: Sides, name: str = "signal") -> pd.Series:
    Choice("both", "long", "short").check("sides", sides)
    bad = np.flatnonzero(np.abs(raw) > 1.0)
    if len(bad):
        raise ParameterError(
            f"{name} must lie in [-1, 1], got {float(raw[bad[0]])!r} in {len(bad)} of "
            f"{market.n_bars} bars, first at {format_time(int(market.time[bad[0]]))} UTC"
        )
    values = np.where(np.isnan(raw), 0.0, raw)
    low, high = {"both": (-1.0, 1.0), "long": (0.0, 1.0), "short": (-1.0, 0.0)}[sides]
    return pd.Series(np.clip(values, low, high), index=market.times, name="signal")


def compute_signal(
    market: Market,
    function: Callable[[Market], Any],
    sides: Sides = "both",
    *,
    name: str,
    is_checked: bool = True,
) -> pd.Series:
    title = f"the signal {name}"
    if not is_checked:
        return make_signal(market, call_function(function, market, name), sides, title)

    def observe_part(part: Market) -> dict[str, FloatArray] | None:
        try:
            answer = function(part)
        except Exception:  # of too few bars; the whole raises it again
            return None
        return {"": read_answer(answer, part, name)}

    check = LookAheadCheck(title, observe_part, market, find_tolerance(function))
    raw = check.run(lambda: {"": call_function(function, market, name)})[""]
    signal = make_signal(market, raw, sides, title)
    return mark_checked(signal, check.causality.cuts)


def find_tolerance(function: Callable[..., Any]) -> float:
    """Return the tolerance that a function, or the rule that it is a method of, declares."""
    owner = getattr(function, "__self__", function)
    return float(getattr(owner, "tolerance", TOLERANCE))


def call_function(function: Callable[[Market], Any], market: Market, name: str) -> FloatArray:
    """Return the signal that a function computes for a market, one number per bar."""
    try:
        answer = function(lend(market))
    except BacktestError:
        raise
    except Exception as error:
        raise PolicyError(
            f"the signal {name} raised {type(error).__name__}: {error}, in "
            f"{locate_in(function, error)}, given {market.n_bars} bars; it also receives the first "
            "bars of the market only"
        ) from error
    return read_answer(answer, market, name)


def read_answer(answer: Any, market: Market, name: str) -> FloatArray:
    """Return the answer of a function as an array of one number per bar."""
    is_series = isinstance(answer, pd.Series)
    values = read_numbers(answer, f"the signal {name}")
    if values.shape != (market.n_bars,) or (is_series and not is_by_bars(answer, market)):
        found = "a Series by other times" if is_series else f"shape {values.shape}"
        raise PolicyError(
            f"the signal {name} must return one number per bar, {market.n_bars}, as an array or a "
            f"Series by market.times, returned {found}"
        )
    return values


def locate_in(function: Callable[..., Any], error: BaseException) -> str:
    inner = function.func if isinstance(function, functools.partial) else function
    return format_location(error, inner) if hasattr(inner, "__code__") else repr_plain(function)


def is_by_bars(series: pd.Series, market: Market) -> bool:
    if isinstance(series.index, pd.DatetimeIndex):
        return series.index.equals(market.times)
    return isinstance(series.index, pd.RangeIndex)


def check_density(market: Market, stamps: IntArray) -> None:
    if len(stamps) < 2:
        return
    inside = (market.time >= stamps[0]) & (market.time <= stamps[-1])
    n_bars = int(inside.sum())
    if 2 * len(stamps) < n_bars:
        raise ParameterError(
            f"signal must have a value for the bars it spans, got {len(stamps):,} for {n_bars:,}; "
            "values of longer bars: stamp each when it is known, and pass carry=True"
        )


def read_signal(signal: object, market: Market, first: int) -> FloatArray:
    """Return the signal as an array of shape (n_bars,), or (1,) for a constant, checked."""
    n = market.n_bars
    if signal is None:
        return np.ones(1)
    if isinstance(signal, str):
        raise ParameterError(
            f"signal must be a number, an array or a Series here, got {signal!r}; pass "
            "bt.signals.SignalRule's apply(market), or market.columns[name]"
        )
    if np.ndim(signal) == 0:  # type: ignore[arg-type]
        return np.array([check_range("signal", signal, low=-1.0, high=1.0)])
    if isinstance(signal, pd.Series) and isinstance(signal.index, pd.DatetimeIndex):
        values = align_signal(signal, market)
    else:
        values = read_numbers(signal)
    if len(values) == n - first and first > 0:
        values = np.concatenate([np.full(first, np.nan), values])
    if values.shape != (n,):
        raise ParameterError(
            f"signal must have one value per bar, {n}, got {values.shape}; give a Series indexed "
            "as market.times"
        )
    bad = np.flatnonzero(~(np.abs(values[first:]) <= 1.0)) + first
    if len(bad):
        raise ParameterError(
            f"signal must lie in [-1, 1], got {float(values[bad[0]])!r} in {len(bad)} of {n} bars, "
            f"first at {format_time(int(market.time[bad[0]]))} UTC; a slower signal: "
            "signal.reindex(market.times).ffill().fillna(0)"
        )
    return np.ascontiguousarray(values)


def align_signal(signal: pd.Series, market: Market) -> FloatArray:
    check_index(pd.DatetimeIndex(signal.index))
    return read_numbers(signal.reindex(market.times))


def describe_signal(signal: object, values: FloatArray) -> str:
    if signal is None or np.ndim(signal) == 0:  # type: ignore[arg-type]
        return f"constant {values[-1]:g}"
    name = find_name(signal) or "series"
    return f"{name} sha256:{hashlib.sha256(values.tobytes()).hexdigest()}"
