"""The main chart of a run: equity, drawdown, leverage, price and costs over time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import FloatArray, IntArray
from backtest.report.page.figures import (
    LIGHT,
    PERCENTS,
    build_chart,
    build_layout,
    choose_scale,
    color_key,
    draw_line,
    draw_points,
    draw_series,
    drop_dust,
    is_wide,
    scale_log,
    stack_panels,
    thin_rows,
    to_datetimes,
)
from backtest.report.page.page import Chart
from backtest.report.run.exposure_charts import draw_account

if TYPE_CHECKING:
    from backtest.engine import Result


class Mark(NamedTuple):
    words: str
    symbol: str
    color: str


MARKS = {
    "liquidation": Mark("liquidation", "x", "loss"),
    "stop": Mark("stop", "triangle-down", "loss"),
    "trailing_stop": Mark("trailing stop", "triangle-down", "loss"),
    "equity_stop": Mark("equity stop", "triangle-down", "loss"),
    "take_profit": Mark("take-profit", "star", "accent"),
    "margin_call": Mark("margin call", "circle-open", "loss"),
    "top_up": Mark("top-up", "triangle-up", "accent"),
    "flow": Mark("deposit or withdrawal", "diamond-open", "accent"),
    "withdrawal_refused": Mark("withdrawal refused", "diamond-x-open", "loss"),
    "bad_debt": Mark("bad debt", "square", "loss"),
    "ruin": Mark("ruin", "cross", "loss"),
    "call_met": Mark("margin call met", "circle", "accent"),
    "call_failed": Mark("margin call failed", "circle-x-open", "loss"),
    "margin_added": Mark("margin from the wallet", "triangle-up-open", "accent"),
    "margin_returned": Mark("margin to the wallet", "triangle-down-open", "accent"),
    "margin_refused": Mark("margin that could not move", "circle-x-open", "loss"),
    "time_stop": Mark("time stop", "triangle-down", "loss"),
}

MOST_MARKS = 400
"""Most marks of one kind; if there are more, the largest are drawn."""
TITLES = (
    f"Equity {color_key('account', 'accent')}  {color_key('buy and hold 1x', 'neutral')}",
    f"Equity {color_key('account', 'accent')}",
)
TRACE_HELD = 2
"""The place of the instrument among the traces, after the peak and the equity."""
PANELS = (2.6, 1.0, 1.3, 2.1, 1.1)
HEIGHT = 860


def draw_run(result: Result, ledger_rows: IntArray | None = None) -> Chart:
    if result.has_one_position:
        return draw_story(result, ledger_rows)
    return draw_account(result)


def draw_story(result: Result, ledger_rows: IntArray | None = None) -> Chart:
    bars = result.bars
    marked = find_marks(result.events)
    times = pd.DatetimeIndex(marked["time"]).as_unit("ns").asi8
    at = np.searchsorted(result.time, times).astype(np.int64)
    titles = (
        TITLES[0],
        "Drawdown",
        "Leverage, turns of equity",
        f"Price {color_key('mark', 'ink')}  {color_key('liquidation price', 'loss')}",
        f"Paid so far {color_key('funding', 'accent')}  "
        f"{color_key('fees, slippage, impact', 'neutral')}",
    )
    span = (result.span.start, int(result.span.named[-1]))
    layout = build_layout(HEIGHT, **stack_panels(titles, PANELS, 0.05, span))
    traces = [
        *draw_equity(result, at, layout),
        *draw_drawdown(result, layout),
        *draw_leverage(result),
        *draw_price(result, layout),
        *draw_costs(result),
        *draw_marks(result, marked, at, ledger_rows),
    ]
    layout |= {
        "showlegend": len(marked) > 0,
        "legend": {"y": 1.03, "traceorder": "normal"},
        "margin": {"l": 8, "r": 8, "t": 60 if len(marked) else 30, "b": 8, "pad": 2},
    }
    words = "Each line keeps the extremes of every pixel." if len(bars) > 4000 else ""
    caption = (
        "Equity beside the same money in the instrument at 1x (price only, no costs); shaded is "
        "what was lost from the peak. The liquidation price is that of the position held at each "
        f"close, where it lies within reach. {words}"
    ).strip()
    return build_chart("story", "The account over time", caption, traces, layout)


# ----------------------------------------------------------------------------------------- panels


def draw_equity(result: Result, at: IntArray, layout: dict[str, Any]) -> Iterator[dict[str, Any]]:
    closes, bars = result.span.named, result.bars
    equity, fall = bars["equity"].to_numpy(), bars["drawdown"].to_numpy()
    held = equity[0] * result.mark / result.mark[0]
    rows = thin_rows(closes, equity, held, keep=at)
    x, left = to_datetimes(closes[rows]), 1.0 - fall[rows]
    peak = pd.Series(equity[rows] / np.where(left > 0.0, left, np.nan)).ffill().to_numpy()
    choose_scale(layout, equity, held, held=[TRACE_HELD], titles=TITLES)
    yield draw_line(x, peak, "peak", "loss_soft", line={"width": 0}, hoverinfo="skip")
    shade = {"fill": "tonexty", "fillcolor": LIGHT["loss_soft"]}
    yield draw_line(x, drop_dust(equity)[rows], "equity", **shade, hovertemplate="%{y:,.2f}")
    yield draw_line(x, held[rows], "buy and hold 1x", "neutral", hovertemplate="%{y:,.2f}",
                    line={"width": 1.0})  # fmt: skip


def draw_drawdown(result: Result, layout: dict[str, Any]) -> Iterator[dict[str, Any]]:
    fall = -result.bars["drawdown"].to_numpy() + 0.0
    layout["yaxis2"] |= {"tickformat": PERCENTS, "rangemode": "tozero", "nticks": 4}
    yield draw_series(result.span.named, fall, "drawdown", "loss", yaxis="y2",
                      fill="tozeroy", fillcolor=LIGHT["loss_soft"], hovertemplate="%{y:.1%}",
                      line={"width": 1.0})  # fmt: skip


def draw_leverage(result: Result) -> Iterator[dict[str, Any]]:
    leverage = result.bars["leverage"].to_numpy()
    leverage = np.where(np.isfinite(leverage), leverage, np.nan)
    yield draw_series(result.span.named, leverage, "leverage", yaxis="y3",
                      hovertemplate="%{y:.2f}x", line={"width": 1.0, "shape": "hv"})  # fmt: skip


def draw_price(result: Result, layout: dict[str, Any]) -> Iterator[dict[str, Any]]:
    closes, mark = result.span.named, result.mark
    price = result.bars["liquidation_price"].to_numpy()
    lowest, highest = float(np.min(mark)), float(np.max(mark))
    is_log = is_wide(mark)
    low, high = 0.6 * lowest if is_log or highest < 2.5 * lowest else 0.0, 1.5 * highest
    near = np.where((price >= low) & (price <= high), price, np.nan)
    layout["yaxis4"] |= scale_log(mark, near) if is_log else {}
    rows = thin_rows(closes, mark, near)
    x = to_datetimes(closes[rows])
    band_x, band_y = build_band(closes[rows], mark[rows], near[rows])
    yield draw_line(to_datetimes(band_x), band_y, "distance", yaxis="y4", fill="toself",
                    hoverinfo="skip", fillcolor=LIGHT["neutral_soft"],
                    line={"width": 0})  # fmt: skip
    yield draw_line(x, near[rows], "liquidation price", "loss", yaxis="y4",
                    hovertemplate="%{y:,.6~g}", line={"width": 1.0})  # fmt: skip
    yield draw_line(x, mark[rows], "mark price", "ink", yaxis="y4", hovertemplate="%{y:,.6~g}",
                    line={"width": 1.1})  # fmt: skip


def build_band(
    closes: IntArray, mark: FloatArray, price: FloatArray
) -> tuple[IntArray, FloatArray]:
    known = ~np.isnan(price)
    steps = np.diff(np.concatenate([[0], known.astype(np.int8), [0]]))
    times, prices = [], []
    for begin, end in zip(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1), strict=True):
        if end - begin < 2:
            continue
        part = slice(begin, end)
        times += [closes[part], closes[part][::-1], closes[begin : begin + 1]]
        prices += [price[part], mark[part][::-1], np.array([np.nan])]
    if not times:
        return closes[:0], mark[:0]
    return np.concatenate(times), np.concatenate(prices)


def draw_costs(result: Result) -> Iterator[dict[str, Any]]:
    closes, bars = result.span.named, result.bars
    trading = bars[["fees", "slippage", "impact"]].sum(axis=1).to_numpy()
    costs = (("funding", bars["funding"].to_numpy(), "accent"), ("trading", trading, "neutral"))
    for name, paid, color in costs:
        yield draw_series(closes, np.cumsum(paid), f"{name} paid", color, yaxis="y5",
                          hovertemplate="%{y:,.2f}", line={"width": 1.2})  # fmt: skip


# ------------------------------------------------------------------------------------------ marks


def find_marks(events: pd.DataFrame) -> pd.DataFrame:
    chosen = events[events["kind"].isin(tuple(MARKS))]
    size = chosen["amount"].abs().groupby(chosen["kind"], observed=True)
    place = size.rank(method="first", ascending=False)
    return chosen[place <= MOST_MARKS]


def draw_marks(
    result: Result, marked: pd.DataFrame, at: IntArray, ledger_rows: IntArray | None
) -> Iterator[dict[str, Any]]:
    equity = result.bars["equity"].to_numpy()
    total = result.events["kind"].value_counts()
    for name, mark in MARKS.items():
        is_mine = (marked["kind"] == name).to_numpy()
        if not is_mine.any():
            continue
        rows = at[is_mine]
        count = f"{is_mine.sum():,} of {total[name]:,}"
        label = f"{total[name]:,}" if is_mine.sum() == total[name] else f"largest {count}"
        trace = draw_points(
            to_datetimes(result.span.named[rows]), equity[rows], f"{mark.words} ({label})",
            mark.color, symbol=mark.symbol, stroke=1.2, showlegend=True,
            hovertemplate=f"{mark.words}<extra></extra>",
        )  # fmt: skip
        if ledger_rows is not None:
            trace["customdata"] = pd.Index(ledger_rows).get_indexer(marked.index[is_mine]).tolist()
        yield trace
