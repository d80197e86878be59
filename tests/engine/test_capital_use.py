"""Columns and measures of the use of capital and of carry, by hand and in every kind of account."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.engine import run_record
from backtest.measures.measure_table import PATH
from backtest.measures.tally import flatten_tally, make_tally
from backtest.strategies import Constant
from tests.scenes import (
    NAN,
    Follow,
    account_of,
    bracket,
    is_,
    isolated,
    market_of,
    play,
    series,
    venue_of,
)

LEVELS = [
    bracket(cap=2000.0, leverage=20.0, rate=0.01),
    bracket(floor=2000.0, cap=9000.0, leverage=10.0, rate=0.05),
]
UP = (100.0, 110.0, 100.0, 110.0)
USE = ("initial_margin", "available", "margin_used", "position_leverage", "realized_pnl",
       "unrealized_pnl")  # fmt: skip
HOURS = 24 * 365


def column(result, name):
    return result.bars[name].tolist()


def test_a_cross_position_uses_the_margin_of_its_bracket():
    # 1,000 buys 30 at 100; the close at 110 earns 300; at 110 the target of 1 sells 30 - 1300 / 110
    result = play(100, 100, UP, 110, targets=[3.0, NAN, 1.0, NAN], venue=venue_of(brackets=LEVELS))
    sold = 30 - 1300 / 110
    assert column(result, "initial_margin") == is_([0, 3000 / 10, 3300 / 10, 1300 / 20])
    assert column(result, "available") == is_([1000, 700, 970, 1235])
    assert column(result, "margin_used") == is_([0, 0.3, 330 / 1300, 0.05])
    assert column(result, "position_leverage") == is_([0, 10, 10, 20])
    assert column(result, "unrealized_pnl") == is_([0, 0, 300, 10 * 1300 / 110])
    assert column(result, "realized_pnl") == is_([0, 0, 0, 10 * sold])
    metrics = result.metrics
    assert metrics["mean_margin_used"] == is_((0.3 + 330 / 1300 + 0.05) / 4)
    assert metrics["peak_margin_used"] == is_(0.3)


def test_the_multiplier_and_the_setting_change_the_initial_margin():
    stressed = venue_of(brackets=LEVELS, margin_multiplier=series({0: 1.0, 2: 2.0}))
    result = play(100, 100, 100, targets=[3.0, NAN], venue=stressed)
    assert column(result, "initial_margin") == is_([0, 300, 600])
    setting = account_of(venue_leverage=5.0)
    result = play(100, 100, targets=3.0, venue=venue_of(brackets=LEVELS), account=setting)
    assert column(result, "initial_margin") == is_([0, 3000 / 5])


def test_an_isolated_position_uses_its_posted_margin():
    # 2,000 at a setting of 10 posts 200 and leaves 800 in the wallet; at 110 the notional is 2,200
    result = play(100, 100, UP, targets=[2.0, NAN], account=isolated(10.0))
    assert column(result, "initial_margin") == is_([0, 200, 200])
    assert column(result, "available") == is_([1000, 800, 800])
    assert column(result, "margin_used") == is_([0, 0.2, 200 / 1200])
    assert column(result, "position_leverage") == is_([0, 10, 11])
    assert column(result, "unrealized_pnl") == is_([0, 0, 200])


def test_an_inverse_position_earns_in_coins():
    # 1,000 coins at 100 and 1x: 100,000 contracts of 1 USD; at 125 they earned 1e5 (1/100 - 1/125)
    venue = venue_of(contract={"kind": "inverse"})
    result = play(100, 100, (100, 125, 100, 125), targets=[1.0, NAN], venue=venue)
    assert column(result, "unrealized_pnl") == is_([0, 0, 200])
    assert column(result, "initial_margin") == is_([0, 1000 / 16, 800 / 16])


def test_realized_and_unrealized_profit_add_up():
    rng = np.random.default_rng(5)
    close = 100 * np.exp(np.cumsum(0.03 * rng.standard_normal(200)))
    bars = [(c, 1.02 * c, 0.98 * c, float(c)) for c in map(float, close)]
    targets = rng.uniform(0, 3, 200).tolist()
    signal = np.sign(rng.standard_normal(200))
    result = play(*bars, targets=targets, signal=signal, account=account_of(stop_loss=0.05))
    table = result.bars
    assert (table["realized_pnl"] != 0.0).any()
    together = table["realized_pnl"].cumsum() + table["unrealized_pnl"]
    assert together.to_numpy() == pytest.approx(table["price_pnl"].cumsum().to_numpy(), abs=1e-7)


def test_an_entry_realizes_nothing_and_an_exit_its_fill_against_the_entry():
    # bought 10 at 101, sold at 121 · 0.99; 1 % of slippage on each
    venue = venue_of(slippage={"rate": 0.01})
    bars = [100, 100, (100, 121, 100, 121), 121]
    result = play(*bars, targets=[1.0, NAN, 0.0], venue=venue)
    held = result.bars["position"].iloc[1]
    assert column(result, "unrealized_pnl") == is_([0, -held, held * 20, 0])
    assert column(result, "realized_pnl") == is_([0, 0, 0, held * (121 * 0.99 - 101)])


def test_only_loans_have_a_health_factor():
    assert not {"health_factor", "ltv"} & set(play(100, 100).bars)
    lender = venue_of(interest_on="loan")
    # 30 bought at 100 with 2,000 borrowed; maintenance 5 % of 3,000
    long = play(100, 100, targets=3.0, venue=lender)
    assert column(long, "ltv") == is_([0, 2000 / 3000])
    assert column(long, "health_factor") == is_([math.inf, (3000 - 150) / 2000])
    # 20 sold short for 2,000, with 1,000 of own cash
    short = play(100, 100, targets=2.0, signal=-1.0, venue=lender)
    assert column(short, "ltv") == is_([0, 2000 / 3000])
    assert column(short, "health_factor") == is_([math.inf, 3000 / (2000 + 100)])
    # without debt
    own = play(100, 100, targets=1.0, venue=lender)
    assert column(own, "health_factor") == [math.inf, math.inf]
    # isolated: 3,000 with 300 posted, so 2,700 borrowed
    apart = play(100, 100, targets=3.0, venue=lender, account=isolated(10.0))
    assert column(apart, "ltv")[1] == is_(0.9)


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_the_health_factor_is_1_at_the_liquidation_price(side):
    lender = venue_of(interest_on="loan")
    first = play(100, 100, targets=3.0, signal=side, venue=lender)
    price = float(first.bars["liquidation_price"].iloc[-1])
    near = price * (1 + side * 1e-9)
    bar = (100.0, max(100.0, near), min(100.0, near), near)
    result = play(100, 100, bar, targets=[3.0, NAN], signal=side, venue=lender)
    assert result.metrics["liquidations"] == 0
    assert result.bars["health_factor"].iloc[-1] == pytest.approx(1.0, abs=1e-7)
    assert result.bars["health_factor"].iloc[-1] > 1.0


def test_carry_is_what_funding_interest_and_fees_cost():
    # bar 1 buys 2,000 at a fee of 0.1 %: 2 / 1,000; at 8:00, 998 hold 2,000 and pay 0.2 %: 4 / 998
    result = play(*[100.0] * 10, targets=[2.0, NAN], funding=[(8.0, 0.002)],
                  venue=venue_of(fees={"taker": 0.001, "maker": 0.0}))  # fmt: skip
    years = 10 / HOURS
    metrics = result.metrics
    assert metrics["carry_decay"] == is_((2 / 1000 + 4 / 998) / years)
    assert metrics["volatility_drag"] == is_(0.0)
    assert metrics["leverage_decay"] == is_(metrics["carry_decay"])


def test_interest_is_carry_and_deposits_are_in_its_base():
    # a loan of 1,000 at 100 % a year owes 1,000 / 8,760 per hour; 1,000 are deposited at 3:00
    lender = venue_of(interest_on="loan", borrow_rate=1.0, day_count=365)
    result = play(*[100.0] * 4, targets=[2.0, NAN], venue=lender,
                  account=account_of(flows=series({3: 1000.0})))  # fmt: skip
    owed = 1000 / 8760
    # the deposit comes before the interest of 3:00 and leaves a loan of what the first hour owed
    rest = owed / 8760
    assert result.bars["interest"].tolist() == is_([0, 0, owed, rest])
    expected = owed / 1000 + rest / (1000 - owed + 1000)
    assert result.metrics["carry_decay"] == is_(expected / (4 / HOURS), 1e-9)


def market_with_everything():
    rng = np.random.default_rng(11)
    n = 24 * 60
    close = 100 * np.exp(np.cumsum(0.012 * rng.standard_normal(n)))
    bars = [(c, 1.01 * c, 0.99 * c, float(c)) for c in map(float, close)]
    stamps = [(h + 0.5, 0.0004 * float(rng.standard_normal())) for h in range(4, n, 8)]
    return market_of(*bars, targets=rng.uniform(0, 6, n).tolist(), funding=stamps)


ACCOUNTS = {
    "cross": account_of(),
    "stopped": account_of(stop_loss=0.03, flows=series({100: 400.0, 700: -100.0})),
    "isolated": isolated(12.0),
    "called": account_of(margin_call=0.5, top_up_to=0.3, reserve=2000.0),
}


@pytest.mark.slow
def test_a_resumed_run_continues_the_columns_bit_for_bit(tmp_path):
    market, terms = market_with_everything(), {"venue": venue_of(), "account": isolated(12.0)}
    whole = bt.run(market, Follow(), **terms, compile=False)
    first = bt.run(market.prefix(500), Follow(), **terms, compile=False)
    again = bt.Result.load(first.save(tmp_path))
    assert again.metrics == pytest.approx(first.metrics, rel=0, abs=0, nan_ok=True)
    for begun in (first, again):
        rest = bt.run(market, Follow(), **terms, compile=False, resume=begun)
        for name in USE:
            assert rest.bars[name].equals(whole.bars[name].iloc[500:]), name
        kept = bt.Result.load(rest.save(tmp_path))
        assert kept.bars["realized_pnl"].equals(rest.bars["realized_pnl"])
        assert kept.metrics == pytest.approx(rest.metrics, rel=0, abs=0, nan_ok=True)


def test_a_tally_is_stored_without_loss():
    result = play(100, 100, UP, targets=2.0)
    flat = flatten_tally(result.tally)
    assert make_tally(flat) == result.tally


@pytest.mark.parametrize("name", ["cross", "stopped"])
def test_a_path_summed_in_pieces_is_the_public_functions_of_its_bars(name, monkeypatch):
    terms = {"venue": venue_of(fees={"taker": 0.0005, "maker": 0.0}), "account": ACCOUNTS[name]}
    whole = bt.run(market_with_everything(), Follow(), **terms, compile=False)
    metrics, bars = whole.metrics, whole.bars
    monkeypatch.setattr(run_record, "PIECE", 100)
    for each in PATH:
        expected = pytest.approx(metrics[each], rel=1e-10, nan_ok=True)
        assert replace(whole).metrics[each] == expected, each
    assert metrics["mean_margin_used"] == is_(bars["margin_used"].mean(), 1e-10)
    assert metrics["peak_margin_used"] == bars["margin_used"].max()


def test_the_margin_table_of_each_day_decides_in_every_piece(monkeypatch):
    index = pd.date_range("2024-10-22", periods=96, freq="h", tz="UTC", unit="ns")
    prices = pd.DataFrame(60_000.0, index=index, columns=["open", "high", "low", "close"])
    market = bt.Market.from_frames(prices.assign(volume=1e9), instrument="BTCUSDT")
    terms = {"venue": bt.Venue.preset("binance-usdm", "BTCUSDT"), "compile": False}
    result = bt.run(market, Constant(1.0), account=bt.Account(capital=5e6), **terms)
    shares = result.bars["margin_used"].to_numpy()
    # 5 million at 1x: 15x in the table of 2022-12-29, 50x in that of 2024-10-24
    assert shares[1:48] == pytest.approx(1 / 15, rel=1e-3)
    assert shares[48:] == pytest.approx(1 / 50, rel=1e-3)
    monkeypatch.setattr(run_record, "PIECE", 7)
    assert replace(result).metrics["mean_margin_used"] == is_(float(np.mean(shares)))
