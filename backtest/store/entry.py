"""Read a folder of the store into an entry of the list: kind, data, measures, or the fault."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backtest.base import BacktestError, DataError, is_lock_held, read_provenance
from backtest.base.atomic_files import LOCK
from backtest.base.result_folders import LEFTOVERS, MANIFEST
from backtest.engine.run_kinds import RUN
from backtest.store.begun_validations import describe_progress, is_begun, open_begun
from backtest.store.kind_fields import describe_manifest, read_fields, read_study_header
from backtest.store.kinds import LEFTOVER, STUDY_KIND, UNKNOWN, open_folder
from backtest.store.unchanged_run import (
    Stamp,
    read_unchanged_run,
    summarize_making,
)
from backtest.tune import OUTCOME, STUDY, TRIALS
from backtest.validation import describe_search
from backtest.validation.validation_files import ACCOUNTS


@dataclass(frozen=True)
class StoreEntry:
    """A folder of the store, as lists in the terminal and the browser show it.

    Attributes
    ----------
    name : str
        The name of the folder.
    kind : str
        One of :func:`backtest.store.list_kinds`; ``"leftover"`` for a temporary folder of a
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
                    with suppress(FileNotFoundError):  # as above
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
    the trials of an unfinished study, which :mod:`backtest.report.serve.live_study` reads, are
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
        if (shown := read_unchanged_run(folder, stamp)) is not None:
            return StoreEntry(folder.name, RUN, **place, **shown)
        if is_begun(folder):
            kind, manifest = open_begun(folder)
            begun = {**describe_manifest(manifest), **describe_search(manifest)}
            begun |= describe_progress(folder, kind, manifest)
            return StoreEntry(folder.name, kind, **place, **begun)
        kind, manifest = open_folder(folder)
        is_followed = is_served and kind == STUDY_KIND and not (folder / OUTCOME).is_file()
        facts = read_study_header(folder) if is_followed else read_fields(folder, kind, manifest)
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
