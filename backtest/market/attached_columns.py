"""Further columns for the bars of a market: an implied volatility, a forecast, a spread."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from backtest.base import BacktestError, DataError, FloatArray, IntArray, format_time, utc_index
from backtest.market.tables.defects import require
from backtest.market.tables.timed_table import BARS, to_floats
from backtest.market.tables.times import TIME_NAMES

WHERE = "Market.with_columns"


def read_attached(given: Mapping[str, object], time: IntArray) -> dict[str, FloatArray]:
    """Return columns as copied float64 arrays, one value per bar; ``time`` holds the opens.

    A Series with times must have the opens of the bars, in any time zone.

    Raises DataError if a name is reserved, or values are not one finite number, or NaN, per bar.
    """
    return {name: _read_column(name, values, time) for name, values in given.items()}


def _read_column(name: str, values: object, time: IntArray) -> FloatArray:
    if name in BARS.known:
        raise _refuse(name, "is the name of a price or the volume", "choose another name")
    if name in TIME_NAMES:
        raise _refuse(name, "is a name of the time column", "choose another name")
    if isinstance(values, pd.Series):
        _check_times(name, values, time)
        values = values.reset_index(drop=True)
    found = np.asarray(values)
    if found.shape != time.shape:
        raise _refuse(
            name,
            f"must have {time.size} values, one per bar, got shape {found.shape}",
            "give one number per bar, NaN if unknown",
        )
    numbers = pd.Series(found.tolist() if found.dtype == object else found)  # None becomes NaN
    column = require(to_floats(numbers, column=name, name=WHERE))
    infinite = np.flatnonzero(np.isinf(column))
    if infinite.size:
        first = format_time(int(time[infinite[0]]))
        raise _refuse(
            name,
            f"must be finite, got {column[infinite[0]]:g} in {infinite.size} of {time.size} bars, "
            f"first at {first}",
            "give NaN if it is unknown",
        )
    return column


def _check_times(name: str, values: pd.Series, time: IntArray) -> None:
    """Refuse a Series with times other than the opens; one without times is accepted."""
    index = values.index
    if not isinstance(index, pd.DatetimeIndex):
        return
    wanted = utc_index(time)
    if index.tz is None:
        raise _refuse(
            name, "must be indexed by time in a zone, has none", "use series.tz_localize('UTC')"
        )
    index = index.tz_convert("UTC")
    if index.equals(wanted):
        return
    missing = wanted.difference(index)
    found = (
        f"lacks {missing.size} of {time.size}, first {format_time(int(_nanoseconds(missing)[0]))}"
        if missing.size
        else f"has {len(index)} times for {time.size} bars"
    )
    raise _refuse(
        name,
        f"must be indexed by the opens of the bars, {found}",
        "take the last value known at each open: "
        f"{name}.reindex(market.times, method='ffill'); never one stamped later",
    )


def _nanoseconds(index: pd.DatetimeIndex) -> IntArray:
    return np.asarray(index.as_unit("ns").asi8)


def _refuse(name: str, problem: str, cure: str) -> BacktestError:
    return DataError(f"column {name!r} {problem}", where=f"{WHERE}({name}=...)", cure=cure)
