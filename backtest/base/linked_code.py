"""Compiled functions that only other compiled functions call: kept as code to be linked.

numba makes machine code of every function that it compiles, and optimizes it, though it links all
that a function calls into the function's own code and optimizes that again. For a loop over bars,
which calls hundreds of rules, this is most of the work, and nothing runs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

CODEGEN: Any = cpu_target.target_context.codegen()
SET_ENVIRONMENT = getattr(CODEGEN, "set_env", None)
PARTS = ("_optimize_final_module", "_finalize_final_module", "_finalize_dynamic_globals",
         "serialize_using_object_code", "serialize_using_bitcode")  # fmt: skip
CAN_LINK = (
    SET_ENVIRONMENT is not None
    and hasattr(CODEGEN, "_library_class")
    and all(hasattr(JITCodeLibrary, name) for name in PARTS)
)
"""Whether this numba has the parts that are replaced here; otherwise all code can be run."""


class LinkedLibrary(JITCodeLibrary):
    """Code of a function that is never run by itself; it has no machine code."""

    def _optimize_final_module(self) -> None:
        """Leave it to the function into which this one is linked."""

    def _finalize_final_module(self) -> None:
        """Make it ready to be linked."""
        self._finalize_dynamic_globals()  # type: ignore[no-untyped-call] # numba's
        self._finalized = True

    def serialize_using_object_code(self) -> Any:
        """Return what the cache keeps."""
        return self.serialize_using_bitcode()  # type: ignore[no-untyped-call] # numba's


@contextmanager
def compiling(*, is_linked: bool) -> Iterator[None]:
    """Compile code inside the block to be linked, or to be run."""
    if not CAN_LINK:
        yield
        return
    with global_compiler_lock:
        before = CODEGEN._library_class, CODEGEN.set_env
        CODEGEN._library_class = LinkedLibrary if is_linked else JITCodeLibrary
        CODEGEN.set_env = ignore_environment if is_linked else SET_ENVIRONMENT
        try:
            yield
        finally:
            CODEGEN._library_class, CODEGEN.set_env = before


def ignore_environment(*_: Any) -> None:
    """Set no Python objects for code that never runs."""
