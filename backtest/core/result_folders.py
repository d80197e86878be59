"""Folders of saved results: their names, their manifests, and what is damaged in them."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from backtest.core.atomic_files import held_folder
from backtest.core.errors import DataError
from backtest.core.json_values import read_json_file, to_plain

MANIFEST = "manifest.json"
DRAFT = ".saving-"
PRUNED = ".pruned-"
LEFTOVERS = (DRAFT, PRUNED)
UNFINISHED = ".unfinished-"


def discard_folder(folder: Path) -> None:
    """Delete the folder of a saved result: moved away first, and its manifest last."""
    with suppress(OSError), held_folder(folder.parent, PRUNED) as grave:
        moved = folder.rename(grave / folder.name)

        for entry in moved.iterdir():
            if entry.is_symlink():
                entry.unlink()  # and never what it leads to
            elif entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != MANIFEST:
                entry.unlink()
        shutil.rmtree(moved)


def name_folder(title: str, identity: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    return f"{words}-{identity}"


def read_manifest(folder: Path, saved: Any) -> dict[str, Any]:
    """Return the manifest of a saved result; raise DataError if anything of it is damaged.

    ``saved`` is the class of the result, a ``SavedResult``.
    """
    path = folder / MANIFEST
    noun = saved.noun
    if not path.is_file():
        raise DataError(f"{folder}: must be the folder of a saved {noun}, {MANIFEST} is missing")

    manifest = read_json_file(path)
    if not isinstance(manifest, dict):
        manifest = {}
    kind = noun
    if "format" in manifest:
        kind = manifest.get("kind", "result")
    if kind != noun:
        raise DataError(f"{folder}: must be the folder of a saved {noun}, got a {kind!s:.40}")

    for name, fault in find_faults(folder, manifest, saved):
        raise damage_error(folder / name, fault)
    return manifest


def find_faults(
    folder: Path, manifest: Mapping[str, Any], saved: Any, *, with_hashes: bool = True
) -> Iterator[tuple[str, str]]:
    """Yield the files of a saved result that are damaged, and what is wrong with each."""
    files = saved.files()
    if manifest.get("format") != saved.layout:
        yield MANIFEST, f"is of format {manifest.get('format')!r:.40}, not {saved.layout}"
        return
    if manifest.get(SEAL) != hash_manifest(manifest):
        yield MANIFEST, "was changed: its sha256 does not match its content"

    hashes = manifest.get("files")
    if not isinstance(hashes, Mapping) or {*hashes} != {*files}:
        yield MANIFEST, f"must have the hashes of {', '.join(files)}"
        return

    for name, expected in hashes.items():
        if not (folder / name).is_file():
            yield name, "is missing"
        elif with_hashes and hash_file(folder / name) != expected:
            yield name, "was changed or truncated: its hash is not the manifest's"


def hash_manifest(manifest: Mapping[str, Any]) -> str:
    """Return the SHA-256 of all that a manifest says, against accident, not forgery."""
    content = {name: value for name, value in manifest.items() if name != SEAL}
    text = json.dumps(to_plain(content), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


CURE = "run the experiment again, or restore the file"


def damage_error(path: Path, fault: str) -> DataError:
    return DataError(f"{path}: {fault}; {CURE}")


SEAL = "sha256"
NOT_SAID = ("format", "files", SEAL)
"""Keys of a saved manifest that the result itself does not have."""


def name_result(manifest: Mapping[str, Any]) -> str:
    return name_folder(f"{manifest['policy']['name']} {manifest['kind']}", manifest["id"])
