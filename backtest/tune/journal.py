"""The batches of a search, and the folder that keeps them until the search is finished."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import (
    DataError,
    FloatArray,
    LockHeldError,
    ParameterError,
    PolicyError,
    discard_folder,
    from_plain,
    hold_lock_file,
    to_plain,
    write_file,
)
from backtest.base.atomic_files import DRAFT_FILE, LOCK
from backtest.base.result_folders import MANIFEST
from backtest.sweep import Sets

PART = "part"
"""The stage of sets that are evaluated on a part of the time."""
UNFINISHED = ".unfinished-"
TRIALS = "trials"
SET, METRIC = "set:", "metric:"
FORMAT = 1


class Batch(NamedTuple):
    """Sets evaluated together, with their results.

    ``stage`` is ``"search"``, ``"neighbour"``, or ``"part"`` (of the time). ``seconds`` were spent
    on the study up to the end of this batch. ``sets`` and ``metrics`` are arrays of shape (n,) by
    name, NaN if a set failed. ``scores`` of shape (n,) are larger for better sets, NaN if there is
    none. ``violation`` of shape (n,) is by how much constraints are broken, 0 if they hold.
    ``errors`` say in one line why a set failed, empty if it did not.
    """

    stage: str
    seconds: float
    sets: Sets
    metrics: dict[str, FloatArray]
    scores: FloatArray
    violation: FloatArray
    errors: list[str]


def tabulate_batches(batches: Sequence[Batch]) -> pd.DataFrame:
    """Return a table of all sets of some batches, to be written to a file."""
    return pd.concat(
        [lay_out_batch(batch, k) for k, batch in enumerate(batches)] or [pd.DataFrame()],
        ignore_index=True,
    )


def lay_out_batch(batch: Batch, number: int) -> pd.DataFrame:
    columns: dict[str, Any] = {
        f"{SET}{name}": encode_objects(values) for name, values in batch.sets.items()
    }
    columns |= {f"{METRIC}{name}": values for name, values in batch.metrics.items()}
    table = pd.DataFrame(columns).assign(score=batch.scores, violation=batch.violation)
    table["error"] = np.array(batch.errors, dtype=object)
    return table.assign(batch=number, stage=batch.stage, seconds=batch.seconds)


def read_batches(table: pd.DataFrame) -> list[Batch]:
    """Return the batches of a table that :func:`tabulate_batches` made."""
    return [] if table.empty else [read_batch(each) for _, each in table.groupby("batch")]


def read_batch(table: pd.DataFrame) -> Batch:
    columns = {str(name): table[name].to_numpy() for name in table}
    return Batch(
        stage=str(columns["stage"][0]),
        seconds=float(columns["seconds"][0]),
        sets={k: decode_objects(v) for k, v in strip(columns, SET).items()},
        metrics=strip(columns, METRIC),
        scores=columns["score"],
        violation=columns["violation"],
        errors=columns["error"].tolist(),
    )


def strip(columns: Mapping[str, np.ndarray], prefix: str) -> dict[str, Any]:
    return {k.removeprefix(prefix): v for k, v in columns.items() if k.startswith(prefix)}


def encode_objects(values: np.ndarray) -> np.ndarray:
    if values.dtype != object:
        return values
    return np.array([json.dumps(to_plain(value)) for value in values], dtype=object)


def decode_objects(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind in "iufb":
        return values
    objects = np.empty(len(values), dtype=object)
    objects[:] = [from_plain(json.loads(text)) for text in values]
    return objects


# ----------------------------------------------------------------------------- unfinished searches


class Journal:
    """The batches of an unfinished search in their order, one Parquet file each."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = None if folder is None else folder / TRIALS
        self.stored = 0 if self.folder is None else count_batches(self.folder)
        self.position = 0

    def read_next(self) -> Batch | None:
        if self.folder is None or self.position >= self.stored:
            return None
        self.position += 1
        return read_batch(load_batch(name_batch(self.folder, self.position - 1)))

    def append(self, batch: Batch) -> None:
        if self.folder is not None:
            write_batch(batch, name_batch(self.folder, self.position), self.position)
        self.position += 1


AGAIN = "then continue with resume=True: those trials are evaluated again"


def name_batch(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.parquet"


def count_batches(folder: Path) -> int:
    names = [path.name for path in sorted(folder.glob("*.parquet")) if path.name[0] != "."]
    for number, name in enumerate(names):
        if name != name_batch(folder, number).name:
            raise DataError(
                f"{folder}: batch {number:06d} of a study is missing, but {name} is there; restore "
                f"it or delete the files after it, {AGAIN}"
            )
    return len(names)


def write_batch(batch: Batch, path: Path, number: int) -> None:
    import pyarrow as pa  # noqa: PLC0415 - loads where it is used
    from pyarrow import parquet  # noqa: PLC0415 - as above

    table = pa.Table.from_pandas(lay_out_batch(batch, number), preserve_index=False)
    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd", write_page_checksum=True)
    write_study_file(path, sink.getvalue().to_pybytes())


def load_batch(path: Path) -> pd.DataFrame:
    import pyarrow as pa  # noqa: PLC0415 - loads where it is used
    from pyarrow import parquet  # noqa: PLC0415 - as above

    try:
        table = parquet.read_table(path, page_checksum_verification=True, partitioning=None)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason, _, _ = str(error).partition("\n")
        raise DataError(
            f"{path}: is not a readable Parquet file: {reason}; restore it or delete it and the "
            f"files after it, {AGAIN}"
        ) from error
    found: pd.DataFrame = table.to_pandas()
    return found


def count_stored_sets(folder: Path) -> int:
    """Return how many sets an unfinished search has evaluated on the whole of its time."""
    tables = (load_batch(path) for path in sorted((folder / TRIALS).glob("[0-9]*.parquet")))
    return sum(len(table) for table in tables if len(table) and table["stage"][0] != PART)


@contextmanager
def open_folder(folder: Path, manifest: Mapping[str, Any]) -> Iterator[None]:
    """Hold the folder of an unfinished search, which a mistake of the user's discards."""
    with hold_lock(folder):
        clear_drafts(folder)
        if not (folder / MANIFEST).is_file():
            write_json(folder / MANIFEST, {"format": FORMAT, **manifest})
        try:
            yield
        except (ParameterError, PolicyError):  # a resume would end the same way
            discard_folder(folder)
            raise


@contextmanager
def hold_lock(folder: Path) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(hold_lock_file(folder / LOCK))
        except LockHeldError as error:
            raise DataError(
                f"{folder}: another process ({error.holder}) is already running this study; "
                "another seed is another study"
            ) from error
        except OSError as error:
            raise cannot_write(folder / LOCK, error) from error
        yield


def clear_drafts(folder: Path) -> None:
    for path in (*folder.glob(f"{DRAFT_FILE}*"), *(folder / TRIALS).glob(f"{DRAFT_FILE}*")):
        path.unlink(missing_ok=True)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    text = json.dumps(to_plain(data), indent=1, allow_nan=False, ensure_ascii=False)
    write_study_file(path, f"{text}\n".encode())


def write_study_file(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, content)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> DataError:
    is_blocked = isinstance(error, FileExistsError | NotADirectoryError)
    cure = "a file is in the way" if is_blocked else "resume=True continues with the trials so far"
    return DataError(f"{path}: cannot write the study: {error.strerror or error}; {cure}")


# ------------------------------------------------------------------------------ lines of the store


def append_line(path: Path, data: Mapping[str, Any]) -> None:
    """Append one line of JSON to a file of the store, unless it is there already."""
    text = json.dumps(to_plain(data), sort_keys=True, allow_nan=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file() and text.encode() in path.read_bytes().splitlines():
            return
        with path.open("ab", buffering=0) as file:  # in one write, so that processes do not mix
            file.write(f"{text}\n".encode())
    except OSError as error:
        raise cannot_write(path, error) from error


def read_lines(path: Path) -> list[dict[str, Any] | None]:
    """Return the different lines of a file in their order, None for one that is damaged."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found: list[dict[str, Any] | None] = []
    for line in dict.fromkeys(filter(None, lines)):
        data = None
        with contextlib.suppress(ValueError):
            data = json.loads(line)
        found.append(data if isinstance(data, dict) else None)
    return found
