"""Downloads from exchanges through ccxt, page by page; completed days are stored at once."""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from backtest.base import (
    DataError,
    ParameterError,
    did_you_mean,
    format_duration,
    format_time,
)
from backtest.base.units import DAY, HOUR
from backtest.market.fetch.download import (
    Retrier,
    TransientFailure,
    check_address,
    find_unreachable,
    read_wait,
)
from backtest.market.fetch.request import OFFERS, Offer, Request
from backtest.market.fetch.target_folder import (
    COLUMNS,
    list_stored,
    merge_rows,
    missing_days,
    rows_between,
    store_days,
)
from backtest.market.tables.timed_table import TimedTable

MILLISECOND = 1_000_000


class Connection(NamedTuple):
    client: Any
    transient: tuple[type[Exception], ...]
    final: tuple[type[Exception], ...]


class Answer(NamedTuple):
    """The rows of one answer, and the time up to which they are complete (ns)."""

    rows: TimedTable
    end: int


@dataclass
class Exchange:
    connection: Connection
    request: Request
    partial: Path
    retrier: Retrier
    report: Callable[[int], None]
    symbol: str = ""

    @property
    def offer(self) -> Offer:
        return OFFERS[self.request.source]

    def fetch(self, end: int) -> str:
        self.symbol, instrument = self._find_symbol()
        for kind in self.request.kinds:
            lacking = missing_days(list_stored(self.partial, kind), self.request.start, end)
            runs = np.split(lacking, np.flatnonzero(np.diff(lacking) != DAY) + 1)
            for days in runs if lacking.size else ():
                self._fetch_days(kind, int(days[0]), int(days[-1]) + DAY)
        return instrument

    def _fetch_days(self, kind: str, start: int, end: int) -> None:
        held: list[TimedTable] = []
        for page in self._pages(kind, start, end):
            held = [*held, page.rows]
            reached = page.end if page.end >= end else page.end // DAY * DAY
            if reached <= start:
                continue
            rows = merge_rows(held, kind)
            done = rows_between(rows, start, reached)
            if done.time.size:
                store_days(self.partial, kind, (start, reached), done)
            held = [rows_between(rows, reached, end)]
            self.report((reached - start) // DAY)
            start = reached

    def _pages(self, kind: str, start: int, end: int) -> Iterator[Answer]:
        ask = self._ask_funding if kind == "funding" else self._ask_bars
        while start < end:
            page = ask(kind, start, end)
            yield Answer(rows_between(page.rows, start, end), min(page.end, end))
            start = page.end

    def _ask_bars(self, kind: str, start: int, end: int) -> Answer:
        interval, limit = self.request.interval, self.offer.limits[kind]
        params: dict[str, Any] = {"price": "mark"} if kind == "mark" else {}
        window = start + limit * interval
        if self.offer.ends_bars:
            params["until"] = (window - interval) // MILLISECOND
        length, width = format_duration(interval), len(COLUMNS[kind])

        def ask() -> TimedTable:
            answer = self.connection.client.fetch_ohlcv(
                self.symbol, length, start // MILLISECOND, limit, dict(params)
            )
            rows = self._read(kind, [(row[0], *row[1 : 1 + width]) for row in answer])
            if rows.time.size and rows.time[-1] < start:
                raise TransientFailure(
                    f"the page ended at {format_time(int(rows.time[-1]))}, before the requested "
                    "time (give end= if the instrument is no longer traded)"
                )
            return rows

        rows = self._call(f"{kind} from {format_time(start)}", ask)
        odd = rows.time[rows.time % interval != 0]
        if odd.size:
            raise DataError(
                f"bars must open on the grid of {length}, one opens at {format_time(int(odd[0]))} "
                f"UTC ({self.request.source}, {kind} of {self.symbol})"
            )
        return Answer(rows, int(rows.time[-1]) + interval if rows.time.size else min(window, end))

    def _ask_funding(self, kind: str, start: int, end: int) -> Answer:
        limit = self.offer.limits[kind]
        until = min(end, start + (limit - 1) * HOUR)

        def ask() -> TimedTable:
            answer = self.connection.client.fetch_funding_rate_history(
                self.symbol, start // MILLISECOND, limit, {self.offer.until: until // MILLISECOND}
            )
            return self._read(kind, [self._read_settlement(entry) for entry in answer])

        rows = self._call(f"{kind} from {format_time(start)}", ask)
        return Answer(rows_between(rows, start, until), until)

    def _read_settlement(self, entry: Mapping[str, Any]) -> tuple[Any, Any, float]:
        rate = entry["info"][self.offer.rate] if self.offer.rate else entry["fundingRate"]
        text = entry.get("info", {}).get(self.offer.mark) if self.offer.mark else None
        price = float(text) if text not in (None, "") else 0.0
        return entry["timestamp"], rate, price if price > 0.0 else float("nan")

    def _read(self, kind: str, rows: Sequence[Sequence[Any]]) -> TimedTable:
        names = COLUMNS[kind]
        time = np.array([row[0] for row in rows], dtype=np.int64) * MILLISECOND
        values = np.array([row[1:] for row in rows], dtype=np.float64)
        columns = dict(zip(names, values.T if rows else [np.empty(0)] * len(names), strict=True))
        return merge_rows([TimedTable(self.request.source, time, columns)], kind)

    def _find_symbol(self) -> tuple[str, str]:
        markets = self._call("the list of markets", self.connection.client.load_markets)
        wanted, source = self.request.symbol, self.request.source
        found = [each for each in markets.values() if wanted in (each["symbol"], each["id"])]
        contracts = [each for each in found if each.get("contract") or each.get("swap")] or found
        if not contracts:
            known = [name for each in markets.values() for name in (each["symbol"], each["id"])]
            raise ParameterError(
                f"symbol must be listed at {source}, as the venue or ccxt writes it "
                f"(BTC/USDT:USDT), {wanted!r} is not{did_you_mean(wanted, known)}"
            )
        length, lengths = format_duration(self.request.interval), self.connection.client.timeframes
        if length not in lengths:
            raise ParameterError(
                f"interval must be a length of bars that {source} offers, {', '.join(lengths)}, "
                f"got {length}"
            )
        return str(contracts[0]["symbol"]), str(contracts[0]["id"])

    def _requested_wait(self) -> float | None:
        headers = getattr(self.connection.client, "last_response_headers", None) or {}
        found = {str(name).lower(): str(value) for name, value in headers.items()}
        return read_wait(found.get("retry-after"), time.time())

    def _call(self, what: str, ask: Callable[[], Any]) -> Any:
        where = f"{self.request.source}, {what}"

        def attempt() -> Any:
            try:
                return ask()
            except self.connection.transient as error:
                reason = f"{type(error).__name__}: {str(error)[:200]}"
                away = find_unreachable(error)
                reason += f": {away}" if away is not None else ""
                wait = self._requested_wait()
                raise TransientFailure(reason, wait, is_away=away is not None) from error
            except self.connection.final as error:
                raise DataError(
                    f"the exchange refused the request, {type(error).__name__}: {str(error)[:200]} "
                    f"({where}); some venues refuse whole countries"
                ) from error
            except (TypeError, ValueError, KeyError, IndexError, OverflowError) as error:
                raise DataError(
                    f"cannot read the exchange's answer, {type(error).__name__}: {error} "
                    f"({where}); another version of ccxt, or another source, may do"
                ) from error

        return self.retrier.call(where, attempt)


def connect_exchange(request: Request, base_url: str | None, silence: float) -> Connection:
    try:
        ccxt = importlib.import_module("ccxt")
    except ModuleNotFoundError as error:
        raise ParameterError(
            "fetching from an exchange needs ccxt, which is not installed; "
            "pip install 'leverage-backtest[fetch]', or source='binance-archive'"
        ) from error
    options = {"enableRateLimit": True, "timeout": int(silence * 1000)}
    client = getattr(ccxt, OFFERS[request.source].client)(options)
    if base_url is not None:
        check_address(base_url)
        client.urls["api"] = redirect(client.urls["api"], base_url.rstrip("/"))
    return Connection(client, (ccxt.OperationFailed,), (ccxt.BaseError,))


def redirect(addresses: Any, base: str) -> Any:
    if isinstance(addresses, Mapping):
        return {name: redirect(value, base) for name, value in addresses.items()}
    return re.sub(r"^https?://[^/]+", lambda _: base, addresses)
