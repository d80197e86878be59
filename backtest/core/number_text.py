"""Texts of numbers, and tables of them: percentages, prices, amounts and durations.

NaN is written ``n/a``. Percentages and basis points have a space before their unit. What rounds to
zero has no minus: the ``z`` of a format drops it.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, Self, SupportsFloat

import numpy as np

from backtest.core.code_names import pd
from backtest.core.units import format_time

NOT_AVAILABLE = "n/a"


def write_known(write: Callable[[float], str]) -> Callable[[float], str]:
    """Return a writer of numbers that also writes NaN."""

    def write_any(value: float) -> str:
        if math.isnan(value):
            return NOT_AVAILABLE
        return write(value)

    return write_any


format_number = write_known("{:z,.2f}".format)
format_signed = write_known("{:+z.2f}".format)
format_chance = write_known(lambda probability: f"{100.0 * probability:z.3g} %")
# Rounded against the claim: 0.9499 must not read as 0.95, nor a p-value of 0.0501 as 0.050.
format_probability = write_known(lambda share: f"{math.floor(100.0 * share + 1e-9) / 100.0:.2f}")
format_p_value = write_known(lambda p: f"{math.ceil(1000.0 * p - 1e-9) / 1000.0:.3f}")


def format_percent(fraction: float, decimals: int = 2, *, is_signed: bool = False) -> str:
    if math.isnan(fraction):
        return NOT_AVAILABLE
    percent = 100.0 * fraction
    if is_signed:
        return f"{percent:+z,.{decimals}f} %"
    return f"{percent:z,.{decimals}f} %"


def format_bps(rate: object) -> str:
    """Format a fraction in basis points; one that changes over time by its range or its column."""
    if isinstance(rate, str):
        return f"by the column {rate}"
    rates: Any = rate
    if isinstance(rate, Mapping):
        rates = rate["value"]
    if np.ndim(rates) == 0:
        return f"{to_bps(rates):g} bp"
    return f"{to_bps(np.min(rates)):g} to {to_bps(np.max(rates)):g} bp by date"


def to_bps(rate: Any) -> float:
    return round(1e4 * float(rate), 6)


def format_price(price: float) -> str:
    if abs(price) >= 1000.0:
        return f"{price:z,.2f}"
    return f"{price:z.6g}"


LARGE_FRACTION = 0.995
"""From here on an amount of two digits is written as 1.00."""
SMALLEST_AMOUNT = 1e-9
"""Amounts below are written with an exponent."""


@write_known
def format_money(amount: float) -> str:
    """Format an amount: two decimals, under 1 two significant digits."""
    size = abs(amount)
    if size >= LARGE_FRACTION or size == 0.0:
        return f"{amount:z,.2f}"
    if size < SMALLEST_AMOUNT:
        return f"{amount:.1e}"
    decimals = 1 - math.floor(math.log10(size))
    text = f"{amount:z.{decimals}f}"

    # 0.00996 rounds to 0.010, which has three digits after its first zero
    is_next = abs(float(text)) >= 10.0 ** (2 - decimals)
    if is_next:
        text = f"{amount:z.{decimals - 1}f}"
    return text


def format_value(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:z.4g}"
    return str(value)


def format_setting(value: object, comma: str = ",") -> str:
    """Format a declared value: tables and lists by their items, a series by its length."""
    if isinstance(value, Mapping) and value.keys() == {"time", "value"}:
        return f"a series of {len(value['value']):,} values"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_enclose(entry)}" for name, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_enclose, value))

    # A bool is an int of Python, and is written as a word.
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:{comma}}"
    return f"{value:z{comma}.10g}"


def _enclose(value: object) -> str:
    """Format an item of a table or a list, itself one in brackets."""
    text = format_setting(value, comma="")
    if isinstance(value, Mapping | list | tuple):
        return f"({text})"
    return text


def count_nouns(number: float, noun: str, plural: str = "") -> str:
    if number == 1:
        return f"{number:,} {noun}"
    return f"{number:,} {plural or noun + 's'}"


@write_known
def format_days(days: float) -> str:
    if math.isinf(days):
        return "never"
    if days < 100.0:
        return f"{days:z,.1f}"
    return f"{days:z,.0f}"


NONE = "-"


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


def format_plain(value: float) -> str:
    if abs(value) >= 1000.0:
        return f"{value:z,.0f}"
    return f"{value:z.4g}"


def format_limit(amount: float) -> str:
    if amount == math.inf:
        return "unlimited"
    return format_money(amount)


def format_count(value: float) -> str:
    if math.isinf(value):
        return "unlimited"
    return f"{value:z,.0f}"


def format_claim(value: float) -> str:
    if value:
        return "yes"
    return "no"


EDGES = {math.inf: "unlimited", -math.inf: "ruin"}
STYLES: Mapping[str, Callable[[float], str]] = {
    "number": format_plain,
    "decimals": format_number,
    "percent": format_percent,
    "signed percent": partial(format_percent, is_signed=True),
    "growth": lambda value: EDGES.get(value) or format_percent(value),
    "p-value": format_p_value,
    "score": "{:z.3f}".format,
    "chance": format_chance,
    "probability": format_probability,
    "money": format_limit,
    "price": format_price,
    "points": lambda fraction: f"{100.0 * fraction:z,.1f}",
    "whole": "{:z.0f}".format,
    "round money": format_round_money,
    "turns": "{:z,.2f}x".format,
    "multiple": "{:z.3f}x".format,
    "count": format_count,
    "claim": format_claim,
    "days": format_days,
}


def format_cell(value: object, write: Callable[[float], str]) -> str:
    """Format a cell of a table: claims, times, texts, and numbers as ``write`` has them."""
    if isinstance(value, bool | np.bool_):
        return STYLES["claim"](float(value))
    if isinstance(value, dt.datetime):
        if pd.isna(value):
            return NONE
        return format_time(pd.Timestamp(value).value)
    if isinstance(value, str):
        return value
    if not isinstance(value, SupportsFloat):
        return str(value)

    number = float(value)
    if math.isnan(number):
        return NONE
    return write(number)


WIDTH = 80
HARD_SPACE = "\N{NO-BREAK SPACE}"
NUMBER_AND_UNIT = re.compile(r"(?<=\d) (?=%|bp\b)")
DIRECTIONS = {
    code: f"\\u{code:04x}"
    for code in (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}


def keep_units(text: str) -> str:
    return NUMBER_AND_UNIT.sub(HARD_SPACE, text)


class Measured(str):
    """The text of a measure, which knows its name and how it was formatted."""

    __slots__ = ("measure", "style")
    measure: str
    style: str

    def __new__(cls, text: str, measure: str, style: str) -> Self:
        made = super().__new__(cls, text)
        made.measure = measure
        made.style = style
        return made

    @property
    def marked(self) -> str:
        """The text between marks that a page reads, for use inside a sentence."""
        return f"\ue000{self.measure}|{self.style}\ue001{self}\ue002"


MARKED = re.compile("\ue000(\\w+)\\|([^\ue001]*)\ue001([^\ue002]*)\ue002")


def strip_marks(text: str) -> str:
    return MARKED.sub(r"\3", text)


def clip(text: str, most: int) -> str:
    """Return a text of at most ``most`` letters; one that is cut ends in an ellipsis."""
    if len(text) <= most:
        return text
    return f"{text[: max(most - 1, 0)]}…"


def capitalize(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def escape_directions(text: str) -> str:
    return text.translate(DIRECTIONS)
