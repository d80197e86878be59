"""Break-even of a leveraged account: the drift, and the leverage, at which growth would be 0."""

from __future__ import annotations

import math

import numpy as np

from backtest.base.units import FloatArray


def break_even_drift(moves: FloatArray, years: float, growth: float, leverage: float) -> float:
    """Return the market's log growth per year at which an account's growth would be 0.

    Parameters
    ----------
    moves : array of shape (n,)
        Simple returns of the market at 1x by bar, above -1.
    years : float
        Time covered.
    growth : float
        Log growth of the account per year over the same time.
    leverage : float
        Mean signed leverage of the account.

    Returns
    -------
    float
        Log growth per year. NaN if the mean leverage is 0, or the account lost everything.

    Notes
    -----
    m - g / l, with m the market's log growth per year: a market that drifts by d more a year adds
    l·d to the growth g.

    Examples
    --------
    >>> round(break_even_drift(np.array([0.1]), 1.0, 2.0 * math.log(1.1) - 0.04, 2.0), 12)
    0.02
    """
    return find_drift(float(np.sum(np.log1p(moves))) / years, growth, leverage)


def find_drift(market: float, growth: float, leverage: float) -> float:
    """Return the break-even drift from the log growth per year of the market and the account."""
    if leverage == 0.0 or not math.isfinite(growth):
        return math.nan
    return market - growth / leverage


def break_even_leverage(
    moves: FloatArray, years: float, carry_per_turn: float, leverage: float
) -> float:
    """Return the constant leverage above which an account's growth would have been negative.

    Parameters
    ----------
    moves : array of shape (n,)
        Simple returns of the market at 1x by bar.
    years : float
        Time covered.
    carry_per_turn : float
        Growth per year that one turn of leverage costs in funding, interest and fees.
    leverage : float
        Mean signed leverage of the account; only its sign counts.

    Returns
    -------
    float
        Turns of equity, positive in the direction of ``leverage``; 0 if every leverage in that
        direction would have lost. NaN if the carry is unknown, the mean leverage is 0 or the
        market did not move.

    Notes
    -----
    The growth at a constant leverage l is G(l) = l·mu - l²·sigma² / 2 - |l|·c to second order, with
    mu = sum r / years, sigma² = sum r² / years over the bars of the path, and c the carry per turn.
    It is 0 at |l| = 2 (s·mu - c) / sigma², s the sign of the leverage held.

    Examples
    --------
    >>> round(break_even_leverage(np.array([0.1, -0.1, 0.05]), 1.0, 0.0, 1.0), 12)
    4.444444444444
    """
    total, square = float(np.sum(moves)) / years, float(np.sum(moves * moves)) / years
    return find_leverage(total, square, carry_per_turn, leverage)


def find_leverage(total: float, square: float, carry_per_turn: float, leverage: float) -> float:
    """Return the break-even leverage from the sums per year of market returns and their squares."""
    if leverage == 0.0 or math.isnan(leverage) or math.isnan(carry_per_turn) or not square > 0.0:
        return math.nan
    drift = math.copysign(1.0, leverage) * total
    return max(0.0, 2.0 * (drift - carry_per_turn) / square)
