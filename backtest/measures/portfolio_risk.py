"""Risk of a portfolio: shares by instrument, and the diversification ratio.

Source: Choueifaty and Coignard (2008), Toward Maximum Diversification, J. Portfolio Management
35(1).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from backtest.base import FloatArray, IntArray

LEAST_VARIANCE = 1e-24
"""A variance of the portfolio under which it counts as none."""


def average_covariances(
    returns: FloatArray, half_life: float, rows: IntArray | slice = slice(None)
) -> FloatArray:
    """Return exponentially weighted covariances of returns, of shape (n_rows, n, n).

    Parameters
    ----------
    returns : FloatArray of shape (n_bars, n)
        Simple or log returns per bar; NaN where an instrument has none, which counts as 0.
    half_life : float
        In bars.
    rows : IntArray of shape (n_rows,) or slice
        The bars whose covariances are wanted. Default: all.
    """
    known = np.ascontiguousarray(np.nan_to_num(returns, nan=0.0).T)
    n = len(known)
    found = np.empty((len(np.arange(len(returns))[rows]), n, n))
    for i in range(n):
        for j in range(i + 1):
            product = pd.Series(known[i] * known[j])
            values = product.ewm(halflife=half_life, adjust=True).mean().to_numpy()[rows]
            found[:, i, j] = found[:, j, i] = values
    return found


def risk_shares(weights: FloatArray, covariance: FloatArray) -> FloatArray:
    """Return the share of each position in the variance of the portfolio, of the weights' shape."""
    marginal = np.einsum("...ij,...j->...i", covariance, weights)
    parts = weights * marginal
    total = parts.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(total > LEAST_VARIANCE, parts / total, np.nan)


def diversification_ratio(weights: FloatArray, covariance: FloatArray) -> FloatArray:
    alone = np.sum(np.abs(weights) * np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1)), axis=-1)
    variance = np.einsum("...i,...ij,...j->...", weights, covariance, weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(variance > LEAST_VARIANCE, alone / np.sqrt(variance), np.nan)
    return np.asarray(found)
