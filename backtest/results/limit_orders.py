"""Limit orders of a run: which were filled, and what the market did after them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from backtest import core
from backtest.core.code_names import pd

if TYPE_CHECKING:
    from backtest.core import FloatArray
    from backtest.results.run_record import RunRecord


def list_limit_orders(run: RunRecord) -> pd.DataFrame:
    """Return a row for each limit order: side, price, whether it filled, and the next move.

    ``next_move`` is how far the mark moved against the order in the bar after it, NaN at the end.
    """
    events = run.events
    kinds = events["kind"].astype(str).to_numpy()
    owner = events["instrument"].cat.codes.to_numpy().astype(np.int64)
    times = pd.DatetimeIndex(events["time"]).as_unit("ns").asi8
    bar = np.searchsorted(run.time, times)

    # An order is filled if a fill of its instrument comes after it in the same bar.
    bar_and_owner = bar * (len(run.names) + 1) + owner
    fills = np.flatnonzero(kinds == "fill")
    keys_of_fills = bar_and_owner[fills].tolist()
    last_fill = dict(zip(keys_of_fills, fills.tolist(), strict=True))

    placed = np.flatnonzero(kinds == "limit_order")
    fill_rows = [last_fill.get(key, -1) for key in bar_and_owner[placed].tolist()]
    is_filled = np.array(fill_rows, dtype=np.int64) > placed

    # The move of the mark from the close of the bar to the next one.
    marks = run.marks
    bar = bar[placed]
    owner = owner[placed]
    quantity = events["quantity"].to_numpy()[placed]
    after = np.minimum(bar + 1, len(marks) - 1)
    move = marks[after, owner] / marks[bar, owner] - 1.0
    move_against = -np.sign(quantity) * move
    next_move = np.where(after > bar, move_against, np.nan) + 0.0  # no -0
    return pd.DataFrame(
        {
            "time": events["time"].to_numpy()[placed],
            "instrument": events["instrument"].astype(str).to_numpy()[placed],
            "side": np.where(quantity > 0.0, "buy", "sell"),
            "price": events["price"].to_numpy()[placed],
            "quantity": np.abs(quantity),
            "is_filled": is_filled,
            "next_move": next_move,
        }
    )


def count_limit_orders(orders: pd.DataFrame) -> dict[str, float]:
    """Return counts, and mean moves of the mark against the orders in the bar after theirs.

    A move is from close to close, as a fraction: down for a buy, up for a sale. NaN without any.
    """
    is_filled = orders["is_filled"].to_numpy(dtype=np.bool_)
    moves = orders["next_move"].to_numpy(dtype=np.float64)
    return {
        "placed": len(orders),
        "filled": int(is_filled.sum()),
        "move_against_filled": average_known(moves[is_filled]),
        "move_against_unfilled": average_known(moves[~is_filled]),
    }


def average_known(values: FloatArray) -> float:
    """Return the mean of what is not NaN, NaN if nothing is."""
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return math.nan
    return float(np.mean(known))


def describe_limit_orders(orders: pd.DataFrame) -> str:
    """Return how many limit orders filled, and how the mark moved after them, as a sentence."""
    counts = count_limit_orders(orders)
    placed = int(counts["placed"])
    filled = int(counts["filled"])
    text = f"{core.count_nouns(placed, 'order')}, {filled:,} filled and {placed - filled:,} not"

    moves = {
        "those filled": counts["move_against_filled"],
        "the others": counts["move_against_unfilled"],
    }
    clauses = []
    for orders_meant, move in moves.items():
        if math.isnan(move):
            continue
        size = core.format_percent(abs(move), 3)
        direction = "against" if move > 0.0 else "in favor of"
        clauses.append(f"{size} {direction} {orders_meant}")
    if not clauses:
        return text
    return f"{text}; in the next bar the mark moved {' and '.join(clauses)}, on average"
