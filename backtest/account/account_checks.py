"""Check that a venue allows the settings of an account, and uses all of them."""

from __future__ import annotations

from backtest.account.account import Account
from backtest.base import ParameterError
from backtest.base.units import TOLERANCE
from backtest.venue import Venue


def check_setting(account: Account, venue: Venue, name: str = "") -> None:
    of = f" for {name}" if name else ""
    most = min(table[0].max_leverage for table in venue.tables())
    setting = most if account.venue_leverage is None else account.venue_leverage
    if setting > most * (1 + TOLERANCE):
        raise ParameterError(
            f"venue_leverage must be at most {most:g}{of}, the limit of the first bracket, "
            f"got {setting:g}"
            + "; the margin tables of all dates count, of a preset with @DATE one"
            * bool(venue.earlier)
        )
    if account.min_leverage > setting * (1 + TOLERANCE):
        raise ParameterError(
            f"min_leverage must be at most {setting:g}{of}, the limit set by initial margin, "
            f"got {account.min_leverage:g}"
        )
    if venue.call_grace is not None and account.margin_call is None:
        raise ParameterError(
            f"a venue with call_grace {venue.call_grace} needs a margin_call, 0.8 for example, "
            "got None"
        )
