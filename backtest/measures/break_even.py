"""Break-even of a leveraged account: the drift, and the leverage, at which growth would be 0."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from backtest.base import FloatArray, checked

MOST_STEPS = 200
"""Steps of Newton's method; ten are usual."""
PRECISION = 1e-9
"""Relative size of the step at which it ends."""


@checked
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


@checked
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
        direction would have lost, infinite if none would have. NaN if the carry is unknown, the
        mean leverage is 0 or the market did not move.

    Notes
    -----
    The root l > 0 of G(l) = sum ln(1 + s·l·r) / years - l·c over the bars of the path, with s the
    sign of the leverage held, r the moves, and c the carry per turn: the growth of an account that
    is brought back to the leverage l at every bar. G is concave and 0 at 0: there is at most one.

    Examples
    --------
    >>> round(break_even_leverage(np.array([0.1, -0.05]), 1.0, 0.0, 1.0), 12)
    10.0
    """
    return find_leverage([moves], years, carry_per_turn, leverage)


def find_leverage(
    pieces: Sequence[FloatArray], years: float, carry_per_turn: float, leverage: float
) -> float:
    if leverage == 0.0 or math.isnan(leverage) or math.isnan(carry_per_turn):
        return math.nan
    square = sum(float(np.sum(piece * piece)) for piece in pieces)
    if not square > 0.0:
        return math.nan
    side, carry = math.copysign(1.0, leverage), carry_per_turn * years
    drift = side * sum(float(np.sum(piece)) for piece in pieces) - carry
    if drift <= 0.0:
        return 0.0
    worst = max(float(np.max(-side * piece, initial=0.0)) for piece in pieces)
    if worst == 0.0 and carry <= 0.0:
        return math.inf
    most = 1.0 / worst if worst > 0.0 else math.inf
    return solve_growth(pieces, side, carry, most, 2.0 * drift / square)


def solve_growth(
    pieces: Sequence[FloatArray], side: float, carry: float, most: float, guess: float
) -> float:
    at = guess if guess < most else 0.5 * most
    for _ in range(MOST_STEPS):
        growth, slope = measure_growth(pieces, side * at)
        growth, slope = growth - at * carry, side * slope - carry
        # before the peak of the growth a tangent leads away
        following = at - growth / slope if slope < 0.0 else 2.0 * at
        following = following if following < most else 0.5 * (at + most)
        if abs(following - at) <= PRECISION * at:
            return following
        at = following
    return at


def measure_growth(pieces: Sequence[FloatArray], leverage: float) -> tuple[float, float]:
    growth, slope = 0.0, 0.0
    for moves in pieces:
        grown = 1.0 + leverage * moves
        growth += sum_logs(grown)
        slope += float(np.sum(moves / grown))
    return growth, slope


def sum_logs(factors: FloatArray) -> float:
    products = np.multiply.reduceat(factors, np.arange(0, len(factors), 16))
    return float(np.sum(np.log(products)))
