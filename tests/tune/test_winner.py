"""Which candidate wins where little was judged, and what becomes of the trials."""

import numpy as np
import pytest

from backtest.tune.winner import CandidateScores, choose_winner
from tests.tuning import seek, stand_in


@pytest.fixture(autouse=True)
def stripes(monkeypatch):
    """Put a surface in place of the evaluator on which no neighborhood keeps the constraint."""

    def surface(sets):
        x = np.asarray(sets["x"])
        is_kept = np.sin(40.0 * x) > 0.2
        return {"sharpe": x + np.sin(9.0 * x), "liquidations": 1.0 - is_kept}

    stand_in(surface, put=monkeypatch.setattr)


BROKEN = {"liquidations": "== 0"}


def test_with_many_trials_a_fallback_is_said():
    study = seek(constraints=BROKEN, trials=3000)
    assert study.outcome.chosen_by == "kept"
    assert any("candidates is robust" in text for text in study.warnings)


JUDGED = CandidateScores(np.array([0.1, 0.5]), np.zeros(2), np.array([0.3, 0.9]))
LOST = JUDGED._replace(robust=np.full(2, -np.inf))
SCORES = np.array([3.0, 1.0])


@pytest.mark.parametrize(("judged", "median", "is_enough", "expected"), [
    (JUDGED, 0.5, False, (1, "robust_score")),
    (JUDGED, 2.0, False, (0, "score")),
    (JUDGED, 2.0, True, (1, "robust_score")),
    (LOST, 0.5, False, (0, "score")),
    (LOST, 0.5, True, (1, "kept")),
])  # fmt: skip
def test_by_what_a_winner_is_chosen(judged, median, is_enough, expected):
    assert choose_winner(judged, SCORES, median, is_enough=is_enough) == expected
