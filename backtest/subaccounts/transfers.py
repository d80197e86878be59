"""Amounts that each subaccount receives and gives at a transfer date."""

from __future__ import annotations

import math

import numpy as np

from backtest.base import BoolArray, FloatArray

TO_TARGET, LOSSES_ONLY, NONE = RULES = ("to-target", "losses-only", "none")
"""Restore the shares; only refill lost capital; no transfers."""


def plan_transfers(
    rule: str, equity: FloatArray, shares: FloatArray, capital: float, is_ruined: BoolArray
) -> FloatArray:
    """Return the transfer to each subaccount, negative if it gives, of shape (n_subaccounts,).

    Ruined subaccounts take no part. To the target, the others get to their shares of what they have
    together. With losses only, subaccounts below their share of the capital get what they lack from
    those above, in proportion to lack and to surplus, at most what the surplus is.

    Examples
    --------
    >>> half = np.array([0.5, 0.5])
    >>> alive = np.array([False, False])
    >>> plan_transfers("to-target", np.array([700.0, 500.0]), half, 1000.0, alive).tolist()
    [-100.0, 100.0]
    >>> plan_transfers("losses-only", np.array([700.0, 450.0]), half, 1000.0, alive).tolist()
    [-50.0, 50.0]
    """
    found = np.zeros(len(equity))
    live = ~is_ruined & (shares > 0.0)
    if rule == NONE or live.sum() < 2:
        return found
    if rule == TO_TARGET:
        total = math.fsum(equity[live])
        found[live] = shares[live] / math.fsum(shares[live]) * total - equity[live]
        return found if total > 0.0 else np.zeros(len(equity))
    lack = np.where(live, np.maximum(shares * capital - equity, 0.0), 0.0)
    surplus = np.where(live, np.maximum(equity - shares * capital, 0.0), 0.0)
    moved = min(math.fsum(lack), math.fsum(surplus))
    if not moved > 0.0:
        return found
    found = lack / math.fsum(lack) - surplus / math.fsum(surplus)
    return np.asarray(found * moved)
