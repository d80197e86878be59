"""Export a saved result as a reproducible ZIP archive, or into a folder."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pandas as pd

from backtest.base import DataError, ParameterError, reading_folder, save_folder, write_file
from backtest.base.provenance import PROVENANCE
from backtest.base.saved_result import KINDS
from backtest.store.kinds import open_folder
from backtest.store.verify import verify_folder

SUFFIX = ".zip"
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time stamp of every file of an archive, so that equal results give equal bytes."""
LONGEST = 100


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
    kind, _ = open_folder(folder)
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
