"""How many bars of history precede simulated ones, so that columns are known there."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence, Set
from typing import NamedTuple

import numpy as np

from backtest import core, engine
from backtest.market import Markets, find_clock
from backtest.policies import Policy
from backtest.venue import Venue

LEAST_BARS = 2000
"""The least bars in front, for the columns of policies and for impact, if history has so many."""
TIMES_KNOWN = 3
"""Bars in front, over the first bar at which the columns are known: a first value rests on the
fewest returns that its estimator takes, one after three times as many on nearly all its weights."""

Column = tuple[int, str]
"""A column of observed policies: the place of the policy, and the name."""


class WarmUp(NamedTuple):
    """When the columns of policies are known on a history, in its bars.

    ``known`` is the bar at whose close the last column has its first value, ``needed`` the most
    bars of an instrument before such a value, and ``never`` are the columns without any value.
    """

    known: int
    needed: int
    never: frozenset[Column]

    def count_bars(self, markets: Markets, venues: Mapping[str, Venue]) -> int:
        """Return how many bars of history columns have in front of simulated ones."""
        # A margin rule knows all days.
        if any(venue.margin is not None for venue in venues.values()):
            return markets.n_bars
        return min(max(LEAST_BARS, TIMES_KNOWN * self.needed), markets.n_bars)


def measure_warm_up(observed: Sequence[engine.ObservedPolicy], markets: Markets) -> WarmUp:
    """Return when the columns of observed policies have their first values.

    That is the bar at which all of them are known, the most bars that one needed after its
    instrument was listed, and the columns that are known at no bar.
    """
    # The bar at whose close each longer bar ends that policies are shown.
    clock = find_clock(markets)
    closes = np.arange(markets.n_bars)
    if not clock.is_every:
        closes = clock.find_closes()

    known = 0
    needed = 0
    never = set[Column]()
    for column, first in list_first_values(observed).items():
        if first is None:
            never.add(column)
            continue

        # A column is named by the place of its policy, whose instrument may be listed later.
        place = column[0]
        listed = observed[place].first
        bar = int(closes[listed + first])
        bars_before_listing = int(closes[listed] - closes[0])
        known = max(known, bar)
        needed = max(needed, bar - bars_before_listing)
    return WarmUp(known, needed, frozenset(never))


def observe_history(
    policies: Mapping[str, Policy],
    overlay: Policy | None,
    markets: Markets,
    venues: Mapping[str, Venue],
    weights: core.FloatArray,
) -> list[engine.ObservedPolicy]:
    """Return policies with their columns on all of history; ``weights`` (n, n_bars) its signal."""
    clock = find_clock(markets)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the setup of the paths gives them
        return engine.observe_policies(
            policies,
            overlay,
            clock.seen,
            venues,
            clock.pick(weights),
            is_checked=False,
        )


def check_known(
    observed: Sequence[engine.ObservedPolicy],
    markets: Markets,
    bar: int,
    before: str,
    apart: Set[Column] = frozenset(),
) -> None:
    """Refuse a column without any value up to the close of a bar, but for those ``apart``.

    ``before`` names what begins there. A policy whose columns are not known holds nothing, and what
    holds nothing is never liquidated.
    """
    stop = find_clock(markets).count(bar + 1)
    for column, first in list_first_values(observed).items():
        place, name = column
        policy = observed[place]
        if column in apart or (first is not None and policy.first + first < stop):
            continue
        raise core.DataError(
            f"columns must be known where {before} begin: {name!r} of {policy.policy!r:.80} has no "
            f"value in the {bar + 1:,} bars up to {core.format_time(int(markets.time[bar]))} UTC; "
            "give a longer history, or settings that need fewer bars"
        )


def list_first_values(
    observed: Sequence[engine.ObservedPolicy],
) -> dict[Column, int | None]:
    """Return the bar at which each column has its first value, None if it never has one.

    Bars are those that the policy sees, from the first one of its instrument on.
    """
    first_values = {}
    for place, policy in enumerate(observed):
        for name, column in policy.columns.items():
            first_values[place, name] = engine.find_first_value(column)
    return first_values
