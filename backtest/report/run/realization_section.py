"""The report section on realization: how readily winners and losers were closed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backtest.base import format_percent
from backtest.report.page.page import Section, Table, name_columns

if TYPE_CHECKING:
    from backtest.engine import Result

NOTE = (
    "In each bar, the part of the position that trades closed is realized, the rest stays on "
    "paper; at a gain if the price is better than the average entry. Liquidations and stops count. "
    "Source: Odean (1998)."
)


def list_realization(result: Result) -> list[Section]:
    """Return the section on realization; none if nothing was closed, or the run was resumed."""
    if result.manifest["resumed_from"] is not None:
        return []
    found = result.realization()
    if found.lots.empty:
        return []
    change, rows = found.lots["change"], []
    for name, count, days, share, realized, paper in (
        ("at a gain", int((change > 0.0).sum()), found.winner_days, found.gains_realized,
         found.realized_gains, found.paper_gains),
        ("at a loss", int((change < 0.0).sum()), found.loser_days, found.losses_realized,
         found.realized_losses, found.paper_losses),
    ):  # fmt: skip
        numbers = f"{realized:,.1f}", f"{paper:,.1f}", f"{count:,}", f"{days:,.2f}"
        rows.append((name, format_percent(share), *numbers))
    columns = name_columns(
        "positions", ("closed", "per bar"), ("closed", "positions"), ("kept", "position bars"),
        ("lots closed", ""), ("held", "days, mean"),
    )  # fmt: skip
    lead = (
        f"Share of positions closed per bar, at a gain minus at a loss: "
        f"{format_percent(found.disposition)} (standard error {format_percent(found.error)} "
        "if bars are independent)."
    )
    table = Table("Gains and losses realized", columns, tuple(rows), NOTE)
    return [Section("realization", "Winners and losers", lead, [table])]
