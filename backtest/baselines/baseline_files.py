"""The files of baselines: find, save and load them.

A baseline is a JSON file for review, with a Parquet file of its bars beside it. The name of the
Parquet file has the hash of its content, so the JSON file always points to the bars that belong
to it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from backtest import core
from backtest.baselines.bands import Band, read_band
from backtest.baselines.baseline import Baseline, check_mode
from backtest.baselines.trace import Trace

FORMAT = 2


def name_baseline(text: str) -> str:
    """Return a text as a file name."""
    return re.sub(r"[^\w.]+", "-", text).strip("-.")[:100] or "baseline"


def find_baselines(places: Iterable[Path]) -> list[Path]:
    """Return the JSON files of some files and folders, each once."""
    paths: list[Path] = []
    for place in places:
        if not place.exists():
            raise core.DataError(
                f"there is no baseline at {place}; record one: backtest regress record EXPERIMENT "
                "--out FOLDER"
            )
        if place.is_dir():
            paths += sorted(place.glob("*.json"))
        else:
            paths.append(place)

    if not paths:
        raise core.DataError(f"there is no baseline to check in {', '.join(map(str, places))}")
    return list(dict.fromkeys(paths))


def check_unique_names(paths: Sequence[Path], names: Sequence[str]) -> None:
    """Raise DataError if two experiments have one baseline."""
    seen: dict[str, Path] = {}
    for path, name in zip(paths, names, strict=True):
        other = seen.setdefault(name.casefold(), path)
        if other != path:
            raise core.DataError(
                f"each experiment has one baseline, {name!r} has two, {other} and {path}"
            )


def save_baseline(baseline: Baseline, folder: Path) -> Path:
    """Write the files of a baseline into a folder; return the JSON file.

    The bars come first and the JSON file after them: if a write fails, the old baseline is whole.
    """
    bars = write_trace(baseline.trace)
    digest = hashlib.sha256(bars).hexdigest()
    bars_name = f"{baseline.name}.{digest[:16]}.parquet"
    metrics = {}
    for name, value in baseline.metrics.items():
        metrics[name] = {"value": value, "tolerance": baseline.bands[name].to_data()}

    document = {
        "format": FORMAT,
        "name": baseline.name,
        "experiment": baseline.experiment,
        "mode": baseline.mode,
        "facts": baseline.facts,
        "platform": baseline.host,
        "metrics": metrics,
        "bars": {
            "file": bars_name,
            "sha256": digest,
            "interval": baseline.trace.interval,
            "first_unit": baseline.trace.first_unit,
        },
        "history": list(baseline.history),
    }
    text = json.dumps(
        core.to_plain(document),
        indent=1,
        sort_keys=True,
        ensure_ascii=False,
    )

    path = folder / f"{baseline.name}.json"
    with core.writing(path, "baseline"):
        folder.mkdir(parents=True, exist_ok=True)
        core.write_file(folder / bars_name, bars)
        core.write_file(path, f"{text}\n".encode())
        remove_older_bars(folder, baseline.name, keep=bars_name)
    return path


def write_trace(trace: Trace) -> bytes:
    """Return the bars of a baseline as Parquet, with the same bytes for the same bars."""
    columns: dict[str, Any] = {"time": trace.time, **trace.columns}
    if trace.inputs is not None:
        columns["inputs"] = trace.inputs

    buffer = pa.BufferOutputStream()
    pq.write_table(
        pa.table(columns),
        buffer,
        compression="zstd",
        compression_level=9,
        use_dictionary=False,
        use_byte_stream_split=list(trace.columns),
        write_statistics=False,
        store_schema=False,
    )
    content: bytes = buffer.getvalue().to_pybytes()
    return content


def remove_older_bars(folder: Path, name: str, *, keep: str) -> None:
    """Remove the bars that a baseline had before it was written again."""
    bars_of_baseline = re.compile(rf"{re.escape(name)}\.[0-9a-f]{{16}}\.parquet")
    for path in folder.iterdir():
        if bars_of_baseline.fullmatch(path.name) and path.name != keep:
            path.unlink(missing_ok=True)


def load_baseline(path: Path) -> Baseline:
    """Load a baseline; raise DataError if a file is missing, damaged or changed."""
    try:
        return _read_baseline(path)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        core.ParameterError,
        pa.ArrowException,
    ) as error:
        reason = core.describe_fault(error)
        if isinstance(error, KeyError):
            reason = f"it has no {error.args[0]!r}"
        raise core.DataError(
            f"{path}: a baseline must be whole: {reason}; restore it from version control, or "
            "record it again"
        ) from error


def _read_baseline(path: Path) -> Baseline:
    """Read both files of a baseline; what is wrong raises any of the errors of load_baseline."""
    document = core.parse_json(core.read_small(path), path)
    about_bars = document["bars"]
    measures = check_kind("metrics", document["metrics"], dict)
    for name, entry in measures.items():
        check_kind(f"metrics.{name}", entry, dict)
    bars = (path.parent / Path(about_bars["file"]).name).read_bytes()
    check_equal("format", document["format"], FORMAT)
    check_equal("name", document["name"], path.stem)
    check_equal("hash of its bars", hashlib.sha256(bars).hexdigest(), about_bars["sha256"])

    experiment = document["experiment"]
    if experiment is not None:
        experiment = check_kind("experiment", experiment, str)
    return Baseline(
        name=document["name"],
        experiment=experiment,
        mode=check_mode(document["mode"]),
        facts=check_kind("facts", document["facts"], dict),
        host=read_host(document["platform"]),
        metrics={name: read_measure(name, entry["value"]) for name, entry in measures.items()},
        bands=read_bands(measures),
        trace=read_trace(bars, about_bars),
        history=tuple(check_kind("history", document["history"], list)),
    )


def check_equal(name: str, value: object, wanted: object) -> None:
    if value != wanted:
        raise ValueError(f"its {name} must be {wanted}, got {value}")


Kind = TypeVar("Kind", str, dict, list)  # type: ignore[type-arg]


def check_kind(name: str, value: object, kind: type[Kind]) -> Kind:
    if not isinstance(value, kind):
        raise TypeError(f"its {name} must be a {kind.__name__}, got {value!r:.60}")
    return value


def read_host(declared: object) -> dict[str, str]:
    host = check_kind("platform", declared, dict)
    return {name: str(value) for name, value in host.items()}


def read_measure(name: str, declared: object) -> float:
    value = core.from_plain(declared)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"metrics.{name}.value must be a number, got {declared!r:.60}")
    return float(value)


def read_bands(measures: Mapping[str, Any]) -> dict[str, Band]:
    bands = {}
    for name, entry in measures.items():
        bands[name] = read_band(entry["tolerance"], f"metrics.{name}")
    return bands


def read_trace(content: bytes, about_bars: Mapping[str, Any]) -> Trace:
    """Read the bars of a baseline, and check that they have the types that are compared."""
    table = pq.read_table(pa.BufferReader(content))
    columns = {name: np.ascontiguousarray(table[name].to_numpy()) for name in table.column_names}
    time = columns.pop("time")
    inputs = columns.pop("inputs", None)

    check_type("time", time, np.int64)
    if inputs is not None:
        check_type("inputs", inputs, np.uint32)
    for name, column in columns.items():
        check_type(name, column, np.float64)

    interval = int(about_bars["interval"])
    if interval <= 0 or len(time) == 0:
        raise ValueError("its bars must be at least one, with an interval over 0")
    return Trace(
        time=time,
        inputs=inputs,
        columns=columns,
        first_unit=float(about_bars["first_unit"]),
        interval=interval,
    )


def check_type(name: str, column: np.ndarray[Any, Any], kind: type[np.generic]) -> None:
    if column.dtype != kind:
        raise TypeError(f"its column {name} must be {kind.__name__}, got {column.dtype}")
