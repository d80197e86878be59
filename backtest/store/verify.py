"""Check that saved results are what was written: every file, every hash, every id."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backtest.base.atomic_files import LOCK
from backtest.base.errors import BacktestError
from backtest.base.json_values import to_plain
from backtest.base.provenance import PROVENANCE, find_changed_files
from backtest.base.result_folders import LEFTOVERS, MANIFEST, hash_file
from backtest.store.entry import StoreEntry, read_leftover
from backtest.store.find import load_saved
from backtest.store.kinds import (
    FORMATS,
    LEFTOVER,
    STUDY_KIND,
    UNKNOWN,
    find_manifest_faults,
    is_foreign,
    open_folder,
)
from backtest.tune.study_folder import OUTCOME, STUDY, TRIALS, find_broken
from backtest.tune.study_folder import read_json as read_study_json
from backtest.tune.study_identity import ASIDE


@dataclass(frozen=True)
class FolderCheck:
    """What verifying one folder has found.

    Attributes
    ----------
    name, kind : str
        Of the folder.
    files : int
        How many were checked.
    faults : tuple of (str, str)
        Files that are not as they were written, each with what is wrong: it must not be used.
    remarks : tuple of (str, str)
        What is worth knowing, and is no fault.
    """

    name: str
    kind: str
    files: int
    faults: tuple[tuple[str, str], ...]
    remarks: tuple[tuple[str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it as data."""
        lists = {"faults": self.faults, "remarks": self.remarks}
        named = {
            key: [{"file": name, "what": what} for name, what in found]
            for key, found in lists.items()
        }
        return {"name": self.name, "kind": self.kind, "files": self.files, **named}


def verify_folder(folder: Path) -> FolderCheck:
    """Return what is wrong with one folder of a store; nothing in it is executed.

    Whatever a damaged file brings about is what is wrong with the folder, and stops no other check.
    """
    try:
        return check_folder(folder)
    except OSError as error:
        what = f"cannot be read: {error.strerror or error}"
        return FolderCheck(folder.name, UNKNOWN, 0, ((".", what),))


def check_folder(folder: Path) -> FolderCheck:
    """Return what is wrong with one folder that can be read."""
    name = folder.name
    if name.startswith(LEFTOVERS):
        left: StoreEntry = read_leftover(folder)
        return FolderCheck(name, LEFTOVER, 0, (), ((".", left.trouble),))
    if is_foreign(folder):
        return FolderCheck(name, UNKNOWN, 0, (), ((".", "is no result: it holds no file of one"),))
    try:
        kind, _ = open_folder(folder)
    except BacktestError as error:
        return FolderCheck(name, UNKNOWN, 0, (describe_fault(error, folder),))
    files = [each for each in sorted(folder.rglob("*")) if each.is_file() and each.name != LOCK]
    is_study = kind == STUDY_KIND
    try:
        found = find_study_faults(folder) if is_study else find_faults(folder, kind)
        faults = list(dict.fromkeys(found))
        if not faults:
            faults = list(try_load(folder))
        remarks = list(find_remarks(folder, kind))
    except BacktestError as error:
        faults, remarks = [describe_fault(error, folder)], []
    except Exception as error:  # whatever a damaged file brings about is what is wrong with it
        faults, remarks = [(MANIFEST, f"cannot be read: {type(error).__name__}: {error}")], []
    return FolderCheck(name, kind, len(files), tuple(faults), tuple(remarks))


def describe_fault(error: BacktestError, folder: Path) -> tuple[str, str]:
    """Return the file that an error is about (a dot: the folder), and what is wrong with it."""
    place = Path(error.where.partition(", ")[0])
    name = place.relative_to(folder).as_posix() if place.is_relative_to(folder) else "."
    return name, error.problem.removeprefix(f"{name} ")


def find_faults(folder: Path, kind: str) -> Iterator[tuple[str, str]]:
    """Yield the files of a run, sweep or comparison that are not as they were written."""
    _, manifest = open_folder(folder)
    faults = [*find_manifest_faults(manifest, kind)]
    yield from ((MANIFEST, each) for each in faults)
    files = FORMATS[kind][1]
    hashes = manifest.get("files")
    if not isinstance(hashes, Mapping) or {*hashes} != {*files}:
        return
    yield from compare_hashes(folder, hashes)
    yield from find_provenance_faults(folder, str(manifest.get("id")))
    for each in sorted(folder.iterdir()):
        if each.name not in (*files, MANIFEST, PROVENANCE):
            yield each.name, "is no part of the result"


def find_provenance_faults(folder: Path, identity: str) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the file that says where a result came from, or by what it says.

    That there is none is no fault.
    """
    try:
        for name in find_changed_files(folder, identity):
            yield name, "was changed: its hash is not that in the provenance"
    except BacktestError as error:
        yield PROVENANCE, error.problem.removeprefix(f"{PROVENANCE} ")


def compare_hashes(folder: Path, hashes: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the files that are not there, or of another hash."""
    for name, expected in hashes.items():
        if not (folder / name).is_file():
            yield name, "is missing"
        elif hash_file(folder / name) != expected:
            yield name, "was changed or truncated: its hash is not the manifest's"


def find_study_faults(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the files of a study that are not as they were written."""
    facts = read_study_json(folder / STUDY)
    if facts.get("id") != hash_study(facts):
        yield STUDY, "was changed: its id is not of its content"
    if (folder / OUTCOME).is_file():
        yield from find_broken(folder, read_study_json(folder / OUTCOME))
    yield from find_provenance_faults(folder, str(facts.get("id")))
    known = (STUDY, OUTCOME, TRIALS, LOCK, PROVENANCE)
    for each in sorted(folder.iterdir()):
        if each.name not in known and not each.name.startswith("."):
            yield each.name, "is no part of the study"


def hash_study(facts: Mapping[str, Any]) -> str:
    """Return the id that the content of a study's description makes."""
    plain = to_plain({name: value for name, value in facts.items() if name not in ASIDE})
    text = json.dumps(plain, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def try_load(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield why a folder whose hashes hold cannot be loaded all the same."""
    try:
        load_saved(folder)
    except BacktestError as error:
        yield describe_fault(error, folder)
    except Exception as error:  # see verify_folder
        yield ".", f"cannot be loaded: {type(error).__name__}: {error}"


def find_remarks(folder: Path, kind: str) -> Iterator[tuple[str, str]]:
    """Yield what is worth knowing of a folder."""
    if not (folder / PROVENANCE).is_file():
        yield PROVENANCE, "is not there: the code it was made by is not known"
    if kind != STUDY_KIND:
        return
    if not (folder / OUTCOME).is_file():
        yield OUTCOME, "is not there: the study is unfinished, and its trials have no seal yet"
    elif "seal" not in read_study_json(folder / OUTCOME):
        yield OUTCOME, "has no seal: it was written by an earlier version, and cannot be checked"
