"""The base of results about risk: tables and settings that can be saved and loaded."""

from __future__ import annotations

import hashlib
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
from backtest.market import Market, Markets

FORMAT = 1
EMPTY = pd.DataFrame({"none": pd.Series(dtype="float64")})
"""Stands in the file of a table that a result does not have."""


class RiskRecord(Reportable):
    """A result that consists of tables, settings and a few numbers.

    A class says which: ``names`` are its tables, ``numbers`` its other fields that are saved. All
    else, such as paths or a market, is not saved; a loaded result has None there.
    """

    kind: ClassVar[str]
    names: ClassVar[tuple[str, ...]]
    numbers: ClassVar[tuple[str, ...]] = ()
    settings: dict[str, Any]

    @classmethod
    def files(cls) -> tuple[str, ...]:
        """Return the names of the files of tables."""
        return list_table_files(cls.names)

    def find_history(self) -> Market | Markets | None:
        """Return the market that the result is about; None if there is none or it was loaded."""
        raise NotImplementedError

    @property
    def title(self) -> str:
        """What the result is about, for lists."""
        return str(self.settings.get("policy", ""))

    @property
    def note(self) -> str:
        """What came out, in a few words."""
        raise NotImplementedError

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Everything that the numbers depend on and how they are laid out, with an ``id``."""
        tables = {name: getattr(self, name) for name in self.names}
        manifest = to_plain(
            {
                "kind": self.kind,
                "data": describe_history(self.find_history()),
                "settings": self.settings,
                "outcome": {name: getattr(self, name) for name in self.numbers},
                "indices": {
                    name: list(table.index.names)
                    for name, table in tables.items()
                    if table is not None
                },
                "content": {name: hash_table(table) for name, table in tables.items()},
                "title": self.title,
                "note": self.note,
                "versions": find_versions(),
            }
        )
        return {"id": compute_id(manifest), **manifest}

    @checked
    def save(self, folder: str | Path = "results") -> Path:
        """Write the result into a folder of its own inside ``folder``; return that folder."""
        tables = {name: lay_flat(getattr(self, name)) for name in self.names}
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
        cure = "give the folder that save() returned"
        manifest, flat = read_saved_tables(path, cls.names, FORMAT, what=cls.kind, cure=cure)
        indices = manifest["indices"]
        tables = {
            name: raise_index(table, indices[name]) if name in indices else None
            for name, table in flat.items()
        }
        fields: dict[str, Any] = {
            "settings": from_plain(manifest["settings"]),
            **tables,
            **from_plain(manifest["outcome"]),
        }
        made = cls(**fields)
        vars(made)["manifest"] = manifest  # what was saved, not what is left of it
        attach_saved_making(made, path, manifest["id"])
        return made


def hash_table(table: pd.DataFrame | None) -> str:
    """Return the hash of the numbers of a table, so that other numbers have another id."""
    text = lay_flat(table).to_csv(index=False, lineterminator="\n")
    return hashlib.sha256(text.encode()).hexdigest()


def lay_flat(table: pd.DataFrame | None) -> pd.DataFrame:
    """Return a table with the levels of its index as its first columns, named by number."""
    if table is None:
        return EMPTY
    levels = [table.index.get_level_values(k) for k in range(table.index.nlevels)]
    columns = {f"index {k}": level for k, level in enumerate(levels)}
    return pd.DataFrame({**columns, **{str(name): table[name].array for name in table}})


def raise_index(table: pd.DataFrame, names: list[Any]) -> pd.DataFrame:
    """Return a table with the index that it had before :func:`lay_flat`."""
    return table.set_index([f"index {k}" for k in range(len(names))]).rename_axis(index=names)
