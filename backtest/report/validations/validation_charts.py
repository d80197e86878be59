"""Parts that the report pages of all validations share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtest.base.number_text import format_number, format_percent
from backtest.report.page.axis_scale import choose_scale, drop_dust
from backtest.report.page.figures import (
    LIGHT,
    PERCENTS,
    build_chart,
    build_layout,
    draw_line,
    draw_points,
    stack_panels,
    to_datetimes,
)
from backtest.report.page.page import Chart
from backtest.report.page.report_numbers import name_measure
from backtest.report.page.thinning import thin_rows

if TYPE_CHECKING:
    from backtest.base.units import FloatArray, IntArray

MOST_POINTS = 3_000
SHARES = ("max_drawdown", "cagr", "total_return", "volatility", "calmar")


def name_objective(manifest: Mapping[str, Any]) -> str:
    """Return the objective in words."""
    given = manifest["objective"]
    if isinstance(given, Mapping):
        return " + ".join(f"{weight:g} {name_measure(name)}" for name, weight in given.items())
    word = str(given).partition(" sha256:")[0]
    return name_measure(word.removeprefix("-"))


def draw_scatter(table: pd.DataFrame, what: str, key: str) -> Chart:
    """Draw the objective out of sample over that in sample, of all sets and of the winners."""
    known = table[np.isfinite(table["in_sample"]) & np.isfinite(table["out_of_sample"])]
    winners, others = known[known["is_winner"]], known[~known["is_winner"]]
    step = max(1, math.ceil(len(others) / MOST_POINTS))
    shown = others.iloc[::step]
    x, y = (known[name].to_numpy(dtype=np.float64) for name in ("in_sample", "out_of_sample"))
    traces = [
        draw_points(shown["in_sample"].to_numpy(), shown["out_of_sample"].to_numpy(), "all sets",
                    "neutral", size=4, opacity=0.35, hovertemplate="%{x:.2f}, %{y:.2f}",
                    showlegend=True),
        draw_points(winners["in_sample"].to_numpy(), winners["out_of_sample"].to_numpy(),
                    "winners", "accent", size=9, hovertemplate="%{x:.2f}, %{y:.2f}",
                    showlegend=True),
    ]  # fmt: skip
    if len(known):
        low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
        ends = np.array([max(low, float(x.min())), min(high, float(x.max()))])
        traces.append(draw_line(ends, ends, "no loss", "loss", line={"dash": "dot"},
                                showlegend=True, hoverinfo="skip"))  # fmt: skip
    layout = build_layout(400, showlegend=True)
    layout["margin"]["t"] = 40
    layout["xaxis"] = {"title": {"text": f"{what} in sample"}, "showgrid": True}
    layout["yaxis"] = {"title": {"text": f"{what} out of sample"}}
    caption = (
        "Each gray point is a set, each blue one a winner. Winners under the dotted line lost "
        "against what they showed in sample; a cloud without slope means that the past does not "
        "separate the sets."
    )
    title = f"{what} in and out of sample"
    return build_chart(key, title, caption, traces, layout)


def read_units(account: Any) -> FloatArray:
    """Return the unit value of an account at each close, 1 at its beginning."""
    return np.asarray(account.of_account("unit") / account.tally.first_unit)


def draw_units(
    closes: IntArray,
    units: Mapping[str, FloatArray],
    styles: Sequence[tuple[str, str]],
    edges: Sequence[int] = (),
) -> Chart:
    """Draw unit values over time with their drawdowns below; ``edges`` are times in ns."""
    span = (int(closes[0]), int(closes[-1]))
    panels = stack_panels(("One unit of money", "Drawdown"), (2, 1), 0.09, span)
    layout = build_layout(560, showlegend=True, **panels)
    traces = []
    for (name, unit), (color, dash) in zip(units.items(), styles, strict=False):
        fall = unit / np.maximum.accumulate(np.maximum(unit, 1.0)) - 1.0
        rows = thin_rows(closes, unit, fall)
        x, shared = to_datetimes(closes[rows]), {"line": {"dash": dash}, "legendgroup": name}
        traces += [
            draw_line(x, drop_dust(unit)[rows], name, color, **shared, showlegend=True,
                      hovertemplate="%{y:.3f}"),
            draw_line(x, fall[rows], name, color, **shared, yaxis="y2", hovertemplate="%{y:.1%}"),
        ]  # fmt: skip
    choose_scale(layout, np.concatenate([drop_dust(each) for each in units.values()]))
    layout["yaxis2"] |= {"tickformat": PERCENTS, "nticks": 4}
    layout["margin"]["t"] = 60
    layout["legend"] = {"y": 1.06, "traceorder": "normal"}
    layout["shapes"] = [draw_edge(edge) for edge in edges]
    caption = "The unit value of each account, free of deposits, and its fall from its own peak."
    caption += " Thin lines are the boundaries, where parameters may change." if edges else ""
    return build_chart("accounts", "The accounts over time", caption, traces, layout)


def draw_edge(time: int) -> dict[str, Any]:
    """Return a thin vertical line over all panels at a time in ns."""
    at = str(np.datetime64(time, "ns").astype("datetime64[s]"))
    line = {"color": LIGHT["neutral_soft"], "width": 1}
    return {"type": "line", "x0": at, "x1": at, "xref": "x", "y0": 0, "y1": 1, "yref": "paper",
            "line": line, "layer": "below"}  # fmt: skip


def format_entry(name: str, value: Any) -> str:
    """Return an entry of a table as text."""
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "n/a"
    if hasattr(value, "strftime"):
        return f"{value:%Y-%m-%d}"
    if isinstance(value, bool | int):
        return f"{value:,}" if not isinstance(value, bool) else ("yes" if value else "no")
    return format_percent(float(value)) if name in SHARES else format_number(float(value))
