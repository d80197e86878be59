"""cross_validate(): combinatorial purged cross-validation of a search, at the cost of one sweep."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd

from backtest import core, engine
from backtest.core import Progress
from backtest.core.result_parts import Headline, Part, ShownChart, ShownTable
from backtest.engine import Conditions
from backtest.policies import Policy
from backtest.results import RUIN
from backtest.search import problem as problems
from backtest.search import validation as v
from backtest.search.group_moments import (
    KNOWN,
    GroupPart,
    GroupRuns,
    build_parts,
    combine_parts,
    stitch_paths,
)
from backtest.search.trials import Goal, Journal, find_distinct
from backtest.sweep import (
    Evaluator,
    Rows,
    count_sets,
    draw_sets,
    name_column,
    take_sets,
    to_plain_value,
)
from backtest.sweep.equity_curves import find_sample_times, lay_out_curves
from backtest.sweep.sets import Sets

KIND = "cross-validation"
CHUNK = 256
"""Sets that are run at a time, which is what a kill can lose."""
RETURNS = "sampled returns"
FAILED = "has failed"
DECIDED = "share of bars decided on"
"""Columns of a stored table beside the measures."""
PANELS = 200
"""Panels of noise by which the interval of an overfitting probability is calibrated."""
PANEL_SETS = 50
MOST_COMPARED = 500
"""Splits of a panel, spread evenly."""
MEASURES = (
    "sharpe",
    "cagr",
    "total_return",
    "volatility",
    "max_drawdown",
    "fees",
    "ruined",
)
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
    check_measures(problem)
    plan = plan_splits(problem, groups, test_groups, embargo)
    manifest = problem.describe_search(
        KIND,
        groups=plan.groups.n,
        test_groups=plan.test_groups,
        embargo=plan.embargo_bars,
    )
    drawn = draw_sets(problem.space, problem.trials or 0, seed=problem.seed)
    sets = take_sets(drawn, find_distinct(drawn))

    def make(evaluator: Evaluator, folder: Path | None) -> CrossValidation:
        evaluator.check_causal(problem.space.list_ends())
        runs = run_groups(
            evaluator,
            sets,
            plan.groups,
            folder,
            progress,
        )
        if any(run.failed.all() for run in runs):
            raise core.PolicyError("every set failed in a group; run one with bt.run to see more")
        scored = score_splits(problem, plan, runs)
        return build_result(problem, plan, sets, runs, scored, manifest)

    return v.make_or_resume(CrossValidation, problem, manifest, make)


def check_measures(problem: problems.SearchProblem) -> None:
    """Raise ParameterError for measures that do not add up over groups, or several objectives."""
    problems.refuse_several(problem, "cross_validate")
    unknown = {*problems.name_measures(problem.objective, problem.goal)} - KNOWN
    if unknown:
        raise core.ParameterError(
            "objective and constraints of a cross-validation must add up over groups, as sharpe, "
            f"cagr, max_drawdown and fees do, got {', '.join(sorted(unknown))}; a walk-forward "
            "accepts any"
        )


class SplitPlan(NamedTuple):
    """How time is split: groups, how many of them are tested, and the embargo after these.

    The embargo is in bars, and in sampled returns that do not count in training.
    """

    groups: v.Groups
    test_groups: int
    embargo_bars: int
    embargo_samples: int

    def list_tests(self) -> list[tuple[int, ...]]:
        """Return the groups that each split tests."""
        return list(itertools.combinations(range(self.groups.n), self.test_groups))


def plan_splits(
    problem: problems.SearchProblem,
    groups: int,
    test_groups: int,
    embargo: int | str | None,
) -> SplitPlan:
    """Return the groups and the embargo of a cross-validation, in bars and in samples."""
    market = problem.market
    sampling = problem.test.sampling
    cut, n_tested = v.split_groups(
        market,
        groups,
        test_groups,
        sampling,
        first=problem.first,
    )
    bars = v.check_embargo(embargo, cut, market)

    # Training keeps two sampled returns of each group.
    period = max(core.parse_duration(sampling, "sampling"), market.interval)
    samples = -(-bars * market.interval // period)
    most = int(np.diff(cut.samples).min()) - 2
    return SplitPlan(
        cut,
        n_tested,
        embargo_bars=bars,
        embargo_samples=min(samples, most),
    )


class ScoredSplits(NamedTuple):
    """The table of splits with the row of the best set of each, and the paths through all."""

    splits: pd.DataFrame
    paths: pd.DataFrame
    curves: pd.DataFrame | None


def score_splits(
    problem: problems.SearchProblem,
    plan: SplitPlan,
    runs: Sequence[GroupRuns],
) -> ScoredSplits:
    """Choose the best set of each split in training, and score it in the test."""
    n_groups = plan.groups.n
    test = problem.test
    periods = engine.count_periods(test.calendar, test.sampling, problem.market, problem.first)
    plain = build_parts(problem, plan.groups, runs, skipped=0)
    embargoed = build_parts(
        problem,
        plan.groups,
        runs,
        skipped=plan.embargo_samples,
    )
    failed = np.any([run.failed for run in runs], axis=0)

    insides = []
    outsides = []
    for tested in plan.list_tests():
        # A group that trains right after a tested one begins after the embargo.
        is_embargoed = v.find_embargoed(n_groups, tested)
        train_parts = []
        for group in range(n_groups):
            if group in tested:
                continue
            train_parts.append(embargoed[group] if is_embargoed[group] else plain[group])

        inside, violation = score_parts(problem.goal, train_parts, failed, periods)
        insides.append(np.where(violation == 0.0, inside, -np.inf))
        test_parts = [plain[group] for group in tested]
        outside, _ = score_parts(problem.goal, test_parts, failed, periods)
        outsides.append(outside)

    # A path takes each group from a split in which it is tested.
    splits = choose_winners(insides, outsides)
    rows = splits["row"].to_numpy()
    path_rows = rows[np.array(v.list_paths(n_groups, plan.test_groups))]
    stitched = stitch_paths(path_rows, plain, runs, periods)
    return ScoredSplits(splits, stitched.table, lay_out_paths(problem, plan, runs, stitched.curves))


def lay_out_paths(
    problem: problems.SearchProblem,
    plan: SplitPlan,
    runs: Sequence[GroupRuns],
    units: core.FloatArray,
) -> pd.DataFrame | None:
    """Return the curves of paths by their numbers, of 1 at the start.

    Of accounts of several markets a group may have fewer samples than its time: then there is none.
    """
    if problem.is_separate:
        return None

    # The times of the first group begin with its start, those of the others where one ends.
    times = []
    for group, run in enumerate(runs):
        span = plan.groups.span(group)
        sampled = find_sample_times(problem.market, problem.test.sampling, *span)
        if len(sampled) - 1 != len(run.returns):
            return None
        times.append(sampled if group == 0 else sampled[1:])

    # A path that has lost everything returns nothing.
    before = np.concatenate([np.ones((len(units), 1)), units[:, :-1]], axis=1)
    growth = np.divide(
        units,
        before,
        out=np.zeros_like(units),
        where=before > 0.0,
    )
    returns = np.where(before > 0.0, growth - 1.0, 0.0)
    by_path = {str(path): path_returns for path, path_returns in enumerate(returns)}
    return lay_out_curves(np.concatenate(times), by_path)


def score_parts(
    goal: Goal,
    parts: Sequence[GroupPart],
    failed: core.BoolArray,
    periods: float,
) -> tuple[core.FloatArray, core.FloatArray]:
    """Return the score of each set on some groups, and how far it breaks constraints."""
    metrics = combine_parts(parts, periods)
    scores, violation = goal.score(metrics, failed)
    return v.order_scores(scores, metrics["ruined"]), violation


def build_result(
    problem: problems.SearchProblem,
    plan: SplitPlan,
    sets: Sets,
    runs: Sequence[GroupRuns],
    scored: ScoredSplits,
    manifest: dict[str, Any],
) -> CrossValidation:
    """Return the tables and figures of a cross-validation."""
    rows = scored.splits["row"].to_numpy()
    splits = scored.splits.drop(columns="row")
    splits.insert(0, "groups", plan.list_tests())
    for name in problem.names:
        splits[name_column(name)] = pd.Series(list_chosen(problem, name, sets[name], rows))

    warnings = []
    n_empty = int(np.sum(rows < 0))
    if n_empty:
        warnings.append(describe_empty(problem.goal, runs, n_empty, len(rows)))

    medians = splits[["in_sample", "out_of_sample"]].where(np.isfinite).median()
    independent = count_independent(plan.groups.n, plan.test_groups)
    matrix = [problem.goal.objective.score(run.metrics) for run in runs]
    return CrossValidation(
        splits=splits.rename_axis("split"),
        paths=scored.paths,
        curves=scored.curves,
        matrix=pd.DataFrame(np.stack(matrix, axis=1)).rename_axis("set"),
        sets=pd.DataFrame({name_column(name): sets[name] for name in problem.names}),
        figures={
            "embargo_bars": plan.embargo_bars,
            "embargo_samples": plan.embargo_samples,
            "sets": count_sets(sets),
            "pbo": v.estimate_overfitting(splits["rank"], independent).to_dict(),
            "mean_rank": float(splits["rank"].mean()),
            "median_in_sample": float(medians["in_sample"]),
            "median_out_of_sample": float(medians["out_of_sample"]),
            "warnings": warnings,
        },
        manifest=manifest,
    )


def list_chosen(
    problem: problems.SearchProblem,
    name: str,
    values: np.ndarray,
    rows: core.IntArray,
) -> list[Any]:
    """Return the values of a parameter in the chosen sets; None where no set was."""
    setting = problem.varied.settings[name]
    chosen: list[Any] = []
    for row in rows.tolist():
        if row < 0:
            chosen.append(None)
        else:
            chosen.append(to_plain_value(setting, values[row]))
    return chosen


def describe_empty(
    goal: Goal,
    runs: Sequence[GroupRuns],
    n_empty: int,
    n_splits: int,
) -> str:
    """Say why splits have no best set: constraints, orders, or columns that are not known."""
    name = goal.objective.name.removeprefix("-")
    text = f"{n_empty:,} of {n_splits:,} splits have no set with a finite {name}"
    if any(constraint != RUIN for constraint in goal.constraints):
        text = f"{text} that satisfies all constraints"

    clauses = [text]
    turnovers = np.array([run.metrics["turnover"] for run in runs])  # (n_groups, n_sets)
    accounts = f"of {turnovers.size:,} accounts, of a set in a group each"
    is_undecided = np.array([run.decided for run in runs]) == 0.0
    is_unfilled = (turnovers == 0.0) & ~is_undecided
    if is_undecided.any():
        clauses.append(
            f"{np.sum(is_undecided):,} {accounts}, never decided, since their columns were not "
            "known before its end: too long a warm-up; give more bars, or shorter windows"
        )
    if is_unfilled.any():
        clauses.append(
            f"{np.sum(is_unfilled):,} {accounts}, filled no order: run one of them to see why"
        )
    return "; ".join(clauses)


def run_groups(
    evaluator: Evaluator,
    sets: Sets,
    groups: v.Groups,
    folder: Path | None,
    progress: Progress | None,
) -> list[GroupRuns]:
    """Run all sets in each group, in chunks; tables that a journal has are taken from there."""
    spans = [groups.span(group) for group in range(groups.n)]
    journal = Journal(folder)
    n_sets = count_sets(sets)

    chunks = []
    for first in range(0, n_sets, CHUNK):
        chunk = take_sets(sets, slice(first, first + CHUNK))
        tables = read_tables(journal, groups.n)
        for begin, end in spans[len(tables) :]:
            rows = evaluator.evaluate(chunk, first=begin, stop=end, returns=True)
            table = lay_out_rows(rows.finish())
            tables.append(table)
            journal.write_table(table)
        chunks.append(tables)
        core.report_progress(progress, min(first + CHUNK, n_sets), n_sets)

    # Each group has a table in every chunk.
    whole_tables = [pd.concat(parts, ignore_index=True) for parts in zip(*chunks, strict=True)]
    return [read_group(table) for table in whole_tables]


def read_tables(journal: Journal, most: int) -> list[pd.DataFrame]:
    """Return the next tables of a journal, at most so many."""
    tables: list[pd.DataFrame] = []
    while len(tables) < most:
        table = journal.read_table()
        if table is None:
            break
        tables.append(table)
    return tables


def lay_out_rows(rows: Rows) -> pd.DataFrame:
    """Return what sets did in a group as a table, as a journal stores it."""
    failed = np.array([error != "" for error in rows.errors], dtype=np.bool_)
    returns = np.where(failed, 0.0, rows.returns).T.copy()
    return pd.DataFrame(
        {
            **rows.metrics,
            RETURNS: [*returns],
            FAILED: failed,
            DECIDED: rows.shares,
        }
    )


def read_group(table: pd.DataFrame) -> GroupRuns:
    """Return what all sets did in a group, of its table."""
    sampled = table.pop(RETURNS)
    failed = table.pop(FAILED).to_numpy()
    decided = table.pop(DECIDED).to_numpy()

    # Accounts that failed have no returns, or fewer.
    length = max(map(len, sampled))
    padded = [np.pad(returns, (0, length - len(returns))) for returns in sampled]
    metrics = {str(name): table[name].to_numpy() for name in table}
    return GroupRuns(metrics, np.stack(padded, axis=1), failed, decided)


def choose_winners(
    inside: Sequence[core.FloatArray],
    outside: Sequence[core.FloatArray],
) -> pd.DataFrame:
    """Return the best set of each split in training, of the first of equals.

    Objectives (n_sets,) per split are minus infinity for sets that must not win; -1 is no set.
    """
    rows = []
    for trained, tested in zip(inside, outside, strict=True):
        best = int(np.argmax(trained))
        if not np.isfinite(trained[best]):
            rows.append((-1, math.nan, math.nan, math.nan))
            continue
        in_sample = float(trained[best])
        out_of_sample = float(tested[best])
        rows.append((best, in_sample, out_of_sample, v.find_rank(tested, best)))

    return pd.DataFrame(rows, columns=["row", "in_sample", "out_of_sample", "rank"])


def count_independent(n: int, k: int) -> float:
    """Return how many independent splits have an overfitting that scatters as much on noise.

    A share of n independent splits, each over the median or not by chance, has a variance of
    0.25 / n.
    """
    # Which groups a split tests, (n_splits, n); of many splits some, evenly apart.
    splits = list(itertools.combinations(range(n), k))
    places = np.unique(np.linspace(0, len(splits) - 1, MOST_COMPARED).astype(np.int64))
    is_tested = np.zeros((len(places), n))
    for row, place in enumerate(places.tolist()):
        is_tested[row, list(splits[place])] = 1.0

    # The share of splits whose best set in training is no better than the median in the test,
    # where the results of all sets in all groups are noise.
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(PANELS):
        noise = rng.standard_normal((n, PANEL_SETS))
        outside = is_tested @ noise
        inside = (1.0 - is_tested) @ noise

        # The rank of the best in training among the others, in the test.
        best = np.argmax(inside, axis=1)[:, None]
        outcome = np.take_along_axis(outside, best, axis=1)
        is_worse = outside < outcome
        rank = np.mean(is_worse, axis=1) * PANEL_SETS / (PANEL_SETS - 1)
        shares.append(np.mean(rank <= 0.5))
    return 0.25 / float(np.var(shares, ddof=1))


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
    curves : DataFrame or None
        The equity of each path over time, 1 at the start, in columns by its number as text; None of
        an account for each market.
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
    curves: pd.DataFrame | None
    matrix: pd.DataFrame
    sets: pd.DataFrame
    figures: Mapping[str, Any]
    manifest: Mapping[str, Any]

    kind = "cross-validation"
    plural = "cross-validations"
    is_yearly = True
    call = "Backtest.cross_validate"
    can_be_resumed = True
    table_names = ("splits", "paths", "curves", "matrix", "sets")

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
            f"in {core.format_percent(float(pbo), 0)} of {len(self.splits)} splits the chosen set "
            "was no better than the median (half by chance)"
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
        return [
            Part(
                key="paths",
                title="What the procedure would have earned",
                lead="Paths through all groups of time, each group with the best set of a split "
                "that did not train on it.",
                blocks=(self._draw_paths(), self._tabulate_paths()),
            ),
            Part(
                key="spread",
                title="Paths",
                lead="",
                blocks=(self._tabulate_spread(),),
                shows="summary",
            ),
            Part(
                key="choice",
                title="What choosing was worth",
                lead="Best sets of the train groups, in the test groups.",
                blocks=(self._draw_ranks(), self._tabulate_splits()),
            ),
        ]

    @property
    def _measures(self) -> tuple[str, ...]:
        return tuple(name for name in MEASURES if name in self.paths)

    def _tabulate_paths(self) -> ShownTable:
        return ShownTable(
            self.paths,
            caption="Paths",
            note=(
                "The drawdown is the deepest inside a group, or across groups by sampled returns. "
                f"{core.capitalize(SPREAD)}."
            ),
            columns=self._measures,
        )

    def _draw_paths(self) -> ShownChart:
        """Draw the paths as a fan, equal ones as one line that names them all."""
        if self.curves is None:
            return ShownChart(key="fan", title="", caption="", table=None)

        # Paths are equal, to nine digits, where the same sets were chosen.
        equal_paths: dict[bytes, list[str]] = {}
        for path, values in self.curves.items():
            key = np.round(values.to_numpy(), 9).tobytes()
            equal_paths.setdefault(key, []).append(str(path))
        lines = {}
        for paths in equal_paths.values():
            noun = "path" if len(paths) == 1 else "paths"
            lines[f"{noun} {', '.join(paths)}"] = self.curves[paths[0]]

        caption = "One unit of money along each path, the best first."
        n_paths = len(self.curves.columns)
        if len(lines) < n_paths:
            caption += f" Of {n_paths} paths {len(lines)} differ: equal ones are one line."

        order = sorted(lines, key=lambda name: -float(lines[name].iloc[-1]))
        colors = dict.fromkeys(order, "neutral")
        if len(order) > 1:
            colors |= {order[0]: "accent", order[-1]: "loss"}
            caption += " The best is blue, the worst orange, others gray."
        return ShownChart(
            key="fan",
            title="Paths",
            caption=caption,
            table=pd.DataFrame({name: lines[name] for name in order}),
            kind="accounts",
            colors=colors,
            has_legend=True,
            height=420,
        )

    def _tabulate_spread(self) -> ShownTable:
        spread = self.paths.agg(["min", "median", "max"])[list(self._measures)]
        spread.index = pd.Index(["lowest", "median", "highest"])
        return ShownTable(
            spread,
            caption="Paths",
            note=f"{core.capitalize(SPREAD)}: all are made of one history.",
            labels=core.Head("of paths"),
        )

    def _draw_ranks(self) -> ShownChart:
        """Draw how many chosen sets had which rank, those up to the median in another color."""
        counts, edges = np.histogram(self.ranks.dropna(), bins=BINS, range=(0.0, 1.0))
        middle = pd.Index(np.round(0.5 * (edges[:-1] + edges[1:]), 6))
        lost, won = BARS
        return ShownChart(
            key="ranks",
            title="Ranks of the chosen sets",
            caption="Orange: no better than the median set. Skill piles up at 1; noise is even.",
            table=pd.DataFrame(
                {lost: counts * (middle < 0.5), won: counts * (middle > 0.5)}, middle
            ),
            kind="bars",
            colors=BARS,
            x="rank of the chosen set out of sample",
            y="splits",
            height=280,
        )

    def _tabulate_splits(self) -> ShownTable:
        groups = [" and ".join(map(str, tested)) for tested in self.splits["groups"]]
        return ShownTable(
            self.splits.assign(groups=groups),
            caption="Splits",
            note=self._explain_infinite(),
            heads={"groups": core.Head("tested on groups")},
            most=len(groups),
            is_searched=True,
        )

    def _explain_infinite(self) -> str:
        """Return what -inf means out of sample, empty if no split has it."""
        n_infinite = int(np.isneginf(self.splits["out_of_sample"]).sum())
        if n_infinite == 0:
            return ""
        return (
            f"-inf out of sample ({core.count_nouns(n_infinite, 'split')}): in the test groups the "
            f"chosen set was ruined, or has no finite {self.objective}, as an account that never "
            "traded."
        )

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
        pbo = self.pbo
        return [
            Headline(
                name="pbo",
                title="Overfitting",
                value=float(pbo),
                style="decimals",
                note=(
                    "share of chosen sets no better than the median; "
                    f"{pbo.low:.2f} to {pbo.high:.2f}"
                ),
            ),
            Headline(
                name="median_in_sample",
                title="In sample",
                value=float(self.figures["median_in_sample"]),
                style="decimals",
                note="median objective of the chosen sets",
            ),
            Headline(
                name="median_out_of_sample",
                title="Out of sample",
                value=float(self.figures["median_out_of_sample"]),
                style="decimals",
                note="of the same sets",
            ),
        ]

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
        batches = "batch" if n == 1 else "batches"
        return f"{n:,} {batches} of sets"

    @classmethod
    def _read_back(
        cls,
        manifest: dict[str, Any],
        tables: Mapping[str, Any],
        folder: Path,
    ) -> Self:
        groups = [tuple(map(int, tested)) for tested in tables["splits"]["groups"]]
        tables = {**tables, "splits": tables["splits"].assign(groups=groups)}
        return super()._read_back(manifest, tables, folder)
