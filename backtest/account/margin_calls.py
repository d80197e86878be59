"""Margin calls: when one opens, is met or fails; top-ups, and reductions after a grace.

A call goes through these states, each by one function:

1. it opens at a close where the margin ratio crosses ``margin_call`` from below, or is still over
   it when the grace of the last call has ended (:func:`begin_call`);
2. at the next open the reserve tops the account up, once per call (:func:`answer_calls`). The call
   is met where that suffices, else it failed. Where nothing is topped up, it stays open;
3. it is then met at a later close, or fails by a liquidation or ruin (:func:`close_call`);
4. a venue with a grace reduces what is still called when it is over (:func:`force_reductions`).

====================  ============================================================================
word                  what it is, and its unit
====================  ============================================================================
pool                  what is called together: an isolated position by its index, or the cross
                      positions by the number of instruments
backing, requirement  as in :mod:`.balance`, of a pool: money
ratio                 requirement / backing: 0 of a flat pool, infinite without backing
unmet                 closes since a call began whose ratio was too high; NO_CALL if none began
grace                 bars that a venue waits before it reduces, -1 for ever
====================  ============================================================================
"""

from __future__ import annotations

import math

from backtest import margin
from backtest.account import balance, orders
from backtest.account import position as p
from backtest.account import records as r
from backtest.account.events import Event
from backtest.account.fills import trade_to
from backtest.account.options import holds_options
from backtest.core.kernels import inlined
from backtest.core.units import DAY, TOLERANCE

TRIALS = 200
"""Trials of a factor; each halves what is left of the interval: no float is left before."""

NO_CALL = -1.0
"""Value of ``unmet`` without a call."""

# Pools, and their ratio.


def is_pool(terms: r.Terms, pool: int) -> bool:
    """Return whether an index is that of a pool: an isolated position, or the cross pool."""
    return pool == len(terms.ranks) or r.is_isolated(terms, pool)


def is_pool_held(terms: r.Terms, state: r.AccountState, pool: int) -> bool:
    """Return whether a pool holds anything."""
    if pool == len(state.positions):
        return balance.count_cross(terms, state) > 0
    return r.is_held(state, pool)


def compute_pool_backing(terms: r.Terms, state: r.AccountState, pool: int) -> float:
    """Return what backs a pool: an isolated position, or the last one for the cross pool."""
    if pool == len(state.positions):
        return balance.compute_pool(terms, state)
    position = state.positions[pool]
    profit = p.compute_profit(r.pick_position(state, pool), position.value)
    return float(position.margin + profit)


def compute_pool_needed(bar: r.AccountBar, pool: int) -> float:
    """Return the maintenance margin of a pool at the prices that were written last: money.

    ``pool`` is the index of an isolated position, or n for the pool of cross positions, whose
    requirement counts with the level of liquidation.
    """
    terms = bar.terms
    state = bar.state
    if pool == len(state.positions):
        return terms.rules.level * balance.compute_needed(terms, state, is_initial=False)

    rules = r.by_reference(r.pick_instrument(terms, pool))
    position = r.pick_position(state, pool)
    multiplier = bar.quotes.instruments[pool].multiplier
    return p.compute_requirement(rules, position, state.positions[pool].value, multiplier)


def compute_pool_ratio(bar: r.AccountBar, pool: int) -> float:
    """Return the margin ratio of a pool, requirement / backing, at the prices written last.

    ``pool`` is the index of an isolated position, or n for the pool of the cross positions of n
    instruments. 0 if nothing is held or needed, infinite if nothing backs it.
    """
    state = bar.state
    if not is_pool_held(bar.terms, state, pool):
        return 0.0
    backing = compute_pool_backing(bar.terms, state, pool)
    needed = compute_pool_needed(bar, pool)
    # Long options need nothing, whatever backs them.
    if needed == 0.0 and holds_options(state):
        return 0.0
    return needed / backing if backing > 0.0 else math.inf


def is_pool_under(terms: r.Terms, ratio: float) -> bool:
    """Return whether a ratio is under the margin call, rounding against the trader."""
    return ratio < terms.margin_call * (1.0 - TOLERANCE)


def log_call(bar: r.AccountBar, t: int, pool: int, kind: int, amount: float) -> None:
    """Log an event of a pool; the owner of the cross pool is the account, -1."""
    owner = -1 if pool == len(bar.state.positions) else pool
    r.log_event(bar.log, t, owner, kind, value=1.0, quantity=0.0, amount=amount)


def end_call(bar: r.AccountBar, t: int, pool: int, is_met: bool, ratio: float) -> None:
    """Log a margin call that ended at a ratio, and enter it into the ledger."""
    money = bar.ledger[pool]
    if is_met:
        log_call(bar, t, pool, Event.CALL_MET, ratio)
        money.calls_met += 1.0
    else:
        log_call(bar, t, pool, Event.CALL_FAILED, ratio)
        money.calls_failed += 1.0


# Step 1: top-ups.


def answer_calls(bar: r.AccountBar, t: int) -> None:
    """Top up the pools that were called at the last close (step 1).

    The cross pool first: it has the first claim on the reserve.
    """
    terms = bar.terms
    # The account has no margin calls.
    if terms.margin_call == 0.0:
        return

    n_instruments = len(bar.state.positions)
    balance.value_at(bar.state, bar.quotes.mark_open, bar.quotes.asset_mark_open)
    answer_call(bar, t, n_instruments)
    for i in range(n_instruments):
        answer_call(bar, t, i)


def answer_call(bar: r.AccountBar, t: int, pool: int) -> None:
    """Top up a pool that was called, if the account tops up at all."""
    if is_pool(bar.terms, pool) and bar.state.calls[pool].is_called == 1:
        if bar.terms.top_up_to < 1.0:
            top_up_pool(bar, t, pool)
        bar.state.calls[pool].is_called = 0


def top_up_pool(bar: r.AccountBar, t: int, pool: int) -> None:
    """Answer the margin call of a pool: move money to it from the reserve, and end the call.

    It gets as much as brings its ratio, requirement / backing, down to ``top_up_to``, or all that
    the reserve has. If the ratio is under ``margin_call`` then, the call is met; else it has
    failed. A pool that is flat by now, or needs no money, is left alone, and its call stays open.
    Writes reserve, margin or cash, call, ledger and log.
    """
    terms = bar.terms
    state = bar.state
    call = state.calls[pool]
    # What was called may be flat by now.
    if not is_pool_held(terms, state, pool):
        return
    needed = compute_pool_needed(bar, pool)
    missing = needed / terms.top_up_to - compute_pool_backing(terms, state, pool)
    if not missing > 0.0:
        return

    moved = min(missing, state.wallet.reserve)
    move_reserve(bar, pool, moved)
    ratio = compute_pool_ratio(bar, pool)
    is_met = is_pool_under(terms, ratio)

    # The close of this bar compares with the ratio of now: it is no new call if it stays.
    if moved != 0.0:
        log_call(bar, t, pool, Event.TOPPED_UP, moved)
        call.ratio = ratio
        if is_met:
            call.unmet = NO_CALL
        else:
            log_call(bar, t, pool, Event.CALL_PARTLY_MET, ratio)
    end_call(bar, t, pool, is_met, ratio)
    call.is_open = 0
    # The time of a call that failed stays, for the days up to a liquidation.
    if is_met:
        call.called_at = math.nan


def move_reserve(bar: r.AccountBar, pool: int, amount: float) -> None:
    """Move money from the reserve to the margin of a position, or to the cash of the pool."""
    state = bar.state
    state.wallet.reserve -= amount
    bar.ledger[pool].top_up += amount
    if pool == len(state.positions):
        state.wallet.cash += amount
    else:
        r.put_position(state, pool, p.add_margin(r.pick_position(state, pool), amount))


# Step 5: reductions after a grace.


def is_pool_forced(terms: r.Terms, state: r.AccountState, pool: int) -> bool:
    """Return whether the grace of a call is over."""
    return bool(terms.grace >= 0.0 and state.calls[pool].unmet >= terms.grace)


def force_reductions(bar: r.AccountBar, t: int) -> None:
    """Reduce what did not meet its margin call within the time of grace that the venue gives.

    Calls are of the pool of cross positions, number n, and of each isolated position. A reduction
    replaces what the policy decided.
    """
    terms = bar.terms
    state = bar.state
    n_instruments = len(state.positions)
    is_due = is_pool_forced(terms, state, n_instruments) and balance.count_cross(terms, state) > 0
    # A pool that was liquidated in this bar has nothing left to reduce.
    if is_due and state.wallet.pool_failed == 0.0:
        force_pool(bar, t)

    for i in range(n_instruments):
        if not (r.is_isolated(terms, i) and r.is_held(state, i)):
            continue
        # A liquidation or a stop of this bar has dropped the decision: nothing to replace.
        if is_pool_forced(terms, state, i) and state.positions[i].is_pending == 1:
            force_isolated(bar, t, i)


def force_isolated(bar: r.AccountBar, t: int, i: int) -> None:
    """Reduce an isolated position to the ratio that ends its call, at the fill of the bar.

    The margin that the reduction frees stays posted. Writes account, ledger, log and call.
    """
    terms = bar.terms
    state = bar.state
    rules = r.by_reference(r.pick_instrument(terms, i))
    before = balance.pick_balances(terms, state, i)
    done = orders.reduce_to_ratio(rules, before, bar.quotes.instruments[i], terms.grace_ratio)
    is_reduced = done.quantity != 0.0
    if is_reduced:
        balance.enter_fill(bar, t, i, Event.FILL, before, done, stops=0)
        state.positions[i].is_pending = 0

        # A fill returns margin to the wallet. It goes back, unless the position was closed.
        if r.is_held(state, i):
            freed = done.balances.cash - before.cash
            state.wallet.cash -= freed
            state.positions[i].margin += freed

    end_pool_grace(bar, t, i, is_reduced=is_reduced)


def force_pool(bar: r.AccountBar, t: int) -> None:
    """Reduce all cross positions by one factor, so that their margin call ends.

    The factor is the largest at which the ratio requirement / backing is at most ``grace_ratio``.
    They trade at the fills of the bar. If any has traded, what was decided of them is dropped.
    Writes account, ledger, log and call.
    """
    terms = bar.terms
    state = bar.state
    n_instruments = len(state.positions)
    balance.value_at(state, bar.quotes.fill, bar.quotes.asset_fill)
    factor = find_reduction(bar)

    is_reduced = False
    for i in range(n_instruments):
        quantity = state.positions[i].quantity
        if r.is_held(state, i) and not r.is_isolated(terms, i):
            trade_to(bar, t, i, factor * quantity, is_increase=False)
            is_reduced = is_reduced or state.positions[i].quantity != quantity

    # The reduction stands instead of the decisions of this bar.
    for i in range(n_instruments):
        if is_reduced and not r.is_isolated(terms, i):
            state.positions[i].is_pending = 0
    end_pool_grace(bar, t, n_instruments, is_reduced)


def price_close(bar: r.AccountBar, i: int) -> None:
    """Write into its plan what an order costs that closes cross position i, at the quote.

    ``cost`` is worsening (slippage alone, without impact) and fee per unit of notional, ``fee`` the
    fixed fee of an order, money.
    """
    rules = r.by_reference(r.pick_instrument(bar.terms, i))
    quote = bar.quotes.instruments[i]
    side = -1.0 if bar.state.positions[i].quantity > 0.0 else 1.0
    worsening = orders.round_worsening(rules, quote.fill, side, rules.slippage)

    plan = bar.scratch.plans[i]
    plan.cost = orders.compute_cost(rules, side, worsening)
    plan.fee = orders.compute_order_fee(rules, quote)


def find_reduction(bar: r.AccountBar) -> float:
    """Return the largest factor, 0 to 1, of all cross positions at which their call is met.

    1 keeps all contracts, 0 closes all. Found by bisection with :func:`compute_spare`. That reads
    two things from the scratch, which are written first: the contracts held (``quantity_aside`` of
    each walk), and the cost of closing each position (``cost`` and ``fee`` of its plan).
    """
    terms = bar.terms
    state = bar.state
    scratch = bar.scratch
    for i in range(len(state.positions)):
        scratch.walk[i].quantity_aside = state.positions[i].quantity
        if r.is_held(state, i) and not r.is_isolated(terms, i):
            price_close(bar, i)

    # All may stay. Otherwise a factor of 0 closes all, and is taken where even that does not help.
    if compute_spare(terms, state, scratch, factor=1.0) >= 0.0:
        return 1.0
    passing = 0.0
    failing = 1.0
    for _ in range(TRIALS):
        middle = passing + 0.5 * (failing - passing)
        # No float lies between the two.
        if not passing < middle < failing:
            break
        if compute_spare(terms, state, scratch, middle) >= 0.0:
            passing = middle
        else:
            failing = middle
    return passing


def compute_spare(
    terms: r.Terms, state: r.AccountState, scratch: r.Scratch, factor: float
) -> float:
    """Return what the pool could spare if all cross positions were reduced to a factor: money.

    It is negative where the ratio that ends a margin call, ``grace_ratio``, is not met::

        grace_ratio * (backing - costs of closing (1 - factor)) - requirement

    Fixed fees count in full for any factor. :func:`find_reduction` must have written the contracts
    held into ``quantity_aside`` of the walks, and the costs of closing into the plans. A trial: the
    reduced quantities are written into the account, and taken back in the end.
    """
    backing = margin.compute_full_backing(terms.rules, state.held, state.wallet.cash)
    if holds_options(state):
        backing += balance.compute_counted(terms, state)

    # Each position is reduced, and what closing its other part costs is lost.
    for i in range(len(state.positions)):
        quantity = scratch.walk[i].quantity_aside
        if quantity == 0.0 or r.is_isolated(terms, i):
            continue
        plan = scratch.plans[i]
        position = state.positions[i]
        notional_closed = (1.0 - factor) * abs(quantity * position.value)
        backing -= plan.cost * notional_closed + plan.fee
        position.quantity = factor * quantity

    # Haircuts and requirement are those of the reduced quantities, so they are asked for here.
    needed = terms.rules.level * balance.compute_needed(terms, state, is_initial=False)
    backing -= margin.compute_haircuts(terms.rules, state.held)

    for i in range(len(state.positions)):
        state.positions[i].quantity = scratch.walk[i].quantity_aside
    return terms.grace_ratio * backing - needed


def end_pool_grace(bar: r.AccountBar, t: int, pool: int, is_reduced: bool) -> None:
    """Log and count how the open call of a pool ended after its grace.

    It failed if the pool was reduced (``is_reduced``), or if its ratio is still too high; else it
    was met. ``pool`` is the index of an isolated position, or n for the cross pool. Values the
    account at the fills of the bar.
    """
    state = bar.state
    # The close of an earlier bar has ended it.
    if state.calls[pool].is_open == 0:
        return
    balance.value_at(state, bar.quotes.fill, bar.quotes.asset_fill)
    ratio = compute_pool_ratio(bar, pool)
    is_met = is_pool_under(bar.terms, ratio) and not is_reduced
    end_call(bar, t, pool, is_met, ratio)


# Step 8: the close.


def close_calls(bar: r.AccountBar, t: int, is_lost: bool) -> None:
    """Test margin calls of all pools at the close; writes calls, ledger and log (step 8)."""
    if bar.terms.margin_call == 0.0:
        return
    for pool in range(len(bar.state.positions) + 1):
        if is_pool(bar.terms, pool):
            close_call(bar, t, pool, is_lost)


def close_call(bar: r.AccountBar, t: int, pool: int, is_lost: bool) -> None:
    """Take the margin call of one pool over the close of bar t; writes call, ledger and log.

    A pool is an isolated position, or all cross positions together. It is called where its ratio,
    requirement / backing, is at least ``margin_call``. First a call that is open may end; then a
    new one may begin. ``is_lost``: the account was ruined at this close, so an open call failed.
    """
    ratio = compute_pool_ratio(bar, pool)
    end_at_close(bar, t, pool, ratio, is_lost)
    count_close(bar, t, pool, ratio)
    # The next close reads it, to know whether its own ratio is newly too high.
    bar.state.calls[pool].ratio = ratio


def count_close(bar: r.AccountBar, t: int, pool: int, ratio: float) -> None:
    """Begin a call at a close whose ratio is newly too high, or count one more close of it.

    The ratio is requirement / backing; ``call.ratio`` still has that of the last close.
    ``call.unmet`` counts the closes since the call began at which it was too high, for the grace
    that some venues give; NO_CALL is none. The count goes on after the call has failed, so that the
    grace can end.
    """
    call = bar.state.calls[pool]
    # Called at this very close: only the beginning of a call sets it again.
    call.is_called = 0.0
    if is_pool_under(bar.terms, ratio):
        call.unmet = NO_CALL
    elif not was_called_before(bar.terms, bar.state, pool):
        begin_call(bar, t, pool, ratio)
    elif call.unmet >= 0.0:
        call.unmet += 1.0


def was_called_before(terms: r.Terms, state: r.AccountState, pool: int) -> bool:
    """Return whether a ratio that is too high at this close was called at an earlier one.

    After a grace that is over it was not: a ratio that is still high is a new call.
    """
    was_over = state.calls[pool].ratio >= terms.margin_call * (1.0 - TOLERANCE)
    return was_over and not is_pool_forced(terms, state, pool)


@inlined
def end_at_close(bar: r.AccountBar, t: int, pool: int, ratio: float, is_lost: bool) -> None:
    """End the margin call of a pool at a close, if this bar has met it or made it fail.

    It is met if the ratio, requirement / backing, is under ``margin_call`` again. It has failed if
    the pool was liquidated in this bar, or the account ruined (``is_lost``). Otherwise it stays
    open. A call that a top-up or a reduction of this bar has ended already is not counted again.
    """
    call = bar.state.calls[pool]
    money = bar.ledger[pool]
    is_met_now = is_pool_under(bar.terms, ratio)
    is_liquidated = money.liquidations > 0.0

    # The days up to a liquidation are counted from ``called_at``, so before that is cleared.
    if is_liquidated:
        count_liquidated_call(bar, t, pool)
    if is_liquidated or is_met_now or money.calls_met > 0.0:
        call.called_at = math.nan

    # A top-up or a reduction of this bar has ended the call and logged it: it is only closed here.
    has_ended = money.calls_met + money.calls_failed > 0.0
    if call.is_open != 1.0 or has_ended:
        call.is_open = 0.0
        return

    has_failed = is_liquidated or is_lost
    if has_failed or is_met_now:
        end_call(bar, t, pool, is_met=not has_failed, ratio=ratio)
        call.is_open = 0.0


def count_liquidated_call(bar: r.AccountBar, t: int, pool: int) -> None:
    """Count a call that no margin has met and that ended in a liquidation, and its days."""
    money = bar.ledger[pool]
    called_at = bar.state.calls[pool].called_at
    if money.calls_met == 0.0 and not math.isnan(called_at):
        money.liquidated_calls += 1.0
        money.call_days += (bar.feed.time[t] - called_at) / DAY


def begin_call(bar: r.AccountBar, t: int, pool: int, ratio: float) -> None:
    """Begin the margin call of a pool at the close of bar t; writes call, ledger and log.

    ``is_called`` lets the next open answer it by a top-up, ``is_open`` stays until the call ends,
    and ``unmet`` counts the closes since it began. ``ratio`` is requirement / backing.
    """
    call = bar.state.calls[pool]
    call.is_open = 1.0
    call.is_called = 1.0
    call.unmet = 0.0
    call.called_at = 1.0 * bar.feed.time[t]
    bar.ledger[pool].calls += 1.0
    log_call(bar, t, pool, Event.CALLED, ratio)
