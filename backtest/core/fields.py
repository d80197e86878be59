"""Declarations of what fields and arguments may hold: ``Annotated[float, Range(0.0, 1.0)]``."""

from __future__ import annotations

import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, get_args

import numpy as np
from pydantic_core import PydanticCustomError, core_schema

from backtest.core import moments, units
from backtest.core.checked_calls import PLAIN, checked_fields, keep_if
from backtest.core.code_names import is_series, pd
from backtest.core.errors import (
    BacktestError,
    Fault,
    ParameterError,
    describe_fraction,
    did_you_mean,
)
from backtest.core.json_values import repr_given

Condition: TypeAlias = "tuple[str, object] | None"


class Declaration(ABC):
    """What a field or an argument may hold, written as ``Annotated[float, declaration]``."""

    kind: ClassVar[type] = str

    @abstractmethod
    def read(self, value: Any) -> Any:
        """Return a value as it is held, or raise a Fault."""

    def check(self, name: str, value: object, *, whole: bool = False) -> Any:
        """Return the value as it is held.

        Raises
        ------
        ParameterError
            If it is not what is declared, or not whole where ``whole``.
        """
        try:
            if whole:
                return int(self.read(read_number(value, whole=True)))
            return self.read(value)
        except Fault as fault:
            got = fault.found or repr_given(value)
            raise ParameterError(f"{name} {fault}, got {got}") from None

    def __get_pydantic_core_schema__(self, source: Any, _: Any) -> core_schema.CoreSchema:
        schema = core_schema.no_info_plain_validator_function(self._read_field)
        if type(None) in get_args(source):
            return core_schema.nullable_schema(schema)
        return schema

    def _read_field(self, value: Any) -> Any:
        try:
            return self.read(value)
        except Fault as fault:
            context = {"rule": str(fault), "found": fault.found}
        except BacktestError as error:  # of a value inside: it has all of its own faults
            raise PydanticCustomError("inner", "{text}", {"text": str(error)}) from None
        raise PydanticCustomError("rule", "{rule}", context)


@checked_fields
@dataclass(frozen=True, repr=False)
class Range(Declaration):
    """Numbers from ``low`` to ``high``, both included.

    Parameters
    ----------
    low, high : float
        The bounds; ``high`` may be infinite.
    unit : str
        What the number counts, for example ``"bars"`` or ``"per sqrt(year)"``.
    log : bool
        Whether ratios matter rather than differences (search on a logarithmic scale).
    when : (name, value) or (name, (value, value, ...)), optional
        The parameter matters only while another one has such a value. Where it does not matter, a
        search leaves it at its default.
    length : int
        Of a parameter that is a list, ``Annotated[tuple[float, ...], Range(0, 10, length=3)]``: how
        many numbers it has, each in the range; 0 for a single number.
    searched : bool
        Whether a search that names no space varies it; if not, only one whose space names it does.
    """

    low: float
    high: float
    unit: str = ""
    log: bool = False
    when: Condition = None
    length: int = 0
    searched: bool = True

    def __post_init__(self) -> None:
        if not self.low <= self.high or (self.log and not self.low > 0):
            raise ParameterError(
                f"a Range needs low <= high, and low > 0 on a log scale, got {self!r}"
            )

    def __repr__(self) -> str:
        """Return the call that makes this range; what is at its default is left out."""
        parts = [f"{self.low:g}", f"{self.high:g}"]

        # What is not at its default, in the order of the fields.
        if self.unit:
            parts.append(repr(self.unit))
        if self.log:
            parts.append("log=True")
        if self.when:
            parts.append(f"when={self.when!r}")
        if self.length:
            parts.append(f"length={self.length}")
        if not self.searched:
            parts.append("searched=False")
        return f"Range({', '.join(parts)})"

    def __str__(self) -> str:
        text = f"{self.low:g} to {self.high:g}"
        if self.length:
            text = f"{self.length} numbers, each {text}"
        if self.unit:
            text = f"{text} {self.unit}"
        return text

    def read(self, value: Any) -> float:
        """Return the number, or raise a Fault."""
        number = read_number(value)
        if not self.low <= number <= self.high:
            raise Fault(f"must be {self}")
        return number


@dataclass(frozen=True, init=False, repr=False)
class Choice(Declaration):
    """One of a few named options; ``when`` is that of :class:`Range`."""

    options: tuple[str, ...] = field(default=())
    unit: str = ""
    when: Condition = None

    def __init__(self, *options: str, unit: str = "", when: Condition = None) -> None:
        object.__setattr__(self, "options", options)
        object.__setattr__(self, "unit", unit)
        object.__setattr__(self, "when", when)

    def __repr__(self) -> str:
        parts = [*map(repr, self.options)]
        if self.when:
            parts.append(f"when={self.when!r}")
        return f"Choice({', '.join(parts)})"

    def __str__(self) -> str:
        return ", ".join(self.options)

    def read(self, value: Any) -> str:
        """Return the option, or raise a Fault."""
        if not isinstance(value, str) or value not in self.options:  # a series has no truth value
            rule = f"must be {self}"
            if len(self.options) > 1:
                rule = f"must be one of {self}"
            raise Fault(rule, f"{repr_given(value)}{did_you_mean(value, self.options)}")
        return str(value)


def read_number(value: object, *, whole: bool = False) -> float:
    """Return a number as a float, or raise a Fault; NaN and bools are none.

    With ``whole`` it must be a whole number. One that is beyond all floats becomes infinite.
    """
    number = math.nan
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:  # a whole number of Python, which may have any size
            number = math.inf
            if value < 0:
                number = -math.inf

    if whole and not number.is_integer():
        raise Fault("must be a whole number")
    if math.isnan(number):
        raise Fault(f"must be a number{describe_fraction(value)}")
    return number


@dataclass(frozen=True)
class Real(Declaration):
    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    may_be_infinite: bool = False
    kind: ClassVar[type] = float

    def __str__(self) -> str:
        """Return the bounds in words, for messages."""
        bounds = []
        if math.isfinite(self.low) and self.open_low:
            bounds.append(f"over {self.low:g}")
        elif math.isfinite(self.low):
            bounds.append(f"at least {self.low:g}")

        if math.isfinite(self.high) and self.open_high:
            bounds.append(f"below {self.high:g}")
        elif math.isfinite(self.high):
            bounds.append(f"at most {self.high:g}")
        return " and ".join(bounds) or "finite"

    def read(self, value: Any) -> float:
        number = read_number(value)
        if not self._is_inside(number):
            raise Fault(f"must be {self}")
        if math.isinf(number) and not self.may_be_infinite:
            raise Fault("must be finite")
        return number

    def admits(self, values: units.FloatArray) -> units.BoolArray:
        """Return which of some numbers :meth:`read` accepts, of their shape."""
        are_inside: units.BoolArray = self._is_inside(values)
        return are_inside & (self.may_be_infinite | np.isfinite(values))

    def _is_inside(self, number: Any) -> Any:
        """Return whether a number, or each of an array, is within the bounds."""
        is_inside = (number >= self.low) & (number <= self.high)
        if self.open_low:
            is_inside &= number != self.low
        if self.open_high:
            is_inside &= number != self.high
        return is_inside


def to_real(values: Any) -> np.ndarray:
    """Return numbers as float64, a copy; complex ones are a TypeError, not their real parts."""
    array = np.asarray(values)
    if np.iscomplexobj(array):
        raise TypeError("a complex number has no sign")
    return np.array(array, dtype=np.float64)


def to_numbers(values: object, name: str) -> np.ndarray:
    try:
        return to_real(values)
    except (TypeError, ValueError, OverflowError) as error:
        raise ParameterError(f"{name} must be numbers: {error}") from error


def check_range(name: str, value: object, **bounds: Any) -> float:
    """Check one number against bounds of :class:`Real`; infinite ones are allowed."""
    return float(Real(**bounds, may_be_infinite=True).check(name, value))


if TYPE_CHECKING:
    FloatSeries: TypeAlias = pd.Series[float]
else:

    class FloatSeries:
        """Stands for ``pd.Series`` in annotations, so that they do not load pandas."""

    PLAIN[FloatSeries] = keep_if("a Series", is_series)

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
    """Raise ParameterError if a name is unknown, or one of the needed ones is missing."""
    names = [*map(str, given)]
    unknown = [f"{name!r}{did_you_mean(name, known)}" for name in names if name not in known]
    if unknown:
        listed = ", ".join(known) or f"no {noun}s"
        raise ParameterError(f"{owner} has no {noun} {', '.join(unknown)}; use {listed}")

    missing = ", ".join(name for name in needed if name not in names)
    if missing:
        raise ParameterError(f"{owner} needs {missing}, which has no default")


ANY_NUMBER = Real(may_be_infinite=True)
POSITIVE = Real(0, open_low=True)
OVER_ZERO = Real(0, open_low=True, may_be_infinite=True)
NOT_NEGATIVE = Real(0)
SHARE = Real(0, 1)
INNER_SHARE = Real(0, 1, open_low=True, open_high=True)
COST = Real(0, 1, open_high=True)


@dataclass(frozen=True)
class Whole(Declaration):
    low: int
    kind: ClassVar[type] = int

    def read(self, value: Any) -> int:
        number = read_number(value)
        if math.isfinite(number):
            read_number(value, whole=True)
        return int(Real(self.low).read(value))


class Flag(Declaration):
    kind: ClassVar[type] = bool

    def read(self, value: Any) -> bool:
        if not isinstance(value, bool | np.bool_):
            raise Fault("must be True or False")
        return bool(value)


class Text(Declaration):
    def read(self, value: Any) -> str:
        if not isinstance(value, str) or not value:
            raise Fault("must be text")
        return value


class Duration(Declaration):
    def read(self, value: Any) -> str:
        rule = "must be a duration such as '60s' or '7d'"
        if not isinstance(value, str):
            raise Fault(rule)
        try:
            units.parse_duration(value)
        except ParameterError:
            raise Fault(rule) from None
        return str(value)


def read_time(value: Any) -> int:
    try:
        return moments.to_nanoseconds(value)
    except ParameterError:
        raise Fault("must be a time such as '2021-05-19' or '2021-05-19T12:00' (UTC)") from None


class Time(Declaration):
    def read(self, value: Any) -> str:
        nanoseconds = read_time(value)
        # A text stays as it was written; an epoch does not say its unit.
        if isinstance(value, str) and not value.strip().isdigit():
            return value
        return pd.Timestamp(nanoseconds, tz="UTC").isoformat()


@dataclass(frozen=True)
class Timed(Declaration):
    number: Real
    constant: bool = True
    kind: ClassVar[type] = float

    def read(self, value: Any) -> Cost:
        """Return a constant or a series whose numbers are all in range; Fault names the first."""
        if self.constant and not is_series(value):
            return self.number.read(value)
        series = read_timed(value, may_be_infinite=self.number.may_be_infinite)

        # If the least and the largest are in range, all are.
        for position in (int(series.argmin()), int(series.argmax())):
            number = float(series.iloc[position])
            try:
                self.number.read(number)
            except Fault as fault:
                got = f"{repr_given(number)} at {_format(series.index, position)}"
                raise Fault(str(fault), got) from None
        return series


class DatedCost(Timed):
    def read(self, value: Any) -> Cost:
        if not isinstance(value, str):
            return super().read(value)
        number = pd.to_numeric(value.strip().rstrip("%"), errors="coerce")
        if not value.strip() or not math.isnan(number):
            raise Fault(
                f"must be a number{describe_fraction(value)}, a series by UTC time or the name of "
                "a column of the market"
            )
        return value


def read_timed(series: object, *, may_be_infinite: bool = False) -> FloatSeries:
    """Return a read-only copy of a series of numbers by UTC time, to the nanosecond."""
    if not is_series(series):
        raise Fault("must be a series indexed by UTC time")
    series = moments.by_dates(series)
    times = _read_times(series)
    is_number = pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_bool_dtype(series)
    if not is_number or pd.api.types.is_complex_dtype(series):
        raise Fault("must hold numbers", f"a series of {series.dtype}")

    # Adding 0.0 copies, and turns -0.0 into 0.0 so that equal series have equal bytes.
    values = series.to_numpy(dtype=np.float64, na_value=np.nan) + 0.0
    rule = "must be finite"
    is_wrong = ~np.isfinite(values)
    if may_be_infinite:
        rule = "must be numbers"
        is_wrong = np.isnan(values)
    wrong = np.flatnonzero(is_wrong)
    if wrong.size:
        first = _format(series.index, int(wrong[0]))
        got = f"{values[wrong[0]]} in {wrong.size} of {values.size} rows, first at {first}"
        raise Fault(rule, got)

    times.flags.writeable = False
    values.flags.writeable = False
    return pd.Series(values, index=units.utc_index(times), copy=False)


def _read_times(series: Any) -> units.IntArray:
    """Return the times of a series, UTC ns; raise a Fault unless they are dates that increase."""
    index = series.index
    if not isinstance(index, pd.DatetimeIndex):
        raise Fault(
            "must be a series indexed by UTC time, pd.Series(values, index=market.times)",
            type(index).__name__,
        )
    if series.empty:
        raise Fault("must have at least one value", "an empty series")
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
        got = f"{index[wrong[0]]} in row {wrong[0]}"
        raise Fault("must be indexed by times that increase strictly", got)
    return times


def _format(index: pd.Index, position: int) -> str:
    stamps = pd.DatetimeIndex(index).as_unit("ns").asi8
    return f"{units.format_time(int(stamps[position]))} UTC"
