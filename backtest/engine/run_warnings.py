"""Warnings of a run, each with a category of its own."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from backtest.base.errors import InfiniteLeverageWarning, LastPriceWarning, NoFillWarning
from backtest.base.units import FloatArray, IntArray, format_time

if TYPE_CHECKING:
    from backtest.market import Market

OF_EACH_RUN = (LastPriceWarning, NoFillWarning, InfiniteLeverageWarning)
"""Warnings that a sweep, a search or a comparison does not repeat for each of its runs."""


def warn_of_last_prices(market: Market, stacklevel: int = 4) -> None:
    """Warn if there are no mark prices, so that liquidations are tested on last prices."""
    if not market.has_mark:
        warnings.warn(
            "the market has no mark prices: liquidations are tested on last prices, which swing "
            "wider than marks; give mark prices: a mark file "
            "in the folder of the data, or bt.Market.from_frames(bars, mark=...)",
            LastPriceWarning,
            stacklevel=stacklevel,  # who called bt.run or bt.sweep
        )


def warn_of_outcome(name: str, no_fill: str, target: FloatArray, closes: IntArray) -> None:
    """Warn if a policy filled no order, or asked for an infinite leverage.

    ``no_fill`` is the reason, empty if there were fills; ``target`` and ``closes`` are the leverage
    and the time (ns) of each decision.
    """
    if no_fill:
        warnings.warn(f"{name} filled no order: {no_fill}", NoFillWarning, stacklevel=4)
    infinite = np.isinf(target)
    if infinite.any():
        first = format_time(int(closes[int(infinite.argmax())]))
        warnings.warn(
            f"{name} asked for an infinite leverage at {int(infinite.sum()):,} of {len(target):,} "
            f"closes, first at {first} UTC (a division by zero?): it took as much as its limits "
            "allow; return float('nan') there to leave the position, or set max_leverage",
            InfiniteLeverageWarning,
            stacklevel=4,
        )
