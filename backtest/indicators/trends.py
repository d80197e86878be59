"""Trend, drift, Sharpe ratio and hidden regimes of a market over the last bars."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from backtest import core
from backtest._compile import compile_module
from backtest.core import FloatArray, IntArray, checked
from backtest.core.code_names import pd
from backtest.indicators import kernels, returns
from backtest.indicators.estimators import ewma_volatility, roll_moments
from backtest.market import Market, bars_per_year

LEAST_DEVIATION = 1e-12
"""Standard deviation per bar below which the Sharpe ratio is NaN."""


def find_moves(market: Market, lookbacks: IntArray) -> FloatArray:
    """Return ln(C_t / C_{t-n}) less the funding settled since, (n_bars, k); NaN until known."""
    path = np.log(market.close) - np.cumsum(returns.settled_funding(market))
    moves = np.full((len(path), len(lookbacks)), np.nan)
    for j, bars in enumerate(lookbacks.tolist()):
        moves[bars:, j] = path[bars:] - path[:-bars]
    return moves


def average_wilder(values: FloatArray, window: int) -> FloatArray:
    """Return the mean of the first ``window`` known values, smoothed by 1/window since.

    ``values`` of shape (n_bars,) begin with any number of NaN. Source: Wilder (1978), New Concepts
    in Technical Trading Systems.
    """
    known = pd.Series(values)
    means = known.rolling(window).mean()
    first = known.where(means.shift(1).notna(), means)
    return first.ewm(alpha=1.0 / window, adjust=False).mean().to_numpy(copy=True)


@checked
def true_range(market: Market) -> FloatArray:
    """Return the true range of each bar, in units of the price, of shape (n_bars,).

    max(H_t, C_{t-1}) - min(L_t, C_{t-1}); H - L in the first bar. Source: Wilder (1978).
    """
    before = np.append(market.low[:1], market.close[:-1])
    return np.maximum(market.high, before) - np.minimum(market.low, before)


@checked
def atr(market: Market, window: returns.OneOrMany = 14) -> FloatArray:
    """Return Wilder's average true range, in units of the price; NaN until ``window`` bars.

    ``window``: bars, at least 1. The mean of the first n true ranges, then (ATR (n - 1) + TR) / n.
    ``Account(stop_loss="2*atr")`` takes it from a column, ``market.with_columns(atr=...)``.
    Source: Wilder (1978), New Concepts in Technical Trading Systems.

    Examples
    --------
    >>> market = Market.sample(bars=48)
    >>> values = atr(market, 24)
    >>> bool(np.isnan(values[22])), bool(values[23] > 0.0)
    (True, True)
    """
    returns.check_bars("window", window)
    ranges, windows = true_range(market), np.atleast_1d(window).astype(np.int64).tolist()
    averages = np.stack([average_wilder(ranges, n) for n in windows], axis=1)
    return returns.shape_as(averages, window)


@checked
def trend_sign(market: Market, lookback: returns.OneOrMany) -> FloatArray:
    """Return the direction of the last bars: 1 up, -1 down, 0 if the return is 0.

    The log return of a long position, net of funding. ``lookback``: bars, at least 1. NaN until
    ``lookback`` returns are known.

    Notes
    -----
    sign of ln(C_t / C_{t-n}) - sum f, n = lookback and f the funding rates settled after the close
    of bar t-n and before that of bar t. Where log prices have drift m per year and
    volatility sigma, it is that of the drift with probability Phi(|m| sqrt(T) / sigma), T the
    lookback in years. Source: Moskowitz, Ooi and Pedersen (2012), Time Series Momentum.
    """
    returns.check_bars("lookback", lookback)
    moves = find_moves(market, np.atleast_1d(lookback).astype(np.int64))
    return returns.shape_as(np.sign(moves), lookback)


@checked
def trend_strength(
    market: Market,
    lookback: returns.OneOrMany,
    half_life: returns.OneOrMany,
    full: returns.OneOrMany = 1.0,
) -> FloatArray:
    """Return the move of the last bars in standard deviations, as a strength from -1 to 1.

    ``lookback``: bars, at least 1. ``half_life``: half-life of the volatility in bars, over 0.
    ``full``: standard deviations at which the strength is 1, over 0. NaN until
    ``lookback`` returns are known, and ceil(half_life), at least 2.

    Notes
    -----
    clip(z / full, -1, 1) with z = R / (sigma sqrt(n / A)): R the excess return over n = lookback
    bars, sigma the exponentially weighted volatility per sqrt(year), A the bars per year. A random
    walk without drift has z of mean 0 and deviation 1 for every lookback. A constant price has
    strength 0. Source: Baltas and Kosowski (2020), Demystifying Time-Series Momentum
    Strategies, in Market Momentum: Theory and Practice, Wiley, whose trend signal is a t-statistic
    clipped at 1 in place of the sign.
    """
    returns.check_lanes("full", full, low=0.0, open_low=True)
    returns.check_bars("lookback", lookback)
    bars, half_lives, fulls = returns.broadcast(lookback, half_life, full)
    moves = find_moves(market, bars.astype(np.int64))
    root = np.sqrt(1.0 / np.reshape(bars_per_year(market), (-1, 1)))
    width = ewma_volatility(market, half_lives) * root * (np.sqrt(bars) * fulls)
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.where(moves != 0.0, moves / width, 0.0 * width)
    return returns.shape_as(np.clip(parts, -1.0, 1.0), lookback, half_life, full)


class Drift(NamedTuple):
    """Mean return by bar and its standard error, both per year.

    Arrays of shape (n_bars,), or (n_bars, k) for k windows; NaN until the window is full.
    """

    mean: FloatArray
    error: FloatArray


@checked
def rolling_drift(market: Market, window: returns.OneOrMany) -> Drift:
    """Return the mean return of the traded position at leverage 1, net of funding, with its error.

    ``window``: returns, at least 2. Annualized; NaN until ``window`` returns are known.

    Notes
    -----
    With T = window, A the bars per year, and mean and std (ddof 1) of the last T simple returns of
    :func:`traded_returns`: mean ``A mean``, error ``A std / sqrt(T)``, for independent returns.
    Only a longer window in years reduces the error, not more bars within it. Source: Merton (1980),
    On Estimating the Expected Return on the Market, J. Financial Economics 8(4).
    """
    windows = returns.read_windows(window)
    mean, deviation = roll_moments(returns.traded_returns(market), windows)
    years = np.reshape(bars_per_year(market), (-1, 1))
    error = years * deviation / np.sqrt(windows)
    return Drift(returns.shape_as(years * mean, window), returns.shape_as(error, window))


BISECTIONS = 60
"""Halvings of the fraction of full Kelly: it is exact to 2^-60."""
CERTAIN = 1e6
"""A drift over its error beyond which the error moves the fraction by less than 1e-11."""


@checked
def floored_kelly(
    drift: FloatArray, error: FloatArray, sigma: FloatArray, *, loss: float, probability: float
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
    core.check_range("loss", loss, low=0.0, high=1.0, open_low=True, open_high=True)
    core.check_range("probability", probability, low=0.0, high=1.0, open_low=True, open_high=True)
    depth = -math.log1p(-loss)
    sure = min(1.0, 2.0 / (1.0 - math.log(probability) / depth))

    with np.errstate(divide="ignore", invalid="ignore"):
        t_values = np.asarray(drift / error)
        full = np.asarray(drift / np.square(sigma))
    low = np.zeros(t_values.shape)
    high = np.ones(t_values.shape)
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        is_allowed = expect_loss(t_values, middle, depth) <= probability
        low = np.where(is_allowed, middle, low)
        high = np.where(is_allowed, high, middle)

    fraction = np.where(t_values > CERTAIN, sure, low)
    return np.where(drift > 0.0, fraction * full, np.where(np.isnan(full), np.nan, 0.0))


def expect_loss(t_values: FloatArray, fraction: FloatArray, depth: float) -> FloatArray:
    """Return the mean probability of ever losing what ``depth`` is the log of, over the error."""
    special = core.sp.special
    with np.errstate(all="ignore"):
        steady = t_values * (1.0 - 0.5 * fraction)
        slope = 2.0 * depth / (fraction * t_values)
        gap = slope - steady

        # Each form of exp(gap^2 / 2) Phi(-gap) where it neither overflows nor cancels.
        of_large = np.exp(-0.5 * steady**2) * 0.5 * special.erfcx(np.maximum(gap, 0.0) / ROOT_TWO)
        of_small = np.exp(0.5 * slope * (slope - 2.0 * steady)) * special.ndtr(-gap)
        return np.asarray(special.ndtr(-steady) + np.where(gap > 0.0, of_large, of_small))


ROOT_TWO = math.sqrt(2.0)


class Sharpe(NamedTuple):
    """Sharpe ratio by bar and its standard error, both per sqrt(year).

    Arrays of shape (n_bars,), or (n_bars, k) for k windows; NaN until the window is full.
    """

    ratio: FloatArray
    error: FloatArray


@checked
def rolling_sharpe(market: Market, window: returns.OneOrMany) -> Sharpe:
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
    windows = returns.read_windows(window)
    mean, deviation = roll_moments(returns.traded_returns(market), windows)
    ratio = mean / np.where(deviation >= LEAST_DEVIATION, deviation, np.nan)
    root = np.sqrt(np.reshape(bars_per_year(market), (-1, 1)))
    error = root * np.sqrt((1.0 + 0.5 * ratio * ratio) / windows)
    return Sharpe(returns.shape_as(root * ratio, window), returns.shape_as(error, window))


class Regimes(NamedTuple):
    """Probabilities of stress by bar: for the bar that closes, and for the next.

    Arrays of shape (n_bars,), or (n_bars, k) for k sets of parameters; NaN until warm.
    """

    filtered: FloatArray
    predicted: FloatArray


@checked
def learned_regimes(
    market: Market,
    half_life: returns.OneOrMany,
    calm_bars: returns.OneOrMany,
    stress_bars: returns.OneOrMany,
) -> Regimes:
    """Return the probabilities of two regimes whose volatilities are learned bar by bar.

    Only closes count. ``half_life``: bars after which a return weighs half as much in what is
    learned, over 0. ``calm_bars`` and ``stress_bars``: mean length of a stay in each state, bars,
    over 1. NaN until ceil(half_life) returns are known, at least 100.

    Notes
    -----
    r_t ~ N(0, sigma_s^2) in state s: over single bars means are negligible. A stay ends after a bar
    with probability 1 / bars. Each bar is one step of the online EM algorithm: the probabilities by
    Hamilton's filter with the variances learned so far, then ``S_t = (1 - g_t) E[S_{t-1}] + g_t
    (1{s}, 1{s} r_t^2)`` for both states s, the expectation over paths that lead to each state now,
    and ``sigma_s^2 = S_t(s, r^2) / S_t(s)``. The step is ``g_t = max(min(2 / t, 1 / 20),
    1 - 2^(-1 / half_life))``, t the number of known returns. At first the weight of returns grows
    in proportion to t, because early ones were assigned to states by guesses. The transitions are
    not learned: with fat tails the likelihood prefers regimes of a bar or two.

    The variances start at half and four times the mean square of the first 20 returns. Stress has
    at least twice the variance of calm. Without this, both states would become identical in a
    market with one regime, and never separate again. Sources: Hamilton (1989), A New Approach to
    the Economic Analysis of Nonstationary Time Series and the Business Cycle, Econometrica 57(2);
    Cappe (2011), Online EM Algorithm for Hidden Markov Models, J. Computational and Graphical
    Statistics 20(3), section 2.
    """
    given = (half_life, calm_bars, stress_bars)
    returns.check_lanes("half_life", half_life, low=0.0, open_low=True)
    returns.check_lanes("calm_bars", calm_bars, low=1.0, open_low=True)
    returns.check_lanes("stress_bars", stress_bars, low=1.0, open_low=True)
    half_lives, *stays = returns.broadcast(*given)
    leave, k = 1.0 / np.stack(stays), len(half_lives)
    filtered = np.empty((market.n_bars, k))
    compile_module(kernels).learn_lanes(
        returns.log_returns(market) ** 2,
        1.0 - returns.find_decay(half_lives),
        leave,
        np.maximum(returns.count_needed(half_lives), kernels.WARM),
        np.empty((10, k)),
        filtered,
    )
    predicted = filtered * (1.0 - leave[0] - leave[1]) + leave[0]
    return Regimes(returns.shape_as(filtered, *given), returns.shape_as(predicted, *given))
