"""A draft of an experiment: the tables of its file, with the flags applied."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from backtest.base import BacktestError

Tables = dict[str, dict[str, Any]]


class GivenFlag(NamedTuple):
    """A flag that was given at the command line, and the entry of the experiment that it sets."""

    name: str
    table: str
    key: str
    value: object

    @property
    def group(self) -> str:
        """The key before its first dot: ``space`` of ``space.target``."""
        return self.key.partition(".")[0]

    @property
    def entry(self) -> str:
        """The key after its first dot; empty where it has none."""
        return self.key.partition(".")[2]


class DraftTable(NamedTuple):
    """One table of an experiment, where it was given, and the base folder of its path."""

    entries: Mapping[str, Any]
    where: str
    folder: Path


class Draft(NamedTuple):
    """An experiment as data: its tables, the file they come from, and the flags applied to them.

    ``command`` is the command that was called, for messages. ``arguments`` are the file and the
    flags that describe the experiment. ``line`` is everything typed after ``backtest``.
    """

    tables: Tables
    file: Path | None
    from_file: Tables
    flags: Sequence[GivenFlag]
    command: str
    arguments: tuple[str, ...] = ()
    line: tuple[str, ...] = ()

    def section(self, table: str, *, path: str = "") -> DraftTable:
        """Return one table and where it was given; ``path`` is the key that holds a path."""
        folder = self.find_base(table, path)
        return DraftTable(self.tables.get(table, {}), self.locate(table), folder)

    def read_entries(self, table: str, key: str, read: Callable[..., Any]) -> dict[str, Any]:
        """Read each entry of a table in a table, such as ``[sweep.space]``, by its dotted name."""
        entries = flatten(self.tables.get(table, {}).get(key, {}))
        return {
            name: read(entry, where=f"{self.locate(table, (name,))}: {name}")
            for name, entry in entries.items()
        }

    def locate(self, table: str, about: Sequence[str] = ()) -> str:
        """Return the file and flags that gave the entries of a table, for messages.

        ``about`` are the keys that the message is about: if flags set one of them, no other flag
        is named.
        """
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
        """Return the folder that a path in this entry is relative to: the file's, or the user's."""
        is_flag = any(flag.table == table and flag.key == key for flag in self.flags)
        return Path() if is_flag or self.file is None else self.file.parent

    def find_path(self, table: str, key: str) -> Path:
        """Return the path in an entry."""
        return self.find_base(table, key) / Path(self.tables[table][key])


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a table of tables: keys are joined by dots.

    Examples
    --------
    >>> flatten({"target": [1], "account": {"band": [0, 1]}})
    {'target': [1], 'account.band': [0, 1]}
    """
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
    """Merge two tables, and the tables in them; entries of ``over`` replace those of ``under``."""
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
    """Prefix the location of errors raised inside with the file or flag that caused them."""
    try:
        yield
    except BacktestError as error:
        place = f"{where}: {error.where}"
        raise type(error)(error.problem, where=place, cure=error.cure) from error
