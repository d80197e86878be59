"""Models of possible price paths, and the risk of liquidation on them."""

from typing import TYPE_CHECKING

from backtest.core import export_lazily

if TYPE_CHECKING:
    from backtest.risk import GBM, Filtered, LiquidationRisk, MaxLeverage, PathModel
    from backtest.risk import Paths, Stationary, block_length, simulate_paths

export_lazily(__name__)

__all__ = [
    "GBM", "Filtered", "LiquidationRisk", "MaxLeverage", "PathModel", "Paths", "Stationary",
    "block_length", "simulate_paths",
]  # fmt: skip
