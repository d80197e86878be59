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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from backtest.base import (
    BacktestError,
    DataError,
    ParameterError,
    find_version,
    from_plain,
    parse_json,
    read_small,
    to_plain,
    write_file,
)
from backtest.engine import Result
from backtest.policy import written_formulas
from backtest.regress.trace import (
    BASIC,
    FIGURES,
    INPUTS,
    OVERFIT,
    Band,
    Trace,
    choose_bands,
    hash_array,
    read_band,
    take_trace,
)
from backtest.validation import WalkForward, read_figures

if TYPE_CHECKING:
    from backtest.policy import Policy


# ------------------------------------------------------------------------------- facts of a run


WINGS = ("account", "base", "engine", "features", "market", "measures", "policy", "venue")
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
            "source_hash": hash_wings(WINGS),
        },
    }
    plain: dict[str, Any] = to_plain(shorten_lists(facts))
    return plain


@functools.cache
def hash_wings(wings: tuple[str, ...]) -> str:
    root = Path(__file__).parents[1]
    return hash_texts(sorted(path for wing in wings for path in (root / wing).rglob("*.py")))


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
        return f"{len(value)} entries, sha256:{hash_data(to_plain(value))}"
    if isinstance(value, Mapping):
        return {str(key): shorten_lists(item) for key, item in value.items()}
    return [shorten_lists(item) for item in value]


def list_changes(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[FactChange]:
    found = [
        FactChange(re.split(r"[.\[]", name, maxsplit=1)[0], name, one, other)
        for name, one, other in _walk(was, now, "")
        if name not in REPEATED and not (name in OF_FILES and None in (one, other))
    ]
    is_code = any(each.name == "policy.source_hash" for each in found)
    return [each for each in found if not (is_code and each.name in OF_FILES)]


def _walk(was: Any, now: Any, prefix: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for key in sorted({*was, *now}):
            name = f"{prefix}.{key}" if prefix else key
            yield from _walk(was.get(key), now.get(key), name)
    elif _is_list(was) and _is_list(now) and len(was) == len(now):
        for place, (one, other) in enumerate(zip(was, now, strict=True)):
            yield from _walk(one, other, f"{prefix}[{place}]")
    elif was != now:
        yield prefix, was, now


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def shorten_value(value: Any) -> str:
    if value is None:
        return "none"
    text = str(value)
    is_hash = len(text) == 64 and set(text) <= set("0123456789abcdef")
    if is_hash:
        return text[:8]
    return text if len(text) <= 60 else f"{text[:57]}..."


WALK = "walk"
WINNERS = "winners"
SEARCHED_BY = ("sweep", "tune", "validation")
SEARCH = ("space", "objective", "constraints", "trials", "seed", "sampler", "robust")


def measure_walk(walk: WalkForward) -> dict[str, float]:
    metrics = {name: float(value) for name, value in walk.result.metrics.items()}
    figures = {name: read_figures(walk.figures, key) for name, (key, _) in FIGURES.items()}
    return {**metrics, **figures, OVERFIT: float(walk.pbo)}


def gather_walk_facts(walk: WalkForward) -> dict[str, Any]:
    manifest, facts = walk.manifest, gather_facts(walk.result)
    names = [name for name in manifest["spans"]["columns"] if name in walk.folds]
    winners = walk.folds.drop(columns=names).loc[:, :"in_sample"].drop(columns="in_sample")
    kept = ("name", "source_hash", "file_hash")
    search = {
        **{name: manifest[name] for name in SEARCH},
        "folds": len(walk.folds),
        "spans": hash_data(manifest["spans"]),
        "source_hash": hash_wings(SEARCHED_BY),
    }
    return {
        **facts,
        "policy": {name: facts["policy"][name] for name in kept},
        WALK: shorten_lists(search),
        WINNERS: shorten_lists(winners.to_dict("records")),
    }


# ------------------------------------------------------------------------------------ baseline


FORMAT = 1
EXACT, TOLERANCE, STATISTICAL = "exact", "tolerance", "statistical"
MODES = (EXACT, TOLERANCE, STATISTICAL)


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
    history: Sequence[Mapping[str, Any]] = field(default_factory=tuple)

    def is_other_than(self, other: Baseline) -> bool:
        """Return whether another run differs in anything that is recorded."""
        changes = list_changes(self.facts, other.facts)
        return (
            any(each.name not in OF_FILES for each in changes)
            or bool(list_host_changes(self.host, other.host))
            or any(
                not is_same_number(self.metrics.get(name), other.metrics.get(name))
                for name in {*self.metrics, *other.metrics}
            )
            or hash_columns(self.trace) != hash_columns(other.trace)
        )


def take_baseline(
    result: Result | WalkForward,
    name: str,
    *,
    experiment: str | None = None,
    mode: str = EXACT,
    tolerance: Mapping[str, object] | None = None,
) -> Baseline:
    """Return the baseline of a result; of a walk that of its re-tuned account.

    ``tolerance`` names measures or patterns, ``{"*": "5%", "sharpe": 0.05}``; the last match
    applies. Other measures have a relative tolerance of 1e-9.
    """
    account: Result
    if isinstance(result, WalkForward):
        account, metrics = result.result, measure_walk(result)
        facts = gather_walk_facts(result)
    else:
        account, facts = result, gather_facts(result)
        metrics = {name: float(value) for name, value in result.metrics.items()}
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
    if mode not in MODES:
        raise ParameterError(f"mode must be {', '.join(MODES)}, got {mode!r}")
    return mode


def rewrite_baseline(old: Baseline, new: Baseline, reason: str) -> Baseline:
    """Return a baseline that replaces an old one, with the reason and old values in its history.

    Name, experiment, mode and tolerances are those of the old one.
    """
    given = reason.strip()
    if not given:
        raise ParameterError("rewriting a baseline needs a reason, got none")
    entry = {
        "reason": given,
        "changed": [str(each) for each in list_changes(old.facts, new.facts)],
        "platform": list_host_changes(old.host, new.host),
        "metrics": {
            name: value
            for name, value in old.metrics.items()
            if not is_same_number(value, new.metrics.get(name))
        },
        "equity": hash_array(old.trace.columns["equity"]),
    }
    return replace(
        new,
        name=old.name,
        experiment=old.experiment,
        mode=old.mode,
        bands={name: old.bands.get(name, band) for name, band in new.bands.items()},
        history=(*old.history, to_plain(entry)),
    )


def is_same_number(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return one == other or (math.isnan(one) and math.isnan(other))


# ------------------------------------------------------------------------------------- as a file


def hash_columns(trace: Trace) -> dict[str, str]:
    arrays = {"time": trace.time.astype("<i8"), **trace.columns}
    if trace.inputs is not None:
        arrays["inputs"] = trace.inputs.astype("<u4")
    return {name: hash_array(values) for name, values in arrays.items()}


def build_document(baseline: Baseline, file: str) -> dict[str, Any]:
    trace, columns = baseline.trace, hash_columns(baseline.trace)
    measured = {
        "format": FORMAT,
        "name": baseline.name,
        "experiment": baseline.experiment,
        "facts": baseline.facts,
        "platform": baseline.host,
        "metrics": {
            name: {"value": value, "tolerance": baseline.bands[name].to_data()}
            for name, value in baseline.metrics.items()
        },
        "bars": {
            "file": file,
            "count": len(trace.time),
            "interval": trace.interval,
            "first_unit": trace.first_unit,
            "columns": columns,
        },
        "history": list(baseline.history),
    }
    document: dict[str, Any] = to_plain(measured)
    return {**document, "mode": baseline.mode, "seal": hash_measured(document)}


def hash_measured(document: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in document.items() if key not in ("mode", "seal")}
    kept["metrics"] = {name: each["value"] for name, each in document["metrics"].items()}
    return hash_data(kept)


LIBRARIES = ("numpy", "numba", "llvmlite", "scipy", "pandas", "arch")
OVERRIDES = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NPY_DISABLE_CPU_FEATURES")


def describe_host() -> dict[str, str]:
    return {
        **_describe_machine(),
        **{name: find_version(name) for name in LIBRARIES},
        **{name.lower(): os.environ[name] for name in OVERRIDES if os.environ.get(name)},
    }


@functools.cache
def _describe_machine() -> dict[str, str]:
    from llvmlite import binding  # noqa: PLC0415 - the code generator is not always needed

    features = binding.get_host_cpu_features()
    libm, version = platform.libc_ver()
    config = np.show_config(mode="dicts") or {}
    extensions = config.get("SIMD Extensions", {}).get("found", [])
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu": binding.get_host_cpu_name(),
        "cpu_features": " ".join(sorted(name for name, has in features.items() if has)),
        "numpy_simd": " ".join(sorted(map(str, extensions))),
        "libm": f"{libm} {version}".strip() or platform.release(),
        "python": platform.python_version(),
    }


def list_host_changes(was: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    found = []
    for name in {**was, **now}:
        one, other = was.get(name, "none"), now.get(name, "none")
        if one != other:
            is_short = max(len(one), len(other)) <= 24
            found.append(f"{name} {one} -> {other}" if is_short else name)
    return found


BARS_FILE = re.compile(r".+\.[0-9a-f]{16}\.parquet")


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
    target = folder / f"{baseline.name}.json"
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
