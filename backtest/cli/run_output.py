"""What ``backtest run --json`` prints of a result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from backtest.engine.account_text import count_boundless

if TYPE_CHECKING:
    from backtest.engine import Result
    from backtest.engine.limit_cost import LimitCost
    from backtest.measures import Realization


def result_to_dict(
    result: Result,
    path: str | None,
    *,
    cost: LimitCost | None = None,
    realized: Realization | None = None,
) -> dict[str, Any]:
    """Return a result as data: its identity, its folder, what it ran on and its metrics.

    Those of several positions are also given by instrument. ``cost``, that of the limit of
    leverage, and ``realized`` gains are part of it if given.
    """
    manifest = result.manifest
    data = {
        "id": manifest["id"],
        "path": path,
        "policy": manifest["policy"]["text"],
        "data": manifest["data"],
        "metrics": dict(result.metrics),
    }
    if not result.has_one_position:
        data["attribution"] = result.attribution().to_dict(orient="index")
        data["contagion"] = list_rows(result.contagion())
    data |= {"target_cuts": list(result.cut_rows), "no_fill": result.no_fill or None}
    data["infinite_leverage"] = count_boundless(result)
    if cost is not None:
        data["limit_cost"] = cost._asdict()
    if realized is not None:
        data["realization"] = realized.to_dict()
    return data


def list_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table with an index, times as text."""
    rows = table.reset_index()
    for name in rows.columns:
        if isinstance(rows[name].dtype, pd.DatetimeTZDtype):
            rows[name] = rows[name].astype(str)
    found: list[dict[str, Any]] = rows.to_dict(orient="records")  # type: ignore[assignment]
    return found
