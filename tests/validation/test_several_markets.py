"""Validations of one account with several positions, and walks that choose the signal, too."""

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
