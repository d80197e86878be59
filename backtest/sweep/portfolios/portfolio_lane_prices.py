"""What lanes of several positions share of a bar: prices, and bounds of margin rates."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from backtest.account import (
    MarketFeed,
    Terms,
    pick_margin,
)
from backtest.sweep.lanes.quick_looks import SLACK
from backtest.sweep.portfolios import portfolio_lane_rows as field
from backtest.sweep.portfolios.portfolio_lane_rows import LaneArrays
from backtest.venue import compute_largest_notional, compute_value, scale_rate

if TYPE_CHECKING:
    from backtest.base import FloatArray


def write_limits(terms: Terms, feed: MarketFeed, lanes: LaneArrays) -> None:
    for i in range(len(lanes.signal)):
        terms.rules.brackets.multipliers[i] = feed.multiplier[0, i]
        terms.rules.brackets.initial_multipliers[i] = feed.initial[0, i]
        margin = pick_margin(terms, i)
        lanes.prices[field.LIMIT, i] = compute_largest_notional(
            margin, math.inf, 0.0, 0.0, feed.initial[0, i]
        )


def write_prices(
    terms: Terms, feed: MarketFeed, log_returns: FloatArray, lanes: LaneArrays, t: int
) -> None:
    prices, brackets, last = lanes.prices, terms.rules.brackets, max(t - 1, 0)
    for i in range(len(lanes.signal)):
        is_listed = feed.span[i, 0] <= t < feed.span[i, 1]
        prices[field.IS_LISTED, i] = 1.0 if is_listed else 0.0
        if not is_listed:
            continue
        size, is_inverse = brackets.sizes[i], brackets.are_inverse[i]
        prices[field.OPEN, i] = compute_value(size, is_inverse, feed.open[t, i])
        prices[field.CLOSE, i] = compute_value(size, is_inverse, feed.mark_close[t, i])
        before = compute_value(size, is_inverse, feed.mark_close[last, i])
        prices[field.BEFORE, i] = prices[field.OPEN, i] if math.isnan(before) else before
        prices[field.AT_OPEN, i] = abs(prices[field.OPEN, i])
        prices[field.MOVE, i] = log_returns[t, i]
        prices[field.VOLUME, i] = feed.volume[last, i]
        opened = compute_value(size, is_inverse, feed.mark_open[t, i])
        low = compute_value(size, is_inverse, feed.mark_low[t, i])
        high = compute_value(size, is_inverse, feed.mark_high[t, i])
        prices[field.LOWEST, i] = min(opened, low, prices[field.CLOSE, i])
        prices[field.HIGHEST, i] = max(opened, high, prices[field.CLOSE, i])
        prices[field.WIDEST, i] = max(abs(prices[field.LOWEST, i]), abs(prices[field.HIGHEST, i]))
        prices[field.MARK_OPEN, i] = opened
        prices[field.LAST_LOW, i] = compute_value(size, is_inverse, feed.low[t, i])
        prices[field.LAST_HIGH, i] = compute_value(size, is_inverse, feed.high[t, i])
        prices[field.SIGMA, i] = feed.sigma[min(t, len(feed.sigma) - 1), i]
        prices[field.ADV, i] = feed.adv[min(t, len(feed.adv) - 1), i]
        prices[field.INITIAL_X, i] = brackets.initial_multipliers[i]
        prices[field.STOP_SCALE, i] = feed.stop_scale[min(t, len(feed.stop_scale) - 1), i]
        prices[field.PROFIT_SCALE, i] = feed.profit_scale[min(t, len(feed.profit_scale) - 1), i]
        prices[field.TRAIL_SCALE, i] = feed.trail_scale[min(t, len(feed.trail_scale) - 1), i]
        write_bounds(terms, lanes, i)


def write_bounds(terms: Terms, lanes: LaneArrays, i: int) -> None:
    prices, tables, reach = lanes.prices, terms.rules.brackets, lanes.reach[i]
    most = reach * max(prices[field.WIDEST, i], prices[field.AT_OPEN, i]) * SLACK
    x, fee = tables.multipliers[i], tables.close_fees[i]
    rate, k = scale_rate(tables.rates[i, 0], x, fee), 1
    while k < tables.counts[i] and most > tables.floors[i, k]:
        rate = max(rate, scale_rate(tables.rates[i, k], x, fee))
        k += 1
    x = tables.initial_multipliers[i]
    if tables.settings[i] > 0.0:
        initial = 1.0 / min(tables.settings[i], tables.leverages[i, 0] / x)
    else:
        initial, k = x / tables.leverages[i, 0], 1
        while k < tables.counts[i] and most > tables.caps[i, k - 1]:
            initial = max(initial, x / tables.leverages[i, k])
            k += 1
    prices[field.RATE, i] = max(terms.rules.level, 1.0) * rate * SLACK
    prices[field.INITIAL_RATE, i] = initial * SLACK
