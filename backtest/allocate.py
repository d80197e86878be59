"""Weights of several instruments, computed from their returns up to each bar.

Each function takes markets and returns a frame of weights by time and instrument, for the signal of
a run: ``signal=bt.allocate.equal_risk(markets)``. The weights are made anew every few bars, and
when an instrument is listed or delisted. They add up to 1 among the instruments whose returns are
known, and are 0 before. Each frame is compared with the one of a panel that ends earlier, as
signals are. An :class:`WeightRule` names such a function and its parameters, so that sweeps and
searches vary them.
"""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.weights import (
        WeightRule,
        equal,
        equal_risk,
        fitted,
        hierarchical,
        inverse_volatility,
        minimum_variance,
    )

open_door(__name__)

__all__ = [
    "WeightRule",
    "equal",
    "equal_risk",
    "fitted",
    "hierarchical",
    "inverse_volatility",
    "minimum_variance",
]
