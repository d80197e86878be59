"""Sets that no other beats in every objective, standard errors, and patience."""

import math

import numpy as np
import pytest

from backtest.core.errors import ParameterError
from backtest.results import read_objective, sharpe_error
from backtest.search import frontier, trials
from backtest.search.frontier import Patience, Span, is_dominated, measure_returns
from tests.kit import check_refused
from tests.tuning import seek

pytestmark = pytest.mark.usefixtures("made_up")


def test_measures_of_returns_by_hand():
    """Returns 10 %, -20 %, 25 %: the account is 1.1, .88, 1.1 in a quarter, 12 samples a year."""
    found = measure_returns(np.array([[0.1, -0.2, 0.25]]), Span(0.25, 12.0))
    deviation = math.sqrt((0.05**2 + 0.25**2 + 0.2**2) / 2)
    assert found["total_return"][0] == pytest.approx(0.1)
    assert found["cagr"][0] == pytest.approx(1.1**4 - 1)
    assert found["volatility"][0] == pytest.approx(deviation * math.sqrt(12))
    assert found["sharpe"][0] == pytest.approx(0.05 / deviation * math.sqrt(12))
    assert found["sortino"][0] == pytest.approx(0.05 / math.sqrt(0.04 / 3) * math.sqrt(12))
    assert found["max_drawdown"][0] == pytest.approx(0.2)
    assert found["calmar"][0] == pytest.approx((1.1**4 - 1) / 0.2)
    worth = (1.1**-2 + 0.8**-2 + 1.25**-2) / 3
    assert found["certainty_equivalent"][0] == pytest.approx(worth**-6 - 1)


def test_standard_errors_are_those_of_closed_forms():
    """Of independent returns: Mertens for Sharpe, and sd(log returns) / sqrt(n) for growth."""
    returns = np.random.default_rng(3).normal(0.001, 0.01, (800, 2))
    span = Span(800 / 365, 365.0)
    own = measure_returns(returns.T, span)
    goal = trials.Goal(read_objective("sharpe"), (), (read_objective("cagr"),))
    drawn = [*frontier.resample_scores(goal, own, returns, span, 400, 0)]
    errors = np.std(drawn, axis=0)
    growth = np.std(np.log1p(returns), axis=0) / math.sqrt(800) * 365 * (1 + own["cagr"])
    for k in (0, 1):
        assert errors[k, 0] == pytest.approx(sharpe_error(returns[:, k], 365.0), rel=0.12)
        assert errors[k, 1] == pytest.approx(growth[k], rel=0.12)


def test_sets_that_none_beats_are_those_of_brute_force():
    rng = np.random.default_rng(0)
    for m in (1, 2, 3):
        scores = rng.integers(0, 6, (60, m)).astype(float)
        scores[::7, 0] = np.nan
        beats = (scores[:, None] >= scores).all(2) & (scores[:, None] > scores).any(2)
        expected = beats.any(axis=0) | np.isnan(scores).any(axis=1)
        np.testing.assert_array_equal(is_dominated(scores), expected)


def test_a_search_without_gains_ends_after_as_many_evaluations_as_its_patience(on):
    """The first set is the only gain: on a plain every other one is as good."""
    on(lambda sets: {"sharpe": np.ones(len(sets["x"]))})
    study = seek(patience=50, robust=False)
    assert sum(batch.stage == "search" for batch in study.batches) > 1
    assert int((study.table["stage"] == "search").sum()) == 51
    assert study.manifest["patience"] == 50


def test_gains_under_a_quarter_of_the_standard_error_do_not_count(monkeypatch):
    monkeypatch.setattr(frontier, "estimate_errors", lambda goal, evaluator, sets, seed: np.full(
        (len(sets["x"]), 1), 0.4))  # fmt: skip
    goal = trials.Goal(read_objective("sharpe"), ())
    patience = Patience(10, goal, None, 0)

    def count(*sharpes: float) -> int:
        n = len(sharpes)
        rows = {"sharpe": np.array(sharpes)}
        sets = {"x": np.arange(float(n))}
        batch = trials.Batch("search", 0.0, sets, rows, rows["sharpe"], np.zeros(n), [""] * n)
        patience.count(batch)
        return patience.left

    assert count(1.0, 0.5, 0.9) == 8  # the first set is a gain
    assert count(1.05, 1.09) == 6  # under 1 + .1, also together
    assert count(1.11, 0.0) == 9
    assert count(1.2, math.nan) == 7


def test_a_patient_search_that_is_killed_ends_as_if_it_had_not_been(tmp_path):
    whole = seek(patience=60, store=tmp_path / "whole")

    def stop(now: object) -> None:
        if now.trials > 40:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted"):
        assert not seek(patience=60, store=tmp_path / "killed", progress=stop).complete
    again = seek(patience=60, store=tmp_path / "killed", resume=True)
    assert again.table.equals(whole.table)
    assert len(whole.table) < 400
    check_refused(lambda: seek(patience=0), "patience must be at least 1, got 0", ParameterError)
