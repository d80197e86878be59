"""Trades of a run: by hand, against the ledger on random accounts, and against vectorbt."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.account.events import TRADED, Event
from backtest.results.trade_fills import match_first_in, split_trades
from backtest.strategies import Constant
from tests.agreement import run_engine, trust_data
from tests.cases import (
    make_case,
    make_exit_case,
    make_full_case,
    make_mode_case,
    make_portfolio_case,
)
from tests.engine.test_signals import PLAIN, TERMS, make_portfolio
from tests.kit import Hold, check_refused, flat, make_market, make_venue, simulate_pair

HOURS = pd.date_range("2024-01-01", periods=8, freq="1h", tz="UTC")
SPLIT = ("price_pnl", "fees", "slippage", "impact", "funding", "expense", "liquidation_loss")


def run_by_hand(**account: Any) -> bt.Result:
    """Return long 1 turn at 100, flipped at 110 and closed at 99, fee 0.1 %, funding 1 %. Targets
    at the closes of bars 0 to 7: 1, 1, 1, -1, -1, 0, 0, 0. They fill at the next opens."""
    rows = [flat(100), flat(100), (100, 112, 95, 110), flat(110), (110, 115, 104, 105),
            (105, 106, 98, 99), flat(99), flat(99)]  # fmt: skip
    market = make_market(rows, funding=pd.DataFrame({"rate": [0.01]}, index=HOURS[3:4]))
    signal = np.array([1.0, 1, 1, -1, -1, 0, 0, 0])

    return bt.run(
        market,
        Constant(leverage=1.0),
        signal=signal,
        venue=make_venue(taker=0.001, lot=0.1),
        account=bt.Account(**{"capital": 1_000.0, "band": 0.5, **account}),
        compile=False,
    )


def test_two_trades_by_hand():
    """Long 9.9 at 100 (10 less the fee at 1x is cut by no cap), funding 1 % of 9.9 x 110 in bar 3.
    The flip sells what is held and as much as 1x of the equity; its fee is shared by quantity."""
    result = run_by_hand()
    fills = result.events[result.events["kind"] == "fill"]
    long = float(fills["quantity"].iloc[0])
    short = -float(result.positions["quantity"].iloc[4])
    assert len(fills) == 3

    first, second = result.trades.to_dict("records")
    assert (first["opened"], first["ended"]) == ("order", "order")
    assert (first["side"], first["entry_price"], first["exit_price"]) == ("long", 100.0, 110.0)
    assert (first["entry_time"], first["exit_time"]) == (HOURS[1], HOURS[4])
    assert (first["bars"], first["quantity"]) == (3, long)
    assert first["price_pnl"] == pytest.approx(long * 10.0)
    assert first["funding"] == pytest.approx(long * 110.0 * 0.01)
    assert first["fees"] == pytest.approx(0.001 * long * (100.0 + 110.0))
    assert first["profit"] == pytest.approx(first["price_pnl"] - first["fees"] - first["funding"])
    assert first["return"] == pytest.approx(first["profit"] / (long * 100.0))
    peak = long * 110.0 / result.bars["equity"].iloc[3]
    assert first["peak_leverage"] == pytest.approx(peak, rel=1e-12)
    # bars 1 to 3 whole: 95 and 112; the fill at the open of bar 4 is at 110
    assert (first["mae_last"], first["mfe_last"]) == pytest.approx((-0.05, 0.12))

    assert (second["opened"], second["ended"]) == ("order", "order")
    assert (second["side"], second["quantity"]) == ("short", pytest.approx(short))
    assert second["fees"] == pytest.approx(0.001 * short * (110.0 + 99.0))
    assert second["price_pnl"] == pytest.approx(short * 11.0)
    # bars 4 and 5 whole: up to 115, down to 98
    assert (second["mae_mark"], second["mfe_mark"]) == pytest.approx((-5 / 110, 12 / 110))


def test_measures_by_hand():
    trades = run_by_hand().trades
    long, short = trades["profit"]

    measures = trades.measures
    assert measures["expectancy"] == pytest.approx((long + short) / 2)
    assert (measures["trades"], measures["win_rate"], measures["open"]) == (2.0, 1.0, 0.0)
    assert math.isnan(measures["profit_factor"])
    assert measures["time_in_market"] == 5 / 8

    assert trades.measures_by("side").loc["short", "expectancy"] == pytest.approx(short)
    assert trades.measures_by("year").index.tolist() == [pd.Timestamp("2024", tz="UTC")]
    assert type(trades[["profit"]]) is pd.DataFrame


def test_lots_are_closed_first_in_first_out_by_hand():
    """2 and 1 are bought, 1 sold, then 4: two short remain until 2 are bought."""
    turns = split_trades(np.array([2.0, 1.0, -1.0, -4.0, 2.0]))
    assert turns.after.tolist() == [2.0, 3.0, 2.0, -2.0, 0.0]

    opened, closed, contracts = match_first_in(turns)
    assert opened.tolist() == [0, 0, 1, 3]
    assert closed.tolist() == [2, 3, 3, 4]
    assert contracts.tolist() == [1.0, 1.0, 1.0, 2.0]


def check_sums(result: bt.Result) -> set[str]:
    """Hold the rows of all views to the ledger, to 1e-9 of turnover; return how trades ended."""
    account = result.record.account
    costs = sum(getattr(account, name) for name in SPLIT[1:])
    gains = account.price_pnl + account.bad_debt + account.collateral_pnl - account.conversion
    gains = gains - account.interest - costs
    start = account.equity[0] - gains[0] - account.flows[0]
    change = account.equity[-1] - start - account.flows.sum()

    kinds = result.events["kind"].isin([event.kind.name for event in TRADED])
    turnover = float(result.events.loc[kinds, "amount"].abs().sum())
    tolerance = 1e-9 * max(turnover, float(np.abs(account.equity).max()), abs(start))

    # The interest that short spot legs pay for coins is in the funding of trades.
    entries = result.entries
    of_positions = (entries["kind"] == Event.INTEREST) & (entries["owner"] >= 0)
    sums = {name: getattr(result.record.positions, name).sum() for name in SPLIT}
    sums["funding"] += entries["amount"][of_positions].sum()

    for view in ("trip", "fifo"):
        trades = result.trades.lots(view)
        profit = trades["profit"].sum() + trades.unallocated.sum()
        assert profit == pytest.approx(change, abs=tolerance)
        for name in SPLIT:
            assert trades[name].sum() == pytest.approx(sums[name], abs=tolerance), (view, name)

        assert not trades.isna().any(axis=None)
        assert (trades[["mae_mark", "mae_last"]] <= 0.0).all(axis=None)
        assert (trades[["mfe_mark", "mfe_last", "bars"]] >= 0.0).all(axis=None)

    return set(result.trades["ended"])


@pytest.mark.parametrize(("seeds", "kinds"), [
    ((0, 5, 17), {"order", "open", "liquidation"}),
    pytest.param(range(120), {"order", "open", "liquidation", "ruin", "delisting", "stop",
                              "take_profit", "trailing_stop", "equity_stop"},
                 marks=pytest.mark.slow),
])  # fmt: skip
def test_trades_add_up_to_the_change_of_equity(seeds, kinds, monkeypatch):
    trust_data(monkeypatch)
    makers = (make_portfolio_case, make_mode_case, make_full_case, make_case, make_exit_case)

    ended: set[str] = set()
    for seed in seeds:
        make = makers[seed % 5]
        ended |= check_sums(run_engine(make(seed)))

    assert kinds <= ended


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["one", "several"])
def test_saved_and_resumed_runs_have_their_trades(tmp_path, kind):
    """A part that went on begins with what it held, at the mark on which the first one ended."""
    pair = simulate_pair(60)
    market = pair if kind == "several" else pair["AAA"]
    account = bt.Account(margin="isolated", stop_loss=0.1, venue_leverage=8.0)
    terms = {"venue": make_venue(taker=0.001), "account": account, "compile": False}
    first = bt.run(market.prefix(30), Hold(2.0), **terms)
    later = bt.run(market, Hold(2.0), resume=first, **terms)
    check_sums(later)
    assert "earlier run" in set(later.trades["opened"])

    lots = later.trades.lots("fifo")
    carried = lots[lots["opened"] == "earlier run"].iloc[0]
    known = first.positions[first.positions["instrument"] == carried["instrument"]]
    assert carried["entry_price"] == pytest.approx(known["mark"].iloc[-1], rel=1e-9)

    loaded = bt.Result.load(later.save(tmp_path)).trades
    for view in ("trip", "fifo"):
        expected = pd.DataFrame(later.trades.lots(view))
        pd.testing.assert_frame_equal(pd.DataFrame(loaded.lots(view)), expected)


@pytest.mark.filterwarnings("ignore:the history of A, B ends")
def test_delistings_and_expiries_end_trades():
    bars = {"A": 6, "B": 4, "C": 6}
    markets = {name: make_market([flat(100)] * n_bars) for name, n_bars in bars.items()}
    expiring = make_venue().override({"contract": {"expires": "2024-01-01 04:00"}})
    venues = {"A": expiring, "B": make_venue(), "C": make_venue()}
    terms = {"account": bt.Account(), "venue": venues, "compile": False}
    result = bt.run(bt.Markets(markets, currency="USDT"), Hold(1.0), **terms)

    ended = dict(zip(result.trades["instrument"], result.trades["ended"], strict=True))
    assert ended == {"A": "expiry", "B": "delisting", "C": "open"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of vectorbt
@pytest.mark.parametrize("signal", [1.0, -1.0, "rsi:6:30:70"])
def test_trades_are_those_of_vectorbt(signal):
    """Round trips are vectorbt's positions."""
    account = bt.Account(band=0.02)
    result = bt.run(PLAIN, Constant(leverage=0.5), account=account, signal=signal, **TERMS)
    theirs = make_portfolio(result).positions.records
    ours = result.trades

    assert len(ours) == len(theirs) > 0
    assert ours["quantity"].to_numpy() == pytest.approx(theirs["size"].to_numpy(), rel=1e-8)

    for name in ("entry_price", "exit_price"):
        assert ours[name].to_numpy() == pytest.approx(theirs[name].to_numpy(), rel=1e-8)

    most = 1e-8 * float((theirs["size"] * theirs["entry_price"]).max())
    fees = theirs["entry_fees"] + theirs["exit_fees"]
    assert ours["fees"].to_numpy() == pytest.approx(fees.to_numpy(), abs=most)
    assert ours["profit"].to_numpy() == pytest.approx(theirs["pnl"].to_numpy(), abs=most)

    entry = pd.DatetimeIndex(result.bars.index)[theirs["entry_idx"].to_numpy()]
    assert ours["entry_time"].tolist() == entry.tolist()


@pytest.mark.parametrize(("do", "message"), [
    (lambda trades: trades.lots("lifo"), "by must be one of trip, fifo"),
    (lambda trades: trades.measures_by(None), "by must be one of"),
])  # fmt: skip
def test_bad_input_is_refused(do, message):
    check_refused(lambda: do(run_by_hand().trades), message, bt.ParameterError)


@pytest.mark.parametrize(("freq", "lost"), [("1D", 3.0), ("1B", 5.0)])
def test_realized_and_paper_gains_and_losses_by_hand(freq, lost):
    """Day 2 is a paper gain, 3 a realized one, 5 a paper loss, 6 neither, 7 a realized loss. The
    fifth day is a Friday: a weekend without bars counts nothing."""
    rows = [flat(100), (100, 101, 99, 100), (103, 106, 102, 105), flat(105), (105, 106, 104, 104),
            (103, 104, 99, 100), (100, 106, 99, 100), flat(100), flat(100)]  # fmt: skip
    has_sessions = freq == "1B"
    days = pd.date_range("2024-01-01", periods=len(rows), freq=freq, tz="UTC")
    bars = pd.DataFrame(rows, columns=["open", "high", "low", "close"], index=days)
    market = bt.Market.from_frames(bars, sessions=has_sessions)
    result = bt.run(
        market,
        Constant(leverage=1.0),
        signal=np.array([1.0, 1, 0, 1, 1, 1, 0, 0, 0]),
        venue=make_venue(),
        account=bt.Account(band=0.5),
        calendar="252" if has_sessions else "365",
    )

    realization = result.trades.realization()
    counts = ["realized_gains", "paper_gains", "realized_losses", "paper_losses"]
    assert realization[counts].tolist() == [1.0, 1.0, 1.0, 1.0]
    assert realization[["pgr", "plr", "standard_error"]].tolist() == [0.5, 0.5, 0.5]
    assert realization[["days_won", "days_lost"]].tolist() == [2.0, lost]


@pytest.mark.parametrize("rule", ["stop_loss", "take_profit"])
def test_a_stop_realizes_losses_and_a_take_profit_gains(rule):
    market = bt.Market.sample(bars=365, interval="1d")
    account = bt.Account(band=0.9, **{rule: 0.06})
    result = bt.run(market, Constant(1.0), venue=make_venue(), account=account, compile=False)

    realization = result.trades.realization()
    gains = realization["pgr"]
    losses = realization["plr"]
    if rule == "stop_loss":
        assert losses > gains
    else:
        assert gains > losses
    assert realization["liquidations"] == realization["expiries"] == 0.0
