"""Read a folder of the store into an entry of the list: kind, data, measures, or the fault."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from backtest.base.atomic_files import LOCK
from backtest.base.errors import BacktestError, DataError
from backtest.base.file_lock import is_lock_held
from backtest.base.provenance import read_provenance
from backtest.base.result_folders import LEFTOVERS, MANIFEST, hash_file, read_json_file
from backtest.compare import Comparison
from backtest.crowd.result_title import describe_crowd_result
from backtest.engine import result_files
from backtest.measures.run_measures import METRICS
from backtest.store.begun_validations import describe_progress, is_begun, open_begun
from backtest.store.card import (
    Stamp,
    has_ends,
    read_card,
    read_metrics,
    summarize_making,
)
from backtest.store.kinds import (
    COMPARISON,
    CROSS,
    CROWD_CLASSES,
    FORMATS,
    LEFTOVER,
    PORTFOLIO,
    RISK_CLASSES,
    RUN,
    SCHEDULES,
    STUDY_KIND,
    SWEEP,
    UNKNOWN,
    WALK,
    find_manifest_faults,
    open_folder,
)
from backtest.sweep import Sweep
from backtest.tune import OUTCOME, STUDY, TRIALS, Study
from backtest.tune.study_folder import read_json as read_study_json
from backtest.validation.cross_validation import CrossValidation
from backtest.validation.schedules import Schedules
from backtest.validation.validation_files import ACCOUNTS
from backtest.validation.walk import WalkForward


@dataclass(frozen=True)
class StoreEntry:
    """A folder of the store, as lists in the terminal and the browser show it.

    Attributes
    ----------
    name : str
        The name of the folder.
    kind : str
        One of :data:`backtest.store.kinds.KINDS`; ``"leftover"`` for a temporary folder of a
        writer; ``"unknown"``.
    trouble : str
        Why it cannot be used, in one sentence; empty if it can.
    id, policy, instrument, interval, start, end, source : str
        Fields of its manifest; empty if that cannot be read.
    title : str
        The policy with its settings (run), with what varied (sweep, study), or the baseline and
        the other policies (comparison).
    is_synthetic : bool
        Whether the prices are made up.
    saved : int
        Modification time of its manifest, in nanoseconds since 1970.
    size : int
        Bytes on the disk.
    note : str
        The number of sets or policies, and whether it is unfinished.
    metrics : dict of str to float
        The measures of the run, of the set with the highest Sharpe ratio (sweep), of the chosen
        set (study), or of the policy with the highest log growth (comparison).
    is_busy : bool
        Whether a process is writing it now.
    is_finished : bool
        False for a study or a validation that can be resumed.
    seconds : float or None
        Wall time to compute it, for a study of all its parts; None if not measured.
    commit, backtest_commit : str
        Commits of the checkouts of its policy and of this package; empty if there was none.
    is_dirty : bool or None
        Whether one of these checkouts had uncommitted changes; None if there was none.
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
        """Return the fields as a dict; numbers may be NaN or infinite."""
        return dict(vars(self))


# ------------------------------------------------------------------------------------- one folder


def take_stamp(folder: Path) -> Stamp:
    """Return names, sizes, times and inodes of the files of a folder; any change changes them.

    Subfolders are scanned if they hold a study's trials or the accounts of a walk, or if the folder
    is a leftover or an unfinished validation.
    """
    is_whole = folder.name.startswith(LEFTOVERS) or is_begun(folder)
    inner = None if is_whole else (f"{TRIALS}/", f"{ACCOUNTS}/")
    return tuple(sorted(_scan_files(os.fspath(folder), "", inner)))


def _scan_files(
    folder: str, prefix: str, inner: tuple[str, ...] | None
) -> Iterator[tuple[str, int, int, int, int]]:
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
                if inner is None or f"{name}/".startswith(inner):
                    yield from _scan_files(each.path, f"{name}/", inner)
            else:
                yield name, facts.st_size, *times, facts.st_ino


def check_no_links(folder: Path) -> None:
    """Raise if a folder is a link or holds one, so that a server never reads outside its store."""
    links = [folder] if folder.is_symlink() else [e for e in folder.iterdir() if e.is_symlink()]
    for each in links:
        name = "the folder" if each == folder else each.name
        raise DataError(
            f"{name} is a link, which is not followed",
            where=str(each),
            cure="put what it leads to in its place",
        )


def check_utf8_name(folder: Path) -> None:
    """Raise if the name of a folder is not UTF-8: Parquet files in it cannot be opened."""
    try:
        folder.name.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            "the name of the folder is not UTF-8", where=str(folder.parent), cure="rename it"
        ) from error


def read_entry(folder: Path, stamp: Stamp = (), *, is_served: bool = False) -> StoreEntry:
    """Return the entry of a folder; faults are reported in the entry, never raised.

    A ``stamp`` must have been taken just now. For a server (``is_served``) no link is followed, and
    the trials of an unfinished study, which :mod:`backtest.serve.live_study` reads, are
    skipped.
    """
    kind = UNKNOWN
    try:
        if is_served:
            check_no_links(folder)
        if folder.name.startswith(LEFTOVERS):
            return read_leftover(folder)
        check_utf8_name(folder)
        stamp = stamp or take_stamp(folder)
        place = _find_time_and_size(stamp)
        if (shown := read_card(folder, stamp)) is not None:
            return StoreEntry(folder.name, RUN, **place, **shown)
        if is_begun(folder):
            kind, manifest = open_begun(folder)
            begun = summarize_terms(manifest) | describe_progress(folder, kind, manifest)
            return StoreEntry(folder.name, kind, **place, **begun)
        kind, manifest = open_folder(folder)
        is_followed = is_served and kind == STUDY_KIND and not (folder / OUTCOME).is_file()
        facts = read_study_header(folder) if is_followed else READERS[kind](folder, manifest)
        made = summarize_making(read_provenance(folder, facts["id"]))
        entry = StoreEntry(folder.name, kind, **{**place, **facts, **made})
    except FileNotFoundError as error:
        return StoreEntry(folder.name, kind, f"{Path(error.filename or folder).name} is missing")
    except BacktestError as error:
        return StoreEntry(folder.name, kind, error.problem, **_find_time_and_size(stamp))
    except Exception as error:  # a damaged file may raise anything
        text = f"it cannot be read: {type(error).__name__}: {error}"
        return StoreEntry(folder.name, kind, text, **_find_time_and_size(stamp))
    return entry


def _find_time_and_size(stamp: Stamp) -> dict[str, Any]:
    """Return the time a folder was saved (of its manifest, or newest file) and its size."""
    times = {name: time for name, _, time, _, _ in stamp}
    saved = times.get(STUDY, times.get(MANIFEST, max(times.values(), default=0)))
    return {"saved": saved, "size": sum(each[1] for each in stamp)}


def read_leftover(folder: Path) -> StoreEntry:
    """Return the entry of a temporary folder whose writing or deletion did not finish."""
    busy = is_lock_held(folder / LOCK)
    inner = [each.name for each in folder.glob("*") if each.is_dir()]
    about = f" of {inner[0]}" if len(inner) == 1 else ""
    what = "is being written now" if busy else f"was left by a process that died{about}"
    facts = _find_time_and_size(take_stamp(folder))
    return StoreEntry(folder.name, LEFTOVER, f"it {what}", **facts, is_busy=busy)


# ------------------------------------------------------------------------------------ by its kind


def check_manifest(folder: Path, kind: str, manifest: Mapping[str, Any]) -> None:
    """Raise if a manifest has an unknown format or a wrong id, or if a file is damaged."""
    faults = [(MANIFEST, fault) for fault in find_manifest_faults(manifest, kind)]
    faults += [(name, find_damage(folder / name)) for name in FORMATS[kind][1]]
    for name, fault in faults:
        if fault:
            raise damage_error(folder / name, fault)


def damage_error(path: Path, fault: str) -> DataError:
    """Return the error for a file of a result that cannot be used."""
    cure = "run the experiment again, or restore the file"
    return DataError(f"{path.name} {fault}", where=str(path), cure=cure)


def find_damage(path: Path) -> str:
    """Return whether a file is missing, empty or truncated, in words; empty if it looks whole."""
    try:
        size = path.stat().st_size
        if path.suffix != ".parquet":
            return "" if size else "is empty"
        return "" if has_ends(str(path), size) else "is truncated or not a Parquet file"
    except FileNotFoundError:
        return "is missing"


def summarize_data(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an entry that describe its data."""
    names = ("instrument", "interval", "start", "end")
    texts = {name: str(data[name] or "") for name in names}
    return {**texts, "is_synthetic": bool(data.get("synthetic"))}


def summarize_search(name: str, varied: Iterable[object]) -> dict[str, str]:
    """Return the fields of an entry that name a policy and the parameters that varied."""
    return {"policy": name, "title": f"{name} over {', '.join(map(str, varied))}"}


def read_run(folder: Path, manifest: Mapping[str, Any], kind: str = RUN) -> dict[str, Any]:
    """Return the fields of a run's entry, of one position or several, without its tables."""
    check_manifest(folder, kind, manifest)
    for name in (result_files.METRICS, result_files.STATE):
        if hash_file(folder / name) != manifest["files"][name]:
            raise damage_error(folder / name, "was changed")
    shown = result_files.describe_run(manifest, read_json_file(folder / result_files.METRICS))
    metrics = read_metrics(shown["metrics"])
    return {"id": manifest["id"], **shown, "title": shown["policy"], "metrics": metrics}


def read_sweep(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a sweep's entry."""
    check_manifest(folder, SWEEP, manifest)
    sweep = Sweep.load(folder)
    best = sweep.table.iloc[sweep.rank("sharpe")[:1]]
    asked, done = int(manifest["sets"]["asked"]), len(sweep.table)
    return {
        "id": manifest["id"],
        **summarize_search(str(manifest["policy"]["name"]), manifest["parameters"]),
        "source": str(manifest["data"].get("source", "")),
        "note": f"{done:,} sets" if done == asked else f"{done:,} of {asked:,} sets",
        "metrics": select_numbers(best.to_dict("records")[0], sweep.metrics) if done else {},
        **summarize_data(manifest["data"]),
    }


def read_study(folder: Path, _: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a study's entry."""
    begun = read_study_header(folder)
    study = Study.load(folder)
    best = study.best
    state = "" if study.complete else (", being searched" if begun["is_busy"] else ", unfinished")
    measured = {name for batch in study.batches[:1] for name in batch.metrics}
    return {
        **begun,
        "note": f"{study.trials:,} sets{state}",
        "metrics": {} if best is None else select_numbers(best.to_dict(), measured),
        "is_finished": study.complete,
        "seconds": study.batches[-1].seconds if study.batches else None,
    }


def read_study_header(folder: Path) -> dict[str, Any]:
    """Return the fields of a study's entry that need no trials."""
    facts = read_study_json(folder / STUDY)
    dimensions = (each["name"] for each in facts["space"]["dimensions"])
    return {
        "id": facts["id"],
        **summarize_search(str(facts["policy"]["name"]), dimensions),
        "source": str(facts["source"]),
        "is_busy": is_lock_held(folder / LOCK),
        "is_finished": False,
        **summarize_data(facts["data"]),
    }


def read_comparison(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a comparison's entry."""
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
        "metrics": select_numbers(best, best),
        **summarize_data(manifest["data"]),
    }


def select_numbers(row: Mapping[Any, Any], names: Any) -> dict[str, float]:
    """Return the numbers of a row under the given names."""
    return {
        str(name): float(value)
        for name, value in row.items()
        if name in names and isinstance(value, int | float)
    }


def summarize_validation(folder: Path, kind: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a saved validation's entry that its manifest has."""
    check_manifest(folder, kind, manifest)
    return summarize_terms(manifest)


def summarize_terms(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an entry that the manifest of a validation has."""
    dimensions = (each["name"] for each in manifest["space"]["dimensions"])
    return {
        "id": manifest["id"],
        **summarize_search(str(manifest["policy"]["name"]), dimensions),
        "source": str(manifest["data"].get("source", "")),
        **summarize_data(manifest["data"]),
    }


def read_walk(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a walk's entry: the measures are those of the re-tuned account."""
    begun, walk = summarize_validation(folder, WALK, manifest), WalkForward.load(folder)
    metrics = {} if walk.result is None else select_numbers(walk.result.metrics, METRICS)
    return {**begun, "note": f"{len(walk.folds):,} folds", "metrics": metrics}


def read_cross(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a cross-validation's entry: the measures are medians over paths."""
    begun, found = summarize_validation(folder, CROSS, manifest), CrossValidation.load(folder)
    medians = found.paths.median().to_dict()
    note = f"{len(found.splits):,} splits, {len(found.paths)} paths"
    return {**begun, "note": note, "metrics": select_numbers(medians, METRICS)}


def read_schedules(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an entry of schedules: the measures are those of the fastest growth."""
    begun, found = summarize_validation(folder, SCHEDULES, manifest), Schedules.load(folder)
    best = found.table.sort_values("log_growth", kind="stable").iloc[-1].to_dict()
    note = f"{len(found.table):,} schedules"
    return {**begun, "note": note, "metrics": select_numbers(best, METRICS)}


def read_crowd(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the entry of a cascade, a simulated market or a crowding."""
    kind = str(manifest["kind"])
    check_manifest(folder, kind, manifest)
    title, note = describe_crowd_result(manifest)
    policy = manifest.get("policy", {})
    return {
        "id": manifest["id"],
        "policy": str(policy.get("name", title)),
        "title": title,
        "source": str(manifest["data"].get("source", "")),
        "note": note,
        **summarize_data(manifest["data"]),
    }


def read_risk(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the entry of a result about risk."""
    check_manifest(folder, str(manifest["kind"]), manifest)
    title = str(manifest["title"])
    return {
        "id": manifest["id"],
        "policy": title.partition("(")[0],
        "title": title,
        "source": str(manifest["data"].get("source", "")),
        "note": str(manifest["note"]),
        **summarize_data(manifest["data"]),
    }


READERS: dict[str, Callable[[Path, Mapping[str, Any]], dict[str, Any]]] = {
    RUN: read_run,
    SWEEP: read_sweep,
    STUDY_KIND: read_study,
    COMPARISON: read_comparison,
    PORTFOLIO: partial(read_run, kind=PORTFOLIO),
    WALK: read_walk,
    CROSS: read_cross,
    SCHEDULES: read_schedules,
    **dict.fromkeys(CROWD_CLASSES, read_crowd),
    **dict.fromkeys(RISK_CLASSES, read_risk),
}
