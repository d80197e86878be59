"""Declarations of numbers and options: ranges, choices and bounds."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

import numpy as np

from backtest.base.checked_calls import checked, checked_fields
from backtest.base.errors import ParameterError, did_you_mean
from backtest.base.json_values import repr_given
from backtest.base.units import BoolArray, FloatArray

Condition: TypeAlias = "tuple[str, object] | None"


@checked_fields
@dataclass(frozen=True, repr=False)
class Range:
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
                f"a Range needs low <= high, and low > 0 on a log scale, got {self!r}",
                where="the declaration of a parameter",
                cure="swap or change the bounds",
            )

    def __repr__(self) -> str:
        parts = [f"{self.low:g}", f"{self.high:g}"]
        parts += [repr(self.unit)] if self.unit else []
        parts += ["log=True"] if self.log else []
        parts += [f"when={self.when!r}"] if self.when else []
        return f"Range({', '.join(parts)})"

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}" + (f" {self.unit}" if self.unit else "")

    def check(self, name: str, value: object, *, where: str, whole: bool = False) -> float | int:
        """Return the value as a number inside the range.

        Raises
        ------
        ParameterError
            If it is not a number, not whole where ``whole``, NaN, or out of range.
        """
        number = check_number(name, value, where=where, whole=whole)
        if not self.low <= number <= self.high:
            raise ParameterError(
                f"{name} must be {self}, got {repr_given(value)}",
                where=where,
                cure=f"choose a value from {self.low:g} to {self.high:g}",
            )
        return number

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
class Choice:
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

    def check(self, name: str, value: object, *, where: str, whole: bool = False) -> str:  # noqa: ARG002 - one signature with Range
        """Return the option.

        Raises
        ------
        ParameterError
            If it is not one of the options.
        """
        if not isinstance(value, str) or value not in self.options:  # a series has no truth value
            raise ParameterError(
                f"{name} must be one of {self}, got {repr_given(value)}"
                + did_you_mean(value, self.options),
                where=where,
                cure=f"choose one of {self}",
            )
        return str(value)

    def invalid(self, *, whole: bool = False) -> Iterator[object]:  # noqa: ARG002 - as check
        """Yield values that :meth:`check` rejects."""
        yield from ("no such option", None, 1.5)


def read_range(low: float, high: float, *, is_log: bool, where: str) -> Range:
    try:
        return Range(low, high, log=is_log)
    except ParameterError as error:
        raise ParameterError(error.problem, where=where, cure=error.cure) from error


def check_number(name: str, value: object, *, where: str, whole: bool = False) -> float | int:
    kind = "a whole number" if whole else "a number"
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    number = to_float(value) if real else math.nan
    if math.isnan(number) or (whole and not number.is_integer()):
        raise ParameterError(
            f"{name} must be {kind}, got {repr_given(value)}",
            where=where,
            cure=f"give {name} as {kind}",
        )
    return int(number) if whole else number


def to_float(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type] # a real number has one
    except OverflowError:
        return math.inf if value > 0 else -math.inf  # type: ignore[operator] # as above


@dataclass(frozen=True)
class Number:
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

    def check(self, name: str, value: object, *, where: str) -> float:
        number = float(check_number(name, value, where=where))
        over = number > self.low if self.open_low else number >= self.low
        under = number < self.high if self.open_high else number <= self.high
        if not (over and under):
            raise ParameterError(
                f"{name} must be {self}, got {repr_given(value)}",
                where=where,
                cure=f"choose a value that is {self}",
            )
        if math.isinf(number) and not self.may_be_infinite:
            raise ParameterError(
                f"{name} must be finite, got {value!r}",
                where=where,
                cure=f"give {name} as a finite number",
            )
        return number

    def admits(self, values: FloatArray) -> BoolArray:
        over = values > self.low if self.open_low else values >= self.low
        under = values < self.high if self.open_high else values <= self.high
        return over & under & (self.may_be_infinite | np.isfinite(values))


def check_range(
    name: str,
    value: object,
    *,
    where: str,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """Check one number as :class:`Number` does; infinite ones are allowed."""
    if type(value) is float and low < value < high:  # the usual case, at once
        return value
    allowed = Number(low, high, open_low, open_high, may_be_infinite=True)
    return allowed.check(name, value, where=where)
