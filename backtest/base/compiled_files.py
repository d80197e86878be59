"""The on-disk cache of compiled functions, with a checksum in every file.

numba's own cache keeps an index and numbered files for each function. It trusts their content, and
loses entries if two processes write at the same time. Here every compiled signature has its own
file, named by a hash of its types, with a hash of its content in front. A damaged file counts as
missing: the function is compiled and written again, with one warning.
"""

from __future__ import annotations

import contextlib
import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core import event
from numba.core.caching import FunctionCache
from numba.core.ccallback import CFunc
from numba.core.serialize import dumps
from numba.core.sigutils import normalize_signature
from numba.core.types import unliteral

from backtest.base.atomic_files import write_file
from backtest.base.cache_folder import read_bytes, warn_of_damage
from backtest.base.compile_time import COMPILING, count_as_compiling
from backtest.base.linked_code import compiling
from backtest.base.numba_start import compare_flags_fast, import_without_blas
from backtest.base.rule_passes import RuleCompiler

import_without_blas()
compare_flags_fast()
MAGIC = b"backtest compiled code 1\n"
DIGEST_SIZE = hashlib.sha256().digest_size


class CheckedFiles:
    """The cache files of one function; replaces numba's index and data files."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name

    def path_of(self, key: Any) -> Path:
        """Return the file for a key: the types and the processor compiled for."""
        text = f"{numba.__version__} {key}"
        return self.folder / f"{self.name}.{hashlib.sha256(text.encode()).hexdigest()[:20]}.nbc"

    def load(self, key: Any) -> Any:
        """Return the saved data, or None if it is missing or damaged."""
        path = self.path_of(key)
        content = read_bytes(path)
        if content is None:
            return None
        try:
            found, data = pickle.loads(unseal(content))
        except (ImportError, AttributeError):  # of a release whose modules had other names
            return None
        except Exception:  # damaged bytes may raise any error
            warn_of_damage(path)
            return None
        return data if found == key else None

    def save(self, key: Any, data: Any) -> None:
        """Save compiled code; if the file cannot be written, the next process compiles again."""
        with contextlib.suppress(OSError):
            write_file(self.path_of(key), seal(dumps((key, data))))  # type: ignore[no-untyped-call] # numba's

    def flush(self) -> None:
        """Delete the saved files."""
        for path in self.folder.glob(f"{self.name}.*.nbc"):
            path.unlink(missing_ok=True)


def seal(content: bytes) -> bytes:
    """Return the content with its hash in front."""
    return MAGIC + hashlib.sha256(content).digest() + content


def unseal(sealed: bytes) -> bytes:
    """Return the content that was sealed.

    Raise a ValueError if it was changed.
    """
    content = sealed[len(MAGIC) + DIGEST_SIZE :]
    if sealed != seal(content):
        raise ValueError("damaged")
    return content


class CheckedCache(FunctionCache):
    """numba's cache of a function, stored in :class:`CheckedFiles`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call] # numba's
        files: Any = CheckedFiles(Path(self._cache_path), self._impl.filename_base)
        self._cache_file = files

    def save_overload(self, sig: Any, data: Any) -> None:
        """Save compiled code if the folder is writable."""
        with contextlib.suppress(OSError):
            super().save_overload(sig, data)  # type: ignore[no-untyped-call] # numba's


def widen(kind: Any) -> Any:
    """Return the type of a constant's value: numba would compile a function for each constant."""
    return unliteral(kind)  # type: ignore[no-untyped-call] # numba's


def jit(function: Callable[..., Any], *, cache: bool, **options: Any) -> Any:
    """Return a function that numba compiles when it is called; cached in checked files."""
    compiled = numba.njit(pipeline_class=RuleCompiler, **options)(function)
    find = compiled.get_call_template
    compiled.get_call_template = lambda args, kws: find(
        [widen(each) for each in args], {name: widen(each) for name, each in kws.items()}
    )
    compile_for = compiled.compile
    is_linked = bool(options.get("no_cpython_wrapper"))

    def compile_one(kinds: Any) -> Any:
        with compiling(is_linked=is_linked):
            return compile_for(kinds)

    compiled.compile = compile_one
    if cache:
        compiled._cache = CheckedCache(function)
    return compiled


def cfunc(signature: Any, function: Callable[..., Any], *, cache: bool, **options: Any) -> Any:
    """Return a C callback compiled for one signature; cached in checked files."""
    types = normalize_signature(signature)  # type: ignore[no-untyped-call] # numba's
    passes: Any = RuleCompiler
    compiled: Any = CFunc(function, types, locals={}, options=options, pipeline_class=passes)
    if cache:
        compiled._cache = CheckedCache(function)
    with count_as_compiling():
        compiled.compile()
    return compiled


class CountingListener(event.Listener):
    """Counts the time that numba spends compiling functions."""

    def on_start(self, event: Any) -> None:  # noqa: ARG002 - numba's signature
        """Start the stopwatch."""
        COMPILING.begin()

    def on_end(self, event: Any) -> None:  # noqa: ARG002
        """Stop the stopwatch."""
        COMPILING.end()


event.register("numba:compile", CountingListener())  # type: ignore[no-untyped-call] # numba's
