"""The last step of a fetch: check all rows, and write the files that ``Market.load`` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from backtest.base import DataError, format_duration, format_time, hash_file, move_file
from backtest.market.fetch.gaps import (
    MissingRows,
    count_missing,
    describe_gaps,
    find_end,
    find_gaps,
    longest_complete,
)
from backtest.market.fetch.request import Request
from backtest.market.fetch.target_folder import (
    FACTS,
    GAPS,
    ArchiveFile,
    list_stored,
    merge_rows,
    read_stored,
    rows_between,
    to_frame,
    write_facts,
)
from backtest.market.market import Market
from backtest.market.read.files import write_table
from backtest.market.tables.timed_table import TimedTable

DRAFT = "final"


class Collected(NamedTuple):
    """All rows of a span (ns) by kind, the files that they came from, and the gaps."""

    tables: Mapping[str, TimedTable]
    files: Sequence[ArchiveFile]
    start: int
    end: int
    gaps: Sequence[MissingRows]
    lacking: Sequence[str]


def collect_rows(partial: Path, request: Request, today: int) -> Collected:
    tables: dict[str, TimedTable] = {}
    files: list[ArchiveFile] = []
    for kind in request.kinds:
        tables[kind], found = _collect_kind(partial, kind)
        files += found
    start, end = request.start, request.end
    lacking = [kind for kind, table in tables.items() if not (table.time >= start).any()]
    if end is None:
        reached = (find_end(t.time, kind, request.interval, start) for kind, t in tables.items())
        end = max(start, min(today, *reached))
    tables = {kind: rows_between(table, start, end) for kind, table in tables.items()}
    gaps = [
        gap
        for kind, table in tables.items()
        if end > start
        for gap in find_gaps(kind, table.time, request.interval, start, end)
    ]
    used = sorted(file for file in set(files) if file.start < end and file.end > start)
    return Collected(tables, used, start, end, gaps, lacking)


def _collect_kind(partial: Path, kind: str) -> tuple[TimedTable, list[ArchiveFile]]:
    tables, files = [], []
    for part in list_stored(partial, kind):
        read = read_stored(part)
        if read is None:
            raise DataError(
                f"a file of stored days was changed or damaged ({part.path}); fetch again: those "
                "days are fetched again"
            )
        tables.append(read[0])
        files += read[1]
    return merge_rows(tables, kind), files


def check_gaps(whole: Collected, request: Request, partial: Path, *, accept: bool) -> None:
    if whole.end <= whole.start or "bars" in whole.lacking:
        raise DataError(
            f"{request.symbol} must have data from {format_time(request.start)} on, "
            f"{request.source} has no {' and no '.join(whole.lacking) or 'whole day'} "
            f"there{_find_cure(whole)}"
        )
    if accept or not whole.gaps:
        return
    write_facts({"format": 1, "gaps": gaps_to_json(whole.gaps)}, partial / GAPS)
    total = sum(count_missing(whole.gaps).values())
    listed = describe_gaps(whole.gaps, str(partial / GAPS))
    raise DataError(
        f"all requested rows must be there, {request.source} lacks {total:,} rows of "
        f"{request.symbol} from {format_time(whole.start)} to {format_time(whole.end)} in "
        f"{len(whole.gaps)} gaps (UTC), nothing was stored{_find_cure(whole)}:\n{listed}"
    )


def _find_cure(whole: Collected) -> str:
    if "bars" in whole.lacking:
        return ""
    cures = []
    span = longest_complete(whole.gaps, whole.start, whole.end)
    if span is not None:
        cures.append(
            f"start={format_time(span[0])!r} and end={format_time(span[1])!r}, the longest "
            "complete span (it is here already)"
        )
    kinds = [*dict.fromkeys([*whole.lacking, *(gap.kind for gap in whole.gaps)])]
    if kinds and "bars" not in kinds:
        cures.append(f"without={kinds}")
    if whole.gaps:
        cures.append("accept_gaps=True to store what there is")
    return "; " * bool(cures) + ", or ".join(cures)


def check_values(whole: Collected, request: Request, instrument: str) -> Mapping[str, str]:
    frames = {kind: to_frame(table, kind) for kind, table in whole.tables.items()}
    bars, mark = frames["bars"], _not_empty(frames.get("mark"))
    funding = _not_empty(frames.get("funding"))
    length = format_duration(request.interval)
    try:
        if not whole.gaps:
            return Market.from_frames(
                bars, funding=funding, mark=mark, instrument=instrument, interval=length
            ).filled
        Market.from_frames(
            bars, funding=funding, interval=length, sessions=True, funding_gaps="zero"
        )
        if mark is not None:
            Market.from_frames(mark, interval=length, sessions=True)
    except DataError as error:
        raise DataError(f"{request.source}, {request.symbol}: {error}") from error
    return {}


def _not_empty(frame: pd.DataFrame | None) -> pd.DataFrame | None:
    return frame if frame is not None and len(frame) else None


def publish(
    folder: Path, partial: Path, request: Request, instrument: str, whole: Collected
) -> dict[str, Any]:
    filled = check_values(whole, request, instrument)
    draft = partial / DRAFT
    draft.mkdir(exist_ok=True)
    kept = {kind: table for kind, table in whole.tables.items() if table.time.size}
    for kind, table in kept.items():
        write_table(to_frame(table, kind), draft / f"{kind}.parquet")
    market = {
        "instrument": instrument,
        "interval": format_duration(request.interval),
        "synthetic": False,
        "sessions": False,
        "filled": dict(filled),
    }
    text = json.dumps(market, indent=2, ensure_ascii=False) + "\n"
    (draft / "market.json").write_text(text, encoding="utf-8")
    names = ["mark.parquet", "funding.parquet", "market.json", "bars.parquet"]
    present = [name for name in names if (draft / name).exists()]
    facts = {
        "format": 1,
        **request.identity(),
        "instrument": instrument,
        **_format_span(whole.start, whole.end),
        "rows": {kind: int(table.time.size) for kind, table in whole.tables.items()},
        "gaps": gaps_to_json(whole.gaps),
        "files": [
            {"path": file.path, "sha256": file.sha256, **_format_span(file.start, file.end)}
            for file in whole.files
        ],
        "sha256": {name: hash_file(draft / name) for name in present},
    }
    write_facts(facts, draft / FACTS)
    for name in (*present, FACTS):
        move_file(draft / name, folder / name)
    return facts


def gaps_to_json(gaps: Sequence[MissingRows]) -> list[dict[str, Any]]:
    return [
        {"kind": gap.kind, **_format_span(gap.start, gap.end), "missing": gap.missing}
        for gap in gaps
    ]


def _format_span(start: int, end: int) -> dict[str, str]:
    return {"from": format_time(start), "to": format_time(end)}
