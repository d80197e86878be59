"""One dimension of a search: a parameter with its bounds or options, and its scale."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np

from backtest.base import (
    Choice,
    Condition,
    FloatArray,
    FrozenTable,
    ParameterError,
    Range,
    check_number,
)
from backtest.sweep.sets.set_checks import convert_value
from backtest.sweep.sets.sets import Setting


class Dimension(NamedTuple):
    name: str
    kind: str
    low: float
    high: float
    log: bool
    options: tuple[Any, ...]
    when: Condition
    default: Any

    @property
    def dtype(self) -> type:
        if self.kind in ("float", "int", "bool"):
            return {"float": np.float64, "int": np.int64, "bool": np.bool_}[self.kind]
        kinds = {type(option) for option in self.options}
        if kinds <= {int, float}:
            return np.int64 if kinds == {int} else np.float64
        return object

    def decode(self, part: FloatArray) -> np.ndarray:
        """Return the values at numbers in [0, 1], of shape (n,)."""
        if self.options:
            places = np.minimum((part * len(self.options)).astype(np.int64), len(self.options) - 1)
            return self._list_options()[places]
        low, high = self._edges()
        values = low + part * (high - low)
        values = np.exp(values) if self.log else values
        values = np.rint(values) if self.kind == "int" else values
        values = np.where(part <= 0.0, self.low, np.where(part >= 1.0, self.high, values))
        return np.clip(values, self.low, self.high).astype(self.dtype)

    def encode(self, values: np.ndarray) -> FloatArray:
        """Return the numbers in [0, 1] that are decoded to these values, of shape (n,)."""
        if self.options:
            places = {repr(option): k for k, option in enumerate(self._list_options().tolist())}
            found = [places.get(repr(value), 0) for value in values.tolist()]
            return (np.array(found) + 0.5) / len(self.options)
        low, high = self._edges()
        numbers = values.astype(np.float64)
        numbers = np.log(numbers) if self.log else numbers
        if not high > low:
            return np.full(numbers.shape, 0.5)
        part: FloatArray = np.clip((numbers - low) / (high - low), 0.0, 1.0)
        return part

    def _list_options(self) -> np.ndarray:
        return np.array(self.options, dtype=self.dtype)

    def _edges(self) -> tuple[float, float]:
        half = 0.5 if self.kind == "int" else 0.0
        low, high = self.low - half, self.high + half
        return (math.log(low), math.log(high)) if self.log else (low, high)


def read_dimension(setting: Setting, want: object) -> Dimension:
    condition = getattr(want, "when", None) or setting.condition
    is_range = isinstance(want, tuple) and setting.kind not in (str, bool)
    has_bounds = isinstance(want, Range) or is_range
    dimension = _read_bounds(setting, want) if has_bounds else _read_options(setting, want)
    if condition is None:
        return dimension
    name, values = condition
    return dimension._replace(when=(name, values if isinstance(values, tuple) else (values,)))


def _read_bounds(setting: Setting, want: Any) -> Dimension:
    name = setting.name
    if isinstance(want, tuple):
        if len(want) != 2:
            raise ParameterError(
                f"bounds of {name} must be (low, high), got {want!r}; options stand in [...]"
            )
        low, high = (check_number(name, bound) for bound in want)
        is_log = getattr(setting.space, "log", False)
        if not low <= high or (is_log and not low > 0.0):
            raise ParameterError(
                f"bounds of {name} must be low <= high{', over 0' * is_log}, got {want!r}"
            )
        want = Range(low, high, log=is_log)
    low, high = want.low, want.high
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ParameterError(
            f"a range must be finite to be drawn from, {name} has {low:g} to {high:g}; give its "
            "bounds, or fix it"
        )
    kind = "int" if setting.kind is int else "float"
    if kind == "int":
        low, high = math.ceil(low), math.floor(high)
    for bound in (low, high):
        setting.check(name, bound)
    return Dimension(name, kind, low, high, want.log, (), None, _default(setting, low))


def _read_options(setting: Setting, want: Any) -> Dimension:
    name = setting.name
    if isinstance(want, Choice):
        want = want.options
    elif not isinstance(want, (list, np.ndarray, range)) or len(want) == 0:
        raise ParameterError(
            f"{name} must be given as bounds or as a list of options, got {want!r}; one value "
            "belongs in fix"
        )
    options = tuple(dict.fromkeys(convert_value(setting, value) for value in want))
    kind = "bool" if setting.kind is bool else "choice"
    return Dimension(
        name, kind, 0.0, float(len(options)), False, options, None, _default(setting, options[0])
    )


def _default(setting: Setting, otherwise: object) -> object:
    if setting.value is dataclasses.MISSING or isinstance(setting.value, FrozenTable):
        return otherwise
    return math.nan if setting.value is None else setting.value
