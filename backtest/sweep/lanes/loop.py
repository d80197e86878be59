"""The bar loop of a sweep: 64 accounts side by side, and alone where something rare is due.

A *lane* is one account of a block. Most bars do the same to all lanes: prices move, funding is
paid, orders fill. A lane in which something rare may happen, such as a liquidation or a stop,
passes that bar alone, through the loop of a run: it is kept as it was before the bar, taken out,
and put back.

====================  ============================================================================
word                  what it is
====================  ============================================================================
alone                 lanes that pass a bar alone, as bits: bit k is lane k
groups                groups of lanes in which one may trade, as bits
lone run              account and records in which a lane passes a bar alone
live, ended           a lane that decides; one that is ruined or over, and stays as it is
busy                  ended lanes with something left to close or to earn, as bits
local                 bar that a policy sees: counted from the first bar of its columns
====================  ============================================================================
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from backtest.account import AccountState, MarketBar, MarketFeed, Scratch, Terms, share
from backtest.account.money import WALLET
from backtest.account.records import at_column
from backtest.core.kernels import inlined
from backtest.core.units import TOLERANCE
from backtest.engine import Deciders, RunTape
from backtest.engine.loop import DAY_NS, DONE, NEGATIVE
from backtest.engine.shown import CLOSE, FUNDING, HIGH, LOW, MARK_CLOSE, OPEN, VOLUME
from backtest.policies import AccountView
from backtest.results import Clock, grow_free
from backtest.sweep.lanes import quiet
from backtest.sweep.lanes import rows as r
from backtest.sweep.lanes.closes import close_lanes, end_samples, keep_units
from backtest.sweep.lanes.rows import (
    ALL_GROUPS,
    CURSOR,
    HELD,
    LANES,
    OWN,
    PRICE,
    REASON,
    TALLY,
    WORK,
    LanePolicies,
    Lanes,
    cell,
    lowest,
    may_fill,
    select,
    spot,
)
from backtest.sweep.lanes.trades import (
    fill_trades,
    find_exits,
    find_overruled,
    follow_bests,
    plan_trades,
)

if TYPE_CHECKING:
    from backtest.account.money import Money
    from backtest.core import FloatArray
    from backtest.core.structs import Structs


OFTEN = 8
"""Bars in a row with a trade after which the next is expected to have one."""


class BlockMarket(NamedTuple):
    """What the accounts of a block pass: prices and payments, the clock, log returns by bar."""

    feed: MarketFeed
    clock: Clock
    log_returns: FloatArray


class LoneRun(NamedTuple):
    """Account and records in which one lane at a time passes a bar, and the loop of a run.

    ``address`` is that of the compiled loop. ``deciders`` decide nothing, as the close of a bar is
    decided for all lanes together. ``first`` is the first bar of the sweep.
    """

    deciders: Deciders
    state: AccountState
    quotes: MarketBar
    scratch: Scratch
    ledger: Structs[Money]
    tape: RunTape
    address: int
    first: int


def pass_alone(address: Any, *arguments: Any) -> tuple[int, int]:
    """Call the loop of a run at an address; compiled code binds its own."""
    raise NotImplementedError


def ask_lanes(policies: LanePolicies, lanes: Lanes, i: int, time: int, local: int) -> bool:
    """Write what the policy of instrument i decides for all lanes; compiled code binds its own."""
    raise NotImplementedError


def take_block(
    terms: Terms,
    market: BlockMarket,
    policies: LanePolicies,
    lanes: Lanes,
    lone: LoneRun,
    start: int,
    stop: int,
) -> tuple[int, int]:
    """Take all lanes from bar start to stop; return the bar reached, and why it ended there.

    All lanes pass a bar side by side. Those in which something rare may happen pass it again,
    alone, from where they stood before it; what they were in the meantime is written over. It ends
    at ``stop`` (DONE), at a fault of a lane that passed alone, or where a policy decided a leverage
    below 0 (NEGATIVE). After a fault the lanes are used no more: their sets are run one by one.
    """
    terms = share(terms)
    market = share(market)
    policies = share(policies)
    lanes = share(lanes)
    lone = share(lone)
    feed = market.feed
    clock = market.clock
    n = len(lanes.signal)
    quiet.begin_prices(terms, feed, lanes)
    # The blocks of a market share a table of prices: the first that reaches these bars writes it.
    if lanes.cursor[CURSOR.is_written] == 0:
        quiet.write_table(terms, feed, lanes, start, stop)

    for t in range(start, stop):
        quiet.write_bar_prices(terms, feed, lanes, t)
        alone = pass_open(terms, feed, lanes, n, t)
        close_lanes(terms, lanes, n)
        free = grow_free(lanes.free_return[0], clock.risk_free[t])
        if clock.ends_sample[t] != 0.0:
            end_samples(lanes, free)

        if alone != 0:
            quiet.write_before(terms, feed, lanes, t)
            why = pass_lanes_alone(terms, market, lanes, lone, alone, t)
            if why != DONE:
                return t, why

        # What lanes share moves on after the lanes that pass alone, which read it as it was.
        end_bar(feed, clock, lanes, free, t)
        if alone != 0:
            end_lanes(terms, lanes, n)
        if not ask_all(terms, feed, policies, lanes, t):
            return t, NEGATIVE
    return stop, DONE


def pass_lanes_alone(
    terms: Terms, market: BlockMarket, lanes: Lanes, lone: LoneRun, alone: int, t: int
) -> int:
    """Take the lanes of some bits through bar t, one after another, by the loop of a run.

    Each is written into the one account that lanes pass alone with, passes the bar, and is read
    back. Return why it stopped: DONE, or the fault of the first lane that has one. That lane is not
    read back, as a fault ends the block.
    """
    # Lane by lane: the lowest bit that is left, which is then taken away.
    while alone != 0:
        lane = lowest(alone)
        alone &= alone - 1
        r.take_out(lanes, terms, lone.state, t, t - lone.first, lane)
        why = pass_bar(terms, market, lanes, lone, t)
        if why != DONE:
            return why
        r.put_back(lanes, terms, lone.state, t, lane)
    return DONE


def pass_bar(terms: Terms, market: BlockMarket, lanes: Lanes, lone: LoneRun, t: int) -> int:
    """Take the lane that was taken out through bar t by the loop of a run; return why it stopped.

    That loop is called at its address, where compiled code passes no arguments by keyword and no
    record of its own. So these are all arguments of :func:`.engine.loop.simulate_account`, in its
    order: the market, the account, what it writes, and the one bar from t to t + 1.
    """
    _, why = pass_alone(
        lone.address,
        terms,
        market.feed,
        market.clock,
        market.log_returns,
        lone.deciders,
        lone.state,
        lone.quotes,
        lone.scratch,
        lone.ledger,
        lanes.tally,
        lone.tape,
        t,
        t + 1,
    )
    return why


# The open: payments and trades.


def pass_open(terms: Terms, feed: MarketFeed, lanes: Lanes, n: int, t: int) -> int:
    """Take the lanes of a block through the open of bar t: payments and trades, steps 2 to 6.

    Returns the lanes that pass this bar alone instead, in the loop of a run. They are kept as they
    were before the bar, and do not trade with the others. A set of lanes is a number here, whose
    bit k is lane k. Steps are numbered as in ``docs/accounting.md``.
    """
    cursor = lanes.cursor
    is_due = lanes.is_due[t] != 0
    if is_due and is_for_runs(feed, lanes, t):
        return keep_all(lanes, n)

    # Steps 2 and 3: funding at the open, and interest since the last one.
    k = cursor[CURSOR.settlement]
    has_funding = is_due and k < len(feed.funding_bar) and feed.funding_bar[k] == t
    has_interest = terms.has_interest and t > 0
    is_paying = has_funding or has_interest
    if is_paying:
        quiet.begin_payments(lanes, n)
        quiet.pay_lanes(terms, feed, lanes, t, is_open=1)
        if has_interest:
            quiet.charge_lanes(terms, feed, lanes, t)

    # Step 5. What a lane was before the bar is known until its orders fill: so lanes are kept
    # between planning and filling.
    is_trading, failing = decide_trades(terms, feed, lanes, n, t)
    alone = keep_alone(lanes, failing, n, is_paying)
    if is_trading:
        fill_trades(terms, lanes, n)

    # Step 6: funding inside the bar, on what is held now.
    if is_paying:
        quiet.pay_lanes(terms, feed, lanes, t, is_open=0)
        count_payments(lanes)
    if lanes.moves_stops:
        follow_bests(lanes, n)
    return alone


def keep_all(lanes: Lanes, n: int) -> int:
    """Keep all lanes as they are, for the loop of a run, and return them as bits.

    Called at a flow of money, or at the end of an instrument, before anything else in the bar.
    Lanes that have ended are among them.
    """
    everyone: int = find_lanes(lanes, r.LIVE) | find_lanes(lanes, r.ENDED)
    lanes.alone_for[REASON.whole] = everyone
    r.keep_lanes(lanes, everyone, n, is_paying=False)
    return everyone


def keep_alone(lanes: Lanes, failing: int, n: int, is_paying: bool) -> int:
    """Keep the lanes that pass this bar alone as they were before it, and return them as bits.

    Of those that may fail in it (``failing``, bits too) these are the live ones: an ended lane
    decides nothing. Of the ended ones they are those that are busy: with something left to close or
    to earn. ``is_paying`` says that the bar has paid funding or interest.
    """
    busy = lanes.cursor[CURSOR.busy]
    if (failing | busy) == 0:
        return 0

    alone: int = (failing & find_lanes(lanes, r.LIVE)) | busy
    lanes.alone_for[REASON.whole] = 0
    lanes.alone_for[REASON.over] = busy
    r.keep_lanes(lanes, alone, n, is_paying)
    return alone


def count_payments(lanes: Lanes) -> None:
    """Add the funding and the interest that each lane paid in the bar to its tally."""
    account = lanes.account
    for lane in range(LANES):
        account[cell(TALLY.funding, lane)] += account[cell(WORK.funded, lane)]
        account[cell(TALLY.interest, lane)] += account[cell(WORK.charged, lane)]


def decide_trades(terms: Terms, feed: MarketFeed, lanes: Lanes, n: int, t: int) -> tuple[bool, int]:
    """Plan what lanes trade; return whether any does, and as bits those that pass the bar alone.

    Nothing is traded yet. A lane passes alone if it may lose what it has (``loss``), if a stop is
    in reach (``exit``), if the cap of gross leverage may cut it (``capped``), or if margin may not
    allow its order (``order``). The lanes of each reason are written into ``alone_for`` as bits,
    and into the cursor how many bars in a row some lane traded.

    What each step reads must be there before: a look values the lanes and finds the groups that may
    trade, prices of volume and stops come next, and planned stops need a plan.
    """
    cursor = lanes.cursor
    alone_for = lanes.alone_for
    alone_for[REASON.loss] = 0
    alone_for[REASON.exit] = 0
    alone_for[REASON.capped] = 0
    alone_for[REASON.order] = 0

    # A look says who may trade, and who may fail. Planning says it too, so lanes that trade at
    # every bar are planned without a look, in all groups; a look writes those that may trade.
    cursor[CURSOR.groups] = ALL_GROUPS
    has_order = trades_often(terms, lanes, n)
    if not has_order:
        has_order, alone_for[REASON.loss] = quiet.look(terms, lanes, n)
    if lanes.has_exits or (has_order and lanes.needs_extra_prices):
        quiet.write_extra_prices(terms, feed, lanes, t)

    # Stops are tested of what is held, and then of what was planned. A plan writes the lanes that
    # are ``capped`` by itself; without one, bands may keep more than the cap allows.
    if lanes.has_exits:
        alone_for[REASON.exit] = find_exits(terms, lanes, n, is_planned=False)
    is_trading = False
    if has_order:
        is_trading, alone_for[REASON.order] = plan_trades(terms, lanes, n)
        if lanes.has_exits:
            alone_for[REASON.exit] |= find_exits(terms, lanes, n, is_planned=True)
    else:
        alone_for[REASON.capped] = find_overruled(terms, lanes, n)

    if is_trading:
        cursor[CURSOR.n_trading] += 1
    else:
        cursor[CURSOR.n_trading] = 0
    alone = alone_for[REASON.loss] | alone_for[REASON.exit]
    alone |= alone_for[REASON.capped] | alone_for[REASON.order]
    return is_trading, alone


def trades_often(terms: Terms, lanes: Lanes, n: int) -> bool:
    """Return whether lanes of one position traded at so many bars that this one is expected to.

    Of kinds of fills that need no look. A cap of gross leverage is tested by the look.
    """
    if n != 1 or lanes.kinds[0] > r.LOTS or terms.max_gross_leverage < math.inf:
        return False
    return bool(may_fill(lanes, 0) and lanes.cursor[CURSOR.n_trading] >= OFTEN)


def is_for_runs(feed: MarketFeed, lanes: Lanes, t: int) -> bool:
    """Return whether money flows in bar t, or an instrument ends: lanes have no rules for them."""
    flow = lanes.cursor[CURSOR.flow]
    if flow < len(feed.flow_bar) and feed.flow_bar[flow] == t:
        return True
    for i in range(len(lanes.signal)):  # noqa: SIM110 - numba compiles no generators
        if feed.ends[i] == 1 and t == feed.span[i, 1] - 1:
            return True
    return False


def find_lanes(lanes: Lanes, life: float) -> int:
    """Return as bits the lanes whose ``is_live`` is LIVE, ENDED or 0 (a lane without a set)."""
    bits = 0
    for lane in range(LANES):
        bits |= (lanes.account[cell(OWN.is_live, lane)] == life) << lane
    return bits


# The end of a bar.


def end_bar(feed: MarketFeed, clock: Clock, lanes: Lanes, free: float, t: int) -> None:
    """Write what lanes share from one bar to the next: the risk-free return, and cursors."""
    if clock.ends_sample[t] != 0.0:
        keep_units(lanes)
        free = 0.0
    lanes.free_return[0] = free
    if lanes.is_due[t] == 0:
        return

    cursor = lanes.cursor
    # What is due in this bar was paid: the next settlement and flow are those of later bars.
    k = cursor[CURSOR.settlement]
    while k < len(feed.funding_bar) and feed.funding_bar[k] == t:
        lanes.last_funding[feed.funding_instrument[k]] = feed.funding_rate[k]
        k += 1
    cursor[CURSOR.settlement] = k

    flow = cursor[CURSOR.flow]
    while flow < len(feed.flow_bar) and feed.flow_bar[flow] == t:
        flow += 1
    cursor[CURSOR.flow] = flow


def end_lanes(terms: Terms, lanes: Lanes, n: int) -> None:
    """Write that lanes which are ruined or over have ended, and which of them are still busy.

    Called after lanes passed a bar alone, as none is ruined side by side. An ended lane decides
    nothing more: its leverage is NaN from now on, as the row ``muted``, 0 or NaN, is added to each
    leverage that a formula decides. One that still holds or earns something is busy: it passes each
    further bar alone. Bit k of the cursor ``busy`` is lane k.
    """
    account = lanes.account
    position = lanes.position
    busy = 0
    for lane in range(LANES):
        has_no_set = account[cell(OWN.is_live, lane)] == 0.0
        is_over = account[cell(WALLET.is_ruined, lane)] + account[cell(WALLET.is_over, lane)] != 0.0
        if not is_over or has_no_set:
            continue
        account[cell(OWN.is_live, lane)] = r.ENDED
        for i in range(n):
            position[spot(i, HELD.leverage, lane)] = math.nan
        busy |= is_busy(terms, lanes, n, lane) << lane

    # A halt that a lane came back with mutes one instrument of it.
    lanes.cursor[CURSOR.busy] = busy
    for i in range(n):
        for lane in range(LANES):
            position[spot(i, HELD.muted, lane)] = find_muted(lanes, i, lane)


def is_busy(terms: Terms, lanes: Lanes, n: int, lane: int) -> bool:
    """Return whether further bars would change what an ended lane is worth.

    It holds a position, earns or pays interest, or its unit value has not followed a withdrawal.
    """
    account = lanes.account
    if terms.has_interest and account[cell(WALLET.cash, lane)] != 0.0:
        return True
    for i in range(n):
        if lanes.position[spot(i, HELD.quantity, lane)] != 0.0:
            return True

    unit = account[cell(WALLET.unit, lane)]
    wealth = account[cell(WALLET.equity, lane)] + account[cell(WALLET.reserve, lane)]
    worth = account[cell(WALLET.scale, lane)] * wealth
    return bool(abs(worth - unit) > TOLERANCE * unit)


@inlined
def find_muted(lanes: Lanes, i: int, lane: int) -> float:
    """Return what is added to the leverage of a lane: 0, or NaN where it decides nothing more."""
    is_deciding = lanes.account[cell(OWN.is_live, lane)] == r.LIVE
    is_deciding &= lanes.position[spot(i, HELD.is_halted, lane)] == 0.0
    return select(is_deciding, 0.0, math.nan)


# The decisions at the close.


def ask_all(terms: Terms, feed: MarketFeed, policies: LanePolicies, lanes: Lanes, t: int) -> bool:
    """Write the leverages and signals of all lanes at close t; return whether all are sound.

    A leverage under 0 is not sound. An instrument that cannot be traded has none, NaN. The close
    must be counted, and lanes that passed the bar alone must be back: policies see the account
    after it. What they see of it is written first, for all, and then for each policy as it is
    asked.
    """
    is_sound = True
    if policies.wants_account:
        show_accounts(policies, lanes, feed.time[t])

    for i in range(len(lanes.signal)):
        lanes.signal[i] = at_column(feed.signal, t, i)
        lanes.is_pending[i] = at_column(policies.tradable, t, i)
        local = t - policies.firsts[i]
        # Up to ``latest`` the columns of some lanes are not known yet; at it the last one begins.
        if 0 <= local <= policies.latest[i]:
            hold_back(policies, lanes, i, local)

        if lanes.is_pending[i] == 0:
            for lane in range(LANES):
                lanes.position[spot(i, HELD.leverage, lane)] = math.nan
            continue
        if policies.wants_bar:
            show_bar(feed, policies, lanes, i, t)
        if policies.wants_account:
            show_positions(terms, policies, lanes, i, t)
        is_sound &= ask_lanes(policies, lanes, i, feed.time[t], local)
        if local < policies.latest[i]:
            keep_memory(policies, i, local)
    return is_sound


def hold_back(policies: LanePolicies, lanes: Lanes, i: int, local: int) -> None:
    """Mute the lanes whose columns are not known yet at bar ``local``, and unmute the others.

    Writes the row ``muted``: NaN makes the leverage of a lane NaN, whatever its formula decides.
    """
    for lane in range(LANES):
        is_known = local >= policies.known[cell(i, lane)]
        muted = select(is_known, find_muted(lanes, i, lane), math.nan)
        lanes.position[spot(i, HELD.muted, lane)] = muted


def keep_memory(policies: LanePolicies, i: int, local: int) -> None:
    """Take back what the formula wrote into the memory of lanes whose columns are not known yet.

    A formula runs in all lanes at once. A run does not ask its policy before its columns are known,
    so its memory is the first one until then: that of ``begun``.
    """
    for row in range(policies.memory_at[i], policies.memory_at[i + 1]):
        for lane in range(LANES):
            if local < policies.known[cell(i, lane)]:
                policies.memory[cell(row, lane)] = policies.begun[cell(row, lane)]


NAMES = (
    "equity", "peak_equity", "drawdown", "leverage", "position", "bars_since_liquidation",
    "bars_since_stop", "days",
)  # fmt: skip
"""What lanes show of an account."""
(
    SEEN_EQUITY, SEEN_PEAK, SEEN_DRAWDOWN, SEEN_LEVERAGE, SEEN_POSITION, SINCE_LIQUIDATION,
    SINCE_STOP, SEEN_DAYS,
) = (AccountView._fields.index(name) for name in NAMES)  # fmt: skip


def show_bar(feed: MarketFeed, policies: LanePolicies, lanes: Lanes, i: int, t: int) -> None:
    """Write bar t, as the policy of instrument i sees it, into ``policies.bar``.

    All lanes see the same prices and funding, so there is one row for them. It is written over for
    the next instrument, so the policy is asked right after.
    """
    bar = policies.bar
    bar[OPEN] = feed.open[t, i]
    bar[HIGH] = feed.high[t, i]
    bar[LOW] = feed.low[t, i]
    bar[CLOSE] = feed.close[t, i]
    bar[MARK_CLOSE] = feed.mark_close[t, i]
    bar[VOLUME] = feed.volume[t, i]
    bar[FUNDING] = lanes.last_funding[i]


def show_accounts(policies: LanePolicies, lanes: Lanes, time: int) -> None:
    """Write what the policies of each lane see of its account, by lane, into ``policies.shown``.

    ``time`` is the open of the bar, ns; the days count to its close. The peak is that of the unit
    value, which deposits do not move, in units of today's equity.
    """
    account = lanes.account
    shown = policies.shown
    days = (time + policies.interval - policies.start) / DAY_NS
    for lane in range(LANES):
        equity = account[cell(WALLET.equity, lane)]
        unit = account[cell(WALLET.unit, lane)]
        peak = account[cell(WALLET.peak, lane)]

        shown[cell(SEEN_EQUITY, lane)] = equity
        shown[cell(SEEN_PEAK, lane)] = equity * (peak / unit)
        shown[cell(SEEN_DRAWDOWN, lane)] = 1.0 - unit / peak
        shown[cell(SEEN_DAYS, lane)] = days


def show_positions(terms: Terms, policies: LanePolicies, lanes: Lanes, i: int, t: int) -> None:
    """Write what the policy of instrument i sees of each lane's position at the close of bar t.

    These are its leverage, signed, and 0 without equity; its contracts; and the bars since its last
    stop and its last liquidation, which is that of the position if it is isolated, else that of the
    pool. Rows are addressed by lane: ``cell`` in arrays of the account, ``spot`` in those of
    instrument i.
    """
    account = lanes.account
    position = lanes.position
    shown = policies.shown
    contract_notional = abs(lanes.prices[PRICE.close, i])
    is_isolated = terms.rules.brackets.are_isolated[i] != 0
    for lane in range(LANES):
        quantity = position[spot(i, HELD.quantity, lane)]
        equity = account[cell(WALLET.equity, lane)]
        has_leverage = (quantity != 0.0) & (equity > 0.0)
        leverage = quantity * contract_notional / equity if has_leverage else 0.0

        shown[cell(SEEN_LEVERAGE, lane)] = leverage
        shown[cell(SEEN_POSITION, lane)] = quantity
        shown[cell(SINCE_STOP, lane)] = t - position[spot(i, HELD.last_stop, lane)]

        hit_alone = position[spot(i, HELD.last_hit, lane)]
        hit_with_pool = account[cell(WALLET.since_pool, lane)]
        last_hit = select(is_isolated, hit_alone, hit_with_pool)
        shown[cell(SINCE_LIQUIDATION, lane)] = t - last_hit
