"""Models of possible price paths, and the risk of liquidation on them."""

from backtest.paths.changing_volatility import Garch, Heston, Regimes
from backtest.paths.diffusions import GBM, Kou, Merton
from backtest.paths.liquidation_risk import LiquidationRisk, liquidation_risk
from backtest.paths.max_leverage import MaxLeverage, max_leverage
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
