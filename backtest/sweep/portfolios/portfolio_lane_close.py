"""Close of a bar for lanes of several positions: their equity, and what a tally counts of it."""

from __future__ import annotations

import math

from backtest.account import Terms
from backtest.account.portfolio_records import CASH, EQUITY, PEAK, RESERVE, SCALE, SINCE_POOL, UNIT
from backtest.engine.bar_loop import IDENTITY_TOLERANCE
from backtest.measures import invert, is_deeper, needs_folding
from backtest.measures.tally import FARTHEST
from backtest.sweep.lanes.lane_rows import cell
from backtest.sweep.lanes.quick_looks import SLACK
from backtest.sweep.portfolios import portfolio_lane_rows as field
from backtest.sweep.portfolios.portfolio_lane_collateral import (
    add_at_least,
    add_pledged,
    find_under,
)
from backtest.sweep.portfolios.portfolio_lane_isolated import add_backed, add_isolated, write_margin
from backtest.sweep.portfolios.portfolio_lane_rows import LaneArrays, mark_fallback, spot, widen

SPARE = 1e-9
"""Share of the equity that the initial margin must leave for increases to pass certainly."""

# --------------------------------------------------------------------- bounds of what may happen


def find_least(terms: Terms, lanes: LaneArrays, n: int) -> None:
    count = len(lanes.left_at)
    account, position, prices = lanes.account, lanes.position, lanes.prices
    for lane in range(count):
        account[cell(field.LEAST, lane)] = account[cell(field.NEXT_CASH, lane)]
    for i in range(n):
        if prices[field.IS_LISTED, i] == 0.0:
            continue
        if terms.rules.brackets.are_isolated[i]:
            continue
        low, high = widen(prices, i)
        for lane in range(count):
            quantity = position[spot(i, field.QUANTITY, lane)]
            account[cell(field.LEAST, lane)] += min(quantity * low, quantity * high)
    if len(lanes.assets) > 0:
        add_at_least(lanes)


def find_short(lanes: LaneArrays) -> None:
    count = len(lanes.left_at)
    account, is_crossed = lanes.account, lanes.is_crossed
    for lane in range(count):
        least = account[cell(field.LEAST, lane)]
        is_short = (not least > 0.0) & (is_crossed | (least < 0.0))
        mark_fallback(account, is_short, lane)


# --------------------------------------------------------------------------- sums of the close


def begin_close(lanes: LaneArrays) -> None:
    count = len(lanes.left_at)
    account = lanes.account
    for lane in range(count):
        cash = account[cell(field.NEXT_CASH, lane)]
        account[cell(field.NEXT_EQUITY, lane)], account[cell(field.LEAST, lane)] = cash, cash
        account[cell(field.GAIN, lane)], account[cell(field.GROSS, lane)] = 0.0, 0.0
        account[cell(field.NEEDED, lane)], account[cell(field.LARGEST, lane)] = 0.0, 0.0
        account[cell(field.DRIFT, lane)], account[cell(field.GROWN, lane)] = 0.0, 1.0
        account[cell(field.INITIAL, lane)] = 0.0
        account[cell(field.PAID_FEES, lane)], account[cell(field.PAID_SLIPPAGE, lane)] = 0.0, 0.0
        account[cell(field.PAID_FUNDING, lane)], account[cell(field.TURNED, lane)] = 0.0, 0.0
        account[cell(field.PAID_IMPACT, lane)], account[cell(field.BACKED, lane)] = 0.0, 0.0
        account[cell(field.IS_NEARING, lane)], account[cell(field.IS_PEAKING, lane)] = 0.0, 0.0


def add_held(lanes: LaneArrays, i: int) -> None:
    count = len(lanes.left_at)
    account, position, prices = lanes.account, lanes.position, lanes.prices
    before, close, rate = prices[field.BEFORE, i], prices[field.CLOSE, i], prices[field.RATE, i]
    low, high = widen(prices, i)
    rise, move = close - before, prices[field.MOVE, i]
    drift = abs(before) * move
    unit = abs(close)
    is_known = not math.isnan(move)
    for lane in range(count):
        quantity = position[spot(i, field.QUANTITY, lane)]
        account[cell(field.NEXT_EQUITY, lane)] += quantity * close
        account[cell(field.GAIN, lane)] += quantity * rise
        account[cell(field.LEAST, lane)] += min(quantity * low, quantity * high)
        notional = abs(quantity) * unit
        account[cell(field.GROSS, lane)] += notional
        account[cell(field.NEEDED, lane)] += notional * rate
        account[cell(field.LARGEST, lane)] = max(account[cell(field.LARGEST, lane)], notional)
    if is_known:
        for lane in range(count):
            scale = position[spot(i, field.QUANTITY, lane)] * account[cell(field.INVERSE, lane)]
            account[cell(field.DRIFT, lane)] += scale * drift
            account[cell(field.GROWN, lane)] += scale * rise


def add_traded(lanes: LaneArrays, i: int) -> None:
    count = len(lanes.left_at)
    account, position, prices = lanes.account, lanes.position, lanes.prices
    close, rate, move = prices[field.CLOSE, i], prices[field.RATE, i], prices[field.MOVE, i]
    before = prices[field.BEFORE, i]
    low, high = widen(prices, i)
    unit = abs(close)
    is_known = not math.isnan(move)
    for lane in range(count):
        quantity = position[spot(i, field.NEXT_QUANTITY, lane)]
        account[cell(field.NEXT_EQUITY, lane)] += quantity * close
        account[cell(field.GAIN, lane)] += position[spot(i, field.PROFIT, lane)]
        account[cell(field.LEAST, lane)] += min(quantity * low, quantity * high)
        notional = abs(quantity) * unit
        account[cell(field.GROSS, lane)] += notional
        account[cell(field.NEEDED, lane)] += notional * rate
        account[cell(field.LARGEST, lane)] = max(account[cell(field.LARGEST, lane)], notional)
        account[cell(field.PAID_FEES, lane)] += position[spot(i, field.FEE, lane)]
        account[cell(field.PAID_SLIPPAGE, lane)] += position[spot(i, field.SLIPPAGE, lane)]
        account[cell(field.TURNED, lane)] += position[spot(i, field.TRADED, lane)]
    if is_known:
        for lane in range(count):
            scale = (
                position[spot(i, field.NEXT_QUANTITY, lane)] * account[cell(field.INVERSE, lane)]
            )
            account[cell(field.DRIFT, lane)] += scale * (abs(before) * move)
            account[cell(field.GROWN, lane)] += scale * (close - before)


def add_impact(lanes: LaneArrays, i: int) -> None:
    count = len(lanes.left_at)
    account, position = lanes.account, lanes.position
    for lane in range(count):
        account[cell(field.PAID_IMPACT, lane)] += position[spot(i, field.IMPACT, lane)]


def add_funding(lanes: LaneArrays, i: int) -> None:
    count = len(lanes.left_at)
    account, position = lanes.account, lanes.position
    for lane in range(count):
        account[cell(field.PAID_FUNDING, lane)] += position[spot(i, field.FUNDED, lane)]


def add_initial(lanes: LaneArrays, i: int) -> None:
    count = len(lanes.left_at)
    account, position, prices = lanes.account, lanes.position, lanes.prices
    rate, unit = prices[field.INITIAL_RATE, i], prices[field.AT_OPEN, i]
    if lanes.is_traded[i] != 0:
        for lane in range(count):
            account[cell(field.INITIAL, lane)] += position[spot(i, field.SIZE, lane)] * rate
        return
    for lane in range(count):
        notional = abs(position[spot(i, field.QUANTITY, lane)]) * unit
        account[cell(field.INITIAL, lane)] += notional * rate


def sum_close(terms: Terms, lanes: LaneArrays, n: int, is_trading: bool, has_funding: bool) -> None:
    begin_close(lanes)
    for i in range(n):
        if lanes.prices[field.IS_LISTED, i] == 0.0:
            continue
        is_isolated = bool(terms.rules.brackets.are_isolated[i])
        if is_isolated:
            add_isolated(lanes, i)
        elif lanes.is_traded[i] != 0:
            add_traded(lanes, i)
        else:
            add_held(lanes, i)
        if is_trading and not is_isolated:
            add_initial(lanes, i)
        if lanes.is_traded[i] != 0 and lanes.kinds[i] >= field.LINEAR:
            add_impact(lanes, i)
        if has_funding:
            add_funding(lanes, i)
    end_sums(terms, lanes)


def end_sums(terms: Terms, lanes: LaneArrays) -> None:
    if len(lanes.assets) > 0:
        add_at_least(lanes)
        add_pledged(terms, lanes)
        find_under(terms, lanes)
    else:
        add_backed(lanes)


# ----------------------------------------------------------------------------- the fallback


def find_fallbacks(
    terms: Terms, lanes: LaneArrays, is_trading: bool, has_lots: bool
) -> tuple[bool, bool]:
    count = len(lanes.left_at)
    account = lanes.account
    far = (FARTHEST - 1.0) * (1.0 + terms.rules.level) * SLACK
    found, has_near, is_closed = False, False, terms.rules.level == 1.0
    is_crossed = lanes.is_crossed
    for lane in range(count):
        equity, gross = account[cell(field.NEXT_EQUITY, lane)], account[cell(field.GROSS, lane)]
        least, needed = account[cell(field.LEAST, lane)], account[cell(field.NEEDED, lane)]
        is_safe = (least > 0.0) | ((not is_crossed) & (least == 0.0))
        is_safe &= equity > account[cell(field.LINE, lane)]
        room = account[cell(field.POOL, lane)] - needed
        is_near = (not room > far * account[cell(field.LARGEST, lane)]) & (needed != 0.0)
        is_safe &= is_closed | (not is_near)
        is_near |= account[cell(field.IS_NEARING, lane)] != 0.0
        is_safe &= account[cell(field.IS_FALLBACK, lane)] == 0.0
        if is_trading:
            worth = account[cell(field.POOL_WORTH, lane)]
            free = worth - account[cell(field.COSTS, lane)] - account[cell(field.INITIAL, lane)]
            is_enough = free - account[cell(field.TAKEN, lane)] > SPARE * worth
            is_safe &= is_enough | (account[cell(field.IS_ADDING, lane)] == 0.0) | (not is_crossed)
            if has_lots:
                is_safe &= gross != 0.0
        is_safe |= account[cell(field.IS_LIVE, lane)] == 0.0
        account[cell(field.IS_FALLBACK, lane)] = 0.0 if is_safe else 1.0
        account[cell(field.IS_NEARING, lane)] = 1.0 if is_near & is_safe else 0.0
        found |= not is_safe
        has_near |= is_near
    return found, has_near


# --------------------------------------------------------------------------------- the new state


def write_positions(terms: Terms, lanes: LaneArrays, n: int) -> None:
    for i in range(n):
        if lanes.is_traded[i] != 0:
            write_position(lanes, i)
        if terms.rules.brackets.are_isolated[i]:
            write_margin(lanes, i)


def write_position(lanes: LaneArrays, i: int) -> None:
    count = len(lanes.left_at)
    account, position = lanes.account, lanes.position
    for lane in range(count):
        is_fallback = account[cell(field.IS_FALLBACK, lane)] != 0.0
        quantity, entry = (
            position[spot(i, field.QUANTITY, lane)],
            position[spot(i, field.ENTRY, lane)],
        )
        marked = position[spot(i, field.MARKED, lane)]
        after, filled = (
            position[spot(i, field.NEXT_QUANTITY, lane)],
            position[spot(i, field.NEXT_ENTRY, lane)],
        )
        value = position[spot(i, field.NEXT_MARKED, lane)]
        position[spot(i, field.QUANTITY, lane)] = quantity if is_fallback else after
        position[spot(i, field.ENTRY, lane)] = entry if is_fallback else filled
        position[spot(i, field.MARKED, lane)] = marked if is_fallback else value


def count_close(lanes: LaneArrays) -> tuple[bool, bool, bool, bool]:
    count = len(lanes.left_at)
    account = lanes.account
    has_marks, has_peaks, has_folds, has_fault = False, False, False, False
    for lane in range(count):
        is_fallback = account[cell(field.IS_FALLBACK, lane)] != 0.0
        equity, before = account[cell(field.NEXT_EQUITY, lane)], account[cell(EQUITY, lane)]
        gain, gross = account[cell(field.GAIN, lane)], account[cell(field.GROSS, lane)]
        costs = account[cell(field.PAID_FEES, lane)] + account[cell(field.PAID_SLIPPAGE, lane)]
        costs += account[cell(field.PAID_IMPACT, lane)] + account[cell(field.PAID_INTEREST, lane)]
        change = gain - (costs + account[cell(field.PAID_FUNDING, lane)])
        most = max(before, equity, account[cell(field.TURNED, lane)], gross)
        is_even = abs(equity - before - change) <= IDENTITY_TOLERANCE * most
        has_fault |= not (is_even | is_fallback)
        unit = account[cell(SCALE, lane)] * (equity + account[cell(RESERVE, lane)])
        base, inverse = account[cell(field.INVERSE, lane)], invert(equity)
        leverage = gross * inverse
        peak = account[cell(PEAK, lane)]
        is_mark = (unit > peak) | is_deeper(
            peak, account[cell(field.LOW, lane)], account[cell(field.LOW_PEAK, lane)], unit
        )
        has_marks |= is_mark & (not is_fallback)
        needed, pool = account[cell(field.NEEDED, lane)] * SLACK, account[cell(field.POOL, lane)]
        is_peak = needed * account[cell(field.PEAK_BACKING, lane)] > (
            account[cell(field.PEAK_NEEDED, lane)] * pool
        )
        is_peak |= account[cell(field.IS_PEAKING, lane)] != 0.0
        is_peak &= not is_fallback
        has_peaks |= is_peak
        account[cell(field.IS_PEAKING, lane)] = 1.0 if is_peak else 0.0
        grown, product = account[cell(field.GROWN, lane)], account[cell(field.DECAY_PRODUCT, lane)]
        held = account[cell(field.DECAY_HELD, lane)]
        is_grown = (grown > 0.0) & (not is_fallback)
        product = product * grown if is_grown else product
        account[cell(field.DECAY_HELD, lane)] = (
            held + account[cell(field.DRIFT, lane)] if is_grown else held
        )
        account[cell(field.DECAY_PRODUCT, lane)] = product
        has_folds |= needs_folding(product) & (not is_fallback)
        total, sum_of_leverage = (
            account[cell(field.EQUITY_SUM, lane)],
            account[cell(field.LEVERAGE, lane)],
        )
        highest = account[cell(field.PEAK_LEVERAGE, lane)]
        account[cell(field.EQUITY_SUM, lane)] = total if is_fallback else total + equity
        account[cell(field.LEVERAGE, lane)] = (
            sum_of_leverage if is_fallback else sum_of_leverage + leverage
        )
        account[cell(field.PEAK_LEVERAGE, lane)] = (
            highest if is_fallback else max(highest, leverage)
        )
        earned = account[cell(field.OF_PRICE_PNL, lane)]
        account[cell(field.OF_PRICE_PNL, lane)] = earned if is_fallback else earned + gain
        account[cell(EQUITY, lane)] = before if is_fallback else equity
        account[cell(SINCE_POOL, lane)] += 0.0 if is_fallback else 1.0
        account[cell(UNIT, lane)] = account[cell(UNIT, lane)] if is_fallback else unit
        account[cell(field.INVERSE, lane)] = base if is_fallback else inverse
    return has_marks, has_peaks, has_folds, has_fault


def count_payments(lanes: LaneArrays) -> None:
    count = len(lanes.left_at)
    account = lanes.account
    for lane in range(count):
        is_fallback = account[cell(field.IS_FALLBACK, lane)] != 0.0
        fees = 0.0 if is_fallback else account[cell(field.PAID_FEES, lane)]
        funding = 0.0 if is_fallback else account[cell(field.PAID_FUNDING, lane)]
        interest = 0.0 if is_fallback else account[cell(field.PAID_INTEREST, lane)]
        slippage = 0.0 if is_fallback else account[cell(field.PAID_SLIPPAGE, lane)]
        base, cash = account[cell(field.INVERSE, lane)], account[cell(CASH, lane)]
        account[cell(field.OF_FEES, lane)] += fees
        account[cell(field.OF_SLIPPAGE, lane)] += slippage
        account[cell(field.OF_IMPACT, lane)] += (
            0.0 if is_fallback else account[cell(field.PAID_IMPACT, lane)]
        )
        account[cell(field.OF_FUNDING, lane)] += funding
        account[cell(field.OF_INTEREST, lane)] += interest
        account[cell(field.OF_TRADED, lane)] += (
            0.0 if is_fallback else account[cell(field.TURNED, lane)]
        )
        carry = (account[cell(field.CARRY, lane)] + funding * base) + interest * base
        account[cell(field.CARRY, lane)] = carry + fees * base
        account[cell(CASH, lane)] = cash if is_fallback else account[cell(field.NEXT_CASH, lane)]
