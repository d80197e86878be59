"""The space of a search: its dimensions, and the unit cube from which sets are drawn."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from backtest.account import Account
from backtest.base import (
    BacktestError,
    Choice,
    Condition,
    FloatArray,
    ParameterError,
    Range,
    repr_plain,
    to_plain,
)
from backtest.engine import SignalRule
from backtest.policy import Policy
from backtest.sweep.sets.dimension import Dimension, read_dimension
from backtest.sweep.sets.set_checks import (
    check_sets,
    convert_value,
    find_missing,
    find_unknown,
    raise_faults,
)
from backtest.sweep.sets.sets import (
    MOST_CELLS,
    BaseTerms,
    Sets,
    Setting,
    Venues,
    from_frame,
    grid,
    names_signal,
    read_settings,
    suggest_name,
)

__all__ = ["Dimension", "Space", "check_sets", "draw_sets", "from_frame", "grid", "read_space"]

Method = Literal["sobol", "lhs", "uniform"]
Given = Mapping[str, Any]

MOST_COMBINED = 32
"""Up to this many combinations of words are all listed; of more, each word once."""


@dataclass(frozen=True)
class Space:
    dimensions: tuple[Dimension, ...]
    fixed: dict[str, Any]

    @property
    def varies_signal(self) -> bool:
        return names_signal([*(each.name for each in self.dimensions), *self.fixed])

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


def read_space(
    policy: type[Policy] | Policy,
    given: Given | None = None,
    *,
    fix: Given | None = None,
    account: Account,
    venue: Venues,
    signal: SignalRule | None = None,
    names: tuple[str, ...] = (),
    overlay: Policy | None = None,
) -> Space:
    for name, value in (("space", given), ("fix", fix)):
        if value is not None and not isinstance(value, Mapping):
            example = "(0.1, 1.0)" if name == "space" else "0.4"
            raise ParameterError(
                f"{name} must be a mapping by the names of parameters, {{'target': {example}}} for "
                f"example, got {repr_plain(value)}"
            )
    base = BaseTerms(policy, venue, account, signal, names, overlay)
    settings = read_settings(base)
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
