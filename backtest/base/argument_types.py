"""Outlines of function arguments: the types that numba compiles for, without the data."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from backtest.base.code_identity import hash_texts

NAMES: dict[type, str] = {
    **dict.fromkeys((bool, np.bool_), "bool"),
    **dict.fromkeys((int, np.int64), "int"),
    **dict.fromkeys((float, np.float64), "float"),
}
"""One name for each pair of Python and numpy types that numba treats as the same type."""


class ArrayOutline(NamedTuple):
    """An array without its data; ``layout`` is ``"C"``, ``"F"`` or ``"A"`` as in numba."""

    dtype: str
    n_dimensions: int
    layout: str
    is_writeable: bool


def outline_argument(value: Any) -> Any:
    """Return an argument with every array in it replaced by its outline."""
    if isinstance(value, np.ndarray):
        flags = value.flags
        layout = "C" if flags.c_contiguous else "F" if flags.f_contiguous else "A"
        return ArrayOutline(value.dtype.str, value.ndim, layout, bool(flags.writeable))
    if isinstance(value, tuple):
        return make_like(value, map(outline_argument, value))
    return value


def rebuild_argument(value: Any) -> Any:
    """Build an argument with the types of an outlined one; its arrays are filled with zeros."""
    if isinstance(value, ArrayOutline):
        shape = (2,) * value.n_dimensions
        order: Any = "F" if value.layout == "F" else "C"
        array = np.zeros(tuple(2 * n for n in shape), value.dtype, order)
        array = array[(slice(None, None, 2),) * len(shape)]
        if value.layout != "A":
            array = array.copy(order)
        array.flags.writeable = value.is_writeable
        return array
    if isinstance(value, tuple):
        return make_like(value, map(rebuild_argument, value))
    return value


def make_like(value: tuple[Any, ...], items: Any) -> Any:
    """Build a tuple from items, of the same class as another tuple."""
    return type(value)._make(items) if hasattr(value, "_make") else tuple(items)


@functools.cache
def describe_array(outline: ArrayOutline) -> str:
    """Return the type of an array as text."""
    return str(tuple(outline))


def describe_types(value: Any) -> str:
    """Return the types of an outlined argument as text, in more detail than numba's types."""
    if isinstance(value, ArrayOutline):
        return describe_array(value)
    if isinstance(value, tuple):
        inner = ", ".join(map(describe_types, value))
        return f"{type(value).__name__}{getattr(value, '_fields', '')}({inner})"
    return NAMES.get(type(value)) or type(value).__name__


def name_types(*outlined: Any) -> str:
    """Return a short name for the types of outlined arguments."""
    return hash_types(tuple(map(describe_types, outlined)))


@functools.lru_cache(maxsize=4096)
def hash_types(texts: tuple[str, ...]) -> str:
    """Return a short name for descriptions of types."""
    return hash_texts(*texts)
