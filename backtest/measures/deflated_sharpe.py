"""Sharpe ratios corrected for estimation error and for the number of trials.

Every Sharpe ratio here is per observation, not annualized: the annual one divided by the square
root of the observations per year. Returns whose deviation is below 1e-12 have a Sharpe ratio of 0
here, with the skewness and kurtosis of a normal distribution. No function returns NaN.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from backtest.base import FloatArray, ParameterError, Whole, check_range, checked
from backtest.measures.performance import LEAST_DEVIATION

EULER_MASCHERONI = 0.5772156649015329


class SharpeMoments(NamedTuple):
    """Sharpe ratio of a series of returns, and the moments that its standard error needs."""

    sharpe: float
    """Mean over standard deviation (ddof 1), per observation."""
    n: int
    """Observations."""
    skew: float
    """Third standardized moment."""
    kurtosis: float
    """Fourth standardized moment: 3 for a normal distribution, not 0."""


@checked
def estimate_moments(returns: FloatArray) -> SharpeMoments:
    """Return the Sharpe ratio of a series and the moments its standard error needs.

    Parameters
    ----------
    returns : array of shape (n,)
        Simple excess returns per observation, at least 2, finite.

    Raises
    ------
    ParameterError
        If there are fewer than 2, or one is not finite.

    Examples
    --------
    >>> round(estimate_moments(np.array([0.01, 0.03, 0.01, 0.03])).kurtosis, 12)
    1.0
    """
    table = check_returns(np.asarray(returns)[..., None], samples=2)
    column = table[:, 0]
    n = len(column)
    centered = column - np.mean(column)
    variance = float(np.mean(centered**2))
    deviation = math.sqrt(variance * n / (n - 1))
    if deviation < LEAST_DEVIATION:
        return SharpeMoments(0.0, n, 0.0, 3.0)
    scaled = centered / math.sqrt(variance)
    skew, kurtosis = float(np.mean(scaled**3)), float(np.mean(scaled**4))
    return SharpeMoments(float(np.mean(column)) / deviation, n, skew, kurtosis)


@checked
def probabilistic_sharpe(
    sharpe: float,
    n: int,
    *,
    skew: float = 0.0,
    kurtosis: float = 3.0,
    benchmark: float = 0.0,
) -> float:
    """Return the probability that the true Sharpe ratio is above a benchmark.

    Parameters
    ----------
    sharpe, benchmark : float
        The estimate and the value to compare it with, per observation (not annualized).
    n : int
        Observations, at least 2.
    skew, kurtosis : float
        Third and fourth standardized moments of the returns; 0 and 3 for a normal distribution.

    Returns
    -------
    float
        In [0, 1]. If the estimate has no error (returns of two values only), 0, 1/2 or 1.

    Raises
    ------
    ParameterError
        If a number is not finite, ``n`` is below 2, or no distribution has such moments.

    Notes
    -----
    Phi((S - S*) sqrt(n - 1) / sqrt(1 - g3 S + (g4 - 1) / 4 S^2)). Source: Bailey and Lopez de
    Prado (2012), The Sharpe Ratio Efficient Frontier, Journal of Risk 15(2), eq. 9.

    Examples
    --------
    >>> round(probabilistic_sharpe(0.036 / 0.079, 24, skew=-2.448, kurtosis=10.164), 3)
    0.913
    """
    Whole(2).check("n", n)
    excess = check_finite("sharpe", sharpe) - check_finite("benchmark", benchmark)
    error = math.sqrt(estimation_variance(sharpe, skew, kurtosis) / (n - 1))
    if error == 0.0:
        return 0.5 + 0.5 * float(np.sign(excess))
    return 0.5 * math.erfc(-excess / error / math.sqrt(2.0))


@checked
def expected_max_sharpe(n_trials: float, std: float) -> float:
    """Return the expected Sharpe ratio of the best of several trials without skill.

    Parameters
    ----------
    n_trials : float
        Independent trials, at least 1; see :func:`backtest.measures.effective_trials`.
    std : float
        Standard deviation of the trials' Sharpe ratios, per observation, at least 0.

    Returns
    -------
    float
        Per observation, at least 0; 0 for one trial.

    Raises
    ------
    ParameterError
        If a number is out of its range or not finite.

    Notes
    -----
    SR0 = std ((1 - g) Z(1 - 1/N) + g Z(1 - 1/(N e))), g the Euler-Mascheroni constant, Z the
    normal quantile. Between 1 and 1.3 trials the formula is below 0; the result is then 0. Source:
    Bailey and Lopez de Prado (2014), The Deflated Sharpe Ratio, J. Portfolio Management 40(5).

    Examples
    --------
    >>> round(expected_max_sharpe(100, (0.5 / 250) ** 0.5), 4)
    0.1132
    """
    check_range("n_trials", n_trials, low=1.0, high=1e300)
    check_range("std", std, low=0.0, open_high=True)
    if n_trials == 1.0:
        return 0.0
    quantile = NormalDist().inv_cdf
    # Z(1 - p) = -Z(p): exact also where 1 - p is rounded to 1
    upper, outer = -quantile(1.0 / n_trials), -quantile(1.0 / (n_trials * math.e))
    return max(0.0, std * ((1.0 - EULER_MASCHERONI) * upper + EULER_MASCHERONI * outer))


@checked
def deflated_sharpe(
    sharpe: float,
    n: int,
    *,
    skew: float = 0.0,
    kurtosis: float = 3.0,
    n_trials: float,
    std: float,
) -> float:
    """Return the probability that the best of several trials has skill, not only luck.

    The probabilistic Sharpe ratio against :func:`expected_max_sharpe`, with their parameters and
    errors; all Sharpe ratios per observation (not annualized). One trial is compared with 0.

    Notes
    -----
    Source: Bailey and Lopez de Prado (2014), The Deflated Sharpe Ratio, J. Portfolio Management
    40(5).

    Examples
    --------
    >>> year = 250
    >>> moments = {"skew": -3.0, "kurtosis": 10.0}
    >>> std = (0.5 / year) ** 0.5
    >>> round(deflated_sharpe(2.5 / year**0.5, 5 * year, **moments, n_trials=100, std=std), 4)
    0.9004
    """
    benchmark = expected_max_sharpe(n_trials, std)
    return probabilistic_sharpe(sharpe, n, skew=skew, kurtosis=kurtosis, benchmark=benchmark)


@checked
def deflated_sharpe_of_returns(returns: FloatArray, *, n_trials: float, std: float) -> float:
    """Return :func:`deflated_sharpe` of a series of returns of shape (n,).

    ``std`` is per observation of the same length as these. Constant returns give 1/2 for one trial,
    and less for more.
    """
    return deflated_sharpe(**estimate_moments(returns)._asdict(), n_trials=n_trials, std=std)


@checked
def min_track_record_length(
    sharpe: float,
    *,
    skew: float = 0.0,
    kurtosis: float = 3.0,
    benchmark: float = 0.0,
    confidence: float = 0.95,
) -> float:
    """Return the number of observations needed to show that a Sharpe ratio exceeds a benchmark.

    Parameters
    ----------
    sharpe, benchmark : float
        Per observation (not annualized).
    skew, kurtosis : float
        As :func:`probabilistic_sharpe` takes them.
    confidence : float
        The probability to reach, at least 0.5 and below 1.

    Returns
    -------
    float
        Observations, not rounded; infinite where ``sharpe`` is not above ``benchmark``.

    Raises
    ------
    ParameterError
        If a number is out of its range or not finite.

    Notes
    -----
    1 + (1 - g3 S + (g4 - 1) / 4 S^2) (Z(confidence) / (S - S*))^2. Source: Bailey and Lopez de
    Prado (2012), The Sharpe Ratio Efficient Frontier, Journal of Risk 15(2), eq. 11.

    Examples
    --------
    >>> year = 252
    >>> n = min_track_record_length(2.0 / year**0.5, benchmark=1.0 / year**0.5)
    >>> round(n / year, 2)
    2.73
    """
    check_range("confidence", confidence, low=0.5, high=1.0, open_high=True)
    excess = check_finite("sharpe", sharpe) - check_finite("benchmark", benchmark)
    variance = estimation_variance(sharpe, skew, kurtosis)
    if excess <= 0.0:
        return math.inf
    return 1.0 + variance * (NormalDist().inv_cdf(confidence) / excess) ** 2


def estimation_variance(sharpe: float, skew: float, kurtosis: float) -> float:
    least = 1.0 + check_finite("skew", skew) ** 2
    if check_finite("kurtosis", kurtosis) < least * (1.0 - 1e-9):
        raise ParameterError(
            f"kurtosis must be at least 1 + skew^2 = {least:g}, got {kurtosis!r}; "
            "add 3 to an excess kurtosis"
        )
    return max(0.0, 1.0 - skew * sharpe + 0.25 * (kurtosis - 1.0) * sharpe**2)


def check_finite(name: str, value: float) -> float:
    return check_range(name, value, open_low=True, open_high=True)


def check_returns(returns: npt.ArrayLike, *, samples: int, trials: int = 1) -> FloatArray:
    """Return a table of shape (n_samples, n_trials), checked to be large enough and finite."""
    table = np.asarray(returns, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] < samples or table.shape[1] < trials:
        raise ParameterError(
            f"returns must be of shape (n_samples, n_trials) with at least {samples} samples and "
            f"{trials} trials, got shape {table.shape}"
        )
    bad = np.flatnonzero(~np.isfinite(table).all(axis=0))
    if len(bad):
        raise ParameterError(
            f"returns must be finite, are not in {len(bad)} of {table.shape[1]} trials, first in "
            f"column {bad[0]}; leave failed trials out"
        )
    return table
