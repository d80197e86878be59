"""Rules and kernels as compiled functions: copies whose globals are the compiled ones.

A twin is a copy of a function with other globals.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

from backtest._compile.arguments import Entry
from backtest._compile.object_code import ObjectFile
from backtest.core import structs
from backtest.core.code_names import hash_texts


def make_twin(function: FunctionType, names: dict[str, Any], path: Path) -> FunctionType:
    code = function.__code__.replace(co_filename=str(path))
    copy = FunctionType(code, names, function.__name__, function.__defaults__, function.__closure__)
    copy.__qualname__ = function.__qualname__
    copy.__module__ = names["__name__"]
    return copy


def find_own_functions(
    module: ModuleType, left_out: Collection[str] = ()
) -> Iterator[tuple[str, FunctionType]]:
    for name, value in vars(module).items():
        is_own = isinstance(value, FunctionType) and value.__module__ == module.__name__
        if is_own and name not in left_out and not name.startswith("_"):
            yield name, value


class Mirror(ModuleType):
    """A module with what ``find`` gives for the name and the value of its functions."""

    def __init__(self, module: ModuleType, find: Callable[[str, FunctionType], Any]) -> None:
        super().__init__(module.__name__)
        self._module, self._find = module, find

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._module, name)
        if isinstance(value, FunctionType):
            value = self._find(name, value)
        elif is_numbering(value):
            value = number(value)
        setattr(self, name, value)
        return value


def mirror_modules(
    space: Mapping[str, Any], find: Callable[[str, FunctionType], Any]
) -> dict[str, Any]:
    return {
        name: Mirror(value, find)
        for name, value in space.items()
        if isinstance(value, ModuleType) and value.__name__.startswith("backtest.")
    }


def compile_rules(
    modules: Sequence[ModuleType],
    twins: dict[int, Any],
    *,
    left_out: Collection[str] = (),
    inlines_all: bool = False,
    has_options: bool = True,
) -> dict[ModuleType, dict[str, Any]]:
    """Compile the functions of modules for one another, and return the globals of each module.

    ``twins`` are compiled functions by the identity of the plain ones: those that are given stand
    in the place of their own, and those that are made here are added. The marks of
    :mod:`backtest.core.kernels` say what is inlined; with ``inlines_all`` it is all but the cold
    and kernels. Without options, functions of them return the constant of their mark.
    """
    from backtest._compile.compiler import jit  # noqa: PLC0415 - loads numba

    spaces: dict[ModuleType, dict[str, Any]] = {}
    for module in modules:
        space = spaces[module] = {**vars(module)}
        for _, own in find_own_functions(module, left_out):
            if id(own) not in twins:
                marks, twin = vars(own), make_twin(own, space, Path(str(module.__file__)))
                is_called = marks.keys() & {"is_cold", "is_kernel"}
                is_inlined = not is_called if inlines_all else "is_inlined" in marks
                if not has_options and "without_options" in marks:
                    twin, is_inlined = return_always(marks["without_options"]), True
                is_linked = not inlines_all or "is_kernel" not in marks
                twins[id(own)] = jit(twin, is_linked=is_linked, forceinline=is_inlined)
    for space in spaces.values():
        found = {name: twins[id(value)] for name, value in space.items() if id(value) in twins}
        space.update(found | mirror_modules(space, lambda _, each: twins.get(id(each), each)))
        space.update({name: number(x) for name, x in space.items() if is_numbering(x)})
    return spaces


def return_always(value: Any) -> Any:
    return lambda *_: value


def compile_twin(
    function: Any, space: dict[str, Any], own: str, given: tuple[Any, ...]
) -> ObjectFile:
    """Return the object ``own`` of a rule that Python calls; ``space`` are its compiled globals."""
    from backtest._compile import compiler  # noqa: PLC0415 - loads numba

    twin = make_twin(function, space, Path(function.__code__.co_filename))
    function = compiler.jit(twin, is_linked=False)
    return compiler.compile_entry(function, own, compiler.read_kinds(given))


def is_numbering(value: Any) -> bool:
    """Return whether a value gives whole numbers to names: an enumeration, or a named tuple."""
    if isinstance(value, type):
        return issubclass(value, IntEnum)
    return hasattr(value, "_fields") and all(type(each) is int for each in value)


def number(names: Any) -> ModuleType:
    """Return the numbers of names as constants of a module.

    Of an enumeration numba adds types; of a named tuple it builds the whole at each use, which
    doubles the seconds of compiling.
    """
    is_enumeration = isinstance(names, type)
    members = names.__members__ if is_enumeration else names._asdict()
    found = ModuleType(names.__name__ if is_enumeration else type(names).__name__)
    vars(found).update({name: int(each) for name, each in members.items()})
    return found


def bind_functions(module: ModuleType, **names: Any) -> dict[str, Any]:
    bound = {**vars(module), **names}
    bound |= mirror_modules(bound, names.get)
    for name, function in find_own_functions(module, names):
        bound[name] = make_twin(function, bound, Path(function.__code__.co_filename))
    return bound


@functools.cache
def compile_module(module: ModuleType) -> Any:
    """Return the kernels of a module as entries, compiled where no folder has them."""
    kernels = [name for name, each in find_own_functions(module) if "is_kernel" in vars(each)]
    texts = [Path(str(each.__file__)).read_text(encoding="utf-8") for each in list_sources(module)]
    mark = hash_texts(*texts, *read_compiler())[:12]

    def compile_for(kernel: str, own: str, given: tuple[Any, ...]) -> ObjectFile:
        from backtest._compile.compiler import compile_entry, read_kinds  # noqa: PLC0415 - loads numba

        return compile_entry(compile_functions(module)[kernel], own, read_kinds(given))

    entries = {name: Entry(name, mark, functools.partial(compile_for, name)) for name in kernels}
    return SimpleNamespace(**entries)


@functools.cache
def compile_functions(module: ModuleType) -> dict[str, Any]:
    """Return the functions of a module for compiled code; its kernels are written as objects."""
    modules = list_sources(module)
    compile_rules(modules, OF_KERNELS, inlines_all=True)
    return {k: OF_KERNELS[id(x)] for each in modules for k, x in find_own_functions(each)}


OF_KERNELS: dict[int, Any] = {}
"""Compiled functions by the identity of the plain ones."""


@functools.cache
def read_compiler() -> tuple[str, ...]:
    names = ("arguments", "compiler", "kernels", "lowering", "object_code")
    paths = [Path(__file__).with_name(f"{name}.py") for name in names]
    paths.append(Path(structs.__file__))  # whose layout is in each object
    return tuple(path.read_text(encoding="utf-8") for path in paths)


@functools.cache
def read_checks() -> str:
    """Return the text of the checks of formulas, which the rules and the loop do not pass."""
    return Path(__file__).with_name("formula_checks.py").read_text("utf-8")


def list_sources(module: ModuleType) -> list[ModuleType]:
    found = [module]
    for other in found:
        values = [*vars(other).values()]
        names = {each.__module__ for each in values if isinstance(each, FunctionType)}
        names |= {each.__name__ for each in values if isinstance(each, ModuleType)}
        own = (sys.modules[x] for x in sorted(names) if x.startswith("backtest."))
        found += [each for each in own if each not in found]
    return found
