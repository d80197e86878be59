"""Results that are saved: their folders, what made them, and their base class."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, ParamSpec, Self, TypeVar

import numpy as np
import numpy.typing as npt

from backtest.core.atomic_files import drafted_folder, held_folder, writing
from backtest.core.checked_calls import checked
from backtest.core.code_names import find_version, is_frame, pa, pd, pq
from backtest.core.errors import DataError
from backtest.core.json_values import parse_json, read_small, to_plain
from backtest.core.number_text import capitalize
from backtest.core.result_parts import Headline, Part

MANIFEST = "manifest.json"
DRAFT, PRUNED = LEFTOVERS = (".saving-", ".pruned-")
UNFINISHED = ".unfinished-"


def discard_folder(folder: Path) -> None:
    with suppress(OSError), held_folder(folder.parent, PRUNED) as grave:
        moved = folder.rename(grave / folder.name)
        for each in moved.iterdir():
            if each.is_symlink():
                each.unlink()  # and never what it leads to
            elif each.is_dir():
                shutil.rmtree(each)
            elif each.name != MANIFEST:
                each.unlink()
        shutil.rmtree(moved)


def name_folder(title: str, identity: str) -> str:
    return f"{re.sub(r'[^a-z0-9]+', '-', title.lower()).strip('-')}-{identity}"


def read_manifest(folder: Path, saved: type[SavedResult]) -> dict[str, Any]:
    path, what = folder / MANIFEST, saved.noun
    if not path.is_file():
        raise DataError(f"{folder}: must be the folder of a saved {what}, {MANIFEST} is missing")
    manifest = read_json_file(path)
    if not isinstance(manifest, dict):
        manifest = {}
    kind = manifest.get("kind", "result") if "format" in manifest else what
    if kind != what:
        raise DataError(f"{folder}: must be the folder of a saved {what}, got a {kind!s:.40}")
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
    said = {name: value for name, value in manifest.items() if name != SEAL}
    return hashlib.sha256(json.dumps(to_plain(said), sort_keys=True).encode()).hexdigest()


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


def write_json_file(data: Mapping[str, Any], path: Path) -> None:
    text = json.dumps(to_plain(data), indent=1, allow_nan=False, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_json_file(path: Path) -> Any:
    try:
        return parse_json(read_small(path), path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


CURE = "run the experiment again, or restore the file"


def damage_error(path: Path, fault: str) -> DataError:
    return DataError(f"{path}: {fault}; {CURE}")


PROVENANCE = "provenance.json"
SEAL = "sha256"
NOT_SAID = ("format", "files", SEAL)
"""Keys of a saved manifest that the result itself does not have."""
PACKAGE, PACKAGE_FILE = "backtest", Path(__file__)
KEPT = "_making"

_P = ParamSpec("_P")
_T = TypeVar("_T")


GIT = ("git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C")
DIRTY = "-dirty"
"""Ends a commit whose tracked files were changed."""


def find_commit(source: Path) -> str | None:
    """Return the commit of a file, ``-dirty`` after changes; None if git does not know it."""
    describe = ("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    found = ""
    try:
        for words in (("ls-files", "--error-unmatch", "--", source.name), describe):
            command = [*GIT, str(source.parent), *words]
            found = subprocess.check_output(
                command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True, timeout=2
            )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return found.strip()


class Making(NamedTuple):
    """What made a result: seconds, commits by the name of their code, and the command line."""

    seconds: float | None
    code: Mapping[str, str | None]
    argv: tuple[str, ...] = ()

    @property
    def is_dirty(self) -> bool | None:
        known = [each for each in self.code.values() if each]
        if any(each.endswith(DIRTY) for each in known):
            return True
        is_loose = self.code.get(PACKAGE) and None in self.code.values()
        return None if is_loose or not known else False


COMMAND: ContextVar[tuple[str, ...]] = ContextVar("COMMAND", default=())


def record_making(function: Callable[_P, _T]) -> Callable[_P, _T]:
    @functools.wraps(function)
    def clock(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        began = time.perf_counter()
        made = function(*args, **kwargs)
        seconds = round(time.perf_counter() - began, 6)
        if vars(made).get(KEPT) is None:  # otherwise it was loaded from a store
            vars(made)[KEPT] = Making(seconds, {}, argv=COMMAND.get())
        return made

    return clock


@contextmanager
def recording_command(argv: Sequence[str]) -> Iterator[None]:
    token = COMMAND.set(tuple(argv))
    try:
        yield
    finally:
        COMMAND.reset(token)


def find_making(made: object, policies: Iterable[type]) -> Making:
    kept: Making = vars(made).get(KEPT) or Making(None, {}, argv=COMMAND.get())
    is_loaded = KEPT in vars(made) and kept.seconds is None
    if kept.code or is_loaded:
        return kept
    found = {PACKAGE: find_commit(PACKAGE_FILE)}
    waiting = list(policies)
    for cls in waiting:
        waiting += [part.policy for part in getattr(cls, "parts", ())]
        try:
            found[cls.__name__] = find_commit(Path(inspect.getfile(cls)).absolute())
        except (TypeError, OSError):  # of no file
            found[cls.__name__] = None
    return kept._replace(code=found)


def read_provenance(folder: Path, identity: str) -> Making | None:
    path = folder / PROVENANCE
    if not os.path.lexists(path):
        return None
    data = read_json_file(path)
    try:
        found, made = data["id"], data["made"]
        code = {name: each and str(each) for name, each in made["code"].items()}
        making = Making(made["seconds"], code, tuple(map(str, made["argv"])))
    except (TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{path}: must hold id, seconds, code and argv; the result can be read without it"
        ) from error
    if found != identity:
        raise DataError(f"{path}: must belong to the result {identity}, got one of {found!r:.40}")
    return making


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
        found = cls.load(folder)
        measures = found.list_measures().items()
        return {
            "policy": found.policy_name,
            "title": found.title,
            "note": found.note,
            "metrics": {str(k): float(x) for k, x in measures if isinstance(x, int | float)},
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
            tables = {
                name: None if [*table] == [*EMPTY] else table
                for name in cls.table_names
                for table in [pq.read_table(path / f"{name}.parquet").to_pandas()]
            }
            kept = {key: value for key, value in manifest.items() if key not in NOT_SAID}
            made = cls._read_back(kept, tables, path)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
        making = None
        with suppress(DataError):  # lists and ``verify`` report the damage
            making = read_provenance(path, manifest["id"])
        vars(made)[KEPT] = making or Making(None, {})
        return made

    @classmethod
    def _read_back(cls, manifest: dict[str, Any], tables: Mapping[str, Any], folder: Path) -> Self:
        raise NotImplementedError


def list_records(table: pd.DataFrame | None) -> list[dict[str, Any]] | None:
    if table is None or len(table) > MAX_ROWS:
        return None
    plain = table.reset_index()
    for name in plain.select_dtypes("datetimetz").columns:
        plain[name] = [None if pd.isna(time) else time.isoformat() for time in plain[name]]
    return [{str(name): value for name, value in row.items()} for row in plain.to_dict("records")]


EMPTY = ("none",)
"""Columns of the table that stands for one that is None."""


def fill_absent(table: pd.DataFrame | None) -> pd.DataFrame:
    return pd.DataFrame(columns=EMPTY, dtype="float64") if table is None else table


LIBRARIES = (
    "leverage-backtest", "numpy", "numba", "llvmlite", "pandas", "pyarrow", "scipy", "arch",
)  # fmt: skip


def compute_id(manifest: Mapping[str, Any]) -> str:
    data = {key: value for key, value in manifest["data"].items() if key != "source"}
    text = json.dumps({**manifest, "data": data}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def find_versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: find_version(name) for name in LIBRARIES}}


def name_result(manifest: Mapping[str, Any]) -> str:
    return name_folder(f"{manifest['policy']['name']} {manifest['kind']}", manifest["id"])
