"""Options of a run: Greeks through time, the profit explained, and the payoff of what is held."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.base import format_money, format_percent
from backtest.engine.option_results import GREEKS
from backtest.measures import compute_payoffs
from backtest.measures.option_profit import EXPLAINED
from backtest.report.page.figures import (
    build_chart,
    build_layout,
    color_key,
    draw_line,
    draw_series,
    escape_label,
    stack_panels,
)
from backtest.report.page.page import Block, Chart, Section, Table, name_columns

if TYPE_CHECKING:
    from backtest.base import FloatArray
    from backtest.engine import Result, RunOptions

STYLES = {
    "price profit": ("ink", "solid"), "delta": ("accent", "solid"), "gamma": ("loss", "solid"),
    "theta": ("loss", "dot"), "vega": ("accent", "dot"), "vanna and volga": ("neutral", "solid"),
    "rest": ("neutral", "dot"),
}  # fmt: skip
"""The lines of the explained profit: their colors, and whether they are dotted."""
REACH = 0.5
"""How far from the last price a payoff is drawn, as a fraction of it."""
POINTS = 201


def list_options_section(result: Result) -> Iterator[Section]:
    """Yield the section on options, if the run held any."""
    if result.options is None:
        return
    lead = (
        "What the options added to the account's leverage, what time took from them, and which "
        "part of their profit each Greek explains."
    )
    blocks: list[Block] = [
        draw_greeks(result),
        draw_explained(result),
        tabulate_explained(result),
        *draw_payoffs(result, result.options),
    ]
    yield Section("options", "Options", lead, blocks)


def draw_greeks(result: Result) -> Chart:
    """Draw leverage by delta, gamma, vega and theta at each close."""
    table, closes = result.greeks, result.span.named
    gross = result.bars["gross_leverage"].to_numpy()
    keys = ("options by delta", "accent"), ("instruments, gross", "neutral"), ("net delta", "loss")
    titles = (
        f"Turns of equity: {', '.join(color_key(*each) for each in keys)}",
        "Gamma: change of delta in money, per 1 % of the price",
        "Vega: money per point of volatility",
        "Theta: money per day",
    )
    span = (result.span.start, int(closes[-1]))
    layout = build_layout(680, **stack_panels(titles, (1.6, 1.0, 1.0, 1.0), 0.08, span))
    lines = (
        ("options by delta", table["options_leverage"].to_numpy(), "accent", ""),
        ("gross", gross, "neutral", ""),
        ("net delta", table["net_delta"].to_numpy(), "loss", ""),
        ("gamma", table["gamma"].to_numpy(), "accent", "2"),
        ("vega", table["vega"].to_numpy(), "accent", "3"),
        ("theta", table["theta"].to_numpy(), "loss", "4"),
    )
    traces = [
        draw_series(closes, values, name, color, yaxis=f"y{axis}")
        for name, values, color, axis in lines
    ]
    caption = (
        "Greeks of all options at each close. Leverage by delta adds the absolute deltas of the "
        "options of each underlying, in money, over the equity; net delta adds all instruments "
        "with their signs."
    )
    return build_chart("greeks", "Greeks through time", caption, traces, layout)


def draw_explained(result: Result) -> Chart:
    """Draw the price profit of the options and its parts, summed up since the start."""
    table, closes = result.explained("bar").cumsum(), result.span.named
    table["vanna and volga"] = table["vanna"] + table["volga"]
    table = table.rename(columns={"price_pnl": "price profit"})
    layout = build_layout(340, showlegend=True)
    layout["xaxis"] |= {"type": "date"}
    layout["yaxis"] |= {"title": {"text": "money"}}
    traces = [
        draw_series(
            closes, table[name].to_numpy(), name, color, showlegend=True, line={"dash": dash}
        )
        for name, (color, dash) in STYLES.items()
    ]
    share = format_percent(result.metrics["unexplained_share"])
    caption = (
        "The parts add up to the price profit in each bar: each Greek at the start of the bar "
        "times the move of forward, volatility or time, and the rest. The rests are "
        f"{share} of what single options moved in single bars."
    )
    return build_chart("explained", "Profit explained", caption, traces, layout)


def tabulate_explained(result: Result) -> Table:
    """Return the parts of the profit of each option."""
    table = result.explained()
    heads = name_columns("option", ("profit", "money"), *((name, "money") for name in EXPLAINED))
    rows = tuple(
        (str(name), *(format_money(float(row[part])) for part in ("price_pnl", *EXPLAINED)))
        for name, row in table.iterrows()
    )
    note = "Before fees, slippage and the costs of liquidations."
    return Table("Price profit of each option", heads, rows, note)


def draw_payoffs(result: Result, options: RunOptions) -> Iterator[Chart]:
    """Yield the payoff of the options at the last close at which any was held, by underlying."""
    closes = np.flatnonzero(options.record.quantity.any(axis=1))
    for t in closes[-1:].tolist():
        held = options.record.quantity[t] != 0.0
        for i in np.unique(options.terms.instruments[held]).tolist():
            yield draw_payoff(result, options, t, i)


def draw_payoff(result: Result, options: RunOptions, t: int, i: int) -> Chart:
    """Draw what the options on instrument i pay at expiry, over its price; t is the close."""
    price, name = float(result.marks[t, i]), escape_label(result.names[i])
    prices = price * np.linspace(1.0 - REACH, 1.0 + REACH, POINTS)
    held = np.where(options.terms.instruments == i, options.record.quantity[t], 0.0)
    paid = compute_payoffs(options.terms, held, prices)
    layout: dict[str, Any] = build_layout(300)
    layout["xaxis"] |= {"title": {"text": f"price of {name} at expiry"}}
    layout["yaxis"] |= {"title": {"text": "money"}}
    ends = np.array([float(paid.min()), float(paid.max())])
    now: FloatArray = np.full(2, price)
    traces = [
        draw_line(prices, paid, "payoff"),
        draw_line(now, ends, "the mark then", "muted", line={"dash": "dot", "width": 1.0}),
    ]
    caption = (
        f"What the options held {result.span.describe_close(t)} pay if all expire at one "
        "price, without their premiums; dotted: the mark at that close."
    )
    return build_chart(f"payoff_{i}", f"Payoff at expiry, {name}", caption, traces, layout)


def collect_options(result: Result) -> dict[str, Any]:
    """Return the numbers of the options, for JSON: none of a run without any."""
    if result.options is None:
        return {}
    last = result.greeks.iloc[-1]
    return {
        "options": {
            "explained": result.explained().to_dict("index"),
            "greeks": {name: float(last[name]) for name in (*GREEKS, "net_delta")},
            "contracts": [each.to_dict() for each in result.options.contracts],
        }
    }
