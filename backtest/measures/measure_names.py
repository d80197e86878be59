"""The measures by name: the unit of each, and which way is better (docs/metrics.md)."""

from __future__ import annotations

from typing import NamedTuple


class Metric(NamedTuple):
    """What a measure counts; ``better`` is 1 where more is better, -1 where less is, 0 neither."""

    unit: str
    better: int


_ANNUAL_COST = Metric("fraction per year", -1)

ABOUT = {
    "total_return": Metric("fraction", 1),
    "cagr": Metric("fraction per year", 1),
    "volatility": Metric("per sqrt(year)", -1),
    "sharpe": Metric("per sqrt(year)", 1),
    "sortino": Metric("per sqrt(year)", 1),
    "max_drawdown": Metric("fraction", -1),
    "drawdown_days": Metric("days", -1),
    "recovered": Metric("0 or 1", 1),
    "calmar": Metric("per year", 1),
    "var_95": Metric("fraction", -1),
    "es_95": Metric("fraction", -1),
    "var_99": Metric("fraction", -1),
    "es_99": Metric("fraction", -1),
    "turnover": Metric("per year", -1),
    "price_pnl": Metric("money", 1),
    "fees": Metric("money", -1),
    "slippage": Metric("money", -1),
    "impact": Metric("money", -1),
    "funding": Metric("money", -1),
    "interest": Metric("money", -1),
    "liquidations": Metric("count", -1),
    "liquidation_loss": Metric("money", -1),
    "bad_debt": Metric("money", -1),
    "ruined": Metric("0 or 1", -1),
    "ruin_time": Metric("days", 1),
    "time_to_first_liquidation": Metric("days", 1),
    "near_liquidation_share": Metric("fraction", -1),
    "stops": Metric("count", -1),
    "margin_calls": Metric("count", -1),
    "mean_leverage": Metric("turns of equity", 0),
    "peak_leverage": Metric("turns of equity", -1),
    "peak_margin_ratio": Metric("fraction", -1),
    "leverage_decay": Metric("log growth per year", -1),
    "flows": Metric("money", 0),
    "top_ups": Metric("money", 0),
    "final_equity": Metric("money", 1),
    "fees_annual": _ANNUAL_COST,
    "slippage_annual": _ANNUAL_COST,
    "impact_annual": _ANNUAL_COST,
    "funding_annual": _ANNUAL_COST,
    "interest_annual": _ANNUAL_COST,
}
"""All measures of a run, in their order."""
