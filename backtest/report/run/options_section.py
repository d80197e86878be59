"""Options of a run: their Greeks, cost by roll, hedging error, explained profit and payoff."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.base import format_money, format_percent
from backtest.engine.option_chain import SCHEDULED
from backtest.engine.option_rolls import COSTS
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
REACH = 0.5
"""How far from the last price a payoff is drawn, as a fraction of it."""
POINTS = 201
MOST_ROLLS = 100
"""The most rolls in the table."""


def list_options_section(result: Result) -> Iterator[Section]:
    if result.options is None:
        return
    lead = (
        "What the options added to the account's leverage, what they cost, which part of their "
        "profit each Greek explains, and what they pay at expiry."
    )
    blocks: list[Block] = [
        draw_greeks(result),
        tabulate_rolls(result),
        tabulate_legs(result),
        *list_hedging(result, result.options),
        draw_explained(result),
        tabulate_explained(result),
        *draw_payoffs(result, result.options),
    ]
    yield Section("options", "Options", lead, blocks)


def draw_greeks(result: Result) -> Chart:
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
    table = result.explained()
    heads = name_columns("option", ("profit", "money"), *((name, "money") for name in EXPLAINED))
    rows = tuple(
        (str(name), *(format_money(float(row[part])) for part in ("price_pnl", *EXPLAINED)))
        for name, row in table.iterrows()
    )
    note = "Before fees, slippage and the costs of liquidations."
    return Table("Price profit of each option", heads, rows, note)


def tabulate_rolls(result: Result) -> Table:
    table = result.rolls()
    heads = name_columns(
        "contract", "held", ("contracts", "signed"), *((name, "money") for name in COSTS),
        text=("held",),
    )  # fmt: skip
    rows = tuple(
        (
            row["contract"] if row["leg"] == SCHEDULED else f"{row['leg']}:{row['contract']}",
            f"{row['opened']:%Y-%m-%d} to {row['closed']:%Y-%m-%d}, {row['ended']}",
            f"{row['quantity'] if row['side'] == 'long' else -row['quantity']:,.6g}",
            *(format_money(row[name]) for name in COSTS),
        )
        for row in table.tail(MOST_ROLLS).to_dict("records")
    )
    note = (
        "Cost is premium less proceeds, and fees. Of what was sold, premium and proceeds are "
        "negative. The spread is what fills were worse than marks; the prices contain it. An open "
        "contract counts at its last mark."
    )
    if len(table) > MOST_ROLLS:
        note += f" The last {MOST_ROLLS:,} of {len(table):,} rolls; result.rolls() has all."
    return Table("Cost by roll", heads, rows, note)


def tabulate_legs(result: Result) -> Table:
    table = result.rolls("leg")
    heads = name_columns("leg", "rolls", *((name, "a year") for name in COSTS))
    rows = tuple(
        (str(leg), f"{row['rolls']:,.0f}", *(format_percent(row[name]) for name in COSTS))
        for leg, row in table.iloc[: -1 if len(table) == 2 else None].iterrows()
    )
    return Table("Cost by leg, of the mean equity a year", heads, rows)


def list_hedging(result: Result, options: RunOptions) -> Iterator[Block]:
    if not options.hedged:
        return
    table, closes = result.hedging_error("bar").cumsum(), result.span.named
    layout = build_layout(300, showlegend=True)
    layout["xaxis"] |= {"type": "date"}
    layout["yaxis"] |= {"title": {"text": "money"}}
    lines = (("profit", "ink"), ("theory", "accent"), ("error", "loss"))
    traces = [
        draw_series(closes, table[name].to_numpy(), name, color, showlegend=True)
        for name, color in lines
    ]
    caption = (
        "What options and hedge earned together, before costs; what gamma says they earn, half of "
        "gamma times S² (s² - s_h²) dt, s the volatility of the mark closes and s_h the implied "
        "one; and the difference. Summed up since the start."
    )
    yield build_chart("hedging", "Hedging error", caption, traces, layout)
    money = ("options", "hedge", "profit", "theory", "error", "deviation", "expected_deviation")
    heads = name_columns(
        "instrument", *((name.replace("_", " "), "money") for name in money),
        ("volatility", "a year"), ("implied", "a year"), ("costs", "money"),
    )  # fmt: skip
    rows = tuple(
        (
            str(name),
            *(format_money(float(row[each])) for each in money),
            *(format_percent(float(row[each])) for each in ("volatility", "implied_volatility")),
            format_money(float(row["costs"])),
        )
        for name, row in result.hedging_error().iterrows()
    )
    note = (
        "The deviation is the standard deviation of the error; that expected is of a hedge at each "
        "close under normal returns. Costs of the hedge, fees to funding, are not in the profit."
    )
    yield Table("Hedging error of each instrument", heads, rows, note)


def draw_payoffs(result: Result, options: RunOptions) -> Iterator[Chart]:
    for i in np.unique(options.terms.instruments).tolist():
        yield draw_payoff(result, options, i)


def draw_payoff(result: Result, options: RunOptions, i: int) -> Chart:
    own = options.terms.instruments == i
    held = np.where(own, options.record.quantity, 0.0)
    last = int(np.flatnonzero(held.any(axis=1))[-1]) if held.any() else 0
    peak = int(np.abs(np.where(own, options.greeks["delta"], 0.0).sum(axis=1)).argmax())
    closes = {"held last": (last, "accent")}
    if (held[peak] != held[last]).any():
        closes["at the peak of delta"] = (peak, "neutral")
    marks = [float(result.marks[t, i]) for t, _ in closes.values()]
    prices = np.linspace(min(marks) * (1.0 - REACH), max(marks) * (1.0 + REACH), POINTS)
    name = escape_label(result.names[i])
    layout: dict[str, Any] = build_layout(300, showlegend=True)
    layout["xaxis"] |= {"title": {"text": f"price of {name} at expiry"}}
    layout["yaxis"] |= {"title": {"text": "money"}}
    traces, told = [], []
    for (label, (t, color)), mark in zip(closes.items(), marks, strict=True):
        paid = compute_payoffs(options.terms, held[t], prices)
        ends = np.array([float(paid.min()), float(paid.max())])
        line: FloatArray = np.full(2, mark)
        traces.append(draw_line(prices, paid, label, color, showlegend=True))
        traces.append(draw_line(line, ends, "mark", color, line={"dash": "dot", "width": 1.0}))
        told.append(f"{label}, {result.span.describe_close(t)}")
    caption = (
        f"What the options pay if all expire at one price, without their premiums: those "
        f"{'; those '.join(told)}. Dotted: the mark at that close."
    )
    return build_chart(f"payoff_{i}", f"Payoff at expiry, {name}", caption, traces, layout)
