"""Report sections on the data, the model, the rules and the provenance of a result."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from backtest.account.account import BY_INSTRUMENT
from backtest.base import clip, format_setting, format_span, list_changed
from backtest.engine import read_tables_in_use
from backtest.measures import describe_left_out, name_measure
from backtest.report.basis.data_quality import (
    NOTHING,
    Background,
    describe_choices,
    describe_filled,
    write_quality,
)
from backtest.report.basis.rule_sources import list_sources
from backtest.report.page.page import Block, Code, Paragraph, Section, Table, name_columns
from backtest.report.page.report_numbers import format_measure, name_unit
from backtest.venue import Bracket, Venue

MOST_BRACKETS = 20
APART = ("brackets", "earlier")
NOT_MODELED = (
    "Not modeled: the order book, queue position and partial fills at several prices; latency; "
    "exchange outages, auto-deleveraging and insurance-fund rules; taxes; and what the account's "
    "own trades would have done to later prices."
)


def build_assumptions(
    manifest: Mapping[str, Any],
    arguments: Sequence[str],
    remarks: tuple[str, ...] = (),
    background: Background = NOTHING,
) -> tuple[Section, Section]:
    data: list[Block] = [
        build_pair_table("Data", describe_data(manifest["data"])),
        *tabulate_instruments(manifest["data"]),
        *write_quality(background.examined),
    ]
    parts = split_manifest(manifest)
    rules: list[Block] = [
        Paragraph(NOT_MODELED),
        *(Paragraph(remark) for remark in remarks),
        *(block for part in parts for block in list_rules(part)),
        build_pair_table("Account", describe_settings(manifest["account"])),
        build_pair_table("Provenance", describe_provenance(manifest)),
        *list_commands(shlex.join(("backtest", "report", *arguments)), background),
        Code("Manifest", format_manifest(manifest), is_folded=True),
    ]
    return (
        Section("data", "Data", "Source, filled values and quality.", data),
        Section("assumptions", "Assumptions", "What was modeled, the rules and their sources, "
                "and how to reproduce the result.", rules),
    )  # fmt: skip


def list_rules(part: Part) -> Iterator[Block]:
    venue = part.manifest["venue"]
    yield build_pair_table(f"Venue rules in force{part.suffix}", describe_venue(venue))
    yield list_sources(part.manifest, part.suffix)
    yield from tabulate_tables(part.manifest, part.suffix)


def list_commands(command: str, background: Background) -> Iterator[Block]:
    if background.command:
        yield Code("Command that reproduces the result", background.command)
    yield from (Paragraph(f"The result: {remark}.", "note") for remark in background.remarks)
    yield Code("Command that writes this report from the saved result", command)


def format_manifest(manifest: Mapping[str, Any]) -> str:
    return json.dumps(shorten_series(manifest), indent=1, ensure_ascii=False, allow_nan=False)


def shorten_series(value: Any) -> Any:
    if isinstance(value, Mapping):
        if set(value) == {"time", "value"} and len(value["time"]) > 20:
            return f"{len(value['time']):,} values from {value['time'][0]} to {value['time'][-1]}"
        return {name: shorten_series(item) for name, item in value.items()}
    return [shorten_series(item) for item in value] if isinstance(value, list | tuple) else value


def build_pair_table(caption: str, pairs: Iterator[tuple[str, str]]) -> Table:
    return Table(caption, name_columns("item", "value", text=["value"]), tuple(pairs))


# ------------------------------------------------------------------------------------------- data


def describe_data(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "instrument", str(data["instrument"] or "unnamed")
    made_up = ", SYNTHETIC: these prices are made up" if data.get("synthetic") else ""
    yield "source", f"{data.get('source', 'not said')}{made_up}"
    bars = f"{data['bars']:,} bars of {data['interval']}"
    slow = f", policies decide every {data['decide']}" if "decide" in data else ""
    yield "time", f"{format_span(data)}, {bars}{slow}"
    if "filled" in data:
        yield "filled in", describe_filled(data["filled"]) or "nothing: the data had no gaps"
        if chosen := describe_choices(data["filled"]):
            yield "data choices", chosen
    if "liquidations_tested_on" in data:
        yield "liquidations tested on", str(data["liquidations_tested_on"])
    if "dividends" in data:
        yield "dividends", f"{data['dividends']} payments, booked as funding"
    elif "funding_events" in data:
        count = data["funding_events"]
        yield "funding", f"{count:,} settlements" if count else "no rates: none is charged"
    yield "content hash", str(data["content_hash"])


# ------------------------------------------------------------------------------------------ rules


def describe_venue(venue: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from (
        each for each in list_changed(Venue.from_dict(venue)) if not each[0].startswith(APART)
    )


def tabulate_tables(manifest: Mapping[str, Any], suffix: str = "") -> Iterator[Table]:
    for table in read_tables_in_use(manifest, Venue.from_dict(manifest["venue"])):
        day = "" if table.since is None else f", table of {table.since}"
        yield tabulate_brackets(f"Margin brackets{suffix}{day}", table.brackets)


def tabulate_brackets(title: str, brackets: Sequence[Bracket]) -> Table:
    rows = tuple(
        (
            f"{format_bound(row.floor)} to {format_bound(row.cap)}",
            f"{row.max_leverage:g}",
            f"{100.0 * row.maintenance_rate:g}",
            f"{row.amount or 0.0:,.10g}",
        )
        for row in brackets[:MOST_BRACKETS]
    )
    columns = name_columns(
        ("notional", "money"), ("most leverage", "turns"), ("maintenance", "%"),
        ("deduction", "money"),
    )  # fmt: skip
    left = len(brackets) - len(rows)
    return Table(title, columns, rows, f"And {left:,} more." if left else "")


def format_bound(value: float) -> str:
    return "any" if math.isinf(value) else f"{value:,.10g}"


def describe_settings(account: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in account.items():
        yield name.replace("_", " "), "no limit" if value == "inf" else format_setting(value)


def describe_accounts(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    pool = manifest.get("pool")
    if pool:
        yield "accounts", f"one in each market; measures are their {pool}"
    if pool or manifest.get("markets_left_out"):
        yield "markets left out", describe_left_out(manifest)


def describe_provenance(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "id", str(manifest["id"])
    several = manifest.get("policies", {})
    policies = several or {"": manifest["policy"]}
    for name, policy in policies.items():
        yield f"policy {name}".strip(), str(policy.get("text", policy.get("name")))
    hashes = sorted({str(policy["source_hash"]) for policy in policies.values()})
    yield "policy source hash", ", ".join(hashes)
    if overlay := manifest.get("overlay"):
        yield "overlay", str(overlay["text"] if isinstance(overlay, Mapping) else overlay)
    yield "signal", str(manifest["signal"])
    yield from describe_accounts(manifest)
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
    rows = tuple(
        (name_measure(name), format_measure(name, value), name_unit(name))
        for name, value in metrics.items()
    )
    note = "Money is in the settlement currency. docs/metrics.md defines each measure."
    return Table(
        "All measures", name_columns("measure", "value", "unit", text=["unit"]), rows, note
    )


SHOWN = ("liquidations_tested_on",)


class Part(NamedTuple):
    names: list[str]
    manifest: dict[str, Any]

    @property
    def suffix(self) -> str:
        return f" of {clip(', '.join(self.names), 120)}" if self.names else ""


def split_manifest(manifest: Mapping[str, Any]) -> list[Part]:
    instruments = manifest["data"].get("instruments")
    if not instruments:
        return [Part([], dict(manifest))]
    found: list[Part] = []
    whole = {name: value for name, value in manifest["data"].items() if name != "instruments"}
    for name, data in instruments.items():
        venue = manifest["venue"]
        account = {
            key: value[name] if key in BY_INSTRUMENT and is_table(value, instruments) else value
            for key, value in manifest["account"].items()
        }
        terms = {
            "venue": venue[name] if is_table(venue, instruments) else venue,
            "account": {key: value for key, value in account.items() if value is not None},
            "data": {**whole, **{key: data[key] for key in SHOWN if key in data}},
        }
        same = next((part for part in found if part.manifest | terms == part.manifest), None)
        if same is None:
            found.append(Part([name], {**manifest, **terms}))
        else:
            same.names.append(name)
    return found if len(found) > 1 else [Part([], found[0].manifest)]


def is_table(value: object, instruments: Mapping[str, Any]) -> bool:
    return isinstance(value, Mapping) and {*value} == {*instruments}


def tabulate_instruments(data: Mapping[str, Any]) -> Iterator[Block]:
    instruments = data.get("instruments") or {}
    if not all(isinstance(each, Mapping) for each in instruments.values()):
        columns = name_columns("instrument", "content hash", text=["content hash"])
        yield Table("Instruments", columns, tuple(instruments.items()))
    elif instruments:
        rows = tuple(
            (
                name,
                format_span(each).removesuffix(" UTC"),
                f"{each['bars']:,}",
                f"{each['funding_events']:,}",
                str(each["liquidations_tested_on"]),
                str(each.get("source", "")),
                describe_filled(each.get("filled", {})),
                describe_choices(each.get("filled", {})),
            )
            for name, each in instruments.items()
        )
        columns = name_columns(
            "instrument", ("span", "UTC"), "bars", "settlements", "liquidations tested on",
            "source", "filled in", "data choices",
            text=["span", "liquidations tested on", "source", "filled in", "data choices"],
        )  # fmt: skip
        yield Table("Instruments", columns, rows)
