"""Risk of a portfolio: shares by instrument, diversification ratio, effective number of bets.

All are functions of weights (signed notionals over equity) and of a covariance of returns.

Sources: Choueifaty and Coignard (2008), Toward Maximum Diversification, J. Portfolio Management
35(1); Meucci (2009), Managing Diversification, Risk 22(5).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from backtest.base.units import FloatArray, IntArray

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

    Notes
    -----
    Means are taken as 0. The value of bar t uses returns up to bar t.
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
    """Return the share of each position in the variance of the portfolio, of the weights' shape.

    Notes
    -----
    w_i (C w)_i / w'C w; they add up to 1, and one is negative where the position hedges. NaN
    without variance.

    Examples
    --------
    >>> risk_shares(np.array([0.5, 0.5]), np.diag([0.04, 0.01])).round(9).tolist()
    [0.8, 0.2]
    """
    marginal = np.einsum("...ij,...j->...i", covariance, weights)
    parts = weights * marginal
    total = parts.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(total > LEAST_VARIANCE, parts / total, np.nan)


def diversification_ratio(weights: FloatArray, covariance: FloatArray) -> FloatArray:
    """Return the sum of the positions' volatilities over that of the portfolio; NaN without.

    Examples
    --------
    >>> round(float(diversification_ratio(np.array([0.5, 0.5]), np.diag([0.04, 0.04]))), 6)
    1.414214
    """
    alone = np.sum(np.abs(weights) * np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1)), axis=-1)
    variance = np.einsum("...i,...ij,...j->...", weights, covariance, weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(variance > LEAST_VARIANCE, alone / np.sqrt(variance), np.nan)
    return np.asarray(found)


def effective_bets(weights: FloatArray, covariance: FloatArray) -> FloatArray:
    """Return the effective number of uncorrelated bets: from 1 to n; NaN without variance.

    Notes
    -----
    exp of the entropy of the shares of the principal components in the variance of the portfolio.

    Examples
    --------
    >>> round(float(effective_bets(np.array([1.0, 1.0]), np.diag([0.04, 0.04]))), 6)
    2.0
    """
    values, vectors = np.linalg.eigh(covariance)
    loads = np.einsum("...ji,...j->...i", vectors, weights)
    parts = np.maximum(values, 0.0) * loads**2
    total = parts.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = parts / total
        entropy = -np.sum(np.where(share > 0.0, share * np.log(share), 0.0), axis=-1)
    return np.asarray(np.where(total[..., 0] > LEAST_VARIANCE, np.exp(entropy), np.nan))
