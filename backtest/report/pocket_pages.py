"""Report pages of pockets: an allocation and its transfers, and a runway."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from backtest.base.number_text import format_chance
from backtest.base.table_text import COLUMN_FORMATS
from backtest.base.units import format_duration, format_time
from backtest.paths.path_model import describe_drift
from backtest.pockets import AllocationResult, Runway
from backtest.pockets.allocation_result import WHOLE
from backtest.report.page.figures import build_chart, build_layout, draw_line, draw_series
from backtest.report.page.page import Chart, Fact, Page, Paragraph, Section, Table
from backtest.report.risk_blocks import (
    DATES,
    describe_source,
    list_assumptions,
    list_notices,
    to_records,
    write_table,
)

Pocketed: TypeAlias = AllocationResult | Runway
POCKETS = (AllocationResult, Runway)
COLORS = ("accent", "loss", "neutral") * 20


def build_pocket_page(source: Pocketed) -> Page:
    """Return the page of an allocation or of a runway."""
    if isinstance(source, AllocationResult):
        return build_allocation(source)
    return build_runway(source)


def build_allocation(found: AllocationResult) -> Page:
    """Return the page of an allocation."""
    manifest = describe_source(found)
    whole = found.table.loc[WHOLE]
    ruined = found.table.drop(index=WHOLE)["ruin_days"].notna()
    names = ", ".join(str(name) for name in ruined.index[ruined])
    summary = f"Ruined: {names}." if names else "No pocket was ruined."
    return Page(
        kind="allocation",
        manifest=manifest,
        title=f"Allocation: {name_shares(found)}",
        notices=list_notices(manifest),
        summary=f"Transfers {found.settings['transfer']}, every {found.settings['rebalance']}. "
        + summary,
        facts=[
            Fact("final equity", f"{whole['final_equity']:,.2f}", "of the whole"),
            Fact("growth", f"{100 * whole['growth']:.2f} %", "per year"),
            Fact("deepest fall", f"{100 * whole['max_drawdown']:.2f} %", "of the whole"),
            Fact("pockets ruined", f"{int(ruined.sum())} of {len(ruined)}"),
        ],
        write_sections=lambda: list_allocation_sections(found),
        collect=lambda: {"table": to_records(found.table), "settings": found.manifest["settings"]},
    )


def name_shares(found: AllocationResult) -> str:
    """Return the pockets with their shares."""
    shares = found.table["share"].drop(WHOLE)
    return ", ".join(f"{name} {100 * share:g} %" for name, share in shares.items())


def list_allocation_sections(found: AllocationResult) -> list[Section]:
    """Return the sections of an allocation."""
    shown = found.transfers.rename(index=lambda time: format_time(time.value))
    ledger: list[Any] = [Paragraph("There were none.")]
    if len(shown):
        ledger = [
            write_table(
                "What each pocket got, in money",
                shown.head(200),
                formats=dict.fromkeys(map(str, shown), "{:+,.2f}".format),
            )
        ]
    return [
        Section("pockets", "By pocket", "Growth is without transfers.",
                [draw_equity(found), write_table("", found.table, formats=COLUMN_FORMATS),
                 Paragraph(found.settings["policy"], "note")]),
        Section("transfers", "Transfers", "Each date adds up to 0.", ledger),
    ]  # fmt: skip


def draw_equity(found: AllocationResult) -> Chart:
    """Return the equity of the whole and of each pocket."""
    closes = pd.DatetimeIndex(found.equity.index).as_unit("ns").asi8
    traces = [
        draw_series(
            closes, found.equity[name].to_numpy(), str(name), color, showlegend=True,
            line={"width": 2.2 if name == WHOLE else 1.2, "dash": dash},
        )
        for name, color, dash in zip(found.equity, ("ink", *COLORS), DASHES, strict=False)
    ]  # fmt: skip
    return build_chart(
        "equity", "Equity", "Of the whole and of each pocket, at closes.", traces,
        build_layout(340, xaxis=DATES, showlegend=True),
    )  # fmt: skip


DASHES = ("solid", *("solid",) * 3, *("dash",) * 3, *("dot",) * 54)
"""Dash patterns that distinguish pockets of the same color."""


def build_runway(found: Runway) -> Page:
    """Return the page of a runway."""
    manifest = describe_source(found)
    days = f"{found.runway_days:,.0f} days" if not np.isnan(found.runway_days) else "-"
    last = found.table.iloc[-1]
    span = f"{format_chance(last['p_failure_low'])} to {format_chance(last['p_failure_high'])}"
    drawn, spending = found.settings["paths"], found.settings["spending"]
    horizon = format_duration(drawn["horizon"])
    return Page(
        kind="runway",
        manifest=manifest,
        title=f"Runway: {found.settings['policy']}",
        notices=list_notices(manifest),
        summary=f"{100 * spending['share']:g} % of the {spending['of']} is spent every "
        f"{spending['every']}, on {drawn['paths']:,} paths of {drawn['model']['name']} with "
        f"{describe_drift(drawn)}.",
        facts=[
            Fact(f"fails within {horizon}", format_chance(found.p_failure), span),
            Fact("runway of the paths that fail", days, "median"),
            Fact("spent", f"{last['spent']:,.2f}", "mean"),
        ],
        write_sections=lambda: [
            Section("spending", "By spending", "",
                    [draw_failure(found), draw_wealth(found),
                     tabulate_spendings(found.table)]),
            *list_assumptions(found),
        ],
        collect=lambda: {"table": to_records(found.table), "settings": found.manifest["settings"]},
    )  # fmt: skip


def tabulate_spendings(table: pd.DataFrame) -> Table:
    """Return the failures and the wealth after each spending, by day."""
    heads = {"p_failure": "failed so far", "p_failure_low": "interval from",
             "p_failure_high": "interval to", "wealth_05": "wealth, 5 %",
             "wealth_50": "wealth, median", "wealth_95": "wealth, 95 %",
             "spent": "spent, mean"}  # fmt: skip
    formats = {heads[name]: COLUMN_FORMATS[name] for name in heads}
    return write_table("", table.rename(columns=heads), formats=formats)


def draw_failure(found: Runway) -> Chart:
    """Return the probability of failure by day with its interval."""
    days = list(found.table.index)
    traces = [
        draw_line(days, (100.0 * found.table[name]).to_numpy(), name.replace("_", " "), color)
        for name, color in (
            ("p_failure_low", "neutral"), ("p_failure_high", "neutral"), ("p_failure", "loss"),
        )
    ]  # fmt: skip
    caption = "Paths that could not pay a spending by that day, %, with the interval."
    return build_chart("failure", "Failure", caption, traces, build_layout(260))


def draw_wealth(found: Runway) -> Chart:
    """Return the quantiles of wealth by day."""
    days = list(found.table.index)
    traces = [
        draw_line(days, found.table[f"wealth_{name}"].to_numpy(), f"{name} %",
                  "accent" if name == "50" else "neutral")
        for name in ("05", "50", "95")
    ]  # fmt: skip
    caption = "Quantiles of 5, 50 and 95 % after each spending, by day."
    return build_chart("wealth", "Wealth", caption, traces, build_layout(260))
