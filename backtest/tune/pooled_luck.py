"""The luck in a set that was chosen by its measures in several markets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from backtest.base import FloatArray
from backtest.measures import choose_block, draw_histories
from backtest.measures.performance import LEAST_DEVIATION

if TYPE_CHECKING:
    from backtest.sweep import Pooling

HISTORIES = 1_000
"""Resampled histories of a verdict."""


def find_sharpes(returns: FloatArray) -> FloatArray:
    """Return the Sharpe ratios per sample over the next to last axis; 0 if nothing moves."""
    mean, deviation = returns.mean(axis=-2), returns.std(axis=-2, ddof=1)
    moves = deviation >= LEAST_DEVIATION
    return np.where(moves, mean / np.where(moves, deviation, 1.0), 0.0)


def find_chance(returns: FloatArray, pooling: Pooling, seed: int, left_out: int = 0) -> float:
    """Return the probability that the best of some sets is truly better than luck.

    Parameters
    ----------
    returns : array of shape (n_markets, n_days, n_sets)
        Returns on the days that all markets have; the set that was chosen is the last.
    pooling : Pooling
        How Sharpe ratios of several markets become one.
    seed : int
        Seed of the draws.
    left_out : int
        Markets left out after their results were seen, each a pool of its own that luck might have
        favored.

    Notes
    -----
    1 - p of a reality check: the means of all sets are taken out in each market, the same days are
    drawn in all markets by the stationary bootstrap, and p is how often the best pooled Sharpe
    ratio of a draw reaches that of the chosen set. Source: White (2000), A Reality Check for Data
    Snooping, Econometrica 68(5).
    """
    found = pooling.join("sharpe", find_sharpes(returns))[-1]
    still = returns - returns.mean(axis=1, keepdims=True)
    n = returns.shape[1]
    block = choose_block(returns.mean(axis=0).T)
    draws = draw_histories(n, block, HISTORIES, np.random.default_rng([seed, 3]))
    best = [pooling.join("sharpe", find_sharpes(still[:, days])).max() for days, _ in draws]
    return float(np.mean(np.array(best) < found)) ** (1 + left_out)
