"""Volatility from the open, high, low, and close of each bar, annualized, from closed bars only."""

from __future__ import annotations

import math

import numpy as np

from backtest.base import FloatArray, checked
from backtest.features.close_volatility import read_windows
from backtest.features.lane_parameters import shape_as
from backtest.features.range_kernels import ALPHA
from backtest.features.range_lanes import rolling_root
from backtest.features.returns import OneOrMany, bars_per_year
from backtest.features.rolling_lanes import rolling_deviation
from backtest.market import Market

FOUR_LN_2 = 4.0 * math.log(2.0)


@checked
def parkinson_volatility(market: Market, window: OneOrMany) -> FloatArray:
    """Return the volatility of the last ``window`` bars, from their highs and lows.

    Parameters
    ----------
    market : Market
        Its highs and lows.
    window : int, or array of shape (k,)
        Bars, at least 2.

    Returns
    -------
    FloatArray of shape (n_bars,), or (n_bars, k)
        Per sqrt(year); NaN until ``window`` bars are known.

    Notes
    -----
    sigma_t^2 = A / (4 n ln 2) sum_i ln(H_i / L_i)^2, n = window, A the bars per year. Without drift
    its variance is 1/4.9 of that of squared returns. Moves from one bar's close to the next open
    are not seen. Source: Parkinson (1980), The Extreme Value Method for Estimating the Variance of
    the Rate of Return, Journal of Business 53(1).
    """
    return _rolling_mean(parkinson_variance(market), market, window)


@checked
def garman_klass_volatility(market: Market, window: OneOrMany) -> FloatArray:
    """Return the volatility of the last ``window`` bars, from open, high, low and close.

    Parameters and returns are those of :func:`parkinson_volatility`.

    Notes
    -----
    sigma_t^2 = A / n sum_i (1/2 ln(H_i / L_i)^2 - (2 ln 2 - 1) ln(C_i / O_i)^2), n = window, A the
    bars per year. Without drift its variance is 1/7.4 of that of squared returns. Moves from one
    bar's close to the next open are not seen. Source: Garman and Klass (1980), On the Estimation of
    Security Price Volatilities from Historical Data, Journal of Business 53(1), the practical form
    of their best analytic estimator.
    """
    return _rolling_mean(garman_klass_variance(market), market, window)


@checked
def rogers_satchell_volatility(market: Market, window: OneOrMany) -> FloatArray:
    """Return the volatility of the last ``window`` bars, free of drift within them.

    Parameters and returns are those of :func:`parkinson_volatility`.

    Notes
    -----
    sigma_t^2 = A / n sum_i (ln(H_i/C_i) ln(H_i/O_i) + ln(L_i/C_i) ln(L_i/O_i)), n = window, A the
    bars per year. Right whatever the drift; without drift its variance is 1/6 of that of squared
    returns. Moves from one bar's close to the next open are not seen. Source: Rogers and Satchell
    (1991), Estimating Variance from High, Low and Closing Prices, Annals of Applied Probability
    1(4).
    """
    variance = rogers_satchell_variance(market)
    return _rolling_mean(variance, market, window)


@checked
def yang_zhang_volatility(market: Market, window: OneOrMany) -> FloatArray:
    """Return the volatility of the last ``window`` bars, with their opening jumps.

    Parameters are those of :func:`parkinson_volatility`.

    Returns
    -------
    FloatArray of shape (n_bars,), or (n_bars, k)
        Per sqrt(year); NaN until ``window`` bars and the close before them are known.

    Notes
    -----
    sigma_t^2 = A (V_o + k V_c + (1 - k) V_rs): V_o and V_c the sample variances of ln(O_i/C_{i-1})
    and ln(C_i/O_i) over n = window bars, V_rs the mean of Rogers and Satchell, A the bars per year,
    k = 0.34 / (1.34 + (n + 1) / (n - 1)). Right whatever the drift and the jumps. Source: Yang and
    Zhang (2000), Drift-Independent Volatility Estimation Based on High, Low, Open, and Close
    Prices, Journal of Business 73(3).
    """
    windows = read_windows(window)
    jumps, moves, inside = yang_zhang_parts(market)
    share = (ALPHA - 1.0) / (ALPHA + (windows + 1.0) / (windows - 1.0))
    v_o = rolling_deviation(jumps, windows, 1.0) ** 2
    v_c = rolling_deviation(moves, windows, 1.0) ** 2
    v_rs = rolling_root(inside, windows, 1.0) ** 2
    per_year = np.reshape(bars_per_year(market), (-1, 1))
    columns: FloatArray = np.sqrt((v_o + share * v_c + (1.0 - share) * v_rs) * per_year)
    return shape_as(columns, window)


def parkinson_variance(market: Market) -> FloatArray:
    """Return ln(H / L)^2 / (4 ln 2) of each bar, of shape (n_bars,)."""
    return np.asarray(np.log(market.high / market.low) ** 2 / FOUR_LN_2)


def garman_klass_variance(market: Market) -> FloatArray:
    """Return 1/2 ln(H / L)^2 - (2 ln 2 - 1) ln(C / O)^2 of each bar, of shape (n_bars,)."""
    width, move = np.log(market.high / market.low), np.log(market.close / market.open)
    return np.asarray(0.5 * width**2 - (2.0 * math.log(2.0) - 1.0) * move**2)


def rogers_satchell_variance(market: Market) -> FloatArray:
    """Return ln(H/C) ln(H/O) + ln(L/C) ln(L/O) of each bar, of shape (n_bars,)."""
    high = np.log(market.high / market.close) * np.log(market.high / market.open)
    low = np.log(market.low / market.close) * np.log(market.low / market.open)
    return np.asarray(high + low)


def yang_zhang_parts(market: Market) -> FloatArray:
    """Return ln(O_t / C_{t-1}), ln(C_t / O_t) and the Rogers-Satchell variance, (3, n_bars)."""
    parts = np.full((3, market.n_bars), np.nan)
    parts[0, 1:] = np.log(market.open[1:] / market.close[:-1])
    parts[1] = np.log(market.close / market.open)
    parts[2] = rogers_satchell_variance(market)
    return parts


def _rolling_mean(variance: FloatArray, market: Market, window: OneOrMany) -> FloatArray:
    windows = read_windows(window)
    return shape_as(rolling_root(variance, windows, bars_per_year(market)), window)
