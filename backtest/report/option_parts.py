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


HEDGING = (
    "options",
    "hedge",
    "profit",
    "theory",
    "error",
    "deviation",
    "expected_deviation",
    "costs",
    "volatility",
    "implied_volatility",
)
"""What a page shows of the hedging of an instrument, in its order."""


def list_option_costs(result: Result) -> Iterator[Shown]:
    yield tabulate_leg_costs(result)
    yield tabulate_option_profit(result)
    if result.options is not None and result.options.hedged:
        yield tabulate_hedging(result)


def tabulate_leg_costs(result: Result) -> ShownTable:
    legs = result.rolls("leg")
    if len(legs) == 2:  # of one leg, the total says the same
        legs = legs.iloc[:-1]
    return ShownTable(
        legs,
        caption="Cost by leg, of the mean equity",
        note=(
            "Cost is premium less proceeds, and fees; the spread is what fills were worse than "
            "marks."
        ),
        labels=Head("leg"),
        heads={
            **list_heads("percent", ROLL_COSTS, unit="a year"),
            "rolls": Head("rolls", "", "count"),
        },
    )


def tabulate_option_profit(result: Result) -> ShownTable:
    unexplained = core.format_percent(result.metrics["unexplained_share"])
    return ShownTable(
        result.explained()[["price_pnl", *EXPLAINED]],
        caption="Price profit of each option",
        note=(
            "Before fees, slippage and the costs of liquidations. The rests are "
            f"{unexplained} of what single options moved in single bars."
        ),
        labels=Head("option"),
        heads={
            **list_heads("money", EXPLAINED),
            "price_pnl": Head("profit", "money", "money"),
        },
    )


def tabulate_hedging(result: Result) -> ShownTable:
    table = result.hedging_error().T.loc[[*HEDGING]]
    table.index = table.index.str.replace("_", " ")
    return ShownTable(
        table,
        caption="Hedging error of each instrument",
        note=(
            "The deviation is the standard deviation of the error; that expected is of a hedge at "
            "each close under normal returns."
        ),
        labels=Head("money"),
        heads={str(name): Head(str(name), "", "money") for name in table},
    )


def list_option_history(result: Result) -> Iterator[Shown]:
    yield tabulate_roll_costs(result)
    yield draw_option_profit(result)


GREEKS = {
    "options_leverage": "options by delta",
    "net_delta": "net delta",
    "gamma": "gamma",
    "vega": "vega",
    "theta": "theta",
}
"""Names of the lines by column of ``result.greeks``."""


def draw_greeks(result: Result) -> ShownChart:
    table = result.greeks[[*GREEKS]].set_axis(core.utc_index(result.span.named))
    table = table.rename(columns=GREEKS)
    table["instruments, gross"] = result.bars["gross_leverage"].to_numpy()

    leverage = ("options by delta", "instruments, gross", "net delta")
    return ShownChart(
        key="greeks",
        title="Greeks through time",
        caption=(
            "Greeks of all options at each close, in money. Leverage by delta adds the absolute "
            "deltas of the options of each underlying over the equity; net delta adds all "
            "instruments with their signs."
        ),
        table=table,
        colors={
            "options by delta": "accent",
            "instruments, gross": "neutral",
            "net delta": "loss",
        },
        size="half",
        height=340,
        panels=(
            Panel("Leverage, x", leverage, height=1.6),
            Panel("Gamma: change of delta per 1 % of price", ("gamma",)),
            Panel("Vega: money per point of volatility", ("vega",)),
            Panel("Theta: money per day", ("theta",)),
        ),
    )


def tabulate_roll_costs(result: Result) -> ShownTable:
    """Show what each contract cost that a leg held; a short one has minus signs."""
    rolls = result.rolls()
    labels = []
    spans = []
    for roll in rolls.to_dict("records"):
        contract = roll["contract"]
        if roll["leg"] != SCHEDULED:
            contract = f"{roll['leg']}:{contract}"
        labels.append(contract)

        opened = f"{roll['opened']:%Y-%m-%d}"
        closed = f"{roll['closed']:%Y-%m-%d}"
        spans.append(f"{opened} to {closed}, {roll['ended']}")

    is_long = rolls["side"] == "long"
    columns = {
        "held": spans,
        "contracts": rolls["quantity"].where(is_long, -rolls["quantity"]),
        **{name: rolls[name] for name in ROLL_COSTS},
    }
    return ShownTable(
        pd.DataFrame(columns).set_axis(labels),
        caption="Cost by roll",
        note="Premium and proceeds of what was sold are negative; an open one counts at its mark.",
        labels=Head("contract"),
        heads=list_heads("money", ROLL_COSTS),
    )


def draw_option_profit(result: Result) -> ShownChart:
    table = result.explained("bar").cumsum()
    table = table.set_axis(core.utc_index(result.span.named))
    table = table.rename(columns={"price_pnl": "price profit"})
    return ShownChart(
        key="explained",
        title="P&L attribution",
        caption=(
            "The parts add up to the price profit in each bar: each Greek at its start times the "
            "move of forward, volatility or time, and the rest."
        ),
        table=table[["price profit", *EXPLAINED]],
        y="money",
        has_legend=True,
        height=340,
    )
