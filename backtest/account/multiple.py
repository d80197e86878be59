"""Stops in multiples of a column of the market, such as twice the average true range."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeAlias

import numpy as np

from backtest.base import (
    BoolArray,
    Choice,
    DataError,
    Declaration,
    Fault,
    FloatArray,
    Number,
    ParameterError,
    Value,
    declared,
    did_you_mean,
    format_time,
)
from backtest.base.fields import POSITIVE

if TYPE_CHECKING:
    from backtest.market import Market


class ColumnName(Declaration):
    kind: ClassVar[type] = str

    def read(self, value: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            raise Fault("must be the name of a column of the market")
        return value


@declared
class Multiple(Value):
    """A distance of a stop: a multiple of a column of the market.

    The value known at the previous close holds for the whole bar. A value that is missing (NaN) or
    0 means no stop in that bar.

    Parameters
    ----------
    multiple : float
        The factor.
    column : str
        A column of the market, see :meth:`backtest.Market.with_columns`.
    unit : str
        ``"price"`` if the column is in units of the price, such as an average true range;
        ``"fraction"`` if it is a fraction of the price, such as a volatility.

    Examples
    --------
    >>> Multiple(2.0, "atr")
    Multiple(multiple=2.0, column='atr')
    """

    multiple: Annotated[float, POSITIVE]
    column: Annotated[str, ColumnName()]
    unit: Annotated[str, Choice("price", "fraction")] = "price"

    def __str__(self) -> str:
        return f"{self.multiple:g} x {self.column}"


Distance: TypeAlias = Multiple | float | None
"""The distance of a stop: a fraction of a price, a multiple of a column, or None for no stop."""


@dataclass(frozen=True)
class StopDistance(Declaration):
    """A fraction of a price, or a :class:`Multiple`; also written as the text ``"2*atr"``."""

    number: Number
    kind: ClassVar[type] = float
    names: ClassVar[frozenset[str]] = frozenset({"multiple", "column", "unit"})

    def read(self, value: Any) -> Multiple | float:
        """Return the fraction or the multiple."""
        if isinstance(value, Multiple):
            return value
        if isinstance(value, Mapping):
            return Multiple.from_dict(value)
        if isinstance(value, str):
            return parse_multiple(value)
        return self.number.read(value)

    def admits(self, values: FloatArray) -> BoolArray:
        """Return a mask of the fractions that :meth:`check` accepts."""
        return self.number.admits(values)


def parse_multiple(text: str) -> Multiple:
    factor, star, column = text.partition("*")
    try:
        multiple = float(factor)
    except ValueError:
        star, multiple = "", 0.0
    if not star or not column.strip():
        raise Fault("must be a fraction, or a multiple of a column such as '2*atr'")
    return Multiple(multiple, column.strip())


def find_factor(stop: Distance) -> float:
    """Return the fraction or the factor of a stop; 0 if there is none."""
    return stop.multiple if isinstance(stop, Multiple) else stop or 0.0


def is_price_distance(stop: Distance) -> bool:
    """Return whether the distance of a stop is one in price, not a fraction of it."""
    return isinstance(stop, Multiple) and stop.unit == "price"


def find_column(market: Market, name: str, key: str) -> FloatArray:
    if name in market.columns:
        return market.columns[name]
    known = ", ".join(market.columns) or "none"
    raise ParameterError(
        f"{key}: the market has no column {name!r}{did_you_mean(name, market.columns)}, "
        f"its columns are: {known}; add it with market.with_columns({name}=values)"
    )


def read_scale(stop: Distance, market: Market, key: str) -> FloatArray:
    """Return what multiplies the factor of a stop in each bar: the column at the previous close.

    A single 1 for a stop that is a fraction.
    """
    if not isinstance(stop, Multiple):
        return np.ones(1)
    values = find_column(market, stop.column, key)
    below = np.flatnonzero(values < 0.0)
    if len(below):
        raise DataError(
            f"{key} must be a distance of at least 0, got {stop.column} {values[below[0]]:g} "
            f"in {len(below):,} bars, first at {format_time(int(market.time[below[0]]))} UTC"
        )
    return np.concatenate([[np.nan], values[:-1]])
