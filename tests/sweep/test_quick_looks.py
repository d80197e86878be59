"""Quick looks at a lane may find too many, and never too few."""

import numpy as np
import pytest

import backtest as bt
from backtest.account.account_records import Position, Watch
from backtest.account.balances import is_failing, make_balances
from backtest.account.liquidation import is_triggered
from backtest.measures.tally import find_near, is_near
from backtest.sweep.lanes import quick_looks
from backtest.sweep.lanes.lane_rows import BOUND, LANES, ROWS
from tests.scenes import quote_of, rules_of

LADDER = [
    bt.Bracket(floor=0.0, cap=300.0, max_leverage=100, maintenance_rate=0.005),
    bt.Bracket(floor=300.0, cap=600.0, max_leverage=20, maintenance_rate=0.025),
    bt.Bracket(floor=600.0, cap=1e9, max_leverage=5, maintenance_rate=0.1),
]


def make_venue(brackets: list[bt.Bracket]) -> bt.Venue:
    """Return a venue with some brackets."""
    return bt.Venue(
        contract=bt.Contract(),
        brackets=brackets,
        fees=bt.Fees(taker=5e-4, maker=2e-4),
        slippage=bt.Slippage(rate=1e-4),
        liquidation=bt.Liquidation(fee=0.0125, slippage=0.002),
    )


@pytest.mark.slow
@pytest.mark.parametrize("brackets", [LADDER[:1], LADDER])
def test_the_look_at_every_lane_may_find_too_many_and_never_too_few(brackets):
    """The quick look that decides whether a bar is ordinary, against the rules themselves.

    Accounts stand at the edge of their requirement at the adverse extreme, by some 1e-12 to 1e-2;
    the open lies in the bar, or far from it, and the last close anywhere.
    """
    venue = make_venue(brackets)
    rules = rules_of(venue, bt.Account()).instrument._replace(has_stop=None)
    rng = np.random.default_rng(2)
    none = Watch(0.0, 0.0)
    triggered, spared, unbroken = 0, 0, 0
    for _ in range(4_000):
        low, high = np.sort(rng.uniform(50.0, 110.0, 2))
        start = rng.choice([low, high, rng.uniform(low, high), 0.8 * low, 1.2 * high])
        last = rng.uniform(40.0, 130.0)
        quote = quote_of(start, low, high, start)
        quantity = rng.choice([-1.0, 1.0]) * rng.uniform(0.1, 10.0)
        extreme = low if quantity > 0.0 else high
        needed = bt.margin.maintenance(venue, abs(quantity) * extreme)
        edge = needed - quantity * extreme
        nudge = rng.choice([0.0, 1e-12, -1e-12, 1e-10, -1e-10, 0.01, -0.01, 2.0])
        cash = edge + nudge * abs(edge)
        balances = make_balances(cash, Position(quantity, 0.0, 0.0, last))
        block = np.zeros(len(ROWS) * LANES)
        block[BOUND * LANES] = abs(quantity) * last * rng.choice([1.0, 1.05, 3.0])
        most = quick_looks.find_rate_bound(rules, block, quote, last)
        reach = quick_looks.find_reach(most.rate, start, low, high)
        is_found = quick_looks.is_endangered(rules, balances, quote, none, reach, 0.0)
        if is_triggered(rules, balances, quote, none):
            triggered += 1
            assert is_found
        spared += not is_found
        grown = make_balances(
            cash, Position(rng.choice([1.0, 1.05, 2.0, 10.0]) * quantity, 0.0, 0.0, last)
        )
        for each in (balances, grown):
            may_break = quick_looks.may_break(rules, each, quote, most)
            if is_failing(rules, each, start, 1.0) or is_triggered(rules, each, quote, none):
                assert may_break
            unbroken += not may_break
    assert triggered > 1_000
    assert spared > 100
    assert unbroken > 500


def test_a_close_that_is_near_liquidation_is_never_overlooked():
    rng = np.random.default_rng(3)
    venue = make_venue(LADDER)
    rules = rules_of(venue, bt.Account()).instrument
    near, spared = 0, 0
    for _ in range(2_000):
        close = rng.uniform(50.0, 110.0)
        quote = quote_of(close, close, close, close)
        quantity = rng.choice([-1.0, 1.0]) * rng.uniform(0.1, 10.0)
        backing = rng.uniform(0.02, 0.4) * abs(quantity) * close
        balances = make_balances(backing - quantity * close, Position(quantity, 0.0, 0.0, close))
        block = np.zeros(len(ROWS) * LANES)
        block[BOUND * LANES] = abs(quantity) * close
        lower, upper = find_near(rules, quote)
        rate = quick_looks.find_rate_bound(rules, block, quote, close).rate
        reach = quick_looks.find_reach(rate, close, lower, upper)
        is_found = quick_looks.may_be_near(rules, balances, quote, reach)
        if is_near(rules, balances, quote):
            near += 1
            assert is_found
        spared += not is_found
    assert near > 300
    assert spared > 300
