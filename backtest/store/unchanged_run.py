"""Read the list entry of an unchanged run from its provenance file alone."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backtest.base import (
    DataError,
    Making,
    decode_provenance,
    making_from_json,
    open_plain,
    read_small,
)
from backtest.base.provenance import FORMAT, PACKAGE, PROVENANCE
from backtest.engine import read_metrics, result_files

MAGIC, LEAST_PARQUET = b"PAR1", 12

Stamp = tuple[tuple[str, int, int, int, int], ...]
"""Name, size, time of modification, time of status change and inode of each file of a folder."""


def read_unchanged_run(folder: Path, stamp: Stamp) -> dict[str, Any] | None:
    """Return the fields of a run's entry, read from its provenance file.

    ``stamp`` must have been taken just now. The result is None if the whole folder has to be read:
    it has no such file, an earlier version saved it, or a file differs from what was saved.
    """
    sizes = {name: size for name, size, *_ in stamp}
    if sizes.pop(PROVENANCE, 0) == 0:
        return None
    place = os.fspath(folder)
    try:
        data = decode_provenance(read_small(f"{place}/{PROVENANCE}"), place)
    except DataError:
        return None  # reading the whole folder reports it
    is_known = (data["format"], data.get("run_format")) == (
        FORMAT,
        result_files.FORMATS[result_files.RUN],
    )
    if not is_known or data["sizes"] != sizes:
        return None
    if not (is_untouched(stamp) or has_saved_hashes(place, data)):
        return None
    shows = data["shows"]
    if "is_synthetic" not in shows:
        return None  # saved by an earlier version
    made = summarize_making(making_from_json(data["made"]))
    metrics = read_metrics(shows["metrics"])
    return {"id": data["id"], **shows, "title": shows["policy"], "metrics": metrics, **made}


def is_untouched(stamp: Stamp) -> bool:
    """Return whether no file changed after the provenance file, which is saved last.

    The times of status changes decide, since no program can set them. They prove nothing about a
    folder that was copied file by file.
    """
    last = next(changed for name, _, _, changed, _ in stamp if name == PROVENANCE)
    return all(changed <= last for _, _, _, changed, _ in stamp)


def has_saved_hashes(place: str, data: Mapping[str, Any]) -> bool:
    """Return whether the small files have their recorded hashes and the tables look complete."""
    hashes = data["hashes"]
    return all(
        has_ends(f"{place}/{name}", size)
        if name not in hashes
        else hashlib.sha256(read_small(f"{place}/{name}")).hexdigest() == hashes[name]
        for name, size in data["sizes"].items()
    )


def has_ends(path: str, size: int) -> bool:
    """Return whether a file begins and ends as a Parquet file does."""
    if size < LEAST_PARQUET:
        return False
    with open_plain(path) as file:
        head = file.read(4)
        file.seek(size - 4)
        return head == file.read(4) == MAGIC


def summarize_making(making: Making | None) -> dict[str, Any]:
    """Return the run time and the commits that an entry shows."""
    if making is None:
        return {}
    commits = {name: each.commit for name, each in making.code.items() if each is not None}
    own = commits.pop(PACKAGE, "")
    return {
        **({} if making.seconds is None else {"seconds": making.seconds}),
        "commit": ", ".join(dict.fromkeys(commits.values())),
        "backtest_commit": own,
        "is_dirty": making.is_dirty,
    }
