"""The kinds of saved results, and which kind a folder holds."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from backtest.base import DataError, SavedResult, compute_id, read_json_file
from backtest.base.atomic_files import LOCK
from backtest.base.provenance import PROVENANCE
from backtest.base.result_folders import LEFTOVERS, MANIFEST
from backtest.base.saved_result import KINDS
from backtest.engine.run_kinds import RUN

WINGS = ("sweep", "tune", "compare", "risk", "crowd", "validation")


def import_kinds() -> Iterator[type[SavedResult]]:
    for wing in WINGS:
        door = importlib.import_module(f"backtest.{wing}")
        yield from (getattr(door, name) for name in door.RESULTS)


SAVED = tuple(import_kinds())

LEFTOVER, UNKNOWN = "leftover", "unknown"


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


def is_foreign_folder(folder: Path) -> bool:
    names = {MANIFEST, PROVENANCE, LOCK}
    names |= {name for kind in KINDS.values() for name in kind.files}
    is_left = folder.name.startswith(LEFTOVERS)
    return not is_left and not any((folder / name).exists() for name in names)


def open_folder(folder: Path) -> tuple[str, dict[str, Any]]:
    if not (folder / MANIFEST).exists():
        raise DataError(f"{folder}: holds no {MANIFEST}")
    manifest = read_json_object(folder / MANIFEST)
    kind = manifest.get("kind", RUN)
    if not isinstance(kind, str) or kind not in KINDS:
        raise DataError(
            f"{folder / MANIFEST}: must have a known kind, got {kind!r:.40}; read it with the "
            "version that saved it"
        )
    return kind, manifest


def name_fault(error: Exception, folder: Path) -> str:
    text = str(error).partition("\n")[0]  # lists of results have a line for each
    return text.removeprefix(f"{folder}: ").removeprefix(f"{folder}{os.sep}")


def read_json_object(path: Path) -> dict[str, Any]:
    found = read_json_file(path)
    if not isinstance(found, dict):
        raise DataError(f"{path}: must hold a JSON object, got a {type(found).__name__}")
    return found


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
    if not isinstance(hashes, Mapping) or set(hashes) != {*files}:
        yield f"must have the hashes of {', '.join(files)}"
