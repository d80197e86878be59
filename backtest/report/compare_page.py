"""The report page of a comparison: accounts over time, and differences beyond noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtest.base.number_text import format_percent
from backtest.base.result_folders import name_folder
from backtest.base.text_layout import capitalize, clip
from backtest.compare.comparison_text import COVERAGE
from backtest.report.basis.assumptions import build_assumptions
from backtest.report.basis.data_and_command import NOTHING, Background
from backtest.report.page.axis_scale import choose_scale, drop_dust
from backtest.report.page.figures import LIGHT, chart, dots, frame, line, plain, stack, stamps
from backtest.report.page.page import (
    Block,
    Chart,
    Column,
    Fact,
    Facts,
    Page,
    Section,
    Table,
    Text,
    describe_span,
)
from backtest.report.page.report_numbers import format_measure, list_rows, title
from backtest.report.page.thinning import thin

if TYPE_CHECKING:
    from backtest.base.units import FloatArray
    from backtest.compare import Comparison

STYLES = tuple((colour, dash) for dash in ("solid", "dash", "dot")
               for colour in ("accent", "loss", "ink", "neutral"))  # fmt: skip
"""Colour and dash of each account's line, the baseline's first; they repeat after twelve."""
MEASURED = (
    "cagr", "volatility", "sharpe", "max_drawdown", "es_95", "mean_leverage", "liquidations",
    "fees_annual", "funding_annual",
)  # fmt: skip
DIFFERENCES = ("log_growth", "sharpe", "volatility", "es_95")
SHARES = ("log_growth", "volatility", "es_95")
"""Measures whose differences are fractions."""


def build_comparison(comparison: Comparison, background: Background = NOTHING) -> Page:
    """Return the report of a comparison."""
    return Page(
        kind="comparison",
        title=clip(f"{comparison.baseline} against {', '.join(list_others(comparison))}", 200),
        subtitle=describe_span(comparison.manifest["data"]),
        identity=str(comparison.manifest["id"]),
        notices=list_notices(comparison),
        summary=summarize(comparison),
        facts=headline(comparison),
        write_sections=lambda: write_sections(comparison, background),
        collect=comparison.to_dict,
    )


def write_sections(comparison: Comparison, background: Background) -> list[Section]:
    """Return the sections of the report."""
    return [
        Section("accounts", "The accounts", "One unit of money in each, over the same time.",
                [draw_accounts(comparison), tabulate_accounts(comparison)]),
        build_differences(comparison),
        *build_assumptions(read_manifest(comparison), write_command(comparison),
                          (describe_test(comparison),), background),
    ]  # fmt: skip


def list_others(comparison: Comparison) -> list[str]:
    """Return the policies beside the baseline."""
    return [name for name in comparison.names if name != comparison.baseline]


def write_command(comparison: Comparison) -> str:
    """Return the line that makes the report again."""
    return f"backtest report {name_folder('compare', comparison.manifest['id'])}"


def read_manifest(comparison: Comparison) -> dict[str, Any]:
    """Return the manifest with one policy's place for all of them."""
    policies = comparison.manifest["policies"]
    texts = "; ".join(f"{name}: {each['text']}" for name, each in policies.items())
    hashes = ", ".join(sorted({str(each["source_hash"]) for each in policies.values()}))
    return {**comparison.manifest, "policy": {"name": "", "text": texts, "source_hash": hashes}}


def list_notices(comparison: Comparison) -> list[str]:
    """Return what must be read before any number."""
    notices = []
    if comparison.manifest["data"]["synthetic"]:
        notices.append("Synthetic data: these prices are made up.")
    for name in comparison.ruined:
        day = comparison.table["ruin_time"][name]
        notices.append(f"{name} was ruined after {day:,.1f} days: no trade since.")
    if comparison.is_equal_risk:
        notices.append("At equal risk: positions were scaled by factors known only afterwards, to "
                       "compare and not to trade.")  # fmt: skip
    return [*notices, *comparison.warnings]


def summarize(comparison: Comparison) -> str:
    """Return which differences are more than noise."""
    table = comparison.differences
    clear = table[table["distinguishable"]]
    parts = []
    for measure in DIFFERENCES:
        rows = clear[clear["measure"] == measure]
        if len(rows):
            words = (
                f"{row['policy']} ({'higher' if row['difference'] > 0.0 else 'lower'})"
                for row in list_rows(rows)
            )
            parts.append(f"{label(measure)}: {', '.join(words)}")
    known = capitalize("; ".join(parts))
    start = f"Against {comparison.baseline}, with {comparison.confidence:.0%} confidence, "
    return start + (f"these differ by more than noise. {known}." if known else "nothing differs by "
                    "more than noise.")  # fmt: skip


def label(measure: str) -> str:
    """Return the name of what is compared."""
    return "log growth per year" if measure == "log_growth" else title(measure)


def headline(comparison: Comparison) -> Facts:
    """Return the CAGR and the Sharpe ratio of each account, the highest growth first."""
    table = comparison.table
    return Facts(
        tuple(
            Fact(clip(name, 60), format_measure("cagr", float(table["cagr"][name])),
                 f"per year; Sharpe {format_measure('sharpe', float(table['sharpe'][name]))}")
            for name in comparison.order[:8]
        )
    )  # fmt: skip


def describe_test(comparison: Comparison) -> str:
    """Return how the intervals were made."""
    return (
        f"Intervals: stationary bootstrap of {comparison.draws:,} histories, seed "
        f"{comparison.seed}; all accounts are drawn together. Decisions allow for the number of "
        f"comparisons of a measure (Holm). {capitalize(COVERAGE)}."
    )


# --------------------------------------------------------------------------------------- accounts


def draw_accounts(comparison: Comparison) -> Chart:
    """Return the accounts over each other, with their drawdowns."""
    closes = pd.DatetimeIndex(comparison.returns.index).as_unit("ns").asi8
    span = (int(closes[0]), int(closes[-1]))
    panels = stack(("One unit of money", "Drawdown"), (2, 1), 0.09, span)
    layout = frame(560, showlegend=True, **panels)
    growth = {name: grow(comparison, name) for name in comparison.names}
    everything = np.concatenate([drop_dust(each) for each in growth.values()])
    traces = []
    names = [comparison.baseline, *list_others(comparison)]
    for place, name in enumerate(names):
        colour, dash = STYLES[place % len(STYLES)]
        style = {"width": 1.5, "dash": dash}
        unit = growth[name]
        fall: FloatArray = unit / np.maximum.accumulate(np.maximum(unit, 1.0)) - 1.0
        rows = thin(closes, unit, fall)
        shared = {"line": style, "legendgroup": str(place)}
        x = stamps(closes[rows])
        traces += [
            line(x, drop_dust(unit)[rows], plain(name), colour, **shared, showlegend=True,
                 hovertemplate="%{y:.3f}"),
            line(x, fall[rows], plain(name), colour, **shared, yaxis="y2",
                 hovertemplate="%{y:.1%}"),
        ]  # fmt: skip
    choose_scale(layout, everything)
    layout["yaxis2"] |= {"tickformat": ".0%", "nticks": 4}
    layout["margin"]["t"] = 60
    layout["legend"] = {"y": 1.06, "traceorder": "normal"}
    caption = "The unit value of each account, free of deposits, and its fall from its own peak."
    return chart("accounts", "The accounts over time", caption, traces, layout)


def grow(comparison: Comparison, name: str) -> FloatArray:
    """Return the unit value of an account at the end of each period."""
    returns = comparison.returns[name].to_numpy(dtype=np.float64)
    unit: FloatArray = np.cumprod(1.0 + returns).astype(np.float64)
    return unit


def tabulate_accounts(comparison: Comparison) -> Table:
    """Return the measures of each account, the highest growth first."""
    names = [name for name in MEASURED if name in comparison.table]
    columns = (Column("policy", is_number=False), *(Column(title(name)) for name in names))
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
        blocks.insert(0, Text("No difference could be measured: see the table for why.", "note"))
    return Section("differences", "What differs by more than noise", lead, blocks)


def draw_differences(measure: str, rows: pd.DataFrame) -> Chart:
    """Return the differences of a measure with their intervals."""
    value, low, high = (
        rows[each].to_numpy(dtype=np.float64) for each in ("difference", "low", "high")
    )
    error = {"type": "data", "symmetric": False, "array": high - value, "arrayminus": value - low,
             "thickness": 1.2, "width": 4, "color": LIGHT["neutral"]}  # fmt: skip
    trace = dots(value, [plain(name) for name in rows["policy"]], measure, error_x=error,
                 hovertemplate="%{y}: %{x:.4g}<extra></extra>")  # fmt: skip
    clear = rows["distinguishable"]
    trace["marker"]["color"] = [LIGHT["accent" if each else "neutral"] for each in clear]
    layout = frame(110 + 34 * len(rows))
    layout["yaxis"] = {"autorange": "reversed", "type": "category", "showgrid": False}
    layout["xaxis"] = {
        "zeroline": True, "zerolinecolor": LIGHT["ink"], "nticks": 6, "rangemode": "tozero",
        "tickformat": ".1~%" if measure in SHARES else "", "title": {"text": "difference"},
    }  # fmt: skip
    caption = "Blue where it is more than noise, grey where it is not."
    heading = f"Difference of {label(measure)}"
    return chart(f"difference-{measure}", heading, caption, [trace], layout, "half")


def tabulate_differences(comparison: Comparison) -> Table:
    """Return all differences as numbers."""
    columns = (
        Column("policy", is_number=False),
        Column("measure", is_number=False),
        Column("difference"),
        Column("low"),
        Column("high"),
        Column("p, corrected"),
        Column("more than noise", is_number=False),
    )
    rows = tuple(
        (
            str(row["policy"]),
            label(row["measure"]),
            *(format_gap(row["measure"], row[each]) for each in ("difference", "low", "high")),
            "n/a" if math.isnan(row["p_holm"]) else f"{row['p_holm']:.3f}",
            describe_decision(row),
        )
        for row in list_rows(comparison.differences)
    )
    return Table("Differences", columns, rows, describe_test(comparison))


def describe_decision(row: Mapping[str, Any]) -> str:
    """Return whether a difference is more than noise, and why where no test says it."""
    word = "yes" if row["distinguishable"] else "no"
    return word if row["basis"] == "test" else f"{word}, {row['basis']}"


def format_gap(measure: str, value: float) -> str:
    """Return a difference."""
    if math.isinf(value):
        return "above" if value > 0.0 else "below"
    if math.isnan(value):
        return "n/a"
    return format_percent(value) if measure in SHARES else f"{value:+.2f}"
