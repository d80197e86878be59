"""Measures of performance and risk as pure functions of arrays."""

from __future__ import annotations

import math

import numpy as np

from backtest.base import FloatArray, Range, checked

LEAST_DEVIATION = 1e-12
"""A standard deviation below this counts as 0: the ratio is NaN, never infinite."""


@checked
def compound_growth(growth: float, years: float) -> float:
    """Return the annual rate of a total growth factor over some years.

    Examples
    --------
    >>> round(compound_growth(1.21, 2.0), 12)
    0.1
    """
    return find_growth_rate(growth, years)


def find_growth_rate(growth: float, years: float) -> float:
    if growth <= 0.0:
        return -1.0
    exponent = math.log(growth) / years
    return math.expm1(exponent) if exponent < 700.0 else math.inf


def ratio(mean: float, deviation: float, periods: float) -> float:
    """Return mean over deviation, annualized; NaN if the deviation is below 1e-12."""
    return mean / deviation * math.sqrt(periods) if deviation >= LEAST_DEVIATION else math.nan


@checked
def max_drawdown(equity: FloatArray) -> float:
    """Return the deepest fall from a running peak, as a fraction of the peak.

    Parameters
    ----------
    equity : array of shape (n_bars,)
        Account value at each bar close, positive.

    Notes
    -----
    max over t of 1 - E_t / max_{s <= t} E_s. Measured at bar closes: falls inside a bar are
    missed. NaN without a close.

    Examples
    --------
    >>> max_drawdown(np.array([1.0, 2.0, 1.5, 3.0]))
    0.25
    """
    if not np.size(equity):
        return math.nan
    peak = np.maximum.accumulate(equity)
    return float(np.max(1.0 - equity / peak))


@checked
def value_at_risk(returns: FloatArray, level: float) -> float:
    """Return the historical value at risk: the loss at a quantile, positive = loss.

    Parameters
    ----------
    returns : array of shape (n,)
        Simple returns. Without returns the result is NaN.
    level : float
        Confidence, for example 0.95.

    Notes
    -----
    ``quantile(losses, level, method="higher")``.

    Examples
    --------
    >>> value_at_risk(np.array([-0.04, -0.01, 0.02, 0.03]), 0.75)
    0.04
    """
    Range(0, 1).check("level", level)
    if len(returns) == 0:
        return math.nan
    return float(np.quantile(-returns, level, method="higher"))


@checked
def expected_shortfall(returns: FloatArray, level: float) -> float:
    """Return the mean of the losses at or beyond the value at risk, positive = loss.

    Examples
    --------
    >>> expected_shortfall(np.array([-0.04, -0.02, 0.02, 0.03]), 0.6)
    0.03
    """
    if len(returns) == 0:
        return math.nan
    losses = -returns
    return float(np.mean(losses[losses >= value_at_risk(returns, level)]))


def sample_moves(moves: FloatArray, ends_sample: FloatArray) -> FloatArray:
    """Return the simple returns per sampling period of those of bars, of shape (n_samples,).

    ``ends_sample`` (n_bars,) is 1 at the last bar of each period.
    """
    growth = np.cumprod(1.0 + moves)[ends_sample != 0.0]
    return np.asarray(growth / np.concatenate(([1.0], growth[:-1])) - 1.0)


def sampled_returns(unit: FloatArray, ends_sample: FloatArray, first_unit: float) -> FloatArray:
    """Return the simple returns between sample ends, of shape (n_samples,), from the start on.

    ``unit`` (n_bars,) is the unit value at closes, ``first_unit`` the one before the first bar.
    ``ends_sample`` (n_bars,) is 1 at the last bar of each sampling period.
    """
    ends = np.concatenate(([first_unit], unit[ends_sample != 0.0]))
    before, after = ends[:-1], ends[1:]
    return np.divide(after, before, out=np.ones_like(after), where=before > 0.0) - 1.0
