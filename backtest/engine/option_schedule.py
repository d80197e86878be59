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
from backtest.market import Markets, as_markets, find_clock

WHERE = "bt.run, option_quantities"


def schedule_options(market: Any, given: Any) -> Any:
    if given is None:
        return market
    if not as_markets(market, where=WHERE).options:
        refuse(
            f"quantities are of listed options, got none in {market!r}",
            "give bt.Markets({'BTC': market, 'BTC-26JUN26-60000-P': bt.Option(...)}, surfaces=...)",
        )
    if not isinstance(given, pd.DataFrame):
        refuse(
            f"quantities must be a DataFrame by time and contract, got {repr_plain(given)}",
            "give pd.DataFrame(values, index=markets.times, columns=[*markets.options])",
        )
    check_columns(given, [*market.options])
    check_times(given.index, market)
    frame = pd.DataFrame(read_values(given), index=given.index, columns=given.columns).sort_index()
    found = market.with_markets({})
    found.listing = market.listing._replace(quantities=frame)
    return found


def refuse(problem: str, cure: str) -> NoReturn:
    raise ParameterError(problem, where=WHERE, cure=cure)


def check_columns(frame: pd.DataFrame, names: list[str]) -> None:
    for name in frame.columns:
        if name not in names:
            refuse(
                f"a column must be a listed option, got {name!r}{did_you_mean(str(name), names)}",
                f"name the columns {', '.join(names[:5])}",
            )
    if frame.columns.has_duplicates:
        twice = frame.columns[frame.columns.duplicated()][0]
        refuse(f"each option has one column, got {twice!r} twice", "keep one of them")


def check_times(index: pd.Index, markets: Markets) -> None:
    if not isinstance(index, pd.DatetimeIndex) or index.tz is None:
        found = "no time zone" if isinstance(index, pd.DatetimeIndex) else type(index).__name__
        refuse(f"rows must be indexed by time in UTC, got {found}", "frame.tz_localize('UTC')")
    if index.has_duplicates or index.hasnans:
        refuse("each time has one row, got duplicates or NaT", "keep one row of each time")
    stamps: IntArray = np.asarray(index.as_unit("ns").asi8)
    known = np.asarray(find_clock(markets).seen.time)
    inside = stamps[(stamps >= markets.start) & (stamps < markets.end)]
    if not len(inside):
        refuse(
            f"rows must lie inside the markets, got none from {format_time(markets.start)} to "
            f"{format_time(markets.end)}",
            "give the quantities of these markets",
        )
    odd = inside[~np.isin(inside, known)]
    if len(odd):
        refuse(
            f"each row must have the open of a bar at whose close it is decided, got "
            f"{format_time(int(odd[0]))}",
            f"write {format_time(int(known[np.searchsorted(known, odd[0]) - 1]))}, or "
            "frame.reindex(markets.times)",
        )


def read_values(frame: pd.DataFrame) -> FloatArray:
    try:
        values = frame.to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        refuse(f"quantities must be numbers, got {error}", "give signed contracts, such as -1.0")
    if np.isinf(values).any():
        refuse(
            "quantities must be finite or NaN, which leaves a contract, got infinity",
            "give signed contracts, 0 to close",
        )
    return values
