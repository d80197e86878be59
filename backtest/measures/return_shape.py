"""Measures of the shape of sampled returns: moments, gains over losses, certainty equivalent."""

from __future__ import annotations

import math

import numpy as np

from backtest.base import FloatArray, check_range, checked
from backtest.measures.deflated_sharpe import (
    estimate_moments,
    estimation_variance,
    probabilistic_sharpe,
)
from backtest.measures.performance import LEAST_DEVIATION, compound_growth

RISK_AVERSION = 3.0
"""Relative risk aversion of the measure ``certainty_equivalent``."""


@checked
def skewness(returns: FloatArray) -> float:
    """Return the sample skewness of returns, corrected for bias.

    Parameters
    ----------
    returns : array of shape (n,)
        Simple returns.

    Returns
    -------
    float
        0 for a symmetric distribution; negative if the longer tail is of losses. NaN for fewer
        than 3 returns, or if their standard deviation is below 1e-12.

    Notes
    -----
    sqrt(n (n - 1)) / (n - 2) · m3 / m2^1.5 with m_k the mean of (r - mean r)^k: the adjusted
    Fisher-Pearson coefficient, as in pandas and in spreadsheets.

    Examples
    --------
    >>> round(skewness(np.array([0.01, 0.02, 0.06])), 12)
    1.457862967321
    """
    n = len(returns)
    if n < 3 or not has_spread(returns):
        return math.nan
    m2, m3, _ = central_moments(returns)
    return float(math.sqrt(n * (n - 1.0)) / (n - 2.0) * m3 / m2**1.5)


@checked
def kurtosis(returns: FloatArray) -> float:
    """Return the sample kurtosis of returns, corrected for bias: 3 for a normal distribution.

    Parameters
    ----------
    returns : array of shape (n,)
        Simple returns.

    Returns
    -------
    float
        The full kurtosis, not the excess over 3. NaN for fewer than 4 returns, or if their
        standard deviation is below 1e-12.

    Notes
    -----
    3 + (n - 1) / ((n - 2)(n - 3)) · ((n + 1) m4 / m2² - 3 (n - 1)): the excess that pandas and
    spreadsheets give, plus 3.

    Examples
    --------
    >>> round(kurtosis(np.array([0.01, 0.02, 0.03, 0.04])), 12)
    1.8
    """
    n = len(returns)
    if n < 4 or not has_spread(returns):
        return math.nan
    m2, _, m4 = central_moments(returns)
    excess = (n - 1.0) / ((n - 2.0) * (n - 3.0)) * ((n + 1.0) * m4 / m2**2 - 3.0 * (n - 1.0))
    return float(3.0 + excess)


def has_spread(returns: FloatArray) -> bool:
    return len(returns) > 1 and bool(np.std(returns, ddof=1) >= LEAST_DEVIATION)


def central_moments(returns: FloatArray) -> tuple[float, float, float]:
    centred = returns - np.mean(returns)
    square = centred * centred
    return (
        float(np.mean(square)),
        float(np.mean(square * centred)),
        float(np.mean(square * square)),
    )


@checked
def omega(excess: FloatArray) -> float:
    """Return the sum of gains over the sum of losses, with a threshold of 0.

    Parameters
    ----------
    excess : array of shape (n,)
        Simple returns, in excess of the risk-free rate.

    Returns
    -------
    float
        NaN without a loss.

    Notes
    -----
    sum max(r, 0) / sum max(-r, 0). Source: Keating and Shadwick (2002), A Universal Performance
    Measure, Journal of Performance Measurement 6(3).

    Examples
    --------
    >>> omega(np.array([0.02, -0.01, 0.01]))
    3.0
    """
    losses = float(np.sum(np.maximum(-excess, 0.0)))
    gains = float(np.sum(np.maximum(excess, 0.0)))
    return gains / losses if losses > 0.0 else math.nan


@checked
def ulcer_index(equity: FloatArray, first: float) -> float:
    """Return the root of the mean squared fall from the running peak, as a fraction.

    Parameters
    ----------
    equity : array of shape (n_bars,)
        Unit value at each bar close.
    first : float
        The highest unit value before the first bar, where the first peak is.

    Returns
    -------
    float
        0 without a fall. NaN without bars.

    Notes
    -----
    sqrt(mean(D_t²)), D_t the drawdown at the close of bar t. Source: Martin and McCann (1989), The
    Investor's Guide to Fidelity Funds.

    Examples
    --------
    >>> ulcer_index(np.array([1.0, 0.5]), 1.0) == (0.25 / 2) ** 0.5
    True
    """
    if len(equity) == 0:
        return math.nan
    fall = 1.0 - equity / np.maximum.accumulate(np.maximum(equity, first))
    return float(np.sqrt(np.mean(fall * fall)))


@checked
def tail_ratio(returns: FloatArray) -> float:
    """Return the size of the 95th percentile of returns over that of the 5th.

    Parameters
    ----------
    returns : array of shape (n,)
        Simple returns.

    Returns
    -------
    float
        Above 1 if large gains exceed large losses. NaN without returns, or if the 5th percentile
        is 0.

    Notes
    -----
    Percentiles are interpolated linearly, as numpy and empyrical do.

    Examples
    --------
    >>> round(tail_ratio(np.array([-0.01, 0.0, 0.02])), 12)
    2.0
    """
    if len(returns) == 0:
        return math.nan
    low, high = np.percentile(returns, [5.0, 95.0])
    return float(abs(high) / abs(low)) if low != 0.0 else math.nan


@checked
def sharpe_error(excess: FloatArray, periods: float) -> float:
    """Return the standard error of the annual Sharpe ratio.

    Parameters
    ----------
    excess : array of shape (n,)
        Simple returns per sampling period, in excess of the risk-free rate.
    periods : float
        Sampling periods per year.

    Returns
    -------
    float
        NaN if there is no Sharpe ratio: fewer than 2 returns, or a deviation below 1e-12.

    Notes
    -----
    sqrt((1 - g3 S + (g4 - 1) / 4 · S²) / (n - 1)) · sqrt(periods), with S the Sharpe ratio per
    sampling period, g3 the skewness m3 / m2^1.5 and g4 the kurtosis m4 / m2² (3 for a normal
    distribution). Returns are taken as independent. Sources: Mertens (2002), Comments on Variance
    of the IID estimator in Lo (2002); Lo (2002), The Statistics of Sharpe Ratios, Financial
    Analysts Journal 58(4), for normal returns.

    Examples
    --------
    >>> round(sharpe_error(np.array([0.01, -0.01] * 50), 365.0), 12)
    1.920122049993
    """
    check_range("periods", periods, low=0.0)
    if not has_spread(excess):
        return math.nan
    found = estimate_moments(excess)
    variance = estimation_variance(found.sharpe, found.skew, found.kurtosis)
    return math.sqrt(variance / (found.n - 1) * periods)


def probability_of_skill(excess: FloatArray) -> float:
    """Return the probability that the true Sharpe ratio is above 0.

    Parameters
    ----------
    excess : array of shape (n,)
        Simple returns per sampling period, in excess of the risk-free rate.
    """
    if not has_spread(excess):
        return math.nan
    return probabilistic_sharpe(**estimate_moments(excess)._asdict())


@checked
def certainty_equivalent(
    returns: FloatArray, periods: float, risk_aversion: float = RISK_AVERSION
) -> float:
    """Return the sure growth per year that an investor would take in exchange for the returns.

    Parameters
    ----------
    returns : array of shape (n,)
        Simple returns per sampling period.
    periods : float
        Sampling periods per year.
    risk_aversion : float
        Relative risk aversion of the investor, at least 0: 0 counts the mean, 1 the growth of the
        logarithm.

    Returns
    -------
    float
        Fraction per year, compounded; -1 if a return loses everything and the risk aversion is 1
        or more. NaN without returns.

    Notes
    -----
    (mean (1 + r)^(1 - g))^(periods / (1 - g)) - 1 for a risk aversion g, exp(periods · mean
    ln(1 + r)) - 1 for g = 1: constant relative risk aversion, returns reinvested.

    Examples
    --------
    >>> round(certainty_equivalent(np.array([0.01] * 12), 1.0), 12)
    0.01
    >>> round(certainty_equivalent(np.array([0.5, -0.4]), 1.0, 1.0), 12)
    -0.051316701949
    """
    if len(returns) == 0:
        return math.nan
    growth = np.maximum(1.0 + returns, 0.0)
    power = 1.0 - risk_aversion
    with np.errstate(divide="ignore"):
        if power == 0.0:
            return compound_growth(float(np.exp(np.mean(np.log(growth)))), 1.0 / periods)
        utility = float(np.mean(growth**power))
    return compound_growth(utility ** (1.0 / power), 1.0 / periods) if utility > 0.0 else -1.0
