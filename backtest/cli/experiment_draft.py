"""A draft of an experiment: the tables of its file, with the flags applied."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from backtest.base import BacktestError

Tables = dict[str, dict[str, Any]]


class GivenFlag(NamedTuple):
    table: str
    key: str
    value: object

    @property
    def group(self) -> str:
        return self.key.partition(".")[0]


class DraftTable(NamedTuple):
    entries: Mapping[str, Any]
    folder: Path


class Draft(NamedTuple):
    tables: Tables
    file: Path | None
    from_file: Tables
    flags: Sequence[GivenFlag]
    arguments: tuple[str, ...] = ()
    line: tuple[str, ...] = ()

    def section(self, table: str, *, path: str = "") -> DraftTable:
        return DraftTable(self.tables.get(table, {}), self.find_base(table, path))

    def read_entries(self, table: str, key: str, read: Callable[..., Any]) -> dict[str, Any]:
        entries = flatten(self.tables.get(table, {}).get(key, {}))
        return {name: read(entry, name=f"{table}.{key}.{name}") for name, entry in entries.items()}

    def find_base(self, table: str, key: str) -> Path:
        is_flag = any(flag.table == table and flag.key == key for flag in self.flags)
        return Path() if is_flag or self.file is None else self.file.parent

    def find_path(self, table: str, key: str) -> Path:
        return self.find_base(table, key) / Path(self.tables[table][key])


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def nest(flag: GivenFlag) -> Tables:
    """Return a flag as nested tables, one level for each dot in its key.

    Examples
    --------
    >>> nest(GivenFlag("venue", "fees.taker", 0.0005))
    {'venue': {'fees': {'taker': 0.0005}}}
    """
    value: Any = flag.value
    for key in reversed(flag.key.split(".")):
        value = {key: value}
    return {flag.table: value}


def overlay(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[key] = overlay(below, value)
        else:
            merged[key] = value
    return merged


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Begin the errors raised inside with the name of a file or a key."""
    try:
        yield
    except BacktestError as error:
        raise type(error)(f"{name}: {error}") from error
