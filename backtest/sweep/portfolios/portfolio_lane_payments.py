"""Funding and interest of lanes of several positions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from backtest.account import MarketFeed, Terms
from backtest.sweep.lanes.lane_rows import cell
from backtest.sweep.portfolios import portfolio_lane_rows as field
from backtest.sweep.portfolios.portfolio_lane_isolated import pay_isolated
from backtest.sweep.portfolios.portfolio_lane_rows import LaneArrays, spot
from backtest.venue import compute_payment, compute_value

if TYPE_CHECKING:
    pass


def pay_lanes(
    terms: Terms, feed: MarketFeed, lanes: LaneArrays, event: int, t: int, is_open: int
) -> int:
    while event < len(feed.funding_bar) and feed.funding_bar[event] == t:
        if feed.funding_is_open[event] != is_open:
            break
        i, brackets = feed.funding_instrument[event], terms.rules.brackets
        value = compute_value(brackets.sizes[i], brackets.are_inverse[i], feed.mark_open[t, i])
        if not math.isnan(feed.funding_price[event]):
            price = feed.funding_price[event]
            value = compute_value(brackets.sizes[i], brackets.are_inverse[i], price)
        rate = feed.funding_rate[event]
        if lanes.prices[field.IS_LISTED, i] != 0.0:
            row = field.QUANTITY if lanes.is_traded[i] == 0 else field.NEXT_QUANTITY
            if brackets.are_isolated[i]:
                pay_isolated(lanes, row, value, rate, i)
            else:
                pay_event(lanes, row, value, rate, i)
        event += 1
    return event


def pay_event(lanes: LaneArrays, row: int, value: float, rate: float, i: int) -> None:
    count = len(lanes.left_at)
    account, position = lanes.account, lanes.position
    for lane in range(count):
        paid = compute_payment(position[spot(i, row, lane)], value, rate)
        account[cell(field.NEXT_CASH, lane)] -= paid
        position[spot(i, field.FUNDED, lane)] += paid


def charge_lanes(terms: Terms, feed: MarketFeed, lanes: LaneArrays, t: int) -> None:
    count, before, n = len(lanes.left_at), max(t - 1, 0), len(lanes.signal)
    account, is_loan = lanes.account, terms.is_loan
    years = feed.years[min(t, len(feed.years) - 1)]
    borrow = feed.borrow_rate[min(before, len(feed.borrow_rate) - 1)]
    rate = feed.cash_rate[min(before, len(feed.cash_rate) - 1)]
    short = feed.short_rate[min(before, len(feed.short_rate) - 1)]
    for lane in range(count):
        account[cell(field.BASE, lane)], account[cell(field.LENT, lane)] = (
            account[cell(field.NEXT_CASH, lane)],
            0.0,
        )
    for i in range(n):
        add_base(lanes, is_loan, bool(terms.rules.brackets.are_isolated[i]), i)
    for lane in range(count):
        base, lent = account[cell(field.BASE, lane)], account[cell(field.LENT, lane)]
        interest = -base * (rate if base > 0.0 else borrow) * years
        if is_loan:
            interest = interest + lent * short * years if lent > 0.0 else interest
        account[cell(field.PAID_INTEREST, lane)] = interest
        account[cell(field.NEXT_CASH, lane)] -= interest


def add_base(lanes: LaneArrays, is_loan: bool, is_isolated: bool, i: int) -> None:
    count, value = len(lanes.left_at), lanes.prices[field.MARK_OPEN, i]
    account, position = lanes.account, lanes.position
    for lane in range(count):
        quantity = position[spot(i, field.QUANTITY, lane)]
        entered = quantity * position[spot(i, field.ENTRY, lane)]
        if is_isolated:
            account[cell(field.BASE, lane)] += position[spot(i, field.NEXT_MARGIN, lane)]
            account[cell(field.BASE, lane)] -= entered if is_loan else 0.0
        elif not is_loan:
            account[cell(field.BASE, lane)] += entered
        if is_loan:
            is_short = quantity < 0.0
            account[cell(field.LENT, lane)] += abs(quantity * value) if is_short else 0.0
