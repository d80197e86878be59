"""A draft of an experiment: the tables of its file, with the flags applied."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from backtest.base import BacktestError

Tables = dict[str, dict[str, Any]]


class GivenFlag(NamedTuple):
    name: str
    table: str
    key: str
    value: object

    @property
    def group(self) -> str:
        return self.key.partition(".")[0]

    @property
    def entry(self) -> str:
        return self.key.partition(".")[2]


class DraftTable(NamedTuple):
    entries: Mapping[str, Any]
    where: str
    folder: Path


class Draft(NamedTuple):
    tables: Tables
    file: Path | None
    from_file: Tables
    flags: Sequence[GivenFlag]
    command: str
    arguments: tuple[str, ...] = ()
    line: tuple[str, ...] = ()

    def section(self, table: str, *, path: str = "") -> DraftTable:
        folder = self.find_base(table, path)
        return DraftTable(self.tables.get(table, {}), self.locate(table), folder)

    def read_entries(self, table: str, key: str, read: Callable[..., Any]) -> dict[str, Any]:
        entries = flatten(self.tables.get(table, {}).get(key, {}))
        return {
            name: read(entry, where=f"{self.locate(table, (name,))}: {name}")
            for name, entry in entries.items()
        }

    def locate(self, table: str, about: Sequence[str] = ()) -> str:
        sources = [f"{self.file}, [{table}]"] if table in self.from_file else []
        flags = [flag for flag in self.flags if flag.table == table]
        exact = [flag for flag in flags if {flag.key, flag.entry} & {*about}]
        groups = {*about} - {flag.group for flag in exact}
        relevant = [flag for flag in flags if flag in exact or flag.group in groups]
        in_file = flatten(self.from_file.get(table, {}))
        if not relevant and any({key, *key.split(".", 1)} & {*about} for key in in_file):
            return sources[0]
        if relevant:
            sources = []
        sources += dict.fromkeys(flag.name for flag in relevant or flags)
        return ", ".join(sources) or self.command

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
    >>> nest(GivenFlag("--taker-bps", "venue", "fees.taker", 0.0005))
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
def located(where: str) -> Iterator[None]:
    try:
        yield
    except BacktestError as error:
        place = ": ".join(filter(None, [where, error.where]))
        raise type(error)(error.problem, where=place, cure=error.cure) from error
