"""Runs whose answer is known in closed form, from vectorbt, or from a run in other units.

Unless said otherwise: 1,000 of capital, one bracket of 16x and 5 % maintenance, no costs.
"""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import backtest as bt
from tests.scenes import (
    NAN,
    ONCE,
    START,
    YEAR,
    Follow,
    account_of,
    equities,
    happened,
    is_,
    isolated,
    market_of,
    play,
    series,
    total,
    venue_of,
    walk,
)


def decayed(result: bt.Result, inverse: bool = False) -> float:
    """Return the leverage decay of §7 for a run that holds a position in every bar but 0."""
    bars = result.bars
    mark, equity = bars["mark"].to_numpy(), np.array([1000.0, *bars["equity"]])
    before = mark[:-1]
    r = 1 - before / mark[1:] if inverse else mark[1:] / before - 1
    unit = 1 / before if inverse else before
    held = bars["position"].to_numpy()[1:] * unit / equity[1:-1]
    return float(np.sum(held * np.log1p(r) - np.log1p(held * r)))


# --------------------------------------------------------------------------- leverage and carry


@pytest.mark.parametrize("leverage", [0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_rebalanced_leverage_compounds_the_returns_it_multiplies(leverage, side):
    bars = walk(60, sigma=0.02)
    result = play(*bars, targets=leverage, signal=side)
    prices = np.array([bar[0] for bar in bars[1:]] + [bars[-1][3]])
    r = prices[1:] / prices[:-1] - 1
    assert equities(result)[-1] == is_(1000 * np.prod(1 + side * leverage * r))


@pytest.mark.parametrize("leverage", [0.5, 1.0, 2.0, 3.0])
def test_leverage_decay_is_the_log_growth_lost(leverage):
    bars = walk(24 * 40, sigma=0.01)
    result = play(*bars, targets=leverage)
    years = len(bars) / 24 / YEAR
    assert result.metrics["leverage_decay"] == is_(decayed(result) / years, 1e-9)
    # half of (l^2 - l) sigma^2 for a constant leverage
    mark = result.bars["mark"].to_numpy()
    sigma_squared = np.var(np.diff(np.log(mark))) * 24 * YEAR
    rough = 0.5 * (leverage**2 - leverage) * sigma_squared
    assert result.metrics["leverage_decay"] == pytest.approx(rough, rel=0.1, abs=0.02)


def test_a_path_up_and_back_down_costs_what_the_product_says():
    # +10 % and back, twice, at 2x: (1.2 x (1 - 2/11))^2 = (1.2 x 9/11)^2
    result = play(100, (100, 110, 100, 110), (110, 110, 100, 100), (100, 110, 100, 110),
                  (110, 110, 100, 100), targets=2.0)  # fmt: skip
    assert equities(result)[-1] == is_(1000 * (1.2 * 9 / 11) ** 2)


@pytest.mark.parametrize("interval", ["1h", "8h", "1d"])
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_the_funding_carry_of_a_flat_market_is_days_times_three_times_rate(interval, side):
    rate, leverage = 0.0001, 3.0
    per_day = {"1h": 24, "8h": 3, "1d": 1}[interval]
    # bought one day (or bar) after the start; then seven days of three settlements
    bars = [100.0] * (8 * per_day)
    wait = [NAN] * (per_day - 1)
    # half past, so that no stamp is at an open
    stamps = [(h + 0.5, rate) for h in range(0, 24 * 8, 8)]
    result = play(
        *bars, targets=[*wait, leverage, NAN], signal=side, funding=stamps, interval=interval
    )
    assert len(happened(result, "funding")) == 7 * 3
    assert total(result, "funding") == is_(side * 7 * 3 * rate * 3000)
    assert equities(result)[-1] == is_(1000 - side * 7 * 3 * rate * 3000)


def test_a_long_and_a_short_of_equal_size_sum_to_zero_before_costs():
    bars = walk(80, sigma=0.01, gap=0.003)
    stamps = [(h + 0.0, 0.0004 * math.sin(h)) for h in range(2, 80, 3)]
    both = [
        play(*bars, targets=ONCE, signal=side, funding=stamps, venue=v)
        for v in (venue_of(), venue_of(contract={"kind": "inverse"}))
        for side in (1.0, -1.0)
    ]
    for long, short in (both[:2], both[2:]):
        assert long.bars["position"].iloc[-1] == -short.bars["position"].iloc[-1]
        gains = long.bars["equity"] + short.bars["equity"] - 2000.0
        assert np.abs(gains.to_numpy()).max() < 1e-9
        assert total(long, "funding") == is_(-total(short, "funding"))


@pytest.mark.slow
@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    leverage=st.floats(0.5, 16.0),
    setting=st.floats(1.0, 16.0),
    side=st.sampled_from([1.0, -1.0]),
    mode=st.sampled_from(["close", "takeover", "partial"]),
    gap=st.sampled_from([0.0, 0.1]),
)
def test_an_isolated_loss_is_never_over_the_posted_margin_and_fees(
    seed, leverage, setting, side, mode, gap
):
    bars = walk(12, seed=seed, sigma=0.05, gap=gap)
    fees = {"taker": 0.0006, "maker": 0.0006}
    liquidation = {"mode": mode, "fee": 0.01, "slippage": 0.02}
    result = play(
        *bars,
        targets=(leverage, NAN),
        signal=side,
        venue=venue_of(fees=fees, slippage={"rate": 0.0005}, liquidation=liquidation),
        account=isolated(setting),
    )
    bought = happened(result, "fill")["amount"].iloc[0]
    worst = bought / setting + bought * 0.0006
    assert result.bars["equity"].min() >= 1000 - worst * (1 + 1e-12)
    assert result.bars["cash"].min() >= 1000 - worst * (1 + 1e-12)


# -------------------------------------------------------------------------------- change of unit


@pytest.mark.parametrize("kind", ["linear", "inverse"])
@pytest.mark.parametrize("margin", ["cross", "isolated"])
def test_the_price_times_a_thousand_changes_no_return(kind, margin):
    bars = walk(150, sigma=0.02, gap=0.005)
    larger = [tuple(1000 * p for p in bar) for bar in bars]
    stamps = [(h + 0.0, 0.0004 * math.sin(h)) for h in range(4, 150, 4)]
    venue = venue_of(
        contract={"kind": kind},
        fees={"taker": 0.0005, "maker": 0.0005},
        slippage={"rate": 0.0002},
        liquidation={"fee": 0.01, "slippage": 0.01},
    )
    account = isolated() if margin == "isolated" else account_of()
    small, large = (
        play(*path, targets=[4, NAN, NAN], venue=venue, account=account, funding=stamps)
        for path in (bars, larger)
    )
    assert large.bars["unit"].to_numpy() == pytest.approx(small.bars["unit"].to_numpy(), rel=1e-9)
    assert len(small.events) == len(large.events)


@pytest.mark.parametrize("gap", [0.0, 0.002])
def test_a_minute_and_an_hour_differ_by_no_more_than_what_an_open_can_jump(gap):
    """The same path, liquidated: by the hour at the price, by the minute at the open beyond it.

    Between two minutes the price jumps by ``gap``; the liquidation of the finer bars is at most
    that much beyond the price, for a notional of 10 times the capital: a bound of 10 ``gap`` of it.
    """
    steps = 100 * np.cumprod(np.full(60, 1 - 0.0015 - gap)) / (1 - gap)
    minutes, last = [], 100.0
    for k, step in enumerate(steps):
        opened = last * (1 - gap) if k else 100.0
        minutes.append((opened, opened, min(step, opened), min(step, opened)))
        last = minutes[-1][3]
    low = min(bar[2] for bar in minutes)
    fine = play(100.0, 100.0, *minutes, targets=(10.0, NAN), interval="1m")
    hour = (100.0, 100.0, low, last)
    coarse = play(100.0, 100.0, hour, targets=(10.0, NAN), interval="1h")
    assert len(happened(fine, "liquidation")) == len(happened(coarse, "liquidation")) == 1
    loss = equities(coarse)[-1] - equities(fine)[-1]
    assert -1e-9 <= loss <= 10 * gap * 1000 + 1e-9


def test_hourly_and_daily_bars_of_one_path_give_a_held_position_the_same_equity():
    bars = walk(24 * 6, sigma=0.01)
    stamps = [(h + 0.0, 0.0004 * math.cos(h), 100.0 + h) for h in range(0, 24 * 6, 8)]
    hourly = market_of(*bars, targets=[*[NAN] * 23, 1.0, NAN], funding=stamps)
    daily = hourly.resample("1d")
    fine, coarse = (
        bt.run(each, Follow(), venue=venue_of(), account=account_of(), compile=False)
        for each in (hourly, daily)
    )
    assert daily.funding_time.tolist() == hourly.funding_time.tolist()
    # the hourly order of 23:00 and the daily one both fill at 0:00 of the second day; the target
    # of a day is the last one of its hours, which from the second day on is NaN
    assert total(fine, "funding") == is_(total(coarse, "funding"))
    ends = fine.bars["equity"].to_numpy()[23::24]
    assert coarse.bars["equity"].to_numpy() == is_(ends)


# ------------------------------------------------------------------------------------- vectorbt


@pytest.mark.slow
@pytest.mark.parametrize("fee", [0.0, 0.0007])
@pytest.mark.parametrize("calm", [False, True])
def test_an_unlevered_run_with_fees_equals_vectorbts_portfolio(fee, calm):
    with warnings.catch_warnings():
        # on import vectorbt's dependencies warn about their own deprecated calls
        warnings.simplefilter("ignore")
        vectorbt = pytest.importorskip("vectorbt")
    rng = np.random.default_rng(5)
    bars = walk(400, seed=3, sigma=0.01, gap=0.004)
    # at most 0.99 of the equity, so that neither shrinks an order to what is there for its fee
    targets = 0.99 * rng.random(400)
    if calm:
        targets[rng.random(400) < 0.8] = NAN
    market = market_of(*bars, targets=targets.tolist())
    venue = venue_of(fees={"taker": fee, "maker": fee})
    ours = bt.run(market, Follow(), venue=venue, account=account_of(), compile=False)
    opens, closes = (pd.Series(x, index=market.times) for x in (market.open, market.close))
    with warnings.catch_warnings():
        # vectorbt 1.0 touches pandas options and numba features that are deprecated
        warnings.simplefilter("ignore")
        theirs = vectorbt.Portfolio.from_orders(
            closes,
            size=pd.Series(targets, index=market.times).shift(1),
            size_type="targetpercent",
            price=opens,
            val_price=opens,
            fees=fee,
            init_cash=1000.0,
            freq="1h",
        )
        value, held = theirs.value().to_numpy(), theirs.assets().to_numpy()
    assert equities(ours) == pytest.approx(value, rel=1e-9)
    assert ours.bars["position"].to_numpy() == pytest.approx(held, rel=1e-9, abs=1e-12)


def test_resampled_bars_keep_every_settlement():
    stamps = [(h + 0.0, 0.0001 * (h + 1)) for h in range(0, 96, 8)]
    market = market_of(*[100] * 96, funding=stamps)
    for interval, interval_hours in (("4h", 4), ("8h", 8), ("1d", 24)):
        coarse = market.resample(interval)
        assert coarse.funding_rate.tolist() == market.funding_rate.tolist()
        result = bt.run(coarse, Follow(), venue=venue_of(), account=account_of(), compile=False)
        # rebalanced to 1x each bar, so pays as it holds: all stamps after the first purchase
        paid = [rate for hour, rate in stamps if hour > interval_hours]
        assert len(happened(result, "funding")) == len(paid)


# ------------------------------------------------------------------------------- cash and flows


def test_the_start_is_the_first_open():
    assert market_of(*[100] * 2).times[0] == START


@pytest.mark.parametrize("interval", ["1h", "1d"])
def test_an_account_of_cash_alone_earns_the_risk_free_rate_and_no_more(interval):
    bars = [100] * (24 * 12 if interval == "1h" else 12)
    result = play(
        *bars, targets=NAN, interval=interval, venue=venue_of(interest_on="balance", cash_rate=0.05)
    )
    assert result.metrics["total_return"] > 0.0
    assert math.isnan(result.metrics["sharpe"])


def test_a_deposit_does_not_look_like_decay():
    bars = [(100, 101, 100, 101), (101, 101, 100, 100)] * 20
    result = play(*bars, targets=1.0, account=account_of(flows=series({3: 99_000.0})))
    assert result.metrics["leverage_decay"] == pytest.approx(0.0, abs=1e-9)


def test_an_account_emptied_by_its_owner_is_not_ruined_and_trades_again():
    flows = series({3: -1000.0, 6: 500.0})
    empty = play(*[100] * 10, targets=[NAN] * 7 + [1.0] * 3, account=account_of(flows=flows))
    assert empty.bars["equity"].iloc[4] == 0.0
    assert empty.metrics["ruined"] == 0.0
    assert empty.bars["position"].iloc[-1] == is_(5.0)
