"""Baselines of runs with several positions: what is caught, and which instrument it is."""

import pytest

import backtest as bt
from backtest.regress import compare_baselines, take_baseline
from tests.kit import Hold, make_venue, simulate_pair

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

MARKETS = simulate_pair(60)
ACCOUNT = bt.Account(capital=1_000.0)


def take(markets=MARKETS, **changed):
    terms = {"venue": make_venue(taker=0.001), "account": ACCOUNT, "overlay": Hold(0.5), **changed}
    return take_baseline(bt.run(markets, Hold(2.0), sampling="1h", compile=False, **terms), "pair")


@pytest.fixture(scope="module")
def was():
    return take()


def test_a_fee_of_one_venue_is_named_with_its_instrument(was):
    venues = {"AAA": make_venue(taker=0.001), "BBB": make_venue(taker=0.0011)}
    now = take(venue=venues)
    verdict = compare_baselines(was, now)
    assert verdict.exit_code == 1
    # BBB is listed in bar 6: decided at its close, filled in bar 7
    assert verdict.bars.first == 7
    assert [each.step for each in verdict.bars.at_first][:2] == ["fees", "fees of BBB"]
    assert "venue.BBB.fees.taker: 0.001 -> 0.0011" in [str(each) for each in verdict.changes]
    moved = now.metrics["final_equity"] - was.metrics["final_equity"]
    assert sum(verdict.bars.terms.values()) == pytest.approx(moved, rel=1e-9)
