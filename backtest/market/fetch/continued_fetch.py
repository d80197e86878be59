"""Continuing a finished fetch: its files become stored days again, month by month."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from backtest.base.units import to_nanoseconds
from backtest.market.fetch.stored_days import ArchiveFile, list_stored, rows_between, store_days
from backtest.market.fetch.target_folder import FACTS
from backtest.market.tables.frames import TimedTable

_FOLDERS = {"bars": "/klines/", "mark": "/markPriceKlines/", "funding": "/fundingRate/"}


def restore_stored_days(
    folder: Path, partial: Path, facts: Mapping[str, Any], months: Sequence[tuple[int, int]]
) -> None:
    """Split the files of a finished fetch into stored days, for a longer fetch to continue."""
    start, end = span_of(facts)
    files = [
        ArchiveFile(each["path"], each["sha256"], _time(each["from"]), _time(each["to"]))
        for each in facts["files"]
    ]
    for kind in facts["kinds"]:
        if not (folder / f"{kind}.parquet").exists():
            continue
        table = _read_final(folder / f"{kind}.parquet")
        held = list_stored(partial, kind)
        for first, stop in months:
            span = (max(first, start), min(stop, end))
            rows = rows_between(table, *span) if span[1] > span[0] else None
            covered = any(part.start < span[1] and span[0] < part.end for part in held)
            if rows is not None and rows.time.size and not covered:
                theirs = [f for f in files if f.start < span[1] and f.end > span[0]]
                store_days(
                    partial, kind, span, rows, [f for f in theirs if _FOLDERS[kind] in f.path]
                )


def _read_final(path: Path) -> TimedTable:
    frame = pd.read_parquet(path)
    time = pd.DatetimeIndex(frame["time"]).as_unit("ns").asi8
    columns = {
        name: frame[name].to_numpy(dtype=np.float64) for name in frame.columns if name != "time"
    }
    return TimedTable(path.name, time, columns)


def span_of(facts: Mapping[str, Any]) -> tuple[int, int]:
    """Return the span of a finished fetch, ns."""
    return _time(facts["from"]), _time(facts["to"])


def _time(text: str) -> int:
    return to_nanoseconds(text, where=FACTS)
