"""Rows of how far limits cut the targets of an account, and the names of the limits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from backtest.base import FloatArray, IntArray

WORDS = {
    "min_leverage": "the account's min_leverage",
    "max_leverage": "the account's max_leverage",
    "band": "the band",
    "unfilled": "limit orders that did not fill",
    "initial_margin": "initial margin",
    "venue_leverage": "the venue leverage",
    "wallet": "the wallet (isolated margin)",
    "participation": "max_participation",
    "lot": "lots",
    "min_notional": "the least notional",
    "max_gross_leverage": "the account's max_gross_leverage",
    "margin_call": "an unmet margin call",
}
LEAST_SHARE = 0.05
"""Limits are mentioned if they moved the decisions that they touched by this share on average."""


def is_large(row: Mapping[str, Any], total: Mapping[str, Any]) -> bool:
    asked = max(abs(float(row["mean_asked"])), abs(float(total["mean_asked"])))
    return bool(row["mean_distance"] >= LEAST_SHARE * asked)


def average_row(
    cause: str, cut: FloatArray, asked: FloatArray, held: FloatArray, day: IntArray, total: int
) -> dict[str, Any]:
    columns = {
        "mean_asked": asked,
        "mean_held": held,
        "mean_shortfall": cut,
        "mean_distance": np.abs(cut),
    }
    n = len(cut)
    return {
        "cause": cause,
        "decisions": n,
        "share": n / total if total else math.nan,
        **{name: float(np.mean(x)) if n else math.nan for name, x in columns.items()},
        "days": len(np.unique(day)),
    }
