"""cross_validate(): combinatorial purged cross-validation of a search, at the cost of one sweep."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeAlias

import numpy as np
import pandas as pd

from backtest import core, engine
from backtest.account.money import COSTS
from backtest.core import Progress, as_of
from backtest.core.result_parts import Headline, Part, ShownChart, ShownTable
from backtest.core.units import DAY, YEAR_DAYS
from backtest.engine import Conditions
from backtest.policies import Policy
from backtest.results import RUIN, annualize_ratios
from backtest.search import problem as problems
from backtest.search import validation as v
from backtest.search.compare import compound_free
from backtest.search.trials import Goal, Journal, find_distinct
from backtest.sweep import Evaluator, count_sets, draw_sets, name_column, take_sets, to_plain_value
from backtest.sweep.sets import Sets
from backtest.venue import Venue

KIND = "cross-validation"
CHUNK = 256
"""Sets that are run at a time, which is what a kill can lose."""
RETURNS, FAILED, DECIDED = "sampled returns", "has failed", "share of bars decided on"
PANELS, PANEL_SETS = 200, 50
"""Panels of noise by which the interval of an overfitting probability is calibrated."""
MOST_COMPARED = 500
"""Splits of a panel, spread evenly."""
LEAST_SHARE = 1e-13
"""A variance below this share of the mean square is a rounding error of a constant."""

SUMS = (
    "price_pnl", *COSTS, "liquidations", "liquidation_loss", "bad_debt", "stops", "take_profits",
    "margin_calls", "calls_met", "calls_failed", "liquidated_after_call", "flows", "top_ups",
    "fills",
)  # fmt: skip
MAXIMA = ("max_drawdown", "ruined", "peak_leverage", "peak_margin_ratio")
MEANS = ("turnover", "mean_leverage", "gross_over_cap", "mean_margin_use")
OF_RETURNS = ("total_return", "cagr", "volatility", "sharpe", "sortino")
KNOWN = frozenset({*SUMS, *MAXIMA, *MEANS, *OF_RETURNS, "calmar"})
"""Measures of consecutive fresh accounts that follow from those of each."""
FIRST = ("sharpe", "cagr", "total_return", "volatility", "max_drawdown", "ruined")
MEASURES = ("sharpe", "cagr", "total_return", "volatility", "max_drawdown", "fees", "ruined")
BINS = 10
BARS = {"no better than the median set": "loss", "better": "accent"}
SPREAD = "the spread of the paths is not an interval"


@core.record_making
@core.checked_only("progress")
def cross_validate(
    conditions: Conditions,
    policy: type[Policy] | Policy,
    search: problems.Search,
    *,
    groups: int = 10,
    test_groups: int = 2,
    embargo: int | str | None = None,
    progress: Progress | None = None,
) -> CrossValidation:
    """Answer :meth:`backtest.Backtest.cross_validate`, which documents it."""
    problem = v.read_validated(conditions, policy, search)
    problems.refuse_several(problem, "cross_validate")
    if several := {*problems.name_measures(problem.objective, problem.goal)} - KNOWN:
        raise core.ParameterError(
            "objective and constraints of a cross-validation must add up over groups, as sharpe, "
            f"cagr, max_drawdown and fees do, got {', '.join(sorted(several))}; a walk-forward "
            "accepts any"
        )
    market, sampling = problem.market, problem.test.sampling
    cut, k = v.split_groups(market, groups, test_groups, sampling, first=problem.first)
    bars = v.check_embargo(embargo, cut, market)
    period = max(core.parse_duration(sampling, "sampling"), market.interval)
    skipped = min(-(-bars * market.interval // period), int(np.diff(cut.samples).min()) - 2)
    manifest = problem.describe_search(KIND, groups=cut.n, test_groups=k, embargo=bars)
    drawn = draw_sets(problem.space, problem.trials or 0, seed=problem.seed)
    sets = take_sets(drawn, find_distinct(drawn))

    def make(evaluator: Evaluator, folder: Path | None) -> CrossValidation:
        evaluator.check_causal(problem.space.list_ends())
        runs = run_groups(evaluator, sets, cut, folder, progress)
        if any(each.failed.all() for each in runs):
            raise core.PolicyError("every set failed in a group; run one with bt.run to see more")
        periods = engine.count_periods(problem.test.calendar, sampling, market, problem.first)
        plain, late = (build_parts(problem, cut, runs, each) for each in (0, skipped))
        failed = np.any([each.failed for each in runs], axis=0)

        def score(parts: Sequence[GroupPart]) -> tuple[core.FloatArray, core.FloatArray]:
            """Return the score of each set on some groups, and how far it breaks constraints."""
            metrics = combine_parts(parts, periods)
            scores, violation = problem.goal.score(metrics, failed)
            return v.order_scores(scores, metrics["ruined"]), violation

        insides, outsides = [], []
        tests = list(itertools.combinations(range(cut.n), k))
        for tested in tests:
            is_late = v.find_embargoed(cut.n, tested)
            rest = [late[g] if is_late[g] else plain[g] for g in range(cut.n) if g not in tested]
            inside, violation = score(rest)
            insides.append(np.where(violation == 0.0, inside, -np.inf))
            outsides.append(score([plain[g] for g in tested])[0])
        splits = choose_winners(insides, outsides)
        rows = splits.pop("row").to_numpy()
        objective, empty = problem.goal.objective, int(np.sum(rows < 0))
        text = describe_empty(problem.goal, runs, empty, len(rows)) if empty else ""
        matrix = np.stack([objective.score(each.metrics) for each in runs], axis=1)
        splits.insert(0, "groups", tests)
        for name in problem.names:
            setting = problem.varied.settings[name]
            values = [None if row < 0 else to_plain_value(setting, sets[name][row])
                      for row in rows.tolist()]  # fmt: skip
            splits[name_column(name)] = pd.Series(values)
        known = splits[["in_sample", "out_of_sample"]].where(np.isfinite).median()
        return CrossValidation(
            splits=splits.rename_axis("split"),
            paths=stitch_paths(rows[np.array(v.list_paths(cut.n, k))], plain, runs, periods),
            matrix=pd.DataFrame(matrix).rename_axis("set"),
            sets=pd.DataFrame({name_column(name): sets[name] for name in problem.names}),
            figures={
                "embargo_bars": bars,
                "embargo_samples": skipped,
                "sets": count_sets(sets),
                "pbo": v.estimate_overfitting(
                    splits["rank"], count_independent(cut.n, k)
                ).to_dict(),
                "mean_rank": float(splits["rank"].mean()),
                "median_in_sample": float(known["in_sample"]),
                "median_out_of_sample": float(known["out_of_sample"]),
                "warnings": [text] if text else [],
            },
            manifest=manifest,
        )

    return v.make_or_resume(CrossValidation, problem, manifest, make)


class GroupRuns(NamedTuple):
    """All sets in one group: measures of shape (n_sets,) and returns (n_samples, n_sets).

    ``decided`` are the shares of its bars on which they decided.
    """

    metrics: dict[str, core.FloatArray]
    returns: core.FloatArray
    failed: core.BoolArray
    decided: core.FloatArray


def describe_empty(goal: Goal, runs: Sequence[GroupRuns], n_empty: int, n_splits: int) -> str:
    """Say why splits have no best set: constraints, orders, or columns that are not known."""
    name = goal.objective.name.removeprefix("-")
    text = f"{n_empty:,} of {n_splits:,} splits have no set with a finite {name}"
    if any(each != RUIN for each in goal.constraints):
        text += " that satisfies all constraints"

    turnovers = np.array([each.metrics["turnover"] for each in runs])  # (n_groups, n_sets)
    undecided = np.array([each.decided for each in runs]) == 0.0
    unfilled = (turnovers == 0.0) & ~undecided
    accounts = f"of {turnovers.size:,} accounts, of a set in a group each"
    if undecided.any():
        text += (
            f"; {np.sum(undecided):,} {accounts}, never decided, since their columns were not "
            "known before its end: too long a warm-up; give more bars, or shorter windows"
        )
    if unfilled.any():
        text += f"; {np.sum(unfilled):,} {accounts}, filled no order: run one of them to see why"
    return text


def run_groups(
    evaluator: Evaluator,
    sets: Sets,
    groups: v.Groups,
    folder: Path | None,
    progress: Progress | None,
) -> list[GroupRuns]:
    spans = [groups.span(group) for group in range(groups.n)]
    n, journal, chunks = count_sets(sets), Journal(folder), []
    for first in range(0, n, CHUNK):
        some = take_sets(sets, slice(first, first + CHUNK))
        tables: list[pd.DataFrame] = []
        while len(tables) < groups.n and (table := journal.read_table()) is not None:
            tables.append(table)
        for begin, end in spans[len(tables) :]:
            rows = evaluator.evaluate(some, first=begin, stop=end, returns=True).finish()
            failed = np.array([error != "" for error in rows.errors], dtype=np.bool_)
            returns = np.where(failed, 0.0, rows.returns).T.copy()
            beside = {RETURNS: [*returns], FAILED: failed, DECIDED: rows.shares}
            tables.append(pd.DataFrame({**rows.metrics, **beside}))
            journal.write_table(tables[-1])
        chunks.append(tables)
        core.report_progress(progress, min(first + CHUNK, n), n)
    found = []
    for parts in zip(*chunks, strict=True):
        table = pd.concat(parts, ignore_index=True)
        each, failed = table.pop(RETURNS), table.pop(FAILED).to_numpy()
        decided = table.pop(DECIDED).to_numpy()
        length = max(map(len, each))
        returns = np.stack([np.pad(one, (0, length - len(one))) for one in each], axis=1)
        metrics = {str(name): table[name].to_numpy() for name in table}
        found.append(GroupRuns(metrics, returns, failed, decided))
    return found


TIME = ("n", "years")
MOMENTS = (*TIME, "growth", "total", "squares", "excess", "excess_squares", "downside")
"""Numbers of samples and years, and sums over sampled returns r and excess returns e: of
log(1 + r), r, r^2, e, e^2 and min(e, 0)^2."""
GroupPart: TypeAlias = Mapping[str, core.FloatArray]
"""What sets did in one group: moments of their returns and their measures, of shape (n,)."""


def sum_moments(
    returns: core.FloatArray, free: core.FloatArray, years: float
) -> dict[str, core.FloatArray]:
    """Compute the moments of returns of shape (n_samples, n) and risk-free ones (n_samples,)."""
    excess, whole = returns - free[:, None], np.ones(returns.shape[1])
    with np.errstate(divide="ignore"):
        growth = np.log1p(returns)
    summed = (growth, returns, returns**2, excess, excess**2, np.minimum(excess, 0.0) ** 2)
    sums = (len(returns) * whole, years * whole, *(np.sum(each, axis=0) for each in summed))
    return dict(zip(MOMENTS, sums, strict=True))


def build_parts(
    problem: problems.SearchProblem, groups: v.Groups, runs: Sequence[GroupRuns], skipped: int
) -> list[GroupPart]:
    venue: Any = problem.varied.venue
    venue = venue if isinstance(venue, Venue) else next(iter(venue.values()))
    parts: list[GroupPart] = []
    for group, each in enumerate(runs):
        first, stop = groups.span(group)
        market = problem.market.prefix(stop)
        rates = as_of(venue.cash_rate, market.time, "Venue.cash_rate")
        years = engine.measure_years(market, venue, first, int(market.time[first]))
        free = engine.earn_cash(rates, years, market.n_bars)[first:]
        ends = engine.mark_samples(market, problem.test.sampling)[first:]
        free = compound_free(free, ends)[skipped:]
        span = int(market.time[stop - 1]) + market.interval - int(market.time[first])
        lived = span / (YEAR_DAYS * DAY) * len(free) / len(each.returns)
        metrics = {name: each.metrics[name] for name in each.metrics if name in KNOWN}
        parts.append({**metrics, **sum_moments(each.returns[skipped:], free, lived)})
    return parts


def combine_parts(parts: Sequence[GroupPart], periods: float) -> dict[str, core.FloatArray]:
    """Return the measures of sets over groups, (n,) each, of ``periods`` samples a year."""
    years = np.stack([part["years"] for part in parts])
    found: dict[str, core.FloatArray] = {}
    with np.errstate(all="ignore"):
        for name in parts[0]:
            rows = np.stack([part[name] for part in parts])
            if name in MOMENTS or name in SUMS:
                found[name] = np.sum(rows, axis=0)
            elif name in MAXIMA:
                found[name] = np.max(rows, axis=0)
            elif name in MEANS:
                found[name] = np.sum(rows * years, axis=0) / np.sum(years, axis=0)
        n, growth, total, squares, excess, of_excess, downside = (
            found.pop(name) for name in MOMENTS if name != "years"
        )
        ruined, drawdown = found["ruined"] != 0.0, found["max_drawdown"]
        rate = np.expm1(np.minimum(growth / found.pop("years"), 700.0))
        cagr = np.where(ruined | ~(growth > -np.inf), -1.0, rate)
        mean, deviation = excess / n, find_deviation(of_excess, excess, n)
        return {
            **found,
            "total_return": np.expm1(growth),
            "cagr": cagr,
            "volatility": find_deviation(squares, total, n) * math.sqrt(periods),
            "sharpe": annualize_ratios(mean, deviation, periods),
            "sortino": annualize_ratios(mean, np.sqrt(downside / n), periods),
            "calmar": np.where(drawdown > 0.0, cagr / drawdown, np.nan),
        }


def find_deviation(
    squares: core.FloatArray, total: core.FloatArray, n: core.FloatArray
) -> core.FloatArray:
    spread = squares - total * total / np.maximum(n, 1.0)
    spread = np.where(spread > LEAST_SHARE * squares, spread, 0.0)
    return np.sqrt(spread / np.where(n > 1.0, n - 1.0, np.nan))


def choose_winners(
    inside: Sequence[core.FloatArray], outside: Sequence[core.FloatArray]
) -> pd.DataFrame:
    """Return the best set of each split in training, of the first of equals.

    Objectives (n_sets,) per split are minus infinity for sets that must not win; -1 is no set.
    """
    rows = []
    for one, other in zip(inside, outside, strict=True):
        best = int(np.argmax(one))
        found = (best, float(one[best]), float(other[best]), v.find_rank(other, best))
        rows.append(found if np.isfinite(one[best]) else (-1, math.nan, math.nan, math.nan))
    return pd.DataFrame(rows, columns=["row", "in_sample", "out_of_sample", "rank"])


def count_independent(n: int, k: int) -> float:
    """Return how many independent splits have an overfitting that scatters as much on noise."""
    splits = list(itertools.combinations(range(n), k))
    chosen = np.unique(np.linspace(0, len(splits) - 1, MOST_COMPARED).astype(np.int64))
    tested = np.zeros((len(chosen), n))
    for row, place in enumerate(chosen.tolist()):
        tested[row, list(splits[place])] = 1.0
    rng, shares = np.random.default_rng(0), []
    for _ in range(PANELS):
        panel = rng.standard_normal((n, PANEL_SETS))
        outside = tested @ panel
        best = np.argmax((1.0 - tested) @ panel, axis=1)[:, None]
        rank = np.mean(outside < np.take_along_axis(outside, best, axis=1), axis=1)
        shares.append(np.mean(rank * PANEL_SETS / (PANEL_SETS - 1) <= 0.5))
    return 0.25 / float(np.var(shares, ddof=1))


def stitch_paths(
    rows: core.IntArray, parts: Sequence[GroupPart], runs: Sequence[GroupRuns], periods: float
) -> pd.DataFrame:
    """Return the measures of paths through groups, whose sets are ``rows`` (n_paths, n_groups)."""
    alive = np.ones(len(rows), dtype=np.bool_)
    taken, returns = [], []
    for row, part, run in zip(rows.T, parts, runs, strict=True):
        chosen = np.maximum(row, 0)
        lives = alive & (row >= 0)
        taken.append(
            {  # who does not live earns and costs nothing
                name: each[chosen] if name in TIME else np.where(lives, each[chosen], 0.0)
                for name, each in part.items()
            }
        )
        returns.append(run.returns[:, chosen] * lives)
        alive = alive & (taken[-1]["ruined"] == 0.0)
    curves: core.FloatArray = np.cumprod(1.0 + np.concatenate(returns), axis=0).T.astype(np.float64)
    measured = combine_parts(taken, periods)
    peaks = np.maximum.accumulate(np.maximum(curves, 1.0), axis=1)
    drawdown = np.maximum(measured["max_drawdown"], np.max(1.0 - curves / peaks, axis=1))
    measured["max_drawdown"] = drawdown
    with np.errstate(all="ignore"):
        measured["calmar"] = np.where(drawdown > 0.0, measured["cagr"] / drawdown, np.nan)
    names = [*(name for name in FIRST if name in measured), *measured]
    return pd.DataFrame({name: measured[name] for name in dict.fromkeys(names)}).rename_axis("path")


@dataclass(frozen=True, eq=False, repr=False)
class CrossValidation(v.Validation):
    """Result of a combinatorial cross-validation of choosing the best of many sets.

    Attributes
    ----------
    splits : DataFrame
        One row per split: ``groups`` (those of the test), ``in_sample`` and ``out_of_sample`` (the
        best set's objective), ``rank`` of the best set among all sets out of sample (1 best, 0
        worst), and its parameters.
    paths : DataFrame
        One row per path, with measures by the names of ``result.metrics``.
    matrix : DataFrame
        The objective of each set (row) in each group (column).
    sets : DataFrame
        The parameters of the sets, in the rows of the matrix.
    figures : mapping
        Headline figures as data.
    manifest : mapping
        Everything that decides the numbers.
    """

    splits: pd.DataFrame
    paths: pd.DataFrame
    matrix: pd.DataFrame
    sets: pd.DataFrame
    figures: Mapping[str, Any]
    manifest: Mapping[str, Any]

    kind = "cross-validation"
    is_yearly = True
    call = "Backtest.cross_validate"
    can_be_resumed = True
    table_names = ("splits", "paths", "matrix", "sets")

    @property
    def ranks(self) -> pd.Series:
        """The rank of the best set out of sample in each split."""
        return self.splits["rank"]

    @property
    def verdict(self) -> str:
        pbo = self.pbo
        if math.isnan(pbo):
            return "no verdict: there is nothing to choose among"
        lost = (
            f"in {float(pbo):.0%} of {len(self.splits)} splits the chosen set was no better than "
            "the median (half by chance)"
        )
        if pbo > v.EVEN:
            return f"choosing the best set adds nothing: {lost}"
        if pbo.high >= v.EVEN:
            return f"it is not clear that choosing the best set adds anything: {lost}"
        return f"evidence that the choice lasts: only {lost}"

    @property
    def note(self) -> str:
        return f"{len(self.splits):,} splits, {len(self.paths)} paths"

    @property
    def heading(self) -> str:
        sets = f"{self.figures['sets']:,} sets"
        return f"{self.policy_name}: {sets} over {len(self.splits)} splits of time"

    @property
    def details(self) -> str:
        rank = core.format_number(self.figures["mean_rank"])
        return (
            f"{self.describe_search()} The mean rank of chosen sets out of sample is {rank} (1 "
            "best, 0.5 the median)."
        )

    def list_parts(self) -> list[Part]:
        measures = tuple(name for name in MEASURES if name in self.paths)
        note = (
            "The drawdown is the deepest inside a group, or across groups by sampled returns. "
            f"{core.capitalize(SPREAD)}."
        )
        groups = [" and ".join(map(str, each)) for each in self.splits["groups"]]
        splits = self.splits.assign(groups=groups)
        known, edges = np.histogram(self.ranks.dropna(), bins=BINS, range=(0.0, 1.0))
        middle = pd.Index(np.round(0.5 * (edges[:-1] + edges[1:]), 6))
        lost, won = BARS
        counts = pd.DataFrame({lost: known * (middle < 0.5), won: known * (middle > 0.5)}, middle)
        spread = self.paths.agg(["min", "median", "max"])[list(measures)]
        spread.index = pd.Index(["lowest", "median", "highest"])
        return [
            Part("paths", "What the procedure would have earned", "Paths through all groups of "
                 "time, each group with the best set of a split that did not train on it.", (
                     ShownTable(self.paths, "Paths", note, columns=measures),)),
            Part("spread", "Paths", "", (ShownTable(spread, "Paths",
                 f"{core.capitalize(SPREAD)}: all are made of one history.",
                 core.Head("of paths")),),
                 "summary"),
            Part("choice", "What choosing was worth", "Best sets of the train groups, in the test "
                 "groups.", (
                     ShownChart("ranks", "Ranks of the chosen sets", "Orange: no better than the "
                                "median set. Skill piles up at 1; noise is even.",
                                counts, "bars", BARS,
                                "rank of the chosen set out of sample", "splits", height=280),
                     ShownTable(splits, "Splits", heads={"groups": core.Head("tested on groups")},
                                most=len(splits), is_searched=True))),
        ]  # fmt: skip

    def list_assumptions(self) -> tuple[str, ...]:
        return (
            "Splits are scored from the fresh accounts of their groups, one after another. "
            f"{self.figures['embargo_bars']:,} bars after a test "
            f"group do not count in training ({self.figures['embargo_samples']} sampled returns). "
            "Paths are made of fresh accounts, without trades of switching; ruin ends a path. "
            f"Sets: scrambled Sobol points, seed {self.manifest['seed']}.",
        )

    def list_measures(self) -> Mapping[str, float]:
        return v.select_metrics(self.paths.median().to_dict())

    def list_numbers(self) -> list[Headline]:
        pbo, figures = self.pbo, self.figures
        inside, outside = (float(figures[f"median_{k}_sample"]) for k in ("in", "out_of"))
        return [
            Headline("pbo", "Overfitting", float(pbo), "decimals", "share of chosen sets no better "
                     f"than the median; {pbo.low:.2f} to {pbo.high:.2f}"),
            Headline("median_in_sample", "In sample", inside, "decimals",
                     "median objective of the chosen sets"),
            Headline("median_out_of_sample", "Out of sample", outside, "decimals",
                     "of the same sets"),
        ]  # fmt: skip

    def __repr__(self) -> str:
        name = self.manifest["policy"]["name"]
        return f"<CrossValidation of {name}: {len(self.splits)} splits, PBO {self.pbo:.2f}>"

    def to_dict(self) -> dict[str, Any]:
        return self._write_data(
            "cross_validation",
            splits=core.list_records(self.splits),
            paths=core.list_records(self.paths),
        )

    @staticmethod
    def _read_progress(folder: Path, manifest: Mapping[str, Any]) -> str:  # noqa: ARG004
        n = len(list(folder.rglob("[0-9]*.parquet")))
        return f"{n:,} batch{'es' if n != 1 else ''} of sets"

    @classmethod
    def _read_back(cls, manifest: dict[str, Any], tables: Mapping[str, Any], folder: Path) -> Self:
        groups = [tuple(map(int, each)) for each in tables["splits"]["groups"]]
        tables = {**tables, "splits": tables["splits"].assign(groups=groups)}
        return super()._read_back(manifest, tables, folder)
