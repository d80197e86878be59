"""Correlations of the random numbers of several instruments."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from backtest.base import FloatArray, Number, ParameterError
from backtest.features import log_returns
from backtest.market import Markets
from backtest.risk.paths.path_model import MOST_RETURNS

SLACK = 1e-9
"""What a correlation matrix may lack to be positive semidefinite."""


def factor_correlation(correlation: FloatArray) -> FloatArray:
    c = np.asarray(correlation, dtype=np.float64)
    is_matrix = bool(np.isfinite(c).all() and np.allclose(c, c.T, atol=1e-12))
    is_matrix = is_matrix and bool(np.allclose(np.diag(c), 1.0))
    if not is_matrix or float(np.linalg.eigvalsh(c).min()) < -SLACK:
        raise ParameterError(
            "correlation must be a symmetric matrix with ones on its diagonal and no negative "
            f"eigenvalue, got {np.round(c, 4).tolist()}"
        )
    n, low = len(c), np.zeros_like(c)
    for i in range(n):
        for j in range(i + 1):
            rest = float(c[i, j] - low[i, :j] @ low[j, :j])
            if i == j:
                low[i, i] = math.sqrt(rest) if rest > SLACK else 0.0
            elif low[j, j] > 0.0:
                low[i, j] = rest / low[j, j]
    return np.asarray(low / np.linalg.norm(low, axis=1, keepdims=True))


def read_correlation(given: Any, history: Markets) -> tuple[tuple[float, ...], ...]:
    """Return the correlations of the normal numbers, (n, n); by default those of log returns."""
    n = len(history)
    if given is None:
        returns = [log_returns(each)[1:][-MOST_RETURNS:] for each in history.values()]
        found = np.zeros((n, n))
        if len(returns[0]) > 1:
            with np.errstate(all="ignore"):
                found = np.atleast_2d(np.corrcoef(returns))
        found = np.where(np.isfinite(found), found, 0.0)
        np.fill_diagonal(found, 1.0)
    elif np.ndim(given) == 0:
        rho = Number(-1.0, 1.0).check("correlation", given)
        found = np.full((n, n), rho)
        np.fill_diagonal(found, 1.0)
    else:
        found = np.asarray(given, dtype=np.float64)
        if found.shape != (n, n):
            raise ParameterError(
                f"correlation of {n} instruments must have shape ({n}, {n}), got {found.shape}"
            )
    return tuple(tuple(map(float, row)) for row in found)
