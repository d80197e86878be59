"""Sort parameter sets into groups with the same rules and feed, for one loop over lanes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from backtest.base import FloatArray, IntArray
from backtest.sweep.sets.sets import (
    BaseTerms,
    Sets,
    Setting,
    Trio,
    build_trio,
    count_sets,
    group_rows,
    number_rows,
    take_sets,
)

COMMON = {
    "account.band": "band",
    "account.min_leverage": "min_leverage",
    "account.max_leverage": "max_leverage",
    "account.ruin_at": "ruin_at",
}

OWN = {
    "account.stop_loss": "stop_loss",
    "account.venue_leverage": "setting",
    "venue.contract.lot": "lot",
    "venue.contract.min_notional": "min_notional",
    "venue.slippage.rate": "slip",
    "venue.liquidation.fee": "liquidation_fee",
    "venue.liquidation.slippage": "liquidation_slippage",
    "venue.liquidation.full_below": "full_below",
    "venue.liquidation.impact": "liquidation_impact",
    "venue.fees.per_order": "order_fee",
    "account.take_profit": "take_profit",
    "account.trailing_stop": "trailing_stop",
    "account.equity_stop": "equity_stop",
    "account.stop_loss.multiple": "stop_loss",
    "account.take_profit.multiple": "take_profit",
    "account.trailing_stop.multiple": "trailing_stop",
}

FEES = ("venue.fees.taker", "venue.fees.maker", "venue.fees.maker_share")
CAPITAL = ("account.capital", "account.reserve")
SWITCHES = ("account.reserve", "venue.fees.per_order", "venue.liquidation.impact")


class LaneGroup(NamedTuple):
    """Sets that one loop takes.

    ``rows`` are their positions among all sets, ``trio`` is built from the first of them. ``terms``
    are the fields of account and venue that lanes may differ in, of shape (n_rows,) by name.
    """

    rows: IntArray
    trio: Trio
    terms: Mapping[str, FloatArray]


def sort_into_groups(
    base: BaseTerms, settings: Mapping[str, Setting], sets: Sets
) -> Iterator[LaneGroup]:
    n = count_sets(sets)
    by_lane = {*COMMON, *OWN, *FEES, *CAPITAL}
    keys = []
    for name, values in sets.items():
        if name not in by_lane and ("." in name or settings[name].dtype is object):
            keys.append(values)
        if name in by_lane and settings[name].may_be_none:
            keys.append(np.isnan(values.astype(np.float64)))
        if name in SWITCHES:
            keys.append(values > 0.0)
    for rows in group_rows(number_rows(keys, n)):
        trio = build_trio(base, settings, take_sets(sets, rows[0]))
        terms = {name: sets[name][rows].astype(np.float64) for name in sets if name in by_lane}
        yield LaneGroup(rows, trio, terms)
