"""Verify saved results: every file, hash and id must be as written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backtest.base import BacktestError, find_changed_files, hash_file
from backtest.base.atomic_files import LOCK
from backtest.base.provenance import PROVENANCE
from backtest.base.result_folders import LEFTOVERS, MANIFEST
from backtest.base.saved_result import KINDS
from backtest.store.entry import StoreEntry, read_entry, read_leftover
from backtest.store.find import is_begun, load_saved
from backtest.store.kinds import (
    LEFTOVER,
    UNKNOWN,
    find_manifest_faults,
    is_foreign_folder,
    name_fault,
    open_folder,
)
from backtest.store.listing import MOST_READS
from backtest.tune import find_damaged_lines

RECORDS = "records"


@dataclass(frozen=True)
class FolderCheck:
    name: str
    kind: str
    files: int
    faults: tuple[tuple[str, str], ...]
    remarks: tuple[tuple[str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        lists = {"faults": self.faults, "remarks": self.remarks}
        named = {
            key: [{"file": name, "what": what} for name, what in found]
            for key, found in lists.items()
        }
        return {"name": self.name, "kind": self.kind, "files": self.files, **named}


def verify_folder(folder: Path) -> FolderCheck:
    check = try_check(folder)
    for _ in range(MOST_READS):
        before, check = check, try_check(folder) if check.faults else check
        if check == before:
            break
    return check


def try_check(folder: Path) -> FolderCheck:
    try:
        return check_folder(folder)
    except OSError as error:
        what = f"cannot be read: {error.strerror or error}"
        return FolderCheck(folder.name, UNKNOWN, 0, ((".", what),))


def verify_records(store: Path) -> list[FolderCheck]:
    return [
        FolderCheck(name, RECORDS, 1, ((name, what),)) for name, what in find_damaged_lines(store)
    ]


def check_folder(folder: Path) -> FolderCheck:
    name = folder.name
    if name.startswith(LEFTOVERS):
        left: StoreEntry = read_leftover(folder)
        return FolderCheck(name, LEFTOVER, 0, (), ((".", left.trouble),))
    if is_begun(folder):
        begun = read_entry(folder)
        note = begun.trouble or "is not finished: continue it with its command and --resume"
        return FolderCheck(name, begun.kind, 0, (), ((".", note),))
    if is_foreign_folder(folder):
        return FolderCheck(
            name, UNKNOWN, 0, (), ((".", "is not a result: it holds no file of one"),)
        )
    try:
        kind, manifest = open_folder(folder)
    except BacktestError as error:
        return FolderCheck(name, UNKNOWN, 0, (locate_fault(error, folder),))
    files = [each for each in sorted(folder.rglob("*")) if each.is_file() and each.name != LOCK]
    try:
        found = find_faults(folder, kind, manifest)
        faults = list(dict.fromkeys(found)) or list(find_load_faults(folder))
        remarks = list(find_remarks(folder))
    except BacktestError as error:
        faults, remarks = [locate_fault(error, folder)], []
    except Exception as error:  # a damaged file may raise anything
        faults, remarks = [(MANIFEST, f"cannot be read: {type(error).__name__}: {error}")], []
    return FolderCheck(name, kind, len(files), tuple(faults), tuple(remarks))


def locate_fault(error: BacktestError, folder: Path) -> tuple[str, str]:
    text = name_fault(error, folder)
    name, colon, what = text.partition(": ")
    is_of_file = bool(colon) and str(error).startswith(f"{folder}{os.sep}")
    return (name, what) if is_of_file else (".", text)


def find_faults(folder: Path, kind: str, manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from ((MANIFEST, each) for each in find_manifest_faults(manifest, kind))
    files = KINDS[kind].files
    hashes = manifest.get("files")
    if not isinstance(hashes, Mapping) or {*hashes} != {*files}:
        return
    yield from compare_hashes(folder, hashes)
    yield from find_provenance_faults(folder, str(manifest.get("id")))
    for inner in KINDS[kind].inner:
        for account in sorted((folder / inner).iterdir()):
            for name, what in check_folder(account).faults:
                yield f"{inner}/{account.name}/{name}".removesuffix("/."), what
    for each in sorted(folder.iterdir()):
        if each.name not in (*files, *KINDS[kind].inner, MANIFEST, PROVENANCE):
            yield each.name, "is not part of the result"


def find_provenance_faults(folder: Path, identity: str) -> Iterator[tuple[str, str]]:
    try:
        for name in find_changed_files(folder, identity):
            yield name, "was changed: its hash is not that in the provenance"
    except BacktestError as error:
        yield locate_fault(error, folder)


def compare_hashes(folder: Path, hashes: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, expected in hashes.items():
        if not (folder / name).is_file():
            yield name, "is missing"
        elif hash_file(folder / name) != expected:
            yield name, "was changed or truncated: its hash is not the manifest's"


def find_load_faults(folder: Path) -> Iterator[tuple[str, str]]:
    try:
        load_saved(folder)
    except BacktestError as error:
        yield locate_fault(error, folder)
    except Exception as error:  # see verify_folder
        yield ".", f"cannot be loaded: {type(error).__name__}: {error}"


def find_remarks(folder: Path) -> Iterator[tuple[str, str]]:
    if not (folder / PROVENANCE).is_file():
        yield PROVENANCE, "is missing: the code that made the result is not known"
