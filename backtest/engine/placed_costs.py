"""Costs over time, by bar: a series as of each open, a column as of the close before."""

from __future__ import annotations

import numpy as np
import pandas as pd

from backtest.account import find_column
from backtest.base import Cost, DataError, FloatArray, format_time
from backtest.engine.feed_arrays import as_of
from backtest.market import Market
from backtest.venue import Venue, list_dated, pick_cost
from backtest.venue.venue_parts import DATED, MAKER

FEE, TAKER, SLIPPAGE, LIQUIDATION_FEE, LIQUIDATION_SLIPPAGE, MAKER_FEE = range(6)


def place_costs(market: Market, venue: Venue) -> dict[int, FloatArray]:
    """Return the costs that change over time by row, each of shape (n_bars,) or (1,)."""
    dated = set(list_dated(venue))
    if not dated:
        return {}
    taker, maker, rate, spread, fee, worse = (
        read_cost(pick_cost(venue, name), market, f"venue.{name}") for name in DATED
    )
    share = venue.fees.maker_share
    found = {
        FEE: taker * (1.0 - share) + maker * share,
        TAKER: taker,
        SLIPPAGE: rate + 0.5 * spread,
        LIQUIDATION_FEE: fee,
        LIQUIDATION_SLIPPAGE: worse,
        MAKER_FEE: maker,
    }
    return {row: values for row, values in found.items() if len(values) > 1}


def read_cost(cost: Cost, market: Market, key: str) -> FloatArray:
    """Return a cost by bar, of shape (n_bars,), or (1,) for a constant."""
    if not isinstance(cost, str):
        return as_of(cost, market.time, key)
    values = pd.Series(find_column(market, cost, key)).ffill().to_numpy()
    low = MAKER.low if key.endswith("maker") else 0.0
    wrong = np.flatnonzero(~((values >= low) & (values < 1.0)))
    if len(wrong):
        at = format_time(int(market.time[wrong[0]]))
        raise DataError(
            f"{key} must be a fraction of the price from {low:g} up to 1 (1 bp is 0.0001), known "
            f"from the first bar on, got {cost} {values[wrong[0]]:g} in {len(wrong):,} of "
            f"{market.n_bars:,} bars, first at {at} UTC"
        )
    return np.concatenate([values[:1], values[:-1]])
