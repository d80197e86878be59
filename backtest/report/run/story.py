"""The main chart of a run: equity, drawdown, leverage, price and costs over time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base.units import FloatArray, IntArray
from backtest.report.page.axis_scale import choose_scale, drop_dust, is_wide
from backtest.report.page.figures import (
    LIGHT,
    chart,
    dots,
    frame,
    key,
    line,
    scale_log,
    stack,
    stamps,
)
from backtest.report.page.page import Chart
from backtest.report.page.thinning import thin

if TYPE_CHECKING:
    from backtest.engine.result import Result


class Mark(NamedTuple):
    """How a kind of event is marked: in words, its symbol, its colour."""

    words: str
    symbol: str
    colour: str


MARKS = {
    "liquidation": Mark("liquidation", "x", "loss"),
    "stop": Mark("stop", "triangle-down", "loss"),
    "margin_call": Mark("margin call", "circle-open", "loss"),
    "top_up": Mark("top-up", "triangle-up", "accent"),
    "flow": Mark("deposit or withdrawal", "diamond-open", "accent"),
    "withdrawal_refused": Mark("withdrawal refused", "diamond-x-open", "loss"),
    "bad_debt": Mark("bad debt", "square", "loss"),
    "ruin": Mark("ruin", "cross", "loss"),
}
"""The events that are marked; fills and payments are too many to be."""

MOST_MARKS = 400
"""Marks of one kind; of more, the largest."""
TITLES = (
    f"Equity {key('account', 'accent')}  {key('buy and hold 1x', 'neutral')}",
    f"Equity {key('account', 'accent')}",
)
"""The title of the first panel, with and without the instrument."""
TRACE_HELD = 2
"""The place of the instrument among the traces: after the peak and the equity."""
PANELS = (2.6, 1.0, 1.3, 2.1, 1.1)
HEIGHT = 860


def draw_story(result: Result, ledger_rows: IntArray | None = None) -> Chart:
    """Return the chart of the account over time.

    Parameters
    ----------
    result : Result
        What a run produced.
    ledger_rows : array of int, optional
        The rows of the events table that the page lists, so that a mark leads to its row.
    """
    bars = result.bars
    marked = find_marks(result.events)
    at = locate(result, marked)
    titles = (
        TITLES[0],
        "Drawdown",
        "Leverage, turns of equity",
        f"Price {key('mark', 'ink')}  {key('liquidation price', 'loss')}",
        f"Paid so far {key('funding', 'accent')}  {key('fees, slippage, impact', 'neutral')}",
    )
    span = (result.span.start, int(result.span.closes[-1]))
    layout = frame(HEIGHT, **stack(titles, PANELS, 0.05, span))
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
    return chart("story", "The account over time", caption, traces, layout)


# ----------------------------------------------------------------------------------------- panels


def draw_equity(result: Result, at: IntArray, layout: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the equity, its peak, and the instrument held with the same money."""
    closes, bars = result.span.closes, result.bars
    equity, fall = bars["equity"].to_numpy(), bars["drawdown"].to_numpy()
    held = equity[0] * result.mark / result.mark[0]
    rows = thin(closes, equity, held, keep=at)
    x, left = stamps(closes[rows]), 1.0 - fall[rows]
    peak: FloatArray = np.divide(
        equity[rows], left, out=np.full(len(rows), np.nan), where=left > 0.0
    )
    choose_scale(layout, equity, held, held=[TRACE_HELD], titles=TITLES)
    yield line(x, fill_forward(peak), "peak", "loss_soft", line={"width": 0}, hoverinfo="skip")
    shade = {"fill": "tonexty", "fillcolor": LIGHT["loss_soft"]}
    yield line(x, drop_dust(equity)[rows], "equity", **shade, hovertemplate="%{y:,.2f}")
    yield line(x, held[rows], "buy and hold 1x", "neutral", hovertemplate="%{y:,.2f}",
               line={"width": 1.0})  # fmt: skip


def fill_forward(values: FloatArray) -> FloatArray:
    """Return values with the last known one in place of NaN."""
    known = np.where(np.isnan(values), 0, np.arange(len(values)))
    filled: FloatArray = values[np.maximum.accumulate(known)]
    return filled


def draw_drawdown(result: Result, layout: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the fall from the peak, below zero."""
    fall = -result.bars["drawdown"].to_numpy()
    rows = thin(result.span.closes, fall)
    layout["yaxis2"] |= {"tickformat": ".1~%", "rangemode": "tozero", "nticks": 4}
    yield line(stamps(result.span.closes[rows]), fall[rows] + 0.0, "drawdown", "loss", yaxis="y2",
               fill="tozeroy", fillcolor=LIGHT["loss_soft"], hovertemplate="%{y:.1%}",
               line={"width": 1.0})  # fmt: skip


def draw_leverage(result: Result) -> Iterator[dict[str, Any]]:
    """Yield the leverage held at each close."""
    leverage = result.bars["leverage"].to_numpy()
    leverage = np.where(np.isfinite(leverage), leverage, np.nan)
    rows = thin(result.span.closes, leverage)
    yield line(stamps(result.span.closes[rows]), leverage[rows], "leverage", yaxis="y3",
               hovertemplate="%{y:.2f}x", line={"width": 1.0, "shape": "hv"})  # fmt: skip


def draw_price(result: Result, layout: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the mark price, the liquidation price, and the band between them.

    The axis reaches half as far again as the price did, and to 0 where the price moved far: a
    liquidation price beyond is off it. A price that moved very far is drawn on a log scale.
    """
    closes, mark = result.span.closes, result.mark
    price = result.bars["liquidation_price"].to_numpy()
    lowest, highest = float(np.min(mark)), float(np.max(mark))
    is_log = is_wide(mark)
    low, high = 0.6 * lowest if is_log or highest < 2.5 * lowest else 0.0, 1.5 * highest
    near = np.where((price >= low) & (price <= high), price, np.nan)
    layout["yaxis4"] |= scale_log(mark, near) if is_log else {}
    rows = thin(closes, mark, near)
    x = stamps(closes[rows])
    band_x, band_y = build_band(closes[rows], mark[rows], near[rows])
    yield line(stamps(band_x), band_y, "distance", yaxis="y4", fill="toself", hoverinfo="skip",
               fillcolor=LIGHT["neutral_soft"], line={"width": 0})  # fmt: skip
    yield line(x, near[rows], "liquidation price", "loss", yaxis="y4",
               hovertemplate="%{y:,.6~g}", line={"width": 1.0})  # fmt: skip
    yield line(x, mark[rows], "mark price", "ink", yaxis="y4", hovertemplate="%{y:,.6~g}",
               line={"width": 1.1})  # fmt: skip


def build_band(
    closes: IntArray, mark: FloatArray, price: FloatArray
) -> tuple[IntArray, FloatArray]:
    """Return the outlines of the areas between two prices, NaN between one area and the next."""
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
    """Yield what was paid up to each close."""
    closes, bars = result.span.closes, result.bars
    trading = bars[["fees", "slippage", "impact"]].sum(axis=1).to_numpy()
    costs = (("funding", bars["funding"].to_numpy(), "accent"), ("trading", trading, "neutral"))
    for name, paid, colour in costs:
        total = np.cumsum(paid)
        rows = thin(closes, total)
        yield line(stamps(closes[rows]), total[rows], f"{name} paid", colour, yaxis="y5",
                   hovertemplate="%{y:,.2f}", line={"width": 1.2})  # fmt: skip


# ------------------------------------------------------------------------------------------ marks


def find_marks(events: pd.DataFrame) -> pd.DataFrame:
    """Return the events to mark, with their rows as index."""
    chosen = events[events["kind"].isin(tuple(MARKS))]
    size = chosen["amount"].abs().groupby(chosen["kind"], observed=True)
    place = size.rank(method="first", ascending=False)
    return chosen[place <= MOST_MARKS]


def locate(result: Result, marked: pd.DataFrame) -> IntArray:
    """Return the bars in which events happened."""
    when = pd.DatetimeIndex(marked["time"]).as_unit("ns").asi8
    found: IntArray = np.searchsorted(result.time, when).astype(np.int64)
    return found


def draw_marks(
    result: Result, marked: pd.DataFrame, at: IntArray, ledger_rows: IntArray | None
) -> Iterator[dict[str, Any]]:
    """Yield the marks of each kind of event on the equity; each knows its row of the ledger."""
    equity = result.bars["equity"].to_numpy()
    total = result.events["kind"].value_counts()
    for name, mark in MARKS.items():
        is_mine = (marked["kind"] == name).to_numpy()
        if not is_mine.any():
            continue
        rows = at[is_mine]
        count = f"{is_mine.sum():,} of {total[name]:,}"
        label = f"{total[name]:,}" if is_mine.sum() == total[name] else f"largest {count}"
        trace = dots(
            stamps(result.span.closes[rows]), equity[rows], f"{mark.words} ({label})", mark.colour,
            symbol=mark.symbol, stroke=1.2, showlegend=True,
            hovertemplate=f"{mark.words}<extra></extra>",
        )  # fmt: skip
        if ledger_rows is not None:
            trace["customdata"] = find_places(ledger_rows, marked.index[is_mine].to_numpy())
        yield trace


def find_places(ledger_rows: IntArray, rows: IntArray) -> list[int]:
    """Return the places of rows in a ledger; -1 for those it leaves out."""
    places = np.searchsorted(ledger_rows, rows)
    inside = ledger_rows[np.minimum(places, len(ledger_rows) - 1)] == rows
    found: list[int] = np.where(inside, places, -1).tolist()
    return found
