"""What ``backtest run --json`` prints of a run of several positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from backtest.base.errors import ParameterError

if TYPE_CHECKING:
    from backtest.engine.portfolio.portfolio_result import PortfolioResult
    from backtest.measures import Realization


def refuse_limit_cost() -> None:
    """Refuse the cost of a limit, which is measured for one position."""
    raise ParameterError(
        "the cost of max_leverage is measured for one instrument, the data are of several",
        where="--limit-cost",
        cure="leave it out, or run twice, with and without --max-leverage",
    )


def portfolio_to_dict(
    result: PortfolioResult, path: str | None, *, realized: Realization | None = None
) -> dict[str, Any]:
    """Return a result as data: its identity, its folder, its metrics and those by instrument.

    ``realized`` gains are part of it if given.
    """
    manifest = result.manifest
    more = {} if realized is None else {"realization": realized.to_dict()}
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
