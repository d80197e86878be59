"""The report page of a comparison: accounts over time, and differences beyond noise."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtest.base.number_text import format_percent
from backtest.base.result_folders import name_folder
from backtest.base.text_layout import capitalize
from backtest.compare.comparison_text import describe_coverage, explain_break_even
from backtest.report.basis.assumptions import build_assumptions
from backtest.report.basis.data_and_command import Background
from backtest.report.page.axis_scale import choose_scale, drop_dust
from backtest.report.page.figures import (
    LIGHT,
    PERCENTS,
    build_chart,
    build_layout,
    draw_line,
    draw_points,
    escape_label,
    stack_panels,
    to_datetimes,
)
from backtest.report.page.page import (
    Block,
    Chart,
    Paragraph,
    Section,
    Table,
    name_columns,
)
from backtest.report.page.report_numbers import format_measure, name_measure
from backtest.report.page.thinning import thin_rows

if TYPE_CHECKING:
    from backtest.base.units import FloatArray
    from backtest.compare import Comparison

STYLES = tuple((color, dash) for dash in ("solid", "dash", "dot")
               for color in ("accent", "loss", "ink", "neutral"))  # fmt: skip
"""Color and dash of each account's line, the baseline's first; they repeat after twelve."""
MEASURED = (
    "cagr", "volatility", "sharpe", "max_drawdown", "es_95", "mean_leverage", "liquidations",
    "fees_annual", "funding_annual",
)  # fmt: skip
DIFFERENCES = ("log_growth", "sharpe", "volatility", "es_95")
SHARES = ("log_growth", "volatility", "es_95")
"""Measures whose differences are fractions."""


def build_comparison_sections(comparison: Comparison, background: Background) -> list[Section]:
    """Return the sections of the report."""
    return [
        Section("accounts", "The accounts", "One unit of money in each, over the same time.",
                [draw_accounts(comparison), tabulate_accounts(comparison)]),
        build_differences(comparison),
        *list_break_even(comparison),
        *build_assumptions(merge_policies(comparison),
                           [name_folder("compare", comparison.manifest["id"])],
                           (describe_test(comparison),), background),
    ]  # fmt: skip


def list_others(comparison: Comparison) -> list[str]:
    """Return the policies without the baseline."""
    return [name for name in comparison.names if name != comparison.baseline]


def merge_policies(comparison: Comparison) -> dict[str, Any]:
    """Return the manifest with all policies described as one."""
    policies = comparison.manifest["policies"]
    texts = "; ".join(
        f"{name}: {', '.join(filter(None, (each['text'], each.get('terms'))))}"
        for name, each in policies.items()
    )
    hashes = ", ".join(sorted({str(each["source_hash"]) for each in policies.values()}))
    return {**comparison.manifest, "policy": {"name": "", "text": texts, "source_hash": hashes}}


def name_compared(measure: str) -> str:
    """Return the name of a compared measure."""
    return "log growth per year" if measure == "log_growth" else name_measure(measure)


def describe_test(comparison: Comparison) -> str:
    """Describe how the intervals were computed."""
    return (
        f"Intervals: stationary bootstrap of {comparison.draws:,} histories, seed "
        f"{comparison.seed}; all accounts are drawn together. Decisions allow for the number of "
        f"comparisons of a measure (Holm). {capitalize(describe_coverage(comparison))}."
    )


# --------------------------------------------------------------------------------------- accounts


def draw_accounts(comparison: Comparison) -> Chart:
    """Draw all accounts in one panel, with their drawdowns below."""
    closes = pd.DatetimeIndex(comparison.returns.index).as_unit("ns").asi8
    span = (int(closes[0]), int(closes[-1]))
    panels = stack_panels(("One unit of money", "Drawdown"), (2, 1), 0.09, span)
    layout = build_layout(560, showlegend=True, **panels)
    growth = {name: compound_returns(comparison, name) for name in comparison.names}
    everything = np.concatenate([drop_dust(each) for each in growth.values()])
    traces = []
    names = [comparison.baseline, *list_others(comparison)]
    for place, name in enumerate(names):
        color, dash = STYLES[place % len(STYLES)]
        style = {"width": 1.5, "dash": dash}
        unit = growth[name]
        fall: FloatArray = unit / np.maximum.accumulate(np.maximum(unit, 1.0)) - 1.0
        rows = thin_rows(closes, unit, fall)
        shared = {"line": style, "legendgroup": str(place)}
        x, label = to_datetimes(closes[rows]), escape_label(name)
        traces += [
            draw_line(x, drop_dust(unit)[rows], label, color, **shared, showlegend=True,
                      hovertemplate="%{y:.3f}"),
            draw_line(x, fall[rows], label, color, **shared, yaxis="y2",
                      hovertemplate="%{y:.1%}"),
        ]  # fmt: skip
    choose_scale(layout, everything)
    layout["yaxis2"] |= {"tickformat": PERCENTS, "nticks": 4}
    layout["margin"]["t"] = 60
    layout["legend"] = {"y": 1.06, "traceorder": "normal"}
    caption = "The unit value of each account, free of deposits, and its fall from its own peak."
    return build_chart("accounts", "The accounts over time", caption, traces, layout)


def compound_returns(comparison: Comparison, name: str) -> FloatArray:
    """Return the unit value of an account at the end of each period."""
    returns = comparison.returns[name].to_numpy(dtype=np.float64)
    unit: FloatArray = np.cumprod(1.0 + returns).astype(np.float64)
    return unit


def tabulate_accounts(comparison: Comparison) -> Table:
    """Return the measures of each account, the highest growth first."""
    names = [name for name in MEASURED if name in comparison.table]
    columns = name_columns("policy", *map(name_measure, names))
    rows = tuple(
        (policy, *(format_measure(name, float(comparison.table[name][policy])) for name in names))
        for policy in comparison.order
    )
    return Table("Measures", columns, rows, "The highest log growth first, ruined accounts last.")


# ------------------------------------------------------------------------------------ differences


def build_differences(comparison: Comparison) -> Section:
    """Return the section on differences from the baseline."""
    lead = f"Each account less {comparison.baseline}; intervals hold {comparison.confidence:.0%}."
    table = comparison.differences
    charts = [
        draw_differences(measure, rows)
        for measure in DIFFERENCES
        if len(rows := table[(table["measure"] == measure) & np.isfinite(table["difference"])])
    ]
    blocks: list[Block] = [*charts, tabulate_differences(comparison)]
    if not charts:
        blocks.insert(
            0, Paragraph("No difference could be measured: see the table for why.", "note")
        )
    return Section("differences", "What differs by more than noise", lead, blocks)


def draw_differences(measure: str, rows: pd.DataFrame) -> Chart:
    """Draw the differences of a measure with their intervals."""
    value, low, high = (
        rows[each].to_numpy(dtype=np.float64) for each in ("difference", "low", "high")
    )
    error = {"type": "data", "symmetric": False, "array": high - value, "arrayminus": value - low,
             "thickness": 1.2, "width": 4, "color": LIGHT["neutral"]}  # fmt: skip
    trace = draw_points(value, list(map(escape_label, rows["policy"])), measure, error_x=error,
                        hovertemplate="%{y}: %{x:.4g}<extra></extra>")  # fmt: skip
    clear = rows["distinguishable"]
    trace["marker"]["color"] = [LIGHT["accent" if each else "neutral"] for each in clear]
    layout = build_layout(110 + 34 * len(rows))
    layout["yaxis"] = {"autorange": "reversed", "type": "category", "showgrid": False}
    layout["xaxis"] = {
        "zeroline": True, "zerolinecolor": LIGHT["ink"], "nticks": 6, "rangemode": "tozero",
        "tickformat": PERCENTS if measure in SHARES else "", "title": {"text": "difference"},
    }  # fmt: skip
    caption = "Blue where it is more than noise, gray where it is not."
    heading = f"Difference of {name_compared(measure)}"
    return build_chart(f"difference-{measure}", heading, caption, [trace], layout, "half")


def tabulate_differences(comparison: Comparison) -> Table:
    """Return all differences as a table."""
    columns = name_columns(
        "policy", "measure", "difference", "low", "high", "p, corrected", "more than noise",
        text=("measure", "more than noise"),
    )  # fmt: skip
    rows = tuple(
        (
            str(row["policy"]),
            name_compared(row["measure"]),
            *(format_gap(row["measure"], row[each]) for each in ("difference", "low", "high")),
            "n/a" if math.isnan(row["p_holm"]) else f"{row['p_holm']:.3f}",
            describe_decision(row),
        )
        for row in comparison.differences.to_dict("records")
    )
    return Table("Differences", columns, rows, describe_test(comparison))


def list_break_even(comparison: Comparison) -> list[Section]:
    """Return the section on break-even costs; none if they were not asked for."""
    turns = comparison.break_even
    if turns.empty:
        return []
    columns = name_columns(
        "policy", "against", "cost", ("gap", "log growth per year"), ("added", "bp to both"),
        ("searched", "bp"), "what happens", text=("against", "cost", "what happens"),
    )  # fmt: skip
    rows = tuple(
        (
            row["policy"], row["against"], row["cost"], format_percent(row["gap"]),
            "none" if math.isnan(row["added"]) else f"{1e4 * row['added']:+.4g}",
            f"{1e4 * row['low']:+.4g} to {1e4 * row['high']:+.4g}", explain_break_even(row),
        )
        for row in turns.to_dict("records")
    )  # fmt: skip
    note = (
        "Every step runs both accounts again. A fee is added to the taker and the maker rate, "
        "funding to the rate of each settlement. Rows show the reversal nearest to actual costs."
    )
    lead = "The cost that, added to both accounts, reverses their order by log growth."
    table = Table("Break-even costs", columns, rows, note)
    return [Section("break-even", "When the order reverses", lead, [table])]


def describe_decision(row: Mapping[Hashable, Any]) -> str:
    """Return whether a difference exceeds noise, with the reason if it was not tested."""
    word = "yes" if row["distinguishable"] else "no"
    return word if row["basis"] == "test" else f"{word}, {row['basis']}"


def format_gap(measure: str, value: float) -> str:
    """Format a difference; an infinite one is ``above`` or ``below``."""
    if math.isinf(value):
        return "above" if value > 0.0 else "below"
    if math.isnan(value):
        return "n/a"
    return format_percent(value) if measure in SHARES else f"{value:+.2f}"
