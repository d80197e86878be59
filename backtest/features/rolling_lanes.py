"""Rolling and weighted deviations of returns, for several values of a parameter at once."""

from __future__ import annotations

import numpy as np

from backtest.base import FloatArray, IntArray, compile_module
from backtest.features import rolling_kernels


def ewma_deviation(returns: FloatArray, decay: FloatArray, scale: float | FloatArray) -> FloatArray:
    """Return roots of weighted means of squares, of shape (n_bars, k) for k decays."""
    out = np.empty((len(returns), len(decay)))
    state = np.zeros((3, len(decay)))
    compile_module(rolling_kernels).ewma_lanes(
        returns**2, decay, broadcast_to_bars(scale, len(out)), state, out
    )
    return out


def ewma_on_paths(
    returns: FloatArray, decay: FloatArray, scale: float | FloatArray, closes: FloatArray
) -> FloatArray:
    """Return what :func:`ewma_deviation` returns at the ends of n series, of shape (n, width).

    They have the ``returns`` (n_bars,) up to the first of their ``closes`` (n, width), which are at
    the last bars. ``decay`` is one, (1,).
    """
    kernels, first = compile_module(rolling_kernels), len(returns) - closes.shape[1]
    scales, lane = broadcast_to_bars(scale, len(returns)), np.zeros((3, 1))
    before, found = np.empty((first + 1, 1)), np.empty(closes.shape)
    kernels.ewma_lanes(returns[: first + 1] ** 2, decay, scales[: first + 1], lane, before)
    logs, state = np.log(closes), np.empty(1 + closes.shape[1])
    state[:2], found[:, 0] = lane[:2, 0], before[-1]
    squares = (logs[:, 1:] - logs[:, :-1]) ** 2
    kernels.ewma_paths(squares, float(decay[0]), scales[first:], state, found)
    found[:, : max(2 - first, 0)] = np.nan
    return found


def rolling_deviation(
    returns: FloatArray, windows: IntArray, root: float | FloatArray
) -> FloatArray:
    """Return standard deviations of shape (n_bars, k) for k windows.

    See :func:`backtest.features.rolling_kernels.deviation_lanes`; ``root`` is one number, or one
    per bar.
    """
    out = np.empty((len(returns), len(windows)))
    sums, tiles = prepare_windows(returns, len(windows))
    compile_module(rolling_kernels).deviation_lanes(
        sums, windows, broadcast_to_bars(root, len(out)), tiles, out
    )
    return out


def rolling_ratio(
    returns: FloatArray, windows: IntArray, root: float | FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return Sharpe ratios and their errors, of shape (n_bars, k) each for k windows."""
    ratio, error = np.empty((2, len(returns), len(windows)))
    sums, tiles = prepare_windows(returns, len(windows))
    compile_module(rolling_kernels).sharpe_lanes(
        sums, windows, broadcast_to_bars(root, len(ratio)), tiles, ratio, error
    )
    return ratio, error


def prepare_windows(returns: FloatArray, lanes: int) -> tuple[FloatArray, FloatArray]:
    sums = np.empty((5, len(returns)))
    compile_module(rolling_kernels).add_up(returns, sums)
    return sums, np.empty((2, lanes, rolling_kernels.BLOCK))


def broadcast_to_bars(value: float | FloatArray, n_bars: int) -> FloatArray:
    """Return a number, or one per bar, as an array of shape (n_bars,)."""
    return np.array(np.broadcast_to(value, n_bars))
