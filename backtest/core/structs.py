"""Records of numbers in a memory that plain Python and compiled code share."""

from __future__ import annotations

import collections
import ctypes
import functools
from typing import TYPE_CHECKING, Any, Self, TypeVar, get_type_hints

import numpy as np

if TYPE_CHECKING:

    class Memory:
        """What checkers know of ``ctypes.Structure``: no attribute but those that are declared."""

        def __init__(self, **numbers: float) -> None: ...
        @classmethod
        def from_buffer(cls, memory: Any) -> Self: ...
        @classmethod
        def from_buffer_copy(cls, memory: Any) -> Self: ...

else:
    Memory = ctypes.Structure


class Struct(Memory):
    """Numbers with names, in memory that plain Python and compiled code share.

    A derived class declares its fields, see :func:`lay_out`, and ``__slots__ = ()``, so that a
    misspelt one is an error. Compiled code takes a struct by its address, as numba's record of the
    same layout.
    """

    __slots__ = ()

    @classmethod
    def fields(cls) -> list[tuple[str, Any]]:
        """Return the fields in their order, those of a base first: name, and ctypes' kind."""
        fields: list[tuple[str, Any]] = []
        for kind in reversed(cls.__mro__):
            fields += vars(kind).get("_fields_", ())
        return fields

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of the numbers; a struct inside has its own."""
        return list_names(cls)  # type: ignore[arg-type] # the class has a hash, its numbers none

    @classmethod
    def read(cls, numbers: Any) -> Self:
        """Return a struct of numbers in the order of the fields."""
        row: Any = np.array(numbers, dtype=np.float64)
        return cls.from_buffer_copy(row)

    @property
    def numbers(self) -> Any:
        """The memory as an array of shape (fields,)."""
        memory: Any = self
        return np.frombuffer(memory)

    def copy(self) -> Self:
        return type(self).from_buffer_copy(self)

    def tolist(self) -> list[float]:
        numbers: list[float] = self.numbers.tolist()
        return numbers

    def to_dict(self) -> dict[str, float]:
        return dict(zip(self.names(), self.tolist(), strict=True))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return NotImplemented
        return bool(np.array_equal(self.numbers, other.numbers, equal_nan=True))

    __hash__ = None  # type: ignore[assignment] # its numbers change

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).read, (self.tolist(),)

    def __repr__(self) -> str:
        texts = [f"{name}={number!r}" for name, number in self.to_dict().items()]
        return f"{type(self).__name__}({', '.join(texts)})"


@functools.cache
def list_names(kind: type[Struct]) -> tuple[str, ...]:
    names: list[str] = []
    for name, inner in kind.fields():
        if issubclass(inner, Struct):
            names += list_names(inner)
        else:
            names.append(name)
    return tuple(names)


def lay_out(kind: Any) -> Any:
    """Lay out the fields that a struct declares: float64, or another struct."""
    hints = get_type_hints(kind)
    kind._fields_ = [(name, find_kind(hints[name])) for name in kind.__annotations__]
    return kind


def find_kind(hint: Any) -> Any:
    return hint if issubclass(hint, Struct) else ctypes.c_double


AnyStruct = TypeVar("AnyStruct", bound=Struct)


class Column(np.ndarray[Any, np.dtype[np.float64]]):
    """One field of some structs, of shape (n,); compiled code reads it in strides."""


class Structs(list[AnyStruct]):
    """Structs of one kind in one memory; compiled code takes an array of numba's records.

    ``numbers`` is that memory, of shape (n, fields): zeros, if none is given.
    """

    def __init__(self, kind: type[AnyStruct], n: int, memory: Any = None) -> None:
        shape = (n, len(kind.names()))
        self.kind = kind
        self.numbers = np.zeros(shape) if memory is None else memory.reshape(shape)
        rows: Any = self.numbers
        super().__init__(kind.from_buffer(row) for row in rows)

    def __reduce__(self) -> tuple[Any, ...]:
        return Structs, (self.kind, len(self), self.numbers)

    def copy(self) -> Structs[AnyStruct]:
        return Structs(self.kind, len(self), self.numbers.copy())

    def column(self, name: str) -> Column:
        """Return one field of all structs, a view."""
        column: Column = self.numbers[:, self.kind.names().index(name)].view(Column)
        return column

    def tolist(self) -> list[list[float]]:
        rows: list[list[float]] = self.numbers.tolist()
        return rows


def view_numbers(record: Struct | Structs[Any]) -> Any:
    """Return the memory as an array of shape (fields,) or (n, fields), also in compiled code."""
    return record.numbers


def number_fields(name: str, fields: Any, first: int = 0) -> Any:
    """Return the numbers of some fields by their names, counted from the first.

    A row of an array is ``rows[ROW.name]`` then. Compiled code has them as constants.
    """
    make: Any = collections.namedtuple  # of names that no checker knows
    kind = make(name, fields)
    return kind._make(range(first, first + len(kind._fields)))
