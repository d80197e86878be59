"""The schedule of an account with options: signed contracts by time, checked and written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from backtest import core
from backtest.account import OptionFeed
from backtest.core.code_names import pd
from backtest.market import Markets, as_markets, find_clock, read_dates

LOT_SLACK = 1e-6
"""Lots by which a quantity may miss whole ones: the rounding of floats."""
LIST_OPTIONS = (
    "give bt.Markets({'BTC': market, 'BTC-26JUN26-60000-P': bt.Option(...)}, surfaces=...)"
)


def check_lots(frame: pd.DataFrame, names: Sequence[str], lots: Sequence[float]) -> None:
    """Require that a schedule holds whole lots, and so at least one."""
    for name, lot in zip(names, lots, strict=True):
        is_bound = name in frame and lot > 0.0
        for value in frame[name].to_numpy(dtype=np.float64) if is_bound else ():
            if math.isfinite(value) and abs(value / lot - round(value / lot)) > LOT_SLACK:
                refuse(
                    f"must hold whole lots, of {lot:g} in {name!r}, got {value:g}; give the lot "
                    "as bt.OptionCosts(lot=), or bt.Option(lot=) of one contract"
                )


def write_targets(feed: OptionFeed, markets: Markets) -> None:
    listing: Any = markets.listing
    if listing.quantities is None:
        return
    names, length = [*listing.options], markets.decision_interval or markets.interval
    stamps = np.asarray(listing.quantities.index.as_unit("ns").asi8)
    bars = np.searchsorted(markets.time, stamps + length)
    inside = (stamps >= markets.start) & (bars < markets.n_bars)
    for name in listing.quantities.columns:
        k = names.index(name)
        values = listing.quantities[name].to_numpy(dtype=np.float64)
        alive = inside & (markets.time[np.minimum(bars, markets.n_bars - 1)] < feed.expiry_times[k])
        feed.targets[bars[alive], k] = values[alive]
        for t in np.flatnonzero(np.isfinite(feed.targets[:, k]))[:1]:
            check_order(feed, markets, k, int(t))


def check_order(feed: OptionFeed, markets: Markets, k: int, t: int) -> None:
    if feed.are_listed[t, k] and np.isnan(feed.half_spreads[t, k]):
        raise core.DataError(
            "an option that is traded needs a spread in volatility, got none for "
            f"{[*markets.options][k]!r} at the open of {core.format_time(int(markets.time[t]))} "
            "UTC; give a spread of 0.02 for two points to bt.OptionCosts or bt.Option, or chains "
            "with quotes"
        )


def schedule_options(market: Any, given: Any) -> Any:
    if given is None:
        return market
    if not as_markets(market).options:
        refuse(f"must be of listed options, got none in {market!r}; {LIST_OPTIONS}")
    if not isinstance(given, pd.DataFrame):
        refuse(f"must be a DataFrame by time and contract, got {core.repr_plain(given)}")
    check_columns(given, [*market.options])
    check_times(read_dates(given.index, "option_quantities"), market)
    try:
        values = given.to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        refuse(f"must be numbers of contracts, got {error}")
    if np.isinf(values).any():
        refuse("must be finite, or NaN, which leaves a contract as it is, got infinity")
    frame = pd.DataFrame(values, index=given.index, columns=given.columns).sort_index()
    found = market.with_markets({})
    found.listing = market.listing._replace(quantities=frame)
    return found


def refuse(problem: str) -> NoReturn:
    raise core.ParameterError(f"option_quantities {problem}")


def check_columns(frame: pd.DataFrame, names: list[str]) -> None:
    for name in frame.columns:
        if name not in names:
            refuse(
                f"must have columns of listed options, {', '.join(names[:5])}, got {name!r}"
                f"{core.did_you_mean(str(name), names)}"
            )
    if frame.columns.has_duplicates:
        twice = frame.columns[frame.columns.duplicated()][0]
        refuse(f"must have one column for each option, got {twice!r} twice")


def check_times(stamps: core.IntArray, markets: Markets) -> None:
    known = np.asarray(find_clock(markets).seen.time)
    inside = stamps[(stamps >= markets.start) & (stamps < markets.end)]
    if not len(inside):
        refuse(
            f"must have rows inside the markets, got none from {core.format_time(markets.start)} "
            f"to {core.format_time(markets.end)} UTC"
        )
    odd = inside[~np.isin(inside, known)]
    if len(odd):
        refuse(
            "must have rows by the opens of the bars at whose closes they are decided, got "
            f"{core.format_time(int(odd[0]))} inside the bar of "
            f"{core.format_time(int(known[np.searchsorted(known, odd[0]) - 1]))} UTC"
        )
