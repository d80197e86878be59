"""What follows from the account of one position and its market at each close, on arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backtest.engine.record import Closes
from backtest.engine.result_tables import ARRAYS, value_of
from backtest.venue import MarginRules, read_rules

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backtest.account import Account
    from backtest.base import FloatArray, IntArray
    from backtest.engine.record import Record
    from backtest.venue import Venue


class TableSpan(NamedTuple):
    first: int
    stop: int
    rules: MarginRules


def list_tables(venue: Venue, account: Account, time: IntArray) -> list[TableSpan]:
    setting = account.venue_leverage or 0.0
    return [
        TableSpan(each.first, each.stop, read_rules(venue.with_table(each), setting))
        for each in venue.in_use(time)
    ]


def compute_pool(
    venue: Venue,
    account: Account,
    record: Record,
    mark: FloatArray,
    x: FloatArray,
    tables: Sequence[TableSpan],
    first: int = 0,
) -> tuple[FloatArray, FloatArray]:
    quantity = record.positions.quantity[:, 0]
    if account.margin == "isolated":
        return record.account.cash, np.where(quantity != 0.0, record.positions.margin[:, 0], 0.0)
    notional = np.abs(quantity) * np.abs(value_of(venue, mark))
    initial = np.zeros(len(notional))
    for table in tables:
        begin, end = max(table.first - first, 0), table.stop - first
        if begin < end and begin < len(notional):
            rows = slice(begin, end)
            initial[rows] = compute_initial(table.rules, notional[rows], x[rows])
    return record.account.equity, initial


def compute_initial(rules: MarginRules, notional: FloatArray, x: FloatArray) -> FloatArray:
    n = int(np.searchsorted(rules.caps, np.max(notional))) + 1
    reached = rules._replace(caps=rules.caps[:n], leverages=rules.leverages[:n])
    return np.asarray(ARRAYS.compute_initial(reached, notional, x))


def compute_needed(
    venue: Venue,
    quantity: FloatArray,
    entry: FloatArray,
    mark: FloatArray,
    x: FloatArray,
    tables: Sequence[TableSpan],
) -> FloatArray:
    tested = np.abs(quantity) * np.abs(value_of(venue, mark))
    if venue.maintenance_at == "entry":
        tested = np.abs(quantity * entry)
    needed = np.zeros(len(mark))
    for table in tables:
        rows = slice(table.first, table.stop)
        needed[rows] = ARRAYS.compute_maintenance(table.rules, tested[rows], x[rows])
    return np.where(quantity != 0.0, needed, 0.0)


def compute_closes(
    venue: Venue,
    account: Account,
    record: Record,
    mark: FloatArray,
    x: FloatArray,
    tables: Sequence[TableSpan],
    pool: tuple[FloatArray, FloatArray],
) -> Closes:
    fields = record.of_one()
    quantity, entry, cash = fields["quantity"], fields["entry"], fields["cash"]
    is_held, is_isolated = quantity != 0.0, account.margin == "isolated"
    share = compute_needed(venue, quantity, entry, mark, x, tables)
    base = fields["margin"] - quantity * entry if is_isolated else cash
    root, nothing = np.zeros(len(mark)), np.zeros(len(mark))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for table in tables:
            rows = slice(table.first, table.stop)
            root[rows] = ARRAYS.compute_liquidation_value(
                table.rules, quantity[rows], entry[rows], base[rows], x[rows]
            )
    paid = np.where(is_held & (not is_isolated), quantity * entry, 0.0)
    backing, initial = pool
    return Closes(
        balance=cash + paid,
        backing=backing,
        requirement=nothing if is_isolated else share,
        collateral=nothing,
        collateral_at_rate=nothing,
        initial=initial,
        distance=backing - (nothing if is_isolated else share),
        collateral_share=nothing,
        share=share[:, None],
        failure=np.where(is_held, root, np.nan)[:, None],
    )
