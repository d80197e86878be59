"""What a policy asked for and what was held: how often and how far each limit moved targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backtest.base.number_text import format_leverage
from backtest.engine.target_cuts_text import WORDS
from backtest.report.page.page import Block, Column, Table, Text

if TYPE_CHECKING:
    from backtest.engine.result import Result

NOTE = (
    "Leverage at the open where a decision fills, before the costs of the fill. A decision may be "
    "cut by several limits, one after the other: shortfall is what the limit of the row took away, "
    "negative where it left more than was asked; distance is the same without sign."
)


def tabulate_targets(result: Result) -> Block:
    """Return mean asked against mean held leverage, over all decisions and limit by limit."""
    if not result.cut_rows:
        text = "How far targets were cut is not known: an earlier version saved the result."
        return Text(text, "note")
    columns = (
        Column("limit", is_number=False),
        Column("decisions"),
        Column("share", "%"),
        Column("asked", "mean"),
        Column("held", "mean"),
        Column("shortfall", "mean"),
        Column("distance", "mean"),
    )
    rows = tuple(
        (
            WORDS.get(row["cause"], "all decisions"),
            f"{row['decisions']:,}",
            f"{100.0 * row['share']:.1f}",
            *(
                format_leverage(row[f"mean_{name}"])
                for name in ("asked", "held", "shortfall", "distance")
            ),
        )
        for row in result.cut_rows
    )
    return Table("Targets, and what was held", columns, rows, NOTE)
