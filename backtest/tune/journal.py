"""What a search writes into its store: its batches, looks at the holdout, and the sets tried."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
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
    hold_lock_file,
    name_folder,
    to_plain,
    write_file,
)
from backtest.base.atomic_files import DRAFT_FILE, LOCK
from backtest.base.result_folders import MANIFEST
from backtest.sweep import Sets
from backtest.sweep.sweep_table import decode_objects, encode_objects

PART = "part"
"""The stage of sets that are evaluated on a part of the time."""
UNFINISHED = ".unfinished-"
TRIALS = "trials"
LOOKS, TRIED = "looks.jsonl", "trials.jsonl"
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


# ----------------------------------------------------------------------------- unfinished searches


class Journal:
    """The batches of an unfinished search in their order, one Parquet file each."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = None if folder is None else folder / TRIALS
        self.position = 0

    def read_next(self) -> Batch | None:
        table = self.read_table()
        return None if table is None else read_batch(table)

    def append(self, batch: Batch) -> None:
        self.write_table(lay_out_batch(batch, self.position))

    def read_table(self) -> pd.DataFrame | None:
        path = self._name_next()
        if path is None or not path.is_file():
            return None
        self.position += 1
        return load_batch(path)

    def write_table(self, table: pd.DataFrame) -> None:
        if path := self._name_next():
            sink = io.BytesIO()
            table.to_parquet(sink, index=False)
            write_study_file(path, sink.getvalue())
        self.position += 1

    def _name_next(self) -> Path | None:
        return self.folder and self.folder / f"{self.position:06d}.parquet"


def load_batch(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:  # those of Arrow are of these
        raise DataError(
            f"{path}: cannot read trials: {str(error).partition(chr(10))[0]}; delete it and the "
            "files after it, then continue with resume=True: those are evaluated again"
        ) from error


def count_stored_sets(folder: Path) -> int:
    """Return how many sets an unfinished search has evaluated on the whole of its time."""
    tables = (load_batch(path) for path in sorted((folder / TRIALS).glob("[0-9]*.parquet")))
    return sum(len(table) for table in tables if len(table) and table["stage"][0] != PART)


def name_result(manifest: Mapping[str, Any]) -> str:
    return name_folder(f"{manifest['policy']['name']} {manifest['kind']}", manifest["id"])


def find_finished(store: Path | None, manifest: Mapping[str, Any], *, resume: bool) -> Path | None:
    """Return the folder of a finished result, if this one is to be resumed and is finished."""
    kind = manifest["kind"]
    if store is None:
        if resume:
            raise ParameterError(f"resume needs the store that the {kind} was started in, got None")
        return None
    name = name_result(manifest)
    finished, begun = store / name, store / f"{UNFINISHED}{name}"
    is_finished = (finished / MANIFEST).is_file()
    if not resume and (is_finished or (begun / MANIFEST).is_file()):
        raise ParameterError(
            f"{finished if is_finished else begun}: this {kind} was already started; resume=True "
            "continues it, or loads it if it is finished; another seed is another one"
        )
    if resume and not (is_finished or begun.is_dir()):
        raise ParameterError(
            f"{store}: there is no {kind} of {manifest['policy']['name']} of these data, policy "
            "source and settings to resume"
        )
    if is_finished and begun.is_dir():  # of a process that was killed after it saved the result
        discard_folder(begun)
    return finished if is_finished else None


@contextmanager
def open_folder(store: Path | None, manifest: Mapping[str, Any]) -> Iterator[Path | None]:
    """Hold the folder of what is unfinished, which a mistake of the user's discards."""
    if store is None:
        yield None
        return
    folder = store / f"{UNFINISHED}{name_result(manifest)}"
    with hold_lock(folder):
        for path in folder.rglob(f"{DRAFT_FILE}*"):
            path.unlink(missing_ok=True)
        if not (folder / MANIFEST).is_file():
            text = json.dumps(to_plain({"format": FORMAT, **manifest}), indent=1)
            write_study_file(folder / MANIFEST, f"{text}\n".encode())
        try:
            yield folder
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
                f"{folder}: another process ({error.holder}) is already running this; another "
                "seed is another folder"
            ) from error
        except OSError as error:
            raise cannot_write(folder / LOCK, error) from error
        yield


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


# ------------------------------------------------------------------------------ notes of the store


def add_note(store: Path, file: str, facts: Mapping[str, Any], **about: Any) -> None:
    """Note a look at the holdout, or sets tried before it, as a line of JSON, once."""
    note = {"study": facts["id"], "policy": facts["policy"]["name"], **about}
    text = json.dumps(to_plain({**note, **describe_bars_of(facts, file)}), sort_keys=True)
    path = store / file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file() and text.encode() in path.read_bytes().splitlines():
            return
        with path.open("ab", buffering=0) as sink:  # in one write, so that processes do not mix
            sink.write(f"{text}\n".encode())
    except OSError as error:
        raise cannot_write(path, error) from error


def read_notes(store: Path | None, file: str, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the different notes about some of the same bars; one that is damaged is left out."""
    if store is None or not (store / file).is_file():
        return []
    here, found = describe_bars_of(facts, file), []
    for line in dict.fromkeys((store / file).read_bytes().splitlines()):
        with suppress(ValueError, KeyError, TypeError):
            note = json.loads(line)
            found += [note] if shares_bars(here, note) else []
    return found


def describe_bars_of(facts: Mapping[str, Any], file: str) -> dict[str, Any]:
    data, split = facts["data"], facts["searched"]
    start, stop = (split, data["end"]) if file == LOOKS else (data["start"], split)
    parts = data.get("instruments") or {str(data["instrument"]): data}
    prices = {name: each["content_hash"] for name, each in parts.items()}
    return {"prices": prices, "synthetic": data["synthetic"], "start": start, "stop": stop}


def shares_bars(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two notes are about some of the same bars.

    An instrument is the same if its prices are, or its name: data grow, and made-up prices of one
    name are not the same.
    """
    mine, theirs = one["prices"], other["prices"]
    is_same = bool({*mine.values()} & {*theirs.values()})
    if not (one["synthetic"] or other["synthetic"]):
        is_same = is_same or bool({*filter(None, mine)} & {*filter(None, theirs)})
    return is_same and max(one["start"], other["start"]) < min(one["stop"], other["stop"])
