"""Save and load baselines: a JSON file for review, and a Parquet file of the bars beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from backtest.base import BacktestError, DataError, from_plain, parse_json, read_small, write_file
from backtest.regress.baseline import (
    FORMAT,
    MODES,
    Baseline,
    build_document,
    hash_columns,
    hash_measured,
)
from backtest.regress.run_identity import hash_data
from backtest.regress.tolerances import read_band
from backtest.regress.trace import BASIC, INPUTS, Trace

BARS_FILE = re.compile(r".+\.[0-9a-f]{16}\.parquet")


def find_baseline_file(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def name_baseline(text: str) -> str:
    return re.sub(r"[^\w.]+", "-", text).strip("-.")[:100] or "baseline"


def find_baselines(places: Iterable[Path]) -> list[Path]:
    """Return the files of baselines among some paths, and those in folders, in order."""
    found: list[Path] = []
    for place in places:
        if not place.exists():
            raise DataError(
                f"there is no baseline at {place}; record one: backtest regress record EXPERIMENT "
                "--out FOLDER"
            )
        found += sorted(place.glob("*.json")) if place.is_dir() else [place]
    if not found:
        raise DataError(f"there is no baseline to check in {', '.join(map(str, places))}")
    return list(dict.fromkeys(found))


# ----------------------------------------------------------------------------------------- writing


def save_baseline(baseline: Baseline, folder: Path) -> Path:
    """Write a baseline to a folder; it replaces an older one of its name atomically."""
    target = find_baseline_file(folder, baseline.name)
    content = hash_data(hash_columns(baseline.trace))[:16]
    bars = folder / f"{baseline.name}.{content}.parquet"
    text = json.dumps(
        build_document(baseline, bars.name),
        indent=1,
        sort_keys=True,
        allow_nan=False,
        ensure_ascii=False,
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        older = find_old_bars(target)
        write_file(bars, encode_bars(baseline.trace))
        write_file(target, (text + "\n").encode())
        if older is not None and older != bars.name:
            (folder / older).unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"{target}: cannot write the baseline: {error.strerror or error}"
        ) from error
    return target


def find_old_bars(target: Path) -> str | None:
    with suppress(DataError, OSError, KeyError, TypeError):
        name = parse_json(read_small(target), target)["bars"]["file"]
        if BARS_FILE.fullmatch(name) and Path(name).name == name:
            return str(name)
    return None


def encode_bars(trace: Trace) -> bytes:
    hashes = hash_columns(trace)
    arrays: dict[str, Any] = {"time": trace.time, **trace.columns}
    if trace.inputs is not None:
        arrays[INPUTS] = trace.inputs
    kept = {hashes[name]: name for name in reversed(arrays)}
    table = pa.table({name: arrays[name] for name in arrays if kept[hashes[name]] == name})
    split = [field.name for field in table.schema if pa.types.is_floating(field.type)]
    buffer = pa.BufferOutputStream()
    pq.write_table(
        table,
        buffer,
        compression="zstd",
        compression_level=9,
        use_dictionary=False,
        use_byte_stream_split=split,
        write_statistics=False,
        store_schema=False,
    )
    content: bytes = buffer.getvalue().to_pybytes()
    return content


# ----------------------------------------------------------------------------------------- reading


def load_baseline(path: Path) -> Baseline:
    """Load a baseline; raise DataError if a file is missing, damaged or changed."""
    document = read_document(path)
    if document["name"] != path.stem:
        raise baseline_error(path, f"must be in the file of its name, {document['name']}.json")
    with_values = from_plain({name: each["value"] for name, each in document["metrics"].items()})
    try:
        bands = {
            name: read_band(each.get("tolerance"), f"{path}: metrics.{name}.tolerance")
            for name, each in document["metrics"].items()
        }
    except BacktestError as error:
        raise DataError(str(error)) from error
    return Baseline(
        name=document["name"],
        experiment=document["experiment"],
        mode=document["mode"],
        facts=document["facts"],
        host=document["platform"],
        metrics=with_values,
        bands=bands,
        trace=load_trace(path.parent, document["bars"]),
        history=tuple(document["history"]),
    )


def read_document(path: Path) -> dict[str, Any]:
    try:
        document = parse_json(read_small(path), path)
    except OSError as error:
        raise baseline_error(path, f"must be readable: {error.strerror or error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, dict) else type(document).__name__
        raise baseline_error(path, f"must have the format {FORMAT}, got {found!r}")
    try:
        seal = hash_measured(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise baseline_error(path, f"must be complete: {error!r}") from error
    if document.get("seal") != seal:
        raise baseline_error(
            path,
            "must not be changed by hand, except for mode and tolerances; its hash does not match",
        )
    if document.get("mode") not in MODES:
        raise baseline_error(
            path, f"must have a mode of {', '.join(MODES)}, got {document.get('mode')!r}"
        )
    return document


def load_trace(folder: Path, about: Mapping[str, Any]) -> Trace:
    path = folder / Path(about["file"]).name
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        problem = "are missing" if not path.is_file() else f"cannot be read: {error}"
        raise baseline_error(path, f"must have bars, but they {problem}") from error
    arrays = {name: table[name].to_numpy() for name in table.column_names}
    arrays = restore_columns(arrays, about["columns"])
    names = [name for name in about["columns"] if name not in ("time", INPUTS)]
    missing = sorted({*about["columns"], "time", *BASIC} - {*arrays})
    if missing:
        raise baseline_error(path, f"must have all columns of its bars, lacks {', '.join(missing)}")
    trace = Trace(
        time=arrays["time"],
        columns={name: np.ascontiguousarray(arrays[name]) for name in names},
        inputs=arrays.get(INPUTS),
        first_unit=float(about["first_unit"]),
        interval=int(about["interval"]),
    )
    if hash_columns(trace) != about["columns"]:
        raise baseline_error(path, "must have its recorded bars, but they were changed")
    return trace


def restore_columns(arrays: Mapping[str, Any], hashes: Mapping[str, str]) -> dict[str, Any]:
    by_hash = {hashes[name]: values for name, values in arrays.items() if name in hashes}
    return {name: by_hash[each] for name, each in hashes.items() if each in by_hash}


def baseline_error(path: Path, problem: str) -> DataError:
    return DataError(
        f"{path}: a baseline {problem}; restore it from version control, or record it again"
    )


def check_unique_names(paths: Sequence[Path], names: Sequence[str]) -> None:
    seen: dict[str, Path] = {}
    for path, name in zip(paths, names, strict=True):
        other = seen.setdefault(name.casefold(), path)
        if other != path:
            raise DataError(
                f"each experiment has one baseline, {name!r} has two, {other} and {path}"
            )
