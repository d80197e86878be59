"""The bar loop of a sweep: 64 accounts side by side, and alone where something rare is due.

A *lane* is one account of a block. Most bars do the same to all lanes: prices move, funding is
paid, orders fill. A lane in which something rare may happen, such as a liquidation or a stop, is
simulated alone in that bar, through the loop of a run: it is kept as it was before the bar, taken
out, and put back.

====================  ============================================================================
word                  what it is
====================  ============================================================================
alone                 lanes that are simulated alone in a bar, as bits: bit k is lane k
groups                groups of lanes in which one may trade, as bits
single run              account and records in which a lane is simulated alone in a bar
live, ended           a lane that decides; one that is ruined or over, and stays as it is
busy                  ended lanes with something left to close or to earn, as bits
local                 bar that a policy sees: counted from the first bar of its columns
====================  ============================================================================
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from backtest.account import AccountState, MarketBar, MarketFeed, Scratch, Terms, by_reference
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
    LaneBits,
    LanePolicies,
    Lanes,
    cell,
    drop_first,
    held_cell,
    may_fill,
    pick_first,
    select,
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


class SingleRun(NamedTuple):
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


def simulate_alone(address: Any, *arguments: Any) -> tuple[int, int]:
    """Call the loop of a run at an address; compiled code binds its own."""
    raise NotImplementedError


def ask_lanes(policies: LanePolicies, lanes: Lanes, i: int, time: int, local: int) -> bool:
    """Write what the policy of instrument i decides for all lanes; compiled code binds its own."""
    raise NotImplementedError


def simulate_block(
    terms: Terms,
    market: BlockMarket,
    policies: LanePolicies,
    lanes: Lanes,
    single: SingleRun,
    start: int,
    stop: int,
) -> tuple[int, int]:
    """Simulate all lanes (accounts) from bar ``start`` to ``stop``, side by side.

    In each bar, all lanes pass its open, its close and the decisions at the close together. Lanes
    in which something rare may happen, such as a stop, are then simulated alone in the bar: from
    where they stood before it, by the loop of a single run. What they were in the meantime is
    written over.

    Returns the bar reached and why it ended there: DONE at ``stop``, NEGATIVE if a policy decided a
    leverage below 0, or the fault of a lane that was simulated alone. After a fault the lanes are
    used no more: their sets are run one by one.
    """
    # For speed alone: calls get the address of a record, in place of a copy of its fields.
    terms = by_reference(terms)
    market = by_reference(market)
    policies = by_reference(policies)
    lanes = by_reference(lanes)
    single = by_reference(single)

    feed = market.feed
    clock = market.clock
    n_instruments = len(lanes.signal)
    quiet.begin_prices(terms, feed, lanes)

    # The blocks of a market share a table of prices: the first that reaches these bars writes it.
    if lanes.cursor[CURSOR.is_written] == 0:
        quiet.write_table(terms, feed, lanes, start, stop)

    for t in range(start, stop):
        # The bar in all lanes: its open, its close, and the sample (such as a day) that it ends.
        # ``alone_bits`` has a bit for each lane that this is not exact for.
        quiet.write_bar_prices(terms, feed, lanes, t)
        alone_bits = pass_open(terms, feed, lanes, n_instruments, t)
        close_lanes(terms, lanes, n_instruments)
        free = grow_free(lanes.free_return[0], clock.risk_free[t])
        if clock.ends_sample[t] != 0.0:
            end_samples(lanes, free)

        # The same bar again in those lanes, through the loop of a run: it overwrites their results.
        if alone_bits != 0:
            quiet.write_before(terms, feed, lanes, t)
            why = simulate_lanes_alone(terms, market, lanes, single, alone_bits, t)
            if why != DONE:
                return t, why

        # What lanes share moves on after the lanes that pass alone, which read it as it was.
        end_bar(feed, clock, lanes, free, t)
        if alone_bits != 0:
            end_lanes(terms, lanes, n_instruments)

        # Policies decide at the close, from what all accounts are after the bar.
        if not ask_all(terms, feed, policies, lanes, t):
            return t, NEGATIVE
    return stop, DONE


def simulate_lanes_alone(
    terms: Terms, market: BlockMarket, lanes: Lanes, single: SingleRun, alone: LaneBits, t: int
) -> int:
    """Simulate some lanes (accounts) in bar t one after another, by the loop of a single run.

    ``alone`` are these lanes, as bits. Each is copied, as it was before the bar, into the account
    of ``single``; simulated in it; and copied back. Returns DONE, or the fault of the first lane
    that has one, which is not copied back: a fault ends the block.
    """
    n_bars_before = t - single.first
    while alone != 0:
        lane = pick_first(alone)
        alone = drop_first(alone)
        r.take_out(lanes, terms, single.state, t, n_bars_before, lane)
        why = simulate_bar(terms, market, lanes, single, t)
        if why != DONE:
            return why
        r.put_back(lanes, terms, single.state, t, lane)
    return DONE


def simulate_bar(terms: Terms, market: BlockMarket, lanes: Lanes, single: SingleRun, t: int) -> int:
    """Simulate the account of ``single`` in bar t by the loop of a run; return why it stopped.

    The compiled loop is called by its address, which allows no keywords and no record of its own.
    So these are all arguments of :func:`.engine.loop.simulate_account`, in its order: the market,
    the account, what it writes, and the one bar from t to t + 1.
    """
    _, why = simulate_alone(
        single.address,
        terms,
        market.feed,
        market.clock,
        market.log_returns,
        single.deciders,
        single.state,
        single.quotes,
        single.scratch,
        single.ledger,
        lanes.tally,
        single.tape,
        t,
        t + 1,
    )
    return why


# The open: payments and trades.


def pass_open(terms: Terms, feed: MarketFeed, lanes: Lanes, n_instruments: int, t: int) -> LaneBits:
    """Make the payments and trades at the open of bar t, in all lanes (accounts) side by side.

    Returns the lanes that must be simulated alone in this bar, as bits: they are copied aside as
    they were before it, and do not trade with the others.

    The steps are those of ``docs/accounting.md``, 2 to 6. Step 4, a liquidation, only happens in
    lanes that are simulated alone.
    """
    # In few bars money flows, funding is paid or an instrument ends: is_due is 1.
    is_due = lanes.is_due[t] != 0
    if is_due and is_for_runs(feed, lanes, t):
        return keep_all(lanes, n_instruments)

    # Steps 2 and 3: funding at the open, and interest since the last one. Settlements of funding
    # are in the order of time; the cursor is at the first one that was not paid.
    k = lanes.cursor[CURSOR.settlement]
    has_funding = is_due and k < len(feed.funding_bar) and feed.funding_bar[k] == t
    has_interest = terms.has_interest and t > 0
    is_paying = has_funding or has_interest
    if is_paying:
        quiet.begin_payments(lanes, n_instruments)
        quiet.pay_lanes(terms, feed, lanes, t, is_open=1)
        if has_interest:
            quiet.charge_lanes(terms, feed, lanes, t)

    # Step 5, the orders. They are planned, which says who is simulated alone in the bar; those
    # lanes are copied as they were before the bar; then the orders of the others fill. The copies
    # must come before any fill, which writes over what a lane was.
    is_trading, failing = decide_trades(terms, feed, lanes, n_instruments, t)
    alone = keep_alone(lanes, failing, n_instruments, is_paying)
    if is_trading:
        fill_trades(terms, lanes, n_instruments)

    # Step 6: funding inside the bar, on what is held now. Stops that trail follow the prices of the
    # bar last, for the next one.
    if is_paying:
        quiet.pay_lanes(terms, feed, lanes, t, is_open=0)
        count_payments(lanes)
    if lanes.moves_stops:
        follow_bests(lanes, n_instruments)
    return alone


def keep_all(lanes: Lanes, n_instruments: int) -> LaneBits:
    """Copy all lanes (accounts) aside as they are, and return them: all are simulated alone.

    Called in bars with a flow of money, or the end of an instrument, for which only the loop of a
    single run has rules; and before anything else in the bar, so nothing has been paid. Lanes that
    have ended are among them; places of the block without an account are not.
    """
    everyone: LaneBits = find_lanes(lanes, r.LIVE) | find_lanes(lanes, r.ENDED)
    lanes.alone_for[REASON.whole] = everyone
    r.keep_lanes(lanes, everyone, n_instruments, is_paying=False)
    return everyone


def keep_alone(lanes: Lanes, may_fail: LaneBits, n_instruments: int, is_paying: bool) -> LaneBits:
    """Copy aside the lanes (accounts) that are to be simulated alone in this bar; return them.

    They are the live lanes among those that ``may_fail``; and the ``busy`` ones: lanes that have
    ended, ruined or over, but still have something to close or to earn. Lanes are bits: bit k is
    lane k. ``is_paying``: the bar has paid funding or interest already, which the copies must not
    include.
    """
    busy = lanes.cursor[CURSOR.busy]
    if (may_fail | busy) == 0:
        return 0

    # Why they pass alone, for the counts. The other reasons are written by ``decide_trades``.
    lanes.alone_for[REASON.whole] = 0
    lanes.alone_for[REASON.over] = busy

    alone: LaneBits = (may_fail & find_lanes(lanes, r.LIVE)) | busy
    r.keep_lanes(lanes, alone, n_instruments, is_paying)
    return alone


def count_payments(lanes: Lanes) -> None:
    """Add the funding and the interest that each lane paid in the bar to its tally."""
    account = lanes.account
    for lane in range(LANES):
        account[cell(TALLY.funding, lane)] += account[cell(WORK.funded, lane)]
        account[cell(TALLY.interest, lane)] += account[cell(WORK.charged, lane)]


def decide_trades(
    terms: Terms, feed: MarketFeed, lanes: Lanes, n_instruments: int, t: int
) -> tuple[bool, LaneBits]:
    """Plan what lanes (accounts) trade in bar t, and find those to be simulated alone.

    Nothing fills yet. Returns whether any lane trades, and as bits the lanes to be simulated alone
    in the bar, by the loop of a single run. There are four reasons: the lane may lose what it has
    (``loss``), a stop is in reach (``exit``), the cap of gross leverage may cut its orders
    (``capped``), or margin may not allow its order (``order``). The lanes of each are written into
    ``alone_for``.

    The order of the steps matters: a look values the lanes and finds which may trade; a plan reads
    what the look and the extra prices wrote; the stops of planned positions are tested after it.
    """
    cursor = lanes.cursor
    alone_for = lanes.alone_for
    alone_for[REASON.loss] = 0
    alone_for[REASON.exit] = 0
    alone_for[REASON.capped] = 0
    alone_for[REASON.order] = 0

    # A look finds who may trade, and who may fail. A plan finds both too, but takes longer. Lanes
    # that trade at every bar are planned without a look: then all groups may trade.
    cursor[CURSOR.groups] = ALL_GROUPS
    has_order = trades_often(terms, lanes, n_instruments)
    if not has_order:
        has_order, alone_for[REASON.loss] = quiet.look(terms, lanes, n_instruments)
    if lanes.has_exits or (has_order and lanes.needs_extra_prices):
        quiet.write_extra_prices(terms, feed, lanes, t)

    # Stops are tested of what is held, and then of what was planned. A plan finds the lanes that
    # are ``capped`` and writes them itself. Without one they are those whose no-trade bands may
    # keep more than the cap allows.
    if lanes.has_exits:
        alone_for[REASON.exit] = find_exits(terms, lanes, n_instruments, is_planned=False)
    is_trading = False
    if has_order:
        is_trading, alone_for[REASON.order] = plan_trades(terms, lanes, n_instruments)
        if lanes.has_exits:
            alone_for[REASON.exit] |= find_exits(terms, lanes, n_instruments, is_planned=True)
    else:
        alone_for[REASON.capped] = find_overruled(terms, lanes, n_instruments)

    if is_trading:
        cursor[CURSOR.n_trading] += 1
    else:
        cursor[CURSOR.n_trading] = 0
    alone = alone_for[REASON.loss] | alone_for[REASON.exit]
    alone |= alone_for[REASON.capped] | alone_for[REASON.order]
    return is_trading, alone


def trades_often(terms: Terms, lanes: Lanes, n_instruments: int) -> bool:
    """Return whether the orders of a bar can be planned at once, without a look at who may trade.

    A look is quicker than a plan, but is lost time if a plan follows. So it is left out if some
    lane traded in each of the last OFTEN bars. It cannot be left out where the plan reads what the
    look writes: only accounts of one cross position without impact, and without a cap of gross
    leverage, are planned without it.
    """
    if n_instruments != 1 or lanes.kinds[0] > r.LOTS or terms.max_gross_leverage < math.inf:
        return False
    return bool(may_fill(lanes, 0) and lanes.cursor[CURSOR.n_trading] >= OFTEN)


def is_for_runs(feed: MarketFeed, lanes: Lanes, t: int) -> bool:
    """Return whether all lanes must be simulated alone in bar t, as they lack a rule for it.

    That is a flow of money into or out of the account, or the last bar of an instrument that ends.
    """
    flow = lanes.cursor[CURSOR.flow]
    if flow < len(feed.flow_bar) and feed.flow_bar[flow] == t:
        return True
    for i in range(len(lanes.signal)):  # noqa: SIM110 - numba compiles no generators
        if feed.ends[i] == 1 and t == feed.span[i, 1] - 1:
            return True
    return False


def find_lanes(lanes: Lanes, life: float) -> LaneBits:
    """Return the lanes that are live, or ended, or without an account, as bits.

    ``life`` is LIVE, ENDED or 0: the value of the row ``is_live`` that is looked for.
    """
    bits = 0
    for lane in range(LANES):
        bits |= (lanes.account[cell(OWN.is_live, lane)] == life) << lane
    return bits


# The end of a bar.


def end_bar(feed: MarketFeed, clock: Clock, lanes: Lanes, free: float, t: int) -> None:
    """Write what all lanes share at the end of bar t: risk-free return, next settlement, next flow.

    ``free`` is the risk-free return of the sample (such as a day) so far, a fraction; it begins
    anew where the bar ends a sample. Called after lanes that were simulated alone are back: they
    read what they share as it was at the start of the bar.
    """
    if clock.ends_sample[t] != 0.0:
        keep_units(lanes)
        free = 0.0
    lanes.free_return[0] = free

    # Without a flow or a settlement in the bar (is_due 0), both cursors stay.
    if lanes.is_due[t] == 0:
        return

    # What is due in this bar was paid: the next settlement and flow are those of later bars. Where
    # a settlement was, policies see its rate as the last one.
    cursor = lanes.cursor
    k = cursor[CURSOR.settlement]
    while k < len(feed.funding_bar) and feed.funding_bar[k] == t:
        lanes.last_funding[feed.funding_instrument[k]] = feed.funding_rate[k]
        k += 1
    cursor[CURSOR.settlement] = k

    flow = cursor[CURSOR.flow]
    while flow < len(feed.flow_bar) and feed.flow_bar[flow] == t:
        flow += 1
    cursor[CURSOR.flow] = flow


def end_lanes(terms: Terms, lanes: Lanes, n_instruments: int) -> None:
    """Find the lanes (accounts) that have ended, ruined or over, and stop their policies.

    An ended lane decides nothing more: the row ``muted`` of its positions becomes NaN, and is added
    to each leverage that a formula decides. If it still holds or earns something it is ``busy``,
    and is simulated alone in each further bar; the busy lanes are written into the cursor, as bits.

    Called after lanes were simulated alone, as an account is ruined only there.
    """
    account = lanes.account
    position = lanes.position
    busy = 0  # as LaneBits
    for lane in range(LANES):
        has_no_set = account[cell(OWN.is_live, lane)] == 0.0
        is_over = account[cell(WALLET.is_ruined, lane)] + account[cell(WALLET.is_over, lane)] != 0.0
        if not is_over or has_no_set:
            continue
        account[cell(OWN.is_live, lane)] = r.ENDED
        for i in range(n_instruments):
            position[held_cell(i, HELD.leverage, lane)] = math.nan
        busy |= is_busy(terms, lanes, n_instruments, lane) << lane

    # A lane that is live may have come back with one instrument halted, which is muted then.
    lanes.cursor[CURSOR.busy] = busy
    for i in range(n_instruments):
        for lane in range(LANES):
            position[held_cell(i, HELD.muted, lane)] = find_muted(lanes, i, lane)


def is_busy(terms: Terms, lanes: Lanes, n_instruments: int, lane: int) -> bool:
    """Return whether further bars would change what an ended lane (account) is worth.

    It holds a position, or earns or pays interest on its cash. Or its unit value is not yet that of
    its wealth: after a withdrawal it follows at the next close. TOLERANCE allows for rounding.
    """
    account = lanes.account
    if terms.has_interest and account[cell(WALLET.cash, lane)] != 0.0:
        return True
    for i in range(n_instruments):
        if lanes.position[held_cell(i, HELD.quantity, lane)] != 0.0:
            return True

    unit = account[cell(WALLET.unit, lane)]
    wealth = account[cell(WALLET.equity, lane)] + account[cell(WALLET.reserve, lane)]
    unit_of_wealth = account[cell(WALLET.scale, lane)] * wealth
    return bool(abs(unit_of_wealth - unit) > TOLERANCE * unit)


@inlined
def find_muted(lanes: Lanes, i: int, lane: int) -> float:
    """Return what is added to the leverage of a lane: 0, or NaN if it decides nothing more.

    NaN is no decision. It is added to the leverage instead of a branch by lane.
    """
    is_deciding = lanes.account[cell(OWN.is_live, lane)] == r.LIVE
    is_deciding &= lanes.position[held_cell(i, HELD.is_halted, lane)] == 0.0
    return select(is_deciding, 0.0, math.nan)


# The decisions at the close.


def ask_all(terms: Terms, feed: MarketFeed, policies: LanePolicies, lanes: Lanes, t: int) -> bool:
    """Let the policies of all lanes (accounts) decide at close t; return False for one below 0.

    Each instrument has one formula, which decides the leverage of all lanes in one call. It reads
    what policies see (account, bar and position), which is written into ``policies`` before: the
    account once for all, bar and position for each instrument in turn, as the next one writes over
    them. An instrument that cannot be traded decides nothing: NaN.

    The close must be counted, and lanes that were simulated alone must be back.
    """
    has_no_negative = True
    if policies.wants_account:
        show_accounts(policies, lanes, feed.time[t])

    for i in range(len(lanes.signal)):
        lanes.signal[i] = at_column(feed.signal, t, i)
        lanes.is_pending[i] = at_column(policies.tradable, t, i)

        # The bar as the policy's columns count it. Until bar ``latest`` the columns of some lanes
        # warm up: they are not known yet, so these lanes decide nothing.
        local = t - policies.firsts[i]
        if 0 <= local <= policies.latest[i]:
            hold_back(policies, lanes, i, local)

        if lanes.is_pending[i] == 0:
            for lane in range(LANES):
                lanes.position[held_cell(i, HELD.leverage, lane)] = math.nan
            continue

        if policies.wants_bar:
            show_bar(feed, policies, lanes, i, t)
        if policies.wants_account:
            show_positions(terms, policies, lanes, i, t)
        has_no_negative &= ask_lanes(policies, lanes, i, feed.time[t], local)

        # All lanes were asked, also those that warm up: what they remember of it is taken back.
        if local < policies.latest[i]:
            keep_memory(policies, i, local)
    return has_no_negative


def hold_back(policies: LanePolicies, lanes: Lanes, i: int, local: int) -> None:
    """Mute the lanes whose policy has columns that are not known yet, and unmute the others.

    A policy decides nothing until each of its columns has had a value. The row ``muted`` of the
    position becomes NaN, which makes the leverage NaN: no decision, whatever the formula decides.
    ``local`` is the bar, counted from the first of the policy's columns.
    """
    for lane in range(LANES):
        is_known = local >= policies.known[cell(i, lane)]
        muted = select(is_known, find_muted(lanes, i, lane), math.nan)
        lanes.position[held_cell(i, HELD.muted, lane)] = muted


def keep_memory(policies: LanePolicies, i: int, local: int) -> None:
    """Restore the memory of lanes whose policy has columns that are not known yet.

    A formula runs in all lanes at once, so it wrote into that memory. A run does not ask its policy
    before its columns are known: until then its memory is the one that it started with, ``begun``.
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
    """Write the prices of bar t, as the policy of instrument i sees them, into ``policies.bar``.

    All lanes see the same prices and the same last rate of funding, so they are written once. The
    next instrument writes over them, so its policy is asked right after.
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
    """Write what policies see of the account of each lane into ``policies.shown``.

    A row of ``shown`` is a field of the account, with a number for each lane. The peak is that of
    the unit value, which deposits do not move, in units of today's equity. ``time`` is the open of
    the bar, in ns as ``interval`` and ``start`` are; the days count from the start of the sweep to
    the close.
    """
    account = lanes.account
    shown = policies.shown
    time_of_close = time + policies.interval
    days = (time_of_close - policies.start) / DAY_NS
    for lane in range(LANES):
        equity = account[cell(WALLET.equity, lane)]
        unit = account[cell(WALLET.unit, lane)]
        peak = account[cell(WALLET.peak, lane)]

        shown[cell(SEEN_EQUITY, lane)] = equity
        shown[cell(SEEN_PEAK, lane)] = equity * (peak / unit)
        shown[cell(SEEN_DRAWDOWN, lane)] = 1.0 - unit / peak
        shown[cell(SEEN_DAYS, lane)] = days


def show_positions(terms: Terms, policies: LanePolicies, lanes: Lanes, i: int, t: int) -> None:
    """Write what the policy of instrument i sees of each lane's position into ``policies.shown``.

    It is that of the close of bar t: leverage and contracts, both signed (leverage is 0 without
    equity), and the bars since the last stop and the last liquidation, infinite if there was none.
    That is the position's liquidation if it is isolated, else the pool's. A row of ``shown`` is one
    of these fields, with a number for each lane.
    """
    account = lanes.account
    position = lanes.position
    shown = policies.shown
    contract_notional = abs(lanes.prices[PRICE.close, i])
    is_isolated = terms.rules.brackets.are_isolated[i] != 0
    for lane in range(LANES):
        quantity = position[held_cell(i, HELD.quantity, lane)]
        equity = account[cell(WALLET.equity, lane)]
        has_leverage = (quantity != 0.0) & (equity > 0.0)
        leverage = quantity * contract_notional / equity if has_leverage else 0.0

        shown[cell(SEEN_LEVERAGE, lane)] = leverage
        shown[cell(SEEN_POSITION, lane)] = quantity
        shown[cell(SINCE_STOP, lane)] = t - position[held_cell(i, HELD.last_stop, lane)]

        liquidation_alone = position[held_cell(i, HELD.last_hit, lane)]
        liquidation_of_pool = account[cell(WALLET.since_pool, lane)]
        last_liquidation = select(is_isolated, liquidation_alone, liquidation_of_pool)
        shown[cell(SINCE_LIQUIDATION, lane)] = t - last_liquidation
