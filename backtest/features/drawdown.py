"""Drawdown of a market: how far it is below its peak, and for how long."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from backtest.base import FloatArray, checked, compile_module
from backtest.features import drawdown_kernels
from backtest.features.lane_parameters import broadcast, check_bars, shape_as
from backtest.features.returns import OneOrMany
from backtest.market import Market


class Drawdown(NamedTuple):
    """Drawdown of a market by bar, from closing prices.

    Arrays of shape (n_bars,), or (n_bars, k) for k windows; NaN until the window is full. ``depth``
    is the fraction below the peak, in [0, 1); ``bars`` is the number of bars since the peak.
    """

    depth: FloatArray
    bars: FloatArray


@checked
def drawdown_state(market: Market, window: OneOrMany = math.inf) -> Drawdown:
    """Return how far each close is below the highest of the last closes, and the bars since that.

    Parameters
    ----------
    market : Market
        Only its closes count.
    window : int or infinity, or array of shape (k,)
        Number of closes, at least 1, the current one included; infinite: all so far.

    Returns
    -------
    Drawdown
        NaN until ``window`` closes are known; never NaN with an infinite window.

    Notes
    -----
    depth_t = 1 - C_t / max_{t-n < s <= t} C_s, bars_t = t - s of the latest such maximum. Falls
    inside a bar are missed. Source: Grossman and Zhou (1993), Optimal Investment Strategies for
    Controlling Drawdowns, Mathematical Finance 3(3), for the running maximum.
    """
    check_bars("window", window, or_infinite=True)
    (windows,) = broadcast(window)
    sizes = np.where(np.isinf(windows), 0.0, windows).astype(np.int64)
    depth, bars = np.empty((2, market.n_bars, len(sizes)))
    queue = np.empty(market.n_bars, dtype=np.int64)
    compile_module(drawdown_kernels).peak_lanes(market.close, sizes, queue, depth, bars)
    return Drawdown(shape_as(depth, window), shape_as(bars, window))
