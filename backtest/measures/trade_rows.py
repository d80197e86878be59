"""The trades of an account in one instrument: round trips, or lots, with their costs.

Values are u, those of one contract in the settlement currency. All trades end: what is open at the
end is closed by a last row of the fills, at the last mark and without costs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np

from backtest.measures.lots import Turns, match_first_in

if TYPE_CHECKING:
    from backtest.base import FloatArray, IntArray

TradeView: TypeAlias = Literal["trip", "fifo"]
VIEWS = ("trip", "fifo")


class Fills(NamedTuple):
    """Fills of one instrument, arrays of shape (n_fills,), and the funding between them."""

    turns: Turns
    value: FloatArray
    fees: FloatArray
    slippage: FloatArray
    impact: FloatArray
    loss: FloatArray
    funding: FloatArray
    rate: FloatArray


class TradeRows(NamedTuple):
    entry: IntArray
    exit: IntArray
    side: FloatArray
    quantity: FloatArray
    entry_value: FloatArray
    exit_value: FloatArray
    gain: FloatArray
    fees: FloatArray
    slippage: FloatArray
    impact: FloatArray
    loss: FloatArray
    funding: FloatArray


def list_trades(fills: Fills, view: TradeView) -> TradeRows:
    return list_trips(fills) if view == "trip" else list_lots(fills)


def list_trips(fills: Fills) -> TradeRows:
    turns, starts = fills.turns, fills.turns.starts
    after = np.cumsum(starts) - 1
    before, n = after - starts, int(starts.sum())
    is_closing, closes, opens = turns.closed > 0.0, *turns.shares
    is_held = turns.before != 0.0

    def sum_parts(of_closing: FloatArray, of_opening: FloatArray) -> FloatArray:
        found = np.bincount(after, of_opening, n).astype(np.float64)
        found += np.bincount(before[is_held], of_closing[is_held], n)
        return found

    def sum_costs(cost: FloatArray) -> FloatArray:
        return sum_parts(cost * closes, cost * opens)

    nothing, last = np.zeros(len(after)), np.zeros(n, dtype=np.int64)
    last[before[is_closing]] = np.flatnonzero(is_closing)
    quantity, side = sum_parts(nothing, turns.opened), np.sign(turns.after[starts])
    paid = sum_parts(nothing, turns.opened * fills.value)
    received = sum_parts(turns.closed * fills.value, nothing)
    return TradeRows(
        entry=np.flatnonzero(starts),
        exit=last,
        side=side,
        quantity=quantity,
        entry_value=paid / quantity,
        exit_value=received / quantity,
        gain=side * (received - paid),
        fees=sum_costs(fills.fees),
        slippage=sum_costs(fills.slippage),
        impact=sum_costs(fills.impact),
        loss=sum_parts(fills.loss, nothing),
        funding=sum_parts(fills.funding, nothing),
    )


def list_lots(fills: Fills) -> TradeRows:
    turns = fills.turns
    entry, exit_, contracts = match_first_in(turns)
    part_in = contracts / np.abs(turns.quantity[entry])
    part_out = contracts / np.abs(turns.quantity[exit_])
    side, total = np.sign(turns.after[entry]), np.cumsum(fills.rate)

    def share(cost: FloatArray) -> FloatArray:
        return cost[entry] * part_in + cost[exit_] * part_out

    return TradeRows(
        entry=entry,
        exit=exit_,
        side=side,
        quantity=contracts,
        entry_value=fills.value[entry],
        exit_value=fills.value[exit_],
        gain=side * contracts * (fills.value[exit_] - fills.value[entry]),
        fees=share(fills.fees),
        slippage=share(fills.slippage),
        impact=share(fills.impact),
        loss=fills.loss[exit_] * part_out,
        funding=contracts * (total[exit_] - total[entry]),
    )
