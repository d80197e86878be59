"""``fetch_market``: lock the folder, download missing files, check for gaps, publish."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import ParameterError, Range, format_time, to_nanoseconds
from backtest.base.units import DAY
from backtest.market.fetch.binance_archive import Archive, months
from backtest.market.fetch.ccxt_exchange import Connection, Exchange, connect_exchange
from backtest.market.fetch.download import Notice, Retrier, RetryPolicy, open_downloader
from backtest.market.fetch.publish import check_gaps, collect_rows, publish
from backtest.market.fetch.request import ARCHIVE, ARCHIVE_URL, Request
from backtest.market.fetch.target_folder import (
    FACTS,
    ArchiveFile,
    check_request,
    check_untouched,
    drop_damaged,
    find_final,
    hold,
    list_stored,
    missing_days,
    remove,
    rows_between,
    store_days,
)
from backtest.market.tables.timed_table import TimedTable

PARALLEL = 4
MOST_PARALLEL = 8
"""Each month in work holds a file and its rows: with more, memory grows past half a GiB."""

Report = Callable[[int, int], None]


class Fetched(NamedTuple):
    folder: Path
    facts: Mapping[str, Any]
    is_new: bool
    retries: int = 0


def fetch_market(
    folder: Path,
    request: Request,
    *,
    now: int,
    base_url: str | None = None,
    parallel: int = PARALLEL,
    accept_gaps: bool = False,
    policy: RetryPolicy | None = None,
    report: Report | None = None,
    notice: Notice | None = None,
    connection: Connection | None = None,
) -> Fetched:
    """Download a market into a folder that ``Market.load`` reads.

    Parameters
    ----------
    folder : Path
        A new folder, or that of an earlier fetch of the same instrument: then only what it lacks
        is downloaded. What has arrived is kept in ``.partial`` inside it until all is there.
    request : Request
        What to fetch.
    now : int
        UTC ns; days that are not over are not stored.
    base_url : str, optional
        The address of a mirror of the archive, or of a server in place of the exchange's.
    parallel : int
        How many months of the archive to download at once.
    accept_gaps : bool
        Store the data although some are missing. Gaps are listed in ``fetch.json``, never filled.
    policy : RetryPolicy, optional
        How often to retry, and how long to wait.
    report : callable, optional
        Called with the number of days done and in all; a day counts once per kind of data.
    notice : callable, optional
        Called with a text before each retry.
    connection : Connection, optional
        To the exchange, in place of one through ccxt.
    """
    today = now // DAY * DAY
    Range(1, MOST_PARALLEL, "months").check("parallel", parallel, whole=True)
    _check_span(request, today)
    with hold(folder) as partial:
        check_untouched(folder, partial)
        check_request(folder, partial, request)
        final = find_final(folder)
        if final is not None:
            if _is_held(final, request):
                remove(partial)
                return Fetched(folder, final, is_new=False)
            start, end = span_of(final)
            request = _widen(request, start, end)
            restore_stored_days(folder, partial, final, list(months(start, end)))
        drop_damaged(partial, request)
        stop = threading.Event()
        retrier = Retrier(policy or RetryPolicy(), pause=stop.wait, notice=notice)
        until = request.end if request.end is not None else today
        count = _Progress(partial, request, until, report).add
        if request.source == ARCHIVE:
            with open_downloader(base_url or ARCHIVE_URL, retrier, parallel) as web:
                Archive(web, request, partial, now, count).fetch(until, parallel, stop)
            instrument = request.symbol
        else:
            connection = connection or connect_exchange(request, base_url, retrier.policy.silence)
            instrument = Exchange(connection, request, partial, retrier, count).fetch(until)
        rows = collect_rows(partial, request, today)
        check_gaps(rows, request, partial, accept=accept_gaps)
        facts = publish(folder, partial, request, instrument, rows)
        remove(partial)
    return Fetched(folder, facts, is_new=True, retries=retrier.retries)


class _Progress:
    def __init__(self, partial: Path, request: Request, end: int, report: Report | None) -> None:
        self.lock = threading.Lock()
        self.report = report
        self.total = (end - request.start) // DAY * len(request.kinds)
        stored = (list_stored(partial, kind) for kind in request.kinds)
        self.done = self.total - sum(missing_days(s, request.start, end).size for s in stored)
        self.add(0)

    def add(self, days: int) -> None:
        with self.lock:
            self.done += days
            if self.report is not None:
                self.report(self.done, self.total)


def _check_span(request: Request, today: int) -> None:
    for name, day, over in (
        ("start", request.start, request.start + DAY),
        ("end", request.end or 0, request.end or 0),
    ):
        if over > today:
            raise ParameterError(
                f"{name}: a day is stored when it is over, the last whole one ends at "
                f"{format_time(today)} UTC, got {format_time(day)}"
            )


def _is_held(final: Mapping[str, Any], request: Request) -> bool:
    start, end = span_of(final)
    is_inside = request.end is not None and start <= request.start and request.end <= end
    return is_inside and not final["gaps"]


def _widen(request: Request, start: int, end: int) -> Request:
    last = None if request.end is None else max(request.end, end)
    return request._replace(start=min(request.start, start), end=last)


_FOLDERS = {"bars": "/klines/", "mark": "/markPriceKlines/", "funding": "/fundingRate/"}


def restore_stored_days(
    folder: Path, partial: Path, facts: Mapping[str, Any], months: Sequence[tuple[int, int]]
) -> None:
    start, end = span_of(facts)
    files = [
        ArchiveFile(each["path"], each["sha256"], _time(each["from"]), _time(each["to"]))
        for each in facts["files"]
    ]
    for kind in facts["kinds"]:
        if not (folder / f"{kind}.parquet").exists():
            continue
        table = _read_final(folder / f"{kind}.parquet")
        held = list_stored(partial, kind)
        for first, stop in months:
            span = (max(first, start), min(stop, end))
            rows = rows_between(table, *span) if span[1] > span[0] else None
            covered = any(part.start < span[1] and span[0] < part.end for part in held)
            if rows is not None and rows.time.size and not covered:
                theirs = [f for f in files if f.start < span[1] and f.end > span[0]]
                store_days(
                    partial, kind, span, rows, [f for f in theirs if _FOLDERS[kind] in f.path]
                )


def _read_final(path: Path) -> TimedTable:
    frame = pd.read_parquet(path)
    time = pd.DatetimeIndex(frame["time"]).as_unit("ns").asi8
    columns = {
        name: frame[name].to_numpy(dtype=np.float64) for name in frame.columns if name != "time"
    }
    return TimedTable(path.name, time, columns)


def span_of(facts: Mapping[str, Any]) -> tuple[int, int]:
    """Return the span of a finished fetch, ns."""
    return _time(facts["from"]), _time(facts["to"])


def _time(text: str) -> int:
    return to_nanoseconds(text, FACTS)
