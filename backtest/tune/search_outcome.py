"""Choose the winner of a search, evaluate it on the holdout, and build the outcome."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest.base import BacktestError, BandWarning, FloatArray, IntArray, to_plain
from backtest.measures import pareto
from backtest.sweep import build_trio, count_sets, take_sets
from backtest.tune.journal import Batch
from backtest.tune.looks import OtherTrials, count_looks, record_look
from backtest.tune.luck import Verdict, is_spike, measure_luck, warn_of_edges
from backtest.tune.plateau import (
    BUDGET_SHARE,
    BY_KEPT,
    BY_ROBUST,
    BY_SCORE,
    CandidateScores,
    Robustness,
    choose_candidates,
    estimate_robustness,
    join_scores,
    score_candidates,
)
from backtest.tune.search_loop import find_knee
from backtest.tune.single_sets import Bench, complete_set, measure_holdout
from backtest.tune.trials import find_distinct, gather, is_feasible, worst_where_broken

if TYPE_CHECKING:
    from backtest.sweep import Evaluator, Space
    from backtest.tune.trial_evaluator import Examiner, Goal


class StudyOutcome(NamedTuple):
    """Conclusion of a search; ``best`` is a row of the table, -1 if none keeps the constraints."""

    best: int
    candidates: list[int]
    robust: list[list[float]]
    plateau: list[list[float]]
    verdict: Verdict
    warnings: list[str]
    holdout: dict[str, float]
    chosen_by: str = ""

    def to_dict(self) -> dict[str, Any]:
        data: dict[str, Any] = to_plain({**self._asdict(), "verdict": self.verdict._asdict()})
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StudyOutcome:
        found = dict(data["verdict"])
        verdict = Verdict(**{**found, "other_policies": tuple(found["other_policies"])})
        return cls(**{**data, "verdict": verdict})


class StudyTask(NamedTuple):
    facts: Mapping[str, Any]
    space: Space
    goal: Goal
    rule: Robustness
    is_robust: bool
    trials: int | None
    seconds: float | None
    seed: int
    seen: Evaluator
    bench: Bench
    store: Path | None
    count_others: Callable[[], OtherTrials]


def build_outcome(task: StudyTask, examiner: Examiner) -> StudyOutcome:
    trials = gather(examiner.batches)
    if not is_feasible(trials).any():
        return build_outcome_without_winner(task, trials)
    plan = plan_candidates(task.rule, find_allowance(task, examiner), is_robust=task.is_robust)
    rows, candidates = find_candidates(task, examiner, trials, plan)
    trials = gather(examiner.batches)
    is_enough = plan.candidates >= min(ENOUGH, task.rule.candidates)
    choice, notes = find_winner(task, trials, rows, candidates, is_enough=is_enough)
    place = choice.place
    best = int(rows[place])
    task.seen.check_set(take_sets(trials.sets, best))
    highest = int(np.argmax(worst_where_broken(trials)[rows, 0]))
    others = task.count_others()
    left_out = int(task.facts.get("markets_left_out", 0))
    luck = measure_luck(task.seen, task.space, trials, best, others, task.seed, left_out)
    holdout, failures = evaluate_holdout(task, take_sets(trials.sets, best))
    verdict = Verdict(
        trials=len(find_distinct(trials.sets)),
        other_trials=others.n_sets,
        other_policies=others.policies,
        **luck._asdict(),
        score=float(trials.scores[best, 0]),
        robust_score=float(candidates.robust[place, 0]),
        plateau=float(candidates.plateau[place, 0]),
        kept=float(candidates.kept[place]),
        plain_score=float(trials.scores[rows[highest], 0]),
        plain_plateau=float(candidates.plateau[highest, 0]),
        holdout_score=score_holdout(task, holdout),
        looks=count_all_looks(task),
    )
    found = list_warnings(task, trials, best, verdict)
    told = [*notes, *found, *failures, *task.seen.doubts]
    robust, plateau = candidates.robust.tolist(), candidates.plateau.tolist()
    return StudyOutcome(best, rows.tolist(), robust, plateau, verdict, told, holdout, choice.by)


def build_outcome_without_winner(task: StudyTask, trials: Batch) -> StudyOutcome:
    n = len(find_distinct(trials.sets))
    has_run = np.array([error == "" for error in trials.errors], dtype=np.bool_)
    broken = [(each, each.violation(trials.metrics) > 0.0) for each in task.goal.constraints]
    counts = [(each, np.count_nonzero(is_broken & has_run)) for each, is_broken in broken]
    causes = [f"{count:,} break {each}" for each, count in counts if count]
    if not has_run.all():
        causes.append(f"{np.count_nonzero(~has_run):,} failed")
    scoreless = np.count_nonzero(trials.violation == 0.0)  # or they would have been feasible
    if scoreless:
        names = " and ".join(task.facts["objectives"])
        causes.insert(0, f"{scoreless:,} keep them and have no finite {names}")
    text = f"no set keeps all constraints and has a score: of {n:,} sets {', '.join(causes)}"
    others = task.count_others()
    verdict = Verdict(n, others.n_sets, other_policies=others.policies)
    return StudyOutcome(-1, [], [], [], verdict, [text, *warn_of_failures(trials)], {})


# ------------------------------------------------------------------------------------- the winner


def find_candidates(
    task: StudyTask, examiner: Examiner, trials: Batch, plan: CandidatePlan
) -> tuple[IntArray, CandidateScores]:
    rule = plan.rule
    rows = choose_candidates(task.space, trials.sets, find_keys(trials), rule)
    candidates = score_rows(task, examiner, trials, rows, rule)
    for _ in range(plan.rounds):
        trials = gather(examiner.batches)
        keys = estimate_robustness(task.space, trials.sets, find_values(trials), rule)
        keys[rows] = -np.inf
        more = choose_candidates(task.space, trials.sets, keys, rule)
        if len(more):
            found = score_rows(task, examiner, trials, more, rule)
            rows, candidates = np.append(rows, more), join_scores(candidates, found)
    return rows, candidates


def find_winner(
    task: StudyTask, trials: Batch, rows: IntArray, candidates: CandidateScores, *, is_enough: bool
) -> tuple[WinnerChoice, list[str]]:
    if not task.is_robust:
        return WinnerChoice(0, BY_SCORE), []
    scores, median = trials.scores[rows], find_median(trials)
    choice = choose_winner(candidates, scores, median, is_enough=is_enough)
    name = task.goal.objectives[0].name
    return choice, list(explain_choice(choice, candidates, scores, median, name))


def score_rows(
    task: StudyTask, examiner: Examiner, trials: Batch, rows: IntArray, rule: Robustness
) -> CandidateScores:
    rng = np.random.default_rng([task.seed, 1])
    sets, own = take_sets(trials.sets, rows), trials.scores[rows]
    return score_candidates(examiner, task.space, sets, own, rule, rng)


def find_keys(trials: Batch) -> FloatArray:
    """Return the keys by which the first candidates are chosen, of shape (n,)."""
    if trials.scores.shape[1] == 1:
        return find_values(trials)
    kept = is_feasible(trials)
    keys = np.full(len(kept), -np.inf)
    front = pareto(trials.scores, kept)
    keys[front] = trials.scores[front].argsort(axis=0).argsort(axis=0).sum(axis=1)
    if len(front):
        keys[find_knee(trials.scores, kept)] = 1e9
    return keys


def find_values(trials: Batch) -> FloatArray:
    if trials.scores.shape[1] == 1:
        return worst_where_broken(trials)[:, 0]
    ranks = trials.scores.argsort(axis=0).argsort(axis=0).mean(axis=1)
    return np.where(is_feasible(trials), ranks, -np.inf)


def find_allowance(task: StudyTask, examiner: Examiner) -> float:
    done = sum(count_sets(batch.sets) for batch in examiner.batches)
    by_number = math.inf
    if task.trials is not None:
        by_number = min(BUDGET_SHARE * task.trials, task.trials - done)
    if task.seconds is None or not task.is_robust:
        return by_number
    return min(by_number, 0.5 * BUDGET_SHARE * task.seconds * done / max(examiner.seconds, 1e-9))


# ------------------------------------------------------------------------------------ the holdout


def evaluate_holdout(
    task: StudyTask, values: Mapping[str, Any]
) -> tuple[dict[str, float], list[str]]:
    if not task.bench.has_holdout:
        return {}, []
    if task.store is not None:
        record_look(task.store, task.facts, complete_set(task.bench, values))
    task.bench.whole.copy_fallback(task.seen)  # the warning was already given
    try:
        metrics = measure_holdout(task.bench, values)
    except BacktestError as error:
        return {}, [f"the best set cannot be run on the holdout: {error}"]
    columns = {name: np.array([value]) for name, value in metrics.items()}
    broken = [str(each) for each in task.goal.constraints if each.violation(columns)[0] > 0.0]
    return metrics, [f"on the holdout the best set breaks {text}" for text in broken]


def score_holdout(task: StudyTask, metrics: Mapping[str, float]) -> float:
    if not metrics:
        return math.nan
    columns = {name: np.array([value]) for name, value in metrics.items()}
    return float(task.goal.objectives[0].score(columns)[0])


def count_all_looks(task: StudyTask) -> int:
    if task.store is None:
        return int(task.bench.has_holdout)
    return count_looks(task.store, task.facts)


# --------------------------------------------------------------------------------------- warnings


def list_warnings(task: StudyTask, trials: Batch, best: int, verdict: Verdict) -> Iterator[str]:
    values = take_sets(trials.sets, best)
    yield from warn_of_edges(task.space, task.seen.settings, values)
    yield from warn_of_known_holdout(task)
    scores = trials.scores[is_feasible(trials), 0]
    name = task.goal.objectives[0].name
    if is_spike(verdict.score, verdict.plateau, scores):
        yield (
            f"the best sits on a spike: its own {name} is {verdict.score:.4g}, the median of its "
            f"neighbors {verdict.plateau:.4g}"
        )
    yield from warn_of_trading(task.seen, values, float(trials.metrics["turnover"][best]))
    yield from warn_of_failures(trials)


def warn_of_trading(seen: Evaluator, values: Mapping[str, Any], turnover: float) -> Iterator[str]:
    if turnover == 0.0:
        yield "the best set filled no order: bt.run of it says why"
    elif build_trio(seen.base, seen.settings, values).account.band:  # a run warns of wide bands
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            seen.replay(values)
        for each in caught:
            if issubclass(each.category, BandWarning):
                yield f"the best set hardly trades: {each.message}"


def warn_of_known_holdout(task: StudyTask) -> Iterator[str]:
    risk, bench = task.bench.risk, task.bench
    if risk is None or not bench.has_holdout:
        return
    if risk.paths.history.time[-1] >= bench.whole.market.time[bench.split]:
        yield (
            "the paths begin after bars of the holdout, so their measures depend on it; "
            "simulate them with start= at the end of the search to keep it unseen"
        )


def warn_of_failures(trials: Batch) -> Iterator[str]:
    errors = [error for error in trials.errors if error]
    if errors:
        yield f"{len(errors):,} of {len(trials.errors):,} sets failed, the first with: {errors[0]}"


REFINEMENTS = 2
"""Rounds of further candidates after the first, chosen by estimated robust scores."""
ENOUGH = 16
"""With at least so many candidates, a winner below the median or without a robust score is
accepted."""


class CandidatePlan(NamedTuple):
    rule: Robustness
    rounds: int

    @property
    def candidates(self) -> int:
        return (1 + self.rounds) * self.rule.candidates


class WinnerChoice(NamedTuple):
    place: int
    by: str


def plan_candidates(rule: Robustness, allowance: float, *, is_robust: bool) -> CandidatePlan:
    is_enough = allowance >= (1 + REFINEMENTS) * rule.neighbours
    rounds = REFINEMENTS if is_robust and is_enough else 0
    return CandidatePlan(rule.fit(allowance / (1 + rounds)), rounds)


def reserve_trials(rule: Robustness, trials: int, *, is_robust: bool) -> int:
    rounds = 1 + REFINEMENTS if is_robust else 1
    kept = rounds * rule.candidates * rule.neighbours
    return max(1, min(kept, int(BUDGET_SHARE * trials)))


def choose_winner(
    candidates: CandidateScores, scores: FloatArray, median: float, *, is_enough: bool
) -> WinnerChoice:
    """Return the winner among k candidates: the one with the highest robust score.

    If no candidate has one (some neighbors of each break a constraint), the winner is the one with
    the largest share of neighbors that keep them. With too few candidates (not ``is_enough``),
    such a winner, or one below the median of the sets tried, is replaced by the highest score.
    ``scores`` of shape (k, n_objectives) are the candidates' own; ``median`` is of the first.
    """
    place = find_knee(candidates.robust, np.isfinite(candidates.robust.min(axis=1)))
    by = BY_ROBUST if place >= 0 else BY_KEPT
    place = place if place >= 0 else int(np.argmax(candidates.kept))
    is_single = scores.shape[1] == 1
    is_low = is_single and bool(scores[place, 0] < median)
    if is_enough or (by == BY_ROBUST and not is_low):
        return WinnerChoice(place, by)
    return WinnerChoice(int(np.argmax(scores[:, 0])) if is_single else 0, BY_SCORE)


def find_median(trials: Batch) -> float:
    scores = trials.scores[is_feasible(trials), 0]
    return float(np.median(scores)) if len(scores) else math.nan


def explain_choice(
    choice: WinnerChoice, candidates: CandidateScores, scores: FloatArray, median: float, name: str
) -> Iterator[str]:
    n = len(candidates.kept)
    counted = "a single candidate was" if n == 1 else f"{n} candidates were"
    if choice.by == BY_SCORE:
        yield (
            f"too few candidates to rank by neighbors: only {counted} scored, and none of them is "
            "both robust and above the median of the sets tried; the best is the plain optimum, "
            f"the highest {name}. More trials score more candidates"
        )
    elif choice.by == BY_KEPT:
        yield (
            f"none of the {n} candidates is robust: some neighbors of each break a constraint or "
            "are ruined; the best is the one with the largest share of neighbors that do not"
        )
    if scores.shape[1] == 1 and scores[choice.place, 0] < median:
        yield (
            f"the best is below the median of the sets tried: its own {name} is "
            f"{scores[choice.place, 0]:.4g}, the median {median:.4g}; it was chosen for its "
            "neighbors"
        )
