"""The books of a cascade: conservation in every round, and who pays what, by hand."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.crowd.rounds import check_books, open_books
from backtest.venue.requirement import read_rules
from tests.crowd.crowds import bracket_venue, longs_failing_at, plain_venue, random_crowd
from tests.kit import check_refused


def random_arguments(rng: np.random.Generator) -> dict[str, Any]:
    """Return a wild shock, impact, fund, mode of deleveraging and recovery."""
    law = (
        bt.SquareRoot(rng.uniform(0.0, 0.5)) if rng.random() < 0.5 else bt.Linear(rng.uniform(0, 1))
    )
    return {
        "shock": float(rng.choice([-1.0, 1.0]) * rng.uniform(0.0, 0.2)),
        "impact": law,
        "volume": 10.0 ** rng.uniform(4.0, 7.0),
        "insurance": float(rng.choice([0.0, 1e3, 1e5, math.inf])),
        "adl": [None, "queue", "pro-rata"][rng.integers(3)],
        "recovery": [None, "3m"][rng.integers(2)],
        "jump": bool(rng.integers(2)),
    }


@pytest.mark.parametrize("crowds", [100, pytest.param(500, marks=pytest.mark.slow)])
def test_the_books_balance_in_every_round_of_random_crowds(crowds):
    bankrupt, deleveraged, cut, owed = 0, 0, 0, 0
    for seed in range(crowds):
        rng = np.random.default_rng(seed)
        venue = bracket_venue(["close", "takeover", "partial"][seed % 3], rng)
        hit = bt.cascade(
            random_crowd(rng, int(rng.integers(1, 120))), venue, **random_arguments(rng)
        )
        rounds = hit.rounds
        assert rounds["off"].max() <= 1e-9, seed
        paid = rounds[["fund_paid", "adl_paid", "haircuts", "unpaid"]].sum(axis=1)
        assert paid.to_numpy() == pytest.approx(rounds["deficit"].to_numpy(), abs=1e-6), seed
        assert (rounds["insurance"] >= -1e-6).all()
        parts = rounds[["deficit", "fund_paid", "adl_paid", "haircuts", "unpaid"]]
        assert (parts >= -1e-6).all(axis=None), seed
        assert hit.haircuts.sum() == pytest.approx(rounds["haircuts"].sum(), abs=1e-6)
        bankrupt += rounds["deficit"].sum() > 0.0
        deleveraged += rounds["adl"].sum() > 0.0
        cut += rounds["haircuts"].sum() > 0.0
        owed += rounds["unpaid"].sum() > 0.0
    assert min(bankrupt, deleveraged, cut, owed) > crowds / 25  # each way of paying was met


def test_books_that_do_not_balance_are_an_error():
    rules = read_rules(plain_venue())
    books = open_books(longs_failing_at(np.array([99.0])), rules, 0.0, 100.0)
    before = books.sum_money(100.0)
    books.base[0] += 1.0
    with pytest.raises(bt.AccountingError, match="must balance"):
        check_books(books, 100.0, before, 1)


def two_sides(short_collateral: tuple[float, float] = (50.0, 10.0)) -> bt.Crowd:
    """Return a long that is bankrupt under 90, and two shorts of 1 contract from 100."""
    frame = pd.DataFrame(
        {
            "side": ["long", "short", "short"],
            "quantity": [1.0, 1.0, 1.0],
            "entry": 100.0,
            "collateral": [10.0, *short_collateral],
        }
    )
    return bt.Crowd.from_positions(frame, price=100.0)


def test_deleveraging_takes_the_highest_return_times_leverage_first():
    # A jump to 80: the long has 10 - 20 = -10. Both shorts gained 20 %; their leverage is 80 / 70
    # and 80 / 30. So the second closes at 90, where the long has nothing left, and gets 10 + 10.
    hit = bt.cascade(two_sides(), plain_venue(), shock=-0.2, jump=True, impact=bt.Linear(0.0))
    assert hit.accounts["deleveraged"].tolist() == [0.0, 0.0, 1.0]
    assert hit.accounts["close_price"].tolist()[::2] == pytest.approx([90.0, 90.0])
    assert hit.payers() == pytest.approx(
        {"fund_paid": 0.0, "adl_paid": 10.0, "haircuts": 0.0, "unpaid": 0.0}
    )
    assert hit.rounds["long"].sum() == 0.0  # nothing was sold in the market


def test_pro_rata_deleveraging_takes_the_same_share_of_all():
    # 1 contract of 2, the liquidity account is long 1 and does not share
    hit = bt.cascade(
        two_sides(), plain_venue(), shock=-0.2, jump=True, impact=bt.Linear(0.0), adl="pro-rata"
    )
    assert hit.accounts["deleveraged"].tolist() == pytest.approx([0.0, 0.5, 0.5])


def test_the_fund_pays_first_and_profits_pay_what_it_lacks():
    # Without deleveraging the long is sold at 80 and lacks 10. The fund has 4. The shorts gained 20
    # each, so each gives 3.
    hit = bt.cascade(
        two_sides(), plain_venue(), shock=-0.2, jump=True, impact=bt.Linear(0.0), adl=None,
        insurance=4.0,
    )  # fmt: skip
    assert hit.payers() == pytest.approx(
        {"fund_paid": 4.0, "adl_paid": 0.0, "haircuts": 6.0, "unpaid": 0.0}
    )
    assert hit.haircuts.tolist() == pytest.approx([0.0, 3.0, 3.0])
    assert hit.rounds["insurance"].tolist() == pytest.approx([4.0, 0.0])


def test_without_profits_the_venue_owes_the_rest():
    frame = pd.DataFrame({"side": ["long"], "quantity": 1.0, "entry": 100.0, "collateral": 10.0})
    crowd = bt.Crowd.from_positions(frame, price=100.0)
    hit = bt.cascade(crowd, plain_venue(), shock=-0.2, jump=True, impact=bt.Linear(0.0), adl=None)
    assert hit.payers()["unpaid"] == pytest.approx(10.0)


def test_a_takeover_leaves_what_is_left_to_the_fund():
    # The long fails at 90 / 0.99 = 90.909 with 0.909 left, which the fund keeps.
    hit = bt.cascade(
        two_sides(), plain_venue("takeover"), shock=-0.2, impact=bt.Linear(0.0), insurance=5.0
    )
    assert hit.rounds["insurance"].iloc[-1] == pytest.approx(5.0 + 90.0 / 0.99 - 90.0)


def test_impact_that_recovers_between_rounds_liquidates_less():
    crowd = longs_failing_at(np.linspace(99.5, 85.0, 200))
    terms: dict[str, Any] = {"shock": -0.02, "impact": bt.Linear(0.06), "volume": 1e4,
                             "insurance": math.inf}  # fmt: skip
    stays = bt.cascade(crowd, plain_venue(), **terms)
    recovers = bt.cascade(crowd, plain_venue(), recovery="1m", round_time="1m", **terms)
    assert recovers.liquidated < stays.liquidated
    # what the last round leaves is half of the impact
    falls = 98.0 - np.array([recovers.rounds["price"].iloc[-1], recovers.final_price])
    assert falls[1] == pytest.approx(falls[0] / 2.0)


BAD: tuple[dict[str, Any], ...] = (
    {"crowd": None}, {"venue": "binance"}, {"shock": math.nan}, {"shock": -1.0}, {"impact": 0.1},
    {"volume": math.nan}, {"volume": None}, {"insurance": -1.0}, {"adl": "que"},
    {"recovery": "soon"}, {"round_time": "0m"}, {"price": -1.0}, {"me": 3},
    {"me": bt.Account()},
)  # fmt: skip


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_bad_arguments_are_refused(bad):
    terms: dict[str, Any] = {
        "crowd": longs_failing_at(np.array([99.0])), "venue": plain_venue(), "shock": -0.1,
        "impact": bt.SquareRoot(1.0), "volume": 1.0, **bad,
    }  # fmt: skip
    check_refused(lambda: bt.cascade(**terms), next(iter(bad)), bt.ParameterError)
