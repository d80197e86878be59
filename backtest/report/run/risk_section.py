"""The report section on risk: closeness to liquidation, its forecast, tails of returns."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtest.base import (
    BoolArray,
    FloatArray,
    ParameterError,
    capitalize,
    format_duration,
    format_money,
    format_percent,
)
from backtest.base.units import DAY
from backtest.measures.cautions import AFTER_RUIN
from backtest.measures.performance import LEAST_DEVIATION
from backtest.report.page.figures import (
    LIGHT,
    PERCENTS,
    build_chart,
    build_layout,
    draw_line,
    draw_points,
    draw_series,
    stack_panels,
)
from backtest.report.page.page import Block, Chart, Paragraph, Section, Table, name_columns
from backtest.report.page.report_numbers import name_frequency, name_period

if TYPE_CHECKING:
    import pandas as pd

    from backtest.engine import Result
    from backtest.measures import Calibration

DAY_LONG = "1d"
LEAST_SHOWN = 1e-5
"""Smaller probabilities are drawn as this one: a log scale has no 0."""
LOG_FROM = 30.0
"""Ratio of the largest to the smallest forecast from which log scales are used."""
UNEXPOSED = "No close had a position that could be liquidated: nothing was forecast."
LEAST_RETURNS = 20
"""Fewer returns than this do not show a tail."""


def build_risk(result: Result) -> Section:
    close = [draw_closeness(result)] if "liquidation_price" in result.bars else []
    blocks = [*close, *build_calibration(result), *build_tails(result)]
    lead = "How close the account came to liquidation, how well that was forecast, and its tails."
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


# ------------------------------------------------------------------------------------ calibration


def build_calibration(result: Result) -> Iterator[Block]:
    found = read_calibration(result)
    if isinstance(found, str):
        yield Paragraph(capitalize(f"{found}."), "note")
        return
    overall = found.scores.loc["all"]
    if not overall["count"] > 0:
        yield Paragraph(UNEXPOSED, "note")
        return
    if not overall["frequency"] > 0.0:
        highest = found.reliability["forecast"].max()
        yield Paragraph(
            "The mark price never touched the liquidation price of a close within a "
            f"{name_period(choose_horizon(result))}. The forecasts said so: the highest tenth of "
            f"them were {format_percent(highest, 3)} on average."
        )
        return
    yield draw_calibration(found)
    yield tabulate_scores(found)


def read_calibration(result: Result) -> Calibration | str:
    try:
        return result.calibration(horizon=choose_horizon(result))
    except ParameterError as error:
        return error.problem


def choose_horizon(result: Result) -> str:
    if result.is_session and result.interval <= DAY:
        return DAY_LONG
    return format_duration(-(-DAY // result.interval) * result.interval)


def draw_calibration(found: Calibration) -> Chart:
    is_all = found.reliability.index.get_level_values("period") == "all"
    table = found.reliability[is_all]
    forecast = np.maximum(table["forecast"].to_numpy(), LEAST_SHOWN)
    is_log = float(forecast.max() / forecast.min()) > LOG_FROM
    happened = table["frequency"].to_numpy() > 0.0
    upper = np.maximum(table["upper"].to_numpy(), LEAST_SHOWN)
    ends = (LEAST_SHOWN if is_log else 0.0, 1.08 * max(float(forecast.max()), 0.01))
    layout = build_layout(360, showlegend=bool((~happened).any()))
    layout["xaxis"] |= {"title": {"text": "forecast"}, **scale_share(forecast, is_log=is_log)}
    shown = np.concatenate([upper, table["frequency"].to_numpy()[happened]])
    layout["yaxis"] |= {"title": {"text": "happened"}, **scale_share(shown, is_log=is_log)}
    just = draw_line(ends, ends, "as forecast", "neutral", hoverinfo="skip",
                     line={"width": 1, "dash": "dot"})  # fmt: skip
    caption = (
        f"Closes by the probability forecast for the next {name_period(found.horizon)}, against "
        "how often the mark then touched their liquidation price. Forecasts are right where points "
        "lie on the dotted line; bars are 95 % intervals that allow for windows that overlap. A "
        "triangle is the upper end of the interval of a group in which it never happened."
    )
    traces = [just, *mark_groups(table, forecast, upper, happened)]
    return build_chart(
        "calibration",
        "Forecasts of liquidation against outcomes",
        caption,
        traces,
        layout,
        "narrow",
    )


def scale_share(values: FloatArray, *, is_log: bool) -> dict[str, Any]:
    top = 1.08 * max(float(np.nanmax(values)), 0.01)
    if not is_log:
        return {"tickformat": PERCENTS, "range": [0, min(top, 1.0)]}
    low = math.floor(math.log10(0.7 * float(np.nanmin(values))) * 10.0) / 10.0
    ticks = [10.0**power for power in range(math.ceil(low), 1)]
    labels = [f"{100.0 * each:.10g}%" for each in ticks]
    span = [low, min(math.log10(1.3 * top), 0.02)]
    return {"type": "log", "range": span, "tickvals": ticks, "ticktext": labels, "showgrid": True}


def mark_groups(
    table: pd.DataFrame, forecast: FloatArray, upper: FloatArray, happened: BoolArray
) -> Iterator[dict[str, Any]]:
    frequency, lower = table["frequency"].to_numpy(), table["lower"].to_numpy()
    counts = zip(table["count"], table["independent"], frequency, strict=True)
    texts = "{:,.0f} closes, {:,.1f} windows apart<br>happened {:.3%}"
    notes = np.array([texts.format(*each) for each in counts])
    hover = "forecast %{x:.3%}<br>%{text}<extra></extra>"
    shared: dict[str, Any] = {"hovertemplate": hover, "showlegend": True}
    down = frequency - np.maximum(lower, LEAST_SHOWN)
    error = {"type": "data", "symmetric": False, "array": (upper - frequency)[happened],
             "arrayminus": np.maximum(down, 0.0)[happened], "color": LIGHT["accent"],
             "thickness": 1, "width": 3}  # fmt: skip
    yield draw_points(forecast[happened], frequency[happened], "happened", error_y=error,
                      text=notes[happened].tolist(), **shared)  # fmt: skip
    if not happened.all():
        yield draw_points(forecast[~happened], upper[~happened], "never happened, at most",
                          size=9, symbol="triangle-down-open", stroke=1.2,
                          text=notes[~happened].tolist(), **shared)  # fmt: skip


def tabulate_scores(found: Calibration) -> Table:
    columns = name_columns(
        "closes by volatility", "closes", "mean forecast", "happened", "skill", "liquidations"
    )
    rows = tuple(
        (
            str(name),
            f"{row['count']:,.0f}",
            format_percent(row["forecast"], 3),
            format_percent(row["frequency"], 3),
            format_percent(row["skill"]),
            f"{row['liquidations']:,.0f}",
        )
        for name, row in found.scores.iterrows()
    )
    note = (
        "Skill is what a forecast gains over always saying the average frequency: 100 % is "
        "certainty, below 0 the average would have been better. Liquidations are those that took "
        "place; positions change before most touches."
    )
    return Table("Forecasts of liquidation", columns, rows, note)


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
