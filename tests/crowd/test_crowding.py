"""Crowding: constant leverage against its closed form, and markets that policies make."""

import math

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.crowd.constant_leverage import critical_leverage, feedback_gain, rebalancing_flow
from backtest.crowd.impact import ImpactCurve
from backtest.crowd.impacted_market import Crowded, follow, move_prices, solve_market
from backtest.strategies import Constant, VolTarget
from tests.markets import free_venue, market_of

TERMS = {"venue": free_venue(), "account": bt.Account(capital=1_000.0), "compile": False}


def test_flow_gain_and_critical_leverage_by_hand():
    # 3 x 100 = 300 held; after -1 % 297 held, wealth 97, target 291: it sells 6
    assert rebalancing_flow(3.0, 100.0, -0.01) == pytest.approx(291.0 - 297.0)
    assert feedback_gain(3.0, 100.0, 1e-3) == pytest.approx(1.0 / (1.0 - 0.6))
    assert feedback_gain(1.0, 100.0, 1.0) == 1.0
    assert feedback_gain(3.0, 1_000.0, 1e-3) == math.inf
    critical = critical_leverage(50.0, 0.002)  # L (L - 1) = 10
    assert critical * (critical - 1.0) == pytest.approx(10.0)
    with pytest.raises(bt.ParameterError):
        critical_leverage(math.nan, 1.0)


@pytest.mark.parametrize("leverage", [2.0, 3.0, 5.0])
def test_the_reproduction_number_of_constant_leverage_is_that_of_its_quadratic(leverage):
    # a flat market: wealth W = notional / L, R = k L (L - 1) W at a share of 1
    market = market_of(np.full(20, 100.0))
    found = bt.crowding(
        Constant(leverage=leverage), market, open_interest=1e6, impact=bt.Linear(2e-7), starts=0,
        shares=(0.0, 0.5), **TERMS,
    )  # fmt: skip
    wealth = 1e6 / leverage
    expected = 2e-7 * wealth * leverage * (leverage - 1.0)
    assert found.table["reproduction"].tolist() == pytest.approx([0.0, 0.5 * expected], rel=1e-9)
    assert found.critical_share == pytest.approx(1.0 / expected, rel=1e-9)
    assert critical_leverage(found.critical_share * wealth, 2e-7) == pytest.approx(leverage)


def test_a_crowd_at_constant_leverage_multiplies_a_move_by_its_gain():
    """A fall of 1 % at bar 30, then nothing: each bar the crowd sells R of the fall before it."""
    k, share, leverage = 1e-7, 0.5, 3.0
    prices = np.where(np.arange(50) < 30, 100.0, 99.0)
    market = market_of(prices)
    unit = 1e6 * share / (leverage * 1_000.0)  # accounts of 1,000 with a notional of 3,000
    solved = solve_market(
        market, [Crowded(Constant(leverage=leverage), unit)], ImpactCurve(k, 1.0, 1.0), 1.0, TERMS
    )
    assert solved.found.clears
    wealth = unit * 1_000.0
    entry = k * wealth * leverage  # the first purchase moves the price up
    assert solved.found.values[1:30] == pytest.approx(-entry, rel=0.2)
    extra = solved.found.values[-1] - solved.found.values[29]
    gain = feedback_gain(leverage, wealth, k)
    assert 1.0 + extra / 0.01 == pytest.approx(gain, rel=0.05)


@pytest.mark.slow
def test_it_does_not_clear_far_over_the_critical_share():
    # R is 0.4 at a share of 0.1, and 3.6 at 0.9: each round of sales is larger than the last
    market = market_of(np.where(np.arange(40) < 10, 100.0, 95.0))
    found = bt.crowding(
        Constant(leverage=3.0), market, open_interest=1e6, impact=bt.Linear(2e-6), starts=0,
        shares=(0.1, 0.9), **TERMS,
    )  # fmt: skip
    assert 0.1 < found.critical_share < 0.9
    assert found.table["clears"].tolist() == [True, False]
    assert math.isnan(found.table.loc[0.9, "growth"])
    assert found.table.loc[0.9, "reproduction"] > 1.0


def test_a_share_of_nothing_is_a_run():
    market = bt.Market.sample(bars=120)
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT", "latest")
    terms = {"venue": venue, "account": bt.Account(), "compile": False}
    policy = VolTarget(target=1.0, half_life=24)
    alone = bt.run(market, policy, **terms)
    found = bt.crowding(
        policy, market, open_interest=1e9, impact=bt.Linear(0.5), recovery="2h",
        shares=(0.0, 0.02), starts=2, horizon="2d", **terms,
    )  # fmt: skip
    assert found.results is not None
    assert found.results[0.0].bars.equals(alone.bars)
    assert found.results[0.0].manifest["id"] == alone.manifest["id"]
    assert found.table["volatility"].iloc[0] == alone.metrics["volatility"]
    assert found.table["liquidation_probability"].between(0.0, 1.0).all()
    assert found.table["clears"].all()
    # buying at prices that its own crowd has raised costs growth
    assert found.table["growth"].iloc[1] < found.table["growth"].iloc[0]


def test_the_flow_of_the_runs_makes_the_prices_of_the_market():
    market = bt.Market.sample(bars=80)
    policy = VolTarget(target=1.0, half_life=24)
    terms = {**TERMS}
    curve = ImpactCurve(0.1, 0.5, 1e9)
    solved = solve_market(market, [Crowded(policy, 2_000.0)], curve, 0.7, terms)
    assert solved.found.clears
    position = solved.results[0].bars["position"].to_numpy()
    sold = -2_000.0 * np.diff(position, prepend=0.0) * market.open
    np.testing.assert_allclose(follow(sold, curve, 0.7), solved.found.values, atol=1e-8)
    np.testing.assert_allclose(solved.market.close, market.close * (1.0 - solved.found.values))


def test_accounts_liquidated_in_time_are_counted():
    """At 40 times, with a fall of 5 % in every tenth bar, every account is liquidated."""
    prices = 100.0 * np.cumprod(np.where(np.arange(200) % 10 == 9, 0.95, 1.0055))
    venue = bt.Venue.simple(taker=0.0, slippage=0.0, maintenance_rate=0.01, max_leverage=50,
                            liquidation_fee=0.0)  # fmt: skip
    found = bt.crowding(
        Constant(leverage=40.0), market_of(prices), open_interest=1.0, impact=bt.Linear(0.0),
        venue=venue, account=bt.Account(), shares=(0.0,), starts=4, horizon="1d", compile=False,
    )  # fmt: skip
    assert found.table["liquidation_probability"].tolist() == [1.0]


def test_signals_by_bar_and_by_time_are_the_same():
    market = bt.Market.sample(bars=60)
    values = np.where(np.arange(60) < 30, 1.0, -0.5)
    series = pd.Series(values, index=pd.DatetimeIndex(market.time, tz="UTC"))
    tables = [
        bt.crowding(
            Constant(leverage=2.0), market, open_interest=1e8, impact=bt.Linear(0.1), starts=2,
            horizon="1d", shares=(0.0, 0.1), signal=signal, **TERMS,
        ).table
        for signal in (values, series)
    ]  # fmt: skip
    pd.testing.assert_frame_equal(*tables)
    assert tables[0]["clears"].all()


def test_impact_recovers_by_its_half_life():
    flow = np.array([0.0, 40.0, 0.0, 0.0, -10.0])
    # square root: 0.1 sqrt(40 / 10) = 0.2, halves each bar; then Q = 10 (0.025 / 0.1)^2 - 10
    found = follow(flow, ImpactCurve(0.1, 0.5, 10.0), 0.5)
    last = 10.0 * (0.025 / 0.1) ** 2 - 10.0
    expected = [0.0, 0.2, 0.1, 0.05, -0.1 * math.sqrt(-last / 10.0)]
    assert found.tolist() == pytest.approx(expected)


def test_moved_prices_are_a_valid_market():
    market = bt.Market.sample(bars=50)
    fall = np.linspace(-0.1, 0.2, 50)
    moved = move_prices(market, fall)
    np.testing.assert_allclose(moved.mark_low, market.mark_low * (1.0 - fall))
    assert (moved.low <= np.minimum(moved.open, moved.close)).all()
    assert moved.content_hash != market.content_hash
    assert move_prices(market, np.zeros(50)) is market


@pytest.mark.parametrize("bad", [
    {"open_interest": 0.0},
    {"open_interest": math.nan},
    {"impact": 1.0},
    {"recovery": "soon"},
    {"shares": ()},
    {"shares": "all"},
    {"shares": (0.0, math.nan)},
    {"shares": (1.2,)},
    {"volume": -1.0},
    {"shock": 0.0},
    {"shock": math.nan},
    {"starts": -1},
    {"starts": 1.5},
    {"horizon": "900d"},
    {"policy": Constant(leverage=0.0)},
    {"policy": Constant},
    {"venue": None},
], ids=str)  # fmt: skip
def test_bad_arguments_are_refused(bad):
    terms = {"open_interest": 1e6, "impact": bt.Linear(0.1), "shares": (0.1,), "horizon": "1d",
             "starts": 1, "policy": Constant(leverage=2.0), **TERMS, **bad}  # fmt: skip
    with pytest.raises(bt.ParameterError) as caught:
        bt.crowding(market=bt.Market.sample(bars=40), **terms)
    assert "cure" in str(caught.value)
