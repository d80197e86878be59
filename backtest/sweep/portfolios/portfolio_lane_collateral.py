"""Collateral of lanes of several positions: what it is worth, and when it may have to be sold."""

from __future__ import annotations

from backtest.account import MarketFeed, Terms
from backtest.account.portfolio_records import ASSETS_SO_FAR, IS_CONVERTING
from backtest.base.units import TOLERANCE
from backtest.sweep.lanes.lane_rows import cell
from backtest.sweep.portfolios import portfolio_lane_rows as field
from backtest.sweep.portfolios.portfolio_lane_isolated import write_balance
from backtest.sweep.portfolios.portfolio_lane_rows import LaneArrays, mark_fallback
from backtest.venue import compute_value_at_rate


def write_asset_prices(feed: MarketFeed, lanes: LaneArrays, t: int) -> None:
    prices = lanes.asset_prices
    for c in range(prices.shape[1]):
        opened, close = feed.asset_mark_open[c, t], feed.asset_mark_close[c, t]
        prices[field.ASSET_OPEN, c], prices[field.ASSET_CLOSE, c] = feed.asset_open[c, t], close
        prices[field.ASSET_LOW, c] = min(opened, feed.asset_mark_low[c, t], close)
        prices[field.ASSET_HIGH, c] = max(opened, feed.asset_mark_high[c, t], close)


def end_asset_prices(lanes: LaneArrays) -> None:
    for c in range(lanes.asset_prices.shape[1]):
        lanes.asset_prices[field.ASSET_LAST, c] = lanes.asset_prices[field.ASSET_CLOSE, c]


def begin_assets(terms: Terms, lanes: LaneArrays) -> None:
    count = len(lanes.left_at)
    account, prices = lanes.account, lanes.asset_prices
    value_assets(terms, lanes, field.ASSET_OPEN)
    for lane in range(count):
        account[cell(field.AT_LEAST, lane)] = 0.0
        is_selling = account[cell(IS_CONVERTING, lane)] != 0.0
        mark_fallback(account, is_selling, lane)
    for c in range(prices.shape[1]):
        low, high = prices[field.ASSET_LOW, c], prices[field.ASSET_HIGH, c]
        for lane in range(count):
            amount = lanes.assets[cell(c, lane)]
            least = min(
                compute_value_at_rate(terms.rules.collateral, c, amount * low),
                compute_value_at_rate(terms.rules.collateral, c, amount * high),
            )
            account[cell(field.AT_LEAST, lane)] += least - field.SLIGHT * abs(amount * high)


def value_assets(terms: Terms, lanes: LaneArrays, row: int) -> None:
    count = len(lanes.left_at)
    account = lanes.account
    for lane in range(count):
        account[cell(field.PLEDGED, lane)], account[cell(field.COUNTED, lane)] = 0.0, 0.0
    for c in range(lanes.asset_prices.shape[1]):
        price = lanes.asset_prices[row, c]
        for lane in range(count):
            value = lanes.assets[cell(c, lane)] * price
            account[cell(field.PLEDGED, lane)] += value
            counted = compute_value_at_rate(terms.rules.collateral, c, value)
            account[cell(field.COUNTED, lane)] += counted


def add_pledged_at_opens(lanes: LaneArrays) -> None:
    count = len(lanes.left_at)
    account = lanes.account
    for lane in range(count):
        worth = account[cell(field.POOL_WORTH, lane)]
        account[cell(field.POOL_WORTH, lane)] = worth + account[cell(field.COUNTED, lane)]
        worth += account[cell(field.PLEDGED, lane)]
        account[cell(field.WORTH, lane)] = worth + account[cell(field.BACKED, lane)]


def add_at_least(lanes: LaneArrays) -> None:
    count = len(lanes.left_at)
    account = lanes.account
    for lane in range(count):
        account[cell(field.LEAST, lane)] += account[cell(field.AT_LEAST, lane)]


def add_pledged(terms: Terms, lanes: LaneArrays) -> None:
    count = len(lanes.left_at)
    account, prices = lanes.account, lanes.asset_prices
    value_assets(terms, lanes, field.ASSET_CLOSE)
    for lane in range(count):
        account[cell(field.OF_ASSETS, lane)] = 0.0
    for c in range(prices.shape[1]):
        rise = prices[field.ASSET_CLOSE, c] - prices[field.ASSET_LAST, c]
        for lane in range(count):
            account[cell(field.OF_ASSETS, lane)] += lanes.assets[cell(c, lane)] * rise
    for lane in range(count):
        equity = account[cell(field.NEXT_EQUITY, lane)]
        account[cell(field.POOL, lane)] = equity + account[cell(field.COUNTED, lane)]
        equity += account[cell(field.PLEDGED, lane)]
        account[cell(field.NEXT_EQUITY, lane)] = equity + account[cell(field.BACKED, lane)]
        account[cell(field.GAIN, lane)] += account[cell(field.OF_ASSETS, lane)]


def find_under(terms: Terms, lanes: LaneArrays) -> None:
    count = len(lanes.left_at)
    account = lanes.account
    write_balance(terms, lanes, True, len(lanes.signal))
    for lane in range(count):
        equity = account[cell(field.NEXT_EQUITY, lane)]
        limit = terms.negative_limit * (1.0 - TOLERANCE) + TOLERANCE * max(equity, 0.0)
        is_under = account[cell(field.BALANCE, lane)] < -limit
        mark_fallback(account, is_under, lane)


def count_assets_of(lanes: LaneArrays) -> None:
    count = len(lanes.left_at)
    account = lanes.account
    for lane in range(count):
        is_fallback = account[cell(field.IS_FALLBACK, lane)] != 0.0
        account[cell(ASSETS_SO_FAR, lane)] += (
            0.0 if is_fallback else account[cell(field.OF_ASSETS, lane)]
        )
