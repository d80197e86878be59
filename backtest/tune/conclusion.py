"""From all that was tried to one winner: judged by its neighbours, looked at on the holdout."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest.base.errors import BacktestError
from backtest.base.units import FloatArray, IntArray
from backtest.measures.ranking import pareto
from backtest.sweep.sets.sets import count_sets
from backtest.sweep.tabulate import take
from backtest.tune.bench import Bench, complete_set, measure_holdout
from backtest.tune.holdout import count_looks, record_look
from backtest.tune.journal import Batch
from backtest.tune.luck import Verdict, find_edges, find_spike, measure_luck
from backtest.tune.other_trials import find_other_trials
from backtest.tune.plateau import (
    BUDGET_SHARE,
    Judgement,
    Robustness,
    choose_candidates,
    guess_worth,
    join_judgements,
    judge_candidates,
)
from backtest.tune.search_loop import find_knee
from backtest.tune.study_record import Outcome
from backtest.tune.trials import (
    find_distinct,
    gather,
    is_feasible,
    take_rows,
    worst_where_broken,
)
from backtest.tune.winner import (
    BY_SCORE,
    ENOUGH,
    Choice,
    choose,
    explain_choice,
    find_median,
    plan_judging,
)

if TYPE_CHECKING:
    from backtest.sweep.evaluator import Evaluator
    from backtest.sweep.sets.space import Space
    from backtest.tune.trial_evaluator import Examiner, Goal
    from backtest.tune.winner import Plan


class Task(NamedTuple):
    """A study that is to be made.

    ``rule`` says how candidates are judged (a single one where not ``is_robust``), ``seen`` is the
    evaluator of the bars of the search; ``trials`` and ``seconds`` are the budget.
    """

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


def conclude(task: Task, examiner: Examiner) -> Outcome:
    """Return the winner of a finished search, and what is to be said of it."""
    trials = gather(examiner.batches)
    if not is_feasible(trials).any():
        return give_up(task, trials)
    plan = plan_judging(task.rule, find_allowance(task, examiner), is_robust=task.is_robust)
    rows, judged = find_candidates(task, examiner, trials, plan)
    trials = gather(examiner.batches)
    is_enough = plan.candidates >= min(ENOUGH, task.rule.candidates)
    choice, said = find_winner(task, trials, rows, judged, is_enough=is_enough)
    place = choice.place
    best = int(rows[place])
    task.seen.check_set(take(trials.sets, best))
    highest = int(np.argmax(worst_where_broken(trials)[rows, 0]))
    others = find_other_trials(task.store, task.facts)
    luck = measure_luck(task.seen, task.space, trials, best, others, task.seed)
    holdout, complaints = look(task, take(trials.sets, best))
    verdict = Verdict(
        trials=len(find_distinct(trials.sets)),
        other_trials=others.n_sets,
        other_policies=others.policies,
        **luck._asdict(),
        sharpe=float(trials.metrics["sharpe"][best]),
        score=float(trials.scores[best, 0]),
        robust_score=float(judged.robust[place, 0]),
        plateau=float(judged.plateau[place, 0]),
        kept=float(judged.kept[place]),
        plain_score=float(trials.scores[rows[highest], 0]),
        plain_plateau=float(judged.plateau[highest, 0]),
        holdout_score=score_holdout(task, holdout),
        looks=count_all_looks(task),
    )
    found = warn(task, trials, best, verdict)
    warnings = [*said, *found, *complaints, *task.seen.doubts]
    robust, plateau = judged.robust.tolist(), judged.plateau.tolist()
    return Outcome(best, rows.tolist(), robust, plateau, verdict, warnings, holdout, choice.by)


def give_up(task: Task, trials: Batch) -> Outcome:
    """Return the outcome of a search in which no set keeps all constraints."""
    n = len(find_distinct(trials.sets))
    has_run = np.array([error == "" for error in trials.errors], dtype=np.bool_)
    broken = [(each, each.violation(trials.metrics) > 0.0) for each in task.goal.constraints]
    counts = [(each, np.count_nonzero(is_broken & has_run)) for each, is_broken in broken]
    fates = [f"{count:,} break {each}" for each, count in counts if count]
    if not has_run.all():
        fates.append(f"{np.count_nonzero(~has_run):,} failed")
    scoreless = np.count_nonzero(trials.violation == 0.0)  # or they would have been feasible
    if scoreless:
        names = " and ".join(task.facts["objectives"])
        fates.insert(0, f"{scoreless:,} keep them and have no finite {names}")
    text = f"no set keeps all constraints and has a score: of {n:,} sets {', '.join(fates)}"
    others = find_other_trials(task.store, task.facts)
    verdict = Verdict(n, others.n_sets, other_policies=others.policies)
    return Outcome(-1, [], [], [], verdict, [text, *warn_of_failures(trials)], {})


# ------------------------------------------------------------------------------------- the winner


def find_candidates(
    task: Task, examiner: Examiner, trials: Batch, plan: Plan
) -> tuple[IntArray, Judgement]:
    """Return the rows of the candidates, the highest score of all first, and what they are worth.

    First the leading sets. Robust candidates then come from what is known around all sets, the
    neighbours of the first ones included: the best plateau may be next to what leads.
    """
    rule = plan.rule
    rows = choose_candidates(task.space, trials.sets, find_keys(trials), rule)
    judged = judge(task, examiner, trials, rows, rule)
    for _ in range(plan.rounds):
        trials = gather(examiner.batches)
        keys = guess_worth(task.space, trials.sets, find_values(trials), rule)
        keys[rows] = -np.inf
        more = choose_candidates(task.space, trials.sets, keys, rule)
        if len(more):
            found = judge(task, examiner, trials, more, rule)
            rows, judged = np.append(rows, more), join_judgements(judged, found)
    return rows, judged


def find_winner(
    task: Task, trials: Batch, rows: IntArray, judged: Judgement, *, is_enough: bool
) -> tuple[Choice, list[str]]:
    """Return which candidate wins, and what is to be said of how it was chosen."""
    if not task.is_robust:
        return Choice(0, BY_SCORE), []
    scores, median = trials.scores[rows], find_median(trials)
    choice = choose(judged, scores, median, is_enough=is_enough)
    name = task.goal.objectives[0].name
    return choice, list(explain_choice(choice, judged, scores, median, name))


def judge(
    task: Task, examiner: Examiner, trials: Batch, rows: IntArray, rule: Robustness
) -> Judgement:
    """Return what the candidates in some rows are worth."""
    rng = np.random.default_rng([task.seed, 1])
    sets, own = take_rows(trials.sets, rows), trials.scores[rows]
    n_bars = task.seen.market.n_bars
    return judge_candidates(examiner, task.space, sets, own, rule, rng, n_bars)


def find_keys(trials: Batch) -> FloatArray:
    """Return by which number sets become candidates, of shape (n,); minus infinity: never.

    The score; of several the sum of their ranks among the sets of the front, whose knee comes
    first.
    """
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
    """Return one number per set, larger is better: its score, or the mean rank of several."""
    if trials.scores.shape[1] == 1:
        return worst_where_broken(trials)[:, 0]
    ranks = trials.scores.argsort(axis=0).argsort(axis=0).mean(axis=1)
    return np.where(is_feasible(trials), ranks, -np.inf)


def find_allowance(task: Task, examiner: Examiner) -> float:
    """Return how many neighbours the budget has left: a share of its number and of its time.

    A neighbour costs twice: once over the whole time, once over its parts.
    """
    done = sum(count_sets(batch.sets) for batch in examiner.batches)
    by_number = math.inf
    if task.trials is not None:
        by_number = min(BUDGET_SHARE * task.trials, task.trials - done)
    if task.seconds is None or not task.is_robust:
        return by_number
    return min(by_number, 0.5 * BUDGET_SHARE * task.seconds * done / max(examiner.seconds, 1e-9))


# ------------------------------------------------------------------------------------ the holdout


def look(task: Task, values: Mapping[str, Any]) -> tuple[dict[str, float], list[str]]:
    """Return the winner's measures on the holdout, and what is to be said; the look is noted."""
    if not has_holdout(task):
        return {}, []
    if task.store is not None:
        record_look(task.store, task.facts, complete_set(task.bench, values))
    task.bench.whole.follow(task.seen)  # what cannot be compiled has been said
    try:
        metrics = measure_holdout(task.bench, values)
    except BacktestError as error:
        return {}, [f"the best set cannot be run on the holdout: {error.problem}"]
    columns = {name: np.array([value]) for name, value in metrics.items()}
    broken = [str(each) for each in task.goal.constraints if each.violation(columns)[0] > 0.0]
    return metrics, [f"on the holdout the best set breaks {text}" for text in broken]


def has_holdout(task: Task) -> bool:
    """Tell whether a part of the data was kept from the search."""
    return task.bench.split < task.bench.whole.market.n_bars


def score_holdout(task: Task, metrics: Mapping[str, float]) -> float:
    """Return the first objective on the holdout; NaN without one."""
    if not metrics:
        return math.nan
    columns = {name: np.array([value]) for name, value in metrics.items()}
    return float(task.goal.objectives[0].score(columns)[0])


def count_all_looks(task: Task) -> int:
    """Return how often the holdout has been looked at; without a store this time only."""
    if task.store is None:
        return int(has_holdout(task))
    return count_looks(task.store, task.facts)


# --------------------------------------------------------------------------------------- warnings


def warn(task: Task, trials: Batch, best: int, verdict: Verdict) -> Iterator[str]:
    """Yield what a reader must know of the winner, one sentence each."""
    values = take(trials.sets, best)
    yield from find_edges(task.space, task.seen.settings, values)
    scores = trials.scores[is_feasible(trials), 0]
    name = task.goal.objectives[0].name
    if find_spike(verdict.score, verdict.plateau, scores):
        yield (
            f"the best sits on a spike: its own {name} is {verdict.score:.4g}, the median of its "
            f"neighbours {verdict.plateau:.4g}"
        )
    yield from warn_of_failures(trials)


def warn_of_failures(trials: Batch) -> Iterator[str]:
    """Yield how many sets failed, and why the first did."""
    errors = [error for error in trials.errors if error]
    if errors:
        yield f"{len(errors):,} of {len(trials.errors):,} sets failed, the first with: {errors[0]}"
