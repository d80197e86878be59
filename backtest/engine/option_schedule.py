"""Scheduled quantities of options: a frame by time and contract, checked."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
import pandas as pd

from backtest.base import (
    FloatArray,
    IntArray,
    ParameterError,
    did_you_mean,
    format_time,
    repr_plain,
)
from backtest.engine.option_checks import LIST_OPTIONS
from backtest.market import Markets, as_markets, find_clock


def schedule_options(market: Any, given: Any) -> Any:
    if given is None:
        return market
    if not as_markets(market).options:
        refuse(f"must be of listed options, got none in {market!r}; {LIST_OPTIONS}")
    if not isinstance(given, pd.DataFrame):
        refuse(f"must be a DataFrame by time and contract, got {repr_plain(given)}")
    check_columns(given, [*market.options])
    check_times(given.index, market)
    frame = pd.DataFrame(read_values(given), index=given.index, columns=given.columns).sort_index()
    found = market.with_markets({})
    found.listing = market.listing._replace(quantities=frame)
    return found


def refuse(problem: str) -> NoReturn:
    raise ParameterError(f"option_quantities {problem}")


def check_columns(frame: pd.DataFrame, names: list[str]) -> None:
    for name in frame.columns:
        if name not in names:
            refuse(
                f"must have columns of listed options, {', '.join(names[:5])}, got {name!r}"
                f"{did_you_mean(str(name), names)}"
            )
    if frame.columns.has_duplicates:
        twice = frame.columns[frame.columns.duplicated()][0]
        refuse(f"must have one column for each option, got {twice!r} twice")


def check_times(index: pd.Index, markets: Markets) -> None:
    if not isinstance(index, pd.DatetimeIndex) or index.tz is None:
        found = "no time zone" if isinstance(index, pd.DatetimeIndex) else type(index).__name__
        refuse(f"must be indexed by time in UTC, got {found}; frame.tz_localize('UTC')")
    if index.has_duplicates or index.hasnans:
        refuse("must have one row for each time, got duplicates or NaT")
    stamps: IntArray = np.asarray(index.as_unit("ns").asi8)
    known = np.asarray(find_clock(markets).seen.time)
    inside = stamps[(stamps >= markets.start) & (stamps < markets.end)]
    if not len(inside):
        refuse(
            f"must have rows inside the markets, got none from {format_time(markets.start)} to "
            f"{format_time(markets.end)} UTC"
        )
    odd = inside[~np.isin(inside, known)]
    if len(odd):
        refuse(
            "must have rows by the opens of the bars at whose closes they are decided, got "
            f"{format_time(int(odd[0]))} inside that of "
            f"{format_time(int(known[np.searchsorted(known, odd[0]) - 1]))} UTC"
        )


def read_values(frame: pd.DataFrame) -> FloatArray:
    try:
        values = frame.to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        refuse(f"must be numbers of contracts, got {error}")
    if np.isinf(values).any():
        refuse("must be finite, or NaN, which leaves a contract as it is, got infinity")
    return values
