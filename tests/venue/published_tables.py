"""Bracket tables as venues publish them, and venues with something changed."""

from dataclasses import replace
from math import inf
from typing import Any

import pandas as pd

from backtest.venue.venue import Bracket, Contract, Fees, Liquidation, Slippage, Venue

# Binance USD-M BTCUSDT as of 2024-10-24: floor, cap, leverage, rate, cumulative amount.
BTCUSDT = [
    (0.0, 50_000.0, 125.0, 0.004, 0.0),
    (50_000.0, 600_000.0, 100.0, 0.005, 50.0),
    (600_000.0, 3_000_000.0, 75.0, 0.0065, 950.0),
    (3_000_000.0, 12_000_000.0, 50.0, 0.01, 11_450.0),
    (12_000_000.0, 70_000_000.0, 25.0, 0.02, 131_450.0),
    (70_000_000.0, 100_000_000.0, 20.0, 0.025, 481_450.0),
    (100_000_000.0, 230_000_000.0, 10.0, 0.05, 2_981_450.0),
    (230_000_000.0, 480_000_000.0, 5.0, 0.1, 14_481_450.0),
    (480_000_000.0, 600_000_000.0, 4.0, 0.125, 26_481_450.0),
    (600_000_000.0, 800_000_000.0, 3.0, 0.15, 41_481_450.0),
    (800_000_000.0, 1_200_000_000.0, 2.0, 0.25, 121_481_450.0),
    (1_200_000_000.0, 1_800_000_000.0, 1.0, 0.5, 421_481_450.0),
]


def make_brackets(*changes: tuple[int, str, object]) -> list[Bracket]:
    """Return three sound brackets, with fields changed by (row, name, value)."""
    rows = [
        Bracket(0.0, 50_000.0, 100.0, 0.005),
        Bracket(50_000.0, 250_000.0, 50.0, 0.01),
        Bracket(250_000.0, inf, 20.0, 0.025),
    ]
    for row, name, value in changes:
        rows[row] = replace(rows[row], **{name: value})
    return rows


def make_venue(**changes: Any) -> Venue:
    """Return a sound venue with some fields changed."""
    rules: dict[str, Any] = {
        "contract": Contract(),
        "brackets": make_brackets(),
        "fees": Fees(taker=5e-4, maker=2e-4),
        "slippage": Slippage(rate=1e-4),
        "liquidation": Liquidation(fee=0.0125, slippage=0.002),
    }
    return Venue(**{**rules, **changes})


def by_day(*values: object, start: str = "2021-01-01", tz: str | None = "UTC") -> pd.Series:
    """Return values one day apart."""
    return pd.Series(list(values), index=pd.date_range(start, periods=len(values), tz=tz))


def liquidation(**changes: Any) -> Liquidation:
    """Return a liquidation rule with some fields changed."""
    return Liquidation(**{"fee": 0.0125, "slippage": 0.002, **changes})
