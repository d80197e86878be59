"""Parquet and Feather files to frames, under limits that are checked before rows are expanded."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa

from backtest.market.read.csv_files import MOST_COLUMNS
from backtest.market.tables.defects import Defect, unreadable

MOST_CELLS = 400_000_000
"""The largest number of rows times columns, 3 GiB of numbers; files may be compressed a lot."""

LONGEST_TEXT = 1 << 24
"""The largest text in bytes: it may be stored once and repeated in every row."""


def read_feather(path: Path) -> pd.DataFrame | Defect:
    """Return a Feather file as a frame, or its defect; a damaged file raises ArrowException."""
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
    """Return a Parquet file as a frame, or its defect; a damaged file raises ArrowException."""
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
    rule = f"a table has at most {MOST_CELLS} cells"
    return Defect(rule, f"found {cells} or more", where, "split it by month")


def _check_columns(table: pa.Table, where: str) -> Defect | None:
    if table.num_columns > MOST_COLUMNS:
        found = f"found {table.num_columns}"
        return Defect(f"a table has at most {MOST_COLUMNS} columns", found, where, "drop some")
    for place, field in enumerate(table.schema):
        if pa.types.is_nested(field.type) or "binary" in str(field.type):
            found = f"found {str(field.type)[:60]} in {field.name!r}"
            rule = "a column must hold numbers, times or text"
            return Defect(rule, found, where, "drop the column")
        if pa.types.is_dictionary(field.type):
            longest = max((_longest(chunk.dictionary) for chunk in table[place].chunks), default=0)
            if longest > LONGEST_TEXT:
                found = f"got {longest} bytes in {field.name!r}"
                cure = "this is no table of prices: drop the column"
                return Defect("a cell of text must be short", found, where, cure)
    return None


def _longest(texts: pa.Array) -> int:
    from pyarrow import compute  # noqa: PLC0415 - as above

    if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
        return 0
    return int(compute.max(compute.binary_length(texts)).as_py() or 0)
