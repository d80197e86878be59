"""Options of a run: their Greeks, cost by roll, hedging error and explained profit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd

from backtest.base import (
    Head,
    Panel,
    Part,
    Shown,
    ShownChart,
    ShownTable,
    format_percent,
    utc_index,
)
from backtest.engine.option_trader import SCHEDULED
from backtest.engine.trades import COSTS
from backtest.measures.option_profit import EXPLAINED

if TYPE_CHECKING:
    from backtest.engine import Result

MONEY = (
    "options",
    "hedge",
    "profit",
    "theory",
    "error",
    "deviation",
    "expected_deviation",
    "costs",
)


def list_option_parts(result: Result) -> list[Part]:
    if result.options is None:
        return []
    lead = (
        "What the options added to the account's leverage, what they cost, which part of their "
        "profit each Greek explains."
    )
    return [
        Part("costs of options", "Cost of options", "", lambda: list_tables(result), "both"),
        Part("options", "Options over time", lead, lambda: list_charts(result)),
    ]


def list_tables(result: Result) -> list[Shown]:
    legs = result.rolls("leg")
    legs = legs.iloc[: -1 if len(legs) == 2 else None]
    money = dict.fromkeys(COSTS, "percent")
    heads = {name: Head(name, "a year", style) for name, style in money.items()}
    shown: list[Shown] = [
        ShownTable(legs, "Cost by leg, of the mean equity", "Cost is premium less proceeds, and "
                   "fees; the spread is what fills were worse than marks.", Head("leg"),
                   {"rolls": Head("rolls", "", "count"), **heads}),
        ShownTable(result.explained()[["price_pnl", *EXPLAINED]], "Price profit of each option",
                   "Before fees, slippage and the costs of liquidations. The rests are "
                   f"{format_percent(result.metrics['unexplained_share'])} of what single options "
                   "moved in single bars.", Head("option"),
                   {name: Head("profit" if name == "price_pnl" else name, "money", "money")
                    for name in ("price_pnl", *EXPLAINED)}),
    ]  # fmt: skip
    if result.options is not None and result.options.hedged:
        columns = {name: Head(name.replace("_", " "), "", "money") for name in MONEY}
        table = result.hedging_error().T
        table = table.loc[[*MONEY, "volatility", "implied_volatility"]]
        columns = {str(name): Head(str(name), "", "money") for name in table}
        shown.append(ShownTable(
            table.set_axis([str(name).replace("_", " ") for name in table.index]),
            "Hedging error of each instrument", "The deviation is the standard deviation of the "
            "error; that expected is of a hedge at each close under normal returns.",
            Head("money"), columns,
        ))  # fmt: skip
    return shown


def list_charts(result: Result) -> Iterator[Shown]:
    index = utc_index(result.span.named)
    table = result.greeks[["options_leverage", "net_delta", "gamma", "vega", "theta"]].set_axis(
        index
    )
    table = table.rename(columns={"options_leverage": "options by delta", "net_delta": "net delta"})
    table["instruments, gross"] = result.bars["gross_leverage"].to_numpy()
    panels = (
        Panel("Turns of equity:", ("options by delta", "instruments, gross", "net delta"), 1.6),
        Panel("Gamma: change of delta in money, per 1 % of the price", ("gamma",)),
        Panel("Vega: money per point of volatility", ("vega",)),
        Panel("Theta: money per day", ("theta",)),
    )
    caption = (
        "Greeks of all options at each close. Leverage by delta adds the absolute deltas of the "
        "options of each underlying, in money, over the equity; net delta adds all instruments "
        "with their signs."
    )
    colors = {"options by delta": "accent", "instruments, gross": "neutral", "net delta": "loss"}
    yield ShownChart("greeks", "Greeks through time", caption, table, colors=colors, height=680,
                     panels=panels)  # fmt: skip
    yield tabulate_contracts(result)
    parts = result.explained("bar").cumsum().set_axis(index)
    parts = parts.rename(columns={"price_pnl": "price profit"})
    yield ShownChart("explained", "Profit explained", "The parts add up to the price profit in "
                     "each bar: each Greek at its start times the move of forward, volatility or "
                     "time, and the rest.", parts[["price profit", *EXPLAINED]], y="money",
                     has_legend=True, height=340)  # fmt: skip


def tabulate_contracts(result: Result) -> ShownTable:
    table = result.rolls()
    names = [c if leg == SCHEDULED else f"{leg}:{c}"
             for leg, c in zip(table["leg"], table["contract"], strict=True)]  # fmt: skip
    shown = pd.DataFrame({
        "held": [f"{row['opened']:%Y-%m-%d} to {row['closed']:%Y-%m-%d}, {row['ended']}"
                 for row in table.to_dict("records")],
        "contracts": table["quantity"].where(table["side"] == "long", -table["quantity"]),
        **{name: table[name] for name in COSTS},
    }).set_axis(names)  # fmt: skip
    heads = {name: Head(name, "money", "money") for name in COSTS}
    note = "Premium and proceeds of what was sold are negative; an open one counts at its mark."
    return ShownTable(shown, "Cost by roll", note, Head("contract"), heads)
