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
ROW = {
    "ccxt": [{"timestamp": MS, "symbol": "BTC/USDT:USDT", "side": "sell", "amount": 0.5,
              "price": 100.0, "fee": {"cost": 0.05, "currency": "USDT"}}],
    "named": [{"time": "2023-11-14T22:13:20Z", "instrument": "BTCUSDT", "quantity": -0.5,
               "price": 100.0, "fee": 0.05, "fee_currency": "USDT"}],
}  # fmt: skip
IN_USDT, IN_BNB = {"cost": 2.0, "currency": "USDT"}, {"cost": 0.01, "currency": "BNB"}


def replay_case(case: Any) -> tuple[Any, Any]:
    given = case.for_engine(bt)
    run = run_engine(case)
    given.pop("signal")
    changes = {"flows": run.transfers if len(run.transfers) else None, "reserve": 0.0}
    given["account"] = replace(given["account"], **changes, top_up_to=None)
    return run, ask_test("replay", given.pop("market"), run.fills, **given)


def read_term(result: Any, name: str) -> np.ndarray:
    """Return a term of the account; impact is part of slippage, as a reference has neither."""
    more = result.of_account("impact") if name == "slippage" else 0.0
    return np.asarray(result.of_account(name) + more)


def measure_scale(run: Any) -> np.ndarray:
    equity, gross = run.of_account("equity"), np.abs(run.notionals)
    held = np.nan_to_num(gross).sum(axis=1)
    traded = np.cumsum(np.abs(run.of_account("price_pnl")))
    return np.maximum.accumulate(np.maximum(np.maximum(equity, held), traded)) + 1e-300


def compare(case: Any) -> list[str]:
    """Return where the replay is off the run by more than 1e-9."""
    run, again = replay_case(case)
    scale, wrong = measure_scale(run), []
    for name in ("equity", *TERMS):
        mine, theirs = read_term(again, name), read_term(run, name)
        off = np.flatnonzero(~(np.abs(mine - theirs) <= 1e-9 * scale))
        wrong += [f"seed {case.seed}, bar {t} {name}: {mine[t]}, run {theirs[t]}" for t in off[:1]]
    return wrong


@pytest.mark.parametrize("make", [make_exit_case, make_full_case, make_limit_case])
@pytest.mark.parametrize("seeds", [range(2), *kit.slow([range(2, 50), range(50, 150)])], ids=str)
def test_the_fills_of_a_run_give_its_account(make, seeds, monkeypatch):
    """Equity and terms at every bar; takeovers, forfeited margin and bad debt are among them."""
    trust_data(monkeypatch)
    wrong = [text for seed in seeds for text in compare(make(seed))]
    assert not wrong, "\n".join(wrong)


def fills_of(*rows: tuple[float, float, float, float]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["hours", "quantity", "price", "fee"])
    nanoseconds = (table.pop("hours") * 3_600e9).round().astype("int64")
    table["time"] = START + pd.to_timedelta(nanoseconds, unit="ns")
    return table


def replay(fills: pd.DataFrame, market: Any = MARKET, **terms: Any) -> Any:
    """Replay fills of an account of 1,000 without costs of its own."""
    return ask_test(
        "replay", market, fills, **{"venue": venue_of(), "account": account_of()} | terms
    )


def test_two_fills_by_hand():
    """Buy 2 at 100 for a fee of 1, sell 1 at 108 inside the bar that rises from 100 to 110."""
    found = replay(fills_of((1.0, 2.0, 100.0, 1.0), (2.5, -1.0, 108.0, 0.5)))
    equity = found.of_account("equity").tolist()
    assert equity == pytest.approx([1_000.0, 999.0, 999.0 + 8.0 - 0.5 + 10.0, 1_016.5, 1_016.5])
    assert found.fills["quantity"].tolist() == [2.0, -1.0]
    assert found.fills["kind"].tolist() == ["order", "order"]


def test_a_fill_before_a_settlement_has_moved_the_position():
    """Funding of 1 % at 02:00 on 110: sold a second before, nothing is paid; at 02:00 it is."""
    market = market_of(100.0, 100.0, 100.0, 100.0, funding=[(2.0, 0.01)])
    paid = []
    for hours in (2.0 - 1.0 / 3_600.0, 2.0):
        found = replay(fills_of((1.0, 2.0, 100.0, 0.0), (hours, -2.0, 100.0, 0.0)), market)
        paid.append(found.metrics["funding"])
    assert paid == pytest.approx([0.0, 2.0])


def test_a_replay_begins_where_a_snapshot_says():
    held = {"market": {"quantity": 2.0, "entry": 90.0}}
    start = bt.AccountSnapshot(equity=500.0, positions=held, time=START + pd.Timedelta("2h"))
    found = replay(fills_of((3.0, -2.0, 110.0, 0.0)), start=start)
    assert found.of_account("equity").tolist() == pytest.approx([520.0, 520.0, 520.0])


def run_sample() -> Any:
    market = bt.Market.sample(bars=150)
    terms = {"venue": kit.AT_BINANCE["venue"], "account": bt.Account()}
    return bt.run(market, VolTarget(), **terms, compile=False), market, terms


def test_a_fill_left_out_is_found_at_its_bar():
    run, market, terms = run_sample()
    fills = run.fills
    equity = pd.Series(run.of_account("equity"), index=run.bars.index + pd.Timedelta("1h"))
    assert bt.Backtest(market, **terms).replay(fills).reconcile(equity).empty
    for k in (0, 9, len(fills) - 2):
        found = (
            bt.Backtest(market, **terms)
            .replay(fills.drop(index=k))
            .reconcile(equity, tolerance=1e-9)
        )
        assert found.index[0] == fills["time"][k]
    doubled = pd.concat([fills, fills.iloc[[3]]])
    found = bt.Backtest(market, **terms).replay(doubled).reconcile(equity, tolerance=1e-9)
    assert found.index[0] == fills["time"][3]


def test_the_term_of_a_ledger_that_differs_is_named():
    run, market, terms = run_sample()
    again = bt.Backtest(market, **terms).replay(run.fills)
    events = run.events[run.events["kind"].isin(["fee", "funding"])]
    term = events["kind"].astype(str).replace("fee", "fees")
    ledger = pd.DataFrame({"time": events["time"], "term": term, "amount": -events["amount"]})
    assert again.reconcile(ledger).empty
    row = int(np.flatnonzero(ledger["term"] == "funding")[1])
    ledger.loc[ledger.index[row], "amount"] *= 2.0
    found = again.reconcile(ledger)
    assert (found.index[0], found["term"].tolist()) == (events["time"].iloc[row], ["funding"])
    assert found["difference"].tolist() == pytest.approx(found["ours"].tolist())


@pytest.mark.parametrize("source", ROW)
@pytest.mark.parametrize("form", ["list", "csv", "json"])
def test_fills_are_read(source, form, tmp_path):
    if source == "ccxt" and form == "csv":
        form = "json"  # its fees are tables
    given: Any = ROW[source]
    if form != "list":
        given = tmp_path / f"fills.{form}"
        text = json.dumps(ROW[source]) if form == "json" else pd.DataFrame(ROW[source]).to_csv()
        given.write_text(text, encoding="utf-8")
    found = bt.read_fills(given)
    assert len(found) == 1
    row = found.iloc[0]
    assert row["time"] == pd.Timestamp(MS, unit="ms", tz="UTC")
    assert row[["instrument", "quantity", "price", "fee", "fee_currency"]].tolist() == [
        "BTCUSDT", -0.5, 100.0, 0.05, "USDT"]  # fmt: skip


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
    found = bt.read_fills([trade(**given)]).iloc[0]
    assert (found["fee"], found["fee_currency"]) == (fee, currency)


@pytest.mark.parametrize(("rows", "words"), [
    ([trade(fees=[IN_USDT, IN_BNB])], "in one currency, got 'USDT' and 'BNB' (row 0 of fills)"),
    ([trade(fee="{'cost': 2}")], "a mapping of cost and currency, got"),
    ([trade(), trade()], "a trade may have one row, got '1' of BTC/USDT:USDT again (row 1"),
    ([trade(), trade(id="2", symbol="BTC/USDT")], "may be there once, got 'BTC/USDT:USDT' and"),
    ([{"time": MS, "quantity": 1.0, "price": 1.0, "fees": 2.0}], "must be called 'fee'"),
    ([{"time": "03/04/2024 10:00", "quantity": 1.0, "price": 1.0}], "got '03/04/2024 10:00' in 1"),
    ([{"time": "24-04-03", "quantity": 1.0, "price": 1.0}], "got '24-04-03' in 1"),
    ([{"time": "2024-04-03", "quantity": 1.0, "price": 1.0}], "must have a time zone"),
], ids=range(8))  # fmt: skip
def test_fills_that_would_be_guessed_are_refused(rows, words):
    kit.check_refused(lambda: bt.read_fills(rows), words)


def test_files_of_fills_and_ledgers_have_a_zone_or_are_given_one(tmp_path):
    fills, ledger = tmp_path / "fills.csv", tmp_path / "ledger.csv"
    market = bt.Market.sample(bars=6)
    row = f"2023-01-01 02:00,0.1,{market.open[1]},2"
    fills.write_text(f"time,quantity,price,fee\n{row}\n", encoding="utf-8")
    ledger.write_text("time,term,amount\n2023-01-01 02:00,fees,-2\n", encoding="utf-8")
    kit.check_refused(lambda: bt.read_fills(fills), "timezone='UTC' reads them as UTC")
    found = bt.read_fills(fills, timezone="Etc/GMT-1")
    assert found["time"][0] == market.times[1]
    again = ask_test("replay", market, found, **LIVE)
    kit.check_refused(lambda: again.reconcile(ledger), "timezone='UTC' reads them as UTC")
    assert "fees" not in again.reconcile(ledger, timezone="Etc/GMT-1")["term"].tolist()


def replay_fee(name: str, venue: str | bt.Venue, cost: float, currency: str) -> float:
    """Replay a fill of ccxt with a fee at 60,000, as the account books it."""
    market = market_of(*[60_000.0] * 4)
    market = bt.Market.from_frames(market.bars(), instrument=name)
    own = trade(timestamp=int(START.timestamp() * 1_000) + 3_600_000, symbol=name, side="buy",
                amount=600.0, price=60_000.0, fee={"cost": cost, "currency": currency})  # fmt: skip
    found = bt.Backtest(market, venue=venue, account=bt.Account(capital=1e9)).replay(
        bt.read_fills([own])
    )
    return found.metrics["fees"]


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


def test_a_venue_without_a_currency_takes_that_of_the_name():
    """BNBUSD, DOTUSD and XBTUSD are USD pairs; of QQBUSD neither QQB nor QQ is known."""
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT").override({"contract.settles": None})
    for name in ("BNBUSD", "DOTUSD", "SHIBUSD", "XBTUSD", "LTCUSD"):
        assert replay_fee(name, venue, 0.05, "USD") == 0.05
    for name in ("QQBUSD", "market"):
        words = "give venue.override({'contract.settles': 'USDT'})"
        kit.check_refused(lambda name=name: replay_fee(name, venue, 0.05, "USDT"), words)
        assert replay_fee(name, venue.override({"contract.settles": "USDT"}), 0.05, "USDT") == 0.05
        assert replay_fee(name, venue, 0.05, "") == 0.05


def test_xbt_of_a_name_is_the_btc_in_which_its_venue_settles():
    whole = market_of(*[100.0] * 4)
    names = {"XBTUSD": "bitmex:XBTUSD", "BTCUSD": "bybit-inverse:BTCUSD"}
    markets = bt.Markets({
        name: bt.Market.from_frames(whole.bars(), instrument=name) for name in names
    })  # fmt: skip
    venues = {name: bt.Venue.preset(*text.split(":")) for name, text in names.items()}
    given: Any = {"venue": venues, "account": bt.Account(capital=100.0), "compile": False}
    run = bt.run(markets, kit.Hold(0.5), **given)
    assert set(run.fills["fee_currency"]) == {"BTC"}


def test_the_fills_of_a_run_written_and_read_back_are_its_account(tmp_path):
    run, market, terms = run_sample()
    assert set(run.fills["fee_currency"]) == {"USDT"}
    for name, fills in (("own.csv", run.fills), ("bare.csv", run.fills.assign(fee_currency=""))):
        fills.to_csv(tmp_path / name, index=False)
        again = bt.Backtest(market, **terms).replay(bt.read_fills(tmp_path / name))
        assert np.array_equal(again.of_account("equity"), run.of_account("equity"))


def test_no_fills_are_read_and_those_without_fees_are_named():
    assert replay(bt.read_fills([])).bars["equity"].nunique() == 1
    with pytest.warns(UserWarning, match="1 fills have no fee"):
        replay(fills_of((1.0, 2.0, 100.0, 1.0)).drop(columns="fee"))


@pytest.mark.slow
def test_the_command_replays_an_export_and_names_the_first_difference(capsys, tmp_path):
    ledger = tmp_path / "ledger.csv"
    ledger.write_text(
        "time,term,amount\n2023-01-01T03:00:00Z,fees,-4.116696428480001\n"
        "2023-01-01T04:00:00Z,fees,-1.9\n", encoding="utf-8",
    )  # fmt: skip
    given = ["replay", "--fills", "examples/fills.csv", "--to", "2023-01-03", "--ledger", ledger]
    found = kit.ask(capsys, *given, "--no-save", code=1)  # the books differ
    first = found["differences"][0]
    assert (pd.Timestamp(first["time"]).hour, first["term"]) == (4, "fees")
    shutil.copy("examples/fills.csv", tmp_path)  # paths of a file are relative to it
    file = tmp_path / "live.toml"
    file.write_text('[replay]\nfills = "fills.csv"\nledger = "ledger.csv"\n', encoding="utf-8")
    code, out, _ = kit.call(
        capsys, "replay", file, "--to", "2023-01-03", "--results", tmp_path / "results"
    )
    assert code == 1
    assert len([*(tmp_path / "results").iterdir()]) == 1
    assert "2023-01-01 04:00:00+00:00  fees" in out
    (tmp_path / "odd.csv").write_text("a\nb\n1,2\n", encoding="utf-8")
    for name in ("none.csv", tmp_path / "odd.csv"):
        code, _, err = kit.call(capsys, "replay", "--fills", name, "--no-save")
        assert (code, Path(name).name in err) == (2, True)


def test_a_liquidation_at_the_gap_is_replayed_after_the_interest():
    """A pays funding at the open of bar 2, where both are liquidated: A's loss of 1,000 leaves a
    balance of -150 until B's gain is realized, which never pays interest."""
    funding = pd.DataFrame({"rate": [0.001]}, index=START + pd.to_timedelta([2], unit="h"))
    fall = kit.make_market(
        [kit.flat(100), kit.flat(100), *[kit.flat(80)] * 2], str(START), funding=funding
    )
    rise = kit.make_market([kit.flat(100), kit.flat(100), *[kit.flat(95)] * 2], str(START))
    venue = kit.make_venue().override({"interest_on": "balance", "borrow_rate": 9.0})
    given = {"venue": venue, "account": bt.Account(capital=1_000.0, after_liquidation="halt")}
    markets = bt.Markets({"A": fall, "B": rise})
    signal = pd.DataFrame({"A": 1.0, "B": -0.6}, index=markets.times)
    run = bt.run(markets, kit.Hold(5.0), signal=signal, **given, compile=False)
    assert run.fills["step"].tolist() == [5, 5, 4, 4]
    again = bt.Backtest(markets, **given).replay(run.fills)
    for name in ("equity", "interest"):
        assert again.of_account(name) == pytest.approx(run.of_account(name), abs=1e-9)
    assert again.fills["step"].tolist() == [5, 5, 4, 4]
