"""Validations of one account with several positions, and walks that choose the signal, too."""

from typing import Annotated

import numpy as np
import pytest

import backtest as bt
from backtest.engine.run import Segment, run_switched
from backtest.strategies import Constant
from tests.kit import make_venue, simulate_pair
from tests.validation.worlds import Lever

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
MARKETS = simulate_pair(480)  # hours; BBB is listed at bar 48, and delisted at bar 432
TERMS = {
    "venue": {"AAA": make_venue(), "BBB": make_venue(taker=0.001)},
    "account": bt.Account(capital=1_000.0),
    "sampling": "6h",
    "compile": False,
}
SMALL = {"trials": 4, "robust": False, "seed": 1, "sampler": "sobol", "train": "10d", "test": "5d"}


@pytest.fixture(scope="module")
def walk():
    return bt.walk_forward(MARKETS, Lever, **TERMS, **SMALL)


def test_the_account_lives_through_the_winners_of_all_folds(walk):
    switches = walk.result.manifest["policy"]["switches"]
    assert [each["settings"]["size"] for each in switches] == walk.folds["size"].tolist()
    n = walk.fixed.record.n_bars
    assert walk.result.record.n_bars == n == 240
    turn = 120
    assert np.array_equal(
        walk.result.record.values[:turn], walk.fixed.record.values[:turn], equal_nan=True
    )
    assert walk.result.metrics["final_equity"] != walk.fixed.metrics["final_equity"]
    assert sum(walk.figures["trades"]) == int((walk.result.events["kind"] == "fill").sum())


@pytest.mark.slow
def test_scores_of_groups_are_those_of_fresh_accounts():
    terms = {**TERMS, "venue": make_venue()}
    cv = bt.cross_validate(MARKETS, Lever, **terms, trials=4, groups=2, test_groups=1, embargo=0)
    row = cv.sets.iloc[1]
    policy = Lever(row["size"], int(row["window"]))
    early = bt.run(MARKETS.prefix(240), policy, **terms)
    late = bt.run(MARKETS, policy, **terms, start=MARKETS.times[240])
    assert cv.matrix.iloc[1].tolist() == [early.metrics["sharpe"], late.metrics["sharpe"]]
    assert len(cv.splits) == 2
    assert cv.summary()


@pytest.mark.slow
def test_a_walk_begins_before_an_instrument_is_listed():
    """The check of columns took those of all instruments for those listed in a part of a span."""
    late = bt.Markets({"AAA": MARKETS["AAA"], "BBB": MARKETS["AAA"].slice(200, 480)})
    terms = {**TERMS, "compile": True, "venue": make_venue()}
    search = {**SMALL, "robust": True, "overlay": Lever(0.5, 2)}
    walk = bt.walk_forward(late, Lever, **terms, **search)
    assert walk.manifest["overlay"] == repr(Lever(0.5, 2))
    assert f"under {Lever(0.5, 2)!r} " in " ".join(walk.summary().split())
    assert walk.result.overlay == Lever(0.5, 2)
    assert len(walk.folds) > 1


ONE = MARKETS["AAA"]
RULE_TERMS = {**TERMS, "venue": make_venue(taker=0.001)}
RULE_SMALL = {**SMALL, "sampler": "random"}


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
    walk = bt.walk_forward(ONE, Sized, **RULE_TERMS, **RULE_SMALL, **rules)
    start = walk.folds["test_start"].iloc[0]
    alone = bt.run(ONE, Sized(0.8), **RULE_TERMS, start=start, signal="breakout:5")
    assert np.array_equal(walk.result.record.values, alone.record.values, equal_nan=True)
    assert walk.result.manifest["id"] == alone.manifest["id"]


def test_the_account_trades_the_signal_of_each_fold():
    # windows of 4 up to the boundary and of 20 after it, by hand: one signal of both
    few, many = bt.signals.Breakout(window=4), bt.signals.Breakout(window=20)
    policy, turn = Constant(leverage=1.0), 300
    segments = [Segment(0, turn, policy, few), Segment(turn, 480, policy, many)]
    found = run_switched(ONE, segments, **RULE_TERMS)
    joined = np.concatenate([few.compute(ONE)[:turn], many.compute(ONE)[turn:]])
    alone = bt.run(ONE, policy, **RULE_TERMS, signal=joined)
    assert np.array_equal(found.record.values, alone.record.values, equal_nan=True)
    assert np.array_equal(found.signal, alone.signal)
    switches = found.manifest["policy"]["switches"]
    assert [each["signal"] for each in switches] == ["breakout:4", "breakout:20"]
    assert found.manifest["signal"].startswith("breakout:4 (and 1 others) sha256:")
