"""Each built-in policy fails in the market that its ``fails_when`` describes."""

import inspect

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import strategies as all_policies
from backtest.engine.policy_contract import hold_options, list_options
from backtest.strategies import (
    Average,
    Capped,
    Carry,
    Collar,
    Constant,
    Cooldown,
    CoveredCall,
    Cppi,
    DeltaHedge,
    DrawdownControl,
    FundingAware,
    HealthTarget,
    ImpliedVolTarget,
    Kelly,
    Ladder,
    LeverageLoop,
    LiquidationDistance,
    LiquidationProbability,
    LongVolatility,
    Lowest,
    MarginBuffer,
    Regime,
    Scheduled,
    SharpeScaling,
    Smoothed,
    TailHedge,
    TailRisk,
    TrendVol,
    VolTarget,
)  # fmt: skip

VENUE = bt.Venue.simple(
    taker=0.0005, slippage=0.0001, maintenance_rate=0.01, max_leverage=50, liquidation_fee=0.0
)
LIMIT = 10.0
"""The largest leverage of the account."""
SWINGS = np.tile([0.03, 1.0 / 1.03 - 1.0], 100)
"""Up and down by turns: the price ends where it began."""


def calm(bars: int = 300, size: float = 0.002, drift: float = 0.0) -> np.ndarray:
    """Return returns that alternate around a drift."""
    return np.where(np.arange(bars) % 2 == 0, size, -size) + drift


def market(*returns: object, funding: float | None = None, **columns: float) -> bt.Market:
    """Return hourly bars with these returns, one after the other, each traded inside its bar."""
    moves = np.concatenate([np.atleast_1d(each) for each in returns])
    close = 100.0 * np.cumprod(1.0 + moves)
    start = np.concatenate([[100.0], close[:-1]])
    index = pd.date_range("2023-01-01", periods=len(moves), freq="1h", tz="UTC")
    bars = pd.DataFrame(
        {
            "open": start,
            "high": np.maximum(start, close),
            "low": np.minimum(start, close),
            "close": close,
            **columns,
        },
        index=index,
    )
    paid = None if funding is None else pd.DataFrame({"rate": funding}, index=index[8::8])
    return bt.Market.from_frames(bars, funding=paid)


def run(of: bt.Market, policy: bt.Policy, **terms: object) -> bt.Result:
    """Return a run in plain Python."""
    account = bt.Account(capital=10_000, max_leverage=LIMIT, **terms)
    return bt.run(of, policy, venue=VENUE, account=account, compile=False)


def lost(result: bt.Result) -> float:
    """Return the loss from the start to the end, as a fraction."""
    return -result.metrics["total_return"]


def gained(result: bt.Result) -> float:
    """Return the gain from the start to the end, as a fraction."""
    return result.metrics["total_return"]


def held(result: bt.Result, bar: int) -> float:
    """Return the leverage at a close."""
    return float(result.bars["leverage"].iloc[bar])


CRASH = market(calm(), -0.12, calm(24))
"""A fall of 12 % in one bar, out of a calm market."""
TURN = market(calm(2400, drift=0.0006), np.full(120, -0.004))
"""A good hundred days, and a fall of 40 % that begins at the top."""
TWICE = market(calm(10), -0.15, np.full(30, -0.008), np.full(150, 0.008))
"""A gap of 15 %, a fall to 66 %, and a rise to twice the first price."""


def test_every_policy_says_when_it_fails_and_is_tested():
    """In one sentence; a new policy needs a test here."""
    tests = [name for name in globals() if name.startswith("test_")]
    for name in all_policies.__all__:
        policy = getattr(all_policies, name)
        assert policy.fails_when.endswith("."), name
        assert policy.fails_when.count(". ") == 0, name
        assert any(inspect.getsource(globals()[each]).count(f"{name}(") for each in tests), name


@pytest.mark.parametrize("policy", [
    VolTarget(target=0.8),
    ImpliedVolTarget(target=0.8),
    TailRisk(window=1000),
    LiquidationProbability(probability=0.001),
    Regime(calm=5.0, half_life=200.0),
    HealthTarget(target=1.1, min_health=1.05, max_health=1.2),
    LeverageLoop(ltv=0.88),
    Average(Constant(1.0), Constant(10.0)),
    Smoothed(VolTarget(target=0.8), up=24.0, down=0.5),
], ids=lambda policy: type(policy).__name__)  # fmt: skip
def test_it_meets_the_crash_with_much_leverage(policy):
    """It holds 4 or more before the crash, and loses over four times what the price does."""
    crash = market(calm(1100), -0.12, calm(24), implied_volatility=0.15)
    result = run(crash, policy)
    assert held(result, 1098) >= 4.0
    assert lost(result) >= 0.45


def test_smoothed_is_slower_than_its_policy():
    """Six hours of large moves announce the crash: the policy itself is out of its way by then."""
    storm = market(calm(), np.tile([0.02, -0.02], 12), -0.12)
    inner = VolTarget(target=0.6, half_life=4)
    assert lost(run(storm, Smoothed(inner, up=24.0, down=0.5))) > 2.0 * lost(run(storm, inner))


def test_swings_cost_what_rebalances():
    """The price ends where it began."""
    swings = market(SWINGS)
    assert lost(run(swings, Constant(leverage=3.0))) > 0.3
    assert lost(run(swings, MarginBuffer(target=0.03, low=0.99, high=1.01))) > 0.3


def test_a_trend_takes_the_wallet_of_a_position_that_is_defended():
    """A fall by 30 % in small steps: undefended, 4x at 20x lose a fifth; defended, most."""
    fall = market(calm(10), np.full(100, -0.0036))
    terms = {"margin": "isolated", "venue_leverage": 20.0, "after_liquidation": "halt"}
    kept = run(fall, Constant(leverage=4.0), **terms)
    defended = run(fall, LiquidationDistance(target=4.0, distance=0.05), **terms)
    assert lost(defended) > 0.6
    assert lost(kept) < 0.3


def test_turns_cost_what_follows_a_trend():
    """The trend of each lookback ends when it is found."""
    turns = market(np.tile(np.repeat([0.002, -0.002], 120), 8))
    policy = TrendVol(target=0.5, short=120, middle=120, long=120)
    assert lost(run(turns, policy)) > 0.15


@pytest.mark.parametrize("policy", [Kelly(fraction=1.0, shrinkage=0.0), SharpeScaling(target=0.6)])
def test_a_past_that_ends_leaves_the_leverage_high(policy):
    """The leverage at the top is above its mean, and the fall takes more than the price loses."""
    result = run(TURN, policy)
    assert held(result, 2399) >= 1.5
    equity = result.bars["equity"]
    assert 1.0 - equity.iloc[-1] / equity.iloc[2399] > 0.45


def test_a_gap_takes_cppi_through_its_floor():
    """A fall of 40 % over night is more than 1 / 4."""
    gap = market(calm(20), -0.4, calm(20))
    assert lost(run(gap, Cppi(multiplier=4.0, floor=0.8))) > 0.25


@pytest.mark.parametrize("policy", [
    DrawdownControl(at_peak=3.0, floor=0.7),
    Ladder(by="drawdown", level_1=3.0, level_2=1.5, level_3=0.0),
    Lowest(DrawdownControl(at_peak=3.0, floor=0.7), Constant(3.0)),
], ids=lambda policy: type(policy).__name__)  # fmt: skip
def test_a_fall_before_the_rise_leaves_it_out(policy):
    """The price doubles from its start, and the account still has a loss."""
    assert gained(run(TWICE, Constant(1.0))) > 0.8
    assert lost(run(TWICE, policy)) > 0.05


def test_a_pause_waits_out_the_recovery():
    """A stop closes the position at the low; with a pause it stays closed for the rise."""
    dip = market(calm(48), -0.15, np.full(24, 0.01), calm(24))
    policy = Constant(leverage=1.0)
    paused = run(dip, Cooldown(policy, bars=48), stop_loss=0.1)
    assert gained(run(dip, policy, stop_loss=0.1)) - gained(paused) > 0.15


def test_a_paid_rise_is_missed_by_the_funding():
    """Funding of 0.1 % per 8 hours, on a price that rises by 0.3 % per hour."""
    rise = market(calm(400, size=0.004, drift=0.003), funding=0.001)
    policy = Constant(leverage=1.0)
    assert gained(run(rise, policy)) > 1.5 * gained(
        run(rise, FundingAware(policy, sensitivity=2.0))
    )


def test_a_cap_holds_back_what_is_right():
    """The policy asks for more than five, and the price rises."""
    rise = market(calm(300, drift=0.001))
    policy = VolTarget(target=0.6)
    assert gained(run(rise, policy)) > 2.0 * gained(run(rise, Capped(policy, cap=1.0)))


def test_a_date_is_not_the_day_on_which_the_market_turns():
    """The leverage falls on 20 January, the price on 13 January."""
    policy = Scheduled(Constant(5.0), Constant(0.0), since=20230120)
    assert lost(run(CRASH, policy)) > 0.45


def test_a_premium_that_widens_in_a_rise_liquidates_the_pair():
    """In an hour spot rises by 80 %, the perpetual by 116 %: the pair allowed for 5 % between."""
    spot, perpetual = (market(calm(48), rise, 0.0, funding=0.001) for rise in (0.8, 1.16))
    margined = bt.Venue.simple(
        taker=0.0, slippage=0.0, maintenance_rate=0.01, max_leverage=50.0, liquidation_fee=0.0
    )
    paid = bt.Venue.spot(taker=0.0, slippage=0.0, haircut=0.05, borrow_rate=0.0, like=margined)
    result = bt.run(
        bt.Markets({"spot": spot, "perpetual": perpetual}, currency="USDT"),
        Carry(rise=1.0, premium=0.05, borrow_rate=0.05),
        venue={"spot": paid, "perpetual": margined},
        account=bt.Account(),
        signal={"spot": 1.0, "perpetual": -1.0},
        compile=False,
    )
    assert result.metrics["liquidations"] == 1
    assert lost(result) > 0.5


def with_options(of: bt.Market, policy: bt.Policy) -> float:
    """Return the gain of an account that may hold options at a volatility of 60 %."""
    venue, account = hold_options(VENUE, bt.Account(capital=10_000))
    markets = list_options(of, of.end, is_coin=False)
    return gained(bt.run(markets, policy, venue=venue, account=account, compile=False))


CALM = market(calm(20 * 24))
"""Twenty days in which next to nothing happens."""


def test_protection_and_volatility_decay_where_nothing_happens():
    """The premiums are lost, two to three per cent of the equity with the budgets given."""
    none = with_options(CALM, Constant(1.0))
    assert with_options(CALM, TailHedge(Constant(1.0), budget=0.02, tenor=14.0)) < none - 0.005
    bought = LongVolatility(Constant(1.0), budget=0.05, tenor=14.0)
    assert with_options(CALM, bought) < none - 0.02


def test_a_rise_is_sold_above_the_strike():
    """A rise by 60 %: a collar and a covered call give up most of it."""
    rise = market(calm(20 * 24, drift=0.001))
    whole = with_options(rise, Constant(1.0))
    assert whole > 0.5
    assert with_options(rise, CoveredCall(Constant(1.0))) < 0.6 * whole
    assert with_options(rise, Collar(Constant(1.0))) < 0.6 * whole


def test_a_jump_under_short_options_comes_before_the_hedge():
    """Calls at the money are sold and hedged; a rise by 30 % in one bar takes 1/2 gamma S^2."""
    policy = DeltaHedge(CoveredCall(Constant(1.0), delta=0.5, cover=1.0), target=1.0)
    jump = market(calm(48), 0.3, calm(24))
    assert with_options(jump, policy) < with_options(jump, Constant(1.0)) - 0.05
