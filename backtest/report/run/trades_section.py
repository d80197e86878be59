"""The report section on trades: their measures, excursions, and profit by holding time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtest.base import format_money, format_number, format_percent
from backtest.engine import describe_limit_orders
from backtest.report.page.figures import build_chart, build_layout, draw_points
from backtest.report.page.page import Block, Chart, Section, Table, name_columns

if TYPE_CHECKING:
    from backtest.base import BoolArray
    from backtest.engine import Result, Trades

FILLS_PER_TRIP = 20
"""Fills per round trip from which the page shows lots: the policy keeps its position adjusted."""
MOST_POINTS = 1_500
"""The most trades in a chart: those with the largest profits and losses."""
SHARES = ("win_rate", "time_in_market")
COUNTS = ("trades", "open", "longest_losing_run")
WORDS = {
    "trip": "A trade is a round trip, from flat to flat.",
    "fifo": "The account adjusts its position all the time, so a trade here is a lot: contracts "
    "that one fill opened and a later one closed, first in first out. result.trades has the round "
    "trips.",
}


def list_trades_section(result: Result) -> list[Section]:
    trades = choose_trades(result)
    closed = pd.DataFrame(trades)[(trades["ended"] != "open").to_numpy()]
    if closed.empty:
        return []
    blocks: list[Block] = [tabulate_groups(trades), draw_excursions(closed), draw_holding(closed)]
    missing = trades.unallocated[trades.unallocated != 0.0]
    left = "; ".join(f"{name} {format_money(value)}" for name, value in missing.items())
    lead = (
        f"{WORDS[trades.view]} Profits after costs: {format_money(float(trades['profit'].sum()))} "
        f"in all, with open trades at the last mark; in the market at "
        f"{format_percent(float(trades.measures['time_in_market']))} of closes"
        + (f"; money of no trade: {left}." if left else ".")
    )
    if result.account.fill == "limit":
        lead += f" Limit orders: {describe_limit_orders(result.limit_orders)}."
    return [Section("trades", "Trades", lead.replace("_", " "), blocks)]


def choose_trades(result: Result) -> Trades:
    trades = result.trades
    fills = int((result.events["kind"] == "fill").sum())
    is_adjusted = fills > FILLS_PER_TRIP * max(len(trades), 1)
    return trades.lots("fifo") if is_adjusted else trades


def collect_trades(result: Result) -> dict[str, Any]:
    trades = choose_trades(result)
    return {
        "view": trades.view,
        "measures": trades.measures.to_dict(),
        "unallocated": trades.unallocated.to_dict(),
        **{f"by_{by}": name_rows(trades, by) for by in ("year", "ended")},
    }


def name_rows(trades: Trades, by: Any) -> dict[str, Any]:
    table = trades.measures_by(by)
    if isinstance(table.index, pd.DatetimeIndex):
        table.index = pd.Index([f"{each:%Y}" for each in table.index])
    return {str(name): row for name, row in table.to_dict("index").items()}


def tabulate_groups(trades: Trades) -> Table:
    several = ["instrument"] if trades["instrument"].nunique() > 1 else []
    measures = {str(name): float(value) for name, value in trades.measures.items()}
    rows = [write_row("all", measures)]
    for by in ("year", "side", *several, "ended"):
        groups = name_rows(trades, by)
        groups.pop("open", None)
        if len(groups) > 1:
            rows += [write_row(f"{by}: {k.replace('_', ' ')}", each) for k, each in groups.items()]
    columns = name_columns(
        "trades", "closed", "open", "win rate", "profit factor", ("expectancy", "money"),
        ("mean win", "money"), ("mean loss", "money"), ("best", "money"), ("worst", "money"),
        ("losing run", "trades"), ("held", "days, mean"),
    )  # fmt: skip
    note = (
        "Of closed trades, after all costs. A year is that of the exit. Profit factor: what "
        "winners made over what losers lost."
    )
    return Table("Measures of trades", columns, tuple(rows), note)


def write_row(name: str, measures: Mapping[str, float]) -> tuple[str, ...]:
    order = ("trades", "open", "win_rate", "profit_factor", "expectancy", "mean_win", "mean_loss",
             "best", "worst", "longest_losing_run", "mean_days")  # fmt: skip
    return (name, *(format_cell(each, float(measures[each])) for each in order))


def format_cell(name: str, value: float) -> str:
    if name in COUNTS:
        return f"{value:,.0f}"
    if np.isnan(value):
        return format_number(value)
    if name in SHARES:
        return format_percent(value)
    return format_number(value) if name in {"profit_factor", "mean_days"} else format_money(value)


def draw_excursions(closed: pd.DataFrame) -> Chart:
    kind = "mark" if closed["mae_last"].isna().all() else "last"
    layout = build_layout(320, showlegend=True)
    layout["xaxis"] = {"title": {"text": "furthest against, MAE"}, "tickformat": ".1%"}
    layout["yaxis"] = {"title": {"text": "furthest for, MFE"}, "tickformat": ".1%"}
    traces = list(draw_by_sign(closed, f"mae_{kind}", f"mfe_{kind}"))
    caption = (
        f"Each trade by the furthest move of the {kind} price against it and for it while it was "
        "open, as returns on its entry price." + describe_thinning(closed)
    )
    return build_chart("excursions", "Excursions of trades", caption, traces, layout, "half")


def draw_holding(closed: pd.DataFrame) -> Chart:
    held = (closed["exit_time"] - closed["entry_time"]).dt.total_seconds() / 86_400.0
    layout = build_layout(320, showlegend=True)
    layout["xaxis"] = {"title": {"text": "days held"}}
    layout["yaxis"] = {"title": {"text": "profit, money"}}
    traces = list(draw_by_sign(closed.assign(days=held), "days", "profit"))
    caption = "Each trade by its profit after costs and how long it was held."
    caption += describe_thinning(closed)
    return build_chart("holding", "Profit by holding time", caption, traces, layout, "half")


def draw_by_sign(closed: pd.DataFrame, x: str, y: str) -> Iterator[Any]:
    order = closed["profit"].abs().sort_values(ascending=False, kind="stable")
    shown = closed.loc[order.index[:MOST_POINTS]].sort_index()
    is_win: BoolArray = (shown["profit"] > 0.0).to_numpy()
    for name, rows, color in (("winners", is_win, "accent"), ("losers", ~is_win, "loss")):
        if rows.any():
            given = shown[x].to_numpy()[rows], shown[y].to_numpy()[rows]
            yield draw_points(*given, name, color, size=5, showlegend=True)


def describe_thinning(closed: pd.DataFrame) -> str:
    if len(closed) <= MOST_POINTS:
        return ""
    return f" The {MOST_POINTS:,} with the largest profits and losses, of {len(closed):,}."
