"""Tables from several frames that each hold a part, joined in the order of their time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from backtest.market.tables.defects import Defect
from backtest.market.tables.timed_table import TRADES, Schema, TimedTable, read_frame

_ROW = re.compile(r", row (\d+)$")


class SourceFrame(NamedTuple):
    """A frame and its name, or the defect that kept it from being read.

    ``is_file`` says that it was read from a file, which may have the newest row first.
    ``first_line`` is the line number of its first row in a text file, from 1, if known.
    """

    name: str
    content: pd.DataFrame | Defect
    is_file: bool = False
    first_line: int | None = None

    def with_line(self, defect: Defect) -> Defect:
        """Return a defect with the line of the file in place of the row."""
        found = _ROW.search(defect.where)
        if self.first_line is None or found is None:
            return defect
        line = int(found[1]) + self.first_line
        return defect._replace(where=f"{defect.where[: found.start()]}, line {line}")


def read_table(
    parts: Sequence[SourceFrame], schema: Schema, timezone: str | None
) -> tuple[TimedTable | None, list[Defect]]:
    """Return the table that frames form together, and the defects found.

    Each frame has its own unit of time: some venues changed from milliseconds to microseconds
    between two months. Rows keep their order within a frame; overlaps are duplicates.
    """
    tables, defects = [], []
    for part in parts:
        table, found = _read_part(part, schema, timezone)
        defects += found
        if table is not None:
            tables.append(table)
    if len(tables) < len(parts) or not tables:
        return None, defects
    odd = next((t for t in tables if {*t.columns} != {*tables[0].columns}), None)
    if odd is not None and not defects:
        return None, [_other_columns(tables[0], odd)]
    return _join(tables), defects


def _read_part(
    part: SourceFrame, schema: Schema, timezone: str | None
) -> tuple[TimedTable | None, list[Defect]]:
    if isinstance(part.content, Defect):
        return None, [part.content]
    is_trades = "price" in part.content and "open" not in part.content and "open" in schema.required
    wanted = TRADES if is_trades else schema
    table, found = read_frame(part.content, wanted, name=part.name, timezone=timezone)
    defects = [part.with_line(defect) for defect in found]
    if part.is_file and table is not None and _is_newest_first(table):
        table = table.rows(np.arange(table.time.size)[::-1])
    return table, defects


def _is_newest_first(table: TimedTable) -> bool:
    return table.time.size > 1 and bool((table.time[1:] <= table.time[:-1]).all())


def _join(tables: Sequence[TimedTable]) -> TimedTable:
    if len(tables) == 1:
        return tables[0]
    ordered = sorted(tables, key=lambda table: int(table.time[0]))
    shared = [name for name in ordered[0].columns if all(name in t.columns for t in ordered)]
    more = len(ordered) - 1
    return TimedTable(
        f"{ordered[0].name} and {more} more",
        np.concatenate([table.time for table in ordered]),
        {name: np.concatenate([table.columns[name] for table in ordered]) for name in shared},
    )


def _other_columns(first: TimedTable, odd: TimedTable) -> Defect:
    differ = ", ".join(sorted({*first.columns} ^ {*odd.columns}))
    return Defect(
        "files of one table must have the same columns",
        f"{first.name} and {odd.name} differ in {differ}",
        odd.name,
        "download the other one again, or drop the column",
    )
