"""The measures of the best of a sweep, a study or a comparison, for a line of the list."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from backtest.base.errors import DataError
from backtest.base.result_folders import hash_file
from backtest.compare import Comparison
from backtest.measures.ranking import rank
from backtest.sweep.sweep_files import TABLE
from backtest.sweep.tabulate import ERROR
from backtest.tune import Study

RANKED_BY = "sharpe"
NEEDED = (RANKED_BY, "ruined", "ruin_time")
"""What the order of sets is made of."""


def measure_sweep(
    folder: Path, manifest: Mapping[str, Any], names: tuple[str, ...]
) -> dict[str, Any]:
    """Return measures of the best set of a sweep, by Sharpe ratio; none where none was run.

    Parameters
    ----------
    folder : Path
        Of the sweep.
    manifest : mapping
        Its manifest, with the hash of its table.
    names : tuple of str
        The measures that are wanted.

    Raises
    ------
    DataError
        If the table was changed.
    """
    check_hash(folder, manifest, TABLE)
    known = {field.name for field in pq.read_schema(folder / TABLE)}
    wanted = [name for name in dict.fromkeys((*NEEDED, *names, ERROR)) if name in known]
    table = pq.read_table(folder / TABLE, columns=wanted).to_pandas()
    if table.empty:
        return {}
    failed = np.zeros(len(table), dtype=np.bool_)
    if ERROR in table:
        failed = (table.pop(ERROR) != "").to_numpy(dtype=np.bool_)
    metrics = {str(name): table[name].to_numpy(dtype=np.float64) for name in table}
    best = int(rank(metrics, RANKED_BY, None, failed)[0])
    return {name: float(values[best]) for name, values in metrics.items()}


def measure_study(folder: Path) -> dict[str, Any]:
    """Return measures of the set that a finished study chose; none where it chose none.

    Raises
    ------
    DataError
        If a file of it is damaged.
    """
    best = Study.load(folder).best
    return {} if best is None else {str(name): value for name, value in best.items()}


def measure_comparison(folder: Path) -> dict[str, Any]:
    """Return measures of the policy that grew fastest.

    Raises
    ------
    DataError
        If a file of it is damaged.
    """
    found = Comparison.load(folder)
    return {str(name): value for name, value in found.table.loc[found.order[0]].items()}


def check_hash(folder: Path, manifest: Mapping[str, Any], name: str) -> None:
    """Refuse a file that is not the one that was saved.

    Raises
    ------
    DataError
        If it was changed.
    """
    if hash_file(folder / name) != manifest["files"][name]:
        raise DataError(
            f"{name} must be as it was saved, was changed or truncated",
            where=str(folder / name),
            cure="run the experiment again, or restore the file",
        )
