"""The best trial: ranked by its neighbors, on its holdout, beside benchmarks; its bias."""

from __future__ import annotations

import contextlib
import itertools
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest import core, results
from backtest.engine import count_periods
from backtest.results import RUIN, deflated_sharpe, find_far_bounds, name_measure
from backtest.results.measure_table import ABOUT
from backtest.results.result import Lack
from backtest.search import equal_risk
from backtest.search import trials as t
from backtest.search.compare import ALIKE
from backtest.search.problem import Robustness, SearchProblem
from backtest.search.signal_shifts import SIGNIFICANT, SignalTest, judge_signals
from backtest.sweep import check_sets, count_sets, describe_decided, draw_cube, take_sets
from backtest.sweep.set_evaluator import Evaluator, pool_measure
from backtest.sweep.sets import SIGNAL, Dimension, Sets, Space, find_active

BY_ROBUST, BY_KEPT, BY_SCORE, BY_KNEE = "robust_score", "kept", "score", "knee"
BY_FIRST = "first objective"
"""By what the best trial is chosen."""
ENOUGH = 16
"""With at least so many candidates, a best trial below the median or without a robust score is
accepted."""
BUDGET_SHARE = 0.25
"""Share of the budget that may be spent on the neighbors of candidates."""
WHOLE_STEPS = 1.5
"""Reach of neighbors in steps of a whole number: the value and the two next to it are equally
likely."""
SAMPLE = 128
"""Sets in the sample whose returns are compared."""
SPLITS = 10
"""Blocks of time for the probability of overfitting, which gives 252 splits into halves."""
EDGE = 0.01
"""A parameter is on the edge if it is within this share of its range from an end."""
SPIKE = 0.2
"""A score is a spike if it exceeds the median of its neighbors by more than this share of itself,
or of the interquartile range of all scores, whichever is larger."""


class CandidateScores(NamedTuple):
    """Robust scores, medians of the neighbors over the whole time, and shares of those that hold.

    A neighbor holds if it breaks no constraint and is not ruined. Arrays of shape (k,).
    """

    robust: core.FloatArray
    plateau: core.FloatArray
    kept: core.FloatArray


def half_widths(space: Space, sets: Sets, width: float) -> core.FloatArray:
    """Return the extents of the boxes around k sets, down and up, of shape (2, k, d)."""
    pairs = [find_extent(each, sets[each.name], width) for each in space.dimensions]
    return np.stack([np.stack(pair) for pair in pairs], axis=2)


def find_extent(
    dimension: Dimension, values: np.ndarray, width: float
) -> tuple[core.FloatArray, core.FloatArray]:
    """Return the extent of boxes in one dimension, down and up, of shape (k,) each."""
    if dimension.options:
        return np.zeros(len(values)), np.zeros(len(values))
    if dimension.kind != "int":
        return np.full(len(values), width), np.full(len(values), width)
    here = dimension.encode(values)
    below = here - dimension.encode(np.maximum(values - 1, dimension.low))
    above = dimension.encode(np.minimum(values + 1, dimension.high)) - here
    return np.maximum(width, WHOLE_STEPS * below), np.maximum(width, WHOLE_STEPS * above)


def draw_neighbors(
    space: Space, sets: Sets, robustness: Robustness, rng: np.random.Generator
) -> Sets:
    centers = space.encode(sets)
    down, up = half_widths(space, sets, robustness.width)
    drawn = draw_cube(centers.shape[1], robustness.neighbours, rng)
    offsets = (2.0 * drawn - 1.0)[None, :, :]
    steps = np.where(offsets < 0.0, down[:, None, :], up[:, None, :])
    points = np.abs(centers[:, None, :] + offsets * steps)
    points = np.clip(np.where(points > 1.0, 2.0 - points, points), 0.0, 1.0)
    return space.decode(points.reshape(-1, centers.shape[1]))


def choose_candidates(
    space: Space, sets: Sets, scores: core.FloatArray, robustness: Robustness
) -> core.IntArray:
    places = np.argsort(-scores, kind="stable")
    places = places[np.isfinite(scores[places])]
    cube = space.encode(take_sets(sets, places))

    def is_apart(one: int, reach: float) -> core.BoolArray:
        center = take_sets(sets, places[one : one + 1])
        down, up = half_widths(space, center, reach * robustness.width)
        distance = cube - cube[one]
        return np.asarray(~((distance >= -down) & (distance <= up)).all(axis=1))

    chosen: list[int] = []
    for reach, most in ((2.0, -(-robustness.candidates // 2)), (1.0, robustness.candidates)):
        is_left = np.ones(len(places), dtype=np.bool_)
        for one in chosen:
            is_left &= is_apart(one, reach)
        while len(chosen) < most and is_left.any():
            chosen.append(int(np.argmax(is_left)))
            is_left &= is_apart(chosen[-1], reach)
    return places[chosen]


def score_candidates(
    examiner: t.Examiner,
    space: Space,
    sets: Sets,
    own: core.FloatArray,
    robustness: Robustness,
    rng: np.random.Generator,
) -> CandidateScores:
    k = len(own)
    around = draw_neighbors(space, sets, robustness, rng)
    found = examiner.evaluate(around, "neighbour")
    is_bad = (found.violation > 0.0) | np.isnan(found.scores)
    scores = np.where(is_bad, -np.inf, found.scores).reshape(k, -1)
    samples = [np.column_stack([own, scores])]
    everything = t.join_columns([sets, around])
    begin: int = examiner.evaluator.first
    n_bars = examiner.evaluator.market.n_bars - begin
    n = min(robustness.parts, n_bars // 2)
    edges = [begin + n_bars * part // n for part in range(n + 1)] if n > 1 else []
    for first, stop in itertools.pairwise(edges):
        part = examiner.evaluate(everything, t.PART, first=first, stop=stop)
        values = np.where(part.metrics["ruined"] == 0.0, part.scores, -np.inf)
        samples.append(np.column_stack([values[:k], values[k:].reshape(k, -1)]))
    tables = (pd.DataFrame(values) for values in samples)
    lows = [each.quantile(robustness.quantile, axis=1, interpolation="lower") for each in tables]
    parts = pd.DataFrame(lows[1:], columns=range(k), dtype=float).mean()  # without NaN
    robust = 0.5 * (lows[0] + parts.fillna(lows[0]))
    kept = np.mean(~np.isneginf(samples), axis=(0, 2))
    return CandidateScores(robust.to_numpy(), np.median(scores, axis=1), kept)


OWN = "best trial"
UNSIGNALLED = "the unsignalled market at equal risk"
"""The benchmark of a search of a signal's parameters."""
LEAST_RETURNS, FEW_FILLS = 30, 10
"""The least returns for a test; fewer fills than this in the holdout say little."""
FIRST_DRAWS, MOST_DRAWS, DRAWS_PER_TRIAL = 999, 50_000, 100
"""Resampled histories at first; and where evidence is left possible, so many for each trial."""


class BenchmarkedPart(NamedTuple):
    """The best trial and its benchmark lines on some of the bars, over ``years``.

    ``returns`` (2, n) are those of the trial and of a constant leverage at equal risk by sampling
    period, of separate accounts their mean. ``untested`` says why they cannot be compared, if so,
    ``lack`` why there is no constant leverage. ``takes_sides`` says whether the policy itself was
    in and out of the market by the columns that it observes.
    """

    lines: dict[str, dict[str, float]]
    returns: core.FloatArray
    years: float
    fills: int
    untested: str
    lack: str = ""
    takes_sides: bool = False


class GrowthTest(NamedTuple):
    """Log growth of the best trial less that of constant leverage at equal risk, per year.

    Over all bars, and on the holdout alone; ``p_adjusted`` allows for the independent trials.
    """

    difference: float = math.nan
    holdout_difference: float = math.nan
    p_value: float = math.nan
    p_adjusted: float = math.nan
    trials: float = math.nan
    holdout_fills: int = 0
    untested: str = f"under {LEAST_RETURNS} returns"

    @property
    def is_evidence(self) -> bool:
        """Return whether the trial grew more, by more than noise, and did so on the holdout too."""
        is_more = self.difference > 0.0 and not self.holdout_difference <= 0.0
        return is_more and self.p_adjusted <= SIGNIFICANT


def takes_sides(run: results.Result) -> bool:
    """Return whether a policy that observes columns decided to be in the market, and out of it."""
    setup: Any = run.setup
    if not any(each.columns for each in setup.observed[: len(run.names)]):
        return False
    decided = run.of_positions("target")
    return bool((decided == 0.0).any() and (decided > 0.0).any())


def run_beside(
    evaluator: Evaluator,
    values: Mapping[str, Any],
    pool: Any,
    first: int,
    stop: int,
    *,
    is_unsignalled: bool,
) -> BenchmarkedPart:
    """Run the best trial, and on the same bars buy and hold and constant leverage at equal risk.

    ``is_unsignalled`` says that constant leverage holds the market, whatever the signal is.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they were given before the search
        found: Any = evaluator.replay(values, first=first, stop=stop)
    runs = [*found.values()] if isinstance(found, Mapping) else [found]
    held = [equal_risk.hold_at_equal_risk(run, is_unsignalled=is_unsignalled) for run in runs]
    constants = [each for each in held if isinstance(each, equal_risk.ScaledAccount)]
    rows = {OWN: [each.metrics for each in runs]}
    rows[equal_risk.BUY_AND_HOLD] = [*map(equal_risk.measure_market, runs)]
    series = [[each.returns for each in runs]]
    untested = lack = find_lack(held)
    if not lack:
        rows[equal_risk.CONSTANT] = [each.result.metrics for each in constants]
        series.append([each.rest * each.result.returns for each in constants])
    returns = np.array([pd.concat(each, axis=1, join="inner").mean(axis=1) for each in series])
    if not lack and np.std(returns[0] - returns[1]) <= ALIKE * np.std(returns[0]):
        untested = "it is constant leverage"
    lines = {name: dict(each[0]) for name, each in rows.items()}
    if len(runs) > 1:
        for name, line in lines.items():
            for measure in line:
                column = np.array([[each[measure]] for each in rows[name]])
                line[measure] = float(pool_measure(measure, column, pool)[0])
    span = runs[0].span.years / len(runs[0].returns)
    fills = sum(int((each.events["kind"] == "fill").sum()) for each in runs)
    has_sides = any(map(takes_sides, runs))
    return BenchmarkedPart(
        lines, returns, returns.shape[1] * span, fills, untested, lack, takes_sides=has_sides
    )


def find_lack(held: Sequence[equal_risk.ScaledAccount | Lack]) -> str:
    """Return why some accounts have no constant leverage at equal risk; empty if all have one."""
    for each in held:
        if isinstance(each, Lack):
            return each.why
        if why := equal_risk.explain_distance(each):
            return why
    return ""


def count_trials(
    returns: core.FloatArray, parts: Sequence[BenchmarkedPart], n_trials: int
) -> float:
    """Return how many independent trials some are worth in their differences from a constant one.

    ``returns`` (n, k) are those of trials in the search.
    """
    if returns.shape[1] > 1 and parts and np.isfinite(returns).all():
        compared = subtract_constant(returns, parts)
        if compared is not None:
            return results.simulate_luck(compared, n_trials=n_trials).n
    return float(n_trials)


def check_growth(parts: Sequence[BenchmarkedPart], trials: float, seed: int) -> GrowthTest:
    """Test whether the best of some independent trials grows more than constant leverage.

    ``parts`` are the search, and the holdout if there is one. p is adjusted for the trials as by
    Sidak (1967), J. American Statistical Association 62(318).
    """
    found = GrowthTest(holdout_fills=parts[1].fills if len(parts) > 1 else 0)
    if untested := next((each.untested for each in parts if each.untested), ""):
        return found._replace(untested=untested)
    if sum(each.returns.shape[1] for each in parts) < LEAST_RETURNS:
        return found
    gaps = [float(np.sum(np.log1p(one) - np.log1p(other))) for one, other in
            (each.returns for each in parts)]  # fmt: skip
    years, returns = sum(each.years for each in parts), np.hstack([each.returns for each in parts])
    sampled = results.Sampled(returns, np.zeros(returns.shape[1]), per_year=1.0, periods=1.0)
    p, adjusted = math.nan, 0.0
    for draws in (FIRST_DRAWS, min(MOST_DRAWS, int(DRAWS_PER_TRIAL * trials) + 999)):
        if adjusted < 0.5:  # evidence is left possible
            rng, pair = np.random.default_rng([seed, 3]), np.array([[0, 1]])
            drawn = results.compare_pairs(
                sampled, pair, "log_growth", confidence=0.95, draws=draws, rng=rng
            )
            p = float(drawn.p_value[0])
            adjusted = -math.expm1(trials * math.log1p(-p)) if p < 1.0 else 1.0
    return found._replace(
        difference=sum(gaps) / years,
        holdout_difference=gaps[1] / parts[1].years if len(parts) > 1 else math.nan,
        p_value=p,
        p_adjusted=adjusted,
        trials=trials,
        untested="",
    )


class Verdict(NamedTuple):
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
        signal = self.verdict.signal
        verdict = {**self.verdict._asdict(), "growth": self.verdict.growth._asdict()}
        verdict["signal"] = None if signal is None else signal._asdict()
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
            t.add_note(self.store, t.LOOKS, self.facts, values=dict(values))

    def measure_holdout(self, sets: Sets) -> dict[str, float]:
        rows = self.whole.evaluate(sets, first=self.split).finish()
        if rows.errors[0]:
            raise core.PolicyError(f"the set failed on the holdout: {rows.errors[0]}")
        return {name: float(column[0]) for name, column in rows.metrics.items()}


def build_outcome(task: StudyTask, examiner: t.Examiner) -> StudyOutcome:
    trials = t.gather(examiner.batches)
    notes = t.read_notes(task.store, t.TRIED, task.facts)  # of sets tried on some of the same bars
    notes = [each for each in notes if each["study"] != task.facts["id"]]
    found = {(each["study"], each["policy"]): int(each["sets"]) for each in notes}
    n, goal = len(t.find_distinct(trials.sets)), task.problem.goal
    others, policies = sum(found.values()), tuple(sorted({policy for _, policy in found}))
    if np.isnan(t.grade_feasible(goal, trials)).any(axis=1).all():
        verdict = Verdict(n, others, other_policies=policies)
        told = [
            describe_lack(task, trials, n, goal),
            *warn_of_failures(trials),
            *find_far_bounds(goal.constraints, trials.metrics),
        ]
        return StudyOutcome(-1, [], [], [], verdict, told, {})
    problem, done = task.problem, sum(count_sets(batch.sets) for batch in examiner.batches)
    allowed = math.inf
    if problem.trials is not None:
        allowed = min(BUDGET_SHARE * problem.trials, problem.trials - done)
    if problem.seconds is not None and problem.is_robust:
        rate = done / max(examiner.seconds, 1e-9)
        allowed = min(allowed, 0.5 * BUDGET_SHARE * problem.seconds * rate)
    rule = problem.robustness.fit(allowed)
    rows = choose_candidates(task.problem.space, trials.sets, t.worst_where_broken(trials), rule)
    if goal.others:
        rows = np.array([t.find_knee_row(goal, trials).row])
    sets, scores = take_sets(trials.sets, rows), trials.scores[rows]
    rng = np.random.default_rng([task.problem.seed, 1])
    candidates = score_candidates(examiner, task.problem.space, sets, scores, rule, rng)
    by = BY_SCORE
    trials = t.gather(examiner.batches)
    if goal.others:
        knee = t.find_knee_row(goal, trials)
        by = BY_KNEE if knee.is_knee else BY_FIRST
        if knee.row != rows[0]:  # a neighbor beats it or lies farther out; its own are not known
            rows, scores = np.array([knee.row]), trials.scores[[knee.row]]
            candidates = CandidateScores(*np.full((3, 1), np.nan))
    place, told = 0, list[str]()
    if task.problem.is_robust:
        median = float(np.median(trials.scores[t.is_feasible(trials)]))
        is_enough = rule.candidates >= min(ENOUGH, task.problem.robustness.candidates)
        place, by = choose_winner(candidates, scores, median, is_enough=is_enough)
        told = [
            *explain_choice(by, len(rows), scores[place], median, name_measure(goal.objective.name))
        ]
    best = int(rows[place])
    values = take_sets(trials.sets, best)
    task.seen.check_set(values)
    holdout, failures = evaluate_holdout(task, values)
    seen = {name: np.array([value]) for name, value in holdout.items()}
    parts = list_benchmarked(task, values, 1 + bool(holdout))
    luck = measure_luck(task, trials, best, others, parts)
    verdict = Verdict(
        trials=len(t.find_distinct(trials.sets)),
        other_trials=others,
        other_policies=policies,
        **luck,
        score=float(trials.scores[best]),
        robust_score=float(candidates.robust[place]),
        plateau=float(candidates.plateau[place]),
        kept=float(candidates.kept[place]),
        plain_score=float(scores[0]),
        plain_plateau=float(candidates.plateau[0]),
        holdout_score=float(goal.objective.score(seen)[0]) if seen else math.nan,
        looks=count_looks(task),
        signal=find_signal_test(task, trials, best, parts, luck["growth"]),
        is_unsignalled=task.searches_signal,
    )
    told += [*list_warnings(task, trials, best, verdict, parts)]
    told += [*find_far_bounds(goal.constraints, trials.metrics)]
    told += [*failures, *task.seen.doubts]
    return StudyOutcome(
        best,
        candidates=rows.tolist(),
        robust=candidates.robust.tolist(),
        plateau=candidates.plateau.tolist(),
        verdict=verdict,
        warnings=told,
        holdout=holdout,
        chosen_by=by,
        lines=tuple(part.lines for part in parts),
        lacks=tuple(part.lack for part in parts),
    )


def count_looks(task: StudyTask) -> int | None:
    """Return how many sets the store counts on the holdout; None if there is no store."""
    if not task.has_holdout:
        return 0
    if task.store is None:
        return None
    return len(t.read_notes(task.store, t.LOOKS, task.facts))


def list_benchmarked(
    task: StudyTask, values: Mapping[str, Any], count: int
) -> list[BenchmarkedPart]:
    """Return the best trial beside its benchmarks in the search, and on the holdout.

    Each span has a constant leverage of its own; ``count`` is 1 if there is no holdout.
    """
    searched = task.seen.first, task.seen.market.n_bars
    held_out = task.split, task.whole.market.n_bars
    spans = [searched, held_out]
    return [
        run_beside(
            task.whole, values, task.problem.pool, *span, is_unsignalled=task.searches_signal
        )
        for span in spans[:count]
    ]


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
    is_asked = is_of_signal or any(part.takes_sides for part in parts[:1])
    if not (task.is_judged and is_asked):
        return None
    evaluator = task.problem.build_evaluator(task.seen.market)
    found = judge_signals(evaluator, task.problem.goal, trials, best, is_of_signal=is_of_signal)
    if growth.untested:
        gains = measure_gain(parts), measure_gain(parts[1:]) if parts[1:] else math.nan
        benchmark = "buy and hold, and cash"
    else:
        gains = growth.difference, growth.holdout_difference
        benchmark = UNSIGNALLED if is_of_signal else equal_risk.CONSTANT

    # Of the rule of a signal the gain in all is enough: a gain on the holdout too, which is a
    # quarter of the bars, would find a planted Sharpe ratio of 3 in 7 of 10, not in 9.
    holdout_gain = math.nan if is_of_signal else gains[1]
    return found._replace(gain=gains[0], holdout_gain=holdout_gain, benchmark=benchmark)


def measure_gain(parts: Sequence[BenchmarkedPart]) -> float:
    """Return the log growth a year of the best trial less that of its market, or of cash if higher.

    The benchmark where no account at equal risk can be had: in a market that fell to nothing.
    """
    years = sum(each.years for each in parts)
    with np.errstate(divide="ignore"):  # minus infinity at ruin
        own = sum(float(np.log1p(each.returns[0]).sum()) for each in parts)
        held = sum(
            float(np.log1p(each.lines[equal_risk.BUY_AND_HOLD]["total_return"])) for each in parts
        )
    return (own - max(held, 0.0)) / years


def describe_lack(task: StudyTask, trials: t.Batch, n: int, goal: t.Goal) -> str:
    """Say why no set can be chosen: what the sets break, or why the objective is undefined."""
    stated = [each for each in goal.constraints if each != RUIN]
    has_run = np.array([error == "" for error in trials.errors])
    is_ruined = has_run & (trials.metrics["ruined"] > 0.0)
    unfilled = has_run & (trials.metrics["turnover"] == 0.0)

    counts: dict[str, int] = {}
    scoreless = count_true(trials.violation == 0.0)  # or they would have been feasible
    undefined = f"no finite {goal.objective.name}"
    counts[f"satisfy them and have {undefined}" if stated else f"have {undefined}"] = scoreless
    for each in stated:
        counts[f"break {each}"] = count_true((each.violation(trials.metrics) > 0.0) & has_run)
    counts["were ruined"] = count_true(is_ruined)
    counts["filled no order"] = count_true(unfilled)
    counts["failed"] = count_true(~has_run)
    causes = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)

    lack = "no set satisfies all constraints and has a score"
    if not stated and scoreless + counts["filled no order"] == len(has_run):
        lack = f"{goal.objective.name} is undefined in all sets"
    elif not stated:
        lack = f"no set that lasts has a {goal.objective.name}"
    reasons = [f"{lack}: of {n:,} sets {causes}"]
    meaning = ABOUT.get(goal.objective.name.removeprefix("-"))
    if scoreless and meaning is not None:
        reasons.append(f"{goal.objective.name.removeprefix('-')} is {meaning.meaning}")
    if unfilled.any() and (why := explain_unfilled(task, trials, int(np.argmax(unfilled)))):
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
    task: StudyTask, values: Mapping[str, Any]
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
    return metrics, [f"on the holdout the best set breaks {each}" for each in broken]


def choose_winner(
    candidates: CandidateScores, scores: core.FloatArray, median: float, *, is_enough: bool
) -> tuple[int, str]:
    """Return the best among k candidates, the one with the highest robust score, and by what.

    Without one, that with the largest share of neighbors that hold; of too few (not ``is_enough``),
    the highest of ``scores`` (k,) in place of such a trial, or of one below the median.
    """
    is_known = bool(np.isfinite(candidates.robust).any())
    place = int(np.argmax(candidates.robust if is_known else candidates.kept))
    if is_enough or (is_known and scores[place] >= median):
        return place, BY_ROBUST if is_known else BY_KEPT
    return int(np.argmax(scores)), BY_SCORE


def explain_choice(by: str, n: int, own: float, median: float, name: str) -> Iterator[str]:
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
    if own < median:
        yield (
            f"the best is below the median of the sets tried: its own {name} is {own:.4g}, the "
            f"median {median:.4g}; it was chosen for its neighbors"
        )


def list_warnings(
    task: StudyTask, trials: t.Batch, best: int, verdict: Verdict, parts: Sequence[BenchmarkedPart]
) -> Iterator[str]:
    yield from warn_of_edges(task.problem.space, take_sets(trials.sets, best))
    scores = trials.scores[t.is_feasible(trials)]
    name = name_measure(task.problem.goal.objective.name)
    if is_spike(verdict.score, verdict.plateau, scores):
        found = f"the median of its neighbors {verdict.plateau:.4g}"
        if math.isinf(verdict.plateau):
            found = "and half of its neighbors or more are ruined or break a constraint"
        yield f"the best sits on a spike: its own {name} is {verdict.score:.4g}, {found}"
    yield from warn_of_failures(trials)
    places = t.find_distinct(trials.sets)
    if cold := describe_decided(trials.metrics[t.DECIDED][places]):
        yield cold
    if len(parts) > 1 and parts[1].fills < FEW_FILLS:
        yield (
            f"the best trial has {core.count_nouns(parts[1].fills, 'fill')} in the holdout, fewer "
            f"than {FEW_FILLS}: what it earns there is mostly chance"
        )


def warn_of_failures(trials: t.Batch) -> Iterator[str]:
    errors = [error for error in trials.errors if error]
    if errors:
        yield f"{len(errors):,} of {len(trials.errors):,} sets failed, the first with: {errors[0]}"


def is_spike(score: float, plateau: float, scores: core.FloatArray) -> bool:
    if not len(scores) or math.isnan(score) or math.isnan(plateau):
        return False
    low, high = np.quantile(scores, [0.25, 0.75], method="nearest")
    return bool(score - plateau > SPIKE * max(abs(score), high - low))


def warn_of_edges(space: Space, values: Mapping[str, Any]) -> Iterator[str]:
    sets = {name: np.array([value], dtype=object) for name, value in values.items()}
    for each in space.dimensions:
        if each.options or not find_active(space.by_name, sets, each.name)[0]:
            continue
        value = values[each.name]
        place = float(each.encode(np.array([value]))[0])
        for side, bound, distance in (("lower", each.low, place), ("upper", each.high, 1 - place)):
            is_there = value == bound if each.kind == "int" else distance <= EDGE
            is_natural = bound == 0.0 and not each.log
            if is_there and not is_natural:
                yield (
                    f"{each.name} = {value:.4g} lies on the {side} edge of its range, "
                    f"{each.low:g} to {each.high:g}: widen it, better values may lie beyond"
                )


def measure_luck(
    task: StudyTask,
    trials: t.Batch,
    best: int,
    others: int,
    parts: Sequence[BenchmarkedPart],
) -> dict[str, Any]:
    """Return the fields of the verdict that say how far chance explains the best trial.

    They are of the differences of returns from constant leverage at equal risk, as the verdict is.
    """
    evaluator, places = task.seen, t.find_distinct(trials.sets)
    kept, rng = places[t.is_feasible(trials)[places]], np.random.default_rng([task.problem.seed, 2])
    sample = t.spread_sample(task.problem.space, trials.sets, kept, SAMPLE, rng)
    sample = np.append(sample[sample != best], best)
    rows = evaluator.evaluate(take_sets(trials.sets, sample), returns=True).finish()
    n_sets = max(len(places), len(sample))
    test = evaluator.varied.test
    periods = count_periods(test.calendar, test.sampling, test.market, evaluator.first)

    found: dict[str, Any] = {
        "sharpe": float(trials.metrics["sharpe"][best]),
        "growth": GrowthTest(),
    }
    if evaluator.is_pooled and len(rows.returns) > 1:
        own = rows.returns[:, -1]
        ratio = results.annualize_ratios(own.mean(), own.std(ddof=1), periods)
        found["sharpe"] = float(np.nan_to_num(ratio))
    if task.is_judged:
        growing = count_trials(rows.returns, parts, n_sets) * (1.0 + others / n_sets)
        found["growth"] = check_growth(parts, growing, task.problem.seed)
    if len(rows.returns) < 4:
        return found

    with contextlib.suppress(core.BacktestError):  # returns that are not finite
        if len(sample) > 1:  # one set alone has no halves to be ranked in
            splits = min(SPLITS, len(rows.returns) // 4 * 2)
            overfitting = results.probability_of_backtest_overfitting(rows.returns, n_splits=splits)
            found["overfitting"] = overfitting.pbo
        compared = subtract_constant(rows.returns, parts)
        if compared is not None:
            found |= deflate_best(compared, periods, n_sets, others)
    return found


def subtract_constant(
    returns: core.FloatArray, parts: Sequence[BenchmarkedPart]
) -> core.FloatArray | None:
    """Return the returns (n, k) of trials less those of constant leverage at the risk of each.

    Without a benchmark they are returned as they are; None where it could not be measured.
    """
    if not parts:
        return returns
    if parts[0].untested or len(parts[0].returns[1]) != len(returns):
        return None
    constant = parts[0].returns[1]
    scale = np.std(returns, axis=0) / np.std(constant)
    return np.asarray(returns - constant[:, None] * scale)


def deflate_best(
    returns: core.FloatArray, periods: float, n_sets: int, others: int
) -> dict[str, float]:
    """Return the deflated Sharpe ratio of the last of some trials, and what it is made of.

    ``returns`` (n, k) are those of a sample of ``n_sets``, by sampling period; ``periods`` of them
    are a year; ``others`` are sets that were tried elsewhere on some of the same bars.
    """
    luck = results.simulate_luck(returns, n_trials=n_sets)
    count = luck.n * (1.0 + others / n_sets)
    if returns.shape[1] == 1:  # returns of one set show no correlation
        count = float(n_sets + others)
    deviation = luck.find_deviation(len(returns), periods)

    best = returns[:, -1]
    moments = results.estimate_moments(best)
    ratio = results.annualize_ratios(best.mean(), best.std(ddof=1), periods)
    scale = math.sqrt(periods)
    deflated = deflated_sharpe(
        float(np.nan_to_num(ratio)) / scale,
        moments.n,
        skew=moments.skew,
        kurtosis=moments.kurtosis,
        n_trials=count,
        std=deviation / scale,
    )
    return {
        "effective_trials": count,
        "lucky_sharpe": results.expected_max_sharpe(count, deviation),
        "deflated_sharpe": deflated,
    }


def deflate_alone(returns: core.FloatArray, trials: float) -> float:
    """Return the probabilistic Sharpe ratio of one account, deflated by some independent trials.

    Without the other trials' returns, their Sharpe ratios scatter as those of noise.
    """
    if len(returns) < 2:
        return 0.5
    moments, n = results.estimate_moments(returns), results.effective_observations(returns)
    std = math.sqrt(1.0 / (n - 1)) if trials > 1.0 else 0.0
    return deflated_sharpe(**{**moments._asdict(), "n": n}, n_trials=trials, std=std)
