"""Calls of compiled functions: their arguments as a table of words, and what they return."""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from backtest._compile import cache_folders
from backtest._compile.interruptions import COMPILER_LOCK
from backtest._compile.object_code import ObjectFile, load_or_compile
from backtest.core.code_names import hash_texts
from backtest.core.structs import Column, Struct, Structs

KINDS = {float: "d", np.float64: "d", int: "q", np.int64: "q", bool: "b", np.bool_: "b"}
RETURNED = {"q": ctypes.c_int64, "d": ctypes.c_double, "b": ctypes.c_bool}


class Packed(NamedTuple):
    """An argument as words, and its kinds: letters of numbers, types of arrays."""

    kinds: tuple[str, ...]
    words: bytes


def pack(value: Any) -> Packed:
    """Return an argument as numba passes it: tuples flat, an array as its seven or more words.

    A struct is the word of its address.
    """
    kinds: list[str] = []
    form: list[str] = []
    words: list[Any] = []
    for leaf in flatten(value):
        own: tuple[Any, ...] = (leaf,)
        if isinstance(leaf, np.ndarray):
            is_whole = leaf.flags.c_contiguous and not isinstance(leaf, Column)
            kind = f"{leaf.dtype.str}{leaf.ndim}{'C' if is_whole else 'A'}"
            place = leaf.ctypes.data
            own = (0, 0, leaf.size, leaf.itemsize, place, *leaf.shape, *leaf.strides)
        elif isinstance(leaf, Struct):
            kind, own = type(leaf).__name__, (leaf.numbers.ctypes.data,)
        elif isinstance(leaf, Structs):
            kind = f"{leaf.kind.__name__}1C"
            n, size = leaf.numbers.shape[0], leaf.numbers.strides[0]
            own = (0, 0, n, size, leaf.numbers.ctypes.data, n, size)
        elif leaf is None:
            kind, own = "n", (0,)
        else:
            kind = KINDS[type(leaf)]
        kinds.append(kind)
        words += own
        form.append("d" if kind == "d" else f"{len(own)}q")
    return Packed(tuple(kinds), struct.pack("".join(form), *words))


def flatten(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple):
        for each in value:
            yield from flatten(each)
    else:
        yield value


CALLED = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p)


class Entry:
    """A function that Python calls, one object for each kinds of arguments.

    ``mark`` names its sources; ``compile_for`` returns the object of a name for given arguments.
    """

    def __init__(self, name: str, mark: str, compile_for: Callable[..., ObjectFile]) -> None:
        self.name, self.prefix, self.compile_for = name, f"{name}-{mark}", compile_for
        self.found: dict[tuple[tuple[str, ...], ...], tuple[Any, str]] = {}

    def is_compiled(self) -> bool:
        """Return whether it is in memory or in a folder, for arguments of some kinds."""
        files = (folder.glob(f"{self.prefix}*.o") for folder in cache_folders.list_folders())
        return bool(self.found) or any(map(any, files))

    def find(self, kinds: tuple[tuple[str, ...], ...], given: tuple[Any, ...]) -> tuple[Any, str]:
        """Return the function for these kinds, compiled if no folder has it, and its returns."""
        if kinds not in self.found:
            with COMPILER_LOCK:
                name = f"{self.prefix}-{hash_texts(repr(kinds))[:12]}"
                loaded = load_or_compile(name, lambda: self.compile_for(name, given))
                self.found[kinds] = CALLED(loaded.address), loaded.returns
        return self.found[kinds]

    def __call__(self, *given: Any) -> Any:
        return Caller(self)(*given)


class Caller:
    """Call an entry again and again; what is the same object as before is not packed again."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.kept: dict[int, tuple[Any, Packed]] = {}

    def bind(self, *given: Any) -> Callable[[], Any]:
        """Return the call itself; what must be compiled for it is compiled before."""
        parts = []
        for k, value in enumerate(given):
            last = self.kept.get(k)
            if last is None or last[0] is not value:
                last = self.kept[k] = value, pack(value)
            parts.append(last[1])
        function, returns = self.entry.find(tuple(each.kinds for each in parts), given)
        words = b"".join(each.words for each in parts)
        return functools.partial(call, self.entry.name, function, returns, words)

    def __call__(self, *given: Any) -> Any:
        return self.bind(*given)()


def call(name: str, function: Any, returns: str, words: bytes) -> Any:
    """Return what a function returns: None, a number, or a tuple of numbers."""
    room = (ctypes.c_int64 * 8)()
    fault = ctypes.c_void_p()
    status = function(words, ctypes.addressof(room), ctypes.addressof(fault))
    if status != 0:
        raise RuntimeError(f"compiled {name} ended with status {status}; please report this")
    place = ctypes.addressof(room)
    kinds: list[Any] = [RETURNED[each] for each in returns]
    found = tuple(kind.from_address(place + 8 * k).value for k, kind in enumerate(kinds))
    return found if len(found) > 1 else found[0] if found else None
