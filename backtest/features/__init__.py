"""Estimators that policies share: causal, by bar, for one parameter value or many at once.

Each takes the market and returns what is known at each bar's close. Columns of the first n bars
are the first n values of the columns of all bars, bit for bit; a parameter given as an array of
shape (k,) gives columns of shape (n_bars, k).
"""

from backtest.features.performance import Sharpe, rolling_sharpe, sharpe_error
from backtest.features.returns import (
    bars_per_year,
    log_returns,
    long_returns,
    settled_funding,
    traded_returns,
)
from backtest.features.volatility import close_to_close_volatility, ewma_volatility

__all__ = [
    "Sharpe",
    "bars_per_year",
    "close_to_close_volatility",
    "ewma_volatility",
    "log_returns",
    "long_returns",
    "rolling_sharpe",
    "settled_funding",
    "sharpe_error",
    "traded_returns",
]
