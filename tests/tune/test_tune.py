"""The search finds the best sets, keeps its budget and its limits."""

import functools
import itertools
import json
import math
import re

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.core.errors import ParameterError
from backtest.core.json_values import to_plain
from backtest.report.basis import list_terms
from backtest.search import Progress
from backtest.search.problem import describe_objective
from tests.kit import check_refused, slow
from tests.tuning import Columns, Hills, MadeUp, dome, seek, stand_in

pytestmark = pytest.mark.usefixtures("made_up")


def test_the_best_place_is_found_and_ready_to_run():
    study = seek()

    assert study.best["sharpe"] == pytest.approx(2.0, abs=0.02)
    assert study.best_values["x"] == pytest.approx(6.0, abs=0.6)
    assert study.best_policy == Hills(**study.best_values)
    assert study.best_account == bt.Account()
    assert study.complete


def test_a_budget_in_seconds_ends_the_search(clock):
    stand_in(pause=0.01)
    study = seek(trials=None, seconds=0.2)
    searched = [batch for batch in study.batches if batch.stage == "search"]

    assert 0.1 < searched[-1].seconds < 0.3
    assert study.complete


@pytest.mark.parametrize("robust", [True, False])
@pytest.mark.parametrize("trials", [4, 60, 600, *slow([3_000, 6_000]), 9_000])
def test_no_more_sets_are_evaluated_than_the_budget_has(trials, robust):
    study = seek(trials=trials, robust=robust)
    assert 0.8 * trials - 4 < len(study.table) <= trials  # boxes may not overlap


def test_seconds_are_of_searching_and_not_of_what_compiles_first(monkeypatch, clock):
    """A first answer that takes longer than all the budget costs none of it."""
    answer = MadeUp.evaluate

    def compile_first(self, sets, **terms):
        if not self.asked:
            clock.pause(0.5)
        return answer(self, sets, **terms)

    monkeypatch.setattr(MadeUp, "evaluate", compile_first)
    stand_in(pause=0.01)
    study = seek(trials=None, seconds=0.3, robust=False)
    assert study.trials > 100
    assert study.batches[0].seconds < 0.3


@pytest.mark.parametrize(("wrong", "words"), [
    ({"trials": 3}, "trials must be"),
    ({"seconds": math.nan}, "seconds must be"),
    ({"sampler": "sobl"}, "did you mean 'sobol'"),
    ({"seed": -1}, "seed must be"),
    ({"objective": "sharp"}, "did you mean 'sharpe'"),
    ({"objective": {"sharpe"}}, "objective must be a measure"),
    ({"objective": "es_95"}, "need no path of an account, got es_95"),
    ({"constraints": {"es_95": "<= 0.5"}}, "need no path of an account, got es_95"),
    ({"holdout": "100%"}, "holdout must be"),
    ({"space": {"z": (0, 1)}}, "nothing named 'z' to vary"),
    ({"fix": {"x": 11.0}}, "x must be 0 to 10, got 11"),
])  # fmt: skip
def test_wrong_arguments_are_refused(wrong, words):
    check_refused(lambda: seek(Hills, **wrong), words, ParameterError)


def test_the_same_seed_makes_the_same_study_and_another_another():
    one = seek(seed=5)
    again = seek(seed=5)
    other = seek(seed=6)

    pd.testing.assert_frame_equal(one.table, again.table)
    assert to_plain(one.outcome) == to_plain(again.outcome)
    assert not one.table["x"].equals(other.table["x"])


def test_progress_is_told_after_every_piece():
    told: list[Progress] = []
    study = seek(progress=told.append)

    counts = [each.trials for each in told]
    assert counts == sorted(counts)
    assert told[-1].trials == len(study.table)
    assert told[-1].total == 400

    scores = [each.best_score for each in told]
    assert scores == sorted(scores)
    assert set(told[-1].best_values) == {"x", "y"}

    assert {each.stage for each in told} == {"search", "neighbour", "part"}
    assert all(a.seconds <= b.seconds for a, b in itertools.pairwise(told))


def test_account_and_venue_are_searched_by_dotted_names():
    space = {"x": (0.0, 10.0), "account.band": (0.0, 0.2), "venue.fees.taker": [0.0, 0.001]}
    study = seek(space=space)

    assert study.best_account.band == study.best["account.band"]
    assert study.best_venue.fees.taker == study.best["venue.fees.taker"]
    assert set(study.table["venue.fees.taker"]) == {0.0, 0.001}


def test_constraints_are_kept_whatever_the_score(on):
    def surface(sets: Columns) -> Columns:
        return {"sharpe": sets["x"].copy(), "max_drawdown": sets["x"] / 10.0}

    on(surface)
    study = seek(constraints={"max_drawdown": "<= 0.4"})
    assert study.best["max_drawdown"] <= 0.4
    assert study.best["sharpe"] > 2.99  # a tenth of the range from the edge, and a little

    broken = study.table[study.table["max_drawdown"] > 0.4]
    assert (broken["violation"] > 0.0).all()
    assert broken["score"].max() > 9.0


def test_a_ruined_set_never_wins(on):
    def surface(sets: Columns) -> Columns:
        return {"sharpe": sets["x"].copy(), "ruined": (sets["x"] > 5.0).astype(float)}

    on(surface)
    for robust in (True, False):
        study = seek(robust=robust)
        assert study.best["ruined"] == 0.0
        assert study.best["x"] <= 5.0
        assert np.isinf(study.table.loc[study.table["ruined"] == 1.0, "violation"]).all()


def test_where_no_set_keeps_the_constraints_there_is_no_best(on):
    on(lambda sets: {"sharpe": sets["x"].copy(), "max_drawdown": np.full(len(sets["x"]), 0.9)})
    study = seek(constraints={"max_drawdown": "<= 0.4"})

    assert study.best is None
    assert "300 break max_drawdown <= 0.4" in study.warnings[0]

    with pytest.raises(ParameterError, match="of 300 sets 300 break max_drawdown"):
        _ = study.best_policy

    assert "none" in study.summary()
    assert json.dumps(study.to_dict())


def test_failed_sets_are_rows_with_their_cause(on):
    def surface(sets: Columns) -> Columns:
        return dome(sets) | {"error": np.where(sets["x"] < 5.0, "ValueError: too low", "")}

    on(surface)
    study = seek()

    failed = study.table[study.table["error"] != ""]
    assert (failed["x"] < 5.0).all()
    assert failed["score"].isna().all()
    assert len(failed) + (study.table["x"] >= 5.0).sum() == len(study.table)

    assert study.best["x"] >= 5.0
    assert any("sets failed, the first with: ValueError: too low" in w for w in study.warnings)


def test_where_every_set_fails_the_search_ends_at_once(on):
    on(lambda sets: dome(sets) | {"error": np.full(len(sets["x"]), "KeyError: 'sigma'")})
    check_refused(lambda: seek(trials=10_000), "sets failed, the first with: KeyError: 'sigma'")


def test_sets_without_a_score_do_not_win(on):
    on(lambda sets: {"sharpe": np.where(sets["x"] < 5.0, math.nan, -sets["x"])})
    assert seek().best["x"] > 5.0
    assert seek(robust=False).best["x"] == pytest.approx(5.0, abs=0.5)


@pytest.mark.parametrize("value", [-math.inf, math.inf])
def test_a_search_whose_scores_are_all_infinite_ends_without_a_winner(on, value):
    on(lambda sets: {"sharpe": np.full(len(sets["x"]), value)})
    study = seek(trials=40)

    assert study.best is None
    assert "sharpe is undefined in all sets" in study.warnings[0]
    assert re.search(r"of (\d+) sets \1 have no finite sharpe", study.warnings[0])
    assert "constraint" not in study.warnings[0]


class Weighted:
    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(self, row) -> float:
        return row["sharpe"] - self.weight * row["turnover"]


def weigh(row, weight: float) -> float:
    return row["sharpe"] - weight * row["turnover"]


def test_what_is_bound_to_an_objective_counts():
    for make in [Weighted, lambda weight: functools.partial(weigh, weight=weight)]:
        assert describe_objective(make(1.0)) == describe_objective(make(1.0))
        assert describe_objective(make(1.0)) != describe_objective(make(2.0))

    assert describe_objective(np.max) != describe_objective(Weighted(1.0))


@pytest.mark.parametrize(("policy", "how", "held"), [
    (Hills, {"space": {"x": (1.0, 9.0)}}, "y 10"),
    (Hills(y=40.0), {"space": {"x": (1.0, 9.0)}}, "y 40"),
    (Hills, {"fix": {"y": 20.0}}, "y 20"),
])  # fmt: skip
def test_a_search_says_what_it_holds_at_which_values(policy, how, held):
    study = seek(policy, **how)

    terms = {table.caption: table for table in list_terms(study.manifest)}
    assert "Held" in terms
    assert [" ".join(row) for row in terms["Held"].rows] == [held]
    assert f"Held: {held}" in study.summary()


def test_a_search_that_holds_nothing_does_not_speak_of_it():
    study = seek(Hills)

    captions = [table.caption for table in list_terms(study.manifest)]
    assert "Held" not in captions
    assert "Held:" not in study.summary()
