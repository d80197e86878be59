"""What limits cut of the targets of a run, and why a run filled nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from backtest import core
from backtest.account.cut_counts import ALL, ASKED, CAUSES, COUNT, CUT, DAYS, DISTANCE, HELD
from backtest.account.events import Event
from backtest.engine.checks import warn_of_band
from backtest.engine.run_setup import Setup
from backtest.market import label_names
from backtest.results.record import Outcome

WORDS = {
    "min_leverage": "the account's min_leverage",
    "max_leverage": "the account's max_leverage",
    "band": "the no-trade band",
    "unfilled": "limit orders that did not fill",
    "margin_share": "the account's margin_share",
    "initial_margin": "initial margin",
    "venue_leverage": "the venue leverage",
    "wallet": "available balance (isolated margin)",
    "participation": "max_participation",
    "lot": "lot rounding",
    "min_notional": "the minimum notional",
    "max_gross_leverage": "the account's max_gross_leverage",
    "cap_over_band": "trades inside bands, forced by max_gross_leverage",
    "band_over_cap": "closes above max_gross_leverage, allowed by the bands",
}
CURES = {
    "band": ": narrow the band",
    "lot": ": the capital is too small for it",
    "min_notional": ": the capital is too small for it",
    "participation": ": the bars have too little volume",
}
"""What a warning of a run without a fill adds."""


def list_cut_rows(names: Sequence[str], cuts: core.FloatArray) -> list[dict[str, Any]]:
    """Return the rows of the table of cuts from the sums of a run, those of all instruments first.

    ``cuts`` of shape (n + 1, causes, sums) have an instrument a row, and all of them in the last.
    """
    heads: list[dict[str, Any]] = [{"instrument": name} for name in ("all", *names)]
    if len(names) == 1:
        heads, cuts = [{}], cuts[:1]
    found = []
    for head, sums in zip(heads, (cuts[-1], *cuts[:-1]), strict=True):
        for cause, own in zip(CAUSES, sums, strict=True):
            n = int(own[COUNT])
            if not n and cause != "all":
                continue
            means = own[[ASKED, HELD, CUT, DISTANCE]] / n if n else np.full(4, math.nan)
            fields = ("mean_asked", "mean_held", "mean_shortfall", "mean_distance")
            found.append(
                {
                    **head,
                    "cause": cause,
                    "decisions": n,
                    "share": n / sums[ALL, COUNT] if n else math.nan,
                    **dict(zip(fields, means.tolist(), strict=True)),
                    "days": int(own[DAYS]),
                }
            )
    return found


def find_columns(setup: Setup) -> dict[str, core.FloatArray]:
    labels = label_names(setup.markets).values()
    return {
        f"{column} of {label}" if label else column: values
        for label, each in zip(labels, setup.observed, strict=False)
        for column, values in each.columns.items()
    }


def explain_no_fill(setup: Setup, outcome: Outcome, rows: Sequence[Mapping[str, Any]]) -> str:
    level, total = outcome.record.positions.target, rows[0]
    asked, n = level[:-1], int(total["decisions"])
    if np.isnan(asked).all():
        columns = find_columns(setup).items()
        unknown = [name for name, column in columns if not np.isfinite(column[:-1]).any()]
        if unknown:
            return (
                f"not known at any of {len(level):,} closes: {', '.join(unknown)}; the policy "
                "needs more bars to warm up, or shorter windows"
            )
        return (
            f"the policy returned NaN, which leaves the position as it is, at all {len(level):,} "
            "closes: look for NaN in its formula"
        )
    signal = setup.inputs.feed.signal
    if not signal[min(setup.first, len(signal) - 1) :].any():
        return f"the signal was 0 or NaN at all {len(level):,} closes, which means no position"
    if np.isinf(asked[~np.isnan(asked)]).all():
        return "the limits on its infinite leverage left no room for an order"
    if n == 0:
        return "no decision met an open at which the equity could pay for an order"
    if total["mean_asked"] == 0.0:
        who = "policy or the overlay" if setup.overlay else "policy"
        return f"the {who} returned a leverage of 0, or the signal was 0, at all {n:,} decisions"
    limits = [row for row in rows if row.get("instrument", "all") == "all" and row is not total]
    if not limits:
        return "no limit explains it: look at result.positions"
    worst = max(limits, key=lambda row: float(row["decisions"] * row["mean_distance"]))
    each = " per instrument" * any(label_names(setup.markets).values())
    return (
        f"{WORDS[worst['cause']]} left no room for {worst['decisions']:,} of {n:,} decisions, "
        f"{total['mean_asked']:.3g}x{each} on average"
        f"{CURES.get(worst['cause'], '')}"
    )


def explain(
    setup: Setup, outcome: Outcome, closes: core.IntArray, rows: Sequence[Mapping[str, Any]]
) -> str:
    level, names = outcome.record.positions.target, setup.markets.names
    weights = setup.signal.T[setup.first :]
    if len(names) > 1:
        targets = np.multiply(level, weights, out=np.zeros_like(level), where=weights != 0.0)
        warn_of_band(setup.account, setup.markets, targets)
    delisted = np.unique(outcome.entries["owner"][outcome.entries["kind"] == Event.DELISTED])
    if len(delisted):
        core.warn_caller(
            f"the history of {', '.join(names[i] for i in delisted)} ends before the other "
            "histories: the position was closed in its last bar at the mark close (event "
            "'delisted')"
        )
    has_fill = outcome.tally.money.traded > 0.0 or (outcome.entries["kind"] == Event.FILL).any()
    is_idle = not (has_fill or outcome.record.positions.quantity.any())
    no_fill = explain_no_fill(setup, outcome, rows) if is_idle else ""
    infinite = np.isinf(level)
    at = np.flatnonzero(infinite.any(axis=1))
    chosen = [names[i] for i in np.flatnonzero(infinite.any(axis=0))]
    kinds = dict.fromkeys(type(setup.policies[name]).__name__ for name in chosen or names)
    whose = ", ".join(kinds) + (f" of {', '.join(chosen)}" if chosen else "")
    if no_fill and (find_columns(setup) or level.any()):  # else it is meant to hold cash
        core.warn_caller(f"{whose} filled no order: {no_fill}", core.NoFillWarning)
    if len(at):
        core.warn_caller(
            f"{whose} returned an infinite leverage at {len(at):,} of {len(level):,} closes, "
            f"first at {core.format_time(int(closes[at[0]]))} UTC (a division by zero?): the "
            "order was as large as its limits allow; return float('nan') there to leave the "
            "position, or set max_leverage",
            core.InfiniteLeverageWarning,
        )
    return no_fill
