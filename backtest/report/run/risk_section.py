"""The report section on risk: closeness to liquidation, and the tails of returns."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtest.base import (
    FloatArray,
    capitalize,
    format_money,
    format_percent,
)
from backtest.measures.cautions import AFTER_RUIN
from backtest.measures.performance import LEAST_DEVIATION
from backtest.report.page.figures import (
    LIGHT,
    PERCENTS,
    build_chart,
    build_layout,
    draw_line,
    draw_series,
    stack_panels,
)
from backtest.report.page.page import Block, Chart, Paragraph, Section, Table, name_columns
from backtest.report.page.report_numbers import name_frequency

if TYPE_CHECKING:
    import pandas as pd

    from backtest.engine import Result

LEAST_RETURNS = 20
"""Fewer returns than this do not show a tail."""


def build_risk(result: Result) -> Section:
    close = [draw_closeness(result)] if "liquidation_price" in result.bars else []
    blocks = [*close, *build_tails(result)]
    lead = "How close the account came to liquidation, and the tails of its returns."
    return Section("risk", "Risk", lead, blocks)


# -------------------------------------------------------------------------------------- closeness


def draw_closeness(result: Result) -> Chart:
    bars, closes = result.bars, result.span.named
    distance = np.abs(bars["liquidation_price"].to_numpy() / bars["mark"].to_numpy() - 1.0)
    ratio = np.minimum(bars["margin_ratio"].to_numpy(), 1.5)
    panels = (
        ("Margin ratio: 100 % is liquidation", ratio, "accent"),
        ("Distance to liquidation (no line: out of reach)",
         np.where(distance <= 1.0, distance, np.nan), "accent"),
        ("Forecast: liquidation price touched within a day",
         bars["liquidation_probability"].to_numpy(), "loss"),
    )  # fmt: skip
    span = (result.span.start, int(closes[-1]))
    layout = build_layout(
        480, **stack_panels([title for title, _, _ in panels], (1, 1, 1), 0.09, span)
    )
    traces = []
    for place, (title, values, color) in enumerate(panels, start=1):
        number = "" if place == 1 else str(place)
        layout[f"yaxis{number}"] |= {"tickformat": PERCENTS, "rangemode": "tozero", "nticks": 4}
        traces.append(
            draw_series(closes, values, title.partition(":")[0], color,
                        yaxis=f"y{number}", hovertemplate="%{y:.2%}", line={"width": 1.0})
        )  # fmt: skip
    caption = (
        "The margin ratio is the maintenance requirement over what backs the position. The "
        "distance is the move of the mark price that would liquidate at each close."
    )
    return build_chart("closeness", "Closeness to liquidation", caption, traces, layout)


# ------------------------------------------------------------------------------------------ tails


def build_tails(result: Result) -> Iterator[Block]:
    returns = result.returns.to_numpy()
    if len(returns) >= LEAST_RETURNS and np.std(returns) > LEAST_DEVIATION:
        yield draw_tails(returns, str(result.manifest["sampling"]))
    metrics = result.metrics
    rows = tuple(
        (f"{level} %", *(format_percent(metrics[f"{name}_{level}"]) for name in ("var", "es")))
        for level in (95, 99)
    )
    ruined = f" {capitalize(AFTER_RUIN)}." if metrics["ruined"] else ""
    yield Table(
        f"Losses of {name_frequency(str(result.manifest['sampling']))} returns",
        name_columns("confidence", "value at risk", "expected shortfall"),
        rows,
        "Historical; a positive number is a loss. Expected shortfall is the mean of the losses at "
        f"or beyond the value at risk.{ruined}",
    )


def draw_tails(returns: FloatArray, sampling: str) -> Chart:
    deviation, n = float(np.std(returns, ddof=1)), len(returns)
    traces = []
    far = deviation
    for name, values, color in (("losses", -returns, "loss"), ("gains", returns, "accent")):
        sizes = np.sort(values[values > 0.0])[::-1]
        if not len(sizes):
            continue
        share = np.arange(1, len(sizes) + 1) / n
        rows = choose_tail_points(len(sizes))
        far = max(far, float(sizes[0]))
        traces.append(
            draw_line(sizes[rows], share[rows], name, color, mode="lines+markers",
                      marker={"size": 4, "color": LIGHT[color]}, showlegend=True,
                      hovertemplate="beyond %{x:.2%}: %{y:.2%} of periods")
        )  # fmt: skip
    size = np.linspace(0.0, far, 120)
    normal = np.array([0.5 * math.erfc(each / deviation / math.sqrt(2.0)) for each in size])
    shown = normal >= 0.3 / n
    traces.append(
        draw_line(size[shown], normal[shown], "normal, same volatility", "neutral", showlegend=True,
                  hoverinfo="skip", line={"width": 1, "dash": "dot"})
    )  # fmt: skip
    layout = build_layout(360, showlegend=True, yaxis={"type": "log", "tickformat": PERCENTS})
    size_of = {"text": f"size of a {name_frequency(sampling)} return"}
    layout["xaxis"] |= {"title": size_of, "tickformat": PERCENTS}
    layout["yaxis"]["title"] = {"text": "share of periods beyond"}
    caption = (
        "The share of periods with a gain or a loss beyond each size, on a log scale. A line above "
        "the dotted one is a tail fatter than a normal distribution has."
    )
    return build_chart("tails", "Tails of returns", caption, traces, layout, "narrow")


def choose_tail_points(n: int, most: int = 600) -> Any:
    if n <= most:
        return np.arange(n)
    rest = np.linspace(most // 2, n - 1, most // 2).astype(np.int64)
    return np.unique(np.concatenate([np.arange(most // 2), rest]))


MOST_LISTED = 50
LEAST_SHARE = 0.005
"""Causes of less than this share are not named."""


def build_contagion(result: Result) -> Section:
    lead = "Which positions caused each liquidation, and which were closed with them in profit."
    return Section("contagion", "Contagion", lead, [tabulate_contagion(result)])


def tabulate_contagion(result: Result) -> Block:
    table = result.contagion()
    if len(table) == 0:
        return Paragraph("The cross positions were never liquidated together.")
    groups = list(table.groupby("liquidation"))
    rows = tuple(write_row(group) for _, group in groups[:MOST_LISTED])
    columns = name_columns(
        ("time", "UTC"), "causes", "closed in profit", text=["causes", "closed in profit"]
    )
    more = f"The first {len(rows)} of {len(groups):,}: result.contagion() has all. "
    note = (
        "A cause is a share of the fall of M - level R, the margin left, since the last high of "
        "the account; the shares add up to 100 %. Profit is since the entry, at the prices of the "
        "liquidation."
    )
    note = more * (len(groups) > len(rows)) + note
    return Table("Liquidations of the cross positions", columns, rows, note)


def write_row(group: pd.DataFrame) -> tuple[str, ...]:
    causes = group[group["share"] >= LEAST_SHARE].sort_values("share", ascending=False)
    winners = group[group["profit"] > 0.0]
    return (
        f"{group['time'].iloc[0]:%Y-%m-%d %H:%M}",
        ", ".join(
            f"{cause} {format_percent(share)}"
            for cause, share in zip(causes["cause"], causes["share"], strict=True)
        ),
        ", ".join(
            f"{cause} {format_money(profit)}"
            for cause, profit in zip(winners["cause"], winners["profit"], strict=True)
        )
        or "none",
    )


def count_victims(result: Result) -> int:
    return int((result.contagion()["profit"] > 0.0).sum())
