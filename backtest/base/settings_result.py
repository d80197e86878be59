"""Base of saved results whose manifest is made of data, settings and tables."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar, Self

import pandas as pd

from backtest.base.json_values import from_plain, to_json, to_plain
from backtest.base.later_import import call_later
from backtest.base.saved_result import SavedResult, list_records

describe_history = call_later("backtest.engine", "describe_history")
EMPTY = pd.DataFrame({"none": pd.Series(dtype="float64")})


class SettingsResult(SavedResult):
    """Base of results that are made of tables, settings and a few numbers.

    All other fields, such as paths or a market, are not saved: a loaded result has None there.

    Attributes
    ----------
    numbers : tuple of str
        Its attributes beside tables and settings that are saved.
    settings : dict
        What the numbers come from.
    """

    numbers: ClassVar[tuple[str, ...]] = ()
    settings: dict[str, Any]
    market: Any

    def describe_data(self) -> Mapping[str, Any]:
        """Return the data of the market, as the manifest of a run describes them."""
        found: Mapping[str, Any] = describe_history(self.market)
        return found

    @property
    def title(self) -> str:
        """What the result is about, for lists."""
        return str(self.settings.get("policy", ""))

    @classmethod
    def _read_line(cls, folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG003
        title = str(manifest["title"])
        return {"policy": title.partition("(")[0], "title": title, "note": str(manifest["note"])}

    @cached_property
    def manifest(self) -> Mapping[str, Any]:  # type: ignore[override] # made when asked for
        """Everything that the numbers depend on and how they are laid out, with an ``id``."""
        tables = {name: getattr(self, name) for name in self.table_names}
        manifest = to_plain(
            {
                "kind": self.kind,
                "data": self.describe_data(),
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

    def to_dict(self) -> dict[str, Any]:
        """Return the result as data for JSON; tables of more than 10,000 rows are left out."""
        tables = {
            name: getattr(self, name) for name in self.table_names if name not in self.long_tables
        }
        data: dict[str, Any] = to_json(
            {
                "verdict": self.verdict,
                "numbers": {each.name: each.value for each in self.list_numbers()},
                **{name: getattr(self, name) for name in self.numbers},
                **{name: list_records(table) for name, table in tables.items()},
            }
        )
        return {**data, "settings": self.manifest["settings"]}

    def _lay_out(self) -> dict[str, pd.DataFrame]:
        return {name: lay_flat(getattr(self, name)) for name in self.table_names}

    @classmethod
    def _read_back(
        cls,
        manifest: dict[str, Any],
        tables: Mapping[str, pd.DataFrame],
        folder: Path,  # noqa: ARG003
    ) -> Self:
        indices = manifest["indices"]
        fields: dict[str, Any] = {
            "settings": from_plain(manifest["settings"]),
            **{
                name: raise_index(table, indices[name]) if name in indices else None
                for name, table in tables.items()
            },
            **from_plain(manifest["outcome"]),
        }
        made = cls(**fields)
        vars(made)["manifest"] = manifest  # what was saved, not what is left of it
        return made


def hash_table(table: pd.DataFrame | None) -> str:
    text = lay_flat(table).to_csv(index=False, lineterminator="\n")
    return hashlib.sha256(text.encode()).hexdigest()


def lay_flat(table: pd.DataFrame | None) -> pd.DataFrame:
    if table is None:
        return EMPTY
    levels = [table.index.get_level_values(k) for k in range(table.index.nlevels)]
    columns = {f"index {k}": level for k, level in enumerate(levels)}
    return pd.DataFrame({**columns, **{str(name): table[name].array for name in table}})


def raise_index(table: pd.DataFrame, names: list[Any]) -> pd.DataFrame:
    return table.set_index([f"index {k}" for k in range(len(names))]).rename_axis(index=names)


LIBRARIES = (
    "leverage-backtest", "numpy", "numba", "llvmlite", "pandas", "pyarrow", "scipy", "arch",
)  # fmt: skip


def compute_id(manifest: Mapping[str, Any]) -> str:
    data = {key: value for key, value in manifest["data"].items() if key != "source"}
    text = json.dumps({**manifest, "data": data}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def find_versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: find_version(name) for name in LIBRARIES}}


@functools.cache
def find_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
