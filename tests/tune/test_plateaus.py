"""A robust search prefers plateaus: candidates, neighbors, parts of the time, and low quantiles."""

import math
import re
from typing import Any

import numpy as np
import pytest

from backtest.tune import Robustness
from backtest.tune.winner import (
    draw_neighbors,
)
from tests.tuning import Columns, MadeUp, Mixed, seek, space_of, spike_and_plateau

pytestmark = pytest.mark.usefixtures("made_up")


def rows(*values: Any) -> dict[str, np.ndarray]:
    """Return sets of Mixed of some (x, n)."""
    return {
        "x": np.array([float(x) for x, _ in values]),
        "n": np.array([n for _, n in values]),
        "mode": np.array(["a"] * len(values), dtype=object),
        "depth": np.full(len(values), 0.5),
        "fast": np.zeros(len(values), dtype=np.bool_),
    }


def test_robust_takes_the_plateau_and_plain_the_spike(on):
    on(spike_and_plateau)
    robust, plain = seek(trials=1200, seed=2), seek(trials=1200, seed=2, robust=False)
    assert abs(robust.best["x"] - 7.5) < 1.5
    assert plain.best["sharpe"] == 3.0
    assert any("sits on a spike" in text for text in plain.warnings)
    assert not any("spike" in text for text in robust.warnings)
    assert robust.verdict.plain_score == 3.0
    assert robust.verdict.plain_plateau == 0.0
    assert robust.verdict.plateau == pytest.approx(1.0, abs=0.01)
    assert re.search(r"highest objective +3\.00 ", robust.summary())


def test_the_winner_has_the_highest_low_quantile():
    study = seek()
    assert study.table["robust_score"].idxmax() == study.best_trial
    assert study.verdict.robust_score == study.best["robust_score"]
    assert study.best["robust_score"] <= study.best["score"]
    assert study.verdict.kept == 1.0


def test_a_bad_part_of_the_time_counts(monkeypatch):
    """Where x > 5 shines but for one quarter, x < 5 wins."""
    plain = MadeUp.evaluate

    def evaluate(self, sets, *, first=0, stop=None, returns=False, progress=None):
        found = plain(self, sets, first=first, stop=stop, returns=returns)
        is_high = np.asarray(sets["x"]) > 5.0
        bad = stop is not None and first == 0
        found.metrics["sharpe"][:] = np.where(is_high, -5.0 if bad else 2.0, 1.5)
        return found

    monkeypatch.setattr(MadeUp, "evaluate", evaluate)
    assert seek(trials=2000).best["x"] < 5.0
    assert seek(trials=2000, robust=False).best["x"] > 5.0


def test_neighbours_lie_in_the_box_and_whole_numbers_move_by_one():
    space = space_of(Mixed)
    sets = rows((5.0, 3), (0.0, 1), (10.0, 6))
    rule = Robustness(neighbours=64)
    near = draw_neighbors(space, sets, rule, np.random.default_rng(0))
    for k in range(3):
        part = slice(64 * k, 64 * (k + 1))
        assert np.abs(near["x"][part] - sets["x"][k]).max() <= 1.0 + 1e-9
        assert near["x"][part].std() > 0.1
        steps = set((near["n"][part] - sets["n"][k]).tolist())
        assert steps == [{-1, 0, 1}, {0, 1}, {-1, 0}][k]
        assert set(near["mode"][part]) == {"a"}
        assert not near["fast"][part].any()
    assert near["x"].min() >= 0.0
    assert near["x"].max() <= 10.0


def test_where_all_that_leads_stands_at_the_edge_of_a_constraint_the_winner_stands_back(on):
    """A slope that ends in a cliff: 32 leading sets in the order of y, all at the cliff."""

    def surface(sets: Columns) -> Columns:
        x, y = sets["x"], sets["y"]
        is_over = x > 8.0
        return {"sharpe": x + 0.001 * y, "max_drawdown": np.where(is_over, 0.9, 0.1)}

    on(surface)
    for seed in range(3):
        study = seek(constraints={"max_drawdown": "<= 0.4"}, trials=4000, seed=seed)
        assert 6.6 < study.best["x"] <= 7.2  # 8, less a tenth of the range and some
        assert study.verdict.kept > 0.94
        assert math.isfinite(study.verdict.robust_score)
        assert study.verdict.plain_score > 7.99
