"""Sets on several markets give the bytes of one machine on the workers of a cluster."""

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.strategies import Constant, VolTarget
from backtest.sweep.cluster.remote_evaluator import ClusterEvaluator, describe_job, hash_market
from backtest.sweep.set_evaluator import Evaluator
from tests.portfolio.portfolio_helpers import make_venue, simulate_pair
from tests.sweep.sweeps import Here

pytest.importorskip("distributed")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
MARKETS = simulate_pair(60)
WEIGHTS = pd.DataFrame({"AAA": 0.8, "BBB": -0.5}, index=MARKETS.times)
TERMS = {
    "venue": {"AAA": make_venue(), "BBB": make_venue(taker=0.001)},
    "account": bt.Account(
        capital=1_000.0, margin={"AAA": "cross", "BBB": "isolated"}, venue_leverage=5
    ),
    "signal": WEIGHTS,
    "overlay": Constant(leverage=0.7),
    "sampling": "4h",
    "compile": False,
}
SETS = {"leverage": np.array([0.3, 1.5]), "account.band": np.array([0.0, 0.1])}


@pytest.mark.slow
def test_workers_are_sent_the_panel_once_with_weights_and_overlay():
    own, here = Evaluator(MARKETS, Constant(leverage=1.0), **TERMS), Here()
    found = ClusterEvaluator(own, here).evaluate(SETS, first=20, stop=36, returns=True)
    rows = own.evaluate(SETS, first=20, stop=36, returns=True)
    for name, values in rows.metrics.items():
        assert values.tobytes() == found.metrics[name].tobytes(), name
    assert found.returns.tobytes() == rows.returns.tobytes()
    without = Evaluator(MARKETS, Constant(leverage=1.0), **{**TERMS, "overlay": None})
    plain = ClusterEvaluator(without, here).evaluate(SETS, first=20, stop=36)
    assert not np.array_equal(plain.metrics["turnover"], rows.metrics["turnover"])
    assert here.received == 1
    assert describe_job(own).name != describe_job(without).name


def test_a_part_that_knows_how_the_panel_goes_on_is_another_panel():
    part = MARKETS.prefix(54)  # BBB is delisted at its end
    alone = bt.Markets(dict(part), currency="USDT")
    assert part == alone
    assert part.tradable()[:, -1].tolist() == [True, False]
    assert alone.tradable()[:, -1].tolist() == [True, True]
    assert hash_market(part) != hash_market(alone)
    assert hash_market(alone) == hash_market(bt.Markets(dict(alone), currency="USDT"))


@pytest.mark.slow
def test_a_cluster_gives_the_bytes_of_threads():
    policy, longer = Constant(leverage=1.0), simulate_pair(260)
    more = {"trials": 4, "robust": False, "sampler": "random", "space": {"leverage": (0.2, 1.5)}}
    sets, found = {"target": [0.3, 1.5, 0.8], "half_life": [4.0, 9.0]}, []
    for cluster in (None, "local:2"):
        terms = {**TERMS, "cluster": cluster}
        longer_terms = {**terms, "signal": {"AAA": 0.8, "BBB": -0.5}}
        sweep = bt.sweep(MARKETS, VolTarget, sets, full=True, **terms)
        study = bt.tune(MARKETS, policy, **more, **terms)
        walk = bt.walk_forward(longer, policy, train="9d", test="20h", **more, **longer_terms)
        found.append((sweep, study, walk))
    (sweep, study, walk), (far_sweep, far_study, far_walk) = found
    pd.testing.assert_frame_equal(sweep.table, far_sweep.table, check_exact=True)
    assert sweep.manifest["id"] == far_sweep.manifest["id"]
    pd.testing.assert_frame_equal(study.table, far_study.table, check_exact=True)
    assert study.verdict == far_study.verdict
    pd.testing.assert_frame_equal(walk.folds, far_walk.folds, check_exact=True)
    assert np.array_equal(walk.result.record.values, far_walk.result.record.values, equal_nan=True)
