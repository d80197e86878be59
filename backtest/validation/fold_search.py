"""Search one train span, test its winner and all other sets, and count the sets tried before."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest.base import BoolArray, FloatArray, IntArray, format_time
from backtest.base.units import DAY, YEAR_DAYS
from backtest.sweep import Evaluator, clip_spans, find_different, take_sets, to_plain_value
from backtest.tune import (
    NO_TRIALS,
    Bench,
    CountTries,
    Examiner,
    Journal,
    OtherTrials,
    Progress,
    SpanTries,
    StudyTask,
    count_other_trials,
    describe_market,
    describe_policy,
    find_distinct,
    gather,
    is_feasible,
    read_tries,
    record_tries,
    search_and_choose,
)
from backtest.validation.interval_estimates import find_rank, order_scores

if TYPE_CHECKING:
    from backtest.engine import Result
    from backtest.sweep import Rows, Sets
    from backtest.tune import Verdict
    from backtest.validation.fold_spans import FoldSpan
    from backtest.validation.tuning_procedure import Procedure


TEST = "part"
NO_WINNER = -1


class SearchedFold(NamedTuple):
    """A fold after its search and its test.

    ``sets`` are the distinct sets tried, ``winner`` the row of the best of them (-1 if none keeps
    the constraints), ``values`` its parameters. ``inside`` and ``outside`` of shape (n,) are their
    objectives on both spans, minus infinity after ruin or without a score. ``sharpes`` of shape
    (n,) are those of the train span, ``is_kept`` marks the sets that keep the constraints there.
    ``growth`` is the winner's log growth per year on the train span.
    """

    span: FoldSpan
    sets: Sets
    winner: int
    values: dict[str, Any]
    inside: FloatArray
    outside: FloatArray
    sharpes: FloatArray
    is_kept: BoolArray
    growth: float
    verdict: Verdict
    warnings: tuple[str, ...]

    @property
    def rank(self) -> float:
        return find_rank(self.outside, self.winner) if self.winner >= 0 else math.nan


def search_fold(
    procedure: Procedure,
    whole: Evaluator,
    span: FoldSpan,
    folder: Path | None,
    count_tries: CountTries,
    progress: Callable[[Progress], object] | None = None,
) -> SearchedFold:
    task = describe_task(procedure, whole, span, count_tries)
    journal = Journal(folder)
    examiner = Examiner(task.seen, task.goal, journal, total=procedure.trials, progress=progress)
    outcome = search_and_choose(task, examiner)
    trials = gather(examiner.batches)
    rows = find_distinct(trials.sets)
    sets = take_sets(trials.sets, rows)
    tested = SpanEvaluator(whole, span.test, span.stop)
    later = Journal(None if folder is None else folder / "test")
    outside = Examiner(tested, task.goal, later).evaluate(sets, TEST)
    is_kept = is_feasible(trials)[rows]
    inside = np.where(is_kept, trials.scores[rows, 0], -np.inf)
    winner, values, growth = NO_WINNER, {}, math.nan
    if outcome.best >= 0:
        values = name_values(procedure, whole, take_sets(trials.sets, outcome.best))
        winner = find_row(trials.sets, rows, outcome.best)
        growth = measure_growth(whole, span, trials.metrics, outcome.best)
    return SearchedFold(
        span=span,
        sets=sets,
        winner=winner,
        values=values,
        inside=inside,
        outside=order_scores(outside.scores[:, 0], outside.metrics["ruined"]),
        sharpes=trials.metrics["sharpe"][rows],
        is_kept=is_kept,
        growth=growth,
        verdict=outcome.verdict,
        warnings=tuple(outcome.warnings),
    )


def describe_task(
    procedure: Procedure, whole: Evaluator, span: FoldSpan, count_tries: CountTries
) -> StudyTask:
    return StudyTask(
        facts={
            **procedure.left_out,
            "id": "",
            "sampler": procedure.sampler,
            "objectives": [each.name for each in procedure.goal.objectives],
        },
        space=procedure.space,
        goal=procedure.goal,
        rule=procedure.rule,
        is_robust=procedure.is_robust,
        trials=procedure.trials,
        seconds=None,
        seed=procedure.seed,
        seen=SpanEvaluator(whole, span.train, span.train_stop),
        bench=Bench(SpanEvaluator(whole, 0, span.stop), span.test),
        store=None,
        count_others=partial(count_tries, span.train, span.train_stop),
    )


def name_values(procedure: Procedure, whole: Evaluator, row: dict[str, Any]) -> dict[str, Any]:
    names = [*procedure.names, *procedure.space.fixed]
    return {name: to_plain_value(whole.settings[name], row[name]) for name in names}


def find_row(sets: Sets, rows: IntArray, best: int) -> int:
    codes = find_different(sets)[1]
    return int(np.searchsorted(rows, rows[codes[best]]))


def measure_growth(
    whole: Evaluator, span: FoldSpan, metrics: Mapping[str, FloatArray], best: int
) -> float:
    """Return the log growth per year of a set on a train span; of separate accounts their mean."""
    market = whole.market
    if whole.pool is None:
        parts = [(market, (span.train, span.train_stop), "total_return")]
    else:
        cuts = clip_spans(market, span.train, span.train_stop)
        parts = [(market[name], cut, f"total_return {name}") for name, cut in cuts.items()]
    return sum(
        math.log1p(float(metrics[name][best])) / measure_years(part, *cut)
        for part, cut, name in parts
    ) / len(parts)


def measure_years(market: Any, first: int, stop: int) -> float:
    end = int(market.time[stop - 1]) + market.interval
    years: float = (end - int(market.time[first])) / (YEAR_DAYS * DAY)
    return years


def describe_look(procedure: Procedure, manifest: dict[str, Any], span: FoldSpan) -> dict[str, Any]:
    market = procedure.terms.market
    data = describe_market(market)
    last = int(market.time[span.stop - 1]) + market.interval
    end = format_time(last)
    return {
        "id": f"{manifest['id']}-{span.test}",
        "data": {**data, "end": end},
        "holdout": manifest["kind"],
        "searched": format_time(int(market.time[span.test])),
        "policy": manifest["policy"],
    }


class SpanEvaluator(Evaluator):
    def __init__(self, whole: Evaluator, first: int, stop: int) -> None:
        vars(self).update(vars(whole))
        self.whole = whole
        self.first, self.stop = first, stop
        self.market = whole.market.slice(first, stop)

    def evaluate(
        self,
        sets: Sets,
        *,
        first: int = 0,
        stop: int | None = None,
        returns: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Rows:
        end = self.stop if stop is None else self.first + stop
        rows = self.whole.evaluate(
            sets, first=self.first + first, stop=end, returns=returns, progress=progress
        )
        super().copy_fallback(self.whole)
        return rows

    def replay(
        self, values: Mapping[str, object], *, first: int = 0, stop: int | None = None
    ) -> Result:
        end = self.stop if stop is None else self.first + stop
        return self.whole.replay(values, first=self.first + first, stop=end)

    def sample_returns(self, sets: Sets, *, first: int = 0, stop: int | None = None) -> FloatArray:
        end = self.stop if stop is None else self.first + stop
        return self.whole.sample_returns(sets, first=self.first + first, stop=end)

    def check_causal(self, sets: Sets) -> None:
        self.whole.check_causal(sets)

    def check_set(self, values: Mapping[str, Any]) -> None:
        self.whole.check_set(values)

    @property
    def doubts(self) -> list[str]:
        return self.whole.doubts

    def copy_fallback(self, other: Evaluator) -> None:
        super().copy_fallback(other)
        self.whole.copy_fallback(other)


def read_other_tries(
    store: str | Path | None, procedure: Procedure, manifest: Mapping[str, Any]
) -> CountTries:
    if store is None:
        return lambda _first, _stop: NO_TRIALS
    tries = list(read_tries(Path(store)))

    def count(first: int, stop: int) -> OtherTrials:
        facts = describe_search(procedure, manifest)
        start, end = name_span(procedure, first, stop)
        span = {"data": {**facts["data"], "start": start}, "searched": end}
        return count_other_trials(tries, {**facts, **span})

    return count


def describe_search(procedure: Procedure, manifest: Mapping[str, Any]) -> dict[str, Any]:
    data = describe_market(procedure.terms.market)
    terms = ("venue", "account", "signal", "overlay", "sampling", "calendar", "space")
    return {
        "id": manifest["id"],
        "data": data,
        "searched": data["end"],
        "policy": describe_policy(procedure.base),
        **{name: manifest[name] for name in terms if name in manifest},
    }


def name_span(procedure: Procedure, first: int, stop: int) -> tuple[str, str]:
    market = procedure.terms.market
    end = int(market.time[stop - 1]) + market.interval
    return format_time(int(market.time[first])), format_time(end)


def record_folds(
    store: Path,
    procedure: Procedure,
    manifest: Mapping[str, Any],
    found: Sequence[SearchedFold],
) -> None:
    tried = []
    for fold in found:
        start, stop = name_span(procedure, fold.span.train, fold.span.train_stop)
        tried.append(SpanTries(start, stop, fold.sets, fold.sharpes, fold.is_kept))
    record_tries(store, describe_search(procedure, manifest), tried)


def record_drawn(
    store: Path,
    procedure: Procedure,
    manifest: Mapping[str, Any],
    sets: Sets,
    sharpes: FloatArray,
) -> None:
    facts = describe_search(procedure, manifest)
    span = (facts["data"]["start"], facts["data"]["end"])
    record_tries(store, facts, [SpanTries(*span, sets, sharpes, np.isfinite(sharpes))])
