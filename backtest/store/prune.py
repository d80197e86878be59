"""Delete chosen results, unless they have changed since they were chosen."""

from __future__ import annotations

import os
import re
import shlex
import stat
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from backtest.base import DataError, held_folder
from backtest.base.atomic_files import LOCK, REPLACED
from backtest.base.provenance import PROVENANCE
from backtest.base.result_folders import DRAFT, LEFTOVERS, MANIFEST, OLDER, PRUNED
from backtest.base.saved_result import KINDS
from backtest.engine.run_kinds import RUN
from backtest.store.entry import Stamp, StoreEntry
from backtest.store.find import examine_begun, is_begun
from backtest.store.kinds import hash_manifest, name_fault, name_kind, read_json_object
from backtest.store.listing import QUIET, Filter, list_results, sort_entries, try_stamp
from backtest.validation import ACCOUNTS, TITLE


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
    folder: Path,
    wanted: Filter | None,
    *,
    keep: int = 0,
    with_unfinished: bool = False,
    with_damaged: bool = False,
) -> Deletions:
    stamped = {each.name: try_stamp(each) for each in folder.glob("*") if each.is_dir()}
    entries = [each for each in list_results(folder, use_index=False) if not each.is_busy]
    matches = Filter().matches if wanted is None else wanted.matches
    meant = sort_entries(
        each for each in entries if matches(each) and not (wanted is None and each.is_finished)
    )
    chosen = [each for each in meant[keep:] if each.is_finished or with_unfinished]
    troubled = [each for each in entries if each.trouble]
    chosen += [each for each in troubled if with_damaged or is_remains(folder / each.name)]
    reasons = {each.name: find_reason_to_keep(folder / each.name) for each in chosen}
    return Deletions(
        [Deletion(each, stamped.get(each.name, ())) for each in chosen if not reasons[each.name]],
        [
            KeptFolder(name, why, describe_removal(folder / name))
            for name, why in reasons.items()
            if why and os.path.lexists(folder / name)  # another process may have deleted it
        ],
    )


def delete_chosen(folder: Path, to_delete: Sequence[Deletion]) -> tuple[list[str], list[str]]:
    deleted: list[str] = []
    left: list[str] = []
    for each in to_delete:
        target = folder / each.entry.name
        try:
            is_gone = is_unchanged(target, each.stamp) and delete_folder(target, each.stamp)
        except OSError as error:
            raise DataError(
                f"{target}: cannot delete the result: {error.strerror or error}"
            ) from error
        (deleted if is_gone else left).append(each.entry.name)
    return deleted, left


def is_unchanged(target: Path, stamp: Stamp) -> bool:
    try:
        is_old = time.time_ns() - target.lstat().st_mtime_ns > QUIET
    except OSError:
        return False
    return try_stamp(target) == stamp and (bool(stamp) or is_old)


def delete_folder(target: Path, stamp: Stamp) -> bool:
    if target.is_symlink():
        target.unlink(missing_ok=True)
        return True
    with held_folder(target.parent, PRUNED) as grave:
        moved = grave / target.name
        try:
            target.rename(moved)
        except FileNotFoundError:  # another process has moved or deleted it
            return False
        is_leftover = target.name.startswith(LEFTOVERS)  # checked before it was renamed
        is_same = try_stamp(moved) == stamp
        is_gone = is_same and (is_leftover or not find_reason_to_keep(moved))
        if is_gone:
            delete_files(moved, stamp)
        if not is_gone:
            put_back(moved, target)
    return is_gone


def is_remains(folder: Path) -> bool:
    return folder.name.startswith((DRAFT, PRUNED)) and not (folder / REPLACED).exists()


def put_back(moved: Path, target: Path) -> None:
    try:
        moved.rename(target)
    except OSError:
        kept = moved.parent.name.removeprefix(PRUNED)
        moved.parent.rename(target.with_name(f"{OLDER}{kept}"))


def delete_files(folder: Path, stamp: Stamp) -> None:
    names = sorted((name for name, *_ in stamp), key=lambda name: (name == MANIFEST, name))
    for name in (each for each in names if not each.endswith("/")):
        (folder / name).unlink(missing_ok=True)
    (folder / LOCK).unlink(missing_ok=True)
    for name in sorted((each for each in names if each.endswith("/")), reverse=True):
        with suppress(OSError):  # a file was added in this moment: it stays
            (folder / name).rmdir()
    with suppress(OSError):
        folder.rmdir()


def count_kinds(entries: Sequence[StoreEntry]) -> str:
    counts = Counter(each.kind for each in entries)
    return ", ".join(f"{n:,} {name_kind(kind, n)}" for kind, n in counts.items()) or "none"


ID = re.compile(r"[0-9a-f]{16}")
HASH = re.compile(r"[0-9a-f]{64}")
FILE = re.compile(r"[a-z_]+\.(parquet|json)")
PARTS = (REPLACED, ACCOUNTS)
LISTED = 3


def find_reason_to_keep(folder: Path) -> str:
    try:
        if os.path.ismount(folder):
            return "it is a mount"
        if folder.name.startswith(DRAFT):
            return examine_draft(folder)
        if is_begun(folder):
            return examine_unfinished(folder)
        if folder.name[0] == "." and not folder.is_symlink():
            return examine_deleted(folder)
        return examine_result(folder)
    except DataError as error:
        return name_fault(error, folder)
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"


def examine_draft(folder: Path) -> str:
    files = {LOCK, MANIFEST, PROVENANCE, *(name for of in KINDS.values() for name in of.files)}
    known = set()
    for place, inner, names in os.walk(folder):
        prefix = f"{Path(place).relative_to(folder).as_posix()}/".removeprefix("./")
        known |= {f"{prefix}{each}/" for each in inner if is_part_of_draft(each)}
        known |= {f"{prefix}{each}" for each in names if each in files}
    return name_foreign_files(folder, known)


def is_part_of_draft(name: str) -> bool:
    is_result = ID.fullmatch(name.rpartition("-")[2]) is not None
    return is_result or name.startswith(DRAFT) or is_account(name)


def examine_deleted(folder: Path) -> str:
    inside = [each for each in folder.iterdir() if each.name != LOCK]
    if len(inside) > 1 or any(each.is_symlink() or not each.is_dir() for each in inside):
        return "it holds more than the result that was to be deleted"
    if not inside or not any(inside[0].iterdir()):
        return ""
    return examine_unfinished(inside[0]) if is_begun(inside[0]) else examine_result(inside[0])


def examine_unfinished(folder: Path) -> str:
    why, known = examine_begun(folder)
    return why or name_foreign_files(folder, known)


def examine_result(folder: Path) -> str:
    if not (folder / MANIFEST).is_file():
        return f"it holds no {MANIFEST} with an id"
    facts = read_json_object(folder / MANIFEST)
    kind = facts.get("kind", RUN)
    if not isinstance(kind, str) or kind not in KINDS or not is_sealed(facts):
        return f"its {MANIFEST} does not describe a result"
    if not has_id_in_name(folder, facts["id"]) and not has_valid_id(facts, kind):
        return (
            f"its {MANIFEST} has an id that matches neither its content nor the name of the folder"
        )
    inner = list_inner_files(folder, KINDS[kind].inner)
    return name_foreign_files(folder, {MANIFEST, PROVENANCE, *facts["files"], *inner})


def is_account(name: str) -> bool:
    plain = name.lstrip(".")
    return plain in PARTS or TITLE.fullmatch(plain) is not None


def list_inner_files(folder: Path, inner: Iterable[str]) -> Iterator[str]:
    files = {name for kind in KINDS.values() if kind.is_run for name in kind.files}
    for path in (each for place in inner for each in (folder / place).glob("*")):
        place, title = path.parent.name, path.name
        yield f"{place}/"
        if TITLE.fullmatch(title) is None:
            continue
        yield f"{place}/{title}/"
        yield from (f"{place}/{title}/{name}" for name in (MANIFEST, PROVENANCE, *files))


def has_id(facts: Mapping[str, Any]) -> bool:
    identity, format_ = facts.get("id"), facts.get("format")
    return isinstance(identity, str) and ID.fullmatch(identity) is not None and type(format_) is int


def is_sealed(facts: Mapping[str, Any]) -> bool:
    files = facts.get("files")
    return (
        has_id(facts)
        and isinstance(files, Mapping)
        and bool(files)
        and all(FILE.fullmatch(name) and HASH.fullmatch(str(files[name])) for name in files)
    )


def has_id_in_name(folder: Path, identity: str) -> bool:
    return folder.name.endswith(f"-{identity}") or folder.resolve().name.endswith(f"-{identity}")


def has_valid_id(facts: Mapping[str, Any], kind: str) -> bool:
    try:
        return bool(hash_manifest(facts, kind) == facts["id"])
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return False


def name_foreign_files(folder: Path, known: set[str]) -> str:
    device = folder.stat().st_dev
    found = [name for name in find_foreign_files(folder, "", known, device) if name not in known]
    more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
    named = ", ".join(map(repr, sorted(found)[:LISTED]))
    return f"it holds {named}{more}, which no result has" if found else ""


def find_foreign_files(folder: Path, prefix: str, known: set[str], device: int) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for each in entries:
            facts = each.stat(follow_symlinks=False)
            name = f"{prefix}{each.name}"
            if stat.S_ISDIR(facts.st_mode) and f"{name}/" in known and facts.st_dev == device:
                yield from find_foreign_files(Path(each.path), f"{name}/", known, device)
            elif not stat.S_ISREG(facts.st_mode):
                yield f"{name}/" if stat.S_ISDIR(facts.st_mode) else f"{name} (not a plain file)"
            elif name not in known:
                yield name


def describe_removal(folder: Path) -> str:
    return f"rm -r {shlex.quote(str(folder))}"
