"""Signals: rules for directions and weights of several instruments, checked to be causal."""

from typing import TYPE_CHECKING

from backtest.core import open_door

if TYPE_CHECKING:
    from backtest.signals.rules import cut_rows
    from backtest.signals.rules import Directions, SignalRule, compute_signal, describe_signal_check
    from backtest.signals.rules import join_checks, read_directions, warn_of_weights, read_named
    from backtest.signals.rules import read_rule
    from backtest.signals.rules import resolve_signal
    from backtest.signals.rules import Bollinger, Breakout, MaCross, Rsi, Sides, from_frame
    from backtest.signals.rules import from_function, from_series, from_vectorbt
    from backtest.signals.weights import equal, fitted, inverse_volatility

open_door(__name__)

__all__ = [
    "Bollinger",
    "Breakout",
    "MaCross",
    "Rsi",
    "Sides",
    "SignalRule",
    "from_frame",
    "from_function",
    "from_series",
    "from_vectorbt",
]
