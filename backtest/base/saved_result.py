"""Base of results that are saved: a class declares itself, and the rest follows."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
import shlex
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import pandas as pd
import pyarrow.parquet as pq

from backtest.base.checked_calls import checked
from backtest.base.json_values import from_plain, to_json, to_plain
from backtest.base.later_import import call_later
from backtest.base.number_text import capitalize
from backtest.base.provenance import (
    Making,
    attach_saved_making,
    find_making,
    get_attached_making,
    write_provenance,
)
from backtest.base.result_folders import (
    name_folder,
    read_manifest,
    reading_folder,
    save_folder,
    write_folder_manifest,
    write_parquet,
)
from backtest.base.result_parts import NOTHING, Headline, Part

MOST_ROWS = 10_000
"""The rows of the largest table that is written as JSON."""


class Kind(NamedTuple):
    plural: str
    layout: int
    files: tuple[str, ...]
    aside: tuple[str, ...]
    load: Callable[[Path], Any]
    read_line: Callable[[Path, Mapping[str, Any]], dict[str, Any]]
    call: str
    inner: tuple[str, ...] = ()
    read_progress: Callable[[Path, Mapping[str, Any]], str] | None = None


KINDS: dict[str, Kind] = {}


class Reportable:
    """Base of results that can be written as a report.

    ``kind`` is the name of what it is. Reports import results, never the reverse; see
    :mod:`backtest.report`.
    """

    kind: ClassVar[str]
    called: ClassVar[str] = ""
    ranked_by: str | Mapping[str, float] = "sharpe"
    """The objective by which the page of a sweep ranks its sets."""
    ranked_where: Mapping[str, str] = NOTHING
    """The constraints that it ranks them under."""
    _write_report = call_later("backtest.report", "write_report")
    _write_summary = call_later("backtest.report", "write_summary")
    _write_cell = call_later("backtest.report", "write_cell")

    @property
    def title(self) -> str:
        """What the result is about, for lists."""
        raise NotImplementedError

    @property
    def heading(self) -> str:
        """The title of the page."""
        return capitalize(f"{self.called or self.kind}: {self.title}".removesuffix(": "))

    @property
    def verdict(self) -> str:
        """What the numbers say, in a sentence."""
        raise NotImplementedError

    @property
    def verdict_text(self) -> str:
        """The verdict, of a result whose ``verdict`` is not a sentence."""
        return self.verdict

    @property
    def details(self) -> str:
        """What the reader must know beside the verdict, in sentences."""
        return ""

    @property
    def notices(self) -> tuple[str, ...]:
        """What must be read before any number."""
        return ()

    @property
    def about(self) -> str:
        """What the page is about, of a result that is not about a market."""
        return ""

    def list_numbers(self) -> list[Headline]:
        """Return the headline numbers, the most important first."""
        return []

    def list_parts(self) -> list[Part]:
        """Return the sections of the page, before those on data and assumptions."""
        return []

    def list_assumptions(self) -> tuple[str, ...]:
        """Return what the numbers assume beside the rules of the account, in sentences."""
        return ()

    def to_dict(self) -> dict[str, Any]:
        """Return the result as data for JSON."""
        raise NotImplementedError

    def summary(self) -> str:
        """Return what came out as text for a terminal of 80 columns."""
        return str(self._write_summary())

    @property
    def folder_title(self) -> str:
        """What the name of the folder begins with."""
        return self.kind

    @checked
    def report(self, path: str | Path, format: str | None = None) -> Path:  # noqa: A002
        """Write a report and return its path.

        Parameters
        ----------
        path : str or Path
            The file.
        format : str, optional
            ``"html"``, ``"md"`` or ``"json"``. The default is the ending of the file's name, or
            HTML if it has none.

        Raises
        ------
        DataError
            If the file cannot be written.
        """
        written: Path = self._write_report(Path(path), format)
        return written

    @property
    def _is_empty(self) -> bool:
        return False

    def _find_making(self) -> Making | None:
        return get_attached_making(self)

    def _repr_html_(self) -> str:
        return str(self._write_cell())


class SavedResult(Reportable):
    """Base of results that are saved.

    ``call`` is the function that makes it, by default ``kind`` in ``bt``. Tables are attributes and
    files of the same names; ``long_tables`` are left out of JSON, ``inner`` are folders of results
    of its own. The id in ``manifest``, which holds everything that the numbers depend on, does not
    depend on its entries ``aside``.
    """

    plural: ClassVar[str] = ""
    call: ClassVar[str] = ""
    layout: ClassVar[int] = 1
    table_names: ClassVar[tuple[str, ...]]
    long_tables: ClassVar[tuple[str, ...]] = ()
    more_files: ClassVar[tuple[str, ...]] = ()
    inner: ClassVar[tuple[str, ...]] = ()
    can_be_resumed: ClassVar[bool] = False
    aside: ClassVar[tuple[str, ...]] = ()
    manifest: Mapping[str, Any]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "kind" in vars(cls):
            KINDS[cls.kind] = Kind(
                plural=cls.plural or f"{cls.kind}s",
                layout=cls.layout,
                files=cls.files(),
                aside=cls.aside,
                load=cls.load,
                read_line=cls._read_line,
                call=cls.call or f"bt.{cls.kind.replace('-', '_')}",
                inner=cls.inner,
                read_progress=cls._read_progress if cls.can_be_resumed else None,
            )

    @property
    def note(self) -> str:
        """What came out, in a few words for lists."""
        raise NotImplementedError

    def list_measures(self) -> Mapping[str, float]:
        """Return the measures that lists show, by the names of those of runs."""
        return {}

    # ------------------------------------------------------------------------------ what follows

    @classmethod
    def files(cls) -> tuple[str, ...]:
        """Return the names of the files beside the manifest."""
        return (*(f"{name}.parquet" for name in cls.table_names), *cls.more_files)

    @property
    def policy_name(self) -> str:
        """The policy that the result is about, for lists."""
        return self.title.partition("(")[0]

    @classmethod
    def _read_line(cls, folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG003
        found = cls.load(folder)
        return {
            "policy": found.policy_name,
            "title": found.title,
            "note": found.note,
            "metrics": select_numbers(found.list_measures()),
        }

    @staticmethod
    def _read_progress(folder: Path, manifest: Mapping[str, Any]) -> str:
        raise NotImplementedError

    def __str__(self) -> str:
        return self.summary()

    # ------------------------------------------------------------------------------------- files

    def list_policies(self) -> Iterable[type]:
        """Return the classes of policies whose code the provenance names."""
        return ()

    def _lay_out(self) -> dict[str, pd.DataFrame | None]:
        return {name: getattr(self, name) for name in self.table_names}

    def _write_more(self, folder: Path) -> Mapping[str, Any]:  # noqa: ARG002
        return {}

    @checked
    def save(self, folder: str | Path = "results") -> Path:
        """Write the result into a folder of its own inside ``folder``; return that folder.

        It appears whole or not at all.
        """
        identity = self.manifest["id"]
        target = Path(folder) / name_folder(self.folder_title, identity)
        making = find_making(self, self.list_policies())

        def write(draft: Path) -> None:
            for name, table in self._lay_out().items():
                write_parquet(EMPTY if table is None else table, draft / f"{name}.parquet")
            manifest = {**self.manifest, **self._write_more(draft)}
            write_folder_manifest(draft, manifest, self.files(), self.layout)
            write_provenance(draft, identity, making)

        return save_folder(target.parent, target.name, write, what=self.kind)

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
        with reading_folder(path):
            manifest = read_manifest(path, cls.files(), cls.layout, what=cls.kind)
            tables = {
                name: None if [*table] == [*EMPTY] else table
                for name in cls.table_names
                for table in [pq.read_table(path / f"{name}.parquet").to_pandas()]
            }
            kept = {key: value for key, value in manifest.items() if key not in ("format", "files")}
            made = cls._read_back(kept, tables, path)
        attach_saved_making(made, path, manifest["id"])
        return made

    @classmethod
    def _read_back(
        cls,
        manifest: dict[str, Any],
        tables: Mapping[str, Any],
        folder: Path,
    ) -> Self:
        raise NotImplementedError


def select_numbers(row: Mapping[Any, Any]) -> dict[str, float]:
    return {
        str(name): float(value) for name, value in row.items() if isinstance(value, int | float)
    }


def list_records(table: pd.DataFrame | None) -> list[dict[str, Any]] | None:
    if table is None or len(table) > MOST_ROWS:
        return None
    plain = table.reset_index()
    for name in plain.select_dtypes("datetimetz").columns:
        plain[name] = [time.isoformat() for time in plain[name]]
    records = plain.to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in records]


class Origin(NamedTuple):
    command: str
    remarks: tuple[str, ...]


def describe_origin(manifest: Mapping[str, Any], making: Making | None) -> Origin:
    argv = making.argv if making else ()
    if not argv:
        return Origin("", (describe_call(manifest),))
    files = [word for word in argv if Path(word.partition(":")[0]).suffix in (".toml", ".py")]
    remarks = (f"it reads {', '.join(files)} as it is now",) if files else ()
    return Origin(shlex.join(argv), remarks)


def describe_call(manifest: Mapping[str, Any]) -> str:
    kind = KINDS.get(str(manifest.get("kind")))
    call = "bt.run" if kind is None else kind.call
    one = {"": manifest["policy"]} if "policy" in manifest else {}
    policies = manifest.get("policies") or one
    names = ", ".join(str(each.get("text") or each["name"]) for each in policies.values())
    module = f" of {manifest['policy_module']}" if "policy_module" in manifest else ""
    source = manifest["data"].get("source") or manifest.get("source", "data of no known source")
    parts = [call, f"{names}{module}", str(source)]
    return f"made in Python: {', '.join(filter(None, parts))}"


describe_history = call_later("backtest.engine", "describe_history")
EMPTY = pd.DataFrame({"none": pd.Series(dtype="float64")})
"""Stands for a table that is None."""


class SettingsResult(SavedResult):
    """Base of results that are made of tables, settings and a few ``numbers``, attributes all.

    Other fields, such as paths or a market, are not saved: a loaded result has None there.
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

    @classmethod
    def _read_back(
        cls,
        manifest: dict[str, Any],
        tables: Mapping[str, Any],
        folder: Path,  # noqa: ARG003
    ) -> Self:
        settings = from_plain(manifest["settings"])
        made = cls(settings=settings, **tables, **from_plain(manifest["outcome"]))
        vars(made)["manifest"] = manifest  # what was saved, not what is left of it
        return made


def hash_table(table: pd.DataFrame | None) -> str:
    text = (EMPTY if table is None else table).to_csv(lineterminator="\n")
    return hashlib.sha256(text.encode()).hexdigest()


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
