"""The table of ``Result.target_cuts``: how often and how far each limit cut a target."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.base.units import FloatArray
from backtest.engine.target_cuts import CAUSES, Decisions, find_decisions

if TYPE_CHECKING:
    from backtest.engine.loop_inputs import Inputs


def measure_cuts(
    inputs: Inputs, record: FloatArray, entries: FloatArray, first: int
) -> list[dict[str, Any]]:
    """Return the table of :meth:`backtest.Result.target_cuts` as rows.

    Parameters
    ----------
    inputs : Inputs
        What the run was given.
    record : array of shape (columns, n_bars)
        What it recorded, from bar ``first`` on.
    entries : array of shape (n_entries, 8)
        The log of the run.
    first : int
        The bar of the market at which the run began.
    """
    found = find_decisions(inputs, record, entries, first)
    rows = [summarise("all", found.asked, found.held, found.asked - found.held, found)]
    for cause in CAUSES:
        cut = found.cuts[cause]
        bound = cut != 0.0
        if bound.any():
            asked, held = found.asked[bound], found.held[bound]
            rows.append(summarise(cause, asked, held, cut[bound], found))
    return rows


def summarise(
    cause: str, asked: FloatArray, held: FloatArray, cut: FloatArray, of: Decisions
) -> dict[str, Any]:
    """Return one row: how many decisions, and the means over them."""
    n, total = len(asked), len(of.asked)
    means = [float(np.mean(each)) if n else math.nan for each in (asked, held, cut, np.abs(cut))]
    return {
        "cause": cause,
        "decisions": n,
        "share": n / total if total else math.nan,
        "mean_asked": means[0],
        "mean_held": means[1],
        "mean_shortfall": means[2],
        "mean_distance": means[3],
    }
