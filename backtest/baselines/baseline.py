"""A baseline: the recorded facts, measures and bars of a run, to compare later runs with.

It is a JSON file for review, with a Parquet file of the bars beside it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from backtest import _compile, core
from backtest.baselines.trace import (
    FIGURES,
    OVERFIT,
    Band,
    Trace,
    choose_bands,
    read_band,
    take_trace,
)
from backtest.policies import Policy, written_formulas
from backtest.results import Result
from backtest.search import WalkForward, read_figures, walk_differences

ROOMS = (
    *("_compile", "account", "core", "engine", "indicators", "margin", "market", "policies"),
    *("results", "signals", "venue"),
)
"""The folders whose code computes a run."""
POLICY = ("text", "name", "settings", "source_hash", "by_instrument", "switches")
OF_FILES = frozenset({"policy.file_hash"})
RUN = ("signal", "sampling", "calendar", "resumed_from")
LONGEST = 64
"""The length up to which lists are kept; longer ones are replaced by a hash."""
REPEATED = frozenset({"policy.text", "data.flows_after_the_end"})


class FactChange(NamedTuple):
    kind: str
    name: str
    was: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.name}: {shorten_value(self.was)} -> {shorten_value(self.now)}"


def gather_facts(result: Result) -> dict[str, Any]:
    manifest, policy = result.manifest, result.manifest["policy"]
    facts: dict[str, Any] = {
        "data": drop_sources(manifest["data"]),
        "policy": {
            **{name: policy[name] for name in POLICY if name in policy},
            "file_hash": hash_files(list_policies(result)),
        },
        **({"overlay": manifest["overlay"]} if manifest.get("overlay") else {}),
        "venue": manifest["venue"],
        "account": manifest["account"],
        "run": {name: manifest[name] for name in RUN},
        "engine": {
            "version": manifest["versions"]["leverage-backtest"],
            "source_hash": hash_rooms(ROOMS),
        },
    }
    plain: dict[str, Any] = core.to_plain(shorten_lists(facts))
    return plain


@functools.cache
def hash_rooms(rooms: tuple[str, ...]) -> str:
    root = Path(__file__).parents[1]
    return hash_texts(sorted(path for room in rooms for path in (root / room).rglob("*.py")))


def hash_texts(files: Iterable[Path]) -> str:
    texts = (file.read_bytes().replace(b"\r\n", b"\n") for file in files)
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


def drop_sources(data: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in data.items() if name != "source"}
    if "instruments" in kept:
        kept["instruments"] = {
            name: drop_sources(each) for name, each in data["instruments"].items()
        }
    return kept


def list_policies(result: Result) -> list[Policy]:
    found = [*result.policies.values(), result.overlay]
    return [each for each in found if each is not None]


def hash_files(policies: Sequence[Policy]) -> str | None:
    formulas = [formula for each in policies for formula in written_formulas(type(each))]
    try:
        files = sorted({Path(each.__code__.co_filename) for each in formulas})
        return hash_texts(files) if files else None
    except OSError:  # typed into a notebook or a console
        return None


def hash_data(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def shorten_lists(value: Any) -> Any:
    if not isinstance(value, (Mapping, list, tuple)):
        return value
    if len(value) > LONGEST:
        return f"{len(value)} entries, sha256:{hash_data(core.to_plain(value))}"
    if isinstance(value, Mapping):
        return {str(key): shorten_lists(item) for key, item in value.items()}
    return [shorten_lists(item) for item in value]


def list_changes(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[FactChange]:
    found = [
        FactChange(re.split(r"[.\[]", name, maxsplit=1)[0], name, one, other)
        for name, one, other in walk_differences(was, now)
        if name not in REPEATED and not (name in OF_FILES and None in (one, other))
    ]
    is_code = any(each.name == "policy.source_hash" for each in found)
    return [each for each in found if not (is_code and each.name in OF_FILES)]


def shorten_value(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text[:8] if re.fullmatch("[0-9a-f]{64}", text) else core.clip(text, 60)


WALK = "walk"
WINNERS = "winners"
SEARCHED_BY = ("search", "sweep")
SEARCH = ("space", "objective", "constraints", "trials", "seed", "sampler", "robust",
          "patience")  # fmt: skip


def gather_walk_facts(walk: WalkForward) -> dict[str, Any]:
    manifest, facts = walk.manifest, gather_facts(walk.result)
    names = [name for name in manifest["spans"]["columns"] if name in walk.folds]
    winners = walk.folds.drop(columns=names).loc[:, :"in_sample"].drop(columns="in_sample")
    kept = ("name", "source_hash", "file_hash")
    search = {
        **{name: manifest[name] for name in SEARCH if name in manifest},
        "folds": len(walk.folds),
        "spans": hash_data(manifest["spans"]),
        "source_hash": hash_rooms(SEARCHED_BY),
    }
    return {
        **facts,
        "policy": {name: facts["policy"][name] for name in kept},
        WALK: shorten_lists(search),
        WINNERS: shorten_lists(winners.to_dict("records")),
    }


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

    def is_other_than(self, other: Baseline) -> bool:
        changes = list_changes(self.facts, other.facts)
        return (
            any(each.name not in OF_FILES for each in changes)
            or self.host != other.host
            or self.metrics.keys() != other.metrics.keys()
            or bool(list_moved(self, other))
            or not self.trace.is_same(other.trace)
        )


def take_baseline(
    result: Result | WalkForward,
    name: str,
    *,
    experiment: str | None = None,
    mode: str = EXACT,
    tolerance: Mapping[str, object] | None = None,
) -> Baseline:
    """Return the baseline of a result; of a walk, the baseline of its re-optimized account.

    ``tolerance`` names measures or patterns, ``{"*": "5%", "sharpe": 0.05}``; the last match
    applies. Other measures have a relative tolerance of 1e-9.
    """
    account: Result
    if isinstance(result, WalkForward):
        account, facts = result.result, gather_walk_facts(result)
    else:
        account, facts = result, gather_facts(result)
    metrics = {name: float(value) for name, value in account.metrics.items()}
    if isinstance(result, WalkForward):
        metrics |= {x: read_figures(result.figures, key) for x, (key, _) in FIGURES.items()}
        metrics[OVERFIT] = float(result.pbo)
    return Baseline(
        name=name,
        experiment=experiment,
        mode=check_mode(mode),
        facts=facts,
        host=describe_host(),
        metrics=metrics,
        bands=choose_bands(metrics, tolerance or {}, {}),
        trace=take_trace(account),
    )


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


LIBRARIES = ("numpy", "numba", "llvmlite", "scipy", "pandas", "arch")
OVERRIDES = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NPY_DISABLE_CPU_FEATURES")


def describe_host() -> dict[str, str]:
    name, features = _compile.describe_processor()
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu": name,
        "cpu_features": " ".join(features),
        "libm": " ".join(platform.libc_ver()).strip() or platform.release(),
        "python": platform.python_version(),
        **{each: core.find_version(each) for each in LIBRARIES},
        **{each.lower(): os.environ[each] for each in OVERRIDES if os.environ.get(each)},
    }


def list_host_changes(was: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    found = []
    for name in {**was, **now}:
        one, other = was.get(name, "none"), now.get(name, "none")
        if one != other:
            is_short = max(len(one), len(other)) <= 24
            found.append(f"{name} {one} -> {other}" if is_short else name)
    return found


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
    try:
        folder.mkdir(parents=True, exist_ok=True)
        core.write_file(folder / bars, content)
        core.write_file(target, (text + "\n").encode())
        is_of_it = re.compile(rf"{re.escape(baseline.name)}\.[0-9a-f]{{16}}\.parquet")
        for older in folder.iterdir():
            if is_of_it.fullmatch(older.name) and older.name != bars:
                older.unlink(missing_ok=True)
    except OSError as error:
        raise core.DataError(
            f"{target}: cannot write the baseline: {core.describe_fault(error)}"
        ) from error
    return target


def load_baseline(path: Path) -> Baseline:
    """Load a baseline; raise DataError if a file is missing, damaged or changed."""
    try:
        return _read_baseline(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, core.ParameterError,
            pa.ArrowException) as error:  # fmt: skip
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
    table = pq.read_table(pa.BufferReader(content))
    arrays = {name: np.ascontiguousarray(table[name].to_numpy()) for name in table.column_names}
    return Baseline(
        name=document["name"],
        experiment=document["experiment"],
        mode=check_mode(document["mode"]),
        facts=document["facts"],
        host=document["platform"],
        metrics=core.from_plain({name: each["value"] for name, each in metrics.items()}),
        bands={x: read_band(each["tolerance"], f"metrics.{x}") for x, each in metrics.items()},
        trace=Trace(
            time=arrays.pop("time"),
            inputs=arrays.pop("inputs", None),
            columns=arrays,
            first_unit=float(about["first_unit"]),
            interval=int(about["interval"]),
        ),
        history=tuple(document["history"]),
    )
