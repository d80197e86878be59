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
from backtest.results.manifest import phrase_source
from backtest.venue import Venue, preset_files

NOT_SETTINGS = (
    "id",
    "kind",
    "data",
    "outcome",
    "indices",
    "content",
    "title",
    "note",
    "versions",
    "venue",
    "account",
    "policies",
    "paths",
    "margin_tables",
    "parameters",
    "settings",
    "held",
)
"""What a manifest has that is no setting, or has a table of its own."""
OF_RUN = (
    "causality",
    "compiled",
    "signal",
    "overlay",
    "sampling",
    "calendar",
)
"""Settings of a run that its own table says."""
APART = ("brackets", "changed_from", "earlier", "in_force")
"""Fields of a venue that are not listed with the others."""
MAX_BRACKETS = 20
BRACKET_COLUMNS = (
    Column("notional", "money", is_number=False),
    Column("maximum leverage", "x"),
    Column("maintenance", "%"),
    Column("deduction", "money"),
)
NOT_MODELED = (
    "Not modeled: the order book, queue position and partial fills at several prices; latency; "
    "exchange outages, auto-deleveraging and insurance-fund rules; taxes; and what the account's "
    "own trades would have done to later prices."
)


def build_basis(result: Any, command: str, origin: Origin) -> list[Section]:
    """Return the sections on assumptions and data; ``command`` writes the report again."""
    manifest = result.manifest
    if "data" not in manifest:
        assumptions = Section(
            key="assumptions",
            title="Assumptions",
            lead="What the figures rest on.",
            blocks=[Paragraph(text) for text in result.list_assumptions()],
        )
        return [assumptions]

    blocks: list[Block] = []
    if "account" in find_settings(manifest):
        blocks.append(Paragraph(NOT_MODELED))
    blocks += [Paragraph(text) for text in result.list_assumptions()]
    blocks += list_terms(manifest)
    blocks += list_rules(manifest)
    blocks += list_paths(manifest)
    blocks.append(build_pairs("Settings", describe_rest(manifest)))
    blocks += list_commands(command, origin)
    return [
        Section(
            key="assumptions",
            title="Assumptions",
            lead="What was modeled, the rules and their sources, and how to reproduce the result.",
            blocks=blocks,
        ),
        Section(
            key="data",
            title="Data",
            lead="Source and filled values.",
            blocks=[*list_data(manifest["data"])],
        ),
    ]


def list_commands(command: str, origin: Origin) -> Iterator[Block]:
    """Yield the commands that reproduce the result and write its report, and what limits them."""
    if not command:  # of what is not saved
        return
    source = "after result.save()"
    if origin.command:
        source = "from the saved result"
        yield Code("Command that reproduces the result", origin.command)
    for remark in origin.remarks:
        yield Paragraph(f"The result: {remark}.", "note")
    yield Code(f"Command that writes this report {source}", command)


def find_settings(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    settings: Mapping[str, Any] = manifest.get("settings") or manifest
    return settings


# Venues and accounts.


def list_terms(manifest: Mapping[str, Any], *, verbose: bool = True) -> list[Table]:
    """Return venues and account as the fields of their models that are not at their defaults.

    Before them, of sets of parameters, what those hold that the sets do not vary.
    What was checked and found right is left out unless ``verbose``.
    """
    settings = find_settings(manifest)
    terms = []
    if "causality" in manifest:
        terms.append(build_pairs("Run", describe_run(manifest, verbose)))
    held = settings.get("held") or find_held(settings)
    if held:
        pairs = ((name, core.format_setting(value)) for name, value in held.items())
        terms.append(build_pairs("Held", pairs))

    for of, rules in list_venues(manifest).items():
        terms.append(build_pairs(f"Venue{of}", describe_venue(manifest, rules)))
    for of, account in list_accounts(settings).items():
        terms.append(build_pairs(f"Account{of}", describe_account(account)))
    return terms


def list_accounts(settings: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the accounts by " of NAME"; the one of most results has no name."""
    account = settings.get("account") or {}
    is_named = all(isinstance(value, Mapping) for value in account.values())
    if is_named:
        return {f" of {name}": terms for name, terms in account.items()}
    return {"": account}


def describe_run(manifest: Mapping[str, Any], verbose: bool) -> Iterator[tuple[str, str]]:
    """Yield how a run was made: what it followed, when it decided, and what was checked."""
    data = manifest["data"]
    signal, _, _ = str(manifest.get("signal", "")).partition(" sha256")
    if not is_plain_signal(signal, data):
        title = "weights" if "instruments" in data else "signal"
        yield title, signal
    if manifest.get("overlay"):
        yield "overlay", name_policy(manifest["overlay"])
    if "decision_interval" in data:
        yield "decides", f"every {data['decision_interval']}"
    yield "returns", f"per {manifest['sampling']}, {manifest['calendar']} days a year"

    checks = [*dict.fromkeys(str(manifest["causality"]).split("; "))]
    unsound = [check for check in checks if not is_sound(check)]
    if verbose:
        yield "checked", f"the books balance at every bar; causality: {'; '.join(checks)}"
    elif unsound:
        yield "causality", "; ".join(unsound)
    compiled = str(manifest.get("compiled", "yes"))
    if compiled != "yes":
        yield "in plain Python", compiled


def is_plain_signal(signal: str, data: Mapping[str, Any]) -> bool:
    """Return whether a signal is what a run has unless another one is given."""
    if signal in ("", "constant 1"):
        return True
    is_single = len(data.get("instruments") or {}) < 2
    return signal == "equal weights" and is_single


def is_sound(causality: str) -> bool:
    """Return whether all columns were checked for looking ahead, at enough places."""
    if "not checked" in causality:
        return False
    n_cuts = re.findall(r"at (\d+) cuts?\b", causality)
    return all(int(n) >= ENOUGH for n in n_cuts)


def list_venues(manifest: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the rules of venues by " of NAMES"; instruments with the same rules are joined."""
    names_of: dict[str, list[str]] = {}
    rules_of: dict[str, Mapping[str, Any]] = {}
    for name, rules in walk_venues("", find_settings(manifest).get("venue") or {}):
        key = repr(rules)
        names_of.setdefault(key, []).append(name)
        rules_of.setdefault(key, rules)

    venues = {}
    for key, rules in rules_of.items():
        of = ""
        if any(names_of[key]) and len(rules_of) > 1:
            of = f" of {core.clip(', '.join(names_of[key]), 120)}"
        venues[of] = rules
    return venues


def walk_venues(owner: str, tree: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the rules of each venue in a tree of settings, with the names that lead to it."""
    if "contract" in tree:
        yield owner, tree
        return

    for name, branch in tree.items():
        if not isinstance(branch, Mapping):
            continue
        path = owner
        if name != "venue":
            path = f"{owner} {name}".strip()
        yield from walk_venues(path, branch)


def describe_venue(manifest: Mapping[str, Any], rules: Any) -> Iterator[tuple[str, str]]:
    """Yield the source of a venue's rules, its margin tables, and the fields that were changed."""
    venue = Venue.from_dict(rules)
    unknown = venue.contract.unknown
    yield "rules", name_rules(venue)
    if unknown:
        yield "unknown", f"{', '.join(unknown)}: no source gives them"
    for table in find_tables(manifest, venue):
        brackets = core.count_nouns(len(table.brackets), "bracket")
        if table.since is not None:
            brackets = f"{brackets} of {table.since}"
        yield "margin", f"{brackets} up to {table.brackets[0].max_leverage:g}x"

    unknown_fields = [f"contract.{field}" for field in unknown]
    apart = (*APART, *unknown_fields)
    for name, text in core.list_changed(venue):
        if not name.startswith(apart):
            yield name, text


def name_rules(venue: Venue) -> str:
    """Return where the rules come from; for a listing, which ones, and the preset of the others."""
    source = venue.in_force
    if source is None and venue.changed_from is not None:
        return f"a margin table of your own; all others of {venue.changed_from.preset}"
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
    """Return the margin tables that were in force; none where the result has no dates."""
    has_dates = "margin_tables" in manifest or manifest["data"].get("start")
    if not has_dates:
        return []
    return read_tables_in_use(manifest, venue)


DEFAULTS = core.to_plain(Account().to_dict())


def describe_account(account: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the fields of an account that were changed, and its capital and margin."""
    for name, value in account.items():
        if name not in ("capital", "margin") and value == DEFAULTS.get(name):
            continue
        if value == "inf":
            yield name, "no limit"
        else:
            yield name, core.format_setting(value)


# The rules, with their sources.


def list_rules(manifest: Mapping[str, Any]) -> Iterator[Block]:
    for of, rules in list_venues(manifest).items():
        tables = find_tables(manifest, Venue.from_dict(rules))
        days = [table.since for table in tables if table.since is not None]
        yield list_sources(rules, days, of)
        for table in tables:
            yield tabulate_brackets(table, of)


def tabulate_brackets(table: Any, of: str) -> Table:
    caption = f"Margin brackets{of}"
    if table.since is not None:
        caption = f"{caption}, table of {table.since}"
    rows = tuple(write_bracket(bracket) for bracket in table.brackets[:MAX_BRACKETS])

    note = ""
    n_left = len(table.brackets) - len(rows)
    if n_left:
        note = f"And {n_left:,} more."
    return Table(caption, BRACKET_COLUMNS, rows, note)


def write_bracket(bracket: Any) -> tuple[str, ...]:
    cap = "any" if math.isinf(bracket.cap) else f"{bracket.cap:,.10g}"
    return (
        f"{bracket.floor:,.10g} to {cap}",
        f"{bracket.max_leverage:g}",
        f"{100.0 * bracket.maintenance_rate:g}",
        f"{bracket.amount or 0.0:,.10g}",
    )


GROUPS = {
    "contract": "contract",
    "brackets": "margin table",
    "fees": "fees",
    "slippage": "slippage",
    "liquidation": "liquidation",
    "rules": "other rules",
}
"""Groups of rules of a venue, and what a page calls them."""
NO_PRESET = (
    "The rules are not from a preset: they were given with the run, without dates and sources."
)


def read_group(venue: Mapping[str, Any], group: str) -> Any:
    """Return the rules of a venue in one of its groups."""
    if group != "rules":
        return venue.get(group)
    others = (*GROUPS, "changed_from", "in_force", "earlier")
    return {name: value for name, value in venue.items() if name not in others}


def list_sources(venue: Mapping[str, Any], days: Sequence[str], of: str = "") -> Block:
    """Return the sources of a preset's rules, and which of them the run changes."""
    preset = str((venue.get("in_force") or {}).get("preset", ""))
    if not preset and not venue.get("changed_from"):
        return Paragraph(NO_PRESET)
    if not preset or venue["in_force"].get("like"):
        return Paragraph(f"The rules: {name_rules(Venue.from_dict(venue))}.")
    if preset not in {file.name for file in preset_files.available()}:
        return Paragraph(f"The rules come from {preset}; its file has their dates and sources.")

    name, symbol, _ = preset_files.parse_name(preset)
    day, unchanged = find_preset_day(venue, name, symbol)

    # The rules but the margin tables are those of one day; of tables several may be in force.
    of_day = preset_files.origins(name, symbol, day)
    origins = [origin for origin in of_day if origin.group != "brackets"]
    for table_day in days or (day,):
        of_table = preset_files.origins(name, symbol, table_day)
        origins += [origin for origin in of_table if origin.group == "brackets"]

    rows = []
    for origin in origins:
        source = origin.source
        if origin.group in GROUPS and origin.group not in unchanged:
            source = f"{source}; this run changes them"
        rows.append((GROUPS.get(origin.group, origin.group), origin.date, source))
    return Table(
        caption=f"Sources of the rules{of}",
        columns=tuple(Column(title, is_number=False) for title in ("rules", "as of", "source")),
        rows=tuple(rows),
        note="Figures without a source are assumptions, marked as such.",
    )


def find_preset_day(
    venue: Mapping[str, Any],
    name: str,
    symbol: str,
) -> tuple[str | None, list[str]]:
    """Return the day of the preset that fits a venue best, and the groups of rules that are its.

    None is the latest day.
    """
    since = venue["in_force"].get("since") or None
    unchanged: dict[str | None, list[str]] = {}
    for day in (None, since):
        preset = core.to_plain(Venue.preset(name, symbol, day).to_dict())
        unchanged[day] = []
        for group in GROUPS:
            if read_group(venue, group) == read_group(preset, group):
                unchanged[day].append(group)
    best = max(unchanged, key=lambda day: len(unchanged[day]))
    return best, unchanged[best]


# The other settings.


def describe_rest(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the settings of a manifest that no other part of the page shows, and its versions."""
    settings = find_settings(manifest)
    yield "id", str(manifest["id"])
    for name, policy in (settings.get("policies") or {}).items():
        yield f"policy {name}", name_policy(policy)

    left_out: tuple[str, ...] = NOT_SETTINGS
    if "causality" in manifest:
        left_out = (*NOT_SETTINGS, *OF_RUN)
    others = {name: value for name, value in settings.items() if name not in left_out}
    yield from flatten(others)

    if manifest.get("pool"):
        yield "accounts", f"one in each market; measures are their {manifest['pool']}"
    versions = manifest.get("versions", {})
    yield "versions", ", ".join(f"{name} {version}" for name, version in versions.items())


def name_policy(policy: Any) -> str:
    if isinstance(policy, Mapping):
        return str(policy.get("text", policy.get("name")))
    return str(policy)


def flatten(settings: Mapping[str, Any], of: str = "") -> Iterator[tuple[str, str]]:
    """Yield the names and texts of settings, those of tables with the name of the table before."""
    for name, value in settings.items():
        title = f"{of} {name}".strip().replace("_", " ")

        if name in ("policy", "overlay") and isinstance(value, Mapping):
            yield title, name_policy(value)
            if "source_hash" in value:
                yield f"{title} source hash", str(value["source_hash"])
        elif isinstance(value, Mapping) and name == "arguments":  # they need no name before theirs
            yield from flatten(value)
        elif isinstance(value, Mapping):
            yield from flatten(value, title)
        elif isinstance(value, list):
            if value and not isinstance(value[0], Mapping | list):
                yield title, ", ".join(map(core.format_setting, value))
        elif value not in (None, ""):
            yield title, core.format_setting(value)


def list_paths(manifest: Mapping[str, Any]) -> Iterator[Block]:
    """Yield a table for each model of paths that the result was drawn from."""
    paths = find_settings(manifest).get("paths") or {}
    if "model" in paths:
        yield build_pairs("Paths", describe_paths(paths))
        return
    for name, model_paths in paths.items():
        yield build_pairs(f"Paths of {name}", describe_paths(model_paths))


def describe_paths(paths: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the model of paths, its parameters, and how many were drawn."""
    from backtest.risk import describe_drift, summarize_funding  # noqa: PLC0415 - loads models

    model = paths["model"]
    yield "model", str(model["name"])
    for name, parameters in model["instruments"].items():
        yield f"parameters of {name}", write_model_parameters(parameters)
    yield "paths", f"{paths['paths']:,} of {core.format_duration(paths['horizon'])}"
    if "drift" in paths:
        yield "drift", describe_drift(paths)
    yield "start", f"{paths['start']} UTC"
    yield "seed", str(paths["seed"])

    for line in summarize_funding(paths.get("funding_fit", {})):
        name, _, text = line.partition(": ")
        yield name, text

    correlation = paths.get("correlation")
    if correlation:
        rows = [write_correlations(row) for row in correlation]
        yield "correlation of instruments", "; ".join(rows)


def write_correlations(row: Sequence[float]) -> str:
    return ", ".join(f"{value:z.3f}" for value in row)


def write_model_parameters(parameters: Mapping[str, Any]) -> str:
    clauses = []
    for key, value in parameters.items():
        if key in ("name", "class"):
            continue
        text = core.format_setting(value)
        if isinstance(value, float):
            text = f"{value:.4g}"
        clauses.append(f"{key.replace('_', ' ')} {text}")

    return ", ".join(clauses)


# Data.


def list_data(data: Mapping[str, Any]) -> Iterator[Block]:
    """Yield what is known of the bars, and of those of each instrument, or of these the hashes."""
    if not data["bars"]:
        yield Paragraph("No market: the result is computed from what was given.", "note")
        return

    yield build_pairs("Data", describe_data(data))
    instruments = data.get("instruments") or {}
    if all(isinstance(facts, Mapping) for facts in instruments.values()):
        for name, facts in instruments.items():
            yield build_pairs(f"Data of {name}", describe_data({"instrument": name, **facts}))
        return

    columns = (Column("instrument", is_number=False), Column("content hash", is_number=False))
    yield Table("Instruments", columns, tuple(instruments.items()))


def describe_filled(notes: Mapping[str, str]) -> str:
    return "; ".join(f"{name.replace('_', ' ')}, {how}" for name, how in notes.items())


def describe_data(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what a manifest says of the bars of a result."""
    yield "instrument", str(data.get("instrument") or "unnamed")
    source = phrase_source(data) or "unknown"
    if data.get("synthetic"):
        source = f"{source}, SYNTHETIC: these prices are made up"
    yield "source", source

    bars = f"{data['bars']:,} bars"
    if data.get("interval"):
        bars = f"{bars} of {data['interval']}"
    if "decision_interval" in data:
        bars = f"{bars}, policies decide every {data['decision_interval']}"
    yield "time", f"{page.format_span(data)}, {bars}"

    if "filled" in data:
        filled, chosen = map(describe_filled, split_notes(data["filled"]))
        yield "filled in", filled or "nothing: the data had no gaps"
        if chosen:
            yield "data choices", chosen
    if "liquidations_tested_on" in data:
        yield "liquidations tested on", str(data["liquidations_tested_on"])
    if "funding_events" in data:
        count = data["funding_events"]
        text = "no rates: none is charged"
        if count:
            text = f"{count:,} settlements"
        yield "funding", text
    if "content_hash" in data:
        yield "content hash", str(data["content_hash"])
