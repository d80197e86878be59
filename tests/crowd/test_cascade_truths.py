"""Cascades against their closed forms: ladders of equal steps, and one's own account."""

import math

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.crowd.cascade import find_clearing_moves
from backtest.crowd.rounds import ImpactCurve
from tests.crowd.crowds import longs_failing_at, plain_venue, random_crowd, uniform_ladder

N = 20_000
FALL = 0.2
SHOCK = 0.01
DENSITY = N * 100.0 / FALL  # notional at the price before the shock, per unit of fall


def free_fall(reproduction: float) -> bt.Linear:
    """Return the linear impact with which a ladder of this density has a reproduction number."""
    return bt.Linear(reproduction / DENSITY)


@pytest.mark.parametrize("reproduction", [0.0, 0.3, 0.7, 0.9])
def test_the_fall_with_linear_impact_is_the_shock_over_one_less_reproduction(reproduction):
    # x + R fall = fall, so fall = x / (1 - R): 0.01 / 0.1 = 0.1 with R = 0.9
    hit = bt.cascade(
        uniform_ladder(N, FALL), plain_venue(), shock=-SHOCK, impact=free_fall(reproduction),
        volume=1.0,
    )  # fmt: skip
    step = FALL / N
    assert 1.0 - hit.final_price / 100.0 == pytest.approx(
        SHOCK / (1.0 - reproduction), abs=step / (1.0 - reproduction)
    )
    assert hit.multiplier == pytest.approx(1.0 / (1.0 - reproduction), rel=2e-2)
    assert hit.reproduction == pytest.approx(reproduction, abs=2e-3)


@pytest.mark.parametrize(("reproduction", "runs_away"), [(0.94, False), (1.001, True)])
def test_it_runs_away_from_a_reproduction_number_of_one(reproduction, runs_away):
    # under 1 the fall is 0.01 / 0.06 = 0.167 < 0.2; from 1 on every rung is reached
    hit = bt.cascade(
        uniform_ladder(N, FALL), plain_venue(), shock=-SHOCK, impact=free_fall(reproduction),
        volume=1.0,
    )  # fmt: skip
    assert (hit.liquidated == N) is runs_away


@pytest.mark.parametrize("coefficient", [0.02, 0.2])
def test_the_fall_with_square_root_impact_is_the_root_of_its_quadratic(coefficient):
    # fall = x + k sqrt(r fall), r in daily volumes per unit of fall
    volume = 50.0 * DENSITY
    hit = bt.cascade(
        uniform_ladder(N, FALL), plain_venue(), shock=-SHOCK, volume=volume,
        impact=bt.SquareRoot(coefficient),
    )  # fmt: skip
    r = DENSITY / volume
    root = (coefficient * math.sqrt(r) + math.sqrt(coefficient**2 * r + 4.0 * SHOCK)) / 2.0
    assert 1.0 - hit.final_price / 100.0 == pytest.approx(root**2, abs=2.0 * FALL / N)


def test_a_rise_squeezes_shorts_as_a_fall_does_longs():
    prices = 100.0 * (1.0 + FALL * (np.arange(N) + 0.5) / N)
    frame = pd.DataFrame(
        {"side": "short", "quantity": 1.0, "entry": 100.0, "collateral": 1.01 * prices - 100.0}
    )
    crowd = bt.Crowd.from_positions(frame, price=100.0)
    hit = bt.cascade(crowd, plain_venue(), shock=SHOCK, impact=free_fall(0.5), volume=1.0)
    assert hit.final_price / 100.0 - 1.0 == pytest.approx(2.0 * SHOCK, abs=2.0 * FALL / N)
    assert hit.rounds["short"].sum() > 0.0
    assert hit.rounds["long"].sum() == 0.0


def test_rungs_sell_at_their_own_price_less_half_their_impact():
    # Two longs fail at 99 and 98. Each sale of 1 contract (notional 100) makes a fall of 0.2 %, so
    # 0.2 in price. The first sells from 99 to 98.8, at 98.9; the second from 98 to 97.8, at 97.9.
    hit = bt.cascade(
        longs_failing_at(np.array([99.0, 98.0])), plain_venue(), shock=-0.02,
        impact=bt.Linear(0.002 / 100.0), volume=1.0, insurance=math.inf,
    )  # fmt: skip
    assert hit.accounts["close_price"].tolist() == pytest.approx([98.9, 97.9])
    assert hit.final_price == pytest.approx(100.0 - 2.0 - 0.4)


def test_a_rung_that_is_passed_sells_where_the_one_before_it_left_the_price():
    # The first sale takes the price from 99 to 97 (2 %), past the second rung at 98, which sells
    # from 97 to 95, at 96.
    hit = bt.cascade(
        longs_failing_at(np.array([99.0, 98.0])), plain_venue(), shock=-0.011,
        impact=bt.Linear(0.02 / 100.0), volume=1.0, insurance=math.inf,
    )  # fmt: skip
    assert hit.accounts["close_price"].tolist() == pytest.approx([98.0, 96.0])


def test_several_clearing_prices_are_reported_and_the_nearest_is_taken():
    # shock 1 % fails nobody (first rung at 98); if both rungs were sold, a fall of 2 x 2 % holds
    crowd = longs_failing_at(np.array([98.0, 97.0]))
    impact = bt.Linear(0.02 / 100.0)
    hit = bt.cascade(crowd, plain_venue(), shock=-0.01, impact=impact, volume=1.0)
    assert hit.final_price == pytest.approx(99.0)
    assert hit.clearing_prices == pytest.approx((99.0, 97.0, 95.0)[::2])
    assert hit.is_ambiguous


def test_rounds_end_where_the_sweep_of_the_ladder_does():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        crowd = random_crowd(rng, 300)
        shock = rng.uniform(0.005, 0.1)
        curve = ImpactCurve(rng.uniform(0.01, 0.3), rng.choice([0.5, 1.0]), 1e5)
        law = bt.SquareRoot if curve.exponent == 0.5 else bt.Linear
        venue = plain_venue(slippage=0.003)
        hit = bt.cascade(
            crowd, venue, shock=-shock, impact=law(curve.factor), volume=1e5, insurance=math.inf
        )
        if (crowd.liquidation_prices(venue)[crowd.quantity < 0.0] <= 100.0).any():
            continue  # shorts that fail at once buy, which a one-sided ladder does not know
        distance = 1.0 - crowd.liquidation_prices(venue) / 100.0
        move = find_clearing_moves(distance, crowd.notional(), shock, curve)[0]
        assert hit.final_price == pytest.approx(100.0 * max(1.0 - move, 1e-6), rel=1e-12)
        reached = (crowd.notional() > 0.0) & (distance <= move * (1.0 + 1e-12))
        assert hit.liquidated == reached.sum()


def test_an_empty_crowd_changes_nothing():
    frame = pd.DataFrame({"side": [], "quantity": [], "entry": [], "collateral": []})
    crowd = bt.Crowd.from_positions(frame, price=100.0)
    hit = bt.cascade(crowd, plain_venue(), shock=-0.03, impact=bt.SquareRoot(1.0), volume=1.0)
    assert (hit.final_price, hit.multiplier, len(hit.rounds)) == (97.0, pytest.approx(1.0), 1)
    assert (hit.reproduction, hit.deficit, len(hit.haircuts)) == (0.0, 0.0, 0)


def bars_of(prices: list[float]) -> bt.Market:
    """Return a market of closes, each bar opening at the close before."""
    opens = [prices[0], *prices[:-1]]
    bars = pd.DataFrame(
        {
            "open": opens,
            "high": np.maximum(opens, prices),
            "low": np.minimum(opens, prices),
            "close": prices,
        },
        index=pd.date_range("2024-01-01", periods=len(prices), freq="1h", tz="UTC"),
    )
    return bt.Market.from_frames(bars)


class OpenOnce(bt.Policy):
    """Open a position of 6 times equity, and hold it."""

    def leverage(self, bar, account):
        return 6.0 if account.position == 0.0 else math.nan


@pytest.mark.parametrize("mode", ["close", "takeover", "partial"])
@pytest.mark.parametrize("margin", ["cross", "isolated"])
@pytest.mark.parametrize("shock", [-0.03, -0.12, -0.2, 0.1])
def test_own_account_without_impact_is_a_run_on_the_same_bars(mode, margin, shock):
    venue = plain_venue(mode, fee=0.004, slippage=0.003)
    account = bt.Account(capital=1_000.0, margin=margin, venue_leverage=8.0)
    terms: dict = {"venue": venue, "account": account, "compile": False}
    held = bt.run(bars_of([100.0, 100.0]), OpenOnce(), **terms)
    after = bt.run(bars_of([100.0, 100.0, 100.0 * (1.0 + shock)]), OpenOnce(), **terms)
    empty = pd.DataFrame({"side": [], "quantity": [], "entry": [], "collateral": []})
    crowd = bt.Crowd.from_positions(empty, price=100.0)
    hit = bt.cascade(crowd, venue, shock=shock, impact=bt.Linear(0.0), me=held, insurance=math.inf)
    assert hit.me is not None
    assert hit.me["liquidated"] is (after.metrics["liquidations"] > 0)
    assert hit.me["equity"] == pytest.approx(after.metrics["final_equity"], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("mode", ["close", "takeover", "partial"])
@pytest.mark.parametrize("shock", [-0.12, -0.16, 0.1])
def test_own_account_in_a_jump_is_a_run_on_bars_with_that_gap(mode, shock):
    venue = plain_venue(mode, fee=0.004, slippage=0.003)
    terms: dict = {"venue": venue, "account": bt.Account(capital=1_000.0), "compile": False}
    held = bt.run(bars_of([100.0, 100.0]), OpenOnce(), **terms)
    flat = {
        name: [100.0, 100.0, 100.0 * (1.0 + shock)] for name in ("open", "high", "low", "close")
    }
    index = pd.date_range("2024-01-01", periods=3, freq="1h", tz="UTC")
    gapped = bt.Market.from_frames(pd.DataFrame(flat, index=index))
    after = bt.run(gapped, OpenOnce(), **terms)
    empty = pd.DataFrame({"side": [], "quantity": [], "entry": [], "collateral": []})
    hit = bt.cascade(
        bt.Crowd.from_positions(empty, price=100.0), venue, shock=shock, jump=True, adl=None,
        impact=bt.Linear(0.0), me=held, insurance=math.inf,
    )  # fmt: skip
    assert hit.me is not None
    bad_debt = after.metrics["bad_debt"]
    assert hit.deficit == pytest.approx(bad_debt, rel=1e-9, abs=1e-9)
    assert hit.me["equity"] == pytest.approx(after.metrics["final_equity"], rel=1e-9, abs=1e-9)


def test_own_account_may_be_an_account_or_a_position():
    crowd = longs_failing_at(np.array([99.0]))
    common = {"shock": -0.3, "impact": bt.Linear(0.0)}
    account = bt.Account(capital=50.0, margin="isolated", venue_leverage=2.0)
    by_account = bt.cascade(crowd, plain_venue(), me=account, **common).me
    position = {"side": "long", "quantity": 1.0, "entry": 100.0, "collateral": 50.0}
    by_position = bt.cascade(crowd, plain_venue(), me=position, **common).me
    assert by_position is not None
    assert by_account == pytest.approx(by_position, nan_ok=True)
    assert by_position["equity"] == pytest.approx(20.0)  # 50 - 30
    assert not by_position["liquidated"]
