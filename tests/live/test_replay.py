"""A replay of a run's own fills is the run, and finds what is missing."""

import json
import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.strategies import VolTarget
from tests.agreement import Scripted, run_engine, trust_data
from tests.cases import Case, make_exit_case
from tests.commands import call
from tests.portfolio_cases import make_full_case, make_limit_case
from tests.scenes import account_of, bracket, isolated, market_of, venue_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
TERMS = (
    "price_pnl", "fees", "slippage", "funding", "interest", "liquidation_loss", "flows", "bad_debt",
    "collateral_pnl",
)  # fmt: skip


def replay_case(case: Any) -> tuple[Any, Any]:
    """Return the run of a case, and the replay of its fills."""
    given = case.for_engine(bt)
    if isinstance(case, Case):
        run = bt.run(policy=Scripted(), compile=False, **given)
    else:
        run = run_engine(case)
    given.pop("signal")
    changes = {"flows": run.transfers if len(run.transfers) else None, "reserve": 0.0}
    given["account"] = replace(given["account"], **changes, top_up_to=None)
    return run, bt.replay(fills=run.fills, **given)


def read_term(result: Any, name: str) -> np.ndarray:
    """Return a term of the account; impact is part of slippage, as a reference has neither."""
    more = result.of_account("impact") if name == "slippage" else 0.0
    return np.asarray(result.of_account(name) + more)


def measure_scale(run: Any) -> np.ndarray:
    """Return what rounding is measured by: the larger of equity and what was traded and held."""
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


def list_failures(make: Any, seeds: Any) -> list[str]:
    """Return what a replay says would be liquidated in accounts that never were."""
    wrong = []
    for seed in seeds:
        run, again = replay_case(make(seed))
        if "liquidation" not in set(run.events["kind"]):
            wrong += [f"{make.__name__} {seed}: {row}" for row in again.would_liquidate.index]
    return wrong


@pytest.mark.parametrize(("make", "seed"), [
    (make_exit_case, 6),  # an order at the close of a bar that it did not live through
    (make_full_case, 4),  # margin that the wallet adds
    (make_full_case, 27),  # an equity stop, which closes all positions at one place
])  # fmt: skip
def test_what_was_never_liquidated_would_not_be(make, seed, monkeypatch):
    trust_data(monkeypatch)
    assert not list_failures(make, [seed])


@pytest.mark.slow
@pytest.mark.parametrize("make", [make_exit_case, make_full_case])
def test_accounts_without_a_liquidation_would_have_none(make, monkeypatch):
    trust_data(monkeypatch)
    assert not list_failures(make, range(45))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("make", [make_exit_case, make_full_case, make_limit_case])
def test_the_fills_of_a_run_give_its_account(make, seed, monkeypatch):
    trust_data(monkeypatch)
    assert not compare(make(seed))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 150, 50))
def test_the_fills_of_300_accounts_give_them(first, monkeypatch):
    """Equity and terms at every bar; takeovers, forfeited margin and bad debt are among them."""
    trust_data(monkeypatch)
    cases = [
        make(seed) for seed in range(first, first + 50) for make in (make_exit_case, make_full_case)
    ]
    wrong = [text for case in cases for text in compare(case)]
    assert not wrong, "\n".join(wrong)


# ------------------------------------------------------------------------------------ by hand

MARKET = market_of(100.0, 100.0, (100.0, 112.0, 99.0, 110.0), 110.0, 110.0)
START = MARKET.times[0]


def fills_of(*rows: tuple[float, float, float, float]) -> pd.DataFrame:
    """Return fills of (hours, quantity, price, fee)."""
    table = pd.DataFrame(rows, columns=["hours", "quantity", "price", "fee"])
    nanoseconds = (table.pop("hours") * 3_600e9).round().astype("int64")
    table["time"] = START + pd.to_timedelta(nanoseconds, unit="ns")
    return table


def replay(fills: pd.DataFrame, market: Any = MARKET, **terms: Any) -> Any:
    """Replay fills of an account of 1,000 without costs of its own."""
    return bt.replay(market, fills, **({"venue": venue_of(), "account": account_of()} | terms))


def test_two_fills_by_hand():
    """Buy 2 at 100 for a fee of 1, sell 1 at 108 inside the bar that rises from 100 to 110."""
    found = replay(fills_of((1.0, 2.0, 100.0, 1.0), (2.5, -1.0, 108.0, 0.5)))
    equity = found.of_account("equity").tolist()
    assert equity == pytest.approx([1_000.0, 999.0, 999.0 + 8.0 - 0.5 + 10.0, 1_016.5, 1_016.5])
    assert found.fills["quantity"].tolist() == [2.0, -1.0]
    assert found.fills["kind"].tolist() == ["order", "order"]
    assert found.would_liquidate.empty


def test_a_fill_before_a_settlement_has_moved_the_position():
    """Funding of 1 % at 02:00 on 110: sold a second before, nothing is paid; at 02:00 it is."""
    market = market_of(100.0, 100.0, 100.0, 100.0, funding=[(2.0, 0.01)])
    paid = []
    for hours in (2.0 - 1.0 / 3_600.0, 2.0):
        found = replay(fills_of((1.0, 2.0, 100.0, 0.0), (hours, -2.0, 100.0, 0.0)), market)
        paid.append(found.metrics["funding"])
    assert paid == pytest.approx([0.0, 2.0])


def test_it_goes_on_where_a_venue_would_liquidate():
    """15x long 100: the fall to 95 leaves 250 of margin, under 5 % of the notional of 14,250."""
    market = market_of(100.0, 100.0, (100.0, 100.0, 95.0, 100.0), 100.0)
    found = replay(fills_of((1.0, 150.0, 100.0, 0.0)), market)
    row = found.would_liquidate.iloc[0]
    assert row["time"] == START + pd.Timedelta("3h") - pd.Timedelta(1, unit="ns")
    assert row["shortfall"] == pytest.approx(0.05 * 150.0 * 95.0 - 250.0)
    assert found.of_account("equity")[-1] == 1_000.0


def test_an_order_at_the_close_does_not_live_its_bar():
    """15x long 100 is bought at the close of the bar that falls to 95."""
    market = market_of(100.0, 100.0, (100.0, 100.0, 95.0, 100.0), 100.0)
    almost = 3.0 - 1e-9 / 3_600.0
    assert replay(fills_of((almost, 150.0, 100.0, 0.0)), market).would_liquidate.empty


@pytest.mark.parametrize(("hours", "close"), [
    (3.0 - 1e-9 / 3_600.0, 40.0),  # bought at the close, where 10 coins are worth 400
    (1.0, 100.0),  # held while they fall to 400 and rise again
])  # fmt: skip
def test_collateral_is_tested_at_the_price_of_its_moment(hours, close):
    """150 of 100 need 750: 250 and 10 coins of 100 are enough, 250 and 400 lack 100."""
    market = bt.Markets({"A": market_of(100.0, 100.0, 100.0, 100.0)})
    coins = market_of(100.0, 100.0, (100.0, 100.0, 40.0, close), close)
    account = account_of(
        capital=250.0, negative_limit=0.0, collateral=[bt.Collateral("C", 10.0, coins, rate=1.0)]
    )
    fills = fills_of((hours, 150.0, 100.0, 0.0)).assign(instrument="A")
    found = replay(fills, market, account=account).would_liquidate
    row = found.iloc[0]
    assert row["time"] == START + pd.Timedelta("3h") - pd.Timedelta(1, unit="ns")
    assert row["shortfall"] == pytest.approx(100.0)


@pytest.mark.parametrize(("low", "margin", "shortfall"), [
    (96.0, 400.0, []),  # 200 - 50 * 4 is under 2 % of 4,800: the wallet adds 200
    (80.0, 1_000.0, [0.02 * 4_000.0]),  # all of 1,000 is lost, and nothing backs the requirement
])  # fmt: skip
def test_the_wallet_adds_margin_as_in_a_run(low, margin, shortfall):
    """Long 50 from 100 at a setting of 25 posts 200 of 1,000."""
    market = market_of(100.0, 100.0, (100.0, 100.0, low, 100.0), 100.0)
    terms = {
        "venue": venue_of(brackets=[bracket(leverage=25.0, rate=0.02)]),
        "account": isolated(25.0, auto_margin=True),
    }
    found = replay(fills_of((1.0, 50.0, 100.0, 0.0)), market, **terms)
    assert found.of_positions("margin")[-1].tolist() == pytest.approx([margin])
    assert found.would_liquidate["shortfall"].tolist() == pytest.approx(shortfall)


@pytest.mark.parametrize(("kind", "price", "shortfall"), [
    ("order", 99.0, [0.05 * 150.0 * 95.0 - 250.0]),
    ("stop", 99.0, []),  # what is held at the low was stopped before it
    ("stop", 110.0, [0.05 * 150.0 * 95.0 - 250.0]),  # a profit was taken, who knows when
])  # fmt: skip
def test_what_was_held_at_the_open_is_tested_at_the_extremes(kind, price, shortfall):
    """15x long 100 is sold inside the bar that falls to 95: nothing is held after it."""
    market = market_of(100.0, 100.0, (100.0, 112.0, 95.0, 100.0), 100.0)
    fills = fills_of((1.0, 150.0, 100.0, 0.0), (2.5, -150.0, price, 0.0))
    found = replay(fills.assign(kind=["order", kind]), market).would_liquidate
    assert found["shortfall"].tolist() == pytest.approx(shortfall)
    assert (found["time"] == START + pd.Timedelta("2.5h")).all()


def test_a_replay_begins_where_a_snapshot_says():
    held = {"market": {"quantity": 2.0, "entry": 90.0}}
    start = bt.AccountSnapshot(equity=500.0, positions=held, time=START + pd.Timedelta("2h"))
    found = replay(fills_of((3.0, -2.0, 110.0, 0.0)), start=start)
    assert found.of_account("equity").tolist() == pytest.approx([520.0, 520.0, 520.0])


# ------------------------------------------------------------------------------------ reconcile


def run_sample() -> Any:
    """Return a run with funding and many fills."""
    market = bt.Market.sample(bars=150)
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT")
    terms = {"venue": venue, "account": bt.Account(capital=10_000)}
    return bt.run(market, VolTarget(), **terms, compile=False), market, terms


def test_a_fill_left_out_is_found_at_its_bar():
    run, market, terms = run_sample()
    fills = run.fills
    equity = pd.Series(run.of_account("equity"), index=run.bars.index + pd.Timedelta("1h"))
    whole = bt.replay(market, fills, **terms)
    assert whole.reconcile(equity).time is None
    for k in (0, 9, len(fills) - 2):
        found = bt.replay(market, fills.drop(index=k), **terms).reconcile(equity, tolerance=1e-9)
        assert found.time == fills["time"][k]
    doubled = pd.concat([fills, fills.iloc[[3]]])
    found = bt.replay(market, doubled, **terms).reconcile(equity, tolerance=1e-9)
    assert found.time == fills["time"][3]


def test_the_first_term_of_a_ledger_that_differs_is_named():
    run, market, terms = run_sample()
    again = bt.replay(market, run.fills, **terms)
    events = run.events[run.events["kind"].isin(["fee", "funding"])]
    ledger = pd.DataFrame({
        "time": events["time"], "term": events["kind"].astype(str).replace("fee", "fees"),
        "amount": -events["amount"],
    })  # fmt: skip
    assert again.reconcile(ledger).time is None
    row = int(np.flatnonzero(ledger["term"] == "funding")[1])
    ledger.loc[ledger.index[row], "amount"] *= 2.0
    found = again.reconcile(ledger)
    assert (found.time, found.term) == (events["time"].iloc[row], "funding")
    assert found.difference == pytest.approx(found.ours)


# ------------------------------------------------------------------------------------ readers

MS = 1_700_000_000_000
ROW = {
    "ccxt": [{"timestamp": MS, "symbol": "BTC/USDT:USDT", "side": "sell", "amount": 0.5,
              "price": 100.0, "fee": {"cost": 0.05, "currency": "USDT"}}],
    "named": [{"time": "2023-11-14T22:13:20Z", "instrument": "BTCUSDT", "quantity": -0.5,
               "price": 100.0, "fee": 0.05, "fee_currency": "USDT"}],
}  # fmt: skip


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


def test_whole_times_of_fills_are_milliseconds():
    found = bt.read_fills([{**ROW["named"][0], "time": MS}])
    assert found["time"].iloc[0] == pd.Timestamp(MS, unit="ms", tz="UTC")


def test_a_negative_amount_beside_a_side_is_refused():
    with pytest.raises(bt.DataError, match="at least 0, beside its side"):
        bt.read_fills([{**ROW["ccxt"][0], "amount": -0.5}])


def test_no_fills_are_read_and_those_without_fees_are_named():
    assert replay(bt.read_fills([])).bars["equity"].nunique() == 1
    with pytest.warns(UserWarning, match="1 fills have no fee"):
        replay(fills_of((1.0, 2.0, 100.0, 1.0)).drop(columns="fee"))


def test_fills_of_a_saved_result_are_the_same(tmp_path):
    run, _, _ = run_sample()
    loaded = bt.Result.load(run.save(tmp_path))
    pd.testing.assert_frame_equal(loaded.fills, run.fills)


@pytest.mark.slow
def test_the_command_replays_an_export_and_names_the_first_difference(capsys, tmp_path):
    ledger = tmp_path / "ledger.csv"
    ledger.write_text(
        "time,term,amount\n2023-01-01T03:00:00Z,fees,-4.116696428480001\n"
        "2023-01-01T04:00:00Z,fees,-1.9\n", encoding="utf-8",
    )  # fmt: skip
    given = ["replay", "--fills", "examples/fills.csv", "--to", "2023-01-03", "--ledger", ledger]
    code, out, _ = call(capsys, *given, "--json", "--no-save")
    found = json.loads(out)
    assert code == 1  # the books differ
    assert (found["ledger"]["time"], found["ledger"]["term"]) == (
        "2023-01-01T04:00:00+00:00",
        "fees",
    )
    assert found["would_liquidate"] == []
    shutil.copy("examples/fills.csv", tmp_path)  # paths of a file are relative to it
    file = tmp_path / "live.toml"
    file.write_text('[replay]\nfills = "fills.csv"\nledger = "ledger.csv"\n', encoding="utf-8")
    code, out, _ = call(
        capsys, "replay", file, "--to", "2023-01-03", "--results", tmp_path / "results"
    )
    assert code == 1
    assert len([*(tmp_path / "results").iterdir()]) == 1
    assert "first difference in the bar of 2023-01-01 04:00 UTC: fees" in out
    code, _, err = call(capsys, "replay", "--fills", "none.csv", "--no-save")
    assert (code, "readable CSV" in err) == (2, True)


@pytest.mark.parametrize("mode", ["cross", "isolated"])
def test_a_replay_takes_top_ups_from_the_reserve(mode):
    setting = {} if mode == "cross" else {"venue_leverage": 40.0}
    account = bt.Account(
        capital=1000.0, reserve=500.0, margin_call=0.12, top_up_to=0.05,
        margin=mode, **setting,
    )  # fmt: skip
    terms = {"venue": bt.Venue.preset("binance-usdm", "BTCUSDT"), "account": account}
    market = bt.Market.sample(bars=150)
    run = bt.run(market, bt.strategies.Constant(leverage=25.0), compile=False, **terms)
    assert run.top_ups.sum() > 0.0
    again = bt.replay(market, run.fills, top_ups=run.top_ups, **terms)
    for name in ("equity", "reserve"):
        np.testing.assert_allclose(again.of_account(name), run.of_account(name), atol=1e-9)
    with pytest.raises(bt.ParameterError, match="top_ups come from the reserve, 500, got"):
        bt.replay(market, run.fills, top_ups=10.0 * run.top_ups, **terms)
    with pytest.raises(bt.ParameterError, match="top_ups"):
        bt.replay(market, run.fills, top_ups=-run.top_ups, **terms)
