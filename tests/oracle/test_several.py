"""Several positions by hand: each test has its arithmetic in a comment, and the engine plays it."""

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.agreement import asset, bracket, flat, near, play_case, scene, tape
from tests.cases import PortfolioCase
from tests.draws import HOUR, START, utc
from tests.oracle import Brackets

NAN = math.nan
SAFE = {"*": {"brackets": [bracket(0.02)]}}  # 20x is not liquidated at once


def long_and_short(**changes) -> PortfolioCase:
    """A: 4x long at 100, B: 6x short at 1; A rises by 4 %, B by 25 % along its bar."""
    return scene(
        {
            "A": tape([flat(100), flat(100), (100, 104, 100, 104)], (4.0, NAN)),
            "B": tape([flat(1), flat(1), (1, 1.25, 1, 1.25)], (6.0, NAN)),
        },
        {"A": 1.0, "B": -1.0},
        **changes,
    )


def test_a_cross_failure_closes_the_winner_too():
    """At a share x of the way M = 1000 + 160 x - 1500 x, R = 5 % of 10000 + 1660 x."""
    out = play_case(long_and_short())
    # w = 1000 - 4000 + 6000; 1000 - 1340 x = 500 + 83 x: x = 500/1423
    x = Fraction(500, 1423)
    assert near(out.cash[1], 3000)
    assert [(e.kind, e.instrument) for e in out.events if e.bar == 2] == [
        ("liquidation", "A"),
        ("liquidation", "B"),
    ]
    assert near(out.equity[2], 1000 - 1340 * x)
    assert near(out.of_kind("liquidation")[0].amount, 4000 + 160 * x)


def test_isolated_the_winner_survives():
    """B posts 600: 600 - 1500 x = 5 % of 6000 + 1500 x: x = 300/1575; A keeps 400 + 160."""
    setting = {"A": 10.0, "B": 10.0}
    out = play_case(long_and_short(margin="isolated", venue_leverage=setting))
    x = Fraction(300, 1575)
    assert [e.instrument for e in out.of_kind("liquidation")] == ["B"]
    assert near(out.cash[2], 600 - 1500 * x)
    assert near(out.equity[2], 600 - 1500 * x + 560)


def test_increases_share_what_the_margin_admits():
    """5 % initial margin of 12 + 18 turns is 1.5 equities: both get 2/3."""
    tapes = {"A": tape([flat(100)] * 2, (12.0,)), "B": tape([flat(1)] * 2, (18.0,))}
    out = play_case(scene(tapes, {"A": 1.0, "B": 1.0}, venues=SAFE))
    assert near(out.quantity[1][0], 80)
    assert near(out.quantity[1][1], 12_000)


def test_reductions_fill_first_and_are_not_scaled():
    """A goes from 10x to 5x, B wants 20x: 250 of margin stay, 750 carry 15x of B."""
    tapes = {"A": tape([flat(100)] * 3, (10.0, 5.0)), "B": tape([flat(1)] * 3, (0.0, 20.0))}
    out = play_case(scene(tapes, {"A": 1.0, "B": 1.0}, venues=SAFE))
    assert near(out.quantity[2][0], 50)
    assert near(out.quantity[2][1], 15_000)


def test_a_cap_is_an_edge_of_the_common_factor():
    """Up to 5000 at 20x, above at 5x: with 4x of B, A stops at the cap of its first bracket.

    A wants 6000: 6000/5 = 1200 is too much. At f = 5/6 it needs 250, B 4000·5/6/20 = 167.
    """
    two = [bracket() | {"cap": 5000.0}, bracket(0.1, 5.0) | {"floor": 5000.0}]
    tapes = {"A": tape([flat(100)] * 2, (6.0,)), "B": tape([flat(1)] * 2, (4.0,))}
    out = play_case(scene(tapes, {"A": 1.0, "B": 1.0}, venues={"A": {"brackets": two}}))
    assert near(out.quantity[1][0], 50)
    assert near(out.quantity[1][1], 4000 * Fraction(5, 6))


def test_isolated_margin_is_not_funded_by_unrealized_profit():
    """A gains 1000 on 1000: B = 1000 still; B's 20x at setting 10 needs 2000: 1000 carry 10000."""
    tapes = {
        "A": tape([flat(100), flat(100), flat(150), flat(150)], (2.0, NAN)),
        "B": tape([flat(1)] * 4, (0.0, 0.0, 10.0)),
    }
    case = scene(
        tapes,
        {"A": 1.0, "B": 1.0},
        margin={"A": "cross", "B": "isolated"},
        venue_leverage={"A": None, "B": 10.0},
    )
    out = play_case(case)
    # E = 2000 at bar 3: B wants 20000, margin 2000; B holds 1000
    assert near(out.equity[2], 2000)
    assert near(out.margin[3][1], 1000)
    assert near(out.quantity[3][1], 10_000)


def test_partial_takes_the_position_with_the_largest_loss_first():
    """At the failure A is up and B is down: a step of half of B holds the requirement."""
    out = play_case(long_and_short(venues={"*": {"liquidation": {"mode": "partial", "step": 0.5}}}))
    steps = out.of_kind("liquidation")
    x = Fraction(500, 1423)
    # half of B at 1 + x/4; R falls by 5 % of 3000 + 750 x, M stays: holds until it fails again
    assert steps[0].instrument == "B"
    assert near(steps[0].quantity, 3000)
    # then M = 1000 - 1340 x0 - 590 (x - x0), R = 5 % of 7000 + 160 x + 750 x: 1000 - 750 x0 - 350
    #      = 590 x + 45.5 x with x0 = 500/1423: x = 0.608... < 1, so a second half
    second = (650 - 750 * x) / (590 + Fraction(455, 10))
    assert steps[1].instrument == "B"
    assert near(steps[1].quantity, 1500)
    assert near(steps[1].amount, 1500 * (1 + second / 4))


def test_partial_by_relief_prefers_the_dearer_bracket():
    """A at 10 % maintenance relieves more per notional than B at 5 %."""
    changes = {
        "*": {"liquidation": {"mode": "partial", "step": 0.5, "order": "most_relief"}},
        "A": {"brackets": [bracket(0.06, 16.0)]},
    }
    out = play_case(long_and_short(venues=changes))
    assert out.of_kind("liquidation")[0].instrument == "A"


def test_takeover_leaves_isolated_margin():
    """Pool of 600 with 6x short of B is taken; A's 400 at setting 10 stay and gain 160."""
    out = play_case(
        long_and_short(
            margin={"A": "isolated", "B": "cross"},
            venue_leverage={"A": 10.0, "B": None},
            venues={"*": {"liquidation": {"mode": "takeover"}}},
        )
    )
    # pool: w = 600 + 6000; 600 - 1500 x = 300 + 75 x
    assert [e.instrument for e in out.of_kind("liquidation")] == ["B"]
    assert near(out.liquidation_loss[2], 600 - 1500 * Fraction(300, 1575))
    assert near(out.equity[2], 560)


def test_one_position_goes_to_its_adverse_extreme_first():
    """One 10x long: low 94 is first, high later; a stop at 3 % is nearer than 94.74."""
    tapes = {
        "A": tape([flat(100), flat(100), (100, 106, 94, 106)], (10.0, NAN)),
        "B": tape([flat(1)] * 3, (0.0,)),
    }
    case = scene(tapes, {"A": 1.0, "B": 1.0}, stop_loss={"A": 0.03, "B": None})
    out = play_case(case)
    assert near(out.equity[2], 1000 - 100 * 3)


def test_scenarios_net_within_a_group():
    """Long and short of one group at +-10 %: nothing at risk but 1 % of the gross."""
    rule = {
        "level": 1.0,
        "moves": {"g": [(-0.1, 1.0), (0.1, 1.0)]},
        "groups": {"g": ["A", "B"]},
        "products": None,
        "across": "independent",
        "offset": 0.0,
        "factor": 0.5,
        "minimum": 0.0,
        "contingency": 0.01,
        "pair_contingency": 0.0,
        "initial": (1.0, 0.01),
    }
    tapes = {"A": tape([flat(100)] * 2, (30.0,)), "B": tape([flat(1)] * 2, (30.0,))}
    out = play_case(scene(tapes, {"A": 1.0, "B": -1.0}, requirement=rule))
    # 60000 gross need 600; brackets would have needed 3000
    assert near(out.quantity[1][0], 300)
    assert near(out.margin_ratio[1], 0.6)
    # both long: 10 % of N + 1 % of N <= 1000
    both = play_case(scene(tapes, {"A": 1.0, "B": 1.0}, requirement=rule))
    assert near(both.quantity[1][0], Fraction(1000) / Fraction(11, 100) / 2 / 100)


def test_collateral_backs_at_its_rate_and_is_sold_where_the_balance_is_negative():
    """0.5 coins at 2000 count 500 in M and 1000 in E; a fee takes the balance of 1 below 0."""
    coin = tape([flat(2000), flat(2000), flat(2000)], ())
    tapes = {"A": tape([flat(100)] * 3, (2.5, NAN)), "B": tape([flat(1)] * 3, (0.0,))}
    case = scene(
        tapes,
        {"A": 1.0, "B": 1.0},
        venues={"*": {"fees": {"taker": 0.001}}},
        collateral=[(asset("COIN", 0.5, rate=0.5, slippage=0.01), coin)],
        capital=1.0,
        negative_limit=0.0,
    )
    out = play_case(case)
    # E = 1001: notional 2502.5, fee 2.5025; B = 1 - 2.5025 = -1.5025
    assert near(out.fees[1], 2.5025)
    # bar 2 sells 1.5025 / (2000 * 0.99) coins, with a haircut of 1 % of 2000 on each
    sold = Fraction(15025, 10_000) / (2000 * Fraction(99, 100))
    assert near(out.collateral[2][0], Fraction(1, 2) - sold)
    assert near(out.conversion[2], sold * 20)
    assert near(out.equity[2], 1001 - Fraction(25025, 10_000) - sold * 20)


def test_marginal_tiers_of_collateral():
    """1000 at 95 %, the next 1000 at 50 %, nothing beyond: 3000 count 1450."""
    coin = tape([flat(3000)] * 2, ())
    tiers = [(0.0, 1000.0, 0.95), (1000.0, 2000.0, 0.5)]
    tapes = {"A": tape([flat(100)] * 2, (100.0,)), "B": tape([flat(1)] * 2, (0.0,))}
    case = scene(
        tapes,
        {"A": 1.0, "B": 1.0},
        collateral=[(asset("COIN", 1.0, tiers=tiers), coin)],
        negative_limit=0.0,
        venues=SAFE,
    )
    # M = 1000 + 1450 carries 20 x 2450
    assert near(play_case(case).quantity[1][0], 490)


def test_a_delisted_position_closes_at_the_mark_close_with_its_fee():
    """B ends at 1.1 in bar 2: 4000 gain 400, less 0.1 % of 4400."""
    tapes = {
        "A": tape([flat(100)] * 5, (0.0,)),
        "B": tape([flat(1), flat(1), (1, 1.1, 1, 1.1)], (4.0, NAN)),
    }
    fee = {"fees": {"taker": 0.001, "maker_share": 1.0}}
    out = play_case(scene(tapes, {"A": 1.0, "B": 1.0}, venues={"*": fee}))
    assert [e.kind for e in out.events if e.instrument == "B"] == ["fill", "delisted", "fee"]
    assert near(out.equity[2], 1000 + 400 - Fraction(44, 10))


def test_a_withdrawal_leaves_the_initial_margin_and_the_balance():
    """A gains 1000 unrealized: M = 2000, initial 5 % of 3000; B = 1000 is all that may leave."""
    flows = pd.Series([-5000.0], index=utc([START + 3 * HOUR]))
    tapes = {
        "A": tape([flat(100), flat(100), flat(150), flat(150)], (2.0, NAN)),
        "B": tape([flat(1)] * 4, (0.0,)),
    }
    out = play_case(scene(tapes, {"A": 1.0, "B": 1.0}, flows=flows))
    assert near(out.flows[3], -1000)


def test_worst_takes_each_position_to_its_own_extreme():
    """A long 4x falls 5 %, B short 6x rises 5 %, at once: M = 1000 - 500 x, R = 500 + 5 x."""
    bars = {"A": (100, 101, 95, 100), "B": (1, 1.05, 0.99, 1)}
    tapes = {
        "A": tape([flat(100), flat(100), bars["A"]], (4.0, NAN)),
        "B": tape([flat(1), flat(1), bars["B"]], (6.0, NAN)),
    }
    signal = {"A": 1.0, "B": -1.0}
    out = play_case(scene(tapes, signal, intrabar="worst"))
    # R = 5 % of 4000 (1 - 0.05 x) + 6000 (1 + 0.05 x) = 500 + 5 x; 505 x = 500
    assert near(out.equity[2], 1000 - 500 * Fraction(500, 505))
    # along the path both rise, then both fall: M stays over R
    assert not play_case(scene(tapes, signal)).of_kind("liquidation")


@pytest.mark.parametrize(("margin", "bought"), [("cross", 8900), ("isolated", 8000)])
def test_an_order_that_the_cap_of_its_bracket_cuts_to_nothing_needs_no_room_for_its_fee(
    margin, bought
):
    """A holds 10 at 110, over the cap of 1000, for a fee of 50: E = 1050, at 10x.

    Cross, 10500 less 10 x the fee of B and the 1100 of A; isolated, B is 900, less a margin of 100.
    """
    tapes = {
        "A": tape([flat(100), flat(100), flat(110), flat(110)], (5.0,)),
        "B": tape([flat(1)] * 4, (0.0, 30.0)),
    }
    venues = {"*": {"fees": {"per_order": 50.0}}, "A": {"brackets": [bracket() | {"cap": 1000.0}]}}
    terms = {"margin": margin, "venue_leverage": 10.0}
    out = play_case(scene(tapes, {"A": 1.0, "B": 1.0}, venues=venues, **terms))
    assert near(out.quantity[2][1], bought)


# --------------------------------------------- the bracket table of the oracle against other means


@st.composite
def tables(draw: st.DrawFn) -> Brackets:
    """Draw a convex table of 1 to 4 brackets."""
    count = draw(st.integers(1, 4))
    widths = draw(st.lists(st.integers(1, 10_000), min_size=count, max_size=count))
    rates = sorted(draw(st.sets(st.integers(1, 999), min_size=count, max_size=count)))
    edges = np.cumsum([0, *widths]).tolist()
    return Brackets(
        floors=tuple(map(Decimal, edges[:-1])),
        caps=tuple(map(Decimal, edges[1:])),
        rates=tuple(Decimal(rate) / 1000 for rate in rates),
        leverages=(Decimal(1),) * count,
    )


@given(tables(), st.integers(0, 40_000))
def test_requirement_is_the_maximum_of_the_lines(table, notional):
    """§3: max_k (r_k N - c_k), with the recursion of the amounts."""
    amounts = [Decimal(0)]
    for k in range(1, len(table.rates)):
        amounts.append(amounts[-1] + table.floors[k] * (table.rates[k] - table.rates[k - 1]))
    lines = [rate * notional - c for rate, c in zip(table.rates, amounts, strict=True)]
    assert table.requirement(Decimal(notional)) == max(lines)


@given(tables(), st.integers(-30_000, 30_000), st.sampled_from([1, -1]))
def test_boundary_is_where_bisection_finds_it(table, cash, side):
    """cash + side n - MM(n) changes sign there and nowhere else."""

    def surplus(notional: Decimal) -> Decimal:
        return cash + side * notional - table.requirement(notional)

    with localcontext(prec=40):
        low, high = Decimal(0), Decimal(10) ** 9
        if (surplus(low) > 0) == (surplus(high) > 0):
            root = table.boundary(Decimal(cash), side)
            assert root is None or root == 0
            return
        for _ in range(120):
            middle = (low + high) / 2
            same = (surplus(middle) > 0) == (surplus(low) > 0)
            low, high = (middle, high) if same else (low, middle)
        root = table.boundary(Decimal(cash), side)
        assert root is not None
        assert abs(root - low) <= Decimal("1e-20") * max(root, 1)
