"""The kind of saved runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backtest.base import Kind, damage_error, hash_file, read_json_file
from backtest.base.saved_result import KINDS
from backtest.engine import result_files
from backtest.engine.manifest import NOT_IN_ID
from backtest.engine.result import Result

RUN = "run"


def read_run(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    for name in (result_files.METRICS, result_files.STATE):
        if hash_file(folder / name) != manifest["files"][name]:
            raise damage_error(folder / name, "was changed")
    shown = result_files.describe_run(manifest, read_json_file(folder / result_files.METRICS))
    metrics = read_metrics(shown["metrics"])
    return {**shown, "title": shown["policy"], "metrics": metrics}


def read_metrics(metrics: Mapping[str, float | None]) -> dict[str, float]:
    return {k: math.nan if v is None else float(v) for k, v in metrics.items()}


KINDS[RUN] = Kind(
    name=RUN,
    plural="runs",
    layout=result_files.FORMAT,
    files=result_files.FILES,
    aside=NOT_IN_ID[1:],
    source=str(result_files.__file__),
    load=Result.load,
    read_line=read_run,
    call="bt.run",
    is_run=True,
)
