"""Verify saved results, every file, hash and id, and export them as archives or folders."""

from __future__ import annotations

import io
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from backtest.base import (
    BacktestError,
    DataError,
    ParameterError,
    hash_file,
    read_provenance,
    reading_folder,
    save_folder,
    write_file,
)
from backtest.base.atomic_files import LOCK
from backtest.base.provenance import PROVENANCE
from backtest.base.result_folders import MANIFEST
from backtest.base.saved_result import KINDS
from backtest.store import folders as f
from backtest.store.listing import read_entry

SUFFIX = ".zip"
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time stamp of every file of an archive, so that equal results give equal bytes."""
LONGEST = 100


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
    check = try_check(folder)
    return try_check(folder) if check.faults else check  # another process may have replaced it


def try_check(folder: Path) -> FolderCheck:
    try:
        return check_folder(folder)
    except OSError as error:
        what = f"cannot be read: {error.strerror or error}"
        return FolderCheck(folder.name, f.UNKNOWN, 0, ((".", what),))


def check_folder(folder: Path) -> FolderCheck:
    name = folder.name
    if f.is_leftover(folder) or f.is_begun(folder):
        begun = read_entry(folder)
        note = begun.trouble or "is not finished: continue it with its command and --resume"
        return FolderCheck(name, begun.kind, 0, (), ((".", note),))
    if f.is_foreign(folder):
        note = "is not a result: it holds no file of one"
        return FolderCheck(name, f.UNKNOWN, 0, (), ((".", note),))
    kind, files, remarks = f.UNKNOWN, 0, []
    try:
        kind, manifest = f.open_folder(folder)
        files = sum(each.is_file() and each.name != LOCK for each in folder.rglob("*"))
        faults = list(dict.fromkeys(find_faults(folder, kind, manifest)))
        faults = faults or list(find_load_faults(folder))
        if not (folder / PROVENANCE).is_file():
            remarks = [(PROVENANCE, "is missing: the code that made the result is not known")]
    except BacktestError as error:
        faults = [locate_fault(error, folder)]
    except Exception as error:  # a damaged file may raise anything
        faults = [(MANIFEST, f"cannot be read: {type(error).__name__}: {error}")]
    return FolderCheck(name, kind, files, tuple(faults), tuple(remarks))


def locate_fault(error: BacktestError, folder: Path) -> tuple[str, str]:
    text = f.name_fault(error, folder)
    name, colon, what = text.partition(": ")
    is_of_file = bool(colon) and str(error).startswith(f"{folder}{os.sep}")
    return (name, what) if is_of_file else (".", text)


def find_faults(folder: Path, kind: str, manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from ((MANIFEST, each) for each in f.find_manifest_faults(manifest, kind))
    files = KINDS[kind].files
    hashes = manifest.get("files")
    if not isinstance(hashes, Mapping) or {*hashes} != {*files}:
        return
    yield from compare_hashes(folder, hashes)
    try:
        read_provenance(folder, str(manifest.get("id")))
    except BacktestError as error:
        yield locate_fault(error, folder)
    for inner in KINDS[kind].inner:
        for account in sorted((folder / inner).iterdir()):
            for name, what in check_folder(account).faults:
                yield f"{inner}/{account.name}/{name}".removesuffix("/."), what
    for each in sorted(folder.iterdir()):
        if each.name not in (*files, *KINDS[kind].inner, MANIFEST, PROVENANCE):
            yield each.name, "is not part of the result"


def compare_hashes(folder: Path, hashes: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, expected in hashes.items():
        if not (folder / name).is_file():
            yield name, "is missing"
        elif hash_file(folder / name) != expected:
            yield name, "was changed or truncated: its hash is not the manifest's"


def find_load_faults(folder: Path) -> Iterator[tuple[str, str]]:
    try:
        f.load_saved(folder)
    except BacktestError as error:
        yield locate_fault(error, folder)
    except Exception as error:  # as above
        yield ".", f"cannot be loaded: {type(error).__name__}: {error}"


# ------------------------------------------------------------------------------------- export


def export_result(folder: Path, out: Path, *, with_csv: bool = False) -> Path:
    check = verify_folder(folder)
    if check.faults or check.kind not in KINDS:
        name, what = (*check.faults, *check.remarks, (".", "is not a result"))[0]
        raise DataError(f"{folder}: must be undamaged to be exported, {name} {what}")
    title = make_file_name(folder.resolve().name)
    with reading_folder(folder):
        contents = dict(sorted(read_contents(folder, title, with_csv=with_csv)))
    if out.suffix.lower() == SUFFIX:
        return write_archive(out, contents)
    return write_folders(out, contents)


def make_file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[:LONGEST] or "result"


def list_files(folder: Path) -> Iterator[str]:
    kind, _ = f.open_folder(folder)
    if (folder / PROVENANCE).is_file():
        yield PROVENANCE
    yield from ("manifest.json", *KINDS[kind].files)
    inner = sorted(each for name in KINDS[kind].inner for each in (folder / name).rglob("*"))
    yield from (each.relative_to(folder).as_posix() for each in inner if each.is_file())


def read_contents(folder: Path, title: str, *, with_csv: bool) -> Iterator[tuple[str, bytes]]:
    for name in list_files(folder):
        content = (folder / name).read_bytes()
        yield f"{title}/{name}", content
        if with_csv and name.endswith(".parquet"):
            path = f"{title}-csv/{name.removesuffix('.parquet')}.csv"
            yield path, write_csv(content)


def write_csv(content: bytes) -> bytes:
    table = pd.read_parquet(io.BytesIO(content))
    return table.to_csv(index=False, lineterminator="\n").encode()


def write_archive(out: Path, contents: dict[str, bytes]) -> Path:
    if out.exists():
        raise taken_error(out)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in contents.items():
            info = zipfile.ZipInfo(name, EPOCH)
            info.create_system, info.external_attr = 3, 0o100644 << 16
            archive.writestr(info, content)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_file(out, buffer.getvalue())
    except OSError as error:
        raise DataError(f"{out}: cannot write the archive: {error.strerror or error}") from error
    return out


def write_folders(out: Path, contents: dict[str, bytes]) -> Path:
    titles = sorted({name.partition("/")[0] for name in contents}, key=len)
    for title in titles:
        if (out / title).exists():
            raise taken_error(out / title)
    for title in titles:
        write = partial(write_contents, title=title, contents=contents)
        save_folder(out, title, write, what="result")
    return out / titles[0]


def write_contents(draft: Path, title: str, contents: dict[str, bytes]) -> None:
    for name, content in contents.items():
        top, _, rest = name.partition("/")
        if top == title:
            (draft / rest).parent.mkdir(parents=True, exist_ok=True)
            (draft / rest).write_bytes(content)


def taken_error(path: Path) -> ParameterError:
    return ParameterError(f"{path}: the target of an export must not exist yet")
