"""Read-only arrays that no flag makes writable again."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

ArrayT = TypeVar("ArrayT", bound="npt.NDArray[Any]")


def freeze(array: ArrayT) -> ArrayT:
    """Return an array on immutable bytes, C-contiguous; a copy unless it is both already.

    A read-only flag can be set back by whoever holds the array. This one refuses.

    Examples
    --------
    >>> freeze(np.ones(3)).flags.writeable = True
    Traceback (most recent call last):
    ValueError: cannot set WRITEABLE flag to True of this array
    """
    return array if array.flags.c_contiguous and is_frozen(array) else copy_frozen(array)


def copy_frozen(array: ArrayT) -> ArrayT:
    """Return a frozen copy, which shares no memory with any other array."""
    frozen: Any = np.frombuffer(array.tobytes(), dtype=array.dtype)
    same: ArrayT = frozen if array.ndim == 1 else frozen.reshape(array.shape)
    return same


def is_frozen(array: npt.NDArray[Any]) -> bool:
    """Return whether an array lies in immutable bytes."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return not array.flags.writeable and isinstance(base, bytes)
