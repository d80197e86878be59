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
"""Unit, direction and meaning of the measures of trades, in their order."""


def measure_trades(profit: FloatArray, days: FloatArray) -> dict[str, float]:
    """Return the measures of closed trades, in the order in which they ended.

    ``trades`` is their number, ``win_rate`` the share with a profit, ``profit_factor`` what the
    winners made over what the losers lost (NaN without a loser), ``expectancy`` the mean profit.
    ``longest_losing_run`` is the largest number of losers in a row. NaN where there is no trade.

    Parameters
    ----------
    profit : FloatArray of shape (n_trades,)
        Profits after costs, in the settlement currency.
    days : FloatArray of shape (n_trades,)
        How long each was held.

    Examples
    --------
    >>> found = measure_trades(np.array([3.0, -1.0, -1.0, 1.0]), np.ones(4))
    >>> found["win_rate"], found["profit_factor"], found["expectancy"], found["longest_losing_run"]
    (0.5, 2.0, 0.5, 2.0)
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
    """Return the mean, NaN of nothing."""
    return float(values.mean()) if len(values) else math.nan


def count_longest(profit: FloatArray) -> int:
    """Return the largest number of losses in a row."""
    ends = np.concatenate(([-1], np.flatnonzero(~(profit < 0.0)), [len(profit)]))
    return int(np.diff(ends).max()) - 1
