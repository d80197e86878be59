"""What a result rests on, from its manifest: data and their quality, rules, and the command."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backtest import core
from backtest.account import Account
from backtest.market import split_notes
from backtest.policies.lookahead import ENOUGH
from backtest.report import page
from backtest.report.page import Block, Code, Column, Paragraph, Section, Table, build_pairs
from backtest.results import find_held, read_tables_in_use
from backtest.results.listing import Origin
from backtest.venue import Venue, preset_files

NOT_SETTINGS = (
    "id", "kind", "data", "outcome", "indices", "content", "title", "note", "versions", "venue",
    "account", "policies", "paths", "margin_tables", "parameters", "settings",
    "held",
)  # fmt: skip
TOLD = ("causality", "compiled", "signal", "overlay", "sampling", "calendar")
APART = ("brackets", "earlier", "in_force")
MAX_BRACKETS = 20
BRACKET_COLUMNS = (
    Column("notional", "money", is_number=False), Column("maximum leverage", "x"),
    Column("maintenance", "%"), Column("deduction", "money"),
)  # fmt: skip
NOT_MODELED = (
    "Not modeled: the order book, queue position and partial fills at several prices; latency; "
    "exchange outages, auto-deleveraging and insurance-fund rules; taxes; and what the account's "
    "own trades would have done to later prices."
)


def build_basis(found: Any, command: str, origin: Origin) -> list[Section]:
    manifest = found.manifest
    if "data" not in manifest:
        blocks: list[Block] = [*map(Paragraph, found.list_assumptions())]
        return [Section("assumptions", "Assumptions", "What the figures rest on.", blocks)]
    data, settings = manifest["data"], find_settings(manifest)
    has_account, paths = "account" in settings, settings.get("paths") or {}
    named = {f" of {name}": each for name, each in paths.items()}
    drawn = {"": paths} if "model" in paths else named
    rules: list[Block] = [
        *([Paragraph(NOT_MODELED)] if has_account else []),
        *(Paragraph(each) for each in found.list_assumptions()),
        *list_terms(manifest),
        *list_rules(manifest),
        *(build_pairs(f"Paths{of}", describe_paths(each)) for of, each in drawn.items()),
        build_pairs("Settings", describe_rest(manifest)),
    ]
    if origin.command:
        rules.append(Code("Command that reproduces the result", origin.command))
    rules += [Paragraph(f"The result: {each}.", "note") for each in origin.remarks]
    saved = "from the saved result" if origin.command else "after result.save()"
    rules.append(Code(f"Command that writes this report {saved}", command))
    return [
        Section("assumptions", "Assumptions", "What was modeled, the rules and their sources, and "
                "how to reproduce the result.", rules),
        Section("data", "Data", "Source and filled values.", [*list_data(data)]),
    ]  # fmt: skip


def find_settings(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = manifest.get("settings") or manifest
    return found


def list_terms(manifest: Mapping[str, Any], *, verbose: bool = True) -> list[Table]:
    """Return venues and account as the fields of their models that are not at their defaults.

    Before them, of sets of parameters, what those hold that the sets do not vary.
    What was checked and found right is left out unless ``verbose``.
    """
    settings = find_settings(manifest)
    terms = [build_pairs("Run", describe_run(manifest, verbose))] if "causality" in manifest else []
    if held := settings.get("held") or find_held(settings):
        words = {name: core.format_setting(value) for name, value in held.items()}
        terms.append(build_pairs("Held", iter(words.items())))
    terms += [build_pairs(f"Venue{of}", describe_venue(manifest, rules))
             for of, rules in list_venues(manifest).items()]  # fmt: skip
    account = settings.get("account") or {}
    is_named = all(isinstance(each, Mapping) for each in account.values())
    accounts = (
        {f" of {name}": each for name, each in account.items()} if is_named else {"": account}
    )
    return terms + [build_pairs(f"Account{of}", describe_account(each))
                    for of, each in accounts.items()]  # fmt: skip


def describe_run(manifest: Mapping[str, Any], verbose: bool) -> Iterator[tuple[str, str]]:
    data = manifest["data"]
    signal = str(manifest.get("signal", "")).partition(" sha256")[0]
    is_plain = signal in ("", "constant 1") or (
        signal == "equal weights" and len(data.get("instruments") or {}) < 2
    )
    if not is_plain:
        yield "weights" if "instruments" in data else "signal", signal
    if manifest.get("overlay"):
        yield "overlay", name_policy(manifest["overlay"])
    if "decision_interval" in data:
        yield "decides", f"every {data['decision_interval']}"
    yield "returns", f"per {manifest['sampling']}, {manifest['calendar']} days a year"
    checks = [*dict.fromkeys(str(manifest["causality"]).split("; "))]
    if verbose:
        yield "checked", f"the books balance at every bar; causality: {'; '.join(checks)}"
    elif unsound := [each for each in checks if not is_sound(each)]:
        yield "causality", "; ".join(unsound)
    if manifest.get("compiled", "yes") != "yes":
        yield "in plain Python", str(manifest["compiled"])


def is_sound(causality: str) -> bool:
    """Return whether all columns were checked for looking ahead, at enough places."""
    cuts = map(int, re.findall(r"at (\d+) cuts?\b", causality))
    return "not checked" not in causality and all(n >= ENOUGH for n in cuts)


def list_venues(manifest: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    same: dict[str, tuple[list[str], Mapping[str, Any]]] = {}
    for name, rules in walk_venues("", find_settings(manifest).get("venue") or {}):
        same.setdefault(repr(rules), ([], rules))[0].append(name)
    return {
        f" of {core.clip(', '.join(names), 120)}" if any(names) and len(same) > 1 else "": rules
        for names, rules in same.values()
    }


def walk_venues(owner: str, found: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if "contract" in found:
        yield owner, found
        return
    for name, value in found.items():
        if isinstance(value, Mapping):
            yield from walk_venues(owner if name == "venue" else f"{owner} {name}".strip(), value)


def describe_venue(manifest: Mapping[str, Any], rules: Any) -> Iterator[tuple[str, str]]:
    venue = Venue.from_dict(rules)
    yield "rules", name_rules(venue)
    if venue.contract.unknown:
        yield "unknown", f"{', '.join(venue.contract.unknown)}: no source gives them"
    for table in find_tables(manifest, venue):
        count = "1 bracket" if len(table.brackets) == 1 else f"{len(table.brackets)} brackets"
        day = "" if table.since is None else f" of {table.since}"
        yield "margin", f"{count}{day} up to {table.brackets[0].max_leverage:g}x"
    apart = (*APART, *(f"contract.{step}" for step in venue.contract.unknown))
    yield from (each for each in core.list_changed(venue) if not each[0].startswith(apart))


def name_rules(venue: Venue) -> str:
    """Return where the rules come from; for a listing, which ones, and the preset of the others."""
    source = venue.in_force
    if source is None:
        return "of your own"
    if source.like is None:
        return source.preset
    day = source.since or "a day that is not known"
    return (
        f"{', '.join(source.listed)} of the listing {source.preset} of {day}; all others of "
        f"{source.like}"
    )


def find_tables(manifest: Mapping[str, Any], venue: Venue) -> list[Any]:
    has_dates = "margin_tables" in manifest or manifest["data"].get("start")
    return read_tables_in_use(manifest, venue) if has_dates else []


DEFAULTS = core.to_plain(Account().to_dict())


def describe_account(account: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in account.items():
        if name in ("capital", "margin") or value != DEFAULTS.get(name):
            yield name, "no limit" if value == "inf" else core.format_setting(value)


def list_rules(manifest: Mapping[str, Any]) -> Iterator[Block]:
    for of, rules in list_venues(manifest).items():
        tables = find_tables(manifest, Venue.from_dict(rules))
        yield list_sources(rules, [each.since for each in tables if each.since is not None], of)
        for table in tables:
            day = "" if table.since is None else f", table of {table.since}"
            rows = tuple(
                (f"{row.floor:,.10g} to {'any' if math.isinf(row.cap) else f'{row.cap:,.10g}'}",
                 f"{row.max_leverage:g}", f"{100.0 * row.maintenance_rate:g}",
                 f"{row.amount or 0.0:,.10g}")
                for row in table.brackets[:MAX_BRACKETS]
            )  # fmt: skip
            left = len(table.brackets) - len(rows)
            yield Table(f"Margin brackets{of}{day}", BRACKET_COLUMNS, rows,
                        f"And {left:,} more." if left else "")  # fmt: skip


GROUPS = {
    "contract": "contract", "brackets": "margin table", "fees": "fees", "slippage": "slippage",
    "liquidation": "liquidation", "rules": "other rules",
}  # fmt: skip


def read_group(venue: Mapping[str, Any], group: str) -> Any:
    if group != "rules":
        return venue.get(group)
    return {
        name: each for name, each in venue.items() if name not in (*GROUPS, "in_force", "earlier")
    }


def list_sources(venue: Mapping[str, Any], days: Sequence[str], of: str = "") -> Block:
    preset = str((venue.get("in_force") or {}).get("preset", ""))
    if not preset:
        return Paragraph(
            "The rules are not from a preset: they were given with the run, without dates and "
            "sources."
        )
    if venue["in_force"].get("like"):
        return Paragraph(f"The rules: {name_rules(Venue.from_dict(venue))}.")
    if preset not in {each.name for each in preset_files.available()}:
        return Paragraph(f"The rules come from {preset}; its file has their dates and sources.")
    name, symbol, _ = preset_files.parse_name(preset)
    since = venue["in_force"].get("since") or None
    presets = {at: core.to_plain(Venue.preset(name, symbol, at).to_dict()) for at in (None, since)}
    kept = {at: [g for g in GROUPS if read_group(venue, g) == read_group(own, g)]
            for at, own in presets.items()}  # fmt: skip
    at = max(kept, key=lambda each: len(kept[each]))
    found = [each for each in preset_files.origins(name, symbol, at) if each.group != "brackets"]
    for day in days or (at,):
        found += [each for each in preset_files.origins(name, symbol, day)
                  if each.group == "brackets"]  # fmt: skip
    rows = tuple(
        (GROUPS.get(each.group, each.group), each.date,
         each.source + "; this run changes them" * (each.group in GROUPS
                                                    and each.group not in kept[at]))
        for each in found
    )  # fmt: skip
    columns = tuple(Column(each, is_number=False) for each in ("rules", "as of", "source"))
    note = "Figures without a source are assumptions, marked as such."
    return Table(f"Sources of the rules{of}", columns, rows, note)


def describe_rest(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    settings = find_settings(manifest)
    yield "id", str(manifest["id"])
    for name, policy in (settings.get("policies") or {}).items():
        yield f"policy {name}", name_policy(policy)
    told = (*NOT_SETTINGS, *(TOLD if "causality" in manifest else ()))
    yield from flatten({k: v for k, v in settings.items() if k not in told})
    if manifest.get("pool"):
        yield "accounts", f"one in each market; measures are their {manifest['pool']}"
    versions = manifest.get("versions", {})
    yield "versions", ", ".join(f"{name} {value}" for name, value in versions.items())


def name_policy(policy: Any) -> str:
    return str(policy.get("text", policy.get("name"))) if isinstance(policy, Mapping) else policy


def flatten(settings: Mapping[str, Any], of: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        title = f"{of} {name}".strip().replace("_", " ")
        if name in ("policy", "overlay") and isinstance(value, Mapping):
            yield title, name_policy(value)
            if "source_hash" in value:
                yield f"{title} source hash", str(value["source_hash"])
        elif isinstance(value, Mapping):
            yield from flatten(value, "" if name == "arguments" else title)
        elif isinstance(value, list):
            if value and not isinstance(value[0], Mapping | list):
                yield title, ", ".join(map(core.format_setting, value))
        elif value not in (None, ""):
            yield title, core.format_setting(value)


def describe_paths(paths: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    from backtest.risk import describe_drift, summarize_funding  # noqa: PLC0415 - loads models

    model = paths["model"]
    yield "model", str(model["name"])
    for name, own in model["instruments"].items():
        words = (f"{key.replace('_', ' ')} "
                 f"{f'{value:.4g}' if isinstance(value, float) else core.format_setting(value)}"
                 for key, value in own.items() if key not in ("name", "class"))  # fmt: skip
        yield f"parameters of {name}", ", ".join(words)
    yield "paths", f"{paths['paths']:,} of {core.format_duration(paths['horizon'])}"
    if "drift" in paths:
        yield "drift", describe_drift(paths)
    yield "start", f"{paths['start']} UTC"
    yield "seed", str(paths["seed"])
    for line in summarize_funding(paths.get("funding_fit", {})):
        name, _, text = line.partition(": ")
        yield name, text
    if paths.get("correlation"):
        rows = "; ".join(", ".join(f"{x:.3f}" for x in row) for row in paths["correlation"])
        yield "correlation of instruments", rows


def list_data(data: Mapping[str, Any]) -> Iterator[Block]:
    if not data["bars"]:
        yield Paragraph("No market: the result is computed from what was given.", "note")
        return
    yield build_pairs("Data", describe_data(data))
    instruments = data.get("instruments") or {}
    if all(isinstance(each, Mapping) for each in instruments.values()):
        for name, each in instruments.items():
            yield build_pairs(f"Data of {name}", describe_data({"instrument": name, **each}))
    else:
        columns = Column("instrument", is_number=False), Column("content hash", is_number=False)
        yield Table("Instruments", columns, tuple(instruments.items()))


def describe_filled(notes: Mapping[str, str]) -> str:
    return "; ".join(f"{name.replace('_', ' ')}, {how}" for name, how in notes.items())


def describe_data(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "instrument", str(data.get("instrument") or "unnamed")
    made_up = ", SYNTHETIC: these prices are made up" if data.get("synthetic") else ""
    yield "source", f"{data.get('source', 'unknown')}{made_up}"
    slow = ""
    if "decision_interval" in data:
        slow = f", policies decide every {data['decision_interval']}"
    interval = f" of {data['interval']}" if data.get("interval") else ""
    yield "time", f"{page.format_span(data)}, {data['bars']:,} bars{interval}{slow}"
    if "filled" in data:
        filled, chosen = map(describe_filled, split_notes(data["filled"]))
        yield "filled in", filled or "nothing: the data had no gaps"
        yield from [("data choices", chosen)] if chosen else []
    if "liquidations_tested_on" in data:
        yield "liquidations tested on", str(data["liquidations_tested_on"])
    if "funding_events" in data:
        count = data["funding_events"]
        yield "funding", f"{count:,} settlements" if count else "no rates: none is charged"
    if "content_hash" in data:
        yield "content hash", str(data["content_hash"])
