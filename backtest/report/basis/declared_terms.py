"""Sections on the data and the assumptions of a result, from the settings in its manifest."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backtest.base import format_duration, format_money, format_setting
from backtest.report.basis.assumptions import (
    build_assumptions,
    build_pair_table,
    describe_data,
    describe_settings,
    describe_venue,
    format_manifest,
    list_commands,
)
from backtest.report.basis.data_quality import Background, write_quality
from backtest.report.page.page import Block, Code, Paragraph, Section, Table
from backtest.risk import describe_drift, summarize_funding

NOT_SETTINGS = ("id", "kind", "data", "outcome", "indices", "content", "title", "note", "versions")
OF_ACCOUNT = ("policy", "overlay", "signal", "resumed", "start", "account")


def build_basis(
    manifest: Mapping[str, Any], folder: str, sentences: Sequence[str], background: Background
) -> tuple[Section, Section]:
    if "sampling" in manifest:
        return build_assumptions(manifest, [folder], tuple(sentences), background)
    settings = manifest.get("settings") or {
        name: value for name, value in manifest.items() if name not in NOT_SETTINGS
    }
    blocks: list[Block] = [
        *(Paragraph(each) for each in sentences),
        *list_terms(settings),
        build_pair_table("Provenance", describe_origin(manifest)),
        *list_commands(shlex.join(("backtest", "report", folder)), background),
        Code("Manifest", format_manifest(manifest), is_folded=True),
    ]
    lead = "How the numbers were made, and the rules of the account."
    return (
        Section("data", "Data", "What the result is computed from.",
                [*list_data(manifest["data"], background)]),
        Section("assumptions", "Assumptions", lead, blocks),
    )  # fmt: skip


def list_data(data: Mapping[str, Any], background: Background) -> Iterator[Block]:
    if not data["bars"]:
        yield Paragraph("No market: the result is computed from what was given.", "note")
        return
    shown = {**data, "interval": data["interval"] or "unknown"}
    yield build_pair_table("Data", describe_data(shown))
    yield from write_quality(background.examined)


def list_terms(settings: Mapping[str, Any]) -> Iterator[Table]:
    drawn = settings.get("paths") or {}
    for name, paths in ({"": drawn} if "model" in drawn else drawn).items():
        yield build_pair_table(f"Paths{f' of {name}' if name else ''}", describe_paths(paths))
    known = ("paths", "venue", *OF_ACCOUNT)
    for owner, rules in list_venues("", settings.get("venue") or {}):
        title = f"Venue rules{f', {owner}' if owner else ''}"
        yield build_pair_table(title, describe_venue(rules))
    yield build_pair_table("Account", describe_account(settings))
    rest = {name: value for name, value in settings.items() if name not in known}
    yield build_pair_table("Settings", describe_rest(rest))


def list_venues(owner: str, found: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if "contract" in found:
        yield owner, found
        return
    for name, value in found.items():
        if isinstance(value, Mapping):
            yield from list_venues(owner if name == "venue" else f"{owner} {name}".strip(), value)


def describe_rest(settings: Mapping[str, Any], of: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        title = f"{of} {name}".strip().replace("_", " ")
        if isinstance(value, Mapping):
            yield from describe_rest(value, "" if name == "arguments" else title)
        elif isinstance(value, list):
            if value and not isinstance(value[0], Mapping | list):
                yield title, ", ".join(map(format_setting, value))
        elif value not in (None, ""):
            yield title, format_setting(value)


def describe_origin(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "id", str(manifest["id"])
    versions = manifest.get("versions", {})
    yield "versions", ", ".join(f"{name} {value}" for name, value in versions.items())


def describe_paths(paths: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    model = paths["model"]
    yield "model", str(model["name"])
    of_each = model.get("instruments", {"": model})
    for name, own in of_each.items():
        words = (f"{key.replace('_', ' ')} {write_parameter(value)}"
                 for key, value in own.items() if key not in ("name", "class"))  # fmt: skip
        yield f"parameters{f' of {name}' if name else ''}", ", ".join(words)
    yield "paths", f"{paths['paths']:,} of {format_duration(paths['horizon'])}"
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


def write_parameter(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else format_setting(value)


def describe_account(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    policy = settings.get("policy")
    if policy is not None:
        yield "policy", str(policy.get("text") if isinstance(policy, Mapping) else policy)
    if settings.get("overlay"):
        yield "overlay", str(settings["overlay"])
    if "signal" in settings:
        default = "as in the result" if settings.get("resumed") else "long"
        yield "signal", default if settings["signal"] is None else str(settings["signal"])
    if "resumed" in settings:
        begins = settings["resumed"]
        yield "begins", f"where result {begins} ended" if begins else "new, without a position"
    if "start" in settings:
        yield "money at the start", format_money(settings["start"])
    yield from describe_settings(settings.get("account", {}))
