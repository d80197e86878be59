"""Simulated paths and the risk of liquidation on them, stress tests, crowds and cascades."""

from typing import TYPE_CHECKING

from backtest.core import export_lazily

if TYPE_CHECKING:
    from backtest.risk.cascade import Cascade, Linear, SquareRoot
    from backtest.risk.contagion import BookCrowd, Contagion, cascade
    from backtest.risk.crowd import Crowd
    from backtest.risk.funded import PassingProbability, passing_probability
    from backtest.risk.largest_leverage import LeverageFrontier, MaxLeverage, leverage_frontier
    from backtest.risk.largest_leverage import max_leverage
    from backtest.risk.liquidations import LiquidationRisk, PathsRunner, liquidation_risk
    from backtest.risk.margin_systems import MarginCalibration, MarginComparison
    from backtest.risk.margin_systems import calibrate_margin, compare_margin
    from backtest.risk.path_models import Filtered, GBM, PathModel, Stationary
    from backtest.risk.path_models import block_length, describe_drift, summarize_funding
    from backtest.risk.paths import Paths, simulate_paths
    from backtest.risk.stress import Scenario, Stress, crashes, stress
    from backtest.risk.variations import Bounds, Capacity, ParameterSensitivity, Sensitivity
    from backtest.risk.variations import bounds, capacity, sensitivity

export_lazily(__name__)
