"""Read weights of several instruments from a file: times, and a column for each instrument."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from backtest.base import DataError, utc_index
from backtest.market.read.files import read_file
from backtest.market.tables.defects import require
from backtest.market.tables.timed_table import to_floats
from backtest.market.tables.times import find_stamps, to_utc


def read_weight_file(path: Path, timezone: str | None = None) -> pd.DataFrame:
    """Return a CSV, Parquet, Feather or JSON file as a frame by UTC time and instrument.

    The times stand in the index or in a column named as that of bars (time, date, ...); empty
    cells become NaN. ``timezone`` is that of stamps that carry none.

    Raises DataError if the file is missing or damaged, or a cell is not a number or a time.
    """
    if not path.is_file():
        raise DataError(
            f"a file of weights must exist, {str(path)!r} does not",
            where=f"searched from {Path.cwd()}",
            cure="correct the path",
        )
    frame = require(read_file(path))
    stamps, column = require(find_stamps(frame, name=path.name))
    times = require(to_utc(stamps, name=path.name, timezone=timezone))
    names = [name for name in frame.columns if name != column]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise DataError(
            f"each instrument must have one column, {str(doubled)!r} has {names.count(doubled)}",
            where=path.name,
            cure="keep one of them",
        )
    values = {
        str(name): require(to_floats(frame[name], column=str(name), name=path.name))
        for name in names
    }
    return pd.DataFrame(values, index=utc_index(times))
