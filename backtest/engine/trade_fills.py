"""The fills of a run by instrument, from its ledger: what ``result.trades`` is made of."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from backtest.account import ledger
from backtest.account.portfolio_ledger import DELISTED, EXPIRED
from backtest.engine.result_tables import (
    DIVIDEND,
    KINDS,
    OWNER,
    find_costs,
    value_of,
)
from backtest.measures import Fills, split_trades

if TYPE_CHECKING:
    from backtest.base import FloatArray, IntArray
    from backtest.engine.run_options import RunOptions
    from backtest.engine.run_record import RunRecord

CARRIED, OPEN = -1, -2
"""Kinds of the fills before the first, of what an earlier run held, and after the last."""
TRADED = (ledger.FILL, *ledger.STOP_KINDS, ledger.LIQUIDATED, ledger.RUINED, DELISTED, EXPIRED)
NUMBERS = {name: kind for kind, name in KINDS.items()} | {DIVIDEND: ledger.FUNDING}


class Holding(NamedTuple):
    """What was held over the bars of a run: an instrument, or an option.

    ``owner`` is its number in the log. Of shape (n_bars,): ``quantity``, the ``value`` u of one
    contract at mark closes, and the ``notional`` without sign, of an option its delta in money.
    ``before`` is the value at the close before the run, NaN if unknown. ``place`` is that of an
    instrument; an option has none.
    """

    name: str
    owner: int
    quantity: FloatArray
    value: FloatArray
    notional: FloatArray
    before: float
    place: int | None


def list_holdings(run: RunRecord) -> list[Holding]:
    found = [
        Holding(
            name=name,
            owner=i,
            quantity=run.of_positions("quantity")[:, i],
            value=value_of(venue, run.marks[:, i]),
            notional=np.abs(run.notionals[:, i]),
            before=float(value_of(venue, run.before.mark[i : i + 1])[0]),
            place=i,
        )
        for i, (name, venue) in enumerate(zip(run.names, run.list_venues(), strict=True))
    ]
    return found if run.options is None else [*found, *hold_options(run.options)]


def hold_options(options: RunOptions) -> Iterator[Holding]:
    own, delta = options.record, np.abs(options.greeks["delta"])
    for k, (owner, name) in enumerate(options.named.items()):
        numbers = (own.quantity[:, k], own.value[:, k], delta[:, k], math.nan)
        yield Holding(name, owner, *numbers, place=None)


class InstrumentFills(NamedTuple):
    """Fills of one instrument with the bar and the kind of each, arrays of shape (n_fills,)."""

    bar: IntArray
    kind: IntArray
    fills: Fills


def read_entries(run: RunRecord) -> FloatArray:
    """Return the entries of the ledger, of shape (n, 8 or more), with bars counted from 0."""
    if not isinstance(run.entries, pd.DataFrame):
        entries = run.entries.copy()
        entries[:, 0] -= run.span.first
        return entries
    events = run.entries
    kinds = events["kind"].astype(str).map(NUMBERS).to_numpy(dtype=np.float64)
    is_cost = np.isnan(kinds)
    row = np.cumsum(~is_cost) - 1
    entries = np.zeros((int((~is_cost).sum()), OWNER))
    time = pd.DatetimeIndex(events["time"]).as_unit("ns").asi8[~is_cost]
    entries[:, 0] = np.searchsorted(run.time, time)
    entries[:, 1] = kinds[~is_cost]
    entries[:, 2] = value_of(run.venue, events["price"].to_numpy()[~is_cost])
    for column, name in ((3, "quantity"), (4, "amount")):
        entries[:, column] = events[name].to_numpy()[~is_cost]
    amount = events["amount"].to_numpy()
    for name, _, column in find_costs(np.zeros(0, dtype=np.int64)):
        rows = (events["kind"] == name).to_numpy()
        np.add.at(entries[:, column], row[rows], amount[rows])
    return entries


def read_fills(run: RunRecord, entries: FloatArray, held: Holding) -> InstrumentFills:
    has_owner = entries.shape[1] > OWNER
    own = entries[:, OWNER] == held.owner if has_owner else np.ones(len(entries), dtype=bool)
    is_fill = own & np.isin(entries[:, 1], TRADED) & (entries[:, 3] != 0.0)
    carry = (ledger.FUNDING, ledger.INTEREST) if has_owner else (ledger.FUNDING,)
    rows, paid = np.flatnonzero(is_fill), np.flatnonzero(own & np.isin(entries[:, 1], carry))
    quantity, last, width = held.quantity, run.record.n_bars - 1, entries.shape[1]
    in_first = rows[entries[rows, 0] == 0.0]
    carried = float(quantity[0] - entries[in_first, 3].sum())
    if abs(carried) <= 1e-9 * max(abs(float(quantity[0])), *np.abs(entries[in_first, 3]), 0.0):
        carried = 0.0
    parts = [entries[rows]]
    if carried != 0.0:
        parts.insert(0, make_entry(0, CARRIED, width, held.before, carried))
    if quantity[last] != 0.0:
        parts.append(make_entry(last, OPEN, width, held.value[last], -float(quantity[last])))
    taken = np.concatenate(parts)
    place = np.searchsorted(rows, paid) + (carried != 0.0)
    n, rate = len(taken), entries[paid, 4] / np.abs(entries[paid, 3])
    is_loss = taken[:, 1] == ledger.LIQUIDATED
    fills = Fills(
        turns=split_trades(taken[:, 3]),
        value=taken[:, 2],
        fees=np.where(is_loss, 0.0, taken[:, 5]),
        slippage=taken[:, 6],
        impact=taken[:, 7],
        loss=np.where(is_loss, taken[:, 5], 0.0),
        funding=np.bincount(place, entries[paid, 4], n).astype(np.float64),
        rate=np.bincount(place, rate, n).astype(np.float64),
    )
    return InstrumentFills(taken[:, 0].astype(np.int64), taken[:, 1].astype(np.int64), fills)


def make_entry(bar: int, kind: int, width: int, value: float, quantity: float) -> FloatArray:
    entry = np.zeros((1, width))
    entry[0, :4] = bar, kind, value, quantity
    return entry
