"""Stops besides a plain stop-loss: their prices, which of them acts, and what they compare with."""

from __future__ import annotations

import math

from backtest.account.account_records import Balances, InstrumentRules, Position, Quote, Watch
from backtest.account.balances import compute_equity
from backtest.account.position import find_adverse, find_side, worsen
from backtest.base.units import TOLERANCE

NOTHING, LIQUIDATION, STOP, TRAIL, DRAW, PROFIT = range(6)

SLACK_OF_EQUITY = 1e-9
"""Share of equity and notional within which :func:`is_exiting` finds the equity stop."""

USED_UP = 1e-9
"""Relative distance to the equity stop within which a flat account starts a new peak."""


# ------------------------------------------------------------------------------------- stop prices


def move_value(
    rules: InstrumentRules, value: float, side: float, distance: float, is_distance: bool | None
) -> float:
    """Return u of the price moved up (side 1) or down (-1); NaN if there is no such price.

    ``distance`` is a fraction of the price, or a distance in price if ``is_distance``. One that is
    not over 0, such as an unknown one, moves nothing.
    """
    rate = distance
    if is_distance is not None:
        unit = abs(value) if value != 0.0 else 1.0
        price = unit / rules.margin.size
        if rules.is_inverse is not None:
            price = rules.margin.size / unit
        rate = distance / price
    is_there = (rate > 0.0) & ((side > 0.0) | (rate < 1.0))
    rate = rate if is_there else 0.5
    return worsen(rules, value, side, rate) if is_there else math.nan


def compute_loss_stop(rules: InstrumentRules, position: Position, quote: Quote) -> float:
    distance = rules.stop_loss * quote.stop_scale
    side = -find_side(position)
    return move_value(rules, position.entry, side, distance, rules.is_stop_distance)


def compute_trail(rules: InstrumentRules, position: Position, quote: Quote, watch: Watch) -> float:
    distance = rules.trailing_stop * quote.trail_scale
    side = -find_side(position)
    return move_value(rules, watch.best, side, distance, rules.is_trail_distance)


def compute_equity_stop(rules: InstrumentRules, balances: Balances, watch: Watch) -> float:
    held = balances.positions[0].quantity
    level = find_level(rules, watch)
    held = held if held != 0.0 else math.nan
    root = (level - compute_equity(rules, balances, 0.0)) / held
    return root if rules.equity_stop > 0.0 else math.nan


def find_level(rules: InstrumentRules, watch: Watch) -> float:
    return (1.0 - rules.equity_stop) * watch.highest


def compute_target_price(rules: InstrumentRules, position: Position, quote: Quote) -> float:
    distance = rules.take_profit * quote.profit_scale
    side = find_side(position)
    return move_value(rules, position.entry, side, distance, rules.is_profit_distance)


# ------------------------------------------------------------------------------- what is triggered


def is_through(side: float, value: float, stop: float) -> bool:
    return side * (value - stop) <= TOLERANCE * abs(stop)


def is_exiting(
    rules: InstrumentRules, balances: Balances, quote: Quote, watch: Watch, low: float, high: float
) -> bool:
    position = balances.positions[0]
    side = find_side(position)
    adverse, favorable = find_adverse(position, low, high), find_adverse(position, high, low)
    is_out = is_through(side, adverse, compute_loss_stop(rules, position, quote))
    is_out |= is_through(side, adverse, compute_trail(rules, position, quote, watch))
    slack = SLACK_OF_EQUITY * (watch.highest + abs(position.quantity * adverse))
    is_low = compute_equity(rules, balances, adverse) <= find_level(rules, watch) + slack
    is_out |= is_low & (rules.equity_stop > 0.0)
    is_out |= is_through(-side, favorable, compute_target_price(rules, position, quote))
    return is_out & (position.quantity != 0.0)


def find_nearest_stop(
    rules: InstrumentRules, balances: Balances, quote: Quote, watch: Watch
) -> tuple[int, float]:
    position = balances.positions[0]
    side = find_side(position)
    kind, nearest = NOTHING, math.nan
    stop = compute_loss_stop(rules, position, quote)
    if not math.isnan(stop):
        kind, nearest = STOP, stop
    trail = compute_trail(rules, position, quote, watch)
    if not math.isnan(trail) and not side * (nearest - trail) >= 0.0:
        kind, nearest = TRAIL, trail
    root = compute_equity_stop(rules, balances, watch)
    if not math.isnan(root) and not side * (nearest - root) >= 0.0:
        kind, nearest = DRAW, root
    return kind, nearest


def find_exit(
    rules: InstrumentRules, balances: Balances, quote: Quote, watch: Watch, low: float, high: float
) -> tuple[int, float]:
    position = balances.positions[0]
    if position.quantity == 0.0:
        return NOTHING, math.nan
    side = find_side(position)
    kind, stop = find_nearest_stop(rules, balances, quote, watch)
    if kind != NOTHING and is_through(side, find_adverse(position, low, high), stop):
        return kind, stop
    aim = compute_target_price(rules, position, quote)
    if is_through(-side, find_adverse(position, high, low), aim):
        return PROFIT, aim
    return NOTHING, math.nan


# ------------------------------------------------------------------------- what stops compare with


def follow_trade(watch: Watch, before: Position, after: Position) -> Watch:
    is_new = before.quantity * after.quantity <= 0.0
    return Watch(best=after.entry if is_new else watch.best, highest=watch.highest)


def follow_prices(watch: Watch, position: Position, quote: Quote) -> Watch:
    reached = find_adverse(position, quote.high, quote.low)
    is_better = (reached - watch.best) * find_side(position) > 0.0
    best = reached if is_better else watch.best
    return Watch(best=best if position.quantity != 0.0 else 0.0, highest=watch.highest)


def place_stop(side: float, start: float, end: float, stop: float) -> tuple[float, float]:
    if is_through(side, start, stop):
        return 0.0, start
    if end == start:
        return 1.0, end
    return min(max((stop - start) / (end - start), 0.0), 1.0), stop
