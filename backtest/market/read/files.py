"""Tables in files of many kinds. Reading never runs code or unpacks to disk; writing is atomic."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa

from backtest.base.atomic_files import replace_folder, temporary_folder
from backtest.base.errors import DataError
from backtest.base.phrases import Either, Phrase
from backtest.market.read import packed_files
from backtest.market.read.arrow_files import read_feather, read_parquet
from backtest.market.read.csv_files import check_cells, read_csv
from backtest.market.read.json_files import read_json
from backtest.market.read.vendors import TIME_ALIASES
from backtest.market.tables.defects import Defect
from backtest.market.tables.times import TIME_NAMES

SUFFIXES = (".parquet", ".feather", ".csv", ".json", ".csv.gz", ".json.gz", ".zip")

_MAGIC = {b"PAR1": ".parquet", b"ARROW1": ".feather", b"FEA1": ".feather", b"PK\x03\x04": ".zip",
          b"\x1f\x8b": ".gz"}  # fmt: skip
_TEXTS = (".csv", ".json")
_TIMES = {name.replace("_", " ") for name in TIME_ALIASES} | {*TIME_NAMES, *TIME_ALIASES}


def suffix_of(path: Path) -> str:
    """Return a file's ending, of both words where it is packed.

    Examples
    --------
    >>> suffix_of(Path("a/BTC_USDT-1h.json.gz")), suffix_of(Path("bars.v2.CSV"))
    ('.json.gz', '.csv')
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return "".join(suffixes[-2:] if suffixes[-1:] == [".gz"] else suffixes[-1:])


def stem_of(path: Path) -> str:
    """Return a file's name without its ending."""
    return path.name[: len(path.name) - len(suffix_of(path))]


def read_file(path: Path, times: Collection[str] = (), decimal: str = ".") -> pd.DataFrame | Defect:
    """Return a file as a frame, or why it cannot be read.

    Parameters
    ----------
    path : Path
        Its ending says what it is, and its first bytes must agree.
    times : collection of str
        Further names of columns of times, besides the usual ones.
    decimal : str
        What stands before the decimals in a CSV, ``"."`` or ``","``.
    """
    if suffix_of(path) not in SUFFIXES:
        return Defect(
            f"a file must end in {', '.join(SUFFIXES)}",
            f"was {suffix_of(path) or 'without an ending'}",
            str(path),
            Phrase(
                "convert it{}",
                Either(", for example with pandas: frame.to_parquet('bars.parquet')", ""),
            ),
        )
    if not path.is_file():  # a pipe would never end
        found = "was a folder, a pipe or a device, or is gone"
        return Defect("a table must be a plain file", found, str(path), "give the path of a file")
    try:
        content, suffix = _sniff(path), path.suffix.lower()
        if content != suffix and not (content in _TEXTS and suffix in _TEXTS):
            return _mislabelled(path, content)
        frame = _read(path, times, decimal)
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        reason = str(error).strip().split("\n")[0][:160]
        return Defect(
            "a file must be whole and readable",
            f"was not: {reason}",
            str(path),
            "download or write it again",
        )
    if isinstance(frame, Defect):
        return frame
    return check_cells(frame, where=str(path)) or frame


def _read(path: Path, times: Collection[str], decimal: str) -> pd.DataFrame | Defect:
    packing = path.suffix.lower()
    if packing == ".feather":
        return read_feather(path)
    if packing == ".parquet":
        return read_parquet(path)
    unpack = {".zip": packed_files.unpack_zip, ".gz": packed_files.unpack_gzip}.get(packing)
    content = unpack(path) if unpack else packed_files.read_bytes(path)
    if isinstance(content, Defect):
        return content
    suffix = Path(content.name).suffix.lower()
    if suffix == ".json":
        return read_json(content, where=str(path))
    if suffix == ".csv":
        known = _TIMES | {name.lower() for name in times}
        return read_csv(content, known, where=str(path), decimal=decimal)
    return Defect(
        "an archive must hold a .csv or .json file",
        f"found {content.name[:80]!r}",
        str(path),
        "unpack it and convert what is inside",
    )


def _sniff(path: Path) -> str:
    """Return the ending that a file's first bytes ask for, or what else it seems to be."""
    with path.open("rb") as file:
        head = file.read(4096)
    if not head:
        return "empty"
    for magic, suffix in _MAGIC.items():
        if head.startswith(magic):
            return suffix
    return "neither table nor text" if b"\0" in head else ".csv"


def _mislabelled(path: Path, content: str) -> Defect:
    known = content in SUFFIXES
    return Defect(
        f"a file named {path.suffix.lower()} must be one",
        f"its content is {content}",
        str(path),
        f"rename it to {path.stem}{content}" if known else "download or write it again",
    )


def write_folder(
    folder: Path, tables: Mapping[str, pd.DataFrame], facts: Mapping[str, object]
) -> None:
    """Write frames as ``<name>.parquet`` and facts as ``market.json``, all or nothing.

    Parameters
    ----------
    folder : Path
        Must not exist, or be empty: nothing is ever overwritten.
    tables : mapping of name to DataFrame
        The index is written as a column of its name.
    facts : mapping
        What JSON can hold.

    Raises
    ------
    DataError
        If the folder holds something, or cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(
            "a market is saved to a new or empty folder, this one is in use",
            where=str(folder),
            cure="choose another name, or remove it first",
        )
    try:
        with temporary_folder(folder.parent, ".draft-") as temporary:
            draft = temporary / folder.name
            draft.mkdir()
            write_market(tables, facts, draft)
            replace_folder(draft, folder, ".older-")
    except OSError as error:
        raise DataError(
            f"a market must be written whole, was not: {error}",
            where=str(folder),
            cure="check the path, the rights and the space on the disk",
        ) from error


def write_market(
    tables: Mapping[str, pd.DataFrame], facts: Mapping[str, object], folder: Path
) -> None:
    """Write the files of a market into a folder."""
    for name, frame in tables.items():
        write_table(frame, folder / f"{name}.parquet")
    text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
    (folder / "market.json").write_text(text, encoding="utf-8")


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write one table of a market, its index as a column."""
    frame.reset_index().to_parquet(path, index=False, compression="zstd")
