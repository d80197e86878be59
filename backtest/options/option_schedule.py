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


def check_lots(
    frame: pd.DataFrame,
    names: Sequence[str],
    lots: Sequence[float],
) -> None:
    """Require that a schedule holds whole lots, and so at least one.

    ``lots`` are the contracts of a lot of each of the ``names``, 0 where any quantity is allowed.
    """
    for name, lot in zip(names, lots, strict=True):
        if name not in frame or not lot > 0.0:
            continue

        for quantity in frame[name].to_numpy(dtype=np.float64):
            # NaN is no order.
            if not math.isfinite(quantity):
                continue
            n_lots = quantity / lot
            if abs(n_lots - round(n_lots)) > LOT_SLACK:
                refuse(
                    f"must hold whole lots, of {lot:g} in {name!r}, got {quantity:g}; give the lot "
                    "as bt.OptionCosts(lot=), or bt.Option(lot=) of one contract"
                )


def write_targets(feed: OptionFeed, markets: Markets) -> None:
    """Write the scheduled quantities of each contract into ``feed.targets``, by the bar they fill.

    A row is decided at the close of its bar, so it fills in the bar after; a contract that expires
    before that is left out. Raises DataError if the first order of a contract has no spread.
    """
    listing: Any = markets.listing
    schedule = listing.quantities
    if schedule is None:
        return

    # The bar at which each row fills, and the rows that are inside the markets with that bar. A row
    # is stamped at the open of a bar on which policies decide, and decided at its close.
    length = markets.decision_interval or markets.interval
    stamps = np.asarray(schedule.index.as_unit("ns").asi8)
    fill_bars = np.searchsorted(markets.time, stamps + length)
    is_inside = (stamps >= markets.start) & (fill_bars < markets.n_bars)
    last_bar = markets.n_bars - 1
    fill_times = markets.time[np.minimum(fill_bars, last_bar)]

    names = [*listing.options]
    for name in schedule.columns:
        k = names.index(name)
        quantities = schedule[name].to_numpy(dtype=np.float64)
        is_filled = is_inside & (fill_times < feed.expiry_times[k])
        feed.targets[fill_bars[is_filled], k] = quantities[is_filled]

        # NaN is no order: it leaves a contract as it is.
        ordered_at = np.flatnonzero(np.isfinite(feed.targets[:, k]))
        if len(ordered_at):
            check_order(feed, markets, k, int(ordered_at[0]))


def check_order(feed: OptionFeed, markets: Markets, k: int, t: int) -> None:
    """Require that option k has a spread where bar t opens, if it is listed there."""
    if feed.are_listed[t, k] and np.isnan(feed.half_spreads[t, k]):
        raise core.DataError(
            "an option that is traded needs a spread in volatility, got none for "
            f"{[*markets.options][k]!r} at the open of {core.format_time(int(markets.time[t]))} "
            "UTC; give a spread of 0.02 for two points to bt.OptionCosts or bt.Option, or chains "
            "with quotes"
        )


def schedule_options(market: Any, quantities: Any) -> Any:
    """Return a market with a checked schedule of its options; the market itself without one."""
    if quantities is None:
        return market
    if not as_markets(market).options:
        refuse(f"must be of listed options, got none in {market!r}; {LIST_OPTIONS}")
    if not isinstance(quantities, pd.DataFrame):
        refuse(f"must be a DataFrame by time and contract, got {core.repr_plain(quantities)}")
    check_columns(quantities, [*market.options])
    check_times(read_dates(quantities.index, "option_quantities"), market)

    try:
        values = quantities.to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        refuse(f"must be numbers of contracts, got {error}")
    if np.isinf(values).any():
        refuse("must be finite, or NaN, which leaves a contract as it is, got infinity")

    frame = pd.DataFrame(values, index=quantities.index, columns=quantities.columns)
    scheduled = market.with_markets({})
    scheduled.listing = market.listing._replace(quantities=frame.sort_index())
    return scheduled


def refuse(problem: str) -> NoReturn:
    """Raise ParameterError for a schedule, with what it must be."""
    raise core.ParameterError(f"option_quantities {problem}")


def check_columns(frame: pd.DataFrame, names: list[str]) -> None:
    """Require that the columns of a schedule are listed options, each once."""
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
    """Require that rows of a schedule inside the markets are stamped at opens of deciding bars."""
    opens = np.asarray(find_clock(markets).seen.time)
    inside = stamps[(stamps >= markets.start) & (stamps < markets.end)]
    if not len(inside):
        refuse(
            f"must have rows inside the markets, got none from {core.format_time(markets.start)} "
            f"to {core.format_time(markets.end)} UTC"
        )

    between_opens = inside[~np.isin(inside, opens)]
    if len(between_opens):
        first = int(between_opens[0])
        opened = int(opens[np.searchsorted(opens, first) - 1])
        refuse(
            "must have rows by the opens of the bars at whose closes they are decided, got "
            f"{core.format_time(first)} inside the bar of "
            f"{core.format_time(opened)} UTC"
        )
