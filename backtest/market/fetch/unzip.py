"""The one text of a zip file: no other member, no path, no bomb; nothing is unpacked to disk."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

from backtest.base.errors import DataError

LARGEST_TEXT = 64 << 20
"""Bytes of a month of minute bars are about 6 MiB."""

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_END = b"PK\x05\x06"
_END_SIZE = 22
_LARGE = b"PK\x06\x07"
_LARGEST_DIRECTORY = 4096
_LONGEST_COMMENT = 1 << 16


def read_member(content: bytes, name: str, *, where: str, limit: int = LARGEST_TEXT) -> bytes:
    """Return the only member of a zip file.

    Parameters
    ----------
    content : bytes
        The zip file.
    name : str
        What the member must be called.
    where : str
        The file's address, for messages.
    limit : int
        The most bytes that it may unpack to.

    Raises
    ------
    DataError
        If it is not a zip file of this one member, or unpacks to more.
    """
    _check_directory(content, where)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            found = archive.namelist()
            if found != [name]:
                raise _refuse(f"hold {name} alone", f"holds {_some(found)}", where)
            if archive.getinfo(name).compress_type not in _METHODS:
                raise _refuse("be stored or deflated", "is packed otherwise", where)
            with archive.open(name) as member:
                text = member.read(limit + 1)
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        OSError,
        ValueError,
        struct.error,
    ) as error:
        raise _refuse("be whole and readable", f"is not: {str(error)[:120]}", where) from error
    if len(text) > limit:
        raise _refuse(f"unpack to at most {limit:,} bytes", "unpacks to more", where)
    return text


def _check_directory(content: bytes, where: str) -> None:
    """Refuse a directory of more than a few members before anything reads it into memory."""
    place = content.rfind(_END, max(0, len(content) - _LONGEST_COMMENT - _END_SIZE))
    if place < 0 or len(content) < place + _END_SIZE:
        raise _refuse("be a zip file", "has no directory", where)
    members, size = struct.unpack_from("<HI", content, place + 10)
    if content[max(0, place - 20) : place].startswith(_LARGE) or size > _LARGEST_DIRECTORY:
        raise _refuse("hold one member", f"has a directory of {size:,} bytes", where)
    if members != 1:
        raise _refuse("hold one member", f"holds {members:,}", where)


def _some(names: list[str]) -> str:
    return ", ".join(repr(name[:80]) for name in names[:3]) or "nothing"


def _refuse(rule: str, found: str, where: str) -> DataError:
    return DataError(
        f"a file of the archive must {rule}, {found}",
        where=where,
        cure="check the base address; if it is the venue's own, tell the venue",
    )
