"""Every venue preset with its figures and their sources, from the files of presets."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from docs.ext.markdown import escape, write_table


def list_pages() -> dict[str, str]:
    from backtest.venue import preset_files

    found = sorted(preset_files.available(), key=lambda each: each.venue)
    pages = {
        f"venues/{venue}": write_venue(venue, list(presets))
        for venue, presets in groupby(found, key=lambda each: each.venue)
    }
    pages["venues/margin-rules"] = write_margins()
    alike = [
        [
            f"[`{group[0].venue}`](venues/{group[0].venue}.md)",
            ", ".join(f"`{each.symbol}`" for each in group),
            *days,
        ]
        for group in preset_files.group_alike(found)
        for days in [[", ".join(group[0].dates)]]
    ]
    table = write_table(["venue", "symbols", "days of their margin tables"], alike)
    rules = "[Margin rules of whole accounts](venues/margin-rules.md)."
    return pages | {"venues": f"# Venue presets\n\n{table}\n{rules}\n"}


def write_venue(venue: str, presets: list[Any]) -> str:
    from backtest.venue import preset_files

    parts = [f"# {venue}\n"]
    for group in preset_files.group_alike(presets):
        first = group[0]
        symbols = ", ".join(f"`{each.symbol}`" for each in group)
        title = first.title if len(group) == 1 else f"{len(group)} symbols"
        parts.append(f"## {title}\n\n{symbols}\n\nMargin tables: {', '.join(first.dates)}.\n")
        rows = [
            [each.group, str(each.date), escape(each.source)]
            for each in preset_files.origins(first.venue, first.symbol, preset_files.LATEST)
        ]
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
