"""Tables in files: CSV, gzip, zip, Parquet and Feather, as frames.

Files are untrusted: nothing in them is executed, and nothing is unpacked to disk.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, NamedTuple

from backtest import core
from backtest.core import DataError, did_you_mean
from backtest.core.code_names import pa, pd
from backtest.market.names import ALL_TIMES, HEADS
from backtest.market.tables import (
    plain_name,
)

SUFFIXES = (".parquet", ".feather", ".csv", ".csv.gz", ".zip")

_VALUE = re.compile(
    r"(?i)[-+]?(\d[\d.,]*|[.,]\d+)(e[-+]?\d+)?|[-+]?(nan|inf(inity)?)|true|false"
    r"|\d{1,4}([-/.])\d{1,2}\4\d{1,4}.*"
)
_LETTER = re.compile(r"[^\W\d_]")
_COMMA = re.compile(r"[-+]?\d+,\d+")
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2},\d{3}")

TOP = 1 << 16
LISTED = 100
"""Bytes and lines in which the header of a text is looked for."""

LARGEST = 1 << 30
"""Bytes of text that one file may hold or unpack to; a table may hold four times as many."""
PIECE = 1 << 20
"""Bytes that are unpacked at once."""


def suffix_of(path: Path) -> str:
    """Return the suffix of a file in small letters; two of ``.csv.gz``."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"]:
        return "".join(suffixes[-2:])
    return "".join(suffixes[-1:])


def stem_of(path: Path) -> str:
    return path.name[: len(path.name) - len(suffix_of(path))]


def read_file(path: Path, chosen: Mapping[str, str] = MappingProxyType({})) -> pd.DataFrame:
    """Return the table in a file: CSV, packed or not, Parquet or Feather.

    ``chosen`` has the names of its columns by ours, where a user gave them. Raises DataError for a
    file that is missing, damaged, of another kind, or too large: the size is known before it is
    read.
    """
    from pyarrow import ipc, parquet  # noqa: PLC0415 - 20 ms, only when needed
    from pyarrow.dataset import dataset  # noqa: PLC0415 - likewise

    check_exists(path)
    kind = suffix_of(path)
    if kind not in SUFFIXES:
        got = kind or "without a suffix"
        raise DataError(f"a file must end in {', '.join(SUFFIXES)}, got {got} ({path})")
    if not path.is_file():  # a pipe would never end
        raise DataError(f"a table must be a plain file, got a folder, a pipe or a device ({path})")

    with reading(str(path)), path.open("rb") as file:
        if kind not in (".parquet", ".feather"):
            return parse_csv(unpack(file, path.suffix.lower(), str(path)), chosen, str(path))

        # The size is known before anything is read.
        if kind == ".parquet":
            opened = parquet.ParquetFile(file)
            n_rows = opened.metadata.num_rows
            n_columns = opened.metadata.num_columns
            read = opened.read
        else:
            opened = ipc.open_file(file)
            n_rows = dataset(path, format="ipc").count_rows()
            n_columns = len(opened.schema)
            read = opened.read_all
        if n_rows * n_columns * 8 > 4 * LARGEST:
            raise DataError(
                f"a file must hold at most {4 * LARGEST:,} bytes, got {n_rows:,} rows of "
                f"{n_columns:,} columns ({path})"
            )

        table = read()
        table.validate(full=True)  # texts that are no UTF-8 raise here, not where they are used
        # Each column is freed as soon as it is converted, or is the column of the frame.
        frame: pd.DataFrame = table.to_pandas(split_blocks=True, self_destruct=True)
        del table
    return frame


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Raise DataError for whatever a file that is not whole or readable raises."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        short = str(error).strip().split("\n")[0][:160] or type(error).__name__
        cure = suggest_format(error)
        raise DataError(
            f"a file must be whole and readable, got one that is not: {short} ({where}){cure}"
        ) from error


def suggest_format(error: Exception) -> str:
    """Return the cure of a file whose first bytes or name are those of another format."""
    if isinstance(error, gzip.BadGzipFile) and str(error).startswith("Not a gzipped"):
        return "; if it is not packed, call it .csv"
    if not isinstance(error, UnicodeDecodeError):
        return ""

    first = bytes(error.object[:2])
    if first in (b"\xff\xfe", b"\xfe\xff"):
        return "; it is written in UTF-16: save it in UTF-8"
    if first == b"\x1f\x8b":
        return "; it is packed: call it .csv.gz"
    return "; save it in UTF-8"


def unpack(file: IO[bytes], kind: str, where: str) -> bytearray:
    """Return the text in a file, unpacked; raise before it is more than the largest size."""
    if kind == ".zip":
        return unpack_zip(file, where)
    stream: Any = file
    if kind == ".gz":
        stream = gzip.GzipFile(fileobj=file)
    return read_bounded(stream, where)


def unpack_zip(file: IO[bytes], where: str) -> bytearray:
    """Return the only text in an archive; DataError if it holds something else, or too much."""
    with zipfile.ZipFile(file) as archive:
        entries = [
            entry
            for entry in archive.infolist()
            if not entry.is_dir() and not entry.filename.startswith("__MACOSX/")  # of Finder
        ]
        if len(entries) != 1 or not entries[0].filename.lower().endswith(".csv"):
            listed = ", ".join(entry.filename[:40] for entry in entries[:4]) or "nothing"
            raise DataError(
                f"an archive must hold one .csv, found {len(entries)}: {listed} ({where})"
            )

        check_size(entries[0].file_size, where)  # zipfile reads no more than it says
        with archive.open(entries[0].filename) as entry:
            return read_bounded(entry, where)


def read_bounded(stream: IO[bytes], where: str) -> bytearray:
    """Read a stream in pieces, into memory of little more than what it holds so far."""
    data = bytearray()
    while piece := stream.read(PIECE):
        check_size(len(data) + len(piece), where)
        data += piece
    return data


def check_size(size: int, where: str) -> None:
    if size > LARGEST:
        raise DataError(f"a file must hold at most {LARGEST:,} bytes, got more ({where})")


def parse_csv(data: bytes | bytearray, chosen: Mapping[str, str], where: str) -> pd.DataFrame:
    """Return the table in a CSV text. Without a header its columns are named "0", "1", and so on.

    ``chosen`` maps our names of columns, such as "time", to those of the text, where the user gave
    them; a number there is the position of a column. ``where`` is the file, for messages. Columns
    of times are returned as texts, as another function reads them. Raises DataError, or ValueError
    for a column that is not UTF-8.
    """
    # Byte order marks at the start are no part of the text; some programs write several.
    while data.startswith(codecs.BOM_UTF8):
        data = data[len(codecs.BOM_UTF8) :]
    # The first lines show the header and the delimiter. TOP may cut a letter of several bytes: an
    # incremental decoder leaves it out, where others raise.
    top = codecs.getincrementaldecoder("utf-8")().decode(data[:TOP])
    lines = [line.rstrip("\r") for line in top.split("\n", LISTED)[:LISTED]]

    # The header must have the names that the user gave. Positions, which are digits, need none.
    asked = {name.lower() for name in chosen.values() if not name.isdigit()}
    head = read_head(data, lines, asked, where)
    names = head.names
    # Nothing but blanks after the header: a table without rows.
    if not data[head.start : head.start + TOP].strip():
        return pd.DataFrame(columns=names)

    # Columns of times: the one that was chosen, or the usual one, and all with a known name.
    time_name = chosen.get("time", head.usual_time).lower()
    if time_name.isdigit() and int(time_name) < len(names):
        time_name = names[int(time_name)].lower()
    stamps = [name for name in names if name.lower() == time_name or plain_name(name) in ALL_TIMES]

    # Where a comma does not separate the cells, it may be the decimal point of the numbers.
    decimal_point = "."
    if head.delimiter != "," and has_decimal_commas(lines[head.line :], where):
        decimal_point = ","

    table = read_rows(
        data,
        head.start,
        names,
        stamps=stamps,
        delimiter=head.delimiter,
        decimal_point=decimal_point,
        header=head.line,
        where=where,
    )
    for field in table.schema:
        if "binary" in str(field.type):
            raise ValueError(f"column {field.name!r} is not UTF-8")
    frame: pd.DataFrame = table.to_pandas()
    return frame


class TextHead(NamedTuple):
    """What the first lines of a text say of its rows.

    ``start`` is the byte at which rows begin, ``line`` that of the header, counted from 0, and 0
    without one. ``usual_time`` is the column of stamps where none is chosen: a name, or a position.
    """

    names: list[str]
    delimiter: str
    start: int
    line: int
    usual_time: str


def read_head(
    data: bytes | bytearray, lines: Sequence[str], asked: set[str], where: str
) -> TextHead:
    """Return names of columns, delimiter and first row of a CSV text, from its first ``lines``.

    Without a header, names are the positions "0", "1", and so on, and times stand in the first
    column. ``asked`` are names of columns, in small letters, that a header must have.
    """
    line = find_header(lines, asked, where)
    # No header: the first line with any text is a row, and tells how many columns there are.
    if line is None:
        first_line = next(filter(str.strip, lines), "")
        delimiter, cells = split_line(first_line)
        positions = [*map(str, range(len(cells)))]
        return TextHead(positions, delimiter, start=0, line=0, usual_time="0")

    delimiter, names = split_line(lines[line])
    start = find_line(data, line + 1)
    return TextHead(names, delimiter, start=start, line=line, usual_time="time")


def find_line(data: bytes | bytearray, number: int) -> int:
    """Return where a line of a text begins, counted from 0; its end if it has fewer."""
    start = 0
    for _ in range(number):
        start = data.find(b"\n", start) + 1 or len(data)
    return start


def has_decimal_commas(lines: Sequence[str], where: str) -> bool:
    """Return whether numbers have commas for decimal points, by the first lines of a text.

    Raises DataError if every comma may as well separate thousands, as in 1,234.
    """
    numbers: list[str] = []
    for line in lines:
        _, cells = split_line(line)
        numbers += filter(_COMMA.fullmatch, cells)
    if numbers and all(map(_THOUSANDS.fullmatch, numbers)):
        raise DataError(
            f"numbers must be read in one way, got {numbers[0]!r}, whose comma may be a decimal "
            f"point or a thousands separator ({where}); write them with a point"
        )
    return bool(numbers)


def read_rows(
    data: bytes | bytearray,
    start: int,
    names: Sequence[str],
    *,
    stamps: Sequence[str],
    delimiter: str,
    decimal_point: str,
    header: int,
    where: str,
) -> pa.Table:
    """Return the rows of a text from byte ``start`` on, with ``names`` for their columns.

    Columns of ``stamps`` stay texts. ``header`` is the line of the header, counted from 0, and
    ``where`` the file: both for the message of the DataError that a row of another length raises.
    """
    from pyarrow import csv as texts  # noqa: PLC0415 - 20 ms, only when needed

    broken: list[Any] = []

    def keep(row: Any) -> str:
        """Keep the first row that does not fit, for the message, and stop reading."""
        broken.append(row)
        return "error"

    try:
        return texts.read_csv(
            pa.py_buffer(data).slice(start),
            texts.ReadOptions(column_names=names, block_size=1 << 22),
            texts.ParseOptions(delimiter=delimiter, invalid_row_handler=keep),
            texts.ConvertOptions(
                column_types=dict.fromkeys(stamps, pa.string()),
                strings_can_be_null=True,
                decimal_point=decimal_point,
            ),
        )
    except pa.ArrowInvalid as error:
        if not broken:
            raise
        # pyarrow does not say the line, so the row is looked for in the text.
        text = broken[0].text
        line = data.count(b"\n", 0, data.find(text.encode(), start)) + 1
        wanted = f"{core.count_nouns(len(names), 'cell')}, as line {header + 1} has"
        raise DataError(
            f"every line must have {wanted}, line {line} could not be read, it has "
            f"{broken[0].actual_columns}: {text[:60]!r} ({where})"
        ) from error


def find_header(lines: Sequence[str], asked: set[str], where: str) -> int | None:
    """Return which of the first lines of a CSV text is its header, from 0; None if there is none.

    A line is a header if it has all names that were ``asked`` for. If none were, it is one if it
    has more names of columns that are known than values (numbers and times). Failing that, a first
    line of words without values is a header of unknown names. Text above the header is skipped with
    a warning; rows above it, or a second header, raise DataError.
    """
    # Lines that may be the header, and how many values each line has.
    headers = []
    n_values = []
    for row, line in enumerate(lines):
        # A line without letters names no column, and need not be split.
        cells: list[str] = []
        if _LETTER.search(line):
            _, cells = split_line(line.lower())
        n_values.append(count_values(line, cells))

        n_known = len({*map(plain_name, cells)} & HEADS)
        has_all_asked = asked <= {*cells}
        if has_all_asked and (asked or n_known > n_values[row]):
            headers.append(row)

    if not headers:
        is_text_alone = bool(lines and _LETTER.search(lines[0]) and not n_values[0])
        return 0 if is_text_alone else None

    # Lines with values above the header, and later headers: the file holds more than one table.
    header = headers[0]
    others = [row for row in range(header) if n_values[row] > 1]
    others += headers[1:]
    if header and others:
        other = others[0]
        raise DataError(
            f"a file must have one header, above its rows, line {header + 1} is one and line "
            f"{other + 1} could not be read: {lines[other][:60]!r} ({where})"
        )
    skipped = [line for line in lines[:header] if line.strip()]
    if skipped:
        count = core.count_nouns(len(skipped), "line")
        core.warn_caller(f"{count} above the header skipped, {skipped[0][:60]!r} ({where})")
    return header


def count_values(line: str, cells: Sequence[str]) -> int:
    """Return how many numbers and times a line has.

    A line without letters was not split, ``cells`` are empty: there all cells are values, and its
    delimiters are counted.
    """
    if cells:
        return len([*filter(_VALUE.fullmatch, cells)])
    return sum(map(line.count, ";\t|,"))


def split_line(line: str) -> tuple[str, list[str]]:
    """Return the delimiter of a line of a CSV text, and its cells without blanks around them.

    A comma, unless the line has semicolons, tabs or bars: then the most frequent of all. If one of
    these is as frequent as the comma, commas are decimal points.
    """
    delimiter = ","
    if re.search(r"[;\t|]", line):
        delimiter = max(";\t|,", key=line.count)
    cells = next(csv.reader([line], delimiter=delimiter), [])
    return delimiter, [*map(str.strip, cells)]


def write_table(frame: pd.DataFrame, path: Path) -> None:
    frame.reset_index().to_parquet(path, index=False, compression="zstd")


def check_exists(path: Path) -> None:
    if path.exists():
        return
    near = ""
    if path.parent.is_dir():
        near = did_you_mean(path.name, (entry.name for entry in path.parent.iterdir()))
    raise DataError(f"a path must exist, {str(path)!r} does not{near}; searched from {Path.cwd()}")
