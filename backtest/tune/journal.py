"""The files of a study, and its journal: the batches in order, one Parquet file each."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest.base import (
    DataError,
    FloatArray,
    LockHeldError,
    from_plain,
    hash_file,
    hold_lock_file,
    parse_json,
    read_small,
    to_plain,
    write_file,
)
from backtest.base.atomic_files import DRAFT_FILE, LOCK

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from backtest.sweep import Sets


SET = "set:"


class Batch(NamedTuple):
    """Sets evaluated together, with their results.

    ``stage`` is ``"search"``, ``"neighbour"``, or ``"part"`` (of the time). ``seconds`` were spent
    on the study up to the end of this batch. ``sets`` and ``metrics`` are arrays of shape (n,) by
    name, NaN if a set failed. ``scores`` of shape (n, n_objectives) are larger for better sets, NaN
    if there is none. ``violation`` of shape (n,) is by how much constraints are broken, 0 if they
    hold. ``errors`` say in one line why a set failed, empty if it did not.
    """

    stage: str
    seconds: float
    sets: Sets
    metrics: dict[str, FloatArray]
    scores: FloatArray
    violation: FloatArray
    errors: list[str]


class Journal:
    def __init__(self, folder: Path | None, study: str) -> None:
        self.folder = None if folder is None else folder / TRIALS
        self.study = study
        self.stored = 0 if self.folder is None else count_batches(self.folder)
        self.position = 0

    def read_all(self) -> Iterator[Batch]:
        while (batch := self.read_next()) is not None:
            yield batch

    def read_next(self) -> Batch | None:
        if self.folder is None or self.position >= self.stored:
            return None
        batch = read_batch(name_batch(self.folder, self.position), self.study, self.position)
        self.position += 1
        return batch

    def append(self, batch: Batch) -> None:
        if self.folder is not None:
            content = pack_batch(batch, self.study, self.position)
            write_study_file(name_batch(self.folder, self.position), content)
        self.position += 1


def name_batch(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.parquet"


AGAIN = "then continue with resume=True: those trials are evaluated again"


def count_batches(folder: Path) -> int:
    names = [path.name for path in sorted(folder.glob("*.parquet")) if path.name[0] != "."]
    for number, name in enumerate(names):
        if name != name_batch(folder, number).name:
            raise DataError(
                f"{folder}: batch {number:06d} of a study is missing, but {name} is there; restore "
                f"it or delete the files after it, {AGAIN}"
            )
    return len(names)


def pack_batch(batch: Batch, study: str, number: int) -> bytes:
    import pyarrow as pa  # noqa: PLC0415 - loads where it is used
    from pyarrow import parquet  # noqa: PLC0415 - as above

    columns: dict[str, pa.Array] = {
        f"{SET}{name}": pa.array(encode_objects(values)) for name, values in batch.sets.items()
    }
    columns |= {f"metric:{name}": pa.array(values) for name, values in batch.metrics.items()}
    columns |= {f"score:{k}": pa.array(scores) for k, scores in enumerate(batch.scores.T)}
    columns["violation"] = pa.array(batch.violation)
    columns["error"] = pa.array(batch.errors, type=pa.string())
    head = {"format": FORMAT, "study": study, "number": number, "stage": batch.stage}
    note = json.dumps(head | {"seconds": batch.seconds})
    table = pa.table(columns).replace_schema_metadata({"backtest": note})
    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd", write_page_checksum=True)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


def read_batch(path: Path, study: str, number: int) -> Batch:
    table, head = load_table(path)
    if (head.get("study"), head.get("number")) != (study, number):
        raise DataError(
            f"{path}: must be batch {number} of study {study}, got {head.get('number')} of study "
            f"{head.get('study')}; restore it or delete it and the files after it, {AGAIN}"
        )
    columns = {name: table.column(name).to_numpy() for name in table.column_names}
    scores = [columns[name] for name in columns if name.startswith("score:")]
    return Batch(
        stage=head["stage"],
        seconds=head["seconds"],
        sets={k[len(SET) :]: decode_objects(v) for k, v in columns.items() if k.startswith(SET)},
        metrics={k[7:]: v for k, v in columns.items() if k.startswith("metric:")},
        scores=np.stack(scores, axis=1),
        violation=columns["violation"],
        errors=columns["error"].tolist(),
    )


def load_table(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    import pyarrow as pa  # noqa: PLC0415 - loads where it is used
    from pyarrow import parquet  # noqa: PLC0415 - as above

    try:
        table = parquet.read_table(path, page_checksum_verification=True, partitioning=None)
        return table, json.loads((table.schema.metadata or {}).get(b"backtest", b"{}"))
    except (pa.ArrowException, OSError, ValueError) as error:
        reason, _, _ = str(error).partition("\n")
        raise DataError(
            f"{path}: is not a readable Parquet file: {reason}; restore it or delete it and the "
            f"files after it, {AGAIN}"
        ) from error


def encode_objects(values: np.ndarray) -> np.ndarray:
    if values.dtype != object:
        return values
    return np.array([json.dumps(to_plain(value)) for value in values], dtype=object)


def decode_objects(values: np.ndarray) -> np.ndarray:
    if values.dtype != object:
        return values
    objects = np.empty(len(values), dtype=object)
    objects[:] = [from_plain(json.loads(text)) for text in values]
    return objects


def read_stored_sets(folder: Path) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415 - loads where it is used

    tables = [table for path in sorted((folder / TRIALS).glob("[0-9]*.parquet"))
              if (table := read_batch_sets(path)) is not None]  # fmt: skip
    whole = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    names = [name for name in whole.columns if str(name).startswith(SET)]
    whole = whole.drop_duplicates(subset=names) if names else whole
    blank = {"metric:sharpe": math.nan, "violation": math.nan}
    whole = whole.assign(**{name: value for name, value in blank.items() if name not in whole})
    kept = whole["violation"].to_numpy() == 0.0
    return whole[names].assign(sharpe=whole["metric:sharpe"].to_numpy(), is_kept=kept)


def read_batch_sets(path: Path) -> pd.DataFrame | None:
    import pyarrow as pa  # noqa: PLC0415 - loads where it is used
    from pyarrow import parquet  # noqa: PLC0415 - as above

    try:
        schema = parquet.read_schema(path)
        if json.loads((schema.metadata or {})[b"backtest"]).get("stage") == "part":
            return None
        names = [name for name in schema.names if name.startswith(SET)]
        asked = [*names, *({"metric:sharpe", "violation"} & set(schema.names))]
        found: pd.DataFrame = parquet.read_table(path, columns=asked, partitioning=None).to_pandas()
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return found


FORMAT = 1
STUDY, OUTCOME, TRIALS = "study.json", "outcome.json", "trials"


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


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    text = json.dumps(to_plain(data), indent=1, allow_nan=False, ensure_ascii=False)
    write_study_file(path, f"{text}\n".encode())


def read_json(path: Path) -> dict[str, Any]:
    try:
        data = parse_json(read_small(path), path)
    except OSError as error:
        raise DataError(
            f"{path}: cannot read the study, {error.strerror or error}; give Study.folder"
        ) from error
    found = data.get("format") if isinstance(data, dict) else type(data).__name__
    if found != FORMAT:
        raise DataError(f"{path}: the format of a study must be {FORMAT}, got {found!r}")
    plain: dict[str, Any] = from_plain(data)
    return plain


def seal_outcome(folder: Path, outcome: Mapping[str, Any]) -> dict[str, Any]:
    paths = [folder / STUDY, *sorted((folder / TRIALS).glob("[0-9]*.parquet"))]
    hashes = {path.relative_to(folder).as_posix(): hash_file(path) for path in paths}
    sealed = {**outcome, "files": hashes}
    return {**sealed, "seal": hash_outcome(sealed)}


def hash_outcome(outcome: Mapping[str, Any]) -> str:
    plain = to_plain({name: value for name, value in outcome.items() if name != "seal"})
    text = json.dumps(plain, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def find_broken(folder: Path, outcome: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "seal" not in outcome:
        return
    if outcome["seal"] != hash_outcome(outcome):
        yield OUTCOME, "changed"
        return
    stored = {f"{TRIALS}/{path.name}" for path in (folder / TRIALS).glob("[0-9]*.parquet")}
    for name in sorted({*outcome["files"], *stored}):
        if not (folder / name).is_file():
            yield name, "missing"
        elif name not in outcome["files"]:
            yield name, "added after the study was finished"
        elif hash_file(folder / name) != outcome["files"][name]:
            yield name, "changed or truncated"


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
