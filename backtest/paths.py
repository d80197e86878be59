"""Models of possible price paths, and the risk of liquidation on them."""

from typing import TYPE_CHECKING

from backtest.core.code_names import find_lazily

if TYPE_CHECKING:
    from backtest.risk import GBM, Filtered, LiquidationRisk, MaxLeverage, PathModel
    from backtest.risk import Paths, Stationary, block_length, simulate_paths
else:
    __getattr__ = find_lazily(__name__, {
        "risk": (
            "Filtered GBM LiquidationRisk MaxLeverage PathModel Paths Stationary block_length "
            "simulate_paths"
        ),
    })  # fmt: skip

__all__ = [
    "GBM", "Filtered", "LiquidationRisk", "MaxLeverage", "PathModel", "Paths", "Stationary",
    "block_length", "simulate_paths",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
