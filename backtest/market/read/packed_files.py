"""Zip and gzip files that hold one table. They are unpacked in memory, under limits."""

from __future__ import annotations

import gzip
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from backtest.market.tables.defects import Defect, unreadable

LARGEST = 1 << 30
"""Bytes that one file may unpack to, or hold if it is not packed."""

RATIO = 200
"""How many times its packed size a file over ``SMALL`` may unpack to; prices reach about 20."""

SMALL = 16 << 20
"""Bytes up to which the ratio is not checked."""

MOST_ENTRIES = 1000

_CHUNK = 1 << 20
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, ValueError,
           RuntimeError)  # fmt: skip


class Content(NamedTuple):
    name: str
    data: bytes


def read_bytes(path: Path) -> Content | Defect:
    if path.stat().st_size > LARGEST:
        return _too_large(path.stat().st_size, str(path), LARGEST)
    return Content(path.name, path.read_bytes())


def unpack_gzip(path: Path) -> Content | Defect:
    try:
        with gzip.open(path) as stream:
            found = _read_limited(stream, path.stat().st_size, str(path), LARGEST)
    except _BROKEN as error:
        return unreadable(error, str(path))
    return found if isinstance(found, Defect) else Content(path.name[: -len(".gz")], found)


def unpack_zip(
    file: Path | IO[bytes], where: str, *, largest: int | None = None
) -> Content | Defect:
    try:
        with zipfile.ZipFile(file) as archive:
            entry = _only_entry(archive, where)
            if isinstance(entry, Defect):
                return entry
            with archive.open(entry) as stream:
                place = f"{where}: {entry.filename[:80]}"
                found = _read_limited(stream, entry.compress_size, place, largest or LARGEST)
    except _BROKEN as error:
        return unreadable(error, where)
    return found if isinstance(found, Defect) else Content(entry.filename, found)


def _only_entry(archive: zipfile.ZipFile, where: str) -> zipfile.ZipInfo | Defect:
    entries = archive.infolist()
    if len(entries) > MOST_ENTRIES:
        return Defect(f"an archive must hold one table, got {len(entries)} entries ({where})")
    for entry in entries:
        wrong = _find_risk(entry)
        if wrong:
            return Defect(
                f"an archive must hold a plain file, {entry.filename[:80]!r} {wrong} ({where}); do "
                "not trust it"
            )
    files = [entry for entry in entries if not entry.is_dir()]
    if len(files) != 1:
        names = ", ".join(entry.filename[:40] for entry in files[:4]) or "nothing"
        return Defect(
            f"an archive must hold one table, found {len(files)}: {names} ({where}); unpack it and "
            "give the files one by one"
        )
    return files[0]


def _find_risk(entry: zipfile.ZipInfo) -> str:
    name = entry.filename
    folders = PurePosixPath(name.replace("\\", "/")).parts
    if ".." in folders or name.startswith(("/", "\\")) or ":" in name:
        return "leads out of its folder"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "is a link"
    if entry.flag_bits & 1:
        return "needs a password"
    if name.lower().endswith((".zip", ".gz", ".7z", ".tar", ".bz2", ".xz")):
        return "is an archive itself"
    return ""


def _read_limited(
    stream: IO[bytes] | gzip.GzipFile, packed: int, where: str, largest: int
) -> bytes | Defect:
    content = bytearray()
    while chunk := stream.read(_CHUNK):
        content += chunk
        size = len(content)
        if size > largest:
            return _too_large(size, where, largest)
        if size > SMALL and size > RATIO * packed:
            return Defect(
                f"a packed file must unpack to at most {RATIO} times its size, went over "
                f"{size >> 20} MiB from {packed} bytes ({where}); do not trust it"
            )
    return bytes(content)


def _too_large(size: int, where: str, largest: int) -> Defect:
    return Defect(
        f"a file must hold at most {largest >> 20} MiB, got over {size >> 20} MiB ({where}); split "
        "it by month, or convert it to parquet"
    )
