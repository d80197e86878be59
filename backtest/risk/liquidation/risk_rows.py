"""The tables of a risk: by horizon, by time, by day and by path."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pandas as pd

from backtest.base import FloatArray
from backtest.base.units import DAY
from backtest.engine import Progress
from backtest.risk.liquidation.path_events import PathEvents
from backtest.risk.liquidation.paths_runner import PathsRunner
from backtest.risk.liquidation.risk_intervals import (
    UNKNOWN,
    RiskEstimate,
    estimate_pairs,
    estimate_plain,
)
from backtest.risk.liquidation.risk_question import PhaseProgress, Question
from backtest.risk.paths.path_set import Paths

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
