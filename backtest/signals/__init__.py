"""Signals: rules for directions and weights of several instruments, checked to be causal."""

from typing import TYPE_CHECKING

from backtest.core.code_names import find_lazily

if TYPE_CHECKING:
    from backtest.signals.kelly_weights import rck_weights
    from backtest.signals.rules import Bollinger, Breakout, MaCross, Rsi, Sides, SignalRule
    from backtest.signals.rules import cut_rows, describe_signal_check, from_frame, from_function
    from backtest.signals.rules import from_series, from_vectorbt, join_checks, read_directions
    from backtest.signals.rules import read_named, read_rule, resolve_signal, warn_of_weights
    from backtest.signals.weights import RiskBudget, equal, fitted, inverse_volatility, risk_budget
else:
    __getattr__ = find_lazily(__name__, {
        "signals.kelly_weights": "rck_weights",
        "signals.rules": (
            "Bollinger Breakout MaCross Rsi Sides SignalRule cut_rows describe_signal_check "
            "from_frame from_function from_series from_vectorbt join_checks read_directions "
            "read_named read_rule resolve_signal warn_of_weights"
        ),
        "signals.weights": "RiskBudget equal fitted inverse_volatility risk_budget",
    })  # fmt: skip

__all__ = [
    "Bollinger", "Breakout", "MaCross", "Rsi", "Sides", "SignalRule", "from_frame", "from_function",
    "from_series", "from_vectorbt",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
