"""Signals: rules for directions and weights of several instruments, checked to be causal.

=========  ====================================================================================
word       what it is, and its unit
=========  ====================================================================================
signal     what a user gives: a number, a table by time, a rule, or the text of one
direction  1 long, -1 short, 0 flat, and in between: of one instrument
weight     direction times a share of the equity, of one of several instruments
values     numbers by bar: (n_bars,), or (n_instruments, n_bars) of weights
note       facts that a signal keeps about itself, void once its values change
cut        a bar at which the market was cut to see whether earlier values change
carried    held from the time at which it is known until the next row
segment    bars over which the same instruments take part
member     an instrument that takes part in a segment
budget     the share of the risk that an instrument may have
=========  ====================================================================================
"""

from typing import TYPE_CHECKING

from backtest.core.code_names import find_lazily

if TYPE_CHECKING:
    from backtest.signals.computed import Sides, describe_signal_check, join_checks
    from backtest.signals.directions import cut_rows, read_directions, warn_of_weights
    from backtest.signals.kelly_weights import rck_weights
    from backtest.signals.rules import Bollinger, Breakout, MaCross, Rsi, SignalRule
    from backtest.signals.rules import read_named, read_rule, resolve_signal
    from backtest.signals.sources import from_frame, from_function, from_series, from_vectorbt
    from backtest.signals.weights import RiskBudget, equal, fitted, inverse_volatility, risk_budget
else:
    __getattr__ = find_lazily(__name__, {
        "signals.computed": "Sides describe_signal_check join_checks",
        "signals.directions": "cut_rows read_directions warn_of_weights",
        "signals.kelly_weights": "rck_weights",
        "signals.rules": (
            "Bollinger Breakout MaCross Rsi SignalRule read_named read_rule resolve_signal"
        ),
        "signals.sources": "from_frame from_function from_series from_vectorbt",
        "signals.weights": "RiskBudget equal fitted inverse_volatility risk_budget",
    })  # fmt: skip

__all__ = [
    "Bollinger", "Breakout", "MaCross", "Rsi", "Sides", "SignalRule", "from_frame", "from_function",
    "from_series", "from_vectorbt",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
