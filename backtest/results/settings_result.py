"""Results that are made of tables, settings and a few numbers: all but runs and searches."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from backtest import core
from backtest.core.parquet_tables import fill_absent
from backtest.results.manifest import describe_history


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SettingsResult(core.SavedResult):
    """Base of results that are made of tables, settings and a few ``numbers``, attributes all.

    Other fields, such as paths or a market, are not saved: a loaded result has None there.
    """

    numbers: ClassVar[tuple[str, ...]]
    settings: dict[str, Any]
    market: Any = None

    def __init_subclass__(cls) -> None:
        """Find by their annotations which attributes of a class are its tables and its numbers.

        Sets ``table_names`` and ``numbers``, unless the class states them itself.
        """
        super().__init_subclass__()
        tables = []
        numbers = []
        for name, annotation in cls.__annotations__.items():  # texts, as they are not evaluated
            if annotation.startswith("pd.DataFrame"):
                tables.append(name)
            if annotation in {"float", "int", "str"}:
                numbers.append(name)

        cls.table_names = vars(cls).get("table_names", tuple(tables))
        cls.numbers = vars(cls).get("numbers", tuple(numbers))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.note}>"

    def describe_data(self) -> Mapping[str, Any]:
        """Return the data of the market, as the manifest of a run describes them.

        Where the accounts began at a ``start`` of the settings, the data are those from it on.
        """
        return describe_history(self.market, self.settings.get("start"))

    @property
    def title(self) -> str:
        """What the result is about, for lists."""
        return str(self.settings.get("policy", ""))

    @classmethod
    def _read_line(
        cls,
        folder: Path,  # noqa: ARG003 - of the base class
        manifest: Mapping[str, Any],
    ) -> dict[str, Any]:
        title = str(manifest["title"])
        note = str(manifest["note"])
        return {
            "policy": core.name_policy(title),
            "title": title,
            "note": note,
        }

    @cached_property
    def manifest(self) -> Mapping[str, Any]:  # type: ignore[override] # made when asked for
        """Everything that the numbers depend on and their layout, with an ``id``."""
        content = {}
        for name in self.table_names:
            text = fill_absent(getattr(self, name)).to_csv(lineterminator="\n")
            content[name] = hashlib.sha256(text.encode()).hexdigest()

        manifest = core.to_plain(
            {
                "kind": self.kind,
                "data": self.describe_data(),
                "settings": self.settings,
                "outcome": {name: getattr(self, name) for name in self.numbers},
                "content": content,
                "title": self.title,
                "note": self.note,
                "versions": core.find_versions(),
            }
        )
        return {"id": core.compute_id(manifest), **manifest}

    def to_dict(self) -> dict[str, Any]:
        """Return the result as data for JSON; tables of more than 10,000 rows are left out."""
        data: dict[str, Any] = {
            "verdict": self.verdict,
            "numbers": {number.name: number.value for number in self.list_numbers()},
        }
        for name in self.numbers:
            data[name] = getattr(self, name)
        for name in self.table_names:
            if name not in self.long_tables:
                data[name] = core.list_records(getattr(self, name))
        return {**core.to_json(data), "settings": self.manifest["settings"]}

    @classmethod
    def _read_back(
        cls,
        manifest: dict[str, Any],
        tables: Mapping[str, Any],
        folder: Path,  # noqa: ARG003 - of the base class
    ) -> Self:
        settings = core.from_plain(manifest["settings"])
        outcome = core.from_plain(manifest["outcome"])
        result = cls(settings=settings, **tables, **outcome)
        vars(result)["manifest"] = manifest  # what was saved, not what is left of it
        return result
