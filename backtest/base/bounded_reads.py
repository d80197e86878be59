"""Safe reads of files that may be damaged or hostile: plain files of bounded size, and JSON."""

from __future__ import annotations

import json
import os
import stat
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any

from backtest.base.errors import DataError

LARGEST = 32 * 2**20
"""Size limit in bytes; a larger file of a result is damaged."""
CURE = "run the experiment again, or restore the file"


def read_small(path: Path | str, *, cure: str = CURE) -> bytes:
    """Return the content of a plain file of at most 32 MiB, without blocking on pipes or devices.

    Raise a DataError if it is larger or not a plain file, and an OSError if it cannot be read.
    """
    place = Path(path)
    with open_plain(place, cure=cure) as plain, BufferedReader(plain) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(LARGEST + 1) if size <= LARGEST else b""
        size = max(size, len(content))
    if size > LARGEST:
        raise DataError(
            f"{place.name} must be at most {LARGEST >> 20} MiB, got {size / 2**20:,.0f} MiB",
            where=str(place),
            cure=cure,
        )
    return content


def open_plain(path: Path | str, *, cure: str = CURE) -> FileIO:
    """Open a plain file for reading, without blocking on pipes or devices.

    Raise a DataError if it is not a plain file, and an OSError if it cannot be read.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    file = FileIO(handle)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        file.close()
        problem = f"{Path(path).name} must be a plain file, got a folder, a pipe or a device"
        raise DataError(problem, where=str(path), cure=cure)
    return file


def parse_json(content: bytes, path: Path | str, *, cure: str = CURE) -> Any:
    """Parse JSON that may be malformed.

    Raise a DataError if it is not JSON, not UTF-8, or nested too deeply.
    """
    try:
        return json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise DataError(
            f"{Path(path).name} must be JSON: {reason[:200]}", where=str(path), cure=cure
        ) from error
