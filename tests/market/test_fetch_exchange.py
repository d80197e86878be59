"""Fetching from exchanges, page by page: from one made up here, and through ccxt from loopback."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backtest as bt
from backtest.base.errors import DataError
from backtest.base.units import HOUR
from backtest.market.fetch import OFFERS, fetch_market, read_request, redirect
from tests.market.fetches import at, content
from tests.refusals import check_refused
from tests.replay import Replay, epoch, klines, settlements

START, END = "2024-01-01", "2024-01-21"
NO_CCXT = "ccxt is not installed: pip install 'leverage-backtest[fetch]'"


NOW = at("2024-02-01T05:00")


class BaseError(Exception):
    """What ccxt raises is a kind of this."""


class Stays(BaseError):  # noqa: N818 - as those of ccxt are named
    """A failure that does not pass."""


class Fake:
    """An exchange with the methods of ccxt; ``faults`` are met one after the other."""

    timeframes: Mapping[str, Any] = {"1h": "1h", "8h": "8h"}

    def __init__(self, hours: int = 8) -> None:
        self.rows = {
            kind: klines(epoch(START), epoch("2024-02-01"), 3_600_000, kind)
            for kind in ("bars", "mark")
        }
        self.funding = settlements(epoch(START), epoch("2024-02-01"), hours)
        self.limit = 100
        self.faults: list[object] = []
        self.calls: list[tuple[str, int]] = []

    def load_markets(self) -> dict[str, dict[str, Any]]:
        spot = {"id": "BTCUSDT", "symbol": "BTC/USDT", "contract": False}
        swap = {"id": "BTCUSDT", "symbol": "BTC/USDT:USDT", "contract": True}
        return {each["symbol"]: each for each in (spot, swap)}

    def meet(self, kind: str, since: int, page: list[Any]) -> list[Any]:
        self.calls.append((kind, since))
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, Exception):
            raise fault
        return page if fault is None else fault(page)

    def fetch_ohlcv(self, symbol, timeframe, since, limit, params):
        assert (symbol, timeframe) == ("BTC/USDT:USDT", "1h")
        kind = params.get("price", "bars")
        rows = self.rows[kind]
        page = rows[rows[:, 0] >= since][: min(limit, self.limit)]
        return self.meet(kind, since, [[int(row[0]), *row[1:]] for row in page.tolist()])

    def fetch_funding_rate_history(self, symbol, since, limit, params):
        """Of a window with too many it gives the last ones, as Bybit and OKX do."""
        until = params.get("until", params.get("after"))
        rows = self.funding
        rows = rows[(rows[:, 0] >= since) & (rows[:, 0] <= until)][-limit:]
        page = [
            {
                "timestamp": int(stamp),
                "fundingRate": rate,
                "info": {"interest_1h": rate / 8, "markPrice": "123.5"},
            }
            for stamp, rate in rows.tolist()
        ]
        return self.meet("funding", since, page)


def fetch(folder: Path, fake: Fake, start=START, end: str | None = END, **how):
    named = ("source", "symbol", "interval", "without")
    options = {"source": "bybit", "symbol": "BTCUSDT", "interval": "1h"}
    options |= {name: how.pop(name) for name in named if name in how}
    symbol = options.pop("symbol")
    request = read_request(symbol, start=start, end=end, **options)
    return fetch_market(folder, request, **{"now": NOW, "client": fake, **how})


def test_all_pages_make_one_market(tmp_path):
    fetched = fetch(tmp_path / "btc", Fake())
    market = bt.Market.load(tmp_path / "btc")
    rows = klines(epoch(START), epoch(END), 3_600_000)
    assert (fetched.facts["instrument"], market.n_bars) == ("BTCUSDT", 20 * 24)
    np.testing.assert_array_equal(market.bars().to_numpy(), rows[:, 1:])
    np.testing.assert_array_equal(market.mark_close, rows[:, 4] + 3.0)
    stamps = settlements(epoch(START), epoch(END))
    np.testing.assert_array_equal(market.funding_time, stamps[:, 0].astype(int) * 10**6)
    np.testing.assert_array_equal(market.funding_rate, stamps[:, 1])
    assert np.isnan(market.funding_mark).all()


@pytest.mark.parametrize("faults", [
    [lambda page: page + page, None, lambda page: page[::-1]],
    [None, lambda page: page[:1], lambda page: page[:7]],
], ids=["duplicates and disorder", "short pages"])  # fmt: skip
def test_what_misbehaves_and_passes_changes_nothing(tmp_path, faults):
    fetch(tmp_path / "calm", Fake())
    fake = Fake()
    fake.faults = list(faults)
    fetch(tmp_path / "rough", fake)
    assert content(tmp_path / "rough") == content(tmp_path / "calm")


def test_an_exchange_that_repeats_a_page_is_given_up(tmp_path):
    fake = Fake()
    fake.faults = [None, lambda page: [[epoch(START), 1, 1, 1, 1, 1]]]
    with pytest.raises(DataError, match="the page ended at 2024-01-01, before the requested"):
        fetch(tmp_path / "btc", fake)
    assert len(fake.calls) == 2


def test_an_empty_page_is_a_gap(tmp_path):
    fake = Fake()
    fake.faults = [None, lambda page: []]
    with pytest.raises(DataError, match="bars run from 2024-01-01 to 2024-01-05 04:00, not from"):
        fetch(tmp_path / "btc", fake)
    fetch(tmp_path / "btc", Fake())
    fetch(tmp_path / "calm", Fake())
    assert content(tmp_path / "btc") == content(tmp_path / "calm")


def test_what_stays_wrong_is_told_and_finished_pages_are_kept(tmp_path):
    fake = Fake()
    fake.faults = [None, None, Stays("no such thing")]
    with pytest.raises(DataError, match="failed or refused, Stays: no such thing"):
        fetch(tmp_path / "btc", fake)
    fake.calls.clear()
    fetch(tmp_path / "btc", fake)
    assert fake.calls[0] == ("bars", epoch("2024-01-09T08:00"))
    fetch(tmp_path / "calm", Fake())
    assert content(tmp_path / "btc") == content(tmp_path / "calm")


@pytest.mark.parametrize("stop", range(1, 13, 2))
def test_stopped_at_any_page_and_resumed_equals_never_stopped(tmp_path, stop):
    fetch(tmp_path / "calm", Fake())
    fake = Fake()
    fake.faults = [*[None] * stop, KeyboardInterrupt()]

    def meet(kind, since, page, given=fake.meet):
        if fake.faults and isinstance(fake.faults[0], KeyboardInterrupt):
            raise fake.faults.pop(0)
        return given(kind, since, page)

    fake.meet = meet
    with pytest.raises(KeyboardInterrupt):
        fetch(tmp_path / "btc", fake)
    assert not (tmp_path / "btc" / "bars.parquet").exists()
    fetch(tmp_path / "btc", fake)
    assert content(tmp_path / "btc") == content(tmp_path / "calm")


def test_without_an_end_the_last_whole_day_is_the_end(tmp_path):
    assert fetch(tmp_path / "btc", Fake(), end=None).facts["to"] == "2024-02-01"


@pytest.mark.parametrize("source", OFFERS)
def test_every_offer_is_fetched_as_its_venue_gives_it(tmp_path, source):
    offer = OFFERS[source]
    lacking = [kind for kind in ("mark", "funding") if kind not in offer.kinds]
    fetch(tmp_path / "btc", Fake(), source=source, without=lacking)
    market = bt.Market.load(tmp_path / "btc")
    rates = settlements(epoch(START), epoch(END))[:, 1]
    np.testing.assert_array_equal(market.funding_rate, rates / 8 if offer.rate else rates)
    assert (market.funding_mark == 123.5).all() == (offer.mark is not None)


@pytest.mark.parametrize(("how", "fault", "words"), [
    ({}, lambda page: [*page, [page[0][0], *[1.0] * 5]], "bars must have each time once"),
    ({}, lambda page: [["x", 1, 1, 1, 1, 1]], "cannot read the exchange's answer"),
    ({}, lambda page: [None], "cannot read the exchange's answer"),
    ({}, lambda page: [[epoch(START) + 60_000, *[1] * 5]], "open at other times|bars run from"),
    ({}, lambda page: [[page[0][0], None, *page[0][2:]], *page[1:]], "open must be positive"),
    ({"symbol": "BTCUSD"}, None, "did you mean 'BTCUSDT'"),
    ({"interval": "2h"}, None, "offers, 1h, 8h, got 2h"),
    ({"source": "hyperliquid"}, None, "no history of mark"),
])  # fmt: skip
def test_a_bad_answer_or_request_is_refused(tmp_path, how, fault, words):
    fake = Fake()
    fake.faults = [fault]
    check_refused(lambda: fetch(tmp_path / "btc", fake, **how), words)


# through ccxt


@pytest.mark.parametrize("source", OFFERS)
def test_offers_are_what_ccxt_says(source):
    ccxt = pytest.importorskip("ccxt", reason=NO_CCXT)
    client = getattr(ccxt, OFFERS[source].client)()
    has = {
        "bars": client.has["fetchOHLCV"],
        "mark": client.has["fetchMarkOHLCV"],
        "funding": client.has["fetchFundingRateHistory"],
    }
    assert OFFERS[source].kinds == tuple(kind for kind, there in has.items() if there)
    addresses = json.dumps(redirect(client.urls["api"], "http://127.0.0.1:1"))
    assert "https" not in addresses


BINANCE_MARKET = {
    "symbol": "BTCUSDT",
    "pair": "BTCUSDT",
    "contractType": "PERPETUAL",
    "deliveryDate": 4133404800000,
    "onboardDate": 1569398400000,
    "status": "TRADING",
    "baseAsset": "BTC",
    "quoteAsset": "USDT",
    "marginAsset": "USDT",
    "pricePrecision": 2,
    "quantityPrecision": 3,
    "filters": [],
}


class Binance:
    """Answers of Binance's public addresses for futures."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, path: str, query: dict[str, str]) -> bytes:
        self.asked.append(path)
        kind = path.rpartition("/")[2]
        if kind == "exchangeInfo":
            return json.dumps({"symbols": [BINANCE_MARKET], "rateLimits": []}).encode()
        since, limit = int(query["startTime"]), int(query["limit"])
        if kind == "fundingRate":
            rows = settlements(since, int(query["endTime"]))[:limit]
            entry = {"symbol": "BTCUSDT", "markPrice": "42.5"}
            page: list[Any] = [
                {**entry, "fundingTime": int(stamp), "fundingRate": f"{rate:.8f}"}
                for stamp, rate in rows.tolist()
            ]
        else:
            what = {"klines": "bars", "markPriceKlines": "mark"}[kind]
            rows = klines(since, min(since + limit * 3_600_000, epoch(END)), 3_600_000, what)
            page = [[int(row[0]), *map(repr, row[1:]), 0] for row in rows.tolist()]
        return json.dumps(page).encode()


@pytest.fixture
def binance(monkeypatch: pytest.MonkeyPatch) -> Iterator[Replay]:
    pytest.importorskip("ccxt", reason=NO_CCXT)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    replay = Replay()
    replay.answer = Binance()
    with replay.serve():
        yield replay


def test_ccxt_fetches_from_loopback_what_the_venue_says_there(tmp_path, binance):
    request = read_request("BTCUSDT", start=START, end=END, source="binance", interval="1h")
    binance.faults["fapi/v1/klines"] = ["500"]
    fetch_market(tmp_path / "btc", request, now=NOW, base_url=binance.url)
    market = bt.Market.load(tmp_path / "btc")
    rows = klines(epoch(START), epoch(END), 3_600_000)
    assert binance.asked["fapi/v1/klines"] == 2
    assert market.interval == HOUR
    np.testing.assert_array_equal(market.close, rows[:, 4])
    np.testing.assert_array_equal(market.mark_low, rows[:, 3] + 3.0)
    np.testing.assert_array_equal(market.funding_rate, settlements(epoch(START), epoch(END))[:, 1])
    assert (market.funding_mark == 42.5).all()
    assert {path.split("/")[0] for path in binance.answer.asked} == {"fapi"}
