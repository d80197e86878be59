"""Charts of several positions over time: the account, stacked exposure, risk, correlation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtest.base import FloatArray, IntArray
from backtest.base.units import DAY
from backtest.report.page.figures import (
    LIGHT,
    PERCENTS,
    build_chart,
    build_layout,
    draw_line,
    draw_points,
    draw_series,
    escape_label,
    stack_panels,
    thin_rows,
    to_datetimes,
)
from backtest.report.page.page import Chart

if TYPE_CHECKING:
    from backtest.engine import Result

PALETTE = ("accent", "loss", "neutral", "step_5", "step_2", "ink", "step_3", "muted")
SCALE = [[0.0, LIGHT["loss"]], [0.5, LIGHT["paper"]], [1.0, LIGHT["accent"]]]
LEAST_DAYS = 20
"""Fewer daily returns than this show no correlation."""
MOST_CELLS = 12
"""Correlations of more instruments than this are not written into the cells."""


def draw_account(result: Result) -> Chart:
    bars, closes = result.bars, result.span.named
    titles = (
        "Equity (x: the pool or an isolated position was liquidated)",
        "Drawdown",
        "Gross and net leverage, turns of equity",
        "Margin ratio of the cross positions: 100 % is liquidation",
    )
    span = (result.span.start, int(closes[-1]))
    layout = build_layout(640, **stack_panels(titles, (2.2, 1.0, 1.4, 1.2), 0.07, span))
    layout["yaxis2"] |= {"tickformat": PERCENTS}
    layout["yaxis4"] |= {"tickformat": PERCENTS, "rangemode": "tozero", "nticks": 4}
    ratio = np.minimum(bars["margin_ratio"].to_numpy(), 1.5)
    traces = [
        draw_series(closes, bars["equity"].to_numpy(), "equity"),
        draw_series(closes, -bars["drawdown"].to_numpy(), "drawdown", "loss", yaxis="y2",
                    hovertemplate="%{y:.1%}"),
        draw_series(closes, bars["gross_leverage"].to_numpy(), "gross", yaxis="y3"),
        draw_series(closes, bars["net_leverage"].to_numpy(), "net", "neutral", yaxis="y3"),
        draw_series(closes, ratio, "margin ratio", yaxis="y4", hovertemplate="%{y:.2%}"),
        *mark_liquidations(result),
    ]  # fmt: skip
    caption = "The account at each close. Gross leverage adds all notionals, net their signs too."
    return build_chart("story", "The account over time", caption, traces, layout)


def mark_liquidations(result: Result) -> Iterator[dict[str, Any]]:
    events = result.events
    times = pd.DatetimeIndex(events.loc[events["kind"] == "liquidation", "time"].unique())
    if len(times) == 0:
        return
    at = np.searchsorted(result.time, times.as_unit("ns").asi8)
    equity = result.bars["equity"].to_numpy()[at]
    closes = result.span.named[at]
    yield draw_points(
        to_datetimes(closes), equity, "liquidation", "loss", symbol="x-thin", stroke=2.0
    )


def draw_exposure(result: Result) -> Chart:
    table, closes = result.exposures, result.span.named
    rows = thin_rows(closes, *(table[name].to_numpy() for name in table))
    layout = build_layout(340, showlegend=True)
    layout["xaxis"] |= {"type": "date"}
    layout["yaxis"] |= {"title": {"text": "turns of equity"}}
    traces = [
        trace
        for place, name in enumerate(result.names)
        for trace in stack_sides(closes, rows, table[name].to_numpy(), name, place)
    ]
    caption = (
        "Each band is the notional of one instrument over the equity, at closes: longs are stacked "
        "above 0 and shorts below. Together both sides are the gross leverage."
    )
    return build_chart("exposure", "Exposure by instrument", caption, traces, layout)


def stack_sides(
    closes: IntArray, rows: IntArray, values: FloatArray, name: str, place: int
) -> Iterator[dict[str, Any]]:
    x, shown = to_datetimes(closes[rows]), values[rows]
    for side, part in (("long", np.maximum(shown, 0.0)), ("short", np.minimum(shown, 0.0))):
        yield draw_line(
            x,
            part,
            escape_label(name),
            PALETTE[place % len(PALETTE)],
            stackgroup=side,
            legendgroup=name,
            showlegend=side == "long",
            line={"width": 0.5},
        )


def draw_risk(result: Result) -> Chart:
    risk, closes = result.risk(), result.span.named
    names = list(result.names)
    titles = ("Share of the variance", "Diversification ratio")
    span = (result.span.start, int(closes[-1]))
    layout = build_layout(460, **stack_panels(titles, (2.2, 1.0), 0.09, span))
    layout |= {"showlegend": True, "legend": {"y": 1.06}}
    layout["yaxis"] |= {"tickformat": PERCENTS}
    rows = thin_rows(closes, *(risk[name].to_numpy() for name in names))
    traces = [
        draw_line(
            to_datetimes(closes[rows]), risk[name].to_numpy()[rows], escape_label(name),
            PALETTE[place % len(PALETTE)], showlegend=True, hovertemplate="%{y:.0%}",
        )
        for place, name in enumerate(names)
    ]  # fmt: skip
    ratio = risk["diversification_ratio"].to_numpy()
    traces.append(draw_series(closes, ratio, "diversification ratio", yaxis="y2"))
    caption = (
        "From exponentially weighted covariances of mark returns with a half-life of 30 days. A "
        "share below 0 is a hedge. The diversification ratio is the sum of the positions' "
        "volatilities over that of the portfolio."
    )
    return build_chart("risk_shares", "Where the risk came from", caption, traces, layout)


def draw_correlation(result: Result) -> Chart | None:
    names = list(result.names)
    found = correlate_days(result.time, result.marks)
    if found is None:
        return None
    layout = build_layout(120 + 34 * len(names))
    layout["xaxis"] |= {"type": "category"}
    layout["yaxis"] |= {"type": "category", "autorange": "reversed", "showgrid": False}
    labels = [escape_label(name) for name in names]
    cells: dict[str, Any] = {
        "type": "heatmap", "x": labels, "y": labels, "z": found, "zmin": -1.0, "zmax": 1.0,
        "colorscale": SCALE, "showscale": False, "hovertemplate": "%{y}, %{x}: %{z:.2f}",
        "name": "",
    }  # fmt: skip
    if len(names) <= MOST_CELLS:
        cells["texttemplate"] = "%{z:.2f}"
    caption = "Correlations of daily log returns of mark prices over the whole run."
    return build_chart("correlation", "Correlation", caption, [cells], layout, "narrow")


def correlate_days(time: IntArray, marks: FloatArray) -> FloatArray | None:
    """Return the correlations of daily log returns, pairwise where both are known.

    Parameters
    ----------
    time : IntArray of shape (n_bars,)
        Opens of the bars, UTC ns.
    marks : FloatArray of shape (n_bars, n)
        Mark closes, NaN where an instrument has no bar.
    """
    days = time // DAY
    last = np.append(days[1:] != days[:-1], True)
    returns = pd.DataFrame(np.diff(np.log(marks[last]), axis=0))
    if len(returns) < LEAST_DAYS:
        return None
    return np.asarray(returns.corr(min_periods=LEAST_DAYS))


def list_charts(result: Result) -> Sequence[Chart]:
    correlation = draw_correlation(result)
    found = [draw_exposure(result), draw_risk(result)]
    return found if correlation is None else [*found, correlation]
