"""Stops of lanes of several positions: which lanes a bar may stop, and what their stops follow.

A lane whose stop may act is odd: it passes the bar alone.
"""

from __future__ import annotations

from backtest.account import Position, Watch
from backtest.account.books import make_books
from backtest.account.exits import follow_prices, follow_trade, is_exiting
from backtest.account.portfolio_records import Terms, has_exits, has_stops, pick_instrument, share
from backtest.account.position import find_adverse, is_stopped
from backtest.sweep.books import book_lane_rows as field
from backtest.sweep.books.book_lane_rows import BookSheets, spot
from backtest.sweep.books.book_lane_rules import quote_open
from backtest.sweep.lanes.lane_rows import cell


def find_exits(terms: Terms, sheets: BookSheets, n: int) -> None:
    """Mark lanes odd in which a stop may act, on what they hold before or after the fills."""
    for i in range(n):
        if sheets.prices[field.IS_LISTED, i] == 0.0 or not has_stops(terms, i):
            continue
        if sheets.is_traded[i] != 0:
            find_exit_of(terms, sheets, True, i)
        find_exit_of(terms, sheets, False, i)


def find_exit_of(terms: Terms, sheets: BookSheets, is_before: bool, i: int) -> None:
    """Mark lanes odd in which a stop of instrument i may act, before its fill or after it."""
    count, is_traded = len(sheets.left_at), sheets.is_traded[i] != 0
    account, position, prices = sheets.account, sheets.position, sheets.prices
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
            is_out = is_exiting(rules, make_books(0.0, own), quote, watch, low, high)
        else:
            is_out = is_stopped(rules, own, find_adverse(own, low, high))
        account[cell(field.IS_ODD, lane)] = 1.0 if is_out else account[cell(field.IS_ODD, lane)]


def follow_bests(terms: Terms, sheets: BookSheets, n: int) -> None:
    """Update the best prices of positions with those of the whole bar, except fallback lanes."""
    count = len(sheets.left_at)
    account, position = sheets.account, sheets.position
    for i in range(n):
        if sheets.prices[field.IS_LISTED, i] == 0.0 or not has_exits(terms, i):
            continue
        is_traded, quote = sheets.is_traded[i] != 0, quote_open(sheets.prices, i)
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
            is_odd = account[cell(field.IS_ODD, lane)] != 0.0
            position[spot(i, field.BEST, lane)] = best if is_odd else after
