"""The schema of a venue file: a symbol has a title, and groups with dates and sources."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any

from backtest.base import did_you_mean

NEEDED = ("contract", "fees", "slippage", "liquidation", "brackets")
GROUPS = (*NEEDED, "rules", "funding")
TERMS = ("interest", "clamp", "cap")


def find_defects(groups: Mapping[str, Any]) -> Iterator[str]:
    """Yield the defects of the title and the groups of a symbol."""
    known = ("title", *GROUPS)
    yield from (
        f"{name} must be one of {', '.join(known)}{did_you_mean(name, known)}"
        for name in groups
        if name not in known
    )
    yield from (f"{name} must be given" for name in NEEDED if name not in groups)
    if not isinstance(groups.get("title"), str):
        yield f"title must be text, got {groups.get('title')!r:.40}"
    for name in GROUPS:
        yield from (f"{name} {defect}" for defect in _find_group_defects(name, groups.get(name)))


def _find_group_defects(name: str, tables: Any) -> Iterator[str]:
    dates: list[str] = []
    for table in tables or ():
        if not isinstance(table, Mapping):
            yield f"must be a table, got {table!r:.40}"
            continue
        date: Any = table.get("date")
        source: Any = table.get("source")
        if not _is_day(date):
            yield f"must have a date such as '2021-05-19', got {date!r}"
            continue
        if not (isinstance(source, str) and source.strip()):
            yield "must have a source"
        dates.append(date)
        if name == "brackets":
            yield from _find_row_defects(table)
        if name == "funding":
            yield from _find_term_defects(table)
    if dates != sorted(set(dates)):
        yield f"must have tables of rising dates, got {', '.join(dates)}"


def _find_row_defects(table: Mapping[str, Any]) -> Iterator[str]:
    columns: Any = table.get("columns")
    rows: Any = table.get("rows")
    is_named = isinstance(columns, list) and all(isinstance(each, str) for each in columns)
    if not is_named or not isinstance(rows, list):
        yield "must have columns, by name, and rows"
        return
    lengths = {len(row) if isinstance(row, list) else 0 for row in rows}
    if lengths - {len(columns)}:
        yield f"must have rows of {len(columns)} columns, were of {sorted(lengths)}"


def _find_term_defects(table: Mapping[str, Any]) -> Iterator[str]:
    known = {"date", "source", "interval", "period", *TERMS}
    yield from (f"must not have {name!r}" for name in table if name not in known)
    yield from (f"must give {name}" for name in ("interval", *TERMS[:2]) if name not in table)
    for name in TERMS:
        value = table.get(name, 0.0)
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield f"must have {name} as a number, got {value!r:.40}"


def _is_day(date: object) -> bool:
    try:
        return isinstance(date, str) and dt.date.fromisoformat(date).isoformat() == date
    except ValueError:
        return False
