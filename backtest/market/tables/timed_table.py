"""Frames to float64 columns by UTC time; text and missing columns are refused."""

from __future__ import annotations

import difflib
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import BoolArray, FloatArray, IntArray, did_you_mean
from backtest.market.tables.defects import DECIMAL_COMMA, Defect
from backtest.market.tables.times import find_stamps, to_utc

PRICES = ("open", "high", "low", "close")

_DECIMAL_COMMA = r"\s*[+-]?\d+,\d+\s*"


class TimedTable(NamedTuple):
    """Columns by time, as read: not yet sorted, aligned or checked.

    Parameters
    ----------
    name : str
        The file or frame that they came from, for messages.
    time : IntArray of shape (n,)
        UTC nanoseconds.
    columns : dict of FloatArray of shape (n,)
        The columns that could be read; the others are among the defects.
    """

    name: str
    time: IntArray
    columns: dict[str, FloatArray]

    def rows(self, kept: slice | IntArray) -> TimedTable:
        columns = {key: values[kept] for key, values in self.columns.items()}
        return TimedTable(self.name, self.time[kept], columns)


def in_order(table: TimedTable) -> TimedTable:
    if is_increasing(table.time):
        return table
    return table.rows(np.unique(table.time, return_index=True)[1])


def equal_or_nan(one: FloatArray, other: FloatArray) -> BoolArray:
    return np.asarray((one == other) | (np.isnan(one) & np.isnan(other)))


def is_increasing(time: IntArray) -> bool:
    return bool((time[1:] > time[:-1]).all())


def distinct(time: IntArray) -> IntArray:
    return time if is_increasing(time) else np.unique(time)


class Schema(NamedTuple):
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    others: Literal["keep", "ignore", "refuse"] = "refuse"

    @property
    def known(self) -> tuple[str, ...]:
        return self.required + self.optional


BARS = Schema(PRICES, ("volume",), "keep")
MARK = Schema(PRICES, (), "ignore")
FUNDING = Schema(("rate",), ("mark", "predicted"), "refuse")
TRADES = Schema(("price",), ("size",), "ignore")
DIVIDENDS = Schema(("amount",), (), "refuse")
SCHEMAS = {"bars": BARS, "mark": MARK, "funding": FUNDING}


def read_frame(
    frame: pd.DataFrame, schema: Schema, *, name: str, timezone: str | None
) -> tuple[TimedTable | None, list[Defect]]:
    if not len(frame):
        return None, [Defect(f"data must have rows, found none ({name})")]
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        return None, [Defect(f"column names must be unique, {twice!r} is twice ({name})")]
    found = find_stamps(frame, name=name)
    if isinstance(found, Defect):
        return None, [found]
    stamps, time_column = found
    columns, defects = _read_columns(frame, schema, name=name, skip=time_column)
    time = to_utc(stamps, name=name, timezone=timezone)
    if isinstance(time, Defect):
        return None, [time, *defects]
    return TimedTable(name, time, columns), defects


def _read_columns(
    frame: pd.DataFrame, schema: Schema, *, name: str, skip: str | None
) -> tuple[dict[str, FloatArray], list[Defect]]:
    known = schema.known
    others = [column for column in frame.columns if column not in known and column != skip]
    defects = [_missing(c, others, name) for c in schema.required if c not in frame.columns]
    wanted = [column for column in known if column in frame.columns]
    if schema.others == "keep":
        wanted += [column for column in others if isinstance(column, str)]
        defects += [
            Defect(f"column names must be text, found {column!r} ({name})")
            for column in others
            if not isinstance(column, str)
        ]
    if schema.others == "refuse" and not defects:
        defects += [_unknown(column, known, name) for column in others]
    columns = {}
    for column in wanted:
        values = to_floats(frame[column], column=column, name=name)
        if isinstance(values, Defect):
            defects.append(values)
        else:
            columns[column] = values
    return columns, defects


def to_floats(values: pd.Series, *, column: str, name: str) -> FloatArray | Defect:
    """Return a column as a new float64 array of shape (n,), or its first non-numeric cell."""
    if values.dtype.kind in "iufb" or values.isna().all():
        given = values.to_numpy(dtype=np.float64, na_value=np.nan)
        floats = np.ascontiguousarray(given + 0.0)  # a copy; -0.0 becomes 0.0: one hash per value
        floats[np.isnan(floats)] = np.nan  # one bit pattern for every NaN, likewise
        return floats
    rule = f"{column} must be numbers"
    if values.dtype.kind in "Mm":
        return Defect(f"{rule}, found {values.dtype} ({name}, row 0); drop the column")
    texts = values.astype(str)
    bad = np.flatnonzero(pd.to_numeric(texts, errors="coerce").isna() & values.notna())
    if not bad.size:
        return Defect(
            f"{rule}, got {texts.iloc[0]!r}, numbers written as text ({name}, row 0); "
            f"frame[{column!r}].astype(float)"
        )
    is_comma = texts.iloc[bad].str.fullmatch(_DECIMAL_COMMA).all()
    return Defect(
        f"{rule}, got {texts.iloc[bad[0]]!r} in {bad.size} of {len(values)} cells "
        f"({name}, row {bad[0]}); "
        + (DECIMAL_COMMA if is_comma else "correct the cell, or drop the column")
    )


def _missing(column: str, others: list[str], name: str) -> Defect:
    names = [str(other) for other in others]
    near = [other for other in names if column in other.lower()]
    near = near or difflib.get_close_matches(column, names, n=1, cutoff=0.5)
    guess = f"; is it {near[0]!r}?" if near else ""
    found = ", ".join(names) or "no other"
    return Defect(f"a column {column!r} is needed, found {found}{guess} ({name})")


def _unknown(column: str, known: tuple[str, ...], name: str) -> Defect:
    near = did_you_mean(str(column), known)
    return Defect(f"columns must be {' and '.join(known)}, found {column!r}{near} ({name})")
