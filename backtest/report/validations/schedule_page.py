"""The report page of schedules: the accounts, and the differences with their intervals."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from backtest.base.number_text import format_percent
from backtest.report.basis.assumptions import build_assumptions
from backtest.report.basis.data_and_command import Background
from backtest.report.compare_page import STYLES
from backtest.report.page.figures import LIGHT, PERCENTS, build_chart, build_layout, draw_points
from backtest.report.page.page import (
    Block,
    Chart,
    Paragraph,
    Section,
    Table,
    name_columns,
)
from backtest.report.page.report_numbers import format_measure
from backtest.report.validations.validation_charts import draw_units
from backtest.validation.progress_folder import name_result

if TYPE_CHECKING:
    from backtest.base.units import FloatArray
    from backtest.validation.schedules import Schedules


def build_schedule_sections(found: Schedules, background: Background) -> list[Section]:
    """Return the sections of the report."""
    chart = draw_gaps(found)
    nothing = Paragraph("No difference could be measured: see the table for why.", "note")
    gaps: list[Block] = [nothing if chart is None else chart, tabulate_schedules(found)]
    return [
        Section("differences", "What differs by more than noise",
                f"Log growth per year of each schedule less that of {found.baseline}.", gaps),
        Section("accounts", "The accounts", "One unit of money under each schedule, over the same "
                "bars.", [draw_schedules(found)]),
        *build_assumptions(dict(found.manifest), [name_result(found.manifest)],
                           (describe_test(found),), background),
    ]  # fmt: skip


def describe_test(found: Schedules) -> str:
    """Describe how the intervals were computed."""
    facts = found.manifest
    return (
        f"Intervals of {facts['confidence']:.0%}: stationary bootstrap of {facts['draws']:,} "
        f"histories, seed {facts['seed']}, all accounts drawn together. Decisions allow for the "
        "number of schedules (Holm)."
    )


def draw_gaps(found: Schedules) -> Chart | None:
    """Draw the differences from the baseline with their intervals; None without any."""
    rows = found.table[np.isfinite(found.table["low"]) & np.isfinite(found.table["high"])]
    if not len(rows):
        return None
    value, low, high = (rows[name].to_numpy(dtype=np.float64)
                        for name in ("difference", "low", "high"))  # fmt: skip
    error = {"type": "data", "symmetric": False, "array": high - value, "arrayminus": value - low,
             "thickness": 1.2, "width": 4, "color": LIGHT["neutral"]}  # fmt: skip
    trace = draw_points(value, list(map(str, rows.index)), "difference", error_x=error,
                        hovertemplate="%{y}: %{x:.1%}<extra></extra>")  # fmt: skip
    trace["marker"]["color"] = [
        LIGHT["accent" if each else "neutral"] for each in rows["distinguishable"]
    ]
    layout = build_layout(110 + 34 * len(rows))
    layout["yaxis"] = {"autorange": "reversed", "type": "category", "showgrid": False}
    layout["xaxis"] = {"zeroline": True, "zerolinecolor": LIGHT["ink"], "nticks": 6,
                       "tickformat": PERCENTS,
                       "title": {"text": "log growth per year"}}  # fmt: skip
    title = f"Growth less that of {found.baseline}"
    caption = "Blue where it is more than noise, gray where it is not."
    return build_chart("gaps", title, caption, [trace], layout)


def tabulate_schedules(found: Schedules) -> Table:
    """Return a row per schedule, the fastest growth first."""
    order = found.table.sort_values("log_growth", ascending=False, kind="stable")
    columns = name_columns(
        "schedule", "folds", ("log growth", "per year"), "Sharpe", "max drawdown", "fees",
        "overfitting", "difference", "low", "high", "p, corrected", "more than noise",
        text=("more than noise",),
    )  # fmt: skip
    rows = tuple(
        (
            str(row["schedule"]),
            f"{row['folds']:,}",
            format_growth(float(row["log_growth"])),
            format_measure("sharpe", float(row["sharpe"])),
            format_measure("max_drawdown", float(row["max_drawdown"])),
            format_measure("fees", float(row["fees"])),
            "n/a" if math.isnan(row["pbo"]) else f"{row['pbo']:.2f}",
            *(format_growth(float(row[name])) for name in ("difference", "low", "high")),
            "n/a" if math.isnan(row["p_holm"]) else f"{row['p_holm']:.3f}",
            ("yes" if row["distinguishable"] else "no")
            + ("" if row["basis"] == "test" else f", {row['basis']}"),
        )
        for row in order.reset_index().to_dict("records")
    )
    return Table("Schedules", columns, rows, describe_test(found))


def format_growth(value: float) -> str:
    """Return a growth rate; after ruin it is minus infinity."""
    if math.isnan(value):
        return "n/a"
    return format_percent(value) if math.isfinite(value) else ("below" if value < 0 else "above")


def draw_schedules(found: Schedules) -> Chart:
    """Draw the unit value under each schedule."""
    closes = pd.DatetimeIndex(found.returns.index).as_unit("ns").asi8
    names = [found.baseline, *(name for name in found.returns if name != found.baseline)]
    units: dict[str, FloatArray] = {}
    for name in names:
        growth = 1.0 + found.returns[name].to_numpy(dtype=np.float64)
        units[str(name)] = np.cumprod(growth).astype(np.float64)
    styles = [STYLES[k % len(STYLES)] for k in range(len(units))]
    return draw_units(closes, units, styles)
