"""One instrument given as several: the arguments of a run of one position."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from backtest.account import Account
from backtest.account.account import BY_INSTRUMENT
from backtest.account.by_instrument import check_instruments
from backtest.engine.portfolio.book_desk import assign_policies
from backtest.engine.portfolio.cut_terms import cut_account
from backtest.engine.portfolio.portfolio_checks import read_venues
from backtest.engine.run_warnings import warn_of_weights
from backtest.market import Market, Markets
from backtest.market.weight_frame import read_weights
from backtest.policy import Policy
from backtest.venue import Venue


def narrow_to_one(
    markets: Markets, policy: object, venue: object, account: Account, signal: Any
) -> tuple[Market, Policy, Venue, Account, Any]:
    """Return market, policy, venue, account and signal of the only instrument."""
    name, account = markets.names[0], cut_account(account, markets)
    policies, _ = assign_policies(policy, markets, None)
    for field in BY_INSTRUMENT:
        check_instruments(getattr(account, field), markets.names, where=f"Account.{field}")
    own = account.for_instrument(name) if account.has_tables() else account
    warn_of_weights(signal, markets)
    if isinstance(signal, pd.DataFrame | Mapping):
        signal = pd.Series(read_weights(signal, markets, where="bt.run")[0], index=markets.times)
    return markets[name], policies[name], read_venues(venue, markets)[name], own, signal
