"""Calls of compiled functions: their arguments as a table of words, and what they return."""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from backtest._compile import cache_folders
from backtest._compile.interruptions import COMPILER_LOCK
from backtest._compile.object_code import ObjectFile, load_or_compile
from backtest.core.code_versions import hash_texts
from backtest.core.structs import Column, Struct, Structs

KINDS = {float: "d", np.float64: "d", int: "q", np.int64: "q", bool: "b", np.bool_: "b"}
RETURNED = {"q": ctypes.c_int64, "d": ctypes.c_double, "b": ctypes.c_bool}


class PackedLeaf(NamedTuple):
    """What is no tuple, with its kind and its words."""

    leaf: Any
    kind: str
    words: tuple[Any, ...]


class Packed(NamedTuple):
    """An argument as words, and its kinds: letters of numbers, types of arrays.

    ``leaves`` are what it holds, by their ``id``. They are kept, so that each id stays its own.
    """

    kinds: tuple[str, ...]
    words: bytes
    leaves: dict[int, PackedLeaf]


NOTHING_PACKED = Packed((), b"", {})


def pack(value: Any, last: Packed = NOTHING_PACKED) -> Packed:
    """Return an argument as words of 64 bits, as compiled code gets it.

    The elements of a tuple follow each other, also of tuples inside; an array has seven or more
    words, and a struct one, its address. ``last`` is the argument that stood in this place at the
    last call: most of its elements are often the same objects, and are not packed again.
    """
    form: list[str] = []
    words: list[Any] = []
    kinds: list[str] = []
    leaves: dict[int, PackedLeaf] = {}
    for leaf in flatten(value):
        packed = last.leaves.get(id(leaf))
        if packed is None:
            packed = PackedLeaf(leaf, *pack_leaf(leaf))
        leaves[id(leaf)] = packed
        kinds.append(packed.kind)
        words += packed.words

        # A float is a word by its bits, all else are whole numbers.
        if packed.kind == "d":
            form.append("d")
        else:
            form.append(f"{len(packed.words)}q")
    return Packed(tuple(kinds), struct.pack("".join(form), *words), leaves)


def pack_leaf(leaf: Any) -> tuple[str, tuple[Any, ...]]:
    """Return the kind of a single argument, and the words by which compiled code gets it.

    Words are whole numbers of 64 bits, or one float. For an array they are the fields of numba's
    own record of an array, in its order: owner and Python object (0, it has neither), number of
    elements, bytes of an element, address, shape, and strides in bytes.

    The kind is a text that names the type for which code is compiled. For an array it has the type
    of the elements, the number of dimensions, and C if they lie end to end in memory.
    """
    if isinstance(leaf, np.ndarray):
        is_contiguous = leaf.flags.c_contiguous and not isinstance(leaf, Column)
        kind = name_array(leaf.dtype, leaf.ndim, is_contiguous)
        address = leaf.ctypes.data
        return kind, (0, 0, leaf.size, leaf.itemsize, address, *leaf.shape, *leaf.strides)

    if isinstance(leaf, Struct):
        return type(leaf).__name__, (leaf.numbers.ctypes.data,)

    # Many structs are an array of one dimension, whose elements are the rows of their numbers.
    if isinstance(leaf, Structs):
        n = leaf.numbers.shape[0]
        size = leaf.numbers.strides[0]
        address = leaf.numbers.ctypes.data
        return f"{leaf.kind.__name__}1C", (0, 0, n, size, address, n, size)

    if leaf is None:
        return "n", (0,)
    return KINDS[type(leaf)], (leaf,)


@functools.cache
def name_array(dtype: np.dtype[Any], ndim: int, is_contiguous: bool) -> str:
    """Return the kind of an array: that of its elements, its dimensions, and its layout."""
    return f"{dtype.str}{ndim}{'C' if is_contiguous else 'A'}"


def flatten(value: Any) -> list[Any]:
    """Return what tuples of tuples hold, in their order."""
    if not isinstance(value, tuple):
        return [value]
    leaves: list[Any] = []
    for element in value:
        if isinstance(element, tuple):
            leaves += flatten(element)
        else:
            leaves.append(element)
    return leaves


CALLED = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p)


class Entry:
    """A function that Python calls, one object for each kinds of arguments.

    ``mark`` names its sources; ``compile_for`` returns the object of a name for some arguments.
    """

    def __init__(self, name: str, mark: str, compile_for: Callable[..., ObjectFile]) -> None:
        self.name = name
        self.prefix = f"{name}-{mark}"
        self.compile_for = compile_for
        self.loaded: dict[tuple[tuple[str, ...], ...], tuple[Any, str]] = {}

    def is_compiled(self) -> bool:
        """Return whether it is in memory or in a folder, for arguments of some kinds."""
        if self.loaded:
            return True
        folders = cache_folders.list_folders()
        return any(any(folder.glob(f"{self.prefix}*.o")) for folder in folders)

    def find(
        self, kinds: tuple[tuple[str, ...], ...], arguments: tuple[Any, ...]
    ) -> tuple[Any, str]:
        """Return the function for these kinds, compiled if no folder has it, and its returns."""
        if kinds not in self.loaded:
            with COMPILER_LOCK:
                name = f"{self.prefix}-{hash_texts(repr(kinds))[:12]}"
                loaded = load_or_compile(name, lambda: self.compile_for(name, arguments))
                self.loaded[kinds] = (CALLED(loaded.address), loaded.returns)
        return self.loaded[kinds]

    def __call__(self, *arguments: Any) -> Any:
        return Caller(self)(*arguments)


class Caller:
    """Calls an entry again and again, and packs an argument only if it is another object.

    ``packed`` has for each place among the arguments the last object there, and its words.
    """

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.packed: dict[int, tuple[Any, Packed]] = {}

    def bind(self, *arguments: Any) -> Callable[[], Any]:
        """Return a function without arguments that makes the call with these ones, now or later.

        An argument is packed into words only if it is another object than at the last call. The
        version for arguments of these kinds is looked up here, and compiled if no folder has it.
        """
        kinds = []
        words = []
        for k, value in enumerate(arguments):
            last_value, packed = self.packed.get(k, (None, NOTHING_PACKED))
            if packed is NOTHING_PACKED or last_value is not value:
                packed = pack(value, packed)
                self.packed[k] = (value, packed)
            kinds.append(packed.kinds)
            words.append(packed.words)

        function, returns = self.entry.find(tuple(kinds), arguments)
        return functools.partial(call, self.entry.name, function, returns, b"".join(words))

    def __call__(self, *arguments: Any) -> Any:
        return self.bind(*arguments)()


def call(name: str, function: Any, returns: str, words: bytes) -> Any:
    """Call a compiled function; return None, a number, or a tuple of numbers.

    ``words`` are its arguments, eight bytes each; ``returns`` has a letter for the kind of each
    number that it returns, at most eight. It writes them into memory that it is given, and its
    status is not 0 where it failed.
    """
    returned = (ctypes.c_int64 * 8)()
    fault = ctypes.c_void_p()
    status = function(words, ctypes.addressof(returned), ctypes.addressof(fault))
    if status != 0:
        raise RuntimeError(f"compiled {name} ended with status {status}; please report this")

    address = ctypes.addressof(returned)
    values = []
    for k, letter in enumerate(returns):
        kind: Any = RETURNED[letter]
        values.append(kind.from_address(address + 8 * k).value)
    if not values:
        return None
    if len(values) == 1:
        return values[0]
    return tuple(values)
