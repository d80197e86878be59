"""Array functions on the kernels of :mod:`backtest.features.range_kernels`.

``scale`` is a factor of the variance under the root: one number, or one per bar.
"""

from __future__ import annotations

import numpy as np

from backtest.base import FloatArray, IntArray, compile_module
from backtest.features import range_kernels
from backtest.features.rolling_lanes import broadcast_to_bars


def rolling_root(values: FloatArray, windows: IntArray, scale: float | FloatArray) -> FloatArray:
    """Return roots of rolling means, of shape (n_bars, k) for k windows."""
    kernels = compile_module(range_kernels)
    out, sums = np.empty((len(values), len(windows))), np.empty((2, len(values) + 1))
    kernels.add_up_all(values, sums)
    kernels.mean_lanes(sums, windows, broadcast_to_bars(scale, len(out)), out)
    return out


def weighted_root(values: FloatArray, decay: FloatArray, scale: float | FloatArray) -> FloatArray:
    """Return roots of weighted means of the known values, of shape (n_bars, k) for k decays."""
    out = np.empty((len(values), len(decay)))
    state = np.zeros((2, len(decay)))
    kernels = compile_module(range_kernels)
    kernels.skipping_ewma_lanes(values, decay, broadcast_to_bars(scale, len(out)), state, out)
    return out


def weighted_yang_zhang(
    bars: FloatArray, decay: FloatArray, scale: float | FloatArray
) -> FloatArray:
    """Return weighted volatilities of Yang and Zhang, of shape (n_bars, k) for k decays."""
    out = np.empty((bars.shape[1], len(decay)))
    state = np.zeros((8, len(decay)))
    kernels = compile_module(range_kernels)
    kernels.yang_zhang_lanes(bars, decay, broadcast_to_bars(scale, len(out)), state, out)
    return out
