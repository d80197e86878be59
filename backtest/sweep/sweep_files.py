"""Save sweeps as Parquet and JSON, and load them again; nothing in them is code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from backtest.base.errors import DataError
from backtest.base.provenance import Making, write_provenance
from backtest.base.result_folders import (
    MANIFEST,
    name_folder,
    read_manifest,
    save_folder,
    write_folder_manifest,
    write_parquet,
)

FORMAT = 1
TABLE = "table.parquet"
LABEL = "label"
"""Column of the file with the labels of the rows."""


def save_sweep(
    table: pd.DataFrame, manifest: Mapping[str, Any], making: Making, folder: Path
) -> Path:
    """Write a sweep into a new folder inside ``folder``; it appears whole or not at all."""
    identity = manifest["id"]
    name = name_folder(f"sweep {manifest['policy']['name']}", identity)

    def write(draft: Path) -> None:
        _write(table.copy(), manifest, draft)
        write_provenance(draft, folder / name, identity, making)

    return save_folder(folder, name, write, what="sweep")


def _write(table: pd.DataFrame, manifest: Mapping[str, Any], folder: Path) -> None:
    mixed = _find_mixed(table)
    for name in mixed:
        words = [None if value is None else str(value) for value in table[name]]
        table[name] = pd.Series(words, index=table.index, dtype=object)
    table.insert(0, LABEL, table.index)
    write_parquet(table, folder / TABLE)
    write_folder_manifest(folder, {**manifest, "mixed": mixed}, (TABLE,), FORMAT)


def _find_mixed(table: pd.DataFrame) -> list[str]:
    """Return the columns that mix numbers and words, which are stored as words."""
    objects = [str(name) for name in table if table[name].dtype == object]
    return [name for name in objects if pd.api.types.infer_dtype(table[name]) != "string"]


def read_sweep(folder: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the table and the manifest of a saved sweep, unless a file is missing or changed."""
    manifest = read_manifest(
        folder, (TABLE,), FORMAT, what="sweep", cure="give the folder that Sweep.save returned"
    )
    table = pq.read_table(folder / TABLE).to_pandas().set_index(LABEL).rename_axis(None)
    for name in _read_mixed(manifest, table, folder):
        table[name] = pd.Series(map(_read_word, table[name]), index=table.index, dtype=object)
    return table, {key: value for key, value in manifest.items() if key not in _OF_THE_FILE}


_OF_THE_FILE = ("format", "files", "mixed")


def _read_mixed(manifest: dict[str, Any], table: pd.DataFrame, folder: Path) -> list[str]:
    """Return the columns that mix numbers and words, according to the manifest."""
    mixed = manifest.get("mixed")
    if not isinstance(mixed, list) or not {*map(str, mixed)} <= {*table}:
        raise DataError(
            f"mixed must be a list of columns of the table, got {mixed!r}",
            where=str(folder / MANIFEST),
            cure="run the sweep again, or restore the file",
        )
    return mixed


def _read_word(text: object) -> Any:
    """Return a number that was stored as a word, or the word; None if it is missing."""
    if not isinstance(text, str):  # a missing word comes back from the file as NaN
        return None
    try:
        return float(text)
    except ValueError:
        return text
