"""Files of market data as frames: CSV, Parquet, Feather and zip, with our names for columns.

Files are untrusted: nothing in them is executed, and nothing is unpacked to disk.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import stat
import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import IO

import pandas as pd
import pyarrow as pa

from backtest.base import DataError, did_you_mean, replace_folder, temporary_folder
from backtest.market.tables import PRICES, TIME_NAMES, Defect, unreadable

SUFFIXES = (".parquet", ".feather", ".csv", ".csv.gz", ".zip")
TIME_ALIASES = ("calc_time", "transact_time", "fundingtime")
FIRST_LINE = "first_line"

LARGEST = 1 << 30
"""Bytes that one file may unpack to, or hold if it is not packed."""

RATIO, SMALL = 200, 16 << 20
"""How many times its packed size a file over SMALL bytes may unpack to; prices reach about 20."""

MOST_CELLS = 400_000_000
"""The largest number of rows times columns, 3 GiB of numbers; files may be compressed a lot."""

LONGEST_TEXT = 1 << 16
"""The largest text of a cell in bytes: it may be stored once and repeated in every row."""

_MAGIC = {b"PAR1": ".parquet", b"ARROW1": ".feather", b"PK\x03\x04": ".zip",
          b"\x1f\x8b": ".gz"}  # fmt: skip
BROKEN = (pa.ArrowException, zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError,
           MemoryError, LookupError, TypeError, AttributeError, NotImplementedError,
           RuntimeError)  # fmt: skip


def suffix_of(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return "".join(suffixes[-2:] if suffixes[-1:] == [".gz"] else suffixes[-1:])


def stem_of(path: Path) -> str:
    return path.name[: len(path.name) - len(suffix_of(path))]


def read_file(path: Path, times: Collection[str] = (), decimal: str = ".") -> pd.DataFrame | Defect:
    """Return the table in a file; ``times`` are names of columns of stamps that we do not know."""
    if suffix_of(path) not in SUFFIXES:
        found = suffix_of(path) or "without a suffix"
        return Defect(f"a file must end in {', '.join(SUFFIXES)}, got {found} ({path})")
    if not path.is_file():  # a pipe would never end
        return Defect(f"a table must be a plain file, got a folder, a pipe or a device ({path})")
    kind = path.suffix.lower()
    try:
        content = _sniff(path)
        if content != kind:
            cure = f"; rename it to {path.stem}{content}" if content in SUFFIXES else ""
            wrong = f"a file named {kind} must be one, its content is {content} ({path})"
            return Defect(wrong + cure)
        if kind in (".parquet", ".feather"):
            return _read_columns(path, kind)
        with path.open("rb") as file:
            data = unpack(file, kind, str(path))
        return data if isinstance(data, Defect) else parse_csv(data, times, str(path), decimal)
    except BROKEN as error:
        return unreadable(error, str(path))


def _sniff(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(4096)
    for magic, suffix in _MAGIC.items():
        if head.startswith(magic):
            return suffix
    return "empty" if not head else "neither table nor text" if b"\0" in head else ".csv"


# ---------------------------------------------------------------------------------------- packed


def unpack(file: IO[bytes], kind: str, where: str, largest: int | None = None) -> bytes | Defect:
    """Return the text in a .csv, .gz or .zip file, under limits."""
    most = LARGEST if largest is None else largest
    packed = file.seek(0, io.SEEK_END)
    file.seek(0)
    if kind == ".gz":
        return _read_limited(gzip.GzipFile(fileobj=file), packed, where, most)
    if kind != ".zip":
        return _read_limited(file, max(packed, SMALL), where, most)
    with zipfile.ZipFile(file) as archive:
        entry = find_entry(archive, where)
        if isinstance(entry, Defect):
            return entry
        with archive.open(entry) as stream:
            return _read_limited(stream, entry.compress_size, f"{where}: {entry.filename}", most)


def find_entry(archive: zipfile.ZipFile, where: str) -> zipfile.ZipInfo | Defect:
    """Return the only file of an archive, a plain one with a name inside its folder."""
    entries = archive.infolist()
    for entry in entries:
        wrong = _find_risk(entry)
        if wrong:
            name = entry.filename[:80]
            return Defect(f"an archive must hold a plain file, {name!r} {wrong} ({where})")
    files = [entry for entry in entries if not entry.is_dir()]
    if len(files) != 1:
        names = ", ".join(entry.filename[:40] for entry in files[:4]) or "nothing"
        return Defect(f"an archive must hold one table, found {len(files)}: {names} ({where})")
    if not files[0].filename.lower().endswith(".csv"):
        name = files[0].filename[:80]
        return Defect(f"an archive must hold a .csv file, found {name!r} ({where})")
    return files[0]


def _find_risk(entry: zipfile.ZipInfo) -> str:
    folders = PurePosixPath(entry.filename.replace("\\", "/")).parts
    if ".." in folders or entry.filename.startswith(("/", "\\")) or ":" in entry.filename:
        return "leads out of its folder"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "is a link"
    return "needs a password" if entry.flag_bits & 1 else ""


def _read_limited(
    stream: IO[bytes] | gzip.GzipFile, packed: int, where: str, largest: int
) -> bytes | Defect:
    content = bytearray()
    while chunk := stream.read(1 << 20):
        content += chunk
        size = len(content)
        if size > largest:
            return Defect(f"a file must hold at most {largest:,} bytes, got more ({where})")
        if size > SMALL and size > RATIO * packed:
            return Defect(
                f"a packed file must unpack to at most {RATIO} times its size, went over "
                f"{size >> 20} MiB from {packed} bytes ({where}); do not trust it"
            )
    return bytes(content)


# ------------------------------------------------------------------------------------------ text


def parse_csv(
    data: bytes, times: Collection[str], where: str, decimal: str = "."
) -> pd.DataFrame | Defect:
    """Return the table in a text, with a header or none: then columns are named by position."""
    from pyarrow import csv  # noqa: PLC0415 - 20 ms, only when needed

    top, _, rest = data.partition(b"\n")
    head = top.decode("utf-8-sig").rstrip("\r")
    delimiter = max(",;\t|", key=head.count)
    names = [cell.strip().strip('"') for cell in head.split(delimiter)]
    skip = 1
    if all(map(_is_number, names)):
        names, skip = [str(number) for number in range(len(names))], 0
    if not (rest if skip else data).strip():
        return Defect(f"data must have rows, found none ({where})")
    known = {*TIME_NAMES, *TIME_ALIASES, *(name.lower() for name in times)}
    stamps = {name: pa.string() for name in names if _plain(name) in known or name.lower() in known}
    table = csv.read_csv(
        pa.BufferReader(data),
        csv.ReadOptions(skip_rows=skip, column_names=names, block_size=1 << 22),
        csv.ParseOptions(delimiter=delimiter),
        csv.ConvertOptions(column_types=stamps, strings_can_be_null=True, decimal_point=decimal),
    )
    odd = [field.name for field in table.schema if "binary" in str(field.type)]
    if odd:
        return unreadable(f"column {odd[0]!r} is not UTF-8", where)
    frame: pd.DataFrame = table.to_pandas()
    if data.rstrip().count(b"\n") + 1 - skip == len(frame):  # no empty lines, no breaks in cells
        frame.attrs[FIRST_LINE] = skip + 1
    return frame


def _is_number(cell: str) -> bool:
    try:
        float(cell or "0")
    except ValueError:
        return cell.lower() in ("true", "false")
    return True


def _plain(name: object) -> str:
    return re.sub(r"\W+", "_", str(name).strip().lower())


# ---------------------------------------------------------------------------- parquet and feather


def _read_columns(path: Path, kind: str) -> pd.DataFrame | Defect:
    from pyarrow import ipc, parquet  # noqa: PLC0415 - as above

    if kind == ".parquet":
        file = parquet.ParquetFile(path)
        cells = file.metadata.num_rows * file.metadata.num_columns
        texts = [field.name for field in file.schema_arrow if pa.types.is_string(field.type)]
        if cells > MOST_CELLS:
            return Defect(f"a table has at most {MOST_CELLS:,} cells, found {cells:,} ({path})")
        # each text once, to look at before it is repeated
        table = (parquet.ParquetFile(path, read_dictionary=texts) if texts else file).read()
    else:
        batches, cells = [], 0
        with path.open("rb") as stream, ipc.open_file(stream) as reader:
            for number in range(reader.num_record_batches):
                batches.append(reader.get_batch(number))
                cells += batches[-1].num_rows * batches[-1].num_columns
                if cells > MOST_CELLS:
                    return Defect(f"a table has at most {MOST_CELLS:,} cells ({path})")
            table = pa.Table.from_batches(batches, reader.schema)
    for place, field in enumerate(table.schema):
        if pa.types.is_nested(field.type) or "binary" in str(field.type):
            found = f"{str(field.type)[:60]} in {field.name!r}"
            rule = "a column must hold numbers, times or text"
            return Defect(f"{rule}, found {found} ({path}); drop the column")
        if pa.types.is_dictionary(field.type):
            longest = max((_longest(chunk.dictionary) for chunk in table[place].chunks), default=0)
            if longest > LONGEST_TEXT:
                rule = f"a cell of text must be short, got {longest} bytes"
                return Defect(f"{rule} in {field.name!r} ({path})")
    table.validate(full=True)  # texts that are no UTF-8 raise here, not where they are used
    frame: pd.DataFrame = table.to_pandas()
    for name in frame.columns[[kind == "category" for kind in frame.dtypes]]:
        frame[name] = frame[name].astype(object)
    return frame


def _longest(texts: pa.Array) -> int:
    from pyarrow import compute  # noqa: PLC0415 - as above

    is_text = pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)
    return int(compute.max(compute.binary_length(texts)).as_py() or 0) if is_text else 0


# --------------------------------------------------------------------------- names of columns

_KLINES = ("open_time", *PRICES, "volume", "close_time", "quote_volume", "count",
           "taker_buy_volume", "taker_buy_quote_volume", "ignore")  # fmt: skip
_TRADES = ("agg_trade_id", "price", "quantity", "first_trade_id", "last_trade_id", "transact_time",
           "is_buyer_maker", "is_best_match")  # fmt: skip
_HEADLESS = {
    ("bars", 12): _KLINES,
    ("mark", 12): _KLINES,
    ("bars", 6): ("time", *PRICES, "volume"),
    ("mark", 6): ("time", *PRICES, "volume"),
    ("mark", 5): ("time", *PRICES),
    ("bars", 7): _TRADES[:7],
    ("bars", 8): _TRADES,
    ("funding", 3): ("calc_time", "funding_interval_hours", "last_funding_rate"),
}  # fmt: skip
_NAMES = {
    "close_time": {"open_time": "time"},
    "last_funding_rate": {"calc_time": "time", "last_funding_rate": "rate", "mark_price": "mark"},
    "fundingrate": {
        "fundingtime": "time", "timestamp": "time", "fundingrate": "rate", "markprice": "mark"
    },
}  # fmt: skip
"""Binance's names of columns and ours, by a column that only such a table has."""

_OF_TRADES = {"transact_time": "time", "quantity": "size", "qty": "size", "amount": "size"}
_UNUSED = re.compile("close_time|quote_.*|count|number_of_trades|taker_buy_.*|ignore")
_EXTRAS = {"dividends", "stock_splits", "capital_gains"}


def rename_columns(
    frame: pd.DataFrame, role: str, chosen: Mapping[str, str], where: str
) -> pd.DataFrame | Defect:
    """Return a frame with our names: those chosen, or as freqtrade and Binance's files say."""
    if chosen:
        return _choose(frame, chosen, where)
    if frame.columns.tolist() == [str(number) for number in range(frame.shape[1])]:
        names = _HEADLESS.get((role, frame.shape[1]))
        if names is None:
            return Defect(
                f"a table of {role} without a header must have a known number of columns, found "
                f"{frame.shape[1]} ({where}); write a header, or give columns="
                "{'time': 0, 'open': 1, ...}"
            )
        frame = frame.set_axis(list(names), axis=1)
    plain = frame.set_axis([_plain(name) for name in frame.columns], axis=1)
    known = {*plain.columns}
    for mark, venue_names in _NAMES.items():
        if mark in known and (mark != "close_time" or "open_time" in known):
            is_kline = mark == "close_time"
            kept = [
                name
                for name in plain
                if (not _UNUSED.fullmatch(str(name)) if is_kline else name in venue_names)
            ]
            return plain[kept].rename(columns=venue_names)
    if "price" in known and "open" not in known:
        return plain.rename(columns=_OF_TRADES)
    if {"open", "close"} <= {*map(str, frame.columns)} or "open" not in known:
        return frame
    times = [name for name in TIME_NAMES if name in known]
    dates = [name for name, kind in plain.dtypes.items() if kind.kind == "M" and name not in times]
    left_out = {*_EXTRAS, *times[1:], *dates}
    named = plain.rename_axis(index=_plain(frame.index.name or "") or None)
    return named[[name for name in plain.columns if name not in left_out]]


def _choose(frame: pd.DataFrame, chosen: Mapping[str, str], where: str) -> pd.DataFrame | Defect:
    known = list(map(str, frame.columns))
    taken = {}
    for name, theirs in chosen.items():
        if theirs in known:
            taken[name] = frame.iloc[:, known.index(theirs)]
        elif theirs.isdigit() and int(theirs) < len(known):
            taken[name] = frame.iloc[:, int(theirs)]
        elif frame.index.name == theirs:
            taken[name] = frame.index.to_series()
        else:
            return Defect(
                f"the column for {name!r} must be in the file, {theirs!r} is "
                f"not{did_you_mean(theirs, known)} ({where}); choose among "
                f"{', '.join(known[:12])}, or a position from 0"
            )
    # a column of times under our name, or the index that the frame has already
    return pd.DataFrame({name: values.array for name, values in taken.items()},
                        index=None if "time" in taken else frame.index)  # fmt: skip


# ---------------------------------------------------------------------------------------- writing


def write_folder(
    place: str | Path, tables: Mapping[str, pd.DataFrame], facts: Mapping[str, object]
) -> Path:
    """Write tables and facts to a new folder: all of it, or nothing."""
    folder = Path(place)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(
            f"a market is saved to a new or empty folder, this one is in use ({folder})"
        )
    try:
        with temporary_folder(folder.parent, ".draft-") as temporary:
            draft = temporary / folder.name
            draft.mkdir()
            for name, frame in tables.items():
                write_table(frame, draft / f"{name}.parquet")
            text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
            (draft / "market.json").write_text(text, encoding="utf-8")
            replace_folder(draft, folder, ".older-")
    except OSError as error:
        raise DataError(f"cannot write the market ({folder}): {error}") from error
    return folder


def write_table(frame: pd.DataFrame, path: Path) -> None:
    frame.reset_index().to_parquet(path, index=False, compression="zstd")
