"""Pockets: one capital in several accounts, transfers between them, and spending."""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.pockets.allocation import Allocation, Pocket
    from backtest.pockets.allocation_result import AllocationResult
    from backtest.pockets.runway import Runway, runway
    from backtest.pockets.spending import Spending

open_door(__name__)
