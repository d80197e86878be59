"""Read-only arrays and tables of names, and values that are given in one of two forms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
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


class FrozenTable(Mapping[str, Any]):
    """A mapping that cannot be changed; its values must not be changeable either.

    Two tables are equal if they have the same entries in the same order.
    """

    __slots__ = ("_entries",)

    def __init__(self, entries: Mapping[str, Any]) -> None:
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> Any:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FrozenTable):
            return NotImplemented
        return list(self._entries.items()) == list(other._entries.items())

    def __hash__(self) -> int:
        return hash(tuple(self._entries.items()))

    def __repr__(self) -> str:
        return repr(self._entries)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self._entries,)


def pick_value(value: Any, name: str) -> Any:
    """Return the value of one name: that of all, or of a mapping its own."""
    return value[name] if isinstance(value, Mapping) else value


def list_values(value: Any) -> list[Any]:
    """Return the one value of all names, or those of a mapping."""
    return [*value.values()] if isinstance(value, Mapping) else [value]


def name_values(value: Any, names: Iterable[str]) -> Mapping[str, Any]:
    """Return a mapping as it is, and one value of all names by name."""
    return value if isinstance(value, Mapping) else dict.fromkeys(names, value)


def float_if_single(values: npt.NDArray[np.float64]) -> Any:
    """Return an array, or a float if it is a single number."""
    return values if values.ndim else float(values)
