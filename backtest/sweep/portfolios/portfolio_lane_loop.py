"""The bar loop of a sweep of several positions, over a block of accounts side by side (lanes)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from backtest.account import AccountState, MarketBar, MarketFeed, Scratch, Terms, find_line, share
from backtest.account.portfolio_records import FLAGS, IS_OVER, IS_RUINED, PAID_IN, RESERVE
from backtest.engine import Deciders, RunTape
from backtest.engine.bar_loop import BROKEN, DONE, NEGATIVE
from backtest.measures import Clock, Tally, grow_free
from backtest.sweep.lanes.lane_rows import cell
from backtest.sweep.lanes.quick_looks import ROOM
from backtest.sweep.portfolios import portfolio_lane_rows as field
from backtest.sweep.portfolios.portfolio_lane_close import (
    count_close,
    count_payments,
    find_fallbacks,
    find_least,
    find_short,
    sum_close,
    write_positions,
)
from backtest.sweep.portfolios.portfolio_lane_collateral import (
    begin_assets,
    count_assets_of,
    end_asset_prices,
    write_asset_prices,
)
from backtest.sweep.portfolios.portfolio_lane_exits import find_exits, follow_bests
from backtest.sweep.portfolios.portfolio_lane_fills import (
    begin_lanes,
    fill_lanes,
    find_capped,
    is_any_asking,
    move_all_cash,
    raise_reach,
    value_opens,
)
from backtest.sweep.portfolios.portfolio_lane_isolated import find_least_of_isolated
from backtest.sweep.portfolios.portfolio_lane_measures import (
    count_near,
    count_over_cap,
    end_sample,
    fold_lanes,
    mark_exposure,
    mark_lanes,
)
from backtest.sweep.portfolios.portfolio_lane_payments import charge_lanes, pay_lanes
from backtest.sweep.portfolios.portfolio_lane_prices import write_bounds, write_limits, write_prices
from backtest.sweep.portfolios.portfolio_lane_rows import (
    LaneArrays,
    LanePolicies,
    keep_lane,
    read_lane,
    read_tally_of,
    spot,
    write_lane,
    write_tally,
)
from backtest.sweep.portfolios.portfolio_lane_rules import FillKind, read_costs
from backtest.sweep.portfolios.portfolio_lane_view import show_accounts, show_positions

if TYPE_CHECKING:
    from backtest.base import FloatArray

HAS_ROUNDING = FLAGS.index("has_rounding")
WATCHED, OFTEN = 256, 40
"""A lane that passes more than so many of so many bars alone leaves the block."""


def pass_alone(  # noqa: PLR0913, PLR0917 - the arguments of the loop of a run
    address: Any,
    terms: Terms,
    feed: MarketFeed,
    clock: Clock,
    log_returns: FloatArray,
    deciders: Deciders,
    state: AccountState,
    quotes: MarketBar,
    scratch: Scratch,
    ledger: FloatArray,
    tally: Tally,
    tape: RunTape,
    start: int,
    stop: int,
) -> tuple[Tally, int, int]:
    raise NotImplementedError


def ask_lanes(
    policies: LanePolicies, lanes: LaneArrays, i: int, count: int, time: int, local: int
) -> bool:
    raise NotImplementedError


def advance_portfolios(  # noqa: PLR0913, PLR0917 - the arguments of a kernel
    terms: Terms,
    feed: MarketFeed,
    clock: Clock,
    log_returns: FloatArray,
    policies: LanePolicies,
    lanes: LaneArrays,
    deciders: Deciders,
    state: AccountState,
    quotes: MarketBar,
    scratch: Scratch,
    ledger: FloatArray,
    tape: RunTape,
    address: Any,
    first: int,
    start: int,
    stop: int,
) -> tuple[int, int]:
    rules, markets, asked, block = share(terms), share(feed), share(policies), share(lanes)
    own, count = share(state), len(block.left_at)
    write_limits(rules, markets, block)
    for t in range(start, stop):
        write_prices(rules, markets, log_returns, block, t)
        write_asset_prices(markets, block, t)
        has_fallback, has_fault = pass_bar(rules, markets, block, t)
        if has_fault:
            return t, BROKEN
        for lane in range(count if has_fallback else 0):
            if block.account[cell(field.IS_FALLBACK, lane)] != 0.0:
                read_lane(block, rules, own, t, lane)
                tally = read_tally_of(block.account, block.free[0], t - first, lane)
                tally, _, why = pass_alone(
                    address, terms, feed, clock, log_returns, deciders, state, quotes, scratch,
                    ledger, tally, tape, t, t + 1,
                )  # fmt: skip
                if why != DONE:
                    return t, why
                line = find_line(rules.ruin_at, own.wallet[RESERVE], own.wallet[PAID_IN])
                write_lane(block, own, line, t, lane)
                write_tally(block.account, tally, lane)
        end_bar(markets, clock, block, t)
        if has_fallback:
            keep_ended(block, asked.memory, t + 1)
        if not ask_all(rules, markets, asked, block, t):
            return t, NEGATIVE
        keep_frequent(block, asked.memory, t + 1)
    return stop, DONE


def keep_ended(lanes: LaneArrays, memory: FloatArray, t: int) -> None:
    account, count = lanes.account, len(lanes.left_at)
    for lane in range(count):
        is_fallback = account[cell(field.IS_FALLBACK, lane)] != 0.0
        account[cell(field.FALLBACK_BARS, lane)] += 1.0 if is_fallback else 0.0
        if is_fallback and account[cell(IS_RUINED, lane)] + account[cell(IS_OVER, lane)] != 0.0:
            for i in range(len(lanes.signal)):
                lanes.position[spot(i, field.TARGET, lane)] = math.nan
            keep_lane(lanes, memory, len(lanes.signal), t, lane)


def keep_frequent(lanes: LaneArrays, memory: FloatArray, t: int) -> None:
    account, count = lanes.account, len(lanes.left_at) if t % WATCHED == 0 else 0
    for lane in range(count):
        is_often = account[cell(field.FALLBACK_BARS, lane)] > OFTEN
        account[cell(field.FALLBACK_BARS, lane)] = 0.0
        if is_often and account[cell(field.IS_LIVE, lane)] != 0.0:
            keep_lane(lanes, memory, len(lanes.signal), t, lane)


# ------------------------------------------------------------------------- what lanes share


def is_whole(feed: MarketFeed, lanes: LaneArrays, t: int) -> bool:
    flow = lanes.cursor[1]
    if flow < len(feed.flow_bar) and feed.flow_bar[flow] == t:
        return True
    found = False
    for i in range(len(lanes.signal)):
        found = found or (feed.ends[i] == 1 and t == feed.span[i, 1] - 1)
    return bool(found)


# --------------------------------------------------------------------------------- a bar


def pass_bar(terms: Terms, feed: MarketFeed, lanes: LaneArrays, t: int) -> tuple[bool, bool]:
    count = len(lanes.left_at)
    n, event, account = len(lanes.signal), lanes.cursor[0], lanes.account
    if is_whole(feed, lanes, t):
        for lane in range(count):
            account[cell(field.IS_FALLBACK, lane)] = account[cell(field.IS_LIVE, lane)]
        return True, False
    has_funding = event < len(feed.funding_bar) and feed.funding_bar[event] == t
    has_interest = terms.has_interest and t > 0
    is_trading, has_lots = trade_lanes(terms, feed, lanes, has_funding, has_interest, t)
    is_paying = is_trading or has_funding or has_interest
    if lanes.has_exits:
        find_exits(terms, lanes, n)
    sum_close(terms, lanes, n, is_trading, has_funding)
    has_fallback, has_near = find_fallbacks(terms, lanes, is_trading, has_lots)
    if lanes.has_exits:
        follow_bests(terms, lanes, n)
    if is_paying:
        write_positions(terms, lanes, n)
        count_payments(lanes)
    return has_fallback, count_bar_of_lanes(terms, lanes, n, has_near)


def trade_lanes(
    terms: Terms,
    feed: MarketFeed,
    lanes: LaneArrays,
    has_funding: bool,
    has_interest: bool,
    t: int,
) -> tuple[bool, bool]:
    n, event = len(lanes.signal), lanes.cursor[0]
    begin_lanes(lanes, n, has_funding)
    if len(lanes.assets) > 0:
        begin_assets(terms, lanes)
    if has_funding:
        event = pay_lanes(terms, feed, lanes, event, t, 1)
    if has_interest:
        charge_lanes(terms, feed, lanes, t)
    value_opens(terms, lanes, n)
    find_capped(terms, lanes)
    is_trading, has_lots = fill_all(terms, lanes, t)
    if is_trading or has_funding or has_interest:
        find_least(terms, lanes, n)
        find_short(lanes)
    if is_trading:
        move_all_cash(terms, lanes, n)
    if has_funding:
        pay_lanes(terms, feed, lanes, event, t, 0)
    return is_trading, has_lots


def fill_all(terms: Terms, lanes: LaneArrays, t: int) -> tuple[bool, bool]:
    is_trading, has_lots = False, False
    for i in range(len(lanes.signal)):
        is_open = lanes.is_pending[i] == 1 and lanes.prices[field.IS_LISTED, i] != 0.0
        if is_open and t > 0 and is_any_asking(lanes, i):
            has_lots = fill_instrument(terms, lanes, i) or has_lots
            is_trading = True
    return is_trading, has_lots


def fill_instrument(terms: Terms, lanes: LaneArrays, i: int) -> bool:
    lanes.is_traded[i] = 1
    if terms.rules.brackets.are_isolated[i]:
        find_least_of_isolated(lanes, i)
    if fill_by_kind(terms, lanes, i):
        raise_reach(lanes, i)
        write_bounds(terms, lanes, i)
    return bool(terms.flags[HAS_ROUNDING, i] != 0)


def fill_by_kind(terms: Terms, lanes: LaneArrays, i: int) -> bool:
    costs, kind, is_over = read_costs(terms, i), lanes.kinds[i], False
    if kind == field.PLAIN:
        is_over = fill_lanes(costs, lanes, FillKind(None, None, None, None), i)
    elif kind == field.LOTS:
        is_over = fill_lanes(costs, lanes, FillKind(True, None, None, None), i)
    elif kind == field.LINEAR:
        is_over = fill_lanes(costs, lanes, FillKind(True, True, None, None), i)
    elif kind == field.INVERTED:
        is_over = fill_lanes(costs, lanes, FillKind(True, True, True, None), i)
    elif kind == field.ISOLATED:
        is_over = fill_lanes(costs, lanes, FillKind(True, True, None, True), i)
    elif kind == field.ISOLATED_INVERSE:
        is_over = fill_lanes(costs, lanes, FillKind(True, True, True, True), i)
    return is_over


def count_bar_of_lanes(terms: Terms, lanes: LaneArrays, n: int, has_near: bool) -> bool:
    if len(lanes.assets) > 0:
        count_assets_of(lanes)
    has_marks, has_peaks, has_folds, has_fault = count_close(lanes)
    if terms.max_gross_leverage < math.inf:
        count_over_cap(lanes, terms.max_gross_leverage)
    if has_marks:
        mark_lanes(lanes)
    if has_peaks:
        mark_exposure(terms, lanes, n)
    if has_near:
        count_near(terms, lanes, n)
    if has_folds:
        fold_lanes(lanes)
    return has_fault


def end_bar(feed: MarketFeed, clock: Clock, lanes: LaneArrays, t: int) -> None:
    free = grow_free(lanes.free[0], clock.risk_free[t])
    if clock.ends_sample[t] != 0.0:
        end_sample(lanes, free)
        tighten_reach(lanes)
        free = 0.0
    lanes.free[0] = free
    end_asset_prices(lanes)
    event, flow = lanes.cursor[0], lanes.cursor[1]
    while event < len(feed.funding_bar) and feed.funding_bar[event] == t:
        lanes.last_funding[feed.funding_instrument[event]] = feed.funding_rate[event]
        event += 1
    while flow < len(feed.flow_bar) and feed.flow_bar[flow] == t:
        flow += 1
    lanes.cursor[0], lanes.cursor[1] = event, flow


def tighten_reach(lanes: LaneArrays) -> None:
    count = len(lanes.left_at)
    for i in range(len(lanes.signal)):
        most = 0.0
        for lane in range(count):
            most = max(most, abs(lanes.position[spot(i, field.QUANTITY, lane)]))
        lanes.reach[i] = ROOM * most


# ------------------------------------------------------------------------------- decisions


def ask_all(
    terms: Terms, feed: MarketFeed, policies: LanePolicies, lanes: LaneArrays, t: int
) -> bool:
    count, is_sound = len(lanes.left_at), True
    if policies.wants_account:
        show_accounts(terms, policies, lanes, feed.time[t])
    for i in range(len(lanes.signal)):
        lanes.signal[i] = feed.signal[min(t, len(feed.signal) - 1), i]
        lanes.is_pending[i] = policies.tradable[min(t, len(policies.tradable) - 1), i]
        if lanes.is_pending[i] != 0:
            show_bar_of(policies, feed, lanes, i, t)
            if policies.wants_account:
                show_positions(terms, policies, lanes, i, t)
            is_sound &= ask_lanes(policies, lanes, i, count, feed.time[t], t - policies.firsts[i])
        is_sound &= finish_decisions(lanes, i)
    return is_sound


def finish_decisions(lanes: LaneArrays, i: int) -> bool:
    account, position, count = lanes.account, lanes.position, len(lanes.left_at)
    is_open, is_negative = lanes.is_pending[i] != 0, False
    for lane in range(count):
        is_live = (account[cell(field.IS_LIVE, lane)] != 0.0) & is_open
        is_live &= position[spot(i, field.IS_HALTED, lane)] == 0.0
        target = position[spot(i, field.TARGET, lane)] if is_live else math.nan
        position[spot(i, field.TARGET, lane)] = target
        is_negative |= target < 0.0
    return not is_negative


def show_bar_of(
    policies: LanePolicies, feed: MarketFeed, lanes: LaneArrays, i: int, t: int
) -> None:
    bar = policies.bar
    bar[0], bar[1], bar[2] = feed.open[t, i], feed.high[t, i], feed.low[t, i]
    bar[3], bar[4], bar[5] = feed.close[t, i], feed.mark_close[t, i], feed.volume[t, i]
    bar[6] = lanes.last_funding[i]
