"""Tables as text for a terminal, each column in a number format of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import SupportsFloat

import numpy as np
import pandas as pd

from backtest.base.number_text import (
    format_chance,
    format_days,
    format_money,
    format_number,
    format_percent,
)

NONE = "-"
"""Stands for NaN in a table."""
signed_percent = partial(format_percent, is_signed=True)


def format_claim(value: float) -> str:
    """Return ``yes`` for 1, ``no`` for 0."""
    return "yes" if value else "no"


COLUMN_FORMATS: Mapping[str, Callable[[float], str]] = {
    "share": format_percent,
    "growth": format_percent,
    "change_of_growth": signed_percent,
    "volatility": format_percent,
    "max_drawdown": format_percent,
    "total_return": format_percent,
    "impact": format_percent,
    "costs": format_percent,
    "volume_share": partial(format_percent, decimals=4),
    "sharpe": format_number,
    "mean_leverage": "{:.2f}x".format,
    "capital": format_money,
    "transfers": "{:+,.2f}".format,
    "final_equity": format_money,
    "bad_debt": format_money,
    "spent": format_money,
    "wealth_05": format_money,
    "wealth_50": format_money,
    "wealth_95": format_money,
    "liquidations": "{:,.0f}".format,
    "ruined": format_claim,
    "ruin_days": format_days,
    "p_ruin": format_chance,
    "p_failure": format_chance,
    "p_failure_low": format_chance,
    "p_failure_high": format_chance,
}
"""The format of a column, by its name. Columns with other names have four significant digits."""
YEARLY = ("growth", "change_of_growth", "impact", "costs")
"""Columns of amounts per year, which their heads say."""


def format_table(table: pd.DataFrame, **formats: Callable[[float], str]) -> str:
    """Return a table as text: each column in the format of its name, NaN as ``-``.

    ``formats`` are those of columns whose name means something else here. The heads of ``YEARLY``
    say so.

    Examples
    --------
    >>> print(format_table(pd.DataFrame({"growth": [-0.5155, float("nan")]}, index=["a", "b"])))
      growth a year
    a      -51.55 %
    b             -
    """
    chosen = {**COLUMN_FORMATS, **formats}
    shown = {
        f"{name} a year" if name in YEARLY else name: [
            format_cell(value, chosen.get(str(name), "{:,.4g}".format)) for value in column
        ]
        for name, column in table.items()
    }
    return pd.DataFrame(shown, index=table.index).to_string()


def format_cell(value: object, write: Callable[[float], str]) -> str:
    """Return a value as text: numbers in a format, ``-`` for NaN, all else as it is."""
    if isinstance(value, bool | np.bool_):
        return format_claim(float(value))
    if isinstance(value, str) or not isinstance(value, SupportsFloat):
        return str(value)
    number = float(value)
    return NONE if math.isnan(number) else write(number)
