"""One table in a zip or gzip file, unpacked in memory and under limits; nothing is extracted."""

from __future__ import annotations

import gzip
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from backtest.market.tables.defects import Defect

LARGEST = 1 << 30
"""Bytes that one file may unpack to, or hold where it is not packed."""

RATIO = 200
"""How many times its packed size a file may unpack to, over ``SMALL``; prices reach about 20."""

SMALL = 16 << 20
"""Bytes below which the ratio does not count."""

MOST_ENTRIES = 1000

_CHUNK = 1 << 20
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, ValueError,
           RuntimeError)  # fmt: skip
_AGAIN = "download it again; it may be cut short"
_TRUSTED = "do not trust it: get the file from its source again, or unpack it yourself and look"


class Content(NamedTuple):
    """The bytes of a table and the name they go by."""

    name: str
    data: bytes


def read_bytes(path: Path) -> Content | Defect:
    """Return the content of a file that is not packed."""
    if path.stat().st_size > LARGEST:
        return _too_large(path.stat().st_size, str(path))
    return Content(path.name, path.read_bytes())


def unpack_gzip(path: Path) -> Content | Defect:
    """Return what a gzip file holds, under the name without its last ending."""
    try:
        with gzip.open(path) as stream:
            found = _take(stream, path.stat().st_size, str(path))
    except _BROKEN as error:
        return _broken(path, error)
    return found if isinstance(found, Defect) else Content(path.name[: -len(".gz")], found)


def unpack_zip(path: Path) -> Content | Defect:
    """Return the one file that a zip archive holds.

    Archives with several files, links, passwords, archives inside or names that lead out of a
    folder are refused, although nothing is ever written.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entry = _only_entry(archive, path)
            if isinstance(entry, Defect):
                return entry
            with archive.open(entry) as stream:
                found = _take(stream, entry.compress_size, f"{path}: {entry.filename[:80]}")
    except _BROKEN as error:
        return _broken(path, error)
    return found if isinstance(found, Defect) else Content(entry.filename, found)


def _only_entry(archive: zipfile.ZipFile, path: Path) -> zipfile.ZipInfo | Defect:
    entries = archive.infolist()
    if len(entries) > MOST_ENTRIES:
        return _refuse_entry(path, f"has {len(entries)} entries", "must hold one table")
    for entry in entries:
        wrong = _wrong_with(entry)
        if wrong:
            return _refuse_entry(path, f"{entry.filename[:80]!r} {wrong}", "must hold a plain file")
    files = [entry for entry in entries if not entry.is_dir()]
    if len(files) != 1:
        names = ", ".join(entry.filename[:40] for entry in files[:4]) or "nothing"
        return Defect(
            "an archive must hold one table",
            f"found {len(files)}: {names}",
            str(path),
            "unpack it and give the files one by one",
        )
    return files[0]


def _wrong_with(entry: zipfile.ZipInfo) -> str:
    """Return why an entry is refused, an empty text where it is not."""
    name = entry.filename
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if ".." in parts or name.startswith(("/", "\\")) or ":" in name:
        return "leads out of its folder"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "is a link"
    if entry.flag_bits & 1:
        return "needs a password"
    if name.lower().endswith((".zip", ".gz", ".7z", ".tar", ".bz2", ".xz")):
        return "is an archive itself"
    return ""


def _take(stream: IO[bytes] | gzip.GzipFile, packed: int, where: str) -> bytes | Defect:
    """Return all that a stream yields, or refuse it as soon as it is too much."""
    chunks: list[bytes] = []
    size = 0
    while chunk := stream.read(_CHUNK):
        chunks.append(chunk)
        size += len(chunk)
        if size > LARGEST:
            return _too_large(size, where)
        if size > SMALL and size > RATIO * packed:
            return Defect(
                f"a packed file must unpack to at most {RATIO} times its size",
                f"went over {size >> 20} MiB from {packed} bytes",
                where,
                _TRUSTED,
            )
    return b"".join(chunks)


def _too_large(size: int, where: str) -> Defect:
    return Defect(
        f"a file must hold at most {LARGEST >> 20} MiB",
        f"was over {size >> 20} MiB",
        where,
        "split it by month, or convert it to parquet",
    )


def _refuse_entry(path: Path, found: str, rule: str) -> Defect:
    return Defect(f"an archive {rule}", found, str(path), _TRUSTED)


def _broken(path: Path, error: Exception) -> Defect:
    reason = str(error).strip().split("\n")[0][:160] or type(error).__name__
    return Defect("a file must be whole and readable", f"was not: {reason}", str(path), _AGAIN)
