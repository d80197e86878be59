"""The market that policies make when their own flow moves its price.

Each policy runs in the market; what it trades at each open, scaled to its crowd, moves that open;
the policies run again in the market so moved, until nothing changes. A liquidation inside a bar
moves the next open. The result is a market in which the flows of its runs make its prices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest.base.kernels import compile_module
from backtest.crowd import flow_kernels
from backtest.engine.result_tables import filled_changes, value_of
from backtest.engine.run import run
from backtest.market.tables.frames import PRICES

if TYPE_CHECKING:
    from backtest.base.units import FloatArray
    from backtest.crowd.impact import ImpactCurve
    from backtest.engine import Result
    from backtest.market import Market
    from backtest.policy import Policy

MOST_ROUNDS = 200
DAMPED_FROM = 20
"""From this round on only half of each change is made."""
CLOSE = 1e-10
"""The market is solved when no price moves by more than this share."""
LARGEST_FALL, LARGEST_RISE = 0.999, 100.0
"""Beyond these shares of the price, impact has no meaning: the market does not clear."""


class Crowded(NamedTuple):
    """A policy, and the number of accounts like that of its run that trade as it does."""

    policy: Policy
    accounts: float


class Solved(NamedTuple):
    """The market with impact and the runs in it; ``clears``: whether the flows make its prices.

    ``last_change`` is the largest change of a price in the last round, as a share.
    """

    market: Market
    results: list[Result]
    fall: FloatArray
    rounds: int
    clears: bool
    last_change: float


def solve_market(
    market: Market,
    crowds: Sequence[Crowded],
    curve: ImpactCurve,
    decay: float,
    terms: Mapping[str, Any],
    on_round: Callable[[int], None] | None = None,
) -> Solved:
    """Run policies in a market that their flows move.

    ``terms`` are those of :func:`backtest.run`; ``decay`` is what a bar leaves of the impact. A
    crowd of many accounts has no lots, so its flow is that of runs without them. If the prices do
    not settle within 200 rounds, or run away, the market does not clear.
    """
    contract = {"lot": 0.0, "min_notional": 0.0}
    smooth = {**terms, "venue": terms["venue"].override(contract=contract)}
    fall = np.zeros(market.n_bars)
    change = np.inf
    for number in range(MOST_ROUNDS):
        moved = move_prices(market, fall)
        results = [run(moved, each.policy, **smooth) for each in crowds]
        flow = sum((sell_flow(one, each.accounts, market)
                    for one, each in zip(results, crowds, strict=True)),
                   np.zeros(market.n_bars))  # fmt: skip
        after = follow(flow, curve, decay)
        change = float(np.max(np.abs(after - fall)))
        if on_round is not None:
            on_round(number + 1)
        if change <= CLOSE:
            own = [run(moved, each.policy, **terms) for each in crowds]
            return Solved(moved, own, fall, number + 1, True, change)
        if not -LARGEST_RISE < np.min(after) <= np.max(after) < LARGEST_FALL:
            break
        fall = after if number < DAMPED_FROM else 0.5 * (fall + after)
    return Solved(moved, results, fall, number + 1, False, change)


def sell_flow(result: Result, accounts: float, market: Market) -> FloatArray:
    """Return the notional that a crowd sells at each open of the market, at its own prices."""
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
    """Return the fall of each bar under a flow."""
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
