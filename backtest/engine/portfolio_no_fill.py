"""Explain in one sentence why a run of several positions filled no order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.account.ledger import FILL
from backtest.base.units import FloatArray
from backtest.engine.no_fill import explain_nan
from backtest.engine.target_cuts_text import WORDS

if TYPE_CHECKING:
    from backtest.engine.portfolio_setup import Setup
    from backtest.engine.record import Outcome

CURES = {
    "band": "narrow the band",
    "min_notional": "the capital is too small for them",
    "lot": "the capital is too small for them",
    "participation": "the bars have too little volume",
}
"""What to do about a limit that left no order."""


def explain_no_book_fill(
    setup: Setup, outcome: Outcome, measure_cuts: Callable[[], Sequence[Mapping[str, Any]]]
) -> str:
    """Return why a run filled no order, without a full stop; empty if it did.

    ``measure_cuts`` returns the rows of the table of cuts.
    """
    has_position = (outcome.of_positions("quantity") != 0.0).any()
    if has_position or (outcome.entries[:, 1] == FILL).any():
        return ""
    level, first = outcome.of_positions("target")[:-1], setup.first
    signal = setup.inputs.feed.signal[first : first + len(level)]
    rows, n = measure_cuts(), len(level)
    total = rows[0]
    if not signal.any():
        return f"all weights were 0 or NaN at all {n:,} closes"
    if np.isnan(level).all():
        unknown = find_unknown(setup)
        return explain_nan(np.append(level[:, 0], np.nan), unknown)
    if np.isinf(level[~np.isnan(level)]).all():
        return "its infinite leverage met limits that left no room for an order"
    if not total["decisions"]:
        return "no decision met an open at which the account had equity"
    if total["mean_asked"] == 0.0:
        return (
            f"the policy or the overlay asked for a leverage of 0, or the weights were 0, at all "
            f"{total['decisions']:,} decisions"
        )
    return explain_book_limit(rows)


def find_unknown(setup: Setup) -> dict[str, FloatArray]:
    """Return the columns of all policies, by name and instrument."""
    return {
        f"{column} of {name}": values
        for name, each in zip(setup.markets.names, setup.panelists, strict=False)
        for column, values in each.columns.items()
    }


def explain_book_limit(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return which limit prevented the orders: the one that cut most."""
    total = rows[0]
    limits = [row for row in rows if row["instrument"] == "all" and row["cause"] != "all"]
    if not limits:
        return "no limit explains it: look at result.positions"
    worst = max(limits, key=lambda row: float(row["decisions"] * row["mean_distance"]))
    cure = CURES.get(worst["cause"], "")
    return (
        f"{WORDS[worst['cause']]} left no order at {worst['decisions']:,} of "
        f"{total['decisions']:,} decisions, which asked for {total['mean_asked']:.3g}x per "
        f"instrument on average{': ' if cure else ''}{cure}"
    )


def name_boundless(setup: Setup, level: FloatArray) -> str:
    """Return the policies for a warning; those that asked for an infinite leverage, if any did."""
    is_boundless = np.atleast_1d(np.isinf(level).any(axis=0))
    chosen = [
        (name, type(setup.policies[name]).__name__)
        for name, boundless in zip(setup.markets.names, is_boundless, strict=True)
        if boundless or not is_boundless.any()
    ]
    kinds = dict.fromkeys(kind for _, kind in chosen)
    of = f" of {', '.join(name for name, _ in chosen)}" if is_boundless.any() else ""
    return f"{', '.join(kinds)}{of}"
