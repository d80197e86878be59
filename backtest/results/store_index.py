"""The index of a store: entries of its folders, each with a stamp of the files it is read from.

An entry is read from the index if no file of its folder changed since: the stamp has the name, the
size, the times and the number of each. Whatever replaces, deletes, adds or breaks a file, in this
process, in another or by hand, gives another stamp, and so does a copy of the store.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from backtest import core

INDEX = ".index.json"
PACKAGE = Path(__file__).parents[1]
SMALLEST = 100
"""Folders from which on a store has an index; fewer are read in a fraction of a second."""
UNSETTLED = 2_000_000_000
"""A file that changed less than so many ns ago may change again within the same tick of the clock:
some file systems have one tick in two seconds."""


FileState: TypeAlias = tuple[str, int, int, int, int]
"""A file's name in its folder, its size, when it changed and when its entry did, and its number."""


class Stamp(NamedTuple):
    """The state of the files in a folder, and its digest."""

    digest: str
    files: list[FileState]


def stamp_folder(folder: str) -> Stamp | None:
    """Return the stamp of a folder; None if it holds a link, whose target may change unseen."""
    files: list[FileState] = []
    pending = [(folder, "")]
    try:
        while pending:
            path, prefix = pending.pop()
            with os.scandir(path) as inside:
                for item in inside:
                    name = f"{prefix}{item.name}"
                    if item.is_symlink():
                        return None
                    if item.is_dir(follow_symlinks=False):
                        pending.append((item.path, f"{name}/"))
                        continue
                    files.append(read_state(name, item.stat(follow_symlinks=False)))
    except OSError:  # it is being replaced, and read without the index
        return None

    files.sort()
    return Stamp(digest_text(repr(files)), files)


def read_state(name: str, status: os.stat_result) -> FileState:
    return name, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def digest_text(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@functools.cache
def find_reader() -> str:
    """Return what an index depends on beside the store: the code that makes entries."""
    states = []
    for file in sorted(PACKAGE.rglob("*.py")):
        status = file.stat()
        states.append(f"{file}:{status.st_size}:{status.st_mtime_ns}")
    return digest_text("\n".join(states))


class Row(NamedTuple):
    """An entry as the index has it: the stamp of its folder, its fields and its measures."""

    digest: str
    fields: list[Any]
    metrics: dict[str, float]


def read_index(store: Path) -> dict[str, Row]:
    """Return the rows of the index by folder; none if it is of other code, or cannot be read.

    It is a line of JSON, and after it the measures of all rows as floats.
    """
    try:
        head, _, numbers = (store / INDEX).read_bytes().partition(b"\n")
        index = json.loads(head)
        if index["reader"] != find_reader():
            return {}

        # Rows of one kind have the same measures, in the same order.
        values = iter(np.frombuffer(numbers).tolist())
        rows = {}
        for name, (digest, kind, fields) in index["rows"].items():
            measures = index["measures"][kind]
            row_values = itertools.islice(values, len(measures))
            metrics = dict(zip(measures, row_values, strict=True))
            rows[name] = Row(digest, fields, metrics)
    except (OSError, ValueError, TypeError, LookupError, AttributeError):  # it is made again
        return {}
    return rows


def write_index(store: Path, rows: Mapping[str, Row]) -> None:
    """Write the index of a store, as :func:`read_index` reads it; none where that is not allowed.

    Results with the same measures are of one kind. A row names its kind by number; the values of
    its measures stand after the line of JSON, in the order of the rows.
    """
    kinds: dict[tuple[str, ...], int] = {}
    entries = {}
    values: list[float] = []
    for name, row in rows.items():
        kind = kinds.setdefault(tuple(row.metrics), len(kinds))
        entries[name] = (row.digest, kind, row.fields)
        values += row.metrics.values()

    index = {
        "reader": find_reader(),
        "measures": [*kinds],
        "rows": entries,
    }
    head = json.dumps(index, separators=(",", ":")).encode()
    content = b"\n".join((head, np.array(values).tobytes()))
    with contextlib.suppress(OSError):
        core.write_file(store / INDEX, content)


def is_settled(stamp: Stamp) -> bool:
    """Return whether no file changed so recently that it may change again unseen."""
    times = [max(modified, changed) for _, _, modified, changed, _ in stamp.files]
    newest = max(times, default=0)
    return time.time_ns() - newest > UNSETTLED
