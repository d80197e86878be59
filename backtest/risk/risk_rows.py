"""What is asked of paths, what happened on them, and the tables and intervals of it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import (
    Choice,
    FloatArray,
    IntArray,
    Number,
    ParameterError,
    Whole,
    format_duration,
    parse_duration,
    repr_plain,
)
from backtest.base.units import DAY
from backtest.engine import Progress
from backtest.risk.paths import Paths
from backtest.risk.paths_runner import PathLives, PathsRunner

USUAL = ("1d", "7d", "30d")
METHODS = Choice("auto", "plain")


PhaseProgress = Callable[[str, int, int], None]


class Question(NamedTuple):
    names: tuple[str, ...]
    bars: IntArray
    confidence: float
    method: str
    threads: int
    progress: PhaseProgress | None


def read_question(
    paths: Paths,
    horizons: Sequence[str] | None,
    confidence: float,
    method: str,
    threads: int,
    progress: PhaseProgress | None,
) -> Question:
    chosen = METHODS.check("method", method)
    level = Number(0.0, 1.0, open_low=True, open_high=True)
    sure = level.check("confidence", confidence)
    threads = Whole(1).check("threads", threads)
    names = read_horizons(paths, horizons)
    bars = np.array([count_bars(paths, name) for name in names], dtype=np.int64)
    return Question(names, bars - 1, sure, chosen, threads, progress)


def read_horizons(paths: Paths, horizons: Sequence[str] | None) -> tuple[str, ...]:
    if horizons is None:
        fit = tuple(x for x in USUAL if parse_duration(x) <= paths.horizon)
        usable = tuple(x for x in fit if count_bars(paths, x, is_strict=False) > 0)
        is_whole = any(parse_duration(x) == paths.horizon for x in usable)
        return usable if is_whole else (*usable, format_duration(paths.horizon))
    given = (horizons,) if isinstance(horizons, str) else horizons
    if not isinstance(given, list | tuple) or not given:
        raise ParameterError(f"horizons must be a list of durations, got {repr_plain(given)}")
    return tuple(given)


def count_bars(paths: Paths, horizon: str, *, is_strict: bool = True) -> int:
    span = parse_duration(horizon, "horizons")
    calendar = paths.calendar
    closes = calendar.time[1:] + paths.history.interval
    start = int(calendar.time[0]) + paths.history.interval
    bars = int(np.sum(closes <= start + span))
    if is_strict and (span > paths.horizon or bars < 1):
        raise ParameterError(
            "horizons must lie between a bar and the length of the paths, "
            f"{format_duration(paths.horizon)}, got {horizon}"
        )
    return bars


SHOWN = 2000
"""Paths whose equity is kept bar by bar, for the fan."""


class PathEvents(NamedTuple):
    """Events of paths, and what is left at some bars.

    ``liquidated``, ``ruined`` and ``called`` (n_paths,) are the bars of the first such event, the
    number of bars where there is none. ``wealth`` and ``bad_debt`` (n_horizons, n_paths) are wealth
    and debt at the end of each horizon. ``shown`` (up to 2000, n_bars) is the wealth of the first
    paths. ``doomed`` (2, n_bars) sums close (relative) and wealth over the ``n_doomed`` paths that
    are liquidated.
    """

    liquidated: IntArray
    ruined: IntArray
    called: IntArray
    wealth: FloatArray
    bad_debt: FloatArray
    shown: FloatArray
    doomed: FloatArray
    n_doomed: int


def find_first(values: FloatArray) -> IntArray:
    is_set = values != 0.0
    return np.asarray(np.where(is_set.any(axis=1), is_set.argmax(axis=1), values.shape[1]))


def reduce_lives(lives: Iterable[PathLives], bars: IntArray, last: FloatArray) -> PathEvents:
    firsts: list[IntArray] = []
    rows: list[FloatArray] = []
    shown: list[FloatArray] = []
    doomed, n_doomed = np.zeros((2, 1)), 0
    for each in lives:
        found = np.array([find_first(x) for x in (each.liquidations, each.is_ruined, each.calls)])
        debt = np.cumsum(each.bad_debt, axis=1)
        firsts.append(found)
        rows.append(np.concatenate([each.wealth[:, bars].T, debt[:, bars].T]))
        if each.first < SHOWN:
            shown.append(each.wealth[: SHOWN - each.first])
        hit = found[0] < each.wealth.shape[1]
        price = sum(
            closes[hit] / start / len(last) for closes, start in zip(each.closes, last, strict=True)
        )
        doomed = doomed + np.array([np.sum(price, axis=0), np.sum(each.wealth[hit], axis=0)])
        n_doomed += int(np.sum(hit))
    liquidated, ruined, called = np.concatenate(firsts, axis=1)
    kept, k = np.concatenate(rows, axis=1), len(bars)
    return PathEvents(
        liquidated=liquidated,
        ruined=ruined,
        called=called,
        wealth=kept[:k],
        bad_debt=kept[k:],
        shown=np.concatenate(shown),
        doomed=doomed,
        n_doomed=n_doomed,
    )


FEW_HITS = 10
"""Below this many hits the correlation within pairs is taken as 0: it cannot be estimated."""


class RiskEstimate(NamedTuple):
    value: float
    low: float
    high: float


UNKNOWN = RiskEstimate(math.nan, math.nan, math.nan)


def exact_interval(hits: float, n: float, confidence: float) -> tuple[float, float]:
    """Return the interval of Clopper and Pearson; hits and n may be effective, not whole.

    Source: Clopper and Pearson (1934), Biometrika 26(4).
    """
    from scipy.special import betaincinv  # noqa: PLC0415 - slow to load

    tail = 0.5 * (1.0 - confidence)
    low = 0.0 if hits <= 0.0 else float(betaincinv(hits, n - hits + 1.0, tail))
    high = 1.0 if hits >= n else float(betaincinv(hits + 1.0, n - hits, 1.0 - tail))
    return low, high


def estimate_plain(is_hit: FloatArray, confidence: float) -> RiskEstimate:
    """Return the share of independent paths that were hit; ``is_hit`` has shape (n_paths,)."""
    n, hits = len(is_hit), float(np.sum(is_hit))
    return RiskEstimate(hits / n, *exact_interval(hits, n, confidence))


def estimate_pairs(is_hit: FloatArray, confidence: float) -> RiskEstimate:
    """Return the share of paths that were hit, of pairs of mirrored paths side by side.

    The interval is that of Clopper and Pearson for the effective number of independent paths, p (1
    - p) over the variance of the pair means. Source: Korn and Graubard (1998), Confidence Intervals
    for Proportions with Small Expected Number of Positive Counts, Survey Methodology 24(2).
    """
    pairs = is_hit[: len(is_hit) // 2 * 2].reshape(-1, 2)
    if len(pairs) < 2:
        return estimate_plain(is_hit, confidence)
    p = float(np.mean(is_hit))
    variance = float(np.var(pairs.mean(axis=1), ddof=1)) / len(pairs)
    n = float(len(is_hit))
    if min(np.sum(is_hit), n - np.sum(is_hit)) >= FEW_HITS and variance > 0.0:
        n = p * (1.0 - p) / variance
    return RiskEstimate(p, *exact_interval(p * n, n, confidence))


KINDS = ("p_liquidation", "p_ruin", "p_margin_call")
QUANTILES = (0.05, 0.5, 0.95)
WEALTH = ("equity_05", "equity_50", "equity_95")
COLUMNS = (
    *(f"{kind}{end}" for kind in KINDS for end in ("", "_low", "_high")),
    "bad_debt", *WEALTH, "days_to_liquidation", "method",
)  # fmt: skip


def name_phase(progress: PhaseProgress | None, phase: str) -> Progress | None:
    return None if progress is None else functools.partial(progress, phase)


def name_estimates(found: list[RiskEstimate], *, has_calls: bool) -> dict[str, float]:
    row: dict[str, float] = {}
    for kind, each in zip(KINDS, found, strict=True):
        known = each if has_calls or kind != "p_margin_call" else UNKNOWN
        row |= {kind: known.value, f"{kind}_low": known.low, f"{kind}_high": known.high}
    return row


def describe_horizon(
    runner: PathsRunner, question: Question, events: PathEvents, k: int
) -> dict[str, Any]:
    bars, paths = int(question.bars[k]) + 1, runner.paths
    estimate = estimate_pairs if paths.antithetic else estimate_plain
    firsts = (events.liquidated, events.ruined, events.called)
    found = [estimate((first < bars).astype(np.float64), question.confidence) for first in firsts]
    died = events.liquidated[events.liquidated < bars]
    quantiles = map(float, np.quantile(events.wealth[k], QUANTILES))
    return {
        **name_estimates(found, has_calls=runner.terms.margin_call is not None),
        "bad_debt": float(np.mean(events.bad_debt[k])),
        **dict(zip(WEALTH, quantiles, strict=True)),
        "days_to_liquidation": float(np.median(find_days(paths)[died])) if died.size else math.nan,
        "method": "antithetic" if paths.antithetic else "plain",
    }


FAN = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles of the fan."""


def find_days(paths: Paths) -> FloatArray:
    """Return the days from the start to the close of each bar, of shape (n_bars,)."""
    time = paths.calendar.time
    return np.asarray((time[1:] - time[0]) / DAY, dtype=np.float64)


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


def find_typical(paths: Paths, events: PathEvents) -> pd.DataFrame | None:
    if not events.n_doomed:
        return None
    price, wealth = events.doomed / events.n_doomed
    return pd.DataFrame({"price": price, "equity": wealth}, index=paths.time[1:])
