"""Check that a venue allows the settings of an account, and uses all of them."""

from __future__ import annotations

from backtest.account.account import Account, list_shared_settings
from backtest.base import Argument, ParameterError, Phrase
from backtest.base.units import TOLERANCE
from backtest.venue import Venue


def check_single(account: Account, *, where: str) -> None:
    given = list_shared_settings(account)
    if given:
        raise ParameterError(
            f"only an account with several instruments takes {', '.join(given)}",
            where=where,
            cure="give bt.Markets({name: market, ...}), or leave them out",
        )


def check_account(account: Account, venue: Venue) -> None:
    check_single(account, where="Account")
    check_setting(account, venue)


def check_setting(account: Account, venue: Venue, name: str = "") -> None:
    of = f", {name}" if name else ""
    most = min(table[0].max_leverage for table in venue.tables())
    setting = most if account.venue_leverage is None else account.venue_leverage
    if setting > most * (1 + TOLERANCE):
        raise ParameterError(
            f"venue_leverage must be at most {most:g}, the limit of the first bracket, "
            f"got {setting:g}",
            where=f"Account.venue_leverage{of}",
            cure=Phrase(
                "choose a {} up to {}{}",
                Argument("venue_leverage"),
                f"{most:g}",
                ", or a preset with @DATE: the margin tables of all dates are checked"
                * bool(venue.earlier),
            ),
        )
    if account.min_leverage > setting * (1 + TOLERANCE):
        raise ParameterError(
            f"min_leverage must be at most {setting:g}, the limit set by initial margin, "
            f"got {account.min_leverage:g}",
            where=f"Account.min_leverage{of}",
            cure=Phrase("choose a {} up to {}", Argument("min_leverage"), f"{setting:g}"),
        )
    if venue.call_grace is not None and account.margin_call is None:
        raise ParameterError(
            f"a venue with call_grace {venue.call_grace} needs a margin_call, got None",
            where="Account.margin_call",
            cure=Phrase(
                "give for example {}, or a venue without call_grace", Argument("margin_call", 0.8)
            ),
        )
