"""A replay of a run's own fills is the run, and finds what is missing."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.strategies import VolTarget
from tests import kit
from tests.agreement import run_engine, trust_data
from tests.cases import make_exit_case, make_full_case, make_limit_case
from tests.kit import ask_test
from tests.scenes import account_of, market_of, venue_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
TERMS = (
    "price_pnl", "fees", "slippage", "funding", "interest", "liquidation_loss", "flows", "bad_debt",
    "collateral_pnl",
)  # fmt: skip
MARKET = market_of(100.0, 100.0, (100.0, 112.0, 99.0, 110.0), 110.0, 110.0)
START = MARKET.times[0]
MS = 1_700_000_000_000
LIVE: Any = {name: kit.AT_BINANCE[name] for name in ("venue", "account")}
ROW = {  # source: one fill as it writes it
    "ccxt": [{"timestamp": MS, "symbol": "BTC/USDT:USDT", "side": "sell", "amount": 0.5,
              "price": 100.0, "fee": {"cost": 0.05, "currency": "USDT"}}],
    "named": [{"time": "2023-11-14T22:13:20Z", "instrument": "BTCUSDT", "quantity": -0.5,
               "price": 100.0, "fee": 0.05, "fee_currency": "USDT"}],
}  # fmt: skip
IN_USDT = {"cost": 2.0, "currency": "USDT"}
IN_BNB = {"cost": 0.01, "currency": "BNB"}


def replay_case(case: Any) -> tuple[Any, Any]:
    """Return the run of a case, and the replay of its fills and transfers."""
    run = run_engine(case)
    terms = case.for_engine(bt)
    terms.pop("signal")
    flows = run.transfers if len(run.transfers) else None
    terms["account"] = replace(terms["account"], flows=flows, reserve=0.0, top_up_to=None)
    return run, ask_test("replay", terms.pop("market"), run.fills, **terms)


def read_term(result: Any, name: str) -> np.ndarray:
    """Return a term of the account; impact is part of slippage, as a reference has neither."""
    term = result.of_account(name)
    if name == "slippage":
        term = term + result.of_account("impact")
    return np.asarray(term)


def measure_scale(run: Any) -> np.ndarray:
    """Return the largest of equity, holdings and profits so far, at each bar."""
    equity = run.of_account("equity")
    gross = np.nan_to_num(np.abs(run.notionals)).sum(axis=1)
    earned = np.cumsum(np.abs(run.of_account("price_pnl")))
    return np.maximum.accumulate(np.maximum(np.maximum(equity, gross), earned)) + 1e-300


def compare(case: Any) -> list[str]:
    """Return where the replay is off the run by more than 1e-9."""
    run, again = replay_case(case)
    tolerance = 1e-9 * measure_scale(run)
    faults = []
    for name in ("equity", *TERMS):
        ours = read_term(again, name)
        expected = read_term(run, name)
        is_off = ~(np.abs(ours - expected) <= tolerance)
        if is_off.any():
            t = int(np.argmax(is_off))
            faults.append(f"seed {case.seed}, bar {t} {name}: {ours[t]}, run {expected[t]}")
    return faults


@pytest.mark.parametrize("make", [make_exit_case, make_full_case, make_limit_case])
@pytest.mark.parametrize("seeds", [range(2), *kit.slow([range(2, 50), range(50, 150)])], ids=str)
def test_the_fills_of_a_run_give_its_account(make, seeds, monkeypatch):
    """Equity and terms at every bar; takeovers, forfeited margin and bad debt are among them."""
    trust_data(monkeypatch)

    faults = [text for seed in seeds for text in compare(make(seed))]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(("make", "seed"), [
    (make_exit_case, 2),  # conversions of collateral
    (make_full_case, 3),  # takeovers and bad debt
    (make_full_case, 19),  # ruin
    (make_limit_case, 2),
])  # fmt: skip
def test_a_replay_counts_the_fills_of_its_run(make, seed, monkeypatch):
    trust_data(monkeypatch)

    run, again = replay_case(make(seed))
    assert again.metrics["fills"] == run.metrics["fills"] > 0.0


def fills_of(*rows: tuple[float, float, float, float]) -> pd.DataFrame:
    """Return fills of (hours since the start, quantity, price, fee)."""
    table = pd.DataFrame(rows, columns=["hours", "quantity", "price", "fee"])
    nanoseconds = (table.pop("hours") * 3_600e9).round().astype("int64")
    table["time"] = START + pd.to_timedelta(nanoseconds, unit="ns")
    return table


def replay(fills: pd.DataFrame, market: Any = MARKET, **terms: Any) -> Any:
    """Replay fills of an account of 1,000 without costs of its own."""
    settings = {"venue": venue_of(), "account": account_of(), **terms}
    return ask_test("replay", market, fills, **settings)


def test_two_fills_by_hand():
    """Buy 2 at 100 for a fee of 1, sell 1 at 108 inside the bar that rises from 100 to 110."""
    result = replay(fills_of((1.0, 2.0, 100.0, 1.0), (2.5, -1.0, 108.0, 0.5)))

    after_sale = 999.0 + 8.0 - 0.5 + 10.0
    equity = result.of_account("equity").tolist()
    assert equity == pytest.approx([1_000.0, 999.0, after_sale, after_sale, after_sale])
    assert result.fills["quantity"].tolist() == [2.0, -1.0]
    assert result.fills["kind"].tolist() == ["order", "order"]
    assert result.metrics["fills"] == 2.0


def test_a_stop_of_several_fills_is_one_stop():
    """Two fills close 2 contracts by one stop; a position opened after it is stopped once more."""
    rows = [(1.0, 2.0), (2.2, -1.0), (2.2, -1.0), (2.5, 1.0), (2.7, -1.0)]
    fills = fills_of(*((hours, quantity, 105.0, 0.0) for hours, quantity in rows))
    fills["kind"] = ["order", "stop", "stop", "order", "stop"]
    fills.loc[0, "price"] = 100.0

    result = replay(fills)
    assert result.metrics["stops"] == 2.0
    assert result.metrics["fills"] == 5.0


@pytest.mark.parametrize(("hours", "paid"), [(2.0 - 1.0 / 3_600.0, 0.0), (2.0, 2.0)])
def test_a_fill_before_a_settlement_has_moved_the_position(hours, paid):
    """Funding of 1 % at 02:00 on 2 at 100: sold a second before pays nothing, at 02:00 it pays."""
    market = market_of(100.0, 100.0, 100.0, 100.0, funding=[(2.0, 0.01)])
    result = replay(fills_of((1.0, 2.0, 100.0, 0.0), (hours, -2.0, 100.0, 0.0)), market)

    assert result.metrics["funding"] == pytest.approx(paid)


def test_a_replay_begins_where_a_snapshot_says():
    held = {"market": {"quantity": 2.0, "entry": 90.0}}
    start = bt.AccountSnapshot(equity=500.0, positions=held, time=START + pd.Timedelta("2h"))
    result = replay(fills_of((3.0, -2.0, 110.0, 0.0)), start=start)

    assert result.of_account("equity").tolist() == pytest.approx([520.0, 520.0, 520.0])


def run_sample() -> tuple[bt.Result, bt.Backtest]:
    """Return a run of the sample, and its test."""
    market = bt.Market.sample(bars=150)
    test = bt.Backtest(market, venue=kit.AT_BINANCE["venue"], account=bt.Account())
    return test.run(VolTarget(), compile=False), test


def test_a_fill_left_out_is_found_at_its_bar():
    run, test = run_sample()
    fills = run.fills
    equity = pd.Series(run.of_account("equity"), index=run.bars.index + pd.Timedelta("1h"))
    assert test.replay(fills).reconcile(equity).empty

    for k in (0, 9, len(fills) - 2):
        without = test.replay(fills.drop(index=k))
        differences = without.reconcile(equity, tolerance=1e-9)
        assert differences.index[0] == fills["time"][k]

    doubled = pd.concat([fills, fills.iloc[[3]]])
    differences = test.replay(doubled).reconcile(equity, tolerance=1e-9)
    assert differences.index[0] == fills["time"][3]


def test_the_term_of_a_ledger_that_differs_is_named():
    run, test = run_sample()
    again = test.replay(run.fills)
    events = run.events[run.events["kind"].isin(["fee", "funding"])]
    term = events["kind"].astype(str).replace("fee", "fees")
    ledger = pd.DataFrame({"time": events["time"], "term": term, "amount": -events["amount"]})
    assert again.reconcile(ledger).empty

    second = int(np.flatnonzero(ledger["term"] == "funding")[1])
    ledger.loc[ledger.index[second], "amount"] *= 2.0
    differences = again.reconcile(ledger)
    assert differences.index[0] == events["time"].iloc[second]
    assert differences["term"].tolist() == ["funding"]
    assert differences["difference"].tolist() == pytest.approx(differences["ours"].tolist())


@pytest.mark.parametrize(("source", "form"), [
    ("ccxt", "list"), ("ccxt", "json"),  # its fees are tables: no csv has them
    ("named", "list"), ("named", "json"), ("named", "csv"),
])  # fmt: skip
def test_fills_are_read(source, form, tmp_path):
    fills: Any = ROW[source]
    if form == "json":
        fills = tmp_path / "fills.json"
        fills.write_text(json.dumps(ROW[source]), encoding="utf-8")
    elif form == "csv":
        fills = tmp_path / "fills.csv"
        pd.DataFrame(ROW[source]).to_csv(fills)

    read = bt.read_fills(fills)
    assert len(read) == 1
    row = read.iloc[0]
    assert row["time"] == pd.Timestamp(MS, unit="ms", tz="UTC")
    assert row[["instrument", "quantity", "price"]].tolist() == ["BTCUSDT", -0.5, 100.0]
    assert row[["fee", "fee_currency"]].tolist() == [0.05, "USDT"]


@pytest.mark.parametrize("factor", [1, 10**3, 10**6, 10**9])
def test_fills_and_ledgers_are_read_in_every_unit(factor):
    """A fee of 2 at the first bar's open, in s, ms, us and ns, and a ledger that has it."""
    market = bt.Market.sample(bars=6)
    stamp = int(market.time[1]) // 10**9 * factor
    row = {"time": [stamp], "quantity": [0.1], "price": [market.open[1]], "fee": [2.0]}
    again = ask_test("replay", market, bt.read_fills(pd.DataFrame(row)), **LIVE)
    assert again.metrics["fees"] == 2.0

    ledger = pd.DataFrame({"time": [stamp], "term": ["fees"], "amount": [-2.0]})
    assert again.reconcile(ledger).query("term == 'fees'").empty

    late = pd.concat([ledger, ledger.assign(time=stamp + 86_400 * factor)])
    with pytest.warns(bt.core.OutsideWarning, match="not compared: 1 of 2, 0 .* 1 from 2023"):
        again.reconcile(late)


def trade(**changes: Any) -> dict[str, Any]:
    return {**ROW["ccxt"][0], "id": "1", **changes}


@pytest.mark.parametrize(("given", "fee", "currency"), [
    ({"fee": IN_BNB}, 0.01, "BNB"),
    ({"fee": {"cost": None, "currency": None}, "fees": [IN_USDT]}, 2.0, "USDT"),
    ({"fee": IN_USDT, "fees": [IN_USDT, IN_USDT | {"cost": 0.5}]}, 2.5, "USDT"),  # never both
    ({"fee": IN_USDT, "fees": []}, 2.0, "USDT"),
    ({"fees": [IN_USDT, IN_BNB | {"cost": 0.0}]}, 2.0, "USDT"),
], ids=range(5))  # fmt: skip
def test_fees_of_ccxt_are_added_once(given, fee, currency):
    row = bt.read_fills([trade(**given)]).iloc[0]
    assert (row["fee"], row["fee_currency"]) == (fee, currency)


def test_a_side_is_read_in_letters_of_any_case_and_beside_a_signed_quantity():
    sold = bt.read_fills([trade(side="Sell ")])
    assert sold["quantity"].tolist() == [-trade()["amount"]]

    row = {"time": MS, "quantity": -1.0, "price": 1.0, "side": "sell"}
    assert bt.read_fills([row])["quantity"].tolist() == [-1.0]


HEAD = "time,instrument,quantity,price,fee"
BOUGHT = f"{MS},BTCUSDT,1,100,0.5"
SOLD = f"{MS},BTCUSDT,2,100,0.5"


def read_text(path: Path, *lines: str) -> pd.DataFrame:
    """Return the fills of a CSV file of some lines."""
    path.write_text("\n".join(lines), encoding="utf-8")
    return bt.read_fills(path)


@pytest.mark.parametrize(("head", "rows"), [
    (f"{HEAD},side", [f"{BOUGHT},buy", f"{SOLD},SELL"]),
    (f"{HEAD},Side", [f"{BOUGHT},Buy", f"{SOLD.replace(',2,', ',-2,')},sell"]),
    ("timestamp,symbol,amount,price,fee,side", [f"{BOUGHT},buy", f"{SOLD},sell"]),
    ("timestamp,symbol,quantity,price,fee,side", [f"{BOUGHT},buy", f"{SOLD},sell"]),
], ids=range(4))  # fmt: skip
def test_a_side_gives_the_sign_and_a_csv_may_have_the_names_of_ccxt(head, rows, tmp_path):
    read = read_text(tmp_path / "fills.csv", head, *rows)
    assert read["quantity"].tolist() == [1.0, -2.0]
    assert read["instrument"].tolist() == ["BTCUSDT"] * 2
    assert read["fee"].tolist() == [0.5, 0.5]


def test_a_fee_that_is_a_number_has_the_currency_beside_it(tmp_path):
    head = "timestamp,symbol,side,amount,price,cost,fee,fee_currency"
    read = read_text(tmp_path / "fills.csv", head, f"{MS},BTCUSDT,sell,2,100,200,0.5,USDT")

    fields = ["quantity", "traded", "fee", "fee_currency"]
    assert read.iloc[0][fields].tolist() == [-2.0, 200.0, 0.5, "USDT"]


@pytest.mark.parametrize("name", ["fills.csv", "fills.json"])
def test_no_fills_are_an_empty_list_or_a_header_and_an_empty_file_is_an_error(name, tmp_path):
    file = tmp_path / name
    file.write_text("[]" if name.endswith("json") else HEAD, encoding="utf-8")
    read = bt.read_fills(file)
    assert len(read) == 0

    for text in ("", "\n"):
        file.write_text(text, encoding="utf-8")
        kit.check_refused(lambda: bt.read_fills(file), "must be a table, got an empty file")


@pytest.mark.parametrize(("number", "words"), [
    ('"27,110.00"', "price must be a number, got '27,110.00', whose comma marks thousands: write "
     "27110.00 (fill 1 of fills.csv)"),
    ('"27110,00"', "whose comma is a decimal one: write 27110.00 (fill 1"),
    ('"1.027.110,5"', "whose comma is a decimal one: write 1027110.5"),
    ('"27,110"', "whose comma marks thousands or decimals"),
    ("x", "price must be a number, got 'x' (fill 1 of fills.csv)"),
])  # fmt: skip
def test_a_number_that_cannot_be_read_has_its_cause(number, words, tmp_path):
    line = f"{MS},BTCUSDT,1,{number},0.5"
    kit.check_refused(lambda: read_text(tmp_path / "fills.csv", HEAD, line), words)


def test_an_id_may_be_there_once_in_a_table_too(tmp_path):
    rows = [f"{BOUGHT},7", f"{SOLD},8", f"{SOLD},8"]
    words = "got the id '8' of BTCUSDT again (fill 3 of fills.csv); leave out the row that is"
    kit.check_refused(lambda: read_text(tmp_path / "fills.csv", f"{HEAD},id", *rows), words)

    # Rows without an id may be the same.
    assert len(read_text(tmp_path / "fills.csv", HEAD, BOUGHT, BOUGHT)) == 2


def test_columns_that_are_not_read_are_named_where_fees_are_missing(tmp_path):
    with pytest.warns(UserWarning, match="1 fill has no fee, .* not read: commission$"):
        read_text(tmp_path / "fills.csv", HEAD.replace("fee", "commission"), BOUGHT)


@pytest.mark.parametrize("hours", [-3.0, 2.0])
def test_fills_of_another_time_zone_are_recognized(hours):
    """Prices rise by 10 an hour, so that each fits its own bar alone."""
    market = market_of(*range(100, 400, 10))
    rows = [(hour + 0.5, 1.0, 100.0 + 10.0 * hour, 0.5) for hour in range(5, 15)]
    moved = [(hour + hours, *row) for hour, *row in rows]
    replay(fills_of(*rows), market)

    side = "later" if hours < 0 else "earlier"
    words = f"10 of 10 fills fit if their times are {abs(hours):.0f} h {side}: are these times UTC?"
    kit.check_refused(lambda: replay(fills_of(*moved), market), words)

    # One that is off has another cause.
    one = [moved[0], *rows[1:]]
    kit.check_refused(lambda: replay(fills_of(*one), market), "or raise range_tolerance")


def test_a_replay_without_fills_says_so_and_not_of_a_policy():
    result = replay(bt.read_fills([]))
    assert result.no_fill == "the table of fills has no rows"
    assert "NaN" not in result.summary()


def test_a_fee_in_another_coin_is_cured_by_its_worth_in_the_file():
    """.01 BNB at 300 are 3 USDT."""
    cure = "with USDT as fee_currency"
    kit.check_refused(lambda: replay_fee("BTCUSDT", "binance-usdm:BTCUSDT", 0.01, "BNB"), cure)
    assert replay_fee("BTCUSDT", "binance-usdm:BTCUSDT", 0.01 * 300.0, "USDT") == 3.0


def test_fees_that_are_all_negative_are_named():
    rows = [(1.0, 2.0, 100.0, -1.0), (2.5, -1.0, 108.0, -0.5)]
    with pytest.warns(UserWarning, match="all 2 fees are negative"):
        replay(fills_of(*rows))


def test_fills_of_several_instruments_must_say_which_each_is_of():
    """Without the column all would be of the first one."""
    markets = bt.Markets({name: bt.Market.sample(bars=8, seed=3) for name in ("A", "B")})
    test = bt.Backtest(markets, venue=kit.make_venue(), account=bt.Account(capital=1_000.0))
    market = markets["A"]
    fills = pd.DataFrame(
        {
            "time": market.times[[3]],
            "quantity": [0.01],
            "price": market.open[[3]],
            "fee": [0.0],
        }
    )

    with pytest.raises(bt.ParameterError, match=r"must have the columns .*got no instrument"):
        test.replay(fills)
    replayed = test.replay(fills.assign(instrument="B"))
    assert set(replayed.events.query("kind == 'fill'")["instrument"]) == {"B"}


def test_a_trade_without_a_symbol_is_of_no_instrument():
    read = bt.read_fills([trade(symbol=None)])
    assert read["instrument"].tolist() == [""]


@pytest.mark.parametrize(("rows", "words"), [
    ([trade(fees=[IN_USDT, IN_BNB])], "in one currency, got 'USDT' and 'BNB' (fill 1)"),
    ([trade(fee="{'cost': 2}")], "a mapping of cost and currency, got"),
    ([trade(), trade()], "got the id '1' of BTC/USDT:USDT again (fill 2)"),
    ([trade(), trade(id="2", symbol="BTC/USDT")], "may be there once, got 'BTC/USDT:USDT' and"),
    ([{"time": MS, "quantity": 1.0, "price": 1.0, "fees": 2.0}], "must be called 'fee'"),
    ([{"time": "03/04/2024 10:00", "quantity": 1.0, "price": 1.0}], "got '03/04/2024 10:00' in 1"),
    ([{"time": "24-04-03", "quantity": 1.0, "price": 1.0}], "got '24-04-03' in 1"),
    ([{"time": "2024-04-03", "quantity": 1.0, "price": 1.0}], "must have a time zone"),
    ([trade(side="long")], "side must be buy or sell, got 'long' (fill 1)"),
    ([trade(), trade(id="2", side="")], "side must be buy or sell, got '' (fill 2)"),
    ([trade(filled=0.0, status="open")], "got orders of ccxt, which have filled, status"),
    ([{"time": MS, "quantity": 1.0, "price": 1.0, "side": ""}], "buy or sell, got '' (fill 1)"),
    ([{"time": MS, "quantity": -1.0, "price": 1.0, "side": "BUY"}], "got -1 beside 'BUY' (fill 1)"),
    ([trade(side="buy", amount=-1.0)], "of a buy must not be negative, got -1 beside 'buy'"),
    ([trade(fee="5,4")], "whose comma is a decimal one: write 5.4 (fill 1)"),
], ids=range(15))  # fmt: skip
def test_fills_that_would_be_guessed_are_refused(rows, words):
    kit.check_refused(lambda: bt.read_fills(rows), words)


def test_files_of_fills_and_ledgers_have_a_zone_or_are_given_one(tmp_path):
    market = bt.Market.sample(bars=6)
    row = f"2023-01-01 02:00,0.1,{market.open[1]},2"
    fills = tmp_path / "fills.csv"
    fills.write_text(f"time,quantity,price,fee\n{row}\n", encoding="utf-8")
    ledger = tmp_path / "ledger.csv"
    ledger.write_text("time,term,amount\n2023-01-01 02:00,fees,-2\n", encoding="utf-8")

    kit.check_refused(lambda: bt.read_fills(fills), "timezone='UTC' reads them as UTC")
    read = bt.read_fills(fills, timezone="Etc/GMT-1")
    assert read["time"][0] == market.times[1]

    again = ask_test("replay", market, read, **LIVE)
    kit.check_refused(lambda: again.reconcile(ledger), "timezone='UTC' reads them as UTC")
    assert "fees" not in again.reconcile(ledger, timezone="Etc/GMT-1")["term"].tolist()


def replay_fee(name: str, venue: str | bt.Venue, cost: float, currency: str) -> float:
    """Replay a fill of ccxt with a fee at 60,000; return the fee as the account books it."""
    bars = market_of(*[60_000.0] * 4).bars()
    market = bt.Market.from_frames(bars, instrument=name)
    hour_later = int(START.timestamp() * 1_000) + 3_600_000
    row = trade(
        timestamp=hour_later, symbol=name, side="buy", amount=600.0, price=60_000.0,
        fee={"cost": cost, "currency": currency},
    )  # fmt: skip
    test = bt.Backtest(market, venue=venue, account=bt.Account(capital=1e9))
    return test.replay(bt.read_fills([row])).metrics["fees"]


@pytest.mark.parametrize(("name", "preset", "coin", "other"), [
    ("BTCUSD", "bybit-inverse:BTCUSD", "BTC", "USD"),
    ("BTCUSD", "binance-coinm:BTCUSD_PERP", "BTC", "USD"),
    ("BTCUSD_PERP", "binance-coinm:BTCUSD_PERP", "BTC", "USD"),
    ("XBTUSD", "bitmex:XBTUSD", "BTC", "TUSD"),
    ("BTC-PERPETUAL", "deribit:BTC-PERPETUAL", "BTC", "USDC"),
    ("BTCBUSD", "binance-usdm:BTCUSDT", "USDT", "BUSD"),
])  # fmt: skip
def test_fees_are_in_the_money_of_the_venue_whatever_the_name(name, preset, coin, other):
    assert replay_fee(name, preset, 6e-6, coin) == 6e-6
    words = f"must be in the settlement currency, {coin}, got {other!r}"

    kit.check_refused(lambda: replay_fee(name, preset, 0.3, other), words)


NAMELESS = bt.Venue.preset("binance-usdm", "BTCUSDT").override({"contract.settles": None})


@pytest.mark.parametrize("name", ["BNBUSD", "DOTUSD", "SHIBUSD", "XBTUSD", "LTCUSD"])
def test_a_venue_without_a_currency_takes_that_of_the_name(name):
    """BNBUSD, DOTUSD and XBTUSD are USD pairs."""
    assert replay_fee(name, NAMELESS, 0.05, "USD") == 0.05


@pytest.mark.parametrize("name", ["QQBUSD", "market"])
def test_a_fee_needs_a_currency_that_is_known(name):
    """Of QQBUSD neither QQB nor QQ is known."""
    cure = "give venue.override({'contract.settles': 'USDT'})"
    kit.check_refused(lambda: replay_fee(name, NAMELESS, 0.05, "USDT"), cure)

    cured = NAMELESS.override({"contract.settles": "USDT"})
    assert replay_fee(name, cured, 0.05, "USDT") == 0.05
    assert replay_fee(name, NAMELESS, 0.05, "") == 0.05


def test_xbt_of_a_name_is_the_btc_in_which_its_venue_settles():
    bars = market_of(*[100.0] * 4).bars()
    markets = bt.Markets({
        "XBTUSD": bt.Market.from_frames(bars, instrument="XBTUSD"),
        "BTCUSD": bt.Market.from_frames(bars, instrument="BTCUSD"),
    })  # fmt: skip
    venues = {
        "XBTUSD": bt.Venue.preset("bitmex", "XBTUSD"),
        "BTCUSD": bt.Venue.preset("bybit-inverse", "BTCUSD"),
    }
    account = bt.Account(capital=100.0)
    run = bt.run(markets, kit.Hold(0.5), venue=venues, account=account, compile=False)

    assert set(run.fills["fee_currency"]) == {"BTC"}


def test_the_fills_of_a_run_written_and_read_back_are_its_account(tmp_path):
    run, test = run_sample()
    assert set(run.fills["fee_currency"]) == {"USDT"}

    for fills in (run.fills, run.fills.assign(fee_currency="")):
        fills.to_csv(tmp_path / "fills.csv", index=False)
        again = test.replay(bt.read_fills(tmp_path / "fills.csv"))
        assert np.array_equal(again.of_account("equity"), run.of_account("equity"))


def test_no_fills_are_read_and_those_without_fees_are_named():
    assert replay(bt.read_fills([])).bars["equity"].nunique() == 1

    with pytest.warns(UserWarning, match="1 fill has no fee"):
        replay(fills_of((1.0, 2.0, 100.0, 1.0)).drop(columns="fee"))


@pytest.mark.slow
def test_the_command_replays_an_export_and_names_the_first_difference(capsys, tmp_path):
    ledger = tmp_path / "ledger.csv"
    ledger.write_text(
        "time,term,amount\n2023-01-01T03:00:00Z,fees,-4.116696428480001\n"
        "2023-01-01T04:00:00Z,fees,-1.9\n", encoding="utf-8",
    )  # fmt: skip
    words = ["replay", "--fills", "examples/fills.csv", "--to", "2023-01-03", "--ledger", ledger]
    shown = kit.ask(capsys, *words, "--no-save", code=1)  # the books differ
    first = shown["differences"][0]
    assert (pd.Timestamp(first["time"]).hour, first["term"]) == (4, "fees")

    shutil.copy("examples/fills.csv", tmp_path)  # paths of a file are relative to it
    file = tmp_path / "live.toml"
    file.write_text('[replay]\nfills = "fills.csv"\nledger = "ledger.csv"\n', encoding="utf-8")
    results = tmp_path / "results"
    code, out, _ = kit.call(capsys, "replay", file, "--to", "2023-01-03", "--results", results)
    assert code == 1
    assert len([*results.iterdir()]) == 1
    assert "2023-01-01 04:00:00+00:00  fees" in out

    (tmp_path / "odd.csv").write_text("a\nb\n1,2\n", encoding="utf-8")
    for name in ("none.csv", tmp_path / "odd.csv"):
        code, _, err = kit.call(capsys, "replay", "--fills", name, "--no-save")
        assert code == 2
        assert Path(name).name in err


def test_a_liquidation_at_the_gap_is_replayed_after_the_interest():
    """A pays funding at the open of bar 2, where both are liquidated: A's loss of 1,000 leaves a
    balance of -150 until B's gain is realized, which never pays interest."""
    funding = pd.DataFrame({"rate": [0.001]}, index=START + pd.to_timedelta([2], unit="h"))
    first = [kit.flat(100), kit.flat(100)]
    falling = kit.make_market([*first, *[kit.flat(80)] * 2], str(START), funding=funding)
    milder = kit.make_market([*first, *[kit.flat(95)] * 2], str(START))
    markets = bt.Markets({"A": falling, "B": milder})
    signal = pd.DataFrame({"A": 1.0, "B": -0.6}, index=markets.times)
    venue = kit.make_venue().override({"interest_on": "balance", "borrow_rate": 9.0})
    account = bt.Account(capital=1_000.0, after_liquidation="halt")
    test = bt.Backtest(markets, venue=venue, account=account)

    run = test.replace(signal=signal).run(kit.Hold(5.0), compile=False)
    assert run.fills["step"].tolist() == [5, 5, 4, 4]

    again = test.replay(run.fills)
    assert again.fills["step"].tolist() == [5, 5, 4, 4]
    for name in ("equity", "interest"):
        assert again.of_account(name) == pytest.approx(run.of_account(name), abs=1e-9)
