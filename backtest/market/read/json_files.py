"""JSON tables to frames: rows of numbers as ccxt and freqtrade write them, or objects."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from backtest.market.read.csv_files import MOST_COLUMNS
from backtest.market.read.packed_files import Content
from backtest.market.tables.defects import Defect

LARGEST = 256 << 20
"""The largest JSON text in bytes; a year of minute bars is about 35 MiB."""

_PLAIN = (int, float, str, bool, type(None))
_CURE = "write rows [time, open, high, low, close, volume], or one object of plain values per row"


def parse_json_rows(content: Content, *, where: str) -> pd.DataFrame | Defect:
    """Return the rows of a JSON array as a frame; columns without names are ``"0"``, ``"1"``.

    Objects inside rows (ccxt's ``info``) are left out. Numbers written as text become numbers.
    """
    if len(content.data) > LARGEST:
        found = f"got {len(content.data) >> 20} MiB"
        cure = "split it by month, or convert it to parquet"
        return Defect(f"JSON must be at most {LARGEST >> 20} MiB", found, where, cure)
    try:
        rows = json.loads(content.data)
    except RecursionError:
        return Defect("JSON must be an array of rows", "got rows nested too deeply", where, _CURE)
    except ValueError as error:
        cure = "download or write it again"
        return Defect(
            "a file must be JSON", f"got one that is not: {str(error)[:120]}", where, cure
        )
    if not isinstance(rows, list) or not rows:
        found = f"got {'an empty array' if rows == [] else f'type {type(rows).__name__}'}"
        return Defect("JSON must be an array of rows", found, where, _CURE)
    return _to_frame(rows, where)


def _to_frame(rows: list[Any], where: str) -> pd.DataFrame | Defect:
    kind = type(rows[0])
    odd = next((n for n, row in enumerate(rows) if type(row) is not kind), None)
    if kind not in (list, dict) or odd is not None:
        found = f"row {odd or 0} is of type {type(rows[odd or 0]).__name__}"
        return Defect("JSON must be an array of rows of one kind", found, where, _CURE)
    if kind is dict:
        names = [key for key, cell in rows[0].items() if isinstance(cell, _PLAIN)]
        cells = [[row.get(name) for name in names] for row in rows]
    else:
        names, cells = [str(number) for number in range(len(rows[0]))], rows
    bad = next((n for n, row in enumerate(cells) if not _is_plain(row, len(names))), None)
    if bad is not None or not names or len(names) > MOST_COLUMNS:
        found = f"row {bad or 0} has {len(cells[bad or 0])} cells" + " or nested ones" * bool(names)
        rule = f"JSON rows must have the same {len(names)} plain values"
        return Defect(rule, found, where, _CURE)
    frame = pd.DataFrame(cells, columns=pd.Index(names))
    for name in names:
        frame[name] = _to_numbers(frame[name])
    return frame


def _is_plain(row: list[Any], length: int) -> bool:
    return len(row) == length and all(isinstance(cell, _PLAIN) for cell in row)


def _to_numbers(values: pd.Series) -> pd.Series:
    """Return a text column as numbers if every text is a number or empty."""
    values = values.mask(values == "")
    if values.dtype.kind in "iufb" or not values.notna().any():
        return values
    numbers = pd.to_numeric(values, errors="coerce")
    return values if (numbers.isna() & values.notna()).any() else numbers
