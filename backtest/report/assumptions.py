"""What a report rests on: what was modelled and filled, the rules, how to make it again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from backtest.report.page import Block, Code, Column, Section, Table, Text
from backtest.report.words import in_bps, in_unit, title, unit_beside

NOT_MODELLED = (
    "Not modelled: the order book, queue position and partial fills at several prices; latency; "
    "exchange outages, auto-deleveraging and insurance-fund rules; taxes; and what the account's "
    "own trades would have done to later prices."
)
FILLS = (
    "A decision is made at the close of a bar and fills at the open of the next, worsened by "
    "slippage and impact. Liquidation and stops are tested inside every bar."
)
MOST_BRACKETS = 20


def build_assumptions(
    manifest: Mapping[str, Any], command: str, remarks: tuple[str, ...] = ()
) -> Section:
    """Return the section on data, rules and provenance.

    Parameters
    ----------
    manifest : mapping
        Of a result.
    command : str
        What makes the report again.
    remarks : tuple of str
        What else the reader must know of how the numbers came about.
    """
    blocks: list[Block] = [
        tabulate("Data", describe_data(manifest["data"])),
        *(Text(remark) for remark in remarks),
        Text(FILLS),
        Text(NOT_MODELLED, "note"),
        tabulate("Venue rules in force", describe_venue(manifest["venue"])),
        tabulate_brackets(manifest["venue"]["brackets"]),
        tabulate("Account", describe_settings(manifest["account"])),
        tabulate("Provenance", describe_origin(manifest)),
        Code("The command that makes this report again", command),
        Code("Manifest", write_manifest(manifest), is_folded=True),
    ]
    lead = "What was modelled, what was filled in, which rules held, and how to make this again."
    return Section("assumptions", "Assumptions and data", lead, blocks)


def write_manifest(manifest: Mapping[str, Any]) -> str:
    """Return everything that decided the numbers, as JSON; long series by their length."""
    short = {
        **manifest,
        "account": shorten(manifest["account"]),
        "venue": shorten(manifest["venue"]),
    }
    return json.dumps(short, indent=1, ensure_ascii=False, allow_nan=False)


def shorten(value: Any) -> Any:
    """Return data with series of more than twenty values cut to the number of them."""
    if isinstance(value, Mapping):
        if set(value) == {"time", "value"} and len(value["time"]) > 20:
            return f"{len(value['time']):,} values from {value['time'][0]} to {value['time'][-1]}"
        return {name: shorten(item) for name, item in value.items()}
    return [shorten(item) for item in value] if isinstance(value, list | tuple) else value


def tabulate(caption: str, pairs: Iterator[tuple[str, str]]) -> Table:
    """Return names and values as a table of two columns."""
    columns = (Column("item", is_number=False), Column("value", is_number=False))
    return Table(caption, columns, tuple(pairs))


# ------------------------------------------------------------------------------------------- data


def describe_data(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what the data are, and what was filled in."""
    yield "instrument", str(data["instrument"] or "unnamed")
    yield (
        "source",
        str(data.get("source", "not said"))
        + (", SYNTHETIC: these prices are made up" if data.get("synthetic") else ""),
    )
    yield (
        "time",
        f"{data['start']} to {data['end']} UTC, {data['bars']:,} bars of {data['interval']}",
    )
    if "filled" in data:
        filled = [f"{name}: {how}" for name, how in data["filled"].items()]
        yield "filled in", "; ".join(filled) or "nothing: the data had no gaps"
    if "liquidations_tested_on" in data:
        yield "liquidations tested on", str(data["liquidations_tested_on"])
    if "funding_events" in data:
        count = data["funding_events"]
        yield "funding", f"{count:,} settlements" if count else "no rates: none is charged"
    yield "content hash", str(data["content_hash"])


# ------------------------------------------------------------------------------------------ rules


def describe_venue(venue: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the rules of a venue, each with what it does."""
    yield from describe_preset(venue.get("in_force"))
    contract, fees, slippage = venue["contract"], venue["fees"], venue["slippage"]
    yield (
        "contract",
        (
            f"{contract['kind']}, size {contract['size']:g}, lot {contract['lot']:g}, "
            f"least order {contract['min_notional']:g}"
        ),
    )
    yield (
        "fees",
        f"taker {in_bps(fees['taker'])}, maker {in_bps(fees['maker'])} for "
        + (f"{fees.get('maker_share', 0.0):.0%} of every trade"),
    )
    impact = slippage.get("impact", 0.0)
    yield (
        "slippage",
        f"{in_bps(slippage['rate'])} of every fill; "
        + (
            f"impact {impact:g} x sigma x sqrt(share of {slippage['impact_window']} volume)"
            if impact
            else "no market impact"
        ),
    )
    yield "liquidation", describe_liquidation(venue["liquidation"])
    yield (
        "maintenance at",
        f"{venue.get('maintenance_at', 'mark')} price"
        + (", closing fee included" if venue.get("includes_close_fee") else ""),
    )
    yield "margin multiplier", in_short(venue.get("margin_multiplier", 1.0))
    rates = ("borrow_rate", "cash_rate", "short_rate")
    words = [f"{name.replace('_rate', '')} {in_short(venue.get(name, 0.0))}" for name in rates]
    yield "interest per year", f"{', '.join(words)}; on the {venue.get('interest_on', 'balance')}"


def describe_preset(in_force: Any) -> Iterator[tuple[str, str]]:
    """Yield which dated table the rules come from."""
    if isinstance(in_force, Mapping):
        yield "rules of", ", ".join(f"{name} {value}" for name, value in in_force.items())


def describe_liquidation(rule: Mapping[str, Any]) -> str:
    """Return what a liquidation does."""
    if rule["mode"] == "takeover":
        return "takeover: all margin is lost"
    step = f", in steps of {rule['step']}" if rule["mode"] == "partial" else ""
    return f"{rule['mode']}{step}, {in_bps(rule['slippage'])} worse, fee {in_bps(rule['fee'])}"


def in_short(value: Any) -> str:
    """Return a number, or how long a series is."""
    if isinstance(value, Mapping):
        return f"a series of {len(value.get('value', ())):,} values"
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def tabulate_brackets(brackets: list[Mapping[str, Any]]) -> Table:
    """Return the margin table."""
    rows = tuple(
        (
            f"{bound(row['floor'])} to {bound(row['cap'])}",
            f"{float(row['max_leverage']):g}",
            f"{100.0 * float(row['maintenance_rate']):g}",
            f"{float(row['amount'] or 0.0):,.10g}",
        )
        for row in brackets[:MOST_BRACKETS]
    )
    columns = (
        Column("notional", "money", is_number=False),
        Column("most leverage", "turns"),
        Column("maintenance", "%"),
        Column("deduction", "money"),
    )
    left = len(brackets) - len(rows)
    return Table("Margin brackets", columns, rows, f"And {left:,} more." if left else "")


def bound(value: Any) -> str:
    """Return an end of a bracket."""
    return "any" if value == "inf" else f"{float(value):,.10g}"


def describe_settings(account: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the settings of an account."""
    for name, value in account.items():
        yield name.replace("_", " "), "no limit" if value == "inf" else in_short(value)


def describe_origin(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what made the numbers: id, policy, signal, sampling, versions, checks."""
    yield "id", str(manifest["id"])
    policy = manifest["policy"]
    yield "policy", str(policy.get("text", policy["name"]))
    yield "policy source hash", str(policy["source_hash"])
    yield "signal", str(manifest["signal"])
    yield "returns", f"per {manifest['sampling']}, calendar of {manifest['calendar']} days a year"
    for name in ("seed", "resumed_from"):
        if manifest.get(name) is not None:
            yield name.replace("_", " "), str(manifest[name])
    if "causality" in manifest:
        yield "checked", f"the books balance at every bar; causality: {manifest['causality']}"
    if manifest.get("compiled", "yes") != "yes":
        yield "plain Python", str(manifest["compiled"])
    versions = manifest["versions"]
    yield "versions", ", ".join(f"{name} {value}" for name, value in versions.items())


def tabulate_measures(metrics: Mapping[str, float]) -> Table:
    """Return all measures with their units."""
    columns = (Column("measure", is_number=False), Column("value"), Column("unit", is_number=False))
    rows = tuple(
        (title(name), in_unit(name, value), unit_beside(name)) for name, value in metrics.items()
    )
    note = "Money is in the settlement currency. docs/metrics.md defines each measure."
    return Table("All measures", columns, rows, note)
