"""Bybit, OKX and Deribit on loopback: their public answers, written by hand, read through ccxt."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pytest

import backtest as bt
from backtest.core import to_nanoseconds
from backtest.market import fetch_market, read_request
from tests.replay import epoch, klines, settlements

ccxt = pytest.importorskip(
    "ccxt", reason="ccxt is not installed: pip install 'leverage-backtest[fetch]'"
)
START = "2024-01-01"
END = "2024-01-08"
NOW = "2024-02-01T05:00"
HOUR_MS = 3_600_000
Answer = Callable[[str, dict[str, str]], Any]


@contextlib.contextmanager
def serve(answer: Answer) -> Iterator[str]:
    """Answer each GET on loopback by its path and its query; return the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            place = urlsplit(self.path)
            body = json.dumps(answer(place.path, dict(parse_qsl(place.query)))).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()

    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def fetch(folder, answer: Answer, source: str, symbol: str, **more: Any) -> dict[str, Any]:
    """Fetch a week of hours from loopback; return the facts of the fetch."""
    with serve(answer) as address:
        client = getattr(ccxt, source)({"timeout": 5_000})
        api = client.urls["api"]
        if isinstance(api, dict):
            client.urls["api"] = dict.fromkeys(api, address)
        else:
            client.urls["api"] = address

        request = read_request(symbol, source=source, start=START, end=END, interval="1h", **more)
        fetched = fetch_market(folder, request, now=to_nanoseconds(NOW), client=client)
    return dict(fetched.facts)


def list_candles(first: int, stop: int, kind: str) -> list[list[str]]:
    """Return candles from the newest, as both venues write them: volumes are 100 times the coins
    of the archive that tests share, in contracts, then coins, then quote currency."""
    rows = klines(first, min(stop, epoch(END)), HOUR_MS, kind).tolist()

    candles = []
    for stamp, *prices, coins in rows[::-1]:
        volumes = []
        if kind != "mark":
            volumes = [100.0 * coins, coins, coins * prices[-1]]
        candles.append([str(int(stamp)), *map(repr, [*prices, *volumes])])
    return candles


def expect(market: bt.Market, *, per_coin: float, has_mark: bool = True) -> None:
    rows = klines(epoch(START), epoch(END), HOUR_MS)
    stamps, rates = settlements(epoch(START), epoch(END)).T

    np.testing.assert_array_equal(market.close, rows[:, 4])
    np.testing.assert_allclose(market.volume, per_coin * rows[:, 5], rtol=1e-12)
    np.testing.assert_array_equal(market.funding_time, stamps.astype(int) * 10**6)
    np.testing.assert_array_equal(market.funding_rate, rates)

    if has_mark:
        np.testing.assert_array_equal(market.mark_low, rows[:, 3] + 3.0)


BYBIT = {
    "status": "Trading", "deliveryTime": "0", "deliveryFeeRate": "", "priceScale": "2",
    "launchTime": "1584230400000", "unifiedMarginTrade": True, "fundingInterval": 480,
    "leverageFilter": {"minLeverage": "1", "maxLeverage": "100.00", "leverageStep": "0.01"},
    "priceFilter": {"minPrice": "0.10", "maxPrice": "1999999.80", "tickSize": "0.10"},
}  # fmt: skip
LINEAR = {
    **BYBIT, "symbol": "BTCUSDT", "contractType": "LinearPerpetual", "baseCoin": "BTC",
    "quoteCoin": "USDT", "settleCoin": "USDT",
    "lotSizeFilter": {
        "maxOrderQty": "1190.000", "minOrderQty": "0.001", "qtyStep": "0.001",
        "maxMktOrderQty": "500.000", "minNotionalValue": "5",
    },
}  # fmt: skip
INVERSE = {
    **BYBIT, "symbol": "BTCUSD", "contractType": "InversePerpetual", "baseCoin": "BTC",
    "quoteCoin": "USD", "settleCoin": "BTC",
    "lotSizeFilter": {"maxOrderQty": "25000000", "minOrderQty": "1", "qtyStep": "1"},
}  # fmt: skip
RISK_LIMITS = [
    {"id": 1, "symbol": "BTCUSDT", "riskLimitValue": "2000000", "maintenanceMargin": "0.005",
     "initialMargin": "0.01", "isLowestRisk": 1, "maxLeverage": "100.00", "mmDeduction": ""},
    {"id": 2, "symbol": "BTCUSDT", "riskLimitValue": "4000000", "maintenanceMargin": "0.01",
     "initialMargin": "0.02", "isLowestRisk": 0, "maxLeverage": "50.00", "mmDeduction": "10000"},
]  # fmt: skip


def answer_as_bybit(path: str, query: dict[str, str]) -> Any:
    """Return what https://bybit-exchange.github.io/docs/v5/market describes.

    Candles from the newest, of linear contracts in coins; funding: the last rows of a window.
    """
    category = query["category"]
    is_mark = "mark-price" in path

    rows: list[Any] = []
    if path.endswith("instruments-info"):
        if "status" not in query:
            rows = {"linear": [LINEAR], "inverse": [INVERSE]}.get(category, [])
    elif path.endswith("kline"):
        first = int(query["start"])
        stop = min(epoch(END), first + int(query["limit"]) * HOUR_MS)
        rows = list_candles(first, stop, kind="mark" if is_mark else "bars")
        if category == "linear" and not is_mark:
            rows = [[*row[:5], row[6], row[7]] for row in rows]  # a contract is a coin
        elif not is_mark:
            rows = [row[:7] for row in rows]  # dollars, then coins
    elif path.endswith("funding/history"):
        found = settlements(int(query["startTime"]), int(query["endTime"]) + 1).tolist()
        rows = [
            {"symbol": query["symbol"], "fundingRate": f"{rate:.8f}",
             "fundingRateTimestamp": str(int(stamp))}
            for stamp, rate in found[-int(query["limit"]) :][::-1]
            if stamp < epoch(END)
        ]  # fmt: skip
    elif path.endswith("risk-limit"):
        rows = [] if "cursor" in query else RISK_LIMITS
    else:
        raise AssertionError(path)

    result = {"category": category, "list": rows, "nextPageCursor": ""}
    return {"retCode": 0, "retMsg": "OK", "result": result, "retExtInfo": {}, "time": epoch(END)}


def test_bybit_is_fetched_with_its_listing(tmp_path):
    """0.001 BTC and 0.10 USDT; 5 USDT at least; the second tier subtracts 2 million x .5 %."""
    facts = fetch(tmp_path / "btc", answer_as_bybit, "bybit", "BTCUSDT")
    assert facts["to"] == END

    expect(bt.Market.load(tmp_path / "btc"), per_coin=1.0)
    venue = bt.Venue.read(tmp_path / "btc" / "venue.json", "BTCUSDT", like="bybit-linear")

    contract = venue.contract
    assert contract.kind == "linear"
    assert contract.lot == 0.001
    assert contract.tick == 0.1
    assert contract.min_notional == 5.0

    # cap, maintenance rate, largest leverage
    tiers = [(tier.cap, tier.maintenance_rate, tier.max_leverage) for tier in venue.brackets]
    assert tiers == [(2e6, 0.005, 100.0), (4e6, 0.01, 50.0)]


def test_volumes_of_inverse_contracts_of_bybit_are_contracts(tmp_path):
    """ccxt takes the coins, a hundredth of what it lists here as dollars."""
    fetch(tmp_path / "usd", answer_as_bybit, "bybit", "BTCUSD")

    expect(bt.Market.load(tmp_path / "usd"), per_coin=100.0)


OKX = {
    "instType": "SWAP", "instId": "BTC-USDT-SWAP", "uly": "BTC-USDT", "instFamily": "BTC-USDT",
    "baseCcy": "", "quoteCcy": "", "settleCcy": "USDT", "ctVal": "0.01", "ctMult": "1",
    "ctValCcy": "BTC", "ctType": "linear", "optType": "", "stk": "", "listTime": "1573557408000",
    "expTime": "", "lever": "100", "tickSz": "0.1", "lotSz": "0.01", "minSz": "0.01",
    "state": "live", "alias": "", "category": "1",
}  # fmt: skip


def answer_as_okx(path: str, query: dict[str, str]) -> Any:
    """Return what https://www.okx.com/docs-v5/en/#public-data-rest-api describes.

    ``before`` asks for what is newer and ``after`` for what is older; from the newest.
    """
    rows: list[Any] = []

    if path.endswith("public/instruments"):
        rows = [OKX] if query["instType"] == "SWAP" else []
    elif path.endswith("candles"):
        kind = "mark" if "mark-price" in path else "bars"
        first = int(query["before"]) + 1
        stop = int(query["after"])
        rows = [[*row, "1"] for row in list_candles(first, stop, kind)][: int(query["limit"])]
    elif path.endswith("funding-rate-history"):
        first = int(query["before"]) + 1
        stop = int(query["after"])
        found = settlements(first, min(stop, epoch(END))).tolist()
        rows = [
            {"instType": "SWAP", "instId": query["instId"], "fundingRate": f"{rate:.8f}",
             "realizedRate": f"{rate:.8f}", "fundingTime": str(int(stamp)), "method": "next_period"}
            for stamp, rate in found[::-1][: int(query["limit"])]
        ]  # fmt: skip
    else:
        raise AssertionError(path)

    return {"code": "0", "msg": "", "data": rows}


def test_okx_is_fetched_with_its_listing_and_volumes_in_contracts(tmp_path):
    """A contract is .01 BTC: 100 for a coin. Its tiers bound contracts, so none are stored."""
    facts = fetch(tmp_path / "btc", answer_as_okx, "okx", "BTC-USDT-SWAP")

    expect(bt.Market.load(tmp_path / "btc"), per_coin=100.0)
    assert facts["to"] == END

    listing = json.loads((tmp_path / "btc" / "venue.json").read_text())
    assert listing["like"] == "okx"
    assert listing["markets"]["BTC/USDT:USDT"]["contractSize"] == 0.01
    assert "tiers_missing" in listing


DERIBIT = {
    "instrument_name": "BTC-PERPETUAL", "kind": "future", "base_currency": "BTC",
    "quote_currency": "USD", "counter_currency": "USD", "settlement_currency": "BTC",
    "settlement_period": "perpetual", "contract_size": 10.0, "tick_size": 0.5,
    "min_trade_amount": 10.0, "is_active": True, "instrument_type": "reversed",
    "creation_timestamp": 1534167754000, "expiration_timestamp": 32503708800000,
    "taker_commission": 0.0005, "maker_commission": 0.0, "max_leverage": 50,
}  # fmt: skip


def answer_as_deribit(path: str, query: dict[str, str]) -> Any:
    """Return what https://docs.deribit.com describes: ``volume`` in coins, ``cost`` in dollars."""
    result: Any = []
    if path.endswith("get_currencies"):
        result = [{"currency": "BTC", "currency_long": "Bitcoin", "coin_type": "BITCOIN"}]
    elif path.endswith("get_instruments"):
        result = [DERIBIT]
    elif path.endswith("get_tradingview_chart_data"):
        start = int(query["start_timestamp"])
        stop = int(query["end_timestamp"])
        first = -(-start // HOUR_MS) * HOUR_MS  # the first open from there on
        rows = klines(first, min(stop + 1, epoch(END)), HOUR_MS)
        names = ("ticks", "open", "high", "low", "close", "volume")
        result = dict(zip(names, rows.T.tolist(), strict=True))
        result |= {"ticks": rows[:, 0].astype(int).tolist(), "status": "ok"}
        result["cost"] = (1_000.0 * rows[:, 5]).tolist()
    elif path.endswith("get_funding_rate_history"):
        found = settlements(int(query["start_timestamp"]), int(query["end_timestamp"]) + 1)
        result = [
            {"timestamp": int(stamp), "interest_1h": rate, "interest_8h": 8 * rate,
             "index_price": 42_000.0, "prev_index_price": 42_000.0}
            for stamp, rate in found.tolist() if stamp < epoch(END)
        ]  # fmt: skip

    return {"jsonrpc": "2.0", "result": result, "usIn": 1, "usOut": 2, "usDiff": 1}


def test_volumes_of_inverse_contracts_of_deribit_are_contracts(tmp_path):
    """1,000 dollars for a coin are 100 contracts of 10."""
    fetch(tmp_path / "btc", answer_as_deribit, "deribit", "BTC-PERPETUAL", without=["mark"])

    expect(bt.Market.load(tmp_path / "btc"), per_coin=100.0, has_mark=False)
