"""Compiled functions that only other compiled functions call: kept as code to be linked.

numba makes machine code of every function that it compiles, and optimizes it, though it links all
that a function calls into the function's own code and optimizes that again. For a loop over bars,
which calls hundreds of rules, this is most of the work, and nothing runs it. Here such a function
keeps its own code alone, and the function that Python calls links all that it needs, once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite.binding import Linkage
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

CODEGEN: Any = cpu_target.target_context.codegen()
SET_ENVIRONMENT = getattr(CODEGEN, "set_env", None)
PARTS = ("finalize", "_finalize_final_module", "_finalize_dynamic_globals",
         "_get_module_for_linking", "serialize_using_object_code")  # fmt: skip
CAN_LINK = (
    SET_ENVIRONMENT is not None
    and hasattr(CODEGEN, "_library_class")
    and all(hasattr(JITCodeLibrary, name) for name in PARTS)
)
"""Whether this numba has the parts that are replaced here; otherwise all code can be run."""


class WholeLibrary(JITCodeLibrary):
    """Code of a function that Python calls, with all that it needs."""

    def finalize(self) -> None:
        """Link each function that this one needs, once, and make machine code of them."""
        functions = self._final_module.functions
        own = {each.name for each in functions if not each.is_declaration}
        libraries, self._linking_libraries = self._linking_libraries, []
        for library in link_all(self._final_module, libraries):
            self._reload_init.update(library._reload_init)
        share(self._final_module, own)
        super().finalize()  # type: ignore[no-untyped-call] # numba's


class LinkedLibrary(JITCodeLibrary):
    """Code of a function that is never run by itself; it has no machine code."""

    def finalize(self) -> None:
        """Make it ready to be linked."""
        self._finalize_final_module()

    def _finalize_final_module(self) -> None:
        """Make it ready to be linked, also where it comes from the cache."""
        self._finalize_dynamic_globals()  # type: ignore[no-untyped-call] # numba's
        self._finalized = True

    def _get_module_for_linking(self) -> Any:
        """Return the code with all that it needs, for the cache and for code that is not ours."""
        if self._shared_module is None:
            self._shared_module = self._final_module.clone()
            link_all(self._shared_module, self._linking_libraries)
            share(self._shared_module, set())
        return self._shared_module

    def serialize_using_object_code(self) -> Any:
        """Return what the cache keeps."""
        return self.name, "bitcode", self._get_module_for_linking().as_bitcode()


def link_all(module: Any, libraries: list[Any]) -> list[Any]:
    """Link libraries into a module, each once, with all that they need; return them."""
    linked: dict[int, Any] = {}
    waiting = libraries[::-1]
    while waiting:
        library = waiting.pop()
        if id(library) not in linked:
            linked[id(library)] = library
            is_own = isinstance(library, LinkedLibrary)
            code = library._final_module if is_own else library._get_module_for_linking()
            module.link_in(code, preserve=True)
            waiting += library._linking_libraries[::-1] if is_own else []
    return [*linked.values()]


def share(module: Any, kept: set[str]) -> None:
    """Let the functions of a module be defined elsewhere too, and dropped if nothing calls them.

    Those whose names are ``kept`` are left as they are.
    """
    for function in module.functions:
        is_defined = not function.is_declaration and function.linkage == Linkage.external
        if is_defined and function.name not in kept:
            function.linkage = "linkonce_odr"


@contextmanager
def compiling(*, is_linked: bool) -> Iterator[None]:
    """Compile code inside the block to be linked, or to be run."""
    if not CAN_LINK:
        yield
        return
    with global_compiler_lock:
        before = CODEGEN._library_class, CODEGEN.set_env
        CODEGEN._library_class = LinkedLibrary if is_linked else WholeLibrary
        CODEGEN.set_env = ignore_environment if is_linked else SET_ENVIRONMENT
        try:
            yield
        finally:
            CODEGEN._library_class, CODEGEN.set_env = before


def ignore_environment(*_: Any) -> None:
    """Set no Python objects for code that never runs."""
