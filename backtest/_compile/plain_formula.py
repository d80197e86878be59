"""Formulas as plain Python runs them: their numbers are those of compiled code.

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
    """Return a copy of a function whose floats are :class:`Number`, as are those of what it calls.

    The copy runs the same bytecode. Replaced is where its values come from: constants, defaults,
    global names (:class:`Names`), and cells, which are the variables of functions around it. In all
    of these a float becomes a Number, and a function becomes such a copy.

    Variables outside of it that the function writes are not replaced, so that others still see what
    it writes. ``done`` has the copies made so far, by the ``id`` of the function, and is written.
    """
    if id(function) in done:
        return done[id(function)]

    # The globals of the copy: a view in which values are replaced when they are read, or the real
    # ones, where the function writes a global.
    names = Names(function, done)
    stored = find_stored(function)
    scope: dict[str, Any] = names
    if stored.intersection(function.__globals__):
        scope = function.__globals__

    # New cells, still empty. A cell that the function writes stays the same cell.
    cells = function.__closure__ or ()
    new_cells = []
    for name, cell in zip(function.__code__.co_freevars, cells, strict=True):
        new_cell = CellType()
        if name in stored:
            new_cell = cell
        new_cells.append(new_cell)

    copy = FunctionType(
        replace_constants(function.__code__),
        scope,
        function.__name__,
        as_float64(function.__defaults__),
        tuple(new_cells),
    )
    copy.__kwdefaults__ = as_float64(function.__kwdefaults__)
    copy.__qualname__ = function.__qualname__
    copy.__module__ = function.__module__

    # The copy is noted before its cells are filled, as what they hold may call it.
    done[id(function)] = copy
    for new_cell, cell in zip(new_cells, cells, strict=True):
        if new_cell is not cell:
            new_cell.cell_contents = names.read(cell.cell_contents)
    return copy


def replace_constants(code: CodeType) -> CodeType:
    """Return code, and that of functions in it, whose floats are those of formulas."""
    constants = []
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            constants.append(replace_constants(constant))
        else:
            constants.append(as_float64(constant))
    return code.replace(co_consts=tuple(constants))


def as_float64(value: Any) -> Any:
    """Return a value as formulas see it: a float is a :class:`Number`, also inside of tuples.

    Bools and whole numbers of NumPy become those of Python. Any other value is returned as it is.
    """
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
    """The global names of a formula: those of its module at the time, as plain Python sees them.

    Python asks a dictionary of a derived class for each name, and so finds those that it lacks.
    """

    def __init__(self, function: FunctionType, done: dict[int, FunctionType]) -> None:
        super().__init__(__builtins__=BUILTINS, __name__=function.__module__)
        self._base = function.__globals__
        self._done = done
        self._raises = catches_errors(function)

    def __missing__(self, name: str) -> Any:
        return self.read(self._base[name])

    def read(self, value: Any) -> Any:
        if isinstance(value, FunctionType) and not has_compiled_versions(value):
            return copy_plainly(value, self._done)
        if self._raises:
            return as_float64(value)
        return see(value)


class Returning:
    """A function of math or NumPy whose numbers are those of formulas."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return as_float64(self._function(*arguments, **named))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._function, name)


class SeenModule(ModuleType):
    """A module as formulas in plain Python see it: its numbers and functions are theirs."""

    def __init__(self, module: ModuleType) -> None:
        super().__init__(module.__name__)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._module, name)
        is_function = callable(value) and not isinstance(value, (type, ModuleType))
        is_of_numbers = is_function and self._module in (math, np)
        seen = see_function(value) if is_of_numbers else see(value)
        setattr(self, name, seen)
        return seen


def see(value: Any) -> Any:
    """Return a module, function or number in the form in which plain formulas see it."""
    if isinstance(value, ModuleType):
        if value in (math, np) or value.__name__.partition(".")[0] == "backtest":
            return see_module(value)
        return value

    if isinstance(value, FunctionType) and has_compiled_versions(value):
        return see_function(value)
    if callable(value) and not isinstance(value, type):
        return see_callable(value)
    return as_float64(value)


def see_callable(value: Any) -> Any:
    """Return a function of math or NumPy that returns Numbers, any other as it is.

    A formula may name such a function by itself (``from math import exp``). It gets the one that it
    would find in its module (:class:`SeenModule`), if the function is that of the module by name.
    """
    owner = OWNERS.get(getattr(value, "__module__", ""))
    if isinstance(value, np.ufunc):
        owner = np
    name = str(getattr(value, "__name__", ""))
    if owner is None or getattr(owner, name, None) is not value:
        return value
    return getattr(see_module(owner), name)


OWNERS: dict[Any, ModuleType] = {"math": math, "numpy": np}
see_module = functools.cache(SeenModule)
BUILTINS = {**vars(builtins), "float": Number}


def see_function(original: Any) -> Any:
    """Return what a formula in plain Python calls in place of a function of math or NumPy.

    For some, such as exp and log, compiled formulas have functions of this package, with bits of
    their own: plain ones call the same. IN_PLAIN has them, with how many arguments each takes. All
    other calls go to the original, whose result is made a Number.
    """
    returning = Returning(original)
    if not isinstance(original, Hashable) or original not in IN_PLAIN:
        return returning
    function, n_arguments = IN_PLAIN[original]

    def call(*arguments: Any, **named: Any) -> Any:
        if len(arguments) == n_arguments and not named:
            return function(*arguments)
        return returning(*arguments, **named)

    return call
