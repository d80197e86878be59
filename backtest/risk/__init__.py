"""Simulated paths and the risk of liquidation on them, stress tests, and sensitivity."""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.risk.bounds import Bounds, bounds
    from backtest.risk.liquidation_risk import LiquidationRisk, describe_each
    from backtest.risk.liquidation_risk import liquidation_risk
    from backtest.risk.liquidation_risk import refine_runner
    from backtest.risk.max_leverage import LeverageScan, MaxLeverage, choose_grid
    from backtest.risk.max_leverage import max_leverage
    from backtest.risk.liquidation_risk import find_first
    from backtest.risk.liquidation_risk import count_bars
    from backtest.risk.paths_runner import make_runner
    from backtest.risk.path_funding import summarize_funding
    from backtest.risk.path_models import PathModel, describe_drift
    from backtest.risk.paths import Paths, check_paths
    from backtest.risk.path_models import GBM, Garch, Merton
    from backtest.risk.path_models import Filtered, Stationary, block_length
    from backtest.risk.paths import simulate_paths
    from backtest.risk.scenario import Scenario
    from backtest.risk.stress import crashes, stress
    from backtest.risk.stress import Stress
    from backtest.risk.variations import Capacity, Sensitivity, capacity, sensitivity

RESULTS = ("LiquidationRisk", "MaxLeverage", "Bounds", "Capacity", "Sensitivity", "Stress")

open_door(__name__)
