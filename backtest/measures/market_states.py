"""States of a market in which an account is measured: bull and bear, calm and stress."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from backtest.base import BoolArray, FloatArray, IntArray, check_lengths, checked

MarketState: TypeAlias = Literal["phase", "volatility"]

PHASE_MOVE = 0.2
"""Fall from a peak that makes a bear market, and rise from a trough that makes a bull market."""
PHASES = ("bull", "bear")
THIRDS = ("calm", "normal", "stress")


@checked
def find_bulls(price: FloatArray, move: float = PHASE_MOVE) -> BoolArray:
    """Return whether each bar belongs to a bull market; the others belong to a bear market.

    Parameters
    ----------
    price : array of shape (n_bars,)
        Mark price at each close, positive.
    move : float
        The fall, or rise, that ends a phase.

    Returns
    -------
    bool array of shape (n_bars,)
        Phases are known in hindsight: a bear market begins after the peak from which the price
        falls by ``move``, a bull market after the trough from which it rises by ``move``. The bars
        up to the first such extreme belong to the phase that it ends, unless it is the first bar. A
        market without such a move is one phase, bull if it did not fall from end to end.

    Examples
    --------
    >>> find_bulls(np.array([10.0, 12.0, 11.0, 9.0, 10.0, 12.0])).tolist()
    [True, True, False, False, True, True]
    """
    check_lengths(price=price, where="find_bulls")
    values: list[float] = price.tolist()
    found = np.ones(len(values), dtype=np.bool_)
    may_fall, may_rise = True, True
    begun, high, low = 0, 0, 0
    for t, value in enumerate(values):
        high = t if value > values[high] else high
        low = t if value < values[low] else low
        falls = may_fall and value <= (1.0 - move) * values[high]
        if falls or (may_rise and value >= (1.0 + move) * values[low]):
            turn = high if falls else low
            end = turn + 1 if turn > 0 else 0  # a phase that began with the prices has no end here
            found[begun:end] = falls
            may_fall, may_rise = not falls, falls
            begun, high, low = end, t, t
    is_one = may_fall and may_rise
    found[begun:] = values[-1:] >= values[:1] if is_one else may_fall
    return found


@checked
def find_thirds(volatility: FloatArray) -> IntArray:
    """Return the third of its distribution to which each volatility belongs.

    Parameters
    ----------
    volatility : array of shape (n,)
        NaN where it is unknown.

    Returns
    -------
    int array of shape (n,)
        0 for the lowest third (calm), 1, and 2 for the highest (stress); -1 where unknown. Equal
        values belong to the same third.

    Examples
    --------
    >>> find_thirds(np.array([0.1, 0.5, 0.3, np.nan])).tolist()
    [0, 2, 1, -1]
    """
    known = ~np.isnan(volatility)
    if not known.any():
        return np.full(len(volatility), -1, dtype=np.int64)
    bounds = np.quantile(volatility[known], [1.0 / 3.0, 2.0 / 3.0])
    third = np.searchsorted(bounds, volatility, side="left").astype(np.int64)
    third[~known] = -1
    return third
