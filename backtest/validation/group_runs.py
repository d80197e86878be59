"""Groups of time and their splits; all sets run in each group with fresh capital."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import (
    BoolArray,
    FloatArray,
    IntArray,
    ParameterError,
    Range,
    parse_duration,
)
from backtest.base.units import DAY, YEAR_DAYS
from backtest.engine import mark_ends
from backtest.sweep import count_sets, take_sets
from backtest.tune import write_study_file
from backtest.validation.fold_spans import LEAST_TEST, LEAST_TRAIN
from backtest.validation.group_scores import KNOWN, GroupPart, combine_parts, sum_moments
from backtest.validation.interval_estimates import order_scores
from backtest.validation.terms import sample_free_between

if TYPE_CHECKING:
    from backtest.engine import Progress
    from backtest.market import Market, Markets
    from backtest.sweep import Evaluator, Rows, Sets
    from backtest.validation.tuning_procedure import Procedure


CHUNK = 2048
"""Sets that are run and stored at a time, which is what a kill can lose."""


class GroupRuns(NamedTuple):
    """All sets in one group: measures of shape (n_sets,) and returns (n_samples, n_sets)."""

    metrics: dict[str, FloatArray]
    returns: FloatArray
    failed: np.ndarray


class SplitScores(NamedTuple):
    inside: list[FloatArray]
    outside: list[FloatArray]


def is_decided(procedure: Procedure) -> bool:
    objective = procedure.objective
    if callable(objective):
        return False
    names = (
        {objective.strip().removeprefix("-").strip()}
        if isinstance(objective, str)
        else {*objective}
    )
    return names | {each.name for each in procedure.goal.constraints} <= KNOWN


def run_groups(
    evaluator: Evaluator,
    sets: Sets,
    groups: Groups,
    folder: Path | None,
    progress: Progress | None,
) -> list[GroupRuns]:
    spans = [groups.span(group) for group in range(groups.n)]
    n, chunks = count_sets(sets), []
    for k, first in enumerate(range(0, n, CHUNK)):
        path = None if folder is None else folder / f"sets-{k:05d}.parquet"
        if path is not None and path.is_file():
            chunks.append(read_runs(path))
        else:
            some = take_sets(sets, slice(first, first + CHUNK))
            rows = evaluator.evaluate_spans(some, spans, returns=True)
            chunks.append([keep_runs(each) for each in rows])
            if path is not None:
                write_study_file(path, pack_runs(chunks[-1]))
        if progress is not None:
            progress(min(first + CHUNK, n), n)
    return [join_runs(parts) for parts in zip(*chunks, strict=True)]


def join_runs(parts: Sequence[GroupRuns]) -> GroupRuns:
    names = parts[0].metrics
    length = max(len(part.returns) for part in parts)
    returns = [np.zeros((length, len(part.failed))) for part in parts]
    for whole, part in zip(returns, parts, strict=True):
        whole[: len(part.returns)] = part.returns
    return GroupRuns(
        {name: np.concatenate([part.metrics[name] for part in parts]) for name in names},
        np.concatenate(returns, axis=1),
        np.concatenate([part.failed for part in parts]),
    )


def keep_runs(rows: Rows) -> GroupRuns:
    if not rows.done.all() or rows.returns is None:
        raise KeyboardInterrupt
    failed = np.array([error != "" for error in rows.errors], dtype=np.bool_)
    returns = np.where(failed, 0.0, rows.returns)
    return GroupRuns(rows.metrics, returns, failed)


def pack_runs(runs: Sequence[GroupRuns]) -> bytes:
    columns: dict[str, np.ndarray] = {}
    for group, each in enumerate(runs):
        columns |= {f"{group}:metric:{name}": values for name, values in each.metrics.items()}
        columns |= {f"{group}:return:{k:06d}": row for k, row in enumerate(each.returns)}
        columns[f"{group}:failed"] = each.failed
    sink = io.BytesIO()
    pd.DataFrame(columns).to_parquet(sink, compression="zstd")
    return sink.getvalue()


def read_runs(path: Path) -> list[GroupRuns]:
    table = pd.read_parquet(path)
    columns = {str(name): table[name].to_numpy() for name in table.columns}
    n = sum(name.endswith(":failed") for name in columns)
    return [read_group(columns, f"{group}:") for group in range(n)]


def read_group(columns: dict[str, np.ndarray], prefix: str) -> GroupRuns:
    own = {name.removeprefix(prefix): each for name, each in columns.items()
           if name.startswith(prefix)}  # fmt: skip
    returns = [each for name, each in own.items() if name.startswith("return:")]
    metrics = {name.removeprefix("metric:"): each for name, each in own.items()
               if name.startswith("metric:")}  # fmt: skip
    return GroupRuns(metrics, np.array(returns), own["failed"])


def build_parts(
    procedure: Procedure, groups: Groups, runs: Sequence[GroupRuns], skipped: int
) -> list[GroupPart]:
    terms, parts = procedure.terms, []
    for group, each in enumerate(runs):
        first, stop = groups.span(group)
        market = terms.market
        free = sample_free_between(terms, first, stop)[skipped:]
        span = int(market.time[stop - 1]) + market.interval - int(market.time[first])
        years = span / (YEAR_DAYS * DAY) * len(free) / len(each.returns)
        metrics = {name: each.metrics[name] for name in each.metrics if name in KNOWN}
        parts.append(GroupPart(sum_moments(each.returns[skipped:], free, years), metrics))
    return parts


def score_groups(procedure: Procedure, runs: Sequence[GroupRuns]) -> FloatArray:
    """Return the objective of each set in each group, of shape (n_sets, n_groups)."""
    objective = procedure.goal.objectives[0]
    return np.stack([objective.score(each.metrics) for each in runs], axis=1)


def score_parts(
    procedure: Procedure, parts: Sequence[GroupPart], failed: np.ndarray, periods: float
) -> FloatArray:
    metrics = combine_parts(parts, periods)
    scores, violation = procedure.goal.score(metrics, failed)
    return np.where(violation == 0.0, order_scores(scores[:, 0], metrics["ruined"]), -np.inf)


def score_splits(
    procedure: Procedure,
    plain: Sequence[GroupPart],
    late: Sequence[GroupPart],
    runs: Sequence[GroupRuns],
    k: int,
    periods: float,
) -> SplitScores:
    failed = np.any([each.failed for each in runs], axis=0)
    found = SplitScores([], [])
    n = len(plain)
    for tested in list_splits(n, k):
        embargoed = find_embargoed(n, tested)
        train = [late[g] if embargoed[g] else plain[g] for g in range(n) if g not in tested]
        found.inside.append(score_parts(procedure, train, failed, periods))
        test = combine_parts([plain[g] for g in tested], periods)
        scores, _ = procedure.goal.score(test, failed)
        found.outside.append(order_scores(scores[:, 0], test["ruined"]))
    return found


# -------------------------------------------------------------- objectives that need the span run


def list_segments(
    groups: Groups, chosen: Sequence[int], late: int, embargoed: np.ndarray
) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    for group in chosen:
        first, stop = groups.span(group)
        first += late if embargoed[group] else 0
        if spans and spans[-1][1] == first:
            spans[-1] = (spans[-1][0], stop)
        else:
            spans.append((first, stop))
    return spans


def score_segments(
    procedure: Procedure,
    evaluator: Evaluator,
    sets: Sets,
    groups: Groups,
    k: int,
    embargo: int,
    progress: Progress | None,
) -> SplitScores:
    wanted = []
    nothing = np.zeros(groups.n, dtype=np.bool_)
    for tested in list_splits(groups.n, k):
        rest = [g for g in range(groups.n) if g not in tested]
        trained = list_segments(groups, rest, embargo, find_embargoed(groups.n, tested))
        wanted.append((trained, list_segments(groups, tested, 0, nothing)))
    spans = sorted({span for pair in wanted for part in pair for span in part})
    scores: dict[tuple[int, int], tuple[FloatArray, FloatArray]] = {}
    for done, span in enumerate(spans):
        scores[span] = score_span(procedure, evaluator, sets, span)
        if progress is not None:
            progress(done + 1, len(spans))
    return SplitScores(
        [average_spans(scores, pair[0], is_bound=True) for pair in wanted],
        [average_spans(scores, pair[1], is_bound=False) for pair in wanted],
    )


def score_span(
    procedure: Procedure, evaluator: Evaluator, sets: Sets, span: tuple[int, int]
) -> tuple[FloatArray, FloatArray]:
    rows = evaluator.evaluate(sets, first=span[0], stop=span[1])
    if not rows.done.all():
        raise KeyboardInterrupt
    failed = np.array([error != "" for error in rows.errors], dtype=np.bool_)
    scores, violation = procedure.goal.score(rows.metrics, failed)
    return order_scores(scores[:, 0], rows.metrics["ruined"]), violation


def average_spans(
    scores: dict[tuple[int, int], tuple[FloatArray, FloatArray]],
    spans: Sequence[tuple[int, int]],
    *,
    is_bound: bool,
) -> FloatArray:
    weights = np.array([stop - first for first, stop in spans], dtype=np.float64)
    rows = np.stack([scores[span][0] for span in spans])
    mean = np.full(rows.shape[1], -np.inf)
    known = np.isfinite(rows).all(axis=0)
    if is_bound:
        known &= np.stack([scores[span][1] for span in spans]).max(axis=0) == 0.0
    mean[known] = weights @ rows[:, known] / weights.sum()
    return mean


MOST_GROUPS = 50
MOST_SPLITS = 20_000
USUAL_EMBARGO = 0.01
"""Share of all bars: Lopez de Prado (2018), section 7.4.2."""


class Groups(NamedTuple):
    """Groups of consecutive bars, cut where sampling periods end.

    ``edges`` of shape (N + 1,) are bars, ``samples`` of shape (N + 1,) the sampling periods that
    end before them.
    """

    edges: IntArray
    samples: IntArray

    @property
    def n(self) -> int:
        return len(self.edges) - 1

    def span(self, group: int) -> tuple[int, int]:
        return int(self.edges[group]), int(self.edges[group + 1])


def check_counts(groups: int, test_groups: int) -> tuple[int, int]:
    n = int(Range(2, MOST_GROUPS).check("groups", groups, whole=True))
    k = int(Range(1, n - 1).check("test_groups", test_groups, whole=True))
    if math.comb(n, k) > MOST_SPLITS:
        raise ParameterError(
            f"groups and test_groups must make at most {MOST_SPLITS:,} splits, {n} and {k} make "
            f"{math.comb(n, k):,}"
        )
    return n, k


def split_groups(market: Market | Markets, n: int, sampling: str) -> Groups:
    period = parse_duration(sampling, "sampling")
    closes = np.flatnonzero(mark_ends(market, period)) + 1  # type: ignore[arg-type] # its clock
    parts = np.array_split(np.arange(len(closes)), n)
    samples = np.array([0, *(int(part[-1]) + 1 if len(part) else 0 for part in parts)])
    edges = np.concatenate(([0], closes))[samples]
    least = int(np.diff(edges).min())
    if least < max(LEAST_TRAIN, LEAST_TEST) or int(np.diff(samples).min()) < 2:
        raise ParameterError(
            f"groups must each have {LEAST_TRAIN} bars and two sampling periods or more, the "
            f"shortest of {n} has {least} bars"
        )
    return Groups(edges.astype(np.int64), samples.astype(np.int64))


def list_splits(n: int, k: int) -> list[tuple[int, ...]]:
    """Return the test groups of each split, C(n, k) of them, in lexical order."""
    return list(itertools.combinations(range(n), k))


def list_paths(n: int, k: int) -> list[list[int]]:
    """Return the split from which each path takes each group: φ = k/n · C(n, k) paths.

    Source: Lopez de Prado (2018), Advances in Financial Machine Learning, section 12.4.
    """
    splits = list_splits(n, k)
    tested = [[s for s, groups in enumerate(splits) if g in groups] for g in range(n)]
    return [list(path) for path in zip(*tested, strict=True)]


def find_embargoed(n: int, tested: Sequence[int]) -> BoolArray:
    """Return which train groups follow a test group directly, of shape (n,)."""
    found = np.zeros(n, dtype=np.bool_)
    for group in tested:
        if group + 1 < n and group + 1 not in tested:
            found[group + 1] = True
    return found


def check_embargo(embargo: int | str, groups: Groups, market: Market | Markets) -> int:
    if isinstance(embargo, str):
        bars = -(-parse_duration(embargo, "embargo") // market.interval)
    else:
        bars = int(Range(0, math.inf, "bars").check("embargo", embargo, whole=True))
    shortest = int(np.diff(groups.edges).min())
    if shortest - bars < LEAST_TRAIN:
        raise ParameterError(
            f"embargo must leave {LEAST_TRAIN} bars of each group, got {bars:,} of {shortest:,}"
        )
    return bars
