"""Read a folder of the store into an entry of the list: kind, data, measures, or the fault."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backtest.base import (
    BacktestError,
    DataError,
    Making,
    damage_error,
    decode_provenance,
    is_lock_held,
    making_from_json,
    open_plain,
    read_provenance,
    read_small,
)
from backtest.base.atomic_files import LOCK
from backtest.base.provenance import FORMAT, PACKAGE, PROVENANCE
from backtest.base.result_folders import LEFTOVERS, MANIFEST
from backtest.base.saved_result import KINDS
from backtest.engine import read_metrics, result_files
from backtest.engine.run_kinds import RUN
from backtest.store.find import can_be_resumed, describe_progress, is_begun, open_begun
from backtest.store.kinds import (
    LEFTOVER,
    UNKNOWN,
    find_manifest_faults,
    name_fault,
    open_folder,
)
from backtest.validation import ACCOUNTS, describe_search


@dataclass(frozen=True)
class StoreEntry:
    """A folder of the store, as lists show it.

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
        return dict(vars(self))


# ------------------------------------------------------------------------------------- one folder


def take_stamp(folder: Path) -> Stamp:
    is_whole = folder.name.startswith(LEFTOVERS) or is_begun(folder)
    inner = None if is_whole else (f"{ACCOUNTS}/",)
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


def check_utf8_name(folder: Path) -> None:
    try:
        folder.name.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{folder.parent}: the name of a folder must be UTF-8, got {folder.name!r}"
        ) from error


def read_entry(folder: Path, stamp: Stamp = ()) -> StoreEntry:
    kind = UNKNOWN
    try:
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
        facts = read_fields(folder, kind, manifest)
        made = summarize_making(read_provenance(folder, facts["id"]))
        entry = StoreEntry(folder.name, kind, **{**place, **facts, **made})
    except FileNotFoundError as error:
        return StoreEntry(folder.name, kind, f"{Path(error.filename or folder).name} is missing")
    except BacktestError as error:
        return StoreEntry(
            folder.name, kind, name_fault(error, folder), **_find_time_and_size(stamp)
        )
    except Exception as error:  # a damaged file may raise anything
        text = f"it cannot be read: {type(error).__name__}: {error}"
        return StoreEntry(folder.name, kind, text, **_find_time_and_size(stamp))
    return entry


def _find_time_and_size(stamp: Stamp) -> dict[str, Any]:
    times = {name: time for name, _, time, _, _ in stamp}
    saved = times.get(MANIFEST, max(times.values(), default=0))
    return {"saved": saved, "size": sum(each[1] for each in stamp)}


def read_leftover(folder: Path) -> StoreEntry:
    busy = is_lock_held(folder / LOCK)
    inner = [each.name for each in folder.glob("*") if each.is_dir()]
    about = f" of {inner[0]}" if len(inner) == 1 else ""
    what = "is being written now" if busy else f"was left by a process that died{about}"
    facts = _find_time_and_size(take_stamp(folder))
    return StoreEntry(folder.name, LEFTOVER, f"it {what}", **facts, is_busy=busy)


# ------------------------------------------------------------------------------------ by its kind


def read_fields(folder: Path, kind: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    check_manifest(folder, kind, manifest)
    return {**describe_manifest(manifest), **KINDS[kind].read_line(folder, manifest)}


def describe_manifest(manifest: Mapping[str, Any]) -> dict[str, Any]:
    data = manifest["data"]
    return {
        "id": manifest["id"],
        "source": str(data.get("source", "")),
        **summarize_data(data),
    }


def check_manifest(folder: Path, kind: str, manifest: Mapping[str, Any]) -> None:
    faults = [(MANIFEST, fault) for fault in find_manifest_faults(manifest, kind)]
    faults += [(name, find_damage(folder / name)) for name in KINDS[kind].files]
    for name, fault in faults:
        if fault:
            raise damage_error(folder / name, fault)


def find_damage(path: Path) -> str:
    try:
        size = path.stat().st_size
        if path.suffix != ".parquet":
            return "" if size else "is empty"
        return "" if has_ends(str(path), size) else "is truncated or not a Parquet file"
    except FileNotFoundError:
        return "is missing"


def summarize_data(data: Mapping[str, Any]) -> dict[str, Any]:
    names = ("instrument", "interval", "start", "end")
    texts = {name: str(data[name] or "") for name in names}
    return {**texts, "is_synthetic": bool(data.get("synthetic"))}


MAGIC, LEAST_PARQUET = b"PAR1", 12

Stamp = tuple[tuple[str, int, int, int, int], ...]


def read_unchanged_run(folder: Path, stamp: Stamp) -> dict[str, Any] | None:
    sizes = {name: size for name, size, *_ in stamp}
    if sizes.pop(PROVENANCE, 0) == 0:
        return None
    place = os.fspath(folder)
    try:
        data = decode_provenance(read_small(f"{place}/{PROVENANCE}"), place)
    except DataError:
        return None  # reading the whole folder reports it
    is_known = (data["format"], data.get("run_format")) == (
        FORMAT,
        result_files.FORMAT,
    )
    if not is_known or data["sizes"] != sizes:
        return None
    if not (is_untouched(stamp) or has_saved_hashes(place, data)):
        return None
    shows = data["shows"]
    made = summarize_making(making_from_json(data["made"]))
    metrics = read_metrics(shows["metrics"])
    return {"id": data["id"], **shows, "title": shows["policy"], "metrics": metrics, **made}


def is_untouched(stamp: Stamp) -> bool:
    last = next(changed for name, _, _, changed, _ in stamp if name == PROVENANCE)
    return all(changed <= last for _, _, _, changed, _ in stamp)


def has_saved_hashes(place: str, data: Mapping[str, Any]) -> bool:
    hashes = data["hashes"]
    return all(
        has_ends(f"{place}/{name}", size)
        if name not in hashes
        else hashlib.sha256(read_small(f"{place}/{name}")).hexdigest() == hashes[name]
        for name, size in data["sizes"].items()
    )


def has_ends(path: str, size: int) -> bool:
    if size < LEAST_PARQUET:
        return False
    with open_plain(path) as file:
        head = file.read(4)
        file.seek(size - 4)
        return head == file.read(4) == MAGIC


def describe_note(entry: StoreEntry) -> str:
    if entry.is_finished or not can_be_resumed(entry.kind):
        return entry.note
    return f"{entry.note}, {'running' if entry.is_busy else 'unfinished'}"


def summarize_making(making: Making | None) -> dict[str, Any]:
    if making is None:
        return {}
    commits = {name: each.commit for name, each in making.code.items() if each is not None}
    own = commits.pop(PACKAGE, "")
    return {
        **({} if making.seconds is None else {"seconds": making.seconds}),
        "commit": ", ".join(dict.fromkeys(commits.values())),
        "backtest_commit": own,
        "is_dirty": making.is_dirty,
    }
