"""What a comparison says of break-even costs: in the summary, and on the page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from backtest.base import Head, Part, ShownTable, format_paragraph
from backtest.compare.break_even_terms import ALIKE_GROWTH, BOTH_LOST

if TYPE_CHECKING:
    from backtest.compare.comparison_record import ComparisonRecord

BREAK_EVEN = (
    "Every step runs both accounts again. A fee is added to the taker and the maker rate, funding "
    "to the rate of each settlement. Rows show the reversal nearest to actual costs."
)


def describe_break_even(comparison: ComparisonRecord) -> Iterator[str]:
    """Yield at which fee and funding each account changes order with the baseline."""
    lines = [explain_break_even(row) for row in comparison.break_even.to_dict("records")]
    if lines:
        yield from format_paragraph("Break-even", *lines)


def explain_break_even(row: Mapping[Any, Any]) -> str:
    """Return the cost that reverses the order of two accounts, as a sentence."""
    one, other, gap = row["policy"], row["against"], row["gap"]
    cost = "fee" if row["cost"] == "fee" else "funding per settlement"
    if row["note"] in (ALIKE_GROWTH, BOTH_LOST):
        return f"{cost}: {one} and {other}: {row['note']}"
    ahead, behind = (one, other) if gap > 0.0 else (other, one)
    if not math.isnan(row["added"]):
        return f"{cost}: with {format_bps(row['added'])} for both, {behind} overtakes {ahead}"
    if row["low"] == row["high"]:
        return f"{cost}: {row['note']}"
    span = f"{format_bps(row['low'])} to {format_bps(row['high'])}"
    return f"{cost}: {ahead} stays ahead of {behind} from {span}"


def show_break_even(table: pd.DataFrame) -> list[Part]:
    """Return the section of the page on break-even costs; none if they were not asked for."""
    if table.empty:
        return []
    told = table.assign(told=[explain_break_even(row) for row in table.to_dict("records")])
    heads = {
        "gap": Head("gap", "log growth per year", "percent"),
        "added": Head("added", "bp to both", "signed bps"),
        "low": Head("searched", "bp", "signed bps", "high"),
        "told": Head("what happens"),
    }
    lead = "The cost that, added to both accounts, reverses their order by log growth."
    shown = ShownTable(told.set_index("policy"), "Break-even costs", BREAK_EVEN, heads=heads,
                       columns=("against", "cost", *heads))  # fmt: skip
    return [Part("break-even", "When the order reverses", lead, (shown,))]


def format_bps(rate: float) -> str:
    """Format an added rate in basis points.

    Examples
    --------
    >>> format_bps(0.000345), format_bps(-0.0005)
    ('+3.45 bp', '-5 bp')
    """
    return f"{1e4 * rate:+.4g} bp"
