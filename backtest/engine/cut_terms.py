"""The terms of a panel's account on a part of the panel, and where its contracts expire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from backtest.account import Account
from backtest.account.account import BY_INSTRUMENT
from backtest.base.frozen_tables import FrozenTable
from backtest.base.units import to_nanoseconds
from backtest.market.markets import Markets
from backtest.venue import Venue
from backtest.venue.scenario_margin import ScenarioMargin


def cut_account(account: Account, markets: Markets) -> Account:
    """Drop per-instrument settings of instruments that are not in the markets.

    Tables by instrument and groups of scenarios lose their entries. Collateral that cancels risk in
    a group of which nothing is left cancels none.
    """
    gone = {name for name in markets.names_of_whole if name not in markets}
    if not gone:
        return account
    changes: dict[str, Any] = {}
    for field in BY_INSTRUMENT:
        value = getattr(account, field)
        if isinstance(value, FrozenTable):
            changes[field] = {name: each for name, each in value.items() if name not in gone}
    rule = account.requirement
    if isinstance(rule, ScenarioMargin):
        groups = {*rule.name_groups(markets.names_of_whole)}
        rule = rule.without(gone)
        lost = groups - {*rule.name_groups([n for n in markets.names_of_whole if n not in gone])}
        changes["requirement"] = rule
        changes["collateral"] = [
            replace(each, cancels_risk=None) if each.cancels_risk in lost else each
            for each in account.collateral
        ]
    return replace(account, **changes)


def end_expired(market: Any, venue: Any) -> Any:
    """Return a panel in which contracts are delisted when they expire; one market as it is."""
    if not isinstance(market, Markets):
        return market
    found = {}
    for name in market:
        given = venue.get(name) if isinstance(venue, Mapping) else venue
        expires = given.contract.expires if isinstance(given, Venue) else None
        if expires is not None:
            found[name] = to_nanoseconds(expires, where="Contract.expires")
    return market.end_at(found) if found else market
