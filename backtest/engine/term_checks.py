"""Check the arguments of calls that run many accounts, on one market or on several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backtest.base import ParameterError
from backtest.engine.portfolio_checks import check_periods
from backtest.engine.portfolio_setup import check_panel
from backtest.engine.run_setup import take_markets
from backtest.policy import Policy


def check_terms(
    market: Any,
    policy: object,
    venue: Any,
    account: Any,
    sampling: str,
    calendar: str,
) -> None:
    check_one_policy(policy)
    markets = take_markets(market, venue, account)
    check_panel(markets, account, venue)
    check_periods(markets, sampling, calendar)


def check_one_policy(policy: object) -> None:
    if not isinstance(policy, Policy) and not (
        isinstance(policy, type) and issubclass(policy, Policy)
    ):
        found = "a table of policies" if isinstance(policy, Mapping) else f"{policy!r:.60}"
        raise ParameterError(
            "policy must be one policy for all instruments, or its class, whose parameters the "
            f"sets vary, got {found}"
        )
