"""Weights of several instruments, computed from their returns up to each bar."""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.weights.by_covariance import equal_risk, hierarchical, inverse_volatility
    from backtest.weights.by_covariance import minimum_variance
    from backtest.weights.by_estimator import fitted
    from backtest.weights.weight_rule import WeightRule, equal

open_door(__name__)
