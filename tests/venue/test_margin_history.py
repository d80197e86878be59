"""Margin tables that follow each other: at each bar the one in force, in runs and in sweeps."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import Bracket, Earlier
from backtest.strategies import Constant, MarginBuffer, VolTarget
from tests.kit import free_venue

CHANGE = 300
SAMPLE = bt.Market.sample(bars=600)
DAY = str(SAMPLE.times[CHANGE])
LOOSE = [Bracket(0.0, 50_000.0, 50.0, 0.01), Bracket(50_000.0, 1e9, 20.0, 0.02)]
STRICT = [Bracket(0.0, 50_000.0, 25.0, 0.02), Bracket(50_000.0, 1e9, 10.0, 0.04)]
THREE = [*LOOSE[:1], Bracket(50_000.0, 1e6, 20.0, 0.02), Bracket(1e6, 1e9, 10.0, 0.05)]
BEFORE = replace(free_venue(), brackets=LOOSE)
AFTER = replace(free_venue(), brackets=STRICT)
BOTH = replace(AFTER, earlier=[Earlier(until=DAY, brackets=LOOSE)])
ACCOUNTS = {
    "cross": (Constant(4.0), bt.Account(capital=20_000.0)),
    "a policy that reads the table": (MarginBuffer(target=0.05), bt.Account(capital=20_000.0)),
    "isolated": (VolTarget(2.0),
        bt.Account(capital=50_000.0, margin="isolated", venue_leverage=8.0)),
}  # fmt: skip


def live(policy: bt.Policy, account: bt.Account, venue: bt.Venue, **terms: Any) -> bt.Result:
    """Run in plain Python, which has nothing to compile."""
    terms = {"compile": False, **terms}
    return bt.run(terms.pop("market", SAMPLE), policy, venue=venue, account=account, **terms)


@pytest.mark.parametrize("name", ACCOUNTS)
def test_twice_the_rates_from_a_bar_on_are_a_multiplier_of_two_from_there(name: str):
    """Rates and amounts of the second table are twice the first's, and leverages half: the same."""
    policy, account = ACCOUNTS[name]
    stamps = [SAMPLE.times[0], SAMPLE.times[CHANGE]]
    series = pd.Series([1.0, 2.0], index=pd.DatetimeIndex(stamps))
    moved = live(policy, account, replace(BEFORE, margin_multiplier=series))
    both = live(policy, account, BOTH)
    assert np.array_equal(both.record.values, moved.record.values, equal_nan=True)
    pd.testing.assert_frame_equal(both.bars, moved.bars)
    assert both.bars["margin_ratio"].iloc[CHANGE] > 0.0


@pytest.mark.parametrize("name", ACCOUNTS)
def test_before_the_change_it_is_the_first_table_and_after_it_the_second(name: str):
    policy, account = ACCOUNTS[name]
    both, first = live(policy, account, BOTH), live(policy, account, BEFORE)
    columns = ["equity", "position", "margin_ratio", "liquidation_price"]
    pd.testing.assert_frame_equal(both.bars[columns][:CHANGE], first.bars[columns][:CHANGE])
    ratio = both.bars["margin_ratio"] / first.bars["margin_ratio"]
    assert ratio.iloc[CHANGE] == pytest.approx(2.0) or "reads" in name


def test_a_change_liquidates_what_the_old_table_let_live():
    """8x with 12.5 % of equity per notional; 2 % asked, then 20 %: more than there is."""
    harsh = replace(
        AFTER,
        brackets=[Bracket(0.0, 1e9, 5.0, 0.2)],
        earlier=[Earlier(until=DAY, brackets=[Bracket(0.0, 1e9, 50.0, 0.02)])],
    )
    index = SAMPLE.times
    still = {name: np.full(600, 100.0) for name in ("open", "high", "low", "close")}
    market = bt.Market.from_frames(pd.DataFrame(still, index=index))
    account = bt.Account(capital=10_000.0)
    result = live(Constant(8.0), account, harsh, market=market)
    dead = result.events[result.events["kind"] == "liquidation"]
    assert dead["time"].iloc[0] == index[CHANGE]
    assert len(live(Constant(8.0), account, BEFORE, market=market).events) == 1


def test_the_leverage_set_at_the_venue_must_be_allowed_by_every_table():
    account = bt.Account(venue_leverage=40.0)
    with pytest.raises(bt.ParameterError, match="venue_leverage must be at most 25") as caught:
        live(Constant(1.0), account, BOTH)
    assert "a preset with @DATE" in str(caught.value)
    with pytest.raises(bt.ParameterError) as caught:
        live(Constant(1.0), account, AFTER)
    assert "a preset with @DATE" not in str(caught.value)
