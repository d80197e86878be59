"""The private parts of numba: compiled functions are linked before they are optimized.

numba optimizes each function, and again in every other that calls it, which is two thirds of the
seconds of a kernel of some hundred functions. Here a function that only compiled code calls is kept
as it was lowered; the one that becomes an object links all that it reaches, and is optimized once.
With ``BACKTEST_FAST_LINK=no``, and with a numba that lacks these parts, numba does it its own way.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite.binding import Linkage, ModuleRef, parse_assembly
from numba.core.codegen import JITCodeLibrary
from numba.core.registry import cpu_target

CODEGEN: Any = cpu_target.target_context.codegen()
SET_ENVIRONMENT = getattr(CODEGEN, "set_env", None)
PARTS = (
    "finalize", "_finalize_final_module", "_finalize_dynamic_globals", "_optimize_functions",
    "_verify_declare_only_symbols", "_get_module_for_linking",
)  # fmt: skip
MANGLED = "_ZN"
CAN_LINK = (
    os.environ.get("BACKTEST_FAST_LINK", "") != "no"
    and SET_ENVIRONMENT is not None
    and hasattr(CODEGEN, "_library_class")
    and all(hasattr(JITCodeLibrary, name) for name in PARTS)
)


class LinkedLibrary(JITCodeLibrary):
    """Code that has no address of its own: it is linked into what calls it."""

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout
        for function in ll_module.functions:
            if not function.is_declaration:  # four in five, which numba also takes 2 ms for
                passes, builder = self._codegen._function_pass_manager()  # type: ignore[no-untyped-call]
                passes.run(function, builder)

    def finalize(self) -> None:
        self._finalize_final_module()

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()  # type: ignore[no-untyped-call] # numba's
        self._finalized = True

    def _get_module_for_linking(self) -> Any:
        if self._shared_module is None:
            self._shared_module = self._final_module.clone()
            link_all(self._shared_module, self._linking_libraries)
            share(self._shared_module, set())
        return self._shared_module


class WholeLibrary(JITCodeLibrary):
    """Code with all that it calls, optimized to be written as an object; numba loads none of it."""

    def finalize(self) -> None:
        functions = self._final_module.functions
        own = {each.name for each in functions if not each.is_declaration}
        libraries, self._linking_libraries = self._linking_libraries, []
        for library in link_all(self._final_module, libraries):
            self._reload_init.update(library._reload_init)
        share(self._final_module, own)
        super().finalize()  # type: ignore[no-untyped-call] # numba's

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()  # type: ignore[no-untyped-call] # numba's
        functions = self._final_module.functions
        missing = [x.name for x in functions if x.is_declaration and x.name.startswith(MANGLED)]
        if missing:
            raise AssertionError(f"{self.name} calls {missing[0]}, which is not linked")
        self._finalized = True


def read_module(library: Any) -> ModuleRef:
    """Return the optimized module of a library, as a copy to be changed."""
    if isinstance(library, WholeLibrary):
        return library._final_module.clone()
    return parse_assembly(library.get_llvm_str())


def link_all(module: Any, libraries: list[Any]) -> list[Any]:
    linked: dict[int, Any] = {}
    waiting = libraries[::-1]
    while waiting:
        library = waiting.pop()
        if id(library) not in linked:
            linked[id(library)] = library
            waiting += list_needed(library)[::-1]
    # LLVM links of shared code only what is called already: what calls others comes first
    for library in sorted(linked.values(), key=lambda each: not list_needed(each)):
        is_own = isinstance(library, LinkedLibrary)
        code = library._final_module if is_own else library._get_module_for_linking()
        module.link_in(code, preserve=True)
    return [*linked.values()]


def list_needed(library: Any) -> list[Any]:
    return library._linking_libraries if isinstance(library, LinkedLibrary) else []


def share(module: Any, kept: set[str]) -> None:
    for function in module.functions:
        is_defined = not function.is_declaration and function.linkage == Linkage.external
        if is_defined and function.name not in kept:
            function.linkage = "linkonce_odr"


@contextmanager
def linking(*, is_linked: bool) -> Iterator[None]:
    """Make the libraries of what is compiled inside, by the thread that holds numba's lock."""
    if not CAN_LINK:
        yield
        return
    before = CODEGEN._library_class, CODEGEN.set_env
    CODEGEN._library_class = LinkedLibrary if is_linked else WholeLibrary
    CODEGEN.set_env = ignore_environment
    try:
        yield
    finally:
        CODEGEN._library_class, CODEGEN.set_env = before


def ignore_environment(*_: Any) -> None:
    """Set no Python objects for code that numba does not run."""
