"""What a run held in options: its record as ``RunOptions``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from backtest import core, results
from backtest.account.events import Entries, Event
from backtest.engine.run_setup import Setup
from backtest.results.record import OptionFields, Outcome
from backtest.results.run_data import RunOptions


def read_options(setup: Setup, outcome: Outcome) -> RunOptions | None:
    """Return the options that a run held or traded, with their quotes and fills; None without any.

    The markets may list many more contracts. ``chosen`` are the numbers of the K that were held or
    traded, and the arrays of the answer have a column for each of these.
    """
    record: Any = outcome.record.options
    listed = setup.markets.options
    if not listed or record is None:
        return None
    chosen = choose_options(setup, outcome)
    if not len(chosen):
        return None

    feed = setup.inputs.feed.options
    terms = read_option_terms(tuple(listed), feed, chosen)
    contracts = tuple(listed.values())
    legs = [outcome.legs.get(k, "") for k in chosen.tolist()]

    # The record has a column for each contract that is listed; the log names a contract by a
    # number, its owner, after those of instruments and collateral.
    columns = [field[:, chosen] for field in record]
    held = OptionFields(*columns)
    owners = chosen + count_owners(setup)

    expiries = find_expiries(feed, chosen, setup.first, len(held.quantity))
    spots = feed.expiry_spots[chosen]
    return RunOptions(
        contracts=tuple(contracts[k] for k in chosen),
        legs=tuple(legs),
        owners=owners,
        terms=terms,
        quotes=quote_options(setup, terms, chosen, expiries.at_open),
        record=held,
        opened=find_opened(setup, outcome, held.quantity, owners, expiries.at_open),
        entries=find_entries(outcome.entries, held.quantity, owners, setup.first),
        settled=np.where(expiries.inside, spots, np.nan),
        ages=feed.ages[setup.first :, chosen],
        hedged=tuple(sorted(outcome.hedged)),
    )


def count_owners(setup: Setup) -> int:
    """Return the number in the log of the first option: instruments and collateral come before."""
    return len(setup.markets.names) + len(setup.account.collateral)


def choose_options(setup: Setup, outcome: Outcome) -> core.IntArray:
    """Return the numbers of the contracts that the log names, or that were held at a close."""
    record: Any = outcome.record.options
    first_owner = count_owners(setup)
    entries = outcome.entries
    owners = entries["owner"][entries["kind"] != Event.CAUSED]  # causes have numbers too
    traded = np.unique(owners[owners >= first_owner]) - first_owner
    return np.union1d(traded, np.flatnonzero(record.quantity.any(axis=0)))


def read_option_terms(
    names: Sequence[str], feed: Any, chosen: core.IntArray
) -> results.OptionTerms:
    return results.OptionTerms(
        names=tuple(names[k] for k in chosen),
        signs=feed.signs[chosen],
        strikes=feed.strikes[chosen],
        sizes=feed.sizes[chosen],
        are_coin=feed.are_coin[chosen],
        instruments=feed.instruments[chosen],
        expiries=feed.expiry_times[chosen],
        rates=feed.rates[chosen],
    )


class Expiries(NamedTuple):
    """Where contracts expire, of shape (n_bars, K): at the open of a bar, or inside it."""

    at_open: core.BoolArray
    inside: core.BoolArray


def find_expiries(feed: Any, chosen: core.IntArray, first: int, n_bars: int) -> Expiries:
    """Return where the chosen contracts expire, by bar from ``first`` on."""
    expired = np.zeros((2, n_bars, len(chosen)), dtype=bool)
    bars = feed.expiry_bars[chosen] - first
    ended = np.flatnonzero((bars >= 0) & (bars < n_bars))
    are_inside = feed.are_inside[chosen[ended]].astype(np.int64)
    expired[are_inside, bars[ended], ended] = True
    return Expiries(at_open=expired[0], inside=expired[1])


def quote_options(
    setup: Setup, terms: results.OptionTerms, chosen: core.IntArray, expires: core.BoolArray
) -> results.OptionQuotes:
    """Return what options are worth at each open and close, and what their value follows from.

    ``chosen`` are the numbers of the K contracts. ``expires`` (n_bars, K) says at which open one
    expires: there it is worth its intrinsic value at its settlement price, which is the index then,
    with no basis, no volatility, no time left and no mark.
    """
    market = setup.inputs.feed
    feed = market.options
    first = setup.first
    rows = (slice(first, None), chosen)

    index = market.mark_open[first:][:, terms.instruments]
    index = np.where(expires, feed.expiry_spots[chosen], index)
    forward = index * np.where(expires, 1.0, feed.bases_open[rows])
    at_open = value_state(
        terms,
        forward,
        volatility=np.where(expires, 0.0, feed.volatilities_open[rows]),
        years=np.where(expires, 0.0, feed.years_open[rows]),
        marks=np.where(expires, np.nan, feed.marks_open[rows]),
    )

    index_close = market.mark_close[first:][:, terms.instruments]
    forward_close = index_close * feed.bases_close[rows]
    at_close = value_state(
        terms,
        forward_close,
        volatility=feed.volatilities_close[rows],
        years=feed.years_close[rows],
        marks=feed.marks_close[rows],
    )
    return results.OptionQuotes(index, forward, *at_open, index_close, forward_close, *at_close)


def value_state(
    terms: results.OptionTerms,
    forward: core.FloatArray,
    *,
    volatility: core.FloatArray,
    years: core.FloatArray,
    marks: core.FloatArray,
) -> tuple[core.FloatArray, core.FloatArray, core.FloatArray]:
    """Return volatility, years left and value of each option by bar: three arrays (n_bars, K).

    The value is that of one contract, in money: the quoted mark if there is one, which then implies
    the volatility; else that of the model. NaN where the option has expired (years below 0).
    """
    # An option lives where years are left; the model values it there. Arrays ``of_living`` have an
    # element for each pair of a bar and an option that lives in it.
    bars, options = np.nonzero(years >= 0.0)
    forward_of_living = forward[bars, options]
    years_of_living = years[bars, options]
    state = results.OptionState(forward_of_living, volatility[bars, options], years_of_living)
    value_of_unit = np.full(forward.shape, np.nan)
    value_of_unit[bars, options] = results.compute_prices(terms, options, state)

    # Where a mark is quoted it is the value, and the volatility is the one that it implies.
    implied = volatility.copy()
    quoted = np.flatnonzero(~np.isnan(marks[bars, options]))
    if len(quoted):
        places = (bars[quoted], options[quoted])
        value_of_unit[places] = marks[places]
        implied[places] = results.compute_volatilities(
            terms,
            options[quoted],
            forward_of_living[quoted],
            marks[places],
            years_of_living[quoted],
        )
    return implied, years, value_of_unit * terms.sizes


def find_opened(
    setup: Setup,
    outcome: Outcome,
    quantity: core.FloatArray,
    owners: core.IntArray,
    expires: core.BoolArray,
) -> core.FloatArray:
    """Return the signed contracts held after the fills at each open, of shape (n_bars, K).

    It is what was held at the close before, less what ``expires`` at the open, plus the fills
    there. ``quantity`` (n_bars, K) is what was held at each close. ``owners`` (K,), rising, are the
    numbers by which the log names the contracts.
    """
    # What was held at the close before, less what expires at the open.
    none_held = np.zeros((1, quantity.shape[1]))
    held_before = np.concatenate([none_held, quantity[:-1]])
    opened = np.where(expires, 0.0, held_before)

    # An option may fill several times at an open, so its fills are added one by one.
    entries = outcome.entries
    is_fill = entries["kind"] == Event.FILL
    fills = entries[is_fill & np.isin(entries["owner"], owners)]
    rows = fills["bar"] - setup.first
    columns = np.searchsorted(owners, fills["owner"])
    np.add.at(opened, (rows, columns), fills["quantity"])
    return opened


def find_entries(
    entries: Entries, held: core.FloatArray, owners: core.IntArray, first: int
) -> core.FloatArray:
    """Return the average entry price of what is held of each option at each close: (n_bars, K).

    An increase moves the average towards its price, by contracts; a reduction leaves it. What opens
    or flips begins with the price of its fill. NaN where nothing is held. ``owners`` are the
    numbers by which the log names the contracts, ``first`` is the first bar of the account.
    """
    averages = np.full(held.shape, np.nan)
    for place, owner in enumerate(owners.tolist()):
        quantity = 0.0
        average = np.nan
        of_owner = entries[(entries["owner"] == owner) & (entries["quantity"] != 0.0)]

        for bar, change, value in of_owner[["bar", "quantity", "value"]].tolist():
            quantity_after = quantity + change
            is_increase = quantity * change > 0.0
            is_other = quantity * quantity_after <= 0.0  # opened, closed or flipped
            if is_increase:
                average = (quantity * average + change * value) / quantity_after
            elif is_other:
                average = value
            quantity = quantity_after

            # From here on, until a later fill writes over it.
            averages[bar - first :, place] = average
    return np.where(held != 0.0, averages, np.nan)
