"""Weights of several instruments, computed from their returns up to each bar.

Each function takes markets and returns a frame of weights by time and instrument, for the signal of
a run: ``signal=bt.allocate.inverse_volatility(markets)``. The weights are made anew every few bars,
and when an instrument is listed or delisted. They are 0 before the returns are known. Each frame is
compared with the one of a panel that ends earlier, as signals are.
"""

from typing import TYPE_CHECKING

from backtest.core.code_names import find_lazily

if TYPE_CHECKING:
    from backtest.signals import RiskBudget, equal, fitted, inverse_volatility, risk_budget
else:
    __getattr__ = find_lazily(__name__, {
        "signals": "RiskBudget equal fitted inverse_volatility risk_budget",
    })  # fmt: skip

__all__ = ["RiskBudget", "equal", "fitted", "inverse_volatility", "risk_budget"]


def __dir__() -> list[str]:
    return __all__
