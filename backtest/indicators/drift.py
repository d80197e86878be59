"""What the past says of the mean return: drift, Kelly's fraction, and the Sharpe ratio."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from backtest import core
from backtest.core import FloatArray, checked
from backtest.indicators import lanes, returns
from backtest.indicators.averages import roll_moments
from backtest.indicators.lanes import OneOrMany
from backtest.market import Market, bars_per_year

LEAST_DEVIATION = 1e-12
"""Standard deviation per bar below which the Sharpe ratio is NaN."""


class Drift(NamedTuple):
    """Mean return by bar and its standard error, both per year.

    Arrays of shape (n_bars,), or (n_bars, k) for k windows; NaN until the window is full.
    """

    mean: FloatArray
    error: FloatArray


@checked
def rolling_drift(market: Market, window: OneOrMany) -> Drift:
    """Return the mean return of the traded position at leverage 1, net of funding, with its error.

    ``window``: returns, at least 2. Annualized; NaN until ``window`` returns are known.

    Notes
    -----
    With T = window, A the bars per year, and mean and std (ddof 1) of the last T simple returns of
    :func:`traded_returns`: mean ``A mean``, error ``A std / sqrt(T)``, for independent returns.
    Only a longer window in years reduces the error, not more bars within it. Source: Merton (1980),
    On Estimating the Expected Return on the Market, J. Financial Economics 8(4).
    """
    windows = lanes.read_windows(window)
    earned = returns.traded_returns(market)
    mean, deviation = roll_moments(earned, windows)
    years = np.reshape(bars_per_year(market), (-1, 1))
    error = years * deviation / np.sqrt(windows)
    return Drift(
        lanes.shape_as(years * mean, window),
        lanes.shape_as(error, window),
    )


BISECTIONS = 60
"""Halvings of the fraction of full Kelly: it is exact to 2^-60."""
CERTAIN = 1e6
"""A drift over its error beyond which the error moves the fraction by less than 1e-11."""
ROOT_TWO = math.sqrt(2.0)


@checked
def floored_kelly(
    drift: FloatArray,
    error: FloatArray,
    sigma: FloatArray,
    *,
    loss: float,
    probability: float,
) -> FloatArray:
    """Return the largest leverage with a limited probability of ever losing a share of the start.

    ``drift`` with its standard ``error``, annual, and ``sigma`` per sqrt(year), over 0, are arrays
    of one shape, or (n, 1) and (n, k). ``loss`` is a share of the starting capital, ``probability``
    that of ever having lost it, both over 0 and under 1. At most the full Kelly leverage drift /
    sigma^2; 0 where the probability of a drift of 0 or less reaches ``probability``; NaN where a
    number is not known.

    Notes
    -----
    With leverage L, wealth of a known drift mu falls to the share a = 1 - loss of the start with
    probability min(1, a^(2 mu / (L sigma^2) - 1)), 1 if mu is 0 or less. L is where the mean of
    that over mu, normal about its estimate, is ``probability``: with t = drift / error,
    L = f drift / sigma^2, h = t (1 - f / 2) and q = -2 ln a / (f t) the mean is

        Phi(-h) + exp(-h^2 / 2) erfcx((q - h) / sqrt 2) / 2.

    Without error f is 2 / (1 + ln probability / ln a). Bisection. Source: Busseti, Ryu and Boyd
    (2016), Risk-Constrained Kelly Gambling, J. of Investing 25(3), for the bound; Thorp (2006) for
    its exact form under a geometric Brownian motion.

    Examples
    --------
    >>> one = np.ones(1)
    >>> float(floored_kelly(one, 0.0 * one, one, loss=0.3, probability=0.1)[0].round(5))
    0.26825
    >>> float(floored_kelly(one, 0.5 * one, one, loss=0.3, probability=0.1)[0].round(3))
    0.157
    """
    core.check_range(
        "loss",
        loss,
        low=0.0,
        high=1.0,
        open_low=True,
        open_high=True,
    )
    core.check_range(
        "probability",
        probability,
        low=0.0,
        high=1.0,
        open_low=True,
        open_high=True,
    )
    depth = -math.log1p(-loss)
    with np.errstate(divide="ignore", invalid="ignore"):
        t_values = np.asarray(drift / error)
        full_kelly = np.asarray(drift / np.square(sigma))

    # The share of the full Kelly leverage, by bisection: larger ones lose with a larger chance.
    low = np.zeros(t_values.shape)
    high = np.ones(t_values.shape)
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        is_allowed = expect_loss(t_values, middle, depth) <= probability
        low = np.where(is_allowed, middle, low)
        high = np.where(is_allowed, high, middle)

    # Of a drift that is as good as known the share has a closed form.
    f_if_known = 2.0 / (1.0 - math.log(probability) / depth)
    share_if_known = min(1.0, f_if_known)
    fraction = np.where(t_values > CERTAIN, share_if_known, low)

    # A drift of 0 or less has no leverage, an unknown one none that is known.
    no_leverage = np.where(np.isnan(full_kelly), np.nan, 0.0)
    return np.where(drift > 0.0, fraction * full_kelly, no_leverage)


def expect_loss(
    t_values: FloatArray,
    fraction: FloatArray,
    depth: float,
) -> FloatArray:
    """Return the mean probability of ever losing what ``depth`` is the log of, over the error.

    ``t_values`` are t of :func:`floored_kelly` and ``fraction`` f, ``steady`` is h and ``slope`` q.
    """
    special = core.sp.special

    # Terms of drifts that leave the limits of floats are NaN or 0, and are not used.
    with np.errstate(all="ignore"):
        steady = t_values * (1.0 - 0.5 * fraction)
        slope = 2.0 * depth / (fraction * t_values)
        gap = slope - steady

        # Each form of exp(gap^2 / 2) Phi(-gap) where it neither overflows nor cancels.
        scaled = special.erfcx(np.maximum(gap, 0.0) / ROOT_TWO)
        of_large = np.exp(-0.5 * steady**2) * 0.5 * scaled
        growth = np.exp(0.5 * slope * (slope - 2.0 * steady))
        of_small = growth * special.ndtr(-gap)
        of_drifts_over_0 = np.where(gap > 0.0, of_large, of_small)
        return np.asarray(special.ndtr(-steady) + of_drifts_over_0)


class Sharpe(NamedTuple):
    """Sharpe ratio by bar and its standard error, both per sqrt(year).

    Arrays of shape (n_bars,), or (n_bars, k) for k windows; NaN until the window is full.
    """

    ratio: FloatArray
    error: FloatArray


@checked
def rolling_sharpe(market: Market, window: OneOrMany) -> Sharpe:
    """Return the Sharpe ratio of the traded position, unlevered, over the last bars, with error.

    ``market``: its closes, funding and signal: returns are those of the side held, net of funding.
    ``window``: returns, at least 2. Annualized; NaN until ``window`` returns are known,
    and while the price is constant.

    Notes
    -----
    With T = window, A the bars per year and S = mean / std (ddof 1) of the last T returns: ratio
    ``sqrt(A) S``, error ``sqrt(A (1 + S^2 / 2) / T)``, for returns that are independent and
    identically distributed. Source: Lo (2002), The Statistics of Sharpe Ratios, Financial Analysts
    Journal 58(4), eq. 9.
    """
    windows = lanes.read_windows(window)
    earned = returns.traded_returns(market)
    mean, deviation = roll_moments(earned, windows)
    is_moving = deviation >= LEAST_DEVIATION
    ratio = mean / np.where(is_moving, deviation, np.nan)

    root = np.sqrt(np.reshape(bars_per_year(market), (-1, 1)))
    variance = (1.0 + 0.5 * ratio * ratio) / windows
    error = root * np.sqrt(variance)
    return Sharpe(
        lanes.shape_as(root * ratio, window),
        lanes.shape_as(error, window),
    )
