"""The best trial: ranked by its neighbors, on its holdout, beside benchmarks; its bias.

From top to bottom: the verdict, the outcome and the task of a search, how the outcome is built,
how the best trial is chosen, how it is judged, why none can be chosen, and warnings. What neighbors
score is in ``neighbors.py``, the benchmarks are in ``growth_test.py``, and chance in
``selection_luck.py``.

============  ===========================================================================
word          what it is
============  ===========================================================================
set           values of all parameters that a search varies
trial         a set that was evaluated in the search; the same set twice is two trials
score         the objective of a trial, larger for better ones; NaN if it is undefined
feasible      satisfies all constraints, and has a score
candidate     a leading trial, whose neighbors are evaluated too
neighbor      a set in the box around a candidate
robust score  a low quantile over the neighbors, in the whole time and in its parts
plateau       the median score of the neighbors
best trial    the chosen one
holdout       the bars at the end, which the search does not see
benchmark     the market, and constant leverage with the volatility of the best trial
luck          what the best of as many trials without skill would show
============  ===========================================================================
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest import core
from backtest.results import RUIN, find_far_bounds, name_measure
from backtest.results.measure_table import ABOUT
from backtest.search import equal_risk
from backtest.search import trials as t
from backtest.search.growth_test import (
    OWN,
    BenchmarkedPart,
    GrowthTest,
    measure_gain,
    run_beside,
)
from backtest.search.neighbors import CandidateScores, choose_candidates, score_candidates
from backtest.search.problem import SearchProblem
from backtest.search.selection_luck import LuckSample, SelectionLuck, measure_luck
from backtest.search.signal_shifts import SignalTest, judge_signals
from backtest.sweep import check_sets, count_sets, describe_decided, take_sets
from backtest.sweep.equity_curves import find_sample_times, lay_out_curves
from backtest.sweep.set_evaluator import Evaluator
from backtest.sweep.sets import SIGNAL, Sets, Space, find_active

BY_ROBUST = "robust_score"
BY_KEPT = "kept"
BY_SCORE = "score"
BY_KNEE = "knee"
BY_FIRST = "first objective"
"""By what the best trial is chosen."""
ENOUGH = 16
"""With at least so many candidates, a best trial below the median or without a robust score is
accepted."""
BUDGET_SHARE = 0.25
"""Share of the budget that may be spent on the neighbors of candidates."""
EDGE = 0.01
"""A parameter is on the edge if it is within this share of its range from an end."""
SPIKE = 0.2
"""A score is a spike if it exceeds the median of its neighbors by more than this share of itself,
or of the interquartile range of all scores, whichever is larger."""
FEW_FILLS = 10
"""Fewer fills than this in the holdout say little."""
UNSIGNALLED = "the unsignalled market at equal risk"
"""The benchmark of a search of a signal's parameters."""


class Verdict(NamedTuple):
    """What a search says about its best trial; NaN where it could not be measured."""

    trials: int
    other_trials: int
    effective_trials: float = math.nan
    sharpe: float = math.nan
    lucky_sharpe: float = math.nan
    deflated_sharpe: float = math.nan
    overfitting: float = math.nan
    score: float = math.nan
    robust_score: float = math.nan
    plateau: float = math.nan
    kept: float = math.nan
    plain_score: float = math.nan
    plain_plateau: float = math.nan
    holdout_score: float = math.nan
    looks: int | None = 0
    """Sets that were evaluated on the holdout so far; None if no store counts them."""
    other_policies: tuple[str, ...] = ()
    growth: GrowthTest = GrowthTest()
    signal: SignalTest | None = None
    """Of a search of a signal; None if none was searched."""
    is_unsignalled: bool = False
    """Whether it is compared with the market, as parameters of the signal were searched."""

    @property
    def is_evidence(self) -> bool:
        """Whether the best trial beats its benchmark at equal risk by more than noise.

        Of a signal by its shifts in time; where these were not tested, and of other searches, by
        the test of growth.
        """
        if self.signal is None or self.signal.untested:
            return self.growth.is_evidence
        return self.signal.is_evidence


class StudyOutcome(NamedTuple):
    """Conclusion of a search; ``best`` is a row of the table, -1 if none meets the constraints."""

    best: int
    candidates: list[int]
    robust: list[float]
    plateau: list[float]
    verdict: Verdict
    warnings: list[str]
    holdout: dict[str, float]
    chosen_by: str = ""
    lines: tuple[dict[str, dict[str, float]], ...] = ()
    """Measures of the best trial and its benchmark lines, in the search and on the holdout."""
    lacks: tuple[str, ...] = ()
    """Why there is no constant leverage among the lines of each; empty where there is."""

    def to_dict(self) -> dict[str, Any]:
        verdict = self.verdict._asdict()
        verdict["growth"] = self.verdict.growth._asdict()
        if self.verdict.signal is not None:
            verdict["signal"] = self.verdict.signal._asdict()
        return dict(core.to_plain({**self._asdict(), "verdict": verdict}))


class StudyTask(NamedTuple):
    """What is searched on the bars that are seen; the holdout of the whole begins at the split."""

    problem: SearchProblem
    seen: Evaluator
    whole: Evaluator
    split: int
    facts: Mapping[str, Any]
    """The manifest. Notes in the store are made of it."""
    store: Path | None = None
    is_judged: bool = True
    """Whether growth and signals are tested: not in a fold, whose walk is judged as a whole."""

    @property
    def has_holdout(self) -> bool:
        return bool(self.split < self.whole.market.n_bars)

    @property
    def searches_signal(self) -> bool:
        """Whether parameters of the signal's rule vary."""
        return any(name.startswith(SIGNAL) for name in self.problem.names)

    def read(self, values: Mapping[str, Any]) -> Sets:
        return check_sets(self.whole.varied, {name: [value] for name, value in values.items()})

    def note_look(self, values: Mapping[str, Any]) -> None:
        if self.store is not None:
            t.add_note(
                self.store,
                t.LOOKS,
                self.facts,
                values=dict(values),
            )

    def measure_holdout(self, sets: Sets) -> dict[str, float]:
        """Return the measures of one set on the holdout; raise PolicyError if it fails."""
        rows = self.whole.evaluate(sets, first=self.split).finish()
        if rows.errors[0]:
            raise core.PolicyError(f"the set failed on the holdout: {rows.errors[0]}")
        return {name: float(column[0]) for name, column in rows.metrics.items()}


class Conclusion(NamedTuple):
    """The outcome of a search, and curves of equity: see :attr:`Study.curves`."""

    outcome: StudyOutcome
    curves: pd.DataFrame | None = None


def build_outcome(task: StudyTask, examiner: t.Examiner) -> Conclusion:
    """Choose the best trial, and say what it is worth: on the holdout, and against luck.

    Evaluates the neighbors of the best trials, which ``examiner`` adds to its batches.
    """
    goal = task.problem.goal
    trials = t.gather(examiner.batches)
    elsewhere = count_elsewhere(task)

    # No trial satisfies the constraints with all scores.
    grades = t.grade_feasible(goal, trials)
    if np.isnan(grades).any(axis=1).all():
        return Conclusion(build_failure(task, trials, elsewhere))

    # The choice evaluates neighbors, which count as trials from here on.
    choice = choose_best(task, examiner, trials)
    trials = t.gather(examiner.batches)
    best = choice.best
    values = take_sets(trials.sets, best)
    task.seen.check_set(values)

    # Only now the holdout is looked at.
    holdout, failures = evaluate_holdout(task, values)

    # What of its growth may be luck, among all trials.
    parts = list_benchmarked(task, values, has_holdout=bool(holdout))
    sample = measure_luck(
        task.problem,
        task.seen,
        trials,
        best,
        elsewhere.sets,
        parts,
        is_judged=task.is_judged,
    )
    luck = sample.luck
    signal = find_signal_test(task, trials, best, parts, luck.growth)
    verdict = write_verdict(
        task,
        trials,
        choice,
        elsewhere,
        luck=luck,
        signal=signal,
    )
    if holdout:
        columns = {name: np.array([value]) for name, value in holdout.items()}
        score = float(goal.objective.score(columns)[0])
        verdict = verdict._replace(holdout_score=score)

    outcome = StudyOutcome(
        best,
        candidates=choice.rows.tolist(),
        robust=choice.candidates.robust.tolist(),
        plateau=choice.candidates.plateau.tolist(),
        verdict=verdict,
        warnings=[
            *choice.explanation,
            *list_warnings(task, trials, best, verdict, parts),
            *find_far_bounds(goal.constraints, trials.metrics),
            *failures,
            *task.seen.doubts,
        ],
        holdout=holdout,
        chosen_by=choice.by,
        lines=tuple(part.lines for part in parts),
        lacks=tuple(part.lack for part in parts),
    )
    return Conclusion(outcome, trace_trials(task, parts, sample))


def trace_trials(
    task: StudyTask,
    parts: Sequence[BenchmarkedPart],
    sample: LuckSample,
) -> pd.DataFrame | None:
    """Return curves of equity at some times (rows), a column each for trials and for benchmarks.

    In the search they are of the trials in the sample, of the best one and of constant leverage; on
    the holdout of the last two. None of accounts of several markets, which have no common equity,
    and of a fold.
    """
    if not parts or task.whole.is_pooled or not task.is_judged:
        return None

    split = task.split
    returns = {str(row): sample.returns[:, k] for k, row in enumerate(sample.rows)}
    returns |= name_lines(parts[0])
    in_search = lay_out_span(task, returns, task.seen.first, split)
    if len(parts) == 1:
        return in_search

    # Only the best trial is looked at on the holdout.
    on_holdout = lay_out_span(task, name_lines(parts[1]), split, task.whole.markets.n_bars)
    if in_search is None or on_holdout is None:
        return on_holdout if in_search is None else in_search
    return pd.concat([in_search, continue_curves(in_search, on_holdout)])


def name_lines(part: BenchmarkedPart) -> dict[str, core.FloatArray]:
    """Return the returns of the best trial and, if there is one, of constant leverage, by name."""
    best, *constant = part.returns
    lines = {OWN: best}
    if constant:
        lines[equal_risk.CONSTANT] = constant[0]
    return lines


def lay_out_span(
    task: StudyTask,
    returns: Mapping[str, core.FloatArray],
    first: int,
    stop: int,
) -> pd.DataFrame | None:
    """Return the curves of some bars, which begin at 1; None if no returns are of these bars."""
    times = find_sample_times(task.whole.markets, task.problem.test.sampling, first, stop)
    return lay_out_curves(times, returns)


def continue_curves(curves: pd.DataFrame, fresh: pd.DataFrame) -> pd.DataFrame:
    """Return curves of accounts with fresh capital, from where those of the same names ended."""
    ends = curves.iloc[-1].reindex(fresh.columns)
    return fresh.iloc[1:] * ends


class Elsewhere(NamedTuple):
    """Sets that other studies of the store tried on some of the same bars, and their policies."""

    sets: int
    policies: tuple[str, ...]


def count_elsewhere(task: StudyTask) -> Elsewhere:
    """Return what other studies tried; of each, and each policy, its last note counts."""
    sets: dict[tuple[str, str], int] = {}
    for note in t.read_notes(task.store, t.TRIED, task.facts):
        if note["study"] != task.facts["id"]:
            sets[note["study"], note["policy"]] = int(note["sets"])
    policies = {policy for _, policy in sets}
    return Elsewhere(sum(sets.values()), tuple(sorted(policies)))


def build_failure(task: StudyTask, trials: t.Batch, elsewhere: Elsewhere) -> StudyOutcome:
    """Return the outcome of a search in which no set can be chosen."""
    goal = task.problem.goal
    n_sets = len(t.find_distinct(trials.sets))
    return StudyOutcome(
        best=-1,
        candidates=[],
        robust=[],
        plateau=[],
        verdict=Verdict(n_sets, elsewhere.sets, other_policies=elsewhere.policies),
        warnings=[
            describe_lack(task, trials, n_sets, goal),
            *warn_of_failures(trials),
            *find_far_bounds(goal.constraints, trials.metrics),
        ],
        holdout={},
    )


def write_verdict(
    task: StudyTask,
    trials: t.Batch,
    choice: Choice,
    elsewhere: Elsewhere,
    *,
    luck: SelectionLuck,
    signal: SignalTest | None,
) -> Verdict:
    """Return what the search says about its best trial, but for its score on the holdout."""
    place = choice.place
    return Verdict(
        trials=len(t.find_distinct(trials.sets)),
        other_trials=elsewhere.sets,
        other_policies=elsewhere.policies,
        sharpe=luck.sharpe,
        growth=luck.growth,
        overfitting=luck.overfitting,
        effective_trials=luck.effective_trials,
        lucky_sharpe=luck.lucky_sharpe,
        deflated_sharpe=luck.deflated_sharpe,
        score=float(trials.scores[choice.best]),
        robust_score=float(choice.candidates.robust[place]),
        plateau=float(choice.candidates.plateau[place]),
        kept=float(choice.candidates.kept[place]),
        plain_score=float(trials.scores[choice.rows[0]]),
        plain_plateau=float(choice.candidates.plateau[0]),
        looks=count_looks(task),
        signal=signal,
        is_unsignalled=task.searches_signal,
    )


class Choice(NamedTuple):
    """The candidates of a search, and the best of them.

    ``rows`` (k,) are those of the candidates, by score; ``place`` is that of the best among them,
    ``by`` what it was chosen by, and ``explanation`` what is unusual about that.
    """

    rows: core.IntArray
    candidates: CandidateScores
    place: int = 0
    by: str = BY_SCORE
    explanation: tuple[str, ...] = ()

    @property
    def best(self) -> int:
        return int(self.rows[self.place])


def choose_best(task: StudyTask, examiner: t.Examiner, trials: t.Batch) -> Choice:
    """Evaluate the neighbors of the leading sets, and choose the set whose neighbors do best.

    ``trials`` are the sets evaluated so far. The neighbors become trials too: ``examiner`` appends
    them to its batches. Of several objectives there is one candidate, the knee of the frontier.
    """
    problem = task.problem
    goal = problem.goal
    rule = problem.robustness.fit(count_affordable(problem, examiner))
    if goal.others:
        rows = np.array([t.find_knee_row(goal, trials).row])
    else:
        rows = choose_candidates(problem.space, trials.sets, t.worst_where_broken(trials), rule)

    scores = trials.scores[rows]
    candidates = score_candidates(
        examiner,
        problem.space,
        take_sets(trials.sets, rows),
        scores,
        rule,
        np.random.default_rng([problem.seed, 1]),
    )
    by_score = Choice(rows, candidates)

    # All trials, the neighbors after the others: the rows of the candidates stay the same.
    with_neighbors = t.gather(examiner.batches)
    if goal.others:
        return choose_knee(goal, with_neighbors, by_score)
    if not problem.is_robust:
        return by_score

    feasible = t.is_feasible(with_neighbors)
    median = float(np.median(with_neighbors.scores[feasible]))
    is_enough = rule.candidates >= min(ENOUGH, problem.robustness.candidates)
    place, by = choose_winner(
        candidates,
        scores,
        median,
        is_enough=is_enough,
    )
    explanation = explain_choice(
        by,
        len(rows),
        float(scores[place]),
        median,
        name_measure(goal.objective.name),
    )
    return by_score._replace(place=place, by=by, explanation=tuple(explanation))


def count_affordable(problem: SearchProblem, examiner: t.Examiner) -> float:
    """Return for how many neighbors, in sets, the budget of trials or of seconds is left."""
    n_evaluated = sum(count_sets(batch.sets) for batch in examiner.batches)
    affordable = math.inf
    if problem.trials is not None:
        affordable = min(BUDGET_SHARE * problem.trials, problem.trials - n_evaluated)

    # A budget of seconds, at the rate so far.
    if problem.seconds is not None and problem.is_robust:
        rate = n_evaluated / max(examiner.seconds, 1e-9)
        affordable = min(affordable, 0.5 * BUDGET_SHARE * problem.seconds * rate)
    return affordable


def choose_knee(goal: t.Goal, trials: t.Batch, choice: Choice) -> Choice:
    """Return the choice of several objectives, once the neighbors of the knee are known too."""
    knee = t.find_knee_row(goal, trials)
    by = BY_KNEE if knee.is_knee else BY_FIRST
    if knee.row == choice.rows[0]:
        return choice._replace(by=by)

    # A neighbor beats it or lies farther out; the neighbors of that one are not known.
    unknown = np.full(1, np.nan)
    candidates = CandidateScores(robust=unknown, plateau=unknown, kept=unknown)
    return Choice(np.array([knee.row]), candidates, by=by)


def count_looks(task: StudyTask) -> int | None:
    """Return how many sets the store counts on the holdout; None if there is no store."""
    if not task.has_holdout:
        return 0
    if task.store is None:
        return None
    return len(t.read_notes(task.store, t.LOOKS, task.facts))


def list_benchmarked(
    task: StudyTask,
    values: Mapping[str, Any],
    *,
    has_holdout: bool,
) -> list[BenchmarkedPart]:
    """Return the best trial beside its benchmarks in the search, and on the holdout.

    Each span has a constant leverage of its own.
    """
    spans = [(task.seen.first, task.seen.market.n_bars)]
    if has_holdout:
        spans.append((task.split, task.whole.market.n_bars))

    parts = []
    for first, stop in spans:
        part = run_beside(
            task.whole,
            values,
            task.problem.pool,
            first,
            stop,
            is_unsignalled=task.searches_signal,
        )
        parts.append(part)
    return parts


def find_signal_test(
    task: StudyTask,
    trials: t.Batch,
    best: int,
    parts: Sequence[BenchmarkedPart],
    growth: GrowthTest,
) -> SignalTest | None:
    """Return whether the best of the signals that were searched times the market, if any were.

    They are the rule of the signal, or what a policy observes that is in the market and out of it.
    """
    is_of_signal = task.searches_signal
    takes_sides = bool(parts) and parts[0].takes_sides
    if not task.is_judged or not (is_of_signal or takes_sides):
        return None

    evaluator = task.problem.build_evaluator(task.seen.market)
    test = judge_signals(
        evaluator,
        task.problem.goal,
        trials,
        best,
        is_of_signal=is_of_signal,
    )
    if growth.untested:
        benchmark = "buy and hold, and cash"
        gain = measure_gain(parts)
        holdout_gain = measure_gain(parts[1:]) if parts[1:] else math.nan
    else:
        benchmark = UNSIGNALLED if is_of_signal else equal_risk.CONSTANT
        gain = growth.difference
        holdout_gain = growth.holdout_difference

    # Of the rule of a signal the gain in all is enough: a gain on the holdout too, which is a
    # quarter of the bars, would find a planted Sharpe ratio of 3 in 7 of 10, not in 9.
    if is_of_signal:
        holdout_gain = math.nan
    return test._replace(gain=gain, holdout_gain=holdout_gain, benchmark=benchmark)


def describe_lack(
    task: StudyTask,
    trials: t.Batch,
    n: int,
    goal: t.Goal,
) -> str:
    """Say why no set can be chosen: what the sets break, or why the objective is undefined."""
    name = goal.objective.name
    stated = [constraint for constraint in goal.constraints if constraint != RUIN]
    has_run = np.array([error == "" for error in trials.errors])
    is_ruined = has_run & (trials.metrics["ruined"] > 0.0)
    is_unfilled = has_run & (trials.metrics["turnover"] == 0.0)
    is_scoreless = trials.violation == 0.0  # or they would have been feasible
    n_scoreless = count_true(is_scoreless)
    n_unfilled = count_true(is_unfilled)

    # How many sets each cause has; a set may have several.
    undefined = f"have no finite {name}"
    if stated:
        undefined = f"satisfy them and {undefined}"
    counts = {undefined: n_scoreless}
    for constraint in stated:
        is_broken = constraint.violation(trials.metrics) > 0.0
        counts[f"break {constraint}"] = count_true(is_broken & has_run)
    counts["were ruined"] = count_true(is_ruined)
    counts["filled no order"] = n_unfilled
    counts["failed"] = count_true(~has_run)
    causes = ", ".join(f"{count:,} {cause}" for cause, count in counts.items() if count)

    if stated:
        lack = "no set satisfies all constraints and has a score"
    elif n_scoreless + n_unfilled == len(has_run):
        lack = f"{name} is undefined in all sets"
    else:
        lack = f"no set that lasts has a {name}"

    reasons = [f"{lack}: of {n:,} sets {causes}"]
    measure = name.removeprefix("-")
    if n_scoreless and measure in ABOUT:
        reasons.append(f"{measure} is {ABOUT[measure].meaning}")
    if n_unfilled:
        why = explain_unfilled(task, trials, int(np.argmax(is_unfilled)))
        if why:
            reasons.append(f"no order was filled: {why}")
    return "; ".join(reasons)


def count_true(flags: core.BoolArray) -> int:
    return int(np.count_nonzero(flags))


def explain_unfilled(task: StudyTask, trials: t.Batch, row: int) -> str:
    """Return why a set filled no order, of one account; it is run again."""
    if task.seen.is_pooled:
        return ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return task.seen.replay(take_sets(trials.sets, row)).no_fill


def evaluate_holdout(
    task: StudyTask,
    values: Mapping[str, Any],
) -> tuple[dict[str, float], list[str]]:
    """Return the measures on the holdout, and warnings of broken constraints."""
    if not task.has_holdout:
        return {}, []

    task.note_look(values)
    try:
        metrics = task.measure_holdout(task.read(values))
    except core.BacktestError as error:
        return {}, [f"the best set cannot be run on the holdout: {error}"]

    broken = task.problem.goal.list_broken(metrics)
    return metrics, [f"on the holdout the best set breaks {rule}" for rule in broken]


def choose_winner(
    candidates: CandidateScores,
    scores: core.FloatArray,
    median: float,
    *,
    is_enough: bool,
) -> tuple[int, str]:
    """Return the place of the best among k candidates, and by what it was chosen.

    Of enough candidates it has the highest robust score, or where none has one the largest share
    of neighbors that hold. Of too few it has the highest robust score if that trial is not below
    the ``median``, or else the highest of ``scores`` (k,).
    """
    is_any_robust = bool(np.isfinite(candidates.robust).any())
    if is_any_robust:
        place = int(np.argmax(candidates.robust))
        if is_enough or scores[place] >= median:
            return place, BY_ROBUST

    if is_enough and not is_any_robust:
        return int(np.argmax(candidates.kept)), BY_KEPT
    return int(np.argmax(scores)), BY_SCORE


def explain_choice(
    by: str,
    n: int,
    score: float,
    median: float,
    name: str,
) -> Iterator[str]:
    """Yield what is unusual about a choice among n candidates."""
    if by == BY_SCORE:
        yield (
            f"too few candidates to rank by neighbors: only {n} scored, none of them both robust "
            "and above the median of the sets tried; the chosen set is that with the highest "
            f"{name}. More trials score more candidates"
        )
    elif by == BY_KEPT:
        yield (
            f"none of the {n} candidates is robust: some neighbors of each break a constraint or "
            "are ruined; the best is the one with the largest share of neighbors that do not"
        )
    if score < median:
        yield (
            f"the best is below the median of the sets tried: its own {name} is {score:.4g}, the "
            f"median {median:.4g}; it was chosen for its neighbors"
        )


def list_warnings(
    task: StudyTask,
    trials: t.Batch,
    best: int,
    verdict: Verdict,
    parts: Sequence[BenchmarkedPart],
) -> Iterator[str]:
    """Yield what to know about the best trial before it is used."""
    yield from warn_of_edges(task.problem.space, take_sets(trials.sets, best))

    scores = trials.scores[t.is_feasible(trials)]
    if is_spike(verdict.score, verdict.plateau, scores):
        name = name_measure(task.problem.goal.objective.name)
        neighbors = f"the median of its neighbors {verdict.plateau:.4g}"
        if math.isinf(verdict.plateau):
            neighbors = "and half of its neighbors or more are ruined or break a constraint"
        yield f"the best sits on a spike: its own {name} is {verdict.score:.4g}, {neighbors}"
    yield from warn_of_failures(trials)

    decided = trials.metrics[t.DECIDED][t.find_distinct(trials.sets)]
    undecided = describe_decided(decided)
    if undecided:
        yield undecided
    yield from warn_of_few_fills(task, parts)


def warn_of_few_fills(task: StudyTask, parts: Sequence[BenchmarkedPart]) -> Iterator[str]:
    """Yield a warning where the best trial traded little on what the search did not see."""
    if len(parts) > 1 and parts[1].fills < FEW_FILLS:
        # A fold of a walk has a test span, and is not judged alone.
        where = "the holdout" if task.is_judged else "its test span"
        yield (
            f"the best trial has {core.count_nouns(parts[1].fills, 'fill')} in {where}, fewer "
            f"than {FEW_FILLS}: what it earns there is mostly chance"
        )


def warn_of_failures(trials: t.Batch) -> Iterator[str]:
    errors = [error for error in trials.errors if error]
    if errors:
        yield f"{len(errors):,} of {len(trials.errors):,} sets failed, the first with: {errors[0]}"


def is_spike(score: float, plateau: float, scores: core.FloatArray) -> bool:
    """Return whether a score is far above those of its neighbors; see :data:`SPIKE`."""
    if len(scores) == 0 or math.isnan(score) or math.isnan(plateau):
        return False
    low, high = np.quantile(scores, [0.25, 0.75], method="nearest")
    return bool(score - plateau > SPIKE * max(abs(score), high - low))


def warn_of_edges(space: Space, values: Mapping[str, Any]) -> Iterator[str]:
    """Yield a warning for each parameter that lies on an edge of its range: more may lie beyond."""
    sets = {name: np.array([value], dtype=object) for name, value in values.items()}
    for dimension in space.dimensions:
        if dimension.options or not find_active(space.by_name, sets, dimension.name)[0]:
            continue

        value = values[dimension.name]
        for side in find_edges(dimension, value):
            yield (
                f"{dimension.name} = {value:.4g} lies on the {side} edge of its range, "
                f"{dimension.low:g} to {dimension.high:g}: widen it, better values may lie "
                "beyond"
            )


def find_edges(dimension: Any, value: Any) -> Iterator[str]:
    """Yield the edges of a range on which a value lies, "lower" or "upper".

    Whole numbers lie on an edge, others within a share of the range of it. An edge of 0 does not
    count, for most parameters cannot be widened below it.
    """
    place = float(dimension.encode(np.array([value]))[0])
    sides = (("lower", dimension.low, place), ("upper", dimension.high, 1 - place))
    for side, bound, distance in sides:
        is_natural_bound = bound == 0.0 and not dimension.log
        if is_natural_bound:
            continue

        is_on_edge = distance <= EDGE
        if dimension.kind == "int":
            is_on_edge = value == bound
        if is_on_edge:
            yield side
