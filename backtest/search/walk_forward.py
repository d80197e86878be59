"""walk_forward(): tune on each train span, and trade the test span after it in one account."""

from __future__ import annotations

import itertools
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest import core, engine
from backtest.core.result_parts import Headline, Part, ShownChart, ShownTable
from backtest.core.units import DAY, YEAR_DAYS
from backtest.engine import Conditions
from backtest.market import Market, Markets
from backtest.policies import Policy
from backtest.results import Result, run_record
from backtest.results.result import Lack
from backtest.search import equal_risk as e
from backtest.search import trials as t
from backtest.search import validation as v
from backtest.search.compare import sample_returns
from backtest.search.comparison import show_accounts
from backtest.search.neighbors import find_extent
from backtest.search.problem import Search, SearchProblem
from backtest.search.selection_luck import deflate_alone
from backtest.search.tune import search_and_choose
from backtest.search.winner import StudyOutcome, StudyTask
from backtest.sweep import Evaluator, Rows, Sets, find_different, name_column, take_sets
from backtest.sweep.sets import to_plain_value

KIND = "walk-forward"
FEW_TRADES = 10
"""A fold with fewer trades than this says little about its parameters."""
MOST_NOTES = 5
"""Most kinds of warnings of folds that a walk repeats."""
MEASURES = (
    "cagr",
    "volatility",
    "sharpe",
    "max_drawdown",
    "total_return",
    "turnover",
    "fees",
    "funding",
    "liquidations",
)
NEAR_EDGE = 1e-12
"""A move of the chosen set may pass the edge of a box by this much, a rounding error."""
OF_SPANS = {
    "train_start": core.Head("trained from", "UTC"),
    "test_start": core.Head("tested from", "UTC"),
}
STABILITY = (
    "Range: of the chosen sets between quartiles, as a share of the declared range, on its scale. "
    "Plateau held: share of folds whose chosen set lies in the box of the last one. Correlation: "
    "of the ranks of all sets between consecutive folds."
)
NO_CHOICE = "a single set leaves nothing to choose"
RANK = "Rank: 1 is the best set of the test span, 0.5 the median, 0 the worst."
BESIDE = (
    "Defaults: the policy as it was given, not tuned. Constant leverage pays the same costs, and "
    "has the volatility of the re-optimized account; buy and hold is the unlevered market without "
    "costs."
)


@core.record_making
@core.checked_only("progress", "anchored")
def walk_forward(
    conditions: Conditions,
    policy: type[Policy] | Policy,
    search: Search,
    *,
    train: str = "365d",
    test: str = "30d",
    anchored: bool = False,
    gap: str = "0d",
    progress: core.Progress | None = None,
) -> WalkForward:
    """Answer :meth:`backtest.Backtest.walk_forward`, which documents it."""
    problem = v.read_validated(conditions, policy, search)
    spans = v.plan_spans(
        problem.market,
        train,
        test,
        anchored,
        gap,
        first=problem.first,
    )
    manifest = problem.describe_search(KIND, spans=describe_spans(problem.market, spans))

    def make(evaluator: Evaluator, folder: Path | None) -> WalkForward:
        searched = search_folds(
            problem,
            evaluator,
            spans,
            folder=folder,
            progress=progress,
        )

        # The account with static parameters comes first: a walk whose parameters never change
        # is that account.
        fixed = evaluator.replay(searched[0].values, first=spans[0].test)
        searched_from = v.describe_bar(problem.market, spans[0].test)
        ways = count_ways(problem.store, {**manifest, "searched": searched_from})
        result = run_walk(problem, searched) or fixed

        folds = tabulate_folds(problem, searched)
        figures = measure_walk(
            problem,
            searched,
            ranks=folds["rank"],
            result=result,
            fixed=fixed,
            ways=ways,
        )
        figures["defaults"] = measure_defaults(evaluator, first=spans[0].test)
        return WalkForward(
            folds=folds,
            result=result,
            fixed=fixed,
            stability=measure_stability(problem, searched),
            trials=tabulate_trials(searched),
            figures=figures,
            manifest=manifest,
        )

    return v.make_or_resume(WalkForward, problem, manifest, make)


def describe_spans(market: Market | Markets, spans: Sequence[v.FoldSpan]) -> dict[str, Any]:
    """Return the times of all spans as the manifest holds them."""
    table = v.tabulate_spans(market, spans)
    texts = table.apply(lambda times: times.dt.strftime("%Y-%m-%d %H:%M:%S"))
    return {"columns": list(v.TIMES), "rows": texts.to_numpy().tolist()}


def count_ways(store: Path | None, facts: Mapping[str, Any]) -> int:
    """Note a walk in the store, and return how many different ones tested some of its bars."""
    if store is None:
        return 1
    t.add_note(store, t.WALKED, facts)
    return len({note["study"] for note in t.read_notes(store, t.WALKED, facts)})


class SearchedFold(NamedTuple):
    """A fold after its search and its test.

    ``winner`` is the best of the ``trials``, a row for each distinct set (-1 if none satisfies the
    constraints), ``values`` its parameters, ``growth`` its log growth per year on the train span.
    """

    span: v.FoldSpan
    trials: pd.DataFrame
    winner: int
    values: dict[str, Any]
    growth: float
    outcome: StudyOutcome


def search_folds(
    problem: SearchProblem,
    whole: Evaluator,
    spans: Sequence[v.FoldSpan],
    *,
    folder: Path | None,
    progress: core.Progress | None,
) -> list[SearchedFold]:
    """Search each train span, and evaluate its sets on the test span after it.

    A fold in which no set can be chosen trades the set of the fold before; the first one must
    have a set of its own.
    """
    searched: list[SearchedFold] = []
    most = problem.trials or 0
    total = len(spans) * most
    accounts_begin = spans[0].train

    for k, span in enumerate(spans):
        fold = search_fold(
            problem,
            whole,
            span,
            accounts_begin,
            folder=folder and folder / f"fold-{k:05d}",
            progress=count_from(
                k * most,
                most=most,
                total=total,
                report=progress,
            ),
        )

        if fold.winner < 0 and not searched:
            raise core.ParameterError(
                "the first train span must have a set that can be chosen, from "
                f"{v.describe_bar(whole.market, span.train)} none can: {fold.outcome.warnings[0]}"
            )
        if fold.winner < 0:
            fold = fold._replace(values=searched[-1].values)
        searched.append(fold)

    core.report_progress(progress, total, total)
    return searched


def count_from(
    before: int,
    *,
    most: int,
    total: int,
    report: core.Progress | None,
) -> Callable[[t.Progress], None]:
    """Return a function that reports the progress of one fold as that of the walk."""

    def report_fold(now: t.Progress) -> None:
        core.report_progress(report, before + min(now.trials, most), total)

    return report_fold


def search_fold(
    problem: SearchProblem,
    whole: Evaluator,
    span: v.FoldSpan,
    accounts_begin: int,
    *,
    folder: Path | None,
    progress: Callable[[t.Progress], None],
) -> SearchedFold:
    """Search the train span of a fold, and evaluate all its sets on the test span.

    Accounts of the holdout begin at a bar, ``accounts_begin``. Where no set can be chosen the
    fold has no values.
    """
    # In sample: the search sees the train span alone, its verdict the test span too.
    seen: Any = SpanEvaluator(whole, span.train, span.train_stop)
    held_out: Any = SpanEvaluator(whole, accounts_begin, span.stop)
    task = StudyTask(
        problem,
        seen,
        held_out,
        split=span.test,
        facts={"id": ""},
        is_judged=False,
    )
    examiner = t.Examiner(
        seen,
        problem.goal,
        t.Journal(folder),
        total=problem.trials,
        progress=progress,
    )
    outcome = search_and_choose(task, examiner).outcome
    trials = t.gather(examiner.batches)

    # Out of sample: each different set once, from the first bar of the test span.
    rows, codes = find_different(trials.sets)
    sets = take_sets(trials.sets, rows)
    test_examiner = t.Examiner(whole, problem.goal, t.Journal(folder and folder / "test"))
    tested = test_examiner.evaluate(
        sets,
        t.PART,
        first=span.test,
        stop=span.stop,
    )

    winner = -1
    values: dict[str, Any] = {}
    growth = math.nan
    if outcome.best >= 0:
        winner = int(codes[outcome.best])
        values = read_values(whole, take_sets(trials.sets, outcome.best))
        total_return = float(trials.metrics["total_return"][outcome.best])
        growth = math.log1p(total_return) / count_train_years(whole.market, span)

    columns = {
        "in_sample": t.worst_where_broken(trials)[rows],
        "out_of_sample": v.order_scores(tested.scores, tested.metrics["ruined"]),
        "is_winner": np.arange(len(rows)) == winner,
    }
    for name in problem.names:
        columns[name_column(name)] = sets[name]
    return SearchedFold(
        span,
        pd.DataFrame(columns),
        winner,
        values,
        growth,
        outcome,
    )


def read_values(whole: Evaluator, set_values: Sets) -> dict[str, Any]:
    """Return the values of one set by name, as plain Python values."""
    settings = whole.varied.settings
    return {name: to_plain_value(settings[name], value) for name, value in set_values.items()}


def count_train_years(market: Market | Markets, span: v.FoldSpan) -> float:
    """Return the years from the first open to the last close of a train span."""
    first_open = int(market.time[span.train])
    last_close = int(market.time[span.train_stop - 1]) + market.interval
    return (last_close - first_open) / (YEAR_DAYS * DAY)


class SpanEvaluator:
    """An evaluator of accounts that begin at bar ``first``, on the bars before ``stop``."""

    def __init__(
        self,
        whole: Evaluator,
        first: int,
        stop: int,
    ) -> None:
        self.whole = whole
        self.first = first
        self.stop = stop
        self.market = whole.market.prefix(stop)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.whole, name)

    def evaluate(
        self,
        sets: Sets,
        *,
        first: int | None = None,
        stop: int | None = None,
        **terms: Any,
    ) -> Rows:
        begin = self.first if first is None else first
        end = self.stop if stop is None else stop
        return self.whole.evaluate(sets, first=begin, stop=end, **terms)

    def replay(
        self,
        values: Mapping[str, object],
        *,
        first: int | None = None,
        stop: int | None = None,
    ) -> Result:
        begin = self.first if first is None else first
        end = self.stop if stop is None else stop
        return self.whole.replay(values, first=begin, stop=end)


def list_segments(
    problem: SearchProblem,
    firsts: Sequence[int],
    sets: Sequence[Mapping[str, Any]],
) -> list[engine.Segment]:
    """Return what decides in each test span: the bar with which it begins, and the set chosen.

    Test spans adjoin: a set trades until the next one begins, the last to the end.
    """
    varied = problem.varied
    usual_overlay = problem.test.overlay
    segments = []
    stops = [*firsts[1:], problem.market.n_bars]
    for first, stop, values in zip(firsts, stops, sets, strict=True):
        overlay = varied.build_overlay(values)
        segment = engine.Segment(
            first,
            stop,
            varied.build_policies(values),
            rule=varied.build_signal(values),
            overlay=None if overlay is usual_overlay else overlay,
        )
        segments.append(segment)
    return engine.merge_segments(segments)


def run_walk(problem: SearchProblem, searched: Sequence[SearchedFold]) -> Result | None:
    """Run one account through all test spans; None if its parameters never change."""
    firsts = [fold.span.test for fold in searched]
    sets = [fold.values for fold in searched]
    segments = list_segments(problem, firsts, sets)
    if len(segments) == 1:
        return None

    overlay = segments[0].overlay or problem.test.overlay
    whole = problem.test.replace(overlay=overlay)
    # A signal as an array may begin where accounts do; the walk needs one of all bars.
    if problem.first > 0 and isinstance(whole.signal, np.ndarray):
        whole = whole.replace(signal=problem.keep_times())
    return engine.run_switched(whole, segments, compile=problem.compile)


def read_segments(
    conditions: Conditions,
    policy: type[Policy] | Policy,
    search: Search,
    folds: pd.DataFrame,
) -> list[engine.Segment]:
    """Return what decides in each test span of a walk, by its table of folds."""
    problem = v.read_validated(conditions, policy, search)
    test_starts = pd.DatetimeIndex(folds["test_start"]).as_unit("ns").asi8
    first_bars = np.searchsorted(problem.market.time, test_starts).tolist()

    # A set of parameters for each fold; a cell without a value is None.
    sets: list[dict[str, Any]] = [{} for _ in range(len(folds))]
    for name in problem.names:
        column = folds[name_column(name)].astype(object)
        values = column.where(column.notna(), None).tolist()
        for chosen, value in zip(sets, values, strict=True):
            chosen[name] = value
    return list_segments(problem, first_bars, sets)


def tabulate_folds(problem: SearchProblem, searched: Sequence[SearchedFold]) -> pd.DataFrame:
    """Return a row per fold: its spans, its best set, and what that scored."""
    folds = v.tabulate_spans(problem.market, [fold.span for fold in searched])
    for name in problem.names:
        folds[name_column(name)] = [fold.values[name] for fold in searched]

    verdicts = [fold.outcome.verdict for fold in searched]
    folds["in_sample"] = [verdict.score for verdict in verdicts]
    folds["out_of_sample"] = [verdict.holdout_score for verdict in verdicts]
    ranks = []
    for fold in searched:
        scores = fold.trials["out_of_sample"].to_numpy()
        ranks.append(v.find_rank(scores, fold.winner))
    folds["rank"] = ranks

    positive = folds["in_sample"].where(folds["in_sample"] > 0.0)
    return folds.assign(
        shrinkage=folds["out_of_sample"] / positive,
        difference=folds["out_of_sample"] - folds["in_sample"],
        trials=[verdict.trials for verdict in verdicts],
        deflated_sharpe=[verdict.deflated_sharpe for verdict in verdicts],
    )


def tabulate_trials(searched: Sequence[SearchedFold]) -> pd.DataFrame:
    """Return a row per fold and set; a score that is not finite is NaN."""
    tables = {k: fold.trials for k, fold in enumerate(searched)}
    trials = pd.concat(tables, names=["fold", "row"]).reset_index("fold")
    scores = ["in_sample", "out_of_sample"]
    trials[scores] = trials[scores].where(np.isfinite)
    return trials.reset_index(drop=True)


def measure_walk(
    problem: SearchProblem,
    searched: Sequence[SearchedFold],
    *,
    ranks: pd.Series,
    result: Result,
    fixed: Result,
    ways: int,
) -> dict[str, Any]:
    """Return the headline figures of a walk as data, in the order of the page.

    ``result`` is the account that is re-optimized, ``fixed`` the one whose parameters stay.
    ``ranks`` are those of the chosen trials out of sample, by fold, and ``ways`` the number of
    walks that were tried.
    """
    # Growth a year: the mean of the chosen trials where they were chosen, and what came after.
    inside = float(np.nanmean([fold.growth for fold in searched]))
    outside = e.find_growth(result)
    efficiency = math.nan
    if inside > 0.0:
        efficiency = outside / inside

    # A ruined account has no skill, whatever its returns before.
    sampled = sample_returns({"re-optimized": result})
    skill = deflate_alone(sampled.returns[0] - sampled.free, ways)
    if result.metrics["ruined"]:
        skill = 0.0

    trades = count_trades(problem.market, searched, result)
    benchmarks, lack = measure_benchmarks(result, fixed)
    broken = problem.goal.list_broken(result.metrics)
    return {
        "growth_in_sample": inside,
        "growth_out_of_sample": outside,
        "growth_fixed": e.find_growth(fixed),
        "efficiency": efficiency,
        "efficiency_difference": outside - inside,
        "mean_rank": float(ranks.mean()),
        "pbo": v.estimate_overfitting(ranks, ranks.count()).to_dict(),
        "ways": ways,
        "probabilistic_sharpe": skill,
        "broken": {str(rule): float(result.metrics[rule.name]) for rule in broken},
        "beside": benchmarks,
        "lack": lack,
        "trades": trades,
        "warnings": list(list_warnings(searched, trades)),
    }


def count_trades(
    market: Market | Markets,
    searched: Sequence[SearchedFold],
    result: Result,
) -> list[int]:
    """Return how many fills an account has in the test span of each fold."""
    is_fill = result.events["kind"] == "fill"
    times = pd.DatetimeIndex(result.events.loc[is_fill, "time"]).as_unit("ns").asi8
    bars = np.searchsorted(market.time, times)

    trades = []
    for fold in searched:
        is_inside = (bars >= fold.span.test) & (bars < fold.span.stop)
        trades.append(int(np.sum(is_inside)))
    return trades


def measure_defaults(evaluator: Evaluator, first: int) -> dict[str, float]:
    """Return the measures of the policy as it was given, not tuned, from a bar on.

    Empty where it cannot run so.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the tuned accounts were given
        try:
            return dict(evaluator.replay({}, first=first).metrics)
        except (core.ParameterError, core.PolicyError):
            return {}


def measure_benchmarks(result: Result, fixed: Result) -> tuple[dict[str, Any], str]:
    """Return the measures of the market and of a constant leverage at equal risk.

    The second value says why there is no constant leverage, empty if there is one.
    """
    benchmarks: dict[str, Any] = {e.BUY_AND_HOLD: e.measure_market(fixed)}
    constant = e.hold_at_equal_risk(fixed, like=result)
    if isinstance(constant, Lack):
        return benchmarks, constant.why

    lack = e.explain_distance(constant)
    if not lack:
        benchmarks[e.CONSTANT] = dict(constant.result.metrics)
    return benchmarks, lack


def list_warnings(searched: Sequence[SearchedFold], trades: Sequence[int]) -> Iterator[str]:
    """Yield warnings of a walk, one sentence each; ``trades`` are those of each fold."""
    n_folds = len(searched)
    lengths = [fold.span.stop - fold.span.test for fold in searched]
    short = [n_bars for n_bars in lengths if n_bars < v.FEW_BARS]
    if short:
        yield (
            f"{len(short)} of {n_folds} test spans have under {v.FEW_BARS} bars, the shortest "
            f"{min(short)}: scores of these folds are mostly noise"
        )

    n_idle = sum(n_trades < FEW_TRADES for n_trades in trades)
    if 2 * n_idle > n_folds:
        yield (
            f"{n_idle} of {n_folds} folds have under {FEW_TRADES} trades, {sum(trades):,} in all: "
            "too few to judge the parameters of a fold"
        )

    # Warnings that differ in their numbers alone are of one kind. The commonest come first.
    kinds: dict[str, list[str]] = {}
    for fold in searched:
        for text in fold.outcome.warnings:
            kind = re.sub(r"[-+]?\d[\d.,e+-]*", "#", text)
            kind = re.sub(r"(# [a-z]+)s\b", r"\1", kind)  # 1 fill, 2 fills
            kinds.setdefault(kind, []).append(text)
    commonest = sorted(kinds.values(), key=len, reverse=True)
    for texts in commonest[:MOST_NOTES]:
        where = f"in {len(texts)} of {n_folds} folds"
        if len(texts) == n_folds:
            where = f"in all {n_folds} folds"
        yield f"{where}, as in the first of them: {texts[0]}"


def measure_stability(problem: SearchProblem, searched: Sequence[SearchedFold]) -> pd.DataFrame:
    """Return how much the chosen set moves from fold to fold, a row per parameter."""
    correlation = correlate_ranks(searched)
    rows = {}
    for dimension in problem.space.dimensions:
        values = np.array([fold.values[dimension.name] for fold in searched])
        places = dimension.encode(values)

        width = float(np.ptp(np.quantile(places, [0.25, 0.75])))
        if dimension.options:  # options have no order, and so no range
            width = math.nan

        # Each set but the last has a box around it: is the next set inside?
        down, up = find_extent(dimension, values[:-1], problem.robustness.width)
        moves = np.diff(places)
        is_held = (moves >= -down - NEAR_EDGE) & (moves <= up + NEAR_EDGE)

        rows[dimension.name] = {
            "interquartile_range": width,
            "plateau_held": float(np.mean(is_held)) if len(is_held) else math.nan,
            "rank_correlation": correlation,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("parameter")


def correlate_ranks(searched: Sequence[SearchedFold]) -> float:
    """Return the mean rank correlation in sample of the sets that two folds in a row tried.

    NaN if no two folds in a row have three finite scores in common that are not all equal.
    """
    unused = ["out_of_sample", "is_winner"]
    correlations: list[float] = []
    for before, after in itertools.pairwise(searched):
        earlier = before.trials.drop(columns=unused)
        later = after.trials.drop(columns=unused)
        parameters = [name for name in earlier if name != "in_sample"]
        both = earlier.merge(later, on=parameters)

        scores = both[["in_sample_x", "in_sample_y"]].to_numpy()
        is_known = np.isfinite(scores).all(axis=1)
        table = pd.DataFrame(scores[is_known])
        is_constant = bool((table.nunique() == 1).any())
        if len(table) > 2 and not is_constant:
            correlations.append(table[0].corr(table[1], method="spearman"))

    if not correlations:
        return math.nan
    return float(np.mean(correlations))


@dataclass(frozen=True, eq=False, repr=False)
class WalkForward(v.Validation):
    """Result of a walk-forward: tuned on each train span, tested on the span after it.

    Attributes
    ----------
    folds : DataFrame
        One row per fold: ``train_start, train_end, test_start, test_end`` (UTC, half-open), the
        best set's parameters, ``in_sample`` and ``out_of_sample`` (the objective), ``rank`` of the
        best set among all sets out of sample (1 best, 0 worst), ``shrinkage`` (out / in; NaN where
        in is not positive), ``difference`` (out - in), ``trials``, ``deflated_sharpe``.
    result : Result
        The account over all test spans, while its parameters changed.
    fixed : Result
        The account with static parameters, those best on the first train span.
    stability : DataFrame
        Per parameter: ``interquartile_range`` of the best sets as a share of the declared range,
        ``plateau_held`` (share of folds whose chosen set lies near the last one), and the
        ``rank_correlation`` of all sets between consecutive folds.
    trials : DataFrame
        One row per fold and set tried: ``fold, in_sample, out_of_sample, is_winner``, and its
        parameters.
    figures : mapping
        Headline figures as data; the properties below name the most important. ``broken`` are the
        constraints of the search that the re-optimized account broke, ``beside`` the measures of
        the market and of a constant leverage at equal risk, ``defaults`` those of the policy as it
        was given, over the same test spans (empty where it cannot run so).
    manifest : mapping
        Everything that decides the numbers.
    """

    folds: pd.DataFrame
    result: Result
    fixed: Result
    stability: pd.DataFrame
    trials: pd.DataFrame
    figures: Mapping[str, Any]
    manifest: Mapping[str, Any]

    kind = "walk-forward"
    plural = "walk-forward validations"
    can_be_resumed = True
    inner = (v.ACCOUNTS,)
    table_names = ("folds", "stability", "trials")

    @property
    def efficiency(self) -> float:
        """Log growth per year out of sample over that in sample; NaN if that is not positive."""
        return float(self.figures["efficiency"])

    @property
    def efficiency_difference(self) -> float:
        """Log growth per year out of sample less that in sample."""
        return float(self.figures["efficiency_difference"])

    @property
    def probabilistic_sharpe(self) -> float:
        """The probability that the true Sharpe ratio out of sample is above 0.

        Deflated by the number of walks of the store that tested some of the same bars, for the best
        of several ways of choosing is overstated; the sets of the folds never saw these returns.
        """
        return float(self.figures["probabilistic_sharpe"])

    @property
    def chance(self) -> v.ChanceCount:
        """Winners that were better than the median set out of sample, beside what chance gives."""
        ranks = self.folds["rank"].dropna()
        n = len(ranks)
        n_better = int((ranks > v.EVEN).sum())
        tail = sum(math.comb(n, k) for k in range(n_better, n + 1))
        return v.ChanceCount(
            found=n_better,
            n=n,
            expected=0.5 * n,
            p_value=tail / 2**n,
        )

    @property
    def verdict(self) -> str:
        if self.result.metrics["ruined"]:
            return "do not trust it: the re-optimized account was ruined out of sample"

        pbo = self.pbo
        ratio = f"probabilistic Sharpe ratio {core.format_probability(self.probabilistic_sharpe)}"
        skill = f"{ratio} out of sample"
        ways = int(self.figures["ways"])
        if ways > 1:
            skill += f", deflated by {ways} ways of choosing"

        if self.probabilistic_sharpe < v.EVIDENCE:
            return f"no evidence that re-optimizing finds what lasts: {skill}; {self._count_lost()}"
        if math.isnan(pbo):
            return f"evidence of a gain out of sample, {skill}; {NO_CHOICE}"
        if pbo > v.EVEN:
            return (
                "the policy gains out of sample, but choosing its parameters adds nothing: "
                f"{ratio}, yet {self._count_lost()}"
            )
        if pbo.high >= v.EVEN:
            return (
                "the policy gains out of sample, and choosing its parameters may add nothing: "
                f"{ratio}; {self._count_won()}"
            )
        return f"evidence that it lasts: {skill}, and {self._count_won()}"

    def _count_won(self) -> str:
        count = self.chance
        return (
            f"{count.found} of {count.n} chosen sets were better than the median "
            f"({count.expected:g} by chance)"
        )

    def _count_lost(self) -> str:
        count = self.chance
        if count.n == 0:
            return NO_CHOICE
        return (
            f"{count.n - count.found} of {count.n} chosen sets were no better than the median "
            f"({count.expected:g} by chance)"
        )

    @property
    def notices(self) -> tuple[str, ...]:
        rules = self.figures["broken"]
        if not rules:
            return super().notices
        broken = ", ".join(f"{rule} (it came to {value:.4g})" for rule, value in rules.items())
        text = f"Out of sample the account broke a constraint of the search: {broken}."
        return (text, *super().notices)

    def list_remarks(self) -> Iterator[str]:
        """Yield the sentences under the figures of the verdict."""
        if self.pbo > v.EVEN:
            yield (
                "The choice is no better than chance: the overfitting probability is "
                f"{self.pbo:.2f}."
            )
        elif self.chance.n and self.pbo.high >= v.EVEN:
            chance = core.format_p_value(self.chance.p_value)
            yield f"By chance as many chosen sets or more are better with probability {chance}."

        span = self.result.span
        days = run_record.count_days_between(span.start, int(span.closes[-1]))
        better = e.name_better(self.figures["beside"], self.result.metrics, days=days)
        if better:
            yield f"{core.capitalize(better)}."
        if self.figures["lack"]:
            yield f"No constant leverage stands beside it: {self.figures['lack']}."

    @property
    def note(self) -> str:
        return f"{len(self.folds):,} folds"

    @property
    def heading(self) -> str:
        return f"{self.policy_name} walked forward over {len(self.folds)} folds"

    @property
    def details(self) -> str:
        inside = core.format_percent(self.figures["growth_in_sample"])
        outside = core.format_percent(self.figures["growth_out_of_sample"])
        sentences = [
            *self.list_remarks(),
            self.describe_search(),
            f"Log growth per year was {inside} in sample and {outside} out of sample.",
        ]

        span = self.result.span
        short = run_record.describe_short(span.start, span.closes[-1], of=" out of sample")
        if short:
            sentences.append(short)
        return " ".join(sentences)

    def list_parts(self) -> list[Part]:
        folds = self.folds.drop(columns=["train_end", "test_end", "shrinkage"])
        return [
            Part(
                key="account",
                title="The account over time",
                lead="One account through all test spans: it trades from what it holds when "
                "parameters change.",
                blocks=(self._chart_accounts(), self._show_measures()),
                shows="both",
            ),
            Part(
                key="choice",
                title="What choosing was worth",
                lead="Sets chosen on train spans, in their test spans.",
                blocks=(
                    self._chart_choice(),
                    ShownTable(folds, "Folds", RANK, heads=OF_SPANS),
                    ShownTable(self.stability, "Stability", STABILITY),
                ),
            ),
        ]

    def _chart_accounts(self) -> ShownChart:
        """Return the unit values of both accounts; lines mark where parameters may change."""
        units = {
            "re-optimized": read_units(self.result),
            "static parameters": read_units(self.fixed),
        }
        changes = pd.DatetimeIndex(self.folds["test_start"]).as_unit("ns").asi8
        return show_accounts(
            pd.DataFrame(units),
            colors={"re-optimized": "accent", "static parameters": "neutral"},
            marks=tuple(map(float, changes)),
            more="Thin lines: parameters may change.",
        )

    def _show_measures(self) -> ShownTable:
        """Return the measures of both accounts, and of what is held beside them."""
        rows = {
            "re-optimized": dict(self.result.metrics),
            "static parameters": dict(self.fixed.metrics),
        }
        if self.figures["defaults"]:
            rows["defaults"] = self.figures["defaults"]
        rows |= self.figures["beside"]
        table = pd.DataFrame.from_dict(rows, orient="index")
        measures = table.reindex(columns=list(MEASURES)).astype(float)
        # What is left of a ruined account has no ratio of return to risk.
        measures.loc[table["ruined"] > 0.0, "sharpe"] = math.nan
        return ShownTable(
            measures,
            "Measures over all test spans",
            BESIDE,
            labels=core.Head("account"),
            columns=MEASURES,
        )

    def _chart_choice(self) -> ShownChart:
        """Return the scores of all sets in and out of sample, the chosen ones in color."""
        measure = self.objective
        sets = self.trials.set_index("in_sample")
        scores = sets["out_of_sample"]
        is_chosen = sets["is_winner"]
        table = pd.DataFrame(
            {
                "all sets": scores.where(~is_chosen),
                "chosen sets": scores.where(is_chosen),
            }
        )
        return ShownChart(
            key="scatter",
            title=f"{measure} in and out of sample",
            caption=v.SCATTER,
            table=table,
            kind="scatter",
            colors={"all sets": "neutral", "chosen sets": "accent"},
            x=f"{measure} in sample",
            y=f"{measure} out of sample",
            has_legend=True,
            height=400,
        )

    def list_assumptions(self) -> tuple[str, ...]:
        facts = self.manifest
        return (
            f"Each fold was searched with {facts['trials']:,} trials at most, seed "
            f"{facts['seed']}, sampler {facts['sampler']}. The Sharpe ratio of the account is out "
            "of sample: the sets of the folds do not deflate it, only walks that were compared.",
        )

    def list_measures(self) -> Mapping[str, float]:
        return v.select_metrics(self.result.metrics)

    def list_numbers(self) -> list[Headline]:
        pbo = self.pbo
        is_ruined = self.fixed.metrics["ruined"] > 0.0
        ways = int(self.figures["ways"])
        meaning = f"that the true Sharpe is above 0; over {v.EVIDENCE} would be evidence"
        if ways > 1:
            meaning += f", deflated by {ways} ways of choosing"

        return [
            Headline(
                "sharpe",
                "Sharpe, re-optimized",
                self.result.metrics["sharpe"],
                style="decimals",
                note="out of sample",
            ),
            Headline(
                "probabilistic_sharpe",
                "Probabilistic Sharpe ratio",
                self.probabilistic_sharpe,
                style="probability",
                note=meaning,
            ),
            Headline(
                "efficiency",
                "Walk-forward efficiency",
                self.efficiency,
                style="decimals",
                note="growth out of sample over in sample (Pardo)",
            ),
            Headline(
                "pbo",
                "Overfitting",
                float(pbo),
                style="decimals",
                note="share of chosen sets no better than the median, 0.5 by chance; "
                f"{pbo.low:.2f} to {pbo.high:.2f}",
            ),
            Headline(
                "sharpe_fixed",
                "Sharpe, static",
                math.nan if is_ruined else self.fixed.metrics["sharpe"],
                style="decimals",
                note="ruined over the same bars" if is_ruined else "over the same bars",
            ),
        ]

    def __repr__(self) -> str:
        name = self.manifest["policy"]["name"]
        return (
            f"<WalkForward of {name}: {len(self.folds)} folds, efficiency {self.efficiency:z.2f}>"
        )

    def to_dict(self) -> dict[str, Any]:
        return self._write_data(
            "walk",
            chance=self.chance._asdict(),
            folds=core.list_records(self.folds),
            stability=core.list_records(self.stability),
            metrics=dict(self.result.metrics),
            metrics_fixed=dict(self.fixed.metrics),
        )

    @property
    def accounts(self) -> Mapping[str, Result]:
        return {"fixed": self.fixed, "result": self.result}

    @staticmethod
    def _read_progress(folder: Path, manifest: Mapping[str, Any]) -> str:
        done = len(list(folder.glob("fold-*")))
        if not done:
            return "no set yet"
        return f"in fold {done:,} of {len(manifest['spans']['rows']):,}"


def read_units(account: Result) -> pd.Series:
    """Return the unit value of an account at each close, 1 at its start."""
    unit = account.of_account("unit") / account.tally.first_unit
    return pd.Series(unit, core.utc_index(account.span.named))
