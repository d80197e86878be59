"""One saved result as an entry of the list: what it is, its measures, or why it cannot be read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backtest.base.atomic_files import LOCK
from backtest.base.errors import BacktestError, DataError
from backtest.base.file_lock import is_lock_held
from backtest.base.provenance import read_provenance
from backtest.base.result_folders import LEFTOVERS, MANIFEST, hash_file, read_json_file
from backtest.compare import Comparison
from backtest.engine import result_files
from backtest.store.card import (
    Stamp,
    has_ends,
    read_card,
    read_metrics,
    summarize_making,
)
from backtest.store.kinds import (
    COMPARISON,
    FORMATS,
    LEFTOVER,
    RUN,
    STUDY_KIND,
    SWEEP,
    UNKNOWN,
    find_manifest_faults,
    open_folder,
)
from backtest.sweep.sweep_table import Sweep
from backtest.tune import Study
from backtest.tune.study_folder import OUTCOME, STUDY, TRIALS
from backtest.tune.study_folder import read_json as read_study_json


@dataclass(frozen=True)
class StoreEntry:
    """A folder of the store, as a list shows it in the terminal or in the browser.

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
    title : str
        What was run, in full: the policy of a run with its settings, of a sweep or a study with
        what varied, of a comparison with the policies it is compared with.
    is_synthetic : bool
        Whether the prices are made up.
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
    title: str = ""
    instrument: str = ""
    interval: str = ""
    start: str = ""
    end: str = ""
    source: str = ""
    is_synthetic: bool = False
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
    """Return what changes when a file of a folder does: names, sizes, times, places on the disk.

    Folders inside are looked into if they are of a study, or of what a writer left.
    """
    inner = None if folder.name.startswith(LEFTOVERS) else f"{TRIALS}/"
    return tuple(sorted(_stamp(os.fspath(folder), "", inner)))


def _stamp(folder: str, prefix: str, inner: str | None) -> Iterator[tuple[str, int, int, int, int]]:
    with os.scandir(folder) as found:
        for each in found:
            if not prefix and each.name == LOCK:
                continue
            name = prefix + each.name
            try:
                facts = each.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # a draft that was renamed since
            times = facts.st_mtime_ns, facts.st_ctime_ns
            if each.is_dir(follow_symlinks=False):
                yield f"{name}/", 0, *times, facts.st_ino
                if inner in (None, f"{name}/"):
                    yield from _stamp(each.path, f"{name}/", inner)
            else:
                yield name, facts.st_size, *times, facts.st_ino


def check_served(folder: Path) -> None:
    """Refuse a folder that is a link or holds one: whoever asks a server must not be led outside.

    Raises
    ------
    DataError
        Naming the link.
    """
    links = [folder] if folder.is_symlink() else [e for e in folder.iterdir() if e.is_symlink()]
    for each in links:
        name = "the folder" if each == folder else each.name
        raise DataError(
            f"{name} is a link, which is not followed",
            where=str(each),
            cure="put what it leads to in its place",
        )


def check_name(folder: Path) -> None:
    """Refuse a folder whose name is no text: Parquet files in it cannot be opened.

    Raises
    ------
    DataError
        If it is none.
    """
    try:
        folder.name.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            "the name of the folder is no UTF-8", where=str(folder.parent), cure="rename it"
        ) from error


def read_entry(folder: Path, stamp: Stamp = (), *, is_served: bool = False) -> StoreEntry:
    """Return what a folder holds; what is wrong with it stands in the entry, and raises nothing.

    Parameters
    ----------
    folder : Path
        A folder of a store.
    stamp : Stamp
        Of the folder, if it was taken just now.
    is_served : bool
        Whether a server lists it: no link is followed, and the trials of an unfinished study are
        not read, since the server follows them (:mod:`backtest.report.serve.live_study`).
    """
    kind = UNKNOWN
    try:
        if is_served:
            check_served(folder)
        if folder.name.startswith(LEFTOVERS):
            return read_leftover(folder)
        check_name(folder)
        stamp = stamp or take_stamp(folder)
        place = _find_place(stamp)
        if (shown := read_card(folder, stamp)) is not None:
            return StoreEntry(folder.name, RUN, **place, **shown)
        kind, manifest = open_folder(folder)
        is_followed = is_served and kind == STUDY_KIND and not (folder / OUTCOME).is_file()
        facts = read_begun(folder) if is_followed else READERS[kind](folder, manifest)
        made = summarize_making(read_provenance(folder, facts["id"]))
        entry = StoreEntry(folder.name, kind, **{**place, **facts, **made})
    except FileNotFoundError as error:
        return StoreEntry(folder.name, kind, f"{Path(error.filename or folder).name} is missing")
    except BacktestError as error:
        return StoreEntry(folder.name, kind, error.problem, **_find_place(stamp))
    except Exception as error:  # whatever a damaged file brings about is what is wrong with it
        text = f"it cannot be read: {type(error).__name__}: {error}"
        return StoreEntry(folder.name, kind, text, **_find_place(stamp))
    return entry


def _find_place(stamp: Stamp) -> dict[str, Any]:
    """Return when a folder was saved, by its manifest or newest file, and its size."""
    times = {name: time for name, _, time, _, _ in stamp}
    saved = times.get(STUDY, times.get(MANIFEST, max(times.values(), default=0)))
    return {"saved": saved, "size": sum(each[1] for each in stamp)}


def read_leftover(folder: Path) -> StoreEntry:
    """Return the entry of a folder that a writer has not finished, or not finished deleting."""
    busy = is_lock_held(folder / LOCK)
    inner = [each.name for each in folder.glob("*") if each.is_dir()]
    about = f" of {inner[0]}" if len(inner) == 1 else ""
    what = "is being written now" if busy else f"was left by a process that was ended{about}"
    facts = _find_place(take_stamp(folder))
    return StoreEntry(folder.name, LEFTOVER, f"it {what}", **facts, is_busy=busy)


# ------------------------------------------------------------------------------------ by its kind


def check_manifest(folder: Path, kind: str, manifest: Mapping[str, Any]) -> None:
    """Refuse a manifest of unknown format or with another's id, and files that are not there.

    Raises
    ------
    DataError
        If one of these is not so.
    """
    faults = [(MANIFEST, fault) for fault in find_manifest_faults(manifest, kind)]
    faults += [(name, find_damage(folder / name)) for name in FORMATS[kind][1]]
    for name, fault in faults:
        if fault:
            raise DataError(
                f"{name} {fault}",
                where=str(folder / name),
                cure="run the experiment again, or restore the file",
            )


def find_damage(path: Path) -> str:
    """Return what is plainly wrong with a file: that it is missing, empty or cut; else nothing."""
    try:
        size = path.stat().st_size
        if path.suffix != ".parquet":
            return "" if size else "is empty"
        return "" if has_ends(str(path), size) else "is truncated or no Parquet file"
    except FileNotFoundError:
        return "is missing"


def describe_data(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a list says of the data of a manifest."""
    names = ("instrument", "interval", "start", "end")
    texts = {name: str(data[name] or "") for name in names}
    return {**texts, "is_synthetic": bool(data.get("synthetic"))}


def describe_search(name: str, varied: Iterable[object]) -> dict[str, str]:
    """Return what a list says of a policy and what varied."""
    return {"policy": name, "title": f"{name} over {', '.join(map(str, varied))}"}


def read_run(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a list says of a run; its tables are not read."""
    check_manifest(folder, RUN, manifest)
    for name in (result_files.METRICS, result_files.STATE):
        if hash_file(folder / name) != manifest["files"][name]:
            raise DataError(
                f"{name} was changed",
                where=str(folder / name),
                cure="run the experiment again, or restore the file",
            )
    shown = result_files.describe_run(manifest, read_json_file(folder / result_files.METRICS))
    metrics = read_metrics(shown["metrics"])
    return {"id": manifest["id"], **shown, "title": shown["policy"], "metrics": metrics}


def read_sweep(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a list says of a sweep."""
    check_manifest(folder, SWEEP, manifest)
    sweep = Sweep.load(folder)
    best = sweep.table.iloc[sweep.rank("sharpe")[:1]]
    asked, done = int(manifest["sets"]["asked"]), len(sweep.table)
    return {
        "id": manifest["id"],
        **describe_search(str(manifest["policy"]["name"]), manifest["parameters"]),
        "source": str(manifest["data"].get("source", "")),
        "note": f"{done:,} sets" if done == asked else f"{done:,} of {asked:,} sets",
        "metrics": take_numbers(best.to_dict("records")[0], sweep.metrics) if done else {},
        **describe_data(manifest["data"]),
    }


def read_study(folder: Path, _: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a list says of a study."""
    begun = read_begun(folder)
    study = Study.load(folder)
    best = study.best
    state = "" if study.complete else (", being searched" if begun["is_busy"] else ", unfinished")
    measured = {name for batch in study.batches[:1] for name in batch.metrics}
    return {
        **begun,
        "note": f"{study.trials:,} sets{state}",
        "metrics": {} if best is None else take_numbers(best.to_dict(), measured),
        "is_finished": study.complete,
        "seconds": study.batches[-1].seconds if study.batches else None,
    }


def read_begun(folder: Path) -> dict[str, Any]:
    """Return what a list says of a study without its trials."""
    facts = read_study_json(folder / STUDY)
    dimensions = (each["name"] for each in facts["space"]["dimensions"])
    return {
        "id": facts["id"],
        **describe_search(str(facts["policy"]["name"]), dimensions),
        "source": str(facts["source"]),
        "is_busy": is_lock_held(folder / LOCK),
        "is_finished": False,
        **describe_data(facts["data"]),
    }


def read_comparison(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a list says of a comparison."""
    check_manifest(folder, COMPARISON, manifest)
    found = Comparison.load(folder)
    best = found.table.loc[found.order[0]].to_dict()
    baseline = str(manifest["baseline"])
    return {
        "id": manifest["id"],
        "policy": ", ".join(found.names),
        "title": f"{baseline} against {', '.join(n for n in found.names if n != baseline)}",
        "source": str(manifest["data"].get("source", "")),
        "note": f"{len(found.names)} policies",
        "metrics": take_numbers(best, best),
        **describe_data(manifest["data"]),
    }


def take_numbers(row: Mapping[Any, Any], names: Any) -> dict[str, float]:
    """Return the numbers of a row that are measures."""
    kept = {str(name): row[name] for name in row if name in names}
    return {name: float(v) for name, v in kept.items() if isinstance(v, int | float)}


READERS = {RUN: read_run, SWEEP: read_sweep, STUDY_KIND: read_study, COMPARISON: read_comparison}
