"""Measures of the use of capital: initial margin in use, its return, and what stays idle."""

from __future__ import annotations

import math

import numpy as np

from backtest.base import FloatArray, check_lengths, check_range, checked


def divide_by_equity(money: FloatArray, equity: FloatArray) -> FloatArray:
    if np.min(equity, initial=np.inf) > 0.0:  # usual, and faster
        return money / equity
    return np.divide(money, equity, out=np.zeros(len(equity)), where=equity > 0.0)


def count_available(
    backing: FloatArray, initial: FloatArray | float, uncounted: FloatArray | float
) -> FloatArray:
    """Return the money that may back a new order at each close, of shape (n_bars,)."""
    return np.maximum(backing - uncounted - initial, 0.0)


def margin_used(initial: FloatArray, equity: FloatArray) -> FloatArray:
    """Return initial margin over equity at each close, of shape (n_bars,)."""
    share = divide_by_equity(initial, equity)
    if not np.min(equity, initial=np.inf) > 0.0:
        share[(initial > 0.0) & ~(equity > 0.0)] = np.inf
    return share


@checked
def return_on_margin(gains: FloatArray, initial: FloatArray, years: float) -> float:
    """Return the profit after costs per year over the mean initial margin.

    Parameters
    ----------
    gains : array of shape (n_bars,)
        Profit of each bar after all costs, without deposits and withdrawals.
    initial : array of shape (n_bars,)
        Initial margin at each close, 0 without a position.
    years : float
        Time covered.

    Returns
    -------
    float
        Fraction per year. NaN if no margin was ever in use.

    Examples
    --------
    >>> return_on_margin(np.array([0.0, 10.0]), np.array([100.0, 300.0]), 0.5)
    0.1
    """
    check_range("years", years, where="return_on_margin", low=0.0, open_low=True)
    mean = float(np.mean(initial)) if len(initial) else 0.0
    return float(np.sum(gains)) / years / mean if mean > 0.0 else math.nan


@checked
def idle_cash(available: FloatArray, equity: FloatArray) -> float:
    """Return the mean share of the equity that backs no position.

    Parameters
    ----------
    available : array of shape (n_bars,)
        Money that may back a new order at each close.
    equity : array of shape (n_bars,)
        Equity at each close. Closes without equity do not count.

    Returns
    -------
    float
        Fraction of equity. NaN without a close that has equity.

    Examples
    --------
    >>> idle_cash(np.array([50.0, 0.0]), np.array([100.0, 80.0]))
    0.25
    """
    check_lengths(available=available, equity=equity, where="idle_cash")
    has_any = equity > 0.0
    return float(np.mean(available[has_any] / equity[has_any])) if has_any.any() else math.nan
