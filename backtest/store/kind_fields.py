"""What the list of results shows of a saved result: policy, data, note, and measures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backtest.base import damage_error, is_lock_held, select_numbers
from backtest.base.atomic_files import LOCK
from backtest.base.result_folders import MANIFEST
from backtest.base.saved_result import KINDS
from backtest.store.kinds import STUDY_KIND, find_manifest_faults
from backtest.store.unchanged_run import has_ends
from backtest.tune import STUDY, Study
from backtest.tune import read_json as read_study_json
from backtest.validation import describe_search


def read_fields(folder: Path, kind: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the entry of a folder that was opened."""
    if kind == STUDY_KIND:
        return read_study(folder)
    check_manifest(folder, kind, manifest)
    return {**describe_manifest(manifest), **KINDS[kind].read_line(folder, manifest)}


def describe_manifest(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the id and the data of a manifest."""
    data = manifest["data"]
    return {
        "id": manifest["id"],
        "source": str(data.get("source", "")),
        **summarize_data(data),
    }


def check_manifest(folder: Path, kind: str, manifest: Mapping[str, Any]) -> None:
    """Raise if a manifest has an unknown format or a wrong id, or if a file is damaged."""
    faults = [(MANIFEST, fault) for fault in find_manifest_faults(manifest, kind)]
    faults += [(name, find_damage(folder / name)) for name in KINDS[kind].files]
    for name, fault in faults:
        if fault:
            raise damage_error(folder / name, fault)


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


def read_study(folder: Path) -> dict[str, Any]:
    """Return the fields of a study's entry."""
    begun = read_study_header(folder)
    study = Study.load(folder)
    best = study.best
    state = "" if study.complete else (", being searched" if begun["is_busy"] else ", unfinished")
    measured = {name for batch in study.batches[:1] for name in batch.metrics}
    chosen: Any = {} if best is None else best[[name for name in best.index if name in measured]]
    return {
        **begun,
        "note": f"{study.trials:,} sets{state}",
        "metrics": select_numbers(dict(chosen)),
        "is_finished": study.complete,
        "seconds": study.batches[-1].seconds if study.batches else None,
    }


def read_study_header(folder: Path) -> dict[str, Any]:
    """Return the fields of a study's entry that need no trials."""
    facts = read_study_json(folder / STUDY)
    return {
        "id": facts["id"],
        **describe_search(facts),
        "source": str(facts["source"]),
        "is_busy": is_lock_held(folder / LOCK),
        "is_finished": False,
        **summarize_data(facts["data"]),
    }
