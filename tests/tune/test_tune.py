"""The search finds, keeps to its limits, prefers plateaus, and says how much is luck."""

from __future__ import annotations

import itertools
import json
import math
import re
import time
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet as pq

import backtest as bt
from backtest.base.errors import ParameterError, PolicyError
from backtest.base.json_values import to_plain
from backtest.measures.ranking import pareto
from backtest.report.write import build_page
from backtest.strategies import VolTarget
from backtest.sweep.sets.sets import Base, read_settings
from backtest.sweep.sets.space import read_space
from backtest.tune import (
    Progress,
    Robustness,
    Study,
    conclusion,
    search,
    search_loop,
    trial_evaluator,
    tune,
)
from backtest.tune.holdout import find_split
from backtest.tune.luck import is_spike, warn_of_edges
from backtest.tune.plateau import (
    choose_candidates,
    draw_neighbors,
    half_widths,
    low_quantile,
    split_parts,
)
from backtest.tune.search_loop import find_knee, spread_weights
from tests.scenes import venue_of
from tests.tuning import (
    MARKET,
    Columns,
    Hills,
    MadeUp,
    Mixed,
    dome,
    seek,
    spike_and_plateau,
    stand_in,
    start_drawn,
)


@pytest.fixture(autouse=True)
def made_up(monkeypatch):
    """Put the made-up surface in place of the evaluator."""
    stand_in(put=monkeypatch.setattr)


@pytest.fixture
def on(monkeypatch):
    """Return a way to choose another surface."""
    return lambda surface: stand_in(surface, put=monkeypatch.setattr)


def space_of(policy: type[bt.Policy], given: Any = None):
    return read_space(policy, given, account=bt.Account(), venue=venue_of())


def rows(*values: Any) -> dict[str, np.ndarray]:
    """Return sets of Mixed of some (x, n)."""
    return {
        "x": np.array([float(x) for x, _ in values]),
        "n": np.array([n for _, n in values]),
        "mode": np.array(["a"] * len(values), dtype=object),
        "depth": np.full(len(values), 0.5),
        "fast": np.zeros(len(values), dtype=np.bool_),
    }


# ----- searching -----


def test_the_best_place_is_found_and_ready_to_run():
    study = seek()
    assert study.best["sharpe"] == pytest.approx(2.0, abs=0.02)
    assert study.best_values["x"] == pytest.approx(6.0, abs=0.6)
    assert study.best_policy == Hills(**study.best_values)
    assert study.best_account == bt.Account()
    assert study.complete


def test_the_budget_is_kept_neighbours_included():
    for trials in (4, 10, 64, 400, 1000):
        study = seek(trials=trials)
        assert study.trials <= trials
        assert study.trials > 0.9 * trials or trials < 64
        # every draw here is another set, save where neighbors of two candidates coincide
        assert study.trials <= len(study.table) <= min(trials, study.trials + 2)


def test_a_budget_in_seconds_ends_the_search(on):
    stand_in(pause=0.01)
    study = seek(trials=None, seconds=0.2)
    searched = [batch for batch in study.batches if batch.stage == "search"]
    assert 0.1 < searched[-1].seconds < 0.3
    assert study.complete


def test_both_budgets_hold():
    assert seek(trials=100, seconds=60.0).trials <= 100


@pytest.mark.parametrize("robust", [True, False])
@pytest.mark.parametrize("trials", [4, 60, 600, 3_000, 6_000, 9_000])
def test_no_more_sets_are_evaluated_than_the_budget_has(trials, robust):
    study = seek(trials=trials, robust=robust)
    assert 0.8 * trials - 4 < len(study.table) <= trials  # boxes may not overlap


def test_the_best_of_several_objectives_is_on_the_front():
    def peaks(sets):
        return {"sharpe": -np.abs(sets["x"] - 3.0), "cagr": -np.abs(sets["y"] - 30.0)}

    stand_in(peaks)
    for seed in range(5):
        study = seek(objective=["sharpe", "cagr"], robust=False, trials=100, seed=seed)
        assert study.best_trial in study.front.index


def test_seconds_are_of_searching_and_not_of_what_compiles_first(monkeypatch):
    """A first answer that takes longer than all the budget costs none of it."""
    answer = MadeUp.evaluate

    def compile_first(self, sets, **terms):
        if not self.asked:
            time.sleep(0.5)
        return answer(self, sets, **terms)

    monkeypatch.setattr(MadeUp, "evaluate", compile_first)
    study = seek(trials=None, seconds=0.3, robust=False)
    assert study.trials > 100
    assert study.batches[0].seconds < 0.3


def test_the_check_for_looking_ahead_takes_nothing_of_a_budget_in_seconds(monkeypatch):
    """It left no time for a single set, and an error that spoke of a measure."""
    monkeypatch.setattr(MadeUp, "check_causal", lambda self, sets: time.sleep(0.4))
    study = seek(trials=None, seconds=0.3, robust=False)
    assert study.batches[0].seconds < 0.3
    assert study.trials > 100


def test_the_shortest_budget_still_evaluates_some_sets():
    assert seek(trials=None, seconds=1e-9).trials > 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"trials": 3},
        {"trials": 0},
        {"trials": 2.5},
        {"seconds": 0.0},
        {"seconds": math.nan},
        {"seed": -1},
        {"seed": 0.5},
        {"sampler": "magic"},
        {"robust": "yes"},
        {"objective": "sharp"},
        {"objective": []},
        {"objective": "es_95"},
        {"constraints": {"es_99": "<= 0.1"}},
        {"constraints": {"max_drawdown": "small"}},
        {"holdout": "all"},
        {"holdout": "100%"},
        {"holdout": 1},
        {"holdout": "40d"},
        {"space": {"z": (0, 1)}},
        {"fix": {"z": 1}},
        {"fix": {"x": 11.0}},
        {"policy": 3},
    ],
)
def test_wrong_arguments_are_refused_with_a_cure(wrong):
    wanted = dict(wrong)
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        seek(wanted.pop("policy", Hills), **wanted)


def test_the_same_seed_makes_the_same_study_and_another_another():
    one, again, other = seek(seed=5), seek(seed=5), seek(seed=6)
    pd.testing.assert_frame_equal(one.table, again.table)
    assert to_plain(one.outcome) == to_plain(again.outcome)
    assert not one.table["x"].equals(other.table["x"])


def test_pieces_do_not_change_what_is_found(monkeypatch):
    whole = seek()
    monkeypatch.setattr(trial_evaluator, "FIRST_PIECE", 3)
    monkeypatch.setattr(trial_evaluator, "GROWTH", 1)
    small = seek()
    pd.testing.assert_frame_equal(whole.table, small.table)
    assert to_plain(whole.outcome) == to_plain(small.outcome)


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


def test_fixed_parameters_stay_and_others_vary():
    study = seek(fix={"y": 20.0}, space=None)
    assert (study.table["y"] == 20.0).all()
    assert study.table["x"].nunique() > 300


def test_account_and_venue_are_searched_by_dotted_names():
    space = {"x": (0.0, 10.0), "account.band": (0.0, 0.2), "venue.fees.taker": [0.0, 0.001]}
    study = seek(space=space)
    assert study.best_account.band == study.best["account.band"]
    assert study.best_venue.fees.taker == study.best["venue.fees.taker"]
    assert set(study.table["venue.fees.taker"]) == {0.0, 0.001}


def test_every_kind_of_parameter_is_searched(on):
    def surface(sets: Columns) -> Columns:
        is_b = sets["mode"] == "b"
        score = np.where(is_b, 1.0 - np.abs(sets["depth"] - 0.8), 0.0) + 0.2 * sets["fast"]
        return {"sharpe": score - 0.1 * np.abs(sets["n"] - 4)}

    on(surface)
    study = seek(Mixed, trials=1500)
    best = study.best_values
    assert (best["mode"], best["n"], best["fast"]) == ("b", 4, True)
    assert best["depth"] == pytest.approx(0.8, abs=0.1)
    assert (study.table.loc[study.table["mode"] == "a", "depth"] == 0.5).all()
    assert study.table["n"].dtype == np.int64
    assert study.best_policy == Mixed(**best)


# ----- what must hold -----


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
        ruined = (sets["x"] > 5.0).astype(float)
        return {"sharpe": sets["x"].copy(), "ruined": ruined}

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
    with pytest.raises(ParameterError, match="none of 300 does"):
        _ = study.best_policy
    assert "none" in study.summary()
    assert json.dumps(study.to_dict())


def test_failed_sets_are_rows_with_their_cause(on):
    def surface(sets: Columns) -> Columns:
        wrong = np.where(sets["x"] < 5.0, "ValueError: too low", "")
        return dome(sets) | {"error": wrong}

    on(surface)
    study = seek()
    failed = study.table[study.table["error"] != ""]
    assert (failed["x"] < 5.0).all()
    assert failed["score"].isna().all()
    assert len(failed) + (study.table["x"] >= 5.0).sum() == len(study.table)
    assert study.best["x"] >= 5.0
    assert any("sets failed, the first with: ValueError: too low" in w for w in study.warnings)


def test_a_function_of_the_measures_never_meets_a_failed_set(on):
    on(lambda sets: dome(sets) | {"error": np.where(sets["x"] < 5.0, "failed", "")})

    def objective(row):
        assert not math.isnan(row["sharpe"])
        return row["sharpe"] - 1.0

    assert seek(objective=objective).best["score"] == pytest.approx(1.0, abs=0.05)


def test_where_every_set_fails_the_search_ends_at_once(on):
    on(lambda sets: dome(sets) | {"error": np.full(len(sets["x"]), "KeyError: 'sigma'")})
    with pytest.raises(PolicyError, match="every set failed, the first with: KeyError: 'sigma'"):
        seek(trials=10_000)


def test_sets_without_a_score_do_not_win(on):
    on(lambda sets: {"sharpe": np.where(sets["x"] < 5.0, math.nan, -sets["x"])})
    assert seek().best["x"] > 5.0
    assert seek(robust=False).best["x"] == pytest.approx(5.0, abs=0.5)


# ----- several objectives -----


def trade_off(sets: Columns) -> Columns:
    """Return more Sharpe and more turnover with x; y is best at 20 for both."""
    loss = np.log(sets["y"] / 20.0) ** 2
    return {"sharpe": np.sqrt(sets["x"]) - loss, "turnover": sets["x"] + loss}


@pytest.mark.parametrize("sampler", ["auto", "sobol"])
def test_several_objectives_give_a_front_and_its_knee(on, sampler):
    on(trade_off)
    study = seek(objective=["sharpe", "turnover"], trials=1500, sampler=sampler)
    front = study.front
    assert len(front) > 15
    assert front["x"].min() < 1.0
    assert front["x"].max() > 9.0
    assert front["y"].between(10.0, 40.0).mean() > 0.8
    scores = study.table[["score: sharpe", "score: -turnover"]].to_numpy()
    is_found = study.table["stage"] == "search"
    is_found.iloc[study.outcome.candidates] = True
    assert list(pareto(scores, is_found.to_numpy())) == list(front.index)
    assert 0.5 < study.best["x"] < 7.0  # the knee of sqrt(x) against x lies at x = 2.5
    assert "Front" in study.summary()
    plain = seek(objective=["sharpe", "turnover"], trials=600, robust=False)
    assert plain.best_trial in plain.front.index


def test_weights_are_spread_over_all_objectives():
    for n, count in ((2, 5), (3, 7), (4, 5)):
        weights = np.array(list(spread_weights(n)))
        assert weights.shape == (count, n)
        assert np.allclose(weights.sum(axis=1), 1.0)


def test_a_knee_needs_a_feasible_set():
    assert find_knee(np.array([[1.0, 2.0]]), np.array([False])) == -1
    assert find_knee(np.array([[1.0], [3.0], [2.0]]), np.array([True, False, True])) == 2


# ----- plateaus -----


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
    assert "candidates is 3.00" in robust.summary()


def test_candidates_are_the_best_and_no_two_boxes_overlap(monkeypatch):
    chosen = []

    def choose(*args):
        chosen.append(choose_candidates(*args))
        return chosen[-1]

    monkeypatch.setattr(conclusion, "choose_candidates", choose)
    study = seek(trials=2000)
    judged = study.table[study.table["robust_score"].notna()]
    assert len(chosen) == 3
    assert 16 < len(judged) == sum(map(len, chosen)) <= 31
    space = space_of(Hills)
    for rows in chosen:
        some = study.table.loc[rows]
        cube = space.encode({name: some[name].to_numpy() for name in ("x", "y")})
        for k, one in enumerate(cube):
            away = np.abs(np.delete(cube, k, axis=0) - one).max(axis=1)
            assert away.min() >= 0.2
    assert study.table["score"][study.table["stage"] == "search"].idxmax() in judged.index


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


def test_options_have_boxes_of_their_own():
    space = space_of(Mixed)
    sets = rows((5.0, 3), (5.1, 3), (5.0, 3))
    sets["mode"][2] = "b"
    down, _ = half_widths(space, sets, 0.05)
    assert (down[:, 2] == 0.0).all()
    chosen = choose_candidates(space, sets, np.array([3.0, 2.0, 1.0]), Robustness())
    assert chosen.tolist() == [0, 2]


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


def test_where_every_candidate_has_bad_neighbours_the_safest_wins(on):
    """Feasible are only stripes of x: two narrow ones, and a wider one with a lower score."""

    def surface(sets: Columns) -> Columns:
        x = sets["x"]
        narrow = (np.abs(x - 2.0) < 0.2) | (np.abs(x - 9.0) < 0.2)
        wide = np.abs(x - 5.5) < 0.8
        return {"sharpe": np.where(narrow, 2.0, 1.0), "liquidations": 1.0 - (narrow | wide)}

    on(surface)
    study = seek(constraints={"liquidations": "== 0"}, trials=2000)
    assert np.isneginf(study.table["robust_score"].dropna()).all()
    assert study.best["x"] == pytest.approx(5.5, abs=0.8)
    assert 0.0 < study.verdict.kept < 1.0
    assert "break a constraint" in study.summary()


def test_sets_without_a_score_are_no_candidates():
    space = space_of(Mixed)
    scores = np.array([math.nan, -math.inf, 1.0])
    chosen = choose_candidates(space, rows((1.0, 1), (5.0, 3), (9.0, 6)), scores, Robustness())
    assert chosen.tolist() == [2]


def test_parts_cover_the_bars_once():
    for n in (2, 3, 7, 100, 8761):
        parts = split_parts(n, 4)
        assert sum(stop - first for first, stop in parts) in (n, 0)
        assert all(stop - first >= 2 for first, stop in parts) or n == 7
    assert split_parts(3, 4) == []


def test_a_low_quantile_is_one_of_the_values():
    samples = np.array([[[5.0], [4.0], [3.0], [2.0], [1.0]]])
    assert low_quantile(samples, 0.25).tolist() == [[2.0]]
    assert low_quantile(samples, 0.0).tolist() == [[1.0]]
    assert low_quantile(samples, 1.0).tolist() == [[5.0]]
    assert np.isnan(low_quantile(np.full((1, 3, 1), math.nan), 0.25)).all()


def test_of_few_trials_fewer_candidates_are_judged():
    rule = Robustness()
    assert (rule.fit(math.inf).candidates, rule.fit(math.inf).neighbours) == (32, 16)
    assert (rule.fit(100).candidates, rule.fit(100).neighbours) == (6, 16)
    assert (rule.fit(5).candidates, rule.fit(5).neighbours) == (1, 5)


@pytest.mark.parametrize(
    "wrong", [{"quantile": 1.5}, {"width": 0.0}, {"neighbours": 0}, {"parts": math.nan}]
)
def test_a_robustness_is_checked(wrong):
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        Robustness(**wrong)


# ----- the holdout -----


def test_the_holdout_is_the_last_part():
    assert find_split(MARKET, "25%") == 720
    assert find_split(MARKET, 0.25) == 720
    assert find_split(MARKET, "10d") == 720
    assert find_split(MARKET, None) == find_split(MARKET, 0) == 960


def test_the_search_sees_no_bar_of_the_holdout(monkeypatch):
    made = []

    evaluator = search.Evaluator

    def build(market, *args, **kwargs):
        made.append(evaluator(market, *args, **kwargs))
        return made[-1]

    monkeypatch.setattr(search, "Evaluator", build)
    seek()
    seen, whole = made
    assert seen.market.n_bars == 720
    assert whole.market.n_bars == 960
    assert whole.asked == [(1, 720, None)]  # the winner, once, from the split on


def test_the_winners_measures_on_the_holdout_stand_beside_the_others():
    study = seek()
    assert study.outcome.holdout["sharpe"] == study.best["sharpe"]  # the surface is the same there
    assert study.verdict.holdout_score == study.verdict.score
    assert study.verdict.looks == study.looks == 1
    assert "looked at once" in study.summary()
    without = seek(holdout=None)
    assert without.outcome.holdout == {}
    assert without.looks == 0
    with pytest.raises(ParameterError, match="needs a holdout"):
        without.look(without.best_values)


@pytest.mark.parametrize("value", [-math.inf, math.inf])
@pytest.mark.parametrize("objective", ["sharpe", ["sharpe", "calmar"]])
def test_a_search_whose_scores_are_all_infinite_ends_without_a_winner(on, value, objective):
    on(lambda sets: {"sharpe": np.full(len(sets["x"]), value)})
    study = seek(trials=40, objective=objective)
    assert study.best is None
    assert "no set keeps all constraints and has a score" in study.warnings[0]
    assert re.search(r"of (\d+) sets \1 keep them and have no finite sharpe", study.warnings[0])


@pytest.mark.parametrize("objective", ["sharpe", ["sharpe", "calmar"]])
def test_an_infinite_score_never_wins(on, objective):
    def half(sets: Columns) -> Columns:
        return {"sharpe": np.where(sets["x"] > 5.0, np.inf, sets["x"])}

    on(half)
    assert seek(trials=200, objective=objective).best["x"] <= 5.0


def test_a_study_without_a_winner_can_look_at_the_holdout(on):
    on(lambda sets: {"max_drawdown": np.full(len(sets["x"]), 0.9)})
    study = seek(trials=40, constraints={"max_drawdown": "<= 0.1"})
    assert study.best_trial == -1
    looks = study.looks
    assert study.look({"x": 1.0, "y": 2.0})["max_drawdown"] == 0.9
    assert study.looks == looks + 1


@pytest.mark.slow
def test_every_look_is_counted(tmp_path):
    first = seek(store=tmp_path)
    assert first.looks == 1
    assert seek(store=tmp_path, resume=True).looks == 1
    first.look(first.best_values)
    assert first.looks == 1  # the same set again tells nothing new
    first.look({"x": 1.0, "y": 2.0})
    assert first.looks == 2
    second = seek(store=tmp_path, seed=1)
    assert second.verdict.looks == 3
    assert first.looks == 3
    assert first.verdict.looks == 1  # at its time
    assert "looked at 3 times" in second.summary()
    elsewhere = seek(store=tmp_path, market=MARKET.prefix(900))
    assert elsewhere.looks == 1
    in_memory = seek()
    in_memory.look({"x": 1.0, "y": 2.0})
    assert in_memory.looks == 2
    assert Study.load(first.folder).looks == 3


def test_a_look_is_that_of_a_set_however_it_is_written(tmp_path):
    for study in (seek(store=tmp_path), seek()):
        looks = study.looks
        for same in ({"x": 1, "y": 10.0}, {"y": 10, "x": 1.0}, {"x": np.float32(1.0)}):
            study.look(same)  # y has its default, 10
        assert study.looks == looks + 1
        study.look({name: float(value) for name, value in study.best_values.items()})
        assert study.looks == looks + 1
        for wrong in ({"z": 1.0}, {"x": 99.0}, {"x": "a"}):
            with pytest.raises(ParameterError, match=rf"\b{next(iter(wrong))}\b"):
                study.look(wrong)
        assert study.looks == looks + 1


def of_instrument(market: bt.Market, name: str) -> bt.Market:
    """Return a market as if its prices were real."""
    return bt.Market.from_frames(market.bars(), funding=market.funding(), instrument=name)


@pytest.mark.slow
def test_looks_and_trials_on_data_that_have_grown_since_count(tmp_path):
    """A market that is a day longer has nearly the same holdout, and the same past."""
    long = of_instrument(MARKET, "BTC")
    first = seek(store=tmp_path, market=long.prefix(900))
    grown = seek(store=tmp_path, market=long)
    assert grown.looks == 2
    assert grown.verdict.other_trials == first.trials
    other = seek(store=tmp_path, market=of_instrument(MARKET, "ETH"))
    assert (other.looks, other.verdict.other_trials) == (1, 0)
    early = seek(store=tmp_path, market=long.prefix(400), seed=7)  # its holdout ends before theirs
    assert early.looks == 1
    assert early.verdict.other_trials == first.trials + grown.trials


@pytest.mark.slow
def test_damaged_studies_beside_it_do_not_end_a_search(tmp_path):
    one, two, three = (seek(store=tmp_path, seed=seed) for seed in range(3))
    facts = json.loads((one.folder / "study.json").read_text(encoding="utf-8"))
    del facts["searched"]
    (one.folder / "study.json").write_text(json.dumps(facts), encoding="utf-8")
    batch = two.folder / "trials" / "000000.parquet"
    table, head = pq.read_table(batch), pq.read_schema(batch).metadata
    words = pa.array([str(each) for each in table.column("set:y").to_pylist()])
    table = table.set_column(table.column_names.index("set:y"), "set:y", words)
    pq.write_table(table.replace_schema_metadata(head), batch)
    found = seek(store=tmp_path, seed=9).verdict.other_trials
    assert three.trials < found <= three.trials + len(two.table)


def test_failed_sets_are_not_said_to_break_constraints(on):
    def half(sets: Columns) -> Columns:
        fails = sets["x"] > 5.0
        return {
            "sharpe": np.where(fails, np.nan, 1.0),
            "error": np.where(fails, "it raised", ""),
        }

    on(half)
    study = seek(trials=100, constraints={"sharpe": ">= 9", "max_drawdown": "<= 0.9"})
    told = re.search(r"of (\d+) sets (\d+) break sharpe >= 9, (\d+) failed$", study.warnings[0])
    assert told, study.warnings[0]
    assert int(told[2]) + int(told[3]) == int(told[1])


def test_a_damaged_look_still_counts(tmp_path):
    study = seek(store=tmp_path)
    (look,) = (tmp_path / "holdout-looks").iterdir()
    look.write_text("{", encoding="utf-8")
    assert study.looks == 1


def test_a_holdout_that_breaks_a_constraint_is_told(monkeypatch):
    plain = MadeUp.evaluate

    def evaluate(self, sets, *, first=0, stop=None, returns=False, progress=None):
        found = plain(self, sets, first=first, stop=stop, returns=returns)
        if first == 720:
            found.metrics["ruined"][:] = 1.0
        return found

    monkeypatch.setattr(MadeUp, "evaluate", evaluate)
    study = seek()
    assert "on the holdout the best set breaks ruined == 0" in study.warnings
    assert study.best is not None


def poison(market: bt.Market, split: int) -> bt.Market:
    """Return a market whose bars from the split on are another path."""
    bars = market.bars()
    after = slice(split, None)
    factor = np.exp(np.cumsum(np.full(len(bars) - split, -0.002)))
    for name in ("open", "high", "low", "close"):
        values = bars[name].to_numpy().copy()
        values[after] *= factor
        bars[name] = values
    bars["high"] = bars[["open", "high", "low", "close"]].max(axis=1)
    bars["low"] = bars[["open", "high", "low", "close"]].min(axis=1)
    return bt.Market.from_frames(bars, funding=market.funding(), instrument="POISON")


@pytest.mark.slow
def test_with_the_real_evaluator_a_poisoned_holdout_changes_nothing(monkeypatch):
    monkeypatch.undo()
    stand_in_sampler(monkeypatch)
    clean = bt.Market.from_frames(MARKET.bars(), funding=MARKET.funding(), instrument="POISON")
    studies = [
        tune(
            market,
            VolTarget,
            venue=bt.Venue.preset("binance-usdm", "BTCUSDT"),
            account=bt.Account(),
            trials=40,
            threads=threads,
        )
        for market, threads in ((clean, 1), (poison(clean, 720), 2))
    ]
    pd.testing.assert_frame_equal(studies[0].table, studies[1].table)
    assert studies[0].best_values == studies[1].best_values
    assert studies[0].outcome.holdout != studies[1].outcome.holdout
    row = bt.run(
        clean.prefix(720),
        studies[0].best_policy,
        venue=studies[0].best_venue,
        account=studies[0].best_account,
    )
    assert row.metrics["sharpe"] == studies[0].best["sharpe"]
    assert studies[0].replay().metrics["final_equity"] > 0.0


def stand_in_sampler(monkeypatch) -> None:
    """Put the plain sampler in place of the others, and leave the evaluator."""
    monkeypatch.setattr(search_loop, "start_sampler", start_drawn)


# ----- how much is luck -----


def test_more_trials_ask_for_more(tmp_path):
    few, many = seek(trials=64), seek(trials=2000)
    assert many.verdict.effective_trials > few.verdict.effective_trials
    assert many.verdict.trials == many.trials <= 2000
    assert many.verdict.lucky_sharpe > 0.0
    assert 0.0 <= many.verdict.deflated_sharpe <= 1.0
    assert 0.0 <= many.verdict.overfitting <= 1.0


@pytest.mark.slow
def test_trials_of_other_studies_count(tmp_path):
    first = seek(store=tmp_path)
    second = seek(store=tmp_path, seed=1)
    assert first.verdict.other_trials == 0
    assert second.verdict.other_trials == first.trials
    assert first.trials < len(first.table)  # one set was asked for twice
    assert second.verdict.effective_trials > first.verdict.effective_trials
    summary = " ".join(second.summary().split())
    assert f"{first.trials:,} of other searches on some of the same bars (policy Hills)" in summary


class Valleys(Hills):
    """Another policy on the same map."""


@pytest.mark.slow
def test_sets_of_other_policies_count_once_each_and_are_named(tmp_path):
    first = seek(store=tmp_path)
    again = seek(store=tmp_path, objective="calmar")  # the same sets, another objective
    other = seek(Valleys, store=tmp_path)
    assert first.verdict.other_policies == ()
    assert other.verdict.other_policies == ("Hills",)
    tried = len(pd.concat([first.table, again.table]).drop_duplicates(subset=["x", "y"]))
    assert other.verdict.other_trials == tried
    assert "policy Hills" in " ".join(other.summary().split())
    alone = seek(Valleys).verdict
    assert other.verdict.deflated_sharpe <= alone.deflated_sharpe
    assert Study.load(other.folder).verdict == other.verdict


@pytest.mark.slow
def test_sets_on_other_bars_do_not_count(tmp_path):
    seek(store=tmp_path, market=MARKET.prefix(400))
    later = seek(Valleys, store=tmp_path, market=MARKET.slice(500, MARKET.n_bars))
    assert later.verdict.other_trials == 0


def test_the_first_words_of_a_study_are_its_verdict(on):
    on(lambda sets: {"sharpe": 0.001 * np.sin(sets["x"] * 50.0)})
    study = seek(robust=False)
    assert study.verdict.deflated_sharpe < 0.95
    words = "no evidence that the winner is more than luck"
    assert study.summary().startswith(f"Verdict       {words}")
    page = build_page(study)
    assert page.summary.startswith(words.capitalize())


def test_noise_is_called_noise_and_skill_is_not(on):
    def noise(sets: Columns) -> Columns:
        word = (1e6 * sets["x"]).astype(np.int64)
        return {"sharpe": 4.0 * np.sin(word * 12.9898) * np.cos(word * 78.233)}

    on(noise)
    unlucky = seek(robust=False).verdict
    assert unlucky.score > 3.5
    on(lambda sets: {"sharpe": 14.0 - np.abs(sets["x"] - 5.0)})
    skilled = seek(robust=False).verdict
    assert skilled.deflated_sharpe > 0.95
    assert unlucky.deflated_sharpe < skilled.deflated_sharpe


def test_an_edge_is_told_unless_it_is_natural(on):
    on(lambda sets: {"sharpe": sets["x"].copy()})
    assert any(
        "x = 10 lies on the upper edge" in text for text in seek(robust=False, trials=2000).warnings
    )
    on(lambda sets: {"sharpe": -sets["x"]})
    assert not any("edge" in text for text in seek(robust=False, trials=2000).warnings)


def test_edges_of_every_kind():
    space = space_of(Mixed)
    settings = read_settings(Base(Mixed, venue_of(), bt.Account()))
    values = {"x": 0.0, "n": 6, "mode": "a", "depth": 1.0, "fast": True}
    told = list(warn_of_edges(space, settings, values))
    assert len(told) == 1  # x = 0 is natural; depth does not matter in mode a
    assert told[0].startswith("n = 6 lies on the upper edge")
    assert len(list(warn_of_edges(space, settings, {**values, "mode": "b"}))) == 2


def test_a_spike_is_what_its_neighbours_are_not():
    scores = np.linspace(-1.0, 1.35, 100)
    assert is_spike(1.35, 0.97, scores) is True
    assert is_spike(1.35, 1.15, scores) is False
    assert is_spike(0.1, 0.0, scores) is False  # little, in all that spread
    assert is_spike(0.1, 0.0, np.full(100, 0.05)) is True
    assert is_spike(math.nan, 1.0, scores) is False


def test_the_summary_says_everything_in_eighty_columns(tmp_path):
    study = seek(
        store=tmp_path,
        constraints={"max_drawdown": "<= 0.4"},
        objective={"sharpe": 1, "turnover": -1},
    )
    text = study.summary()
    assert max(len(line) for line in text.splitlines()) <= 80
    for words in (
        "Study", "SYNTHETIC", "max_drawdown <= 0.4", "Best", "holdout", "Plateau",
        "median of its neighbors", "independent", "deflated Sharpe ratio",
        "probability of backtest overfitting", "looked at once",
    ):  # fmt: skip
        assert words in text.replace("\n              ", " "), words


def test_the_summary_of_a_tiny_budget_claims_no_ranking():
    text = " ".join(seek(trials=6).summary().split())
    assert "there was one candidate only: nothing was ranked" in text
    assert "1 candidates" not in text
    assert "1 independent ones" not in text


def test_the_highest_of_the_candidates_is_no_lower_than_the_winner():
    for seed in range(4):
        study = seek(objective=["sharpe", "max_drawdown"], trials=200, seed=seed)
        assert study.verdict.plain_score >= study.verdict.score
        scores = study.table.loc[study.outcome.candidates, "score: sharpe"]
        assert study.verdict.plain_score == scores.max()


def test_one_set_alone_was_not_chosen(tmp_path):
    study = seek(space={"x": [6.0]}, trials=10)
    assert study.trials == 1
    assert study.verdict.effective_trials == 1.0
    assert study.verdict.lucky_sharpe == 0.0
    assert 0.5 < study.verdict.deflated_sharpe < 1.0
    assert "chosen from a single set" in " ".join(study.summary().split())


class Scored(bt.Policy):
    """Parameters with the names of columns of a study."""

    score: Annotated[float, bt.Range(0.0, 1.0)] = 0.5
    plateau: Annotated[float, bt.Range(0.0, 1.0)] = 0.5
    stage: Annotated[float, bt.Range(0.0, 1.0)] = 0.5
    violation: Annotated[float, bt.Range(0.0, 1.0)] = 0.5
    robust_score: Annotated[float, bt.Range(0.0, 1.0)] = 0.5

    def leverage(self, bar, account):
        return self.score


def test_parameters_with_the_names_of_columns_are_kept(on):
    on(lambda sets: {"sharpe": 1.0 - (sets["score"] - 0.25) ** 2})
    study = seek(Scored, space=None, trials=100)
    for name, value in study.best_values.items():
        assert study.best[f"policy.{name}"] == value
    assert study.best["score"] == study.best["sharpe"]
    assert study.best["stage"] in ("search", "neighbour")


def test_the_summary_of_several_objectives_says_whose_number_it_shows():
    text = " ".join(seek(objective=["sharpe", "max_drawdown"]).summary().split())
    assert re.search(r"the knee of all objectives, by sharpe -?[\d.]+: the 10 % quantile", text)


class Tabled(bt.Policy):
    """Hold what a table says, which does not compile."""

    x: Annotated[float, bt.Range(0.0, 1.0)] = 0.5

    def leverage(self, bar, account):
        return {"x": self.x, "word": "x"}["x"]


@pytest.mark.slow
def test_what_does_not_compile_is_told_once(monkeypatch):
    """Two evaluators work on a study, one of all bars and one of those before the holdout."""
    monkeypatch.undo()
    with pytest.warns(UserWarning, match="Tabled is swept in plain Python") as caught:
        study = bt.tune(
            MARKET.prefix(96), Tabled, venue=venue_of(), account=bt.Account(), trials=4,
            sampler="random",
        )  # fmt: skip
    assert study.outcome.holdout
    assert len(caught) == 1


def test_everything_is_json(tmp_path):
    study = seek(Mixed, store=tmp_path)
    data = json.loads(json.dumps(study.to_dict(), allow_nan=False))
    assert data["outcome"]["verdict"]["trials"] == study.trials
    assert data["best"]["values"]["mode"] in ("a", "b")
    assert data["complete"] is True
