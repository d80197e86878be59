"""Simulated paths and the risk of liquidation on them, stress tests, crowds and cascades."""

from typing import TYPE_CHECKING

from backtest.core.code_names import find_lazily

if TYPE_CHECKING:
    from backtest.risk.bands import Bands
    from backtest.risk.cascade import Cascade
    from backtest.risk.impact_laws import Linear, SquareRoot
    from backtest.risk.contagion import BookCrowd, Contagion
    from backtest.risk.crowd import Crowd
    from backtest.risk.funded import PassingProbability, passing_probability
    from backtest.risk.largest_leverage import MaxLeverage, max_leverage
    from backtest.risk.growth_frontier import LeverageFrontier, leverage_frontier
    from backtest.risk.liquidations import LiquidationRisk
    from backtest.risk.path_runner import PathsRunner
    from backtest.risk.margin_calibration import MarginCalibration, calibrate_margin
    from backtest.risk.margin_systems import MarginComparison, compare_margin
    from backtest.risk.path_models import Filtered, GBM, PathModel, Stationary
    from backtest.risk.path_models import block_length
    from backtest.risk.path_drift import describe_drift
    from backtest.risk.funding_process import summarize_funding
    from backtest.risk.paths import Paths, simulate_paths
    from backtest.risk.scored_risk import liquidation_risk
    from backtest.risk.scenarios import Scenario, crashes
    from backtest.risk.stress import Stress
    from backtest.risk.capital_capacity import Capacity, capacity
    from backtest.risk.factor_sensitivity import Sensitivity, sensitivity
    from backtest.risk.intrabar_bounds import Bounds, bounds
    from backtest.risk.parameter_steps import ParameterSensitivity
else:
    __getattr__ = find_lazily(__name__, {
        "risk.bands": "Bands",
        "risk.cascade": "Cascade",
        "risk.impact_laws": "Linear SquareRoot",
        "risk.contagion": "BookCrowd Contagion",
        "risk.crowd": "Crowd",
        "risk.funded": "PassingProbability passing_probability",
        "risk.largest_leverage": "MaxLeverage max_leverage",
        "risk.growth_frontier": "LeverageFrontier leverage_frontier",
        "risk.liquidations": "LiquidationRisk",
        "risk.path_runner": "PathsRunner",
        "risk.margin_calibration": "MarginCalibration calibrate_margin",
        "risk.margin_systems": "MarginComparison compare_margin",
        "risk.path_models": "Filtered GBM PathModel Stationary block_length",
        "risk.path_drift": "describe_drift",
        "risk.funding_process": "summarize_funding",
        "risk.paths": "Paths simulate_paths",
        "risk.scored_risk": "liquidation_risk",
        "risk.scenarios": "Scenario crashes",
        "risk.stress": "Stress",
        "risk.capital_capacity": "Capacity capacity",
        "risk.factor_sensitivity": "Sensitivity sensitivity",
        "risk.intrabar_bounds": "Bounds bounds",
        "risk.parameter_steps": "ParameterSensitivity",
    })  # fmt: skip
