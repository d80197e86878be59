"""Signals: rules for directions and weights of several instruments, checked to be causal."""

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
