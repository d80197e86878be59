"""LeverageLoop, and its loan at a lending market built from the terms of a venue."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import backtest as bt
from backtest.strategies import LeverageLoop
from tests import scenes
from tests.kit import live, market_of

THRESHOLD, CLOSE_FACTOR, PENALTY = 0.8, 0.5, 0.05


def lending_market(**terms: Any) -> bt.Venue:
    """Return a venue that lends up to 75 %, liquidates at 80 % of loan to value, and takes 5 %."""
    return bt.Venue(
        contract=bt.Contract(lot=0.0, tick=1e-8, min_notional=0.0),
        brackets=[bt.Bracket(0.0, math.inf, 4.0, 1.0 - THRESHOLD)],
        fees=bt.Fees(taker=0.0, maker=0.0),
        slippage=bt.Slippage(rate=0.0),
        liquidation=bt.Liquidation(
            mode="partial",
            step=CLOSE_FACTOR * THRESHOLD * (1.0 + PENALTY),
            fee=PENALTY / (1.0 + PENALTY),
            slippage=0.0,
        ),
        interest_on="loan",
        **terms,
    )


def borrow(*bars: Any, policy: bt.Policy | None = None, **terms: Any) -> bt.Result:
    """Return what happens to 10,000 deposited at the lending market, in plain Python."""
    policy = policy or LeverageLoop(ltv=0.6, band=0.9)
    return live(scenes.market_of(*bars), policy, venue=lending_market(**terms), compile=False)


def debt(result: bt.Result) -> np.ndarray:
    return -result.bars["cash"].to_numpy()


@pytest.mark.parametrize("v", [0.01, 0.5, 0.75, 0.95])
def test_the_leverage_is_the_sum_of_the_geometric_series(v: float):
    """Each deposit lends v of itself, which is deposited again; the rest is v^(n+1) / (1 - v)."""
    bar = SimpleNamespace(direction=1.0)
    wanted = LeverageLoop(ltv=v).leverage(bar, SimpleNamespace(leverage=0.0))
    deposited, deposit = 0.0, 1.0
    for n in range(400):
        deposited += deposit
        deposit *= v
        assert wanted - deposited == pytest.approx(v ** (n + 1) / (1.0 - v), abs=1e-12)
    assert (wanted - 1.0) / wanted == pytest.approx(v, rel=1e-12)


@pytest.mark.parametrize(("held", "direction", "is_traded"), [
    (2.0, 1.0, False),  # v = 1/2: health as aimed at
    (1.8, 1.0, False),  # v_t = 4/9, health 9/8 of it
    (1.6, 1.0, True),  # v_t = 3/8, health 4/3 of it
    (2.4, 1.0, False),  # v_t = 7/12, health 6/7 of it
    (2.6, 1.0, True),  # v_t = 8/13, health 13/16 of it
    (1.0, 1.0, True),  # no loan
    (0.7, 1.0, True),
    (-2.0, 1.0, True),  # the other side
    (-2.0, -1.0, False),
    (1.0, 0.5, False),  # half the size, the same loop
    (1.3, 0.5, True),
    (2.0, 0.0, True),
])  # fmt: skip
def test_the_loop_is_left_alone_while_its_health_is_in_the_band(held, direction, is_traded):
    policy = LeverageLoop(ltv=0.5, band=0.18)
    account = SimpleNamespace(leverage=held)
    answer = policy.leverage(SimpleNamespace(direction=direction), account)
    assert answer == 2.0 if is_traded else math.isnan(answer)


def test_the_collateral_the_debt_and_the_health_factor_by_hand():
    """10,000 at 60 %: 25,000 of collateral, 15,000 of debt, health 0.8 * 25,000 / 15,000 = 4/3."""
    result = borrow(100.0, 100.0, 100.0)
    bars = result.bars
    assert bars["position"].iloc[1] == pytest.approx(250.0, rel=1e-12)
    assert debt(result)[1] == pytest.approx(15_000.0, rel=1e-12)
    health = THRESHOLD * 25_000.0 / debt(result)[1]
    assert health == pytest.approx(4.0 / 3.0, rel=1e-12)
    assert bars["liquidation_price"].iloc[1] == pytest.approx(75.0, rel=1e-12)  # 100 / health


def test_a_breach_repays_half_of_the_debt_and_seizes_its_worth_and_the_penalty():
    """At 75, 18,750 hold 15,000: 7,500 are repaid with 7,875 of collateral, 105 of 250 coins.

    145 coins at 75 and a debt of 7,500 are left: equity 3,375, which is 3,750 less 375, 5 % of what
    was repaid. Health is 0.8 * 10,875 / 7,500 = 1.16, and the next price 7,500 / (0.8 * 145).
    """
    result = borrow(100.0, 100.0, (100.0, 100.0, 74.0, 75.0), 75.0)
    bars, events = result.bars, result.events
    assert bars["position"].iloc[2] == pytest.approx(145.0, rel=1e-12)
    assert debt(result)[2] == pytest.approx(7500.0, rel=1e-12)
    assert bars["equity"].iloc[2] == pytest.approx(3375.0, rel=1e-12)
    assert bars["liquidation_loss"].iloc[2] == pytest.approx(375.0, rel=1e-12)
    assert bars["liquidation_price"].iloc[2] == pytest.approx(7500.0 / 116.0, rel=1e-12)
    liquidated = events[events["kind"] == "liquidation"]
    assert liquidated["price"].tolist() == pytest.approx([75.0], rel=1e-12)
    assert result.metrics["liquidations"] == 1


def test_a_gap_repays_a_fixed_part_of_the_collateral_until_the_loan_is_healthy():
    """Opening at 66, 16,500 hold 15,000. 42 % of the collateral each time, 1 / 1.05 of it repaid:

    15,000 - 6,600 = 8,400 on 9,570, health 0.911; - 3,828 = 4,572 on 5,550.60, 0.971;
    - 2,220.24 = 2,351.76 on 3,219.348, 1.095. Penalties of 330, 191.40 and 111.012.
    """
    result = borrow(100.0, 100.0, 66.0, 66.0)
    bars = result.bars
    assert bars["position"].iloc[2] == pytest.approx(250.0 * 0.58**3, rel=1e-12)
    assert debt(result)[2] == pytest.approx(2351.76, rel=1e-12)
    assert bars["liquidation_loss"].iloc[2] == pytest.approx(632.412, rel=1e-12)
    assert bars["equity"].iloc[2] == pytest.approx(1500.0 - 632.412, rel=1e-12)


def test_a_gap_under_the_debt_is_the_lenders_loss():
    """At 50 the collateral of 12,500 does not cover 15,000: 2,500 of bad debt, and no equity."""
    result = borrow(100.0, 100.0, 50.0, 50.0)
    assert result.bars["equity"].iloc[2] == 0.0
    assert result.metrics["bad_debt"] == pytest.approx(2500.0, rel=1e-12)


def test_interest_alone_breaches_a_loan_that_is_left_alone():
    """At 75 % the health is 0.8 / 0.75; a debt that grows by 40 % / 8760 an hour passes 80 %.

    Interest is added to the debt at each open from the second after the loan on: the first n with
    (1 + r)^n >= 0.8 / 0.75.
    """
    hourly = 0.4 / 8760.0
    n = math.ceil(math.log(0.8 / 0.75) / math.log1p(hourly))
    market = market_of(np.full(n + 5, 100.0))
    policy = LeverageLoop(ltv=0.75, band=0.9)
    result = live(market, policy, venue=lending_market(borrow_rate=0.4), compile=False)
    bars = result.bars
    before = 30_000.0 * (1.0 + hourly) ** np.arange(n)
    np.testing.assert_allclose(debt(result)[1 : n + 1], before, rtol=1e-9)
    assert bars["interest"].iloc[2] == pytest.approx(30_000.0 * hourly, rel=1e-9)
    assert (bars["position"].iloc[1 : n + 1] == 400.0).all()
    assert bars["position"].iloc[n + 1] == pytest.approx(400.0 * 0.58, rel=1e-9)
    owed = 30_000.0 * (1.0 + hourly) ** n
    assert debt(result)[n + 1] == pytest.approx(owed - 0.4 * 40_000.0, rel=1e-9)


def test_the_policy_restores_the_loan_before_it_is_liquidated():
    """Down 1 % an hour for 40 hours: a band of 10 % sells in time, one of 90 % does not.

    From 60 % on the loan to value grows by 1 / 0.99 an hour: after 11 hours it is over 0.6 / 0.9,
    and the next open restores it.
    """
    path = 100.0 * 0.99 ** np.arange(40.0)
    results = [
        live(
            market_of(path), LeverageLoop(ltv=0.6, band=band), venue=lending_market(), compile=False
        )
        for band in (0.1, 0.9)
    ]
    assert [result.metrics["liquidations"] for result in results] == [0, 1]
    ltv = debt(results[0]) / (results[0].bars["position"] * path)
    assert 0.6 / 0.99**10 < 0.6 / 0.9 < 0.6 / 0.99**11
    assert ltv[1:].max() == pytest.approx(0.6 / 0.99**11, rel=1e-9)
