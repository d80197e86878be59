"""Weights of a covariance matrix, each adding up to 1."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from backtest.base import FloatArray, IntArray, ParameterError, compile_module
from backtest.weights import covariance_kernels

Linkage: TypeAlias = Literal["single", "complete", "average", "ward"]


def inverse_volatility_weights(covariances: FloatArray) -> FloatArray:
    """Return weights in proportion to 1 / sigma_i.

    Parameters
    ----------
    covariances : FloatArray of shape (k, n, n)

    Returns
    -------
    FloatArray of shape (k, n)
    """
    inverse = 1.0 / np.sqrt(np.diagonal(covariances, axis1=1, axis2=2))
    return np.asarray(inverse / inverse.sum(axis=1, keepdims=True))


def equal_risk_weights(covariances: FloatArray) -> FloatArray:
    """Return the long weights whose contributions w_i (C w)_i to the variance are equal.

    Shapes as in :func:`inverse_volatility_weights`. Source: Maillard, Roncalli and Teiletche
    (2010), The Properties of Equally Weighted Risk Contribution Portfolios, J. Portfolio
    Management 36(4); solved in turn as by Griveau-Billion, Richard and Roncalli (2013).
    """
    weights = np.empty(covariances.shape[:2])
    compile_module(covariance_kernels).equal_risk_lanes(covariances, weights)
    return weights


def minimum_variance_weights(covariances: FloatArray, *, long_only: bool = False) -> FloatArray:
    """Return C^-1 1 / (1' C^-1 1), or the long weights of least variance.

    Notes
    -----
    The long weights are in proportion to the y >= 0 that minimizes y' C y / 2 - 1' y: the least
    squares of L' y - L^-1 1 with C = L L'.
    """
    n = covariances.shape[1]
    scale = np.sqrt(np.diagonal(covariances, axis1=1, axis2=2))
    correlations = covariances / (scale[:, :, None] * scale[:, None, :])
    lowest = np.linalg.eigvalsh(correlations)[:, 0]
    if not (lowest > 1e-12).all():
        raise ParameterError(
            "the covariance matrix of returns is singular: some instruments move together",
            where="bt.allocate.minimum_variance",
            cure="leave one of them out, give a longer half-life, or give window= to shrink them",
        )
    factors = np.linalg.cholesky(correlations)
    right = np.linalg.solve(factors, (1.0 / scale)[:, :, None])
    if long_only:
        found = np.stack(
            [_solve_nonnegative(f.T, r[:, 0]) for f, r in zip(factors, right, strict=True)]
        )
    else:
        found = np.linalg.solve(np.swapaxes(factors, 1, 2), right)[:, :, 0]
    found = found.reshape(-1, n) / scale
    return np.asarray(found / found.sum(axis=1, keepdims=True))


def _solve_nonnegative(matrix: FloatArray, right: FloatArray) -> FloatArray:
    from scipy.optimize import nnls  # noqa: PLC0415 - takes a while, only where asked for

    return np.asarray(nnls(matrix, right)[0])


def hierarchical_weights(covariances: FloatArray, *, linkage: Linkage = "single") -> FloatArray:
    """Return the weights of hierarchical risk parity.

    Notes
    -----
    Instruments are clustered by d_ij = sqrt((1 - rho_ij) / 2) and put in the order of the tree. The
    list is halved again and again, and each half gets its share by the inverse of its variance,
    inside of it by the inverses of the variances. Source: López de Prado (2016), Building
    Diversified Portfolios that Outperform Out of Sample, J. Portfolio Management 42(4); its code
    clusters by the distances between rows of d instead.
    """
    return np.stack([_split_risk(each, _order(each, linkage)) for each in covariances])


def _order(covariance: FloatArray, linkage: Linkage) -> IntArray:
    from scipy.cluster import hierarchy  # noqa: PLC0415 - takes a while, only where asked for

    n = len(covariance)
    if n < 3:
        return np.arange(n)
    scale = np.sqrt(np.diagonal(covariance))
    correlation = np.clip(covariance / np.outer(scale, scale), -1.0, 1.0)
    distance = np.sqrt(0.5 * (1.0 - correlation))
    tree = hierarchy.linkage(distance[np.triu_indices(n, 1)], method=linkage)
    return np.asarray(hierarchy.leaves_list(tree), dtype=np.int64)


def _split_risk(covariance: FloatArray, order: IntArray) -> FloatArray:
    weights = np.ones(len(covariance))
    parts = [order]
    while parts:
        halves = [
            (part[: len(part) // 2], part[len(part) // 2 :]) for part in parts if len(part) > 1
        ]
        for left, right in halves:
            one, other = _find_variance(covariance, left), _find_variance(covariance, right)
            weights[left] *= other / (one + other)
            weights[right] *= one / (one + other)
        parts = [half for pair in halves for half in pair]
    return weights


def _find_variance(covariance: FloatArray, members: IntArray) -> float:
    part = covariance[np.ix_(members, members)]
    inverse = 1.0 / np.diagonal(part)
    weights = inverse / inverse.sum()
    return float(weights @ part @ weights)
