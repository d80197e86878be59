"""Unfinished validations in a store: their kind, their progress, and their files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from backtest.base import DataError, is_lock_held
from backtest.base.atomic_files import DRAFT_FILE, LOCK
from backtest.base.result_folders import MANIFEST
from backtest.base.saved_result import KINDS
from backtest.store.kinds import open_folder
from backtest.validation import name_result
from backtest.validation.progress_folder import UNFINISHED

FOLD = re.compile(r"schedule-\d{3}/|(schedule-\d{3}/)?fold-\d{5}/(test/)?(trials/)?")
"""Folders of the searches of folds."""
DRAFT = re.compile(rf"{re.escape(DRAFT_FILE)}[0-9a-f]{{32}}")
BATCH = re.compile(r"\d{6,}\.parquet")
CHUNK = re.compile(r"sets-\d{5}\.parquet")


def is_begun(folder: Path) -> bool:
    """Return whether a folder is that of an unfinished validation, by its name."""
    return folder.name.startswith(UNFINISHED)


def can_be_resumed(kind: str) -> bool:
    """Return whether a result of a kind is saved as far as it is, so that it can be resumed."""
    return kind in KINDS and KINDS[kind].read_progress is not None


def open_begun(folder: Path) -> tuple[str, dict[str, Any]]:
    """Return the kind and the manifest of an unfinished validation; its name must be theirs."""
    kind, manifest = open_folder(folder)
    if not can_be_resumed(kind) or folder.resolve().name != name_begun(manifest):
        raise DataError(
            f"{MANIFEST} must describe the validation that the folder is named after",
            where=str(folder),
            cure="restore the name of the folder, or delete it",
        )
    return kind, manifest


def name_begun(manifest: Mapping[str, Any]) -> str:
    """Return the name that the manifest of an unfinished validation gives its folder."""
    try:
        return f"{UNFINISHED}{name_result(manifest)}"
    except (KeyError, TypeError, AttributeError):
        return ""


def describe_progress(folder: Path, kind: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an entry with the progress of an unfinished validation."""
    read = KINDS[kind].read_progress
    note = "" if read is None else read(folder, manifest)
    return {"note": note, "is_busy": is_lock_held(folder / LOCK), "is_finished": False}


def examine_begun(folder: Path) -> tuple[str, set[str]]:
    """Return why a folder is not an unfinished validation (empty if it is), and its files.

    It is one if its manifest names the folder, or if there is nothing in it yet but its lock.
    """
    known = {MANIFEST, LOCK, *list_journal(folder)}
    if not (folder / MANIFEST).is_file():
        is_empty = all(each.name == LOCK or DRAFT.fullmatch(each.name) for each in folder.iterdir())
        return ("" if is_empty else f"it holds no {MANIFEST} that names it"), known
    try:
        open_begun(folder)
    except DataError as error:
        return error.problem, known
    return "", known


def list_journal(folder: Path) -> Iterator[str]:
    """Yield the folders and files below a folder that have names of journals of validations."""
    for place, inner, files in os.walk(folder):
        prefix = Path(place).relative_to(folder).as_posix()
        prefix = "" if prefix == "." else f"{prefix}/"
        yield from (name for each in inner if FOLD.fullmatch(name := f"{prefix}{each}/"))
        for each in files:
            is_batch = prefix.endswith("trials/") and BATCH.fullmatch(each)
            if is_batch or DRAFT.fullmatch(each) or (not prefix and CHUNK.fullmatch(each)):
                yield f"{prefix}{each}"
