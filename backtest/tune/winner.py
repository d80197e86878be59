"""The winner of a search: candidates ranked by their neighbors, the best of them, its holdout."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np

from backtest.base import (
    BacktestError,
    FloatArray,
    IntArray,
    Number,
    Value,
    Whole,
    declared,
    to_plain,
)
from backtest.sweep import count_sets, draw_cube, take_sets
from backtest.tune.journal import PART, Batch
from backtest.tune.looks import (
    Bench,
    count_looks,
    find_other_trials,
    measure_holdout,
    record_look,
)
from backtest.tune.luck import Verdict, is_spike, measure_luck, warn_of_edges
from backtest.tune.trials import (
    find_distinct,
    gather,
    is_feasible,
    join_columns,
    worst_where_broken,
)

if TYPE_CHECKING:
    from backtest.sweep import Dimension, Evaluator, Sets, Space
    from backtest.tune.trials import Examiner, Goal

NEIGHBOUR = "neighbour"
BY_ROBUST, BY_KEPT, BY_SCORE = "robust_score", "kept", "score"
"""By what a winner is chosen."""
BUDGET_SHARE = 0.25
"""Share of the budget that may be spent on the neighbors of candidates."""
CELLS = 2
"""Cells per half of a box and axis. One set of each cell counts as known."""
KNOWN, LEAST_KNOWN = 32, 6
"""Known sets by which the robust score of another one is estimated, at most and at least."""
WHOLE_STEPS = 1.5
"""Reach of neighbors in steps of a whole number: the value and the two next to it are equally
likely."""


@declared(kw_only=True)
class Robustness(Value):
    """Rule by which candidates are scored: a low quantile over neighbors, averaged over time.

    A candidate's robust score is the mean of two: the low quantile of the objective over its
    neighbors on the whole time, and the mean over equal parts of the time of the same quantile
    there. So a spike fails by its neighbors, and a lucky part counts for no more than its share.

    Parameters
    ----------
    quantile : float
        Of the objective over the neighbors and the candidate itself. A tenth: of 17 the second
        lowest, so that a single odd neighbor does not decide.
    width : float
        Neighbors lie in a box of this share of each range on either side, on its scale. A tenth is
        farther than a spike of noise reaches, and near enough to be the same policy; whole numbers
        reach at least 1 on either side, options stay.
    neighbours : int
        In each box, evenly spread (scrambled Sobol points), the same for all candidates.
    parts : int
        Equal parts of the time, with a fresh account in each.
    candidates : int
        Leading sets whose neighbors are evaluated. Their boxes do not overlap, so that they are
        not all from one hill. If the budget allows, twice as many follow: the sets with the best
        estimated robust scores by then, with boxes that do not overlap either.

    Notes
    -----
    A neighbor that breaks a constraint over the whole time, is ruined in it or in a part, or fails
    there, counts as minus infinity. A part where a set has no score (it does not trade) is left
    out.
    """

    quantile: Annotated[float, Number(0, 1)] = 0.10
    width: Annotated[float, Number(0, 0.5, open_low=True)] = 0.10
    neighbours: Annotated[int, Whole(1)] = 16
    parts: Annotated[int, Whole(1)] = 4
    candidates: Annotated[int, Whole(1)] = 32

    def fit(self, trials: float) -> Robustness:
        """Return the rule with as many candidates, and neighbors, as ``trials`` can pay for."""
        candidates = int(min(self.candidates, max(1.0, trials / self.neighbours)))
        neighbours = int(min(self.neighbours, max(1.0, trials)))
        return Robustness(**{**self.to_dict(), "candidates": candidates, "neighbours": neighbours})


PLAIN = Robustness(parts=1, candidates=1)


class CandidateScores(NamedTuple):
    """Robust scores of k candidates.

    ``robust`` is the robust score and ``plateau`` the median of the neighbors over the whole time.
    ``kept`` is the share of neighbors, over the whole time and its parts, that break no constraint
    and are not ruined. Arrays of shape (k,).
    """

    robust: FloatArray
    plateau: FloatArray
    kept: FloatArray


def half_widths(space: Space, sets: Sets, width: float) -> tuple[FloatArray, FloatArray]:
    """Return the extent of the boxes around sets, down and up, of shape (k, d) each."""
    pairs = [find_extent(each, sets[each.name], width) for each in space.dimensions]
    down, up = (np.stack(side, axis=1) for side in zip(*pairs, strict=True))
    return down, up


def find_extent(
    dimension: Dimension, values: np.ndarray, width: float
) -> tuple[FloatArray, FloatArray]:
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
    drawn = draw_cube(centers.shape[1], robustness.neighbours, "sobol", rng)
    offsets = (2.0 * drawn - 1.0)[None, :, :]
    steps = np.where(offsets < 0.0, down[:, None, :], up[:, None, :])
    points = np.abs(centers[:, None, :] + offsets * steps)
    points = np.clip(np.where(points > 1.0, 2.0 - points, points), 0.0, 1.0)
    return space.decode(points.reshape(-1, centers.shape[1]))


def choose_candidates(
    space: Space, sets: Sets, scores: FloatArray, robustness: Robustness
) -> IntArray:
    """Return the rows of the best sets whose boxes do not overlap, the best first.

    ``scores`` has shape (n,); sets without a finite score are no candidates.
    """
    places = np.argsort(-scores, kind="stable")
    places = places[np.isfinite(scores[places])]
    cube = space.encode(take_sets(sets, places))
    chosen: list[int] = []
    is_left = np.ones(len(places), dtype=np.bool_)
    while len(chosen) < robustness.candidates and is_left.any():
        first = int(np.argmax(is_left))
        chosen.append(int(places[first]))
        one = take_sets(sets, places[first : first + 1])
        down, up = half_widths(space, one, 2.0 * robustness.width)
        distance = cube - cube[first]
        is_left &= ~((distance >= -down) & (distance <= up)).all(axis=1)
    return np.array(chosen, dtype=np.int64)


def estimate_robustness(
    space: Space, sets: Sets, values: FloatArray, robustness: Robustness
) -> FloatArray:
    """Estimate robust scores from the sets evaluated so far, as keys for choosing candidates.

    ``values`` of shape (n,) are minus infinity for sets that break a constraint or have no score.
    """
    from scipy.spatial import KDTree  # noqa: PLC0415 - loads where it is used

    reached = np.maximum(*half_widths(space, sets, robustness.width)).max(axis=0)
    # different options are not close
    cube = space.encode(sets) / np.where(reached > 0.0, reached, 1e-9)
    cells = np.floor(cube * CELLS)
    best = np.argsort(-values, kind="stable")
    rated = best[np.unique(cells[best], axis=0, return_index=True)[1]]
    rated = rated[np.isfinite(values[rated])]
    known = np.unique(cells, axis=0, return_index=True)[1]
    nearest = np.arange(1, min(KNOWN, len(known)) + 1)
    found = KDTree(cube[known]).query(cube[rated], nearest, p=np.inf, distance_upper_bound=1.0)
    distance, place = (np.asarray(each) for each in found)
    is_near = np.isfinite(distance)
    around = np.append(values[known], np.nan)[place]
    low = low_quantile(around, robustness.quantile)
    kept = np.sum(is_near & np.isfinite(around), axis=1) / np.maximum(is_near.sum(axis=1), 1)
    floor = np.min(low, initial=0.0, where=np.isfinite(low)) - 2.0
    keys = np.full(len(values), -np.inf)
    keys[rated] = np.where(np.isfinite(low), low, floor + kept)
    keys[rated[is_near.sum(axis=1) < LEAST_KNOWN]] = -np.inf
    return keys


def score_candidates(
    examiner: Examiner,
    space: Space,
    sets: Sets,
    own: FloatArray,
    robustness: Robustness,
    rng: np.random.Generator,
) -> CandidateScores:
    """Evaluate the neighbors of k sets and return the robust scores.

    ``own`` of shape (k,) are the scores of the sets over the whole time.
    """
    k = len(own)
    around = draw_neighbors(space, sets, robustness, rng)
    scores = worst_unless_known(examiner.evaluate(around, NEIGHBOUR)).reshape(k, -1)
    samples = [np.column_stack([own, scores])]
    everything = join_columns([sets, around])
    for first, stop in split_parts(examiner.evaluator.market.n_bars, robustness.parts):
        part = examiner.evaluate(everything, PART, first=first, stop=stop)
        values = np.where(part.metrics["ruined"] == 0.0, part.scores, -np.inf)
        samples.append(np.column_stack([values[:k], values[k:].reshape(k, -1)]))
    lows = np.stack([low_quantile(values, robustness.quantile) for values in samples])
    kept = np.mean(~np.isneginf(samples), axis=(0, 2))
    return CandidateScores(average_parts(lows), np.median(scores, axis=1), kept)


def worst_unless_known(batch: Batch) -> FloatArray:
    is_bad = (batch.violation > 0.0) | np.isnan(batch.scores)
    return np.where(is_bad, -np.inf, batch.scores)


def average_parts(lows: FloatArray) -> FloatArray:
    """Return the mean of the value over the whole time and the mean over its parts.

    ``lows`` has shape (1 + n_parts, k), the whole time first; parts that are NaN are left out.
    """
    parts = lows[1:]
    known = np.count_nonzero(~np.isnan(parts), axis=0)
    total = np.sum(np.where(np.isnan(parts), 0.0, parts), axis=0)
    mean: FloatArray = np.where(known > 0, total / np.maximum(known, 1), lows[0])
    both: FloatArray = 0.5 * (lows[0] + mean)
    return both


def split_parts(n_bars: int, parts: int) -> list[tuple[int, int]]:
    n = min(parts, n_bars // 2)
    if n < 2:
        return []
    edges = [n_bars * k // n for k in range(n + 1)]
    return list(itertools.pairwise(edges))


def low_quantile(samples: FloatArray, quantile: float) -> FloatArray:
    """Return the lower quantile along axis 1 of an array of shape (k, n), ignoring NaN."""
    ordered = np.sort(samples, axis=1)  # NaN comes last
    known = np.count_nonzero(~np.isnan(ordered), axis=1)
    place = np.maximum(np.floor(quantile * (known - 1)), 0).astype(np.int64)
    found: FloatArray = np.take_along_axis(ordered, place[:, None], axis=1)[:, 0]
    return found


# ------------------------------------------------------------------------------ the outcome


REFINEMENTS = 2
"""Rounds of further candidates after the first, chosen by estimated robust scores."""
ENOUGH = 16
"""With at least so many candidates, a winner below the median or without a robust score is
accepted."""


class WinnerChoice(NamedTuple):
    place: int
    by: str


class StudyOutcome(NamedTuple):
    """Conclusion of a search; ``best`` is a row of the table, -1 if none keeps the constraints."""

    best: int
    candidates: list[int]
    robust: list[float]
    plateau: list[float]
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


def build_outcome(task: StudyTask, examiner: Examiner) -> StudyOutcome:
    trials = gather(examiner.batches)
    if not is_feasible(trials).any():
        return build_outcome_without_winner(task, trials)
    allowance = find_allowance(task, examiner)
    is_enough = allowance >= (1 + REFINEMENTS) * task.rule.neighbours
    rounds = REFINEMENTS if task.is_robust and is_enough else 0
    rule = task.rule.fit(allowance / (1 + rounds))
    rows, candidates = find_candidates(task, examiner, trials, rule, rounds)
    trials = gather(examiner.batches)
    choice, notes = WinnerChoice(0, BY_SCORE), []
    if task.is_robust:
        scores = trials.scores[rows]
        median = float(np.median(trials.scores[is_feasible(trials)]))
        is_enough = (1 + rounds) * rule.candidates >= min(ENOUGH, task.rule.candidates)
        choice = choose_winner(candidates, scores, median, is_enough=is_enough)
        name = task.goal.objective.name
        notes = [*explain_choice(choice, candidates, scores, median, name)]
    place = choice.place
    best = int(rows[place])
    values = take_sets(trials.sets, best)
    task.seen.check_set(values)
    highest = int(np.argmax(worst_where_broken(trials)[rows]))
    others = find_other_trials(task.store, task.facts)
    luck = measure_luck(task.seen, task.space, trials, best, others, task.seed)
    holdout, failures = evaluate_holdout(task, values)
    seen = {name: np.array([value]) for name, value in holdout.items()}
    looks = int(task.bench.has_holdout)
    verdict = Verdict(
        trials=len(find_distinct(trials.sets)),
        other_trials=others.n_sets,
        other_policies=others.policies,
        **luck._asdict(),
        score=float(trials.scores[best]),
        robust_score=float(candidates.robust[place]),
        plateau=float(candidates.plateau[place]),
        kept=float(candidates.kept[place]),
        plain_score=float(trials.scores[rows[highest]]),
        plain_plateau=float(candidates.plateau[highest]),
        holdout_score=float(task.goal.objective.score(seen)[0]) if seen else math.nan,
        looks=looks if task.store is None else count_looks(task.store, task.facts),
    )
    told = [*notes, *list_warnings(task, trials, best, verdict), *failures, *task.seen.doubts]
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
        causes.insert(0, f"{scoreless:,} keep them and have no finite {task.goal.objective.name}")
    text = f"no set keeps all constraints and has a score: of {n:,} sets {', '.join(causes)}"
    others = find_other_trials(task.store, task.facts)
    verdict = Verdict(n, others.n_sets, other_policies=others.policies)
    return StudyOutcome(-1, [], [], [], verdict, [text, *warn_of_failures(trials)], {})


# ------------------------------------------------------------------------------------- the winner


def find_candidates(
    task: StudyTask, examiner: Examiner, trials: Batch, rule: Robustness, rounds: int
) -> tuple[IntArray, CandidateScores]:
    rows = choose_candidates(task.space, trials.sets, worst_where_broken(trials), rule)
    candidates = score_rows(task, examiner, trials, rows, rule)
    for _ in range(rounds):
        trials = gather(examiner.batches)
        keys = estimate_robustness(task.space, trials.sets, worst_where_broken(trials), rule)
        keys[rows] = -np.inf
        more = choose_candidates(task.space, trials.sets, keys, rule)
        if len(more):
            found = zip(candidates, score_rows(task, examiner, trials, more, rule), strict=True)
            rows, candidates = np.append(rows, more), CandidateScores(*map(np.concatenate, found))
    return rows, candidates


def score_rows(
    task: StudyTask, examiner: Examiner, trials: Batch, rows: IntArray, rule: Robustness
) -> CandidateScores:
    rng = np.random.default_rng([task.seed, 1])
    sets, own = take_sets(trials.sets, rows), trials.scores[rows]
    return score_candidates(examiner, task.space, sets, own, rule, rng)


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
        record_look(task.store, task.facts, values)
    task.bench.whole.copy_fallback(task.seen)  # the warning was already given
    try:
        metrics = measure_holdout(task.bench, task.bench.read(values))
    except BacktestError as error:
        return {}, [f"the best set cannot be run on the holdout: {error}"]
    broken = task.goal.list_broken(metrics)
    return metrics, [f"on the holdout the best set breaks {each}" for each in broken]


# --------------------------------------------------------------------------------------- warnings


def list_warnings(task: StudyTask, trials: Batch, best: int, verdict: Verdict) -> Iterator[str]:
    values = take_sets(trials.sets, best)
    yield from warn_of_edges(task.space, values)
    scores = trials.scores[is_feasible(trials)]
    name = task.goal.objective.name
    if is_spike(verdict.score, verdict.plateau, scores):
        yield (
            f"the best sits on a spike: its own {name} is {verdict.score:.4g}, the median of its "
            f"neighbors {verdict.plateau:.4g}"
        )
    if trials.metrics["turnover"][best] == 0.0:
        yield "the best set filled no order: bt.run of it says why"
    yield from warn_of_failures(trials)


def warn_of_failures(trials: Batch) -> Iterator[str]:
    errors = [error for error in trials.errors if error]
    if errors:
        yield f"{len(errors):,} of {len(trials.errors):,} sets failed, the first with: {errors[0]}"


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
    ``scores`` of shape (k,) are the candidates' own.
    """
    is_known = bool(np.isfinite(candidates.robust).any())
    by = BY_ROBUST if is_known else BY_KEPT
    place = int(np.argmax(candidates.robust if is_known else candidates.kept))
    if is_enough or (is_known and scores[place] >= median):
        return WinnerChoice(place, by)
    return WinnerChoice(int(np.argmax(scores)), BY_SCORE)


def explain_choice(
    choice: WinnerChoice, candidates: CandidateScores, scores: FloatArray, median: float, name: str
) -> Iterator[str]:
    n, own = len(candidates.kept), scores[choice.place]
    if choice.by == BY_SCORE:
        yield (
            f"too few candidates to rank by neighbors: only {n} scored, none of them both robust "
            "and above the median of the sets tried; the best is the plain optimum, the highest "
            f"{name}. More trials score more candidates"
        )
    elif choice.by == BY_KEPT:
        yield (
            f"none of the {n} candidates is robust: some neighbors of each break a constraint or "
            "are ruined; the best is the one with the largest share of neighbors that do not"
        )
    if own < median:
        yield (
            f"the best is below the median of the sets tried: its own {name} is {own:.4g}, the "
            f"median {median:.4g}; it was chosen for its neighbors"
        )
