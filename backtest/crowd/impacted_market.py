"""The market that policies make when their own flow moves its price."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest.base import compile_module
from backtest.crowd import flow_kernels
from backtest.engine import filled_changes, run, value_of
from backtest.market.tables.timed_table import PRICES

if TYPE_CHECKING:
    from backtest.base import FloatArray
    from backtest.crowd.impact import ImpactCurve
    from backtest.engine import Result
    from backtest.market import Market
    from backtest.policy import Policy

MOST_ROUNDS = 200
DAMPED_FROM = 20
"""From this round on only half of each change is made."""
CLOSE = 1e-10
"""It is solved when no value moves by more: prices by this share, holdings by so many shares."""
LARGEST_FALL, LARGEST_RISE = 0.999, 100.0
"""Beyond these shares of the price, impact has no meaning: the market does not clear."""


class Crowded(NamedTuple):
    policy: Policy
    accounts: float


class Unchanged(NamedTuple):
    values: FloatArray
    rounds: int
    clears: bool
    last_change: float


class Solved(NamedTuple):
    market: Market
    results: list[Result]
    found: Unchanged


def find_unchanged(
    respond: Callable[[FloatArray], FloatArray],
    values: FloatArray,
    is_sound: Callable[[FloatArray], bool] = lambda _: True,
    on_round: Callable[[int], None] | None = None,
    *,
    is_damped: bool = True,
) -> Unchanged:
    change = np.inf
    for number in range(MOST_ROUNDS):
        after = respond(values)
        change = float(np.max(np.abs(after - values)))
        if on_round is not None:
            on_round(number + 1)
        if change <= CLOSE:
            return Unchanged(values, number + 1, True, change)
        if not is_sound(after):
            break
        values = 0.5 * (values + after) if is_damped and number >= DAMPED_FROM else after
    return Unchanged(values, number + 1, False, change)


def solve_market(
    market: Market,
    crowds: Sequence[Crowded],
    curve: ImpactCurve,
    decay: float,
    terms: Mapping[str, Any],
    on_round: Callable[[int], None] | None = None,
) -> Solved:
    contract = {"lot": 0.0, "min_notional": 0.0}
    smooth = {**terms, "venue": terms["venue"].override(contract=contract)}
    moved, results = market, []

    def fall_after(fall: FloatArray) -> FloatArray:
        nonlocal moved, results
        moved = move_prices(market, fall)
        results = [run(moved, each.policy, **smooth) for each in crowds]
        flow = sum((sell_flow(one, each.accounts, market)
                    for one, each in zip(results, crowds, strict=True)),
                   np.zeros(market.n_bars))  # fmt: skip
        return follow(flow, curve, decay)

    found = find_unchanged(fall_after, np.zeros(market.n_bars), has_prices, on_round)
    if found.clears:
        results = [run(moved, each.policy, **terms) for each in crowds]
    return Solved(moved, results, found)


def has_prices(fall: FloatArray) -> bool:
    return bool(-LARGEST_RISE < np.min(fall) <= np.max(fall) < LARGEST_FALL)


def sell_flow(result: Result, accounts: float, market: Market) -> FloatArray:
    position = result.of_positions("quantity")[:, 0]
    fills = filled_changes(result.entries, result.time, result.span.first)
    changes = np.diff(position, prepend=0.0)
    forced = np.append(0.0, (changes - fills)[:-1])
    forced[np.abs(forced) <= 1e-9 * np.max(np.abs(position), initial=0.0)] = 0.0
    value = np.abs(value_of(result.venue, market.open[-len(position) :]))
    flow = np.zeros(market.n_bars)
    flow[-len(position) :] = -accounts * (fills + forced) * value
    return flow


def follow(flow: FloatArray, curve: ImpactCurve, decay: float) -> FloatArray:
    out = np.zeros(len(flow))
    compile_module(flow_kernels).follow_flow(
        curve.factor, curve.exponent, curve.volume, decay, flow, out
    )
    return out


def move_prices(market: Market, fall: FloatArray) -> Market:
    """Return the market with all prices of each bar lower by a fraction."""
    if not fall.any():
        return market
    scale = 1.0 - fall
    last = {name: getattr(market, name) * scale for name in PRICES}
    if market.has_mark:
        mark = {f"mark_{name}": getattr(market, f"mark_{name}") * scale for name in PRICES}
    else:
        mark = {f"mark_{name}": last[name] for name in PRICES}
    bar = np.searchsorted(market.time, market.funding_time, side="right") - 1
    settled = market.funding_mark * scale[np.clip(bar, 0, market.n_bars - 1)]
    return replace(market, **last, **mark, funding_mark=settled)
