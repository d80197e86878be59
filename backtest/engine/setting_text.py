"""The first part of a run's summary: policies, data, venues and the account."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from backtest.account import Account
from backtest.base import (
    format_paragraph,
    format_setting,
    format_span,
    list_changed,
    name_values,
)
from backtest.engine.manifest import read_tables_in_use
from backtest.engine.target_cuts_text import describe_isolated
from backtest.policy import sets_margin

if TYPE_CHECKING:
    from backtest.engine.run_record import RunRecord
    from backtest.venue import InUse, Venue

APART = ("contract.kind", "brackets", "earlier", "in_force")
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


def describe_venue(manifest: Mapping[str, Any], venue: Venue) -> str:
    tables = read_tables_in_use(manifest, venue)
    parts = [
        "rules of your own" if venue.in_force is None else venue.in_force.preset,
        f"{venue.contract.kind} contract",
        ", then ".join(describe_brackets(each) for each in tables),
        *(f"{name} {text}" for name, text in list_changed(venue) if not name.startswith(APART)),
    ]
    return ", ".join(parts)


def describe_brackets(table: InUse) -> str:
    count = "1 bracket" if len(table.brackets) == 1 else f"{len(table.brackets)} brackets"
    day = "" if table.since is None else f" of {table.since}"
    return f"{count}{day} up to {table.brackets[0].max_leverage:g}x"


def describe_account(result: RunRecord) -> Iterator[str]:
    account = result.account
    own = {"capital": "", "margin": format_setting(account.margin), **dict(list_changed(account))}
    currency = next(iter(result.venues.values())).contract.settles or ""
    own["capital"] = f"{format_setting(account.capital)} {currency}".strip()
    yield ", ".join(f"{name} {text}" for name, text in own.items())
    yield from list_backing(account, result.names)
    if account.fill == "same_close":
        yield "fills at the close of the decision are optimistic: at a price known before"
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
