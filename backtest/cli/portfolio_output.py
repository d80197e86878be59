"""What ``backtest run --json`` prints of a run of several positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from backtest.engine.limit_cost import LimitCost
    from backtest.engine.portfolio.portfolio_result import PortfolioResult
    from backtest.measures import Realization


def portfolio_to_dict(
    result: PortfolioResult,
    path: str | None,
    *,
    cost: LimitCost | None = None,
    realized: Realization | None = None,
) -> dict[str, Any]:
    """Return a result as data: its identity, its folder, its metrics and those by instrument.

    ``cost``, that of the limit of leverage, and ``realized`` gains are part of it if given.
    """
    manifest = result.manifest
    more = {} if cost is None else {"limit_cost": cost._asdict()}
    more |= {} if realized is None else {"realization": realized.to_dict()}
    return {
        "id": manifest["id"],
        "path": path,
        "policy": manifest["policy"]["text"],
        "data": manifest["data"],
        "metrics": dict(result.metrics),
        "attribution": result.attribution().to_dict(orient="index"),
        "contagion": list_rows(result.contagion()),
        "target_cuts": list(result.cut_rows),
        "no_fill": result.no_fill or None,
        **more,
    }


def list_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table with an index, times as text."""
    rows = table.reset_index()
    for name in rows.columns:
        if isinstance(rows[name].dtype, pd.DatetimeTZDtype):
            rows[name] = rows[name].astype(str)
    found: list[dict[str, Any]] = rows.to_dict(orient="records")  # type: ignore[assignment]
    return found
