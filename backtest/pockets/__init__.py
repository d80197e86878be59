"""Pockets: one capital in several accounts, transfers between them, and spending."""

from backtest.pockets.allocation import Allocation, Pocket
from backtest.pockets.allocation_result import AllocationResult
from backtest.pockets.runway import Runway, runway
from backtest.pockets.spending import Spending

__all__ = ["Allocation", "AllocationResult", "Pocket", "Runway", "Spending", "runway"]
