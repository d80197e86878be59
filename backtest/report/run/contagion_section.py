"""Liquidations of the cross positions: what caused each, and which winners closed with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from backtest.base import format_money, format_percent
from backtest.report.page.page import Block, Paragraph, Section, Table, name_columns

if TYPE_CHECKING:
    from backtest.engine import Result

MOST_LISTED = 50
LEAST_SHARE = 0.005
"""Causes of less than this share are not named."""


def build_contagion(result: Result) -> Section:
    """Return the section on liquidations of the pool."""
    lead = "Which positions caused each liquidation, and which were closed with them in profit."
    return Section("contagion", "Contagion", lead, [tabulate_contagion(result)])


def tabulate_contagion(result: Result) -> Block:
    """Return a row per liquidation of the pool, or a sentence if there was none."""
    table = result.contagion()
    if len(table) == 0:
        return Paragraph("The cross positions were never liquidated together.")
    groups = list(table.groupby("liquidation"))
    rows = tuple(write_row(group) for _, group in groups[:MOST_LISTED])
    columns = name_columns(
        ("time", "UTC"), "causes", "closed in profit", text=["causes", "closed in profit"]
    )
    more = f"The first {len(rows)} of {len(groups):,}: result.contagion() has all. "
    note = (
        "A cause is a share of the fall of M - level R, the margin left, since the last high of "
        "the account; the shares add up to 100 %. Profit is since the entry, at the prices of the "
        "liquidation."
    )
    note = more * (len(groups) > len(rows)) + note
    return Table("Liquidations of the cross positions", columns, rows, note)


def write_row(group: pd.DataFrame) -> tuple[str, ...]:
    """Return the time, causes and winners of one liquidation."""
    causes = group[group["share"] >= LEAST_SHARE].sort_values("share", ascending=False)
    winners = group[group["profit"] > 0.0]
    return (
        f"{group['time'].iloc[0]:%Y-%m-%d %H:%M}",
        ", ".join(
            f"{cause} {format_percent(share)}"
            for cause, share in zip(causes["cause"], causes["share"], strict=True)
        ),
        ", ".join(
            f"{cause} {format_money(profit)}"
            for cause, profit in zip(winners["cause"], winners["profit"], strict=True)
        )
        or "none",
    )


def count_victims(result: Result) -> int:
    """Return how many positions in profit closed in a liquidation of the pool."""
    return int((result.contagion()["profit"] > 0.0).sum())
