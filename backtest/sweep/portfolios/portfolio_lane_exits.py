"""Stops of lanes of several positions: which lanes a bar may stop, and what their stops follow."""

from __future__ import annotations

from backtest.account import (
    Position,
    Terms,
    Watch,
    find_adverse,
    follow_prices,
    follow_trade,
    has_exits,
    has_stops,
    is_exiting,
    is_stopped,
    make_balances,
    pick_instrument,
    share,
)
from backtest.sweep.lanes.lane_rows import cell
from backtest.sweep.portfolios import portfolio_lane_rows as field
from backtest.sweep.portfolios.portfolio_lane_rows import LaneArrays, mark_fallback, spot
from backtest.sweep.portfolios.portfolio_lane_rules import quote_open


def find_exits(terms: Terms, lanes: LaneArrays, n: int) -> None:
    for i in range(n):
        if lanes.prices[field.IS_LISTED, i] == 0.0 or not has_stops(terms, i):
            continue
        if lanes.is_traded[i] != 0:
            find_exit_of(terms, lanes, True, i)
        find_exit_of(terms, lanes, False, i)


def find_exit_of(terms: Terms, lanes: LaneArrays, is_before: bool, i: int) -> None:
    count, is_traded = len(lanes.left_at), lanes.is_traded[i] != 0
    account, position, prices = lanes.account, lanes.position, lanes.prices
    rules, quote = share(pick_instrument(terms, i)), quote_open(prices, i)
    is_held = is_before or not is_traded
    quantities, entries = (
        (field.QUANTITY, field.ENTRY) if is_held else (field.NEXT_QUANTITY, field.NEXT_ENTRY)
    )
    low = min(prices[field.OPEN, i], prices[field.LAST_LOW, i])
    high = max(prices[field.OPEN, i], prices[field.LAST_HIGH, i])
    has_more = has_exits(terms, i)
    for lane in range(count):
        quantity, entry = position[spot(i, quantities, lane)], position[spot(i, entries, lane)]
        own = Position(quantity, entry, 0.0, 0.0)
        if has_more:
            old = Position(position[spot(i, field.QUANTITY, lane)], 0.0, 0.0, 0.0)
            watch = follow_trade(Watch(position[spot(i, field.BEST, lane)], 0.0), old, own)
            is_out = is_exiting(rules, make_balances(0.0, own), quote, watch, low, high)
        else:
            is_out = is_stopped(rules, own, find_adverse(own, low, high))
        mark_fallback(account, is_out, lane)


def follow_bests(terms: Terms, lanes: LaneArrays, n: int) -> None:
    count = len(lanes.left_at)
    account, position = lanes.account, lanes.position
    for i in range(n):
        if lanes.prices[field.IS_LISTED, i] == 0.0 or not has_exits(terms, i):
            continue
        is_traded, quote = lanes.is_traded[i] != 0, quote_open(lanes.prices, i)
        quantities, entries = (
            (field.NEXT_QUANTITY, field.NEXT_ENTRY) if is_traded else (field.QUANTITY, field.ENTRY)
        )
        for lane in range(count):
            best = position[spot(i, field.BEST, lane)]
            old = Position(position[spot(i, field.QUANTITY, lane)], 0.0, 0.0, 0.0)
            own = Position(
                position[spot(i, quantities, lane)], position[spot(i, entries, lane)], 0.0, 0.0
            )
            after = follow_prices(follow_trade(Watch(best, 0.0), old, own), own, quote).best
            is_fallback = account[cell(field.IS_FALLBACK, lane)] != 0.0
            position[spot(i, field.BEST, lane)] = best if is_fallback else after
