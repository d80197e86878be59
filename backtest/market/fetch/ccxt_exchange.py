"""The exchanges through ccxt: page by page, each finished stretch of days stored at once."""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from backtest.base.errors import DataError, ParameterError, did_you_mean
from backtest.base.units import DAY, HOUR, format_duration, format_time
from backtest.market.fetch.download import (
    Retrier,
    TransientFailure,
    check_address,
    find_unreachable,
    read_wait,
)
from backtest.market.fetch.request import Request
from backtest.market.fetch.source_offers import OFFERS, Offer
from backtest.market.fetch.stored_days import (
    COLUMNS,
    cut,
    list_stored,
    merge_rows,
    missing_days,
    store_days,
)
from backtest.market.tables.frames import TimedTable

MILLISECOND = 1_000_000


class Client(Protocol):
    """The part of a ccxt exchange that is used."""

    timeframes: Mapping[str, Any]

    def load_markets(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the markets by ccxt's symbols."""

    def fetch_ohlcv(
        self, symbol: str, timeframe: str, since: int, limit: int, params: Mapping[str, Any]
    ) -> Sequence[Sequence[Any]]:
        """Return rows of time (ms), open, high, low, close, volume."""

    def fetch_funding_rate_history(
        self, symbol: str, since: int, limit: int, params: Mapping[str, Any]
    ) -> Sequence[Mapping[str, Any]]:
        """Return entries with timestamp (ms), fundingRate and info."""


class Connection(NamedTuple):
    """A client, and which of its errors pass and which do not."""

    client: Client
    passing: tuple[type[Exception], ...]
    final: tuple[type[Exception], ...]


class Page(NamedTuple):
    """Rows from the cursor on, and the time up to which they are all there is (ns)."""

    rows: TimedTable
    cursor: int


class Exchange:
    """Fetches what a request lacks.

    Parameters
    ----------
    connection : Connection
        To the exchange.
    request : Request
        What is asked for.
    partial : Path
        The folder of parts.
    retrier : Retrier
        Its patience is that of every page.
    report : callable
        Called with the number of days that have been dealt with.
    """

    def __init__(
        self,
        connection: Connection,
        request: Request,
        partial: Path,
        retrier: Retrier,
        report: Callable[[int], None],
    ) -> None:
        self.connection = connection
        self.request = request
        self.partial = partial
        self.retrier = retrier
        self.report = report
        self.offer: Offer = OFFERS[request.source]
        self.symbol = ""

    def fetch(self, end: int) -> str:
        """Store all that is offered of the span up to ``end``; return the instrument's name.

        Raises
        ------
        DataError
            If the exchange refuses, does not answer, or repeats itself.
        """
        self.symbol, instrument = self._find_symbol()
        for kind in self.request.kinds:
            lacking = missing_days(list_stored(self.partial, kind), self.request.start, end)
            for first, stop in _stretches(lacking.tolist()):
                self._fetch_stretch(kind, first, stop)
        return instrument

    def _fetch_stretch(self, kind: str, start: int, end: int) -> None:
        """Store a stretch of days: after each page the days that it completes."""
        held: list[TimedTable] = []
        for page in self._pages(kind, start, end):
            held = [*held, page.rows]
            reached = page.cursor if page.cursor >= end else page.cursor // DAY * DAY
            if reached <= start:
                continue
            rows = merge_rows(held, kind)
            done = cut(rows, start, reached)
            if done.time.size:
                store_days(self.partial, kind, (start, reached), done)
            held = [cut(rows, reached, end)]
            self.report((reached - start) // DAY)
            start = reached

    def _pages(self, kind: str, cursor: int, end: int) -> Iterator[Page]:
        ask = self._ask_funding if kind == "funding" else self._ask_bars
        while cursor < end:
            page = ask(kind, cursor, end)
            yield Page(cut(page.rows, cursor, end), min(page.cursor, end))
            cursor = page.cursor

    def _ask_bars(self, kind: str, cursor: int, end: int) -> Page:
        interval, limit = self.request.interval, self.offer.limits[kind]
        params: dict[str, Any] = {"price": "mark"} if kind == "mark" else {}
        window = cursor + limit * interval
        if self.offer.ends_bars:
            params["until"] = (window - interval) // MILLISECOND
        client, length = self.connection.client, format_duration(interval)
        width = len(COLUMNS[kind])

        def ask() -> TimedTable:
            answer = client.fetch_ohlcv(
                self.symbol, length, cursor // MILLISECOND, limit, dict(params)
            )
            rows = self._read(kind, [(row[0], *row[1 : 1 + width]) for row in answer])
            if rows.time.size and rows.time[-1] < cursor:
                raise TransientFailure(
                    f"the page ended at {format_time(int(rows.time[-1]))}, before what was asked "
                    "for (where the instrument is no longer traded, give --to)"
                )
            return rows

        rows = self._call(f"{kind} from {format_time(cursor)}", ask)
        self._check_grid(kind, rows)
        reached = int(rows.time[-1]) + interval if rows.time.size else min(window, end)
        return Page(rows, reached)

    def _check_grid(self, kind: str, rows: TimedTable) -> None:
        odd = rows.time[rows.time % self.request.interval != 0]
        if odd.size:
            raise DataError(
                f"bars must open on the grid of {format_duration(self.request.interval)}, "
                f"one opens at {format_time(int(odd[0]))} UTC",
                where=f"{self.request.source}, {kind} of {self.symbol}",
                cure="choose another interval or source",
            )

    def _ask_funding(self, kind: str, cursor: int, end: int) -> Page:
        """Return a window so short that even hourly settlements fit into one answer."""
        limit = self.offer.limits[kind]
        until = min(end, cursor + (limit - 1) * HOUR)
        client = self.connection.client

        def ask() -> TimedTable:
            params = {self.offer.until: until // MILLISECOND}
            answer = client.fetch_funding_rate_history(
                self.symbol, cursor // MILLISECOND, limit, params
            )
            return self._read(kind, [self._settlement(entry) for entry in answer])

        rows = self._call(f"{kind} from {format_time(cursor)}", ask)
        return Page(cut(rows, cursor, until), until)

    def _settlement(self, entry: Mapping[str, Any]) -> tuple[Any, Any, float]:
        """Return the stamp (ms), the rate, and the price settled on, NaN where it is not said."""
        rate = entry["info"][self.offer.rate] if self.offer.rate else entry["fundingRate"]
        text = entry.get("info", {}).get(self.offer.mark) if self.offer.mark else None
        price = float(text) if text not in (None, "") else 0.0
        return entry["timestamp"], rate, price if price > 0.0 else float("nan")

    def _read(self, kind: str, rows: Sequence[Sequence[Any]]) -> TimedTable:
        """Return a page in order, each time once."""
        names = COLUMNS[kind]
        time = np.array([row[0] for row in rows], dtype=np.int64) * MILLISECOND
        values = np.array([row[1:] for row in rows], dtype=np.float64)
        columns = {name: values[:, place] for place, name in enumerate(names)} if rows else {}
        empty = {name: np.empty(0) for name in names}
        return merge_rows([TimedTable(self.request.source, time, {**empty, **columns})], kind)

    def _find_symbol(self) -> tuple[str, str]:
        """Return ccxt's symbol and the venue's own name of the instrument."""
        markets = self._call("the list of markets", self.connection.client.load_markets)
        wanted = self.request.symbol
        found = [each for each in markets.values() if wanted in (each["symbol"], each["id"])]
        contracts = [each for each in found if each.get("contract") or each.get("swap")] or found
        if not contracts:
            known = [name for each in markets.values() for name in (each["symbol"], each["id"])]
            raise ParameterError(
                f"{self.request.source} must list the symbol, {wanted!r} it does not"
                + did_you_mean(wanted, known),
                where="symbol",
                cure="write it as the venue does, or as ccxt: BTC/USDT:USDT",
            )
        length = format_duration(self.request.interval)
        lengths = self.connection.client.timeframes
        if length not in lengths:
            raise ParameterError(
                f"{self.request.source} must have bars of the length, {length} it has not",
                where="interval",
                cure=f"choose one of {', '.join(lengths)}; longer bars can be made of shorter ones",
            )
        return str(contracts[0]["symbol"]), str(contracts[0]["id"])

    def _asked_wait(self) -> float | None:
        """Return the seconds that the last answer asks for; None where it says nothing of it."""
        headers = getattr(self.connection.client, "last_response_headers", None) or {}
        found = {str(name).lower(): str(value) for name, value in headers.items()}
        return read_wait(found.get("retry-after"), time.time())

    def _call(self, what: str, ask: Callable[[], Any]) -> Any:
        """Return an answer; failures that may pass are waited for.

        Raises
        ------
        DataError
            If the exchange refuses, or does not answer.
        """

        def attempt() -> Any:
            try:
                return ask()
            except self.connection.passing as error:
                reason = f"{type(error).__name__}: {str(error)[:200]}"
                away = find_unreachable(error)
                reason += f": {away}" if away is not None else ""
                raise TransientFailure(
                    reason, self._asked_wait(), is_away=away is not None
                ) from error
            except self.connection.final as error:
                raise DataError(
                    f"the exchange must answer, says {type(error).__name__}: {str(error)[:200]}",
                    where=f"{self.request.source}, {what}",
                    cure="check the symbol and the span; some venues refuse whole countries",
                ) from error
            except (TypeError, ValueError, KeyError, IndexError, OverflowError) as error:
                raise DataError(
                    f"an answer must be readable, was not: {type(error).__name__}: {error}",
                    where=f"{self.request.source}, {what}",
                    cure="try another version of ccxt, or another source",
                ) from error

        return self.retrier.call(f"{self.request.source}, {what}", attempt)


def connect_exchange(request: Request, base_url: str | None, silence: float) -> Connection:
    """Return a client of the request's exchange.

    Parameters
    ----------
    request : Request
        Its source names the exchange.
    base_url : str or None
        Takes the place of scheme and host in all the exchange's addresses.
    silence : float
        Seconds without an answer.

    Raises
    ------
    ParameterError
        If ccxt is not installed, or the address cannot be one.
    """
    try:
        ccxt = importlib.import_module("ccxt")
    except ModuleNotFoundError as error:
        raise ParameterError(
            "fetching from an exchange needs ccxt, which is not installed",
            where="source",
            cure="pip install 'leverage-backtest[fetch]'; or --source binance-archive",
        ) from error
    options = {"enableRateLimit": True, "timeout": int(silence * 1000)}
    client = getattr(ccxt, OFFERS[request.source].client)(options)
    if base_url is not None:
        check_address(base_url)
        client.urls["api"] = redirect(client.urls["api"], base_url.rstrip("/"))
    return Connection(client, (ccxt.OperationFailed,), (ccxt.BaseError,))


def redirect(addresses: Any, base: str) -> Any:
    """Return addresses with another scheme and host.

    Examples
    --------
    >>> redirect({"public": "https://api.{hostname}/v1"}, "http://127.0.0.1:80")
    {'public': 'http://127.0.0.1:80/v1'}
    """
    if isinstance(addresses, Mapping):
        return {name: redirect(value, base) for name, value in addresses.items()}
    return re.sub(r"^https?://[^/]+", lambda _: base, addresses)


def _stretches(days: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield runs of days as (start, end) in ns."""
    start: int | None = None
    last = 0
    for day in days:
        if start is not None and day != last + DAY:
            yield start, last + DAY
            start = None
        start = day if start is None else start
        last = day
    if start is not None:
        yield start, last + DAY
