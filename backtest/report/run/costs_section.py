"""The report section on costs: log growth term by term, and the statement in money."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from backtest.account.terms import SIGNS
from backtest.base import format_money, format_percent
from backtest.engine import find_start, list_statement
from backtest.measures import Attribution, name_measure
from backtest.measures.attribution import MEANINGS, TERMS
from backtest.report.page.figures import LIGHT, build_chart, build_layout
from backtest.report.page.page import Block, Chart, Section, Table, name_columns

if TYPE_CHECKING:
    from backtest.engine import Result

SPLIT = tuple(SIGNS)[: [*SIGNS].index("flows")]
RARE = tuple(name for name in SIGNS if name not in (*SPLIT, "flows"))


def build_costs(result: Result) -> Section:
    split = result.attribution()
    blocks: list[Block] = [draw_waterfall(split), tabulate_terms(split), state_money(result)]
    lead = "Sources of the account's growth, and its costs. The terms add up."
    return Section("costs", "Costs", lead, blocks)


def choose_terms(split: Attribution) -> list[str]:
    return [name for name in TERMS if name in TERMS[:4] or getattr(split, name) != 0.0]


def draw_waterfall(split: Attribution) -> Chart:
    names = [name for name in choose_terms(split) if name != "ruin"]
    values = [float(getattr(split, name)) for name in names]
    total = float(np.sum(values))
    last = "before ruin" if math.isinf(split.growth) else "growth"
    trace = {
        "type": "waterfall", "orientation": "h", "cliponaxis": False,
        "y": [*map(name_measure, names), last],
        "x": [*values, total],
        "measure": ["relative"] * len(values) + ["total"],
        "text": [f"{value:+.3f}" for value in (*values, total)], "textposition": "outside",
        "textfont": {"color": LIGHT["muted"], "size": 11},
        "connector": {"line": {"color": LIGHT["grid"], "width": 1}},
        "increasing": {"marker": {"color": LIGHT["accent"]}},
        "decreasing": {"marker": {"color": LIGHT["loss"]}},
        "totals": {"marker": {"color": LIGHT["neutral"]}},
        "hovertemplate": "%{y}: %{text}<extra></extra>",
    }  # fmt: skip
    steps = np.cumsum([0.0, *values])
    room = 0.21 * max(float(np.ptp(steps)), 1e-6)
    layout = build_layout(
        90 + 30 * len(names), yaxis={"autorange": "reversed", "showgrid": False, "ticks": ""}
    )
    layout["xaxis"] = {
        "title": {"text": "log growth"}, "zeroline": True, "nticks": 6,
        "range": [float(steps.min()) - room, float(steps.max()) + room],
    }  # fmt: skip
    caption = (
        "Log growth of the unit value over the whole run, term by term: blue adds, orange takes "
        "away, gray is what is left. 0.01 is about 1 % of wealth."
    )
    return build_chart("growth", "From price to growth", caption, [trace], layout)


def tabulate_terms(split: Attribution) -> Table:
    """Return the terms over the run and per year, with what they mean."""
    rows = [
        (name_measure(name), f"{value:+.4f}", f"{value / split.years:+.4f}", MEANINGS[name])
        for name, value in ((name, float(getattr(split, name))) for name in choose_terms(split))
    ]
    rows.append(("growth", f"{split.growth:+.4f}", f"{split.growth / split.years:+.4f}", "the sum"))
    note = (
        f"Mean leverage {split.leverage_held:.2f}. The standard error of leverage timing is "
        f"{split.timing_error:.4f}: a timing within two of them is no evidence of skill."
    )
    columns = name_columns(
        "term", "log growth", ("log growth", "per year"), "what it is", text=["what it is"]
    )
    return Table("Attribution of growth", columns, tuple(rows), note)


def state_money(result: Result) -> Table:
    columns = name_columns("statement", ("amount", "money"), ("of mean equity", "per year"))
    note = "Change of equity is the sum of the lines between, at every bar; costs are negative."
    return Table("Statement of the account", columns, tuple(list_money(result)), note)


def list_money(result: Result) -> Iterator[tuple[str, str, str]]:
    yield "equity at the start", format_money(find_start(result)), ""
    for name, amount, rate in list_statement(result):
        yield name, format_signed_money(amount), "" if rate is None else format_percent(rate)
    yield "equity at the end", format_money(result.metrics["final_equity"]), ""
    reserve = float(result.record.account.reserve[-1])
    if reserve > 0.0:
        yield "left in the reserve", format_money(reserve), ""


def format_signed_money(amount: float) -> str:
    return "0" if amount == 0.0 else f"{'+' if amount > 0.0 else ''}{format_money(amount)}"


def build_instrument_costs(result: Result) -> Section:
    return Section(
        "attribution",
        "What each instrument made and cost",
        "Money by instrument; the row of the account has what belongs to no instrument.",
        [tabulate_attribution(result)],
    )


def tabulate_attribution(result: Result) -> Table:
    table = result.attribution()
    terms = [
        *SPLIT,
        *(name for name in RARE if name in table and (table[name] != 0.0).any()),
        "net",
    ]
    money = table[terms].to_numpy()
    dust = 1e-9 * float(np.max(np.abs(money)))
    shown = np.where(np.abs(money) <= dust, 0.0, money)
    rows = tuple(
        (str(name), *(format_money(float(value)) for value in row))
        for name, row in zip(table.index, shown, strict=True)
    )
    columns = name_columns("instrument", *((name.replace("_", " "), "money") for name in terms))
    note = "Costs are positive and subtracted."
    if "conversion" in terms:
        note += " A conversion costs the slippage of the collateral that is sold."
    return Table("Attribution", columns, rows, note)
