"""The limit orders of a run: which filled, and where the price went after them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import count_nouns, format_percent

if TYPE_CHECKING:
    from backtest.base import BoolArray, FloatArray, IntArray
    from backtest.engine.run_record import RunRecord

COLUMNS = ("time", "instrument", "side", "price", "quantity", "is_filled", "next_move")


class LimitOrders(NamedTuple):
    """Counts of limit orders, and mean moves of the mark against them in the bar after theirs.

    A move is from close to close, as a fraction: down for a buy, up for a sale. NaN without any.
    """

    placed: int
    filled: int
    move_against_filled: float
    move_against_unfilled: float


def list_limit_orders(run: RunRecord) -> pd.DataFrame:
    events = run.events
    kinds = events["kind"].astype(str).to_numpy()
    if "limit_order" not in kinds:
        return pd.DataFrame(columns=list(COLUMNS))
    placed = np.flatnonzero(kinds == "limit_order")
    who = events["instrument"].cat.codes.to_numpy().astype(np.int64)
    bar = np.searchsorted(run.time, pd.DatetimeIndex(events["time"]).as_unit("ns").asi8)
    keys = bar * (len(run.names) + 1) + who
    is_filled = match_fills(keys, placed, np.flatnonzero(kinds == "fill"))
    quantity = events["quantity"].to_numpy()[placed]
    return pd.DataFrame(
        {
            "time": events["time"].to_numpy()[placed],
            "instrument": events["instrument"].astype(str).to_numpy()[placed],
            "side": np.where(quantity > 0.0, "buy", "sell"),
            "price": events["price"].to_numpy()[placed],
            "quantity": np.abs(quantity),
            "is_filled": is_filled,
            "next_move": find_next_moves(run, bar[placed], who[placed], quantity),
        }
    )


def match_fills(keys: IntArray, placed: IntArray, fills: IntArray) -> BoolArray:
    last = dict(zip(keys[fills].tolist(), fills.tolist(), strict=True))
    rows = zip(keys[placed].tolist(), placed.tolist(), strict=True)
    return np.array([last.get(key, -1) > row for key, row in rows], dtype=np.bool_)


def find_next_moves(
    run: RunRecord, bar: IntArray, who: IntArray, quantity: FloatArray
) -> FloatArray:
    marks = run.marks
    after = np.minimum(bar + 1, len(marks) - 1)
    move = marks[after, who] / marks[bar, who] - 1.0
    return np.where(after > bar, -np.sign(quantity) * move, np.nan) + 0.0


def collect_limit_orders(run: RunRecord) -> dict[str, dict[str, float]]:
    if run.account.fill != "limit":
        return {}
    return {"limit_orders": count_limit_orders(list_limit_orders(run))._asdict()}


def count_limit_orders(orders: pd.DataFrame) -> LimitOrders:
    is_filled = orders["is_filled"].to_numpy(dtype=np.bool_)
    moves = orders["next_move"].to_numpy(dtype=np.float64)
    known = ~np.isnan(moves)
    means = [
        float(np.mean(moves[known & chosen])) if (known & chosen).any() else float("nan")
        for chosen in (is_filled, ~is_filled)
    ]
    return LimitOrders(len(orders), int(is_filled.sum()), *means)


def describe_limit_orders(orders: pd.DataFrame) -> str:
    found = count_limit_orders(orders)
    text = f"{count_nouns(found.placed, 'order')}, {found.filled:,} filled and "
    text += f"{found.placed - found.filled:,} not"
    moves = (
        (found.move_against_filled, "those filled"),
        (found.move_against_unfilled, "the others"),
    )
    told = [f"{describe_move(move)} {whom}" for move, whom in moves if not math.isnan(move)]
    if not told:
        return text
    return f"{text}; in the next bar the mark moved {' and '.join(told)}, on average"


def describe_move(against: float) -> str:
    size = format_percent(abs(against), 3)
    return f"{size} against" if against > 0.0 else f"{size} in favor of"
