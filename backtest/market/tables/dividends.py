"""Dividends per share: a table beside the bars, kept as a column, and paid like funding.

A dividend belongs to the first bar that opens at or after its ex-date, and the position held at
that open is paid it. It is a settlement at the price P of the close before, with the rate
``-amount / P``: longs receive the amount for each share, shorts pay it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from backtest.base import DataError, FloatArray, IntArray, format_time
from backtest.market.tables.bar_checks import is_price, order_defects
from backtest.market.tables.defects import Defect, locate_rows
from backtest.market.tables.market_data import MarketData
from backtest.market.tables.timed_table import TimedTable

DIVIDEND = "dividend_per_share"
"""The column of the bars that holds dividends: money per share, NaN or 0 without one."""


class Settled(NamedTuple):
    """Payments for holding a position, arrays of shape (n_events,).

    ``time`` in UTC ns; ``rate`` as a fraction, longs pay if it is positive; ``price`` is the one
    that it is paid on, NaN for the mark at the open.
    """

    time: IntArray
    rate: FloatArray
    price: FloatArray


def dividend_defects(table: TimedTable, *, has_funding: bool) -> Iterator[Defect]:
    """Yield what is wrong with a table of dividends."""
    yield from order_defects(table, "dividends")
    amount = table.columns.get("amount")
    if amount is not None and not is_price(amount).all():
        bad = np.flatnonzero(~is_price(amount))
        yield Defect(
            "a dividend per share must be positive and finite",
            f"got {amount[bad[0]]:g} in {bad.size} of {amount.size} dividends",
            locate_rows(table.name, table.time[bad]),
            "leave out dates without a dividend",
        )
    if has_funding:
        yield Defect(
            "a market has funding or dividends",
            "has both",
            table.name,
            "leave one out: a perpetual has funding, a share has dividends",
        )


def place_dividends(
    table: TimedTable, time: IntArray, interval: int, notes: dict[str, str]
) -> FloatArray:
    """Return the dividend of each bar of shape (n_bars,), NaN without one, and note their number.

    Ex-dates before the first open and after the last close are left out; two that fall on one bar
    are added.
    """
    kept = (table.time >= time[0]) & (table.time < time[-1] + interval)
    bar = np.searchsorted(time, table.time, side="left")
    kept &= bar < time.size
    totals = np.bincount(bar[kept], table.columns["amount"][kept], minlength=time.size)
    outside = f", {int((~kept).sum())} outside the bars left out" if not kept.all() else ""
    notes["dividends"] = f"{int(kept.sum())} of {table.name}, per share{outside}"
    return np.where(totals > 0.0, totals, np.nan)


def read_settlements(data: MarketData) -> Settled:
    """Return the funding of a market, or its dividends as settlements at the opens of their bars.

    Raises DataError if it has both, or a dividend is not below the close before it.
    """
    column = data.columns.get(DIVIDEND)
    if column is None or not np.any(np.nan_to_num(column)):
        return Settled(data.funding_time, data.funding_rate, data.funding_mark)
    if data.funding_time.size:
        raise DataError(
            "a market has funding or dividends, has both",
            where=f"{data.instrument or 'the market'}, column {DIVIDEND}",
            cure="drop the funding, or the column",
        )
    paid = np.flatnonzero(np.nan_to_num(column))
    price = np.where(paid > 0, data.close[paid - 1], data.open[0])
    amount = column[paid]
    bad = np.flatnonzero(~((amount > 0.0) & (amount < price)))
    if bad.size:
        raise DataError(
            "a dividend must be positive and below the close before it, got "
            f"{amount[bad[0]]:g} after a close of {price[bad[0]]:g}",
            where=f"column {DIVIDEND}, {format_time(int(data.time[paid[bad[0]]]))} UTC",
            cure="give money per share in the currency of the prices; a return of all capital is "
            "no dividend",
        )
    return Settled(data.time[paid], -amount / price, price)
