"""Walks in which each fold chooses the parameters of the signal, too."""

from typing import Annotated

import numpy as np
import pytest

import backtest as bt
from backtest.engine.run import Segment, run_switched
from backtest.strategies import Constant
from tests.kit import make_venue, simulate_pair

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
MARKETS = simulate_pair(480)  # hours; BBB is listed at bar 48, and delisted at bar 432
ONE = MARKETS["AAA"]
TERMS = {
    "venue": make_venue(taker=0.001),
    "account": bt.Account(capital=1_000.0),
    "sampling": "6h",
    "compile": False,
}
SMALL = {"trials": 4, "robust": False, "seed": 1, "sampler": "random", "train": "10d", "test": "5d"}


class Sized(bt.Policy):
    """Hold a size where the signal was long in the bar before, half of it otherwise."""

    size: Annotated[float, bt.Range(0.1, 2.0)] = 1.0

    def observe(self, market):
        return {"before": np.concatenate(([0.0], np.resize(market.signal, market.n_bars)[:-1]))}

    def leverage(self, bar, account):
        return self.size if bar.before > 0.0 else 0.5 * self.size


@pytest.mark.slow
def test_a_walk_of_one_rule_is_one_run_bit_for_bit():
    rules = {"signal": "breakout:9", "space": {"size": [0.8]}, "fix": {"signal.window": 5}}
    walk = bt.walk_forward(ONE, Sized, **TERMS, **SMALL, **rules)
    start = walk.folds["test_start"].iloc[0]
    alone = bt.run(ONE, Sized(0.8), **TERMS, start=start, signal="breakout:5")
    assert np.array_equal(walk.result.record.values, alone.record.values, equal_nan=True)
    assert walk.result.manifest["id"] == alone.manifest["id"]


def test_the_account_trades_the_signal_of_each_fold():
    # windows of 4 up to the boundary and of 20 after it, by hand: one signal of both
    few, many = bt.signals.Breakout(window=4), bt.signals.Breakout(window=20)
    policy, turn = Constant(leverage=1.0), 300
    segments = [Segment(0, turn, policy, few), Segment(turn, 480, policy, many)]
    found = run_switched(ONE, segments, **TERMS)
    joined = np.concatenate([few.compute(ONE)[:turn], many.compute(ONE)[turn:]])
    alone = bt.run(ONE, policy, **TERMS, signal=joined)
    assert np.array_equal(found.record.values, alone.record.values, equal_nan=True)
    assert np.array_equal(found.signal, alone.signal)
    switches = found.manifest["policy"]["switches"]
    assert [each["signal"] for each in switches] == ["breakout:4", "breakout:20"]
    assert found.manifest["signal"].startswith("breakout:4 (and 1 others) sha256:")
