"""The index of a store: entries of its folders, each with a stamp of the files it is read from.

An entry is read from the index if no file of its folder changed since: the stamp has the name, the
size, the times and the number of each. Whatever replaces, deletes, adds or breaks a file, in this
process, in another or by hand, gives another stamp, and so does a copy of the store.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
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
                for each in inside:
                    name = prefix + each.name
                    if each.is_symlink():
                        return None
                    if each.is_dir(follow_symlinks=False):
                        pending.append((each.path, f"{name}/"))
                        continue
                    status = each.stat(follow_symlinks=False)
                    times = status.st_mtime_ns, status.st_ctime_ns
                    files.append((name, status.st_size, *times, status.st_ino))
    except OSError:  # it is being replaced, and read without the index
        return None
    files.sort()
    return Stamp(hashlib.blake2b(repr(files).encode(), digest_size=16).hexdigest(), files)


@functools.cache
def find_reader() -> str:
    """Return what an index depends on beside the store: the code that makes entries."""
    files = sorted(PACKAGE.rglob("*.py"))
    states = [f"{each}:{each.stat().st_size}:{each.stat().st_mtime_ns}" for each in files]
    return hashlib.blake2b("\n".join(states).encode(), digest_size=16).hexdigest()


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
        values = np.frombuffer(numbers).tolist()
        rows, end = {}, 0
        for name, (digest, kind, fields) in index["rows"].items():
            measures = index["measures"][kind]
            start, end = end, end + len(measures)
            metrics = dict(zip(measures, values[start:end], strict=True))
            rows[name] = Row(digest, fields, metrics)
    except (OSError, ValueError, TypeError, LookupError, AttributeError):  # it is made again
        return {}
    return rows


def write_index(store: Path, rows: Mapping[str, Row]) -> None:
    """Write the index of a store; where that is not allowed, it has none."""
    kinds = {names: k for k, names in enumerate({tuple(row.metrics): 0 for row in rows.values()})}
    index = {
        "reader": find_reader(),
        "measures": [*kinds],
        "rows": {name: (row.digest, kinds[*row.metrics], row.fields) for name, row in rows.items()},
    }
    values = np.array([value for row in rows.values() for value in row.metrics.values()])
    content = json.dumps(index, separators=(",", ":")).encode() + b"\n" + values.tobytes()
    with contextlib.suppress(OSError):
        core.write_file(store / INDEX, content)


def is_settled(stamp: Stamp) -> bool:
    """Return whether no file changed so recently that it may change again unseen."""
    newest = max((max(file[2:4]) for file in stamp.files), default=0)
    return time.time_ns() - newest > UNSETTLED
