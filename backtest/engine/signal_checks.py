"""Checks of signals: one number per bar, in range, and known at the bar's close."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from backtest.base.errors import BacktestError, ParameterError, PolicyError
from backtest.base.json_values import repr_plain
from backtest.base.ranges import Choice
from backtest.base.units import FloatArray, IntArray, format_time
from backtest.base.work_budget import WorkMeter, measure_work
from backtest.engine.lookahead.causality_checker import Causality, CausalityChecker, CutPlan
from backtest.engine.lookahead.checked_signals import mark_checked
from backtest.engine.lookahead.fresh_check import compare_fresh
from backtest.market import Market, Markets
from backtest.market.lent_market import lend
from backtest.policy.error_location import format_location

Sides: TypeAlias = Literal["both", "long", "short"]
"""The sides to trade: with ``"long"``, short values become flat; with ``"short"``, long ones."""

PLAN = CutPlan(chains=16, links=3, prefixes=8, wanted=56, budget=2.0)
"""Twice the cuts of a policy's columns: a signal is computed once and used in many runs."""


def require_one(market: object, *, where: str) -> None:
    """Refuse anything but one market."""
    if isinstance(market, Markets):
        raise ParameterError(
            f"a signal of this kind is of one market, got {market!r}",
            where=where,
            cure="call it for each, markets[name], put the signals into a frame by name and divide "
            "it by their number; or use from_frame or from_function",
        )
    if not isinstance(market, Market):
        raise ParameterError(
            f"market must be a Market, got {repr_plain(market)}",
            where=where,
            cure="load one: bt.Market.load(...)",
        )


def read_stamps(series: object, *, where: str) -> IntArray:
    """Return the stamps of a Series as sorted int64 UTC ns."""
    if not isinstance(series, pd.Series) or not isinstance(series.index, pd.DatetimeIndex):
        raise ParameterError(
            f"a signal must be a Series by time, got a {type(series).__name__}"
            + (f" by {type(series.index).__name__}" if isinstance(series, pd.Series) else ""),
            where=where,
            cure="give pd.Series(values, index=market.index)",
        )
    index = series.index
    require_time_zone(index, "series", where=where)
    if index.hasnans or not (index.is_unique and index.is_monotonic_increasing):
        raise ParameterError(
            "a signal must have one value per time, in order; its index has duplicates, NaT or "
            "times that go back",
            where=where,
            cure="series[~series.index.duplicated() & series.index.notna()].sort_index()",
        )
    return index.tz_convert("UTC").as_unit("ns").asi8


def require_time_zone(index: pd.DatetimeIndex, name: str, *, where: str) -> None:
    """Require an index with a time zone; ``name`` is that of its Series."""
    if index.tz is None:
        raise ParameterError(
            "a signal's index must be in UTC, has no time zone",
            where=where,
            cure=f"{name}.tz_localize('UTC')",
        )


def read_numbers(values: object, *, where: str) -> FloatArray:
    """Return numbers as a new float64 array."""
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ParameterError(
            f"a signal must be numbers: {error}", where=where, cure="give -1, 0 or 1"
        ) from error


def align_to_opens(
    market: Market, stamps: IntArray, values: FloatArray, *, where: str
) -> FloatArray:
    """Return the values at the bars whose opens they are stamped with, NaN at the others."""
    inside = (stamps >= market.start) & (stamps < market.end)
    bars = np.minimum(np.searchsorted(market.time, stamps[inside]), market.n_bars - 1)
    odd = np.flatnonzero(market.time[bars] != stamps[inside])
    if len(odd):
        raise ParameterError(
            f"each stamp must be the open of a bar, {len(odd)} of {len(bars)} are not",
            where=f"{where}, first {format_time(int(stamps[inside][odd[0]]))}",
            cure="reindex it to market.index; or stamp each value with the moment from which it "
            "is known and pass carry=True",
        )
    if not len(bars):
        raise ParameterError(
            f"a signal must have a value inside the market, has none from "
            f"{format_time(market.start)} to {format_time(market.end)}",
            where=where,
            cure="give the signal of this market",
        )
    raw = np.full(market.n_bars, np.nan)
    raw[bars] = values[inside]
    return raw


def make_signal(market: Market, raw: FloatArray, sides: Sides, *, where: str) -> pd.Series:
    """Return a signal's values as a Series; NaN and sides that are not traded become 0."""
    Choice("both", "long", "short").check("sides", sides, where=where)
    bad = np.flatnonzero(np.abs(raw) > 1.0)
    if len(bad):
        raise ParameterError(
            f"a signal must lie in [-1, 1], got {float(raw[bad[0]])!r} in {len(bad)} of "
            f"{market.n_bars} bars",
            where=f"{where}, first at {format_time(int(market.time[bad[0]]))}",
            cure="take its sign, clip it, or divide it by its largest value in theory",
        )
    values = np.where(np.isnan(raw), 0.0, raw)
    low, high = {"both": (-1.0, 1.0), "long": (0.0, 1.0), "short": (-1.0, 0.0)}[sides]
    return pd.Series(np.clip(values, low, high), index=market.index, name="signal")


def compute_signal(
    market: Market,
    function: Callable[[Market], Any],
    sides: Sides = "both",
    *,
    name: str,
    plan: CutPlan | None = PLAN,
) -> pd.Series:
    """Return the signal that a function computes from a market, checked for lookahead.

    ``plan`` says how many cuts are made, None that there is no check. Raises PolicyError if the
    function raises, looks ahead or returns something else, and ParameterError if a value does not
    lie in [-1, 1].
    """
    raw = call_function(function, market, name)
    found = None if plan is None else check_past(function, market, raw, name, plan)
    signal = make_signal(market, raw, sides, where=f"the signal {name}")
    return signal if found is None else mark_checked(signal, found.cuts, found.fresh)


def call_function(function: Callable[[Market], Any], market: Market, name: str) -> FloatArray:
    """Return the signal that a function computes for a market, one number per bar."""
    try:
        answer = function(lend(market))
    except BacktestError:
        raise
    except Exception as error:
        raise PolicyError(
            f"the signal {name} raised {type(error).__name__}: {error}",
            where=f"{locate_in(function, error)}, given {market.n_bars} bars",
            cure="correct it; it receives the market, and also its first bars only",
        ) from error
    return read_answer(answer, market, name)


def read_answer(answer: Any, market: Market, name: str) -> FloatArray:
    """Return the answer of a function as an array of one number per bar."""
    is_series = isinstance(answer, pd.Series)
    values = read_numbers(answer, where=f"the signal {name}")
    if values.shape != (market.n_bars,) or (is_series and not is_by_bars(answer, market)):
        found = "a Series by other times" if is_series else f"shape {values.shape}"
        raise PolicyError(
            f"the signal {name} must return one number per bar, {market.n_bars}, returned {found}",
            where=f"the signal {name}",
            cure="return an array of shape (n_bars,), or a Series by market.index",
        )
    return values


def check_past(
    function: Callable[[Market], Any], market: Market, signal: FloatArray, name: str, plan: CutPlan
) -> Causality:
    """Require that a function's past values stay the same when the market goes on.

    Returns how they were compared. Cuts are a sample, not a proof: see
    :mod:`backtest.engine.lookahead.causality_checker`.
    """
    title, subject = f"the signal {name}", functools.partial(compute_part, function, name)
    with measure_work(WorkMeter()) as meter:
        checker = CausalityChecker(title, title, subject, market, {"": signal}, plan, meter)
        found = checker.check()
    return found._replace(fresh=compare_fresh(checker, subject, None, is_forced=False))


def compute_part(
    function: Callable[[Market], Any], name: str, part: Market
) -> dict[str, FloatArray] | None:
    """Return what a function computes for a part of a market; None if it raises."""
    try:
        answer = function(part)
    except Exception:
        return None
    return {"": read_answer(answer, part, name)}


def locate_in(function: Callable[..., Any], error: BaseException) -> str:
    """Return the line of a function where an error was raised; its repr if it has no source."""
    inner = function.func if isinstance(function, functools.partial) else function
    return format_location(error, inner) if hasattr(inner, "__code__") else repr_plain(function)


def is_by_bars(series: pd.Series, market: Market) -> bool:
    """Return whether a Series is indexed by the opens of the bars, or by their numbers."""
    if isinstance(series.index, pd.DatetimeIndex):
        return series.index.equals(market.index)
    return isinstance(series.index, pd.RangeIndex)


def check_density(market: Market, stamps: IntArray, *, where: str) -> None:
    """Require a value for at least half of the bars from the first stamp to the last."""
    if len(stamps) < 2:
        return
    inside = (market.time >= stamps[0]) & (market.time <= stamps[-1])
    n_bars = int(inside.sum())
    if 2 * len(stamps) < n_bars:
        raise ParameterError(
            f"a Series must have a value for the bars it spans, got {len(stamps):,} for {n_bars:,}",
            where=where,
            cure="values of longer bars: stamp each when it is known, and pass carry=True",
        )
