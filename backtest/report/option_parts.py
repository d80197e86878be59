"""The tables and charts of a run with options."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from backtest import core
from backtest.core.code_names import pd
from backtest.core.number_text import Head
from backtest.core.result_parts import Panel, Shown, ShownChart, ShownTable
from backtest.policies.combinators import SCHEDULED
from backtest.report.page import list_heads
from backtest.results.option_profit import EXPLAINED
from backtest.results.trade_measures import ROLL_COSTS

if TYPE_CHECKING:
    from backtest.results import Result


MONEY = (
    "options", "hedge", "profit", "theory", "error", "deviation", "expected_deviation", "costs",
)  # fmt: skip


def list_tables(result: Result) -> Iterator[Shown]:
    legs = result.rolls("leg")
    legs = legs.iloc[: -1 if len(legs) == 2 else None]
    heads = list_heads("percent", ROLL_COSTS, "a year") | {"rolls": Head("rolls", "", "count")}
    note = (
        "Cost is premium less proceeds, and fees; the spread is what fills were worse than marks."
    )
    yield ShownTable(legs, "Cost by leg, of the mean equity", note, Head("leg"), heads)
    heads = list_heads("money", EXPLAINED) | {"price_pnl": Head("profit", "money", "money")}
    note = (
        "Before fees, slippage and the costs of liquidations. The rests are "
        f"{core.format_percent(result.metrics['unexplained_share'])} of what single options moved "
        "in single bars."
    )
    yield ShownTable(result.explained()[["price_pnl", *EXPLAINED]], "Price profit of each option",
                     note, Head("option"), heads)  # fmt: skip
    if result.options is not None and result.options.hedged:
        table = result.hedging_error().T.loc[[*MONEY, "volatility", "implied_volatility"]]
        table.index = table.index.str.replace("_", " ")
        note = (
            "The deviation is the standard deviation of the error; that expected is of a hedge at "
            "each close under normal returns."
        )
        heads = {str(name): Head(str(name), "", "money") for name in table}
        yield ShownTable(table, "Hedging error of each instrument", note, Head("money"), heads)


def list_charts(result: Result) -> Iterator[Shown]:
    index = core.utc_index(result.span.named)
    names = ["options_leverage", "net_delta", "gamma", "vega", "theta"]
    table = result.greeks[names].set_axis(index)
    table = table.rename(columns={"options_leverage": "options by delta", "net_delta": "net delta"})
    table["instruments, gross"] = result.bars["gross_leverage"].to_numpy()
    panels = (
        Panel("Leverage, x", ("options by delta", "instruments, gross", "net delta"), 1.6),
        Panel("Gamma: change of delta per 1 % of price", ("gamma",)),
        Panel("Vega: money per point of volatility", ("vega",)),
        Panel("Theta: money per day", ("theta",)),
    )
    caption = (
        "Greeks of all options at each close, in money. Leverage by delta adds the absolute deltas "
        "of the options of each underlying over the equity; net delta adds all instruments with "
        "their signs."
    )
    colors = {"options by delta": "accent", "instruments, gross": "neutral", "net delta": "loss"}
    yield ShownChart("greeks", "Greeks through time", caption, table, colors=colors,
                     height=680, panels=panels)  # fmt: skip
    rolls = result.rolls()
    names = [c if leg == SCHEDULED else f"{leg}:{c}"
             for leg, c in zip(rolls["leg"], rolls["contract"], strict=True)]  # fmt: skip
    shown = pd.DataFrame({
        "held": [f"{row['opened']:%Y-%m-%d} to {row['closed']:%Y-%m-%d}, {row['ended']}"
                 for row in rolls.to_dict("records")],
        "contracts": rolls["quantity"].where(rolls["side"] == "long", -rolls["quantity"]),
        **{name: rolls[name] for name in ROLL_COSTS},
    }).set_axis(names)  # fmt: skip
    note = "Premium and proceeds of what was sold are negative; an open one counts at its mark."
    yield ShownTable(shown, "Cost by roll", note, Head("contract"), list_heads("money", ROLL_COSTS))
    parts = result.explained("bar").cumsum().set_axis(index)
    parts = parts.rename(columns={"price_pnl": "price profit"})
    yield ShownChart("explained", "P&L attribution",
                     "The parts add up to the price profit in "
                     "each bar: each Greek at its start times the move of forward, volatility or "
                     "time, and the rest.", parts[["price profit", *EXPLAINED]], y="money",
                     has_legend=True, height=340)  # fmt: skip
