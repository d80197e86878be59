"""Tables of results as Parquet files, and as records for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from backtest.core.code_names import is_frame, pa, pd, pq

MAX_ROWS = 10_000
"""The rows of the largest table that is written as JSON."""


def write_parquet(table: pd.DataFrame | Mapping[str, npt.NDArray[Any]], path: Path) -> None:
    """Write a frame, or arrays by the names of their columns, without pandas."""
    if is_frame(table):
        whole = pa.Table.from_pandas(table)
    else:
        whole = pa.table({name: to_arrow(values) for name, values in table.items()})
    pq.write_table(whole, path, compression="zstd")


def to_arrow(values: npt.NDArray[Any]) -> pa.Array:
    """Return numbers, or UTC times, as ``pa.array`` does, which imports pandas."""
    if values.dtype.kind not in "fiM":
        return pa.array(values)
    if values.dtype.kind == "M":
        kind = pa.timestamp("ns", tz="UTC")
    else:
        kind = pa.from_numpy_dtype(values.dtype)
    buffers = [None, pa.py_buffer(np.ascontiguousarray(values))]
    return pa.Array.from_buffers(kind, len(values), buffers)


def list_records(table: pd.DataFrame | None) -> list[dict[str, Any]] | None:
    """Return the rows of a table for JSON; None of a table that is none, or too large."""
    if table is None or len(table) > MAX_ROWS:
        return None
    plain = table.reset_index()
    for name in plain.select_dtypes("datetimetz").columns:
        plain[name] = [None if pd.isna(time) else time.isoformat() for time in plain[name]]
    return [{str(name): value for name, value in row.items()} for row in plain.to_dict("records")]


EMPTY = ("none",)
"""Columns of the table that stands for one that is None."""


def fill_absent(table: pd.DataFrame | None) -> pd.DataFrame:
    """Return a table, or the one that stands for None."""
    if table is None:
        return pd.DataFrame(columns=EMPTY, dtype="float64")
    return table


def read_table(path: Path) -> pd.DataFrame | None:
    """Return a table that was written, None if it was."""
    table = pq.read_table(path).to_pandas()
    if [*table] == [*EMPTY]:
        return None
    return table  # type: ignore[no-any-return]
