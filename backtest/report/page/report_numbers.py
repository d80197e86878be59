"""Names, units and periods of measures, as reports and lists of results show them."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from backtest.base.number_text import format_money, format_number, format_percent
from backtest.measures.measure_names import ABOUT

IN_PERCENT = ("fraction", "fraction per year")
PERIODS = {
    "1m": ("minute", "one-minute"),
    "1h": ("hour", "hourly"),
    "1d": ("day", "daily"),
    "1w": ("week", "weekly"),
}
PLAIN = ("count", "0 or 1")


def title(name: str) -> str:
    """Return the name of a measure for reading.

    Examples
    --------
    >>> title("var_95"), title("max_drawdown"), title("price_1x")
    ('VaR 95 %', 'max drawdown', 'price at 1x')
    """
    short, _, level = name.partition("_")
    if short in ("var", "es"):
        return f"{'VaR' if short == 'var' else 'ES'} {level} %"
    known = {"price_1x": "price at 1x", "cagr": "CAGR", "price_pnl": "price profit and loss"}
    known |= {each: each.capitalize() for each in ("sharpe", "sortino", "calmar")}
    return known.get(name, name.replace("_", " "))


def format_measure(name: str, value: float) -> str:
    """Format a measure in its unit, as docs/metrics.md gives it.

    Examples
    --------
    >>> format_measure("cagr", 0.25), format_measure("liquidations", 3.0)
    ('25.00 %', '3')
    """
    unit = ABOUT[name].unit
    if math.isnan(value):
        return "n/a"
    if unit in IN_PERCENT or name == "volatility":
        return format_percent(value)
    if unit in PLAIN:
        return f"{value:,.0f}"
    return format_money(value) if unit == "money" else format_number(round(value, 2) + 0.0)


def unit_beside(name: str) -> str:
    """Return the unit to print next to a measure that :func:`format_measure` wrote.

    Examples
    --------
    >>> unit_beside("cagr"), unit_beside("max_drawdown"), unit_beside("ruined")
    ('per year', '', '')
    """
    unit = ABOUT[name].unit
    if unit in PLAIN:
        return ""
    return unit.removeprefix("fraction").strip()


def list_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table by the names of its columns."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def period(duration: str) -> str:
    """Return one sampling period in words.

    Examples
    --------
    >>> period("1d"), period("4h")
    ('day', 'period of 4h')
    """
    return PERIODS.get(duration, (f"period of {duration}", ""))[0]


def each(duration: str) -> str:
    """Return how often a sampling period comes.

    Examples
    --------
    >>> each("1d"), each("4h")
    ('daily', '4h')
    """
    return PERIODS.get(duration, ("", duration))[1]


def on_day(stamp: pd.Timestamp) -> str:
    """Return a time as its day, with the time of day where there is one; none where it is not."""
    if pd.isna(stamp):
        return "not yet"
    is_midnight = stamp == stamp.normalize()
    return f"{stamp:%Y-%m-%d}" if is_midnight else f"{stamp:%Y-%m-%d %H:%M}"
