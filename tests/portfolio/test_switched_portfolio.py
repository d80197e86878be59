"""An account of several positions whose parameters change while it lives."""

from dataclasses import replace
from typing import Annotated

import numpy as np
import pytest

import backtest as bt
from backtest.engine.run import Segment, run_switched
from tests.kit import make_venue, simulate_pair
from tests.validation.worlds import Lever

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
MARKETS = simulate_pair(200)
VENUE = make_venue(taker=0.001)
ACCOUNT = bt.Account(capital=1_000.0)
TERMS = {"venue": VENUE, "account": ACCOUNT, "signal": None, "overlay": None, "sampling": "1h",
         "calendar": "365"}  # fmt: skip


class Planned(bt.Policy):
    """What :class:`Lever` does with one size and window before a time, and others from it on."""

    turn: Annotated[int, bt.Range(0, 2**62)] = 0

    def observe(self, market):
        one, other = (Lever(*each).observe(market)["rise"] for each in ((1.0, 3), (2.0, 9)))
        is_late = market.time >= self.turn
        rise = np.where(is_late, other, one)
        size = np.where(is_late, 2.0, 1.0)
        return {"level": np.where(rise > 0.0, size, 0.5 * size)}

    def leverage(self, bar, account):
        return bar.level


def switched(segments, **more):
    return run_switched(MARKETS, segments, **{**TERMS, **more})


@pytest.mark.parametrize("overlay", [None, Lever(0.5, 2)])
def test_switching_equals_one_policy_that_knows_the_plan(overlay):
    turn = 110
    plan = [Segment(50, turn, Lever(1.0, 3)), Segment(turn, 200, Lever(2.0, 9))]
    found = switched(plan, overlay=overlay)
    terms = {**TERMS, "overlay": overlay, "start": MARKETS.times[50]}
    whole = bt.run(MARKETS, Planned(int(MARKETS.time[turn])), **terms)
    assert np.array_equal(found.record.values, whole.record.values, equal_nan=True)
    assert dict(found.metrics) == pytest.approx(dict(whole.metrics), nan_ok=True, rel=0.0)
    assert [each["settings"]["size"] for each in found.manifest["policy"]["switches"]] == [1.0, 2.0]


def test_a_margin_table_that_began_in_one_stretch_holds_in_the_next():
    change, turn = 80, 110
    loose = [bt.Bracket(0.0, 1e9, 20.0, 0.01)]
    dated = replace(VENUE, earlier=[bt.Earlier(until=str(MARKETS.times[change]), brackets=loose)])
    plan = [Segment(50, turn, Lever(1.0, 3)), Segment(turn, 200, Lever(2.0, 9))]
    found = switched(plan, venue=dated)
    terms = {**TERMS, "venue": dated, "start": MARKETS.times[50]}
    whole = bt.run(MARKETS, Planned(int(MARKETS.time[turn])), **terms)
    assert np.array_equal(found.record.values, whole.record.values, equal_nan=True)
    always = bt.run(MARKETS, Planned(int(MARKETS.time[turn])), **{**terms, "venue": VENUE})
    needed, late = found.closes.requirement, turn - 50
    assert np.array_equal(needed[late:], always.closes.requirement[late:])
    assert not np.array_equal(needed[:20], always.closes.requirement[:20])


def test_equal_stretches_are_one_run_bit_for_bit():
    plan = [Segment(50, 110, Lever()), Segment(110, 200, Lever())]
    found = switched(plan)
    whole = bt.run(MARKETS, Lever(), **TERMS, start=MARKETS.times[50])
    assert np.array_equal(found.record.values, whole.record.values, equal_nan=True)
    assert found.manifest["id"] == whole.manifest["id"]
    assert repr(dict(found.metrics)) == repr(dict(whole.metrics))


def test_an_instrument_listed_after_a_stretch_is_never_asked_in_it():
    # BBB is listed at bar 20
    plan = [Segment(2, 15, Lever(1.0, 3)), Segment(15, 200, Lever(2.0, 9))]
    found = switched(plan)
    assert found.metrics["final_equity"] > 0.0
