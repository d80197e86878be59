"""The files in which compiled functions are kept, checked when they are read.

numba keeps an index and numbered files for each function, trusts what it finds in them, and loses
entries where two processes write at once. Here every compiled signature has a file of its own,
named by a hash of what it was compiled for, with a hash of its content in front. A file that is
damaged counts as missing: it is compiled and written again, with one warning.
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

from backtest.base.atomic_files import write_file
from backtest.base.cache_folder import read_bytes, warn_of_damage
from backtest.base.compile_time import COMPILING, count_as_compiling

MAGIC = b"backtest compiled code 1\n"
DIGEST_SIZE = hashlib.sha256().digest_size


class CheckedFiles:
    """The files of one function, in place of numba's index and data files."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name

    def path_of(self, key: Any) -> Path:
        """Return the file of what was compiled for some types on some processor."""
        text = f"{numba.__version__} {key}"
        return self.folder / f"{self.name}.{hashlib.sha256(text.encode()).hexdigest()[:20]}.nbc"

    def load(self, key: Any) -> Any:
        """Return what was saved, or None where there is nothing or it is damaged."""
        path = self.path_of(key)
        content = read_bytes(path)
        if content is None:
            return None
        try:
            found, data = pickle.loads(unseal(content))
        except Exception:  # damaged bytes raise anything
            warn_of_damage(path)
            return None
        return data if found == key else None

    def save(self, key: Any, data: Any) -> None:
        """Write what was compiled; where that cannot be done the next process compiles again."""
        with contextlib.suppress(OSError):
            write_file(self.path_of(key), seal(dumps((key, data))))  # type: ignore[no-untyped-call] # numba's

    def flush(self) -> None:
        """Do as numba's: forget what was saved."""
        for path in self.folder.glob(f"{self.name}.*.nbc"):
            path.unlink(missing_ok=True)


def seal(content: bytes) -> bytes:
    """Return bytes with their hash in front."""
    return MAGIC + hashlib.sha256(content).digest() + content


def unseal(sealed: bytes) -> bytes:
    """Return the bytes that were sealed.

    Raise a ValueError if they were changed.
    """
    content = sealed[len(MAGIC) + DIGEST_SIZE :]
    if sealed != seal(content):
        raise ValueError("damaged")
    return content


class CheckedCache(FunctionCache):
    """A function's cache as numba knows it, with :class:`CheckedFiles` under it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call] # numba's
        files: Any = CheckedFiles(Path(self._cache_path), self._impl.filename_base)
        self._cache_file = files

    def save_overload(self, sig: Any, data: Any) -> None:
        """Save what was compiled, if the folder can be written to."""
        with contextlib.suppress(OSError):
            super().save_overload(sig, data)  # type: ignore[no-untyped-call] # numba's


def jit(function: Callable[..., Any], *, cache: bool, **options: Any) -> Any:
    """Return a function that numba compiles when it is called, kept in checked files."""
    compiled = numba.njit(**options)(function)
    if cache:
        compiled._cache = CheckedCache(function)
    return compiled


def cfunc(signature: Any, function: Callable[..., Any], *, cache: bool, **options: Any) -> Any:
    """Return a function compiled for one signature behind a pointer, kept in checked files."""
    types = normalize_signature(signature)  # type: ignore[no-untyped-call] # numba's
    compiled: Any = CFunc(function, types, locals={}, options=options)
    if cache:
        compiled._cache = CheckedCache(function)
    with count_as_compiling():
        compiled.compile()
    return compiled


class CountingListener(event.Listener):
    """Counts the time that numba spends compiling functions."""

    def on_start(self, event: Any) -> None:  # noqa: ARG002 - numba's signature
        """Note that it begins."""
        COMPILING.begin()

    def on_end(self, event: Any) -> None:  # noqa: ARG002
        """Note that it ends."""
        COMPILING.end()


event.register("numba:compile", CountingListener())  # type: ignore[no-untyped-call] # numba's
