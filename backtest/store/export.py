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
from backtest.store.kinds import STUDY_KIND, open_folder
from backtest.store.verify import verify_folder
from backtest.tune import OUTCOME, STUDY, TRIALS

SUFFIX = ".zip"
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time stamp of every file of an archive, so that equal results give equal bytes."""
LONGEST = 100


def export_result(folder: Path, out: Path, *, with_csv: bool = False) -> Path:
    """Verify a result, write it to an archive or a folder, and return the path.

    Parameters
    ----------
    folder : Path
        The folder of the result.
    out : Path
        ``NAME.zip``, or a folder that gets a subfolder for the result.
    with_csv : bool
        Whether to add its tables as CSV in a second subfolder.
    """
    check = verify_folder(folder)
    if check.faults or check.kind not in (*KINDS, STUDY_KIND):
        name, what = (*check.faults, *check.remarks, (".", "is not a result"))[0]
        raise DataError(
            f"a result must be undamaged to be exported, {name} {what}",
            where=str(folder),
            cure="run it again, or restore the file",
        )
    title = make_file_name(folder.resolve().name)
    with reading_folder(folder):
        contents = dict(sorted(read_contents(folder, title, with_csv=with_csv)))
    if out.suffix.lower() == SUFFIX:
        return write_archive(out, contents)
    return write_folders(out, contents)


def make_file_name(name: str) -> str:
    """Return a name that is a valid file name on any system.

    Examples
    --------
    >>> make_file_name("vol target/../x"), make_file_name("voltarget-0a1b")
    ('vol-target-..-x', 'voltarget-0a1b')
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[:LONGEST] or "result"


def list_files(folder: Path) -> Iterator[str]:
    """Yield the files of a result, by their paths in its folder."""
    kind, _ = open_folder(folder)
    if (folder / PROVENANCE).is_file():
        yield PROVENANCE
    if kind != STUDY_KIND:
        yield from ("manifest.json", *KINDS[kind].files)
        inner = sorted(each for name in KINDS[kind].inner for each in (folder / name).rglob("*"))
        yield from (each.relative_to(folder).as_posix() for each in inner if each.is_file())
        return
    yield STUDY
    if (folder / OUTCOME).is_file():
        yield OUTCOME
    yield from sorted(f"{TRIALS}/{path.name}" for path in (folder / TRIALS).glob("[0-9]*.parquet"))


def read_contents(folder: Path, title: str, *, with_csv: bool) -> Iterator[tuple[str, bytes]]:
    """Yield the path and the bytes of each file of an export."""
    for name in list_files(folder):
        content = (folder / name).read_bytes()
        yield f"{title}/{name}", content
        if with_csv and name.endswith(".parquet"):
            path = f"{title}-csv/{name.removesuffix('.parquet')}.csv"
            yield path, write_csv(content)


def write_csv(content: bytes) -> bytes:
    """Return a Parquet table as CSV, with exact numbers and ISO 8601 times."""
    table = pd.read_parquet(io.BytesIO(content))
    return table.to_csv(index=False, lineterminator="\n").encode()


def write_archive(out: Path, contents: dict[str, bytes]) -> Path:
    """Write files, uncompressed, into an archive that appears whole or not at all."""
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
        raise DataError(
            f"cannot write the archive: {error.strerror or error}",
            where=str(out),
            cure="choose another place, or free some space",
        ) from error
    return out


def write_folders(out: Path, contents: dict[str, bytes]) -> Path:
    """Write the folders of an export, each whole or not at all; return the first."""
    titles = sorted({name.partition("/")[0] for name in contents}, key=len)
    for title in titles:
        if (out / title).exists():
            raise taken_error(out / title)
    for title in titles:
        write = partial(write_contents, title=title, contents=contents)
        save_folder(out, title, write, what="result")
    return out / titles[0]


def write_contents(draft: Path, title: str, contents: dict[str, bytes]) -> None:
    """Write the files of one folder of an export into a draft."""
    for name, content in contents.items():
        top, _, rest = name.partition("/")
        if top == title:
            (draft / rest).parent.mkdir(parents=True, exist_ok=True)
            (draft / rest).write_bytes(content)


def taken_error(path: Path) -> ParameterError:
    """Return the error for a path that already exists."""
    return ParameterError(
        "the target of an export must not exist yet",
        where=str(path),
        cure="delete it, or choose another --out",
    )
