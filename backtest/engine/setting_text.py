"""The first part of a run's summary: policies, data, venues and the account."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from backtest.account import Account, describe_limit
from backtest.base import (
    FrozenTable,
    format_bps,
    format_paragraph,
    format_setting,
    format_span,
    name_values,
)
from backtest.engine.loop_inputs import has_order_fee
from backtest.engine.manifest import read_tables_in_use
from backtest.engine.target_cuts_text import describe_isolated
from backtest.policy import sets_margin
from backtest.venue import describe_interest, format_rate, has_spread

if TYPE_CHECKING:
    from backtest.engine.run_record import RunRecord
    from backtest.venue import Contract, InUse, Venue

FILLS = {
    "next_close": "fills at the next close",
    "same_close": "fills at the close of the decision (optimistic: at a price known before)",
}
CLOSINGS = {
    "market": "closings and reductions at the next open",
    "limit": "closings and reductions as limit orders too",
}
SETTINGS = {
    "min_leverage": "least leverage",
    "band": "band",
    "stop_loss": "stop at",
    "take_profit": "take profit at",
    "trailing_stop": "trailing stop at",
    "equity_stop": "equity stop at",
    "margin_call": "margin call at",
    "reserve": "reserve",
    "top_up_to": "top up to",
    "max_holding": "positions held for at most",
    "ruin_at": "ruined at",
    "requirement": "requirement",
    "intrabar": "prices inside a bar:",
    "max_gross_leverage": "most gross leverage",
    "max_overlay": "most overlay",
    "negative_limit": "balance down to -",
    "conversion": "collateral sold",
}
FRESH: Mapping[str, Any] = {each.name: each.default for each in fields(Account)}
ALWAYS_LONG = ("constant 1", "equal weights")


def summarize_setting(result: RunRecord) -> Iterator[str]:
    manifest = result.manifest
    if result.no_fill:
        yield from format_paragraph("NO FILL", f"no order was filled: {result.no_fill}")
    yield from format_paragraph("Policy", str(manifest["policy"]["text"]))
    if manifest.get("overlay") is not None:
        yield from format_paragraph("Overlay", str(manifest["overlay"]["text"]))
    if signal := describe_own_signal(result):
        yield from format_paragraph("Weights" if result.diversity else "Signal", signal)
    yield from format_paragraph("Data", *describe_data(result))
    yield from format_paragraph("Venue", *describe_venues(result))
    yield from format_paragraph("Account", *describe_account(result))


def describe_own_signal(result: RunRecord) -> str:
    signal = str(result.manifest["signal"]).partition(" sha256")[0]
    if signal in ALWAYS_LONG and not result.diversity:
        return ""
    return "given as a frame" if signal == "frame" else signal


def describe_data(result: RunRecord) -> Iterator[str]:
    data = result.manifest["data"]
    name = ", ".join(result.names) if "instruments" in data else data["instrument"]
    span = format_span(data)
    yield f"{name or 'unnamed instrument'}, {span}, {data['bars']:,} bars of {data['interval']}"
    if "decide" in data:
        yield f"policies decide every {data['decide']}"
    if "detail" in data.get("filled", {}):
        yield f"detail: {data['filled']['detail']}"
    if data["synthetic"]:
        yield "SYNTHETIC: these prices are made up"
    each = data.get("instruments", {"": data})
    spot = {name for name, venue in result.venues.items() if venue.contract.is_spot}
    lacking = [n for n in each if each[n].get("liquidations_tested_on") == "last prices"]
    lacking = [name for name in lacking if name not in spot]
    if lacking:
        yield f"no mark prices{name_those(lacking)}: liquidations tested on last prices"
    paying = [n for n in each if "dividends" in each[n]]
    if paying:
        count = f": {data['dividends']}" if "dividends" in data else ""
        yield f"dividends{name_those(paying)}{count}, booked as funding"
    unfunded = [n for n in each if n not in paying and each[n].get("funding_events") == 0]
    unfunded = [name for name in unfunded if name not in spot]
    if unfunded:
        yield f"no funding rates{name_those(unfunded)}: none is charged"


def name_those(names: Sequence[str]) -> str:
    return f" of {', '.join(names)}" if any(names) else ""


def describe_venues(result: RunRecord) -> Iterator[str]:
    said = {name: describe_venue(result.manifest, result.venues[name]) for name in result.names}
    yield from join_same(said, always=False)
    yield from list_other_days(result)


def list_other_days(result: RunRecord) -> Iterator[str]:
    tables = result.manifest.get("margin_table", "")
    days = name_values(tables, result.names)
    starts = ("the margin table", "the oldest")
    others = {name: text for name, text in days.items() if text.startswith(starts)}
    yield from join_same(others, always=isinstance(tables, Mapping))


def join_same(said: Mapping[str, str], *, always: bool) -> Iterator[str]:
    found = group_names(said)
    for text, names in found.items():
        yield f"{', '.join(names)}: {text}" if always or len(found) > 1 else text


def describe_slippage(venue: Venue) -> list[str]:
    own = venue.slippage
    parts = [f"slippage {format_bps(own.rate)}"]
    if has_spread(venue):
        parts.append(f"spread {format_bps(own.spread)}")
    return [*parts, f"impact {own.impact:g}"] if own.impact > 0.0 else parts


def describe_venue(manifest: Mapping[str, Any], venue: Venue) -> str:
    tables = read_tables_in_use(manifest, venue)
    parts = [
        "rules of your own" if venue.in_force is None else venue.in_force.preset,
        describe_contract(venue.contract),
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
    parts += describe_slippage(venue)
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


def describe_contract(contract: Contract) -> str:
    if not contract.is_spot:
        return f"{contract.kind} contract"
    rate = format_rate(contract.borrow_rate)
    return (
        f"spot contract with a haircut of {100.0 * (contract.haircut or 0.0):g} %, a short pays "
        f"{rate} a year for its coins"
    )


def describe_brackets(table: InUse) -> str:
    count = "1 bracket" if len(table.brackets) == 1 else f"{len(table.brackets)} brackets"
    day = "" if table.since is None else f" of {table.since}"
    return f"{count}{day} up to {table.brackets[0].max_leverage:g}x"


def describe_account(result: RunRecord) -> Iterator[str]:
    account, names = result.account, result.names
    modes = group_names({name: account.for_instrument(name).margin for name in names})
    margin = ", ".join(
        f"{mode} margin" + (f" of {', '.join(of)}" if len(modes) > 1 else "")
        for mode, of in modes.items()
    )
    assets = [f"{each.amount:,.10g} {each.name}" for each in account.collateral]
    backed = f" and collateral of {', '.join(assets)}" if assets else ""
    parts = [f"{margin}, capital {account.capital:,.10g}{backed}", *list_settings(account)]
    yield ", ".join(parts)
    yield from list_backing(account, names)
    if sets_margin(result.policies):
        yield "a policy decides the venue leverage of its position, and moves margin with it"


def list_backing(account: Account, names: Sequence[str]) -> Iterator[str]:
    said = {name: describe_isolated(account.for_instrument(name)) for name in names}
    for text, of in group_names(said).items():
        if text:
            yield text if len(of) == len(names) else f"{', '.join(of)} {text}"


def group_names(said: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, text in said.items():
        found.setdefault(text, []).append(name)
    return found


def list_settings(account: Account) -> Iterator[str]:
    yield "venue leverage " + describe_value(account.venue_leverage, "as needed", "x")
    for name, words in SETTINGS.items():
        value = getattr(account, name)
        if value != FRESH[name]:
            yield f"{words} {describe_value(value)}"
    if limit := describe_most(account.max_leverage):
        yield f"most leverage {limit}"
    yield from describe_fill_mode(account)
    if account.flows is not None:
        yield f"{len(account.flows)} dated flows"
    if account.auto_margin:
        yield "automatic margin"
    if account.after_liquidation == "halt":
        yield "halts after a liquidation"


def describe_fill_mode(account: Account) -> Iterator[str]:
    if account.fill in FILLS:
        yield FILLS[account.fill]
    if account.fill == "limit":
        yield f"limit orders {describe_value(account.offset)} of the price from the last close"
        yield CLOSINGS[account.closing]


def describe_most(limit: Any) -> str:
    if not isinstance(limit, FrozenTable):
        return describe_limit(limit)
    each = {name: describe_limit(limit[name]) for name in limit}
    return ", ".join(f"{name} {text}" for name, text in each.items() if text)


def describe_value(value: Any, default: str = "", unit: str = "") -> str:
    if isinstance(value, FrozenTable):
        each = (f"{name} {describe_value(value[name], default, unit)}" for name in value)
        return ", ".join(each)
    if value is None:
        return default
    return f"{value:g}{unit}" if isinstance(value, float | int) else str(value)
