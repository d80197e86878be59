"""Verify saved results, every file, hash and id; prune them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from backtest import core
from backtest.core.atomic_files import LOCK, REPLACED
from backtest.core.saved_result import DRAFT, MANIFEST, PROVENANCE, PRUNED
from backtest.results import listing as f

# ------------------------------------------------------------------------------------- verify


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
    check = check_folder(folder)
    return check_folder(folder) if check.faults else check  # another process may have replaced it


def check_folder(folder: Path) -> FolderCheck:
    name = folder.name
    if f.is_leftover(folder) or f.is_begun(folder):
        begun = f.read_entry(folder)
        note = begun.trouble or "is not finished: continue it with its command and --resume"
        return FolderCheck(name, begun.kind, 0, (), ((".", note),))
    if not (folder / MANIFEST).exists() and not (folder / PROVENANCE).exists():
        return FolderCheck(name, f.UNKNOWN, 0, (), ((".", "is not a result"),))
    kind, files, remarks = f.UNKNOWN, 0, []
    try:
        kind, manifest = f.open_folder(folder)
        files = sum(each.is_file() and each.name != LOCK for each in folder.rglob("*"))
        faults = list(dict.fromkeys(find_faults(folder, kind, manifest)))
        if not faults:
            f.load_saved(folder)
        if not (folder / PROVENANCE).is_file():
            remarks = [(PROVENANCE, "is missing: the code that made the result is not known")]
    except core.BacktestError as error:
        faults = [locate_fault(error, folder)]
    except Exception as error:  # a damaged file may raise anything
        faults = [(".", f"cannot be read: {type(error).__name__}: {error}")]
    return FolderCheck(name, kind, files, tuple(faults), tuple(remarks))


def locate_fault(error: core.BacktestError, folder: Path) -> tuple[str, str]:
    text = f.name_fault(error, folder)
    name, colon, what = text.partition(": ")
    is_of_file = bool(colon) and str(error).startswith(f"{folder}{os.sep}")
    return (name, what) if is_of_file else (".", text)


def find_faults(folder: Path, kind: str, manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from ((MANIFEST, each) for each in f.find_manifest_faults(manifest, kind))
    hashes = manifest.get("files")
    if not isinstance(hashes, Mapping) or {*hashes} != {*f.find_kinds()[kind].files()}:
        return
    for name, expected in hashes.items():
        if not (folder / name).is_file():
            yield name, "is missing"
        elif core.hash_file(folder / name) != expected:
            yield name, "was changed or truncated: its hash is not the manifest's"
    try:
        core.read_provenance(folder, str(manifest.get("id")))
    except core.BacktestError as error:
        yield locate_fault(error, folder)
    for inner in f.find_kinds()[kind].inner:
        for account in sorted((folder / inner).iterdir()):
            for name, what in check_folder(account).faults:
                yield f"{inner}/{account.name}/{name}".removesuffix("/."), what
    yield from ((name, "is not part of the result") for name in list_foreign(folder, kind))


def list_foreign(folder: Path, kind: str) -> list[str]:
    saved = f.find_kinds()[kind]
    own = (*saved.files(), *saved.inner, MANIFEST, PROVENANCE, LOCK)
    return sorted(each.name for each in folder.iterdir() if each.name not in own)


# -------------------------------------------------------------------------------------- prune

ID = re.compile(r"[0-9a-f]{16}")


class KeptFolder(NamedTuple):
    name: str
    why: str


def choose_deletions(
    store: Path,
    wanted: f.Filter | None,
    *,
    keep: int = 0,
    with_unfinished: bool = False,
    with_damaged: bool = False,
) -> tuple[list[f.StoreEntry], list[KeptFolder]]:
    """Return the results to delete, and the folders that are not known to be results.

    Without a filter only those that ``with_unfinished`` and ``with_damaged`` name are chosen.
    """
    entries = [each for each in f.list_results(store) if not each.is_busy]
    matches = f.Filter().matches if wanted is None else wanted.matches
    meant = f.sort_entries(
        each for each in entries if matches(each) and not (wanted is None and each.is_finished)
    )
    chosen = [each for each in meant[keep:] if each.is_finished or with_unfinished]
    troubled = [each for each in entries if each.trouble]
    chosen += [each for each in troubled if with_damaged or is_remains(store / each.name)]
    reasons = [(each, find_reason_to_keep(store / each.name)) for each in chosen]
    kept = [KeptFolder(each.name, why) for each, why in reasons if why]
    return [each for each, why in reasons if not why], kept


def delete_chosen(store: Path, chosen: Sequence[f.StoreEntry]) -> tuple[list[str], list[str]]:
    """Return the names of what was deleted, and of what is in use now or cannot be deleted."""
    for entry in chosen:
        folder = store / entry.name
        if not core.is_lock_held(folder / LOCK) and not find_reason_to_keep(folder):
            core.discard_folder(folder)
    left = [each.name for each in chosen if os.path.lexists(store / each.name)]
    return [each.name for each in chosen if each.name not in left], left


def is_remains(folder: Path) -> bool:
    return folder.name.startswith((DRAFT, PRUNED)) and not (folder / REPLACED).exists()


def find_reason_to_keep(folder: Path) -> str:
    """Return why a folder is not known to be a result; only its manifest makes it one."""
    try:
        if folder.is_symlink():
            return "it is a link"
        if f.is_leftover(folder):
            return "" if all(map(is_moved_result, folder.iterdir())) else "it holds other files"
        if f.is_begun(folder) and not any(folder.iterdir()):
            return ""
        kind, manifest = f.open_folder(folder)
        files = {*f.find_kinds()[kind].files()}
        is_known = f.is_begun(folder) or {*manifest.get("files", ())} == files
        if not is_known or not ID.fullmatch(str(manifest.get("id"))):
            return f"its {MANIFEST} does not describe a result"
        foreign = [] if f.is_begun(folder) else list_foreign(folder, kind)
        return f"it holds {foreign[0]!r}, which no result has" if foreign else ""
    except core.BacktestError as error:
        return f.name_fault(error, folder)
    except (OSError, TypeError) as error:
        return f"it cannot be read: {error}"


def is_moved_result(path: Path) -> bool:
    is_result = ID.fullmatch(path.name.rpartition("-")[2]) is not None
    return path.name == LOCK or (path.is_dir() and (is_result or path.name == REPLACED))
