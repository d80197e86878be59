"""Save comparisons as Parquet and JSON files, and load them; the files contain no code."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow.parquet as pq

from backtest.base.provenance import attach_saved_making, find_making, write_provenance
from backtest.base.result_folders import (
    name_folder,
    read_manifest,
    save_folder,
    write_folder_manifest,
    write_parquet,
)
from backtest.compare.comparison_record import ComparisonRecord
from backtest.policy import Policy

Loaded = TypeVar("Loaded", bound=ComparisonRecord)

FORMAT = 1
FILES = ("table.parquet", "pairs.parquet", "returns.parquet")
TABLE, PAIRS, RETURNS = FILES


def save_comparison(comparison: ComparisonRecord, folder: Path) -> Path:
    """Write a comparison into a new subfolder, whole or not at all; return its path."""
    name = name_folder("compare", comparison.manifest["id"])
    identity = comparison.manifest["id"]
    results = (comparison.results or {}).values()
    making = find_making(
        comparison, [type(policy) for each in results for policy in list_policies(each)]
    )

    def write(draft: Path) -> None:
        _write(comparison, draft)
        write_provenance(draft, folder / name, identity, making)

    return save_folder(folder, name, write, what="comparison")


def list_policies(result: Any) -> list[Policy]:
    """Return the policies of a result, one for each of several instruments."""
    of_each = getattr(result, "policies", None)
    if of_each is not None:
        return list(of_each.values())
    return [] if result.policy is None else [result.policy]


def _write(comparison: ComparisonRecord, folder: Path) -> None:
    returns = comparison.returns.set_axis(range(len(comparison.names)), axis=1)
    columns = {"time": returns.index, "risk_free": comparison.risk_free}
    numbered = {str(name): returns[name] for name in returns}
    write_parquet(comparison.table.reset_index(), folder / TABLE)
    write_parquet(comparison.pairs, folder / PAIRS)
    write_parquet(pd.DataFrame({**columns, **numbered}), folder / RETURNS)
    write_folder_manifest(folder, comparison.manifest, FILES, FORMAT)


def load_comparison(folder: Path, kind: type[Loaded]) -> Loaded:
    """Load a saved comparison as an object of the given class."""
    cure = "give the folder that Comparison.save returned"
    manifest = read_manifest(folder, FILES, FORMAT, what="comparison", cure=cure)
    table = pq.read_table(folder / TABLE).to_pandas().set_index("policy")
    returns = pq.read_table(folder / RETURNS).to_pandas().set_index("time")
    free = returns.pop("risk_free")
    facts = {key: value for key, value in manifest.items() if key not in ("format", "files")}
    pairs = pq.read_table(folder / PAIRS).to_pandas()
    named = returns.set_axis(table.index.rename(None), axis=1)
    comparison = kind(table, pairs, named, free, facts)
    attach_saved_making(comparison, folder, manifest["id"])
    return comparison
