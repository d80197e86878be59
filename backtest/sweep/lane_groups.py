"""Sort sets of parameters into groups that one loop over lanes can take: same rules, same feed.

Fields of account and venue that are plain numbers in the rules differ from lane to lane; every
other difference, of margin mode, liquidation mode, margin calls and so on, makes a group of its
own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from backtest.base.units import FloatArray, IntArray
from backtest.sweep.sets.sets import Base, Sets, Setting, Trio, build_trio, count_sets

COMMON = {
    "account.band": "band",
    "account.min_leverage": "min_leverage",
    "account.max_leverage": "max_leverage",
    "account.ruin_at": "ruin_at",
}
"""Fields that every lane has of its own, with their rows."""

OWN = {
    "account.stop_loss": "stop_loss",
    "account.venue_leverage": "setting",
    "venue.contract.lot": "lot",
    "venue.contract.min_notional": "min_notional",
    "venue.slippage.rate": "slip",
    "venue.liquidation.fee": "liquidation_fee",
    "venue.liquidation.slippage": "liquidation_slippage",
    "venue.liquidation.full_below": "full_below",
}
"""Fields that lanes may have of their own where they differ, with their rows."""

FEES = ("venue.fees.taker", "venue.fees.maker", "venue.fees.maker_share")
CAPITAL = ("account.capital", "account.reserve")


class Group(NamedTuple):
    """Sets that one loop takes.

    ``rows`` are their places among all sets, ``trio`` what the first of them stands for;
    ``terms`` the values of account and venue that differ inside the group, by name, each of shape
    (n_rows,).
    """

    rows: IntArray
    trio: Trio
    terms: Mapping[str, FloatArray]


def sort_into_groups(base: Base, settings: Mapping[str, Setting], sets: Sets) -> Iterator[Group]:
    """Yield the groups of some sets.

    Raises
    ------
    ParameterError
        If a set cannot be built.
    """
    n = count_sets(sets)
    by_lane = {*COMMON, *OWN, *FEES, *CAPITAL}
    keys = [find_codes(values) for name, values in sets.items() if splits(name, settings, by_lane)]
    for name, values in sets.items():
        if name in by_lane and settings[name].may_be_none:
            keys.append(find_codes(np.isnan(values.astype(np.float64))))
        if name == "account.reserve":
            keys.append(find_codes(values > 0.0))
    codes = np.zeros(n, dtype=np.int64)
    for key in keys:
        codes = find_codes(codes * (int(key.max()) + 1) + key)
    order = np.argsort(codes, kind="stable")
    ends = np.flatnonzero(np.diff(codes[order], append=-1)) + 1
    for rows in np.split(order, ends[:-1]):
        first = {name: column[rows[0]] for name, column in sets.items()}
        trio = build_trio(base, settings, first)
        terms = {name: sets[name][rows].astype(np.float64) for name in sets if name in by_lane}
        yield Group(rows, trio, terms)


def splits(name: str, settings: Mapping[str, Setting], by_lane: set[str]) -> bool:
    """Tell whether different values of a name belong into different groups."""
    if "." in name:
        return name not in by_lane
    return settings[name].dtype is object


def find_codes(values: np.ndarray) -> IntArray:
    """Return a whole number for each value, the same for the same values."""
    if values.dtype == object:
        places: dict[str, int] = {}
        return np.array([places.setdefault(repr(value), len(places)) for value in values.tolist()])
    found: IntArray = np.unique(values, return_inverse=True)[1]
    return found
