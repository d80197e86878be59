"""The text of one archive file: columns by name or, where there is no header, by place.

Sources: github.com/binance/binance-public-data, README (columns); its issue 246: files before
2022-05 have no header. Stamps are milliseconds in futures; spot went to microseconds in 2025, so
the unit is read from the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pyarrow as pa

from backtest.base.errors import DataError
from backtest.market.tables.defects import Defect
from backtest.market.tables.frames import TimedTable
from backtest.market.tables.times import to_utc

_KLINE_COLUMNS = (
    "open_time",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "close_time",
    "quote_volume",
    "count",
    "taker_buy_volume",
    "taker_buy_quote_volume",
    "ignore",
)
_PLACES = {
    "bars": _KLINE_COLUMNS,
    "mark": _KLINE_COLUMNS,
    "funding": ("calc_time", "funding_interval_hours", "last_funding_rate"),
}
_PRICES = {"open": "open", "high": "high", "low": "low", "close": "close"}
_WANTED: Mapping[str, Mapping[str, str]] = {
    "bars": {**_PRICES, "volume": "volume"},
    "mark": _PRICES,
    "funding": {"last_funding_rate": "rate"},
}
"""The venue's columns and ours, by kind; the time is the first of ``_PLACES``."""


def read_text(text: bytes, kind: str, *, where: str) -> TimedTable:
    """Return the rows of one file, as they stand there.

    Parameters
    ----------
    text : bytes
        Comma-separated, with or without a header.
    kind : str
        bars, mark or funding.
    where : str
        The file's address, for messages.

    Raises
    ------
    DataError
        If a column is missing, a cell is no number, or stamps are not epochs of one unit.
    """
    names, rows = _split_header(text, kind)
    wanted = _WANTED[kind]
    stamp = _PLACES[kind][0]
    lacking = [name for name in (stamp, *wanted) if name not in names]
    if lacking or len(set(names)) < len(names):
        raise _wrong_header(names, lacking, where)
    if not rows.strip():
        return TimedTable(
            where, np.empty(0, np.int64), {ours: np.empty(0) for ours in wanted.values()}
        )
    table = _parse(rows, names, stamp, tuple(wanted), where)
    time = to_utc(pd.Series(table[stamp].to_numpy()), name=where, timezone=None)
    if isinstance(time, Defect):
        raise DataError(f"{time.rule}, {time.found}", where=time.where, cure=time.cure)
    columns = {ours: table[theirs].to_numpy() for theirs, ours in wanted.items()}
    return TimedTable(where, time, columns)


def _split_header(text: bytes, kind: str) -> tuple[tuple[str, ...], bytes]:
    """Return the names of the columns, and the rows."""
    first, _, rest = text.partition(b"\n")
    if not first.strip() or first[:1].isdigit():
        return _PLACES[kind], text
    header = first.decode("utf-8", errors="replace").strip().lower()
    return tuple(name.strip().replace(" ", "_") for name in header.split(",")), rest


def _parse(
    rows: bytes, names: tuple[str, ...], stamp: str, wanted: tuple[str, ...], where: str
) -> pa.Table:
    from pyarrow import csv  # noqa: PLC0415 - 20 ms, only when needed

    types = {stamp: pa.int64(), **dict.fromkeys(wanted, pa.float64())}
    try:
        return csv.read_csv(
            pa.BufferReader(rows),
            read_options=csv.ReadOptions(column_names=names, use_threads=False),
            convert_options=csv.ConvertOptions(
                column_types=types, include_columns=[stamp, *wanted], null_values=[]
            ),
        )
    except pa.ArrowException as error:
        raise DataError(
            f"every row must have {len(names)} cells, numbers where they are needed; "
            f"was not: {str(error).strip()[:160]}",
            where=where,
            cure="tell the venue; another source can be chosen with --source",
        ) from error


def _wrong_header(names: tuple[str, ...], lacking: list[str], where: str) -> DataError:
    shown = ", ".join(name[:40] for name in names[:16])
    needed = f"columns must be named {', '.join(lacking)}" if lacking else "columns must differ"
    return DataError(
        f"{needed}, the header was {shown}",
        where=where,
        cure="the venue has changed its files: look for a newer version of this package, or "
        "choose another source with --source",
    )
