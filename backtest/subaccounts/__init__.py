"""Subaccounts: one capital in several accounts, transfers between them, and spending."""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.subaccounts.runway import Runway, Spending, runway
    from backtest.subaccounts.subaccounts import Subaccount, Subaccounts
    from backtest.subaccounts.subaccounts_result import SubaccountsResult

RESULTS = ("SubaccountsResult", "Runway")

open_door(__name__)
