"""Stored days: what has arrived of a fetch, a Parquet file for each run of whole days.

A file is named ``bars-20240101-20240201.parquet``: its kind, its first day, the day after its last.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from backtest.base import DataError, IntArray, format_time, replace_file, utc_index
from backtest.base.units import DAY
from backtest.market.tables.timed_table import TimedTable, equal_or_nan

COLUMNS = {
    "bars": ("open", "high", "low", "close", "volume"),
    "mark": ("open", "high", "low", "close"),
    "funding": ("rate", "mark"),
}
_NAME = re.compile(r"(bars|mark|funding)-(\d{8})-(\d{8})\.parquet")
_NOTE = b"files"


class ArchiveFile(NamedTuple):
    """A file of the archive that rows came from, and the time that it covers (ns)."""

    path: str
    sha256: str
    start: int
    end: int


class StoredDays(NamedTuple):
    """The file that holds the rows of one kind over whole days, ``start`` up to ``end`` (ns)."""

    path: Path
    kind: str
    start: int
    end: int


def list_stored(folder: Path, kind: str) -> list[StoredDays]:
    """Return the stored days of a kind, in order."""
    found = [_parse(path) for path in folder.glob(f"{kind}-*.parquet")]
    return sorted((part for part in found if part), key=lambda part: (part.start, part.end))


def store_days(
    folder: Path,
    kind: str,
    span: tuple[int, int],
    table: TimedTable,
    files: Sequence[ArchiveFile] = (),
) -> StoredDays:
    """Store the rows of a span, in place of the stored days inside it; whole or not at all."""
    from pyarrow import parquet  # noqa: PLC0415 - 20 ms, only when needed

    start, end = span
    part = StoredDays(folder / f"{kind}-{_day(start)}-{_day(end)}.parquet", kind, start, end)
    columns = {"time": table.time, **{name: table.columns[name] for name in COLUMNS[kind]}}
    note = {_NOTE: json.dumps([list(file) for file in files]).encode()}
    content = pa.table(columns).replace_schema_metadata(note)
    with replace_file(part.path) as draft:
        parquet.write_table(content, draft, compression="zstd", write_page_checksum=True)
    for other in list_stored(folder, kind):
        if start <= other.start and other.end <= end and other != part:
            other.path.unlink(missing_ok=True)
    return part


def read_stored(part: StoredDays) -> tuple[TimedTable, list[ArchiveFile]] | None:
    """Return stored rows and the files that they came from; None if the file is damaged."""
    from pyarrow import parquet  # noqa: PLC0415 - as above

    try:
        with parquet.ParquetFile(part.path, page_checksum_verification=True) as file:
            content = file.read()
        note = (content.schema.metadata or {})[_NOTE]
        files = [ArchiveFile(*entry) for entry in json.loads(note)]
        time = content["time"].to_numpy()
        columns = {name: content[name].to_numpy() for name in COLUMNS[part.kind]}
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError):
        return None
    return TimedTable(part.path.name, time, columns), files


def merge_rows(tables: Iterable[TimedTable], kind: str) -> TimedTable:
    """Return all rows in order, each time once; raise a DataError if two of one time differ."""
    given = [table for table in tables if table.time.size]
    names = COLUMNS[kind]
    if not given:
        return TimedTable(kind, np.empty(0, np.int64), {name: np.empty(0) for name in names})
    time = np.concatenate([table.time for table in given])
    columns = {name: np.concatenate([table.columns[name] for table in given]) for name in names}
    if (time[1:] > time[:-1]).all():
        return TimedTable(given[0].name, time, columns)
    order = np.argsort(time, kind="stable")
    whole = TimedTable(given[0].name, time, columns).rows(order)
    _check_repeats(whole, kind)
    return whole.rows(np.flatnonzero(np.diff(whole.time, prepend=np.iinfo(np.int64).min // 2) > 0))


def _check_repeats(table: TimedTable, kind: str) -> None:
    again = np.flatnonzero(np.diff(table.time) == 0)
    for name in COLUMNS[kind]:
        first, second = table.columns[name][again], table.columns[name][again + 1]
        other = np.flatnonzero(~equal_or_nan(first, second))
        if other.size:
            row = other[0]
            raise DataError(
                f"each time must have one {name}, {format_time(int(table.time[again[row]]))} UTC "
                f"has {first[row]} and {second[row]}",
                where=f"{kind}, {table.name}",
                cure="the venue's answers differ: fetch to a new folder, or choose another source",
            )


def rows_between(table: TimedTable, start: int, end: int) -> TimedTable:
    """Return the rows of a sorted table from ``start`` up to ``end``."""
    first, stop = np.searchsorted(table.time, [start, end])
    return table.rows(slice(int(first), int(stop)))


def to_frame(table: TimedTable, kind: str) -> pd.DataFrame:
    """Return rows as a frame for :meth:`Market.from_frames`."""
    columns = {name: table.columns[name] for name in COLUMNS[kind]}
    return pd.DataFrame(columns, index=utc_index(table.time))


def missing_days(parts: Sequence[StoredDays], start: int, end: int) -> IntArray:
    """Return the midnights (ns) of the days from ``start`` to ``end`` that are not stored."""
    days = np.arange(start, end, DAY)
    held = np.zeros(days.size, dtype=np.bool_)
    for part in parts:
        held |= (days >= part.start) & (days < part.end)
    return days[~held]


def _parse(path: Path) -> StoredDays | None:
    match = _NAME.fullmatch(path.name)
    if match is None:
        return None
    start, end = (_to_ns(text) for text in match.groups()[1:])
    return StoredDays(path, match[1], start, end)


def _day(time: int) -> str:
    return f"{pd.Timestamp(time):%Y%m%d}"


def _to_ns(text: str) -> int:
    value: Any = pd.Timestamp(text).as_unit("ns").value
    return int(value)
