"""The base of saved results of this wing: tables, a manifest, and the files of both."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import pandas as pd

from backtest.base.checked_calls import checked
from backtest.base.json_values import from_plain, to_plain
from backtest.base.provenance import attach_saved_making
from backtest.base.reportable import Reportable
from backtest.base.saved_tables import list_table_files, read_saved_tables, save_tables
from backtest.engine import compute_id
from backtest.engine.manifest import describe_history, find_versions
from backtest.market import Market

FORMAT = 1
MOST_ROWS = 10_000
"""The rows of the largest table that is written as JSON."""


class CrowdRecord(Reportable):
    """A result that consists of tables and a manifest.

    Attributes
    ----------
    tables : mapping of str to DataFrame
        The tables by name.
    manifest : mapping
        What the result depends on, and its ``outcome`` in numbers.
    """

    kind: ClassVar[str]
    names: ClassVar[tuple[str, ...]]

    @checked
    def __init__(self, tables: Mapping[str, pd.DataFrame], manifest: Mapping[str, Any]) -> None:
        self.tables = dict(tables)
        self.manifest = manifest

    @classmethod
    def files(cls) -> tuple[str, ...]:
        """Return the names of the files of tables."""
        return list_table_files(cls.names)

    @cached_property
    def outcome(self) -> dict[str, Any]:
        """The numbers of the result by name."""
        found: dict[str, Any] = from_plain(self.manifest["outcome"])
        return found

    def summary(self) -> str:
        """Return the result as text of 100 columns."""
        raise NotImplementedError

    def __str__(self) -> str:
        return self.summary()

    def to_dict(self) -> dict[str, Any]:
        """Return the result as data for JSON; tables of more than 10,000 rows are left out."""
        tables = {
            name: write_times(table.reset_index()).to_dict("records")
            for name, table in self.tables.items()
            if len(table) <= MOST_ROWS
        }
        data: dict[str, Any] = to_plain({self.kind: self.manifest, **tables})
        return data

    def save(self, folder: str | Path = "results") -> Path:
        """Write the result into a folder of its own inside ``folder``; return that folder."""
        tables = {name: self.tables[name] for name in self.names}
        return save_tables(self, Path(folder), tables, FORMAT)

    @classmethod
    @checked
    def load(cls, folder: str | Path) -> Self:
        """Load a saved result; nothing in the folder is executed.

        Raises
        ------
        DataError
            If a file is missing, damaged, or not the one that was written.
        """
        path = Path(folder)
        cure = f"give the folder that save() of a {cls.kind} returned"
        saved = read_saved_tables(path, cls.names, FORMAT, what=cls.kind, cure=cure)
        made = cls(saved.tables, saved.manifest)
        attach_saved_making(made, path, saved.manifest["id"])
        return made


def write_times(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with its times as text."""
    return table.assign(time=table["time"].astype(str)) if "time" in table else table


def describe_crowd_data(market: Market | None, source: str, content: str) -> dict[str, Any]:
    """Return the data of a result, as the manifest of a run describes them."""
    return {**describe_history(market), "source": source, "content_hash": content}


def build_crowd_manifest(
    kind: str, data: Mapping[str, Any], parts: Mapping[str, Any]
) -> dict[str, Any]:
    """Return everything that the numbers depend on, and the numbers, with an ``id``."""
    manifest = to_plain({"kind": kind, "data": data, **parts, "versions": find_versions()})
    return {"id": compute_id(manifest), **manifest}
