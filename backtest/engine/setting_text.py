"""The first part of a run's summary: policies, data, venues and the account."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from backtest.account import Account
from backtest.account.leverage_limits import describe_limit
from backtest.account.multiple import Multiple
from backtest.base.number_text import (
    format_bps,
    format_setting,
)
from backtest.base.text_layout import format_paragraph
from backtest.base.units import format_span
from backtest.engine.loop_inputs import has_order_fee
from backtest.engine.manifest import read_tables
from backtest.engine.target_cuts_text import describe_isolated
from backtest.venue.interest import describe_interest

if TYPE_CHECKING:
    from backtest.engine.run_record import RunRecord
    from backtest.venue import Venue
    from backtest.venue.dated_tables import InUse

FILLS = {
    "next_close": "fills at the next close",
    "same_close": "fills at the close of the decision (optimistic: at a price known before)",
}
"""When decisions fill, if not at the next open."""


def summarize_setting(result: RunRecord) -> Iterator[str]:
    """Yield the policies, the data, the venues and the account, a paragraph each."""
    manifest = result.manifest
    if result.no_fill:
        yield from format_paragraph("NO FILL", f"no order was filled: {result.no_fill}")
    yield from format_paragraph("Policy", str(manifest["policy"]["text"]))
    if manifest.get("overlay") is not None:
        yield from format_paragraph("Overlay", str(manifest["overlay"]["text"]))
    if not result.has_one_position:
        weights = str(manifest["signal"]).partition(" sha256")[0]
        yield from format_paragraph(
            "Weights", "given as a frame" if weights == "frame" else weights
        )
    yield from format_paragraph("Data", *describe_data(result))
    yield from format_paragraph("Venue", *describe_venues(result))
    account = describe_one(result) if result.has_one_position else describe_several(result)
    yield from format_paragraph("Account", *account)


def describe_data(result: RunRecord) -> Iterator[str]:
    """Yield the instruments and their span, and the caveats of the data."""
    data = result.manifest["data"]
    name = ", ".join(result.names) if "instruments" in data else data["instrument"]
    span = format_span(data)
    yield f"{name or 'unnamed instrument'}, {span}, {data['bars']:,} bars of {data['interval']}"
    if data["synthetic"]:
        yield "SYNTHETIC: these prices are made up"
    each = data.get("instruments", {"": data})
    lacking = [n for n in each if each[n].get("liquidations_tested_on") == "last prices"]
    if lacking:
        yield f"no mark prices{name_those(lacking)}: liquidations tested on last prices"
    paying = [n for n in each if "dividends" in each[n]]
    if paying:
        count = f": {data['dividends']}" if "dividends" in data else ""
        yield f"dividends{name_those(paying)}{count}, booked as funding"
    unfunded = [n for n in each if n not in paying and each[n].get("funding_events") == 0]
    if unfunded:
        yield f"no funding rates{name_those(unfunded)}: none is charged"


def name_those(names: Sequence[str]) -> str:
    """Return the names of the instruments concerned; empty for an account with one."""
    return f" of {', '.join(names)}" if any(names) else ""


def describe_venues(result: RunRecord) -> Iterator[str]:
    """Yield the rules of each venue once, with its instruments, and tables of other days."""
    said = {name: describe_venue(result.manifest, result.venues[name]) for name in result.names}
    yield from join_same(said, always=False)
    yield from list_other_days(result)


def list_other_days(result: RunRecord) -> Iterator[str]:
    """Yield the margin tables of other days than those of the run, each with its instruments."""
    tables = result.manifest.get("margin_table", "")
    days = tables if isinstance(tables, Mapping) else dict.fromkeys(result.names, str(tables))
    starts = ("the margin table", "the oldest")
    others = {name: text for name, text in days.items() if text.startswith(starts)}
    yield from join_same(others, always=isinstance(tables, Mapping))


def join_same(said: Mapping[str, str], *, always: bool) -> Iterator[str]:
    """Yield each text once, with its instruments; without them where all have the same one.

    ``always`` names the instruments also then.
    """
    found: dict[str, list[str]] = {}
    for name, text in said.items():
        found.setdefault(text, []).append(name)
    for text, names in found.items():
        yield f"{', '.join(names)}: {text}" if always or len(found) > 1 else text


def describe_venue(manifest: Mapping[str, Any], venue: Venue) -> str:
    """Return the preset, contract, brackets, costs and liquidation rules, in one sentence."""
    tables = read_tables(manifest, venue)
    parts = [
        "rules of your own" if venue.in_force is None else venue.in_force.preset,
        f"{venue.contract.kind} contract",
        ", then ".join(describe_brackets(each) for each in tables),
        f"taker {format_bps(venue.fees.taker)}",
    ]
    if venue.fees.maker_share > 0.0:
        parts.append(f"maker {format_bps(venue.fees.maker)} for {venue.fees.maker_share:.0%}")
    if venue.fees.tiers:
        parts.append(f"{len(venue.fees.tiers)} fee tiers by volume")
    if has_order_fee(venue):
        per_order = venue.to_dict()["fees"]["per_order"]
        parts.append(f"{format_setting(per_order)} per order")
    parts.append(f"slippage {format_bps(venue.slippage.rate)}")
    if venue.slippage.impact > 0.0:
        parts.append(f"impact {venue.slippage.impact:g}")
    close = venue.liquidation
    parts.append(f"liquidation: {close.mode}")
    if close.mode != "takeover":
        size = f" and impact {close.impact:g}" if close.impact > 0.0 else ""
        parts[-1] += f" at {format_bps(close.slippage)} worse{size}, fee {format_bps(close.fee)}"
    if venue.profit_share() < 1.0:
        parts.append(f"{venue.profit_share():.0%} of unrealized profit backs orders")
    interest = describe_interest(venue.interest_on, venue.rates())
    if interest:
        parts.append(f"interest {interest}")
    return ", ".join(parts)


def describe_brackets(table: InUse) -> str:
    """Return the size and the date of a margin table, in a few words."""
    count = "1 bracket" if len(table.brackets) == 1 else f"{len(table.brackets)} brackets"
    day = "" if table.since is None else f" of {table.since}"
    return f"{count}{day} up to {table.brackets[0].max_leverage:g}x"


def describe_one(result: RunRecord) -> Iterator[str]:
    """Yield the account of one position, and what backs it in isolated margin."""
    yield describe_account(result)
    if backing := describe_isolated(result.account):
        yield backing


def describe_account(result: RunRecord) -> str:
    """Return the margin mode and every setting that is not the default, of one position."""
    account = result.account
    setting = account.venue_leverage
    parts = [
        f"{account.margin} margin",
        "venue leverage as needed" if setting is None else f"venue leverage {setting:g}x",
    ]
    shown = {
        "least leverage": account.min_leverage,
        "band": account.band,
        "stop at": account.stop_loss,
        "take profit at": account.take_profit,
        "trailing stop at": account.trailing_stop,
        "equity stop at": account.equity_stop,
        "margin call at": account.margin_call,
        "reserve": account.reserve,
        "top up to": account.top_up_to,
        "ruined at": account.ruin_at,
    }
    parts += [
        f"{name} {value}" if isinstance(value, Multiple) else f"{name} {value:g}"
        for name, value in shown.items()
        if value
    ]
    if limit := describe_limit(account.max_leverage):
        parts.append(f"most leverage {limit}")
    parts += [FILLS[account.fill]] if account.fill in FILLS else []
    if account.flows is not None:
        parts.append(f"{len(account.flows)} dated flows")
    if account.auto_margin:
        parts.append("automatic margin")
    if account.after_liquidation == "halt":
        parts.append("halts after a liquidation")
    signal = str(result.manifest["signal"]).partition(" sha256")[0]
    if signal != "constant 1":
        parts.append(f"signal: {signal}")
    return ", ".join(parts)


def describe_several(result: RunRecord) -> Iterator[str]:
    """Yield the margin and the capital, every setting that is given, and what backs positions."""
    account, names = result.account, result.names
    modes: dict[str, list[str]] = {}
    for name in names:
        modes.setdefault(account.for_instrument(name).margin, []).append(name)
    each = [f"{mode} margin of {', '.join(of)}" for mode, of in modes.items()]
    margin = f"{next(iter(modes))} margin" if len(modes) == 1 else ", ".join(each)
    assets = [f"{each.amount:,.10g} {each.name}" for each in account.collateral]
    backed = f" and collateral of {', '.join(assets)}" if assets else ""
    yield f"{margin}, capital {account.capital:,.10g}{backed}"
    if account != type(account)(capital=account.capital):
        yield repr(account)
    if account.fill in FILLS:
        yield FILLS[account.fill]
    if backing := describe_isolated_positions(account, names):
        yield backing


def describe_isolated_positions(account: Account, names: Sequence[str]) -> str:
    """Return what backs the isolated positions; empty if all are cross positions."""
    own = {name: account.for_instrument(name) for name in names}
    isolated = [name for name in names if own[name].margin == "isolated"]
    if not isolated:
        return ""
    settings = ", ".join(f"{n} {own[n].venue_leverage or 1.0:g}" for n in isolated)
    return (
        f"isolated: the margin of a position is its notional / the venue leverage ({settings}); "
        "the rest of the balance does not stand behind it"
    )
