"""What a result tells: use of capital, benchmark, closes by name, coins at marks, the summary."""

import math
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import backtest as bt
from backtest import strategies
from backtest.core import ParameterError
from backtest.policies import Promise
from backtest.report import build_page
from backtest.report.basis import is_sound
from backtest.report.page import format_span
from backtest.report.render import write_text
from backtest.report.run_charts import find_drawdowns
from backtest.report.run_parts import format_signed, tabulate_falls
from backtest.results import expected_shortfall, value_at_risk
from backtest.results.benchmark import index_traded, read_prices, spread_weights
from backtest.results.measure_table import ABOUT
from backtest.results.promises import (
    Finding,
    count_interval,
    judge,
    measure_tail,
    measure_volatility,
    split_volatility,
)
from backtest.results.run_record import measure_holding
from backtest.strategies import Constant, DrawdownControl, VolTarget
from docs.ext.pages import list_measures
from tests import scenes
from tests.kit import (
    AT_BINANCE,
    Hold,
    bars_market,
    check_refused,
    flat,
    live,
    make_market,
    make_venue,
    simulate_pair,
)

LEVELS = [
    scenes.bracket(cap=2000.0, leverage=20.0, rate=0.01),
    scenes.bracket(floor=2000.0, cap=9000.0, leverage=10.0, rate=0.05),
]
UP = (100.0, 110.0, 100.0, 110.0)
HOURS = 24 * 365
COIN = scenes.venue_of(contract={"kind": "inverse", "settles": "BTC"})
PRICES = (100.0, 100.0, 125.0, 100.0)
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
PAIR = simulate_pair(200, 3)
BINANCE = bt.Venue.preset("binance-usdm", "BTCUSDT")
DAYS = pd.bdate_range("2000-03-13", periods=15, tz="UTC")
"""Business days: the market peaks on Friday 2000-03-24 and recovers on Friday 2000-03-31."""
PEAKING = [100, 101, 102, 103, 104, 105, 106, 107, 108, 120, 110, 100, 105, 115, 125]
N = 30
STILL = {name: make_market([flat(100.0)] * N) for name in ("A", "B")}
MARKET = bt.Market.sample(bars=600)
COARSE = make_venue().override({"contract.lot": 1.0, "contract.min_notional": 150.0})
ROOT = Path(__file__).parents[2]


def column(result, name):
    return result.bars[name].tolist()


def test_a_cross_position_uses_the_margin_of_its_bracket():
    # 1,000 buys 30 at 100; the close at 110 earns 300; at 110 the target of 1 sells 30 - 1300 / 110
    targets = [3.0, scenes.NAN, 1.0, scenes.NAN]
    result = scenes.play(100, 100, UP, 110, targets=targets, venue=scenes.venue_of(brackets=LEVELS))
    sold = 30 - 1300 / 110

    assert column(result, "initial_margin") == scenes.is_([0, 3000 / 10, 3300 / 10, 1300 / 20])
    assert column(result, "available") == scenes.is_([1000, 700, 970, 1235])
    assert column(result, "margin_used") == scenes.is_([0, 0.3, 330 / 1300, 0.05])
    assert column(result, "position_leverage") == scenes.is_([0, 10, 10, 20])
    assert column(result, "unrealized_pnl") == scenes.is_([0, 0, 300, 10 * 1300 / 110])
    assert column(result, "realized_pnl") == scenes.is_([0, 0, 0, 10 * sold])


def test_an_unknown_measure_is_a_key_error_with_the_nearest_name():
    metrics = scenes.play(100, 100, 100).metrics

    with pytest.raises(KeyError, match=r"'sharp_ratio' \(did you mean 'sharpe"):
        metrics["sharp_ratio"]
    assert metrics.get("sharp_ratio") is None
    assert {**metrics} == dict(metrics)

    with pytest.raises(TypeError):
        metrics["sharpe"] = 1.0


def test_the_multiplier_and_the_setting_change_the_initial_margin():
    stressed = scenes.venue_of(brackets=LEVELS, margin_multiplier=scenes.series({0: 1.0, 2: 2.0}))
    result = scenes.play(100, 100, 100, targets=[3.0, scenes.NAN], venue=stressed)
    assert column(result, "initial_margin") == scenes.is_([0, 300, 600])

    account = scenes.account_of(venue_leverage=5.0)
    venue = scenes.venue_of(brackets=LEVELS)
    result = scenes.play(100, 100, targets=3.0, venue=venue, account=account)
    assert column(result, "initial_margin") == scenes.is_([0, 3000 / 5])


def test_an_isolated_position_uses_its_posted_margin():
    # 2,000 at a setting of 10 posts 200 and leaves 800 in the wallet; at 110 the notional is 2,200
    result = scenes.play(100, 100, UP, targets=[2.0, scenes.NAN], account=scenes.isolated(10.0))

    assert column(result, "initial_margin") == scenes.is_([0, 200, 200])
    assert column(result, "available") == scenes.is_([1000, 800, 800])
    assert column(result, "margin_used") == scenes.is_([0, 0.2, 200 / 1200])
    assert column(result, "position_leverage") == scenes.is_([0, 10, 11])
    assert column(result, "unrealized_pnl") == scenes.is_([0, 0, 200])


def test_an_entry_realizes_nothing_and_an_exit_its_fill_against_the_entry():
    # bought 10 at 101, sold at 121 · 0.99; 1 % of slippage on each
    venue = scenes.venue_of(slippage={"rate": 0.01})
    bars = [100, 100, (100, 121, 100, 121), 121]
    result = scenes.play(*bars, targets=[1.0, scenes.NAN, 0.0], venue=venue)

    held = result.bars["position"].iloc[1]
    assert column(result, "unrealized_pnl") == scenes.is_([0, -held, held * 20, 0])
    assert column(result, "realized_pnl") == scenes.is_([0, 0, 0, held * (121 * 0.99 - 101)])


def test_only_loans_have_a_health_factor():
    assert not {"health_factor", "ltv"} & set(scenes.play(100, 100).bars)

    # 30 bought at 100 with 2,000 borrowed; maintenance 5 % of 3,000
    lender = scenes.venue_of(interest_on="loan")
    long = scenes.play(100, 100, targets=3.0, venue=lender)
    assert column(long, "ltv") == scenes.is_([0, 2000 / 3000])
    assert column(long, "health_factor") == scenes.is_([math.inf, (3000 - 150) / 2000])

    # 20 sold short for 2,000, with 1,000 of own cash
    short = scenes.play(100, 100, targets=2.0, signal=-1.0, venue=lender)
    assert column(short, "ltv") == scenes.is_([0, 2000 / 3000])
    assert column(short, "health_factor") == scenes.is_([math.inf, 3000 / (2000 + 100)])

    # without debt
    unlevered = scenes.play(100, 100, targets=1.0, venue=lender)
    assert column(unlevered, "health_factor") == [math.inf, math.inf]

    # isolated: 3,000 with 300 posted, so 2,700 borrowed
    isolated = scenes.play(100, 100, targets=3.0, venue=lender, account=scenes.isolated(10.0))
    assert column(isolated, "ltv")[1] == scenes.is_(0.9)


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_the_health_factor_is_1_at_the_liquidation_price(side):
    lender = scenes.venue_of(interest_on="loan")
    opened = scenes.play(100, 100, targets=3.0, signal=side, venue=lender)
    liquidation_price = float(opened.bars["liquidation_price"].iloc[-1])

    # The next bar ends a billionth before it.
    close = liquidation_price * (1 + side * 1e-9)
    bar = (100.0, max(100.0, close), min(100.0, close), close)
    result = scenes.play(100, 100, bar, targets=[3.0, scenes.NAN], signal=side, venue=lender)

    assert result.metrics["liquidations"] == 0
    assert result.bars["health_factor"].iloc[-1] == pytest.approx(1.0, abs=1e-7)
    assert result.bars["health_factor"].iloc[-1] > 1.0


def test_carry_is_what_funding_interest_and_fees_cost():
    # bar 1 buys 2,000 at a fee of 0.1 %: 2 / 1,000; at 8:00, 998 hold 2,000 and pay 0.2 %: 4 / 998
    venue = scenes.venue_of(fees={"taker": 0.001, "maker": 0.0})
    targets = [2.0, scenes.NAN]
    result = scenes.play(*[100.0] * 10, targets=targets, funding=[(8.0, 0.002)], venue=venue)

    assert result.metrics["leverage_decay"] == scenes.is_((2 / 1000 + 4 / 998) / (10 / HOURS))


def test_interest_is_carry_and_deposits_are_in_its_base():
    # a loan of 1,000 at 100 % a year owes 1,000 / 8,760 per hour; 1,000 are deposited at 3:00
    lender = scenes.venue_of(interest_on="loan", borrow_rate=1.0, day_count=365)
    account = scenes.account_of(flows=scenes.series({3: 1000.0}))
    targets = [2.0, scenes.NAN]
    result = scenes.play(*[100.0] * 4, targets=targets, venue=lender, account=account)

    # the deposit pays the loan back, which bore interest until 3:00, on that of the first hour too
    owed = 1000 / 8760
    owed_later = (1000 + owed) / 8760
    assert result.bars["interest"].tolist() == scenes.is_([0, 0, owed, owed_later])

    carry = owed / 1000 + owed_later / (1000 - owed + 1000)
    assert result.metrics["leverage_decay"] == scenes.is_(carry / (4 / HOURS), 1e-9)


def test_the_margin_table_of_each_day_decides():
    index = pd.date_range("2024-10-22", periods=96, freq="h", tz="UTC", unit="ns")
    prices = pd.DataFrame(60_000.0, index=index, columns=["open", "high", "low", "close"])
    market = bt.Market.from_frames(prices.assign(volume=1e9), instrument="BTCUSDT")
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT")
    result = bt.run(market, Constant(1.0), venue=venue, account=bt.Account(capital=5e6))

    # 5 million at 1x: 15x in the table of 2022-12-29, 50x in that of 2024-10-24
    shares = result.bars["margin_used"].to_numpy()
    assert shares[1:48] == pytest.approx(1 / 15, rel=1e-3)
    assert shares[48:] == pytest.approx(1 / 50, rel=1e-3)


def run_coins(leverage: float, venue: bt.Venue = COIN, **terms: Any) -> bt.Result:
    """Run an account of 1 coin of 100 dollars that trades at the second open."""
    market = scenes.market_of(*PRICES, targets=[leverage, np.nan])
    account = bt.Account(capital=1.0)
    return bt.run(market, scenes.Follow(), venue=venue, account=account, sampling="1h", **terms)


@pytest.mark.parametrize(("leverage", "equity"), [
    (0.0, [100.0, 100.0, 125.0, 100.0]),  # the coin
    (2.0, [100.0, 100.0, 175.0, 100.0]),  # 1 + 2 (1 - 100 / 125) = 1.4 coins, of 125
])  # fmt: skip
def test_the_equity_in_coins_counts_at_the_mark(leverage: float, equity: list[float]):
    run = run_coins(leverage)
    counted = run.counted_in(scenes.market_of(*PRICES))
    assert counted.bars["equity"].tolist() == pytest.approx(equity)

    # From 100 to the top in bar 2, and back to 100.
    top = max(equity)
    fall = 1.0 - 100.0 / top
    returns = [0.0, 0.0, top / 100.0 - 1.0, 100.0 / top - 1.0]
    assert counted.returns.tolist() == pytest.approx(returns)
    assert counted.bars["drawdown"].tolist() == pytest.approx([0.0, 0.0, 0.0, fall])

    volatility = np.std(counted.returns, ddof=1) * np.sqrt(365 * 24)
    assert counted.metrics["total_return"] == pytest.approx(0.0)
    assert counted.metrics["max_drawdown"] == pytest.approx(fall)
    assert counted.metrics["volatility"] == pytest.approx(volatility)
    assert {*counted.metrics} <= {*run.metrics}


def test_a_short_of_all_coins_is_worth_the_same_dollars():
    """Shorter bars of the market serve as well: the mark of a close is that of its last bar."""
    market = scenes.market_of(*np.repeat(PRICES, 2).tolist(), interval="30m")
    counted = run_coins(1.0, signal=-1.0).counted_in(market)
    assert counted.bars["equity"].tolist() == pytest.approx([100.0] * 4)
    assert counted.metrics["max_drawdown"] == pytest.approx(0.0)


@pytest.mark.parametrize(("make", "words"), [
    (lambda: run_coins(1.0, scenes.venue_of()).counted_in(scenes.market_of(*PRICES)),
     "needs an account in coins"),
    (lambda: run_coins(1.0).counted_in(replace(scenes.market_of(*PRICES), instrument="ETHUSDT")),
     "coin of the account, BTC, got 'ETH'"),
    (lambda: run_coins(1.0).counted_in(scenes.market_of(*PRICES[:3])), "none at 2024-01-01 04"),
    (lambda: run_coins(1.0).counted_in(100.0), "must be a Market"),
])  # fmt: skip
def test_what_cannot_be_counted_is_refused(make: Any, words: str):
    check_refused(make, words, kind=bt.BacktestError)


def run_pair(markets, level=4.0, *, venue=None, account=None, **more):
    account = account or bt.Account(capital=1_000.0)
    venue = venue or make_venue(taker=0.0005, slippage=0.0002)
    return bt.run(markets, Hold(level), venue=venue, account=account, **more)


@pytest.mark.parametrize("terms", [{}, {"margin": "isolated", "venue_leverage": 10.0}])
@pytest.mark.parametrize("kind", ["linear", "inverse"])
def test_a_weight_of_0_in_a_second_instrument_changes_no_measure(terms, kind):
    """All measures: benchmark and margin ratio included."""
    account = bt.Account(capital=1_000.0, **terms)
    venue = make_venue(taker=0.0005).override({"contract": {"kind": kind}})
    one = run_pair(PAIR["AAA"], 7.0, venue=venue, account=account)
    both = run_pair(PAIR, 7.0, venue=venue, account=account, signal={"AAA": 1.0, "BBB": 0.0})
    assert one.metrics["peak_margin_ratio"] > 0.3
    assert (one.metrics["liquidations"] > 0) == bool(terms)

    measures = {name: both.metrics[name] for name in one.metrics}
    assert measures == pytest.approx(dict(one.metrics), rel=1e-9, nan_ok=True)


def test_the_money_for_new_orders_of_cross_and_isolated_positions():
    """10,000 hold A at 2x in cross and B at 1x in isolated margin, with leverages of 20 and 4. B
    posts 10,000 / 4 = 2,500. A at 100 -> 110 gains 2,000, and half backs orders. The pool has
    10,000 - 2,500 + 2,000 = 9,500, the initial margin of A is 22,000 / 20 = 1,100."""
    prices = [flat(100), flat(100), (100, 110, 100, 110)]
    markets = bt.Markets({"A": make_market(prices), "B": make_market([flat(50)] * 3)})
    account = bt.Account(
        margin={"A": "cross", "B": "isolated"}, venue_leverage={"A": 20.0, "B": 4.0}
    )
    result = bt.run(
        markets,
        {"A": Hold(2.0), "B": Hold(1.0)},
        venue=make_venue().override(profit_counts=0.5),
        account=account,
        signal={"A": 1.0, "B": 1.0},
    )

    shares = [1.0, (7_500 - 1_000) / 10_000, (9_500 - 1_000 - 1_100) / 12_000]
    available = result.bars["available"] / result.bars["equity"]
    assert available.tolist() == pytest.approx(shares)

    # cross: 5 % of 20,000 over 7,500; isolated: 500 over 2,500
    assert result.metrics["peak_margin_ratio"] == pytest.approx(0.2)


def test_weights_of_the_index_of_what_is_traded():
    """Rows are shares of |s|; rows without a signal keep the last, and the first has no earlier."""
    markets = bt.Markets({"A": make_market([flat(1)] * 5), "B": make_market([flat(1)] * 5)})
    signal = np.array([[0.0, 0.5, 0.0, -0.2, 0.0], [0.0, -1.5, 0.0, 0.0, 0.0]])
    expected = [[0.25, 0.25, 0.25, 1.0, 1.0], [0.75, 0.75, 0.75, 0.0, 0.0]]
    assert spread_weights(signal, markets).tolist() == expected
    assert spread_weights(np.zeros((2, 5)), markets).tolist() == [[0.5] * 5] * 2

    # A ends after bar 2, and cannot be bought in it
    ended = bt.Markets({"A": make_market([flat(1)] * 3), "B": make_market([flat(1)] * 5)})
    expected = [[0.5, 0.5, 0.0, 0.0, 0.0], [0.5, 0.5, 1.0, 1.0, 1.0]]
    assert spread_weights(np.ones((2, 5)), ended).tolist() == expected


def test_moves_of_the_index_by_hand():
    """Half each; in bar 1 A goes from 100 to 110, and B from 50 to 60 at the open, then to 54."""
    a = make_market([flat(100), (100, 110, 100, 110), flat(110)])
    b = make_market([flat(50), (60, 60, 54, 54), flat(54)])
    markets = bt.Markets({"A": a, "B": b})
    linear = make_venue()
    index = index_traded(markets, {"A": linear, "B": linear}, np.full((2, 3), -0.3), 0)
    assert index.text == "index of what is traded: A, B"

    # the first close is the base; B gaps by 20 % (index 1.1), then A +10 %, B -10 %
    assert index.moves == pytest.approx([0.0, 0.1, 0.0])

    # B alone, from 50 to 54; in coins 1 - 50 / 54
    inverse = linear.override({"contract": {"kind": "inverse"}})
    only_b = np.array([[0.0] * 3, [1.0] * 3])
    index = index_traded(markets, {"A": linear, "B": linear}, only_b, 0)
    assert index.moves[1] == pytest.approx(0.08)
    index = index_traded(markets, {"A": linear, "B": inverse}, only_b, 0)
    assert index.moves[1] == pytest.approx(1 - 50 / 54)


def test_the_first_return_is_that_since_the_close_before_only_in_a_resumed_run():
    prices = pd.Series(np.arange(1.0, 201.0), index=PAIR.times)
    begun = run_pair(PAIR, start=PAIR.times[100], benchmark=prices)
    assert begun.market_returns[:2].tolist() == pytest.approx([0.0, 1 / 101])

    first_part = run_pair(PAIR.prefix(100), benchmark=prices)
    resumed = run_pair(PAIR, resume=first_part, benchmark=prices)
    assert resumed.market_returns[0] == pytest.approx(1 / 100)


@pytest.mark.parametrize(("given", "message"), [
    ("CCC", "benchmark must be an instrument of the run, .*got 'CCC'"),
    (1.5, "benchmark must be .*got float"),
    ({"CCC": 1.0}, "got 'CCC'"),
    (pd.Series([1.0], index=[0]), "be indexed by time"),
    (pd.Series(1.0, index=PAIR.times[:150]), "50 of 200 have none, the first at 2024-01-07"),
])  # fmt: skip
def test_a_bad_benchmark_is_refused(given, message):
    with pytest.raises(ParameterError, match=message):
        run_pair(PAIR, benchmark=given)


def test_prices_are_matched_by_the_opens_of_bars():
    prices = pd.Series([5.0, 1.0, 2.0, 3.0], index=PAIR.times[[50, 0, 1, 2]])
    assert read_prices(prices, PAIR.prefix(3), 0).tolist() == [0.0, 1.0, 0.5]


def sessions(closes=PEAKING, index=DAYS, **more):
    """Return a market of closes, with a gap after the peak."""
    opens = np.concatenate(([closes[0]], closes[:-1])).astype(float)
    opens[10] = closes[10]
    bars = {
        "open": opens,
        "high": np.maximum(opens, closes),
        "low": np.minimum(opens, closes),
        "close": closes,
        "volume": 1e6,
    }
    frame = pd.DataFrame(bars, index=index[: len(closes)], dtype=float)
    return bt.Market.from_frames(frame, **more)


def words(text):
    return " ".join(text.split())


@pytest.fixture(scope="module")
def daily():
    days = sessions(interval="1d", sessions=True)
    return live(days, Constant(1.0), calendar="252")


def test_years_count_by_the_sessions_of_a_market_that_has_them(daily):
    days = sessions(interval="1d", sessions=True)
    assert live(days, Constant(1.0)).manifest["calendar"] == daily.manifest["calendar"] == "252"

    hours = bt.Backtest(bt.Market.sample(bars=48), **AT_BINANCE)
    assert hours.calendar == "365"
    assert hours.replace(market=days).calendar == "252"

    with pytest.raises(bt.ParameterError, match="calendar must be '252' for a market with ses"):
        hours.replace(market=days, calendar="365")


def test_business_days_are_named_by_their_sessions(daily):
    """The close of Friday, midnight of Saturday, is called Friday."""
    text = words(daily.summary())
    assert "2000-03-24 to 2000-03-28, recovered 2000-03-31; 7 days under water" in text
    assert "2000-03-13 to 2000-03-31 UTC, 15 bars of 1d" in text
    assert "2000-03-25" not in text
    assert "mark prices:" not in text  # stocks have neither marks nor funding
    assert "o funding rates" not in text

    worst = find_drawdowns(daily).iloc[0]
    assert f"{worst['peak']:%a %d}" == "Fri 24"
    assert f"{worst['trough']:%a %d}" == "Tue 28"
    assert f"{worst['recovery']:%a %d}" == "Fri 31"
    assert (worst["days_down"], worst["days_under_water"]) == (4.0, 7.0)

    row = tabulate_falls(daily).table.iloc[0][["peak", "trough", "recovery"]]
    assert row.tolist() == ["2000-03-24", "2000-03-28", "2000-03-31"]


def test_a_summary_counts_fills_and_says_what_is_right_only_if_asked(daily):
    text = words(daily.summary())
    fills = int((daily.events["kind"] == "fill").sum())
    assert "from flat to flat; 1 open" in text
    assert re.search(rf"Fills +{fills:,} ", text)
    assert "books balance" not in text

    asked = words(daily.summary(verbose=True))
    assert "the books balance at every bar; causality: no columns" in asked


def test_a_check_of_few_cuts_or_of_a_part_is_not_called_sound():
    assert is_sound("columns checked at 20 cuts; a peek passes with a chance of 9.5e-07")
    for doubt in ("at 19 cuts; x", "columns not checked", "at 55 cuts; x; not checked, as data"):
        assert not is_sound(doubt)


def test_falls_under_a_tenth_of_the_worst_are_left_out():
    # falls of 50 %, 6 % and 4 %: the last is under a tenth of the first
    prices = [100, 100, 200, 100, 210, 197.4, 220, 211.2, 230]
    shown = tabulate_falls(scenes.play(*prices, targets=(1.0, scenes.NAN))).table
    assert shown["depth"].to_numpy() == pytest.approx([0.5, 0.06])


def test_amounts_of_a_statement_have_the_decimals_of_the_largest():
    assert format_signed(-6.56555, 1e4) == "-6.57"
    assert format_signed(2681.384, 1e4) == "+2,681.38"
    assert format_signed(0.0, 1e4) == "0"
    assert format_signed(0.0004, 1e4) == "+0.00040"
    assert format_signed(-0.0123456789, 2.0) == "-0.012"


def test_standard_errors_are_not_judged():
    assert {ABOUT[name].better for name in ABOUT if name.endswith("_error")} == {0}


def test_the_close_of_an_hour_at_midnight_belongs_to_the_day_that_ends():
    """The peak is the close of 23:00 to 24:00 on Friday, the low that of 01:00 to 02:00."""
    hours = pd.date_range("2000-03-24 14:00", periods=15, freq="1h", tz="UTC")
    result = live(sessions(index=hours), Constant(1.0))
    assert "2000-03-24 to 2000-03-25, recovered 2000-03-25" in words(result.summary())

    row = tabulate_falls(result).table.iloc[0]
    assert row[["peak", "trough"]].tolist() == ["2000-03-25 00:00", "2000-03-25 02:00"]

    days = {"start": "2000-03-13", "end": "2000-03-25", "interval": "1d"}
    assert format_span(days) == "2000-03-13 to 2000-03-24 UTC"
    assert format_span({**days, "interval": "1h"}) == "2000-03-13 to 2000-03-25 UTC"


def run_held(market, turns=1.0, venue=BINANCE, **settings):
    return bt.run(market, Hold(turns), venue=venue, account=bt.Account(**settings))


@pytest.fixture(scope="module")
def market():
    return bt.Market.sample(bars=24 * 60)


@pytest.fixture(scope="module")
def calm(market):
    return run_held(market)


@pytest.fixture(scope="module")
def wild():
    """Liquidated every day: 5 % of the notional is posted, and the price falls by 6 %."""
    return run_held(make_days([-0.06] * 20), 2.0, margin="isolated", venue_leverage=20.0)


def make_days(steps):
    close = 100.0 * np.cumprod(1.0 + np.asarray(steps))
    return bars_market(np.concatenate(([100.0], close[:-1])), close, "1D", volume=1.0)


def test_a_summary_shows_the_numbers_of_the_result(calm):
    text = calm.summary(verbose=True)
    metrics = calm.metrics

    for name in ("total_return", "volatility", "max_drawdown", "es_95"):
        assert f"{100 * metrics[name]:,.2f} %" in text
    for name in ("mean_leverage", "peak_leverage"):
        assert f"{metrics[name]:,.2f}" in text
    assert "Sharpe" not in text  # of 60 days
    assert f"{metrics['turnover'] * 60 / 365:,.2f}x" in text
    assert f"{metrics['final_equity']:,.2f}" in text
    assert "causality" in text


@pytest.mark.parametrize("name", ["wild", "calm"])
def test_the_statement_adds_up(name, request):
    result = request.getfixturevalue(name)
    statement = result.summary().split("equity at the start", 1)[1]
    terms, after = statement.split("equity at the end")

    numbers = re.findall(r"[-+]?[\d,]+\.\d\d(?! %)", terms)
    amounts = [float(number.replace(",", "")) for number in numbers]
    final = float(after.split()[0].replace(",", ""))
    assert amounts[0] == 10_000.0
    assert sum(amounts) == pytest.approx(final, abs=0.06)


def test_buy_and_hold_is_the_mark_price_itself():
    """Closes 100 · 1.1 · 0.5 · 1.2: from the first close 110, a fall of 50 %, then + 20 %."""
    holding = measure_holding(run_held(make_days([0.1, -0.5, 0.2])))
    assert holding.total_return == pytest.approx(0.5 * 1.2 - 1.0)
    assert holding.max_drawdown == pytest.approx(0.5)

    returns = np.array([0.0, -0.5, 0.2])
    spread = returns.std(ddof=1)
    assert holding.volatility == pytest.approx(spread * math.sqrt(365))
    assert holding.sharpe == pytest.approx(returns.mean() / spread * math.sqrt(365))


def test_every_metric_is_explained_and_nothing_else(calm):
    text = list_measures()["measures"]
    formulas = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert {*find_first_cells(formulas)} < {*calm.metrics}
    assert sorted(find_first_cells(text)) == sorted(calm.metrics)


def find_first_cells(text):
    """Return the names in code in the first cells of tables."""
    explained = []
    for line in text.splitlines():
        if line.startswith("| `"):
            first_cell = line.split("|")[1]
            explained += re.findall(r"`(\w+)`", first_cell)
    return explained


def run(policy, *, markets=None, venue=None, signal=None, overlay=None, **terms):
    """Run an account of two still markets without warnings of missing marks."""
    settings = {"venue": venue or make_venue(), "signal": signal, "overlay": overlay}
    account = bt.Account(**terms)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bt.LastPriceWarning)
        return bt.run(bt.Markets(markets or STILL), policy, account=account, **settings)


@pytest.mark.parametrize(("terms", "max_leverage", "cause", "held"), [
    ({}, 2.0, "initial_margin", 1.0),
    ({"max_gross_leverage": 3.0}, 20.0, "max_gross_leverage", 1.5),
    ({"max_leverage": 4.0}, 20.0, "max_leverage", 2.0),
    ({"margin": "isolated", "venue_leverage": 3.0}, 20.0, "wallet", 1.5),
])  # fmt: skip
def test_the_cut_of_a_limit_is_told(terms, max_leverage, cause, held):
    """5x asked, 2.5x for each of two; what is held follows from the limit alone: no costs."""
    venue = make_venue(max_leverage=max_leverage, maintenance_rate=0.01)
    cuts = run(Hold(level=5.0), venue=venue, **terms).target_cuts()

    for name in ("all", "A", "B"):
        row = cuts.loc[(name, cause)]
        assert row["mean_asked"] == pytest.approx(2.5)
        assert row["mean_held"] == pytest.approx(held)
        assert row["mean_shortfall"] == pytest.approx(2.5 - held)
        assert list(cuts.loc[name].index) == ["all", cause]
    assert cuts.loc[("all", cause), "decisions"] == 2 * (N - 1)


@pytest.mark.filterwarnings("ignore::backtest.NoFillWarning")
@pytest.mark.parametrize(("rows", "names", "text"), [
    (1, ["A", "B"], "the weights have 1 row, and the 28 bars without one are flat, first at"),
    (30, ["B"], "the weights of A are NaN in all 30 rows, which trades nothing"),
    (30, [], "the weights of A, B are NaN in all 30 rows"),
])  # fmt: skip
def test_weights_that_leave_bars_or_instruments_flat_unsaid_are_told(rows, names, text):
    """A frame of one row was flat from the second bar on, and NaN traded nothing, in silence."""
    weights = pd.DataFrame(math.nan, index=STILL["A"].times[:rows], columns=["A", "B"])
    weights[names] = 0.5

    with pytest.warns(bt.WeightWarning) as caught:
        run(Hold(), signal=weights)

    texts = [str(warning.message) for warning in caught if warning.category is bt.WeightWarning]
    assert len(texts) == 1
    assert texts[0].startswith(text)

    carried = bt.signals.from_frame(bt.Markets(STILL), weights.fillna(0.5), carry=True)
    assert run(Hold(), signal=carried) is not None  # no warning


def test_collateral_that_was_sold_is_gone_from_leverage_and_targets(tmp_path):
    """10 coins at 100 back 5x of 2,000, so 100 of A at 100, with a requirement of 5 %. A fails
    where 1,900 - 100 d = 500 - 5 d, at d = 14.737. The loss of 1,473.68 is paid by 1,000 of cash
    and 4.737 coins; 5.263 are left. The coins double at the next open, and 5x is held again."""
    fall = [flat(100), flat(100), (100, 100, 80, 90), flat(90), flat(90)]
    markets = bt.Markets({"A": make_market(fall), "B": make_market([flat(100)] * 5)})
    coins = make_market([flat(100)] * 3 + [flat(200)] * 2)
    signal = pd.DataFrame({"A": 1.0, "B": 0.0}, index=markets.times)
    collateral = [bt.Collateral("C", 10.0, prices=coins, rate=0.9)]
    account = bt.Account(capital=1_000.0, negative_limit=0.0, collateral=collateral)
    terms = {"venue": make_venue(), "account": account}

    whole = bt.run(markets, Hold(5.0), signal=signal, **terms)
    leverage = whole.risk(collateral=True)["gross_leverage"]
    assert leverage.tolist() == pytest.approx([0.5, 5.5, 1.0, 6.0, 6.0])
    assert whole.target_cuts().loc["A"].index.tolist() == ["all"]

    # A second part that is saved knows what is left, too.
    head = bt.run(markets.prefix(3), Hold(5.0), signal=signal.iloc[:3], **terms)
    tail = bt.run(markets, Hold(5.0), signal=signal, resume=head, **terms)
    loaded = bt.Result.load(tail.save(tmp_path))
    assert loaded.risk(collateral=True)["gross_leverage"].tolist() == pytest.approx([6.0, 6.0])


def test_a_wide_band_is_warned_of_once_and_not_by_each_set_of_a_sweep():
    """0.3x is half of what is asked of each of two; 0.1x is not."""
    with pytest.warns(bt.BandWarning, match="the band of . is 0.3 times .* median target of 0.5"):
        run(Hold(), band=0.3)

    test = bt.Backtest(bt.Markets(STILL), venue=make_venue(), account=bt.Account(), overlay=Hold())
    sweep = test.sweep(Hold, {"account.band": [0.1, 0.3]})
    assert sweep.table["final_equity"].tolist() == [10_000.0, 10_000.0]


@pytest.mark.parametrize(("account", "leverage", "cause"), [
    ({"max_leverage": 2.0}, 3.0, "max_leverage"),
    ({"min_leverage": 0.5}, 0.1, "min_leverage"),
    ({"band": 0.5}, 0.4, "band"),
    ({"venue_leverage": 2.0}, 3.0, "venue_leverage"),
    ({"capital": 20.0}, 0.6, "lot"),
    ({"capital": 5.0}, 0.5, "min_notional"),
])  # fmt: skip
def test_each_limit_has_its_name(account, leverage, cause):
    lot = 0.05 if cause == "lot" else 0.0
    venue = make_venue().override({"contract.lot": lot, "contract.min_notional": 3.0})
    result = bt.run(STILL["A"], Constant(leverage), venue=venue, account=bt.Account(**account))

    assert cause in result.target_cuts().index


class Greedy(bt.Policy):
    """Ask for 5x, and then for as much as there is."""

    def leverage(self, bar, account):
        return 5.0 if account.leverage == 0.0 else math.inf


def test_an_infinite_leverage_asks_for_no_number_that_a_limit_could_cut():
    """One decision is counted, 5x that is cut to 2x: with the others the mean would be infinite."""
    account = bt.Account(max_leverage=2.0)
    result = bt.run(STILL["A"], Greedy(), venue=make_venue(), account=account)

    for cause in ("all", "max_leverage"):
        cut = result.target_cuts().loc[cause]
        assert cut["decisions"] == 1
        assert cut["mean_asked"] == pytest.approx(5.0)
        assert cut["mean_held"] == pytest.approx(2.0)


class Silent(bt.Policy):
    def leverage(self, bar, account):
        return float("nan")


class Cold(bt.Policy):
    def observe(self, market):
        return {"sigma": np.full(market.n_bars, np.nan)}

    def leverage(self, bar, account):
        return 1.0 / bar.sigma


@pytest.mark.filterwarnings("ignore::backtest.LastPriceWarning")
@pytest.mark.parametrize(("policy", "account", "more", "why"), [
    (Silent(), {}, {}, "the policy returned NaN"),
    (Cold(), {}, {}, "not known at any of 600 closes: sigma;"),
    (Constant(1.0), {"band": 5.0}, {}, "the no-trade band left no room for 599 of 599"),
    (Constant(1.0), {"capital": 2.0}, {}, "the minimum notional left no room for 599"),
    (Constant(1.0), {}, {"signal": 0.0}, "the signal was 0 or NaN at all 600 closes"),
    (Cold(), {}, {"market": bt.Markets(STILL)}, "30 closes: sigma of A, sigma of B;"),
    (Hold(), {}, {"market": bt.Markets(STILL), "signal": {"A": 0.0, "B": 0.0}},
     "the signal was 0 or NaN at all 30 closes"),
    (Hold(0.036), {}, {"market": bt.Markets(STILL), "venue": COARSE},  # 180 of each, a lot of 100
     "the minimum notional left no room for 58 of 58 decisions, 0.018x per instrument on"),
])  # fmt: skip
def test_a_run_without_a_fill_says_why_first(policy, account, more, why):
    terms = {"market": MARKET, "venue": BINANCE, **more}
    with pytest.warns(bt.NoFillWarning, match="filled no order") as caught:
        result = bt.run(policy=policy, account=bt.Account(**account), **terms)

    assert why in str(caught[-1].message)
    assert why in result.no_fill
    assert caught[-1].filename == __file__
    assert "! NO FILL: no order was filled" in result.summary()


def test_a_sweep_says_how_many_sets_have_no_fill():
    terms = {"venue": BINANCE, "account": bt.Account()}
    with pytest.warns(bt.NoFillWarning, match="1 of 2 parameter sets filled no order"):
        bt.Backtest(MARKET, **terms).sweep(Constant, {"leverage": [0.0, 1.0]})


def run_constant(market):
    bt.run(market, Constant(1.0), venue=BINANCE, account=bt.Account())


def sweep_constant(market):
    test = bt.Backtest(market, venue=BINANCE, account=bt.Account())
    test.sweep(Constant, {"leverage": [0.5, 1.0]})


@pytest.mark.slow
@pytest.mark.parametrize("act", [run_constant, sweep_constant])
def test_last_prices_are_warned_of_once_per_call(act):
    prices = 100.0 + np.sin(np.arange(24 * 31) / 9.0)
    market = bars_market(prices, prices)

    with pytest.warns(bt.LastPriceWarning) as caught:
        act(market)

    files = [warning.filename for warning in caught if warning.category is bt.LastPriceWarning]
    assert files == [__file__]


def test_a_market_with_mark_prices_is_not_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error", bt.LastPriceWarning)
        run_constant(MARKET)


def test_an_account_ends_before_a_time_as_in_a_market_cut_there():
    """Signals as Series, array and array from the start on, of the whole market, are cut too."""
    market = bt.Market.sample(bars=96)
    signal = pd.Series(np.where(np.arange(96) < 40, 1.0, -1.0), index=market.times)
    span: Any = {"start": "2023-01-02", "end": "2023-01-04"}

    cut = market.slice(None, "2023-01-04")
    expected = bt.run(cut, Constant(1.0), signal=signal.iloc[:72], start="2023-01-02", **AT_BINANCE)
    assert len(expected.bars) == 48
    for form in (signal, signal.to_numpy(), signal.to_numpy()[24:]):
        result = bt.run(market, Constant(1.0), signal=form, **span, **AT_BINANCE)
        pd.testing.assert_frame_equal(result.bars, expected.bars)

    terms = {"signal": np.ones(4), "decision_interval": "1d", "end": "2023-01-04", **AT_BINANCE}
    by_days = bt.run(market, Constant(1.0), **terms)
    assert len(by_days.bars) == 72

    with pytest.raises(bt.ParameterError, match="a span must lie inside"):
        bt.run(market, Constant(1.0), end="2023-02-01", **AT_BINANCE)


def test_the_cap_of_gross_leverage_tells_what_bands_and_what_prices_do():
    """Cap 2, bands of .5: at 92 the bands keep 1.84 / .84 = 2.19, up to 2.2; at 80 they would keep
    1.6 / .6 = 2.67, and both are brought to 1. At 70, prices alone carry it over the cap."""
    fall = [flat(100), flat(100), flat(92), flat(80), (80, 80, 70, 70)]
    markets = {name: make_market(fall) for name in "AB"}
    terms = {"max_gross_leverage": 2.0, "band": 0.5, "capital": 1_000.0}
    result = run(Hold(level=2.0), markets=markets, **terms)
    assert result.positions["leverage"].iloc[3] == pytest.approx(1.0)

    cuts = result.target_cuts().loc["all"]
    assert cuts.loc[["cap_over_band", "band_over_cap"], "decisions"].tolist() == [2, 1]
    assert cuts.loc["cap_over_band", ["mean_shortfall", "mean_distance"]].tolist() == [0, 0]

    text = words(result.summary())
    assert "above the cap of 2.00x at 40.00 % of closes: at 20.00 % bands had left it there" in text
    assert "at 20.00 % prices carried it there. The cap forced 2 trades inside their bands." in text


def test_orders_under_the_minimum_are_counted_in_bars_that_are_quiet_otherwise():
    """20 contracts. At 101, 2x of 1,020 lack 20, at 102 they lack 40: less than 50. At 103, 60."""
    venue = make_venue().override({"contract.min_notional": 50.0})
    market = make_market([flat(100), flat(100), flat(101), flat(102), flat(103)])
    terms = {"venue": venue, "account": bt.Account(capital=1_000.0)}
    result = bt.run(market, Constant(2.0), **terms)
    assert result.bars["position"].tolist() == pytest.approx([0, 20, 20, 20, 20 + 60 / 103])
    assert result.bars["equity"].tolist() == pytest.approx([1000, 1000, 1020, 1040, 1060])

    cuts = result.target_cuts().loc["min_notional"]
    assert cuts["decisions"] == 2
    lacking = (20 / 1020 + 40 / 1040) / 2
    assert cuts[["mean_shortfall", "mean_distance"]].tolist() == pytest.approx([lacking] * 2)


def test_the_interval_of_a_count_is_exact():
    """Of alike chances it is the binomial one; of two unlike ones it is counted out by hand."""
    for n, chance in ((20, 0.3), (12, 0.02), (400, 0.01)):
        low, high = stats.binom.ppf([0.025, 0.975], n, chance)
        assert count_interval(np.full(n, chance)) == pytest.approx((low, high))

    # 0: .9 x .01, 1: .9 x .99 + .1 x .01 = .892, 2: .1 x .99
    assert count_interval(np.array([0.1, 0.99])) == (1.0, 2.0)
    assert count_interval(np.array([0.1, 0.99]), confidence=0.8) == (1.0, 1.0)
    assert count_interval(np.empty(0)) == (0.0, 0.0)


def test_volatility_over_its_target_is_split_exactly(calm):
    market = bt.Market.sample(bars=24 * 45)
    policy = VolTarget(target=0.3)
    result = bt.run(market, policy, **AT_BINANCE)
    split = split_volatility(result, 0.3)

    realized = (result.metrics["volatility"] / 0.3) ** 2
    product = split["bias"] * split["dispersion"] * split["rest"]
    assert split["realized"] == realized
    assert math.isclose(product, realized, rel_tol=1e-9)

    # Squares of moves of the mark, against the variance that was forecast at the close before.
    sigma = policy.observe(market)["sigma"][:-1] / math.sqrt(HOURS)
    moves = np.diff(result.mark) / result.mark[:-1]
    is_known = np.isfinite(sigma)
    squares = moves[is_known] ** 2
    forecasts = sigma[is_known] ** 2
    assert split["bias"] == pytest.approx(squares.mean() / forecasts.mean())
    assert split["dispersion"] * split["bias"] == pytest.approx((squares / forecasts).mean())
    assert split["dispersion"] > 1.0

    assert split_volatility(calm, 0.3)["rest"] > 0.0


def list_rules(policy):
    return [promise.rule for promise in policy.promises()]


def test_combinators_pass_promises_on_only_where_they_hold():
    volatility = VolTarget(target=0.4)
    fall = DrawdownControl(floor=0.8)
    assert list_rules(volatility) == ["about"]
    assert VolTarget(power=2.0).promises() == ()

    assert list_rules(strategies.Capped(volatility, cap=1.0)) == ["at most"]
    assert strategies.Average(volatility, fall).promises() == ()

    lowest = strategies.Lowest(volatility, fall).promises()
    assert [promise.measure for promise in lowest] == ["volatility", "max_drawdown"]

    assert len(strategies.Smoothed(fall, up=1.0).promises()) == 1
    assert strategies.Smoothed(fall, up=1.0, down=2.0).promises() == ()


def test_a_promise_is_kept_broken_or_not_judged_and_is_saved(tmp_path):
    """A floor of .8 at 10 turns: a fall of 5 % in one bar takes 50 % and breaks it."""
    policy = DrawdownControl(floor=0.8, at_peak=10.0)
    bars = [flat(100), flat(100), flat(101)]

    kept = run_one(policy, [*bars, flat(101)]).promises.iloc[0]
    assert kept["verdict"] == "kept"

    broken = run_one(policy, [*bars, flat(95)]).promises.iloc[0]
    assert broken["verdict"] == "not kept"
    assert broken["bound"] == pytest.approx(0.2, rel=0.2)
    assert broken["value"] == pytest.approx(0.5, rel=0.2)

    early = run_one(VolTarget(target=0.5, half_life=2.0), bars)
    assert early.promises["verdict"].tolist() == ["too early"]

    loaded = bt.Result.load(early.save(tmp_path))
    pd.testing.assert_frame_equal(loaded.promises, early.promises)
    assert "of about 30 observations" in write_text(build_page(loaded), "md")


def test_a_volatility_is_judged_by_its_own_standard_error():
    """Returns of +-1 % have a kurtosis of 1 and no error. With 0 in half of them it is 2, and the
    error is v sqrt(1 / (4 n)): at n = 100 half of the interval is 1.96 x v / 20 = .098 v."""
    returns = np.tile([0.01, -0.01, 0.0, 0.0], 25)
    finding = measure_volatility(returns, 1.0)
    assert (finding.low, finding.high) == pytest.approx((1.0 - 0.098, 1.0 + 0.098))

    alike = measure_volatility(np.tile([0.01, -0.01], 50), 1.0)
    assert (alike.low, alike.high) == (1.0, 1.0)

    def decide(bound, n=100):
        promise = Promise("volatility", "volatility", bound, 0.10, "about")
        return judge(promise, finding._replace(n=n))

    assert decide(1.0) == ("kept", pytest.approx(math.nan, nan_ok=True))
    assert decide(1.0, n=20) == ("too early", 30)
    assert decide(1.3).verdict == "not kept"  # .1170 at least, and .902 to 1.098 came

    # up to 1.045 is kept: .045 from 1, and .098 is half of the interval
    early = decide(0.95)
    assert early.verdict == "too early"
    assert early.n_needed == math.ceil(100 * (0.098 / 0.045) ** 2)


def test_rare_liquidations_are_judged_from_three_expected_ones():
    """A promise with .01 expected events was kept whatever happened."""
    promise = Promise("liquidations", "liquidations", 0.001, 0.0, horizon=24.0)

    rare = Finding(0.0, 0.0, 0.0, n=100, n_least=30_000, expected=0.01)
    assert judge(promise, rare) == ("too early", 30_000)

    usual = Finding(2.0, 0.0, 7.0, n=100, n_least=10, expected=3.0)
    assert judge(promise, usual).verdict == "kept"
    assert judge(promise, usual._replace(value=8.0)).verdict == "not kept"


def test_the_interval_of_a_tail_is_that_of_order_statistics_and_of_the_mean_beyond():
    """Losses 1 to 100: the 95 % quantile is 96 (the higher one), the mean of 96 to 100 is 98, of
    variance 2; sqrt((2 + .95 x 2^2) / 5) = 1.077. Ranks 95 -+ 1.96 sqrt(4.75) are 90 and 99."""
    returns = -np.arange(1.0, 101.0)

    risk = measure_tail(returns, 0.95, value_at_risk)
    assert (risk.value, risk.low, risk.high) == (96.0, 91.0, 100.0)

    shortfall = measure_tail(returns, 0.95, expected_shortfall)
    half = 1.96 * math.sqrt((2.0 + 0.95 * 2.0**2) / 5.0)
    assert shortfall.value == 98.0
    assert shortfall.high - 98.0 == pytest.approx(half)

    assert measure_tail(returns[:90], 0.95, value_at_risk).n_least == pytest.approx(100.0)


def run_one(policy, bars):
    terms = {"venue": make_venue(), "account": bt.Account()}
    return bt.run(make_market(bars), policy, **terms)
