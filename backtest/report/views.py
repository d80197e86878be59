"""HTML of what goes into a run, for notebooks: markets, venues, accounts, policies and paths."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from backtest.account import Account
from backtest.base import Cost, clip, format_bps, format_time, repr_plain
from backtest.market import Market, Markets
from backtest.policy import Policy
from backtest.report.notebook import LONGEST, draw_line_svg, escape_text, write_facts_table
from backtest.report.page.page import Fact
from backtest.risk import Paths
from backtest.venue import Venue


def write_view(source: Any) -> str:
    """Return a title, a chart of a market's closes, and a table of facts."""
    title, facts = describe(source)
    chart = draw_line_svg(source.time, source.close, "close") if isinstance(source, Market) else ""
    return (
        f"<div><b>{escape_text(clip(title, LONGEST))}</b>{chart}"
        f"{write_facts_table(list(facts))}</div>"
    )


def describe(source: Any) -> tuple[str, Iterator[Fact]]:
    """Return the title and the facts of a value of any kind."""
    match source:
        case Market():
            return source.instrument or source.source, describe_market(source)
        case Markets():
            return ", ".join(source.names), describe_span(source)
        case Venue():
            return f"Venue, {source.contract.kind} contract", describe_venue(source)
        case Account():
            return "Account", describe_account(source)
        case Paths():
            return repr(source).strip("<>"), iter(())
        case _:
            return f"{type(source).__name__}: {source.summary()}", describe_policy(source)


def describe_span(source: Market | Markets) -> Iterator[Fact]:
    """Yield the bars and the span of data."""
    yield Fact("bars", f"{source.n_bars:,}")
    yield Fact("from", format_time(int(source.start)), "UTC")
    yield Fact("to", format_time(int(source.end)), "UTC")


def describe_market(market: Market) -> Iterator[Fact]:
    """Yield the span of a market and what it holds besides bars."""
    yield from describe_span(market)
    yield Fact("last close", f"{market.close[-1]:,.6g}")
    yield Fact("mark prices", "yes" if market.has_mark else "no")
    yield Fact("settlements", f"{len(market.funding_time):,}", "of funding")
    yield Fact("columns", ", ".join(market.columns) or "none")
    yield Fact("data", "synthetic" if market.synthetic else "given")


def describe_venue(venue: Venue) -> Iterator[Fact]:
    """Yield the costs and margins of a venue."""
    rates = [each.maintenance_rate for each in venue.brackets]
    yield Fact("most leverage", f"{max(each.max_leverage for each in venue.brackets):g}x")
    yield Fact("maintenance", f"{rates[0]:.3%}", f"to {rates[-1]:.1%} in {len(rates)} brackets")
    yield Fact("taker fee", format_cost(venue.fees.taker, 4))
    worse = format_cost(venue.slippage.rate, 4)
    yield Fact("slippage", worse, f"impact {venue.slippage.impact:g}")
    own = format_cost(venue.liquidation.fee, 3)
    yield Fact("liquidation", venue.liquidation.mode, f"fee {own}")


def format_cost(cost: Cost, decimals: int) -> str:
    """Format a cost as a percentage, or describe how it changes over time."""
    return f"{cost:.{decimals}%}" if isinstance(cost, float) else format_bps(cost)


def describe_account(account: Account) -> Iterator[Fact]:
    """Yield capital and margin, and every field that is not its default."""
    plain = Account()
    for name in (each.name for each in dataclasses.fields(account)):
        value = repr_plain(getattr(account, name))
        if name in {"capital", "margin"} or value != repr_plain(getattr(plain, name)):
            yield Fact(name, clip(value.strip("'"), 60))


def describe_policy(policy: Policy) -> Iterator[Fact]:
    """Yield the parameters of a policy, and when it fails."""
    for name, value in policy.settings().items():
        space = policy.parameters()[name].space if name in policy.parameters() else None
        yield Fact(name, repr_plain(value).strip("'"), getattr(space, "unit", ""))
    if policy.fails_when:
        yield Fact("fails when", "", policy.fails_when)
