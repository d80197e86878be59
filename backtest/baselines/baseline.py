"""A baseline: the recorded facts, measures and bars of a run, to compare later runs with.

It is a JSON file for review, with a Parquet file of the bars beside it. What differs between two
is here too, and what of that is noise or tolerated.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from backtest import _compile, core
from backtest.baselines.bands import (
    FIGURES,
    OVERFIT,
    Band,
    check_bands,
    choose_bands,
    read_band,
)
from backtest.baselines.facts import (
    JUDGED,
    LIBRARIES,
    OVERRIDES,
    POLICY,
    ROOMS,
    RUN,
    SEARCH,
    WALK,
    WINNERS,
    drop_sources,
    hash_data,
    hash_rooms,
    list_changes,
    list_host_changes,
    shorten_lists,
)
from backtest.baselines.trace import Trace, take_trace
from backtest.judgement.judgement import Judgement
from backtest.results import Result
from backtest.search import WalkForward

FORMAT = 2
EXACT, TOLERANCE = "exact", "tolerance"
MODES = (EXACT, TOLERANCE)


@dataclass(frozen=True)
class Baseline:
    """The record of a run, or of the account of a walk forward.

    ``experiment`` is the path of its file, relative to the baseline's folder, None for a test's
    result; ``facts`` are the inputs, ``host`` the platform, ``metrics`` and ``bands`` all measures
    and their tolerances, ``trace`` the account at each bar, ``history`` each rewrite with its
    reason and the old values.
    """

    name: str
    experiment: str | None
    mode: str
    facts: Mapping[str, Any]
    host: Mapping[str, str]
    metrics: Mapping[str, float]
    bands: Mapping[str, Band]
    trace: Trace
    history: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self) -> None:
        check_bands(self.metrics, self.bands)

    def is_other_than(self, other: Baseline) -> bool:
        return (
            bool(list_changes(self.facts, other.facts))
            or self.host != other.host
            or self.metrics.keys() != other.metrics.keys()
            or bool(list_moved(self, other))
            or not self.trace.is_same(other.trace)
        )


def take_baseline(
    result: Result | WalkForward | Judgement,
    name: str,
    *,
    experiment: str | None = None,
    mode: str = EXACT,
    tolerance: Mapping[str, object] | None = None,
) -> Baseline:
    """Return the baseline of a result; of a walk, the baseline of its re-optimized account.

    Of a judgement it is that of its account on the first market, with the figures of all.

    ``tolerance`` names measures or patterns, ``{"*": "5%", "sharpe": 0.05}``; the last match
    applies. Other measures have a relative tolerance of 1e-9.
    """
    account = choose_account(result)
    own, policy = account.manifest, account.manifest["policy"]
    given: dict[str, Any] = {
        "data": drop_sources(own["data"]),
        "policy": {name: policy[name] for name in POLICY if name in policy},
        **({"overlay": own["overlay"]} if own.get("overlay") else {}),
        "venue": own["venue"],
        "account": own["account"],
        "run": {name: own[name] for name in RUN},
        "engine": {
            "version": own["versions"]["leverage-backtest"],
            "source_hash": hash_rooms(ROOMS),
        },
    }
    facts: dict[str, Any] = core.to_plain(shorten_lists(given))
    metrics = {name: float(value) for name, value in account.metrics.items()}
    if isinstance(result, WalkForward):
        manifest = result.manifest
        spans = [name for name in manifest["spans"]["columns"] if name in result.folds]
        winners = result.folds.drop(columns=spans).loc[:, :"in_sample"].drop(columns="in_sample")
        search = {
            **{name: manifest[name] for name in SEARCH if name in manifest},
            "folds": len(result.folds),
            "spans": hash_data(manifest["spans"]),
            "source_hash": hash_rooms(("search", "sweep")),
        }
        facts["policy"] = {name: facts["policy"][name] for name in ("name", "source_hash")}
        facts[WALK] = shorten_lists(search)
        facts[WINNERS] = shorten_lists(winners.to_dict("records"))
        metrics |= {x: float(result.figures[key]) for x, (key, _) in FIGURES.items()}
        metrics[OVERFIT] = float(result.pbo)
    if isinstance(result, Judgement):
        names = ("markets", "tune", "n_paths", "draws", "seed")
        facts[JUDGED] = {each: result.settings[each] for each in names}
        facts[JUDGED] |= {
            "outcome": result.outcome,
            "data": result.manifest["data"]["content_hash"],
            "source_hash": hash_rooms(("judgement", "risk", "search", "sweep")),
        }
        metrics |= result.measures
    name_of_processor, features = _compile.describe_processor()
    return Baseline(
        name=name,
        experiment=experiment,
        mode=check_mode(mode),
        facts=facts,
        host={
            "system": platform.system(),
            "machine": platform.machine(),
            "cpu": name_of_processor,
            "cpu_features": " ".join(features),
            "libm": " ".join(platform.libc_ver()).strip() or platform.release(),
            "python": platform.python_version(),
            **{each: core.find_version(each) for each in LIBRARIES},
            **{each.lower(): os.environ[each] for each in OVERRIDES if os.environ.get(each)},
        },
        metrics=metrics,
        bands=choose_bands(metrics, tolerance or {}, {}),
        trace=take_trace(account),
    )


def choose_account(result: Result | WalkForward | Judgement) -> Result:
    """Return the account whose bars a baseline keeps."""
    if isinstance(result, WalkForward):
        return result.result
    if not isinstance(result, Judgement):
        return result
    if not result.accounts or result.faults:
        why = "; ".join(f"{name} failed: {why}" for name, why in result.faults.items())
        raise core.DataError(
            "the baseline of a judgement needs its accounts on all markets, "
            f"got {why or 'a loaded one: judge again'}"
        )
    return next(iter(result.accounts.values()))


def check_mode(mode: str) -> str:
    return str(core.Choice(*MODES).check("mode", mode))


def rewrite_baseline(old: Baseline, new: Baseline, reason: str) -> Baseline:
    """Return a baseline that replaces an old one, with the reason and old values in its history.

    Name, experiment, mode and tolerances are those of the old one.
    """
    given = reason.strip()
    if not given:
        raise core.ParameterError("rewriting a baseline needs a reason, got none")
    entry = {
        "reason": given,
        "changed": [str(each) for each in list_changes(old.facts, new.facts)],
        "platform": list_host_changes(old.host, new.host),
        "metrics": list_moved(old, new),
    }
    return replace(
        new,
        name=old.name,
        experiment=old.experiment,
        mode=old.mode,
        bands={name: old.bands.get(name, band) for name, band in new.bands.items()},
        history=(*old.history, core.to_plain(entry)),
    )


def list_moved(old: Baseline, new: Baseline) -> dict[str, float]:
    return {
        name: value
        for name, value in old.metrics.items()
        if name not in new.metrics
        or not (value == new.metrics[name] or (math.isnan(value) and math.isnan(new.metrics[name])))
    }


def name_baseline(text: str) -> str:
    return re.sub(r"[^\w.]+", "-", text).strip("-.")[:100] or "baseline"


def find_baselines(places: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for place in places:
        if not place.exists():
            raise core.DataError(
                f"there is no baseline at {place}; record one: backtest regress record EXPERIMENT "
                "--out FOLDER"
            )
        found += sorted(place.glob("*.json")) if place.is_dir() else [place]
    if not found:
        raise core.DataError(f"there is no baseline to check in {', '.join(map(str, places))}")
    return list(dict.fromkeys(found))


def check_unique_names(paths: Sequence[Path], names: Sequence[str]) -> None:
    seen: dict[str, Path] = {}
    for path, name in zip(paths, names, strict=True):
        other = seen.setdefault(name.casefold(), path)
        if other != path:
            raise core.DataError(
                f"each experiment has one baseline, {name!r} has two, {other} and {path}"
            )


def save_baseline(baseline: Baseline, folder: Path) -> Path:
    trace, buffer = baseline.trace, pa.BufferOutputStream()
    inputs = {} if trace.inputs is None else {"inputs": trace.inputs}
    pq.write_table(
        pa.table({"time": trace.time, **trace.columns, **inputs}),
        buffer,
        compression="zstd",
        compression_level=9,
        use_dictionary=False,
        use_byte_stream_split=list(trace.columns),
        write_statistics=False,
        store_schema=False,
    )
    target, content = folder / f"{baseline.name}.json", buffer.getvalue().to_pybytes()
    digest = hashlib.sha256(content).hexdigest()
    bars = f"{baseline.name}.{digest[:16]}.parquet"
    document = {
        "format": FORMAT,
        "name": baseline.name,
        "experiment": baseline.experiment,
        "mode": baseline.mode,
        "facts": baseline.facts,
        "platform": baseline.host,
        "metrics": {
            name: {"value": value, "tolerance": baseline.bands[name].to_data()}
            for name, value in baseline.metrics.items()
        },
        "bars": {
            "file": bars,
            "sha256": digest,
            "interval": baseline.trace.interval,
            "first_unit": baseline.trace.first_unit,
        },
        "history": list(baseline.history),
    }
    text = json.dumps(core.to_plain(document), indent=1, sort_keys=True, ensure_ascii=False)
    with core.writing(target, "baseline"):
        folder.mkdir(parents=True, exist_ok=True)
        core.write_file(folder / bars, content)
        core.write_file(target, (text + "\n").encode())
        is_of_it = re.compile(rf"{re.escape(baseline.name)}\.[0-9a-f]{{16}}\.parquet")
        for older in folder.iterdir():
            if is_of_it.fullmatch(older.name) and older.name != bars:
                older.unlink(missing_ok=True)
    return target


def load_baseline(path: Path) -> Baseline:
    """Load a baseline; raise DataError if a file is missing, damaged or changed."""
    try:
        return _read_baseline(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError,
            core.ParameterError, pa.ArrowException) as error:  # fmt: skip
        reason = repr(error) if isinstance(error, KeyError) else core.describe_fault(error)
        raise core.DataError(
            f"{path}: a baseline must be whole: {reason}; restore it from version control, or "
            "record it again"
        ) from error


def _read_baseline(path: Path) -> Baseline:
    document = core.parse_json(core.read_small(path), path)
    about, metrics = document["bars"], document["metrics"]
    content = (path.parent / Path(about["file"]).name).read_bytes()
    for name, found, wanted in (
        ("format", document["format"], FORMAT),
        ("name", document["name"], path.stem),
        ("hash of its bars", hashlib.sha256(content).hexdigest(), about["sha256"]),
    ):
        if found != wanted:
            raise ValueError(f"its {name} must be {wanted}, got {found}")
    experiment = document["experiment"]
    if experiment is not None:
        experiment = check_kind("experiment", experiment, str)
    return Baseline(
        name=document["name"],
        experiment=experiment,
        mode=check_mode(document["mode"]),
        facts=check_kind("facts", document["facts"], dict),
        host={
            x: str(each) for x, each in check_kind("platform", document["platform"], dict).items()
        },
        metrics={name: read_measure(name, each["value"]) for name, each in metrics.items()},
        bands={x: read_band(each["tolerance"], f"metrics.{x}") for x, each in metrics.items()},
        trace=read_trace(content, about),
        history=tuple(check_kind("history", document["history"], list)),
    )


Kind = TypeVar("Kind", str, dict, list)  # type: ignore[type-arg]


def check_kind(name: str, value: object, kind: type[Kind]) -> Kind:
    if not isinstance(value, kind):
        raise TypeError(f"its {name} must be a {kind.__name__}, got {value!r:.60}")
    return value


def read_measure(name: str, given: object) -> float:
    value = core.from_plain(given)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"metrics.{name}.value must be a number, got {given!r:.60}")
    return float(value)


def read_trace(content: bytes, about: Mapping[str, Any]) -> Trace:
    """Read the bars of a baseline, and check that they have the types that are compared."""
    table = pq.read_table(pa.BufferReader(content))
    arrays = {name: np.ascontiguousarray(table[name].to_numpy()) for name in table.column_names}
    time = arrays.pop("time")
    inputs = arrays.pop("inputs", None)
    for name, column, kind in (
        ("time", time, np.int64),
        ("inputs", inputs, np.uint32),
        *((name, column, np.float64) for name, column in arrays.items()),
    ):
        if column is not None and column.dtype != kind:
            raise TypeError(f"its column {name} must be {kind.__name__}, got {column.dtype}")
    interval = int(about["interval"])
    if interval <= 0 or not len(time):
        raise ValueError("its bars must be at least one, with an interval over 0")
    return Trace(
        time=time,
        inputs=inputs,
        columns=arrays,
        first_unit=float(about["first_unit"]),
        interval=interval,
    )
