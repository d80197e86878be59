"""Rows of the risk table: a horizon, and all of its figures from one estimator."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import FloatArray, IntArray, Place, parse_duration
from backtest.base.units import DAY
from backtest.engine import Progress
from backtest.risk.liquidation.path_events import PathEvents, Push
from backtest.risk.liquidation.paths_runner import PathsRunner
from backtest.risk.liquidation.rare_events import (
    SplitPaths,
    check_sample,
    find_force,
    run_tilted,
    split_paths,
)
from backtest.risk.liquidation.risk_intervals import (
    LEAST_SAMPLE,
    UNKNOWN,
    RiskEstimate,
    estimate_pairs,
    estimate_plain,
    estimate_repeats,
    estimate_weighted,
)
from backtest.risk.liquidation.risk_question import WHERE, PhaseProgress, Question
from backtest.risk.paths.path_set import Paths
from backtest.risk.paths.tilted_models import can_tilt

PILOT = 2000
"""Paths that say whether a liquidation is rare."""
RARE = 0.01
"""Below this probability, ``method="auto"`` pushes paths towards liquidation."""
KINDS = ("p_liquidation", "p_ruin", "p_margin_call")
QUANTILES = (0.05, 0.5, 0.95)
WEALTH = ("equity_05", "equity_50", "equity_95")
COLUMNS = (
    *(f"{kind}{end}" for kind in KINDS for end in ("", "_low", "_high")),
    "bad_debt", *WEALTH, "days_to_liquidation", "method",
)  # fmt: skip


class EstimatedRow(NamedTuple):
    row: dict[str, Any]
    tilted: PathEvents | None = None
    is_unseen: bool = False


def estimate_rows(
    runner: PathsRunner, question: Question, events: PathEvents
) -> tuple[list[dict[str, Any]], PathEvents | None]:
    found: dict[int, EstimatedRow] = {}
    unseen = 0
    for k in np.argsort(-question.bars, kind="stable").tolist():
        bars = int(question.bars[k]) + 1
        found[k] = estimate_row(runner, question, events, k, may_split=bars > unseen)
        unseen = max(unseen, bars if found[k].is_unseen else 0)
    tilted = [found[k].tilted for k in sorted(found) if found[k].tilted is not None]
    return [found[k].row for k in sorted(found)], tilted[-1] if tilted else None


def estimate_row(
    runner: PathsRunner, question: Question, events: PathEvents, k: int, *, may_split: bool
) -> EstimatedRow:
    way = choose_way(runner, question, events, int(question.bars[k]) + 1)
    if way == "tilt":
        row, tilted = describe_tilted(runner, question, events, k)
        if row is not None:
            return EstimatedRow(row, tilted)
    if way == "split" and may_split:
        row = describe_split(runner, question, k)
        if row is not None:
            return EstimatedRow(row)
    row = describe_plain(runner, question, events, k)
    return EstimatedRow(row, is_unseen=way == "split")


def choose_way(runner: PathsRunner, question: Question, events: PathEvents, bars: int) -> str:
    if question.method != "auto":
        return question.method
    if float(np.mean(events.liquidated[:PILOT] < bars)) >= RARE:
        return "plain"
    return "tilt" if can_tilt(runner.paths) else "split"


def name_phase(progress: PhaseProgress | None, phase: str) -> Progress | None:
    return None if progress is None else functools.partial(progress, phase)


def name_estimates(found: list[RiskEstimate], *, has_calls: bool) -> dict[str, float]:
    row: dict[str, float] = {}
    for kind, each in zip(KINDS, found, strict=True):
        known = each if has_calls or kind != "p_margin_call" else UNKNOWN
        row |= {kind: known.value, f"{kind}_low": known.low, f"{kind}_high": known.high}
    return row


def has_margin_calls(runner: PathsRunner) -> bool:
    return runner.terms.margin_call is not None


def describe_plain(
    runner: PathsRunner, question: Question, events: PathEvents, k: int
) -> dict[str, Any]:
    bars, paths = int(question.bars[k]) + 1, runner.paths
    estimate = estimate_pairs if paths.antithetic else estimate_plain
    firsts = (events.liquidated, events.ruined, events.called)
    found = [estimate((first < bars).astype(np.float64), question.confidence) for first in firsts]
    died = events.liquidated[events.liquidated < bars]
    quantiles = map(float, np.quantile(events.wealth[k], QUANTILES))
    return {
        **name_estimates(found, has_calls=has_margin_calls(runner)),
        "bad_debt": float(np.mean(events.bad_debt[k])),
        **dict(zip(WEALTH, quantiles, strict=True)),
        "days_to_liquidation": float(np.median(find_days(paths)[died])) if died.size else math.nan,
        "method": "antithetic" if paths.antithetic else "plain",
    }


class WeightedPaths(NamedTuple):
    """Paths with weights, up to a horizon.

    ``wealth`` and its weights ``ends`` have shape (n_paths,), and so have ``debt``, the weighted
    bad debt, ``died``, the bar of the first liquidation, and ``deaths``, its weight, 0 without one.
    """

    wealth: FloatArray
    ends: FloatArray
    debt: FloatArray
    died: IntArray
    deaths: FloatArray

    def describe(self, days: FloatArray, total: float) -> dict[str, Any]:
        hit = self.deaths > 0.0
        middle = math.nan
        if hit.any():
            (middle,) = weighted_quantiles(days[self.died[hit]], self.deaths[hit], (0.5,))
        quantiles = weighted_quantiles(self.wealth, self.ends, QUANTILES)
        return {
            "bad_debt": float(np.sum(self.debt)) / total,
            **dict(zip(WEALTH, quantiles, strict=True)),
            "days_to_liquidation": middle,
        }


def describe_split(runner: PathsRunner, question: Question, k: int) -> dict[str, Any] | None:
    ends = parse_duration(question.names[k], where=Place("horizons", of=WHERE))
    own = replace(runner, paths=runner.paths.with_settings(antithetic=False, horizon=ends))
    bars, count = int(question.bars[k]) + 1, own.paths.count
    repeats = split_paths(
        own, bars, count,
        lambda phase: name_phase(question.progress, f"{phase}, {question.names[k]}"),
    )  # fmt: skip
    means = np.array([[np.sum(x.weights[f < bars]) for f in x.firsts] for x in repeats])
    if not repeats or not means[:, 0].any():
        return None
    found = [estimate_repeats(each, question.confidence, count) for each in means.T]
    fields = (np.concatenate(each, axis=-1) for each in zip(*repeats, strict=True))
    whole = SplitPaths(*fields)
    died = whole.firsts[0]
    weighted = WeightedPaths(
        wealth=whole.wealth,
        ends=whole.weights,
        debt=whole.weights * whole.bad_debt,
        died=died,
        deaths=np.where(died < bars, whole.weights, 0.0),
    )
    return {
        **name_estimates(found, has_calls=has_margin_calls(runner)),
        **weighted.describe(find_days(own.paths), len(repeats)),
        "method": "split",
    }


def describe_tilted(
    runner: PathsRunner, question: Question, plain: PathEvents, k: int
) -> tuple[dict[str, Any] | None, PathEvents | None]:
    """Return the row of a horizon from plain and tilted paths; None if they do not help.

    The two samples together are paths of a mixture of both models. Each path is weighted by the
    density of the model over that of the mixture: at the bar of an event, for its probability, and
    at the horizon, for wealth. Source: Owen and Zhou (2000), Safe and Effective Importance
    Sampling, JASA 95(449).
    """
    bars, paths, name = int(question.bars[k]) + 1, runner.paths, question.names[k]
    if question.method != "tilt" and 2 * paths.count < LEAST_SAMPLE:
        return None, None  # both samples together are too few
    if question.progress is not None:
        question.progress(f"searching a tilt of the model, {name}", 0, 0)
    direction = plain.push.direction
    force = find_force(runner, bars, direction)
    if force is None:
        return None, None
    phase = name_phase(question.progress, f"tilted paths, {name}")
    last = np.array([bars - 1])
    tilted = run_tilted(runner, last, direction, force, paths.count, question.threads, phase)
    if tilted is None:
        return None, None
    samples, horizons = (plain, tilted), (k, 0)
    hits = [weigh_events(samples, tilted, kind, bars) for kind in range(len(KINDS))]
    found = [
        estimate_weighted([find_means(own, paths.antithetic), other], question.confidence)
        for own, other in hits
    ]
    if question.method == "tilt":
        check_sample(found[0])
    if not found[0].sample >= LEAST_SAMPLE:
        return None, None
    ends = [
        weigh_mixture(tilted.push, each.ends[h], bars)
        for each, h in zip(samples, horizons, strict=True)
    ]
    debts = [each.bad_debt[h] for each, h in zip(samples, horizons, strict=True)]
    weighted = WeightedPaths(
        wealth=np.concatenate([plain.wealth[k], tilted.wealth[0]]),
        ends=np.concatenate(ends),
        debt=np.concatenate(debts) * np.concatenate(hits[0]),
        died=np.concatenate([each.liquidated for each in samples]),
        deaths=np.concatenate(hits[0]),
    )
    known = [UNKNOWN if each.sample < LEAST_SAMPLE else each for each in found]
    row = {
        **name_estimates(known, has_calls=has_margin_calls(runner)),
        **weighted.describe(find_days(paths), 2.0 * paths.count),
        "method": "tilt",
    }
    return row, tilted


def weigh_mixture(push: Push, move: FloatArray, bars: IntArray | int) -> FloatArray:
    with np.errstate(over="ignore"):
        ratio = np.exp(push.force * move - push.psi * bars)
    return np.asarray(1.0 / (0.5 + 0.5 * ratio))


def weigh_events(
    samples: tuple[PathEvents, PathEvents], tilted: PathEvents, kind: int, bars: int
) -> list[FloatArray]:
    found = []
    for each in samples:
        first = (each.liquidated, each.ruined, each.called)[kind]
        weights = weigh_mixture(tilted.push, each.move[kind], first + 1)
        found.append(np.where(first < bars, weights, 0.0))
    return found


def find_means(weights: FloatArray, is_paired: bool) -> FloatArray:
    return weights[: len(weights) // 2 * 2].reshape(-1, 2).mean(axis=1) if is_paired else weights


FAN = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles of the fan."""


def find_days(paths: Paths) -> FloatArray:
    """Return the days from the start to the close of each bar, of shape (n_bars,)."""
    time = paths.calendar.time
    return np.asarray((time[1:] - time[0]) / DAY, dtype=np.float64)


def weighted_quantiles(
    values: FloatArray, weights: FloatArray, chances: tuple[float, ...]
) -> list[float]:
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order])
    at = np.searchsorted(total, np.array(chances) * total[-1])
    return [float(values[order][min(k, len(values) - 1)]) for k in at]


def tabulate_fan(paths: Paths, events: PathEvents) -> pd.DataFrame:
    values = np.quantile(events.shown, FAN, axis=0).T
    names = [f"equity_{round(100 * q):02d}" for q in FAN]
    return pd.DataFrame(values, columns=names, index=paths.time[1:])


def tabulate_hazard(paths: Paths, events: PathEvents) -> pd.DataFrame:
    day = np.ceil(find_days(paths) - 1e-9).astype(np.int64)
    n_days = int(day[-1])
    died = events.liquidated[events.liquidated < paths.n_bars]
    counts = np.bincount(day[died] - 1, minlength=n_days)
    at_risk = len(events.liquidated) - np.concatenate([[0], np.cumsum(counts)[:-1]])
    share = counts / np.maximum(at_risk, 1)
    columns = {"at_risk": at_risk, "liquidated": counts, "hazard": share}
    return pd.DataFrame(columns, index=pd.RangeIndex(1, n_days + 1, name="day"))


def tabulate_outcomes(events: PathEvents, last: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "wealth": events.wealth[-1],
            "is_liquidated": events.liquidated <= last,
            "is_ruined": events.ruined <= last,
        },
        index=pd.RangeIndex(len(events.ruined), name="path"),
    )


def find_typical(
    paths: Paths, events: PathEvents, tilted: PathEvents | None
) -> pd.DataFrame | None:
    chosen = events if tilted is None else tilted
    if not chosen.doom > 0.0:
        return None
    price, wealth = chosen.doomed / chosen.doom
    return pd.DataFrame({"price": price, "equity": wealth}, index=paths.time[1:])
