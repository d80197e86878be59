"""Lending: the curve of rates, the whole debt repaid, the health target, collateral of an asset."""

import math

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.strategies import Constant, HealthTarget, LeverageLoop
from tests import scenes
from tests.kit import free_venue, live
from tests.strategies.test_strategies_loop import PENALTY, THRESHOLD, debt, lending_market

AAVE = bt.RateCurve(base=0.0, slope1=0.04, slope2=0.6, optimal=0.9, reserve_factor=0.1)
"""Stablecoins at Aave v3 as first deployed."""


def full_below(health: float = 0.95, **terms) -> bt.Venue:
    return lending_market(**terms).override({"liquidation.full_below_health": health})


@pytest.mark.parametrize(
    ("used", "rate"), [(0.0, 0.0), (0.45, 0.02), (0.9, 0.04), (0.95, 0.34), (1.0, 0.64)]
)
def test_the_borrow_rate_has_a_kink_and_suppliers_earn_their_part(used, rate):
    assert AAVE.borrow(used) == pytest.approx(rate, abs=1e-12)
    assert AAVE.supply(used) == pytest.approx(rate * used * 0.9, abs=1e-12)


def test_arrays_and_series_keep_their_shape_and_a_bad_utilization_is_refused():
    used = pd.Series([0.45, 0.9], index=pd.date_range("2024-01-01", periods=2, tz="UTC"))
    assert AAVE.borrow(used).index.equals(used.index)
    np.testing.assert_allclose(AAVE.borrow(used.to_numpy()), [0.02, 0.04])
    for bad in (-0.1, 1.1, math.nan):
        with pytest.raises(bt.ParameterError, match="utilization must be from 0 to 1"):
            AAVE.borrow(np.array([0.5, bad]))


def test_a_column_sets_the_rate_from_the_next_open_on():
    market = scenes.market_of(100.0, 100.0, 100.0, 100.0).with_columns(used=[0.45, 0.9, 0.95, 1.0])
    rates = AAVE.rates(market, "used")
    np.testing.assert_allclose(rates["borrow_rate"], [0.02, 0.02, 0.04, 0.34])
    venue = lending_market(**rates)
    result = live(market, LeverageLoop(ltv=0.6, band=0.9), venue=venue, compile=False)
    # 15,000 owed from bar 1 on: an hour at 2 %, known at the open of bar 1, then one at 4 %
    first = 15_000 * 0.02 / 8760
    second = (15_000 + first) * 0.04 / 8760
    assert result.bars["interest"].tolist()[2:] == pytest.approx([first, second])
    with pytest.raises(bt.DataError, match="did you mean 'used'"):
        AAVE.rates(market, "use")


@pytest.mark.parametrize("opened", [66.0, 71.25])
def test_at_a_low_health_the_whole_debt_is_repaid_and_the_rest_of_the_collateral_stays(opened):
    """Opening at 66, 250 coins hold 15,000: health 0.8 * 16,500 / 15,000 = 0.88; at 71.25, 0.95.

    15,000 are repaid with 15,750 of coins, at 66 238.64 of 250; 750 go to the liquidator.
    """
    market = scenes.market_of(100.0, 100.0, opened, opened)
    policy = LeverageLoop(ltv=0.6, band=0.9)
    result = live(market, policy, venue=full_below(), compile=False)
    left = 250.0 - 15_750.0 / opened
    assert result.bars["position"].iloc[2] == pytest.approx(left, rel=1e-12)
    assert debt(result)[2] == pytest.approx(0.0, abs=1e-9)
    assert result.bars["liquidation_loss"].iloc[2] == pytest.approx(750.0, rel=1e-12)
    assert result.bars["equity"].iloc[2] == pytest.approx(left * opened, rel=1e-12)


def test_above_that_health_a_step_repays_its_part():
    """Opening at 72, the health is 0.96: 42 % of the collateral, 7,560, as without the rule."""
    market = scenes.market_of(100.0, 100.0, 72.0, 72.0)
    policy = LeverageLoop(ltv=0.6, band=0.9)
    results = [
        live(market, policy, venue=venue, compile=False)
        for venue in (full_below(), lending_market())
    ]
    assert results[0].bars["position"].iloc[2] == pytest.approx(145.0, rel=1e-12)
    assert results[0].metrics["final_equity"] == results[1].metrics["final_equity"]


def test_a_short_is_closed_whole():
    """100 coins owed at 100, 20,000 held; opening at 165, health 20,000 / (1.2 * 16,500) = 1.01.

    At 180 it is 0.926: all 100 are bought back for 18,000, and 857.14 of penalty.
    """
    market = scenes.market_of(100.0, 100.0, 180.0, 180.0)
    result = live(market, Constant(1.0), venue=full_below(), signal=-1.0, compile=False)
    assert result.bars["position"].iloc[2] == 0.0
    loss = 18_000.0 * PENALTY / (1.0 + PENALTY)
    assert result.bars["equity"].iloc[2] == pytest.approx(2_000.0 - loss, rel=1e-12)


def test_it_repays_by_hand():
    """2x at 100 with 10,000: 200 coins, 10,000 owed. At 80 the health is 0.8 * 16,000 / 10,000
    = 1.28: equity 6,000, and at 80 150 coins with 6,000 owed have a health of 1.6.
    """
    market = scenes.market_of(100.0, 100.0, 80.0, 80.0, 80.0)
    result = live(market, HealthTarget(), venue=lending_market(), compile=False)
    assert result.bars["position"].tolist() == pytest.approx([0.0, 200.0, 200.0, 150.0, 150.0])
    assert debt(result)[3] == pytest.approx(6_000.0)
    assert result.bars["health_factor"].iloc[3] == pytest.approx(1.6)
    before = result.bars["health_factor"].iloc[2]
    assert before == pytest.approx(THRESHOLD * 16_000 / 10_000)


@pytest.mark.parametrize(("ether", "count"), [(520.0, 0), (510.0, 1)])
def test_each_collateral_counts_at_its_threshold(ether, count):
    """21,000 of bitcoin bought with 1,000 and a loan of 20,000, beside 10 ether of 2,000 each.

    Healthy while 0.75 * 21,000 + 0.825 * 10 P > 20,000: P over 515.15.
    """
    bitcoin = scenes.market_of(100.0, 100.0, 100.0, 100.0)
    flat = (ether, ether, ether, ether)
    coins = scenes.market_of(2000.0, 2000.0, (2000.0, 2000.0, ether, ether), flat)
    account = bt.Account(
        capital=1_000.0,
        collateral=[bt.Collateral("ETH", amount=10.0, prices=coins, rate=0.825)],
        negative_limit=1e6,
        requirement=bt.Brackets(),
    )
    venue = free_venue(interest_on="loan").override(
        {"brackets": [bt.Bracket(0.0, math.inf, 4.0, 0.25)]}
    )
    result = bt.run(
        bt.Markets({"BTC": bitcoin}, currency="USD"), Constant(1.0),
        venue=venue, account=account, compile=False, signal={"BTC": 1.0},
    )  # fmt: skip
    assert result.metrics["liquidations"] == count
