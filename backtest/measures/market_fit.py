"""Regression of an account's returns on those of its market: alpha and beta with HAC errors."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from backtest.base import FloatArray, check_lengths, checked
from backtest.measures.performance import LEAST_DEVIATION


class MarketFit(NamedTuple):
    """Alpha per year and beta of returns against a market, with their standard errors."""

    alpha: float
    beta: float
    alpha_error: float
    beta_error: float


UNKNOWN = MarketFit(math.nan, math.nan, math.nan, math.nan)


@checked
def fit_market(excess: FloatArray, market: FloatArray, periods: float) -> MarketFit:
    """Return alpha and beta of an account against its market at 1x.

    Parameters
    ----------
    excess, market : array of shape (n,)
        Simple returns of account and market over the same sampling periods, both in excess of the
        risk-free rate.
    periods : float
        Sampling periods per year.

    Returns
    -------
    MarketFit
        ``alpha`` per year (the intercept times ``periods``), ``beta``, and the standard errors
        ``alpha_error`` and ``beta_error``. NaN for fewer than 3 returns, or if the standard
        deviation of the market is below 1e-12.

    Notes
    -----
    Least squares. The errors allow for heteroscedastic and autocorrelated residuals: Newey and West
    (1987), A Simple, Positive Semi-Definite, Heteroskedasticity and Autocorrelation Consistent
    Covariance Matrix, Econometrica 55(3), with the weights 1 - k / (lags + 1) of Bartlett, no
    correction for small samples, and :func:`choose_lags`.

    Examples
    --------
    >>> market = np.array([0.01, -0.02, 0.03, 0.0])
    >>> round(fit_market(2.0 * market + 0.001, market, 365.0).beta, 12)
    2.0
    """
    check_lengths(excess=excess, market=market)
    excess, market = np.asarray(excess), np.asarray(market)
    n = len(market)
    if n < 3 or not np.std(market, ddof=1) >= LEAST_DEVIATION:
        return UNKNOWN
    table = np.column_stack([np.ones(n), market])
    inverse = np.linalg.inv(table.T @ table)
    found = inverse @ (table.T @ excess)
    covariance = inverse @ sum_scores(table * (excess - table @ found)[:, None]) @ inverse
    errors = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    return MarketFit(
        alpha=float(found[0] * periods),
        beta=float(found[1]),
        alpha_error=float(errors[0] * periods),
        beta_error=float(errors[1]),
    )


def choose_lags(n: int) -> int:
    """Return floor(4 (n / 100)^(2/9)), at most n - 1.

    The rule of thumb of Newey and West (1994), Automatic Lag Selection in Covariance Matrix
    Estimation, Review of Economic Studies 61(4).
    """
    return min(int(4.0 * (n / 100.0) ** (2.0 / 9.0)), n - 1)


def sum_scores(scores: FloatArray) -> FloatArray:
    """Return the covariance of the sum of scores, an array of shape (n, k), by Newey and West."""
    n = len(scores)
    lags = choose_lags(n)
    total: FloatArray = scores.T @ scores
    for k in range(1, lags + 1):
        shifted = scores[k:].T @ scores[:-k]
        total = total + (1.0 - k / (lags + 1.0)) * (shifted + shifted.T)
    return total
