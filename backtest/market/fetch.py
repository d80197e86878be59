"""Downloads into a folder for ``Market.load``, from Binance's archive or an exchange through ccxt.

What has arrived is kept in ``.partial`` inside the folder, a file of each kind, and a fetch goes on
from its last stamp. The files are put in their places when all of them are whole: mark prices and
funding first, so that at any moment the folder holds the market of before or of after.

Sources of the archive: github.com/binance/binance-public-data, README: addresses, intervals,
``.CHECKSUM``; "daily data will be uploaded in the next day", monthly "from the beginning of next
month". Funding comes by the month only. Its issues 192, 297, 346: monthly files lack whole days
that the daily files have, so the days that a month lacks are downloaded one by one.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pandas as pd

from backtest import base
from backtest.base import (
    DataError,
    ParameterError,
    TimeLike,
    format_duration,
    format_time,
    to_nanoseconds,
)
from backtest.base.atomic_files import DRAFT_FILE, LOCK
from backtest.base.units import DAY, HOUR
from backtest.market import files as f
from backtest.market.market import Market
from backtest.market.tables import SCHEMAS, SourceFrame, read_table, refuse, require, unreadable

if TYPE_CHECKING:
    import httpx

ARCHIVE, ARCHIVE_URL = "binance-archive", "https://data.binance.vision"
"""Source: github.com/binance/binance-public-data, README, "Where do I access it"."""
MARKETS = ("um", "cm")
COLUMNS = {
    "bars": ("open", "high", "low", "close", "volume"),
    "mark": ("open", "high", "low", "close"),
    "funding": ("rate", "mark"),
}
KINDS = tuple(COLUMNS)
FACTS, PARTIAL = "fetch.json", ".partial"

PARALLEL = 4
"""Files of the archive that are downloaded at once."""
LARGEST_ZIP, LARGEST_TEXT = 16 << 20, 64 << 20
"""Bytes; a month of minute bars takes about 2.5 MiB and unpacks to about 6 MiB."""
RECENT = 45 * DAY
"""How long after its end a month may lack a monthly file."""
ATTEMPTS, LONGEST_WAIT, LONGEST_ASKED = 6, 60.0, 600.0
"""How often a file is asked for, and seconds: the longest wait, and the longest asked for."""
STORE_EVERY = 20.0
"""Seconds after which what has arrived is written."""
MILLISECOND = 1_000_000


class Offer(NamedTuple):
    client: str
    limits: Mapping[str, int]
    until: str = "until"
    ends_bars: bool = False
    rate: str | None = None
    mark: str | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(self.limits)


_THOUSAND = dict.fromkeys(KINDS, 1000)
OFFERS: Mapping[str, Offer] = {
    "binance": Offer("binanceusdm", _THOUSAND, mark="markPrice"),
    "binance-coinm": Offer("binancecoinm", _THOUSAND, mark="markPrice"),
    "bybit": Offer("bybit", {"bars": 1000, "mark": 1000, "funding": 200}),
    "okx": Offer("okx", dict.fromkeys(KINDS, 100), until="after"),
    "hyperliquid": Offer("hyperliquid", {"bars": 5000, "funding": 500}, ends_bars=True),
    "bitmex": Offer("bitmex", {"bars": 500, "funding": 500}),
    # An hour's payment: ccxt's own fundingRate is the sum of eight, at every hour.
    "deribit": Offer("deribit", {"bars": 1000, "funding": 700}, rate="interest_1h"),
}
"""Sources: ccxt 4.5.64, the methods ``fetch_ohlcv`` and ``fetch_funding_rate_history`` of each
exchange and their limits (read 2026-11-20); tests compare ``kinds`` with its ``has``.
"""
SOURCES = (ARCHIVE, *OFFERS)
_SYMBOL = re.compile(r"[A-Z0-9_]{2,40}")
_FOLDERS = {"bars": "klines", "mark": "markPriceKlines", "funding": "fundingRate"}
_CHECKSUM = re.compile(r"([0-9a-fA-F]{64}) [ *](\S+)\s*")

Page = tuple[pd.DataFrame, int]
"""Rows, and the time up to which they are complete (ns)."""


class Request(NamedTuple):
    """One instrument of one source over a span of whole days.

    ``interval`` is the length of a bar in ns, a whole part of a day; ``start`` is the first open,
    ``end`` the midnight before which the last bar opens, both UTC ns; None: as far as the source
    has data. ``kinds`` are some of ``KINDS``, bars always. ``market`` is that of the archive:
    ``"um"`` (quoted in a stablecoin) or ``"cm"`` (in the coin).
    """

    source: str
    symbol: str
    interval: int
    start: int
    end: int | None
    kinds: tuple[str, ...] = KINDS
    market: str = "um"

    @property
    def length(self) -> str:
        return format_duration(self.interval)

    def identity(self) -> dict[str, Any]:
        found = {"source": self.source, "symbol": self.symbol}
        found |= {"market": self.market} if self.source == ARCHIVE else {}
        return found | {"interval": self.length}


def read_request(
    symbol: str,
    *,
    start: TimeLike,
    end: TimeLike | None = None,
    source: str = ARCHIVE,
    interval: str = "1m",
    without: Sequence[str] = (),
    market: str = "um",
) -> Request:
    base.Choice(*SOURCES).check("source", source)
    base.Choice(*MARKETS).check("market", market)
    for kind in without:
        base.Choice(*KINDS[1:]).check("without", kind)
    kinds = tuple(kind for kind in KINDS if kind not in without)
    length = base.parse_duration(interval, "interval")
    first, last = (
        to_nanoseconds(start, "start"),
        None if end is None else to_nanoseconds(end, "end"),
    )
    for name, stamp in (("start", first), ("end", last)):
        if stamp is not None and stamp % DAY:
            raise ParameterError(f"{name} must be a midnight of UTC, got {format_time(stamp)}")
    if DAY % length:
        raise ParameterError(
            f"interval must divide a day, got {format_duration(length)}; resample shorter bars"
        )
    if source == ARCHIVE:
        if not _SYMBOL.fullmatch(symbol):
            raise ParameterError(
                "symbol must have capital letters, digits and _ only (BTCUSDT, or BTCUSD_PERP with "
                f"market='cm'), got {symbol!r}"
            )
    elif market != MARKETS[0]:
        raise ParameterError(
            f"market may only be chosen for {ARCHIVE}, got {market!r} for {source}: "
            "binance-coinm is a source of its own"
        )
    elif lacking := [kind for kind in kinds if kind not in OFFERS[source].kinds]:
        raise ParameterError(
            f"{source} has no history of {' and '.join(lacking)}; without={lacking}, and "
            "liquidations are tested on last prices"
        )
    if last is not None and last <= first:
        raise ParameterError(f"end must be after the start, got {format_time(last)}")
    return Request(source, symbol, length, first, last, kinds, market)


# ------------------------------------------------------------------------------ Binance's archive


class Web(NamedTuple):
    client: httpx.Client
    base: str
    first_wait: float
    notice: Callable[[str], None]
    stop: threading.Event

    def get(self, path: str, limit: int, checks: Callable[[bytes], str] = lambda _: "") -> bytes:
        """Return a file of at most ``limit`` bytes, empty if there is none.

        ``checks`` says what is wrong with the content, for which it is asked for again.
        """
        import httpx  # noqa: PLC0415 - only where something is fetched

        url, reason = f"{self.base}/{path}", ""
        for attempt in range(ATTEMPTS):
            wait = min(LONGEST_WAIT, self.first_wait * 2.0**attempt)
            try:
                with self.client.stream("GET", url) as response:
                    status = response.status_code
                    if status in (404, 410):
                        return b""
                    reason = f"the HTTP status was {status}"
                    if status == 200:
                        content = _read_body(response, url, limit)
                        reason = checks(content)
                        if not reason:
                            return content
                    elif status not in (408, 418, 425, 429) and status < 500:
                        raise DataError(
                            f"the HTTP status must be 200, got {status} ({url}); some venues "
                            "refuse whole countries, and base_url takes the address of a mirror"
                        )
                    asked = response.headers.get("Retry-After", "")
                    wait = float(asked) if asked.isdigit() else wait
            except httpx.ConnectError as error:
                raise DataError(
                    f"cannot reach the server: ConnectError: {error} ({url})"
                ) from error
            except httpx.TransportError as error:
                reason = f"{type(error).__name__}: {error}"
            if wait > LONGEST_ASKED:
                raise DataError(f"the server asks for a wait of {wait:g} s ({url}); try later")
            self.notice(f"{url}: {reason}; asking again in {wait:.1f} s")
            if attempt + 1 == ATTEMPTS or self.stop.wait(wait):
                break
        raise DataError(
            f"the download failed {ATTEMPTS} times: {reason} ({url}); fetch again later: what has "
            "arrived is kept"
        )


def _read_body(response: httpx.Response, url: str, limit: int) -> bytes:
    content = bytearray()
    for chunk in response.iter_raw():
        content += chunk
        if len(content) > limit:
            raise DataError(f"a file must have at most {limit:,} bytes, has more ({url})")
    return bytes(content)


@contextlib.contextmanager
def open_web(address: str, first_wait: float, notice: Callable[[str], None]) -> Iterator[Web]:
    httpx = import_or_refuse("httpx")
    headers = {"Accept-Encoding": "identity", "User-Agent": "leverage-backtest"}
    transport = httpx.HTTPTransport(retries=2)  # of connections
    with httpx.Client(timeout=20.0, headers=headers, transport=transport) as client:
        yield Web(client, address, first_wait, notice, threading.Event())


def import_or_refuse(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ParameterError(
            f"this fetch needs {module}, which is not installed; "
            "pip install 'leverage-backtest[fetch]'"
        ) from error


def check_address(address: str) -> str:
    url = urlsplit(address)
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
        raise ParameterError(
            f"base_url must begin with http:// or https:// and name a server, got {address!r}"
        )
    return address.rstrip("/")


class Archive(NamedTuple):
    web: Web
    request: Request
    now: int

    def pages(self, kind: str, start: int, end: int) -> Iterator[Page]:
        months = pd.period_range(pd.Timestamp(start), pd.Timestamp(end - 1), freq="M")
        edges = [int(each.start_time.as_unit("ns").value) for each in [*months, months[-1] + 1]]
        with ThreadPoolExecutor(PARALLEL, thread_name_prefix="fetch") as pool:
            try:
                parts = pool.map(
                    lambda first, last: self._get_month(kind, first, last, start, end),
                    edges, edges[1:],
                )  # fmt: skip
                yield from ((rows, min(reached, end)) for pages in parts for rows, reached in pages)
            except BaseException:
                self.web.stop.set()
                raise

    def _get_month(self, kind: str, first: int, last: int, start: int, end: int) -> list[Page]:
        whole = self._get(kind, first, last) if last <= self.now else None
        found = [] if whole is None else [(whole, last)]
        if kind == "funding" or (whole is None and last + RECENT < self.now):
            return found
        held = np.empty(0, np.int64) if whole is None else whole["time"].to_numpy() // DAY * DAY
        days, counts = np.unique(held, return_counts=True)
        there = {*days[counts >= DAY // self.request.interval].tolist()}
        for day in range(max(first, start), min(last, end), DAY):
            rows = self._get(kind, day, day + DAY) if day not in there else None
            if rows is not None and len(rows):
                found.append((rows, last if whole is not None else day + DAY))
        return found

    def _get(self, kind: str, start: int, end: int) -> pd.DataFrame | None:
        path = file_path(self.request, kind, start, end)
        where = f"{self.web.base}/{path}"

        def check(content: bytes) -> str:
            noted = self.web.get(f"{path}.CHECKSUM", 4096).decode("ascii", errors="replace")
            if not noted:
                raise DataError(f"the archive has no checksum for this file ({where})")
            match = _CHECKSUM.fullmatch(noted)
            if match is None or match[2] != path.rpartition("/")[2]:
                raise DataError(
                    "a checksum must be a SHA-256 and the file's name, got "
                    f"{noted[:100]!r} ({where})"
                )
            digest = hashlib.sha256(content).hexdigest()
            is_same = digest == match[1].lower()
            return "" if is_same else f"its SHA-256 is {digest}, its checksum says another"

        content = self.web.get(path, LARGEST_ZIP, check)
        if not content:
            return None
        rows = read_archive_rows(content, kind, where)
        lead = HOUR if kind == "funding" else 0  # some settlements are stamped before the month
        return rows[(rows["time"] >= start - lead) & (rows["time"] < end)]


def file_path(request: Request, kind: str, start: int, end: int) -> str:
    period, stamp = ("daily", "%Y-%m-%d") if end - start == DAY else ("monthly", "%Y-%m")
    day = pd.Timestamp(start).strftime(stamp)
    folder = f"data/futures/{request.market}/{period}/{_FOLDERS[kind]}/{request.symbol}"
    if kind == "funding":
        return f"{folder}/{request.symbol}-fundingRate-{day}.zip"
    return f"{folder}/{request.length}/{request.symbol}-{request.length}-{day}.zip"


def read_archive_rows(content: bytes, kind: str, where: str) -> pd.DataFrame:
    """Return the rows of a zip file of the archive, ``time`` in UTC ns."""
    try:
        text = require(f.unpack(io.BytesIO(content), ".zip", where, LARGEST_TEXT))
        if not re.search(rb"^\d", text, re.MULTILINE):  # empty, or a header alone
            return make_frame(kind, [], [])
        frame = f.rename_columns(f.parse_csv(text, ()), kind, {}, where)
    except f.BROKEN as error:
        raise DataError(str(unreadable(error, where))) from error
    table, defects = read_table([SourceFrame(where, frame)], SCHEMAS[kind], None)
    refuse(defects, where=where)
    if table is None:
        raise AssertionError("no table and no defects")
    unknown = np.full(table.time.size, np.nan)
    columns = [table.columns.get(name, unknown) for name in COLUMNS[kind]]
    return make_frame(kind, table.time, np.stack(columns, axis=1))


def make_frame(kind: str, stamps: Any, values: Any) -> pd.DataFrame:
    numbers = np.array(values, dtype=np.float64).reshape(-1, len(COLUMNS[kind]))
    frame = pd.DataFrame(numbers, columns=[*COLUMNS[kind]])
    frame.insert(0, "time", np.asarray(stamps, dtype=np.int64))
    return frame


# ---------------------------------------------------------------------------------------- exchanges


class Exchange(NamedTuple):
    client: Any
    request: Request
    symbol: str

    def pages(self, kind: str, start: int, end: int) -> Iterator[Page]:
        ask = self._ask_funding if kind == "funding" else self._ask_bars
        while start < end:
            where = f"{self.request.source}, {kind} from {format_time(start)}"
            with reading(where):
                rows, reached = ask(kind, start, end)
            if len(rows) and rows["time"].max() < start:
                raise DataError(
                    f"the page ended at {format_time(int(rows['time'].max()))}, before the "
                    f"requested time ({where}; give end= if the instrument is no longer traded)"
                )
            yield rows[(rows["time"] >= start) & (rows["time"] < end)], min(reached, end)
            start = reached

    def _ask_bars(self, kind: str, start: int, end: int) -> Page:
        offer, interval = OFFERS[self.request.source], self.request.interval
        params: dict[str, Any] = {"price": "mark"} if kind == "mark" else {}
        window = start + offer.limits[kind] * interval
        if offer.ends_bars:
            params["until"] = (window - interval) // MILLISECOND
        answer = self.client.fetch_ohlcv(
            self.symbol, self.request.length, start // MILLISECOND, offer.limits[kind], params
        )
        stamps = [row[0] * MILLISECOND for row in answer]
        rows = make_frame(kind, stamps, [row[1 : 1 + len(COLUMNS[kind])] for row in answer])
        return rows, int(rows["time"].max()) + interval if len(rows) else min(window, end)

    def _ask_funding(self, kind: str, start: int, end: int) -> Page:
        offer = OFFERS[self.request.source]
        until = min(end, start + (offer.limits[kind] - 1) * HOUR)
        answer = self.client.fetch_funding_rate_history(
            self.symbol, start // MILLISECOND, offer.limits[kind],
            {offer.until: until // MILLISECOND},
        )  # fmt: skip
        values = []
        for entry in answer:
            price = entry.get("info", {}).get(offer.mark) if offer.mark else None
            rate = entry["info"][offer.rate] if offer.rate else entry["fundingRate"]
            values.append((float(rate), float(price or "nan") or np.nan))
        rows = make_frame(kind, [entry["timestamp"] * MILLISECOND for entry in answer], values)
        return rows[rows["time"] < until], until


@contextlib.contextmanager
def reading(where: str) -> Iterator[None]:
    """Say of whatever ccxt raises where it was raised."""
    try:
        yield
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise DataError(
            f"cannot read the exchange's answer, {type(error).__name__}: {error} ({where}); "
            "another version of ccxt, or another source, may do"
        ) from error
    except Exception as error:
        if not any(each.__name__ == "BaseError" for each in type(error).__mro__):
            raise
        raise DataError(
            f"the exchange failed or refused, {type(error).__name__}: {str(error)[:200]} "
            f"({where}); fetch again later: what has arrived is kept; some venues refuse whole "
            "countries"
        ) from error


def connect_exchange(request: Request, base_url: str | None) -> Any:
    retries = {"maxRetriesOnFailure": ATTEMPTS - 1, "maxRetriesOnFailureDelay": 1000}
    settings = {"enableRateLimit": True, "timeout": 20_000, "options": retries}
    client = getattr(import_or_refuse("ccxt"), OFFERS[request.source].client)(settings)
    if base_url is not None:
        client.urls["api"] = redirect(client.urls["api"], base_url)
    return client


def redirect(addresses: Any, address: str) -> Any:
    if isinstance(addresses, Mapping):
        return {name: redirect(value, address) for name, value in addresses.items()}
    return re.sub(r"^https?://[^/]+", lambda _: address, addresses)


def find_symbol(client: Any, request: Request) -> tuple[str, str]:
    wanted, source = request.symbol, request.source
    with reading(f"{source}, the list of markets"):
        markets = [*client.load_markets().values()]
    found = [each for each in markets if wanted in (each["symbol"], each["id"])]
    contracts = [each for each in found if each.get("contract") or each.get("swap")] or found
    if not contracts:
        known = [name for each in markets for name in (each["symbol"], each["id"])]
        raise ParameterError(
            f"symbol must be listed at {source}, as the venue or ccxt writes it "
            f"(BTC/USDT:USDT), {wanted!r} is not{base.did_you_mean(wanted, known)}"
        )
    if request.length not in client.timeframes:
        raise ParameterError(
            f"interval must be a length of bars that {source} offers, "
            f"{', '.join(client.timeframes)}, got {request.length}"
        )
    return str(contracts[0]["symbol"]), str(contracts[0]["id"])


# --------------------------------------------------------------------------------- into the folder


class Fetched(NamedTuple):
    folder: Path
    facts: Mapping[str, Any]
    is_new: bool


class Store:
    def __init__(self, folder: Path, request: Request) -> None:
        self.folder, self.partial, self.request = folder, folder / PARTIAL, request
        self.place = self.partial if (self.partial / FACTS).exists() else folder
        self.facts = self._read_facts()
        try:
            self.done = {kind: to_nanoseconds(t, FACTS) for kind, t in self.facts["done"].items()}
            begun = to_nanoseconds(self.facts["from"], FACTS) if self.done else request.start
        except (LookupError, TypeError, AttributeError, ParameterError) as error:
            raise DataError(
                f"{FACTS} is not that of a fetch ({self.place / FACTS}); use a new folder"
            ) from error
        self.start = min(request.start, begun)
        if request.start < begun:
            self.done, self.facts = {}, {}
        self.rows: dict[str, pd.DataFrame] = {}
        self.stored = time.monotonic()

    def _read_facts(self) -> dict[str, Any]:
        path, identity = self.place / FACTS, self.request.identity()
        if not path.exists():
            data = sorted(p.name for p in self.folder.glob("*") if f.suffix_of(p) in f.SUFFIXES)
            if data:
                raise DataError(
                    f"a fetch needs a folder of its own, this one holds {', '.join(data[:4])} "
                    f"({self.folder})"
                )
            return {"done": {}}
        facts = base.parse_json(base.read_small(path), path)
        if not isinstance(facts, dict):
            raise DataError(f"{FACTS} is not that of a fetch ({path}); use a new folder")
        other = [key for key, value in identity.items() if facts.get(key) != value]
        if other:
            found, wanted = (", ".join(f"{k} {each.get(k)}" for k in other)
                             for each in (facts, identity))  # fmt: skip
            raise DataError(
                f"a folder must hold one instrument: this one holds {found}, not {wanted} ({path})"
            )
        return facts

    def has_all(self, end: int | None) -> bool:
        if self.place == self.partial or end is None or "to" not in self.facts:
            return False
        has_kinds = {*self.request.kinds} <= {*self.facts["rows"]}
        return has_kinds and end <= to_nanoseconds(self.facts["to"], FACTS)

    def open(self, kind: str) -> int:
        self.rows[kind] = make_frame(kind, [], [])
        path = self.place / f"{kind}.parquet"
        if kind not in self.done or not path.exists():
            return self.start
        try:
            frame = pd.read_parquet(path)
            stamps = pd.DatetimeIndex(frame.pop("time")).as_unit("ns").asi8
            rows = make_frame(kind, stamps, frame[[*COLUMNS[kind]]].to_numpy())
        except (OSError, ValueError, KeyError):  # damaged: fetched again
            return self.start
        self.rows[kind] = rows[rows["time"] < self.done[kind]]
        return self.done[kind]

    def add(self, kind: str, parts: Sequence[pd.DataFrame], reached: int) -> None:
        whole = pd.concat([self.rows[kind], *parts], ignore_index=True)
        self.rows[kind] = whole.drop_duplicates().sort_values("time", kind="stable")
        self.done[kind] = reached
        with base.replace_file(self.partial / f"{kind}.parquet") as draft:
            f.write_table(self.to_frame(kind), draft)
        facts = {"from": format_time(self.start), "done": self._list_done()}
        base.write_file(self.partial / FACTS, _to_json({**self.request.identity(), **facts}))
        self.stored = time.monotonic()

    def _list_done(self, end: int | None = None) -> dict[str, str]:
        return {kind: format_time(min(at, end or at)) for kind, at in self.done.items()}

    def to_frame(self, kind: str, end: int | None = None) -> pd.DataFrame:
        rows = self.rows[kind]
        kept = rows if end is None else rows[(rows["time"] >= self.start) & (rows["time"] < end)]
        return kept.set_index(base.utc_index(kept["time"].to_numpy())).drop(columns="time")

    def fetch_kind(
        self, pages: Callable[[str, int, int], Iterator[Page]], kind: str, until: int,
        reach: Callable[[str, int], None],
    ) -> None:  # fmt: skip
        start = reached = self.open(kind)
        parts: list[pd.DataFrame] = []
        reach(kind, start)
        try:
            for rows, end in pages(kind, start, until) if start < until else ():
                parts.append(rows)
                reached = end if len(rows) else reached
                reach(kind, end)
                if time.monotonic() - self.stored >= STORE_EVERY:
                    self.add(kind, parts, reached)
                    parts = []
        finally:  # also of what is stopped
            if parts and reached > start:
                self.add(kind, parts, reached)

    def publish(self, instrument: str, end: int, gaps: Sequence[str]) -> dict[str, Any]:
        frames = {kind: self.to_frame(kind, end) for kind in self.request.kinds}
        self.done = {kind: self.done[kind] for kind in frames}
        has_funding = "funding" in frames and not frames["funding"].empty
        market = {
            "instrument": instrument,
            "interval": self.request.length,
            "synthetic": False,
            "sessions": False,
            "filled": {} if has_funding else {"funding": "none given"},
        }
        facts = {
            **self.request.identity(),
            "instrument": instrument,
            "from": format_time(self.start),
            "to": format_time(end),
            "rows": {kind: len(frame) for kind, frame in frames.items()},
            "gaps": [*gaps],
            "done": self._list_done(end),
        }
        for kind in reversed(KINDS):
            if kind in frames and len(frames[kind]):
                draft = self.partial / f"{DRAFT_FILE}{kind}"
                f.write_table(frames[kind], draft)
                base.move_file(draft, self.folder / f"{kind}.parquet")
        for name, content in (("market.json", market), (FACTS, facts)):
            draft = self.partial / f"{DRAFT_FILE}{name}"
            draft.write_bytes(_to_json(content))
            base.move_file(draft, self.folder / name)
        clear(self.partial)
        return facts


def _to_json(facts: Mapping[str, Any]) -> bytes:
    return (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode()


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep other fetches out of a folder; leave none behind if nothing has arrived."""
    partial, is_new = folder / PARTIAL, not folder.exists()
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(base.hold_lock_file(partial / LOCK))
        except base.LockHeldError as error:
            raise DataError(
                f"another process ({error.holder}) is already fetching into {folder}"
            ) from error
        except OSError as error:
            raise DataError(
                f"cannot write to the folder of the fetch, {folder}: {error.strerror or error}"
            ) from error
        try:
            yield
        finally:
            if not (partial / FACTS).exists():
                clear(partial)
                if is_new:
                    with contextlib.suppress(OSError):  # it holds something: it stays
                        folder.rmdir()


def clear(partial: Path) -> None:
    for path in partial.glob("*"):
        is_ours = path.name in (LOCK, FACTS) or path.stem in KINDS
        if is_ours or path.name.startswith(DRAFT_FILE):
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # the next process may have begun; or it holds more
        partial.rmdir()


def check_rows(store: Store, end: int) -> list[str]:
    """Return what is missing, in words; raise DataError if what is there cannot be right."""
    request, start = store.request, store.start
    every = {kind: store.to_frame(kind, end) for kind in request.kinds}
    frames: dict[str, Any] = {kind: frame for kind, frame in every.items() if not frame.empty}
    lacking = [kind for kind in every if kind not in frames]
    if "bars" in lacking or end <= start:
        raise DataError(
            f"{request.symbol} must have data from {format_time(start)} on, {request.source} has "
            f"no {' and no '.join(lacking) or 'whole day'} there"
        )
    gaps = [f"{request.source} has no {kind} there; without={lacking}" for kind in lacking]
    for kind in ("bars", "mark"):
        times = frames[kind].index.as_unit("ns").asi8 if kind in frames else [start, end]
        first, last = int(times[0]), int(times[-1]) + request.interval
        if first > start or last < end:
            gaps.append(
                f"{kind} run from {format_time(first)} to {format_time(last)}, not from "
                f"{format_time(start)} to {format_time(end)}"
            )
    bars, mark, options = frames.pop("bars"), frames.pop("mark", None), {"interval": request.length}
    try:
        Market.from_frames(bars, mark=mark, **frames, interval=request.length)
    except DataError as error:
        gaps.append(str(error))
    try:  # what is there must be right all the same
        for frame, how in ((bars, {"funding_gaps": "zero", **frames}), (mark, {})):
            if gaps and frame is not None:
                Market.from_frames(frame, **options, **how, sessions=True)  # type: ignore[arg-type]
    except DataError as error:
        raise DataError(f"{request.source}, {request.symbol}: {error}") from error
    return gaps


def fetch_market(
    folder: Path,
    request: Request,
    *,
    now: int,
    base_url: str | None = None,
    accept_gaps: bool = False,
    first_wait: float = 1.0,
    report: Callable[[int, int], None] | None = None,
    notice: Callable[[str], None] = lambda _: None,
    client: Any = None,
) -> Fetched:
    """Download a market into a folder that ``Market.load`` reads.

    Parameters
    ----------
    folder : Path
        A new folder, or that of an earlier fetch of the same instrument, which goes on from its
        last stamp.
    now : int
        UTC ns; days that are not over are not stored.
    base_url : str, optional
        The address of a mirror of the archive, or of a server in place of the exchange's.
    accept_gaps : bool
        Store the data although some are missing: ``fetch.json`` says which, and none is filled.
    first_wait : float
        Seconds before a file is asked for again; each further wait is twice as long.
    report : callable, optional
        Called with the number of days done and in all; a day counts once per kind of data.
    notice : callable
        Called with a text before each retry.
    client : optional
        Of an exchange, in place of one of ccxt.
    """
    today = now // DAY * DAY
    if max(request.start + DAY, request.end or 0) > today:
        raise ParameterError(
            f"a day is stored when it is over, the last whole one ends at {format_time(today)} UTC"
        )
    address = None if base_url is None else check_address(base_url)
    until, reached = request.end or today, dict.fromkeys(request.kinds, 0)

    def reach(kind: str, at: int) -> None:
        reached[kind] = max((at - request.start) // DAY, 0)
        total = (until - request.start) // DAY * len(reached)
        if report is not None:
            report(min(sum(reached.values()), total), total)

    with hold(folder), contextlib.ExitStack() as stack:
        store = Store(folder, request)
        if store.has_all(request.end):
            return Fetched(folder, store.facts, is_new=False)
        if request.source == ARCHIVE:
            web = stack.enter_context(open_web(address or ARCHIVE_URL, first_wait, notice))
            pages, instrument = Archive(web, request, now).pages, request.symbol
        else:
            client = client or connect_exchange(request, address)
            symbol, instrument = find_symbol(client, request)
            pages = Exchange(client, request, symbol).pages
        for kind in request.kinds:
            store.fetch_kind(pages, kind, until, reach)
        end = until
        if request.end is None:
            ends = [store.done[kind] for kind in request.kinds if kind in store.done]
            end = min(ends, default=store.start) // DAY * DAY
        gaps = check_rows(store, end)
        if gaps and not accept_gaps:
            raise DataError(
                f"all requested rows must be there, {request.source} lacks some of "
                f"{request.symbol}, nothing was stored; choose another span (what has arrived is "
                "kept), leave a kind out (without=), or accept_gaps=True:\n" + "\n".join(gaps)
            )
        return Fetched(folder, store.publish(instrument, end, gaps), is_new=True)
