"""Compile functions with numba, kept on disk."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
from filelock import FileLock
from numba.core.caching import FunctionCache
from numba.core.ccallback import CFunc
from numba.core.compiler_lock import global_compiler_lock
from numba.core.sigutils import normalize_signature
from numba.core.types import unliteral

from backtest.base import fast_link
from backtest.base.compile_clock import COMPILING


class KeptCode(FunctionCache):
    """numba's files of a function: damaged ones are compiled again, by one process at a time."""

    def __init__(self, function: Callable[..., Any], prepare: Callable[[], Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call] # numba's
        self.place = Path(self._cache_path) / self._impl.filename_base
        self.prepare = prepare

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        found = None
        try:
            found = super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        except Exception:  # damaged bytes may raise any error
            for path in self.place.parent.glob(f"{self.place.name}.*nb?"):
                path.unlink(missing_ok=True)
        if found is None:
            self.prepare()
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(OSError):
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def compiling(kept: KeptCode | None) -> Iterator[None]:
    """Compile as the only thread, and what is kept as the only process; count the seconds.

    No garbage is looked for: numba keeps what it makes, and looking takes an eighth of the time.
    """
    was_on = gc.isenabled()
    with global_compiler_lock, contextlib.ExitStack() as stack:
        if kept is not None:
            with contextlib.suppress(OSError, NotImplementedError):  # it cannot be written there
                stack.enter_context(FileLock(f"{kept.place}.lock"))
        stack.enter_context(COMPILING.running())
        gc.disable()
        try:
            yield
        finally:
            if was_on:
                gc.enable()


def jit(
    function: Callable[..., Any],
    *,
    cache: bool,
    prepare: Callable[[], Any] = lambda: None,
    **options: Any,
) -> Any:
    """Return a function compiled by numba; ``prepare`` gives it its globals if it is not kept."""
    compiled: Any = numba.njit(**options)(function)
    kept = KeptCode(function, prepare) if cache else None
    if kept is not None:
        compiled._cache = kept
    find, compile_for = compiled.get_call_template, compiled.compile
    widen: Callable[[Any], Any] = unliteral
    compiled.get_call_template = lambda args, kws: find(  # no version for each constant
        [widen(each) for each in args], {name: widen(each) for name, each in kws.items()}
    )
    is_linked = bool(options.get("no_cpython_wrapper"))

    def compile_one(kinds: Any) -> Any:
        with compiling(kept), fast_link.linking(is_linked=is_linked):
            return compile_for(kinds)

    compiled.compile = compile_one
    return compiled


def cfunc(
    signature: Any,
    function: Callable[..., Any],
    *,
    cache: bool,
    prepare: Callable[[], Any] = lambda: None,
    **options: Any,
) -> Any:
    kinds = normalize_signature(signature)  # type: ignore[no-untyped-call] # numba's
    compiled: Any = CFunc(function, kinds, locals={}, options=options)
    kept = KeptCode(function, prepare) if cache else None
    if kept is not None:
        compiled._cache = kept
    else:
        prepare()
    with compiling(kept):
        compiled.compile()
    return compiled
