"""Arguments of option formulas: checked, broadcast, and given to a formula of scalars or arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from backtest.base import (
    FloatArray,
    ParameterError,
    compile_module,
    did_you_mean,
    repr_given,
)
from backtest.base.black_kernels import MOST_CARRY

Number = float | FloatArray
Kind = str | npt.NDArray[np.str_]
Settlement = Literal["cash", "coin"]

SIGNS = {"call": 1.0, "put": -1.0}
POSITIVE = ("forward", "spot", "strike")
RATES = ("rate", "dividend")


class Formula(NamedTuple):
    scalar: Callable[..., Any]
    module: ModuleType
    kernel: str
    width: int = 0


class Terms(NamedTuple):
    """Arguments of a formula: sign and numbers, all floats or all of one shape, and flags."""

    numbers: tuple[Any, ...]
    flags: tuple[bool, ...] = ()


def read_terms(kind: Kind, numbers: Mapping[str, Number], settlement: object = None) -> Terms:
    arrays = {name: read_numbers(name, value) for name, value in numbers.items()}
    for name, array in arrays.items():
        if name not in RATES:
            check_positive(name, array, is_zero_allowed=name not in POSITIVE)
    found = broadcast(read_signs(kind), *arrays.values())
    named = dict(zip(arrays, found[1:], strict=True))
    for name in RATES:
        if name in named:
            check_carry(name, named[name], named["years"])
    flags = () if settlement is None else (is_coin(settlement),)
    return Terms(found if found[0].shape else tuple(float(each) for each in found), flags)


def evaluate(formula: Formula, terms: Terms) -> Any:
    """Return the values of a formula: floats, or arrays of the shape of its arguments."""
    first, width = terms.numbers[0], formula.width
    if not np.ndim(first):
        if any(math.isnan(number) for number in terms.numbers):
            return (math.nan,) * width if width else math.nan
        return formula.scalar(*terms.numbers, *terms.flags)
    rows = np.stack([np.ravel(each) for each in terms.numbers])
    is_known = ~np.isnan(rows.sum(axis=0))
    out = np.full((rows.shape[1], width) if width else rows.shape[1], math.nan)
    if is_known.any():
        chosen = np.ascontiguousarray(rows[:, is_known])
        found = np.empty((chosen.shape[1], *out.shape[1:]))
        getattr(compile_module(formula.module), formula.kernel)(chosen, *terms.flags, found)
        out[is_known] = found
    if not width:
        return out.reshape(first.shape)
    return tuple(out[:, k].reshape(first.shape) for k in range(width))


def broadcast(*arrays: FloatArray) -> tuple[FloatArray, ...]:
    """Return arrays of one shape; raise a ParameterError if theirs do not fit."""
    try:
        return tuple(np.broadcast_arrays(*arrays))
    except ValueError as error:
        shapes = ", ".join(str(each.shape) for each in arrays if each.shape)
        raise ParameterError(f"arguments must have shapes that broadcast, got {shapes}") from error


def read_signs(kind: Kind) -> FloatArray:
    kinds = np.asarray(kind)
    names = sorted(map(str, set(kinds.ravel().tolist())))
    wrong = [each for each in names if each not in SIGNS]
    if wrong:
        raise ParameterError(
            f"kind must be 'call' or 'put', got {repr_given(wrong[0])}"
            f"{did_you_mean(wrong[0], SIGNS)}"
        )
    return np.where(kinds == "call", 1.0, -1.0)


def read_numbers(name: str, value: object) -> FloatArray:
    try:
        given = np.asarray(value)
        array = None if given.dtype.kind in "USc" or value is None else given.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        array = None
    if array is None:
        raise ParameterError(f"{name} must be numbers, got {repr_given(value)}")
    if np.isinf(array).any():
        raise ParameterError(f"{name} must be finite, got {float(array[np.isinf(array)].flat[0])}")
    return array


def check_positive(name: str, array: FloatArray, *, is_zero_allowed: bool = False) -> None:
    with np.errstate(invalid="ignore"):
        bad = array < 0.0 if is_zero_allowed else array <= 0.0
    if bad.any():
        rule = "at least 0" if is_zero_allowed else "positive"
        count = f" in {int(bad.sum())} of {array.size} places" if array.size > 1 else ""
        raise ParameterError(f"{name} must be {rule}, got {float(array[bad].flat[0]):g}{count}")


def check_carry(name: str, rate: FloatArray, years: FloatArray) -> None:
    with np.errstate(over="ignore"):
        bad = np.abs(rate * years) > MOST_CARRY
    if bad.any():
        raise ParameterError(
            f"{name} times years must be at most {MOST_CARRY:g} in size, got a {name} of "
            f"{float(rate[bad].flat[0]):g} over {float(years[bad].flat[0]):g} years; "
            "rates are fractions per year: 0.05 is 5 %"
        )


def is_coin(settlement: object) -> bool:
    """Return whether values are in coins rather than in the quote currency."""
    if settlement not in ("cash", "coin"):
        raise ParameterError(
            f"settlement must be 'cash' or 'coin', got {repr_given(settlement)}"
            f"{did_you_mean(settlement, ('cash', 'coin'))}"
        )
    return settlement == "coin"
