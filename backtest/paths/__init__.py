"""What can still happen: models of paths, and the risk of liquidation on them."""

from backtest.paths.changing_volatility import Garch, Heston, Regimes
from backtest.paths.diffusions import GBM, Kou, Merton
from backtest.paths.liquidation_risk import LiquidationRisk, liquidation_risk
from backtest.paths.path_model import PathModel
from backtest.paths.path_set import Paths
from backtest.paths.resampled import Block, Filtered, Stationary, block_length
from backtest.paths.simulate_paths import simulate_paths

__all__ = [
    "GBM",
    "Block",
    "Filtered",
    "Garch",
    "Heston",
    "Kou",
    "LiquidationRisk",
    "Merton",
    "PathModel",
    "Paths",
    "Regimes",
    "Stationary",
    "block_length",
    "liquidation_risk",
    "simulate_paths",
]
