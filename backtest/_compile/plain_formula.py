"""Formulas as plain Python takes them: their numbers are those of compiled code.

A copy of a formula, and of each function that it calls, sees :class:`Number` in place of floats:
in its constants, in the variables of its module, and as what functions of math and NumPy return.
"""

from __future__ import annotations

import builtins
import functools
import math
from collections.abc import Hashable
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

from backtest._compile.bytecode import catches_errors, find_stored, has_compiled_versions
from backtest.core.elementary import IN_PLAIN, Number


def make_plain(function: Any) -> Any:
    """Return a formula for plain Python: with the same code, and numbers of IEEE 754."""
    return copy_plainly(function, {})


def copy_plainly(function: FunctionType, done: dict[int, FunctionType]) -> FunctionType:
    if id(function) in done:
        return done[id(function)]
    names, stored = Names(function, done), find_stored(function)
    writes_names = bool(stored.intersection(function.__globals__))
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    kept = tuple(cell if name in stored else CellType() for name, cell in cells)
    copy = FunctionType(
        replace_constants(function.__code__),
        function.__globals__ if writes_names else names,
        function.__name__,
        as_float64(function.__defaults__),
        kept,
    )
    done[id(function)] = copy  # before what it refers to, which may be itself
    copy.__kwdefaults__ = as_float64(function.__kwdefaults__)
    copy.__qualname__ = function.__qualname__
    copy.__module__ = function.__module__
    for own, cell in zip(kept, function.__closure__ or (), strict=True):
        if own is not cell:
            own.cell_contents = names.read(cell.cell_contents)
    return copy


def replace_constants(code: CodeType) -> CodeType:
    constants = tuple(
        replace_constants(each) if isinstance(each, CodeType) else as_float64(each)
        for each in code.co_consts
    )
    return code.replace(co_consts=constants)


def as_float64(value: Any) -> Any:
    """Return a value with its floats, also in tuples, as those of formulas."""
    kind = type(value)
    if kind is float or isinstance(value, np.floating):
        return Number(value)
    if isinstance(value, (np.bool_, np.integer)):
        return value.item()
    if kind is tuple:
        return tuple(map(as_float64, value))
    if kind is np.ndarray and value.ndim == 0:
        return as_float64(value[()])
    return value


class Names(dict[str, Any]):
    """The global names of a formula: those of its module at the time, as plain Python takes them.

    Python asks a dictionary of a derived class for each name, and so finds those that it lacks.
    """

    def __init__(self, function: FunctionType, done: dict[int, FunctionType]) -> None:
        super().__init__(__builtins__=BUILTINS, __name__=function.__module__)
        self._base, self._done = function.__globals__, done
        self._raises = catches_errors(function)

    def __missing__(self, name: str) -> Any:
        return self.read(self._base[name])

    def read(self, value: Any) -> Any:
        if isinstance(value, FunctionType) and not has_compiled_versions(value):
            return copy_plainly(value, self._done)
        return as_float64(value) if self._raises else see(value)


class Returning:
    """A function of math or NumPy whose numbers are those of formulas."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def __call__(self, *given: Any, **named: Any) -> Any:
        return as_float64(self._function(*given, **named))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._function, name)


class SeenModule(ModuleType):
    """A module as formulas in plain Python see it: its numbers and functions are theirs."""

    def __init__(self, module: ModuleType) -> None:
        super().__init__(module.__name__)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._module, name)
        is_of_numbers = self._module in (math, np) and not isinstance(value, (type, ModuleType))
        found = see_function(value) if is_of_numbers and callable(value) else see(value)
        setattr(self, name, found)
        return found


def see(value: Any) -> Any:
    """Return a module, function or number in the form in which plain formulas see it."""
    if isinstance(value, ModuleType):
        is_seen = value in (math, np) or value.__name__.partition(".")[0] == "backtest"
        return see_module(value) if is_seen else value
    if isinstance(value, FunctionType) and has_compiled_versions(value):
        return see_function(value)
    if callable(value) and not isinstance(value, type):
        owner = np if isinstance(value, np.ufunc) else OWNERS.get(getattr(value, "__module__", ""))
        name = str(getattr(value, "__name__", ""))
        is_theirs = owner is not None and getattr(owner, name, None) is value
        return getattr(see_module(owner), name) if is_theirs else value
    return as_float64(value)


OWNERS: dict[Any, ModuleType] = {"math": math, "numpy": np}
see_module = functools.cache(SeenModule)
BUILTINS = {**vars(builtins), "float": Number}


def see_function(original: Any) -> Any:
    """Return ours for a function that has one, at its usual number of arguments."""
    is_hashed = isinstance(original, Hashable)
    function, n_arguments = IN_PLAIN.get(original if is_hashed else None, (None, 0))
    other = Returning(original)
    if function is None:
        return other

    def call(*given: Any, **named: Any) -> Any:
        is_usual = len(given) == n_arguments and not named
        return function(*given) if is_usual else other(*given, **named)

    return call
