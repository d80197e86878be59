"""Every venue preset with its figures and their sources, from the files of presets."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from docs.ext.markdown import escape, write_table


def list_pages() -> dict[str, str]:
    from backtest.venue import preset_files

    presets = sorted(preset_files.available(), key=lambda preset: preset.venue)
    pages = {}
    for venue, of_venue in groupby(presets, key=lambda preset: preset.venue):
        pages[f"venues/{venue}"] = write_venue(venue, list(of_venue))
    pages["venues/margin-rules"] = write_margins()

    rows = []
    for group in preset_files.group_alike(presets):
        first = group[0]
        link = f"[`{first.venue}`](venues/{first.venue}.md)"
        rows.append([link, list_symbols(group), ", ".join(first.dates)])

    table = write_table(["venue", "symbols", "days of their margin tables"], rows)
    rules = "[Margin rules of whole accounts](venues/margin-rules.md)."
    pages["venues"] = f"# Venue presets\n\n{table}\n{rules}\n"
    return pages


def list_symbols(presets: list[Any]) -> str:
    return ", ".join(f"`{preset.symbol}`" for preset in presets)


def write_venue(venue: str, presets: list[Any]) -> str:
    from backtest.venue import preset_files

    parts = [f"# {venue}\n"]
    for group in preset_files.group_alike(presets):
        first = group[0]
        title = first.title if len(group) == 1 else f"{len(group)} symbols"
        tables = f"Margin tables: {', '.join(first.dates)}."
        parts.append(f"## {title}\n\n{list_symbols(group)}\n\n{tables}\n")

        origins = preset_files.origins(first.venue, first.symbol, preset_files.LATEST)
        rows = [[origin.group, str(origin.date), escape(origin.source)] for origin in origins]
        parts.append(write_table(["figures", "date", "source"], rows))
    return "\n".join(parts)


def write_margins() -> str:
    from backtest.margin import list_presets

    parts = ["# Margin rules of whole accounts\n\nPresets of `bt.margin_preset`.\n"]
    for each in list_presets():
        rows = [[f["status"], escape(f["figure"]), escape(f["source"])] for f in each.figures]
        parts.append(
            f"## {each.name}\n\n{escape(each.title)}, tables of {', '.join(each.dates)}.\n\n"
            f"Exact: {escape(each.exact)}\n\nLeft out: {escape(each.leaves_out)}\n\n"
            + write_table(["status", "figure", "source"], rows)
        )
    return "\n".join(parts)
