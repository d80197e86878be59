"""The rules and the empty state of the options of an account, as arrays of its loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.account import OptionFeed, OptionState, OptionTerms, make_option_feed
from backtest.base import ParameterError
from backtest.venue import (
    MarginRule,
    OptionPositions,
    ScenarioMargin,
    index_names,
    pack_option_rules,
)

if TYPE_CHECKING:
    from backtest.engine.run_options import RunOptions

BY_BAR = ("years", "volatilities", "bases", "indices", "values", "marks")


def name_groups(
    rule: MarginRule, feed: OptionFeed, names: Sequence[str]
) -> tuple[tuple[str, ...], list[str]]:
    found = [names[i] for i in feed.instruments]
    if not isinstance(rule, ScenarioMargin):
        return tuple(dict.fromkeys(found)), found
    groups = rule.list_groups(names)
    of_names = {name: group for group, members in groups.items() for name in members}
    return tuple(groups), [of_names[name] for name in found]


def pack_positions(feed: OptionFeed, groups: Any) -> OptionPositions:
    n = len(feed.signs)
    return OptionPositions(
        signs=feed.signs,
        strikes=feed.strikes,
        sizes=feed.sizes,
        are_coin=feed.are_coin,
        groups=groups,
        expiries=feed.expiries,
        pairs=feed.pairs,
        rates=feed.rates,
        quantities=np.zeros(n),
        **{name: np.full(n, np.nan) for name in BY_BAR},
    )


def pack_option_terms(rule: MarginRule, feed: OptionFeed, names: Sequence[str]) -> OptionTerms:
    groups, found = name_groups(rule, feed, names)
    used = rule if len(feed.signs) else MarginRule()
    positions = pack_positions(feed, index_names(found, groups))
    return OptionTerms(
        rules=pack_option_rules(used, positions, groups if len(feed.signs) else (), names),
        instruments=feed.instruments,
        groups=positions.groups,
        fee_rates=feed.fee_rates,
        fee_caps=feed.fee_caps,
        delivery_rates=feed.delivery_rates,
        delivery_caps=feed.delivery_caps,
        ticks=feed.ticks,
    )


def start_options(terms: OptionTerms, feed: OptionFeed) -> OptionState:
    n = len(feed.signs)
    empty: dict[str, Any] = {name: np.zeros(n) for name in OptionState._fields}
    targets: dict[str, Any] = {"targets": np.full(n, np.nan)}
    flags: dict[str, Any] = {"has_quotes": np.zeros(n, np.int64)}
    positions: dict[str, Any] = {"positions": pack_positions(feed, terms.groups)}
    return OptionState(**{**empty, **targets, **flags, **positions})


def resume_options(inputs: Any, names: Sequence[str], held: RunOptions | None) -> OptionState:
    found = start_options(inputs.terms.options, inputs.feed.options)
    if held is None:
        return found
    for j, name in enumerate(held.terms.names):
        quantity = float(held.record.quantity[-1, j])
        if quantity == 0.0:
            continue
        if name not in names:
            raise ParameterError(
                f"the markets of a resumed run must list the options that are held, got none named "
                f"{name!r}"
            )
        k = names.index(name)
        found.positions.quantities[k] = quantity
        found.priced[k] = held.record.value[-1, j]
        found.paid[k] = held.entries[-1, j]
    return found


def no_options() -> OptionState:
    feed = make_option_feed(0, 1)
    return start_options(pack_option_terms(MarginRule(), feed, ()), feed)
