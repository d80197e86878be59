"""Read-only arrays and tables of names, and values that are given in one of two forms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

ArrayT = TypeVar("ArrayT", bound="npt.NDArray[Any]")


def freeze(array: ArrayT) -> ArrayT:
    return array if array.flags.c_contiguous and is_frozen(array) else copy_frozen(array)


def copy_frozen(array: ArrayT) -> ArrayT:
    frozen: Any = np.frombuffer(array.tobytes(), dtype=array.dtype)
    same: ArrayT = frozen if array.ndim == 1 else frozen.reshape(array.shape)
    return same


def is_frozen(array: npt.NDArray[Any]) -> bool:
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return not array.flags.writeable and isinstance(base, bytes)


class FrozenTable(Mapping[str, Any]):
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
    return value[name] if isinstance(value, Mapping) else value


def list_values(value: Any) -> list[Any]:
    return [*value.values()] if isinstance(value, Mapping) else [value]


def name_values(value: Any, names: Iterable[str]) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else dict.fromkeys(names, value)


def float_if_single(values: npt.NDArray[np.float64]) -> Any:
    return values if values.ndim else float(values)
