"""The sets that studies and validations in a store tried, and on which bars."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest.base import BoolArray, DataError, FloatArray, from_plain, to_plain
from backtest.tune.holdout import name_data
from backtest.tune.journal import SET, encode_objects, load_table, read_stored_sets
from backtest.tune.study_folder import write_study_file
from backtest.tune.study_identity import find_studies

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from backtest.sweep import Sets

TRIED = "tried-sets"
"""Folder of a store with the sets that validations tried."""
TERMS = (
    "data", "policy", "venue", "account", "signal", "overlay", "sampling", "calendar", "searched",
)  # fmt: skip
"""Entries of a study that decide the result of a set; a study without an overlay has none."""
SEAL = "backtest_seal"
"""Entry of the metadata of a record with the hash of all that it holds."""


class SpanTries(NamedTuple):
    """Sets tried on one span of time, from ``start`` to ``stop`` as text in UTC.

    ``sharpes`` of shape (n,) are per sqrt(year), NaN if unknown. ``is_kept`` of shape (n,) marks
    the sets that keep the constraints.
    """

    start: str
    stop: str
    sets: Sets
    sharpes: FloatArray
    is_kept: BoolArray


class Tries(NamedTuple):
    """Sets that a study or a validation tried.

    ``facts`` are those of a study: ``id``, ``policy`` and what decides the result of a set.
    ``spans`` are times of begin and end. ``table`` has a row per set and span: the parameters with
    the prefix ``set:``, ``sharpe``, ``is_kept``, and ``span``, the number of the span.
    """

    facts: Mapping[str, Any]
    spans: tuple[tuple[str, str], ...]
    table: pd.DataFrame


def record_tries(store: Path, facts: Mapping[str, Any], spans: Sequence[SpanTries]) -> None:
    """Record the sets that a validation tried; the record stays if the validation is deleted.

    ``facts`` have the entries of a study in ``TERMS``, ``id`` and ``space``. Raises DataError if
    the store cannot be written.
    """
    import pyarrow as pa  # noqa: PLC0415 - loads where it is used
    from pyarrow import parquet  # noqa: PLC0415 - as above

    known = [each for each in spans if len(each.sharpes)]
    if not known:
        return
    columns = {
        f"{SET}{name}": encode_objects(np.concatenate([each.sets[name] for each in known]))
        for name in known[0].sets
    }
    numbers = np.repeat(np.arange(len(known)), [len(each.sharpes) for each in known])
    columns |= {
        "sharpe": np.concatenate([each.sharpes for each in known]),
        "is_kept": np.concatenate([each.is_kept for each in known]),
        "span": numbers,
    }
    kept = {name: facts[name] for name in (*TERMS, "id", "space") if name in facts}
    note = to_plain({"facts": kept, "spans": [[each.start, each.stop] for each in known]})
    table = pa.table({name: pa.array(column) for name, column in columns.items()})
    sealed = {"backtest": json.dumps(note, sort_keys=True), SEAL: hash_tries(table, note)}
    table = table.replace_schema_metadata(sealed)
    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd", write_page_checksum=True)
    path = store / TRIED / name_tries(facts)
    write_study_file(path, sink.getvalue().to_pybytes())


def hash_tries(table: pa.Table, note: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a record of tried sets."""
    text = json.dumps(to_plain([note, table.to_pydict()]), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def find_damaged_tries(store: Path) -> Iterator[tuple[str, str]]:
    """Yield the records of tried sets that are damaged, each with what is wrong.

    Those of early versions have no seal: they must be readable, and named by their content.
    """
    for path in sorted((store / TRIED).glob("*.parquet")):
        try:
            table, note = load_table(path)
            seal = (table.schema.metadata or {}).get(SEAL.encode(), b"").decode()
            is_whole = seal in ("", hash_tries(table, note)) and path.name == name_tries(
                note["facts"]
            )
        except (DataError, KeyError, TypeError, ValueError):
            is_whole = False
        if not is_whole:
            yield path.name, "was changed or truncated: its tried sets may not be counted"


def name_tries(facts: Mapping[str, Any]) -> str:
    """Return the name of the file of a record."""
    return f"{name_data(facts)}-{facts['id']}.parquet"


def read_tries(store: Path) -> Iterator[Tries]:
    """Yield what the studies and the validations in a store tried; damaged files are skipped."""
    for folder, facts in find_studies(store):
        try:
            span = (str(facts["data"]["start"]), str(facts["searched"]))
        except (KeyError, TypeError):
            continue
        yield Tries(facts, (span,), read_stored_sets(folder).assign(span=0))
    for path in sorted((store / TRIED).glob("[0-9a-f]*.parquet")):
        try:
            stored, note = load_table(path)
            spans = tuple((str(start), str(stop)) for start, stop in note["spans"])
            tries = Tries(from_plain(note["facts"]), spans, stored.to_pandas())
        except (DataError, KeyError, TypeError, ValueError):
            continue
        if {"sharpe", "is_kept", "span"} <= {*tries.table.columns}:
            yield tries
