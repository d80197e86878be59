"""The folder of a fetch: its lock, the request that it belongs to, and what it holds already."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from backtest.base import (
    DataError,
    IntArray,
    LockHeldError,
    format_time,
    hash_file,
    hold_lock_file,
    parse_json,
    read_small,
    replace_file,
    utc_index,
    write_file,
)
from backtest.base.atomic_files import DRAFT_FILE, LOCK
from backtest.base.units import DAY
from backtest.market.fetch.gaps import find_gaps
from backtest.market.fetch.request import KINDS, Request
from backtest.market.read.files import SUFFIXES, suffix_of
from backtest.market.tables.timed_table import TimedTable, equal_or_nan

PARTIAL = ".partial"
FACTS = "fetch.json"
REQUEST = "request.json"
GAPS = "gaps.json"
OURS = re.compile(
    rf"{LOCK}|{re.escape(DRAFT_FILE)}[0-9a-f]{{32}}|((request|gaps|fetch|market)\.(json|draft))"
    r"|((bars|mark|funding)(-\d{8}-\d{8})?\.(parquet|draft))"
)
_FORMAT = 1
_SHOWN = 4


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[Path]:
    partial = folder / PARTIAL
    is_new = not folder.exists()
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(hold_lock_file(partial / LOCK))
        except LockHeldError as error:
            raise DataError(
                f"another process ({error.holder}) is already fetching into {folder}; the next "
                "fetch continues from there"
            ) from error
        except OSError as error:
            raise DataError(
                f"cannot write to the folder of the fetch, {folder}: {error.strerror or error}"
            ) from error
        try:
            yield partial
        finally:
            if not is_under_way(partial):
                remove(partial)
                if is_new:
                    with contextlib.suppress(OSError):  # it holds something: it stays
                        folder.rmdir()


def is_under_way(partial: Path) -> bool:
    return any(list_stored(partial, kind) for kind in KINDS)


def remove(partial: Path) -> None:
    draft = partial / "final"
    for folder in (draft, partial):
        for path in sorted(folder.glob("*"), key=lambda path: path.name == LOCK):
            if OURS.fullmatch(path.name) and path.is_file():
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # the next process may have begun; or it holds more
            folder.rmdir()


def check_request(folder: Path, partial: Path, request: Request) -> None:
    noted = read_facts(partial / REQUEST) if is_under_way(partial) else read_facts(folder / FACTS)
    present = [] if noted is not None else _list_data(folder)
    if present:
        more = [f"{len(present) - _SHOWN} more"] if len(present) > _SHOWN else []
        found = ", ".join([*present[:_SHOWN], *more])
        raise DataError(f"a fetch needs a folder of its own, this one holds {found} ({folder})")
    identity = request.identity()
    if noted is not None:
        other = {key: noted.get(key) for key in identity if noted.get(key) != identity[key]}
        if other or noted.get("source") != request.source:
            found = ", ".join(f"{key} {value}" for key, value in other.items())
            wanted = ", ".join(f"{key} {identity[key]}" for key in other)
            raise DataError(
                f"a folder must hold one instrument: this one holds {found}, not {wanted} "
                f"({folder})"
            )
    write_facts({"format": _FORMAT, **identity}, partial / REQUEST)


def _list_data(folder: Path) -> list[str]:
    files = (path for path in folder.iterdir() if path.is_file())
    return sorted(path.name for path in files if suffix_of(path) in SUFFIXES)


def find_final(folder: Path) -> dict[str, Any] | None:
    facts = read_facts(folder / FACTS)
    if facts is None:
        return None
    hashes = facts.get("sha256", {})
    same = all(
        (folder / name).is_file() and hash_file(folder / name) == expected
        for name, expected in hashes.items()
    )
    return facts if same and hashes else None


def check_untouched(folder: Path, partial: Path) -> None:
    if (folder / FACTS).exists() and not is_under_way(partial) and not find_final(folder):
        raise DataError(
            f"files of the fetch were changed or removed ({folder}); fetch to a new folder, or "
            f"remove {FACTS} and the data files"
        )


def drop_damaged(partial: Path, request: Request) -> None:
    for kind in request.kinds:
        for part in list_stored(partial, kind):
            read = read_stored(part)
            if read is None or find_gaps(kind, read[0].time, request.interval, *part[2:]):
                part.path.unlink()
    for draft in (*partial.glob("*.draft"), *partial.glob(f"{DRAFT_FILE}*")):
        if OURS.fullmatch(draft.name) and draft.is_file():
            draft.unlink()


def read_facts(path: Path) -> dict[str, Any] | None:
    try:
        facts = parse_json(read_small(path), path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}; fetch to a new folder") from error
    if not isinstance(facts, dict) or facts.get("format") != _FORMAT:
        raise DataError(
            f"the format of {path.name} must be {_FORMAT} ({path}); fetch to a new folder"
        )
    return facts


def write_facts(facts: Mapping[str, Any], path: Path) -> None:
    text = json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
    write_file(path, text.encode())


COLUMNS = {
    "bars": ("open", "high", "low", "close", "volume"),
    "mark": ("open", "high", "low", "close"),
    "funding": ("rate", "mark"),
}
_NAME = re.compile(r"(bars|mark|funding)-(\d{8})-(\d{8})\.parquet")
_NOTE = b"files"


class ArchiveFile(NamedTuple):
    """A file of the archive that rows came from, and the time that it covers (ns)."""

    path: str
    sha256: str
    start: int
    end: int


class StoredDays(NamedTuple):
    """The file that holds the rows of one kind over whole days, ``start`` up to ``end`` (ns)."""

    path: Path
    kind: str
    start: int
    end: int


def list_stored(folder: Path, kind: str) -> list[StoredDays]:
    found = [_parse(path) for path in folder.glob(f"{kind}-*.parquet")]
    return sorted((part for part in found if part), key=lambda part: (part.start, part.end))


def store_days(
    folder: Path,
    kind: str,
    span: tuple[int, int],
    table: TimedTable,
    files: Sequence[ArchiveFile] = (),
) -> StoredDays:
    from pyarrow import parquet  # noqa: PLC0415 - 20 ms, only when needed

    start, end = span
    part = StoredDays(folder / f"{kind}-{_day(start)}-{_day(end)}.parquet", kind, start, end)
    columns = {"time": table.time, **{name: table.columns[name] for name in COLUMNS[kind]}}
    note = {_NOTE: json.dumps([list(file) for file in files]).encode()}
    content = pa.table(columns).replace_schema_metadata(note)
    with replace_file(part.path) as draft:
        parquet.write_table(content, draft, compression="zstd", write_page_checksum=True)
    for other in list_stored(folder, kind):
        if start <= other.start and other.end <= end and other != part:
            other.path.unlink(missing_ok=True)
    return part


def read_stored(part: StoredDays) -> tuple[TimedTable, list[ArchiveFile]] | None:
    from pyarrow import parquet  # noqa: PLC0415 - as above

    try:
        with parquet.ParquetFile(part.path, page_checksum_verification=True) as file:
            content = file.read()
        note = (content.schema.metadata or {})[_NOTE]
        files = [ArchiveFile(*entry) for entry in json.loads(note)]
        time = content["time"].to_numpy()
        columns = {name: content[name].to_numpy() for name in COLUMNS[part.kind]}
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError):
        return None
    return TimedTable(part.path.name, time, columns), files


def merge_rows(tables: Iterable[TimedTable], kind: str) -> TimedTable:
    given = [table for table in tables if table.time.size]
    names = COLUMNS[kind]
    if not given:
        return TimedTable(kind, np.empty(0, np.int64), {name: np.empty(0) for name in names})
    time = np.concatenate([table.time for table in given])
    columns = {name: np.concatenate([table.columns[name] for table in given]) for name in names}
    if (time[1:] > time[:-1]).all():
        return TimedTable(given[0].name, time, columns)
    order = np.argsort(time, kind="stable")
    whole = TimedTable(given[0].name, time, columns).rows(order)
    _check_repeats(whole, kind)
    return whole.rows(np.flatnonzero(np.diff(whole.time, prepend=np.iinfo(np.int64).min // 2) > 0))


def _check_repeats(table: TimedTable, kind: str) -> None:
    again = np.flatnonzero(np.diff(table.time) == 0)
    for name in COLUMNS[kind]:
        first, second = table.columns[name][again], table.columns[name][again + 1]
        other = np.flatnonzero(~equal_or_nan(first, second))
        if other.size:
            row = other[0]
            raise DataError(
                f"each time must have one {name}, {format_time(int(table.time[again[row]]))} UTC "
                f"has {first[row]} and {second[row]} ({kind}, {table.name}); the venue's answers "
                "differ: fetch to a new folder, or choose another source"
            )


def rows_between(table: TimedTable, start: int, end: int) -> TimedTable:
    first, stop = np.searchsorted(table.time, [start, end])
    return table.rows(slice(int(first), int(stop)))


def to_frame(table: TimedTable, kind: str) -> pd.DataFrame:
    columns = {name: table.columns[name] for name in COLUMNS[kind]}
    return pd.DataFrame(columns, index=utc_index(table.time))


def missing_days(parts: Sequence[StoredDays], start: int, end: int) -> IntArray:
    """Return the midnights (ns) of the days from ``start`` to ``end`` that are not stored."""
    days = np.arange(start, end, DAY)
    held = np.zeros(days.size, dtype=np.bool_)
    for part in parts:
        held |= (days >= part.start) & (days < part.end)
    return days[~held]


def _parse(path: Path) -> StoredDays | None:
    match = _NAME.fullmatch(path.name)
    if match is None:
        return None
    start, end = (_to_ns(text) for text in match.groups()[1:])
    return StoredDays(path, match[1], start, end)


def _day(time: int) -> str:
    return f"{pd.Timestamp(time):%Y%m%d}"


def _to_ns(text: str) -> int:
    value: Any = pd.Timestamp(text).as_unit("ns").value
    return int(value)
