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


def test_another_overlay_and_other_prices_are_named(was):
    verdict = compare_baselines(was, take(overlay=Hold(0.6)))
    assert verdict.bars.at_first[0].step == "leverage of the overlay"
    assert [each.name for each in verdict.changes] == [
        "overlay.settings.level", "overlay.text"
    ]  # fmt: skip
    bars = MARKETS["BBB"].bars()
    bars.iloc[10, bars.columns.get_loc("volume")] *= 2.0
    other = bt.Market.from_frames(bars, funding=MARKETS["BBB"].funding())
    changed = bt.Markets({"AAA": MARKETS["AAA"], "BBB": other}, currency="USDT")
    verdict = compare_baselines(was, take(changed))
    assert verdict.bars.data.bar == 16
    names = [each.name for each in verdict.changes]
    assert "data.instruments.BBB.content_hash" in names
    assert "data.instruments.AAA.content_hash" not in names


def test_an_instrument_that_is_lost_is_not_measured(was):
    alone = bt.Markets({"AAA": MARKETS["AAA"]}, currency="USDT")
    verdict = compare_baselines(was, take(alone))
    assert verdict.exit_code == 2
    assert "all bars of BBB" in verdict.reason
    bare = bt.Market.from_frames(MARKETS["BBB"].bars())
    unpaid = bt.Markets({"AAA": MARKETS["AAA"], "BBB": bare}, currency="USDT")
    verdict = compare_baselines(was, take(unpaid))
    assert "settlements of funding of BBB" in verdict.reason
