"""Which loop lives an account: the fast one of a plain position, or the general one of several.

The fast loop knows one position with the settings of a plain account. Everything else is lived by
the general loop, also on a single market.
"""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import Any

import numpy as np
import pandas as pd

from backtest.account import Account
from backtest.account.account import GENERAL, WHOLE, list_shared_settings
from backtest.engine.named_signals import read_named
from backtest.engine.signal_rule import SignalRule
from backtest.market import Market, Markets, as_markets
from backtest.policy import sets_margin
from backtest.venue import Venue
from backtest.venue.dated_costs import list_dated


def fits_one_position(
    markets: Sized, policy: object, venue: object, account: Account, overlay: object
) -> bool:
    """Return whether the fast loop serves: one instrument, and terms that it knows."""
    fresh = all(getattr(account, name) == value for name, value in WHOLE.items())
    is_general = needs_general_loop(policy, venue, account)
    return len(markets) == 1 and fresh and overlay is None and not is_general


def needs_general_loop(policy: object, venue: object, account: object) -> bool:
    """Return whether a policy, a venue or an account has terms that only the general loop knows.

    Policies and venues are those of one instrument, or a mapping of them by name.
    """
    venues = venue.values() if isinstance(venue, Mapping) else [venue]
    return any(
        [
            has_general_account(account),
            *map(has_general_venue, venues),
            sets_margin(policy),
        ]
    )


def has_general_account(account: object) -> bool:
    """Return whether an account has settings that only the general loop knows."""
    if not isinstance(account, Account):
        return False
    is_general = any(getattr(account, name) != value for name, value in GENERAL.items())
    return is_general or account.fill == "limit"


def has_general_venue(venue: object) -> bool:
    """Return whether a venue has what only the general loop knows.

    That is spot contracts, and costs that change over time.
    """
    is_spot = getattr(getattr(venue, "contract", None), "kind", "") == "spot"
    return is_spot or (isinstance(venue, Venue) and bool(list_dated(venue)))


def widen_market(
    market: Any, signal: Any, *, policy: object, venue: object, account: object, overlay: object
) -> tuple[Any, Any]:
    """Return a market and its signal as those of several where the general loop lives the account.

    It does with an overlay, with settings that the fast loop does not know, and where weights,
    policies or venues are given by instrument.
    """
    by_name = any(isinstance(each, Mapping | pd.DataFrame) for each in (signal, policy, venue))
    is_wide = by_name or overlay is not None or needs_general_loop(policy, venue, account)
    is_wide = is_wide or (isinstance(account, Account) and bool(list_shared_settings(account)))
    if not is_wide or not isinstance(market, Market):
        return market, signal
    markets = as_markets(market)
    return markets, widen_signal(read_named(signal, market), markets)


def widen_signal(signal: Any, markets: Markets) -> Any:
    """Return the signal of the only instrument as weights; a rule, or weights, as they are."""
    if signal is None or isinstance(signal, SignalRule | Mapping | pd.DataFrame):
        return signal
    (name,) = markets.names
    if isinstance(signal, pd.Series):
        return signal.to_frame(name)
    return signal if isinstance(signal, np.ndarray | list | tuple) else {name: signal}
