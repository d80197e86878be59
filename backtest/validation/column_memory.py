"""The memory of a policy's columns: for how many bars one bar moves them."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.base import BacktestError, list_values
from backtest.engine import observe
from backtest.market import as_markets
from backtest.sweep import count_sets, take_sets

if TYPE_CHECKING:
    from backtest.base import FloatArray
    from backtest.engine import SignalRule
    from backtest.market import Market, Markets
    from backtest.policy import Policy
    from backtest.sweep import Sets
    from backtest.validation.tuning_procedure import Procedure

SETTLED = 0.01
"""A column has forgotten a bar once it is within this share of the largest disturbance."""
SHOCK = 1.05
"""Factor of the prices of the disturbed bar."""
PRICES = ("open", "high", "low", "close", "mark_open", "mark_high", "mark_low", "mark_close")


def measure_memory(procedure: Procedure) -> int:
    """Return the memory in bars, the longest over the ends of all ranges and the defaults.

    One bar in the middle of the market is disturbed: its prices rise by 5 %, its volume and
    further columns too. The memory is the number of bars until every column, and every signal of a
    rule whose parameters vary, is for good within 1 % of its largest disturbance; at most half the
    market. 0 for a policy without columns. Of several markets it is the longest.
    """
    return max(measure_member(each) for each in procedure.list_members())


def measure_member(procedure: Procedure) -> int:
    """Return the memory in bars in the market or markets of one account."""
    markets = as_markets(procedure.terms.market)
    ends = procedure.space.list_ends()
    policies, rules = list_policies(procedure, ends), list_rules(procedure, ends)
    memory = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, market in markets.items():
            middle = market.n_bars // 2
            other = disturb_bar(market, middle)
            for policy in policies:
                found = compare_columns(partial(observe, policy), market, other, middle)
                memory = max(memory, found)
            for rule in rules:
                found = compare_columns(
                    partial(signal_columns, rule, markets, name), market, other, middle
                )
                memory = max(memory, found)
    return memory


def list_rules(procedure: Procedure, ends: Sets) -> list[SignalRule]:
    """Return the rules at the ends of the ranges; sets that are no rule are left out."""
    found: dict[SignalRule, None] = {}
    for row in range(count_sets(ends)):
        with contextlib.suppress(BacktestError):  # as for policies
            rule = procedure.build_signal(take_sets(ends, row))
            found |= {} if rule is None else {rule: None}
    return [*found]


def signal_columns(
    rule: SignalRule, whole: Markets, name: str, market: Market
) -> dict[str, FloatArray]:
    """Return all weights of a rule with this market among several, at the bars of the market."""
    first, stop = whole.spans[whole.names.index(name)]
    weights = rule.weigh(whole.with_markets({name: market}), is_checked=False)
    return {str(key): values.to_numpy()[first:stop] for key, values in weights.items()}


def list_policies(procedure: Procedure, ends: Sets) -> list[Policy]:
    """Return the policies at the ends of the ranges; sets that are no policy are left out."""
    found: list[Policy] = []
    for row in range(count_sets(ends)):
        try:
            policy = procedure.build_trio(take_sets(ends, row)).policy
            found += list_values(policy)
        except BacktestError:
            continue  # a rule between its values forbids the set
    return found


def disturb_bar(market: Market, t: int) -> Market:
    """Return the market with one bar changed."""
    names = [*PRICES, "volume"]
    changes: dict[str, Any] = {name: scale_bar(getattr(market, name), t) for name in names}
    columns = {name: scale_bar(values, t) for name, values in market.columns.items()}
    return dataclasses.replace(market, **changes, columns=columns)


def scale_bar(values: FloatArray, t: int) -> FloatArray:
    """Return values with that of bar t multiplied."""
    scaled: FloatArray = values.copy()
    scaled[t] *= SHOCK
    return scaled


def compare_columns(
    compute: Callable[[Market], Mapping[str, FloatArray]], market: Market, other: Market, t: int
) -> int:
    """Return the bars after t until the columns of two markets agree."""
    try:
        one, two = compute(market), compute(other)
    except BacktestError:
        return 0  # the run of the set gives the reason
    longest = 0
    for name, values in one.items():
        gap = np.abs(np.nan_to_num(values[t:] - two[name][t:]))
        far = np.flatnonzero(gap > SETTLED * gap.max(initial=0.0))
        longest = max(longest, int(far[-1]) + 1 if len(far) else 0)
    return longest
