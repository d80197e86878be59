"""Read the signal a caller gives: a number, an array or a Series, checked against the market."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from backtest.base.errors import ParameterError
from backtest.base.phrases import Place
from backtest.base.ranges import check_range
from backtest.base.units import FloatArray, format_time
from backtest.engine.lookahead.checked_signals import find_name
from backtest.engine.signal_checks import read_numbers, require_time_zone

if TYPE_CHECKING:
    from backtest.engine.result import Result
    from backtest.market import Market

WHERE = Place("signal", of="bt.run")


def read_signal(signal: object, market: Market, first: int) -> FloatArray:
    """Return the signal as an array of shape (n_bars,), or (1,) for a constant, checked."""
    n = market.n_bars
    if signal is None:
        return np.ones(1)
    if isinstance(signal, str):
        raise ParameterError(
            f"signal must be a number, an array or a Series here, got {signal!r}",
            where=WHERE,
            cure="pass bt.signals.SignalRule's apply(market), or market.columns[name]",
        )
    if np.ndim(signal) == 0:  # type: ignore[arg-type]
        return np.array([check_range("signal", signal, where=WHERE, low=-1.0, high=1.0)])
    if isinstance(signal, pd.Series) and isinstance(signal.index, pd.DatetimeIndex):
        values = align_signal(signal, market)
    else:
        values = read_numbers(signal, where=WHERE)
    if len(values) == n - first and first > 0:
        values = np.concatenate([np.full(first, np.nan), values])
    if values.shape != (n,):
        raise ParameterError(
            f"signal must have one value per bar, {n}, got {values.shape}",
            where=WHERE,
            cure="give a Series indexed as market.index",
        )
    bad = np.flatnonzero(~(np.abs(values[first:]) <= 1.0)) + first
    if len(bad):
        raise ParameterError(
            f"signal must lie in [-1, 1], got {float(values[bad[0]])!r} in {len(bad)} of {n} bars",
            where=Place("signal", f"first at {format_time(int(market.time[bad[0]]))}", of="bt.run"),
            cure="clip it; a slower signal: signal.reindex(market.index).ffill().fillna(0)",
        )
    return np.ascontiguousarray(values)


def align_signal(signal: pd.Series, market: Market) -> FloatArray:
    """Return a Series by time at the bars of the market, NaN where it has none."""
    index = pd.DatetimeIndex(signal.index)
    require_time_zone(index, "signal", where=WHERE)
    if index.has_duplicates or index.hasnans:
        raise ParameterError(
            "a signal must have one value per time, its index has duplicates or NaT",
            where=WHERE,
            cure="signal[~signal.index.duplicated() & signal.index.notna()]",
        )
    return read_numbers(signal.reindex(market.index), where=WHERE)


def recall_signal(
    directions: FloatArray, market: Market, resume: Result | None, first: int
) -> FloatArray:
    """Return the signal as policies see it, with that of an earlier run up to its last close.

    Before the start of a run it has the values given for those bars, or NaN.
    """
    if resume is None or resume.market is None:
        return directions
    whole = np.array(np.broadcast_to(directions, market.n_bars))
    known = int(np.searchsorted(market.time, resume.market.start))
    places = np.searchsorted(resume.market.time, market.time[known:first])
    whole[known:first] = resume.market.signal[places]
    return whole


def describe_signal(signal: object, values: FloatArray) -> str:
    """Return the signal for the manifest: its constant, or what it is and a hash of its values.

    What it is: the text of a rule, ``column NAME``, or ``series``.
    """
    if signal is None or np.ndim(signal) == 0:  # type: ignore[arg-type]
        return f"constant {values[-1]:g}"
    name = find_name(signal) or "series"
    return f"{name} sha256:{hashlib.sha256(values.tobytes()).hexdigest()}"
