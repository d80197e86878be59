"""Declarations of numbers and options: ranges, choices and bounds."""

from __future__ import annotations

import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias, get_args

import numpy as np
from pydantic_core import PydanticCustomError, core_schema

from backtest.base.checked_calls import checked, checked_fields
from backtest.base.errors import BacktestError, Fault, ParameterError, did_you_mean
from backtest.base.json_values import repr_given
from backtest.base.units import BoolArray, FloatArray

Condition: TypeAlias = "tuple[str, object] | None"


def explain_fault(name: str, fault: Fault, value: object) -> ParameterError:
    return ParameterError(f"{name} {fault}, got {fault.found or repr_given(value)}")


class Declaration(ABC):
    """What a field or an argument may hold, written as ``Annotated[float, declaration]``."""

    kind: ClassVar[type] = object

    @abstractmethod
    def read(self, value: Any) -> Any:
        """Return a value as it is held, or raise a Fault."""

    def check(self, name: str, value: object) -> Any:
        """Return the value as it is held, or raise a ParameterError."""
        try:
            return self.read(value)
        except Fault as fault:
            raise explain_fault(name, fault, value) from None

    def __get_pydantic_core_schema__(self, source: Any, _: Any) -> core_schema.CoreSchema:
        schema = core_schema.no_info_plain_validator_function(self._read_field)
        is_optional = type(None) in get_args(source)
        return core_schema.nullable_schema(schema) if is_optional else schema

    def _read_field(self, value: Any) -> Any:
        try:
            return self.read(value)
        except Fault as fault:
            rule, found = str(fault), fault.found
        except BacktestError as error:  # of a value inside: it has all of its own faults
            raise PydanticCustomError("inner", "{text}", {"text": str(error)}) from None
        raise PydanticCustomError("rule", "{rule}", {"rule": rule, "found": found})


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
    """

    low: float
    high: float
    unit: str = ""
    log: bool = False
    when: Condition = None

    def __post_init__(self) -> None:
        if not self.low <= self.high or (self.log and not self.low > 0):
            raise ParameterError(
                f"a Range needs low <= high, and low > 0 on a log scale, got {self!r}"
            )

    def __repr__(self) -> str:
        parts = [f"{self.low:g}", f"{self.high:g}"]
        parts += [repr(self.unit)] if self.unit else []
        parts += ["log=True"] if self.log else []
        parts += [f"when={self.when!r}"] if self.when else []
        return f"Range({', '.join(parts)})"

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}" + (f" {self.unit}" if self.unit else "")

    def read(self, value: Any, *, whole: bool = False) -> float | int:
        """Return the number, or raise a Fault."""
        number = read_number(value, whole=whole)
        if not self.low <= number <= self.high:
            raise Fault(f"must be {self}")
        return number

    def check(self, name: str, value: object, *, whole: bool = False) -> float | int:
        """Return the value as a number inside the range.

        Raises
        ------
        ParameterError
            If it is not a number, not whole where ``whole``, NaN, or out of range.
        """
        try:
            return self.read(value, whole=whole)
        except Fault as fault:
            raise explain_fault(name, fault, value) from None

    @checked
    def admits(self, values: FloatArray) -> BoolArray:
        """Return a mask of the numbers that :meth:`check` accepts, whole or not."""
        return (values >= self.low) & (values <= self.high)

    def invalid(self, *, whole: bool = False) -> Iterator[object]:
        """Yield values that :meth:`check` rejects, for tests of classes that declare this range."""
        yield from (float("nan"), "1", None)
        if math.isfinite(self.low):
            yield math.nextafter(self.low, -math.inf) if not whole else int(self.low) - 1
        if math.isfinite(self.high):
            yield math.nextafter(self.high, math.inf) if not whole else int(self.high) + 1
        if whole:
            yield self.low + 0.5


@dataclass(frozen=True, init=False, repr=False)
class Choice(Declaration):
    """One of a few named options; ``when`` is that of :class:`Range`."""

    options: tuple[str, ...] = field(default=())
    unit: str = ""
    when: Condition = None
    kind: ClassVar[type] = str

    def __init__(self, *options: str, unit: str = "", when: Condition = None) -> None:
        object.__setattr__(self, "options", options)
        object.__setattr__(self, "unit", unit)
        object.__setattr__(self, "when", when)

    def __repr__(self) -> str:
        parts = [repr(option) for option in self.options]
        parts += [f"when={self.when!r}"] if self.when else []
        return f"Choice({', '.join(parts)})"

    def __str__(self) -> str:
        return ", ".join(self.options)

    def read(self, value: Any) -> str:
        """Return the option, or raise a Fault."""
        if not isinstance(value, str) or value not in self.options:  # a series has no truth value
            found = repr_given(value) + did_you_mean(value, self.options)
            raise Fault(f"must be {'one of ' * (len(self.options) > 1)}{self}", found)
        return str(value)

    def check(self, name: str, value: object, *, whole: bool = False) -> str:  # noqa: ARG002 - one signature with Range
        """Return the option.

        Raises
        ------
        ParameterError
            If it is not one of the options.
        """
        return str(super().check(name, value))

    def invalid(self, *, whole: bool = False) -> Iterator[object]:  # noqa: ARG002 - as check
        """Yield values that :meth:`check` rejects."""
        yield from ("no such option", None, 1.5)


def read_range(name: str, low: float, high: float, *, is_log: bool) -> Range:
    try:
        return Range(low, high, log=is_log)
    except ParameterError as error:
        raise ParameterError(f"{name}: {error}") from error


def read_number(value: object, *, whole: bool = False) -> float | int:
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    number = to_float(value) if real else math.nan
    if math.isnan(number) or (whole and not number.is_integer()):
        raise Fault(f"must be {'a whole number' if whole else 'a number'}")
    return int(number) if whole else number


def check_number(name: str, value: object, *, whole: bool = False) -> float | int:
    try:
        return read_number(value, whole=whole)
    except Fault as fault:
        raise explain_fault(name, fault, value) from None


def to_float(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type] # a real number has one
    except OverflowError:
        return math.inf if value > 0 else -math.inf  # type: ignore[operator] # as above


@dataclass(frozen=True)
class Number(Declaration):
    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    may_be_infinite: bool = False
    kind: ClassVar[type] = float

    def __str__(self) -> str:
        lower = f"{'over' if self.open_low else 'at least'} {self.low:g}"
        upper = f"{'below' if self.open_high else 'at most'} {self.high:g}"
        texts = ((lower, self.low), (upper, self.high))
        return " and ".join(text for text, bound in texts if math.isfinite(bound)) or "finite"

    def read(self, value: Any) -> float:
        number = float(read_number(value))
        over = number > self.low if self.open_low else number >= self.low
        under = number < self.high if self.open_high else number <= self.high
        if not (over and under):
            raise Fault(f"must be {self}")
        if math.isinf(number) and not self.may_be_infinite:
            raise Fault("must be finite")
        return number

    def admits(self, values: FloatArray) -> BoolArray:
        over = values > self.low if self.open_low else values >= self.low
        under = values < self.high if self.open_high else values <= self.high
        return over & under & (self.may_be_infinite | np.isfinite(values))


def check_range(
    name: str,
    value: object,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """Check one number as :class:`Number` does; infinite ones are allowed."""
    if type(value) is float and low < value < high:  # the usual case, at once
        return value
    allowed = Number(low, high, open_low, open_high, may_be_infinite=True)
    return float(allowed.check(name, value))
