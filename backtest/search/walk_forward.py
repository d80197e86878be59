"""walk_forward(): tune on each train span, and trade the test span after it in one account."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest import core, engine
from backtest.core.result_parts import Headline, Part, ShownChart, ShownTable
from backtest.core.units import DAY, YEAR_DAYS
from backtest.engine import Conditions
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
MEASURES = ("cagr", "volatility", "sharpe", "max_drawdown", "total_return", "turnover", "fees",
            "funding", "liquidations")  # fmt: skip
OF_SPANS = {
    "train_start": core.Head("trained from", "UTC"),
    "test_start": core.Head("tested from", "UTC"),
}
STABILITY = (
    "Range: of the chosen sets between quartiles, as a share of the declared range, on its scale. "
    "Plateau held: share of folds whose chosen set lies in the box of the last one. Correlation: "
    "of the ranks of all sets between consecutive folds."
)
RANK = "Rank: 1 is the best set of the test span, 0.5 the median, 0 the worst."
BESIDE = (
    "Constant leverage pays the same costs, and has the volatility of the re-optimized account; "
    "buy and hold is the unlevered market without costs."
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
    market, store = problem.market, problem.store
    spans = v.plan_spans(market, train, test, anchored, gap, first=problem.first)
    table = v.tabulate_spans(market, spans).to_numpy()
    rows = [[f"{time:%Y-%m-%d %H:%M:%S}" for time in row] for row in table.tolist()]
    manifest = problem.describe_search(KIND, spans={"columns": list(v.TIMES), "rows": rows})

    def make(evaluator: Evaluator, folder: Path | None) -> WalkForward:
        found = search_folds(problem, evaluator, spans, folder, progress)
        fixed = evaluator.replay(found[0].values, first=spans[0].test)
        ways = count_ways(store, {**manifest, "searched": v.describe_bar(market, spans[0].test)})
        result = run_walk(problem, found) or fixed
        folds = v.tabulate_spans(market, spans)
        for name in problem.names:
            folds[name_column(name)] = [fold.values[name] for fold in found]
        verdicts = [fold.outcome.verdict for fold in found]
        folds["in_sample"] = [each.score for each in verdicts]
        folds["out_of_sample"] = [each.holdout_score for each in verdicts]
        folds["rank"] = [v.find_rank(x.trials["out_of_sample"].to_numpy(), x.winner) for x in found]
        folds = folds.assign(
            shrinkage=folds["out_of_sample"] / folds["in_sample"].where(folds["in_sample"] > 0.0),
            difference=folds["out_of_sample"] - folds["in_sample"],
            trials=[each.trials for each in verdicts],
            deflated_sharpe=[each.deflated_sharpe for each in verdicts],
        )
        inside, outside = float(np.nanmean([fold.growth for fold in found])), e.find_growth(result)
        fills = result.events.loc[result.events["kind"] == "fill", "time"]
        rows = np.searchsorted(market.time, pd.DatetimeIndex(fills).as_unit("ns").asi8)
        trades = [int(np.sum((rows >= fold.span.test) & (rows < fold.span.stop))) for fold in found]
        sampled = sample_returns({"re-optimized": result})
        skill = deflate_alone(sampled.returns[0] - sampled.free, ways)
        beside = {e.BUY_AND_HOLD: e.measure_market(fixed)}
        held = e.hold_at_equal_risk(fixed, like=result)
        lack = held.why if isinstance(held, Lack) else e.explain_distance(held)
        if isinstance(held, e.ScaledAccount) and not lack:
            beside[e.CONSTANT] = dict(held.result.metrics)
        broken = problem.goal.list_broken(result.metrics)
        figures = {
            "growth_in_sample": inside,
            "growth_out_of_sample": outside,
            "growth_fixed": e.find_growth(fixed),
            "efficiency": outside / inside if inside > 0.0 else math.nan,
            "efficiency_difference": outside - inside,
            "mean_rank": float(folds["rank"].mean()),
            "pbo": v.estimate_overfitting(folds["rank"], folds["rank"].count()).to_dict(),
            "ways": ways,
            "probabilistic_sharpe": 0.0 if result.metrics["ruined"] else skill,
            "broken": {str(each): float(result.metrics[each.name]) for each in broken},
            "beside": beside,
            "lack": lack,
            "trades": trades,
            "warnings": list(list_warnings(found, trades)),
        }
        tables = {k: fold.trials for k, fold in enumerate(found)}
        trials = pd.concat(tables, names=["fold", "row"]).reset_index("fold")
        sides = ["in_sample", "out_of_sample"]
        trials[sides] = trials[sides].where(np.isfinite)
        return WalkForward(
            folds=folds,
            result=result,
            fixed=fixed,
            stability=measure_stability(problem, found),
            trials=trials.reset_index(drop=True),
            figures=figures,
            manifest=manifest,
        )

    return v.make_or_resume(WalkForward, problem, manifest, make)


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
    spans: list[v.FoldSpan],
    folder: Path | None,
    progress: core.Progress | None,
) -> list[SearchedFold]:
    found: list[SearchedFold] = []
    most = problem.trials or 0
    for k, span in enumerate(spans):

        def report(now: t.Progress, before: int = k * most) -> None:
            core.report_progress(progress, before + min(now.trials, most), len(spans) * most)

        own = None if folder is None else folder / f"fold-{k:05d}"
        seen: Any = SpanEvaluator(whole, span.train, span.train_stop)
        held_out: Any = SpanEvaluator(whole, spans[0].train, span.stop)
        task = StudyTask(problem, seen, held_out, span.test, {"id": ""}, is_judged=False)
        journal = t.Journal(own)
        examiner = t.Examiner(seen, problem.goal, journal, total=problem.trials, progress=report)
        outcome = search_and_choose(task, examiner).outcome
        trials = t.gather(examiner.batches)
        rows, codes = find_different(trials.sets)
        sets = take_sets(trials.sets, rows)
        later = t.Examiner(whole, problem.goal, t.Journal(own and own / "test"))
        outside = later.evaluate(sets, t.PART, first=span.test, stop=span.stop)
        winner, values, growth = -1, {}, math.nan
        if outcome.best >= 0:
            best, settings = take_sets(trials.sets, outcome.best), whole.varied.settings
            values = {name: to_plain_value(settings[name], value) for name, value in best.items()}
            winner = int(codes[outcome.best])
            first, stop = whole.market.time[[span.train, span.train_stop - 1]].tolist()
            years = (stop + whole.market.interval - first) / (YEAR_DAYS * DAY)
            growth = math.log1p(float(trials.metrics["total_return"][outcome.best])) / years
        elif found:
            values = found[-1].values
        else:
            raise core.ParameterError(
                "the first train span must have a set that can be chosen, from "
                f"{v.describe_bar(whole.market, span.train)} none can: {outcome.warnings[0]}"
            )
        table = pd.DataFrame({
            "in_sample": t.worst_where_broken(trials)[rows],
            "out_of_sample": v.order_scores(outside.scores, outside.metrics["ruined"]),
            "is_winner": np.arange(len(rows)) == winner,
            **{name_column(name): sets[name] for name in problem.names},
        })  # fmt: skip
        found.append(SearchedFold(span, table, winner, values, growth, outcome))
    core.report_progress(progress, len(spans) * most, len(spans) * most)
    return found


class SpanEvaluator:
    """An evaluator of accounts that begin at bar ``first``, on the bars before ``stop``."""

    def __init__(self, whole: Evaluator, first: int, stop: int) -> None:
        self.whole, self.first, self.stop = whole, first, stop
        self.market = whole.market.prefix(stop)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.whole, name)

    def evaluate(
        self, sets: Sets, *, first: int | None = None, stop: int | None = None, **terms: Any
    ) -> Rows:
        begin = self.first if first is None else first
        end = self.stop if stop is None else stop
        return self.whole.evaluate(sets, first=begin, stop=end, **terms)

    def replay(
        self, values: Mapping[str, object], *, first: int | None = None, stop: int | None = None
    ) -> Result:
        begin = self.first if first is None else first
        end = self.stop if stop is None else stop
        return self.whole.replay(values, first=begin, stop=end)


def run_walk(problem: SearchProblem, found: list[SearchedFold]) -> Result | None:
    """Run one account through all test spans; None if its parameters never change."""
    varied, segments = problem.varied, []
    stops = [*(fold.span.test for fold in found[1:]), problem.market.n_bars]
    for fold, stop in zip(found, stops, strict=True):
        overlay = varied.build_overlay(fold.values)
        own = None if overlay is problem.test.overlay else overlay
        policy, rule = varied.build_policies(fold.values), varied.build_signal(fold.values)
        segments.append(engine.Segment(fold.span.test, stop, policy, rule, own))
    segments = engine.merge_segments(segments)
    if len(segments) == 1:
        return None
    whole = problem.test.replace(overlay=segments[0].overlay or problem.test.overlay)
    if problem.first > 0 and isinstance(whole.signal, np.ndarray):  # it may begin at the start
        whole = whole.replace(signal=problem.keep_times())
    return engine.run_switched(whole, segments, compile=problem.compile)


def list_warnings(found: Sequence[SearchedFold], trades: Sequence[int]) -> Iterator[str]:
    bars = (fold.span.stop - fold.span.test for fold in found)
    if short := [each for each in bars if each < v.FEW_BARS]:
        yield (
            f"{len(short)} of {len(found)} test spans have under {v.FEW_BARS} bars, the shortest "
            f"{min(short)}: scores of these folds are mostly noise"
        )
    few = sum(n < FEW_TRADES for n in trades)
    if 2 * few > len(found):
        yield (
            f"{few} of {len(found)} folds have under {FEW_TRADES} trades, {sum(trades):,} in all: "
            "too few to judge the parameters of a fold"
        )
    kinds: dict[str, list[str]] = {}
    for text in (text for fold in found for text in fold.outcome.warnings):
        kinds.setdefault(re.sub(r"[-+]?\d[\d.,e+-]*", "#", text), []).append(text)
    for texts in sorted(kinds.values(), key=len, reverse=True)[:MOST_NOTES]:
        yield f"in {len(texts)} of {len(found)} folds, as in the first of them: {texts[0]}"


def measure_stability(problem: SearchProblem, found: Sequence[SearchedFold]) -> pd.DataFrame:
    known: list[float] = []  # rank correlations of three or more sets that two folds tried
    for pair in itertools.pairwise(found):
        one, other = (fold.trials.drop(columns=["out_of_sample", "is_winner"]) for fold in pair)
        both = one.merge(other, on=[name for name in one if name != "in_sample"])
        scores = both[["in_sample_x", "in_sample_y"]].to_numpy()
        table = pd.DataFrame(scores[np.isfinite(scores).all(axis=1)])
        if len(table) > 2 and not (table.nunique() == 1).any():
            known.append(table[0].corr(table[1], method="spearman"))
    rows = {}
    for each in problem.space.dimensions:
        values = np.array([fold.values[each.name] for fold in found])
        places = each.encode(values)
        width = np.ptp(np.quantile(places, [0.25, 0.75]))
        down, up = find_extent(each, values[:-1], problem.robustness.width)
        moves = np.diff(places)
        is_held = (moves >= -down - 1e-12) & (moves <= up + 1e-12)
        rows[each.name] = {
            "interquartile_range": math.nan if each.options else float(width),
            "plateau_held": float(np.mean(is_held)) if len(is_held) else math.nan,
            "rank_correlation": float(np.mean(known)) if known else math.nan,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("parameter")


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
        the market and of a constant leverage at equal risk.
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
        n, found = len(ranks), int((ranks > v.EVEN).sum())
        tail = sum(math.comb(n, k) for k in range(found, n + 1))
        return v.ChanceCount(found, n, 0.5 * n, tail / 2**n)

    @property
    def verdict(self) -> str:
        if self.result.metrics["ruined"]:
            return "do not trust it: the re-optimized account was ruined out of sample"
        pbo, count, ways = self.pbo, self.chance, int(self.figures["ways"])
        number = core.format_probability(self.probabilistic_sharpe)
        ratio = f"probabilistic Sharpe ratio {number}"
        number = f"{ratio} out of sample"
        if ways > 1:
            number += f", deflated by {ways} ways of choosing"
        words = f"chosen sets were {{}} the median ({count.expected:g} by chance)"
        lost = f"{count.n - count.found} of {count.n} {words.format('no better than')}"
        won = f"{count.found} of {count.n} {words.format('better than')}"
        gains, single = "the policy gains out of sample", "a single set leaves nothing to choose"
        if self.probabilistic_sharpe < v.EVIDENCE:
            text = (
                f"no evidence that re-optimizing finds what lasts: {number}; "
                f"{lost if count.n else single}"
            )
        elif math.isnan(pbo):
            text = f"evidence of a gain out of sample, {number}; {single}"
        elif pbo > v.EVEN:
            text = f"{gains}, but choosing its parameters adds nothing: {ratio}, yet {lost}"
        elif pbo.high >= v.EVEN:
            text = f"{gains}, and choosing its parameters may add nothing: {ratio}; {won}"
        else:
            text = f"evidence that it lasts: {number}, and {won}"
        return text

    @property
    def notices(self) -> tuple[str, ...]:
        rules = self.figures["broken"]
        if not rules:
            return super().notices
        broken = ", ".join(f"{k} (it came to {value:.4g})" for k, value in rules.items())
        text = f"Out of sample the account broke a constraint of the search: {broken}."
        return (text, *super().notices)

    def list_remarks(self) -> Iterator[str]:
        """Yield what stands under the figures of the verdict, in sentences."""
        if self.pbo > v.EVEN:
            yield (
                "The choice is no better than chance: the overfitting probability is "
                f"{self.pbo:.2f}."
            )
        elif self.chance.n and self.pbo.high >= v.EVEN:
            chance = core.format_probability(self.chance.p_value)
            yield f"By chance as many chosen sets or more are better with probability {chance}."
        span = self.result.span
        days = run_record.count_days_between(span.start, int(span.closes[-1]))
        if better := e.name_better(self.figures["beside"], self.result.metrics, days=days):
            yield f"{core.capitalize(better)}."

    @property
    def note(self) -> str:
        return f"{len(self.folds):,} folds"

    @property
    def heading(self) -> str:
        return f"{self.policy_name} walked forward over {len(self.folds)} folds"

    @property
    def details(self) -> str:
        found = (self.figures[f"growth_{k}_sample"] for k in ("in", "out_of"))
        inside, outside = map(core.format_percent, found)
        span = self.result.span
        short = run_record.describe_short(span.start, span.closes[-1], " out of sample")
        remarks = " ".join(self.list_remarks())
        growth = f"Log growth per year was {inside} in sample and {outside} out of sample."
        return " ".join(filter(None, (remarks, self.describe_search(), growth, short)))

    def describe_benchmarks(self) -> str:
        """Return what stands beside the accounts, and why constant leverage does not, if so."""
        if lack := self.figures["lack"]:
            return f"{BESIDE} There is no constant leverage: {lack}."
        return BESIDE

    def list_parts(self) -> list[Part]:
        kept = {"re-optimized": self.result, "static parameters": self.fixed}
        units, rows = {}, {}
        for name, each in kept.items():
            unit = each.of_account("unit") / each.tally.first_unit
            units[name] = pd.Series(unit, core.utc_index(each.span.named))
            rows[name] = dict(each.metrics)
        table = pd.DataFrame.from_dict({**rows, **self.figures["beside"]}, orient="index")
        table = table.reindex(columns=list(MEASURES)).astype(float)
        edges = pd.DatetimeIndex(self.folds["test_start"]).as_unit("ns").asi8
        accounts = (
            show_accounts(pd.DataFrame(units), dict(zip(kept, ("accent", "neutral"), strict=True)),
                          tuple(map(float, edges)), "Thin lines: parameters may change."),
            ShownTable(table, "Measures over all test spans", self.describe_benchmarks(),
                       labels=core.Head("account"), columns=MEASURES),
        )  # fmt: skip
        folds = self.folds.drop(columns=["train_end", "test_end", "shrinkage"])
        points, what = self.trials.set_index("in_sample"), self.objective
        out, is_best = points["out_of_sample"], points["is_winner"]
        drawn = pd.DataFrame({"all sets": out.where(~is_best), "chosen sets": out.where(is_best)})
        scatter = ShownChart(
            "scatter", f"{what} in and out of sample", v.SCATTER, drawn, "scatter",
            {"all sets": "neutral", "chosen sets": "accent"}, f"{what} in sample",
            f"{what} out of sample", has_legend=True, height=400,
        )  # fmt: skip
        return [
            Part("account", "The account over time", "One account through all test spans: it "
                 "trades from what it holds when parameters change.",
                 accounts, "both"),
            Part("choice", "What choosing was worth", "Sets chosen on train spans, in their test "
                 "spans.", (
                     scatter,
                     ShownTable(folds, "Folds", RANK, heads=OF_SPANS),
                     ShownTable(self.stability, "Stability", STABILITY))),
        ]  # fmt: skip

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
        pbo, ways = self.pbo, int(self.figures["ways"])
        said = f"that the true Sharpe is above 0; over {v.EVIDENCE} would be evidence"
        said += f", deflated by {ways} ways of choosing" * (ways > 1)
        return [
            Headline("sharpe", "Sharpe, re-optimized", self.result.metrics["sharpe"], "decimals",
                     "out of sample"),
            Headline("probabilistic_sharpe", "Probabilistic Sharpe ratio",
                     self.probabilistic_sharpe, "probability", said),
            Headline("efficiency", "Walk-forward efficiency", self.efficiency, "decimals",
                     "growth out of sample over in sample (Pardo)"),
            Headline("pbo", "Overfitting", float(pbo), "decimals", "share of chosen sets no better "
                     f"than the median, 0.5 by chance; {pbo.low:.2f} to {pbo.high:.2f}"),
            Headline("sharpe_fixed", "Sharpe, static", self.fixed.metrics["sharpe"],
                     "decimals", "over the same bars"),
        ]  # fmt: skip

    def __repr__(self) -> str:
        name = self.manifest["policy"]["name"]
        return f"<WalkForward of {name}: {len(self.folds)} folds, efficiency {self.efficiency:.2f}>"

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
        return f"in fold {done:,} of {len(manifest['spans']['rows']):,}" if done else "no set yet"
