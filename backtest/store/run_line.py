"""What the list of results shows of a run that its provenance file does not answer for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backtest.base.errors import DataError
from backtest.base.result_folders import hash_file, read_json_file
from backtest.engine import result_files
from backtest.store.card import read_metrics


def read_run(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a run's entry, of one position or several, without its tables."""
    for name in (result_files.METRICS, result_files.STATE):
        if hash_file(folder / name) != manifest["files"][name]:
            raise damage_error(folder / name, "was changed")
    shown = result_files.describe_run(manifest, read_json_file(folder / result_files.METRICS))
    metrics = read_metrics(shown["metrics"])
    return {**shown, "title": shown["policy"], "metrics": metrics}


def damage_error(path: Path, fault: str) -> DataError:
    """Return the error for a file of a result that cannot be used."""
    cure = "run the experiment again, or restore the file"
    return DataError(f"{path.name} {fault}", where=str(path), cure=cure)
