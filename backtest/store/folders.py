"""The folders of a store: which kind of result each holds, whether it is finished, its name."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from backtest.base import (
    DataError,
    ParameterError,
    SavedResult,
    compute_id,
    did_you_mean,
    read_json_file,
)
from backtest.base.atomic_files import LOCK
from backtest.base.provenance import PROVENANCE
from backtest.base.result_folders import LEFTOVERS, MANIFEST
from backtest.base.saved_result import KINDS
from backtest.engine import Result
from backtest.engine.result import RUN
from backtest.tune import UNFINISHED
from backtest.validation import name_result

WINGS = ("sweep", "tune", "compare", "risk", "crowd", "validation")
SHORTEST = 4
"""The least number of letters that may abbreviate an id."""
MOST_NAMED = 5
LEFTOVER, UNKNOWN = "leftover", "unknown"
Saved: TypeAlias = Result | SavedResult


def import_kinds() -> Iterator[type[SavedResult]]:
    for wing in WINGS:
        door = importlib.import_module(f"backtest.{wing}")
        yield from (getattr(door, name) for name in door.RESULTS)


SAVED = tuple(import_kinds())


def list_kinds() -> tuple[str, ...]:
    return tuple(dict.fromkeys((RUN, *(each.kind for each in SAVED), *KINDS)))


def is_run(kind: str) -> bool:
    return kind in KINDS and KINDS[kind].is_run


def name_kind(kind: str, n: int) -> str:
    if n == 1:
        return kind
    if kind in KINDS:
        return KINDS[kind].plural
    return f"{LEFTOVER}s" if kind == LEFTOVER else kind


def is_leftover(folder: Path) -> bool:
    return folder.name.startswith(LEFTOVERS)


def is_begun(folder: Path) -> bool:
    return folder.name.startswith(UNFINISHED)


def is_foreign(folder: Path) -> bool:
    names = {MANIFEST, PROVENANCE, LOCK, *(name for of in KINDS.values() for name in of.files)}
    return not any((folder / name).exists() for name in names)


# ---------------------------------------------------------------------------------- one folder


def open_folder(folder: Path) -> tuple[str, dict[str, Any]]:
    path = folder / MANIFEST
    if not path.exists():
        raise DataError(f"{folder}: holds no {MANIFEST}")
    manifest = read_json_file(path)
    if not isinstance(manifest, dict):
        raise DataError(f"{path}: must hold a JSON object, got a {type(manifest).__name__}")
    kind = manifest.get("kind", RUN)
    if not isinstance(kind, str) or kind not in KINDS:
        raise DataError(
            f"{path}: must have a known kind, got {kind!r:.40}; read it with the "
            "version that saved it"
        )
    if is_begun(folder) and folder.resolve().name != name_begun(kind, manifest):
        raise DataError(
            f"{folder}: {MANIFEST} must describe the result that the folder is named after"
        )
    return kind, manifest


def name_begun(kind: str, manifest: Mapping[str, Any]) -> str:
    try:
        return f"{UNFINISHED}{name_result(manifest)}" if KINDS[kind].read_progress else ""
    except (KeyError, TypeError, AttributeError):
        return ""


def load_saved(folder: Path) -> Saved:
    if is_begun(folder):
        raise DataError(f"{folder}: must be finished to be loaded; run it again with resume=True")
    kind, _ = open_folder(folder)
    found: Saved = KINDS[kind].load(folder)
    return found


def name_fault(error: Exception, folder: Path) -> str:
    text = str(error).partition("\n")[0]  # lists of results have a line for each
    return text.removeprefix(f"{folder}: ").removeprefix(f"{folder}{os.sep}")


def hash_manifest(manifest: Mapping[str, Any], kind: str) -> str:
    aside = ("format", "files", "id", *KINDS[kind].aside)
    return compute_id({name: value for name, value in manifest.items() if name not in aside})


def find_manifest_faults(manifest: Mapping[str, Any], kind: str) -> Iterator[str]:
    layout, files = KINDS[kind].layout, KINDS[kind].files
    if manifest.get("format") != layout:
        yield f"is of format {manifest.get('format')!r:.40}, not {layout}"
        return
    if manifest.get("id") != hash_manifest(manifest, kind):
        yield "was changed: its id does not match its content"
    hashes = manifest.get("files")
    if not isinstance(hashes, Mapping) or {*hashes} != {*files}:
        yield f"must have the hashes of {', '.join(files)}"


# ------------------------------------------------------------------------------------ by name


def list_folders(store: Path) -> list[str]:
    try:
        names = [each.name for each in store.iterdir() if each.is_dir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(
            f"{store}: cannot read the folder of results: {error.strerror or error}"
        ) from error
    listed = (*LEFTOVERS, UNFINISHED)
    return sorted(name for name in names if name[0] != "." or name.startswith(listed))


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
    return (folder / MANIFEST).is_file() and not folder.name.startswith(".")


def has_prefix(folder: str, name: str) -> bool:
    is_id = len(name) >= SHORTEST and folder.rpartition("-")[2].startswith(name)
    return is_id or (len(name) > 0 and folder.startswith(name))
