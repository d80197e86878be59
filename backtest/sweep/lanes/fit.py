"""Which sets fit into a block of lanes, and how their orders fill."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from backtest.account import Terms
from backtest.account.records import AT_OPEN, FLAGS
from backtest.base import IntArray
from backtest.engine import Deciders, ObservedPolicy, Setup
from backtest.sweep.lanes import rows as r
from backtest.sweep.lanes.formula import find_read
from backtest.sweep.lanes.view import NAMES

REFUSED = ("has_limits", "rounds_price", "has_auto_margin", "has_profit_share", "has_order_fee")


def fits_lanes(setup: Setup, deciders: Deciders) -> bool:
    inputs, terms = setup.inputs, setup.inputs.terms
    brackets, feed = terms.rules.brackets, inputs.feed
    flags = [terms.flags[FLAGS.index(name)] for name in REFUSED]
    is_plain = not (terms.rules.has_scenarios or np.any(flags)) and terms.equity_stop == 0.0
    is_plain &= terms.margin_call == 0.0 and terms.grace < 0.0 and inputs.fees is None
    is_plain &= terms.fill == AT_OPEN and not terms.rules.spot.has_any
    is_plain &= not terms.has_time_stop and len(deciders.rows) == 1
    is_plain &= not np.any(brackets.are_valued_at_entry)
    is_plain &= len(brackets.sizes) == 1 or not np.any(brackets.are_isolated)
    is_plain &= not np.any(terms.flags[FLAGS.index("is_funded_by_wallet")] & brackets.are_isolated)
    is_plain &= len(feed.multiplier) == 1 and len(feed.initial) == 1 and len(feed.costs) == 1
    is_plain &= terms.rules.level == 1.0 and len(setup.account.collateral) == 0
    is_plain &= find_all_read(setup.observed) <= {*NAMES}
    return bool(is_plain and not np.any(deciders.asks[-1:]) and not np.any(deciders.sets_margin))


def find_all_read(observed: Sequence[ObservedPolicy]) -> frozenset[str]:
    return frozenset().union(*(find_read(p.policy, tuple(p.columns)) for p in observed))


def have_same_terms(one: Setup, other: Setup) -> bool:
    """Compare all that lanes share of the terms and the feed."""
    return is_same(list_shared(one), list_shared(other))


def list_shared(setup: Setup) -> tuple[Any, ...]:
    inputs, feed = setup.inputs, setup.inputs.feed
    terms = inputs.terms._replace(instruments=0, numbers=0)
    return (
        feed.flow_bar, feed.flow_amount, feed.multiplier, feed.initial, feed.years, feed.sigma,
        feed.adv, feed.borrow_rate, feed.cash_rate, feed.short_rate, feed.stop_scale,
        feed.profit_scale, feed.trail_scale, inputs.clock.risk_free, inputs.changes, terms,
    )  # fmt: skip


def is_same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, np.ndarray):
        return bool(one.shape == other.shape and one.tobytes() == other.tobytes())
    return bool(one == other)


def find_kinds(terms: Terms) -> IntArray:
    """Return how lanes fill the orders of each instrument, of shape (n,)."""
    brackets, kinds = terms.rules.brackets, []
    has_lots = terms.flags[FLAGS.index("has_rounding")]
    has_impact = terms.flags[FLAGS.index("has_impact")]
    for i in range(len(has_lots)):
        is_inverse = bool(brackets.are_inverse[i])
        if brackets.are_isolated[i]:
            kinds.append(r.ISOLATED_INVERSE if is_inverse else r.ISOLATED)
        elif is_inverse or has_impact[i]:
            kinds.append(r.INVERTED if is_inverse else r.LINEAR)
        else:
            kinds.append(r.LOTS if has_lots[i] else r.PLAIN)
    return np.array(kinds, np.int64)
