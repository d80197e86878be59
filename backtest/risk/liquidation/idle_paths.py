"""Find accounts that traded less than their policy asked: no order filled, or limits cut them."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np

from backtest.base import FloatArray, NoFillWarning, format_leverage, warn_caller
from backtest.engine import Result, is_large
from backtest.engine.target_cuts_text import WORDS
from backtest.risk.liquidation.paths_runner import PathsRunner


def run_first_path(runner: PathsRunner) -> Result:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return replace(runner, compile=False).run_path(0)


def explain_idle(runner: PathsRunner, *wealth: FloatArray) -> str:
    if any((each != each[:, :1]).any() for each in wealth):
        return ""
    return run_first_path(runner).no_fill


def warn_of_idle(no_fill: str, count: int) -> None:
    if no_fill:
        warn_caller(
            f"no order was filled on any of {count:,} paths, so nothing can be liquidated: "
            f"{no_fill}",
            NoFillWarning,
        )


def describe_shortfall(runner: PathsRunner) -> str:
    result = run_first_path(runner)
    if result.no_fill:
        return f"no order was filled: {result.no_fill}"
    rows = [row for row in result.target_cut_rows if row.get("instrument", "all") == "all"]
    if not rows:
        return ""
    total = rows[0]
    cuts = [row for row in rows[1:] if is_large(row, total) and row["mean_shortfall"] > 0.0]
    cuts = [row for row in cuts if row["cause"] != "band"]
    if not cuts or not np.isfinite(total["mean_held"]):
        return ""
    causes = ", ".join(WORDS[row["cause"]] for row in cuts)
    return (
        f"asked for {format_leverage(total['mean_asked'])} on average and held "
        f"{format_leverage(total['mean_held'])}, cut by {causes}"
    )
