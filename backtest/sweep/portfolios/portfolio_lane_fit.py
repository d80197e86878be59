"""Which sets of several positions fit into a block of lanes, and how their orders fill."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from backtest.account import Terms
from backtest.account.portfolio_records import AT_OPEN, FLAGS
from backtest.base import IntArray
from backtest.engine import Deciders, ObservedPolicy, Setup
from backtest.sweep.portfolios import portfolio_lane_rows as field
from backtest.sweep.portfolios.portfolio_lane_formula import find_read
from backtest.sweep.portfolios.portfolio_lane_view import SHOWN

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
    is_plain &= not np.any(terms.flags[FLAGS.index("is_funded_by_wallet")] & brackets.are_isolated)
    is_plain &= len(feed.multiplier) == 1 and len(feed.initial) == 1 and len(feed.costs) == 1
    read = find_all_read(setup.observed)
    is_plain &= read <= SHOWN and (terms.rules.level == 1.0 or "liquidation_price" not in read)
    return bool(is_plain and not np.any(deciders.asks[-1:]) and not np.any(deciders.sets_margin))


def find_all_read(observed: Sequence[ObservedPolicy]) -> frozenset[str]:
    return frozenset().union(*(find_read(p.policy, tuple(p.columns)) for p in observed))


def describe_terms(setup: Setup) -> tuple[object, ...]:
    inputs = setup.inputs
    own = (field.NUMBER_OF_BAND, field.NUMBER_OF_LEAST, field.NUMBER_OF_MOST)
    numbers = np.delete(inputs.terms.numbers, own, axis=0)
    terms = inputs.terms._replace(instruments=0, numbers=numbers)
    feed = inputs.feed
    lines = (
        feed.flow_bar, feed.flow_amount, feed.multiplier, feed.initial, feed.years, feed.sigma,
        feed.adv, feed.borrow_rate, feed.cash_rate, feed.short_rate, feed.stop_scale,
        feed.profit_scale, feed.trail_scale, feed.asset_open, feed.asset_mark_close,
    )  # fmt: skip
    tables = tuple((bar, i, tuple(map(freeze, margin))) for bar, i, margin in inputs.changes)
    return (*map(freeze, lines), freeze(inputs.clock.risk_free), tables, *freeze_all(terms))


def freeze(value: Any) -> object:
    return value.tobytes() if isinstance(value, np.ndarray) else value


def freeze_all(record: Any) -> list[object]:
    found: list[object] = []
    for value in record:
        found += freeze_all(value) if hasattr(value, "_fields") else [freeze(value)]
    return found


def find_kinds(terms: Terms) -> IntArray:
    """Return how lanes fill the orders of each instrument, of shape (n,)."""
    brackets, kinds = terms.rules.brackets, []
    has_lots = terms.flags[FLAGS.index("has_rounding")]
    has_impact = terms.flags[FLAGS.index("has_impact")]
    for i in range(len(has_lots)):
        is_inverse = bool(brackets.are_inverse[i])
        if brackets.are_isolated[i]:
            kinds.append(field.ISOLATED_INVERSE if is_inverse else field.ISOLATED)
        elif is_inverse or has_impact[i]:
            kinds.append(field.INVERTED if is_inverse else field.LINEAR)
        else:
            kinds.append(field.LOTS if has_lots[i] else field.PLAIN)
    return np.array(kinds, np.int64)
