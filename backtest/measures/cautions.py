"""What speaks against an account whatever its rank: loss, drawdown, ruin, markets left out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

DEEP = 0.8
"""A drawdown above which a set is marked: what is left must rise fivefold to get back."""
LEFT = 0.01
"""An account is lost if at most this share of its unit value is left at the end."""

DOUBTS = {
    "ambiguous_bars": "the account lives only because prices that hedge each other move together",
    "both_reached": "a take-profit is reached, and so is the stop or the liquidation price of the "
    "position",
}
"""By measure, what is so in bars whose outcome hangs on the way of prices inside them."""
AFTER_RUIN = "returns after the ruin count as 0 in Sharpe, Sortino, volatility, VaR and ES"


def is_lost(metrics: Mapping[Any, float]) -> bool:
    return metrics["ruined"] > 0.0 or metrics["total_return"] <= LEFT - 1.0


def find_cautions(metrics: Mapping[Any, float] | pd.Series) -> str:
    if metrics.get("ruined", 0.0) > 0.0:
        day = metrics.get("ruin_time", math.nan)
        return "ruined" if math.isnan(day) else f"ruined, day {day:.0f}"
    found = ["negative growth"] if metrics.get("cagr", 0.0) < 0.0 else []
    found += [f"drawdown over {DEEP:.0%}".replace("%", " %")] if _is_deep(metrics) else []
    return ", ".join(found)


def _is_deep(metrics: Mapping[Any, float] | pd.Series) -> bool:
    return metrics.get("max_drawdown", 0.0) > DEEP


def name_sharpe(metrics: Mapping[Any, float]) -> str:
    return "Sharpe (0 after ruin)" if metrics["ruined"] > 0.0 else "Sharpe"


def count_cautions(metrics: Sequence[Mapping[Any, float]]) -> str:
    marks = [each.get("ruined", 0.0) > 0.0 or find_cautions(each) != "" for each in metrics]
    n = sum(marks)
    if not n:
        return ""
    has = "has" if n == 1 else "have"
    best = ", the best one among them," if marks[0] and len(marks) > 1 else ""
    of = f"{n:,} of these {len(marks):,} sets" if len(marks) > 1 else "this set"
    return f"{of}{best} {has} negative growth or a drawdown over 80 %"
