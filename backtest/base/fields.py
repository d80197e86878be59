"""Declarations of what a field may hold, written as ``Annotated[float, COST]``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeAlias

import numpy as np
import pandas as pd

from backtest.base.errors import ParameterError, did_you_mean
from backtest.base.json_values import repr_plain
from backtest.base.ranges import Number, check_number
from backtest.base.units import BoolArray, FloatArray, format_time, parse_duration, utc_index

if TYPE_CHECKING:
    FloatSeries: TypeAlias = pd.Series[float]
else:
    FloatSeries = pd.Series
Rate: TypeAlias = float | FloatSeries
Cost: TypeAlias = float | FloatSeries | str


class Declaration(Protocol):
    kind: ClassVar[type]

    def check(self, name: str, value: object, *, where: str) -> object:
        """Return the value in its declared type, or raise a ParameterError."""


def check_names(
    owner: str,
    given: Iterable[object],
    known: Sequence[str],
    needed: Sequence[str] = (),
    *,
    noun: str = "field",
    where: str,
) -> None:
    names = [str(name) for name in given]
    unknown = [f"{name!r}{did_you_mean(name, known)}" for name in names if name not in known]
    if unknown:
        raise ParameterError(
            f"{owner} has no {noun} {', '.join(unknown)}",
            where=where,
            cure=f"use {', '.join(known) or f'no {noun}s'}",
        )
    missing = ", ".join(name for name in needed if name not in names)
    if missing:
        raise ParameterError(
            f"{owner} needs {missing}, which has no default",
            where=where,
            cure=f"add {missing}",
        )


POSITIVE = Number(0, open_low=True)
NOT_NEGATIVE = Number(0)
SHARE = Number(0, 1)
COST = Number(0, 1, open_high=True)


@dataclass(frozen=True)
class Whole:
    low: int
    kind: ClassVar[type] = int

    def check(self, name: str, value: object, *, where: str) -> int:
        number = float(check_number(name, value, where=where))
        if math.isfinite(number):
            check_number(name, value, where=where, whole=True)
        return int(Number(self.low).check(name, value, where=where))

    def admits(self, values: FloatArray) -> BoolArray:
        is_whole: BoolArray = values == np.rint(values)
        return Number(self.low).admits(values) & is_whole


@dataclass(frozen=True)
class Flag:
    kind: ClassVar[type] = bool

    def check(self, name: str, value: object, *, where: str) -> bool:
        if not isinstance(value, bool | np.bool_):
            raise ParameterError(
                f"{name} must be True or False, got {repr_plain(value)}",
                where=where,
                cure="write True or False",
            )
        return bool(value)


@dataclass(frozen=True)
class Text:
    kind: ClassVar[type] = str

    def check(self, name: str, value: object, *, where: str) -> str:
        if not isinstance(value, str) or not value:
            raise ParameterError(
                f"{name} must be text, got {repr_plain(value)}",
                where=where,
                cure=f"give {name} as text",
            )
        return value


@dataclass(frozen=True)
class Duration:
    kind: ClassVar[type] = str

    def check(self, name: str, value: object, *, where: str) -> str:  # noqa: ARG002 - as the others
        parse_duration(value if isinstance(value, str) else repr_plain(value), where=where)
        return str(value)


@dataclass(frozen=True)
class Timed:
    number: Number
    constant: bool = True
    kind: ClassVar[type] = float

    def check(self, name: str, value: object, *, where: str) -> Rate:
        if self.constant and not isinstance(value, pd.Series):
            return self.number.check(name, value, where=where)
        series = check_series(name, value, where=where)
        for position in (int(series.argmin()), int(series.argmax())):
            place = f"{where}, at {_format(series.index, position)}"
            self.number.check(name, float(series.iloc[position]), where=place)
        return series

    def admits(self, values: FloatArray) -> BoolArray:
        return self.number.admits(values)


@dataclass(frozen=True)
class DatedCost:
    number: Number
    kind: ClassVar[type] = float

    def check(self, name: str, value: object, *, where: str) -> Cost:
        if not isinstance(value, str):
            return Timed(self.number).check(name, value, where=where)
        if not value.strip() or is_number_text(value):
            raise ParameterError(
                f"{name} must be a number, a series by UTC time or the name of a column of the "
                f"market, got {repr_plain(value)}",
                where=where,
                cure=f"write {name}=0.0005, or the name of a column: {name}='spread'",
            )
        return value

    def admits(self, values: FloatArray) -> BoolArray:
        return self.number.admits(values)


def is_number_text(text: str) -> bool:
    try:
        float(text.strip().rstrip("%"))
    except ValueError:
        return False
    return True


def check_series(
    name: str, series: object, *, where: str, may_be_infinite: bool = False
) -> FloatSeries:
    """Return a read-only copy of a series of numbers by UTC time, to the nanosecond."""
    if not isinstance(series, pd.Series) or not isinstance(series.index, pd.DatetimeIndex):
        found = (
            repr_plain(series) if not isinstance(series, pd.Series) else type(series.index).__name__
        )
        raise ParameterError(
            f"{name} must be a series indexed by UTC time, got {found}",
            where=where,
            cure="give pd.Series(values, index=pd.DatetimeIndex(times, tz='UTC'))",
        )
    if series.empty:
        raise ParameterError(
            f"{name} must have at least one value, got an empty series",
            where=where,
            cure=f"leave {name} out",
        )
    times = _check_times(name, series.index, where=where)
    values = _check_values(name, series, where=where, may_be_infinite=may_be_infinite)
    times.flags.writeable = False
    values.flags.writeable = False
    return pd.Series(values, index=utc_index(times), name=name, copy=False)


def _check_times(name: str, index: pd.DatetimeIndex, *, where: str) -> np.ndarray:
    if index.tz is None:
        raise ParameterError(
            f"{name} must be indexed by UTC time, got a series without a time zone",
            where=where,
            cure="set the time zone of its index, for example series.tz_localize('UTC')",
        )
    try:
        times = np.array(index.as_unit("ns").asi8)
    except pd.errors.OutOfBoundsDatetime as error:
        raise ParameterError(
            f"{name} must be indexed by times from 1678 to 2261, got one up to {index.max()}",
            where=where,
            cure="correct the times that are out of range",
        ) from error
    wrong = np.flatnonzero(index.isna() | np.append(False, np.diff(times) <= 0))
    if wrong.size:
        raise ParameterError(
            f"{name} must be indexed by times that increase strictly, got {index[wrong[0]]} "
            f"in row {wrong[0]}",
            where=where,
            cure="sort it (series.sort_index()) and keep one value per time",
        )
    return times


def _check_values(
    name: str, series: FloatSeries, *, where: str, may_be_infinite: bool
) -> np.ndarray:
    is_number = pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_bool_dtype(series)
    if not is_number or pd.api.types.is_complex_dtype(series):
        raise ParameterError(
            f"{name} must hold numbers, got a series of {series.dtype}",
            where=where,
            cure="convert it: series.astype(float)",
        )
    # Adding 0.0 copies, and turns -0.0 into 0.0 so that equal series have equal bytes.
    values = series.to_numpy(dtype=np.float64, na_value=np.nan) + 0.0
    wrong = np.flatnonzero(np.isnan(values) if may_be_infinite else ~np.isfinite(values))
    if wrong.size:
        raise ParameterError(
            f"{name} must be {'numbers' if may_be_infinite else 'finite'}, "
            f"got {values[wrong[0]]} in {wrong.size} of {values.size} rows",
            where=f"{where}, first at {_format(series.index, int(wrong[0]))}",
            cure="fill or drop those rows",
        )
    return values


def _format(index: pd.Index, position: int) -> str:
    return f"{format_time(int(pd.DatetimeIndex(index).as_unit('ns').asi8[position]))} UTC"
