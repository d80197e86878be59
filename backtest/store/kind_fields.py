"""What the list of results shows of a saved result, by its kind: policy, note, and measures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from backtest.base.atomic_files import LOCK
from backtest.base.errors import DataError
from backtest.base.file_lock import is_lock_held
from backtest.base.result_folders import MANIFEST, hash_file, read_json_file
from backtest.compare import Comparison
from backtest.crowd.result_title import describe_crowd_result
from backtest.engine import result_files
from backtest.measures.run_measures import METRICS
from backtest.store.card import has_ends, read_metrics
from backtest.store.kinds import (
    COMPARISON,
    CROSS,
    CROWD_CLASSES,
    FORMATS,
    PORTFOLIO,
    RISK_CLASSES,
    RUN,
    SCHEDULES,
    STUDY_KIND,
    SWEEP,
    WALK,
    find_manifest_faults,
)
from backtest.sweep import Sweep
from backtest.tune import STUDY, Study
from backtest.tune.study_folder import read_json as read_study_json
from backtest.validation.cross_validation import CrossValidation
from backtest.validation.schedules import Schedules
from backtest.validation.walk import WalkForward


def check_manifest(folder: Path, kind: str, manifest: Mapping[str, Any]) -> None:
    """Raise if a manifest has an unknown format or a wrong id, or if a file is damaged."""
    faults = [(MANIFEST, fault) for fault in find_manifest_faults(manifest, kind)]
    faults += [(name, find_damage(folder / name)) for name in FORMATS[kind][1]]
    for name, fault in faults:
        if fault:
            raise damage_error(folder / name, fault)


def damage_error(path: Path, fault: str) -> DataError:
    """Return the error for a file of a result that cannot be used."""
    cure = "run the experiment again, or restore the file"
    return DataError(f"{path.name} {fault}", where=str(path), cure=cure)


def find_damage(path: Path) -> str:
    """Return whether a file is missing, empty or truncated, in words; empty if it looks whole."""
    try:
        size = path.stat().st_size
        if path.suffix != ".parquet":
            return "" if size else "is empty"
        return "" if has_ends(str(path), size) else "is truncated or not a Parquet file"
    except FileNotFoundError:
        return "is missing"


def summarize_data(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an entry that describe its data."""
    names = ("instrument", "interval", "start", "end")
    texts = {name: str(data[name] or "") for name in names}
    return {**texts, "is_synthetic": bool(data.get("synthetic"))}


def summarize_search(name: str, varied: Iterable[object]) -> dict[str, str]:
    """Return the fields of an entry that name a policy and the parameters that varied."""
    return {"policy": name, "title": f"{name} over {', '.join(map(str, varied))}"}


def read_run(folder: Path, manifest: Mapping[str, Any], kind: str = RUN) -> dict[str, Any]:
    """Return the fields of a run's entry, of one position or several, without its tables."""
    check_manifest(folder, kind, manifest)
    for name in (result_files.METRICS, result_files.STATE):
        if hash_file(folder / name) != manifest["files"][name]:
            raise damage_error(folder / name, "was changed")
    shown = result_files.describe_run(manifest, read_json_file(folder / result_files.METRICS))
    metrics = read_metrics(shown["metrics"])
    return {"id": manifest["id"], **shown, "title": shown["policy"], "metrics": metrics}


def read_sweep(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a sweep's entry."""
    check_manifest(folder, SWEEP, manifest)
    sweep = Sweep.load(folder)
    best = sweep.table.iloc[sweep.rank("sharpe")[:1]]
    asked, done = int(manifest["sets"]["asked"]), len(sweep.table)
    return {
        "id": manifest["id"],
        **summarize_search(str(manifest["policy"]["name"]), manifest["parameters"]),
        "source": str(manifest["data"].get("source", "")),
        "note": f"{done:,} sets" if done == asked else f"{done:,} of {asked:,} sets",
        "metrics": select_numbers(best.to_dict("records")[0], sweep.metrics) if done else {},
        **summarize_data(manifest["data"]),
    }


def read_study(folder: Path, _: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a study's entry."""
    begun = read_study_header(folder)
    study = Study.load(folder)
    best = study.best
    state = "" if study.complete else (", being searched" if begun["is_busy"] else ", unfinished")
    measured = {name for batch in study.batches[:1] for name in batch.metrics}
    return {
        **begun,
        "note": f"{study.trials:,} sets{state}",
        "metrics": {} if best is None else select_numbers(best.to_dict(), measured),
        "is_finished": study.complete,
        "seconds": study.batches[-1].seconds if study.batches else None,
    }


def read_study_header(folder: Path) -> dict[str, Any]:
    """Return the fields of a study's entry that need no trials."""
    facts = read_study_json(folder / STUDY)
    dimensions = (each["name"] for each in facts["space"]["dimensions"])
    return {
        "id": facts["id"],
        **summarize_search(str(facts["policy"]["name"]), dimensions),
        "source": str(facts["source"]),
        "is_busy": is_lock_held(folder / LOCK),
        "is_finished": False,
        **summarize_data(facts["data"]),
    }


def read_comparison(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a comparison's entry."""
    check_manifest(folder, COMPARISON, manifest)
    found = Comparison.load(folder)
    best = found.table.loc[found.order[0]].to_dict()
    baseline = str(manifest["baseline"])
    return {
        "id": manifest["id"],
        "policy": ", ".join(found.names),
        "title": f"{baseline} against {', '.join(n for n in found.names if n != baseline)}",
        "source": str(manifest["data"].get("source", "")),
        "note": f"{len(found.names)} policies",
        "metrics": select_numbers(best, best),
        **summarize_data(manifest["data"]),
    }


def select_numbers(row: Mapping[Any, Any], names: Any) -> dict[str, float]:
    """Return the numbers of a row under the given names."""
    return {
        str(name): float(value)
        for name, value in row.items()
        if name in names and isinstance(value, int | float)
    }


def summarize_validation(folder: Path, kind: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a saved validation's entry that its manifest has."""
    check_manifest(folder, kind, manifest)
    return summarize_terms(manifest)


def summarize_terms(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an entry that the manifest of a validation has."""
    dimensions = (each["name"] for each in manifest["space"]["dimensions"])
    return {
        "id": manifest["id"],
        **summarize_search(str(manifest["policy"]["name"]), dimensions),
        "source": str(manifest["data"].get("source", "")),
        **summarize_data(manifest["data"]),
    }


def read_walk(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a walk's entry: the measures are those of the re-tuned account."""
    begun, walk = summarize_validation(folder, WALK, manifest), WalkForward.load(folder)
    metrics = {} if walk.result is None else select_numbers(walk.result.metrics, METRICS)
    return {**begun, "note": f"{len(walk.folds):,} folds", "metrics": metrics}


def read_cross(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a cross-validation's entry: the measures are medians over paths."""
    begun, found = summarize_validation(folder, CROSS, manifest), CrossValidation.load(folder)
    medians = found.paths.median().to_dict()
    note = f"{len(found.splits):,} splits, {len(found.paths)} paths"
    return {**begun, "note": note, "metrics": select_numbers(medians, METRICS)}


def read_schedules(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an entry of schedules: the measures are those of the fastest growth."""
    begun, found = summarize_validation(folder, SCHEDULES, manifest), Schedules.load(folder)
    best = found.table.sort_values("log_growth", kind="stable").iloc[-1].to_dict()
    note = f"{len(found.table):,} schedules"
    return {**begun, "note": note, "metrics": select_numbers(best, METRICS)}


def read_crowd(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the entry of a cascade, a simulated market or a crowding."""
    kind = str(manifest["kind"])
    check_manifest(folder, kind, manifest)
    title, note = describe_crowd_result(manifest)
    policy = manifest.get("policy", {})
    return {
        "id": manifest["id"],
        "policy": str(policy.get("name", title)),
        "title": title,
        "source": str(manifest["data"].get("source", "")),
        "note": note,
        **summarize_data(manifest["data"]),
    }


def read_risk(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the entry of a result about risk."""
    check_manifest(folder, str(manifest["kind"]), manifest)
    title = str(manifest["title"])
    return {
        "id": manifest["id"],
        "policy": title.partition("(")[0],
        "title": title,
        "source": str(manifest["data"].get("source", "")),
        "note": str(manifest["note"]),
        **summarize_data(manifest["data"]),
    }


READERS: dict[str, Callable[[Path, Mapping[str, Any]], dict[str, Any]]] = {
    RUN: read_run,
    SWEEP: read_sweep,
    STUDY_KIND: read_study,
    COMPARISON: read_comparison,
    PORTFOLIO: partial(read_run, kind=PORTFOLIO),
    WALK: read_walk,
    CROSS: read_cross,
    SCHEDULES: read_schedules,
    **dict.fromkeys(CROWD_CLASSES, read_crowd),
    **dict.fromkeys(RISK_CLASSES, read_risk),
}
