"""Names, units and periods of measures, as reports and lists of results show them."""

from __future__ import annotations

import math

import pandas as pd

from backtest.base import format_money, format_number, format_percent
from backtest.measures.measure_table import ABOUT

IN_PERCENT = ("fraction", "fraction per year")
PERIODS = {
    "1m": "minute",
    "1h": "hour",
    "1d": "day",
    "1w": "week",
}
PLAIN = ("count", "0 or 1")


def format_measure(name: str, value: float) -> str:
    if math.isnan(value):
        return "n/a"
    unit = ABOUT[name].unit
    if unit in IN_PERCENT or name == "volatility":
        return format_percent(value)
    if unit in PLAIN:
        return f"{value:,.0f}"
    return format_money(value) if unit == "money" else format_number(round(value, 2) + 0.0)


def name_unit(name: str) -> str:
    unit = ABOUT[name].unit
    if unit in PLAIN:
        return ""
    return unit.removeprefix("fraction").strip()


def format_close(stamp: pd.Timestamp, *, is_daily: bool) -> str:
    if pd.isna(stamp):
        return "not yet"
    return f"{stamp:%Y-%m-%d}" if is_daily else f"{stamp:%Y-%m-%d %H:%M}"
