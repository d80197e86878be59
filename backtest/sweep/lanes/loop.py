"""The bar loop of a sweep: 64 accounts side by side, and alone where something rare is due."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from backtest.account import AccountState, MarketBar, MarketFeed, Scratch, Terms, share
from backtest.account.money import WALLET
from backtest.account.records import at_column
from backtest.core.kernels import inlined
from backtest.core.units import TOLERANCE
from backtest.engine import Deciders, RunTape
from backtest.engine.loop import DAY_NS, DONE, NEGATIVE
from backtest.policies import AccountView
from backtest.results import Clock, grow_free
from backtest.sweep.lanes import quiet
from backtest.sweep.lanes import rows as r
from backtest.sweep.lanes.closes import close_lanes, end_samples, keep_units
from backtest.sweep.lanes.rows import LANES, LanePolicies, Lanes, cell, spot
from backtest.sweep.lanes.trades import (
    fill_trades,
    find_exits,
    find_overruled,
    follow_bests,
    plan_trades,
)

if TYPE_CHECKING:
    from backtest.core import FloatArray


OFTEN = 8
"""Bars in a row with a trade after which the next is expected to have one."""


def pass_alone(address: Any, *arguments: Any) -> tuple[int, int]:
    raise NotImplementedError


def ask_lanes(policies: LanePolicies, lanes: Lanes, i: int, time: int, local: int) -> bool:
    raise NotImplementedError


def take_block(  # noqa: PLR0913, PLR0917 - the arguments of a kernel
    terms: Terms,
    feed: MarketFeed,
    clock: Clock,
    log_returns: FloatArray,
    policies: LanePolicies,
    lanes: Lanes,
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
    """Take the lanes from bar start to stop; return the bar reached, and why it ended there."""
    rules, markets, asked, block = share(terms), share(feed), share(policies), share(lanes)
    own, n = share(state), len(block.signal)
    shown, quotes, scratch, tape = share(deciders), share(quotes), share(scratch), share(tape)
    times = share(clock)
    quiet.begin_prices(rules, markets, block)
    if block.cursor[r.CURSOR.is_written] == 0:
        quiet.write_table(rules, markets, block, start, stop)
    for t in range(start, stop):
        quiet.write_bar_prices(rules, markets, block, t)
        rare = pass_open(rules, markets, block, n, t)
        close_lanes(rules, block, n)
        free = grow_free(block.free[0], clock.risk_free[t])
        if clock.ends_sample[t] != 0.0:
            end_samples(block, free)
        alone = rare
        if rare != 0:
            quiet.write_before(rules, markets, block, t)
        while alone != 0:
            lane = r.lowest(alone)
            alone &= alone - 1
            r.take_out(block, rules, own, t, t - first, lane)
            _, why = pass_alone(
                address, rules, markets, times, log_returns, shown, own, quotes, scratch, ledger,
                block.tally, tape, t, t + 1,
            )  # fmt: skip
            if why != DONE:
                return t, why
            r.put_back(block, rules, own, t, lane)
        end_bar(markets, clock, block, free, t)
        if rare != 0:
            end_lanes(rules, block, n)
        if not ask_all(rules, markets, asked, block, t):
            return t, NEGATIVE
    return stop, DONE


def pass_open(terms: Terms, feed: MarketFeed, lanes: Lanes, n: int, t: int) -> int:
    """Pay and trade; return the lanes that pass this bar alone, and are kept as they were."""
    is_due = lanes.is_due[t] != 0
    if is_due and is_whole(feed, lanes, t):
        rare: int = find_lanes(lanes, r.LIVE) | find_lanes(lanes, r.ENDED)
        lanes.found[r.REASON.whole] = rare
        r.keep_rare(lanes, rare, n, False)
        return rare
    event = lanes.cursor[r.CURSOR.event]
    has_funding = is_due and event < len(feed.funding_bar) and feed.funding_bar[event] == t
    is_paying = has_funding or (terms.has_interest and t > 0)
    if is_paying:
        quiet.begin_payments(lanes, n)
        quiet.pay_lanes(terms, feed, lanes, t, 1)
        if terms.has_interest and t > 0:
            quiet.charge_lanes(terms, feed, lanes, t)
    is_trading, rare = decide_trades(terms, feed, lanes, n, t)
    rare |= lanes.cursor[r.CURSOR.closing]
    if rare != 0:
        rare &= find_lanes(lanes, r.LIVE) | lanes.cursor[r.CURSOR.closing]
        lanes.found[r.REASON.whole], lanes.found[r.REASON.over] = 0, lanes.cursor[r.CURSOR.closing]
        r.keep_rare(lanes, rare, n, is_paying)
    if is_trading:
        fill_trades(terms, lanes, n)
    if is_paying:
        quiet.pay_lanes(terms, feed, lanes, t, 0)
        account = lanes.account
        for lane in range(LANES):
            account[cell(r.TALLY.funding, lane)] += account[cell(r.WORK.funded, lane)]
            account[cell(r.TALLY.interest, lane)] += account[cell(r.WORK.charged, lane)]
    if lanes.moves_stops:
        follow_bests(lanes, n)
    return rare


def decide_trades(terms: Terms, feed: MarketFeed, lanes: Lanes, n: int, t: int) -> tuple[bool, int]:
    """Plan what lanes trade; return whether any does, and those that pass the bar alone."""
    is_asking, rare, is_trading = n == 1, 0, False
    is_asking &= lanes.cursor[r.CURSOR.n_trading] >= OFTEN and lanes.kinds[0] <= r.LOTS
    is_asking &= lanes.is_pending[0] == 1 and lanes.prices[r.PRICE.is_listed, 0] != 0.0
    is_asking &= terms.max_gross_leverage == math.inf  # else a look would not be for nothing
    lanes.found[r.REASON.exit], lanes.found[r.REASON.capped], lanes.found[r.REASON.order] = 0, 0, 0
    lanes.cursor[r.CURSOR.asking] = r.ALL_GROUPS
    if not is_asking:
        is_asking, rare = quiet.look(terms, lanes, n)
    lanes.found[r.REASON.loss] = rare
    if lanes.has_exits or (is_asking and lanes.has_rest):
        quiet.write_rest_of_prices(terms, feed, lanes, t)
    if lanes.has_exits:
        lanes.found[r.REASON.exit] = find_exits(terms, lanes, n, False)
    if is_asking:
        is_trading, lanes.found[r.REASON.order] = plan_trades(terms, lanes, n)
        if lanes.has_exits:
            lanes.found[r.REASON.exit] |= find_exits(terms, lanes, n, True)
    else:
        lanes.found[r.REASON.capped] = find_overruled(terms, lanes, n)
        rare |= lanes.found[r.REASON.capped]
    rare |= lanes.found[r.REASON.exit] | lanes.found[r.REASON.order]
    lanes.cursor[r.CURSOR.n_trading] = lanes.cursor[r.CURSOR.n_trading] + 1 if is_trading else 0
    return is_trading, rare


def is_whole(feed: MarketFeed, lanes: Lanes, t: int) -> bool:
    flow = lanes.cursor[r.CURSOR.flow]
    if flow < len(feed.flow_bar) and feed.flow_bar[flow] == t:
        return True
    found = False
    for i in range(len(lanes.signal)):
        found = found or (feed.ends[i] == 1 and t == feed.span[i, 1] - 1)
    return bool(found)


def find_lanes(lanes: Lanes, life: float) -> int:
    found = 0
    for lane in range(LANES):
        found |= (lanes.account[cell(r.OWN.is_live, lane)] == life) << lane
    return found


def end_bar(feed: MarketFeed, clock: Clock, lanes: Lanes, free: float, t: int) -> None:
    """Write what lanes share from one bar to the next: the risk-free return, and cursors."""
    if clock.ends_sample[t] != 0.0:
        keep_units(lanes)
        free = 0.0
    lanes.free[0] = free
    if lanes.is_due[t] == 0:
        return
    event, flow = lanes.cursor[r.CURSOR.event], lanes.cursor[r.CURSOR.flow]
    while event < len(feed.funding_bar) and feed.funding_bar[event] == t:
        lanes.last_funding[feed.funding_instrument[event]] = feed.funding_rate[event]
        event += 1
    while flow < len(feed.flow_bar) and feed.flow_bar[flow] == t:
        flow += 1
    lanes.cursor[r.CURSOR.event], lanes.cursor[r.CURSOR.flow] = event, flow


def end_lanes(terms: Terms, lanes: Lanes, n: int) -> None:
    """Let lanes that are ruined or over rest, unless closes would change what they are worth."""
    account, position, closing = lanes.account, lanes.position, 0
    for lane in range(LANES):
        is_over = account[cell(WALLET.is_ruined, lane)] + account[cell(WALLET.is_over, lane)] != 0.0
        if not is_over or account[cell(r.OWN.is_live, lane)] == 0.0:
            continue
        account[cell(r.OWN.is_live, lane)] = r.ENDED
        unit, money = account[cell(WALLET.unit, lane)], account[cell(WALLET.equity, lane)]
        worth = account[cell(WALLET.scale, lane)] * (money + account[cell(WALLET.reserve, lane)])
        is_busy = bool(terms.has_interest) and account[cell(WALLET.cash, lane)] != 0.0
        is_busy = is_busy or abs(worth - unit) > TOLERANCE * unit  # its money was withdrawn
        for i in range(n):
            position[spot(i, r.HELD.target, lane)] = math.nan
            is_busy = is_busy or position[spot(i, r.HELD.quantity, lane)] != 0.0
        closing |= is_busy << lane
    lanes.cursor[r.CURSOR.closing] = closing
    for i in range(n):
        for lane in range(LANES):
            position[spot(i, r.HELD.rest, lane)] = find_rest(lanes, i, lane)


@inlined
def find_rest(lanes: Lanes, i: int, lane: int) -> float:
    """Return what is added to the target of a lane: 0, or NaN where it decides nothing more."""
    is_deciding = lanes.account[cell(r.OWN.is_live, lane)] == r.LIVE
    is_deciding &= lanes.position[spot(i, r.HELD.is_halted, lane)] == 0.0
    return 0.0 if is_deciding else math.nan


def hold_back(policies: LanePolicies, lanes: Lanes, i: int, local: int) -> None:
    """Let lanes whose columns are not known yet decide nothing: their target will be NaN."""
    for lane in range(LANES):
        rest = find_rest(lanes, i, lane) if local >= policies.known[cell(i, lane)] else math.nan
        lanes.position[spot(i, r.HELD.rest, lane)] = rest


def keep_memory(policies: LanePolicies, i: int, local: int) -> None:
    """Write the first memory again where a policy was not asked, and its formula ran anyway."""
    for row in range(policies.memory_at[i], policies.memory_at[i + 1]):
        for lane in range(LANES):
            if local < policies.known[cell(i, lane)]:
                policies.memory[cell(row, lane)] = policies.begun[cell(row, lane)]


def ask_all(terms: Terms, feed: MarketFeed, policies: LanePolicies, lanes: Lanes, t: int) -> bool:
    """Write the targets and signals of all lanes at the close; return whether all are sound."""
    is_sound, n = True, len(lanes.signal)
    if policies.wants_account:
        show_accounts(policies, lanes, feed.time[t])
    for i in range(n):
        lanes.signal[i] = at_column(feed.signal, t, i)
        lanes.is_pending[i] = at_column(policies.tradable, t, i)
        local = t - policies.firsts[i]
        if 0 <= local <= policies.latest[i]:
            hold_back(policies, lanes, i, local)
        if lanes.is_pending[i] != 0:
            if policies.wants_bar:
                bar = policies.bar
                bar[0], bar[1], bar[2] = feed.open[t, i], feed.high[t, i], feed.low[t, i]
                bar[3], bar[4], bar[5] = feed.close[t, i], feed.mark_close[t, i], feed.volume[t, i]
                bar[6] = lanes.last_funding[i]
            if policies.wants_account:
                show_positions(terms, policies, lanes, i, t)
            is_sound &= ask_lanes(policies, lanes, i, feed.time[t], local)
            if local < policies.latest[i]:
                keep_memory(policies, i, local)
        else:
            for lane in range(LANES):
                lanes.position[spot(i, r.HELD.target, lane)] = math.nan
    return is_sound


NAMES = (
    "equity", "peak_equity", "drawdown", "leverage", "position", "bars_since_liquidation",
    "bars_since_stop", "days",
)  # fmt: skip
"""What lanes show of an account."""
(
    SEEN_EQUITY, SEEN_PEAK, SEEN_DRAWDOWN, SEEN_LEVERAGE, SEEN_POSITION, SINCE_LIQUIDATION,
    SINCE_STOP, SEEN_DAYS,
) = (AccountView._fields.index(name) for name in NAMES)  # fmt: skip


def show_accounts(policies: LanePolicies, lanes: Lanes, time: int) -> None:
    account, shown = lanes.account, policies.shown
    days = (time + policies.interval - policies.start) / DAY_NS
    for lane in range(LANES):
        equity, unit = account[cell(WALLET.equity, lane)], account[cell(WALLET.unit, lane)]
        peak = account[cell(WALLET.peak, lane)]
        shown[cell(SEEN_EQUITY, lane)] = equity
        shown[cell(SEEN_PEAK, lane)] = equity * (peak / unit)
        shown[cell(SEEN_DRAWDOWN, lane)] = 1.0 - unit / peak
        shown[cell(SEEN_DAYS, lane)] = days


def show_positions(terms: Terms, policies: LanePolicies, lanes: Lanes, i: int, t: int) -> None:
    account, position, shown = lanes.account, lanes.position, policies.shown
    unit, is_isolated = (
        abs(lanes.prices[r.PRICE.close, i]),
        terms.rules.brackets.are_isolated[i] != 0,
    )
    for lane in range(LANES):
        quantity, equity = (
            position[spot(i, r.HELD.quantity, lane)],
            account[cell(WALLET.equity, lane)],
        )
        is_shown = (quantity != 0.0) & (equity > 0.0)
        of_pool, of_its_own = (
            account[cell(WALLET.since_pool, lane)],
            position[spot(i, r.HELD.last_hit, lane)],
        )
        shown[cell(SEEN_LEVERAGE, lane)] = quantity * unit / equity if is_shown else 0.0
        shown[cell(SEEN_POSITION, lane)] = quantity
        shown[cell(SINCE_STOP, lane)] = t - position[spot(i, r.HELD.last_stop, lane)]
        shown[cell(SINCE_LIQUIDATION, lane)] = t - (of_its_own if is_isolated else of_pool)
