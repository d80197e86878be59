"""Tables in files: CSV, Parquet, Feather. Reading never runs code; writing is atomic."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa

from backtest.errors import DataError
from backtest.sources.defects import Defect
from backtest.sources.times import TIME_NAMES

SUFFIXES = (".parquet", ".feather", ".csv")

_MAGIC = {b"PAR1": ".parquet", b"ARROW1": ".feather", b"FEA1": ".feather"}


def read_file(path: Path) -> pd.DataFrame | Defect:
    """Return a file as a frame, or why it cannot be read.

    Parameters
    ----------
    path : Path
        Its ending says what it is, and its first bytes must agree.
    """
    if path.suffix not in SUFFIXES:
        return Defect(
            f"a file must end in {', '.join(SUFFIXES)}",
            f"was {path.suffix or 'without an ending'}",
            str(path),
            "convert it, for example with pandas: frame.to_parquet('bars.parquet')",
        )
    try:
        content = _sniff(path)
        if content != path.suffix:
            return _mislabelled(path, content)
        return _read(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0][:160]
        return Defect(
            "a file must be whole and readable",
            f"was not: {reason}",
            str(path),
            "download or write it again",
        )


def _read(path: Path) -> pd.DataFrame:
    if path.suffix == ".csv":
        return _read_csv(path)
    if path.suffix == ".feather":
        from pyarrow import feather  # noqa: PLC0415 - 20 ms, only when needed

        return _to_pandas(feather.read_table(path, memory_map=False))
    from pyarrow import parquet  # noqa: PLC0415 - as above

    return _to_pandas(parquet.ParquetFile(path).read())


def _read_csv(path: Path) -> pd.DataFrame:
    from pyarrow import csv  # noqa: PLC0415 - as above

    stamps = dict.fromkeys(TIME_NAMES, pa.string())  # times.py reads them: it minds the zone
    options = csv.ConvertOptions(column_types=stamps, strings_can_be_null=True)
    return _to_pandas(csv.read_csv(path, convert_options=options))


def _to_pandas(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _sniff(path: Path) -> str:
    """Return the ending that a file's first bytes ask for, or what else it seems to be."""
    with path.open("rb") as file:
        head = file.read(4096)
    if not head:
        return "empty"
    for magic, suffix in _MAGIC.items():
        if head.startswith(magic):
            return suffix
    return "neither table nor text" if b"\0" in head or head[:2] == b"\x1f\x8b" else ".csv"


def _mislabelled(path: Path, content: str) -> Defect:
    known = content in SUFFIXES
    return Defect(
        f"a file named {path.suffix} must be one",
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
    draft = folder.parent / f".{folder.name}.{os.getpid()}.draft"
    try:
        draft.mkdir(parents=True)
        for name, frame in tables.items():
            frame.reset_index().to_parquet(
                draft / f"{name}.parquet", index=False, compression="zstd"
            )
        text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
        (draft / "market.json").write_text(text, encoding="utf-8")
        if folder.exists():
            folder.rmdir()
        draft.replace(folder)
    except OSError as error:
        raise DataError(
            f"a market must be written whole, was not: {error}",
            where=str(folder),
            cure="check the path, the rights and the space on the disk",
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
