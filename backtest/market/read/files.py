"""Files of market data: read without running code or unpacking to disk, written atomically."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from backtest.base import DataError, replace_folder, temporary_folder
from backtest.market.read import packed_files
from backtest.market.read.csv_files import MOST_COLUMNS, check_cells, parse_csv
from backtest.market.read.packed_files import Content
from backtest.market.read.vendors import TIME_ALIASES
from backtest.market.tables.defects import Defect, unreadable
from backtest.market.tables.times import TIME_NAMES

SUFFIXES = (".parquet", ".feather", ".csv", ".json", ".csv.gz", ".json.gz", ".zip")

_MAGIC = {b"PAR1": ".parquet", b"ARROW1": ".feather", b"FEA1": ".feather", b"PK\x03\x04": ".zip",
          b"\x1f\x8b": ".gz"}  # fmt: skip
_TEXTS = (".csv", ".json")
_TIMES = {name.replace("_", " ") for name in TIME_ALIASES} | {*TIME_NAMES, *TIME_ALIASES}


def suffix_of(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return "".join(suffixes[-2:] if suffixes[-1:] == [".gz"] else suffixes[-1:])


def stem_of(path: Path) -> str:
    return path.name[: len(path.name) - len(suffix_of(path))]


def read_file(path: Path, times: Collection[str] = (), decimal: str = ".") -> pd.DataFrame | Defect:
    if suffix_of(path) not in SUFFIXES:
        found = suffix_of(path) or "without a suffix"
        return Defect(f"a file must end in {', '.join(SUFFIXES)}, got {found} ({path})")
    if not path.is_file():  # a pipe would never end
        return Defect(f"a table must be a plain file, got a folder, a pipe or a device ({path})")
    try:
        content, suffix = _sniff(path), path.suffix.lower()
        if content != suffix and not (content in _TEXTS and suffix in _TEXTS):
            return _mislabeled(path, content)
        frame = _read(path, times, decimal)
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        return unreadable(error, str(path))
    if isinstance(frame, Defect):
        return frame
    return check_cells(frame, where=str(path)) or frame


def _read(path: Path, times: Collection[str], decimal: str) -> pd.DataFrame | Defect:
    packing = path.suffix.lower()
    if packing == ".feather":
        return read_feather(path)
    if packing == ".parquet":
        return read_parquet(path)
    if packing == ".zip":
        content = packed_files.unpack_zip(path, str(path))
    else:
        content = (
            packed_files.unpack_gzip(path) if packing == ".gz" else packed_files.read_bytes(path)
        )
    if isinstance(content, Defect):
        return content
    return parse_text(content, where=str(path), times=times, decimal=decimal)


def parse_text(
    content: packed_files.Content, *, where: str, times: Collection[str] = (), decimal: str = "."
) -> pd.DataFrame | Defect:
    suffix = Path(content.name).suffix.lower()
    if suffix == ".json":
        return parse_json_rows(content, where=where)
    if suffix == ".csv":
        known = _TIMES | {name.lower() for name in times}
        return parse_csv(content, known, where=where, decimal=decimal)
    return Defect(
        f"an archive must hold a .csv or .json file, found {content.name[:80]!r} ({where})"
    )


def _sniff(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(4096)
    if not head:
        return "empty"
    for magic, suffix in _MAGIC.items():
        if head.startswith(magic):
            return suffix
    return "neither table nor text" if b"\0" in head else ".csv"


def _mislabeled(path: Path, content: str) -> Defect:
    cure = f"; rename it to {path.stem}{content}" if content in SUFFIXES else ""
    return Defect(
        f"a file named {path.suffix.lower()} must be one, its content is {content} ({path}){cure}"
    )


def write_folder(
    place: str | Path, tables: Mapping[str, pd.DataFrame], facts: Mapping[str, object]
) -> Path:
    folder = Path(place)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(
            f"a market is saved to a new or empty folder, this one is in use ({folder})"
        )
    try:
        with temporary_folder(folder.parent, ".draft-") as temporary:
            draft = temporary / folder.name
            draft.mkdir()
            write_market(tables, facts, draft)
            replace_folder(draft, folder, ".older-")
    except OSError as error:
        raise DataError(f"cannot write the market ({folder}): {error}") from error
    return folder


def write_market(
    tables: Mapping[str, pd.DataFrame], facts: Mapping[str, object], folder: Path
) -> None:
    for name, frame in tables.items():
        write_table(frame, folder / f"{name}.parquet")
    text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
    (folder / "market.json").write_text(text, encoding="utf-8")


def write_table(frame: pd.DataFrame, path: Path) -> None:
    frame.reset_index().to_parquet(path, index=False, compression="zstd")


LARGEST = 256 << 20
"""The largest JSON text in bytes; a year of minute bars is about 35 MiB."""

_PLAIN = (int, float, str, bool, type(None))


def parse_json_rows(content: Content, *, where: str) -> pd.DataFrame | Defect:
    if len(content.data) > LARGEST:
        size = len(content.data) >> 20
        return Defect(
            f"JSON must be at most {LARGEST >> 20} MiB, got {size} MiB ({where}); split it by "
            "month, or convert it to parquet"
        )
    try:
        rows = json.loads(content.data)
    except RecursionError:
        return _not_rows("got rows nested too deeply", where)
    except ValueError as error:
        return Defect(f"a file must be JSON, got one that is not: {str(error)[:120]} ({where})")
    if not isinstance(rows, list) or not rows:
        found = f"got {'an empty array' if rows == [] else f'type {type(rows).__name__}'}"
        return _not_rows(found, where)
    return _to_frame(rows, where)


def _not_rows(found: str, where: str) -> Defect:
    return Defect(
        f"JSON must be an array of rows, {found} ({where}); write rows [time, open, high, low, "
        "close, volume], or one object of plain values per row"
    )


def _to_frame(rows: list[Any], where: str) -> pd.DataFrame | Defect:
    kind = type(rows[0])
    odd = next((n for n, row in enumerate(rows) if type(row) is not kind), None)
    if kind not in (list, dict) or odd is not None:
        found = f"row {odd or 0} is of type {type(rows[odd or 0]).__name__}"
        return _not_rows(f"{found}, of one kind", where)
    if kind is dict:
        names = [key for key, cell in rows[0].items() if isinstance(cell, _PLAIN)]
        cells = [[row.get(name) for name in names] for row in rows]
    else:
        names, cells = [str(number) for number in range(len(rows[0]))], rows
    bad = next((n for n, row in enumerate(cells) if not _is_plain(row, len(names))), None)
    if bad is not None or not names or len(names) > MOST_COLUMNS:
        cells_found = f"{len(cells[bad or 0])} cells" + " or nested ones" * bool(names)
        return Defect(
            f"JSON rows must have the same {len(names)} plain values, row {bad or 0} has "
            f"{cells_found} ({where})"
        )
    frame = pd.DataFrame(cells, columns=pd.Index(names))
    for name in names:
        frame[name] = _to_numbers(frame[name])
    return frame


def _is_plain(row: list[Any], length: int) -> bool:
    return len(row) == length and all(isinstance(cell, _PLAIN) for cell in row)


def _to_numbers(values: pd.Series) -> pd.Series:
    values = values.mask(values == "")
    if values.dtype.kind in "iufb" or not values.notna().any():
        return values
    numbers = pd.to_numeric(values, errors="coerce")
    return values if (numbers.isna() & values.notna()).any() else numbers


MOST_CELLS = 400_000_000
"""The largest number of rows times columns, 3 GiB of numbers; files may be compressed a lot."""

LONGEST_TEXT = 1 << 24
"""The largest text in bytes: it may be stored once and repeated in every row."""


def read_feather(path: Path) -> pd.DataFrame | Defect:
    from pyarrow import feather, ipc  # noqa: PLC0415 - 20 ms, only when needed

    with path.open("rb") as file:
        is_old = file.read(4) == b"FEA1"  # the old format is not compressed
    if is_old:
        return _to_pandas(feather.read_table(path, memory_map=False), str(path))
    batches = []
    with ipc.open_file(path) as reader:
        cells = 0
        for number in range(reader.num_record_batches):
            batches.append(reader.get_batch(number))
            cells += batches[-1].num_rows * batches[-1].num_columns
            if cells > MOST_CELLS:
                return _too_large(cells, str(path))
        table = pa.Table.from_batches(batches, reader.schema)
    return _to_pandas(table, str(path))


def read_parquet(path: Path) -> pd.DataFrame | Defect:
    from pyarrow import parquet  # noqa: PLC0415 - as above

    file = parquet.ParquetFile(path)
    size = file.metadata
    if size.num_rows * size.num_columns > MOST_CELLS:
        return _too_large(size.num_rows * size.num_columns, str(path))
    texts = [field.name for field in file.schema_arrow if pa.types.is_string(field.type)]
    if not texts:
        return _to_pandas(file.read(), str(path))
    # check each distinct text before it is repeated over all rows
    return _to_pandas(parquet.ParquetFile(path, read_dictionary=texts).read(), str(path))


def _to_pandas(table: pa.Table, where: str) -> pd.DataFrame | Defect:
    wrong = _check_columns(table, where)
    if wrong:
        return wrong
    table.validate(full=True)  # texts that are no UTF-8 raise here, not where they are used
    try:
        frame: pd.DataFrame = table.to_pandas()
    except (LookupError, TypeError, AttributeError) as error:  # its pandas metadata are wrong
        return unreadable(f"{type(error).__name__} in its pandas metadata", where)
    for name in frame.columns[[kind == "category" for kind in frame.dtypes]]:
        frame[name] = frame[name].astype(object)
    return frame


def _too_large(cells: int, where: str) -> Defect:
    return Defect(
        f"a table has at most {MOST_CELLS} cells, found {cells} or more ({where}); split it by "
        "month"
    )


def _check_columns(table: pa.Table, where: str) -> Defect | None:
    if table.num_columns > MOST_COLUMNS:
        return Defect(
            f"a table has at most {MOST_COLUMNS} columns, found {table.num_columns} ({where})"
        )
    for place, field in enumerate(table.schema):
        if pa.types.is_nested(field.type) or "binary" in str(field.type):
            return Defect(
                f"a column must hold numbers, times or text, found {str(field.type)[:60]} in "
                f"{field.name!r} ({where}); drop the column"
            )
        if pa.types.is_dictionary(field.type):
            longest = max((_longest(chunk.dictionary) for chunk in table[place].chunks), default=0)
            if longest > LONGEST_TEXT:
                return Defect(
                    f"a cell of text must be short, got {longest} bytes in {field.name!r} ({where})"
                )
    return None


def _longest(texts: pa.Array) -> int:
    from pyarrow import compute  # noqa: PLC0415 - as above

    if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
        return 0
    return int(compute.max(compute.binary_length(texts)).as_py() or 0)
