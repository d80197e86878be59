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
from backtest.core.code_versions import hash_texts


def make_twin(function: FunctionType, names: dict[str, Any], path: Path) -> FunctionType:
    """Return a copy of a function with other globals; ``path`` is the file that errors name."""
    code = function.__code__.replace(co_filename=str(path))
    twin = FunctionType(code, names, function.__name__, function.__defaults__, function.__closure__)
    twin.__qualname__ = function.__qualname__
    twin.__module__ = names["__name__"]
    return twin


def find_own_functions(
    module: ModuleType, left_out: Collection[str] = ()
) -> Iterator[tuple[str, FunctionType]]:
    """Yield the public functions that a module defines, by name."""
    for name, value in vars(module).items():
        if not isinstance(value, FunctionType) or value.__module__ != module.__name__:
            continue
        if name not in left_out and not name.startswith("_"):
            yield name, value


class Mirror(ModuleType):
    """A module with what ``find`` gives for the name and the value of its functions."""

    def __init__(self, module: ModuleType, find: Callable[[str, FunctionType], Any]) -> None:
        super().__init__(module.__name__)
        self._module = module
        self._find = find

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
    """Return mirrors of the modules of this package that some globals name."""
    mirrors = {}
    for name, value in space.items():
        if isinstance(value, ModuleType) and value.__name__.startswith("backtest."):
            mirrors[name] = Mirror(value, find)
    return mirrors


def compile_rules(
    modules: Sequence[ModuleType],
    twins: dict[int, Any],
    *,
    left_out: Collection[str] = (),
    inlines_all: bool = False,
    has_options: bool = True,
) -> dict[ModuleType, dict[str, Any]]:
    """Make a compiled twin of each function of some modules; return the globals that twins see.

    Twins call one another: the globals of each module are copied, and in the copy each name of a
    function is bound to its twin. The modules themselves stay plain. ``twins`` has all twins by the
    ``id`` of the plain function. Those that it has already are used, and new ones are added.

    Decorators of :mod:`backtest.core.kernels` mark functions by attributes. Those marked
    ``is_inlined`` are inlined into their callers; with ``inlines_all`` all are, but for those
    marked ``is_cold`` or ``is_kernel``. Without ``has_options`` a function marked
    ``without_options`` is replaced by the constant of its mark.
    """
    from backtest._compile.compiler import jit  # noqa: PLC0415 - loads numba

    spaces: dict[ModuleType, dict[str, Any]] = {}
    for module in modules:
        space = {**vars(module)}
        spaces[module] = space
        for _, function in find_own_functions(module, left_out):
            if id(function) in twins:
                continue

            # The marks are attributes of the function, as :func:`mark_with` sets them.
            marks = vars(function)
            twin: Any = make_twin(function, space, Path(str(module.__file__)))
            is_inlined = "is_inlined" in marks
            if inlines_all:
                is_inlined = not marks.keys() & {"is_cold", "is_kernel"}
            if not has_options and "without_options" in marks:
                twin = return_always(marks["without_options"])
                is_inlined = True

            # A kernel of its own becomes an object, all else is linked into what calls it.
            is_linked = not inlines_all or "is_kernel" not in marks
            twins[id(function)] = jit(twin, is_linked=is_linked, forceinline=is_inlined)

    # Numba compiles at the first call, so the globals of twins are filled after all are made.
    for space in spaces.values():
        fill_space(space, twins)
    return spaces


def fill_space(space: dict[str, Any], twins: Mapping[int, Any]) -> None:
    """Put compiled functions, mirrors of modules and numbers of names into the globals of twins."""
    space.update(mirror_modules(space, lambda _, value: twins.get(id(value), value)))
    for name, value in space.items():
        if id(value) in twins:
            space[name] = twins[id(value)]
        elif is_numbering(value):
            space[name] = number(value)


def return_always(value: Any) -> Any:
    return lambda *_: value


def compile_twin(
    function: Any, space: dict[str, Any], name: str, arguments: tuple[Any, ...]
) -> ObjectFile:
    """Return the object of a rule that Python calls; ``space`` are its compiled globals.

    ``name`` is that of the object, ``arguments`` are such as it is called with.
    """
    from backtest._compile import compiler  # noqa: PLC0415 - loads numba

    twin = make_twin(function, space, Path(function.__code__.co_filename))
    compiled = compiler.jit(twin, is_linked=False)
    return compiler.compile_entry(compiled, name, compiler.read_kinds(arguments))


def is_numbering(value: Any) -> bool:
    """Return whether a value gives whole numbers to names: an enumeration, or a named tuple."""
    if isinstance(value, type):
        return issubclass(value, IntEnum)
    return hasattr(value, "_fields") and all(type(element) is int for element in value)


def number(names: Any) -> ModuleType:
    """Return a module whose constants are the numbers that an enumeration or a tuple names.

    numba reads constants of a module at no cost. Of an enumeration it would add types; of a named
    tuple it would build the whole at each use, which doubles the seconds of compiling.
    """
    if isinstance(names, type):
        members = names.__members__  # type: ignore[attr-defined] # of an enumeration
        module = ModuleType(names.__name__)
    else:
        members = names._asdict()
        module = ModuleType(type(names).__name__)

    for name, value in members.items():
        vars(module)[name] = int(value)
    return module


def bind_functions(module: ModuleType, **names: Any) -> dict[str, Any]:
    """Return the globals of a module in which some names are bound to other functions.

    The functions in them are copies that call these others, in plain Python; the module itself
    stays as it is. Modules of this package that they call by name are bound in the same way.
    """
    bound = {**vars(module), **names}
    bound |= mirror_modules(bound, names.get)
    for name, function in find_own_functions(module, names):
        bound[name] = make_twin(function, bound, Path(function.__code__.co_filename))
    return bound


# Kernels: modules whose functions Python calls, without the rules.


@functools.cache
def compile_module(module: ModuleType) -> Any:
    """Return the kernels of a module by name: functions that Python calls and machine code runs.

    A kernel is compiled at its first call, unless a cache folder has its object. ``mark`` is a hash
    of the module, of all modules that it calls and of the compiler: if one of them changes, another
    object is looked for.
    """
    sources = list_sources(module)
    paths = [Path(str(source.__file__)) for source in sources]
    mark = hash_texts(*map(read_text, paths), *read_compiler())[:12]

    def compile_for(kernel: str, name: str, arguments: tuple[Any, ...]) -> ObjectFile:
        from backtest._compile.compiler import compile_entry, read_kinds  # noqa: PLC0415 - loads numba

        return compile_entry(compile_functions(module)[kernel], name, read_kinds(arguments))

    entries = {}
    for name, function in find_own_functions(module):
        if "is_kernel" in vars(function):
            entries[name] = Entry(name, mark, functools.partial(compile_for, name))
    return SimpleNamespace(**entries)


@functools.cache
def compile_functions(module: ModuleType) -> dict[str, Any]:
    """Return the functions of a module, wrapped for numba, by name.

    Includes those of all modules of this package that it calls. Nothing is compiled yet: numba does
    that at the first call of each, or :func:`compile_entry` when it writes a kernel as an object.
    """
    sources = list_sources(module)
    compile_rules(sources, OF_KERNELS, inlines_all=True)
    compiled = {}
    for source in sources:
        for name, function in find_own_functions(source):
            compiled[name] = OF_KERNELS[id(function)]
    return compiled


OF_KERNELS: dict[int, Any] = {}
"""Compiled functions by the identity of the plain ones."""


@functools.cache
def read_compiler() -> tuple[str, ...]:
    """Return the texts that decide what an object of a text is."""
    names = ("arguments", "compiler", "kernels", "lowering", "object_code")
    paths = [Path(__file__).with_name(f"{name}.py") for name in names]
    paths.append(Path(structs.__file__))  # whose layout is in each object
    return tuple(map(read_text, paths))


def read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@functools.cache
def read_checks() -> str:
    """Return the text of the checks of formulas, which the rules and the loop do not pass."""
    return Path(__file__).with_name("formula_checks.py").read_text("utf-8")


def list_sources(module: ModuleType) -> list[ModuleType]:
    """Return a module and all modules of this package that it uses, directly or through others.

    A module is used where one of its names is a function or a module of another.
    """
    sources = [module]
    for source in sources:  # the list grows while it is read
        names = set()
        for value in vars(source).values():
            if isinstance(value, FunctionType):
                names.add(value.__module__)
            elif isinstance(value, ModuleType):
                names.add(value.__name__)

        # Sorted, since their texts are hashed in this order.
        for name in sorted(names):
            if name.startswith("backtest.") and sys.modules[name] not in sources:
                sources.append(sys.modules[name])
    return sources
