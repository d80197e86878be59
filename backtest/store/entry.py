"""One saved result as a line of a list: what it is, what it came to, or why it cannot be read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backtest.base.errors import BacktestError, DataError
from backtest.base.provenance import PROVENANCE, read_provenance
from backtest.base.result_folders import DRAFT, MANIFEST, OLDER, hash_file, is_held, read_json
from backtest.compare import Comparison
from backtest.compare import comparison_files as compare_storage
from backtest.engine import result_files
from backtest.engine.manifest import identify
from backtest.store.card import (
    Stamp,
    describe_making,
    has_ends,
    read_card,
    read_metrics,
)
from backtest.sweep import sweep_files
from backtest.sweep.sweep_table import Sweep
from backtest.tune import Study
from backtest.tune.study_folder import LOCK, OUTCOME, STUDY, TRIALS

RUN, SWEEP, STUDY_KIND, COMPARISON = KINDS = ("run", "sweep", "study", "comparison")
LEFTOVER, UNKNOWN = "leftover", "unknown"
PRUNED = ".pruned-"
"""How the names of folders begin that are being deleted."""
FORMATS = {
    RUN: (result_files.FORMAT, result_files.FILES),
    SWEEP: (sweep_files.FORMAT, (sweep_files.TABLE,)),
    COMPARISON: (compare_storage.FORMAT, compare_storage.FILES),
}
"""The format of each kind that has a manifest, and the files it is made of."""
BESIDE_THE_ID = {
    RUN: ("compiled", "causality", "margin_table", "margin_tables"),
    SWEEP: ("mixed", "causality"),
    COMPARISON: (),
}
"""Entries of a manifest that its id is not made of."""


@dataclass(frozen=True)
class Entry:
    """A folder of the store.

    Attributes
    ----------
    name : str
        Of the folder.
    kind : str
        ``"run"``, ``"sweep"``, ``"study"``, ``"comparison"``; ``"leftover"`` of a writer that
        died or is at work; ``"unknown"``.
    trouble : str
        Why it cannot be used, in one sentence; empty where it can.
    id, policy, instrument, interval, start, end, source : str
        What its manifest says; empty where that cannot be read.
    saved : int
        When it was written, in nanoseconds since 1970: the time of its manifest on the disk.
    size : int
        Bytes on the disk.
    note : str
        How many sets or policies it holds; what is unfinished.
    metrics : dict of str to float
        The measures: of a sweep those of the set with the highest Sharpe ratio, of a study those
        of the set it chose, of a comparison those of the policy with the highest log growth.
    is_busy : bool
        Whether a process is writing it now.
    is_finished : bool
        False of a study that can be resumed.
    seconds : float or None
        Wall time it took to make, a study all its parts; None where nobody measured it.
    commit, backtest_commit : str
        Of the checkout its policy came from, and of this package's; empty where there was none.
    is_dirty : bool or None
        Whether one of these had changes that were not committed; None where there was none.
    """

    name: str
    kind: str
    trouble: str = ""
    id: str = ""
    policy: str = ""
    instrument: str = ""
    interval: str = ""
    start: str = ""
    end: str = ""
    source: str = ""
    saved: int = 0
    size: int = 0
    note: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    is_busy: bool = False
    is_finished: bool = True
    seconds: float | None = None
    commit: str = ""
    backtest_commit: str = ""
    is_dirty: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as data; numbers may be NaN or infinite."""
        return dict(vars(self))


# ------------------------------------------------------------------------------------- one folder


def take_stamp(folder: Path) -> Stamp:
    """Return what changes when a file of a folder does: names, sizes, times, places on the disk."""
    return tuple(sorted(_stamp(os.fspath(folder), "")))


def _stamp(folder: str, prefix: str) -> Iterator[tuple[str, int, int, int, int]]:
    with os.scandir(folder) as found:
        for each in found:
            if not prefix and each.name == LOCK:
                continue
            facts = each.stat(follow_symlinks=False)
            times = facts.st_mtime_ns, facts.st_ctime_ns
            if each.is_dir(follow_symlinks=False):
                yield f"{prefix}{each.name}/", 0, *times, facts.st_ino
                yield from _stamp(each.path, f"{prefix}{each.name}/")
            else:
                yield prefix + each.name, facts.st_size, *times, facts.st_ino


def read_entry(folder: Path, stamp: Stamp = ()) -> Entry:
    """Return what a folder holds; what is wrong with it stands in the entry, and raises nothing.

    A stamp of it that was taken just now spares another one.
    """
    kind = UNKNOWN
    try:
        if folder.name.startswith((DRAFT, OLDER, PRUNED)):
            return read_leftover(folder)
        stamp = stamp or take_stamp(folder)
        place = _find_place(stamp)
        if (shown := read_card(folder, stamp)) is not None:
            return Entry(folder.name, RUN, **place, **shown)
        kind, manifest = open_folder(folder)
        facts = READERS[kind](folder, manifest)
        made = describe_making(read_provenance(folder, facts["id"]))
        entry = Entry(folder.name, kind, **{**place, **facts, **made})
    except FileNotFoundError as error:
        return Entry(folder.name, kind, f"{Path(error.filename or folder).name} is missing")
    except BacktestError as error:
        return Entry(folder.name, kind, error.problem, **_find_place(stamp))
    except Exception as error:  # whatever a damaged file brings about is what is wrong with it
        text = f"it cannot be read: {type(error).__name__}: {error}"
        return Entry(folder.name, kind, text, **_find_place(stamp))
    return entry


def _find_place(stamp: Stamp) -> dict[str, Any]:
    """Return when a folder was saved, by its manifest or newest file, and its size."""
    times = {name: time for name, _, time, _, _ in stamp}
    saved = times.get(STUDY, times.get(MANIFEST, max(times.values(), default=0)))
    return {"saved": saved, "size": sum(each[1] for each in stamp)}


def read_leftover(folder: Path) -> Entry:
    """Return the entry of a folder that a writer has not finished, or not finished deleting."""
    busy = is_held(folder)
    inner = [each.name for each in folder.glob("*") if each.is_dir()]
    about = f" of {inner[0]}" if len(inner) == 1 else ""
    what = "is being written now" if busy else f"was left by a process that was ended{about}"
    facts = _find_place(take_stamp(folder))
    return Entry(folder.name, LEFTOVER, f"it {what}", **facts, is_busy=busy)


def is_foreign(folder: Path) -> bool:
    """Tell whether a folder holds no file of a result at all: somebody put it there."""
    names = {MANIFEST, PROVENANCE, STUDY, OUTCOME, TRIALS, LOCK}
    names |= {name for _, files in FORMATS.values() for name in files}
    is_left = folder.name.startswith((DRAFT, OLDER, PRUNED))
    return not is_left and not any((folder / name).exists() for name in names)


def find_kind(folder: Path) -> str:
    """Return which of the four kinds a folder holds; see :func:`open_folder`."""
    return open_folder(folder)[0]


def open_folder(folder: Path) -> tuple[str, dict[str, Any]]:
    """Return which of the four kinds a folder holds, and its manifest; of a study none.

    Raises
    ------
    DataError
        If it is none of them.
    """
    if (folder / STUDY).is_file():
        return STUDY_KIND, {}
    if not (folder / MANIFEST).is_file():
        raise DataError(
            f"it holds no {MANIFEST} and no {STUDY}",
            where=str(folder),
            cure="restore the file, or delete the folder",
        )
    manifest = read_json(folder / MANIFEST)
    kind = manifest.get("kind", RUN) if isinstance(manifest, dict) else None
    if not isinstance(kind, str) or kind not in FORMATS:
        raise DataError(
            f"{MANIFEST} must say a kind that is known, was {kind!r:.40}",
            where=str(folder / MANIFEST),
            cure="read it with the version that saved it",
        )
    return kind, manifest


# ------------------------------------------------------------------------------------ by its kind


def check_facts(folder: Path, kind: str, manifest: Mapping[str, Any]) -> None:
    """Refuse a manifest of unknown format or with another's id, and files that are not there.

    Raises
    ------
    DataError
        If one of these is not so.
    """
    cure = "run the experiment again, or restore the file"
    where = str(folder / MANIFEST)
    format_, files = FORMATS[kind]
    if manifest.get("format") != format_:
        raise DataError(
            f"the format of a {kind} must be {format_}, was {manifest.get('format')!r:.40}",
            where=where,
            cure="load it with the version that saved it",
        )
    if manifest.get("id") != hash_facts(manifest, kind):
        raise DataError(f"{MANIFEST} was changed: its id is not of it", where=where, cure=cure)
    for name in files:
        trouble = look_at(folder / name)
        if trouble or name not in manifest["files"]:
            problem = f"{name} {trouble or 'has no hash in the manifest'}"
            raise DataError(problem, where=str(folder / name), cure=cure)


def hash_facts(manifest: Mapping[str, Any], kind: str) -> str:
    """Return the id that the content of a manifest makes."""
    aside = ("format", "files", "id", *BESIDE_THE_ID[kind])
    return identify({name: value for name, value in manifest.items() if name not in aside})


def look_at(path: Path) -> str:
    """Return what is plainly wrong with a file: that it is missing, empty or cut; else nothing."""
    try:
        size = path.stat().st_size
        if path.suffix != ".parquet":
            return "" if size else "is empty"
        return "" if has_ends(str(path), size) else "is truncated or no Parquet file"
    except FileNotFoundError:
        return "is missing"


def describe(data: Mapping[str, Any]) -> dict[str, str]:
    """Return what a list says of the data of a manifest."""
    names = ("instrument", "interval", "start", "end")
    return {name: str(data[name] or "") for name in names}


def read_run(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a list says of a run; its tables are not read."""
    check_facts(folder, RUN, manifest)
    for name in (result_files.METRICS, result_files.STATE):
        if hash_file(folder / name) != manifest["files"][name]:
            raise DataError(
                f"{name} was changed",
                where=str(folder / name),
                cure="run the experiment again, or restore the file",
            )
    shown = result_files.describe_run(manifest, read_json(folder / result_files.METRICS))
    return {"id": manifest["id"], **shown, "metrics": read_metrics(shown["metrics"])}


def read_sweep(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a list says of a sweep."""
    check_facts(folder, SWEEP, manifest)
    sweep = Sweep.load(folder)
    best = sweep.table.iloc[sweep.rank("sharpe")[:1]]
    asked, done = int(manifest["sets"]["asked"]), len(sweep.table)
    return {
        "id": manifest["id"],
        "policy": str(manifest["policy"]["name"]),
        "source": str(manifest["data"].get("source", "")),
        "note": f"{done:,} sets" if done == asked else f"{done:,} of {asked:,} sets",
        "metrics": take_numbers(best.to_dict("records")[0], sweep.metrics) if done else {},
        **describe(manifest["data"]),
    }


def read_study(folder: Path, _: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a list says of a study."""
    busy = (folder / LOCK).is_file() and is_held(folder / LOCK)
    study = Study.load(folder)
    facts, best = study.facts, study.best
    state = "" if study.complete else (", being searched" if busy else ", unfinished")
    return {
        "id": facts["id"],
        "policy": str(facts["policy"]["name"]),
        "source": str(facts["source"]),
        "note": f"{study.trials:,} sets{state}",
        "metrics": {} if best is None else take_numbers(best.to_dict(), facts_of(study)),
        "is_busy": busy,
        "is_finished": study.complete,
        "seconds": study.batches[-1].seconds if study.batches else None,
        **describe(facts["data"]),
    }


def facts_of(study: Study) -> set[str]:
    """Return the measures that a study has of every set."""
    return {name for batch in study.batches[:1] for name in batch.metrics}


def read_comparison(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a list says of a comparison."""
    check_facts(folder, COMPARISON, manifest)
    found = Comparison.load(folder)
    best = found.table.loc[found.order[0]].to_dict()
    return {
        "id": manifest["id"],
        "policy": ", ".join(found.names),
        "source": str(manifest["data"].get("source", "")),
        "note": f"{len(found.names)} policies",
        "metrics": take_numbers(best, best),
        **describe(manifest["data"]),
    }


def take_numbers(row: Mapping[Any, Any], names: Any) -> dict[str, float]:
    """Return the numbers of a row that are measures."""
    kept = {str(name): row[name] for name in row if name in names}
    return {name: float(v) for name, v in kept.items() if isinstance(v, int | float)}


READERS = {RUN: read_run, SWEEP: read_sweep, STUDY_KIND: read_study, COMPARISON: read_comparison}
