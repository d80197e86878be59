"""Results that are saved: their folders and tables, and their base class."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from backtest.core.atomic_files import drafted_folder, held_folder, writing
from backtest.core.checked_calls import checked
from backtest.core.code_names import is_frame, pa, pd, pq
from backtest.core.errors import DataError
from backtest.core.json_values import read_json_file, to_plain, write_json_file
from backtest.core.number_text import capitalize
from backtest.core.provenance import KEPT, PROVENANCE, Making, find_making, read_provenance
from backtest.core.result_parts import Headline, Part, ShownChart

MANIFEST = "manifest.json"
DRAFT = ".saving-"
PRUNED = ".pruned-"
LEFTOVERS = (DRAFT, PRUNED)
UNFINISHED = ".unfinished-"


def discard_folder(folder: Path) -> None:
    """Delete the folder of a saved result: moved away first, and its manifest last."""
    with suppress(OSError), held_folder(folder.parent, PRUNED) as grave:
        moved = folder.rename(grave / folder.name)
        for entry in moved.iterdir():
            if entry.is_symlink():
                entry.unlink()  # and never what it leads to
            elif entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != MANIFEST:
                entry.unlink()
        shutil.rmtree(moved)


def name_folder(title: str, identity: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    return f"{words}-{identity}"


def read_manifest(folder: Path, saved: type[SavedResult]) -> dict[str, Any]:
    """Return the manifest of a saved result; raise DataError if anything of it is damaged."""
    path = folder / MANIFEST
    noun = saved.noun
    if not path.is_file():
        raise DataError(f"{folder}: must be the folder of a saved {noun}, {MANIFEST} is missing")
    manifest = read_json_file(path)
    if not isinstance(manifest, dict):
        manifest = {}
    kind = manifest.get("kind", "result") if "format" in manifest else noun
    if kind != noun:
        raise DataError(f"{folder}: must be the folder of a saved {noun}, got a {kind!s:.40}")
    for name, fault in find_faults(folder, manifest, saved):
        raise damage_error(folder / name, fault)
    return manifest


def find_faults(
    folder: Path, manifest: Mapping[str, Any], saved: type[SavedResult], *, with_hashes: bool = True
) -> Iterator[tuple[str, str]]:
    """Yield the files of a saved result that are damaged, and what is wrong with each."""
    files = saved.files()
    if manifest.get("format") != saved.layout:
        yield MANIFEST, f"is of format {manifest.get('format')!r:.40}, not {saved.layout}"
        return
    if manifest.get(SEAL) != hash_manifest(manifest):
        yield MANIFEST, "was changed: its sha256 does not match its content"
    hashes = manifest.get("files")
    if not isinstance(hashes, Mapping) or {*hashes} != {*files}:
        yield MANIFEST, f"must have the hashes of {', '.join(files)}"
        return
    for name, expected in hashes.items():
        if not (folder / name).is_file():
            yield name, "is missing"
        elif with_hashes and hash_file(folder / name) != expected:
            yield name, "was changed or truncated: its hash is not the manifest's"


def hash_manifest(manifest: Mapping[str, Any]) -> str:
    """Return the SHA-256 of all that a manifest says, against accident, not forgery."""
    content = {name: value for name, value in manifest.items() if name != SEAL}
    text = json.dumps(to_plain(content), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def write_parquet(table: pd.DataFrame | Mapping[str, npt.NDArray[Any]], path: Path) -> None:
    """Write a frame, or arrays by the names of their columns, without pandas."""
    if is_frame(table):
        whole = pa.Table.from_pandas(table)
    else:
        whole = pa.table({name: to_arrow(values) for name, values in table.items()})
    pq.write_table(whole, path, compression="zstd")


def to_arrow(values: npt.NDArray[Any]) -> pa.Array:
    """Return numbers, or UTC times, as ``pa.array`` does, which imports pandas."""
    if values.dtype.kind not in "fiM":
        return pa.array(values)
    is_time = values.dtype.kind == "M"
    kind = pa.timestamp("ns", tz="UTC") if is_time else pa.from_numpy_dtype(values.dtype)
    buffers = [None, pa.py_buffer(np.ascontiguousarray(values))]
    return pa.Array.from_buffers(kind, len(values), buffers)


def hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


CURE = "run the experiment again, or restore the file"


def damage_error(path: Path, fault: str) -> DataError:
    return DataError(f"{path}: {fault}; {CURE}")


SEAL = "sha256"
NOT_SAID = ("format", "files", SEAL)
"""Keys of a saved manifest that the result itself does not have."""


MAX_ROWS = 10_000
"""The rows of the largest table that is written as JSON."""


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
        super().__init_subclass__()
        if "kind" in vars(cls):
            cls.noun = vars(cls).get("noun", cls.kind)
            usual = f"{cls.kind[:-1]}ies" if cls.kind.endswith("y") else f"{cls.kind}s"
            cls.plural = vars(cls).get("plural", usual)
            cls.call = vars(cls).get("call", f"Backtest.{cls.kind.replace('-', '_')}")

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
        return str(policy["name"]) if policy else self.title.partition("(")[0]

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
            hashes = {name: hash_file(draft / name) for name in self.files()}
            manifest = {"format": self.layout, **self.manifest, "files": hashes}
            manifest[SEAL] = hash_manifest(manifest)
            write_json_file(manifest, draft / MANIFEST)
            write_json_file({"id": identity, "made": making._asdict()}, draft / PROVENANCE)
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


def list_records(table: pd.DataFrame | None) -> list[dict[str, Any]] | None:
    """Return the rows of a table for JSON; None of a table that is none, or too large."""
    if table is None or len(table) > MAX_ROWS:
        return None
    plain = table.reset_index()
    for name in plain.select_dtypes("datetimetz").columns:
        plain[name] = [None if pd.isna(time) else time.isoformat() for time in plain[name]]
    return [{str(name): value for name, value in row.items()} for row in plain.to_dict("records")]


EMPTY = ("none",)
"""Columns of the table that stands for one that is None."""


def fill_absent(table: pd.DataFrame | None) -> pd.DataFrame:
    """Return a table, or the one that stands for None."""
    if table is None:
        return pd.DataFrame(columns=EMPTY, dtype="float64")
    return table


def read_table(path: Path) -> pd.DataFrame | None:
    """Return a table that was written, None if it was."""
    table = pq.read_table(path).to_pandas()
    if [*table] == [*EMPTY]:
        return None
    return table  # type: ignore[no-any-return]


def name_result(manifest: Mapping[str, Any]) -> str:
    return name_folder(f"{manifest['policy']['name']} {manifest['kind']}", manifest["id"])
