"""Declarations of what a field may hold, written as ``Annotated[float, COST]``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
import pandas as pd

from backtest.base.errors import Fault, ParameterError, did_you_mean
from backtest.base.json_values import repr_given
from backtest.base.ranges import Declaration, Number, read_number
from backtest.base.units import (
    BoolArray,
    FloatArray,
    format_time,
    is_currency,
    parse_duration,
    to_nanoseconds,
    utc_index,
)

if TYPE_CHECKING:
    FloatSeries: TypeAlias = pd.Series[float]
else:
    FloatSeries = pd.Series
Rate: TypeAlias = float | FloatSeries
Cost: TypeAlias = float | FloatSeries | str


def check_names(
    owner: str,
    given: Iterable[object],
    known: Sequence[str],
    needed: Sequence[str] = (),
    *,
    noun: str = "field",
) -> None:
    names = [str(name) for name in given]
    unknown = [f"{name!r}{did_you_mean(name, known)}" for name in names if name not in known]
    if unknown:
        raise ParameterError(
            f"{owner} has no {noun} {', '.join(unknown)}; use {', '.join(known) or f'no {noun}s'}"
        )
    missing = ", ".join(name for name in needed if name not in names)
    if missing:
        raise ParameterError(f"{owner} needs {missing}, which has no default")


POSITIVE = Number(0, open_low=True)
NOT_NEGATIVE = Number(0)
SHARE = Number(0, 1)
COST = Number(0, 1, open_high=True)


@dataclass(frozen=True)
class Whole(Declaration):
    low: int
    kind: ClassVar[type] = int

    def read(self, value: Any) -> int:
        number = float(read_number(value))
        if math.isfinite(number):
            read_number(value, whole=True)
        return int(Number(self.low).read(value))

    def admits(self, values: FloatArray) -> BoolArray:
        is_whole: BoolArray = values == np.rint(values)
        return Number(self.low).admits(values) & is_whole


class Flag(Declaration):
    kind: ClassVar[type] = bool

    def read(self, value: Any) -> bool:
        if not isinstance(value, bool | np.bool_):
            raise Fault("must be True or False")
        return bool(value)


class Text(Declaration):
    kind: ClassVar[type] = str

    def read(self, value: Any) -> str:
        if not isinstance(value, str) or not value:
            raise Fault("must be text")
        return value


class Currency(Declaration):
    kind: ClassVar[type] = str

    def read(self, value: Any) -> str:
        if not is_currency(value):
            raise Fault("must be a currency in capital letters, 'USDT' for example")
        return str(value)


class Duration(Declaration):
    kind: ClassVar[type] = str

    def read(self, value: Any) -> str:
        try:
            parse_duration(value if isinstance(value, str) else "")
        except ParameterError:
            raise Fault("must be a duration such as '60s' or '7d'") from None
        return str(value)


def read_time(value: Any) -> int:
    """Return a time as UTC nanoseconds."""
    try:
        return to_nanoseconds(value)
    except ParameterError:
        raise Fault("must be a time such as '2021-05-19' or '2021-05-19T12:00' (UTC)") from None


class Time(Declaration):
    kind: ClassVar[type] = str

    def read(self, value: Any) -> str:
        moment = read_time(value)
        is_text = isinstance(value, str)
        return value if is_text else pd.Timestamp(moment, tz="UTC").isoformat()


@dataclass(frozen=True)
class Timed(Declaration):
    number: Number
    constant: bool = True
    kind: ClassVar[type] = float

    def read(self, value: Any) -> Rate:
        if self.constant and not isinstance(value, pd.Series):
            return self.number.read(value)
        series = read_timed(value)
        for position in (int(series.argmin()), int(series.argmax())):
            number = float(series.iloc[position])
            try:
                self.number.read(number)
            except Fault as fault:
                found = f"{repr_given(number)} at {_format(series.index, position)}"
                raise Fault(str(fault), found) from None
        return series

    def admits(self, values: FloatArray) -> BoolArray:
        return self.number.admits(values)


@dataclass(frozen=True)
class DatedCost(Declaration):
    number: Number
    kind: ClassVar[type] = float

    def read(self, value: Any) -> Cost:
        if not isinstance(value, str):
            return Timed(self.number).read(value)
        if not value.strip() or is_number_text(value):
            raise Fault(
                "must be a number, a series by UTC time or the name of a column of the market"
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


def read_timed(series: object, *, may_be_infinite: bool = False) -> FloatSeries:
    """Return a read-only copy of a series of numbers by UTC time, to the nanosecond."""
    if not isinstance(series, pd.Series):
        raise Fault("must be a series indexed by UTC time")
    if not isinstance(series.index, pd.DatetimeIndex):
        raise Fault("must be a series indexed by UTC time", type(series.index).__name__)
    if series.empty:
        raise Fault("must have at least one value", "an empty series")
    times = _read_times(series.index)
    values = _read_values(series, may_be_infinite=may_be_infinite)
    times.flags.writeable = False
    values.flags.writeable = False
    return pd.Series(values, index=utc_index(times), copy=False)


def _read_times(index: pd.DatetimeIndex) -> np.ndarray:
    if index.tz is None:
        raise Fault(
            "must be indexed by UTC time, for example by series.tz_localize('UTC')",
            "a series without a time zone",
        )
    try:
        times = np.array(index.as_unit("ns").asi8)
    except pd.errors.OutOfBoundsDatetime:
        raise Fault("must be indexed by times from 1678 to 2261", f"{index.max()}") from None
    wrong = np.flatnonzero(index.isna() | np.append(False, np.diff(times) <= 0))
    if wrong.size:
        found = f"{index[wrong[0]]} in row {wrong[0]}"
        raise Fault("must be indexed by times that increase strictly", found)
    return times


def _read_values(series: FloatSeries, *, may_be_infinite: bool) -> np.ndarray:
    is_number = pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_bool_dtype(series)
    if not is_number or pd.api.types.is_complex_dtype(series):
        raise Fault("must hold numbers", f"a series of {series.dtype}")
    # Adding 0.0 copies, and turns -0.0 into 0.0 so that equal series have equal bytes.
    values = series.to_numpy(dtype=np.float64, na_value=np.nan) + 0.0
    wrong = np.flatnonzero(np.isnan(values) if may_be_infinite else ~np.isfinite(values))
    if wrong.size:
        found = f"{values[wrong[0]]} in {wrong.size} of {values.size} rows, first at "
        found += _format(series.index, int(wrong[0]))
        raise Fault(f"must be {'numbers' if may_be_infinite else 'finite'}", found)
    return values


def _format(index: pd.Index, position: int) -> str:
    return f"{format_time(int(pd.DatetimeIndex(index).as_unit('ns').asi8[position]))} UTC"
