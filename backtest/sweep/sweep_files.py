"""The table of a sweep as its file holds it: words for columns that mix numbers and words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from backtest.base.errors import DataError
from backtest.base.result_folders import MANIFEST

LABEL = "label"
"""Column of the file with the labels of the rows."""


def find_mixed(table: pd.DataFrame) -> list[str]:
    """Return the columns that mix numbers and words, which are stored as words."""
    objects = [str(name) for name in table if table[name].dtype == object]
    return [name for name in objects if pd.api.types.infer_dtype(table[name]) != "string"]


def lay_out_sets(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table of a sweep as its file holds it."""
    shown = table.copy()
    for name in find_mixed(table):
        words = [None if value is None else str(value) for value in table[name]]
        shown[name] = pd.Series(words, index=table.index, dtype=object)
    shown.insert(0, LABEL, shown.index)
    return shown


def read_sets(stored: pd.DataFrame, mixed: object, folder: Path) -> pd.DataFrame:
    """Return the table of a sweep from that of its file."""
    table = stored.set_index(LABEL).rename_axis(None)
    if not isinstance(mixed, list) or not {*map(str, mixed)} <= {*table}:
        raise DataError(
            f"mixed must be a list of columns of the table, got {mixed!r}",
            where=str(folder / MANIFEST),
            cure="run the sweep again, or restore the file",
        )
    for name in mixed:
        table[name] = pd.Series(map(_read_word, table[name]), index=table.index, dtype=object)
    return table


def _read_word(text: object) -> Any:
    """Return a number that was stored as a word, or the word; None if it is missing."""
    if not isinstance(text, str):  # a missing word comes back from the file as NaN
        return None
    try:
        return float(text)
    except ValueError:
        return text
