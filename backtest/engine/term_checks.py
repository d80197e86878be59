"""Check the arguments of calls that run many accounts, on one market or on several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backtest.account import Account
from backtest.base.errors import ParameterError
from backtest.base.phrases import Place
from backtest.engine.portfolio.portfolio_checks import check_account_kind, read_venues
from backtest.engine.portfolio.portfolio_setup import check_panel
from backtest.engine.run import check_kinds, check_settings
from backtest.engine.sampling_periods import check_periods
from backtest.market import Market, Markets
from backtest.policy import Policy


def check_arguments(
    market: object, policy: object, venue: object, account: object, overlay: object, *, of: str
) -> None:
    """Refuse arguments of the wrong kind, and an overlay over one market; ``of`` is the call."""
    is_class = isinstance(policy, type) and issubclass(policy, Policy)
    if isinstance(market, Markets):
        check_one_policy(policy)
        check_account_kind(account)
        read_venues(venue, market)
    elif overlay is not None:
        raise ParameterError(
            "an overlay needs several markets, was given one",
            where=Place("overlay", of=of),
            cure="combine the policies instead, or give bt.Markets({name: market, ...})",
        )
    else:
        check_kinds(market, Policy() if is_class else policy, venue, account, None)


def check_one_policy(policy: object) -> None:
    """Require one policy for all of several instruments."""
    if not isinstance(policy, Policy) and not (
        isinstance(policy, type) and issubclass(policy, Policy)
    ):
        found = "a table of policies" if isinstance(policy, Mapping) else f"{policy!r:.60}"
        raise ParameterError(
            f"sets vary the parameters of one policy for all instruments, was {found}",
            where="policy",
            cure="give one policy or its class; bt.run takes one for each instrument",
        )


def check_terms(
    market: Market | Markets, account: Account, venue: Any, sampling: str, calendar: str
) -> None:
    """Require settings of an account, its venue or venues, and periods that fit together."""
    if isinstance(market, Markets):
        check_panel(market, account, venue)
        check_periods(market, sampling, calendar)
    else:
        check_settings(market, account, venue, sampling, calendar)
