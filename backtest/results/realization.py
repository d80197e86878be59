"""How readily an account realized gains and losses: the disposition effect, by days."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest.account.events import Event
from backtest.core import BoolArray, FloatArray, IntArray
from backtest.core.units import DAY
from backtest.results import tables
from backtest.results.trade_fills import OPEN, Fills, list_holdings, read_entries, read_fills

if TYPE_CHECKING:
    from backtest.results.run_record import RunRecord

REALIZED = (
    "realized_gains",
    "paper_gains",
    "realized_losses",
    "paper_losses",
    "reductions",
    "liquidations",
    "expiries",
)


class DayCounts(NamedTuple):
    """What an instrument realized and carried on each UTC day, arrays of shape (n_days,).

    ``gains`` and ``losses`` are positions that an order or a stop closed, ``reductions`` those that
    it made smaller; ``liquidations`` and ``expiries`` were not chosen. ``paper`` is 1 for a gain
    and -1 for a loss of a position that was held from the day before and not sold, else 0.
    """

    gains: IntArray
    losses: IntArray
    reductions: IntArray
    liquidations: IntArray
    expiries: IntArray
    paper: IntArray


def measure_realization(run: RunRecord) -> dict[str, float]:
    """Return the counts of a run, and the realized shares of gains and losses.

    Options, which are not among the instruments, do not count.
    """
    entries = read_entries(run)
    counts = []
    for holding in list_holdings(run):
        if holding.place is None:
            continue
        fills = read_fills(run, entries, holding)
        if len(fills.bar):
            counts.append(count_days(run, fills, holding.place))

    figures = dict.fromkeys(REALIZED, 0.0)
    if counts:
        figures = sum_days(counts, is_book=len(run.names) > 1)

    # The realized of all gains, and of all losses; the error of the difference of the two.
    variance = 0.0
    for share, kind in (("pgr", "gains"), ("plr", "losses")):
        realized = figures[f"realized_{kind}"]
        n = realized + figures[f"paper_{kind}"]
        if n == 0.0:
            figures[share] = math.nan
            variance = math.nan
            continue

        p = realized / n
        figures[share] = p
        variance += p * (1.0 - p) / n

    figures["difference"] = figures["pgr"] - figures["plr"]
    figures["standard_error"] = math.sqrt(variance)
    return figures


def sum_days(counts: Sequence[DayCounts], *, is_book: bool) -> dict[str, float]:
    """Return the counts of all instruments over all days.

    Of a book, what is on paper counts on days with a sale of any of its instruments.
    """
    # Each count by instrument and day, (n_instruments, n_days).
    table = DayCounts(*np.stack(counts, axis=1))
    is_counted: Any = True
    if is_book:
        is_counted = np.any(table.gains + table.losses > 0, axis=0)
    return {
        "realized_gains": float(table.gains.sum()),
        "paper_gains": float(np.sum((table.paper > 0) & is_counted)),
        "realized_losses": float(table.losses.sum()),
        "paper_losses": float(np.sum((table.paper < 0) & is_counted)),
        "reductions": float(table.reductions.sum()),
        "liquidations": float(table.liquidations.sum()),
        "expiries": float(table.expiries.sum()),
    }


def count_days(run: RunRecord, fills: Fills, place: int) -> DayCounts:
    """Return how many gains and losses of an instrument were realized, or carried, on each day.

    ``fills`` are those of the instrument, which is at ``place`` among all. Days are those of UTC.
    """
    # The day of each bar, numbered from 0, and the mean entry after each fill.
    day = run.time // DAY - run.time[0] // DAY
    n_days = int(day[-1]) + 1
    fill_days = day[fills.bar]
    entry = average_entries(fills)

    def count(is_event: BoolArray) -> IntArray:
        """Return the number of some fills on each day, (n_days,)."""
        return np.bincount(fill_days[is_event], minlength=n_days)

    # What was sold: closed by an order or a stop.
    turns = fills.turns
    entry_before = np.concatenate([[np.nan], entry[:-1]])
    gain = np.sign(turns.before) * (fills.value - entry_before)
    is_forced = np.isin(fills.kind, (Event.LIQUIDATED, Event.RUINED))
    is_over = np.isin(fills.kind, (Event.DELISTED, Event.EXPIRED))
    is_chosen = ~is_forced & ~is_over & (fills.kind != OPEN)
    is_sold = (turns.closed > 0.0) & is_chosen
    is_closed = is_sold & turns.closes_all
    counts = DayCounts(
        gains=count(is_closed & (gain > 0.0)),
        losses=count(is_closed & (gain < 0.0)),
        reductions=count(is_sold & ~turns.closes_all),
        liquidations=count(is_forced),
        expiries=count(is_over),
        paper=np.zeros(n_days, dtype=np.int64),
    )

    # What was held from the day before: the last fill of an earlier day says at which entry.
    newest = np.searchsorted(fill_days, np.arange(n_days)) - 1
    has_fill = newest >= 0
    held_entry = np.where(has_fill, entry[newest], np.nan)
    side = np.where(has_fill, np.sign(turns.after[newest]), 0.0)

    # A gain on paper: all day over the entry, of a short all day under it.
    low, high = find_day_ranges(run, place, day)
    is_long = side > 0.0
    is_up = np.where(is_long, low > held_entry, high < held_entry)
    is_down = np.where(is_long, high < held_entry, low > held_entry)
    has_bars = np.bincount(day, minlength=n_days) > 0
    has_event = sum(counts) > 0
    is_paper = has_bars & (side != 0.0) & ~has_event
    paper = np.where(is_paper, is_up.astype(np.int64) - is_down, 0)
    return counts._replace(paper=paper)


def average_entries(fills: Fills) -> FloatArray:
    """Return the average value at which what is held after each fill was opened; NaN if flat.

    A fill that adds moves the average towards its value; one that reduces leaves it.
    """
    turns = fills.turns
    entry = np.full(len(fills.value), np.nan)
    average = math.nan

    rows = zip(turns.after, turns.opened, turns.starts, fills.value, strict=True)
    for k, (after, opened, starts, value) in enumerate(rows):
        if starts:
            average = value
        elif opened > 0.0:
            average += (value - average) * opened / abs(after)
        entry[k] = average if after != 0.0 else math.nan
    return entry


def find_day_ranges(
    run: RunRecord,
    place: int,
    day: IntArray,
) -> tuple[FloatArray, FloatArray]:
    """Return the lowest and the highest value of an instrument on each UTC day.

    ``day`` (n_bars,) is the number of the day of each bar. A day without bars has those of the
    next bar.
    """
    n_days = int(day[-1]) + 1
    starts = np.searchsorted(day, np.arange(n_days))

    # The values of a contract at the prices of each bar, and the extremes of each day.
    contract = run.list_venues()[place].contract
    quotes = run.quotes
    lows = tables.value_of(contract, quotes.low[:, place])
    highs = tables.value_of(contract, quotes.high[:, place])
    lowest = np.fmin.reduceat(lows, starts)
    highest = np.fmax.reduceat(highs, starts)
    return lowest, highest
