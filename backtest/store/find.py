"""Find a saved result by its name or id, load it, and tell unfinished validations."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from backtest.base import DataError, ParameterError, SavedResult, did_you_mean, is_lock_held
from backtest.base.atomic_files import DRAFT_FILE, LOCK
from backtest.base.result_folders import LEFTOVERS, MANIFEST
from backtest.base.saved_result import KINDS
from backtest.engine import Result
from backtest.store.kinds import name_fault, open_folder
from backtest.tune import UNFINISHED
from backtest.validation import name_result

SHORTEST = 4
"""The least number of letters that may abbreviate an id."""
MOST_NAMED = 5
LISTED = (*LEFTOVERS, UNFINISHED)

Saved: TypeAlias = Result | SavedResult


def load_saved(folder: Path) -> Saved:
    if is_begun(folder):
        raise DataError(f"{folder}: must be finished to be loaded; run it again with resume=True")
    kind, _ = open_folder(folder)
    found: Saved = KINDS[kind].load(folder)
    return found


def list_folders(store: Path) -> list[str]:
    try:
        with os.scandir(store) as found:
            names = {each.name for each in found if each.is_dir()}
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(
            f"{store}: cannot read the folder of results: {error.strerror or error}"
        ) from error
    return sorted(name for name in names if name[0] != "." or name.startswith(LISTED))


def find_folder(name: str, store: Path) -> Path:
    folders = list_folders(store)
    if name in folders:
        return store / name
    if name and is_result(Path(name)):
        return Path(name)
    known = [each for each in folders if is_result(store / each)]
    fits = [each for each in known if has_prefix(each, name)]
    fits = fits or [each for each in folders if has_prefix(each, name)]
    if len(fits) == 1:
        return store / fits[0]
    if fits:
        shown = ", ".join(fits[:MOST_NAMED]) + (", ..." if len(fits) > MOST_NAMED else "")
        raise ParameterError(
            f"a name must match one result in {store}, {name!r:.60} matches {len(fits)}: {shown}"
        )
    raise DataError(
        f"no saved result is called {name!r:.60} in {store}{did_you_mean(name, known)}; "
        f"{SHORTEST} or more letters of an id are enough"
    )


def is_result(folder: Path) -> bool:
    is_there = (folder / MANIFEST).is_file()
    return is_there and not folder.name.startswith(".")


def has_prefix(folder: str, name: str) -> bool:
    is_id = len(name) >= SHORTEST and folder.rpartition("-")[2].startswith(name)
    return is_id or (len(name) > 0 and folder.startswith(name))


FOLD = re.compile(r"(fold-\d{5}/(test/)?)?(trials/)?")
DRAFT = re.compile(rf"{re.escape(DRAFT_FILE)}[0-9a-f]{{32}}")
BATCH = re.compile(r"\d{6,}\.parquet")
CHUNK = re.compile(r"sets-\d{5}\.npz")


def is_begun(folder: Path) -> bool:
    return folder.name.startswith(UNFINISHED)


def can_be_resumed(kind: str) -> bool:
    return kind in KINDS and KINDS[kind].read_progress is not None


def open_begun(folder: Path) -> tuple[str, dict[str, Any]]:
    kind, manifest = open_folder(folder)
    if not can_be_resumed(kind) or folder.resolve().name != name_begun(manifest):
        raise DataError(
            f"{folder}: {MANIFEST} must describe the result that the folder is named after"
        )
    return kind, manifest


def name_begun(manifest: Mapping[str, Any]) -> str:
    try:
        return f"{UNFINISHED}{name_result(manifest)}"
    except (KeyError, TypeError, AttributeError):
        return ""


def describe_progress(folder: Path, kind: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    read = KINDS[kind].read_progress
    note = "" if read is None else read(folder, manifest)
    return {"note": note, "is_busy": is_lock_held(folder / LOCK), "is_finished": False}


def examine_begun(folder: Path) -> tuple[str, set[str]]:
    known = {MANIFEST, LOCK, *list_journal(folder)}
    if not (folder / MANIFEST).is_file():
        is_empty = all(each.name == LOCK or DRAFT.fullmatch(each.name) for each in folder.iterdir())
        return ("" if is_empty else f"it holds no {MANIFEST} that names it"), known
    try:
        open_begun(folder)
    except DataError as error:
        return name_fault(error, folder), known
    return "", known


def list_journal(folder: Path) -> Iterator[str]:
    for place, inner, files in os.walk(folder):
        prefix = Path(place).relative_to(folder).as_posix()
        prefix = "" if prefix == "." else f"{prefix}/"
        yield from (name for each in inner if FOLD.fullmatch(name := f"{prefix}{each}/"))
        for each in files:
            is_batch = prefix.endswith("trials/") and BATCH.fullmatch(each)
            if is_batch or DRAFT.fullmatch(each) or (not prefix and CHUNK.fullmatch(each)):
                yield f"{prefix}{each}"
