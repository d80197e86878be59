"""Realization of gains and losses: how readily an account closes winners and losers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import checked, format_percent, utc_index
from backtest.base.units import DAY, TOLERANCE
from backtest.measures.lots import Turns, average_entries, match_first_in, split_trades

if TYPE_CHECKING:
    from backtest.base import FloatArray, IntArray

COLUMNS = ("opened", "closed", "quantity", "entry", "exit", "days", "change")


@dataclass(frozen=True, eq=False, repr=False)
class Realization:
    """How an account realized its gains and losses.

    Attributes
    ----------
    gains_realized, losses_realized : float
        PGR and PLR: of the positions at a gain (a loss), the share that was closed in a bar. NaN if
        no position was ever at one.
    disposition : float
        PGR - PLR: positive if winners are closed more readily than losers.
    error : float
        Its standard error if bars were independent.
    realized_gains, paper_gains, realized_losses, paper_losses : float
        Positions by bar that were closed, and kept; a third of a position counts one third.
    winner_days, loser_days : float
        Mean time from entry to exit of lots closed at a gain, and at a loss, by their notional.
    lots : DataFrame
        One row per lot that was closed, first in first out: ``opened``, ``closed``, ``quantity``
        (signed contracts), ``entry``, ``exit``, ``days``, and ``change``, the return of 1x over it;
        of several instruments also the ``instrument``.
    """

    gains_realized: float
    losses_realized: float
    disposition: float
    error: float
    realized_gains: float
    paper_gains: float
    realized_losses: float
    paper_losses: float
    winner_days: float
    loser_days: float
    lots: pd.DataFrame

    def __repr__(self) -> str:
        return (
            f"<Realization: gains {self.gains_realized:.4g}, losses {self.losses_realized:.4g} "
            "of positions per bar>"
        )

    def __str__(self) -> str:
        winners = int((self.lots["change"] > 0.0).sum())
        losers = int((self.lots["change"] < 0.0).sum())
        return (
            f"closed per bar: {format_percent(self.gains_realized)} of positions at a gain, "
            f"{format_percent(self.losses_realized)} of those at a loss (difference "
            f"{format_percent(self.disposition)}, standard error {format_percent(self.error)}); "
            f"held on average: {winners:,} winning lots {self.winner_days:.2f} days, {losers:,} "
            f"losing lots {self.loser_days:.2f} days"
        )

    def to_dict(self) -> dict[str, float]:
        """Return the numbers without the lots."""
        return {name: value for name, value in vars(self).items() if name != "lots"}


class GainCounts(NamedTuple):
    realized_gains: float = 0.0
    paper_gains: float = 0.0
    realized_losses: float = 0.0
    paper_losses: float = 0.0


@checked
def realization(
    time: IntArray,
    close: FloatArray,
    traded_at: IntArray,
    quantity: FloatArray,
    price: FloatArray,
    *,
    is_inverse: bool = False,
) -> Realization:
    """Return how gains and losses were realized.

    Parameters
    ----------
    time : IntArray of shape (n_bars,)
        Opens of bars, UTC ns, rising.
    close : FloatArray of shape (n_bars,)
        Prices at their closes.
    traded_at : IntArray of shape (n_trades,)
        Times of trades, UTC ns, in order; a trade belongs to the last bar that opens by then.
    quantity : FloatArray of shape (n_trades,)
        Contracts bought (positive) or sold, liquidations included.
    price : FloatArray of shape (n_trades,)
        What they traded at.
    is_inverse : bool
        Whether the contracts are inverse ones, whose average entry is the harmonic mean.

    Returns
    -------
    Realization

    Notes
    -----
    In each bar, the position with which it began counts once: what trades of the bar closed is
    realized at their prices, the rest is on paper at the close. It is at a gain if the price is
    better than the average entry, which is that of the account: a reduction keeps it, a flip begins
    it anew. Prices only: fees and funding do not count. Source: Odean (1998), Are Investors
    Reluctant to Realize Their Losses?, J. Finance 53(5), who counts stocks on days with a sale;
    here each bar is a chance to sell.

    Examples
    --------
    >>> hours = np.arange(3) * 3_600_000_000_000
    >>> found = realization(hours, np.array([1.0, 2, 2]), hours[[0, 2]],
    ...                     np.array([1.0, -1.0]), np.array([1.0, 2.0]))
    >>> found.gains_realized, found.winner_days * 24
    (0.5, 2.0)
    """
    found = count_realized(time, close, traded_at, quantity, price, is_inverse=is_inverse)
    return summarize(*found)


def count_realized(
    time: IntArray,
    close: FloatArray,
    traded_at: IntArray,
    quantity: FloatArray,
    price: FloatArray,
    *,
    is_inverse: bool,
) -> tuple[GainCounts, pd.DataFrame]:
    is_trade = quantity != 0.0
    traded_at, quantity, price = traded_at[is_trade], quantity[is_trade], price[is_trade]
    turns, value = split_trades(quantity), -1.0 / price if is_inverse else price
    known = np.concatenate(([np.nan], average_entries(turns, value)))
    entries = -1.0 / known if is_inverse else known
    rows = np.searchsorted(time, traded_at, side="right") - 1
    done = np.searchsorted(rows, np.arange(len(time)))  # trades before each bar
    begun, entry = np.concatenate(([0.0], turns.after))[done], entries[done]
    size = np.abs(begun)
    realized, left = share_closed(turns, rows, done, size)
    at_gain = (price - entry[rows]) * begun[rows]
    kept = np.where(left > TOLERANCE * size, left / np.where(size > 0.0, size, 1.0), 0.0)
    on_paper = (close - entry) * begun
    counts = (
        float(part[gain > 0.0].sum() if is_gain else part[gain < 0.0].sum())
        for is_gain in (True, False)
        for part, gain in ((realized, at_gain), (kept, on_paper))
    )
    return GainCounts(*counts), list_closed(turns, traded_at, price)


def share_closed(
    turns: Turns, rows: IntArray, done: IntArray, size: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the share of the position at the open of its bar that each trade closed.

    And what all trades of each bar left of that position, in contracts. ``rows`` are the bars of
    the trades, ``done`` the trades before each bar, ``size`` the contracts held at its open.
    """
    total = np.concatenate(([0.0], np.cumsum(turns.closed)))
    before = np.maximum(size[rows] - (total[:-1] - total[done[rows]]), 0.0)
    own = np.minimum(turns.closed, before)
    left = np.maximum(size - np.bincount(rows, own, len(size)), 0.0)
    return np.divide(own, size[rows], out=np.zeros(len(own)), where=size[rows] > 0.0), left


def list_closed(turns: Turns, traded_at: IntArray, price: FloatArray) -> pd.DataFrame:
    opened, closed, contracts = match_first_in(turns)
    side = np.sign(turns.after[opened])
    begin, end = traded_at[opened], traded_at[closed]
    columns = (begin, end, side * contracts, price[opened], price[closed], (end - begin) / DAY,
               side * (price[closed] / price[opened] - 1.0))  # fmt: skip
    return pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)))


def join_realized(parts: Mapping[str, tuple[GainCounts, pd.DataFrame]]) -> Realization:
    counts = GainCounts(
        *(sum(column) for column in zip(*(each[0] for each in parts.values()), strict=True))
    )
    lots = [each.assign(instrument=name) for name, (_, each) in parts.items()]
    joined = pd.concat(lots, ignore_index=True).sort_values("closed", kind="stable")
    return summarize(counts, joined.reset_index(drop=True))


def summarize(counts: GainCounts, lots: pd.DataFrame) -> Realization:
    weight = (lots["quantity"] * lots["entry"]).abs()
    gains = counts.realized_gains + counts.paper_gains
    losses = counts.realized_losses + counts.paper_losses
    pgr = divide(counts.realized_gains, gains)
    plr = divide(counts.realized_losses, losses)
    error = math.sqrt(divide(pgr * (1.0 - pgr), gains) + divide(plr * (1.0 - plr), losses))
    days = [
        divide(float((lots["days"] * weight)[rows].sum()), float(weight[rows].sum()))
        for rows in (lots["change"] > 0.0, lots["change"] < 0.0)
    ]
    for name in ("opened", "closed"):
        lots[name] = utc_index(lots[name].to_numpy(dtype=np.int64))
    return Realization(pgr, plr, pgr - plr, error, *counts, days[0], days[1], lots)


def divide(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
