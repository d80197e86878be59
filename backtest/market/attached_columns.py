"""Further columns for bars that are there already: an implied volatility, a forecast, a spread."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from backtest.base.errors import BacktestError, DataError
from backtest.base.units import FloatArray, IntArray, format_time, utc_index
from backtest.market.tables.defects import Defect
from backtest.market.tables.frames import BARS, to_floats
from backtest.market.tables.times import TIME_NAMES

PLACE = "Market.with_columns"


def read_columns(given: Mapping[str, object], time: IntArray) -> dict[str, FloatArray]:
    """Return columns as copied float64 arrays, one value per bar.

    Parameters
    ----------
    given : mapping of str to array, list or Series of shape (n_bars,)
        A Series with times must have the opens of the bars, in any zone.
    time : IntArray of shape (n_bars,)
        Opens of the bars, UTC ns.

    Raises
    ------
    DataError
        If a name has a meaning of its own, or values are no numbers, infinite, too few, too many or
        of other times.
    """
    return {name: _read(name, values, time) for name, values in given.items()}


def _read(name: str, values: object, time: IntArray) -> FloatArray:
    if name in BARS.known:
        raise _refuse(name, "is a column of every bar already", "choose another name")
    if name in TIME_NAMES:
        raise _refuse(name, "is a name of the times of bars", "choose another name")
    if isinstance(values, pd.Series):
        _check_times(name, values, time)
        values = values.reset_index(drop=True)
    found = np.asarray(values)
    if found.shape != time.shape:
        raise _refuse(
            name,
            f"must have {time.size} values, one per bar, was of shape {found.shape}",
            "give one number per bar, NaN where it is not known",
        )
    numbers = pd.Series(found.tolist() if found.dtype == object else found)  # None becomes NaN
    column = to_floats(numbers, column=name, name=PLACE)
    if isinstance(column, Defect):
        raise DataError(f"{column.rule}, {column.found}", where=column.where, cure=column.cure)
    infinite = np.flatnonzero(np.isinf(column))
    if infinite.size:
        first = format_time(int(time[infinite[0]]))
        raise _refuse(
            name,
            f"must be finite, was {column[infinite[0]]:g} in {infinite.size} of {time.size} bars, "
            f"first at {first}",
            "give NaN where it is not known",
        )
    return column


def _check_times(name: str, values: pd.Series, time: IntArray) -> None:
    """Refuse a Series of other times than the opens; one without times is taken as it stands."""
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
        f"{name}.reindex(market.index, method='ffill'); never one stamped later",
    )


def _nanoseconds(index: pd.DatetimeIndex) -> IntArray:
    return np.asarray(index.as_unit("ns").asi8)


def _refuse(name: str, problem: str, cure: str) -> BacktestError:
    return DataError(f"column {name!r} {problem}", where=f"{PLACE}({name}=...)", cure=cure)
