"""Downloads into a folder for ``Market.load``, from Binance's archive or an exchange through ccxt.

A fetch goes on from the last stamp that each file has. A file is replaced by one rename, funding
first and bars last: at any moment the folder holds no market, or one that is whole as far as it
goes, or one that ``Market.load`` refuses.

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
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from backtest import core
from backtest.core import DataError, IntArray, ParameterError, format_time
from backtest.core.code_names import pd
from backtest.core.units import DAY, HOUR
from backtest.market import files as f
from backtest.market.fetch_listing import (
    fetch_archive_listing,
    read_exchange_listing,
    save_listing,
)
from backtest.market.fetch_more import CHOICES, Span, fetch_more
from backtest.market.names import LISTING_FILE, rename_columns
from backtest.market.quality import quality
from backtest.market.tables import SCHEMAS, SUMMED, Defects, read_frame

ARCHIVES = {"binance-archive": "um", "binance-archive-coinm": "cm"}
ARCHIVE_URL = "https://data.binance.vision"
"""Source: github.com/binance/binance-public-data, README, "Where do I access it"."""
FOLDERS = {"funding": "fundingRate", "mark": "markPriceKlines", "bars": "klines"}
COLUMNS = {kind: SCHEMAS[kind].known for kind in FOLDERS}
COLUMNS["bars"] += SUMMED[1:]
"""What is stored of each kind; of bars, what klines carry, where the source has it."""
FACTS = "fetch.json"

RECENT = 45 * DAY
"""How long after its end a month may lack a monthly file."""
ATTEMPTS, FIRST_WAIT, MAX_WAIT = 6, 1.0, 60.0
"""How often a file is asked for; seconds before the second time, then twice as many."""
STORE_EVERY = 20.0
"""Seconds after which what has arrived is written."""
MILLISECOND = 1_000_000


class Offer(NamedTuple):
    """The class of ccxt, the most rows of a page by kind, and how the exchange names things.

    ``contracts`` is the place of the volume in contracts in a row of bars as the venue writes it,
    where ccxt reads another one. ``has_costs``: the bars of inverse contracts have it in money.
    """

    client: str
    limits: Mapping[str, int]
    until: str = "until"
    ends_bars: bool = False
    rate: str | None = None
    mark: str | None = None
    contracts: int | None = None
    has_costs: bool = False


_THOUSAND = dict.fromkeys(COLUMNS, 1000)
OFFERS: Mapping[str, Offer] = {
    "binance": Offer("binanceusdm", _THOUSAND, mark="markPrice"),
    "binance-coinm": Offer("binancecoinm", _THOUSAND, mark="markPrice", contracts=5),
    "bybit": Offer("bybit", {"bars": 1000, "mark": 1000, "funding": 200}, contracts=5),
    "okx": Offer("okx", dict.fromkeys(COLUMNS, 100), until="after", contracts=5),
    "hyperliquid": Offer("hyperliquid", {"bars": 5000, "funding": 500}, ends_bars=True),
    "bitmex": Offer("bitmex", {"bars": 500, "funding": 500}),
    # An hour's payment: ccxt's own fundingRate is the sum of eight, at every hour.
    "deribit": Offer("deribit", {"bars": 1000, "funding": 700}, rate="interest_1h", has_costs=True),
}
"""Sources: ccxt 4.5.64, the methods ``fetch_ohlcv`` and ``fetch_funding_rate_history`` of each
exchange and their limits (read 2026-11-20); tests compare the kinds with its ``has``. Volumes:
``parse_ohlcv`` of each, and the venues' pages of candles that it names (read 2026-11-29).
"""

Pages = Callable[[str, int, int], Iterator[tuple[pd.DataFrame, int]]]
"""Of a kind over a span: rows, and the time up to which they are complete (ns)."""


class Request(NamedTuple):
    """One instrument of one source over a span of whole days.

    ``interval`` is the length of a bar in ns, a whole part of a day; ``start`` is the first open,
    ``end`` the midnight before which the last bar opens, both UTC ns; None: as far as the source
    has data. ``kinds`` are some of those of ``COLUMNS``, bars always.
    """

    source: str
    symbol: str
    interval: int
    start: int
    end: int | None
    kinds: tuple[str, ...]
    more: tuple[str, ...] = ()

    @property
    def length(self) -> str:
        return core.format_duration(self.interval)


def read_request(
    symbol: str,
    *,
    start: core.TimeLike,
    end: core.TimeLike | None = None,
    source: str = "binance-archive",
    interval: str = "1m",
    without: Sequence[str] = (),
    with_more: Sequence[str] = (),
) -> Request:
    """Return what to fetch, checked; ParameterError if a source does not have it.

    ``without`` are kinds of data to leave out, ``with_more`` those of Binance's archive to add. A
    fetch begins and ends at midnights of UTC, as archives have a file a day.
    """
    core.Choice(*ARCHIVES, *OFFERS).check("source", source)
    for kind in without:
        core.Choice("funding", "mark").check("without", kind)
    for kind in with_more:
        core.Choice(*CHOICES).check("with", kind)
    if with_more and source not in ARCHIVES:
        raise ParameterError(
            f"with must be left out of an exchange: {', '.join(with_more)} are of Binance's "
            f"archive, got source {source}"
        )

    length = core.parse_duration(interval, "interval")
    first = core.to_nanoseconds(start, "start")
    last = None
    if end is not None:
        last = core.to_nanoseconds(end, "end")
    for name, stamp in (("start", first), ("end", last)):
        if stamp is not None and stamp % DAY:
            raise ParameterError(f"{name} must be a midnight of UTC, got {format_time(stamp)}")
    if DAY % length:
        raise ParameterError(
            f"interval must divide a day, got {core.format_duration(length)}; resample shorter bars"
        )

    kinds = tuple(kind for kind in COLUMNS if kind not in without)
    check_offered(source, symbol, kinds)
    if last is not None and last <= first:
        raise ParameterError(f"end must be after the start, got {format_time(last)}")
    return Request(
        source=source,
        symbol=symbol,
        interval=length,
        start=first,
        end=last,
        kinds=kinds,
        more=tuple(dict.fromkeys(with_more)),
    )


def check_offered(source: str, symbol: str, kinds: Sequence[str]) -> None:
    """Raise ParameterError for a symbol that no archive has, or kinds that a source lacks."""
    offered: Collection[str] = COLUMNS
    if source not in ARCHIVES:
        offered = OFFERS[source].limits
    elif not re.fullmatch(r"[A-Z0-9_]{2,40}", symbol):
        raise ParameterError(
            "symbol must have capital letters, digits and _ only (BTCUSDT, or BTCUSD_PERP of "
            f"binance-archive-coinm), got {symbol!r}"
        )

    lacking = [kind for kind in kinds if kind not in offered]
    if lacking:
        raise ParameterError(
            f"{source} has no history of {' and '.join(lacking)}; without={lacking}, and "
            "liquidations are tested on last prices"
        )


def import_or_refuse(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ParameterError(
            f"this fetch needs {module}, which is not installed; "
            "pip install 'leverage-backtest[fetch]'"
        ) from error


def make_frame(kind: str, stamps: Any, values: Any) -> pd.DataFrame:
    """Return rows of a kind as a frame: ``time``, UTC ns, and its columns of floats."""
    names = COLUMNS[kind]
    numbers = np.array(values, dtype=np.float64).reshape(-1, len(names))
    frame = pd.DataFrame(numbers, columns=[*names])
    frame.insert(0, "time", np.asarray(stamps, dtype=np.int64))
    return frame


PASSING = (408, 418, 425, 429)
"""Statuses of HTTP under 500 after which a later try may succeed: timeouts and limits of rate."""


class PassingError(DataError):
    """A download that failed and may succeed when it is tried again: what failed, and where."""


class Archive(NamedTuple):
    client: Any
    retry_context: Callable[..., Any]
    address: str
    request: Request
    now: int

    def pages(self, kind: str, start: int, end: int) -> Iterator[tuple[pd.DataFrame, int]]:
        """Yield the rows of a kind over a span month by month, and up to when they are complete.

        A month is one file where the archive has that, and its days are files for what the month
        lacks. ``start`` and ``end`` are midnights, all times UTC ns.
        """
        months = pd.period_range(pd.Timestamp(start), pd.Timestamp(end - 1), freq="M")
        for month in months:
            month_start = int(month.start_time.as_unit("ns").value)
            month_end = int((month + 1).start_time.as_unit("ns").value)
            parts = []
            has_ended = month_end <= self.now
            if has_ended:
                whole = self._get(kind, month_start, month_end)
                if whole is not None:
                    parts.append(whole)

            # Days that a month lacks, or a month that has no file yet; funding has no daily files.
            may_lack_days = bool(parts) or month_end + RECENT >= self.now
            if kind != "funding" and may_lack_days:
                first_day = max(month_start, start) // DAY * DAY
                wanted = np.arange(first_day, min(month_end, end), DAY)
                days_there = self._find_whole_days(parts)
                for day in np.setdiff1d(wanted, days_there).tolist():
                    rows = self._get(kind, day, day + DAY)
                    if rows is not None:
                        parts.append(rows)

            if parts:
                yield pd.concat(parts), min(month_end, end)

    def _find_whole_days(self, parts: Sequence[pd.DataFrame]) -> IntArray:
        """Return the days whose bars are all in some rows, as midnights in ns."""
        if not parts:
            return np.empty(0, np.int64)
        days_of_rows = pd.concat(parts)["time"].to_numpy() // DAY
        days, counts = np.unique(days_of_rows, return_counts=True)
        return np.asarray(days[counts >= DAY // self.request.interval] * DAY)

    def _get(self, kind: str, start: int, end: int) -> pd.DataFrame | None:
        """Return the rows in the archive's file of a day or a month; None if there is no such file.

        ``start`` and ``end`` are its first midnight and the one after it, UTC ns.
        """
        url = self._name_file(kind, start, end)
        content = self.download(url)
        if content is None:
            return None

        # Some settlements are stamped before the month of their file.
        earliest = start
        if kind == "funding":
            earliest = start - HOUR
        rows = read_archive_rows(content, kind, url)
        is_inside = (rows["time"] >= earliest) & (rows["time"] < end)
        return rows[is_inside]

    def _name_file(self, kind: str, start: int, end: int) -> str:
        """Return the address of the archive's file of a kind for a day or a month.

        ``start`` and ``end`` are its first midnight and the one after it, UTC ns: a day apart for a
        day.
        """
        day = pd.Timestamp(start)
        period = "monthly"
        date = day.strftime("%Y-%m")
        if end - start == DAY:
            period = "daily"
            date = day.strftime("%Y-%m-%d")

        # Bars have a folder for each length, funding has no lengths.
        symbol = self.request.symbol
        length = self.request.length
        name = f"{length}/{symbol}-{length}-{date}.zip"
        if kind == "funding":
            name = f"{symbol}-{FOLDERS[kind]}-{date}.zip"
        futures = ARCHIVES[self.request.source]
        return f"{self.address}/data/futures/{futures}/{period}/{FOLDERS[kind]}/{symbol}/{name}"

    def download(self, url: str) -> bytes | None:
        """Return a file of the archive, compared with its checksum; None if there is none."""
        waits = {"wait_initial": FIRST_WAIT, "wait_max": MAX_WAIT, "timeout": None}
        try:
            for attempt in self.retry_context(PassingError, attempts=ATTEMPTS, **waits):
                with attempt:
                    content = self._download(url)
        except PassingError as error:
            raise DataError(
                f"the download failed {ATTEMPTS} times: {error}; fetch again later: what has "
                "arrived is kept"
            ) from error
        return content

    def _download(self, url: str) -> bytes | None:
        """Return a file whose checksum agrees, None if the archive has none.

        Raises PassingError for what another try may mend, DataError for what it cannot.
        """
        httpx = import_or_refuse("httpx")
        try:
            answer = self.client.get(url)
            status = answer.status_code
            if status in (404, 410):
                return None

            reason = f"the HTTP status was {status}"
            if status == 200:
                digest = hashlib.sha256(answer.content).hexdigest()
                checksum = self.client.get(f"{url}.CHECKSUM").text.lower()
                if checksum.startswith(digest):
                    return bytes(answer.content)
                reason = f"its SHA-256 {digest} does not match the published checksum"
            elif status not in PASSING and status < 500:
                raise DataError(
                    f"the HTTP status must be 200, got {status} ({url}); some venues refuse "
                    "whole countries, and base_url sets the address of a mirror"
                )
        except httpx.ConnectError as error:
            raise DataError(f"cannot reach the server: {error} ({url})") from error
        except httpx.TransportError as error:
            reason = f"{type(error).__name__}: {error}"
        raise PassingError(f"{reason} ({url})")


def read_archive_rows(content: bytes, kind: str, where: str) -> pd.DataFrame:
    """Return the rows of a zip file of the archive, ``time`` in UTC ns.

    ``kind`` is that of its table, such as bars; a column that the file lacks is NaN.
    """
    with f.reading(where):
        text = f.unpack(io.BytesIO(content), ".zip", where)
        # A file is empty, or a header alone, where no line begins with a digit.
        has_rows = re.search(rb"^\d", text, re.MULTILINE)
        if not has_rows:
            return make_frame(kind, [], [])
        frame = rename_columns(f.parse_csv(text, {}, where), kind, {}, where)

    defects = Defects()
    table = read_frame(frame, SCHEMAS[kind], defects, name=where, timezone=None)
    defects.refuse(where)

    unknown = np.full(table.time.size, np.nan)
    columns = [table.columns.get(name, unknown) for name in COLUMNS[kind]]
    values = np.stack(columns, axis=1)
    return make_frame(kind, table.time, values)


def give_contracts(client: Any, offer: Offer, market: Mapping[str, Any]) -> None:
    """Let a client of ccxt read the volumes of bars in contracts, in place of coins.

    Replaces methods of the client, which its ``fetch_ohlcv`` calls. ``market`` is one of ccxt.
    """
    # Where ccxt reads coins: the row of the venue has contracts at another place.
    if offer.contracts is not None:
        parse = client.parse_ohlcv

        def parse_contracts(row: Any, market: Any = None) -> list[Any]:
            """Return stamp and prices as ccxt reads them, and the volume in contracts."""
            return [*parse(row, market)[:5], client.safe_number(row, offer.contracts)]

        client.parse_ohlcv = parse_contracts

    # Where the venue writes inverse volumes in money: contracts are that over their size.
    if offer.has_costs and market.get("inverse"):
        convert = client.convert_trading_view_to_ohlcv
        size = float(market["contractSize"])

        def convert_costs(chart: Mapping[str, Any], *names: Any) -> Any:
            """Convert a chart whose volume is put in contracts first."""
            contracts = [float(cost) / size for cost in chart.get("cost", ())]
            return convert({**chart, "volume": contracts}, *names)

        client.convert_trading_view_to_ohlcv = convert_costs


class Exchange(NamedTuple):
    client: Any
    request: Request
    symbol: str

    def pages(self, kind: str, start: int, end: int) -> Iterator[tuple[pd.DataFrame, int]]:
        """Yield the rows of a kind over a span page by page, and up to when they are complete.

        An exchange answers a limited number of rows at a time. ``start`` and ``end`` are UTC ns.
        """
        ask = self._ask_bars
        if kind == "funding":
            ask = self._ask_funding

        while start < end:
            where = f"{self.request.source}, {kind} from {format_time(start)}"
            with reading(where):
                rows, reached = ask(kind, start, end)

            # The same page again and again, of an exchange that ignores the time.
            if len(rows) and rows["time"].max() < start:
                raise DataError(
                    f"the page ended at {format_time(int(rows['time'].max()))}, before the "
                    f"requested time ({where}; give end= if the instrument is no longer traded)"
                )

            is_inside = (rows["time"] >= start) & (rows["time"] < end)
            yield rows[is_inside], min(reached, end)
            start = reached

    def _ask_bars(self, kind: str, start: int, end: int) -> tuple[pd.DataFrame, int]:
        """Return a page of bars or mark bars from a time on, and up to when it is complete.

        Times are in UTC ns; exchanges have milliseconds. An empty page is complete up to the end of
        what was asked for.
        """
        offer = OFFERS[self.request.source]
        interval = self.request.interval
        limit = offer.limits[kind]
        window = start + limit * interval
        params: dict[str, Any] = {}
        if kind == "mark":
            params["price"] = "mark"
        if offer.ends_bars:
            params["until"] = (window - interval) // MILLISECOND
        answer = self.client.fetch_ohlcv(
            self.symbol, self.request.length, start // MILLISECOND, limit, params
        )

        # What klines of the archive carry besides is not in a row of ccxt.
        width = len(SCHEMAS[kind].known)
        lacking = [np.nan] * (len(COLUMNS[kind]) - width)
        stamps = []
        values = []
        for stamp, *numbers in answer:
            stamps.append(stamp * MILLISECOND)
            values.append([*numbers[:width], *lacking])
        rows = make_frame(kind, stamps, values)

        if not len(rows):
            return rows, min(window, end)
        return rows, int(rows["time"].max()) + interval

    def _ask_funding(self, kind: str, start: int, end: int) -> tuple[pd.DataFrame, int]:
        """Return a page of settlements from a time on, and up to when it is complete.

        Times are in UTC ns. A page has at most ``limit`` rows, and venues settle every hour at
        most: so a page is asked for as many hours, and is whole.
        """
        offer = OFFERS[self.request.source]
        limit = offer.limits[kind]
        until = min(end, start + (limit - 1) * HOUR)
        params = {offer.until: until // MILLISECOND}
        answer = self.client.fetch_funding_rate_history(
            self.symbol, start // MILLISECOND, limit, params
        )

        stamps = []
        values = []
        for entry in answer:
            # Where ccxt drops a field, the exchange's own answer, ``info``, has it.
            rate = entry["info"][offer.rate] if offer.rate else entry["fundingRate"]
            price = None
            if offer.mark:
                price = entry.get("info", {}).get(offer.mark)

            # Exchanges write 0, or an empty text, for a mark that they do not know.
            mark = float(price or "nan") or np.nan
            stamps.append(entry["timestamp"] * MILLISECOND)
            values.append((float(rate), mark))
        rows = make_frame(kind, stamps, values)
        return rows[rows["time"] < until], until


@contextlib.contextmanager
def reading(where: str) -> Iterator[None]:
    """Say of whatever ccxt raises where it was raised."""
    try:
        yield
    except Exception as error:
        raise DataError(
            f"the exchange failed or refused, or its response cannot be read, "
            f"{type(error).__name__}: {str(error)[:200]} ({where}); fetch again later: what has "
            "arrived is kept; some venues refuse whole countries"
        ) from error


class Fetched(NamedTuple):
    folder: Path
    facts: Mapping[str, Any]
    is_new: bool


def read_facts(folder: Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an earlier fetch noted in a folder, nothing in a new one.

    ``wanted`` is what the folder must be of: source, symbol and interval. Raises DataError if it is
    of something else, or holds data that no fetch has noted.
    """
    path = folder / FACTS
    if not path.exists():
        data = [file.name for file in folder.glob("*") if f.suffix_of(file) in f.SUFFIXES]
        if data:
            shown = ", ".join(sorted(data)[:4])
            raise DataError(f"a fetch needs a folder of its own, this one holds {shown} ({folder})")
        return {}

    known = core.parse_json(core.read_small(path), path)
    if not isinstance(known, dict) or not isinstance(known.get("from"), str):
        known = {}
    held = []
    asked = []
    for name, value in wanted.items():
        if known.get(name) != value:
            held.append(f"{name} {known.get(name)}")
            asked.append(f"{name} {value}")
    if held:
        raise DataError(
            f"a folder must hold one instrument: this one holds {', '.join(held)}, not "
            f"{', '.join(asked)} ({path})"
        )
    return known


def fetch_market(
    folder: Path,
    request: Request,
    *,
    now: int,
    base_url: str | None = None,
    report: Callable[[int, int], None] | None = None,
    notice: Callable[[str], None] = lambda _: None,
    client: Any = None,
) -> Fetched:
    """Download a market into a new folder, or go on from the last stamps of an earlier fetch.

    Days that are not over at ``now`` (UTC ns) are not stored. ``base_url`` is a mirror of the
    archive. ``report`` gets the days done and in all, once per kind of data, ``notice`` a text
    before a retry. ``client`` stands in for one of ccxt.
    """
    today = now // DAY * DAY
    is_archive = request.source in ARCHIVES
    if max(request.start + DAY, request.end or 0) > today:
        raise ParameterError(
            f"a day is stored when it is over, the last whole one ends at {format_time(today)} UTC"
        )
    if base_url and not (is_archive and base_url.startswith(("http://", "https://"))):
        raise ParameterError(
            f"base_url must begin with http:// or https://, and is of the archive, got {base_url!r}"
        )

    # What an earlier fetch of the same left in the folder. It goes on from where that began.
    start = request.start
    identity = {"source": request.source, "symbol": request.symbol, "interval": request.length}
    known = read_facts(folder, identity)
    if known:
        start = core.to_nanoseconds(known["from"], FACTS)
        if request.start < start:
            raise ParameterError(
                f"start must be {known['from']} or later in a folder that begins there, got "
                f"{format_time(request.start)}; fetch earlier data into a new folder"
            )
        if has_all(folder, request, known):
            return Fetched(folder, known, is_new=False)

    facts = {**identity, "instrument": request.symbol, "from": format_time(start)}
    span = (start, request.end or today)
    if is_archive:
        return fetch_from_archive(folder, request, facts, span, now, base_url, report, notice)
    return fetch_from_exchange(folder, request, facts, span, now, report, client)


def has_all(folder: Path, request: Request, facts: Mapping[str, Any]) -> bool:
    """Return whether a folder has the whole span of a request, without gaps.

    ``facts`` are what the fetch that made it has noted. A request without an end never has all: the
    source may have new days.
    """
    # More data may lack days of what is asked for now; without a listing a fetch was stopped.
    if request.more or "listing" not in facts or facts.get("gaps", True):
        return False
    if not {*request.kinds} <= {*facts.get("rows", ())}:
        return False
    if not all((folder / f"{kind}.parquet").exists() for kind in request.kinds):
        return False
    return bool(request.end and format_time(request.end) <= facts["to"])


def open_client(source: str) -> Any:
    """Return a client of ccxt for an exchange, which waits between calls and tries again."""
    ccxt = import_or_refuse("ccxt")
    name = OFFERS[source].client
    exchange = getattr(ccxt, name, None)
    if exchange is None:
        raise ParameterError(
            f"source must be an exchange of the installed ccxt, {ccxt.__version__} has no "
            f"{name}; pip install ccxt==4.5.64, which has it"
        )
    retries = {"maxRetriesOnFailure": ATTEMPTS - 1, "maxRetriesOnFailureDelay": 1000}
    return exchange({"enableRateLimit": True, "timeout": 20_000, "options": retries})


def find_market(client: Any, request: Request) -> Any:
    """Return the market of ccxt that a request names; raise ParameterError if there is none."""
    source = request.source
    wanted = request.symbol
    with reading(f"{source}, the list of markets"):
        markets = [*client.load_markets().values()]

    names = []
    candidates = []
    for market in markets:
        names += [market["symbol"], market["id"]]
        if wanted in (market["symbol"], market["id"]):
            candidates.append(market)
    if not candidates:
        raise ParameterError(
            f"symbol must be listed at {source}, as the venue or ccxt writes it "
            f"(BTC/USDT:USDT), {wanted!r} is not{core.did_you_mean(wanted, names)}"
        )
    if request.length not in client.timeframes:
        raise ParameterError(
            f"interval must be a length of bars that {source} offers, "
            f"{', '.join(client.timeframes)}, got {request.length}"
        )

    # A spot market may have the id of the contract.
    return max(candidates, key=lambda market: bool(market.get("contract") or market.get("swap")))


def fetch_from_exchange(
    folder: Path,
    request: Request,
    facts: dict[str, Any],
    span: tuple[int, int],
    now: int,
    report: Callable[[int, int], None] | None,
    client: Any,
) -> Fetched:
    """Fetch the days of a span from an exchange through ccxt into a folder, and its listing.

    ``span`` is the first midnight and the one after the last day, ``now`` the time of the fetch,
    all in UTC ns. ``facts`` are what is noted in the folder: the exchange's own name of the
    instrument is written into them. ``report`` is that of :func:`fetch_market`, ``client`` one of
    ccxt, opened here if it is None.
    """
    source = request.source
    if client is None:
        client = open_client(source)
    market = find_market(client, request)
    facts["instrument"] = str(market["id"])

    # Volumes in contracts, which the client must know before it reads any bars.
    give_contracts(client, OFFERS[source], market)
    pages = Exchange(client, request, str(market["symbol"])).pages
    fetched = fetch_kinds(folder, request, facts, pages, *span, report)
    return add_listing(fetched, partial(read_exchange_listing, client, source, market, now))


def fetch_from_archive(
    folder: Path,
    request: Request,
    facts: dict[str, Any],
    span: tuple[int, int],
    now: int,
    base_url: str | None,
    report: Callable[[int, int], None] | None,
    notice: Callable[[str], None],
) -> Fetched:
    """Fetch the days of a span from Binance's archive into a folder, and its listing.

    ``span`` is the first midnight and the one after the last day, ``now`` the time of the fetch,
    all in UTC ns. ``facts`` are what is noted in the folder. ``base_url`` is the address of a
    mirror, None for the archive itself. ``report`` and ``notice`` are those of
    :func:`fetch_market`. Whatever happens, the retry hooks of the caller are put back.
    """
    address = (base_url or ARCHIVE_URL).rstrip("/")
    stamina = import_or_refuse("stamina")

    def announce(retry: Any) -> None:
        """Tell the user of a retry: why, and how long it waits."""
        notice(f"{retry.caused_by}; retrying in {retry.wait_for:.1f} s")

    # stamina calls its hooks before each retry. They are those of the whole process, so others that
    # stand there, of a caller who retries other things, are put back.
    hooks = stamina.instrumentation
    hooks_before = hooks.get_on_retry_hooks()
    hooks.set_on_retry_hooks([announce])
    try:
        with import_or_refuse("httpx").Client(timeout=20.0) as web:
            archive = Archive(web, stamina.retry_context, address, request, now)
            fetched = fetch_kinds(folder, request, facts, archive.pages, *span, report)
            fetched = add_more(fetched, request, archive)

            listing = partial(
                fetch_archive_listing,
                web,
                request.source,
                request.symbol,
                base_url=base_url,
                now=now,
            )
            return add_listing(fetched, listing)
    finally:
        hooks.set_on_retry_hooks(hooks_before)


def add_more(fetched: Fetched, request: Request, archive: Archive) -> Fetched:
    """Fetch what was asked for beside the bars, and note how many bars lack it.

    Writes columns into the file of bars, and ``missing``, the bars without a value by column, into
    the facts of the folder.
    """
    if not request.more:
        return fetched

    facts = dict(fetched.facts)
    missing: dict[str, Any] = {}
    kinds = [kind for kind in request.more if kind != "taker"]
    if kinds:
        first = core.to_nanoseconds(facts["from"], FACTS)
        last = core.to_nanoseconds(facts["to"], FACTS)
        missing = fetch_more(
            fetched.folder,
            kinds,
            base=f"{archive.address}/data/futures/{ARCHIVES[request.source]}",
            symbol=request.symbol,
            interval=request.interval,
            # Whole days: down to a midnight, and up to one.
            span=Span(first // DAY * DAY, -(-last // DAY) * DAY),
            download=archive.download,
        )

    # The bars have it already, where the archive does.
    if "taker" in request.more:
        bars = pd.read_parquet(fetched.folder / "bars.parquet")
        missing["taker_buy_volume"] = len(bars)
        if "taker_buy_volume" in bars:
            missing["taker_buy_volume"] = int(bars["taker_buy_volume"].isna().sum())

    facts["missing"] = missing
    write_json(fetched.folder / FACTS, facts)
    return fetched._replace(facts=facts)


def add_listing(fetched: Fetched, ask: Callable[[], Mapping[str, Any]]) -> Fetched:
    """Save what the venue lists today beside the bars; note in the facts what came of it.

    ``ask`` gets the listing. One that cannot be had is noted, and never stops a fetch.
    """
    try:
        listing = ask()
    except DataError as error:
        noted = f"none: {error}"
    else:
        save_listing(fetched.folder, listing)
        noted = f"{LISTING_FILE} of {listing['time']}, {listing['source']}"

    facts = {**fetched.facts, "listing": noted}
    write_json(fetched.folder / FACTS, facts)
    return fetched._replace(facts=facts)


def fetch_kinds(
    folder: Path,
    request: Request,
    facts: dict[str, Any],
    pages: Pages,
    start: int,
    until: int,
    report: Callable[[int, int], None] | None,
) -> Fetched:
    """Fetch the kinds of data of a request one after the other, bars last, and note what there is.

    ``pages`` yields the rows of a kind over a span. ``start`` and ``until`` are midnights, UTC ns.
    ``facts`` get the last time, the rows of each kind and the gaps, and are written into the
    folder. ``report`` gets the days done and in all. Raises DataError if there are no bars.
    """
    days = max((until - start) // DAY, 1)
    counts: dict[str, int] = {}
    rows = make_frame("bars", [], [])
    for number, kind in enumerate(request.kinds):
        report_days = partial(
            report_reached, report, start, number * days, len(request.kinds) * days
        )
        rows, reached = fetch_kind(
            folder, request, kind, facts, pages, start=start, until=until, report_days=report_days
        )
        counts[kind] = len(rows)
        # Without an end, all kinds are fetched as far as the one that ends first.
        if request.end is None and counts[kind]:
            until = min(until, reached // DAY * DAY)

    lacking = [kind for kind, count in counts.items() if not count]
    if "bars" in lacking:
        raise DataError(
            f"{request.symbol} must have data from {format_time(start)} on, {request.source} has "
            f"no {' and no '.join(lacking)} there"
        )

    first = int(rows["time"].min())
    last = int(rows["time"].max()) + request.interval
    gaps = [f"{request.source} has no {kind} there" for kind in lacking]
    if first > start or last < until:
        gaps.append(f"bars run from {format_time(first)} to {format_time(last)}")
    gaps += quality(folder, interval=request.length).defects
    facts |= {"to": format_time(last), "rows": counts, "gaps": gaps}
    write_json(folder / FACTS, facts)
    return Fetched(folder, facts, is_new=True)


def report_reached(
    report: Callable[[int, int], None] | None, start: int, days_before: int, days: int, end: int
) -> None:
    """Report the days up to a time, after those of the kinds before."""
    done = days_before + (end - start) // DAY
    core.report_progress(report, done, days)


def fetch_kind(
    folder: Path,
    request: Request,
    kind: str,
    facts: Mapping[str, Any],
    pages: Pages,
    *,
    start: int,
    until: int,
    report_days: Callable[[int], None],
) -> tuple[pd.DataFrame, int]:
    """Fetch the rows of a kind that the folder lacks; return all of them, and how far they reach.

    All times are in UTC ns. ``pages`` yields rows, and the time up to which they are complete.
    What has arrived is stored every few seconds, and when the fetch is stopped: the next one goes
    on after the last row.
    """
    # What the folder has stands first; pages that arrive follow it.
    parts = [read_rows(folder, kind)]
    step = request.interval
    if kind == "funding":
        step = MILLISECOND
    begin = start
    if len(parts[0]):
        begin = int(parts[0]["time"].max()) + step

    reached = begin
    stored_at = time.monotonic()
    try:
        if begin < until:
            for page, end in pages(kind, begin, until):
                is_inside = (page["time"] >= start) & (page["time"] < until)
                parts.append(page[is_inside])
                if len(parts[-1]):
                    reached = end
                report_days(end)

                if time.monotonic() - stored_at >= STORE_EVERY:
                    parts = [store(folder, kind, parts, facts)]
                    stored_at = time.monotonic()
    finally:
        rows = parts[0]
        if any(map(len, parts[1:])):
            rows = store(folder, kind, parts, facts)
    return rows, max(reached, begin)


def read_rows(folder: Path, kind: str) -> pd.DataFrame:
    """Return the rows of a kind that a folder has from an earlier fetch; none if they are damaged.

    Columns that the file lacks are NaN.
    """
    try:
        frame = pd.read_parquet(folder / f"{kind}.parquet")
        stamps = pd.DatetimeIndex(frame.pop("time")).as_unit("ns").asi8

        # A file that lacks a column that is needed is damaged; one of the others may lack.
        needed = frame[[*SCHEMAS[kind].known]]
        rows = needed.assign(**frame).reindex(columns=COLUMNS[kind])
        return make_frame(kind, stamps, rows)
    except (OSError, ValueError, KeyError):  # not there, or damaged: fetched again
        return make_frame(kind, [], [])


def store(
    folder: Path, kind: str, parts: Sequence[pd.DataFrame], facts: Mapping[str, Any]
) -> pd.DataFrame:
    """Write the rows of a kind into the folder, each once and in order of time, and return them.

    ``parts`` are what was there and what has arrived since. The folder is created if needed;
    ``facts`` are written beside the rows. Each file is replaced by one rename.
    """
    rows = pd.concat(parts, ignore_index=True).drop_duplicates()
    rows = rows.sort_values("time", kind="stable")

    # Columns that the venue never filled are left out of the file.
    times = core.utc_index(rows["time"].to_numpy())
    frame = rows.set_index(times).drop(columns="time")
    for name in SUMMED[1:]:
        if name in frame and frame[name].isna().all():
            frame = frame.drop(columns=name)

    market = {"instrument": facts["instrument"], "interval": facts["interval"]}
    with core.writing(folder, "fetch"):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "market.json", market)
        write_json(folder / FACTS, facts)
        with core.replace_file(folder / f"{kind}.parquet") as draft:
            f.write_table(frame, draft)
    return rows


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    with core.replace_file(path) as draft:
        core.write_json_file(content, draft)
