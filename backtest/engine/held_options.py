"""What a run held in options: its record as ``RunOptions``."""

from __future__ import annotations

from typing import Any

import numpy as np

from backtest import core, results
from backtest.account.events import Entries, Event
from backtest.engine.run_setup import Setup
from backtest.results.record import OptionFields, Outcome
from backtest.results.run_data import RunOptions


def read_options(setup: Setup, outcome: Outcome) -> RunOptions | None:
    record: Any = outcome.record.options
    listed = setup.markets.options
    if not listed or record is None:
        return None
    after = len(setup.markets.names) + len(setup.account.collateral)
    entries, first = outcome.entries, setup.first
    events = entries[entries["kind"] != Event.CAUSED]  # causes have numbers too
    kept = np.unique(events["owner"][events["owner"] >= after]) - after
    kept = np.union1d(kept, np.flatnonzero(record.quantity.any(axis=0)))
    if not len(kept):
        return None
    market, names = setup.inputs.feed, tuple(listed)
    feed = market.options
    terms = results.OptionTerms(
        names=tuple(names[k] for k in kept),
        signs=feed.signs[kept],
        strikes=feed.strikes[kept],
        sizes=feed.sizes[kept],
        are_coin=feed.are_coin[kept],
        instruments=feed.instruments[kept],
        expiries=feed.expiry_times[kept],
        rates=feed.rates[kept],
    )
    held = OptionFields(*(each[:, kept] for each in record))
    opens, closes = market.mark_open[first:], market.mark_close[first:]
    expired = np.zeros((2, *held.quantity.shape), dtype=bool)  # at the open, or inside the bar
    bars = feed.expiry_bars[kept] - first
    ended = np.flatnonzero((bars >= 0) & (bars < len(held.quantity)))
    expired[feed.are_inside[kept[ended]].astype(np.int64), bars[ended], ended] = True
    at, legs = (slice(first, None), kept), outcome.legs
    gone, spots = expired[0], feed.expiry_spots[kept]
    index = np.where(gone, spots, opens[:, terms.instruments])
    bases = np.where(gone, 1.0, feed.bases_open[at])
    years = np.where(gone, 0.0, feed.years_open[at])
    marks = np.where(gone, np.nan, feed.marks_open[at])
    volatilities = np.where(gone, 0.0, feed.volatilities_open[at])
    index_close = closes[:, terms.instruments]
    forward = index_close * feed.bases_close[at]
    at_close = (feed.volatilities_close[at], feed.years_close[at], feed.marks_close[at])
    quotes = results.OptionQuotes(
        index,
        index * bases,
        *value_state(terms, index * bases, volatilities, years, marks),
        index_close,
        forward,
        *value_state(terms, forward, *at_close),
    )
    opened = np.where(gone, 0.0, np.pad(held.quantity, ((1, 0), (0, 0)))[:-1])  # after the fills
    fills = entries[(entries["kind"] == Event.FILL) & np.isin(entries["owner"], kept + after)]
    places = np.searchsorted(kept + after, fills["owner"])
    np.add.at(opened, (fills["bar"] - first, places), fills["quantity"])
    return RunOptions(
        contracts=tuple(listed[name] for name in terms.names),
        legs=tuple(legs.get(k, "") for k in kept.tolist()),
        owners=kept + after,
        terms=terms,
        quotes=quotes,
        record=held,
        opened=opened,
        entries=find_entries(entries, held.quantity, kept + after, first),
        settled=np.where(expired[1], spots, np.nan),
        ages=feed.ages[at],
        hedged=tuple(sorted(outcome.hedged)),
    )


def value_state(
    terms: results.OptionTerms,
    forward: core.FloatArray,
    volatility: core.FloatArray,
    years: core.FloatArray,
    marks: core.FloatArray,
) -> tuple[core.FloatArray, core.FloatArray, core.FloatArray]:
    """Return volatilities, years and money values of options by bar; quoted marks come first."""
    bars, options = np.nonzero(years >= 0.0)
    state = np.stack([forward[bars, options], volatility[bars, options], years[bars, options]])
    value, found = np.full(forward.shape, np.nan), volatility.copy()
    value[bars, options] = results.compute_prices(terms, options, state)
    rows = np.flatnonzero(~np.isnan(marks[bars, options]))
    if len(rows):
        own, at = (bars[rows], options[rows]), state[:, rows]
        value[own] = marks[own]
        found[own] = results.compute_volatilities(terms, options[rows], at[0], marks[own], at[2])
    return found, years, value * terms.sizes


def find_entries(
    entries: Entries, held: core.FloatArray, owners: core.IntArray, first: int
) -> core.FloatArray:
    """Return the average prices of what is held at each close, of shape (n_bars, K)."""
    found = np.full(held.shape, np.nan)
    for place, owner in enumerate(owners.tolist()):
        quantity, average = 0.0, np.nan
        own = entries[(entries["owner"] == owner) & (entries["quantity"] != 0.0)]
        for bar, change, value in own[["bar", "quantity", "value"]].tolist():
            after = quantity + change
            if quantity * change > 0.0:
                average = (quantity * average + change * value) / after
            elif quantity * after <= 0.0:
                average = value
            quantity = after
            found[bar - first :, place] = average
    return np.where(held != 0.0, found, np.nan)
