"""Costs that change over time: a series, or the name of a column of the market."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from backtest.base import Cost, Faults, ParameterError

DATED = (
    "fees.taker", "fees.maker", "slippage.rate", "slippage.spread", "liquidation.fee",
    "liquidation.slippage",
)  # fmt: skip


def pick_cost(venue: Any, name: str) -> Cost:
    group, _, field = name.partition(".")
    found: Cost = getattr(getattr(venue, group), field)
    return found


def list_dated(venue: Any) -> list[str]:
    return [name for name in DATED if isinstance(pick_cost(venue, name), pd.Series | str)]


def has_spread(venue: Any) -> bool:
    spread = venue.slippage.spread
    return isinstance(spread, str) or bool(np.any(list_numbers(spread) > 0.0))


def find_newest(cost: Cost) -> float:
    if isinstance(cost, str):
        return math.nan
    return float(cost.iloc[-1]) if isinstance(cost, pd.Series) else cost


def read_newest(cost: Cost, name: str, place: str) -> float:
    check_no_column(cost, name, place)
    return find_newest(cost)


def scale_cost(cost: Cost, factor: float, *, most: float, name: str) -> Cost:
    check_no_column(cost, name)
    if isinstance(cost, pd.Series):
        return (cost * factor).clip(upper=most)
    return min(cost * factor, most)  # type: ignore[operator] # not a column


def check_no_column(cost: Cost, name: str, place: str = "to be varied") -> None:
    if isinstance(cost, str):
        raise ParameterError(
            f"{name} must be a number or a series {place}, got the column {cost!r}"
        )


def find_fee_faults(venue: Any) -> Faults:
    """Yield fees that change in two ways, or under a requirement that needs one taker rate."""
    dated = [name for name in list_dated(venue) if name.startswith("fees")]
    if venue.fees.tiers and dated:
        yield "fees.tiers", f"must be left out with costs over time: {', '.join(dated)}"
    if venue.fees.tiers and venue.includes_close_fee:
        yield "fees.tiers", "must be left out where includes_close_fee is True: give one taker rate"
    if "fees.taker" in dated and venue.includes_close_fee:
        yield "fees.taker", "must be a number where includes_close_fee is True"


def list_numbers(cost: Cost) -> Any:
    """Return the numbers of a cost, an array of shape (n,); empty for a column."""
    return np.empty(0) if isinstance(cost, str) else np.atleast_1d(np.asarray(cost, dtype=float))
