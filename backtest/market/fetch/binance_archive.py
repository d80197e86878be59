"""Binance's public archive: a zip file of CSV for each month or day, with a checksum file.

Sources: github.com/binance/binance-public-data, README: addresses, intervals, ``.CHECKSUM``; "daily
data will be uploaded in the next day", monthly "from the beginning of next month". Funding comes
by the month only. Its issues 192, 297, 346: monthly files lack whole days that the daily files
have, so the days that a month lacks are downloaded one by one.
"""

from __future__ import annotations

import hashlib
import io
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from backtest.base import DataError, IntArray, format_duration, format_time
from backtest.base.units import DAY
from backtest.market.fetch.download import Downloader, TransientFailure
from backtest.market.fetch.request import Request
from backtest.market.fetch.target_folder import (
    COLUMNS,
    ArchiveFile,
    list_stored,
    merge_rows,
    missing_days,
    store_days,
)
from backtest.market.read.files import parse_text
from backtest.market.read.packed_files import Content, unpack_zip
from backtest.market.read.vendors import rename_columns
from backtest.market.tables.align import SourceFrame, read_table
from backtest.market.tables.defects import Defect, refuse, require
from backtest.market.tables.timed_table import SCHEMAS, TimedTable

LARGEST_ZIP = 16 << 20
"""Bytes; a month of minute bars takes about 2.5 MiB."""
LARGEST_TEXT = 64 << 20
"""Bytes; a month of minute bars unpacks to about 6 MiB."""
LARGEST_CHECKSUM = 4096
READERS = 2
"""How many files are unpacked at once, to bound the memory; downloads are not limited by it."""
RECENT = 45 * DAY
"""How long after its end a month may lack a monthly file."""

_FOLDERS = {"bars": "klines", "mark": "markPriceKlines", "funding": "fundingRate"}
_CHECKSUM = re.compile(r"([0-9a-fA-F]{64}) [ *](\S+)\s*")


class MonthJob(NamedTuple):
    """One month of one kind of data, and the days of it to fetch (midnights, ns)."""

    kind: str
    start: int
    end: int
    days: IntArray


@dataclass
class Archive:
    """Downloads missing files of a request, several months at once, into the folder ``partial``.

    A month that is not over at ``now`` (UTC ns) has no file yet. ``report`` is called after each
    month with the number of days that are done.
    """

    web: Downloader
    request: Request
    partial: Path
    now: int
    report: Callable[[int], None]
    _readers: threading.BoundedSemaphore = field(
        default_factory=lambda: threading.BoundedSemaphore(READERS)
    )

    def fetch(self, end: int, parallel: int, stop: threading.Event) -> None:
        jobs = [job for kind in self.request.kinds for job in self._plan(kind, end)]
        jobs.sort(key=lambda job: job.start)
        with ThreadPoolExecutor(parallel, thread_name_prefix="fetch") as pool:
            try:
                for future in as_completed([pool.submit(self._run, job) for job in jobs]):
                    future.result()
            except BaseException:
                stop.set()
                pool.shutdown(cancel_futures=True)
                raise

    def _plan(self, kind: str, end: int) -> Iterator[MonthJob]:
        lacking = missing_days(list_stored(self.partial, kind), self.request.start, end)
        for start, stop in months(self.request.start, end):
            days = lacking[(lacking >= start) & (lacking < stop)]
            if days.size:
                yield MonthJob(kind, start, stop, days)

    def _run(self, job: MonthJob) -> None:
        month = self._get(job.kind, job.start, job.end) if job.end <= self.now else None
        if month is not None:
            self._store_month(job, *month)
        elif job.kind != "funding":
            self._store_days(job)
        self.report(job.days.size)

    def _store_month(self, job: MonthJob, table: TimedTable, file: ArchiveFile) -> None:
        tables, files = [table], [file]
        if job.kind != "funding":
            for day in self._incomplete_days(table, job.days):
                found = self._get(job.kind, day, day + DAY)
                if found is not None:
                    tables.append(found[0])
                    files.append(found[1])
        whole = merge_rows(tables, job.kind)
        if whole.time.size:
            store_days(self.partial, job.kind, (job.start, job.end), whole, files)

    def _store_days(self, job: MonthJob) -> None:
        ends = sorted({int(job.days[0]), int(job.days[-1])})
        is_old = job.end + RECENT < self.now
        if is_old and all(self._get(job.kind, day, day + DAY) is None for day in ends):
            return
        for day in job.days.tolist():
            found = self._get(job.kind, day, day + DAY)
            if found is not None and found[0].time.size:
                store_days(self.partial, job.kind, (day, day + DAY), found[0], [found[1]])

    def _incomplete_days(self, table: TimedTable, days: IntArray) -> list[int]:
        found, counts = np.unique(table.time // DAY * DAY, return_counts=True)
        whole = found[counts >= DAY // self.request.interval]
        return [day for day in days.tolist() if day not in whole]

    def _get(self, kind: str, start: int, end: int) -> tuple[TimedTable, ArchiveFile] | None:
        path = file_path(self.request, kind, start, end)
        where = f"{self.web.base}/{path}"
        content = self.web.retrier.call(where, lambda: self._download(path))
        if content is None:
            return None
        data, digest = content
        with self._readers:
            table = merge_rows([read_rows(unpack(data, path, where), kind, where)], kind)
        _check_times(table, kind, (start, end), self.request.interval, where)
        return table, ArchiveFile(path, digest, start, end)

    def _download(self, path: str) -> tuple[bytes, str] | None:
        content = self.web.get(path, LARGEST_ZIP)
        if content is None:
            return None
        noted = self.web.get(f"{path}.CHECKSUM", LARGEST_CHECKSUM)
        where = f"{self.web.base}/{path}.CHECKSUM"
        if noted is None:
            raise DataError(f"the archive has no checksum for this file ({where}); try again later")
        match = _CHECKSUM.fullmatch(noted.decode("ascii", errors="replace"))
        if match is None or match[2] != path.rpartition("/")[2]:
            raise DataError(
                f"a checksum must be a SHA-256 and the file's name, got {noted[:100]!r} ({where})"
            )
        digest = hashlib.sha256(content).hexdigest()
        if digest != match[1].lower():
            raise TransientFailure(f"its SHA-256 is {digest}, its checksum says {match[1].lower()}")
        return content, digest


def unpack(data: bytes, path: str, where: str) -> Content:
    content = require(unpack_zip(io.BytesIO(data), where, largest=LARGEST_TEXT))
    name = path.rpartition("/")[2].removesuffix(".zip") + ".csv"
    if content.name != name:
        raise DataError(
            f"a file of the archive must hold {name}, holds {content.name[:80]!r} ({where})"
        )
    return content


def read_rows(content: Content, kind: str, where: str) -> TimedTable:
    names = COLUMNS[kind]
    if not re.search(rb"^\d", content.data, re.MULTILINE):  # empty, or a header alone
        return TimedTable(where, np.empty(0, np.int64), {name: np.empty(0) for name in names})
    frame = parse_text(content, where=where)
    if not isinstance(frame, Defect):
        frame = rename_columns(frame, kind, {}, "", where=where)
    table, defects = read_table([SourceFrame(where, frame)], SCHEMAS[kind], None)
    refuse(defects, where=where)
    if table is None:  # refuse() has raised
        raise AssertionError("no table and no defects")
    unknown = np.full(table.time.size, np.nan)
    columns = {name: table.columns.get(name, unknown) for name in names}
    empty = [name for name in names if name != "mark" and np.isnan(columns[name]).any()]
    if empty:  # only the price of a settlement may be unknown
        raise DataError(
            f"every row must have numbers where they are needed, {' and '.join(empty)} lacks some "
            f"({where}); report it to the venue, or choose another source"
        )
    return TimedTable(where, table.time, columns)


def file_path(request: Request, kind: str, start: int, end: int) -> str:
    period, stamp = ("daily", "%Y-%m-%d") if end - start == DAY else ("monthly", "%Y-%m")
    day = pd.Timestamp(start).strftime(stamp)
    folder = f"data/futures/{request.market}/{period}/{_FOLDERS[kind]}/{request.symbol}"
    if kind == "funding":
        return f"{folder}/{request.symbol}-fundingRate-{day}.zip"
    length = format_duration(request.interval)
    return f"{folder}/{length}/{request.symbol}-{length}-{day}.zip"


def months(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the whole months that a span touches, as (start, end) in ns."""
    for month in pd.period_range(pd.Timestamp(start), pd.Timestamp(end - 1), freq="M"):
        edges = (each.start_time.as_unit("ns").value for each in (month, month + 1))
        yield int(next(edges)), int(next(edges))


def _check_times(
    table: TimedTable, kind: str, span: tuple[int, int], interval: int, where: str
) -> None:
    slack = DAY if kind == "funding" else 0
    start, end = span
    odd = (table.time < start - slack) | (table.time >= end + slack)
    if kind != "funding":
        odd |= table.time % interval != 0
    rows = np.flatnonzero(odd)
    if rows.size:
        raise DataError(
            f"a file of {format_time(start)} to {format_time(end)} must hold rows of that time on "
            f"the grid of {format_duration(interval)}, got {format_time(int(table.time[rows[0]]))} "
            f"in {rows.size} of {table.time.size} rows ({where}); report it to the venue, or "
            "choose another source"
        )
