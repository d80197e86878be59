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
    if len(names) == 1:
        return list_cuts_of({}, cuts[0])
    rows = list_cuts_of({"instrument": "all"}, cuts[-1])
    for name, sums in zip(names, cuts[:-1], strict=True):
        rows += list_cuts_of({"instrument": name}, sums)
    return rows


def list_cuts_of(head: Mapping[str, Any], sums: core.FloatArray) -> list[dict[str, Any]]:
    """Return the rows of a table that says how limits cut the targets of policies, by cause.

    A row has how many decisions a cause cut, and means over these: of the leverage asked for, held,
    and cut off, and of the distance; NaN without a decision. ``sums`` of shape (causes, sums) has
    the sums. ``head`` are the columns that come first. The cause ``all`` counts all decisions.
    """
    rows = []
    for cause, sums_of_cause in zip(CAUSES, sums, strict=True):
        n_decisions = int(sums_of_cause[COUNT])
        if n_decisions == 0 and cause != "all":
            continue

        share = math.nan
        means = np.full(4, math.nan)
        if n_decisions > 0:
            share = n_decisions / sums[ALL, COUNT]
            means = sums_of_cause[[ASKED, HELD, CUT, DISTANCE]] / n_decisions
        asked, held, shortfall, distance = means.tolist()
        rows.append(
            {
                **head,
                "cause": cause,
                "decisions": n_decisions,
                "share": share,
                "mean_asked": asked,
                "mean_held": held,
                "mean_shortfall": shortfall,
                "mean_distance": distance,
                "days": int(sums_of_cause[DAYS]),
            }
        )
    return rows


def find_columns(setup: Setup) -> dict[str, core.FloatArray]:
    """Return the columns of all policies by name, with their instrument if there are several."""
    labels = label_names(setup.markets).values()
    columns = {}
    for label, own in zip(labels, setup.observed, strict=False):
        for column, values in own.columns.items():
            title = column
            if label:
                title = f"{column} of {label}"
            columns[title] = values
    return columns


# Why a run filled nothing.


def explain_no_fill(setup: Setup, outcome: Outcome, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return why a run filled no order, as a sentence.

    The causes are tested in the order in which a decision meets them: columns that are not known,
    the signal, the leverage of the policy, and the limits of orders. ``rows`` are those of
    :func:`list_cut_rows`; the first has all causes together.
    """
    # What was decided at each close, (n_bars, n). The last close has no bar after it to fill.
    targets = outcome.record.positions.target
    asked = targets[:-1]
    n_closes = f"{len(targets):,}"
    if np.isnan(asked).all():
        return explain_unknown(setup, n_closes)

    signal = setup.inputs.feed.signal
    if not signal[min(setup.first, len(signal) - 1) :].any():
        return f"the signal was 0 or NaN at all {n_closes} closes, which means no position"
    if np.isinf(asked[~np.isnan(asked)]).all():
        return "the limits on its infinite leverage left no room for an order"

    total = rows[0]
    n_decisions = int(total["decisions"])
    if n_decisions == 0:
        return "no decision met an open at which the equity could pay for an order"
    if total["mean_asked"] == 0.0:
        who = "policy or the overlay" if setup.overlay else "policy"
        return (
            f"the {who} returned a leverage of 0, or the signal was 0, at all {n_decisions:,} "
            "decisions"
        )
    return explain_limit(setup, rows)


def explain_unknown(setup: Setup, n_closes: str) -> str:
    """Return why the leverage was NaN at all closes: a column never known, or the formula."""
    columns = find_columns(setup).items()
    unknown = [name for name, values in columns if not np.isfinite(values[:-1]).any()]
    if unknown:
        return (
            f"not known at any of {n_closes} closes: {', '.join(unknown)}; the policy "
            "needs more bars to warm up, or shorter windows"
        )
    return (
        f"the policy returned NaN, which leaves the position as it is, at all {n_closes} "
        "closes: look for NaN in its formula"
    )


def explain_limit(setup: Setup, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return, as a sentence, which limit left no room for orders: the one that cut most in all.

    That is, the largest number of decisions cut times the mean distance between target and actual.
    """
    total = rows[0]
    limits = [row for row in rows[1:] if row.get("instrument", "all") == "all"]
    if not limits:
        return "no limit explains it: look at result.positions"

    worst = max(limits, key=lambda row: float(row["decisions"] * row["mean_distance"]))
    asked = f"{total['mean_asked']:.3g}x"
    if any(label_names(setup.markets).values()):
        asked = f"{asked} per instrument"
    return (
        f"{WORDS[worst['cause']]} left no room for {worst['decisions']:,} of "
        f"{int(total['decisions']):,} decisions, {asked} on average"
        f"{CURES.get(worst['cause'], '')}"
    )


def explain(
    setup: Setup,
    outcome: Outcome,
    closes: core.IntArray,
    rows: Sequence[Mapping[str, Any]],
    no_fills: str | None = None,
) -> str:
    """Return why a run filled no order ("" if it filled one), and warn the user of it.

    Also warns of infinite leverages, of wide bands and of positions that ended with their history.
    ``no_fills`` is the reason if no policy decides, as in a replay; then there is no warning.
    """
    targets = outcome.record.positions.target
    warn_of_bands(setup, targets)
    warn_of_delisted(setup, outcome)

    has_traded = outcome.tally.money.traded > 0.0
    has_fill = has_traded or (outcome.entries["kind"] == Event.FILL).any()
    has_held = outcome.record.positions.quantity.any()
    no_fill = ""
    if not has_fill and not has_held:
        if no_fills is not None:
            return no_fills
        no_fill = explain_no_fill(setup, outcome, rows)

    # A run without columns that asks for 0 is meant to hold cash.
    is_infinite = np.isinf(targets)
    who = name_infinite(setup, is_infinite)
    if no_fill and (find_columns(setup) or targets.any()):
        core.warn_caller(f"{who} filled no order: {no_fill}", core.NoFillWarning)

    infinite_rows = np.flatnonzero(is_infinite.any(axis=1))
    if len(infinite_rows):
        first_time = core.format_time(int(closes[infinite_rows[0]]))
        core.warn_caller(
            f"{who} returned an infinite leverage at {len(infinite_rows):,} of {len(targets):,} "
            f"closes, first at {first_time} UTC (a division by zero?): the "
            "order was as large as its limits allow; return float('nan') there to leave the "
            "position, or set max_leverage",
            core.InfiniteLeverageWarning,
        )
    return no_fill


def warn_of_bands(setup: Setup, targets: core.FloatArray) -> None:
    """Warn of bands wider than most targets of a book; ``targets`` are before their weights."""
    if len(setup.markets.names) == 1:
        return
    weights = setup.signal.T[setup.first :]
    weighted = np.multiply(targets, weights, out=np.zeros_like(targets), where=weights != 0.0)
    warn_of_band(setup.account, setup.markets, weighted)


def warn_of_delisted(setup: Setup, outcome: Outcome) -> None:
    """Warn of positions that were closed because their history ended."""
    is_delisting = outcome.entries["kind"] == Event.DELISTED
    delisted = np.unique(outcome.entries["owner"][is_delisting])
    if not len(delisted):
        return
    names = ", ".join(setup.markets.names[i] for i in delisted)
    core.warn_caller(
        f"the history of {names} ends before the other "
        "histories: the position was closed in its last bar at the mark close (event "
        "'delisted')"
    )


def name_infinite(setup: Setup, is_infinite: core.BoolArray) -> str:
    """Name the policies that returned an infinite leverage, and their instruments.

    ``is_infinite`` has shape (n_bars, n). If none did, all policies are named, without instruments.
    """
    names = setup.markets.names
    chosen = [names[i] for i in np.flatnonzero(is_infinite.any(axis=0))]
    kinds = dict.fromkeys(type(setup.policies[name]).__name__ for name in chosen or names)
    text = ", ".join(kinds)
    if chosen:
        text = f"{text} of {', '.join(chosen)}"
    return text
