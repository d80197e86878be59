"""Text for a terminal of 80 columns: tables, titled paragraphs, shortened names."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple, SupportsFloat

import numpy as np
import pandas as pd

from backtest.base.number_text import (
    format_chance,
    format_days,
    format_money,
    format_number,
    format_percent,
    format_price,
    format_probability,
)
from backtest.base.units import format_time

NONE = "-"
signed_percent = partial(format_percent, is_signed=True)


def format_claim(value: float) -> str:
    return "yes" if value else "no"


def format_count(value: float) -> str:
    return "unlimited" if math.isinf(value) else f"{value:,.0f}"


def format_figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000.0 else f"{value:.4g}"


def format_growth(value: float) -> str:
    if math.isinf(value):
        return "above" if value > 0.0 else "below"
    return format_percent(value)


def format_round_money(amount: float) -> str:
    if math.isnan(amount):
        return "no capital tried"
    digits = max(math.floor(math.log10(amount)) - 2, 0)
    return f"{round(amount, -digits):,.0f}"


class Head(NamedTuple):
    title: str
    unit: str = ""
    style: str = "number"
    until: str = ""


STYLES: Mapping[str, Callable[[float], str]] = {
    "number": format_figure,
    "decimals": format_number,
    "percent": format_percent,
    "signed percent": signed_percent,
    "growth": format_growth,
    "signed bps": lambda rate: f"{1e4 * rate:+.4g}",
    "signed": "{:+.2f}".format,
    "p-value": "{:.3f}".format,
    "fine percent": partial(format_percent, decimals=4),
    "chance": format_chance,
    "probability": format_probability,
    "money": format_money,
    "price": format_price,
    "points": lambda fraction: f"{100.0 * fraction + 0.0:,.1f}",
    "whole": "{:.0f}".format,
    "signed money": "{:+,.2f}".format,
    "round money": format_round_money,
    "turns": "{:.2f}x".format,
    "multiple": "{:.3f}x".format,
    "count": format_count,
    "claim": format_claim,
    "days": format_days,
}
HEADS: Mapping[str, Head] = {
    "share": Head("share", "", "percent"),
    "growth": Head("growth", "per year", "percent"),
    "change_of_growth": Head("change of growth", "per year", "signed percent"),
    "log_growth": Head("log growth", "per year", "growth"),
    "in_sample": Head("in sample", "", "decimals"),
    "out_of_sample": Head("out of sample", "", "decimals"),
    "rank": Head("rank", "", "decimals"),
    "trials": Head("sets", "", "count"),
    "deflated_sharpe": Head("deflated Sharpe", "", "probability"),
    "pbo": Head("overfitting", "", "decimals"),
    "p_holm": Head("p", "corrected", "p-value"),
    "volatility": Head("volatility", "", "percent"),
    "max_drawdown": Head("max drawdown", "", "percent"),
    "total_return": Head("total return", "", "percent"),
    "impact": Head("impact", "per year", "percent"),
    "costs": Head("costs", "per year", "percent"),
    "sharpe": Head("Sharpe ratio", "", "decimals"),
    "mean_leverage": Head("mean leverage", "", "turns"),
    "capital": Head("capital", "", "money"),
    "equity": Head("equity", "money", "money"),
    "final_equity": Head("final equity", "", "money"),
    "bad_debt": Head("bad debt", "", "money"),
    "spent": Head("spent", "mean", "money"),
    "wealth_05": Head("wealth", "5 %", "money"),
    "wealth_50": Head("wealth", "median", "money"),
    "wealth_95": Head("wealth", "95 %", "money"),
    "liquidations": Head("liquidations", "", "count"),
    "liquidated": Head("liquidated", "", "claim"),
    "ruined": Head("ruined", "", "claim"),
    "ruin_days": Head("time to ruin", "days", "days"),
    "p_ruin": Head("ruin", "probability", "chance"),
    "p_liquidation": Head("liquidation", "probability", "chance"),
    "p_failure": Head("failed so far", "probability", "chance"),
    "p_failure_low": Head("interval", "", "chance", "p_failure_high"),
    "p_failure_high": Head("interval to", "", "chance"),
}


def format_table(table: pd.DataFrame, **styles: str) -> str:
    shown = {}
    for name, column in table.items():
        head = find_head(str(name))
        write = STYLES[styles.get(str(name), head.style)]
        label = f"{name} a year" if head.unit == "per year" else name
        shown[label] = [format_cell(value, write) for value in column]
    return pd.DataFrame(shown, index=table.index).to_string()


def find_head(name: str) -> Head:
    return HEADS.get(name) or Head(name.replace("_", " "))


def format_cell(value: object, write: Callable[[float], str]) -> str:
    if isinstance(value, bool | np.bool_):
        return format_claim(float(value))
    if isinstance(value, pd.Timestamp):
        return format_time(value.value)
    if isinstance(value, str) or not isinstance(value, SupportsFloat):
        return str(value)
    number = float(value)
    return NONE if math.isnan(number) else write(number)


WIDTH = 80
HARD_SPACE = "\N{NO-BREAK SPACE}"
NUMBER_AND_UNIT = re.compile(r"(?<=\d) (?=%|bp\b)")
DIRECTIONS = {
    code: f"\\u{code:04x}"
    for code in (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}


def keep_units(text: str) -> str:
    return NUMBER_AND_UNIT.sub(HARD_SPACE, text)


def clip(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: max(most - 1, 0)]}…"


def capitalize(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def escape_directions(text: str) -> str:
    return text.translate(DIRECTIONS)
