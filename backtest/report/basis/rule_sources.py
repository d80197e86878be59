"""The dates and sources of the rules of a venue, and what a run changed in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from backtest.base import format_setting, to_plain
from backtest.engine import read_tables_in_use
from backtest.report.page.page import Block, Paragraph, Table, name_columns
from backtest.venue import Venue, preset_files

GROUPS = {
    "contract": "contract",
    "brackets": "margin table",
    "fees": "fees",
    "slippage": "slippage",
    "liquidation": "liquidation",
    "rules": "other rules",
}
ASIDE = ("in_force", "earlier")
COLUMNS = name_columns("rules", "as of", "source", text=["as of", "source"])
NO_PRESET = (
    "The rules are not from a preset: they were given with the run, without dates and sources."
)


class Chosen(NamedTuple):
    name: preset_files.PresetName
    changes: Mapping[str, list[str]]


def list_sources(manifest: Mapping[str, Any], suffix: str = "") -> Block:
    venue = manifest["venue"]
    preset = str((venue.get("in_force") or {}).get("preset", ""))
    if not preset:
        return Paragraph(NO_PRESET)
    if preset not in {each.name for each in preset_files.available()}:
        return Paragraph(f"The rules are those of {preset}; its file has their dates and sources.")
    rows = list_group_sources(choose_tables(preset, venue), list_table_dates(manifest))
    note = "Figures without a source are assumptions, marked as such."
    return Table(f"Sources of the rules{suffix}", COLUMNS, tuple(rows), note)


def list_table_dates(manifest: Mapping[str, Any]) -> list[str]:
    tables = read_tables_in_use(manifest, Venue.from_dict(manifest["venue"]))
    return [each.since for each in tables if each.since is not None]


def list_group_sources(chosen: Chosen, days: list[str]) -> Iterator[tuple[str, str, str]]:
    venue, symbol, at = chosen.name
    origins = {each.group: each for each in preset_files.origins(venue, symbol, at)}
    for group, words in GROUPS.items():
        changed = "; ".join(chosen.changes.get(group, ()))
        found = [origins[group]] if group in origins else []
        if group == "brackets" and days:
            of_days = [preset_files.origins(venue, symbol, day) for day in days]
            found = [each for several in of_days for each in several if each.group == group]
        for each in found:
            yield words, each.date, each.source
        if changed or not found:
            yield words, "this run", changed or "not in the preset: the default"


def choose_tables(preset: str, venue: Mapping[str, Any]) -> Chosen:
    since = str(venue["in_force"].get("since", ""))
    days = dict.fromkeys(("", f"@{preset_files.LATEST}", f"@{since}" if since else ""))
    names = [preset_files.parse_name(preset + day) for day in days]
    found = [Chosen(name, find_changes(name, venue)) for name in names]
    return min(found, key=lambda each: sum(map(len, each.changes.values())))


def find_changes(name: preset_files.PresetName, venue: Mapping[str, Any]) -> dict[str, list[str]]:
    before = to_plain(Venue.preset(*name).to_dict())
    changes: dict[str, list[str]] = {}
    for key in dict.fromkeys((*before, *venue)):
        was, now = before.get(key), venue.get(key)
        if key in ASIDE or was == now:
            continue
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            names = dict.fromkeys((*was, *now))
            changes[key] = [
                describe_change(each, was.get(each), now.get(each))
                for each in names
                if was.get(each) != now.get(each)
            ]
        elif key in GROUPS:
            changes[key] = [f"{len(now or ())} rows of this run's own"]
        else:
            text = describe_change(key.replace("_", " "), was, now)
            changes.setdefault("rules", []).append(text)
    return changes


def describe_change(name: str, was: Any, now: Any) -> str:
    is_plain = isinstance(now, list) or (isinstance(now, Mapping) and "value" not in now)
    text = f"{name} of this run's own" if is_plain else f"{name} {format_setting(now)}"
    return text if was is None else f"{text} instead of {format_setting(was)}"
