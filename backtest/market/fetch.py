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
import email.utils
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

from backtest.base import (
    Choice,
    DataError,
    LockHeldError,
    ParameterError,
    TimeLike,
    did_you_mean,
    format_duration,
    format_time,
    hash_file,
    hold_lock_file,
    move_file,
    parse_duration,
    parse_json,
    read_small,
    replace_file,
    to_nanoseconds,
    utc_index,
    write_file,
)
from backtest.base.atomic_files import DRAFT_FILE, LOCK
from backtest.base.units import DAY, HOUR
from backtest.market.market import Market
from backtest.market.read import (
    BROKEN,
    SUFFIXES,
    parse_csv,
    rename_columns,
    suffix_of,
    unpack,
    write_table,
)
from backtest.market.tables import SCHEMAS, SourceFrame, read_table, refuse, require, unreadable

if TYPE_CHECKING:
    import httpx

ARCHIVE = "binance-archive"
ARCHIVE_URL = "https://data.binance.vision"
"""Source: github.com/binance/binance-public-data, README, "Where do I access it"."""

MARKETS = ("um", "cm")
KINDS = ("bars", "mark", "funding")
COLUMNS = {
    "bars": ("open", "high", "low", "close", "volume"),
    "mark": ("open", "high", "low", "close"),
    "funding": ("rate", "mark"),
}
FACTS, PARTIAL, FORMAT = "fetch.json", ".partial", 1

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
    """What an exchange has: the class of ccxt, the rows of a page, and how it names things."""

    client: str
    kinds: tuple[str, ...]
    limits: Mapping[str, int]
    until: str = "until"
    ends_bars: bool = False
    rate: str | None = None
    mark: str | None = None


_NO_MARK = ("bars", "funding")
_THOUSAND = {"bars": 1000, "mark": 1000, "funding": 1000}

OFFERS: Mapping[str, Offer] = {
    "binance": Offer("binanceusdm", KINDS, _THOUSAND, mark="markPrice"),
    "binance-coinm": Offer("binancecoinm", KINDS, _THOUSAND, mark="markPrice"),
    "bybit": Offer("bybit", KINDS, {"bars": 1000, "mark": 1000, "funding": 200}),
    "okx": Offer("okx", KINDS, {"bars": 100, "mark": 100, "funding": 100}, until="after"),
    "hyperliquid": Offer("hyperliquid", _NO_MARK, {"bars": 5000, "funding": 500}, ends_bars=True),
    "bitmex": Offer("bitmex", _NO_MARK, {"bars": 500, "funding": 500}),
    # An hour's payment: ccxt's own fundingRate is the sum of eight, at every hour.
    "deribit": Offer("deribit", _NO_MARK, {"bars": 1000, "funding": 700}, rate="interest_1h"),
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

    def identity(self) -> dict[str, Any]:
        found = {"source": self.source, "symbol": self.symbol}
        found |= {"market": self.market} if self.source == ARCHIVE else {}
        return found | {"interval": format_duration(self.interval)}


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
    """Return a checked request; ``without`` names the kinds to leave out."""
    Choice(*SOURCES).check("source", source)
    Choice(*MARKETS).check("market", market)
    for kind in without:
        Choice(*KINDS[1:]).check("without", kind)
    if source != ARCHIVE and market != MARKETS[0]:
        raise ParameterError(
            f"market may only be chosen for {ARCHIVE}, got {market!r} for {source}: elsewhere the "
            "symbol decides, and binance-coinm is a source of its own"
        )
    length = parse_duration(interval, "interval")
    if DAY % length:
        raise ParameterError(
            f"interval must divide a day, got {format_duration(length)}; resample shorter bars"
        )
    if source == ARCHIVE and not _SYMBOL.fullmatch(symbol):
        raise ParameterError(
            "symbol must have capital letters, digits and _ only (BTCUSDT, or BTCUSD_PERP with "
            f"market='cm'), got {symbol!r}"
        )
    kinds = tuple(kind for kind in KINDS if kind not in without)
    lacking = [k for k in kinds if source != ARCHIVE and k not in OFFERS[source].kinds]
    if lacking:
        raise ParameterError(
            f"{source} has no history of {' and '.join(lacking)}; without={lacking}, and "
            "liquidations are tested on last prices"
        )
    first, last = _read_day(start, "start"), None if end is None else _read_day(end, "end")
    if last is not None and last <= first:
        raise ParameterError(
            f"end must be after the start, got {format_time(first)} to {format_time(last)}"
        )
    return Request(source, symbol, length, first, last, kinds, market)


def _read_day(stamp: TimeLike, name: str) -> int:
    found = to_nanoseconds(stamp, name)
    if found % DAY:
        raise ParameterError(
            f"{name} must be a midnight of UTC, got {format_time(found)}; cut the market later"
        )
    return found


# ------------------------------------------------------------------------------ Binance's archive


class Web:
    """Files of one server, asked for again if a failure may pass."""

    def __init__(
        self, client: httpx.Client, base: str, *, first_wait: float, notice: Callable[[str], None]
    ) -> None:
        self.client, self.base = client, base
        self.first_wait, self.notice = first_wait, notice
        self.stop = threading.Event()
        self.is_reached = False

    def get(self, path: str, limit: int) -> bytes | None:
        """Return a file of at most ``limit`` bytes, None if there is none."""
        import httpx  # noqa: PLC0415 - only where something is fetched

        url = f"{self.base}/{path}"
        for attempt in range(1, ATTEMPTS + 1):
            wait = min(LONGEST_WAIT, self.first_wait * 2.0 ** (attempt - 1))
            try:
                with self.client.stream("GET", url) as response:
                    self.is_reached = True
                    status = response.status_code
                    if status in (404, 410):
                        return None
                    if status == 200:
                        return _read_body(response, url, limit)
                    if status not in (408, 418, 425, 429) and status < 500:
                        raise DataError(
                            f"the HTTP status must be 200, got {status} ({url}); some venues "
                            "refuse whole countries, and base_url takes the address of a mirror"
                        )
                    reason = f"the HTTP status was {status}"
                    wait = read_wait(response.headers.get("Retry-After"), time.time(), wait)
            except httpx.TransportError as error:
                reason = f"{type(error).__name__}: {error}"
                if isinstance(error, httpx.ConnectError) and not self.is_reached:
                    raise DataError(
                        f"cannot reach the server: {reason} ({url}); check the network, the proxy "
                        "and base_url"
                    ) from error
            if wait > LONGEST_ASKED:
                raise DataError(f"the server asks for a wait of {wait:g} s ({url}); try later")
            if attempt < ATTEMPTS:
                self.notice(f"{url}: {reason}; asking again in {wait:.1f} s")
                if self.stop.wait(wait):
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
            raise DataError(
                f"a file must have at most {limit:,} bytes, has more ({url}): not the archive's"
            )
    return bytes(content)


def read_wait(text: str | None, now: float, otherwise: float) -> float:
    """Return the seconds that a server asks to wait: a number, or a date."""
    if text is None:
        return otherwise
    if text.strip().isdigit():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now)
    except ValueError:
        return otherwise


@contextlib.contextmanager
def open_web(base: str | None, first_wait: float, notice: Callable[[str], None]) -> Iterator[Web]:
    try:
        import httpx  # noqa: PLC0415 - as above
    except ModuleNotFoundError as error:
        raise ParameterError(
            "downloads need httpx, which is not installed; pip install 'leverage-backtest[fetch]'"
        ) from error
    address = check_address(base or ARCHIVE_URL)
    headers = {"Accept-Encoding": "identity", "User-Agent": "leverage-backtest"}
    with httpx.Client(timeout=20.0, headers=headers) as client:
        yield Web(client, address, first_wait=first_wait, notice=notice)


def check_address(base: str) -> str:
    url = urlsplit(base)
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
        raise ParameterError(
            f"base_url must begin with http:// or https:// and name a server, got {base!r}"
        )
    return base.rstrip("/")


class Archive(NamedTuple):
    """The files of one instrument in the archive, by month and day."""

    web: Web
    request: Request
    now: int
    files: dict[str, str]

    def pages(self, kind: str, start: int, end: int) -> Iterator[Page]:
        months = [
            [int(each.start_time.as_unit("ns").value) for each in (month, month + 1)]
            for month in pd.period_range(pd.Timestamp(start), pd.Timestamp(end - 1), freq="M")
        ]
        with ThreadPoolExecutor(PARALLEL, thread_name_prefix="fetch") as pool:
            jobs = [pool.submit(self._get_month, kind, month, start, end) for month in months]
            try:
                for job in jobs:
                    for rows, reached in job.result():
                        yield rows, min(reached, end)
            except BaseException:
                self.web.stop.set()
                pool.shutdown(cancel_futures=True)
                raise

    def _get_month(self, kind: str, edges: list[int], start: int, end: int) -> list[Page]:
        first, last = edges
        month = self._get(kind, first, last) if last <= self.now else None
        is_old = month is None and last + RECENT < self.now
        if kind == "funding" or is_old:
            return [] if month is None else [(month, last)]
        found = [] if month is None else [(month, last)]
        held = np.empty(0, np.int64) if month is None else month["time"].to_numpy() // DAY * DAY
        days, counts = np.unique(held, return_counts=True)
        whole = {*days[counts >= DAY // self.request.interval].tolist()}
        for day in range(max(first, start), min(last, end), DAY):
            rows = self._get(kind, day, day + DAY) if day not in whole else None
            if rows is not None and len(rows):
                found.append((rows, last if month is not None else day + DAY))
        return found

    def _get(self, kind: str, start: int, end: int) -> pd.DataFrame | None:
        path = file_path(self.request, kind, start, end)
        where = f"{self.web.base}/{path}"
        for _ in range(ATTEMPTS):
            content = self.web.get(path, LARGEST_ZIP)
            if content is None:
                return None
            digest = hashlib.sha256(content).hexdigest()
            if digest == self._get_checksum(path):
                break
        else:
            raise DataError(f"its SHA-256 is {digest}, its checksum says another ({where})")
        rows = read_archive_rows(content, kind, where)
        self.files[path] = digest
        lead = HOUR if kind == "funding" else 0  # some settlements are stamped before the month
        return rows[(rows["time"] >= start - lead) & (rows["time"] < end)]

    def _get_checksum(self, path: str) -> str:
        noted = self.web.get(f"{path}.CHECKSUM", 4096)
        where = f"{self.web.base}/{path}.CHECKSUM"
        if noted is None:
            raise DataError(f"the archive has no checksum for this file ({where}); try again later")
        match = _CHECKSUM.fullmatch(noted.decode("ascii", errors="replace"))
        if match is None or match[2] != path.rpartition("/")[2]:
            raise DataError(
                f"a checksum must be a SHA-256 and the file's name, got {noted[:100]!r} ({where})"
            )
        return match[1].lower()


def file_path(request: Request, kind: str, start: int, end: int) -> str:
    period, stamp = ("daily", "%Y-%m-%d") if end - start == DAY else ("monthly", "%Y-%m")
    day = pd.Timestamp(start).strftime(stamp)
    folder = f"data/futures/{request.market}/{period}/{_FOLDERS[kind]}/{request.symbol}"
    if kind == "funding":
        return f"{folder}/{request.symbol}-fundingRate-{day}.zip"
    length = format_duration(request.interval)
    return f"{folder}/{length}/{request.symbol}-{length}-{day}.zip"


def read_archive_rows(content: bytes, kind: str, where: str) -> pd.DataFrame:
    """Return the rows of a zip file of the archive, ``time`` in UTC ns."""
    try:
        text = require(unpack(io.BytesIO(content), ".zip", where, LARGEST_TEXT))
        if not re.search(rb"^\d", text, re.MULTILINE):  # empty, or a header alone
            return make_frame(kind, np.empty(0, np.int64), np.empty((0, len(COLUMNS[kind]))))
        frame = rename_columns(require(parse_csv(text, (), where)), kind, {}, where)
    except BROKEN as error:
        raise DataError(str(unreadable(error, where))) from error
    table, defects = read_table([SourceFrame(where, frame)], SCHEMAS[kind], None)
    refuse(defects, where=where)
    if table is None:
        raise AssertionError("no table and no defects")
    unknown = np.full(table.time.size, np.nan)
    columns = [table.columns.get(name, unknown) for name in COLUMNS[kind]]
    return make_frame(kind, table.time, np.stack(columns, axis=1))


def make_frame(kind: str, stamps: Any, values: Any) -> pd.DataFrame:
    frame = pd.DataFrame(values, columns=[*COLUMNS[kind]], dtype=np.float64)
    frame.insert(0, "time", np.asarray(stamps, dtype=np.int64))
    return frame


# ---------------------------------------------------------------------------------------- exchanges


class Exchange(NamedTuple):
    """The pages of one instrument of an exchange, through ccxt, which repeats what may pass."""

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
        limit = offer.limits[kind]
        params: dict[str, Any] = {"price": "mark"} if kind == "mark" else {}
        window = start + limit * interval
        if offer.ends_bars:
            params["until"] = (window - interval) // MILLISECOND
        length, width = format_duration(interval), len(COLUMNS[kind])
        answer = self.client.fetch_ohlcv(self.symbol, length, start // MILLISECOND, limit, params)
        stamps = [row[0] * MILLISECOND for row in answer]
        values = [row[1 : 1 + width] for row in answer]
        rows = make_frame(kind, stamps, np.array(values, dtype=np.float64).reshape(-1, width))
        return rows, int(rows["time"].max()) + interval if len(rows) else min(window, end)

    def _ask_funding(self, kind: str, start: int, end: int) -> Page:
        offer = OFFERS[self.request.source]
        limit = offer.limits[kind]
        until = min(end, start + (limit - 1) * HOUR)
        answer = self.client.fetch_funding_rate_history(
            self.symbol, start // MILLISECOND, limit, {offer.until: until // MILLISECOND}
        )
        stamps, values = [], []
        for entry in answer:
            price = entry.get("info", {}).get(offer.mark) if offer.mark else None
            rate = entry["info"][offer.rate] if offer.rate else entry["fundingRate"]
            stamps.append(entry["timestamp"] * MILLISECOND)
            values.append((float(rate), float(price or "nan") or np.nan))
        rows = make_frame(kind, stamps, np.array(values).reshape(-1, 2))
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
    """Return a client of ccxt."""
    try:
        ccxt = importlib.import_module("ccxt")
    except ModuleNotFoundError as error:
        raise ParameterError(
            "fetching from an exchange needs ccxt, which is not installed; "
            "pip install 'leverage-backtest[fetch]', or source='binance-archive'"
        ) from error
    retries = {"maxRetriesOnFailure": ATTEMPTS - 1, "maxRetriesOnFailureDelay": 1000}
    settings = {"enableRateLimit": True, "timeout": 20_000, "options": retries}
    client = getattr(ccxt, OFFERS[request.source].client)(settings)
    if base_url is not None:
        client.urls["api"] = redirect(client.urls["api"], check_address(base_url))
    return client


def redirect(addresses: Any, base: str) -> Any:
    if isinstance(addresses, Mapping):
        return {name: redirect(value, base) for name, value in addresses.items()}
    return re.sub(r"^https?://[^/]+", lambda _: base, addresses)


def find_symbol(client: Any, request: Request) -> tuple[str, str]:
    """Return the symbol of ccxt and the name of the venue."""
    wanted, source = request.symbol, request.source
    with reading(f"{source}, the list of markets"):
        markets = [*client.load_markets().values()]
    found = [each for each in markets if wanted in (each["symbol"], each["id"])]
    contracts = [each for each in found if each.get("contract") or each.get("swap")] or found
    if not contracts:
        known = [name for each in markets for name in (each["symbol"], each["id"])]
        raise ParameterError(
            f"symbol must be listed at {source}, as the venue or ccxt writes it "
            f"(BTC/USDT:USDT), {wanted!r} is not{did_you_mean(wanted, known)}"
        )
    length = format_duration(request.interval)
    if length not in client.timeframes:
        raise ParameterError(
            f"interval must be a length of bars that {source} offers, "
            f"{', '.join(client.timeframes)}, got {length}"
        )
    return str(contracts[0]["symbol"]), str(contracts[0]["id"])


# --------------------------------------------------------------------------------- into the folder


class Fetched(NamedTuple):
    folder: Path
    facts: Mapping[str, Any]
    is_new: bool


class Store:
    """The folder of a fetch: the rows of each kind, and up to when they are there (``done``)."""

    def __init__(self, folder: Path, request: Request) -> None:
        self.folder, self.partial, self.request = folder, folder / PARTIAL, request
        self.place = self.partial if (self.partial / FACTS).exists() else folder
        self.facts = self._read_facts()
        done = {kind: to_nanoseconds(text, FACTS) for kind, text in self.facts["done"].items()}
        self.is_earlier = bool(done) and request.start < to_nanoseconds(self.facts["from"], FACTS)
        self.done = {} if self.is_earlier else done
        self.start = request.start if not self.done else to_nanoseconds(self.facts["from"], FACTS)
        self.files: dict[str, str] = {} if self.is_earlier else dict(self.facts["files"])
        self.rows: dict[str, pd.DataFrame] = {}
        self._stored = time.monotonic()

    def _read_facts(self) -> dict[str, Any]:
        path, identity = self.place / FACTS, self.request.identity()
        try:
            facts = parse_json(read_small(path), path)
        except FileNotFoundError:
            data = [each for each in self.folder.glob("*") if suffix_of(each) in SUFFIXES]
            if data:
                found = ", ".join(sorted(each.name for each in data)[:4])
                raise DataError(
                    f"a fetch needs a folder of its own, this one holds {found} ({self.folder})"
                ) from None
            return {**identity, "done": {}, "files": {}}
        if not isinstance(facts, dict) or facts.get("format") != FORMAT:
            raise DataError(f"the format of {FACTS} must be {FORMAT} ({path}); use a new folder")
        other = {key: facts.get(key) for key in identity if facts.get(key) != identity[key]}
        if other:
            found = ", ".join(f"{key} {value}" for key, value in other.items())
            wanted = ", ".join(f"{key} {identity[key]}" for key in other)
            raise DataError(
                f"a folder must hold one instrument: this one holds {found}, not {wanted} ({path})"
            )
        for name, expected in facts.get("sha256", {}).items():
            if not (self.folder / name).is_file() or hash_file(self.folder / name) != expected:
                raise DataError(
                    f"files of the fetch were changed or removed ({self.folder / name}); fetch to "
                    f"a new folder, or remove {FACTS} and the data files"
                )
        return facts

    def has_all(self, end: int | None) -> bool:
        kinds = self.request.kinds
        is_finished = self.place == self.folder and "to" in self.facts and not self.is_earlier
        if not is_finished or end is None or not {*kinds} <= {*self.facts["rows"]}:
            return False
        return end <= to_nanoseconds(self.facts["to"], FACTS)

    def open(self, kind: str) -> int:
        """Read the rows of a kind that are there, and return up to when they are whole."""
        done, path = self.done.get(kind), self.place / f"{kind}.parquet"
        none = make_frame(kind, [], np.empty((0, len(COLUMNS[kind]))))
        self.rows[kind] = none
        if done is None or not path.exists():
            return self.start
        try:
            frame = pd.read_parquet(path)
            stamps = pd.DatetimeIndex(frame.pop("time")).as_unit("ns").asi8
            rows = make_frame(kind, stamps, frame[[*COLUMNS[kind]]].to_numpy())
        except (OSError, ValueError, KeyError):  # damaged: fetched again
            return self.start
        self.rows[kind] = rows[rows["time"] < done]
        return done

    def add(self, kind: str, parts: Sequence[pd.DataFrame], reached: int) -> None:
        whole = pd.concat([self.rows[kind], *parts], ignore_index=True)
        self.rows[kind] = whole.drop_duplicates().sort_values("time", kind="stable")
        self.done[kind] = reached

    def is_due(self) -> bool:
        return time.monotonic() - self._stored >= STORE_EVERY

    def write(self, kind: str) -> None:
        """Write a kind, and then up to when it is there: a kill between them loses a page."""
        with replace_file(self.partial / f"{kind}.parquet") as draft:
            write_table(self.to_frame(kind), draft)
        done = {name: format_time(stamp) for name, stamp in self.done.items()}
        facts = {"format": FORMAT, **self.request.identity(), "from": format_time(self.start)}
        text = _to_json({**facts, "done": done, "files": self.files}, 1)
        write_file(self.partial / FACTS, text.encode())
        self._stored = time.monotonic()

    def to_frame(self, kind: str, end: int | None = None) -> pd.DataFrame:
        rows = self.rows[kind]
        kept = rows if end is None else rows[(rows["time"] >= self.start) & (rows["time"] < end)]
        return kept.set_index(utc_index(kept["time"].to_numpy())).drop(columns="time")

    def publish(self, instrument: str, end: int, gaps: Sequence[str]) -> dict[str, Any]:
        frames = {kind: self.to_frame(kind, end) for kind in self.request.kinds}
        length = format_duration(self.request.interval)
        facts = {"instrument": instrument, "interval": length, "synthetic": False}
        facts |= {"sessions": False, "filled": {}}
        if "funding" not in frames or frames["funding"].empty:
            facts["filled"] = {"funding": "none given"}
        for kind in ("funding", "mark"):
            if kind in frames and len(frames[kind]):
                self._put(f"{kind}.parquet", frames[kind])
        self._put("bars.parquet", frames["bars"])
        self._put("market.json", facts)
        names = [f"{kind}.parquet" for kind, frame in frames.items() if len(frame)]
        found = {
            "format": FORMAT,
            **self.request.identity(),
            "instrument": instrument,
            "from": format_time(self.start),
            "to": format_time(end),
            "rows": {kind: len(frame) for kind, frame in frames.items()},
            "gaps": [*gaps],
            "done": {kind: format_time(min(self.done[kind], end)) for kind in frames},
            "files": dict(sorted(self.files.items())),
            "sha256": {name: hash_file(self.folder / name) for name in (*names, "market.json")},
        }
        self._put(FACTS, found)
        clear(self.partial)
        return found

    def _put(self, name: str, content: pd.DataFrame | Mapping[str, Any]) -> None:
        draft = self.partial / f"{DRAFT_FILE}{name}"  # where a kill leaves no draft behind
        if isinstance(content, pd.DataFrame):
            write_table(content, draft)
        else:
            draft.write_text(_to_json(content, 2), encoding="utf-8")
        move_file(draft, self.folder / name)


def _to_json(facts: Mapping[str, Any], indent: int) -> str:
    return json.dumps(facts, indent=indent, ensure_ascii=False) + "\n"


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep other fetches out of a folder; leave none behind if nothing has arrived."""
    partial, is_new = folder / PARTIAL, not folder.exists()
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(hold_lock_file(partial / LOCK))
        except LockHeldError as error:
            raise DataError(
                f"another process ({error.holder}) is already fetching into {folder}; the next "
                "fetch continues from there"
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
    """Remove what a fetch wrote to its folder of parts, and nothing else."""
    for path in partial.glob("*"):
        is_ours = path.name in (LOCK, FACTS) or path.stem in KINDS
        if is_ours or path.name.startswith(DRAFT_FILE):
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # the next process may have begun; or it holds more
        partial.rmdir()


class Progress:
    """How many days are done, a day counted once for each kind."""

    def __init__(
        self, request: Request, until: int, report: Callable[[int, int], None] | None
    ) -> None:
        self.start, self.report = request.start, report
        self.total = (until - request.start) // DAY * len(request.kinds)
        self.done = dict.fromkeys(request.kinds, 0)

    def reach(self, kind: str, time: int) -> None:
        self.done[kind] = max((time - self.start) // DAY, 0)
        if self.report is not None:
            self.report(min(sum(self.done.values()), self.total), self.total)


def fetch_kind(
    store: Store, source: Archive | Exchange, kind: str, until: int, progress: Progress
) -> None:
    start = store.open(kind)
    parts: list[pd.DataFrame] = []
    reached = start
    progress.reach(kind, start)
    try:
        for rows, end in source.pages(kind, start, until) if start < until else ():
            parts.append(rows)
            reached = end if len(rows) else reached
            progress.reach(kind, end)
            if store.is_due():
                store.add(kind, parts, reached)
                store.write(kind)
                parts = []
    finally:  # also of what is stopped
        if parts and reached > start:
            store.add(kind, parts, reached)
            store.write(kind)


def check_rows(store: Store, end: int) -> list[str]:
    """Return what is missing, in words; raise DataError if what is there cannot be right."""
    request, start = store.request, store.start
    frames = {kind: store.to_frame(kind, end) for kind in request.kinds}
    lacking = [kind for kind, frame in frames.items() if frame.empty]
    where = f"{request.source}, {request.symbol}"
    if "bars" in lacking or end <= start:
        found = " and no ".join(lacking) or "whole day"
        raise DataError(
            f"{request.symbol} must have data from {format_time(start)} on, {request.source} has "
            f"no {found} there"
        )
    gaps = [f"{request.source} has no {kind} there; without={lacking}" for kind in lacking]
    for kind in ("bars", "mark"):
        time = store.rows[kind]["time"].to_numpy() if kind in frames else np.empty(0)
        time = time[(time >= start) & (time < end)]
        if time.size and (time[0] > start or time[-1] + request.interval < end):
            found = (
                f"{format_time(int(time[0]))} to {format_time(int(time[-1]) + request.interval)}"
            )
            wanted = f"{format_time(start)} to {format_time(end)}"
            gaps.append(f"{kind} run from {found}, not from {wanted}")
    known: dict[str, Any] = {
        kind: frames[kind] for kind in ("mark", "funding") if kind in frames.keys() - lacking
    }
    length = format_duration(request.interval)
    try:
        Market.from_frames(frames["bars"], interval=length, **known)
    except DataError as error:
        gaps.append(str(error))
    if gaps:
        try:
            funding = known.get("funding")
            options: dict[str, Any] = {"interval": length, "sessions": True}
            Market.from_frames(frames["bars"], funding=funding, funding_gaps="zero", **options)
            if "mark" in known:
                Market.from_frames(known["mark"], **options)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
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
    notice: Callable[[str], None] | None = None,
    client: Any = None,
) -> Fetched:
    """Download a market into a folder that ``Market.load`` reads.

    Parameters
    ----------
    folder : Path
        A new folder, or that of an earlier fetch of the same instrument, which goes on from its
        last stamp.
    request : Request
        What to fetch.
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
    notice : callable, optional
        Called with a text before each retry.
    client : optional
        Of an exchange, in place of one of ccxt.
    """
    today = now // DAY * DAY
    for name, day in (("start", request.start + DAY), ("end", request.end or 0)):
        if day > today:
            raise ParameterError(
                f"{name}: a day is stored when it is over, the last whole one ends at "
                f"{format_time(today)} UTC"
            )
    if base_url is not None:
        check_address(base_url)
    with hold(folder):
        store = Store(folder, request)
        if store.has_all(request.end):
            return Fetched(folder, store.facts, is_new=False)
        until = request.end or today
        progress = Progress(request, until, report)
        with contextlib.ExitStack() as stack:
            if request.source == ARCHIVE:
                web = open_web(base_url, first_wait, notice or (lambda _: None))
                source: Archive | Exchange
                source = Archive(stack.enter_context(web), request, now, store.files)
                instrument = request.symbol
            else:
                client = client or connect_exchange(request, base_url)
                symbol, instrument = find_symbol(client, request)
                source = Exchange(client, request, symbol)
            for kind in request.kinds:
                fetch_kind(store, source, kind, until, progress)
        end = until
        if request.end is None:
            reached = [store.done[kind] for kind in request.kinds if kind in store.done]
            end = min(reached, default=store.start) // DAY * DAY
        gaps = check_rows(store, end)
        if gaps and not accept_gaps:
            raise DataError(
                f"all requested rows must be there, {request.source} lacks some of "
                f"{request.symbol}, nothing was stored; choose another span (what has arrived is "
                "kept), leave a kind out (without=), or accept_gaps=True:\n" + "\n".join(gaps)
            )
        return Fetched(folder, store.publish(instrument, end, gaps), is_new=True)
