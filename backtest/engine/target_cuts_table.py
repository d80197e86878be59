"""The table of ``Result.target_cuts``: how often and how far each limit cut a target."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.base import BoolArray, FloatArray, IntArray
from backtest.base.units import DAY
from backtest.engine.target_cuts import CAUSES, Decisions, find_decisions

if TYPE_CHECKING:
    from backtest.engine.loop_inputs import Inputs
    from backtest.engine.record import Record


def measure_cuts(
    inputs: Inputs, record: Record, entries: FloatArray, first: int
) -> list[dict[str, Any]]:
    """Return the table of :meth:`backtest.Result.target_cuts` as rows.

    ``record`` and ``entries`` are those of the run, which began at bar ``first`` of its market.
    """
    found = find_decisions(inputs, record, entries, first)
    whole = found.asked - found.held
    day = inputs.feed.time[found.bar] // DAY
    rows = [average_cuts("all", whole, np.ones(len(whole), dtype=np.bool_), found, day)]
    for cause in CAUSES:
        cut = found.cuts[cause]
        if cut.any():
            rows.append(average_cuts(cause, cut, cut != 0.0, found, day))
    return rows


def average_cuts(
    cause: str, cut: FloatArray, rows: BoolArray, of: Decisions, day: IntArray
) -> dict[str, Any]:
    """Return one row of the table: the decisions, the means over them, and their UTC days."""
    return average_row(cause, cut[rows], of.asked[rows], of.held[rows], day[rows], len(rows))


def average_row(
    cause: str, cut: FloatArray, asked: FloatArray, held: FloatArray, day: IntArray, total: int
) -> dict[str, Any]:
    """Return a row of the decisions that a limit cut, out of ``total``."""
    columns = {
        "mean_asked": asked,
        "mean_held": held,
        "mean_shortfall": cut,
        "mean_distance": np.abs(cut),
    }
    n = len(cut)
    return {
        "cause": cause,
        "decisions": n,
        "share": n / total if total else math.nan,
        **{name: float(np.mean(x)) if n else math.nan for name, x in columns.items()},
        "days": len(np.unique(day)),
    }
