"""Binance's public archive: a zip file of CSV for each month, or day, beside its checksum.

Sources: github.com/binance/binance-public-data, README: addresses, intervals, ``.CHECKSUM``; "daily
data will be uploaded in the next day", monthly "from the beginning of next month". Funding is there
by the month only. Its issues 192, 297, 346: files of a month lack whole days that their daily files
have; so the days that a month lacks are asked for one by one.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from backtest.base.errors import DataError
from backtest.base.units import DAY, IntArray, format_duration, format_time
from backtest.market.fetch.binance_csv import read_text
from backtest.market.fetch.download import Cancelled, Downloader, TransientFailure
from backtest.market.fetch.request import Request
from backtest.market.fetch.stored_days import (
    ArchiveFile,
    list_stored,
    merge_rows,
    missing_days,
    store_days,
)
from backtest.market.fetch.unzip import read_member
from backtest.market.tables.frames import TimedTable

LARGEST_ZIP = 16 << 20
"""Bytes; a month of minute bars takes about 2.5 MiB."""
LARGEST_CHECKSUM = 4096
READERS = 2
"""How many files are unpacked at once, whatever is downloaded: it bounds the memory."""
RECENT = 45 * DAY
"""How long after its end a month may be without a file of its own."""

_FOLDERS = {"bars": "klines", "mark": "markPriceKlines", "funding": "fundingRate"}
_CHECKSUM = re.compile(r"([0-9a-fA-F]{64}) [ *](\S+)\s*")


class Job(NamedTuple):
    """A month of one kind, and the days of it that are wanted (midnights, ns)."""

    kind: str
    start: int
    end: int
    days: IntArray


class Archive:
    """Fetches what a request lacks, several months at once.

    Parameters
    ----------
    web : Downloader
        The archive's server.
    request : Request
        What is asked for.
    partial : Path
        The folder of parts.
    now : int
        UTC ns; months that are not over have no file yet.
    report : callable
        Called with the number of days that have been dealt with.
    """

    def __init__(
        self,
        web: Downloader,
        request: Request,
        partial: Path,
        now: int,
        report: Callable[[int], None],
    ) -> None:
        self.web = web
        self.request = request
        self.partial = partial
        self.now = now
        self.report = report
        self._readers = threading.BoundedSemaphore(READERS)

    def fetch(self, end: int, parallel: int, stop: threading.Event) -> None:
        """Store all that is published of the span up to ``end`` and not stored yet.

        Raises
        ------
        DataError
            If a file is refused, damaged, or does not arrive; what has arrived is kept.
        """
        jobs = [job for kind in self.request.kinds for job in self.plan(kind, end)]
        jobs.sort(key=lambda job: job.start)
        with ThreadPoolExecutor(parallel, thread_name_prefix="fetch") as pool:
            try:
                _await([pool.submit(self._run, job) for job in jobs])
            except BaseException:
                stop.set()
                pool.shutdown(cancel_futures=True)
                raise

    def plan(self, kind: str, end: int) -> Iterator[Job]:
        """Yield the months of a kind that have days still to be fetched."""
        lacking = missing_days(list_stored(self.partial, kind), self.request.start, end)
        for start, stop in months(self.request.start, end):
            days = lacking[(lacking >= start) & (lacking < stop)]
            if days.size:
                yield Job(kind, start, stop, days)

    def _run(self, job: Job) -> None:
        """Store a month, or those of its days that are published."""
        month = self._get(job.kind, job.start, job.end) if job.end <= self.now else None
        if month is not None:
            self._store_month(job, *month)
        elif job.kind != "funding":
            self._store_days(job)
        self.report(job.days.size)

    def _store_month(self, job: Job, table: TimedTable, file: ArchiveFile) -> None:
        """Write a month as one part, with the days that it lacks from their own files."""
        tables, files = [table], [file]
        if job.kind != "funding":
            for day in self._lacking_days(table, job.days):
                found = self._get(job.kind, day, day + DAY)
                if found is not None:
                    tables.append(found[0])
                    files.append(found[1])
        whole = merge_rows(tables, job.kind)
        if whole.time.size:
            store_days(self.partial, job.kind, (job.start, job.end), whole, files)

    def _store_days(self, job: Job) -> None:
        """Write each published day as a part."""
        if job.end + RECENT < self.now and not self._has_days(job):
            return
        for day in job.days.tolist():
            found = self._get(job.kind, day, day + DAY)
            if found is not None and found[0].time.size:
                store_days(self.partial, job.kind, (day, day + DAY), found[0], [found[1]])

    def _has_days(self, job: Job) -> bool:
        """Return whether an old month without a file has any of its days: the ends are looked at.

        A month before an instrument was listed costs two answers, not thirty.
        """
        ends = {int(job.days[0]), int(job.days[-1])}
        return any(self._get(job.kind, day, day + DAY) is not None for day in sorted(ends))

    def _lacking_days(self, table: TimedTable, days: IntArray) -> list[int]:
        """Return the wanted days of which a month has not every bar."""
        found, counts = np.unique(table.time // DAY * DAY, return_counts=True)
        whole = found[counts >= DAY // self.request.interval]
        return [day for day in days.tolist() if day not in whole]

    def _get(self, kind: str, start: int, end: int) -> tuple[TimedTable, ArchiveFile] | None:
        """Return the rows of the file of a month or a day; None where there is none.

        Raises
        ------
        DataError
            If it does not arrive, or is not what it should be.
        """
        path = address(self.request, kind, start, end)
        content = self.web.retrier.call(f"{self.web.base}/{path}", lambda: self._verified(path))
        if content is None:
            return None
        data, digest = content
        where = f"{self.web.base}/{path}"
        member = path.rpartition("/")[2].removesuffix(".zip") + ".csv"
        with self._readers:
            rows = read_text(read_member(data, member, where=where), kind, where=where)
        table = merge_rows([_complete(rows)], kind)
        _check_times(table, kind, (start, end), self.request.interval, where)
        return table, ArchiveFile(path, digest, start, end)

    def _verified(self, path: str) -> tuple[bytes, str] | None:
        """Return a file and its hash, which is the one beside it; None where there is none."""
        content = self.web.get(path, LARGEST_ZIP)
        if content is None:
            return None
        noted = self.web.get(f"{path}.CHECKSUM", LARGEST_CHECKSUM)
        where = f"{self.web.base}/{path}.CHECKSUM"
        if noted is None:
            raise DataError(
                "a file of the archive must have its checksum beside it, there is none",
                where=where,
                cure="try again later; or choose another source with --source",
            )
        match = _CHECKSUM.fullmatch(noted.decode("ascii", errors="replace"))
        if match is None or match[2] != path.rpartition("/")[2]:
            raise DataError(
                f"a checksum must be a SHA-256 and the file's name, was {noted[:100]!r}",
                where=where,
                cure="check the base address",
            )
        digest = hashlib.sha256(content).hexdigest()
        if digest != match[1].lower():
            raise TransientFailure(f"its SHA-256 is {digest}, its checksum says {match[1].lower()}")
        return content, digest


def _complete(table: TimedTable) -> TimedTable:
    """Return rows with the columns of a part: the archive does not say what was settled on."""
    if "rate" not in table.columns:
        return table
    unknown = np.full(table.time.size, np.nan)
    return table._replace(columns={**table.columns, "mark": unknown})


def address(request: Request, kind: str, start: int, end: int) -> str:
    """Return where a month or a day of a kind is, below the base address."""
    period = "daily" if end - start == DAY else "monthly"
    stamp = (
        f"{pd.Timestamp(start):%Y-%m-%d}" if period == "daily" else f"{pd.Timestamp(start):%Y-%m}"
    )
    length = format_duration(request.interval)
    middle = "fundingRate" if kind == "funding" else length
    folder = f"data/futures/{request.market}/{period}/{_FOLDERS[kind]}/{request.symbol}"
    folder += "" if kind == "funding" else f"/{length}"
    return f"{folder}/{request.symbol}-{middle}-{stamp}.zip"


def months(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the months that a span touches, whole, as (start, end) in ns."""
    month = pd.Timestamp(start).to_period("M")
    while month.start_time.as_unit("ns").value < end:
        following = month + 1
        yield (
            int(month.start_time.as_unit("ns").value),
            int(following.start_time.as_unit("ns").value),
        )
        month = following


def _check_times(
    table: TimedTable, kind: str, span: tuple[int, int], interval: int, where: str
) -> None:
    """Refuse a file with rows of another month or day, or bars off the grid."""
    slack = DAY if kind == "funding" else 0
    start, end = span
    odd = (table.time < start - slack) | (table.time >= end + slack)
    if kind != "funding":
        odd |= table.time % interval != 0
    rows = np.flatnonzero(odd)
    if rows.size:
        raise DataError(
            f"a file of {format_time(start)} to {format_time(end)} must hold rows of that time on "
            f"the grid of {format_duration(interval)}, was {format_time(int(table.time[rows[0]]))} "
            f"in {rows.size} of {table.time.size} rows",
            where=where,
            cure="tell the venue; another source can be chosen with --source",
        )


def _await(futures: Sequence[Future[None]]) -> None:
    """Wait for all, and raise the error of the first that fails."""
    pending = set(futures)
    while pending:
        done, pending = wait(pending, return_when=FIRST_COMPLETED)
        for future in done:
            error = future.exception()
            if error is not None and not isinstance(error, Cancelled):
                raise error
