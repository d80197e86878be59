"""What ``backtest run --json`` prints of a result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backtest.base import list_records
from backtest.engine import collect_limit_orders, count_boundless

if TYPE_CHECKING:
    from backtest.engine import LimitCost, Result, Trades
    from backtest.measures import Realization


def result_to_dict(
    result: Result,
    path: str | None,
    *,
    cost: LimitCost | None = None,
    realized: Realization | None = None,
    trades: Trades | None = None,
) -> dict[str, Any]:
    """Return a result as data: its identity, its folder, what it ran on and its metrics.

    Those of several positions are also given by instrument. ``cost``, that of the limit of
    leverage, and ``realized`` gains are part of it if given; ``trades`` are the round trips
    without others.
    """
    manifest = result.manifest
    trades = result.trades if trades is None else trades
    counts = result.events["kind"].value_counts(sort=False)
    data = {
        "id": manifest["id"],
        "path": path,
        "policy": manifest["policy"]["text"],
        "data": manifest["data"],
        "metrics": dict(result.metrics),
    }
    data["attribution"] = result.attribution("instrument").to_dict(orient="index")
    data["contagion"] = list_records(result.contagion())
    data["events"] = {str(kind): int(count) for kind, count in counts.items() if count}
    if result.account.rates is not None:
        data["pools"] = list_records(
            result.pools.groupby("currency", sort=False).tail(1).set_index("currency")
        )
    data |= {"target_cuts": list(result.target_cut_rows), "no_fill": result.no_fill or None}
    data["infinite_leverage"] = count_boundless(result)
    data |= collect_limit_orders(result)
    if cost is not None:
        data["limit_cost"] = cost._asdict()
    if realized is not None:
        data["realization"] = realized.to_dict()
    measures = {**trades.measures.to_dict(), "unallocated": trades.unallocated.to_dict()}
    data["trades"] = {"by": trades.view, **measures}
    return data
