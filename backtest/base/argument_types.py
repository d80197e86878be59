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


class ArrayOutline(NamedTuple):
    dtype: str
    n_dimensions: int
    layout: str
    is_writeable: bool


def outline_argument(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        flags = value.flags
        layout = "C" if flags.c_contiguous else "F" if flags.f_contiguous else "A"
        return ArrayOutline(value.dtype.str, value.ndim, layout, bool(flags.writeable))
    if isinstance(value, tuple):
        return make_like(value, map(outline_argument, value))
    return value


def rebuild_argument(value: Any) -> Any:
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
    return type(value)._make(items) if hasattr(value, "_make") else tuple(items)


@functools.cache
def describe_array(outline: ArrayOutline) -> str:
    return str(tuple(outline))


def describe_types(value: Any) -> str:
    if isinstance(value, ArrayOutline):
        return describe_array(value)
    if isinstance(value, tuple):
        inner = ", ".join(map(describe_types, value))
        return f"{type(value).__name__}{getattr(value, '_fields', '')}({inner})"
    return NAMES.get(type(value)) or type(value).__name__


def name_types(*outlined: Any) -> str:
    return hash_types(tuple(map(describe_types, outlined)))


@functools.lru_cache(maxsize=4096)
def hash_types(texts: tuple[str, ...]) -> str:
    return hash_texts(*texts)
