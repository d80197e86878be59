"""The signal of a study: read for one market or several, described, and kept for parts of them."""

from __future__ import annotations

from typing import Any

import pandas as pd

from backtest.base.units import FloatArray
from backtest.engine import describe_signal, read_signal
from backtest.engine.frame_signals import describe_weights
from backtest.engine.lookahead.checked_signals import keep_note
from backtest.engine.run_warnings import warn_of_weights
from backtest.market import Market, Markets
from backtest.market.weight_frame import read_weights, weights_to_frame


def read_directions(signal: Any, market: Market | Markets) -> FloatArray:
    """Return the signal by bar, or the weights of several instruments, (n_instruments, n_bars)."""
    if isinstance(market, Markets):
        weights = read_weights(signal, market, where="bt.tune")
        warn_of_weights(signal, market)
        return weights
    return read_signal(signal, market, 0)


def describe_directions(signal: Any, directions: FloatArray, market: Market | Markets) -> str:
    """Return a signal or weights as text, with a hash of the values."""
    describe = describe_weights if isinstance(market, Markets) else describe_signal
    return describe(signal, directions)


def keep_times(directions: FloatArray, market: Market | Markets, signal: object) -> Any:
    """Return a signal that works for any part of a market: by time, or a constant."""
    if isinstance(market, Markets):  # equal weights are those of the whole panel in each part
        if signal is None:
            return None
        return keep_note(signal, weights_to_frame(directions, market))
    if len(directions) == 1:
        return float(directions[0])
    return keep_note(signal, pd.Series(directions, index=market.index))
