"""An account whose policy changes its parameters is one account: nothing is closed in between."""

import dataclasses
import itertools
from typing import Annotated

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.engine.run import Segment, run_segments, run_switched
from backtest.market import as_markets
from backtest.regress import take_baseline
from backtest.strategies import Cppi, VolTarget

MARKET = bt.Market.sample(bars=24 * 30)
VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
ACCOUNT = bt.Account(capital=10_000.0, margin="cross", stop_loss=0.05)


TERMS = {"venue": VENUE, "account": ACCOUNT, "compile": False}


@pytest.mark.parametrize("edges", [(100, 240, 720), (100, 241, 480, 719, 720), (0, 5, 720)])
def test_segments_of_one_policy_are_the_run_bit_for_bit(edges):
    policy = VolTarget(target=0.8, half_life=48.0)
    whole = bt.run(MARKET, policy, **TERMS, start=MARKET.times[edges[0]])
    segments = [Segment(a, b, policy) for a, b in itertools.pairwise(edges)]
    more = {"signal": None, "overlay": None, "sampling": "1d", "calendar": "365"}
    found = run_segments(as_markets(MARKET), segments, **TERMS, **more)
    assert dict(found.metrics) == pytest.approx(dict(whole.metrics), abs=0.0, nan_ok=True)
    assert np.array_equal(found.record.values, whole.record.values, equal_nan=True)
    pd.testing.assert_frame_equal(found.bars, whole.bars, check_exact=True)
    pd.testing.assert_frame_equal(found.events, whole.events, check_exact=True)
    assert repr(found.state) == repr(whole.state)
    merged = run_switched(MARKET, segments, **TERMS)
    assert merged.manifest["id"] == whole.manifest["id"]


def test_the_memory_of_a_policy_goes_on_within_a_segment_and_begins_anew_after_a_change():
    one, other = Cppi(multiplier=2.0), Cppi(multiplier=3.0)
    whole = bt.run(MARKET, one, **TERMS)
    segments = [Segment(0, 300, one), Segment(300, 500, one), Segment(500, 720, other)]
    found = run_switched(MARKET, segments, **TERMS)
    assert np.array_equal(found.record.values[:500], whole.record.values[:500], equal_nan=True)
    assert not np.array_equal(found.record.values[501:, 0], whole.record.values[501:, 0])
    switches = found.manifest["policy"]["switches"]
    assert [each["settings"]["multiplier"] for each in switches] == [2.0, 3.0]
    assert found.manifest["id"] != whole.manifest["id"]
    assert found.policy == other
    kept = [take_baseline(each, "walk").facts["policy"] for each in (whole, found)]
    assert ["switches" in each for each in kept] == [False, True]


class Held(bt.Policy):
    """Hold a leverage."""

    size: Annotated[float, bt.Range(0.0, 10.0)] = 1.0

    def leverage(self, bar, account):
        return self.size


def test_a_switch_pays_for_the_difference_alone():
    """By hand: 1x of 1,000 at 100 is 10 contracts, fee 0.1 % of 1,000 = 1; equity 999.

    The decision at the close of bar 1 still has size 1: target 999, held 1,000, so 1 is traded at
    the open of bar 2, fee 0.001; equity 998.999. The size 3 decides at the close of bar 2, and
    fills at the open of bar 3: target 3 x 998.999 = 2,996.997, held 999, so 1,997.997 are traded,
    fee 1.997997; equity 997.001003.
    """
    frame = pd.DataFrame(
        dict.fromkeys(("open", "high", "low", "close"), 100.0),
        index=pd.date_range("2024-01-01", periods=5, freq="1h", tz="UTC"),
    )
    market = bt.Market.from_frames(frame)
    venue = bt.Venue(
        contract=bt.Contract(lot=0.0, tick=0.01, min_notional=0.0),
        brackets=[bt.Bracket(0.0, 1e9, 100.0, 0.005)],
        fees=bt.Fees(taker=1e-3, maker=1e-3),
        slippage=bt.Slippage(rate=0.0),
        liquidation=bt.Liquidation(mode="close", fee=0.0, slippage=0.0),
    )
    account = bt.Account(capital=1_000.0)
    segments = [Segment(0, 2, Held(size=1.0)), Segment(2, 5, Held(size=3.0))]
    found = run_switched(market, segments, venue=venue, account=account, compile=False)
    fees = found.of_account("fees")
    assert fees.tolist() == pytest.approx([0.0, 1.0, 0.001, 1.997997, fees[4]])
    assert found.of_account("equity")[3] == pytest.approx(997.001003, rel=1e-12)
    assert found.metrics["fees"] == pytest.approx(float(fees.sum()))


def test_the_compiled_walk_has_the_same_bits():
    policies = [VolTarget(target=0.5), VolTarget(target=0.9)]
    account = dataclasses.replace(ACCOUNT, stop_loss=None)
    segments = [Segment(0, 400, policies[0]), Segment(400, 720, policies[1])]
    runs = [
        run_switched(MARKET, segments, venue=VENUE, account=account, compile=is_compiled)
        for is_compiled in (False, True)
    ]
    assert np.array_equal(runs[0].record.values, runs[1].record.values, equal_nan=True)
