"""Report pages of risk: liquidation, largest leverage, stress, bounds, and sensitivity."""

from __future__ import annotations

from typing import Any, TypeAlias

import pandas as pd

from backtest.base.number_text import format_chance
from backtest.base.table_text import COLUMN_FORMATS
from backtest.base.text_layout import capitalize
from backtest.base.units import format_time
from backtest.paths import LiquidationRisk, MaxLeverage
from backtest.paths.path_model import describe_drift
from backtest.report.liquidation_page import build_liquidation
from backtest.report.page.figures import LIGHT, build_chart, build_layout, draw_line
from backtest.report.page.page import Chart, Fact, Page, Paragraph, Section, Table
from backtest.report.risk_blocks import (
    describe_source,
    list_assumptions,
    list_notices,
    to_records,
    write_table,
)
from backtest.scenarios import Bounds, Sensitivity, Stress
from backtest.scenarios.stress import describe_lost

Risk: TypeAlias = LiquidationRisk | MaxLeverage | Stress | Bounds | Sensitivity
RISKS = (LiquidationRisk, MaxLeverage, Stress, Bounds, Sensitivity)


def build_risk_page(source: Risk) -> Page:
    """Return the page of a risk, a largest leverage, a stress test, bounds, or a sensitivity."""
    if isinstance(source, LiquidationRisk):
        return build_liquidation(source)
    if isinstance(source, MaxLeverage):
        return build_largest(source)
    if isinstance(source, Stress):
        return build_stress(source)
    if isinstance(source, Sensitivity):
        return build_sensitivity(source)
    return build_bounds(source)


# ---------------------------------------------------------------------- leverage, stress, bounds


def build_largest(found: MaxLeverage) -> Page:
    """Return the page of a largest leverage."""
    manifest = describe_source(found)
    label = str(found.grid.index.name)
    chance = found.settings["probability"]
    drawn = next(iter(found.settings["paths"].values()))
    traces = [
        draw_line(
            list(found.grid.index), found.grid[name].to_numpy(), str(name), color, showlegend=True
        )
        for name, color in zip(found.grid, ("accent", "loss", "ink", "neutral") * 9, strict=False)
    ]
    chart = build_chart(
        "grid", "Probability by size", "On the first 2,000 paths of each model.", traces,
        build_layout(320),
    )  # fmt: skip
    return Page(
        kind="largest leverage",
        manifest=manifest,
        title=f"Largest {label} at {format_chance(chance)} in {found.settings['horizon']}",
        notices=list_notices(manifest),
        summary="The smallest over the models is the one to use: they differ in what they assume. "
        f"Their paths have {describe_drift(drawn)}.",
        facts=[Fact(f"largest {label}", f"{found.leverage:.3g}", "worst model")],
        write_sections=lambda: [
            Section("models", "By model", "", [tabulate_models(found, label), chart]),
            *list_assumptions(found),
        ],
        collect=lambda: {"table": to_records(found.table), "settings": found.manifest["settings"]},
    )


def tabulate_models(found: MaxLeverage, label: str) -> Table:
    """Return the largest leverage, or factor, by model, with the probability at it."""
    heads = {"leverage": label, "p_liquidation": "liquidation", "p_liquidation_low": "95 % from",
             "p_liquidation_high": "95 % to", "is_monotone": "rises with size throughout",
             "is_limited": "the largest allowed"}  # fmt: skip
    chances = {heads[name]: format_chance for name in heads if name.startswith("p_")}
    return write_table("", found.table.rename(columns=heads), formats=chances)


def build_stress(found: Stress) -> Page:
    """Return the page of a stress test."""
    manifest = describe_source(found)
    dead = int(found.table["liquidated"].sum())
    total = len(found.table)
    lost = [f"{capitalize(describe_lost(found.lost))}."] if found.lost else []
    blocks: list[Any] = [write_table("Scenarios", found.table)]
    if found.leads:
        blocks += [Paragraph(f"{capitalize(found.leads)}.", "note")]
    if found.ladder is not None:
        blocks += [draw_ladder(found.ladder)]
    sources = [
        f"{each['name']}: {each['source']}."
        for each in found.settings["scenarios"]
        if each.get("source")
    ]
    return Page(
        kind="stress test",
        manifest=manifest,
        title=f"Stress test: {found.settings['policy']}",
        notices=list_notices(manifest),
        summary=" ".join(lost) or f"{dead} of {total} scenarios liquidate the account.",
        facts=[] if lost else [Fact("scenarios that liquidate", f"{dead} of {total}")],
        write_sections=lambda: [
            Section("scenarios", "Scenarios", "From the last close of the run on.", blocks),
            Section("sources", "Sources", "", [Paragraph(each, "note") for each in sources]),
        ],
        collect=lambda: {"table": to_records(found.table), "settings": found.manifest["settings"]},
    )


def draw_ladder(ladder: pd.DataFrame) -> Chart:
    """Return the loss of a ladder: a line for one axis, a heat map of the first two otherwise."""
    names = list(ladder.index.names)
    caption = f"Loss of one-bar shocks, by {' and '.join(str(name) for name in names[:2])}."
    if len(names) == 1:
        x = [float(value) for value in ladder.index.get_level_values(0)]
        trace = draw_line(x, ladder["loss"].to_numpy(), "loss", "loss")
        return build_chart("ladder", "Ladder", caption, [trace], build_layout(300))
    grid = ladder["loss"].groupby(level=[0, 1]).mean().unstack(1)
    heat = {
        "type": "heatmap",
        "x": [f"{x:.3g}" for x in grid.index],
        "y": [f"{y:.3g}" for y in grid.columns],
        "z": grid.to_numpy().T.tolist(),
        "colorscale": [[0.0, LIGHT["paper"]], [1.0, LIGHT["loss"]]],
    }
    layout = build_layout(340)
    layout["yaxis"] = {**layout.get("yaxis", {}), "type": "category", "title": {"text": names[1]}}
    layout["xaxis"] = {**layout.get("xaxis", {}), "type": "category", "title": {"text": names[0]}}
    return build_chart("ladder", "Ladder", caption, [heat], layout)


def build_bounds(found: Bounds) -> Page:
    """Return the page of bounds."""
    manifest = describe_source(found)
    bars = found.bars.rename(index=lambda time: format_time(time.value))
    row = found.table.loc["final_equity"]
    span = f"{row['worst']:,.2f} to {row['best']:,.2f}"
    return Page(
        kind="bounds",
        manifest=manifest,
        title=f"Order inside bars: {found.settings['policy']}",
        notices=list_notices(manifest),
        summary=f"{found.verdict} {found.limits}".rstrip(),
        facts=[
            Fact("ambiguous bars", f"{len(found.bars):,}", f"of {found.n_bars:,}"),
            Fact("final equity", span, f"{row['as_run']:,.2f} as run"),
        ],
        write_sections=lambda: [
            Section("metrics", "Metrics", "In every order that the bars allow.",
                    [write_table("", found.table)]),
            Section("bars", "Ambiguous bars", "Of the run as it is.",
                    [write_table("", bars.head(200)) if len(bars)
                     else Paragraph("There are none.")]),
        ],
        collect=lambda: {
            "table": to_records(found.table), "verdict": found.verdict, "limits": found.limits,
        },
    )  # fmt: skip


def build_sensitivity(found: Sensitivity) -> Page:
    """Return the page of a sensitivity."""
    manifest = describe_source(found)
    frame = found.table.reset_index()
    frame.index = pd.Index(frame.pop("factor"), name="factor")
    return Page(
        kind="sensitivity",
        manifest=manifest,
        title=f"Sensitivity: {found.settings['policy']}",
        notices=list_notices(manifest),
        summary="One assumption is changed at a time; the others stay as they are.",
        facts=[Fact("growth as run", f"{100 * found.base:.2f} %", "per year")],
        write_sections=lambda: [
            Section("factors", "By factor", "Steps are multiples, or shifts.",
                    [draw_tornado(found), write_table("", frame, formats=COLUMN_FORMATS)])
        ],
        collect=lambda: {"table": to_records(frame), "settings": found.manifest["settings"]},
    )  # fmt: skip


def draw_tornado(found: Sensitivity) -> Chart:
    """Return the change of growth by factor and step as bars, the widest on top."""
    change = 100.0 * found.table["change_of_growth"].fillna(0.0)
    order = change.abs().groupby(level=0).max().sort_values().index
    traces = [
        {
            "type": "bar", "orientation": "h",
            "y": [str(name) for name in order],
            "x": [float(change.loc[name].iloc[-k]) for name in order],
            "marker": {"color": LIGHT[color]}, "showlegend": False,
        }
        for k, color in enumerate(("accent", "loss"))
    ]  # fmt: skip
    layout = build_layout(90 + 34 * len(order), barmode="overlay")
    caption = "Change of growth, % a year, for the lowest step (blue) and the highest."
    return build_chart("tornado", "Tornado", caption, traces, layout)
