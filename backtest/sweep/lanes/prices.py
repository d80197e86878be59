"""What the lanes of a block share of a bar: prices, and bounds of what they can lose and need."""

from __future__ import annotations

import math

from backtest.account import MarketFeed, Terms, pick_margin
from backtest.account.records import FLAGS
from backtest.base.units import TOLERANCE
from backtest.measures.tally import NEAR as WITHIN
from backtest.sweep.lanes import rows as r
from backtest.sweep.lanes.lane_rules import LOT, MAX_LEVERAGE, MIN_NOTIONAL
from backtest.sweep.lanes.rows import LANES, Lanes, term
from backtest.venue import (
    compute_best_leverage,
    compute_largest_notional,
    compute_value,
    scale_rate,
)

DOWN, UP = 1.0 / (1.0 + WITHIN) - TOLERANCE, 1.0 / (1.0 - WITHIN) + TOLERANCE
"""Ratios of the farthest prices that count as near."""
MORE = 1.0 + 1e-6
"""Factor on the equity that the smallest position needs."""
ROUNDING = FLAGS.index("has_rounding")


def begin_prices(terms: Terms, feed: MarketFeed, lanes: Lanes) -> None:
    prices, brackets = lanes.prices, terms.rules.brackets
    for i in range(len(lanes.signal)):
        brackets.multipliers[i] = feed.multiplier[0, i]
        brackets.initial_multipliers[i] = feed.initial[0, i]
        prices[r.LIMIT, i] = compute_largest_notional(
            pick_margin(terms, i), math.inf, 0.0, 0.0, feed.initial[0, i]
        )
        prices[r.INITIAL_X, i] = feed.initial[0, i]
        bound_smallest(terms, lanes, i)
        lanes.is_known[0, i], lanes.is_known[1, i] = 0, 0
    lanes.cursor[r.IS_BOUND] = 0


def bound_smallest(terms: Terms, lanes: Lanes, i: int) -> None:
    """Bound the equity that any lane needs to buy its smallest position: of value, of quantity."""
    prices, value, quantity = lanes.prices, 0.0, 0.0
    best = compute_best_leverage(pick_margin(terms, i), prices[r.INITIAL_X, i])
    for lane in range(LANES):
        most = min(best, lanes.numbers[term(i, MAX_LEVERAGE, lane)])
        if most > 0.0 and terms.flags[ROUNDING, i] != 0:
            value = max(value, lanes.numbers[term(i, MIN_NOTIONAL, lane)] / most)
            quantity = max(quantity, lanes.numbers[term(i, LOT, lane)] / most)
    prices[r.LEAST_VALUE, i], prices[r.LEAST_QUANTITY, i] = value * MORE, quantity * MORE


def write_bar_prices(terms: Terms, feed: MarketFeed, lanes: Lanes, t: int) -> None:
    prices, brackets, last = lanes.prices, terms.rules.brackets, max(t - 1, 0)
    is_bound = lanes.cursor[r.IS_BOUND] == 1
    for i in range(len(lanes.signal)):
        is_listed = feed.span[i, 0] <= t < feed.span[i, 1]
        prices[r.IS_LISTED, i] = 1.0 if is_listed else 0.0
        if not is_listed:
            continue
        size, is_inverse = brackets.sizes[i], brackets.are_inverse[i]
        value = compute_value(size, is_inverse, feed.open[t, i])
        opened = compute_value(size, is_inverse, feed.mark_open[t, i])
        low = compute_value(size, is_inverse, feed.mark_low[t, i])
        high = compute_value(size, is_inverse, feed.mark_high[t, i])
        close = compute_value(size, is_inverse, feed.mark_close[t, i])
        before = compute_value(size, is_inverse, feed.mark_close[last, i])
        low, high = min(opened, low, close), max(opened, high, close)
        prices[r.OPEN, i], prices[r.CLOSE, i] = value, close
        prices[r.BEFORE, i] = value if math.isnan(before) else before
        prices[r.AT_OPEN, i], prices[r.MARK_OPEN, i] = abs(value), opened
        widest = max(abs(low), abs(high), abs(value))
        prices[r.WIDEST, i], prices[r.FAR, i] = widest, max(value - low, high - value)
        least = prices[r.LEAST_QUANTITY, i] * widest
        prices[r.SMALLEST, i] = max(prices[r.LEAST_VALUE, i], least)
        if not is_bound or lanes.most[i] * widest > prices[r.TOP, i]:
            bound_rates(terms, lanes, i)
        prices[r.DUE, i] = 0.0
        bound_moves(lanes, i)
    lanes.cursor[r.IS_BOUND] = 1


def write_rest_of_prices(terms: Terms, feed: MarketFeed, lanes: Lanes, t: int) -> None:
    prices, brackets, last = lanes.prices, terms.rules.brackets, max(t - 1, 0)
    for i in range(len(lanes.signal)):
        size, is_inverse = brackets.sizes[i], brackets.are_inverse[i]
        prices[r.LAST_LOW, i] = compute_value(size, is_inverse, feed.low[t, i])
        prices[r.LAST_HIGH, i] = compute_value(size, is_inverse, feed.high[t, i])
        prices[r.VOLUME, i] = feed.volume[last, i]
        prices[r.SIGMA, i] = feed.sigma[min(t, len(feed.sigma) - 1), i]
        prices[r.ADV, i] = feed.adv[min(t, len(feed.adv) - 1), i]
        prices[r.STOP_SCALE, i] = feed.stop_scale[min(t, len(feed.stop_scale) - 1), i]
        prices[r.PROFIT_SCALE, i] = feed.profit_scale[min(t, len(feed.profit_scale) - 1), i]
        prices[r.TRAIL_SCALE, i] = feed.trail_scale[min(t, len(feed.trail_scale) - 1), i]


def bound_moves(lanes: Lanes, i: int) -> None:
    """Bound what a contract can lose and need in the bar, and pay of funding after the open."""
    prices = lanes.prices
    spare = (prices[r.RATE, i] + 1e-9) * prices[r.WIDEST, i]
    prices[r.REACH, i] = prices[r.FAR, i] + spare + prices[r.DUE, i]


def bound_rates(terms: Terms, lanes: Lanes, i: int) -> None:
    """Bound the margin rates of all notionals up to ``TOP``, which that of no lane exceeds."""
    prices, tables = lanes.prices, terms.rules.brackets
    most = lanes.most[i] * prices[r.WIDEST, i] * r.SLACK
    x, fee = tables.multipliers[i], tables.close_fees[i]
    rate, k, top = scale_rate(tables.rates[i, 0], x, fee), 1, math.inf
    least = rate
    while k < tables.counts[i] and most > tables.floors[i, k]:
        rate = max(rate, scale_rate(tables.rates[i, k], x, fee))
        least = min(least, scale_rate(tables.rates[i, k], x, fee))
        k += 1
    if k < tables.counts[i]:
        top = tables.floors[i, k]
    x = tables.initial_multipliers[i]
    if tables.settings[i] > 0.0:
        initial = 1.0 / min(tables.settings[i], tables.leverages[i, 0] / x)
    else:
        initial, k = x / tables.leverages[i, 0], 1
        while k < tables.counts[i] and most > tables.caps[i, k - 1]:
            initial = max(initial, x / tables.leverages[i, k])
            k += 1
        if k < tables.counts[i]:
            top = min(top, tables.caps[i, k - 1])
    prices[r.TOP, i] = top / r.SLACK
    prices[r.RATE, i], prices[r.LEAST_RATE, i] = rate * r.SLACK, least / r.SLACK
    prices[r.INITIAL_RATE, i] = initial * r.SLACK


def write_near_moves(terms: Terms, lanes: Lanes, i: int) -> None:
    """Write the u between which a failure is near, and what a contract loses and needs up to them.

    The latter are bounds for a long (``FALL``) and a short one (``RISE``).
    """
    prices, close = lanes.prices, lanes.prices[r.CLOSE, i]
    down, up = close * DOWN, close * UP
    if terms.rules.brackets.are_inverse[i]:
        down, up = close / DOWN, close / UP
    prices[r.NEAR_LOW, i], prices[r.NEAR_HIGH, i] = down, up
    lower, higher = abs(down) - abs(close), abs(up) - abs(close)
    high, low = prices[r.RATE, i], prices[r.LEAST_RATE, i]
    prices[r.FALL, i] = (close - down) + max(high * lower, low * lower)
    prices[r.RISE, i] = (up - close) + max(high * higher, low * higher)
