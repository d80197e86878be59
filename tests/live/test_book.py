"""A decision for a book: one account of several instruments, one table of orders."""

import json
from typing import Any

import pandas as pd
import pytest

import backtest as bt
from backtest.live.book import round_to_tick
from tests.kit import Hold, call

pytestmark = pytest.mark.filterwarnings("ignore")
OPENS = pd.date_range("2024-01-01", periods=30, freq="1h", tz="UTC")
NOW = "2024-01-02T06:00Z"
FACTS = {
    "A": {"lot": 1.0, "tick": 0.5},
    "B": {"lot": None, "tick": None},
    "C": {"lot": 0.1},
    "D": {"lot": 1.0, "min_notional": 500.0},
    "E": {"lot": 1.0},
}
"""What is known of the steps of orders of five coins."""


def make_book(**more: Any) -> bt.Backtest:
    """Five coins at 100.2, each a fifth of 1,000: 1 lot is 100.2; D orders 500 at least."""
    free = bt.Venue.simple(
        taker=0.0, slippage=0.0, maintenance_rate=0.01, max_leverage=20.0, liquidation_fee=0.0
    )
    markets = {}
    venues = {}
    for name, steps in FACTS.items():
        stop = 27 if name == "E" else 30
        frame = pd.DataFrame(100.2, OPENS[:stop], ["open", "high", "low", "close"])
        frame["volume"] = 1e6
        markets[name] = bt.Market.from_frames(frame, instrument=name, now="2030-01-01")
        venues[name] = free.override({f"contract.{step}": size for step, size in steps.items()})

    account = bt.Account(capital=1_000.0, band=0.05)
    return bt.Backtest(bt.Markets(markets), venue=venues, account=account, **more)


def test_each_order_is_rounded_and_each_that_is_not_to_be_sent_says_why():
    """Targets are 200: A and C buy, B has no lot, D's order is under 500, E's data have ended."""
    test = make_book(signal=dict.fromkeys(FACTS, 0.2))
    held = {"C": {"quantity": 1.9, "entry": 100.0}}
    state = bt.AccountSnapshot(equity=1_000.0, positions=held, time="2024-01-02T06:00Z")
    orders = test.decide(Hold(1.0), state=state, now=NOW).orders

    assert [*orders.index] == [*FACTS]

    assert orders.loc["A"].tolist() == ["buy", 1.0, 100.5, 100.5, True, ""]

    assert not orders.loc["B", "to_send"]
    assert orders.loc["B", "why_not"] == "unknown lot"
    assert orders.loc["B", "price"] == 100.2

    assert "within the band" in orders.loc["C", "why_not"]
    assert "under the minimum notional" in orders.loc["D", "why_not"]
    assert "stale data: its bars end at 2024-01-02 03:00" in orders.loc["E", "why_not"]


def test_old_data_send_no_order_of_the_book():
    test = make_book(signal=dict.fromkeys(FACTS, 0.2))
    state = bt.AccountSnapshot(equity=1_000.0, time="2024-01-02T06:00Z")
    decision = test.decide(Hold(1.0), state=state, now="2024-02-01")

    assert not decision.may_act
    assert not decision.orders["to_send"].any()
    assert "the data end at 2024-01-02 06:00" in decision.orders.loc["A", "why_not"]
    assert ": do not send, the data end at" in str(decision)
    assert str(decision).endswith("no order was sent")

    # Of what has no order the reason is enough.
    assert "no order of D: under the minimum notional" in str(decision)


@pytest.mark.parametrize(("price", "tick", "is_buy", "rounded"), [
    (100.2, 0.5, True, 100.5), (100.2, 0.5, False, 100.0), (100.5, 0.5, True, 100.5),
    (0.30000000000000004, 0.1, True, 0.3), (7.123, None, True, 7.123),
])  # fmt: skip
def test_a_price_is_rounded_to_the_tick_so_that_it_fills(price, tick, is_buy, rounded):
    assert round_to_tick(price, tick, is_buy=is_buy) == rounded


def test_one_account_of_ccxt_is_read_from_a_file(tmp_path):
    bitcoin = {
        "symbol": "BTC/USDT:USDT", "side": "long", "contracts": 0.1, "contractSize": 1.0,
        "entryPrice": 100.0, "marginMode": "cross",
    }  # fmt: skip
    ether = {**bitcoin, "symbol": "ETH/USDT:USDT", "contracts": 2.0, "side": "short"}
    content = {
        "balance": {"USDT": {"total": 500.0}},
        "positions": [bitcoin, ether],
        "exchange": "binance",
        "peak_equity": 600.0,
    }
    file = tmp_path / "account.json"
    file.write_text(json.dumps(content), encoding="utf-8")

    snapshot = bt.AccountSnapshot.load(file)
    assert (snapshot.equity, snapshot.peak_equity) == (500.0, 600.0)
    assert len(snapshot.positions) == 2
    assert snapshot.positions["BTCUSDT"].quantity == 0.1
    assert snapshot.positions["ETHUSDT"].quantity == -2.0


def test_a_command_decides_for_a_book(tmp_path, capsys):
    names = ("BTCUSDT", "ETHUSDT")
    for k, name in enumerate(names):
        bars = bt.Market.sample(bars=150, seed=k).bars()
        bt.Market.from_frames(bars, instrument=name).save(tmp_path / name)

    content = {"balance": {"USDT": {"total": 50_000.0}}, "positions": [], "exchange": "binance"}
    (tmp_path / "account.json").write_text(json.dumps(content), encoding="utf-8")

    code, out, err = call(
        capsys, "decide", "--data", tmp_path / names[0], "--data", tmp_path / names[1],
        "--policy", "vol-target", "--snapshot", tmp_path / "account.json",
        "--set", "decide.now=2023-01-07T06:10",
    )  # fmt: skip

    assert code == 0, out + err
    assert out.count("notional") >= 2
    assert "buy" in out


def test_an_account_of_symbols_is_that_of_the_markets_that_have_them():
    """Folders btc and eth hold BTCUSDT and ETHUSDT, as which the account and its fills name them.

    100 coins at 100.2 are 10,020 of each: the decision, the replay and the snapshot know them.
    """
    frame = pd.DataFrame(100.2, OPENS, ["open", "high", "low", "close"]).assign(volume=1e6)
    markets = {
        folder: bt.Market.from_frames(frame, instrument=symbol, now="2030-01-01")
        for folder, symbol in {"btc": "BTCUSDT", "eth": "ETHUSDT"}.items()
    }
    free = bt.Venue.simple(
        taker=0.0, slippage=0.0, maintenance_rate=0.01, max_leverage=20.0, liquidation_fee=0.0
    )
    account = bt.Account(capital=100_000.0)
    test = bt.Backtest(bt.Markets(markets), venue=free, account=account)

    held = {name: {"quantity": 100.0, "entry": 100.2} for name in ("BTCUSDT", "ETHUSDT")}
    state = bt.AccountSnapshot(equity=100_000.0, positions=held, time=NOW)
    decision = test.decide(Hold(0.2), state=state, now=NOW)
    assert [*decision.orders.index] == ["btc", "eth"]
    assert decision.account["position_before"].to_dict() == {"btc": 100.0, "eth": 100.0}
    assert not any("not in the market" in str(warning) for warning in decision.warnings)

    fills = pd.DataFrame({
        "time": OPENS[[2, 3]], "instrument": ["BTCUSDT", "ETHUSDT"],
        "quantity": 100.0, "price": 100.2, "fee": 0.0,
    })  # fmt: skip
    replay = test.replay(fills)
    assert [*replay.fills["instrument"]] == ["btc", "eth"]
    assert replay.reconcile(state).empty

    begin = bt.AccountSnapshot(equity=100_000.0, time=OPENS[2])
    shadow = test.shadow(Hold(0.2), fills, [begin, state])
    assert not shadow.differing


def test_a_symbol_of_several_markets_or_the_name_of_another_is_no_other_name():
    frame = pd.DataFrame(100.2, OPENS, ["open", "high", "low", "close"]).assign(volume=1e6)
    one = bt.Market.from_frames(frame, instrument="BTCUSDT", now="2030-01-01")
    other = bt.Market.from_frames(frame, instrument="ETHUSDT", now="2030-01-01")
    assert bt.Markets({"a": one, "b": one}).names_by_symbol == {}
    assert bt.Markets({"ETHUSDT": one, "b": other}).names_by_symbol == {"BTCUSDT": "ETHUSDT"}
