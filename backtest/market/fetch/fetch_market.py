"""The whole of a fetch: hold the folder, fetch what it lacks, name what is missing, publish."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from backtest.base.errors import ParameterError
from backtest.base.ranges import Range
from backtest.base.units import DAY, format_time
from backtest.market.fetch.backoff import RetryPolicy
from backtest.market.fetch.binance_archive import Archive, months
from backtest.market.fetch.ccxt_exchange import Connection, Exchange, connect_exchange
from backtest.market.fetch.continued import seed, span_of
from backtest.market.fetch.download import Notice, Retrier, connect
from backtest.market.fetch.publish import check_gaps, collect_rows, publish
from backtest.market.fetch.request import Request
from backtest.market.fetch.source_offers import ARCHIVE, ARCHIVE_URL
from backtest.market.fetch.stored_days import list_stored, missing_days
from backtest.market.fetch.target_folder import (
    check_request,
    check_untouched,
    drop_damaged,
    find_final,
    hold,
    remove,
)

PARALLEL = 4
MOST_PARALLEL = 8
"""Each holds a file and its rows: with more the memory grows past half a GiB."""

Report = Callable[[int, int], None]


class Fetched(NamedTuple):
    """A finished fetch.

    Parameters
    ----------
    folder : Path
        What ``Market.load`` reads.
    facts : mapping
        What ``fetch.json`` says: instrument, span, rows, gaps, files and their hashes.
    is_new : bool
        False where the folder held all of it already.
    retries : int
        How often the venue had to be asked again.
    """

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
    patience: RetryPolicy | None = None,
    report: Report | None = None,
    notice: Notice | None = None,
    connection: Connection | None = None,
) -> Fetched:
    """Fetch a market into a folder that ``Market.load`` reads, or what such a folder lacks of it.

    Parameters
    ----------
    folder : Path
        New, or of an earlier fetch of the same: then only what it lacks is fetched. What arrives is
        kept in ``.partial`` inside it until all of it is there.
    request : Request
        What to fetch.
    now : int
        UTC ns; a day that is not over is not stored.
    base_url : str, optional
        A mirror of the archive; or of the exchange, in place of scheme and host.
    parallel : int
        How many months of the archive to fetch at once.
    accept_gaps : bool
        Store what there is. The gaps are noted in ``fetch.json``; none is ever filled.
    patience : RetryPolicy, optional
        How often to ask again, and how long to wait.
    report : callable, optional
        Called with how many days are done and how many there are, each kind counted.
    notice : callable, optional
        Told what failed, each time before it is asked for again.
    connection : Connection, optional
        To the exchange, in place of one through ccxt.

    Returns
    -------
    Fetched

    Raises
    ------
    DataError
        If something asked for does not exist, does not arrive, or cannot be right; what has
        arrived is kept for the next call.
    ParameterError
        If an argument cannot be.
    """
    today = now // DAY * DAY
    Range(1, MOST_PARALLEL, "months").check("parallel", parallel, where="fetch_market", whole=True)
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
            seed(folder, partial, final, list(months(start, end)))
        drop_damaged(partial, request)
        retrier, instrument = _download(
            partial,
            request,
            _Setting(
                now, base_url, parallel, patience or RetryPolicy(), report, notice, connection
            ),
        )
        whole = collect_rows(partial, request, today)
        check_gaps(whole, request, partial, accept=accept_gaps)
        facts = publish(folder, partial, request, instrument, whole)
        remove(partial)
    return Fetched(folder, facts, is_new=True, retries=retrier.retries)


class _Setting(NamedTuple):
    """How to fetch: the arguments of :func:`fetch_market`."""

    now: int
    base_url: str | None
    parallel: int
    patience: RetryPolicy
    report: Report | None
    notice: Notice | None
    connection: Connection | None


def _download(partial: Path, request: Request, how: _Setting) -> tuple[Retrier, str]:
    """Store all parts that are lacking; return how often it was asked again, and the instrument."""
    end = request.end if request.end is not None else how.now // DAY * DAY
    count = _Count(partial, request, end, how.report)
    stop = threading.Event()
    retrier = Retrier(how.patience, pause=stop.wait, notice=how.notice)
    if request.source == ARCHIVE:
        with connect(how.base_url or ARCHIVE_URL, retrier, how.parallel) as web:
            Archive(web, request, partial, how.now, count.add).fetch(end, how.parallel, stop)
        return retrier, request.symbol
    connection = how.connection or connect_exchange(request, how.base_url, how.patience.silence)
    return retrier, Exchange(connection, request, partial, retrier, count.add).fetch(end)


class _Count:
    """How many days are done; several threads add to it."""

    def __init__(self, partial: Path, request: Request, end: int, report: Report | None) -> None:
        self.lock = threading.Lock()
        self.report = report
        self.total = (end - request.start) // DAY * len(request.kinds)
        left: Sequence[int] = [
            missing_days(list_stored(partial, kind), request.start, end).size
            for kind in request.kinds
        ]
        self.done = self.total - sum(left)
        self.add(0)

    def add(self, days: int) -> None:
        """Take note of days that have been dealt with."""
        with self.lock:
            self.done += days
            if self.report is not None:
                self.report(self.done, self.total)


def _check_span(request: Request, today: int) -> None:
    """Refuse days that are not over."""
    for name, time in (("start", request.start + DAY), ("end", request.end or 0)):
        if time > today:
            raise ParameterError(
                f"a day is stored when it is over, {name} was "
                f"{format_time(time - DAY if name == 'start' else time)}",
                where=name,
                cure=f"the last whole day ends at {format_time(today)} UTC: give that, or an "
                "earlier day",
            )


def _is_held(final: Mapping[str, Any], request: Request) -> bool:
    start, end = span_of(final)
    is_inside = request.end is not None and start <= request.start and request.end <= end
    return is_inside and not final["gaps"]


def _widen(request: Request, start: int, end: int) -> Request:
    """Return a request that holds what is there already: a folder is one span."""
    last = None if request.end is None else max(request.end, end)
    return request._replace(start=min(request.start, start), end=last)
