"""Files of market data as frames, with our names for columns; and which file holds what.

Files are untrusted: nothing in them is executed, and nothing is unpacked to disk. Layouts are our
own folders, freqtrade's, Binance's archive, or single files.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import re
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, NamedTuple

import numpy as np

from backtest import core
from backtest.core import DataError, ParameterError, did_you_mean, format_duration, parse_duration
from backtest.core.code_names import pa, pd
from backtest.core.units import DAY, SECOND
from backtest.market import rules
from backtest.market import tables as timed
from backtest.market.names import ALL_TIMES, HEADS, rename_columns
from backtest.market.rules import Subject, apply_repairs, count_uncovered, drop_duplicates
from backtest.market.sampled import settle_rates
from backtest.market.tables import (
    PRICES,
    SCHEMAS,
    Defects,
    SourceFrame,
    TimedTable,
    lacks_prices,
    plain_name,
)

SUFFIXES = (".parquet", ".feather", ".csv", ".csv.gz", ".zip")

_VALUE = re.compile(
    r"(?i)[-+]?(\d[\d.,]*|[.,]\d+)(e[-+]?\d+)?|[-+]?(nan|inf(inity)?)|true|false"
    r"|\d{1,4}([-/.])\d{1,2}\4\d{1,4}.*"
)
_LETTER = re.compile(r"[^\W\d_]")
_COMMA, _THOUSANDS = re.compile(r"[-+]?\d+,\d+"), re.compile(r"[-+]?[1-9]\d{0,2},\d{3}")

TOP, LISTED = 1 << 16, 100
"""Bytes and lines in which the header of a text is looked for."""

SHORTEST, LONGEST = 26 * DAY, 36 * DAY
"""How far apart bars of calendar months open, also on days of trading, ns."""

SINCE_1904 = 2_082_844_800 * SECOND
"""From 1904, from which old Macs, QuickTime and LabVIEW count, to 1970, ns."""

HALVES = ("float16", "halffloat[pyarrow]")
HALF = "half_precision"
"""The note of prices that were kept in 16 bits."""

LARGEST = 1 << 30
"""Bytes of text that one file may hold or unpack to; a table may hold four times as many."""
PIECE = 1 << 20
"""Bytes that are unpacked at once."""


def suffix_of(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return "".join(suffixes[-2:] if suffixes[-1:] == [".gz"] else suffixes[-1:])


def stem_of(path: Path) -> str:
    return path.name[: len(path.name) - len(suffix_of(path))]


def read_file(path: Path, chosen: Mapping[str, str] = MappingProxyType({})) -> pd.DataFrame:
    """Return the table in a file; ``chosen`` are the names of its columns by ours, if known."""
    from pyarrow import ipc, parquet  # noqa: PLC0415 - 20 ms, only when needed
    from pyarrow.dataset import dataset  # noqa: PLC0415 - likewise

    check_exists(path)
    kind = suffix_of(path)
    if kind not in SUFFIXES:
        found = kind or "without a suffix"
        raise DataError(f"a file must end in {', '.join(SUFFIXES)}, got {found} ({path})")
    if not path.is_file():  # a pipe would never end
        raise DataError(f"a table must be a plain file, got a folder, a pipe or a device ({path})")
    with reading(str(path)), path.open("rb") as file:
        if kind not in (".parquet", ".feather"):
            return parse_csv(unpack(file, path.suffix.lower(), str(path)), chosen, str(path))
        if kind == ".parquet":
            opened = parquet.ParquetFile(file)
            rows, columns = opened.metadata.num_rows, opened.metadata.num_columns
        else:
            opened = ipc.open_file(file)
            rows, columns = dataset(path, format="ipc").count_rows(), len(opened.schema)
        if rows * columns * 8 > 4 * LARGEST:
            raise DataError(
                f"a file must hold at most {4 * LARGEST:,} bytes, got {rows:,} rows of "
                f"{columns:,} columns ({path})"
            )
        table = opened.read() if kind == ".parquet" else opened.read_all()
        table.validate(full=True)  # texts that are no UTF-8 raise here, not where they are used
        # Each column is freed as soon as it is converted, or is the column of the frame.
        frame: pd.DataFrame = table.to_pandas(split_blocks=True, self_destruct=True)
        del table
    return frame


@contextmanager
def reading(where: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        short = str(error).strip().split("\n")[0][:160] or type(error).__name__
        raise DataError(
            f"a file must be whole and readable, got one that is not: {short} ({where})"
        ) from error


def unpack(file: IO[bytes], kind: str, where: str) -> bytearray:
    """Return the text in a file, unpacked; raise before it is more than the largest size."""
    if kind == ".zip":
        with zipfile.ZipFile(file) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            names = [entry.filename for entry in entries]
            if len(names) != 1 or not names[0].lower().endswith(".csv"):
                found = ", ".join(name[:40] for name in names[:4]) or "nothing"
                raise DataError(
                    f"an archive must hold one .csv, found {len(names)}: {found} ({where})"
                )
            check_size(entries[0].file_size, where)  # zipfile reads no more than it says
            with archive.open(names[0]) as entry:
                return read_bounded(entry, where)
    stream: Any = gzip.GzipFile(fileobj=file) if kind == ".gz" else file
    return read_bounded(stream, where)


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
    """Return the table in a text, with a header or none: then columns are named by position."""
    while data.startswith(codecs.BOM_UTF8):
        data = data[len(codecs.BOM_UTF8) :]
    top = codecs.getincrementaldecoder("utf-8")().decode(data[:TOP])
    lines = [line.rstrip("\r") for line in top.split("\n", LISTED)[:LISTED]]
    asked = {name.lower() for name in chosen.values() if not name.isdigit()}
    header = find_header(lines, asked, where)
    if header is None:
        first_line = next(filter(str.strip, lines), "")
        delimiter, cells = split_line(first_line)
        names = [str(number) for number in range(len(cells))]
        start = 0
    else:
        delimiter, names = split_line(lines[header])
        start = find_line(data, header + 1)
    if not data[start : start + TOP].strip():
        return pd.DataFrame(columns=names)

    own = chosen.get("time", "0" if header is None else "time").lower()
    if own.isdigit() and int(own) < len(names):
        own = names[int(own)].lower()
    stamps = [name for name in names if name.lower() == own or plain_name(name) in ALL_TIMES]
    decimal_point = "."
    if delimiter != "," and has_decimal_commas(lines[header or 0 :], where):
        decimal_point = ","
    table = read_rows(
        data,
        start,
        names,
        stamps=stamps,
        delimiter=delimiter,
        decimal_point=decimal_point,
        header=header or 0,
        where=where,
    )
    odd = [field.name for field in table.schema if "binary" in str(field.type)]
    if odd:
        raise ValueError(f"column {odd[0]!r} is not UTF-8")
    frame: pd.DataFrame = table.to_pandas()
    return frame


def find_line(data: bytes | bytearray, number: int) -> int:
    """Return where a line of a text begins, counted from 0; its end if it has fewer."""
    start = 0
    for _ in range(number):
        start = data.find(b"\n", start) + 1 or len(data)
    return start


def has_decimal_commas(lines: Sequence[str], where: str) -> bool:
    """Return whether numbers have commas for points; raise if these may separate thousands."""
    numbers = []
    for line in lines:
        _, cells = split_line(line)
        numbers += [cell for cell in cells if _COMMA.fullmatch(cell)]
    if numbers and all(_THOUSANDS.fullmatch(number) for number in numbers):
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
    """Return the rows of a text from ``start`` on; raise DataError for one of other length."""
    from pyarrow import csv as texts  # noqa: PLC0415 - 20 ms, only when needed

    broken: list[Any] = []

    def keep(row: Any) -> str:
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
        text = broken[0].text
        line = data.count(b"\n", 0, data.find(text.encode(), start)) + 1
        wanted = f"{core.count_nouns(len(names), 'cell')}, as line {header + 1} has"
        raise DataError(
            f"every line must have {wanted}, line {line} could not be read, it has "
            f"{broken[0].actual_columns}: {text[:60]!r} ({where})"
        ) from error


def find_header(lines: Sequence[str], asked: set[str], where: str) -> int | None:
    """Return the row of the header among the first lines, None if there is none.

    It holds the names ``asked`` for, or more names that are known than numbers and stamps. Text
    above it is skipped with a warning. A first line of texts alone is a header of other names.
    """
    cells_of = [split_line(line.lower())[1] if _LETTER.search(line) else [] for line in lines]
    values = [count_values(line, cells) for line, cells in zip(lines, cells_of, strict=True)]
    headers = []
    for row, cells in enumerate(cells_of):
        n_known = len({*map(plain_name, cells)} & HEADS)
        if asked <= {*cells} and (asked or n_known > values[row]):
            headers.append(row)
    if not headers:
        is_header = bool(cells_of) and not values[0] and any(cells_of[0])
        return 0 if is_header else None

    # Rows above a header, or a second one, are not of its table.
    header = headers[0]
    rows_above = [row for row in range(header) if values[row] > 1]
    if header and (rows_above or len(headers) > 1):
        other = rows_above[0] if rows_above else headers[1]
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
    """Return how many numbers and stamps a line has; without letters all its cells are some."""
    if cells:
        return sum(_VALUE.fullmatch(cell) is not None for cell in cells)
    return sum(map(line.count, ";\t|,"))


def split_line(line: str) -> tuple[str, list[str]]:
    """Return the delimiter of a line and its cells; among as many others, commas are decimal."""
    delimiter = max(";\t|,", key=line.count) if re.search(r"[;\t|]", line) else ","
    cells = next(csv.reader([line], delimiter=delimiter), [])
    return delimiter, [cell.strip() for cell in cells]


def write_table(frame: pd.DataFrame, path: Path) -> None:
    frame.reset_index().to_parquet(path, index=False, compression="zstd")


_FREQTRADE = re.compile(
    r"(?P<pair>[^-]+)-(?P<timeframe>\d+[smhdwM])-(?P<kind>futures|mark|funding_rate)"
)
_KINDS = {"futures": "bars", "mark": "mark", "funding_rate": "funding"}
_BINANCE = re.compile(
    r"(?P<pair>[A-Z0-9]+(_[A-Z0-9]+)?)-(?P<what>\d+(?:mo|[smhdw])|fundingRate)"
    r"-(?P<date>\d{4}-\d\d(-\d\d)?)"
)
MONTHS = ("mo", "M")
"""Ends of the lengths of bars that are calendar months."""
_OTHER_KLINES = ("indexPriceKlines", "premiumIndexKlines")
_FACTS: Mapping[str, type] = {
    **dict.fromkeys(("instrument", "interval"), str),
    **dict.fromkeys(("synthetic", "sessions"), bool),
    "filled": dict,
}
_CURE = (
    "name the files bars.*, mark.* and funding.* (parquet, feather or csv), keep freqtrade's "
    "names (BTC_USDT_USDT-1h-futures.feather) or Binance's (BTCUSDT-1h-2021-01.zip), or give the "
    "path of one file of bars"
)


class NamedFile(NamedTuple):
    """A file by its name; ``pair`` is empty if it is neither freqtrade's nor of the archive."""

    path: Path
    role: str
    pair: str = ""
    timeframe: str = ""
    is_archive: bool = False

    @property
    def instrument(self) -> str:
        return self.pair if self.is_archive else "".join(self.pair.split("_")[:2])

    @property
    def names(self) -> tuple[str, ...]:
        """What the instrument may be called: BTCUSDT, BTC_USDT_USDT or BTC/USDT:USDT."""
        parts = self.pair.split("_")
        own = (self.instrument, self.pair)
        return (*own, f"{parts[0]}/{parts[1]}:{parts[2]}") if len(parts) == 3 else own


def parse_name(path: Path) -> NamedFile:
    """Return the role of a file, and what its name says of the market."""
    stem = stem_of(path)
    if match := _FREQTRADE.fullmatch(stem):
        return NamedFile(path, _KINDS[match["kind"]], match["pair"], match["timeframe"])

    match = _BINANCE.fullmatch(stem)
    if match and not any(name in path.parts for name in _OTHER_KLINES):
        if match["what"] == "fundingRate":
            return NamedFile(path, "funding", match["pair"], is_archive=True)
        role = "mark" if "markPriceKlines" in path.parts else "bars"
        return NamedFile(path, role, match["pair"], match["what"], is_archive=True)

    words = re.split(r"[^a-z]+", stem.lower())
    return NamedFile(path, next((role for role in ROLES if role in words), "bars"))


def find_layout(
    paths: Sequence[Path], options: ReadOptions, *, needs_bars: bool
) -> tuple[dict[str, list[Path]], dict[str, Any]]:
    """Return the files of each role, and what a folder or their names say of the market."""
    for path in paths:
        check_exists(path)
    where = ", ".join(map(str, paths))
    folder = paths[0]
    is_folder = any(path.is_dir() for path in paths)
    if is_folder and len(paths) > 1:
        raise DataError(f"one folder or several files are loaded, got {len(paths)} ({where})")

    # Our own names come first, then those of freqtrade and the archive.
    files = [parse_name(path) for path in (_list_tables(folder) if is_folder else paths)]
    ours = [file for file in files if is_folder and stem_of(file.path) in ROLES]
    named = [file for file in files if file.pair]
    facts: dict[str, Any] = {}
    if any(stem_of(file.path) == "bars" for file in ours) or (ours and not needs_bars):
        files = ours
        facts = _read_folder_facts(folder, options)
    elif any(file.role == "bars" for file in named) and (is_folder or named == files):
        files, facts = _choose_files(named, where, options)
        unused = [file.path.name for file in named if file not in files]
        if unused and not is_folder:
            raise DataError(
                f"files given one by one must belong together, {', '.join(unused)} does not "
                f"({where}); give mark and funding of the same pair, mark of the same bars"
            )
    elif is_folder:
        files = named

    if needs_bars and not any(file.role == "bars" for file in files):
        inside = sorted(folder.iterdir()) if is_folder else paths
        names = ", ".join(path.name for path in inside[:8]) or "nothing"
        raise DataError(f"there must be bars, found {names} ({where}); {_CURE}")
    tables = {role: [file.path for file in files if file.role == role] for role in ROLES}
    for role, parts in tables.items():
        # Files of different dates are joined, others are two tables.
        stems = {re.sub(r"[\W\d_]+", "", stem_of(path)) for path in parts}
        if len(parts) > 1 and (files is ours or len(stems) > 1):
            raise DataError(
                f"one file of {role} is needed, found {parts[0].name} and {parts[1].name} ({where})"
            )
    return tables, facts


def _read_folder_facts(folder: Path, options: ReadOptions) -> dict[str, Any]:
    """Return what a folder of ours says of its market; raise if another instrument is wanted."""
    path = folder / "market.json"
    facts = read_facts(path)
    instrument = facts.get("instrument")
    if options.instrument and instrument and options.instrument != instrument:
        raise DataError(
            f"instrument must be the folder's, got {options.instrument!r} against "
            f"{instrument!r} ({path})"
        )
    return facts


def _list_tables(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if suffix_of(file) in SUFFIXES)


def _choose_files(
    named: Sequence[NamedFile], where: str, options: ReadOptions
) -> tuple[list[NamedFile], dict[str, Any]]:
    """Return the files of one instrument and length of bars, and what they say of it."""

    def list_lengths(file: NamedFile) -> tuple[str, ...]:
        length = file.timeframe
        if length.endswith(MONTHS):
            return (length, length)
        return (length, format_duration(parse_duration(length, where)))

    bars = [file for file in named if file.role == "bars"]
    bars = _choose_one(bars, "instrument", options.instrument, lambda file: file.names, where)
    length = format_duration(options.interval) if options.interval else ""
    bars = _choose_one(bars, "interval", length, list_lengths, where)

    pair = bars[0].pair
    timeframe = bars[0].timeframe
    facts: dict[str, Any] = {"instrument": bars[0].instrument}
    if not timeframe.endswith(MONTHS):
        facts["interval"] = timeframe
    all_marks = [file for file in named if file.pair == pair and file.role == "mark"]
    marks = [file for file in all_marks if file.timeframe == timeframe]
    if all_marks and not marks:
        others = " and ".join(sorted({file.timeframe for file in all_marks}))
        facts["filled"] = {"mark": f"not used: mark bars are {others}, bars {timeframe}"}
    funding = [file for file in named if file.pair == pair and file.role == "funding"]
    return [*bars, *marks, *funding], facts


def _choose_one(
    bars: Sequence[NamedFile],
    noun: str,
    wanted: str,
    list_names: Callable[[NamedFile], tuple[str, ...]],
    where: str,
) -> list[NamedFile]:
    """Return the files of bars of one instrument or length; raise if there are none, or several."""
    known = sorted({list_names(file)[0] for file in bars})
    listed = ", ".join(known[:10])
    chosen = [file for file in bars if not wanted or wanted in list_names(file)]
    if not chosen:
        raise DataError(
            f"{noun} must be among the files, got {wanted!r}{did_you_mean(wanted, known)}; "
            f"there are {listed} ({where})"
        )
    if len({list_names(file)[0] for file in chosen}) > 1:
        raise DataError(
            f"one {noun} is loaded at a time, found {listed} ({where}); "
            f"{noun}={known[0]!r}, or the paths of its files"
        )
    return chosen


def check_exists(path: Path) -> None:
    if path.exists():
        return
    near = ""
    if path.parent.is_dir():
        near = did_you_mean(path.name, (entry.name for entry in path.parent.iterdir()))
    raise DataError(f"a path must exist, {str(path)!r} does not{near}; searched from {Path.cwd()}")


def read_facts(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    facts = core.parse_json(core.read_small(path), path)
    if not isinstance(facts, dict):
        raise DataError(f"market.json must be an object ({path})")
    for key, value in facts.items():
        if key not in _FACTS or not isinstance(value, _FACTS[key]):
            wanted = f"a {_FACTS[key].__name__}" if key in _FACTS else f"one of {', '.join(_FACTS)}"
            raise DataError(
                f"{key!r} in market.json must be {wanted}, got "
                f"{value!r}{did_you_mean(key, _FACTS)} ({path})"
            )
    return facts


class MarketSource(NamedTuple):
    """Where one market is: a path, and the instrument to choose if the path holds several.

    ``names`` are those that it may be called, the default first; ``currency`` is the settlement
    currency, as the files say it.
    """

    names: tuple[str, ...]
    path: Path
    instrument: str | None = None
    currency: str = ""


def find_sources(
    paths: Sequence[Path], instruments: Sequence[str] | None
) -> dict[str, MarketSource]:
    """Return where each market is, by name: those of some instruments, or all of the paths."""
    sources: list[MarketSource] = []
    for path in paths:
        if path.is_dir():
            sources += _list_markets(path, is_named=len(paths) > 1)
        else:  # a file, or a path that is missing: the loader says so
            name = parse_name(path).instrument or stem_of(path)
            sources.append(MarketSource((name,), path))
    if instruments is not None:
        if len({*instruments}) < len(instruments):
            raise ParameterError(f"each instrument is given once, got {', '.join(instruments)}")
        return {name: _choose(name, sources) for name in instruments}

    by_name: dict[str, MarketSource] = {}
    for source in sources:
        first = by_name.setdefault(source.names[0], source)
        if first is not source:
            raise DataError(
                f"each market must have a name of its own, {source.names[0]!r} occurs twice "
                f"({first.path}, {source.path}); bt.Markets({{name: Market.load(...), ...}}) names "
                "them"
            )
    return by_name


def _list_markets(folder: Path, *, is_named: bool) -> list[MarketSource]:
    """Return the markets in a folder; raise DataError if there are none."""
    listed = _list_folder(folder, is_named=is_named)
    if listed:
        return listed
    inside = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    names = ", ".join(inside[:8]) or "nothing"
    raise DataError(
        f"a folder must hold markets, found {names} ({folder}); give a folder with a "
        "folder for each market (bars.*, mark.*, funding.*), or files named as "
        "freqtrade or Binance's archive does"
    )


def is_panel(paths: Sequence[Path], instruments: Sequence[str] = ()) -> bool:
    """Return whether paths hold several markets, or one in a folder in a folder."""
    if len(instruments) > 1 or (len(paths) > 1 and any(path.is_dir() for path in paths)):
        return True
    if len(paths) != 1 or not paths[0].is_dir() or instruments:
        return False
    sources = _list_folder(paths[0])
    return len(sources) > 1 or any(source.path != paths[0] for source in sources)


def find_in_folders(
    paths: Sequence[Path], instrument: str | None
) -> tuple[Sequence[Path], str | None]:
    """Return the paths of one market, and the instrument to load from them."""
    if instrument is None or len(paths) != 1 or not is_panel(paths):
        return paths, instrument
    chosen = _choose(instrument, _list_folder(paths[0]))
    return [chosen.path], chosen.instrument


def _list_folder(folder: Path, *, is_named: bool = False) -> list[MarketSource]:
    """Return the markets in a folder, or else in the folders in it.

    A folder's only market is named after it if ``is_named``, as those of folders in it are.
    """
    sources = _list_in_folder(folder, is_named=is_named)
    if sources:
        return sources
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.name.startswith("."):
            sources += _list_in_folder(path, is_named=True)
    return sources


def _list_in_folder(folder: Path, *, is_named: bool) -> list[MarketSource]:
    files = [parse_name(path) for path in _list_tables(folder)]
    own_name = folder.resolve().name
    if any(stem_of(file.path) == "bars" for file in files):
        said = read_facts(folder / "market.json").get("instrument", "")
        in_order = (own_name, said) if is_named else (said, own_name)
        return [MarketSource(tuple(filter(None, in_order)), folder)]

    pairs = {file.pair: file for file in files if file.pair and file.role == "bars"}
    sources = []
    for file in pairs.values():
        # Of several markets in a folder, each is chosen by its own name.
        names = file.names
        chosen = None
        if len(pairs) > 1:
            chosen = file.names[0]
        elif is_named:
            names = (own_name, *file.names)
        sources.append(MarketSource(names, folder, chosen, find_settlement(file)))
    return sources


def find_settlement(file: NamedFile) -> str:
    """Return the settlement currency that freqtrade's name says, USDT of BTC_USDT_USDT."""
    if file.is_archive:
        return ""
    _, _, after_coin = file.pair.partition("_")
    _, _, settlement = after_coin.partition("_")
    return settlement.partition("-")[0]


def _choose(name: str, sources: Sequence[MarketSource]) -> MarketSource:
    """Return the only source of a name; raise ParameterError if there is none, or several."""
    fits = [source for source in sources if name in source.names]
    if not fits:
        names = [known for source in sources for known in source.names]
        raise ParameterError(
            f"instruments must be among the data, got {name!r}{did_you_mean(name, names)}; there "
            f"are {', '.join(source.names[0] for source in sources)}"
        )
    if len(fits) > 1:
        places = ", ".join(str(source.path) for source in fits)
        raise ParameterError(
            f"instruments must be found once, {name!r} is in {len(fits)} places ({places})"
        )
    return fits[0]


ROLES = ("bars", "mark", "funding")
Frames = Mapping[str, Sequence[SourceFrame]]


class ReadOptions(NamedTuple):
    """How data are read: the arguments of ``Market.load``, times in ns."""

    instrument: str = ""
    interval: int | None = None
    timezone: str | None = None
    mark_gaps: str | None = None
    funding_gaps: str | None = None
    sessions: bool = False
    since: int | None = None
    until: int | None = None
    synthetic: bool = False
    columns: Mapping[str, str] = MappingProxyType({})
    repairs: tuple[str, ...] = ()
    clips: bool = False
    now: int | None = None

    def expression(
        self, paths: Sequence[object], *, loader: str = "Market.load", **more: object
    ) -> str:
        span = {"since": self.since, "until": self.until, "now": self.now}
        shown = {name: getattr(self, name) for name in self._fields[:6]} | {
            "interval": format_duration(self.interval) if self.interval else None,
            **{name: time_text(time) for name, time in span.items() if time is not None},
            "columns": dict(self.columns),
            "repair": ",".join(self.repairs),
            **more,
        }
        arguments = [repr(str(path)) for path in paths]
        arguments += [f"{name}={core.repr_plain(value)}" for name, value in shown.items() if value]
        return f"{loader}({', '.join(arguments)})"


def time_text(time: int) -> str:
    """Return UTC ns as text that is read back to the same ns."""
    return core.format_time(time) if time % SECOND == 0 else pd.Timestamp(time).isoformat()


def read_options(given: Mapping[str, Any]) -> ReadOptions:
    """Read the arguments of a call by name; those that are not about reading are ignored."""
    repair, timezone = given.get("repair", ()), given.get("timezone")
    repairs = rules.parse_repairs([repair] if isinstance(repair, str) else repair)
    ways = dict(each.split("=") for each in repairs if "=" in each)
    core.check_timezone(timezone)
    known = [f"{role}.{name}" for role in ROLES[1:] for name in ("time", *SCHEMAS[role].known)]
    known.append(f"funding.{timed.LEAD}")
    columns = given.get("columns") or {}
    for ours in columns:
        if "." in ours:
            core.Choice(*known).check("columns of another table", ours)
    since, until, now = (
        None if given.get(name) is None else core.to_nanoseconds(given[name], name)
        for name in ("since", "until", "now")
    )
    interval = given.get("interval")
    return ReadOptions(
        instrument=given.get("instrument") or "",
        interval=None if interval is None else core.parse_duration(interval, "interval"),
        timezone=timezone,
        mark_gaps=given.get("mark_gaps") or ways.get("mark-gaps"),
        funding_gaps=given.get("funding_gaps") or ways.get("funding-gaps"),
        sessions=given.get("sessions", False),
        since=since,
        until=until,
        columns={ours: str(theirs) for ours, theirs in columns.items()},
        repairs=repairs,
        now=now,
    )


def load_fields(
    paths: Sequence[Path], options: ReadOptions, **more: Sequence[str]
) -> dict[str, Any]:
    """Return the fields of the market in files, but for its source; ``more`` paths by role."""
    frames, options, filled = open_files(paths, options, more=more)
    fields = load_frames(frames, options, where=", ".join(map(str, paths)))
    return {**fields, "filled": {**fields["filled"], **filled}}


def open_files(
    paths: Sequence[Path],
    options: ReadOptions,
    *,
    needs_bars: bool = True,
    more: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> tuple[Frames, ReadOptions, Mapping[str, str]]:
    """Return the tables in files, and how to read them, with what was noted of them before."""
    files, facts = find_layout(paths, options, needs_bars=needs_bars)
    for role, places in more.items():
        files[role] = [file for place in places for file in _list_tables(Path(place))]

    filled = facts.get("filled", {})
    funding_gaps = options.funding_gaps
    if not funding_gaps and "funding_gaps" in filled:
        funding_gaps = "zero"  # accepted when it was saved
    interval = options.interval
    if not interval and facts.get("interval"):
        interval = parse_duration(facts["interval"], "interval")
    options = options._replace(
        instrument=facts.get("instrument") or options.instrument,
        interval=interval,
        funding_gaps=funding_gaps,
        sessions=options.sessions or facts.get("sessions", False),
        synthetic=facts.get("synthetic", False),
    )
    frames = {role: [_read_part(path, role, options) for path in files[role]] for role in ROLES}
    return frames, options, filled


def _read_part(path: Path, role: str, options: ReadOptions) -> SourceFrame:
    """Return the table of a file with our names of columns, or the error of reading it."""
    named = parse_name(path)
    chosen = _choose_columns(options, role)
    try:
        frame = read_file(path, chosen)
        instrument = options.instrument or named.instrument
        if len(frame):
            frame = rename_columns(frame, role, chosen, str(path), instrument)
    except DataError as error:
        return SourceFrame(path.name, error)

    # freqtrade writes rates as opens of bars whose other prices are 0.
    if role == "funding" and named.pair and not named.is_archive:
        zeros = ["high", "low", "close", "volume"]
        frame = frame.drop(columns=zeros, errors="ignore").rename(columns={"open": "rate"})
    return SourceFrame(path.name, frame, is_file=True)


def _choose_columns(options: ReadOptions, role: str) -> dict[str, str]:
    """Return the names of columns in files of a role: those of bars have no role before them."""
    if role == "bars":
        return {ours: theirs for ours, theirs in options.columns.items() if "." not in ours}
    chosen = {}
    for ours, theirs in options.columns.items():
        if ours.startswith(f"{role}."):
            chosen[ours.removeprefix(f"{role}.")] = theirs
    return chosen


def read_frames(
    frames: Frames, options: ReadOptions
) -> tuple[Mapping[str, Subject], Defects, dict[str, str]]:
    """Return the tables, cut to the bars; what is wrong with them, or else what is filled."""
    tables: dict[str, TimedTable] = {}
    defects = Defects()
    filled: dict[str, str] = {}
    interval: int | None = None
    for role in ROLES:
        parts = frames.get(role, ())
        table = timed.read_table(parts, SCHEMAS[role], options.timezone, defects)
        if table is None:
            continue
        if timed.LEAD in table.columns:
            table = settle_rates(table, filled)
        elif role == "funding" and len(parts) > 1:
            # Two files may hold the same settlements.
            table = table.rows(np.argsort(table.time, kind="stable"))
            table, _ = drop_duplicates(table, "", None)
        if role == "mark" and options.mark_gaps == "last":
            table = table.rows(~lacks_prices(table))
        note_half_precision(parts, role, filled)
        if role == "bars":
            interval = find_interval(table, options, defects)
        tables[role] = apply_repairs(table, role, options.repairs, interval, filled)

    if "bars" in tables:
        tables["bars"] = cut_bars(tables["bars"], options, interval)
        find_future(tables["bars"], options, defects)
    subjects = make_subjects(tables, interval, sessions=options.sessions)
    find_defects(subjects, options, defects, filled)
    return subjects, defects, filled


def cut_bars(bars: TimedTable, options: ReadOptions, interval: int | None) -> TimedTable:
    """Return the bars from ``since`` to ``until``, which must lie in their days."""
    if options.since is None and options.until is None:
        return bars
    known = timed.Span(int(bars.time.min()), int(bars.time.max()) + (interval or 0))
    span = known.replace(options.since, options.until)
    cut = bars.between(*span)
    is_inside = options.clips or known.has_days_of(span, sessions=options.sessions)
    if not is_inside or not cut.time.size:
        raise ParameterError(
            "since and until must lie in the days of the bars and hold one, got "
            f"{span} ({bars.name}, {known})"
        )
    return cut


def note_half_precision(parts: Sequence[SourceFrame], role: str, notes: dict[str, str]) -> None:
    """Tell, and note in ``notes``, which prices were kept in 16 bits, of three digits."""
    for part in parts:
        if isinstance(part.content, DataError):
            continue
        halves = [
            str(name)
            for name, kind in part.content.dtypes.items()
            if plain_name(name) in (*PRICES, "rate", "mark") and str(kind) in HALVES
        ]
        if not halves:
            continue
        note = f"{', '.join(halves)} of {role} in half precision (float16), of three digits"
        notes[HALF] = f"{notes[HALF]}; {note}" if HALF in notes else note
        core.warn_caller(
            f"{note}: 60,017 became 60,032 ({part.name}); give float64, as the source has them"
        )


def find_future(bars: TimedTable, options: ReadOptions, defects: Defects) -> None:
    """Add a defect where the last bar opens after tomorrow: its stamps are of another clock."""
    now = time.time_ns() if options.now is None else options.now
    first, last = int(bars.time.min()), int(bars.time.max())
    if options.synthetic or last <= now + DAY:
        return
    since = first - SINCE_1904
    cure = "give now= if they were generated, or correct the stamps"
    if since >= core.moments.FIRST_EPOCH and last - SINCE_1904 <= now + DAY:
        cure = (
            f"as counted since 1904, as old Macs do, they begin at {core.format_time(since)}: "
            f"less {SINCE_1904 // SECOND:_} in s, {SINCE_1904 // 10**6:_} in ms and "
            f"{SINCE_1904 // 1000:_} in us they count from 1970"
        )
    defects.append(
        f"no bar may open after tomorrow, the last opens at {core.format_time(last)} UTC "
        f"({bars.name}); {cure}"
    )


def find_interval(bars: TimedTable, options: ReadOptions, defects: Defects) -> int | None:
    """Return the length of a bar, ns; add to ``defects`` if it is not known, or not as given."""
    time = bars.ordered.time
    gaps = np.diff(time)
    if gaps.size > 1 and not options.sessions and SHORTEST <= gaps.min() < gaps.max() <= LONGEST:
        defects.append(
            f"bars of calendar months have no one length, they are {gaps.min() // DAY} to "
            f"{gaps.max() // DAY} days long ({bars.name}); load bars of a day or a week, or "
            "sessions=True, which makes each as long as the shortest"
        )
        return None

    apart = timed.spacing(time)
    if options.sessions and apart is not None:
        apart = int(gaps.min())
    length = options.interval or apart
    if length is None or length % SECOND:
        distance = f"are {format_duration(length)} apart" if length else "all open at one time"
        defects.append(
            f"the length of a bar must be known, in whole seconds: bars {distance} ({bars.name}); "
            "interval='1h', or more bars"
        )
        return None
    if options.sessions or apart is None or apart == length:
        return length
    defects.append(
        f"bars must open {format_duration(length)} apart, as given, they open "
        f"{format_duration(apart)} apart ({bars.name})"
    )
    return apart


def make_subjects(
    tables: Mapping[str, TimedTable], interval: int | None, *, sessions: bool
) -> dict[str, Subject]:
    """Return the tables by role, mark and funding cut to the time of the bars."""
    subjects = {}
    bars = tables.get("bars")
    for role, table in tables.items():
        cut = table
        beside = None
        if role != "bars" and bars is not None and interval:
            start = int(bars.time.min())
            if role == "funding":
                start -= interval // 4  # a stamp may be that early and belong to the open
            cut = table.between(start, int(bars.time.max()) + interval)
            beside = bars.ordered
        subjects[role] = Subject(role, cut, table.ordered, interval, sessions, beside)
    return subjects


def find_defects(
    subjects: Mapping[str, Subject], options: ReadOptions, defects: Defects, filled: dict[str, str]
) -> None:
    """Add what is wrong with tables; if nothing is, note in ``filled`` what gaps are filled."""
    bars = subjects.get("bars")
    mark = subjects.get("mark")
    funding = subjects.get("funding")

    # The bars that have all of mark and funding, except where gaps are filled.
    repairs = []
    covered = bars.span if bars is not None and bars.interval else None
    if mark is not None and options.mark_gaps == "last" and mark.is_marked.any():
        repairs.append("mark-gaps=last")
    elif mark is not None and covered is not None:
        covered = covered.within(mark.covered)
    if funding is not None and options.funding_gaps == "zero":
        repairs.append("funding-gaps=zero")
    elif funding is not None and covered is not None:
        covered = covered.within(funding.covered)

    cure = name_covered(bars, covered)
    for subject in subjects.values():
        defects += rules.list_defects(subject, cure, repairs)
    if not defects and bars is not None:
        note_filled(bars, mark, funding, options, filled, has_repairs=bool(repairs))


def name_covered(bars: Subject | None, covered: timed.Span | None) -> str:
    """Return the cure of tables that do not cover the bars: the bars that have all."""
    if bars is not None and covered is not None:
        interval = bars.interval or 0
        is_inside = (bars.time >= covered.start) & (bars.time + interval <= covered.end)
        inside = bars.time[is_inside]
        if inside.size:
            span = rules.name_span(int(inside[0]), int(inside[-1]) + interval)
            return f"cut the bars to what is covered, {span}"
    return "no bar has all of them: load files that overlap, or leave one out"


def note_filled(
    bars: Subject,
    mark: Subject | None,
    funding: Subject | None,
    options: ReadOptions,
    filled: dict[str, str],
    *,
    has_repairs: bool,
) -> None:
    """Note in ``filled`` which bars have no mark of their own, and which settlements lack."""
    if mark is not None and not mark.is_marked.all():
        absent = bars.time[~mark.is_marked]
        stretch = timed.Span(int(absent[0]), int(absent[-1]) + (bars.interval or 0))
        filled["mark_gaps"] = f"last: {absent.size} of {bars.time.size} bars, {stretch}"

    if funding is None:
        if not options.sessions:
            filled["funding"] = "none given"
    elif has_repairs and funding.covered is not None:
        every = timed.cadence(funding.once)
        missing = int(count_uncovered(funding.span, funding.covered, every).sum())
        for _, _, lacking, _ in timed.missing_settlements(funding.once, *funding.span):
            missing += lacking
        if missing:
            filled["funding_gaps"] = f"zero: {missing} settlements missing in {funding.span}"


def load_frames(frames: Frames, options: ReadOptions, *, where: str) -> dict[str, Any]:
    """Return the fields of a market, but for its source; raise all that is wrong at once."""
    subjects, defects, filled = read_frames(frames, options)
    defects.refuse(where)
    bars = subjects["bars"].table.ordered
    mark = subjects.get("mark")

    # A bar without a mark bar has its last prices.
    fields: dict[str, Any] = {name: bars.columns[name] for name in PRICES}
    for name in PRICES:
        marked = fields[name]
        if mark is not None:
            marked = marked.copy()
            marked[mark.is_marked] = mark.marked[1].columns[name]
        fields[f"mark_{name}"] = marked

    settled = TimedTable("", np.empty(0, np.int64), {"rate": np.empty(0)})
    if "funding" in subjects:
        settled = subjects["funding"].table.ordered
    known = SCHEMAS["bars"].known
    return {
        **fields,
        "time": bars.time,
        "volume": bars.columns.get("volume", np.zeros(bars.time.size)),
        "funding_time": settled.time,
        "funding_rate": settled.columns["rate"],
        "funding_mark": settled.columns.get("mark", np.full(settled.time.size, np.nan)),
        "instrument": options.instrument,
        "interval": subjects["bars"].interval,
        "has_mark": mark is not None,
        "columns": {name: values for name, values in bars.columns.items() if name not in known},
        "synthetic": options.synthetic,
        "sessions": options.sessions,
        "filled": filled,
    }
