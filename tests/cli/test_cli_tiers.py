"""``backtest venues import`` of what ccxt returns for Binance, Bybit and OKX, and of --exchange."""

import json
import sys
from types import SimpleNamespace

import pytest

import backtest as bt
from tests.commands import call

LINEAR = {"contract": True, "linear": True, "quote": "USDT", "settle": "USDT"}
BYBIT_ROWS = [
    {"id": 1, "symbol": "OPUSDT", "riskLimitValue": "200000", "maintenanceMargin": "0.01",
     "initialMargin": "0.02", "maxLeverage": "50.00", "mmDeduction": "0"},
    {"id": 2, "symbol": "OPUSDT", "riskLimitValue": "400000", "maintenanceMargin": "0.02",
     "initialMargin": "0.04", "maxLeverage": "25.00", "mmDeduction": "2000"},
]  # fmt: skip
OKX_ROWS = [
    {"instId": "OP-USDT-SWAP", "tier": "1", "minSz": "0", "maxSz": "1000", "mmr": "0.01",
     "imr": "0.02", "maxLever": "50"},
    {"instId": "OP-USDT-SWAP", "tier": "2", "minSz": "1001", "maxSz": "4000", "mmr": "0.015",
     "imr": "0.05", "maxLever": "20"},
]  # fmt: skip
BINANCE_ROWS = [
    {"bracket": 1, "initialLeverage": 75, "notionalCap": 10000, "notionalFloor": 0,
     "maintMarginRatio": 0.005, "cum": 0.0},
    {"bracket": 2, "initialLeverage": 50, "notionalCap": 50000, "notionalFloor": 10000,
     "maintMarginRatio": 0.01, "cum": 50.0},
]  # fmt: skip


def unify(rows, floor, cap, rate, most) -> list[dict]:
    """Return what ccxt makes of a venue's answer; ``floor`` is a field, or the cap before."""
    found = []
    for k, row in enumerate(rows):
        low = float(row[floor]) if floor else float(rows[k - 1][cap]) if k else 0.0
        found.append(
            {
                "minNotional": low,
                "maxNotional": float(row[cap]),
                "info": row,
                "maintenanceMarginRate": float(row[rate]),
                "maxLeverage": float(row[most]),
            }
        )
    return found


BYBIT = unify(BYBIT_ROWS, None, "riskLimitValue", "maintenanceMargin", "maxLeverage")
OKX = unify(OKX_ROWS, "minSz", "maxSz", "mmr", "maxLever")
BINANCE = unify(BINANCE_ROWS, "notionalFloor", "notionalCap", "maintMarginRatio", "initialLeverage")


def list_rows(symbol: str) -> list[tuple[float, ...]]:
    found = bt.Venue.preset("venues/mine.json", symbol).brackets
    return [(r.floor, r.cap, r.max_leverage, r.maintenance_rate, r.amount) for r in found]


@pytest.mark.parametrize(("tiers", "like", "more", "rows"), [
    (BINANCE, "binance-usdm:BTCUSDT", (), [(0, 1e4, 75, 0.005, 0), (1e4, 5e4, 50, 0.01, 50)]),
    (BYBIT, "bybit-linear:BTCUSDT", (), [(0, 2e5, 50, 0.01, 0), (2e5, 4e5, 25, 0.02, 2000)]),
    # a contract is worth 20: 1,000 of them 20,000, and 1,001 begins the next tier
    (OKX, "okx:BTC-USDT-SWAP", ("--unit", "20"),
     [(0, 2e4, 50, 0.01, 0), (2e4, 8e4, 20, 0.015, 100)]),
], ids=["binance", "bybit", "okx"])  # fmt: skip
def test_the_tiers_that_ccxt_returns_become_a_venue(capsys, folder, tiers, like, more, rows):
    (folder / "tiers.json").write_text(json.dumps({"OP/USDT:USDT": tiers}))
    words = ("tiers.json", "--venue", "mine", "--symbol", "OP/USDT:USDT", "--like", like, *more)
    code, out, _ = call(capsys, "venues", "import", *words)
    assert code == 0
    assert list_rows("OPUSDT") == rows
    assert bt.Venue.preset("venues/mine.json", "OPUSDT").contract.settles == "USDT"
    # at 80,000 the second tier asks 0.015 x 80,000 on the whole, 100 less on the part in it
    said = "it on the part in the tier: 1,100 instead of 1,200 at a notional of 80,000"
    assert (said in " ".join(out.split())) == bool(more)


class Refusal(Exception):  # noqa: N818 - a name of ccxt ends differently
    """What the stand-in for ccxt raises."""


def make_ccxt(answer: object, *, of_one: bool) -> SimpleNamespace:
    """Return a stand-in for ccxt with one exchange."""

    def reply(_: object) -> object:
        if isinstance(answer, Exception):
            raise answer
        return answer

    has = {"fetchMarketLeverageTiers": of_one, "fetchLeverageTiers": not of_one}
    asked = "fetch_market_leverage_tiers" if of_one else "fetch_leverage_tiers"
    client = SimpleNamespace(has=has, **{asked: reply})
    return SimpleNamespace(exchanges=["bybit"], BaseError=Refusal, bybit=lambda _: client)


FETCH = ("--exchange", "bybit", "--venue", "mine", "--symbol", "OP/USDT:USDT", "--like",
         "bybit-linear:BTCUSDT")  # fmt: skip


@pytest.mark.parametrize("of_one", [True, False])
def test_an_exchange_is_asked_and_its_answer_kept(capsys, folder, monkeypatch, of_one):
    answer = BYBIT if of_one else {"OP/USDT:USDT": BYBIT}
    monkeypatch.setitem(sys.modules, "ccxt", make_ccxt(answer, of_one=of_one))
    code, out, _ = call(capsys, "venues", "import", *FETCH, "--json")
    assert code == 0
    assert json.loads(out)["name"] == "venues/mine.json:OPUSDT"
    assert json.loads((folder / "venues/bybit-OPUSDT-tiers.json").read_text()) == answer
    assert len(list_rows("OPUSDT")) == 2


@pytest.mark.parametrize(("answer", "words", "parts"), [
    (Refusal("no such market\nmore"), FETCH, ["Refusal: no such market; ", "BTC/USDT:USDT"]),
    (BYBIT, ("--exchange", "byit", *FETCH[2:]), ["did you mean 'bybit'?"]),
    (BYBIT, ("tiers.json", *FETCH), ["from a file or from an exchange, got both"]),
    (BYBIT, FETCH[2:], ["from a file or from an exchange, got neither"]),
])  # fmt: skip
def test_an_exchange_that_does_not_answer_is_one_error(
    capsys, folder, monkeypatch, answer, words, parts
):
    monkeypatch.setitem(sys.modules, "ccxt", make_ccxt(answer, of_one=True))
    code, out, err = call(capsys, "venues", "import", *words)
    assert (code, out) == (2, "")
    assert all(part in err for part in parts)
    assert not (folder / "venues").exists()


@pytest.mark.slow
def test_ccxt_makes_these_tiers_of_these_answers():
    ccxt = pytest.importorskip("ccxt")
    market = {"id": "OPUSDT", "symbol": "OP/USDT:USDT", "type": "swap", "swap": True, **LINEAR}
    made = []
    for name, raw in (
        ("binanceusdm", {"symbol": "OPUSDT", "brackets": BINANCE_ROWS}),
        ("okx", OKX_ROWS),
    ):
        client = getattr(ccxt, name)()
        client.markets_by_id, client.markets = {"OPUSDT": [market]}, {"OP/USDT:USDT": market}
        made.append(client.parse_market_leverage_tiers(raw, market))
    for expected, found in zip((BINANCE, OKX), made, strict=True):
        for one, other in zip(expected, found, strict=True):
            assert {name: other[name] for name in one} == one
