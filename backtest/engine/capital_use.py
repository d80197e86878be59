"""Use of capital at each close: leverage, margin used, money for new orders, and loans."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from backtest.base import FloatArray
from backtest.base.units import TOLERANCE
from backtest.engine.position_tables import measure_profits, sum_positions
from backtest.engine.result_tables import value_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backtest.engine.record import Record
    from backtest.venue import Venue


def divide_by_equity(money: FloatArray, equity: FloatArray) -> FloatArray:
    if np.min(equity, initial=np.inf) > 0.0:  # usual, and faster
        return money / equity
    return np.divide(money, equity, out=np.zeros(len(equity)), where=equity > 0.0)


def find_margin_used(initial: FloatArray, equity: FloatArray) -> FloatArray:
    """Return initial margin over equity at each close, of shape (n_bars,)."""
    share = divide_by_equity(initial, equity)
    if not np.min(equity, initial=np.inf) > 0.0:
        share[(initial > 0.0) & ~(equity > 0.0)] = np.inf
    return share


def find_available(
    record: Record,
    marks: FloatArray,
    pool: tuple[FloatArray, FloatArray],
    modes: Sequence[str],
    venues: Sequence[Venue],
) -> FloatArray:
    """Return the money that may back a new order at each close, of shape (n_bars,).

    ``marks`` are the mark closes, of shape (n_bars, n), ``modes`` the margin modes of the
    positions. ``pool`` are the backing of the cross positions and the initial margin of all.
    """
    (backing, initial), held = pool, record.held
    is_own = np.array([mode == "isolated" for mode in modes])
    kept = np.array([1.0 - venue.profit_share() for venue in venues])
    uncounted: FloatArray | float = 0.0
    if (kept[~is_own] > 0.0).any():
        gains = kept * np.maximum(measure_profits(held, marks, venues), 0.0)
        uncounted = sum_positions(np.where(is_own, 0.0, gains))
    if is_own.any():
        initial = initial - sum_positions(held["margin"][:, is_own])
    return np.maximum(backing - uncounted - initial, 0.0)


def find_realized(
    record: Record, notional: FloatArray, profits: FloatArray, first_unrealized: FloatArray
) -> FloatArray:
    """Return the realized profit of each bar, with 0 for rounding.

    ``notional`` are gross notionals, ``profits`` of shape (n_bars, n) the unrealized profits at
    closes, and ``first_unrealized`` those at the close before the first bar.
    """
    account = record.account
    change = np.diff(profits.sum(axis=1), prepend=float(np.sum(first_unrealized)))
    realized = account.price_pnl - account.slippage - account.impact - change
    size = notional + np.abs(account.price_pnl)
    return np.where(np.abs(realized) <= TOLERANCE * size, 0.0, realized)


def compute_loan_columns(
    venue: Venue, record: Record, mark: FloatArray, maintenance: FloatArray, *, is_isolated: bool
) -> dict[str, FloatArray]:
    fields = record.of_one()
    quantity, cash = fields["quantity"], fields["cash"]
    owned = np.where(quantity != 0.0, quantity * value_of(venue, mark), 0.0)
    if is_isolated:
        cash = fields["margin"] - quantity * fields["entry"]
    collateral = np.maximum(cash, 0.0) + np.maximum(owned, 0.0)
    debt = np.maximum(-cash, 0.0) + np.maximum(-owned, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        of_long = (collateral - maintenance) / debt
        of_short = collateral / (debt + maintenance)
        ltv = np.where(debt > 0.0, debt / collateral, 0.0)
    health = np.where(owned < 0.0, of_short, of_long)
    return {"health_factor": np.where(debt > 0.0, health, np.inf), "ltv": ltv}
