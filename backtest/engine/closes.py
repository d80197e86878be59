"""What follows from the account of one position and its market at each close, on arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backtest.engine.result_tables import ARRAYS, value_of
from backtest.venue import MarginRules, read_rules

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backtest.account import Account
    from backtest.base import FloatArray, IntArray
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
