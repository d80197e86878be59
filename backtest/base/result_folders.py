"""Save and load folders of results, with a manifest that holds the hash of every file."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from backtest.base.atomic_files import held_folder, replace_folder, temporary_folder
from backtest.base.errors import DataError
from backtest.base.json_values import parse_json, read_small, to_plain

MANIFEST = "manifest.json"
DRAFT, OLDER, PRUNED = LEFTOVERS = (".saving-", ".older-", ".pruned-")
ROUNDING = 1e-9
"""Difference of two numbers, relative or absolute, by which processors of other models differ."""


def save_folder(folder: Path, name: str, write: Callable[[Path], None], *, what: str) -> Path:
    target = folder / name
    try:
        with temporary_folder(folder, DRAFT) as temporary:
            draft = temporary / name
            draft.mkdir()
            write(draft)
            replace_folder(draft, target, OLDER)
    except OSError as error:
        raise DataError(f"{target}: cannot write the {what}: {error.strerror or error}") from error
    return target


def discard_folder(folder: Path) -> None:
    with suppress(OSError), held_folder(folder.parent, PRUNED) as grave:
        moved = folder.rename(grave / folder.name)
        for each in moved.iterdir():
            if each.is_dir():
                shutil.rmtree(each)
            elif each.name != MANIFEST:
                each.unlink()
        shutil.rmtree(moved)


def explain_other_metrics(saved: Path, metrics: Mapping[str, float | None]) -> str:
    try:
        before = read_json_file(saved)
    except DataError:
        return ""
    names = before.keys() & metrics.keys() if isinstance(before, dict) else ()
    moved = sorted(name for name in names if not is_rounded(before[name], metrics[name]))
    if not moved:
        return ""
    first = "total_return" if "total_return" in moved else moved[0]
    return (
        f"the same experiment gave other numbers before: {first} was {before[first]}, is now "
        f"{metrics[first]}; this result replaces the saved one. A policy that uses random numbers, "
        "a clock or other files is not repeatable (backtest check tests it); or the code of the "
        "backtester changed"
    )


def is_rounded(one: object, other: object) -> bool:
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=ROUNDING, abs_tol=ROUNDING)
    return one == other


def name_folder(title: str, identity: str) -> str:
    return f"{re.sub(r'[^a-z0-9]+', '-', title.lower()).strip('-')}-{identity}"


def write_folder_manifest(
    folder: Path, manifest: Mapping[str, Any], files: Sequence[str], format_: int
) -> None:
    hashes = {name: hash_file(folder / name) for name in files}
    write_json_file({"format": format_, **manifest, "files": hashes}, folder / MANIFEST)


def read_manifest(folder: Path, files: Sequence[str], format_: int, *, what: str) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError(f"{folder}: must be the folder of a saved {what}, {MANIFEST} is missing")
    manifest = read_json_file(path)
    if not isinstance(manifest, dict):
        manifest = {}
    kind = manifest.get("kind", "result") if "format" in manifest else what
    if kind != what:
        raise DataError(f"{folder}: must be the folder of a saved {what}, got a {kind!s:.40}")
    if manifest.get("format") != format_:
        raise DataError(
            f"{path}: format must be {format_}, got {manifest.get('format')!r}; "
            "load it with the version that saved it"
        )
    for name in files:
        expected = manifest.get("files", {}).get(name)
        found = hash_file(folder / name) if (folder / name).is_file() else "missing"
        if found != expected:
            is_gone = found == "missing"
            fault = "is missing" if is_gone else "was changed or truncated after saving"
            raise damage_error(folder / name, fault)
    return manifest


@contextmanager
def reading_folder(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror or error}") from error


def write_parquet(table: pd.DataFrame, path: Path) -> None:
    pq.write_table(pa.Table.from_pandas(table), path, compression="zstd")


def write_json_file(data: Mapping[str, Any], path: Path) -> None:
    text = json.dumps(to_plain(data), indent=1, allow_nan=False, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_json_file(path: Path) -> Any:
    try:
        return parse_json(read_small(path), path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damage_error(path: Path, fault: str) -> DataError:
    return DataError(f"{path}: {fault}; run the experiment again, or restore the file")
