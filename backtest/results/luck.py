"""How much of a Sharpe ratio, or of the best of several trials, may be chance.

Every Sharpe ratio here but that of :func:`sharpe_error` is per observation, not annualized: the
annual one divided by the square root of the observations per year. Returns whose deviation is below
1e-12 have a Sharpe ratio of 0, with the skewness and kurtosis of a normal distribution.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from backtest import core
from backtest.results.performance import LEAST_DEVIATION

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


@core.checked
def estimate_moments(returns: core.FloatArray) -> SharpeMoments:
    """Return the Sharpe ratio of finite excess returns (n,), two or more, and their moments.

    Examples
    --------
    >>> round(estimate_moments(np.array([0.01, 0.03, 0.01, 0.03])).kurtosis, 12)
    1.0
    """
    column = check_returns(np.asarray(returns)[..., None], samples=2)[:, 0]
    n = len(column)
    centered = column - np.mean(column)
    variance = float(np.mean(centered**2))
    deviation = math.sqrt(variance * n / (n - 1))
    if deviation < LEAST_DEVIATION:
        return SharpeMoments(sharpe=0.0, n=n, skew=0.0, kurtosis=3.0)

    scaled = centered / math.sqrt(variance)
    return SharpeMoments(
        sharpe=float(np.mean(column)) / deviation,
        n=n,
        skew=float(np.mean(scaled**3)),
        kurtosis=float(np.mean(scaled**4)),
    )


@core.checked
def probabilistic_sharpe(
    sharpe: float,
    n: float,
    *,
    skew: float = 0.0,
    kurtosis: float = 3.0,
    benchmark: float = 0.0,
) -> float:
    """Return the probability that the true Sharpe ratio is above a benchmark.

    ``sharpe`` and ``benchmark`` are per observation, of ``n`` independent observations, at least 2
    (:func:`effective_observations`); ``skew`` and ``kurtosis`` the third and fourth standardized
    moments, 0 and 3 for a normal distribution. If the estimate has no error (returns of two values
    only), the result is 0, 1/2 or 1.

    Notes
    -----
    Phi((S - S*) sqrt(n - 1) / sqrt(1 - g3 S + (g4 - 1) / 4 S^2)). Source: Bailey and Lopez de Prado
    (2012), The Sharpe Ratio Efficient Frontier, Journal of Risk 15(2), eq. 9.

    Examples
    --------
    >>> round(probabilistic_sharpe(0.036 / 0.079, 24, skew=-2.448, kurtosis=10.164), 3)
    0.913
    """
    core.check_range("n", n, low=2.0, open_high=True)
    excess = check_finite("sharpe", sharpe) - check_finite("benchmark", benchmark)
    variance = estimation_variance(sharpe, skew, kurtosis)
    error = math.sqrt(variance / (n - 1))
    if error == 0.0:
        return 0.5 + 0.5 * float(np.sign(excess))
    return 0.5 * math.erfc(-excess / error / math.sqrt(2.0))


@core.checked
def expected_max_sharpe(n_trials: float, std: float) -> float:
    """Return the Sharpe ratio expected of the best of several trials without skill.

    ``n_trials`` are independent (see :func:`effective_trials`), at least 1; ``std`` is the standard
    deviation of their Sharpe ratios, per observation.

    Notes
    -----
    SR0 = std ((1 - g) Z(1 - 1/N) + g Z(1 - 1/(N e))), g the Euler-Mascheroni constant, Z the normal
    quantile; 0 where that is below 0, between 1 and 1.3 trials. Source: Bailey and Lopez de Prado
    (2014), The Deflated Sharpe Ratio, J. Portfolio Management 40(5).

    Examples
    --------
    >>> round(expected_max_sharpe(100, (0.5 / 250) ** 0.5), 4)
    0.1132
    """
    core.check_range(
        "n_trials",
        n_trials,
        low=1.0,
        high=1e300,
    )
    core.check_range("std", std, low=0.0, open_high=True)
    if n_trials == 1.0:
        return 0.0

    # Z(1 - p) = -Z(p): exact also where 1 - p is rounded to 1.
    quantile = NormalDist().inv_cdf
    upper = -quantile(1.0 / n_trials)
    outer = -quantile(1.0 / (n_trials * math.e))
    mean = (1.0 - EULER_MASCHERONI) * upper + EULER_MASCHERONI * outer
    return max(0.0, std * mean)


@core.checked
def deflated_sharpe(
    sharpe: float,
    n: float,
    *,
    skew: float = 0.0,
    kurtosis: float = 3.0,
    n_trials: float,
    std: float,
) -> float:
    """Return the probability that the best of several trials has skill, beyond chance.

    The probabilistic Sharpe ratio against :func:`expected_max_sharpe`, with their parameters.
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
    return probabilistic_sharpe(
        sharpe,
        n,
        skew=skew,
        kurtosis=kurtosis,
        benchmark=benchmark,
    )


@core.checked
def deflated_sharpe_of_returns(
    returns: core.FloatArray,
    *,
    n_trials: float,
    std: float,
) -> float:
    """Return :func:`deflated_sharpe` of a series of returns of shape (n,).

    ``std`` is per observation of the same length as these. Constant returns give 1/2 for one trial,
    and less for more.
    """
    moments = estimate_moments(returns)
    return deflated_sharpe(
        moments.sharpe,
        moments.n,
        skew=moments.skew,
        kurtosis=moments.kurtosis,
        n_trials=n_trials,
        std=std,
    )


def estimation_variance(sharpe: float, skew: float, kurtosis: float) -> float:
    """Return the variance of an estimated Sharpe ratio, times the observations less one."""
    least = 1.0 + check_finite("skew", skew) ** 2
    if check_finite("kurtosis", kurtosis) < least * (1.0 - 1e-9):
        raise core.ParameterError(
            f"kurtosis must be at least 1 + skew^2 = {least:g}, got {kurtosis!r}; "
            "add 3 to an excess kurtosis"
        )
    return max(0.0, 1.0 - skew * sharpe + 0.25 * (kurtosis - 1.0) * sharpe**2)


def check_finite(name: str, value: float) -> float:
    return core.check_range(
        name,
        value,
        open_low=True,
        open_high=True,
    )


def check_returns(
    returns: npt.ArrayLike,
    *,
    samples: int,
    trials: int = 1,
) -> core.FloatArray:
    """Return a table of shape (n_samples, n_trials), checked to be large enough and finite."""
    table = np.asarray(returns, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] < samples or table.shape[1] < trials:
        raise core.ParameterError(
            f"returns must be of shape (n_samples, n_trials) with at least {samples} samples and "
            f"{trials} trials, got shape {table.shape}"
        )
    bad = np.flatnonzero(~np.isfinite(table).all(axis=0))
    if len(bad):
        raise core.ParameterError(
            f"returns must be finite, are not in {len(bad)} of {table.shape[1]} trials, first in "
            f"column {bad[0]}; leave failed trials out"
        )
    return table


@core.checked
def sharpe_error(
    excess: core.FloatArray,
    periods: float,
    *,
    n: float | None = None,
) -> float:
    """Return the standard error of the annual Sharpe ratio.

    ``excess`` (n,) are simple returns per sampling period in excess of the risk-free rate,
    ``periods`` sampling periods per year; ``n`` is how many independent ones they are worth, all of
    them by default. The measure of a run has that of :func:`effective_observations`. NaN if there
    is no Sharpe ratio: fewer than 2 returns, or a deviation below 1e-12.

    Notes
    -----
    sqrt((1 - g3 S + (g4 - 1) / 4 · S²) / (n - 1)) · sqrt(periods), with S the Sharpe ratio per
    sampling period, g3 the skewness m3 / m2^1.5 and g4 the kurtosis m4 / m2² (3 for a normal
    distribution). Sources: Mertens (2002), Comments on Variance of the IID estimator in Lo (2002);
    Lo (2002), The Statistics of Sharpe Ratios, Financial Analysts Journal 58(4), for normal
    returns.

    Examples
    --------
    >>> round(sharpe_error(np.array([0.01, -0.01] * 50), 365.0), 12)
    1.920122049993
    """
    core.check_range("periods", periods, low=0.0)
    if not has_spread(excess):
        return math.nan

    moments = estimate_moments(excess)
    count: float = moments.n
    if n is not None:
        count = core.check_range("n", n, low=2.0, open_high=True)
    variance = estimation_variance(moments.sharpe, moments.skew, moments.kurtosis)
    return math.sqrt(variance / (count - 1) * periods)


@core.checked
def effective_observations(returns: core.FloatArray) -> float:
    """Return how many independent returns some autocorrelated ones of shape (n,) are worth.

    From 2 to n: n over Lo's factor where that is above 1. Negative autocorrelation is not credited,
    which a few dozen returns show by chance. Fewer than 2 returns, or constant ones, count as n.

    Notes
    -----
    The factor is 1 + 2 sum of w_k r_k, r_k the autocorrelation at lag k: the ratio by which the
    variance of a mean exceeds that of independent returns. Source: Lo (2002), The Statistics of
    Sharpe Ratios, Financial Analysts Journal 58(4). Lags m = floor(1.3 n^(1/2)) with Bartlett's
    weights w_k = 1 - k / (m + 1), as Lazarus, Lewis, Stock and Watson (2018), HAR Inference,
    J. Business and Economic Statistics 36(4), recommend; times 1 + (m + 1) / n, for the
    autocorrelations are of deviations from the sample's own mean.

    Of 2,000 draws of 250, 500 and 1,000 days, 95 % intervals by ``sharpe_error`` held the true
    ratio in 96.0, 96.4 and 96.7 % (independent), 96.4, 96.5 and 96.7 % (GARCH), 94.5, 95.4 and
    95.4 % (AR .15; 91 to 93 % with n), and 93.4, 94.9 and 95.0 % (ARMA .5, -.3; 86 to 87 % with n).

    Examples
    --------
    >>> effective_observations(np.array([0.01, -0.01] * 50))
    100.0
    """
    n = len(returns)
    if not has_spread(returns):
        return float(n)

    # Lo's factor: 1 + 2 sum of w_k r_k, with Bartlett's weights.
    centered = np.asarray(returns) - np.mean(returns)
    squares = float(centered @ centered)
    lags = min(int(1.3 * math.sqrt(n)), n - 1)
    products = []
    for k in range(1, lags + 1):
        product = float(centered[k:] @ centered[:-k])
        products.append(product)

    weights = 1.0 - np.arange(1, lags + 1) / (lags + 1.0)
    weighted_sum = float(weights @ np.array(products))
    factor = 1.0 + 2.0 * weighted_sum / squares

    # The autocorrelations of deviations from the sample's own mean are too low.
    corrected = factor * (1.0 + (lags + 1.0) / n)
    return max(2.0, n / max(1.0, corrected))


def probability_of_skill(excess: core.FloatArray) -> float:
    """Return the probability that the true Sharpe ratio of excess returns (n,) is above 0.

    They count as :func:`effective_observations`.
    """
    if not has_spread(excess):
        return math.nan
    moments = estimate_moments(excess)
    return probabilistic_sharpe(
        moments.sharpe,
        effective_observations(excess),
        skew=moments.skew,
        kurtosis=moments.kurtosis,
    )


def has_spread(returns: core.FloatArray) -> bool:
    """Return whether returns have a Sharpe ratio: two or more that differ."""
    return len(returns) > 1 and bool(np.std(returns, ddof=1) >= LEAST_DEVIATION)
