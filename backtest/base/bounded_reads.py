"""Read small files that may be damaged or hostile: plain files of a bounded size, and JSON."""

from __future__ import annotations

import json
import os
import stat
from io import FileIO
from pathlib import Path
from typing import Any

from backtest.base.errors import DataError

LARGEST = 32 * 2**20
"""Bytes of a JSON file of a result; a larger one is damaged."""
CURE = "run the experiment again, or restore the file"


def read_small(path: Path | str, *, cure: str = CURE) -> bytes:
    """Return the content of a plain file of at most 32 MiB; a pipe or a device is never waited for.

    Raise a DataError if it is larger or not a plain file, and an OSError if it cannot be read.
    """
    place = Path(path)
    with open_plain(place, cure=cure) as file:
        size = os.fstat(file.fileno()).st_size
        content = _read_at_most(file.fileno(), LARGEST + 1) if size <= LARGEST else b""
        size = max(size, len(content))
    if size > LARGEST:
        raise DataError(
            f"{place.name} must be at most {LARGEST >> 20} MiB, was {size / 2**20:,.0f} MiB",
            where=str(place),
            cure=cure,
        )
    return content


def open_plain(path: Path | str, *, cure: str = CURE) -> FileIO:
    """Open a plain file to read; a pipe or a device is never waited for.

    Raise a DataError if it is not a plain file, and an OSError if it cannot be read.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    file = FileIO(handle)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        file.close()
        problem = f"{Path(path).name} must be a plain file, was a folder, a pipe or a device"
        raise DataError(problem, where=str(path), cure=cure)
    return file


def _read_at_most(handle: int, most: int) -> bytes:
    """Return the bytes of an open file, no more than so many: it may grow meanwhile."""
    content = os.read(handle, most)
    while content and len(content) < most and (more := os.read(handle, most - len(content))):
        content += more
    return content


def parse_json(content: bytes, path: Path | str, *, cure: str = CURE) -> Any:
    """Return the data of JSON, whatever is wrong with it.

    Raise a DataError if it is not JSON, not UTF-8, or nested too deeply.
    """
    try:
        return json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise DataError(
            f"{Path(path).name} must be JSON: {reason[:200]}", where=str(path), cure=cure
        ) from error
