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
from collections.abc import Iterator, Mapping, Sequence
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
    from pyarrow import csv as texts  # noqa: PLC0415 - 20 ms, only when needed

    while data.startswith(codecs.BOM_UTF8):
        data = data[len(codecs.BOM_UTF8) :]
    top = codecs.getincrementaldecoder("utf-8")().decode(data[:TOP])
    lines = [line.rstrip("\r") for line in top.split("\n", LISTED)[:LISTED]]
    asked = {name.lower() for name in chosen.values() if not name.isdigit()}
    row = find_header(lines, asked, where)
    top_line = next(filter(str.strip, lines), "") if row is None else lines[row]
    delimiter, names = split_line(top_line)
    start = 0
    for _ in range(0 if row is None else row + 1):
        start = data.find(b"\n", start) + 1 or len(data)
    if row is None:
        names = [str(number) for number in range(len(names))]
    if not data[start : start + TOP].strip():
        return pd.DataFrame(columns=names)
    own = chosen.get("time", "0" if row is None else "time").lower()
    own = names[int(own)].lower() if own.isdigit() and int(own) < len(names) else own
    stamps = {x: pa.string() for x in names if x.lower() == own or plain_name(x) in ALL_TIMES}
    given = [] if delimiter == "," else lines[row or 0 :]
    commas = [cell for line in given for cell in split_line(line)[1] if _COMMA.fullmatch(cell)]
    if commas and all(_THOUSANDS.fullmatch(cell) for cell in commas):
        raise DataError(
            f"numbers must be read in one way, got {commas[0]!r}, whose comma may be a decimal "
            f"point or a thousands separator ({where}); write them with a point"
        )
    broken: list[Any] = []

    def keep(row: Any) -> str:
        broken.append(row)
        return "error"

    try:
        table = texts.read_csv(
            pa.py_buffer(data).slice(start),
            texts.ReadOptions(column_names=names, block_size=1 << 22),
            texts.ParseOptions(delimiter=delimiter, invalid_row_handler=keep),
            texts.ConvertOptions(
                column_types=stamps, strings_can_be_null=True, decimal_point="," if commas else "."
            ),
        )
    except pa.ArrowInvalid as error:
        if not broken:
            raise
        found, text = broken[0].actual_columns, broken[0].text
        line = data.count(b"\n", 0, data.find(text.encode(), start)) + 1
        wanted = f"{core.count_nouns(len(names), 'cell')}, as line {(row or 0) + 1} has"
        raise DataError(
            f"every line must have {wanted}, line {line} could not be read, it has {found}: "
            f"{text[:60]!r} ({where})"
        ) from error
    odd = [field.name for field in table.schema if "binary" in str(field.type)]
    if odd:
        raise ValueError(f"column {odd[0]!r} is not UTF-8")
    frame: pd.DataFrame = table.to_pandas()
    return frame


def find_header(lines: Sequence[str], asked: set[str], where: str) -> int | None:
    """Return the row of the header among the first lines, None if there is none.

    It holds the names ``asked`` for, or more names that are known than numbers and stamps. Text
    above it is skipped with a warning. A first line of texts alone is a header of other names.
    """
    cells = [split_line(line.lower())[1] if _LETTER.search(line) else [] for line in lines]
    values = [
        sum(map(bool, map(_VALUE.fullmatch, each))) if each else sum(map(line.count, ";\t|,"))
        for each, line in zip(cells, lines, strict=True)
    ]
    found = [
        row
        for row, each in enumerate(cells)
        if asked <= {*each} and (asked or len({*map(plain_name, each)} & HEADS) > values[row])
    ]
    if not found:
        is_header = bool(cells) and not values[0] and any(cells[0])
        return 0 if is_header else None
    row = found[0]
    rows = [above for above in range(row) if values[above] > 1]
    if row and (rows or len(found) > 1):
        other = rows[0] if rows else found[1]
        raise DataError(
            f"a file must have one header, above its rows, line {row + 1} is one and line "
            f"{other + 1} could not be read: {lines[other][:60]!r} ({where})"
        )
    skipped = [line for line in lines[:row] if line.strip()]
    if skipped:
        count = core.count_nouns(len(skipped), "line")
        core.warn_caller(f"{count} above the header skipped, {skipped[0][:60]!r} ({where})")
    return row


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
    where, folder = ", ".join(map(str, paths)), paths[0]
    is_folder = any(path.is_dir() for path in paths)
    if is_folder and len(paths) > 1:
        raise DataError(f"one folder or several files are loaded, got {len(paths)} ({where})")
    files = [parse_name(path) for path in (_list_tables(folder) if is_folder else paths)]
    own = [file for file in files if is_folder and stem_of(file.path) in ROLES]
    named = [file for file in files if file.pair]
    facts: dict[str, Any] = {}
    if any(stem_of(file.path) == "bars" for file in own) or (own and not needs_bars):
        files, facts = own, read_facts(folder / "market.json")
        instrument = facts.get("instrument")
        if options.instrument and instrument and options.instrument != instrument:
            raise DataError(
                f"instrument must be the folder's, got {options.instrument!r} against "
                f"{instrument!r} ({folder / 'market.json'})"
            )
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
        found = ", ".join(path.name for path in inside[:8]) or "nothing"
        raise DataError(f"there must be bars, found {found} ({where}); {_CURE}")
    tables = {role: [file.path for file in files if file.role == role] for role in ROLES}
    for role, given in tables.items():
        stems = {re.sub(r"[\W\d_]+", "", stem_of(path)) for path in given}
        # of different dates they are joined
        if len(given) > 1 and (files is own or len(stems) > 1):
            raise DataError(
                f"one file of {role} is needed, found {given[0].name} and {given[1].name} ({where})"
            )
    return tables, facts


def _list_tables(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if suffix_of(file) in SUFFIXES)


def _choose_files(
    named: Sequence[NamedFile], where: str, options: ReadOptions
) -> tuple[list[NamedFile], dict[str, Any]]:
    """Return the files of one instrument and length of bars, and what they say of it."""

    def lengths(file: NamedFile) -> tuple[str, ...]:
        name = file.timeframe
        is_months = name.endswith(MONTHS)
        return name, name if is_months else format_duration(parse_duration(name, where))

    length = format_duration(options.interval) if options.interval else ""
    bars = [file for file in named if file.role == "bars"]
    for what, wanted, names in (
        ("instrument", options.instrument, lambda file: file.names),
        ("interval", length, lengths),
    ):
        known = sorted({names(file)[0] for file in bars})
        bars = [file for file in bars if not wanted or wanted in names(file)]
        if not bars:
            raise DataError(
                f"{what} must be among the files, got {wanted!r}{did_you_mean(wanted, known)}; "
                f"there are {', '.join(known[:10])} ({where})"
            )
        if len({names(file)[0] for file in bars}) > 1:
            raise DataError(
                f"one {what} is loaded at a time, found {', '.join(known[:10])} ({where}); "
                f"{what}={known[0]!r}, or the paths of its files"
            )
    pair, timeframe = bars[0].pair, bars[0].timeframe
    marks = [file for file in named if file.pair == pair and file.role == "mark"]
    chosen = [file for file in marks if file.timeframe == timeframe]
    facts: dict[str, Any] = {"instrument": bars[0].instrument}
    facts |= {} if timeframe.endswith(MONTHS) else {"interval": timeframe}
    if marks and not chosen:
        others = " and ".join(sorted({file.timeframe for file in marks}))
        facts["filled"] = {"mark": f"not used: mark bars are {others}, bars {timeframe}"}
    funding = [file for file in named if file.pair == pair and file.role == "funding"]
    return [*bars, *chosen, *funding], facts


def check_exists(path: Path) -> None:
    if path.exists():
        return
    parent = path.parent
    near = did_you_mean(path.name, (p.name for p in parent.iterdir())) if parent.is_dir() else ""
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
    found = []
    for path in paths:
        if path.is_dir():
            listed = _list_folder(path, is_named=len(paths) > 1)
            found += listed
            if not listed:
                inside = sorted(x.name for x in path.iterdir() if not x.name.startswith("."))
                names = ", ".join(inside[:8]) or "nothing"
                raise DataError(
                    f"a folder must hold markets, found {names} ({path}); give a folder with a "
                    "folder for each market (bars.*, mark.*, funding.*), or files named as "
                    "freqtrade or Binance's archive does"
                )
        else:  # a file, or a path that is missing: the loader says so
            found.append(MarketSource((parse_name(path).instrument or stem_of(path),), path))
    if instruments is not None:
        if len({*instruments}) < len(instruments):
            raise ParameterError(f"each instrument is given once, got {', '.join(instruments)}")
        return {name: _choose(name, found) for name in instruments}
    named: dict[str, MarketSource] = {}
    for source in found:
        first = named.setdefault(source.names[0], source)
        if first is not source:
            raise DataError(
                f"each market must have a name of its own, {source.names[0]!r} occurs twice "
                f"({first.path}, {source.path}); bt.Markets({{name: Market.load(...), ...}}) names "
                "them"
            )
    return named


def is_panel(paths: Sequence[Path], instruments: Sequence[str] = ()) -> bool:
    """Return whether paths hold several markets, or one in a folder in a folder."""
    if len(instruments) > 1 or (len(paths) > 1 and any(path.is_dir() for path in paths)):
        return True
    if len(paths) != 1 or not paths[0].is_dir() or instruments:
        return False
    found = _list_folder(paths[0])
    return len(found) > 1 or any(each.path != paths[0] for each in found)


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
    found = _list_in_folder(folder, is_named=is_named)
    for path in () if found else sorted(folder.iterdir()):
        if path.is_dir() and not path.name.startswith("."):
            found += _list_in_folder(path, is_named=True)
    return found


def _list_in_folder(folder: Path, *, is_named: bool) -> list[MarketSource]:
    files, own = [parse_name(path) for path in _list_tables(folder)], folder.resolve().name
    if any(stem_of(file.path) == "bars" for file in files):
        said = read_facts(folder / "market.json").get("instrument", "")
        both = (own, said) if is_named else (said, own)
        return [MarketSource(tuple(filter(None, both)), folder)]
    found = []
    pairs = {file.pair: file for file in files if file.pair and file.role == "bars"}
    for file in pairs.values():
        settled = "" if file.is_archive else file.pair.partition("_")[2].partition("_")[2]
        chosen = file.names[0] if len(pairs) > 1 else None
        names = (own, *file.names) if is_named and chosen is None else file.names
        found.append(MarketSource(names, folder, chosen, settled.partition("-")[0]))
    return found


def _choose(name: str, found: Sequence[MarketSource]) -> MarketSource:
    fits = [source for source in found if name in source.names]
    if not fits:
        names = [each for source in found for each in source.names]
        raise ParameterError(
            f"instruments must be among the data, got {name!r}{did_you_mean(name, names)}; there "
            f"are {', '.join(source.names[0] for source in found)}"
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
    for role, given in more.items():
        files[role] = [file for path in given for file in _list_tables(Path(path))]
    length, filled = facts.get("interval"), facts.get("filled", {})
    interval = parse_duration(length, "interval") if length else None
    known_gaps = "zero" if "funding_gaps" in filled else None  # accepted when it was saved
    options = options._replace(
        instrument=facts.get("instrument") or options.instrument,
        interval=options.interval or interval,
        funding_gaps=options.funding_gaps or known_gaps,
        sessions=options.sessions or facts.get("sessions", False),
        synthetic=facts.get("synthetic", False),
    )
    frames = {role: [_read_part(each, role, options) for each in files[role]] for role in ROLES}
    return frames, options, filled


def _read_part(path: Path, role: str, options: ReadOptions) -> SourceFrame:
    lead = "" if role == "bars" else f"{role}."
    chosen = {
        name.removeprefix(lead): theirs
        for name, theirs in options.columns.items()
        if (name.startswith(lead) if lead else "." not in name)
    }
    named = parse_name(path)
    try:
        frame = read_file(path, chosen)
        instrument = options.instrument or named.instrument
        if len(frame):
            frame = rename_columns(frame, role, chosen, str(path), instrument)
    except DataError as error:
        return SourceFrame(path.name, error)
    if role == "funding" and named.pair and not named.is_archive:  # freqtrade's rates
        zeros = ["high", "low", "close", "volume"]
        frame = frame.drop(columns=zeros, errors="ignore").rename(columns={"open": "rate"})
    return SourceFrame(path.name, frame, is_file=True)


def read_frames(
    frames: Frames, options: ReadOptions
) -> tuple[Mapping[str, Subject], Defects, dict[str, str]]:
    """Return the tables, cut to the bars; what is wrong with them, or else what is filled."""
    tables: dict[str, TimedTable] = {}
    defects, filled = Defects(), dict[str, str]()
    interval: int | None = None
    for role in ROLES:
        parts = frames.get(role, ())
        table = timed.read_table(parts, SCHEMAS[role], options.timezone, defects)
        if table is None:
            continue
        if timed.LEAD in table.columns:
            table = settle_rates(table, filled)
        elif role == "funding" and len(parts) > 1:
            # two files may hold the same settlements
            table = table.rows(np.argsort(table.time, kind="stable"))
            table = drop_duplicates(table, "", None)[0]
        if role == "mark" and options.mark_gaps == "last":
            table = table.rows(~lacks_prices(table))
        note_half_precision(parts, role, filled)
        if role == "bars":
            interval = find_interval(table, options, defects)
        tables[role] = apply_repairs(table, role, options.repairs, interval, filled)
    bars = tables.get("bars")
    if bars is not None and (options.since, options.until) != (None, None):
        known = timed.Span(int(bars.time.min()), int(bars.time.max()) + (interval or 0))
        span = known.replace(options.since, options.until)
        tables["bars"] = bars.between(*span)
        is_inside = options.clips or known.has_days_of(span, sessions=options.sessions)
        if not is_inside or not tables["bars"].time.size:
            raise ParameterError(
                "since and until must lie in the days of the bars and hold one, got "
                f"{span} ({bars.name}, {known})"
            )
    if "bars" in tables:
        find_future(tables["bars"], options, defects)
    subjects = make_subjects(tables, interval, sessions=options.sessions)
    find_defects(subjects, options, defects, filled)
    return subjects, defects, filled


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
    time = bars.ordered.time
    given, found = options.interval, timed.spacing(time)
    if options.sessions and found is not None:
        found = int(np.diff(time).min())
    gaps = np.diff(time)
    if gaps.size > 1 and not options.sessions and SHORTEST <= gaps.min() < gaps.max() <= LONGEST:
        defects.append(
            f"bars of calendar months have no one length, they are {gaps.min() // DAY} to "
            f"{gaps.max() // DAY} days long ({bars.name}); load bars of a day or a week, or "
            "sessions=True, which makes each as long as the shortest"
        )
        return None
    length = given or found
    if length is None or length % SECOND:
        apart = f"are {format_duration(length)} apart" if length else "all open at one time"
        defects.append(
            f"the length of a bar must be known, in whole seconds: bars {apart} ({bars.name}); "
            "interval='1h', or more bars"
        )
        return None
    if options.sessions or found is None or found == length:
        return length
    defects.append(
        f"bars must open {format_duration(length)} apart, as given, they open "
        f"{format_duration(found)} apart ({bars.name})"
    )
    return found


def make_subjects(
    tables: Mapping[str, TimedTable], interval: int | None, *, sessions: bool
) -> dict[str, Subject]:
    found, bars = {}, tables.get("bars")
    for role, table in tables.items():
        kept, beside = table, None
        if role != "bars" and bars is not None and interval:
            start, end = int(bars.time.min()), int(bars.time.max()) + interval
            kept = table.between(start - (interval // 4 if role == "funding" else 0), end)
            beside = bars.ordered
        found[role] = Subject(role, kept, table.ordered, interval, sessions, beside)
    return found


def find_defects(
    subjects: Mapping[str, Subject], options: ReadOptions, defects: Defects, filled: dict[str, str]
) -> None:
    """Add what is wrong with tables; if nothing is, note in ``filled`` what gaps are filled."""
    bars, mark, funding = (subjects.get(role) for role in ROLES)
    interval = (bars.interval if bars is not None else None) or 0
    repairs, needed = [], bars.span if bars is not None and interval else None
    for subject, repair, is_asked in (
        (mark, "mark-gaps=last", options.mark_gaps == "last"),
        (funding, "funding-gaps=zero", options.funding_gaps == "zero"),
    ):
        if subject is not None and is_asked and (subject is funding or subject.is_marked.any()):
            repairs.append(repair)
        elif subject is not None and needed is not None:
            needed = needed.within(subject.covered)
    cure = "no bar has all of them: load files that overlap, or leave one out"
    opens = bars.time if needed is not None and bars is not None else np.empty(0, np.int64)
    low, high = needed or (0, 0)
    inside = opens[(opens >= low) & (opens + interval <= high)]
    if inside.size:
        span = rules.name_span(int(inside[0]), int(inside[-1]) + interval)
        cure = f"cut the bars to what is covered, {span}"
    for subject in subjects.values():
        defects += rules.list_defects(subject, cure, repairs)
    if defects or bars is None:
        return
    if mark is not None and not mark.is_marked.all():
        absent = bars.time[~mark.is_marked]
        stretch = timed.Span(int(absent[0]), int(absent[-1]) + interval)
        filled["mark_gaps"] = f"last: {absent.size} of {bars.time.size} bars, {stretch}"
    if funding is None and not options.sessions:
        filled["funding"] = "none given"
    elif repairs and funding is not None and funding.covered is not None:
        holes = timed.missing_settlements(funding.once, *funding.span)
        every = timed.cadence(funding.once)
        missing = int(count_uncovered(funding.span, funding.covered, every).sum())
        missing += sum(lacking for _, _, lacking, _ in holes)
        if missing:
            filled["funding_gaps"] = f"zero: {missing} settlements missing in {funding.span}"


def load_frames(frames: Frames, options: ReadOptions, *, where: str) -> dict[str, Any]:
    """Return the fields of a market, but for its source; raise all that is wrong at once."""
    subjects, defects, filled = read_frames(frames, options)
    defects.refuse(where)
    bars, mark = subjects["bars"].table.ordered, subjects.get("mark")
    fields: dict[str, Any] = {name: bars.columns[name] for name in PRICES}
    for name in PRICES:
        fields[f"mark_{name}"] = marked = fields[name]
        if mark is not None:
            fields[f"mark_{name}"] = marked = marked.copy()
            marked[mark.is_marked] = mark.marked[1].columns[name]
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
        "columns": {key: values for key, values in bars.columns.items() if key not in known},
        "synthetic": options.synthetic,
        "sessions": options.sessions,
        "filled": filled,
    }
