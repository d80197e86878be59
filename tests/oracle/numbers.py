"""Exact numbers: of floats, of durations, of series by time, and the value of a contract."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pandas as pd

DIGITS = 40
ZERO, ONE = Decimal(0), Decimal(1)
INFINITY = Decimal("Infinity")
TIE = Decimal("1e-12")  # §2: in favor of the event
LOT_TOLERANCE = Decimal("1e-6")  # §4.5, in lots
NOTHING_LEFT = Decimal("1e-9")  # §5: of the capital paid in
REMAINDER = Decimal("1e-9")  # a partial liquidation that leaves less closes whole
WORST = Decimal("0.99")  # slippage and impact together
DUST = Decimal("1e-18")  # of the capital at the start: no order
EXACT = Decimal("1e-28")  # the identity of §6
DAY = 86_400_000_000_000


def exact(number: float) -> Decimal:
    """Return the number that a float is, to its last bit."""
    return Decimal(float(number))


def decimals(values: Iterable[float]) -> list[Decimal]:
    """Return an array as exact numbers."""
    return [exact(value) for value in values]


def nanoseconds(duration: str | int) -> int:
    """Return "60s" or "1d" in nanoseconds."""
    if isinstance(duration, str):
        return int(pd.Timedelta(duration).as_unit("ns").value)
    return int(duration)


def stamps_of(series: pd.Series) -> list[int]:
    """Return the UTC index of a series in nanoseconds."""
    return [int(stamp) for stamp in pd.DatetimeIndex(series.index).as_unit("ns").asi8]


def per_name(setting: Any, name: str, default: Any = None) -> Any:
    """Return a setting of the account that may be given by instrument."""
    return setting.get(name, default) if isinstance(setting, Mapping) else setting


class AsOf:
    """A scalar or a series by UTC time, read as of a stamp: the last value at or before it."""

    def __init__(self, value: float | pd.Series) -> None:
        is_series = isinstance(value, pd.Series)
        self.stamps = stamps_of(value) if is_series else []
        self.values = decimals(value.to_numpy()) if is_series else [exact(value)]

    def __call__(self, stamp: int) -> Decimal:
        """Return the value that holds at a stamp."""
        if not self.stamps:
            return self.values[0]
        position = bisect_right(self.stamps, stamp) - 1
        if position < 0:
            raise AssertionError(f"no value at or before {stamp}")
        return self.values[position]


@dataclass(frozen=True)
class Contract:
    """§1: what one contract is worth, and the way back."""

    is_linear: bool
    size: Decimal

    def value(self, price: Decimal) -> Decimal:
        """u(P): m·P, or -m/P."""
        return self.size * price if self.is_linear else -self.size / price

    def price(self, value: Decimal) -> Decimal:
        """P of u."""
        return value / self.size if self.is_linear else -self.size / value
