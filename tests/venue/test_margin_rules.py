"""Margin that moves: the multiplier series made from rules, and what a run makes of them."""

import math

import numpy as np
import pytest

import backtest as bt
from backtest import features, margin_rules
from backtest.base.errors import BacktestError
from tests.markets import free_venue, live, market_of, walk

SIGMA = 0.6
MARKET = walk(600, 0.0, SIGMA, seed=3)
INTEREST = market_of(np.full(5, 100.0), open_interest=np.array([10e6, 20e6, 35e6, 50e6, 90e6]))


class Two(bt.Policy):
    def leverage(self, bar, account):
        return 2.0


def test_margin_is_a_multiple_of_the_volatility_of_the_bar_before():
    found = margin_rules.by_volatility(MARKET, calm=0.3, half_life=24, most=4.0)
    sigma = features.ewma_volatility(MARKET, 24)
    assert found.index.equals(MARKET.times)
    assert found.iloc[0] == 1.0
    wanted = np.clip(np.where(np.isnan(sigma), 1.0, sigma / 0.3), 1.0, 4.0)
    np.testing.assert_allclose(found.to_numpy()[1:], wanted[:-1], rtol=1e-12)
    assert found.max() > 2.0  # twice as wild as the calm that was said


def test_margin_stays_between_its_bounds():
    found = margin_rules.by_volatility(MARKET, calm=1e-3, least=2.0, most=3.0)
    assert found.iloc[0] == 2.0
    assert set(found.iloc[3:]) == {3.0}


@pytest.mark.parametrize("n", [50, 333, 599])
def test_no_rule_sees_what_comes_later(n):
    later = market_of(np.concatenate([MARKET.close[:n], np.full(50, 7.0)]))
    for make in (
        lambda m: margin_rules.by_volatility(m, calm=0.3),
        lambda m: margin_rules.by_calendar(m, weekdays={5: 2.0}),
    ):
        # The multiplier of bar n is made of bars before it.
        assert np.array_equal(make(MARKET).to_numpy()[: n + 1], make(later).to_numpy()[: n + 1])


def test_the_published_fraction():
    """dydx_oi_imf, and its two ends."""
    fraction = margin_rules.effective_initial(0.05, np.array([35e6, 1.0, 1e9]), 20e6, 50e6)
    assert fraction == pytest.approx([0.525, 0.05, 1.0], abs=1e-12)


def test_a_calendar_takes_the_largest_that_applies():
    # 2020-01-01 is a Wednesday: bar 72 is the first of Saturday.
    found = margin_rules.by_calendar(
        MARKET, weekdays={5: 1.5, 6: 1.5}, hours={12: 2.0},
        spans=[("2020-01-04T10:00", "2020-01-04T14:00", 3.0)],
    )  # fmt: skip
    by_hour = found.to_numpy()
    assert by_hour[[0, 11, 12, 13]].tolist() == [1.0, 1.0, 2.0, 1.0]
    assert by_hour[[71, 72, 81, 82, 84, 85, 86]].tolist() == [1.0, 1.5, 1.5, 3.0, 3.0, 3.0, 1.5]
    assert by_hour[[119, 120]].tolist() == [1.5, 1.0]


def test_a_calendar_may_lower_what_it_names():
    found = margin_rules.by_calendar(MARKET, weekdays={0: 0.5})
    assert set(found) == {0.5, 1.0}


def test_several_rules_give_the_largest():
    calm = margin_rules.by_calendar(MARKET, hours={3: 1.2})
    wild = margin_rules.by_volatility(MARKET, calm=0.5)
    both = margin_rules.largest(calm, wild)
    assert np.array_equal(both.to_numpy(), np.maximum(calm.to_numpy(), wild.to_numpy()))


def test_a_raised_margin_liquidates_in_its_own_bar_and_lowers_what_may_be_held():
    # 2x long from 100, then 90: the equity is 8,000 of 10,000, the notional 18,000. A maintenance
    # of 10 % asks for 1,800 of it, 4.4 times that is 7,920, 4.6 times that is 8,280.
    table = [bt.Bracket(0.0, math.inf, 8.0, 0.1)]
    market = market_of(np.array([100.0, 100.0, 90.0, 90.0, 90.0]))
    span = (market.times[3], market.times[4])
    for size, is_dead in ((4.4, False), (4.6, True)):
        rule = margin_rules.by_calendar(market, spans=[(*span, size)])
        venue = free_venue().override(brackets=table, margin_multiplier=rule)
        result = live(market, Two(), venue=venue, compile=False)
        dead = result.events[result.events.kind == "liquidation"]
        assert bool(len(dead)) is is_dead
        if is_dead:
            assert dead.time.iloc[0] == market.times[3]
    # From the start at 8 the venue allows 8 / 8 = 1x.
    rule = margin_rules.by_calendar(market, hours=dict.fromkeys(range(24), 8.0))
    venue = free_venue().override(brackets=table, margin_multiplier=rule)
    assert live(market, Two(), venue=venue, compile=False).bars["leverage"].max() < 1.2


@pytest.mark.parametrize(("call", "words"), [
    (lambda: margin_rules.by_volatility(MARKET, calm=0.0), "calm must be over 0"),
    (lambda: margin_rules.by_volatility(MARKET, calm=0.5, least=3.0, most=2.0), "most must be at"),
    (lambda: margin_rules.effective_initial(0.1, 1.0, 2, 1), "upper must"),
    (lambda: margin_rules.read_open_interest(
        market_of(np.full(3, 1.0), open_interest=np.array([1.0, -2.0, 1.0])),
        "open_interest"), "open_interest must be at least 0, got -2.0 at .*1 of 3"),
    (lambda: margin_rules.by_calendar(MARKET, hours={1: 0.0}), "multiplier of hours must be over"),
])  # fmt: skip
def test_a_rule_that_makes_no_sense_is_refused(call, words):
    with pytest.raises(BacktestError, match=words):
        call()
