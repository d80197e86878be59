"""A read-only table of names, which compares and hashes by its content."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


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
