"""Weights of several instruments, computed from their returns up to each bar."""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.weights.weights import equal, fitted, inverse_volatility

open_door(__name__)
