"""The base of saved results of this wing: tables and a manifest that holds the outcome."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import pandas as pd

from backtest.base import (
    SavedResult,
    checked,
    compute_id,
    find_versions,
    from_plain,
    list_records,
    to_plain,
)
from backtest.engine import describe_history
from backtest.market import Market


class CrowdRecord(SavedResult):
    """A result that consists of tables and a manifest.

    Attributes
    ----------
    tables : mapping of str to DataFrame
        The tables by name.
    manifest : mapping
        What the result depends on, and its ``outcome`` in numbers.
    """

    index_names: ClassVar[Mapping[str, str]] = {}

    @checked
    def __init__(self, tables: Mapping[str, pd.DataFrame], manifest: Mapping[str, Any]) -> None:
        self.tables = dict(tables)
        self.manifest = manifest

    @cached_property
    def outcome(self) -> dict[str, Any]:
        """The numbers of the result by name."""
        found: dict[str, Any] = from_plain(self.manifest["outcome"])
        return found

    @property
    def heading(self) -> str:
        """The title of the page."""
        return self.title

    @property
    def about(self) -> str:
        """That there are positions and no market."""
        return "" if self.manifest["data"]["bars"] else "Positions given, without a market"

    @classmethod
    def _read_line(cls, folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG003
        found = cls({}, manifest)
        policy = str(manifest.get("policy", {}).get("name", found.title))
        return {"policy": policy, "title": found.title, "note": found.note}

    def to_dict(self) -> dict[str, Any]:
        """Return the result as data for JSON; tables of more than 10,000 rows are left out."""
        tables = {name: list_records(table) for name, table in self.tables.items()}
        data: dict[str, Any] = to_plain(
            {
                self.kind: self.manifest,
                "verdict": self.verdict,
                "numbers": {each.name: each.value for each in self.list_numbers()},
                **{name: rows for name, rows in tables.items() if rows is not None},
            }
        )
        return data

    def _lay_out(self) -> dict[str, pd.DataFrame]:
        return {name: self.tables[name] for name in self.table_names}

    @classmethod
    def _read_back(
        cls,
        manifest: dict[str, Any],
        tables: Mapping[str, pd.DataFrame],
        folder: Path,  # noqa: ARG003
    ) -> Self:
        for name, index in cls.index_names.items():
            tables[name].index.name = index
        return cls(tables, manifest)


def describe_crowd_data(market: Market | None, source: str, content: str) -> dict[str, Any]:
    return {**describe_history(market), "source": source, "content_hash": content}


def build_crowd_manifest(
    kind: str, data: Mapping[str, Any], parts: Mapping[str, Any]
) -> dict[str, Any]:
    manifest = to_plain({"kind": kind, "data": data, **parts, "versions": find_versions()})
    return {"id": compute_id(manifest), **manifest}
