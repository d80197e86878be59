"""CSV of any vendor to a frame: with comments, with several header lines or none, under limits."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from backtest.market.read.packed_files import Content
from backtest.market.tables.defects import DECIMAL_COMMA, Defect, unreadable

if TYPE_CHECKING:
    from pyarrow import csv

LONGEST_LINE = 1 << 16
"""The longest line in bytes; a row of numbers has some hundreds."""

LONGEST_CELL = 1 << 10
"""The longest text cell in characters."""

MOST_COLUMNS = 500

_LEADS = 5  # the most comment lines before the header
_DELIMITERS = (",", ";", "\t", "|")
_FIELDS = frozenset({"price", "ticker"})  # yfinance's names of its two column levels
_FORMULAS = frozenset("=+-@\t\r")


class _Head(NamedTuple):
    skip: int
    delimiter: str
    names: list[str]
    levels: list[tuple[str, str]] | None = None


FIRST_LINE = "first_line"


def parse_csv(
    content: Content, times: Collection[str], *, where: str, decimal: str = "."
) -> pd.DataFrame | Defect:
    wrong = _check_bytes(content.data, where)
    if wrong:
        return wrong
    head = _read_head(content.data, where)
    if isinstance(head, Defect):
        return head
    pieces = content.data.split(b"\n", head.skip)
    if len(pieces) <= head.skip or not pieces[-1].strip():
        return _no_rows(where)
    del pieces  # a copy of the rows
    from pyarrow import csv  # noqa: PLC0415 - 20 ms, only when needed

    stamps = {name: pa.string() for name in head.names if name.strip().lower() in times}
    convert = csv.ConvertOptions(
        column_types=stamps, strings_can_be_null=True, decimal_point=decimal
    )
    read = csv.ReadOptions(skip_rows=head.skip, column_names=head.names, block_size=1 << 22)
    odd: list[csv.InvalidRow] = []

    def refuse(row: csv.InvalidRow) -> str:
        odd.append(row)
        return "error"

    parse = csv.ParseOptions(delimiter=head.delimiter, invalid_row_handler=refuse)
    try:
        table = csv.read_csv(pa.BufferReader(content.data), read, parse, convert)
    except (pa.ArrowException, ValueError) as error:
        return (
            _odd_row(odd[0], content.data, where)
            if odd
            else unreadable(" ".join(str(error).split()), where)
        )
    frame: pd.DataFrame = table.to_pandas()
    if head.levels:
        levels = pd.MultiIndex.from_tuples(head.levels)
        frame = frame.set_index(head.names[0]).rename_axis("date").set_axis(levels, axis=1)
    if _count_lines(content.data) - head.skip == len(frame):  # no empty lines, no breaks in cells
        frame.attrs[FIRST_LINE] = head.skip + 1
    return frame


def _count_lines(data: bytes) -> int:
    end = len(data)
    while data[end - 1 : end].isspace():
        end -= 1
    return data.count(b"\n", 0, end) + 1


def _odd_row(row: csv.InvalidRow, data: bytes, where: str) -> Defect:
    text = row.text.encode()
    lines = enumerate(data.split(b"\n"), start=1)
    line = next((number for number, each in lines if each.rstrip(b"\r") == text), None)
    place = where if line is None else f"{where}, line {line}"
    is_long = row.actual_columns > row.expected_columns
    more = f"; put semicolons between the cells: {DECIMAL_COMMA}" if is_long else ""
    return Defect(
        f"every row must have as many cells as the header, {row.expected_columns}, found "
        f"{row.actual_columns}: {row.text[:80]!r} ({place}){more}"
    )


def check_cells(frame: pd.DataFrame, *, where: str) -> Defect | None:
    for name in map(str, _flat(frame.columns)):
        if len(name) > LONGEST_CELL:
            return _too_long(len(name), "the name of a column", where)
        if name[:1] in _FORMULAS and _is_formula(name):
            return _formula(name, "the name of a column", where)
    for position, kind in enumerate(frame.dtypes):
        if kind.kind not in "OUT":
            continue
        wrong = _check_column(frame.iloc[:, position], where, frame.attrs.get(FIRST_LINE))
        if wrong:
            return wrong
    return None


def _check_column(values: pd.Series, where: str, first_line: int | None) -> Defect | None:
    texts = values[values.map(lambda cell: isinstance(cell, str))] if values.dtype == object else (
        values.dropna()
    )  # fmt: skip
    if texts.empty:
        return None
    longest = int(texts.str.len().max())
    name = f"a cell of {values.name!r}"
    if longest > LONGEST_CELL:
        return _too_long(longest, name, where)
    suspects = texts[texts.str[:1].isin(_FORMULAS)]
    for text in suspects.unique():
        if _is_formula(text):
            row = int(np.flatnonzero((values == text).to_numpy(dtype=bool, na_value=False))[0])
            place = f"row {row}" if first_line is None else f"line {row + first_line}"
            return _formula(text, name, f"{where}, {place}")
    return None


def _is_formula(text: str) -> bool:
    return len(text) > 1 and bool(pd.isna(pd.to_numeric(text, errors="coerce")))


def _flat(columns: pd.Index) -> list[object]:
    if isinstance(columns, pd.MultiIndex):
        return [level for column in columns for level in column]
    return [*columns]


# ------------------------------------------------------------------------------ before the rows


def _check_bytes(data: bytes, where: str) -> Defect | None:
    if not data.strip():
        return _no_rows(where)
    if b"\0" in data:
        return unreadable("it holds zero bytes, so it is no text", where)
    try:
        data.isascii() or data.decode("utf-8")
    except UnicodeDecodeError as error:
        return unreadable(f"it is not UTF-8: {error.reason} at byte {error.start}", where)
    ends = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == ord("\n"))
    longest = int(np.diff(ends, prepend=-1, append=len(data)).max())
    if longest > LONGEST_LINE:
        return _too_long(longest, "a line", where)
    return None


def _read_head(data: bytes, where: str) -> _Head | Defect:
    text = b"\n".join(data.split(b"\n", _LEADS + 4)[: _LEADS + 4]).decode("utf-8-sig")
    lines = text.splitlines()
    skip = _count_leads(lines)
    lines = lines[skip:]
    delimiter = max(_DELIMITERS, key=lines[0].count)
    rows = [[cell.strip().strip('"') for cell in line.split(delimiter)] for line in lines]
    if len(rows[0]) > MOST_COLUMNS:
        return Defect(f"a table has at most {MOST_COLUMNS} columns, found {len(rows[0])} ({where})")
    if _is_two_level(rows):
        return _two_levels(rows, skip, delimiter)
    if all(map(_is_number, rows[0])):
        names = [str(number) for number in range(len(rows[0]))]
        return _Head(skip, delimiter, names)
    return _Head(skip + 1, delimiter, rows[0])


def _count_leads(lines: Sequence[str]) -> int:
    for number, line in enumerate(lines[:_LEADS]):
        below = lines[number + 1] if number + 1 < len(lines) else ""
        is_comment = line.startswith(("#", "http")) or not line.strip()
        is_alone = not any(mark in line for mark in _DELIMITERS)
        if not (is_comment or (is_alone and any(below.count(mark) >= 2 for mark in _DELIMITERS))):
            return number
    return min(_LEADS, len(lines) - 1)


def _is_number(cell: str) -> bool:
    if cell.lower() in ("true", "false", ""):
        return True
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _is_two_level(rows: Sequence[Sequence[str]]) -> bool:
    tops = {row[0].lower() for row in rows[:2]}
    return len(rows) > 2 and tops == _FIELDS and len({len(row) for row in rows[:3]}) == 1


def _two_levels(rows: Sequence[Sequence[str]], skip: int, delimiter: str) -> _Head:
    levels = list(zip(rows[0][1:], rows[1][1:], strict=True))
    third = rows[2][0].lower() in ("date", "datetime") and not any(rows[2][1:])
    names = ["date", *(f"{top} {below}" for top, below in levels)]
    return _Head(skip + 2 + third, delimiter, names, levels)


def _no_rows(where: str) -> Defect:
    return Defect(f"data must have rows, found none ({where})")


def _too_long(length: int, what: str, where: str) -> Defect:
    most = LONGEST_LINE if what == "a line" else LONGEST_CELL
    return Defect(
        f"{what} must be at most {most} characters, got {length} ({where}): no table of prices"
    )


def _formula(text: str, what: str, where: str) -> Defect:
    return Defect(
        f"{what} must not be a formula, got {text[:60]!r} ({where}); a spreadsheet would run it: "
        "write plain values, or drop the column"
    )
