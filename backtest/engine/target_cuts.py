"""Rows of how far limits cut the targets of an account, and the names of the limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from backtest.account.order_cuts import ALL, ASKED, CAUSES, COUNT, CUT, DAYS, DISTANCE, HELD
from backtest.base import FloatArray

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
}
LEAST_SHARE = 0.05
"""Limits are mentioned if they moved the decisions that they touched by this share on average."""


def is_large(row: Mapping[str, Any], total: Mapping[str, Any]) -> bool:
    asked = max(abs(float(row["mean_asked"])), abs(float(total["mean_asked"])))
    return bool(row["mean_distance"] >= LEAST_SHARE * asked)


def list_cut_rows(names: Sequence[str], cuts: FloatArray) -> list[dict[str, Any]]:
    """Return the rows of the table of cuts from the sums of a run, those of all instruments first.

    ``cuts`` of shape (n + 1, causes, sums) have an instrument a row, and all of them in the last.
    """
    if len(names) == 1:
        return average_rows(cuts[0])
    rows = [{"instrument": "all", **row} for row in average_rows(cuts[-1])]
    for name, own in zip(names, cuts[:-1], strict=True):
        rows += [{"instrument": name, **row} for row in average_rows(own)]
    return rows


def average_rows(sums: FloatArray) -> list[dict[str, Any]]:
    total = sums[ALL, COUNT]
    found = []
    for cause, own in zip(CAUSES, sums, strict=True):
        n = int(own[COUNT])
        if not n and cause != "all":
            continue
        means = own[[ASKED, HELD, CUT, DISTANCE]] / n if n else np.full(4, math.nan)
        names = ("mean_asked", "mean_held", "mean_shortfall", "mean_distance")
        found.append(
            {
                "cause": cause,
                "decisions": n,
                "share": n / total if n else math.nan,
                **dict(zip(names, means.tolist(), strict=True)),
                "days": int(own[DAYS]),
            }
        )
    return found
