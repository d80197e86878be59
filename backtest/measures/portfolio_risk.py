"""Risk of a portfolio: shares by instrument, diversification ratio, effective number of bets.

Sources: Choueifaty and Coignard (2008), Toward Maximum Diversification, J. Portfolio Management
35(1); Meucci, Santangelo and Deguest (2015), Risk Budgeting and Diversification Based on Optimized
Uncorrelated Factors, Risk 28(11).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from backtest.base import FloatArray, IntArray

LEAST_VARIANCE = 1e-24
"""A variance of the portfolio under which it counts as none."""
PRECISION = 1e-9
"""Change of the torsion's correlations at which its iteration ends."""
MOST_STEPS = 1000


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


def effective_bets(weights: FloatArray, covariance: FloatArray) -> FloatArray:
    deviation = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
    unit = np.where(deviation > 0.0, deviation, 1.0)
    correlation = covariance / (unit[..., :, None] * unit[..., None, :])
    places = np.arange(correlation.shape[-1])
    correlation[..., places, places] = 1.0
    values, vectors = np.linalg.eigh(correlation)
    scaled = vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :]
    root = scaled @ np.swapaxes(vectors, -1, -2)
    bets = find_rotation(root) @ root @ (weights * deviation)[..., None]
    parts = bets[..., 0] ** 2
    total = parts.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = parts / total
        entropy = -np.sum(np.where(share > 0.0, share * np.log(share), 0.0), axis=-1)
    return np.asarray(np.where(total[..., 0] > LEAST_VARIANCE, np.exp(entropy), np.nan))


def find_rotation(root: FloatArray) -> FloatArray:
    """Return the rotation q of the minimum torsion of correlations C = root root, of their shape.

    Notes
    -----
    The torsion D q root^-1 with a diagonal D > 0 has the least error. q is the orthogonal polar
    factor of D root, and D the diagonal of q root: each is computed from the other in turn,
    beginning with D = 1.
    """
    roots = root.reshape(-1, *root.shape[-2:])
    rotation, scale = np.empty_like(roots), np.ones(roots.shape[:2])
    left = np.arange(len(roots))
    for _ in range(MOST_STEPS):
        before, _, after = np.linalg.svd(scale[left][:, :, None] * roots[left])
        rotation[left] = before @ after
        found = np.einsum("kij,kji->ki", rotation[left], roots[left])
        gap = np.abs(found - scale[left]).max(axis=-1)
        scale[left] = found
        left = left[gap > PRECISION]
        if not len(left):
            break
    return rotation.reshape(root.shape)
