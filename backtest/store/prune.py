"""Delete chosen results: folders with a readable manifest that hold files of results only."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from backtest.base import DataError, held_folder
from backtest.base.atomic_files import DRAFT_FILE, LOCK, REPLACED
from backtest.base.provenance import PROVENANCE
from backtest.base.result_folders import DRAFT, LEFTOVERS, MANIFEST, OLDER, PRUNED
from backtest.base.saved_result import KINDS
from backtest.store import folders as f
from backtest.store.listing import Filter, StoreEntry, list_results, sort_entries
from backtest.validation import ACCOUNTS, TITLE

ID = re.compile(r"[0-9a-f]{16}")
FOLDER = re.compile(rf"fold-\d{{5}}|test|trials|{REPLACED}|{ACCOUNTS}|{TITLE.pattern}")
FILE = re.compile(rf"{re.escape(DRAFT_FILE)}[0-9a-f]{{32}}|\d{{6,}}\.parquet|sets-\d{{5}}\.npz")
LISTED = 3
QUIET = 2_000_000_000
"""Nanoseconds for which an empty draft counts as one that another process has just begun."""

Stamp: TypeAlias = tuple[tuple[str, int, int, int], ...]


class Deletion(NamedTuple):
    entry: StoreEntry
    stamp: Stamp


class KeptFolder(NamedTuple):
    name: str
    why: str
    by_hand: str


class Deletions(NamedTuple):
    to_delete: list[Deletion]
    kept: list[KeptFolder]


def choose_deletions(
    store: Path,
    wanted: Filter | None,
    *,
    keep: int = 0,
    with_unfinished: bool = False,
    with_damaged: bool = False,
) -> Deletions:
    entries = [each for each in list_results(store) if not each.is_busy]
    matches = Filter().matches if wanted is None else wanted.matches
    meant = sort_entries(
        each for each in entries if matches(each) and not (wanted is None and each.is_finished)
    )
    chosen = [each for each in meant[keep:] if each.is_finished or with_unfinished]
    troubled = [each for each in entries if each.trouble]
    chosen += [each for each in troubled if with_damaged or is_remains(store / each.name)]
    to_delete, kept = [], []
    for each in chosen:
        folder = store / each.name
        stamp = take_stamp(folder)
        if why := find_reason_to_keep(folder):
            kept.append(KeptFolder(each.name, why, f"rm -r {shlex.quote(str(folder))}"))
        else:
            to_delete.append(Deletion(each, stamp))
    # another process may have deleted some meanwhile
    return Deletions(to_delete, [each for each in kept if os.path.lexists(store / each.name)])


def delete_chosen(store: Path, to_delete: Sequence[Deletion]) -> tuple[list[str], list[str]]:
    deleted: list[str] = []
    left: list[str] = []
    for entry, stamp in to_delete:
        folder = store / entry.name
        try:
            is_gone = delete_folder(folder, stamp)
        except OSError as error:
            raise DataError(
                f"{folder}: cannot delete the result: {error.strerror or error}"
            ) from error
        (deleted if is_gone else left).append(entry.name)
    return deleted, left


def delete_folder(folder: Path, stamp: Stamp) -> bool:
    """Move a folder aside and delete it there, if it still is what was chosen."""
    is_young = not stamp and time.time_ns() - folder.lstat().st_mtime_ns < QUIET
    if is_young or take_stamp(folder) != stamp:
        return False
    with held_folder(folder.parent, PRUNED) as grave:
        moved = grave / folder.name
        try:
            folder.rename(moved)
        except FileNotFoundError:  # another process has moved or deleted it
            return False
        if take_stamp(moved) == stamp and not find_reason_to_keep(moved):
            shutil.rmtree(moved)
            return True
        try:
            moved.rename(folder)
        except OSError:  # its name was taken meanwhile: it stays as the older one
            grave.rename(folder.with_name(f"{OLDER}{grave.name.removeprefix(PRUNED)}"))
    return False


def is_remains(folder: Path) -> bool:
    return folder.name.startswith((DRAFT, PRUNED)) and not (folder / REPLACED).exists()


def take_stamp(folder: Path) -> Stamp:
    return tuple(sorted((name, facts.st_size, facts.st_mtime_ns, facts.st_ino)
                        for name, facts in scan(folder) if name != LOCK))  # fmt: skip


def scan(folder: Path, prefix: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Yield what a folder holds at any depth; links are not followed."""
    try:
        found = sorted(folder.iterdir())
    except OSError:
        return
    for each in found:
        try:
            facts = each.lstat()
        except FileNotFoundError:
            continue
        yield f"{prefix}{each.name}", facts
        if stat.S_ISDIR(facts.st_mode):
            yield from scan(each, f"{prefix}{each.name}/")


def find_reason_to_keep(folder: Path) -> str:
    try:
        if folder.is_symlink():
            return "it is a link"
        if os.path.ismount(folder):
            return "it is a mount"
        held = [(name, facts) for name, facts in scan(folder) if name != LOCK]
        if f.is_leftover(folder):
            return name_foreign([each for each in held if not is_part_of_leftover(*each)])
        is_empty = all(FILE.fullmatch(name) for name, _ in held)
        if not (f.is_begun(folder) and is_empty):
            check_manifest(folder)
        return name_foreign([each for each in held if not is_part(*each)])
    except DataError as error:
        return f.name_fault(error, folder)
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"


def check_manifest(folder: Path) -> None:
    kind, manifest = f.open_folder(folder)
    identity, files = manifest.get("id"), manifest.get("files")
    has_id = isinstance(identity, str) and ID.fullmatch(identity) is not None
    has_files = isinstance(files, dict) and {*files} == {*KINDS[kind].files}
    if not has_id or not (has_files or f.is_begun(folder)):
        raise DataError(f"{folder}: its {MANIFEST} does not describe a result")


def is_part(name: str, facts: os.stat_result) -> bool:
    """Whether results have a file or folder of this name."""
    *folders, last = name.split("/")
    if not all(map(is_inner_folder, folders)):
        return False
    if stat.S_ISDIR(facts.st_mode):
        return is_inner_folder(last)
    known = {LOCK, MANIFEST, PROVENANCE, *(each for of in KINDS.values() for each in of.files)}
    return stat.S_ISREG(facts.st_mode) and (last in known or FILE.fullmatch(last) is not None)


def is_inner_folder(name: str) -> bool:
    return name.startswith(DRAFT) or FOLDER.fullmatch(name.lstrip(".")) is not None


def is_part_of_leftover(name: str, facts: os.stat_result) -> bool:
    """Whether it is in a result that was being written, replaced or deleted, or that result."""
    first, *_ = parts = name.split("/")
    rest = "/".join(each for each in parts if not is_moved_folder(each))
    if not rest:
        return stat.S_ISDIR(facts.st_mode)
    return is_moved_folder(first) and is_part(rest, facts)


def is_moved_folder(name: str) -> bool:
    is_result = ID.fullmatch(name.rpartition("-")[2]) is not None
    return is_result or name == REPLACED or name.startswith(LEFTOVERS)


def name_foreign(found: Sequence[tuple[str, os.stat_result]]) -> str:
    names = [f"{name}/" if stat.S_ISDIR(facts.st_mode) else name for name, facts in found]
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    shown = ", ".join(map(repr, sorted(names)[:LISTED]))
    return f"it holds {shown}{more}, which no result has" if names else ""
