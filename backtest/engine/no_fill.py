"""Explain in one sentence why a run filled no order: its decisions, or the limit that binds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.account.ledger import FILL
from backtest.base.caller_warnings import warn_caller
from backtest.base.errors import NoFillWarning
from backtest.base.units import FloatArray
from backtest.engine.target_cuts_table import measure_cuts

if TYPE_CHECKING:
    from backtest.account import Account
    from backtest.engine.loop_inputs import Inputs
    from backtest.engine.record import Outcome
    from backtest.venue import Venue


def is_filled(outcome: Outcome) -> bool:
    """Return whether a run filled an order, or carried a position from an earlier run."""
    has_fill = outcome.tally.money.traded > 0.0 or (outcome.entries[:, 1] == FILL).any()
    return bool(has_fill or (outcome.of_positions("quantity") != 0.0).any())


def is_cash(columns: Mapping[str, FloatArray], target: FloatArray) -> bool:
    """Return whether a policy that computes nothing from the market asked for 0 at every close.

    This is ``Constant(0.0)``, which holds cash on purpose.
    """
    return not columns and not target.any()


def explain_no_fill(
    outcome: Outcome,
    inputs: Inputs,
    columns: Mapping[str, FloatArray],
    venue: Venue,
    account: Account,
    first: int,
) -> str:
    """Return why a run from bar ``first`` filled no order, without a full stop; empty if it did."""
    if is_filled(outcome):
        return ""
    target = outcome.of_positions("target")[:, 0]
    if np.isnan(target[:-1]).all():
        return explain_nan(target, columns)
    rows = measure_cuts(inputs, outcome.record, outcome.entries, first)
    total = rows[0]
    n = int(total["decisions"])
    if n == 0 and inputs.rules.instrument.has_order_fee is not None:
        return "the equity was at most the fixed fee of an order, fees.per_order, at any decision"
    if n == 0:
        return "the account had no equity at any decision"
    if not inputs.feed.signal.any():
        return f"the signal was 0 at all {n:,} decisions, which asks for no position"
    if total["mean_asked"] == 0.0:
        return f"the policy asked for a leverage of 0, or the signal was 0, at all {n:,} decisions"
    return explain_limit(rows, venue, account)


def explain_nan(target: FloatArray, columns: Mapping[str, FloatArray]) -> str:
    """Return why a policy returned NaN at every close before the last."""
    n = len(target)
    unknown = [name for name, column in columns.items() if not np.isfinite(column[:-1]).any()]
    if unknown:
        names = ", ".join(unknown)
        verb = "was" if len(unknown) == 1 else "were"
        return (
            f"{names} {verb} not known at any of {n:,} closes: the policy needs more bars to warm "
            "up, or shorter windows"
        )
    return (
        f"the policy returned NaN, which leaves the position as it is, at all {n:,} closes: look "
        "for NaN in its formula"
    )


def explain_limit(rows: Sequence[Mapping[str, Any]], venue: Venue, account: Account) -> str:
    """Return which limit prevented the orders: the one that cut most."""
    total = rows[0]
    worst = max(rows[1:], key=lambda row: float(row["decisions"] * row["mean_distance"]))
    n = int(worst["decisions"])
    of = f"{n:,} of {total['decisions']:,}"
    asked = f"{total['mean_asked']:.3g}x on average"
    small = f"the capital of {account.capital:g} is too small for them"
    reasons = {
        "band": f"the targets of {of} decisions ({asked}) lay within the band of {account.band:g} "
        "turns of equity around no position: narrow the band",
        "min_notional": f"the orders of {of} decisions ({asked}) were under the least notional of "
        f"the venue, {venue.contract.min_notional or 0.0:g}: {small}",
        "lot": f"the orders of {of} decisions ({asked}) were under one lot, "
        f"{venue.contract.lot:g} contracts: {small}",
        "participation": f"max_participation left no volume for the orders of {of} decisions: the "
        "bars have too little volume",
    }
    limit = worst["cause"].replace("_", " ")
    return reasons.get(worst["cause"], f"{limit} left no room for an order at {n:,} decisions")


def count_unfilled(metrics: Mapping[str, FloatArray]) -> int:
    """Return the number of sets that filled no order: those whose turnover is 0."""
    return int((np.asarray(metrics["turnover"]) == 0.0).sum())


def warn_of_unfilled(metrics: Mapping[str, FloatArray]) -> None:
    """Warn about the sets of a sweep that filled no order."""
    n, total = count_unfilled(metrics), len(metrics["turnover"])
    if n:
        warn_caller(
            f"{n:,} of {total:,} sets filled no order; a run of one of them says why", NoFillWarning
        )
