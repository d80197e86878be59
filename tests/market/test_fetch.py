"""Fetching from a replayed archive and from exchanges: what arrives, what is kept and refused."""

import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import pytest

import backtest as bt
from backtest import DataError
from backtest.core import to_nanoseconds
from backtest.core.units import HOUR
from backtest.market import fetch as module
from backtest.market.fetch import OFFERS, fetch_market, read_archive_rows, read_request
from tests.kills import count_steps, die_at
from tests.kit import check_refused, read_files, slow
from tests.layouts import zip_text
from tests.replay import HEADER, Replay, epoch, kline_text, klines, settlements

NOW = to_nanoseconds("2024-03-20T15:00")
FEBRUARY = klines(epoch("2024-02-01"), epoch("2024-03-01"), 3_600_000)
BINANCE_MARKET = {
    "symbol": "BTCUSDT", "pair": "BTCUSDT", "contractType": "PERPETUAL", "status": "TRADING",
    "deliveryDate": 4133404800000, "onboardDate": 1569398400000, "baseAsset": "BTC",
    "quoteAsset": "USDT", "marginAsset": "USDT", "pricePrecision": 2, "quantityPrecision": 3,
    "filters": [],
}  # fmt: skip
START = "2024-01-01"
END = "2024-01-21"
NO_CCXT = "ccxt is not installed: pip install 'leverage-backtest[fetch]'"
pytest.importorskip("httpx", reason="downloads need httpx: pip install 'leverage-backtest[fetch]'")
stamina = pytest.importorskip("stamina", reason="downloads need stamina, of the same extra")


@pytest.fixture(autouse=True)
def no_waits() -> Iterator[None]:
    stamina.set_testing(True, attempts=module.ATTEMPTS)
    yield
    stamina.set_testing(False)


@pytest.fixture(scope="module")
def quarter() -> Replay:
    """January and February by the month, March by the day; funding by the month only."""
    days = [f"2024-03-{day:02d}" for day in range(1, 20)]
    return Replay().publish("2024-01", "2024-02", *days)


@pytest.fixture
def server(quarter: Replay) -> Iterator[Replay]:
    replay = Replay()
    replay.files = dict(quarter.files)
    with replay.serve():
        yield replay


@pytest.fixture(scope="module")
def calm(quarter: Replay, tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("calm") / "btc"
    with quarter.serve():
        fetch(folder, quarter)
    return read_files(folder)


def fetch(folder: Path, server: Replay, start="2024-01-01", end="2024-03-01", **how):
    options = {"symbol": "BTCUSDT", "interval": "1h"} | how
    request = read_request(options.pop("symbol"), start=start, end=end, **options)
    return fetch_market(folder, request, now=NOW, base_url=server.url)


def test_a_fetch_is_a_market_with_every_row_of_the_venue(tmp_path, server):
    fetched = fetch(tmp_path / "btc", server)

    # 31 + 29 days of 24 hours, three settlements a day
    assert fetched.facts["rows"] == {"bars": 1440, "mark": 1440, "funding": 180}
    assert fetched.facts["gaps"] == []

    market = bt.Market.load(tmp_path / "btc")
    rows = klines(epoch("2024-01-01"), epoch("2024-03-01"), server.length)
    assert market.instrument == "BTCUSDT"
    assert market.interval == HOUR
    assert dict(market.filled) == {}
    assert market.end == to_nanoseconds("2024-03-01")

    np.testing.assert_array_equal(market.close, np.round(rows[:, 4], 2))
    np.testing.assert_array_equal(market.volume, np.round(rows[:, 5], 3))
    np.testing.assert_array_equal(market.mark_close - market.close, np.full(1440, 3.0).round(2))

    columns = {name: {*values} for name, values in market.columns.items()}
    assert columns == {"quote_volume": {0.0}, "trades": {1.0}, "taker_buy_volume": {0.0}}

    stamps = settlements(epoch("2024-01-01"), epoch("2024-03-01"))
    np.testing.assert_array_equal(market.funding_time, stamps[:, 0].astype(int) * 10**6)
    np.testing.assert_array_equal(market.funding_rate, stamps[:, 1])


def test_nothing_but_what_was_asked_for_is_stored(tmp_path, server):
    fetch(tmp_path / "btc", server, "2024-01-10", "2024-02-05", without=("mark",))

    market = bt.Market.load(tmp_path / "btc")
    assert market.start == to_nanoseconds("2024-01-10")
    assert market.end == to_nanoseconds("2024-02-05")
    assert market.funding_time.size == 26 * 3
    assert not market.has_mark
    assert not any("markPrice" in path for path in server.asked)


def test_without_an_end_a_fetch_goes_as_far_as_all_kinds_reach(tmp_path, server):
    """A month that is not over is taken by the day."""
    whole = fetch(tmp_path / "all", server, end=None)
    assert whole.facts["to"] == "2024-03-01"

    bars = fetch(tmp_path / "bars", server, "2024-02-20", end=None, without=("funding",))
    assert bars.facts["to"] == "2024-03-20"
    assert server.asked[server.path("bars", "2024-03-05")] == 1
    assert not any("-2024-03.zip" in path for path in server.asked)


def test_days_that_a_month_lacks_come_from_their_own_files(tmp_path, server, calm):
    """As of BTCUSDT in 2022: binance-public-data, issue 346."""
    opened = FEBRUARY[:, 0]
    lacking = FEBRUARY[(opened < epoch("2024-02-16")) | (opened >= epoch("2024-02-18"))]
    server.put("bars", "2024-02", kline_text(lacking, server.length))
    for day in ("2024-02-16", "2024-02-17"):
        server.put("bars", day, server.text("bars", day))

    fetch(tmp_path / "mended", server)

    assert read_files(tmp_path / "mended") == calm


@pytest.mark.parametrize("change", ["microseconds", "no header", "order", "spelling", "twice"])
def test_a_file_may_be_written_otherwise(tmp_path, server, calm, change):
    text = server.text("bars", "2024-02", header=change != "no header")
    if change == "microseconds":
        text = server.text("bars", "2024-02", factor=1000)
    if change == "order":
        cells = [line.split(",") for line in text.decode().splitlines()]
        text = "\n".join(",".join(row[::-1]) for row in cells).encode()
    if change == "spelling":
        text = text.replace(b"open_time", b"Open Time", 1)
    if change == "twice":
        text = kline_text(np.concatenate([FEBRUARY[:50], FEBRUARY[20:]]), server.length)

    server.put("bars", "2024-02", text)
    fetch(tmp_path / "after", server)

    assert read_files(tmp_path / "after") == calm


def test_what_is_missing_or_wrong_is_listed_and_refused_when_loaded(tmp_path, server):
    low = FEBRUARY.copy()
    low[7, 2] = 1.0
    opened = FEBRUARY[:, 0]
    kept = (opened < epoch("2024-02-05")) | (opened >= epoch("2024-02-05T03:00"))

    for rows, words in (
        (low, "high must be at least open and close"),
        (FEBRUARY[kept], "3 missing in 1 gap (bars.parquet, first gap from 2024-02-05 to"),
        (FEBRUARY[:48], "bars run from 2024-01-01 to 2024-02-03"),
    ):
        server.put("bars", "2024-02", kline_text(rows, server.length))
        fetched = fetch(tmp_path / words[:4], server)
        assert words in " ".join(fetched.facts["gaps"])

    check_refused(lambda: bt.Market.load(tmp_path / "high"), "high must be at least", DataError)


@pytest.mark.parametrize(("coin", "place"), [("", "um"), ("-coinm", "cm")])
def test_what_no_archive_has_is_said_so_and_leaves_nothing(tmp_path, server, coin, place):
    source = f"binance-archive{coin}"
    words = "has no funding and no mark and no bars there"

    check_refused(lambda: fetch(tmp_path / "btc", server, symbol="NOPE", source=source), words)
    assert all(f"/futures/{place}/" in path for path in server.asked)
    assert not (tmp_path / "btc").exists()


def test_a_longer_fetch_asks_for_what_is_new_only_and_equals_a_fresh_one(tmp_path, server):
    fetch(tmp_path / "btc", server, "2024-01-10", "2024-02-01")

    server.asked.clear()
    assert not fetch(tmp_path / "btc", server, "2024-01-10", "2024-01-20").is_new
    assert not server.asked

    fetch(tmp_path / "btc", server, "2024-01-10", "2024-03-01")
    assert not any("lines/BTCUSDT/1h/BTCUSDT-1h-2024-01" in path for path in server.asked)

    fetch(tmp_path / "fresh", server, "2024-01-10", "2024-03-01")
    kept = read_files(tmp_path / "btc")
    assert kept == read_files(tmp_path / "fresh")

    earlier = "start must be 2024-01-10 or later in a folder that begins there, got 2024-01-01"
    check_refused(lambda: fetch(tmp_path / "btc", server, "2024-01-01"), earlier)
    assert read_files(tmp_path / "btc") == kept


def test_what_lacked_a_kind_is_asked_for_again(tmp_path, server):
    february = server.path("mark", "2024-02")
    lost = server.files.pop(february)
    assert fetch(tmp_path / "btc", server).facts["gaps"]

    server.files[february] = lost
    again = fetch(tmp_path / "btc", server)
    assert again.is_new
    assert again.facts["gaps"] == []


def test_a_folder_of_something_else_is_left_alone(tmp_path, server):
    bt.Market.sample(bars=48).save(tmp_path / "mine")
    before = read_files(tmp_path / "mine")

    check_refused(lambda: fetch(tmp_path / "mine", server), "needs a folder of its own", DataError)
    assert read_files(tmp_path / "mine") == before

    fetch(tmp_path / "btc", server)
    for how, words in (
        ({"symbol": "ETHUSDT"}, "this one holds symbol BTCUSDT, not symbol ETHUSDT"),
        ({"interval": "8h"}, "this one holds interval 1h, not interval 8h"),
    ):
        check_refused(lambda how=how: fetch(tmp_path / "btc", server, **how), words)

    for text in ("{}", "[]", '{"source": 1}', "{"):
        (tmp_path / "btc" / "fetch.json").write_text(text)
        check_refused(lambda: fetch(tmp_path / "btc", server), "fetch.json", DataError)

    (tmp_path / "file").write_text("")
    check_refused(lambda: fetch(tmp_path / "file" / "btc", server), "cannot write the fetch")


@pytest.mark.slow
def test_killed_at_any_step_on_the_disk_the_next_fetch_goes_on(tmp_path, server, monkeypatch):
    """The step of each file that is written, moved or removed is the last one once."""
    monkeypatch.setattr(module, "STORE_EVERY", 0.0)
    span = ("2024-01-10", "2024-03-01")

    fetch(tmp_path / "after", server, *span)
    steps = count_steps(lambda: fetch(tmp_path / "whole", server, *span))
    assert steps > 20

    for step in range(0, steps, 3):
        folder = tmp_path / f"at-{step}"
        ended = die_at(step, lambda folder=folder: fetch(folder, server, *span))
        assert ended == -signal.SIGKILL

        fetch(folder, server, *span)
        kept = {name: x for name, x in read_files(folder).items() if ".new-" not in name}
        assert kept == read_files(tmp_path / "after")


@pytest.mark.parametrize("fault", ["429:0", "500", "truncated", "garbage"])
def test_a_failure_that_passes_changes_nothing(tmp_path, server, calm, fault):
    for kind in ("bars", "funding"):
        server.faults[server.path(kind, "2024-02")] = [fault, fault]

    fetch(tmp_path / "rough", server)
    assert read_files(tmp_path / "rough") == calm


@pytest.mark.parametrize(("fault", "said", "count"), [
    ("500", "the HTTP status was 500", 6), ("truncated", "RemoteProtocolError", 6),
    ("garbage", "does not match the published", 6), ("403", "got 403", 1),
])  # fmt: skip
def test_a_lasting_failure_is_told_and_the_rest_is_kept(tmp_path, server, calm, fault, said, count):
    path = server.path("bars", "2024-02")
    server.faults[path] = [fault] * 99

    with pytest.raises(DataError, match=said) as caught:
        fetch(tmp_path / "btc", server)

    assert "2024-02" in str(caught.value)
    assert server.asked[path] == count

    server.faults.clear()
    server.asked.clear()
    fetch(tmp_path / "btc", server)
    assert not any("klines/BTCUSDT/1h/BTCUSDT-1h-2024-01.zip" in path for path in server.asked)
    assert read_files(tmp_path / "btc") == calm


def test_a_server_that_is_not_there_is_said_so_at_once(tmp_path):
    away = Replay()
    away.url = "http://127.0.0.1:9"

    check_refused(lambda: fetch(tmp_path / "btc", away), "cannot reach the server", DataError)
    assert not (tmp_path / "btc").exists()


@pytest.mark.parametrize(("text", "said"), [
    ("1704067200000,1,2,0.5", "every line must have 12 cells, as line 1 has, line 2 could not"),
    ("1704067200000,1,2,0.5,=1+1,3,0,0,0,0,0,0", "close must be numbers, got '=1+1'"),
    ("17,1,2,0.5,1,3,0,0,0,0,0,0", "epoch"),
])  # fmt: skip
def test_a_file_that_cannot_be_read_is_refused(tmp_path, text, said):
    path = tmp_path / "a.zip"
    zip_text(path, "a.csv", f"{HEADER}\n{text}\n")

    check_refused(lambda: read_archive_rows(path.read_bytes(), "bars", "test"), said, DataError)


class BaseError(Exception):
    """What ccxt raises is a kind of this."""


class Fake:
    """An exchange with the methods of ccxt; ``faults`` are met one after the other."""

    timeframes: Mapping[str, Any] = {"1h": "1h", "8h": "8h"}

    def __init__(self, *faults: object) -> None:
        self.faults = [*faults]
        self.calls: list[tuple[str, int]] = []

    def parse_ohlcv(self, row, market=None):
        return row

    def load_markets(self) -> dict[str, dict[str, Any]]:
        spot = {"id": "BTCUSDT", "symbol": "BTC/USDT", "contract": False}
        swap = {"id": "BTCUSDT", "symbol": "BTC/USDT:USDT", "contract": True}
        return {market["symbol"]: market for market in (spot, swap)}

    def meet(self, kind: str, since: int, page: list[Any]) -> list[Any]:
        self.calls.append((kind, since))

        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, BaseException):
            raise fault
        return page if fault is None else fault(page)

    def fetch_ohlcv(self, symbol, timeframe, since, limit, params):
        assert (symbol, timeframe) == ("BTC/USDT:USDT", "1h")
        kind = params.get("price", "bars")

        rows = klines(epoch(START), epoch("2024-02-01"), 3_600_000, kind)
        page = rows[rows[:, 0] >= since][: min(limit, 100)]
        return self.meet(kind, since, [[int(row[0]), *row[1:]] for row in page.tolist()])

    def fetch_funding_rate_history(self, symbol, since, limit, params):
        """Of a window with too many it gives the last ones, as Bybit and OKX do."""
        until = params.get("until", params.get("after"))
        rows = settlements(epoch(START), epoch("2024-02-01"))
        rows = rows[(rows[:, 0] >= since) & (rows[:, 0] <= until)][-limit:]
        info = [{"interest_1h": rate / 8, "markPrice": "123.5"} for rate in rows[:, 1].tolist()]
        page = [
            {"timestamp": int(stamp), "fundingRate": rate, "info": details}
            for (stamp, rate), details in zip(rows.tolist(), info, strict=True)
        ]
        return self.meet("funding", since, page)


def ask(folder: Path, fake: Any, end: str | None = END, **how):
    options = {"source": "bybit", "symbol": "BTCUSDT", "interval": "1h"} | how
    request = read_request(options.pop("symbol"), start=START, end=end, **options)
    return fetch_market(folder, request, now=to_nanoseconds("2024-02-01T05:00"), client=fake)


@pytest.mark.parametrize("source", OFFERS)
def test_every_offer_is_fetched_as_its_venue_gives_it(tmp_path, source):
    offer = OFFERS[source]
    lacking = [kind for kind in ("mark", "funding") if kind not in offer.limits]
    fetched = ask(tmp_path / "btc", Fake(), source=source, without=lacking)
    assert fetched.facts["to"] == END

    market = bt.Market.load(tmp_path / "btc")
    rows = klines(epoch(START), epoch(END), 3_600_000)
    np.testing.assert_array_equal(market.bars().to_numpy(), rows[:, 1:])
    assert market.has_mark == ("mark" not in lacking)

    stamps, rates = settlements(epoch(START), epoch(END)).T
    np.testing.assert_array_equal(market.funding_time, stamps.astype(int) * 10**6)
    np.testing.assert_array_equal(market.funding_rate, rates / 8 if offer.rate else rates)

    has_mark_price = (market.funding_mark == 123.5).all()
    assert has_mark_price == (offer.mark is not None)


@pytest.mark.parametrize("faults", [
    [lambda page: page + page, None, lambda page: page[::-1]],
    [None, lambda page: page[:1], lambda page: page[:7]],
], ids=["duplicates and disorder", "short pages"])  # fmt: skip
def test_what_misbehaves_and_passes_changes_nothing(tmp_path, faults):
    ask(tmp_path / "calm", Fake(), without=["funding"])
    ask(tmp_path / "rough", Fake(*faults), without=["funding"])

    assert read_files(tmp_path / "rough") == read_files(tmp_path / "calm")


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), BaseError("no such thing")])
@pytest.mark.parametrize("stop", [1, *slow([4, 7, 10])])
def test_stopped_at_any_page_and_resumed_equals_never_stopped(tmp_path, stop, fault):
    ask(tmp_path / "calm", Fake())
    with pytest.raises((KeyboardInterrupt, DataError), match=r"no such thing|^$"):
        ask(tmp_path / "btc", Fake(*[None] * stop, fault))

    ask(tmp_path / "btc", Fake())
    assert read_files(tmp_path / "btc") == read_files(tmp_path / "calm")


@pytest.mark.parametrize(("how", "fault", "words"), [
    ({}, lambda page: [{**page[0], "fundingRate": "x"}], "its response cannot be read"),
    ({}, lambda page: [None], "its response cannot be read"),
    ({"without": ["funding", "mark"]}, lambda page: [[epoch(START) - 1, *[1] * 5]],
     "before the requested time"),
    ({"symbol": "BTCUSD"}, None, "did you mean 'BTCUSDT'"),
    ({"interval": "2h"}, None, "offers, 1h, 8h, got 2h"),
    ({"source": "hyperliquid"}, None, "no history of mark"),
])  # fmt: skip
def test_a_bad_answer_or_request_is_refused(tmp_path, how, fault, words):
    check_refused(lambda: ask(tmp_path / "btc", Fake(fault), **how), words)


@pytest.mark.parametrize("source", OFFERS)
def test_offers_are_what_ccxt_says(source):
    ccxt = pytest.importorskip("ccxt", reason=NO_CCXT)
    if not hasattr(ccxt, OFFERS[source].client):
        pytest.skip(f"ccxt {ccxt.__version__} has no {OFFERS[source].client}")

    has = getattr(ccxt, OFFERS[source].client)().has
    kinds = {"bars": "OHLCV", "mark": "MarkOHLCV", "funding": "FundingRateHistory"}
    offered = {kind for kind, name in kinds.items() if has[f"fetch{name}"]}
    assert {*OFFERS[source].limits} == offered


def test_a_source_that_ccxt_gave_up_is_refused(tmp_path, monkeypatch):
    monkeypatch.delattr(pytest.importorskip("ccxt", reason=NO_CCXT), "bitmex", raising=False)
    how = {"source": "bitmex", "without": ["mark"]}
    check_refused(lambda: ask(tmp_path / "btc", None, **how), "has no bitmex; pip install ccxt")


def answer_as_binance(url: str, *_: object) -> object:
    """Return what ccxt would have read from there."""
    place, _, text = url.partition("?")
    assert "/fapi/" in place
    kind = place.rpartition("/")[2]
    if kind == "exchangeInfo":
        return {"symbols": [BINANCE_MARKET], "rateLimits": []}

    query = dict(parse_qsl(text))
    since = int(query["startTime"])
    limit = int(query["limit"])
    if kind == "fundingRate":
        entry = {"symbol": "BTCUSDT", "markPrice": "42.5"}
        rows = settlements(since, int(query["endTime"]))[:limit].tolist()
        return [{**entry, "fundingTime": int(ms), "fundingRate": f"{x:.8f}"} for ms, x in rows]

    prices = {"klines": "bars", "markPriceKlines": "mark"}[kind]
    stop = min(since + limit * 3_600_000, epoch(END))
    rows = klines(since, stop, 3_600_000, prices).tolist()
    return [[int(row[0]), *map(repr, row[1:]), 0] for row in rows]


def test_ccxt_reads_what_the_venue_says(tmp_path, monkeypatch):
    client = pytest.importorskip("ccxt", reason=NO_CCXT).binanceusdm()
    monkeypatch.setattr(client, "fetch", answer_as_binance)
    ask(tmp_path / "btc", client, source="binance")

    market = bt.Market.load(tmp_path / "btc")
    rows = klines(epoch(START), epoch(END), 3_600_000)
    np.testing.assert_array_equal(market.close, rows[:, 4])
    np.testing.assert_array_equal(market.mark_low, rows[:, 3] + 3.0)
    np.testing.assert_array_equal(market.funding_rate, settlements(epoch(START), epoch(END))[:, 1])
    assert (market.funding_mark == 42.5).all()
