"""Numbers as a report writes them, beside those of the terminal's summary."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from backtest.engine.result_text import (
    HARD_SPACE,
    NUMBER_AND_UNIT,
    in_bps,
    in_figures,
    in_percent,
    in_price,
)
from backtest.measures.measure_names import ABOUT

__all__ = [
    "capital",
    "clip",
    "each",
    "in_bps",
    "in_days",
    "in_figures",
    "in_fine_percent",
    "in_money",
    "in_percent",
    "in_price",
    "in_unit",
    "list_rows",
    "on_day",
    "period",
    "title",
    "unbroken",
    "unit_beside",
    "visible",
]
DIRECTIONS = {
    code: f"\\u{code:04x}"
    for code in (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}
"""The characters that set the direction of writing, and what they are shown as."""
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


def in_unit(name: str, value: float) -> str:
    """Return a measure with its unit, as docs/metrics.md gives it.

    Examples
    --------
    >>> in_unit("cagr", 0.25), in_unit("liquidations", 3.0), in_unit("ruin_time", float("nan"))
    ('25.00 %', '3', 'n/a')
    """
    unit = ABOUT[name].unit
    if math.isnan(value):
        return "n/a"
    if unit in IN_PERCENT or name == "volatility":
        return in_percent(value)
    if unit in PLAIN:
        return f"{value:,.0f}"
    return in_money(value) if unit == "money" else in_figures(round(value, 2) + 0.0)


def unit_beside(name: str) -> str:
    """Return what stands beside a measure that is written by :func:`in_unit`.

    Examples
    --------
    >>> unit_beside("cagr"), unit_beside("max_drawdown"), unit_beside("ruined")
    ('per year', '', '')
    """
    unit = ABOUT[name].unit
    if unit in PLAIN:
        return ""
    return unit.removeprefix("fraction").strip()


def in_money(value: float) -> str:
    """Return money: two decimals where it is large, six figures where it is small coins.

    Examples
    --------
    >>> in_money(12345.678), in_money(0.0123456)
    ('12,345.68', '0.0123456')
    """
    if math.isnan(value):
        return "n/a"
    return f"{value:,.2f}" if abs(value) >= 10.0 or value == 0.0 else f"{value:,.6g}"


def in_fine_percent(value: float) -> str:
    """Return a small probability as a percentage of three decimals.

    Examples
    --------
    >>> in_fine_percent(0.00012), in_fine_percent(float("nan"))
    ('0.012 %', 'n/a')
    """
    return "n/a" if math.isnan(value) else f"{100.0 * value:.3f} %"


def visible(text: str) -> str:
    r"""Return a text whose marks of direction are written out: they would reorder what follows.

    Examples
    --------
    >>> visible("a\u202eb")
    'a\\u202eb'
    """
    return text.translate(DIRECTIONS)


def capital(text: str) -> str:
    """Return a sentence with its first letter large; the rest as it is.

    Examples
    --------
    >>> capital("no BTC is left")
    'No BTC is left'
    """
    return f"{text[:1].upper()}{text[1:]}"


def clip(text: str, most: int) -> str:
    """Return a text, cut where it is longer than it may be.

    Examples
    --------
    >>> clip("volatility", 5)
    'vola…'
    """
    return text if len(text) <= most else f"{text[: most - 1]}…"


def list_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table by the names of its columns."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def unbroken(text: str) -> str:
    """Return a text in which no line ends between a number and its unit."""
    return NUMBER_AND_UNIT.sub(HARD_SPACE, text)


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


def in_days(value: float) -> str:
    """Return days, with a decimal where they are few; where there are none ever, a word.

    Examples
    --------
    >>> in_days(3.25), in_days(1200.0), in_days(float("inf"))
    ('3.2', '1,200', 'never')
    """
    if math.isnan(value):
        return "n/a"
    if math.isinf(value):
        return "never"
    return f"{value:,.1f}" if value < 100.0 else f"{value:,.0f}"


def on_day(stamp: pd.Timestamp) -> str:
    """Return a time as its day, with the time of day where there is one; none where it is not."""
    if pd.isna(stamp):
        return "not yet"
    is_midnight = stamp == stamp.normalize()
    return f"{stamp:%Y-%m-%d}" if is_midnight else f"{stamp:%Y-%m-%d %H:%M}"
