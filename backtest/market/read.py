"""Files of market data as frames: CSV, Parquet, Feather and zip, with our names for columns.

Files are untrusted: nothing in them is executed, and nothing is unpacked to disk.
"""

from __future__ import annotations

import gzip
import json
import re
import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO

import pandas as pd
import pyarrow as pa

from backtest.base import DataError, did_you_mean, replace_folder, temporary_folder
from backtest.market.tables import PRICES, TIME_NAMES, Defect, unreadable

SUFFIXES = (".parquet", ".feather", ".csv", ".csv.gz", ".zip")
TIME_ALIASES = ("calc_time", "fundingtime")

LARGEST = 1 << 30
"""Bytes of text that one file may hold or unpack to."""

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
    from pyarrow import ipc, parquet  # noqa: PLC0415 - 20 ms, only when needed

    kind = suffix_of(path)
    if kind not in SUFFIXES:
        found = kind or "without a suffix"
        return Defect(f"a file must end in {', '.join(SUFFIXES)}, got {found} ({path})")
    if not path.is_file():  # a pipe would never end
        return Defect(f"a table must be a plain file, got a folder, a pipe or a device ({path})")
    try:
        with path.open("rb") as file:
            if kind not in (".parquet", ".feather"):
                data = unpack(file, path.suffix.lower(), str(path))
                return data if isinstance(data, Defect) else parse_csv(data, times, decimal)
            is_parquet = kind == ".parquet"
            table = (
                parquet.ParquetFile(file).read() if is_parquet else ipc.open_file(file).read_all()
            )
        table.validate(full=True)  # texts that are no UTF-8 raise here, not where they are used
        frame: pd.DataFrame = table.to_pandas()
    except BROKEN as error:
        return unreadable(error, str(path))
    return frame


def unpack(file: IO[bytes], kind: str, where: str, largest: int | None = None) -> bytes | Defect:
    """Return the text in a .csv, .gz or .zip file of one table, at most ``largest`` bytes."""
    most = LARGEST if largest is None else largest
    if kind == ".zip":
        with zipfile.ZipFile(file) as archive:
            names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
            if len(names) != 1 or not names[0].lower().endswith(".csv"):
                found = ", ".join(name[:40] for name in names[:4]) or "nothing"
                return Defect(
                    f"an archive must hold one .csv, found {len(names)}: {found} ({where})"
                )
            with archive.open(names[0]) as stream:
                data = stream.read(most + 1)
    else:
        data = (gzip.GzipFile(fileobj=file) if kind == ".gz" else file).read(most + 1)
    if len(data) > most:
        return Defect(f"a file must hold at most {most:,} bytes, got more ({where})")
    return data


def parse_csv(data: bytes, times: Collection[str], decimal: str = ".") -> pd.DataFrame:
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
        return pd.DataFrame(columns=names)
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
        raise ValueError(f"column {odd[0]!r} is not UTF-8")
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _is_number(cell: str) -> bool:
    try:
        float(cell or "0")
    except ValueError:
        return cell.lower() in ("true", "false")
    return True


def _plain(name: object) -> str:
    return re.sub(r"\W+", "_", str(name).strip().lower())


# --------------------------------------------------------------------------- names of columns

_KLINES = ("open_time", *PRICES, "volume", "close_time", "quote_volume", "count",
           "taker_buy_volume", "taker_buy_quote_volume", "ignore")  # fmt: skip
_HEADLESS = {
    ("bars", 12): _KLINES,
    ("mark", 12): _KLINES,
    ("bars", 6): ("time", *PRICES, "volume"),
    ("mark", 6): ("time", *PRICES, "volume"),
    ("mark", 5): ("time", *PRICES),
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
        if theirs in known or (theirs.isdigit() and int(theirs) < len(known)):
            place = known.index(theirs) if theirs in known else int(theirs)
            taken[name] = frame.iloc[:, place]
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
