"""What a summary says of the options of a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd

from backtest.base import choose_decimals, format_number, format_percent
from backtest.engine.option_results import explain_options
from backtest.measures.option_profit import EXPLAINED

if TYPE_CHECKING:
    from backtest.engine.run_options import RunOptions
    from backtest.engine.run_record import RunRecord


def describe_options(result: RunRecord, options: RunOptions) -> Iterator[str]:
    """Yield their leverage and decay, the profit explained, and what is left out."""
    metrics, decay = result.metrics, result.metrics["premium_decay"]
    turns = [format_number(metrics[f"{name}_options_leverage"]) for name in ("mean", "peak")]
    does = "lose" if decay > 0.0 else "earn"
    yield (
        f"{len(options.names):,} held; leverage by delta mean {turns[0]}, peak {turns[1]}; they "
        f"{does} {format_percent(abs(decay))} of equity a day by time"
    )
    total = explain_options(result, options, "option").loc["total"]
    places = choose_decimals(result.account.capital)
    parts = ", ".join(f"{name} {total[name]:+,.{places}f}" for name in EXPLAINED)
    share = metrics["unexplained_share"]
    yield (
        f"price profit {total['price_pnl']:+,.{places}f}: {parts}; the rests are "
        f"{format_percent(share)} of the moves of single bars"
    )
    yield "quotes fill orders of any size: their depth is not in the data"


def list_option_events(kinds: pd.Series) -> list[str]:
    """Return how many options expired, and how many orders found no quote."""
    counts = kinds.value_counts()
    words = {"expiry": "expiries", "unquoted": "orders without a quote"}
    return [f"{words[kind]} {counts[kind]:,}" for kind in words if counts.get(kind, 0)]
