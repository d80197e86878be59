"""Measures of closed trades: win rate, profit factor, expectancy, losing runs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from backtest.measures.measure_names import Metric

if TYPE_CHECKING:
    from backtest.base import FloatArray

TRADE_MEASURES = {
    "trades": Metric("number", 0, "closed trades"),
    "win_rate": Metric("fraction", 1, "closed trades with a profit after costs"),
    "profit_factor": Metric("number", 1, "what winners made over what losers lost"),
    "expectancy": Metric("money", 1, "mean profit of a closed trade after costs"),
    "mean_win": Metric("money", 1, "mean profit of the winners"),
    "mean_loss": Metric("money", 1, "mean profit of the losers, negative"),
    "best": Metric("money", 1, "largest profit of a trade"),
    "worst": Metric("money", 1, "smallest profit of a trade"),
    "longest_losing_run": Metric("number", -1, "most losers in a row, by their exits"),
    "mean_days": Metric("days", 0, "mean time from entry to exit"),
}


def measure_trades(profit: FloatArray, days: FloatArray) -> dict[str, float]:
    """Return the measures of closed trades, in the order in which they ended.

    Parameters
    ----------
    profit : FloatArray of shape (n_trades,)
        Profits after costs, in the settlement currency.
    days : FloatArray of shape (n_trades,)
        How long each was held.
    """
    wins, losses = profit[profit > 0.0], profit[profit < 0.0]
    lost = -float(losses.sum())
    return {
        "trades": float(len(profit)),
        "win_rate": len(wins) / len(profit) if len(profit) else math.nan,
        "profit_factor": float(wins.sum()) / lost if lost > 0.0 else math.nan,
        "expectancy": average(profit),
        "mean_win": average(wins),
        "mean_loss": average(losses),
        "best": float(profit.max()) if len(profit) else math.nan,
        "worst": float(profit.min()) if len(profit) else math.nan,
        "longest_losing_run": float(count_longest(profit)),
        "mean_days": average(days),
    }


def average(values: FloatArray) -> float:
    return float(values.mean()) if len(values) else math.nan


def count_longest(profit: FloatArray) -> int:
    ends = np.concatenate(([-1], np.flatnonzero(~(profit < 0.0)), [len(profit)]))
    return int(np.diff(ends).max()) - 1
