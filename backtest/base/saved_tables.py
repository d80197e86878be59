"""Save a result that consists of tables and a manifest in a folder, and read it again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import pandas as pd
import pyarrow.parquet as pq

from backtest.base.provenance import find_making, write_provenance
from backtest.base.result_folders import (
    name_folder,
    read_manifest,
    save_folder,
    write_folder_manifest,
    write_parquet,
)


class SavedTables(NamedTuple):
    """What the folder of a result holds: its manifest, and its tables by name."""

    manifest: dict[str, Any]
    tables: dict[str, pd.DataFrame]


class HasTables(Protocol):
    """A result of one kind, with a manifest that has an ``id``."""

    kind: ClassVar[str]

    @property
    def manifest(self) -> Mapping[str, Any]:
        """Return everything that the numbers depend on."""


def list_table_files(names: Iterable[str]) -> tuple[str, ...]:
    """Return the files of some tables.

    Examples
    --------
    >>> list_table_files(["folds", "trials"])
    ('folds.parquet', 'trials.parquet')
    """
    return tuple(f"{name}.parquet" for name in names)


def write_tables(tables: Mapping[str, pd.DataFrame], folder: Path) -> None:
    """Write each table to a file of its own in a folder."""
    for name, table in tables.items():
        write_parquet(table, folder / f"{name}.parquet")


def save_tables(
    result: HasTables, folder: Path, tables: Mapping[str, pd.DataFrame], version: int
) -> Path:
    """Write a result into a folder of its own, named by its kind and id; return that folder.

    It appears whole or not at all. ``version`` is the number of the format.
    """
    identity = result.manifest["id"]
    name = name_folder(result.kind, identity)
    making = find_making(result, [])

    def write(draft: Path) -> None:
        write_tables(tables, draft)
        write_folder_manifest(draft, result.manifest, list_table_files(tables), version)
        write_provenance(draft, folder / name, identity, making)

    return save_folder(folder, name, write, what=result.kind)


def read_saved_tables(
    folder: Path, names: Iterable[str], version: int, *, what: str, cure: str
) -> SavedTables:
    """Read the tables of a saved result, after checking the hashes of all files.

    Raises
    ------
    DataError
        If a file is missing, damaged, or not the one that was written.
    """
    manifest = read_manifest(folder, list_table_files(names), version, what=what, cure=cure)
    return SavedTables(drop_file_keys(manifest), read_tables(folder, names))


def drop_file_keys(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest without what only its file has: the format and the hashes."""
    return {key: value for key, value in manifest.items() if key not in ("format", "files")}


def read_tables(folder: Path, names: Iterable[str]) -> dict[str, pd.DataFrame]:
    """Read tables from their files in a folder."""
    return {name: pq.read_table(folder / f"{name}.parquet").to_pandas() for name in names}
