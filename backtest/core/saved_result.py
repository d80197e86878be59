"""Results that are reported and saved: their base classes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Self

from backtest.core.atomic_files import drafted_folder, writing
from backtest.core.checked_calls import checked
from backtest.core.errors import DataError
from backtest.core.json_values import write_json_file
from backtest.core.number_text import capitalize
from backtest.core.parquet_tables import fill_absent, read_table, write_parquet
from backtest.core.provenance import KEPT, PROVENANCE, Making, find_making, read_provenance
from backtest.core.result_folders import (
    DRAFT,
    MANIFEST,
    NOT_SAID,
    SEAL,
    hash_file,
    hash_manifest,
    name_folder,
    read_manifest,
)
from backtest.core.result_parts import Headline, Part, ShownChart

SETTINGS = re.compile(r"\([^()]*\)")


def name_policy(title: str) -> str:
    """Return the policy in a title without its settings; of several markets, each with its own."""
    name = title.partition("(")[0]
    if ": " not in name:
        return name

    # "{BTC: Dear(low=Range(0, 1)), ETH: Dear()}": settings may hold calls.
    names = title
    while SETTINGS.search(names):
        names = SETTINGS.sub("", names)
    return names.removeprefix("{").removesuffix("}")


class Reportable:
    """Base of results that can be written as a report.

    ``kind`` is the name of what it is. Reports import results, never the reverse; see
    :mod:`backtest.report`.
    """

    kind: ClassVar[str]
    called: ClassVar[str] = ""
    is_yearly: ClassVar[bool] = False
    """Whether it shows figures per year of all its data."""

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

    @checked
    def summary(self, *, verbose: bool = False) -> str:
        """Return what came out as text for a terminal of 80 columns.

        With ``verbose`` also what was checked and is as it should be.
        """
        from backtest.report.write import write_summary  # noqa: PLC0415 - only when it is shown

        return write_summary(self, verbose=verbose)

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
        from backtest.report.write import write_report  # noqa: PLC0415 - only when it is shown

        return write_report(self, Path(path), format)

    def _draw(self, chart: ShownChart) -> Any:
        """Return a chart as a Plotly figure, for the ``plot`` of a class that has one."""
        from backtest.report.write import draw_chart  # noqa: PLC0415 - only when it is shown

        return draw_chart(chart)

    def _repr_html_(self) -> str:
        from backtest.report.write import write_cell  # noqa: PLC0415 - only when it is shown

        return str(write_cell(self))


class SavedResult(Reportable):
    """Base of results that are saved.

    ``call`` is the function that makes it, by default ``kind`` in ``bt``. Tables are attributes and
    files of the same names; ``long_tables`` are left out of JSON, ``inner`` are folders of results
    of its own. ``manifest`` holds everything that the numbers depend on, and an id of it.
    """

    noun: ClassVar[str]
    plural: ClassVar[str]
    call: ClassVar[str]
    layout: ClassVar[int] = 1
    table_names: ClassVar[tuple[str, ...]]
    long_tables: ClassVar[tuple[str, ...]] = ()
    more_files: ClassVar[tuple[str, ...]] = ()
    inner: ClassVar[tuple[str, ...]] = ()
    can_be_resumed: ClassVar[bool] = False
    manifest: Mapping[str, Any]

    def __init_subclass__(cls) -> None:
        """Write noun, plural and call of a kind of result, where it does not say its own."""
        super().__init_subclass__()
        declared = vars(cls)
        if "kind" not in declared:
            return

        words = cls.kind.replace("-", " ")
        plural = f"{words}s"
        if words.endswith("y"):
            plural = f"{words.removesuffix('y')}ies"
        method = cls.kind.replace("-", "_")
        cls.noun = declared.get("noun", cls.kind)
        cls.plural = declared.get("plural", plural)
        cls.call = declared.get("call", f"Backtest.{method}")

    @property
    def note(self) -> str:
        """What came out, in a few words for lists."""
        raise NotImplementedError

    def list_measures(self) -> Mapping[str, float]:
        """Return the measures that lists show, by the names of those of runs."""
        return {}

    @classmethod
    def files(cls) -> tuple[str, ...]:
        """Return the names of the files beside the manifest."""
        return (*(f"{name}.parquet" for name in cls.table_names), *cls.more_files)

    @property
    def policy_name(self) -> str:
        """The policy that the result is about, for lists."""
        policy = self.manifest.get("policy")
        if policy:
            return str(policy["name"])
        return name_policy(self.title)

    @classmethod
    def _read_line(cls, folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG003
        saved = cls.load(folder)
        metrics = {}
        for name, value in saved.list_measures().items():
            if isinstance(value, int | float):
                metrics[str(name)] = float(value)
        return {
            "policy": saved.policy_name,
            "title": saved.title,
            "note": saved.note,
            "metrics": metrics,
        }

    def __str__(self) -> str:
        return self.summary()

    def list_policies(self) -> Iterable[type]:
        """Return the classes of policies whose code the provenance names."""
        return ()

    def _lay_out(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.table_names}

    def _write_more(self, folder: Path) -> None:
        """Write the files of ``more_files``."""

    @checked
    def save(self, folder: str | Path = "results") -> Path:
        """Write the result into a folder of its own inside ``folder``; return that folder.

        It appears whole or not at all.
        """
        identity = self.manifest["id"]
        target = Path(folder) / name_folder(self.folder_title, identity)
        making = find_making(self, self.list_policies())

        with writing(target, self.noun), drafted_folder(target, DRAFT) as draft:
            for name, table in self._lay_out().items():
                write_parquet(fill_absent(table), draft / f"{name}.parquet")
            self._write_more(draft)

            # The manifest has the hashes of all files, and then its own.
            hashes = {name: hash_file(draft / name) for name in self.files()}
            manifest = {"format": self.layout, **self.manifest, "files": hashes}
            manifest[SEAL] = hash_manifest(manifest)
            write_json_file(manifest, draft / MANIFEST)
            provenance = {"id": identity, "made": making._asdict()}
            write_json_file(provenance, draft / PROVENANCE)
        return target

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
        try:
            manifest = read_manifest(path, cls)
            tables = {name: read_table(path / f"{name}.parquet") for name in cls.table_names}
            said = {name: value for name, value in manifest.items() if name not in NOT_SAID}
            saved = cls._read_back(said, tables, path)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error

        making = None
        with suppress(DataError):  # lists and ``verify`` report the damage
            making = read_provenance(path, manifest["id"])
        vars(saved)[KEPT] = making or Making(None, {})
        return saved

    @classmethod
    def _read_back(cls, manifest: dict[str, Any], tables: Mapping[str, Any], folder: Path) -> Self:
        raise NotImplementedError
