"""Report pages of risk: liquidation, largest leverage, stress, bounds, and sensitivity."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import pandas as pd

from backtest.base.json_values import from_plain
from backtest.base.number_text import format_chance
from backtest.base.table_text import COLUMN_FORMATS, YEARLY, format_cell
from backtest.base.units import format_time
from backtest.paths import LiquidationRisk, MaxLeverage
from backtest.paths.risk_record import RiskRecord
from backtest.report.page.figures import LIGHT, build_chart, build_layout, draw_line, to_datetimes
from backtest.report.page.page import (
    SYNTHETIC,
    Chart,
    Fact,
    Page,
    Paragraph,
    Section,
    Table,
    name_columns,
)
from backtest.scenarios import Bounds, Sensitivity, Stress

Risk: TypeAlias = LiquidationRisk | MaxLeverage | Stress | Bounds | Sensitivity
DATES = {"showgrid": False, "type": "date"}
"""An axis of time."""
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


def describe_source(found: RiskRecord) -> dict[str, Any]:
    """Return what a page needs of a manifest: settings, the id, and the data."""
    data = dict(found.manifest["data"])
    return {**found.settings, "id": found.manifest["id"],
            "data": {**data, "interval": data["interval"] or "unknown"}}  # fmt: skip


def list_notices(manifest: Mapping[str, Any]) -> list[str]:
    """Return what must be read before any number."""
    no_fill = manifest.get("no_fill")
    found = [f"No order was filled on any path: {no_fill}."] if no_fill else []
    found += [f"The account did not hold what was found, {each}." for each in
              manifest.get("cautions", ())]  # fmt: skip
    return [*found, SYNTHETIC] if manifest["data"]["synthetic"] else found


def write_number(value: float) -> str:
    """Return a number in four digits, and without decimals from 1,000 on."""
    return f"{value:,.0f}" if abs(value) >= 1000.0 else f"{value:.4g}"


def write_table(
    caption: str,
    frame: pd.DataFrame,
    note: str = "",
    formats: Mapping[str, Callable[[float], str]] = MappingProxyType({}),
) -> Table:
    """Return a frame as a table of the page; ``formats`` are those of columns by name.

    The heads of ``YEARLY`` have a unit.
    """
    names = [str(name).replace("_", " ") for name in frame.columns]
    head = str(frame.index.name or "").replace("_", " ")
    words = {
        name for name, column in zip(names, frame, strict=True) if frame[column].dtype == object
    }
    writers = [formats.get(str(name), write_number) for name in frame.columns]
    rows = tuple(
        (str(label), *(format_cell(*each) for each in zip(row, writers, strict=True)))
        for label, row in zip(frame.index, frame.itertuples(index=False), strict=True)
    )
    heads = [
        (name, "per year") if column in YEARLY else name
        for name, column in zip(names, frame, strict=True)
    ]
    return Table(caption, name_columns(head, *heads, text=words), rows, note)


# ---------------------------------------------------------------------------- liquidation risk


def build_liquidation(risk: LiquidationRisk) -> Page:
    """Return the page of a liquidation risk."""
    manifest = describe_source(risk)
    facts = [
        Fact(f"liquidated within {name}", format_chance(row["p_liquidation"]),
             f"{format_chance(row['p_liquidation_low'])} to "
             f"{format_chance(row['p_liquidation_high'])}, {row['method']}")
        for name, row in risk.table.iterrows()
    ]  # fmt: skip
    model = risk.settings["paths"]["model"]["name"]
    return Page(
        kind="risk",
        manifest=manifest,
        title=f"Risk of liquidation: {risk.settings['policy']}",
        notices=list_notices(manifest),
        summary=f"{risk.settings['paths']['paths']:,} paths of the model {model}.",
        facts=facts,
        write_sections=lambda: list_risk_sections(risk),
        collect=lambda: {"table": to_records(risk.table), "settings": risk.manifest["settings"]},
    )


def list_risk_sections(risk: LiquidationRisk) -> list[Section]:
    """Return the sections of a liquidation risk."""
    columns = [str(name) for name in risk.table]
    ends = [name for name in columns if name.endswith(("_low", "_high"))]
    columns = [name for name in columns if name not in ends]
    level = f"{risk.settings['confidence']:.0%} intervals"
    blocks: list[Any] = [draw_fan(risk)]
    if risk.typical is not None:
        blocks.append(draw_typical(risk.typical))
    return [
        Section("horizons", "By horizon", "From the last close of history on.", [
            write_table("Probabilities, wealth and time", risk.table[columns]),
            write_table(level, risk.table[ends]),
        ]),
        Section("paths", "What happens on the way", "Wealth by time, over the paths.", blocks),
        Section("hazard", "Hazard by day", "First liquidations, of those not liquidated before.", [
            draw_hazard(risk.hazard), write_table("By day", risk.hazard.head(60)),
        ]),
    ]  # fmt: skip


def draw_fan(risk: LiquidationRisk) -> Chart:
    """Return the quantiles of wealth by time."""
    fan, closes = risk.fan, list_times(risk.fan)
    traces = [
        draw_line(closes, fan[name].to_numpy(), str(name).replace("equity_", "") + " %",
                  "accent" if name == "equity_50" else "neutral")
        for name in fan
    ]  # fmt: skip
    return build_chart(
        "fan", "Wealth", "Quantiles of 5, 25, 50, 75 and 95 % at each close.", traces,
        build_layout(320, xaxis=DATES),
    )  # fmt: skip


def list_times(frame: pd.DataFrame) -> Any:
    """Return the times of a frame as an axis takes them."""
    return to_datetimes(pd.DatetimeIndex(frame.index).as_unit("ns").asi8)


def draw_typical(typical: pd.DataFrame) -> Chart:
    """Return the mean path given a liquidation."""
    trace = draw_line(list_times(typical), typical["price"].to_numpy(), "price", "loss")
    caption = "Mean price, over the last close, of the paths that are liquidated."
    return build_chart(
        "typical",
        "The typical path to liquidation",
        caption,
        [trace],
        build_layout(260, xaxis=DATES),
    )


def draw_hazard(hazard: pd.DataFrame) -> Chart:
    """Return the hazard by day as bars."""
    bars = {
        "type": "bar", "x": list(hazard.index), "y": list(hazard["hazard"]),
        "marker": {"color": LIGHT["loss"]}, "showlegend": False,
    }  # fmt: skip
    caption = "Share of the accounts not liquidated before that is liquidated in each day."
    return build_chart("hazard", "Hazard", caption, [bars], build_layout(240))


def to_records(frame: pd.DataFrame) -> Any:
    """Return a frame as data for JSON."""
    return from_plain(frame.reset_index().to_dict("records"))


# ---------------------------------------------------------------------- leverage, stress, bounds


def build_largest(found: MaxLeverage) -> Page:
    """Return the page of a largest leverage."""
    manifest = describe_source(found)
    label = str(found.grid.index.name)
    chance = found.settings["probability"]
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
        summary="The smallest over the models is the one to use: they differ in what they assume.",
        facts=[Fact(f"largest {label}", f"{found.leverage:.3g}", "worst model")],
        write_sections=lambda: [
            Section("models", "By model", "", [write_table("", found.table), chart])
        ],
        collect=lambda: {"table": to_records(found.table), "settings": found.manifest["settings"]},
    )


def build_stress(found: Stress) -> Page:
    """Return the page of a stress test."""
    manifest = describe_source(found)
    dead = int(found.table["liquidated"].sum())
    total = len(found.table)
    blocks: list[Any] = [write_table("Scenarios", found.table)]
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
        summary=f"{dead} of {total} scenarios liquidate the account.",
        facts=[Fact("scenarios that liquidate", f"{dead} of {total}")],
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
        summary=found.verdict,
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
        collect=lambda: {"table": to_records(found.table), "verdict": found.verdict},
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
