"""Models of possible price paths, and the risk of liquidation on them."""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.paths.changing_volatility import Garch, Heston, Regimes
    from backtest.paths.diffusions import GBM, Kou, Merton
    from backtest.paths.funding_process import summarize_funding
    from backtest.paths.idle_paths import explain_idle, warn_of_idle
    from backtest.paths.liquidation_risk import LiquidationRisk, describe_each, liquidation_risk
    from backtest.paths.liquidation_risk import name_policies, refine_runner
    from backtest.paths.max_leverage import LeverageScan, MaxLeverage, choose_grid, max_leverage
    from backtest.paths.path_events import find_first
    from backtest.paths.path_model import PathModel, describe_drift
    from backtest.paths.path_set import Paths, check_paths
    from backtest.paths.paths_runner import PathsRunner
    from backtest.paths.resampled import Block, Filtered, Stationary, block_length
    from backtest.paths.risk_intervals import estimate_pairs, estimate_plain
    from backtest.paths.risk_question import count_bars
    from backtest.paths.runner_arguments import AnyAccount, AnyPolicy, AnyVenue, make_runner
    from backtest.paths.runner_arguments import unwrap_only
    from backtest.paths.simulate_paths import simulate_paths

open_door(__name__)

__all__ = [
    "GBM",
    "Block",
    "Filtered",
    "Garch",
    "Heston",
    "Kou",
    "LiquidationRisk",
    "MaxLeverage",
    "Merton",
    "PathModel",
    "Paths",
    "Regimes",
    "Stationary",
    "block_length",
    "liquidation_risk",
    "max_leverage",
    "simulate_paths",
]
