"""Realization of gains and losses: how readily an account closes winners and losers."""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from backtest.base.checked_calls import checked
from backtest.base.number_text import format_percent
from backtest.base.units import DAY, TOLERANCE, utc_index

if TYPE_CHECKING:
    from backtest.base.units import FloatArray, IntArray

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


class Lot(NamedTuple):
    """Contracts that were opened together: signed quantity, price, and time in ns."""

    quantity: float
    price: float
    time: int


class Held(NamedTuple):
    """Signed contracts of a position, and its average entry in u: the price, or -1 / price."""

    quantity: float
    entry: float

    def find_entry(self, *, is_inverse: bool) -> float:
        """Return the average entry as a price."""
        return -1.0 / self.entry if is_inverse else self.entry

    def trade(self, trade: Lot, *, is_inverse: bool) -> Held:
        """Return the position after a trade: a reduction keeps the entry, a flip begins it anew."""
        value = -1.0 / trade.price if is_inverse else trade.price
        after = self.quantity + trade.quantity
        if abs(after) <= TOLERANCE * abs(trade.quantity):
            return Held(0.0, math.nan)
        if self.quantity * after <= 0.0:
            return Held(after, value)
        if self.quantity * trade.quantity < 0.0:
            return Held(after, self.entry)
        total = self.quantity * self.entry + trade.quantity * value
        return Held(after, total / after)


class GainCounts(NamedTuple):
    """Positions by bar: realized and kept, at gains and at losses."""

    realized_gains: float = 0.0
    paper_gains: float = 0.0
    realized_losses: float = 0.0
    paper_losses: float = 0.0

    def add(self, share: float, gain: float, *, is_realized: bool) -> GainCounts:
        """Return the counts with a share of a position, by the sign of its gain; 0 is neither."""
        if gain == 0.0:
            return self
        name = f"{'realized' if is_realized else 'paper'}_{'gains' if gain > 0.0 else 'losses'}"
        return self._replace(**{name: getattr(self, name) + share})


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
) -> tuple[GainCounts, list[tuple[float, ...]]]:
    """Return positions by bar, and the lots that were closed; arguments of :func:`realization`."""
    rows = np.searchsorted(time, traded_at, side="right") - 1
    firsts = np.searchsorted(rows, np.arange(len(time) + 1))
    trades = [Lot(*each) for each in zip(quantity.tolist(), price.tolist(), traded_at.tolist(),
                                         strict=True)]  # fmt: skip
    counts, lots, closed = GainCounts(), deque[Lot](), list[tuple[float, ...]]()
    held = Held(0.0, math.nan)
    for bar in range(len(time)):
        own = trades[firsts[bar] : firsts[bar + 1]]
        if lots or own:
            entry = held.find_entry(is_inverse=is_inverse)
            counts, pieces = live_bar(counts, lots, own, float(close[bar]), entry)
            closed += pieces
        for trade in own:
            held = held.trade(trade, is_inverse=is_inverse)
    return counts, closed


def join_realized(
    parts: Mapping[str, tuple[GainCounts, list[tuple[float, ...]]]],
) -> Realization:
    """Return the realization of several instruments: each position counts for itself."""
    counts = GainCounts(
        *(sum(column) for column in zip(*(each[0] for each in parts.values()), strict=True))
    )
    found = summarize(counts, [row for _, closed in parts.values() for row in closed])
    names = [name for name, (_, closed) in parts.items() for _ in closed]
    lots = found.lots.assign(instrument=names).sort_values("closed", kind="stable")
    return dataclasses.replace(found, lots=lots.reset_index(drop=True))


def live_bar(
    counts: GainCounts, lots: deque[Lot], trades: list[Lot], close: float, entry: float
) -> tuple[GainCounts, list[tuple[float, ...]]]:
    """Return the counts after a bar, and the pieces its trades closed; ``lots`` are changed.

    ``entry`` is the average entry of the position with which the bar began.
    """
    begun = sum(each.quantity for each in lots)
    left, closed = begun, []
    for trade in trades:
        pieces = list(close_lots(lots, trade))
        traded = -sum(row[2] for row in pieces)
        own = math.copysign(min(abs(traded), abs(left)), begun)
        if own:
            counts = counts.add(own / begun, (trade.price - entry) * begun, is_realized=True)
        left -= own
        rest = trade.quantity - traded
        if abs(rest) > TOLERANCE * abs(trade.quantity):
            lots.append(trade._replace(quantity=rest))
        closed += pieces
    if begun and abs(left) > TOLERANCE * abs(begun):
        counts = counts.add(left / begun, (close - entry) * begun, is_realized=False)
    return counts, closed


def close_lots(lots: deque[Lot], trade: Lot) -> Iterator[tuple[float, ...]]:
    """Yield the pieces of lots that a trade closes, the oldest first, and remove them."""
    rest = abs(trade.quantity)
    while lots and lots[0].quantity * trade.quantity < 0.0 and rest > 0.0:
        lot = lots.popleft()
        taken = min(rest, abs(lot.quantity))
        rest -= taken
        piece = math.copysign(taken, lot.quantity)
        change = math.copysign(1.0, piece) * (trade.price / lot.price - 1.0)
        days = (trade.time - lot.time) / DAY
        yield lot.time, trade.time, piece, lot.price, trade.price, days, change
        kept = lot.quantity - piece
        if abs(kept) > TOLERANCE * abs(lot.quantity):
            lots.appendleft(lot._replace(quantity=kept))


def summarize(counts: GainCounts, closed: list[tuple[float, ...]]) -> Realization:
    """Return the shares and the holding times."""
    lots = pd.DataFrame(closed, columns=list(COLUMNS)).astype(np.float64)
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
    """Return part / whole, NaN where there is nothing."""
    return part / whole if whole else math.nan
