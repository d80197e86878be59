"""Check the folders of a store, and delete results that are not wanted any more."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from backtest import core
from backtest.core import provenance, result_folders
from backtest.core.atomic_files import LOCK, REPLACED
from backtest.results.listing import (
    UNKNOWN,
    StoreEntry,
    find_kind,
    is_begun,
    is_leftover,
    list_results,
    load_saved,
    name_fault,
    open_folder,
    read_entry,
)
from backtest.results.selection import Filter, sort_entries

WHOLE = "."
"""The file of a fault that is none of one file."""
ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class FolderCheck:
    """What is wrong with a folder: faults and remarks are pairs of a file and a sentence."""

    name: str
    kind: str
    files: int
    faults: tuple[tuple[str, str], ...]
    remarks: tuple[tuple[str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "files": self.files,
            "faults": name_columns(self.faults),
            "remarks": name_columns(self.remarks),
        }


def name_columns(pairs: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"file": name, "what": what} for name, what in pairs]


def verify_folder(folder: Path) -> FolderCheck:
    """Read all files of a folder of a store, and return what is wrong with it."""
    name = folder.name
    if is_leftover(folder) or is_begun(folder):
        entry = read_entry(folder)
        note = entry.trouble or "is not finished: continue it with its command and --resume"
        return check_none(name, entry.kind, note)

    has_manifest = (folder / result_folders.MANIFEST).exists()
    has_provenance = (folder / provenance.PROVENANCE).exists()
    if not has_manifest and not has_provenance:
        return check_none(name, UNKNOWN, "is not a result")

    # A fault that ends the check leaves what was known before it.
    kind = UNKNOWN
    n_files = 0
    remarks = []
    try:
        kind, manifest = open_folder(folder)
        n_files = count_files(folder)
        faults = list(dict.fromkeys(list_faults(folder, kind, manifest)))
        if not faults:
            load_saved(folder)

        if not (folder / provenance.PROVENANCE).is_file():
            missing = "is missing: the code that made the result is not known"
            remarks.append((provenance.PROVENANCE, missing))
    except core.BacktestError as error:
        faults = [locate_fault(error, folder)]
    except Exception as error:  # a damaged file may raise anything
        faults = [(WHOLE, f"cannot be read: {type(error).__name__}: {error}")]
    return FolderCheck(
        name,
        kind,
        n_files,
        faults=tuple(faults),
        remarks=tuple(remarks),
    )


def check_none(name: str, kind: str, remark: str) -> FolderCheck:
    """Return the check of a folder of which no file is checked, with why."""
    return FolderCheck(
        name,
        kind,
        files=0,
        faults=(),
        remarks=((WHOLE, remark),),
    )


def count_files(folder: Path) -> int:
    """Return how many files a folder has, without its lock."""
    return sum(path.is_file() and path.name != LOCK for path in folder.rglob("*"))


def locate_fault(error: core.BacktestError, folder: Path) -> tuple[str, str]:
    """Return the file of a fault, "." for the whole folder, and what is wrong."""
    text = name_fault(error, folder)
    name, colon, what = text.partition(": ")
    if colon and str(error).startswith(f"{folder}{os.sep}"):
        return name, what
    return WHOLE, text


def list_faults(
    folder: Path,
    kind: str,
    manifest: Mapping[str, Any],
) -> Iterator[tuple[str, str]]:
    """Yield the faults of a result and of the results in it, each with its file."""
    yield from result_folders.find_faults(folder, manifest, find_kind(kind))
    try:
        core.read_provenance(folder, str(manifest.get("id")))
    except core.BacktestError as error:
        yield locate_fault(error, folder)

    # A result of several accounts holds a folder for each of them.
    for inner in find_kind(kind).inner:
        for account in sorted((folder / inner).iterdir()):
            for file, what in verify_folder(account).faults:
                place = f"{inner}/{account.name}/{file}"
                yield place.removesuffix("/."), what
    for name in list_foreign(folder, kind):
        yield name, "is not part of the result"


def list_foreign(folder: Path, kind: str) -> list[str]:
    """Return the names in a folder that no result of its kind has."""
    saved = find_kind(kind)
    known = (*saved.files(), *saved.inner, result_folders.MANIFEST, provenance.PROVENANCE, LOCK)
    return sorted(path.name for path in folder.iterdir() if path.name not in known)


class KeptFolder(NamedTuple):
    """A folder that is not deleted, and why."""

    name: str
    why: str


def choose_deletions(
    store: Path,
    wanted: Filter | None,
    *,
    keep: int = 0,
    with_unfinished: bool = False,
    with_damaged: bool = False,
) -> tuple[list[StoreEntry], list[KeptFolder]]:
    """Return the results to delete, and the folders that are not known to be results.

    Without a filter only those that ``with_unfinished`` and ``with_damaged`` name are chosen. Of
    the results that could go, the newest ``keep`` stay.
    """
    idle = [entry for entry in list_results(store) if not entry.is_busy]
    if wanted is None:
        matching = [entry for entry in idle if not entry.trouble and not entry.is_finished]
    else:
        matching = [entry for entry in idle if wanted.matches(entry)]

    # What stays anyway takes no place among the newest, which come first.
    if not with_unfinished:
        matching = [entry for entry in matching if entry.is_finished]
    chosen = sort_entries(matching)[keep:]

    troubled = [entry for entry in idle if entry.trouble]
    if not with_damaged:
        troubled = [entry for entry in troubled if is_remains(store / entry.name)]

    deletions = []
    kept = []
    for entry in [*chosen, *troubled]:
        reason = find_reason_to_keep(store / entry.name)
        if reason:
            kept.append(KeptFolder(entry.name, reason))
        else:
            deletions.append(entry)
    return deletions, kept


def is_remains(folder: Path) -> bool:
    """Return whether a folder is a leftover that nobody needs.

    One that holds a replaced result may have the only whole copy of it.
    """
    return is_leftover(folder) and not (folder / REPLACED).exists()


def delete_chosen(store: Path, chosen: Sequence[StoreEntry]) -> tuple[list[str], list[str]]:
    """Return the names of what was deleted, and of what is in use now or cannot be deleted."""
    for entry in chosen:
        folder = store / entry.name
        if not core.is_lock_held(folder / LOCK) and not find_reason_to_keep(folder):
            core.discard_folder(folder)

    deleted = []
    left = []
    for entry in chosen:
        if os.path.lexists(store / entry.name):
            left.append(entry.name)
        else:
            deleted.append(entry.name)
    return deleted, left


def find_reason_to_keep(folder: Path) -> str:
    """Return why a folder is not known to be a result; only its manifest makes it one."""
    try:
        if folder.is_symlink():
            return "it is a link"
        for path in folder.rglob("*"):
            if path.is_symlink():
                return f"it holds the link {path.name!r}"

        if is_leftover(folder):
            is_known = all(belongs_to_leftover(path) for path in folder.iterdir())
            return "" if is_known else "it holds other files"
        if is_begun(folder) and not any(folder.iterdir()):
            return ""
        return find_manifest_fault(folder)
    except core.BacktestError as error:
        return name_fault(error, folder)
    except (OSError, TypeError) as error:
        return f"it cannot be read: {error}"


def belongs_to_leftover(path: Path) -> bool:
    """Return whether something in a leftover is its lock, or a result that was moved there."""
    if path.name == LOCK:
        return True
    identity = path.name.rpartition("-")[2]
    is_moved = path.name == REPLACED or ID.fullmatch(identity) is not None
    return path.is_dir() and is_moved


def find_manifest_fault(folder: Path) -> str:
    """Return why the manifest of a folder does not make it a result; empty if it does."""
    kind, manifest = open_folder(folder)
    files = {*find_kind(kind).files()}
    has_files = is_begun(folder) or {*manifest.get("files", ())} == files
    if not has_files or not ID.fullmatch(str(manifest.get("id"))):
        return f"its {result_folders.MANIFEST} does not describe a result"

    # One that is not finished has batches beside its manifest.
    foreign = [] if is_begun(folder) else list_foreign(folder, kind)
    if foreign:
        return f"it holds {foreign[0]!r}, which no result has"
    return ""
