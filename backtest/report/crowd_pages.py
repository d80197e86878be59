"""The report pages of cascades, simulated markets and crowding."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtest.base.number_text import format_number, format_percent
from backtest.crowd.cascade_record import PAYERS
from backtest.crowd.crowding_record import describe_critical_share
from backtest.crowd.result_title import describe_crowd_result
from backtest.report.basis.data_and_command import NOTHING, Background
from backtest.report.page.figures import (
    LIGHT,
    PERCENTS,
    build_chart,
    build_layout,
    draw_line,
    draw_series,
)
from backtest.report.page.page import (
    SYNTHETIC,
    Block,
    Chart,
    Code,
    Fact,
    Page,
    Section,
    Table,
    name_columns,
)

if TYPE_CHECKING:
    from backtest.crowd import Cascade, Crowding, SimulatedMarket
    from backtest.crowd.crowd_record import CrowdRecord

MOST_ROWS = 60
BTC = {
    "BTC hourly": {"std": 0.00730, "kurtosis": 61.0, "hill": 2.46, "acf_abs_1": 0.292},
    "BTC daily": {"std": 0.0361, "kurtosis": 30.6, "hill": 2.50, "acf_abs_1": 0.149},
}
"""Facts of the closes of the BTCUSDT perpetual at Binance, 2019-09 to 2023-12."""
FACTS = {
    "std": "standard deviation of a step",
    "kurtosis": "kurtosis (normal: 3)",
    "hill": "tail exponent of losses",
    "acf_abs_1": "autocorrelation of absolute returns",
}


@dataclass(frozen=True)
class CrowdPage(Page):
    """A page whose data may be positions without a time."""

    @property
    def subtitle(self) -> str:
        """The data, or that there are none."""
        if not self.manifest["data"]["bars"]:
            return "Positions given, without a market"
        return super().subtitle


def start_page(record: CrowdRecord, summary: str, facts: list[Fact], sections: Any) -> Page:
    """Return the page of a record."""
    is_synthetic = record.manifest["data"]["synthetic"]
    return CrowdPage(
        kind=record.kind,
        manifest=record.manifest,
        title=describe_crowd_result(record.manifest)[0],
        notices=[SYNTHETIC] if is_synthetic else [],
        summary=summary,
        facts=facts,
        write_sections=sections,
        collect=record.to_dict,
    )


def build_basis(record: CrowdRecord, background: Background) -> Section:
    """Return the section on how a result was made."""
    blocks: list[Block] = []
    if background.command:
        blocks.append(Code("The command", background.command))
    parts = {name: record.manifest[name] for name in ("arguments", "agents", "crowd")
             if name in record.manifest}  # fmt: skip
    rows = tuple(
        (name.replace("_", " "), str(value))
        for part in parts.values()
        for name, value in part.items()
        if not isinstance(value, dict)
    )
    columns = name_columns("argument", "value", text=["value"])
    blocks.append(Table("Arguments", columns, rows, f"id {record.manifest['id']}"))
    return Section("basis", "How it was made", "Every argument that the numbers depend on.", blocks)


# ---------------------------------------------------------------------------------------- cascade


def build_cascade(cascade: Cascade, background: Background = NOTHING) -> Page:
    """Return the report of a cascade."""
    facts = [
        Fact("final move", format_percent(cascade.final_price / cascade.price - 1.0),
             f"shock {format_percent(cascade.shock)}"),
        Fact("multiplier", f"{cascade.multiplier:.2f}", "final move over shock"),
        Fact("reproduction", f"{cascade.reproduction:.2f}", "unstable from 1 on"),
        Fact("liquidated", f"{cascade.outcome['liquidated']:,}",
             f"of {len(cascade.accounts):,} accounts"),
        Fact("deficit", format_amount(cascade.deficit), "losses beyond what backed the accounts"),
    ]  # fmt: skip
    return start_page(
        cascade,
        summarize_cascade(cascade),
        facts,
        lambda: list_cascade_sections(cascade, background),
    )


def summarize_cascade(cascade: Cascade) -> str:
    """Return the outcome in a few sentences."""
    n = len(cascade.rounds) - 1
    text = (
        f"After a shock of {format_percent(cascade.shock)}, {n} rounds of liquidations moved the "
        f"price by {format_percent(cascade.final_price / cascade.price - 1.0)} in all."
    )
    if cascade.is_ambiguous:
        text += " The market also clears at other prices; the nearest was taken."
    me = cascade.me
    if me is not None:
        fate = f"was liquidated in round {me['round']}" if me["liquidated"] else "survived"
        text += f" The own account {fate}: {me['equity_before']:,.2f} became {me['equity']:,.2f}."
    return text


def list_cascade_sections(cascade: Cascade, background: Background) -> list[Section]:
    """Return the sections of the page of a cascade."""
    return [
        Section("ladder", "The ladder of liquidations",
                "What is liquidated at each price, before the shock.", [draw_ladder(cascade)]),
        Section("rounds", "The rounds", "The price, and what each round liquidated.",
                [draw_rounds(cascade), draw_fund(cascade), tabulate_rounds(cascade)]),
        Section("payers", "Who paid", "Where the deficit of bankrupt accounts went.",
                [tabulate_payers(cascade)]),
        build_basis(cascade, background),
    ]  # fmt: skip


def draw_ladder(cascade: Cascade) -> Chart:
    """Draw the notional liquidated by price, with the prices before and after."""
    ladder = cascade.ladder
    prices = ladder.index.to_numpy(dtype=np.float64)
    bars = [
        {"type": "bar", "x": prices, "y": ladder[side].to_numpy(dtype=np.float64), "name": name,
         "marker": {"color": LIGHT[color]}, "hovertemplate": "%{x:,.6g}: %{y:,.4g}"}
        for side, name, color in (("long", "longs", "loss"), ("short", "shorts", "accent"))
    ]  # fmt: skip
    marks = [(cascade.price, "solid"), (cascade.final_price, "dash")]
    lines = [
        {"type": "line", "x0": at, "x1": at, "yref": "paper", "y0": 0, "y1": 1,
         "line": {"color": LIGHT["ink"], "width": 1, "dash": dash}}
        for at, dash in marks
    ]  # fmt: skip
    layout = build_layout(320, showlegend=True, barmode="overlay", bargap=0.05, shapes=lines)
    layout["xaxis"] = {"showgrid": False, "title": {"text": "price"}}
    layout["yaxis"] = {"title": {"text": "notional"}}
    caption = "Solid line: the price before the shock; dashed: where the cascade ended."
    return build_chart("ladder", "Notional liquidated by price", caption, bars, layout)


def draw_rounds(cascade: Cascade) -> Chart:
    """Draw the price by round."""
    price = cascade.rounds["price"].to_numpy(dtype=np.float64)
    x = np.arange(len(price))
    layout = build_layout(280)
    layout["xaxis"] = {"showgrid": False, "title": {"text": "round"}}
    layout["yaxis"] = {"title": {"text": "price"}}
    trace = draw_line(x, price, "price", "accent", mode="lines+markers")
    return build_chart("rounds", "Price after each round", "Round 0 is the shock alone.",
                       [trace], layout, "half")  # fmt: skip


def draw_fund(cascade: Cascade) -> Chart:
    """Draw the insurance fund by round."""
    fund = cascade.rounds["insurance"].to_numpy(dtype=np.float64)
    known = np.where(np.isfinite(fund), fund, np.nan)
    layout = build_layout(280)
    layout["xaxis"] = {"showgrid": False, "title": {"text": "round"}}
    layout["yaxis"] = {"title": {"text": "money"}, "rangemode": "tozero"}
    trace = draw_line(np.arange(len(fund)), known, "fund", "accent", line={"shape": "hv"})
    caption = "Empty where the fund is infinite."
    return build_chart("fund", "Insurance fund after each round", caption, [trace], layout, "half")


def tabulate_rounds(cascade: Cascade) -> Table:
    """Return the rounds as a table, the first and the last of many."""
    rounds = cascade.rounds
    rows = list(rounds.to_dict("records"))
    numbers = list(range(len(rows)))
    if len(rows) > MOST_ROWS:
        kept = [*numbers[: MOST_ROWS // 2], *numbers[-MOST_ROWS // 2 :]]
        numbers = kept
    columns = name_columns("round", "price", "accounts", "longs", "shorts", "deleveraged", "fund",
                           "deficit")  # fmt: skip
    names = ("long", "short", "adl", "insurance", "deficit")
    cells = tuple(
        (
            str(number),
            f"{rows[number]['price']:,.8g}",
            f"{int(rows[number]['accounts']):,}",
            *(format_amount(float(rows[number][name])) for name in names),
        )
        for number in numbers
    )
    note = "Notionals at the price before the shock."
    if len(rows) > MOST_ROWS:
        note += f" The first and last {MOST_ROWS // 2} of {len(rows) - 1} rounds."
    return Table("Rounds", columns, cells, note)


def format_amount(value: float) -> str:
    """Format money, or say that it is unlimited."""
    return "unlimited" if math.isinf(value) else f"{value:,.0f}"


def tabulate_payers(cascade: Cascade) -> Table:
    """Return who paid the deficit."""
    paid = cascade.payers()
    total = max(cascade.deficit, 1e-300)
    rows = tuple(
        (words, format_amount(paid[name]), format_percent(paid[name] / total, 1))
        for name, words in PAYERS.items()
    )
    return Table("Who paid", name_columns("payer", "money", "share"), rows)


# -------------------------------------------------------------------------------- simulated market


def build_simulation_page(sim: SimulatedMarket, background: Background = NOTHING) -> Page:
    """Return the report of a simulated market."""
    facts = sim.facts()
    heads = [Fact(words, f"{facts[name]:.3g}") for name, words in FACTS.items()]
    heads.append(Fact("margin calls", f"{facts['margin_calls']:,.0f}",
                      f"{facts['deaths']:,.0f} deaths"))  # fmt: skip
    n = len(sim.tables["bars"])
    summary = f"{n:,} steps of a market that its leveraged agents make."
    return start_page(sim, summary, heads, lambda: list_simulation_sections(sim, background))


def list_simulation_sections(sim: SimulatedMarket, background: Background) -> list[Section]:
    """Return the sections of the page of a simulated market."""
    return [
        Section("facts", "Statistics beside those of bitcoin",
                "A tail exponent under 4 means that the fourth moment does not exist.",
                [tabulate_facts(sim)]),
        Section("path", "The market", "Price and leverage over time.",
                [draw_price(sim), draw_leverage(sim)]),
        build_basis(sim, background),
    ]  # fmt: skip


def tabulate_facts(sim: SimulatedMarket) -> Table:
    """Return the facts of the market beside those of Bitcoin."""
    facts = sim.facts()
    rows = tuple(
        (words, f"{facts[name]:.3g}", *(f"{each[name]:.3g}" for each in BTC.values()))
        for name, words in FACTS.items()
    )
    note = "BTCUSDT perpetual at Binance, closes from 2019-09 to 2023-12."
    return Table("Facts", name_columns("fact", "this market", *BTC), rows, note)


def draw_price(sim: SimulatedMarket) -> Chart:
    """Draw the price."""
    market = sim.market
    layout = build_layout(280)
    layout["xaxis"] = {"type": "date", "showgrid": False}
    layout["yaxis"] = {"type": "log", "title": {"text": "price"}}
    trace = draw_series(market.time + market.interval, market.close, "price")
    return build_chart("price", "Price", "Close of each step, on a log scale.", [trace], layout)


def draw_leverage(sim: SimulatedMarket) -> Chart:
    """Draw the median and the highest leverage of the agents over time."""
    table = sim.leverage
    times = pd.DatetimeIndex(table.index).as_unit("ns").asi8
    layout = build_layout(240, showlegend=True)
    layout["xaxis"] = {"type": "date", "showgrid": False}
    layout["yaxis"] = {"title": {"text": "leverage"}}
    highest, middle = table.max(axis=1).fillna(0.0), table.median(axis=1).fillna(0.0)
    traces = [
        draw_series(times, highest.to_numpy(dtype=np.float64), "highest", "loss", showlegend=True),
        draw_series(times, middle.to_numpy(dtype=np.float64), "median", "accent", showlegend=True),
    ]
    return build_chart("leverage", "Leverage of the agents", "0 while no agent holds a position.",
                       traces, layout)  # fmt: skip


# --------------------------------------------------------------------------------------- crowding


def build_crowding_page(crowding: Crowding, background: Background = NOTHING) -> Page:
    """Return the report of a crowding."""
    table = crowding.table
    first = table.iloc[0]
    heads = [
        Fact("growth alone", format_number(round(float(first["growth"]), 3)),
             "log growth per year at the first share"),
        Fact("critical share", format_share(crowding.critical_share), "of open interest"),
    ]  # fmt: skip
    summary = describe_critical_share(crowding.critical_share)
    sections = [
        Section("shares", "By share of the open interest",
                "What the policy earns as more of the market runs it.",
                [draw_growth(crowding), tabulate_shares(crowding)]),
        build_basis(crowding, background),
    ]  # fmt: skip
    return start_page(crowding, summary, heads, lambda: sections)


def format_share(share: float) -> str:
    """Format a share that may be infinite."""
    return "none" if math.isinf(share) else format_percent(share, 1)


def draw_growth(crowding: Crowding) -> Chart:
    """Draw growth by share."""
    table = crowding.table
    layout = build_layout(280)
    layout["xaxis"] = {"tickformat": PERCENTS, "title": {"text": "share of open interest"}}
    layout["yaxis"] = {"title": {"text": "log growth per year"}}
    known = table[np.isfinite(table["growth"])]
    trace = draw_line(known.index.to_numpy(dtype=np.float64),
                      known["growth"].to_numpy(dtype=np.float64), "growth", "accent",
                      mode="lines+markers")  # fmt: skip
    return build_chart("growth", "Growth by share", "Shares at which the market does not clear, or "
                       "the account was ruined, are left out.", [trace], layout)  # fmt: skip


def tabulate_shares(crowding: Crowding) -> Table:
    """Return the measures by share."""
    columns = name_columns("share", "growth", "P(liquidation)", "volatility", "max drawdown",
                           "largest move", "R", "clears", text=["clears"])  # fmt: skip
    rows = []
    for share, row in zip(crowding.table.index, crowding.table.to_dict("records"), strict=True):
        rows.append(
            (
                format_percent(float(share), 1),
                f"{row['growth']:.3f}",
                format_percent(row["liquidation_probability"], 0),
                format_percent(row["volatility"]),
                format_percent(row["max_drawdown"]),
                format_percent(row["largest_move"]),
                f"{row['reproduction']:.2f}",
                "yes" if row["clears"] else "no",
            )
        )
    note = "R is the fall that the crowd's sales make over the fall that caused them."
    return Table("Measures by share", columns, tuple(rows), note)
