"""The space of a search: its dimensions, and the unit cube from which sets are drawn."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from backtest.base import (
    BacktestError,
    Choice,
    Condition,
    FloatArray,
    FrozenTable,
    ParameterError,
    Range,
    check_number,
    repr_plain,
    to_plain,
)
from backtest.sweep.sets import (
    MOST_CELLS,
    BaseTerms,
    Sets,
    Setting,
    convert_value,
    find_missing,
    find_unknown,
    raise_faults,
    suggest_name,
)


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


Method = Literal["sobol", "lhs", "uniform"]
Given = Mapping[str, Any]

MOST_COMBINED = 32
"""Up to this many combinations of words are all listed; of more, each word once."""


@dataclass(frozen=True)
class Space:
    dimensions: tuple[Dimension, ...]
    fixed: dict[str, Any]

    def decode(self, cube: FloatArray) -> Sets:
        """Return the sets at points of shape (n_sets, n_dimensions) in [0, 1]."""
        n = len(cube)
        sets = {each.name: each.decode(cube[:, k]) for k, each in enumerate(self.dimensions)}
        for name, value in self.fixed.items():
            sets[name] = np.full(n, value, dtype=object if isinstance(value, str) else None)
        for each in self.dimensions:
            is_active = self.find_active(sets, each)
            if not is_active.all():
                sets[each.name] = np.where(is_active, sets[each.name], each.default)
        return sets

    def encode(self, sets: Sets) -> FloatArray:
        """Return points of shape (n_sets, n_dimensions) that decode to these sets."""
        return np.column_stack([each.encode(sets[each.name]) for each in self.dimensions])

    def list_ends(self) -> Sets:
        counts = [len(each.options) or 1 for each in self.dimensions]
        rows = list(itertools.islice(itertools.product(*map(range, counts)), MOST_COMBINED + 1))
        if len(rows) > MOST_COMBINED:
            rows = [tuple(k % n for n in counts) for k in range(max(counts))]
        options = (np.array(rows, dtype=np.float64) + 0.5) / np.array(counts)
        is_number = np.array([not each.options for each in self.dimensions], dtype=np.bool_)
        ends = [np.where(is_number, end, options) for end in (0.0, 1.0)]
        return self.decode(np.concatenate(ends).reshape(-1, len(counts)))

    def describe(self) -> dict[str, Any]:
        rows = [each._asdict() for each in self.dimensions]
        plain: dict[str, Any] = to_plain({"dimensions": rows, "fixed": self.fixed})
        return plain

    def find_active(self, sets: Sets, dimension: Dimension) -> np.ndarray:
        is_active = np.ones(len(sets[dimension.name]), dtype=np.bool_)
        conditions = {each.name: each.when for each in self.dimensions}
        when = dimension.when
        while when is not None:
            name, options = when
            is_active &= np.isin(sets[name], np.array(options, dtype=sets[name].dtype))
            when = conditions.get(name)
        return is_active


def read_space(base: BaseTerms, given: Given | None = None, *, fix: Given | None = None) -> Space:
    for name, value in (("space", given), ("fix", fix)):
        if value is not None and not isinstance(value, Mapping):
            example = "(0.1, 1.0)" if name == "space" else "0.4"
            raise ParameterError(
                f"{name} must be a mapping by the names of parameters, {{'target': {example}}} for "
                f"example, got {repr_plain(value)}"
            )
    settings = base.settings
    fixed = dict(fix or {})
    wanted = dict(given) if given is not None else _declared(base, fixed)
    faults = [*find_unknown(settings, {**wanted, **fixed}), *_find_doubles(wanted, fixed)]
    faults += find_missing(settings, {**wanted, **fixed})
    dimensions = []
    for name in (name for name in wanted if name in settings):
        try:
            dimensions.append(read_dimension(settings[name], wanted[name]))
        except BacktestError as error:
            faults.append(str(error))
    for name in (name for name in fixed if name in settings):
        try:
            fixed[name] = convert_value(settings[name], fixed[name])
        except BacktestError as error:
            faults.append(str(error))
    raise_faults(faults)
    return Space(_keep_active(dimensions, settings, fixed, is_given=given is not None), fixed)


def _declared(base: BaseTerms, fixed: Given) -> dict[str, Any]:
    parameters = base.policy_class.parameters().values()
    return {
        each.name: [False, True] if each.space is None else each.space
        for each in parameters
        if each.name not in fixed
    }


def _find_doubles(wanted: Given, fixed: Given) -> Iterator[str]:
    if not wanted:
        yield "space must have something to vary, got nothing"
    for name in fixed:
        if name in wanted:
            yield f"{name} must not be both varied and fixed"


def _keep_active(
    dimensions: list[Dimension], settings: Mapping[str, Setting], fixed: Given, *, is_given: bool
) -> tuple[Dimension, ...]:
    varying = {each.name: each for each in dimensions}
    kept: dict[str, Dimension] = {}
    n_before = -1
    while n_before != len(varying):  # without one, others may not be used either
        n_before, kept = len(varying), {}
        for each in list(varying.values()):
            when, never = _reduce(each, varying, settings, fixed)
            if not never:
                kept[each.name] = each._replace(when=when)
            elif is_given:
                raise ParameterError(
                    f"{each.name} has no effect in any set: it is used only where {never}"
                )
            else:
                del varying[each.name]
    return tuple(kept.values())


def _reduce(
    dimension: Dimension,
    varying: Mapping[str, Dimension],
    settings: Mapping[str, Setting],
    fixed: Given,
) -> tuple[Condition, str]:
    when: Any = dimension.when
    seen = [dimension.name]
    found = None
    while when is not None:
        name, options = when
        if name in seen or name not in settings:
            raise ParameterError(
                f"when must name another parameter, and not in a circle, {dimension.name} has "
                f"{name!r}{suggest_name(name, settings)}"
            )
        seen.append(name)
        options = options if isinstance(options, tuple) else (options,)
        if name in varying:
            found = found or (name, options)
            when = varying[name].when
            continue
        if fixed.get(name, settings[name].value) not in options:
            return None, f"{name} is {' or '.join(map(repr, options))}"
        when = settings[name].condition
    return found, ""


def draw_sets(space: Space, n: int, *, method: Method = "sobol", seed: int = 0) -> Sets:
    Choice(*get_args(Method)).check("method", method)
    n = int(Range(1, MOST_CELLS).check("the number of sets", n, whole=True))
    return space.decode(draw_cube(len(space.dimensions), n, method, np.random.default_rng(seed)))


def draw_cube(d: int, n: int, method: Method, rng: np.random.Generator) -> FloatArray:
    """Return points of shape (n, d) in [0, 1]."""
    if method == "uniform":
        return rng.random((n, d))
    from scipy.stats import qmc  # noqa: PLC0415 - takes half a second to import

    if method == "lhs":
        cube: FloatArray = qmc.LatinHypercube(d, rng=rng).random(n)
        return cube
    # The sequence is balanced for powers of two; points beyond n are dropped.
    cube = qmc.Sobol(d, rng=rng).random_base2(max(n - 1, 0).bit_length())
    return cube[:n]
