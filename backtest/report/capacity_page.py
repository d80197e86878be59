"""The report page of a capacity."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from backtest.base.table_text import COLUMN_FORMATS
from backtest.report.page.figures import LIGHT, build_chart, build_layout, draw_line
from backtest.report.page.page import Chart, Fact, Page, Section
from backtest.report.risk_blocks import describe_source, list_notices, to_records, write_table
from backtest.scenarios.capacity import Capacity, show_money

FORMATS = {**COLUMN_FORMATS, "final_equity": "{:.3f}x".format}


def build_capacity(found: Capacity) -> Page:
    """Return the page of a capacity."""
    manifest = describe_source(found)
    first = found.table.iloc[0]
    base = show_money(float(found.table.index[0]))
    table = found.table.rename(index=lambda capital: f"{capital:,.0f}")
    return Page(
        kind="capacity",
        manifest=manifest,
        title=f"Capacity: {found.settings['policy']}",
        notices=list_notices(manifest),
        summary="One run for each capital; only the costs of size and the limits on it differ.",
        facts=[
            Fact("growth halves at", show_money(found.half_growth)),
            Fact("Sharpe ratio halves at", show_money(found.half_sharpe)),
            Fact("growth", f"{100 * first['growth']:.2f} %", f"per year, at {base}"),
            Fact("Sharpe ratio", f"{first['sharpe']:.2f}", f"at {base}"),
        ],
        write_sections=lambda: [
            Section("capitals", "By capital", "The line is at half of the smallest capital's.", [
                draw_by_capital(found, "growth", "Growth", "% a year", found.half_growth, 100.0),
                draw_by_capital(found, "sharpe", "Sharpe ratio", "", found.half_sharpe, 1.0),
                write_table("", table.rename_axis("capital"), formats=FORMATS),
            ])
        ],
        collect=lambda: {"table": to_records(found.table), "settings": found.manifest["settings"]},
    )  # fmt: skip


def draw_by_capital(
    found: Capacity, name: str, title: str, unit: str, half: float, scale: float
) -> Chart:
    """Return a measure by capital on a logarithmic axis, with the capital at which it is half."""
    values: pd.Series = scale * found.table[name]
    capitals = [float(each) for each in found.table.index]
    dot = {"color": LIGHT["neutral"], "width": 1.2, "dash": "dot"}
    level = 0.5 * float(values.iloc[0])
    traces: list[dict[str, Any]] = [
        draw_line(capitals, values.to_numpy(), title, mode="lines+markers")
    ]
    if not math.isnan(half):
        traces += [
            draw_line([capitals[0], half, half], [level, level, float(values.min())], "half",
                      "neutral", line=dot)
        ]  # fmt: skip
    axis = {"type": "log", "title": {"text": "capital"}}
    dotted = "" if math.isnan(half) else f"; dotted: half of it, at {show_money(half)}"
    caption = f"{title}{', ' + unit if unit else ''}{dotted}."
    return build_chart(f"capacity-{name}", title, caption, traces, build_layout(300, xaxis=axis))
