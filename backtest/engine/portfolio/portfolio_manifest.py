"""The manifest of a run of several positions: everything that decides its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from backtest.account import Account
from backtest.base.json_values import to_plain
from backtest.base.units import IntArray, format_duration, format_time
from backtest.engine.lookahead.checked_signals import join_checks
from backtest.engine.manifest import (
    compute_id,
    describe_data,
    describe_margin_tables,
    find_versions,
    hash_source,
)
from backtest.market import Markets
from backtest.policy import Policy
from backtest.venue import Venue

if TYPE_CHECKING:
    from backtest.engine.portfolio.portfolio_setup import Setup

KIND = "portfolio"


def write_portfolio_manifest(
    setup: Setup,
    *,
    signal: str,
    given: object,
    sampling: str,
    calendar: str,
    closes: IntArray,
    plain_because: str,
    benchmark: str,
) -> dict[str, Any]:
    """Return everything that decides the numbers, with an ``id`` made of it.

    A benchmark that was not given follows from the rest: ``compared_with`` is no part of the id.
    """
    markets, account = setup.markets, setup.account
    start = int(closes[0]) - markets.interval
    facts = {
        "kind": KIND,
        "data": describe_markets(markets, account, start, closes),
        "policy": describe_policies(setup.policies),
        "overlay": None if setup.overlay is None else describe_policy(setup.overlay),
        "venue": describe_venue(setup.venues),
        "account": account.to_dict(),
        "signal": signal,
        "sampling": sampling,
        "calendar": calendar,
        "seed": None,
        "resumed_from": None if setup.resume is None else setup.resume.manifest["id"],
        "versions": find_versions(),
        **({} if setup.benchmark is None else {"benchmark": benchmark}),
    }
    manifest: dict[str, Any] = to_plain(facts)
    checks = "; ".join(dict.fromkeys(each.causality for each in setup.panelists))
    return {
        "id": compute_id(manifest),
        **manifest,
        "compared_with": benchmark,
        "compiled": plain_because or "yes",
        "causality": join_checks(checks, given),
        "margin_table": {
            name: describe_margin_tables(markets[name], venue, start, int(closes[-1]))
            for name, venue in setup.venues.items()
        },
    }


def describe_markets(
    markets: Markets, account: Account, start: int, closes: IntArray
) -> dict[str, Any]:
    """Return the source, the content and the bars of a panel, and of each instrument."""
    return {
        "source": repr(markets),
        "instrument": ", ".join(markets.names),
        "content_hash": markets.content_hash,
        "start": format_time(start),
        "end": format_time(int(closes[-1])),
        "bars": len(closes),
        "interval": format_duration(markets.interval),
        "synthetic": markets.synthetic,
        "instruments": {
            name: describe_data(market, account, start, market.time + market.interval)
            for name, market in markets.items()
        },
    }


def describe_policy(policy: Policy) -> dict[str, Any]:
    """Return one policy for the manifest."""
    return {
        "text": repr(policy),
        "name": type(policy).__name__,
        "settings": policy.settings(),
        "source_hash": hash_source(type(policy)),
    }


def describe_policies(policies: Mapping[str, Policy]) -> dict[str, Any]:
    """Return the policies: one entry if all instruments have the same."""
    distinct = list(dict.fromkeys(map(repr, policies.values())))
    first = next(iter(policies.values()))
    if len(distinct) == 1:
        return describe_policy(first)
    texts = ", ".join(f"{name}: {policy!r}" for name, policy in policies.items())
    return {
        "text": f"{{{texts}}}",
        "name": "portfolio",
        "settings": {},
        "source_hash": "",
        "by_instrument": {name: describe_policy(each) for name, each in policies.items()},
    }


def describe_venue(venue: Venue | Mapping[str, Venue]) -> dict[str, Any]:
    """Return the venue, or the venue of each instrument."""
    if isinstance(venue, Venue):
        return venue.to_dict()
    return {name: each.to_dict() for name, each in venue.items()}
