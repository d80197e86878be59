"""The terms of a venue and an account that cost nothing and limit nothing.

The scenes of the engine (``scenes.py``), and of engine and oracle together
(``portfolio_scenes.py``), are these with something changed.
"""

import math
from typing import Any

GROUPS: dict[str, dict[str, Any]] = {
    "contract": {"kind": "linear", "size": 1.0, "lot": 0.0, "tick": 1e-8, "min_notional": 0.0},
    "fees": {"taker": 0.0, "maker": 0.0, "maker_share": 0.0},
    "slippage": {"rate": 0.0, "impact": 0.0, "impact_window": "1d", "max_participation": None},
    "liquidation": {
        "mode": "close",
        "fee": 0.0,
        "slippage": 0.0,
        "step": 0.2,
        "full_below": 0.0,
        "order": None,
    },
}
TERMS: dict[str, Any] = {
    "interest_on": "balance",
    "borrow_rate": 0.0,
    "cash_rate": 0.0,
    "short_rate": 0.0,
    "day_count": 365,
    "funding_jitter": "60s",
    "isolated_funding": "margin",
    "maintenance_at": "mark",
    "includes_close_fee": False,
    "margin_multiplier": 1.0,
    "call_grace": None,
    "profit_counts": "all",
}
ACCOUNT: dict[str, Any] = {
    "capital": 1000.0,
    "margin": "cross",
    "venue_leverage": None,
    "min_leverage": 0.0,
    "max_leverage": math.inf,
    "band": 0.0,
    "stop_loss": None,
    "margin_call": None,
    "reserve": 0.0,
    "top_up_to": None,
    "after_liquidation": "continue",
    "flows": None,
    "ruin_at": None,
}
