"""Auto-deleveraging: bankrupt positions are closed against accounts of the other side.

The bankrupt account ends with nothing; the others close at its bankruptcy price instead of the
market's, and so pay for what it lacks. Without a queue every account of the other side gives the
same share of its position.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from backtest.base import FloatArray, IntArray
    from backtest.crowd.cascade_state import CascadeState


class Deleveraged(NamedTuple):
    """Outcome of deleveraging: closed contracts, losses of bankrupts and of counterparties."""

    quantity: float
    shortfall: float
    missing: float


def deleverage(
    state: CascadeState, rows: IntArray, lacks: FloatArray, value: float, adl: str | None
) -> Deleveraged:
    """Close bankrupt accounts against the other side, in the order of the queue or pro rata.

    ``lacks`` is what each would lack if it were sold in the market; ranks are taken at u, the mark.
    """
    found = Deleveraged(0.0, 0.0, 0.0)
    for side in (1.0, -1.0):
        is_chosen = side * state.quantity[rows] > 0.0
        if is_chosen.any():
            lack = float(np.sum(lacks[is_chosen]))
            more = close_side(state, rows[is_chosen], rows, lack, value, adl)
            found = Deleveraged(*(one + other for one, other in zip(found, more, strict=True)))
    return found


def close_side(
    state: CascadeState,
    bankrupt: IntArray,
    left_out: IntArray,
    lack: float,
    value: float,
    adl: str | None,
) -> Deleveraged:
    """Close the bankrupt accounts of one side at their mean bankruptcy price."""
    quantity = state.quantity[bankrupt]
    total = float(np.sum(quantity))
    price = -float(np.sum(state.base[bankrupt])) / total
    state.closed[bankrupt] += np.abs(quantity)
    state.closed_money[bankrupt] -= np.sign(quantity) * state.base[bankrupt]
    state.base[bankrupt] = 0.0
    state.quantity[bankrupt] = 0.0
    others = np.flatnonzero(state.quantity * total < 0.0)
    others = np.setdiff1d(others, left_out, assume_unique=True)
    taken = (
        choose_queue(state, others, abs(total), value)
        if adl == "queue"
        else choose_pro_rata(state, others, abs(total))
    )
    missing = take_positions(state, others, taken * -np.sign(total), price)
    rest = total - float(np.sum(taken)) * np.sign(total)
    state.liquidity_quantity += rest
    state.liquidity_base -= rest * price
    return Deleveraged(abs(total), lack, missing)


def choose_queue(state: CascadeState, rows: IntArray, total: float, value: float) -> FloatArray:
    """Return the contracts that each account gives up, the highest rank first."""
    order = np.argsort(-rank_accounts(state, rows, value), kind="stable")
    size = np.abs(state.quantity[rows][order])
    before = np.cumsum(size) - size
    taken = np.empty(len(rows))
    taken[order] = np.clip(total - before, 0.0, size)
    return taken


def rank_accounts(state: CascadeState, rows: IntArray, value: float) -> FloatArray:
    """Return the rank for auto-deleveraging: return times leverage, of losers return over it."""
    quantity, entry = state.quantity[rows], state.entry[rows]
    gain = quantity * (value - entry) / np.abs(quantity * entry)
    equity = np.maximum(state.base[rows] + quantity * value, 1e-12 * np.abs(quantity * entry))
    leverage = np.abs(quantity * value) / equity
    return np.asarray(np.where(gain > 0.0, gain * leverage, gain / leverage))


def choose_pro_rata(state: CascadeState, rows: IntArray, total: float) -> FloatArray:
    """Return the contracts that each account gives up: the same share of each position.

    The liquidity account shares if it is on their side.
    """
    size = np.abs(state.quantity[rows])
    held = float(np.sum(size))
    side = np.sign(state.quantity[rows[0]]) if len(rows) else 0.0
    everyone = held + max(side * state.liquidity_quantity, 0.0)
    return size * min(1.0, total / everyone) if everyone > 0.0 else size


def take_positions(state: CascadeState, rows: IntArray, taken: FloatArray, price: float) -> float:
    """Close signed contracts of some accounts; return the bad debt of accounts then flat."""
    state.base[rows] += taken * price
    state.quantity[rows] -= taken
    size = np.abs(taken)
    state.deleveraged[rows] += size
    state.closed[rows] += size
    state.closed_money[rows] += size * price
    is_flat = state.quantity[rows] == 0.0
    missing = float(np.sum(np.maximum(-state.base[rows[is_flat]], 0.0)))
    state.base[rows[is_flat]] = np.maximum(state.base[rows[is_flat]], 0.0)
    state.recompute(rows[size > 0.0])
    return missing
