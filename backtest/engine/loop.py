"""The loop over the bars of an account: what happens in each, and what its policies decide.

A bar has four parts: the steps of the account (:mod:`backtest.account.bar`), a look at its close,
the count of the bar (:mod:`backtest.engine.closes`), and the decisions of the policies, which fill
in the next bar. Where little can happen, a faster way passes the bar with the same bits
(:mod:`backtest.account.quiet`).

====================  ==============================================================================
word                  what it is, and its unit
====================  ==============================================================================
t                     bar of the market
k                     bar that policies see; the same as t, unless they decide on longer bars
row                   row of a policy's columns: bar k, counted from the first that it sees
way                   how a bar was passed: ``QUIET``, ``PAID``, ``FILLED``, ``WHOLE``, or ``LEFT``
quiet                 prices moved, and nothing else happened
mark                  contract value at the mark price of the close
counted               added to the tally, from which the metrics follow; paths are not
close                 exposure and margin at the close
overlay               the policy of the whole account, which decides a factor on all positions
====================  ==============================================================================
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from backtest import account as a
from backtest import margin, results
from backtest.account import records as r
from backtest.account.cut_counts import count_over_cap
from backtest.account.money import sum_bar
from backtest.core.kernels import inlined
from backtest.engine.closes import (
    CloseFacts,
    Counting,
    QuietBar,
    count_bar,
    count_quietly,
    look_at_close,
    look_at_one_close,
    measure_gross,
)
from backtest.engine.shown import (
    SETTING,
    WHOLE,
    Deciders,
    sees_longer_bars,
    show_account,
    show_account_totals,
    show_bar,
    show_index_bar,
    show_position,
)
from backtest.engine.tape import (
    BEGIN,
    CURRENT_BAR,
    FIRST,
    FIRST_ROW,
    FLOWED,
    SETTLED,
    STARTED,
    STOP,
    Lanes,
    RunTape,
    pick_columns,
    record_quietly,
    write_life,
    write_row,
)

if TYPE_CHECKING:
    from backtest.account.money import Money
    from backtest.account.records import PositionState
    from backtest.core import FloatArray, IntArray
    from backtest.core.structs import Structs
    from backtest.engine.tape import Columns
    from backtest.results.tally import Tally

DONE, FULL, BROKEN, NEGATIVE = range(4)
"""Why the loop stopped: at its last bar, the log of events is full, books do not balance, a policy
decided what is not allowed."""
ADDRESS = -1
"""A ``stop`` that no run has: :func:`simulate_batch` returns an address for it."""
IDENTITY_TOLERANCE = 1e-9
"""Share of the largest sum of a bar by which its books may be off: sums of floats are rounded."""
DAY_NS = 86_400_000_000_000.0


def ask(
    deciders: Deciders, terms: a.Terms, quotes: a.MarketBar, i: int, time: int, row: int
) -> float:
    """Return what policy i decides at a row of its columns, a bar that opens at ``time``, ns.

    Plain and compiled code bind their own.
    """
    raise NotImplementedError


def locate(function: Any, arguments: Any) -> int:
    """Return the address of a compiled function; compiled code binds its own."""
    raise NotImplementedError


# A run, or lives that lie end to end.


def simulate_batch(  # noqa: PLR0913, PLR0917 - the arguments of a kernel
    terms: a.Terms,
    feed: a.MarketFeed,
    clock: results.Clock,
    log_returns: FloatArray,
    deciders: Deciders,
    state: a.AccountState,
    quotes: a.MarketBar,
    scratch: a.Scratch,
    ledger: Structs[Money],
    tally: Tally,
    tape: RunTape,
    start: int,
    stop: int,
) -> tuple[int, int]:
    """Simulate an account from bar ``start`` to ``stop``; or many histories, if the tape has lanes.

    A lane of the tape is one history: the account begins anew at the first bar of its place in
    ``tape.lanes``, and is simulated to the last. Of a run there are none.

    Returns the bar reached, and why the loop stopped there: DONE, or a reason of
    :func:`simulate_account`. If ``stop`` is :data:`ADDRESS`, returns the address of that function
    instead. Records are passed by their address from here on, so that calls do not copy them.
    """
    terms = a.by_reference(terms)
    feed = a.by_reference(feed)
    clock = a.by_reference(clock)
    deciders = a.by_reference(deciders)
    state = a.by_reference(state)
    quotes = a.by_reference(quotes)
    scratch = a.by_reference(scratch)
    tape = a.by_reference(tape)
    run = (terms, feed, clock, log_returns, deciders, state, quotes, scratch, ledger, tally, tape)
    if stop == ADDRESS:
        return locate(simulate_account, (*run, start, stop)), DONE

    lanes = tape.lanes
    if len(lanes.places) == 0:
        return simulate_account(*run, start, stop)

    # Each lane from its first bar to its last. A fault ends all.
    reached = start
    reason = DONE
    for k in range(len(lanes.places)):
        begin_lane(lanes, feed, deciders, state, k)
        reached, reason = simulate_account(*run, lanes.places[k, FIRST], lanes.places[k, STOP])
        if reason != DONE:
            break
    return reached, reason


def begin_lane(
    lanes: Lanes, feed: a.MarketFeed, deciders: Deciders, state: a.AccountState, k: int
) -> None:
    """Begin lane k of the tape: put the account, its policies and its cursors back to their start.

    A lane is one history of the account; the bars of all lanes lie end to end in the feed. Its row
    of ``places`` has the bars at which its market begins (BEGIN) and ends (STOP), its first
    settlement of funding and flow of money (SETTLED, FLOWED), and its start, ns (STARTED).
    """
    place = lanes.places[k]

    # The array ``numbers`` is the memory of the account and of its policies, whose fields are views
    # of it. So to write over it the numbers of the start, ``begun``, begins both anew.
    for j in range(len(lanes.begun)):
        lanes.numbers[j] = lanes.begun[j]

    # The next settlement of funding, and the next flow.
    state.cursor[r.FUNDING_NEXT] = place[SETTLED]
    state.cursor[r.FLOW_NEXT] = place[FLOWED]

    # When the account begins, from which bars on its policies are asked, and in which bars
    # instruments are listed.
    deciders.start[0] = place[STARTED]
    for policy in range(lanes.known.shape[1]):
        deciders.known[policy] = lanes.known[k, policy]
    for i in range(len(state.positions)):
        feed.span[i, 0] = place[BEGIN]
        feed.span[i, 1] = place[STOP]


class Wants(NamedTuple):
    """What is wanted of each bar: records, the tally, causes of cuts, margin, failing prices."""

    is_recorded: bool
    is_counted: bool
    has_cuts: bool
    has_lives: bool
    has_close: bool
    has_prices: bool


@inlined
def find_wants(bar: a.AccountBar, deciders: Deciders, tape: RunTape) -> Wants:
    """Return what is wanted of each bar by its record and by its policies."""
    is_counted = len(tape.lanes.places) == 0
    return Wants(
        is_recorded=tape.is_on[0] == 1,
        is_counted=is_counted,
        has_cuts=len(bar.scratch.cuts) > 0,
        has_lives=tape.lanes.lives.shape[1] > 0,
        has_close=is_counted or wants_close(deciders),
        has_prices=is_any_set(deciders.wants_price),
    )


def simulate_account(  # noqa: PLR0913, PLR0917 - the arguments and the steps of a kernel
    terms: a.Terms,
    feed: a.MarketFeed,
    clock: results.Clock,
    log_returns: FloatArray,
    deciders: Deciders,
    state: a.AccountState,
    quotes: a.MarketBar,
    scratch: a.Scratch,
    ledger: Structs[Money],
    tally: Tally,
    tape: RunTape,
    start: int,
    stop: int,
) -> tuple[int, int]:
    """Simulate an account from bar ``start`` to ``stop``; return the bar reached, and why there.

    The reason is DONE at ``stop``, FULL if the log has no room for the events of a bar, BROKEN if
    its books do not balance, or NEGATIVE if a policy decided what is not allowed. In the last three
    the bar is not finished: the caller puts the account back to ``start``, and simulates the bars
    again, with more room or up to the error.

    Each bar is simulated in the quickest way that gives the numbers of :func:`.bar.process_bar`.
    The order in it is fixed: the steps of the account; the close; the books, which must balance
    before anything is counted; the tally; the decisions; and last the record of the bar.
    """
    bar = a.by_reference(
        a.AccountBar(
            terms=terms,
            feed=feed,
            state=state,
            quotes=quotes,
            scratch=scratch,
            ledger=ledger,
            log=tape.log,
        )
    )
    counting = Counting(clock=clock, log_returns=log_returns, tally=tally)
    may_be_quiet = begin_bars(terms, feed, deciders, state)
    has_one_plain = may_be_quiet and may_pass_quiet(bar, deciders)
    wants = find_wants(bar, deciders, tape)

    was_quiet = False
    t = start
    while t < stop:
        # An account of one position has a quick loop of its own, which goes on as far as it may. It
        # cannot take the first bar, which writes the whole quotes.
        if has_one_plain and t > start:
            t, why = pass_quiet(bar, counting, deciders, tape, t, stop)
            if why != DONE or t == stop:
                return t, why

        tape.cursor[CURRENT_BAR] = t
        equity_before = state.wallet.equity
        if wants.is_counted:
            remember_marks(bar, tape, t, t == start)

        # The steps of the bar. For several positions there is a quick way too, if the bar is quiet
        # or only fills orders. If that is LEFT, it has changed nothing: the general steps follow.
        way = a.LEFT
        if may_be_quiet and not has_one_plain and t > start:
            way = a.take_together(bar, t, was_quiet)
        if way == a.LEFT:
            a.process_bar(bar, t)
        is_quiet = way == a.QUIET  # prices moved, and nothing else happened
        was_quiet = is_quiet
        if wants.is_recorded and is_full(tape):
            return t, FULL

        # Its close, at which the books must balance before anything is counted.
        close = look_at_close(bar, wants.has_prices) if wants.has_close else measure_gross(bar)
        tape.pool[0] = close.needed
        tape.pool[1] = close.backing
        change = sum_bar(ledger, scratch.money, state.wallet, is_quiet)
        if not is_balanced(equity_before, state, change, close.gross):
            return t, BROKEN

        if wants.is_counted:
            count_bar(bar, counting, tape.before, equity_before, is_quiet, close, t)
            count_over_cap(bar, close.gross)
        if wants.has_lives:
            has_no_walk = is_quiet or way == a.FILLED
            write_life(bar, tape.lanes.lives, is_quiet, has_no_walk, t)

        # Decisions are written before the row, which has them.
        if not decide_all(bar, deciders, close, t):
            return t, NEGATIVE
        write_row(bar, tape, wants.is_recorded, is_quiet, t)
        t += 1
    return stop, DONE


def begin_bars(
    terms: a.Terms, feed: a.MarketFeed, deciders: Deciders, state: a.AccountState
) -> bool:
    """Write what the first bar needs; return whether bars may be quiet."""
    begin_peak(deciders, state)
    if is_any_set(deciders.sets_margin):
        a.write_settings(terms, state)
        return False
    return a.may_be_quiet(terms, feed, state)


def begin_peak(deciders: Deciders, state: a.AccountState) -> None:
    """Write the highest unit value at a decision, where the run has none yet."""
    if sees_longer_bars(deciders) and deciders.memory[-1] == 0.0:
        deciders.memory[-1] = state.wallet.peak


def may_pass_quiet(bar: a.AccountBar, deciders: Deciders) -> bool:
    """Return whether :func:`pass_quiet` may simulate the account.

    It has one position under plain rules, and one policy, which decides at each close.
    """
    has_overlay = deciders.asks[1] != 0
    if sees_longer_bars(deciders) or has_overlay:
        return False
    return a.is_one_plain(bar.terms, bar.state)


def wants_close(deciders: Deciders) -> bool:
    """Return whether a policy reads the margin of the account; the overlay always may."""
    wants_margin = deciders.asks[len(deciders.asks) - 1] == 1
    for i in range(len(deciders.wants_account)):
        wants_margin = wants_margin or deciders.wants_account[i] == WHOLE
    return bool(wants_margin)


def is_any_set(flags: IntArray) -> bool:
    """Return whether any of some flags is not 0."""
    is_any = False
    for i in range(len(flags)):
        is_any = is_any or flags[i] != 0
    return bool(is_any)


@inlined
def is_full(tape: RunTape) -> bool:
    """Return whether a bar had more events than the log has room for: then it is run again."""
    has_overflowed: bool = tape.log.written[0] > len(tape.log.entries)
    return has_overflowed


def remember_marks(bar: a.AccountBar, tape: RunTape, t: int, is_first: bool) -> None:
    """Write the mark closes of the last bar as contract values into tape.before."""
    last = max(t - 1, 0)
    for i in range(len(tape.before)):
        tape.before[i] = bar.quotes.instruments[i].mark_close
        if is_first:  # quotes are not written yet
            tape.before[i] = r.read_value(bar.terms, bar.feed.mark_close, last, i)


@inlined
def is_balanced(equity_before: float, state: a.AccountState, change: float, gross: float) -> bool:
    """Return whether the equity changed in a bar by what was booked, ``change``: money.

    The difference may be float rounding: a part of the largest sum that the bar counted with.
    """
    wallet = state.wallet
    collateral = 0.0
    for c in range(len(state.held.amounts)):
        collateral += abs(state.held.amounts[c] * state.held.prices[c])

    largest = max(equity_before, wallet.equity, gross, collateral, abs(wallet.cash))
    largest = max(largest, wallet.paid_in, wallet.turnover)
    difference = wallet.equity - equity_before - change
    return bool(abs(difference) <= IDENTITY_TOLERANCE * largest)


# Quiet bars and fills of one position.


@inlined
def pick(clock: results.Clock) -> results.Clock:
    """Return the same clock, by value: its arrays stay in registers."""
    return results.Clock(
        ends_sample=clock.ends_sample, log_return=clock.log_return, risk_free=clock.risk_free
    )


def pass_quiet(
    bar: a.AccountBar, counting: Counting, deciders: Deciders, tape: RunTape, t: int, stop: int
) -> tuple[int, int]:
    """Simulate the usual bars of an account of one position in a quick way, at most to ``stop``.

    Usual are bars that tests of :mod:`backtest.account.quiet` show to have no more than a fill or
    funding. It is the loop of :func:`simulate_account` in the same order: steps of the account,
    books, close, tally, decision, record. Each step gives the same numbers, but on values that
    compiled code keeps in registers.

    Returns the bar reached, and why it stopped there. DONE: at ``stop``, or at a bar that may not
    be usual, in which nothing has changed yet, so that the general steps can take it. FULL, BROKEN
    and NEGATIVE are those of :func:`simulate_account`.
    """
    # What stays the same from bar to bar. Compiled code cannot return records of an account, so no
    # function picks these.
    terms = bar.terms
    is_isolated: bool = a.is_isolated(terms, 0)
    one = a.by_reference(
        a.One(
            wallet=bar.state.wallet,
            position=bar.state.positions[0],
            quote=bar.quotes.instruments[0],
            plan=bar.scratch.plans[0],
            size=terms.rules.brackets.sizes[0],
            is_inverse=terms.rules.brackets.are_inverse[0],
            is_isolated=is_isolated,
            has_stop=terms.flags[0, r.HAS_STOP] == 1,
            level=1.0 if is_isolated else terms.rules.level,
        )
    )
    wants = find_wants(bar, deciders, tape)
    prices = a.pick_prices(bar.feed)
    rules = a.pick_instrument(terms, 0)
    asking = pick_asking(bar.feed, deciders, 0)
    columns = pick_columns(tape)
    counting = Counting(
        clock=pick(counting.clock), log_returns=counting.log_returns, tally=counting.tally
    )

    # The rows of the margin table in which the position lies, of maintenance and of initial margin:
    # they follow it from bar to bar.
    end = a.find_quiet_end(bar, t, stop)
    notional = abs(one.position.quantity) * abs(one.position.value)
    bracket = margin.find_bracket(terms.rules.brackets, 0, notional)
    initial = a.find_initial_bracket(terms, notional)

    while t < end:
        equity_before: float = one.wallet.equity
        mark_before: float = one.quote.mark_close
        way, mark, profit = take_quietly(bar, rules, one, prices, bracket, t)
        if way == a.LEFT:
            break  # nothing has changed

        # In a quiet bar prices moved, and nothing else happened: it has no events, so it cannot
        # fill the log.
        is_quiet = way == a.QUIET
        has_filled = not is_quiet and way != a.PAID
        tape.cursor[CURRENT_BAR] = t
        if not is_quiet and wants.is_recorded and is_full(tape):
            return t, FULL

        # The books must balance before anything is counted.
        notional = abs(one.position.quantity) * abs(mark)
        if not balance_quietly(bar, one, equity_before, profit, way, notional):
            return t, BROKEN
        # What limits cut of the decision; a fill has counted it already.
        if wants.has_cuts and not has_filled:
            a.count_quiet_decisions(bar, t, a.compute_equity_of_one(one, one.quote.open))

        bracket = a.follow_bracket(terms, bracket, notional)
        initial = a.follow_initial_bracket(terms, initial, notional)
        close = look_quietly(bar, one, wants, bracket, initial, way, notional)
        tape.pool[0] = close.needed
        tape.pool[1] = close.backing

        moved = OneBar(
            way=way, mark_before=mark_before, mark=mark, equity_before=equity_before, profit=profit
        )
        if wants.is_counted:
            count_one(bar, counting, tape, one, moved, close, t)
        if wants.has_lives:
            has_no_walk = way != a.WHOLE
            write_life(bar, tape.lanes.lives, is_quiet, has_no_walk, t)

        # Decisions are written before the row, which has them.
        if not decide_quietly(bar, deciders, asking, one, close, t):
            return t, NEGATIVE
        record_one(bar, tape, columns, one, moved, wants.is_recorded, t)
        t += 1
    return t, DONE


class OneBar(NamedTuple):
    """How one position passed a bar: the way, its marks, the equity before, and its profit.

    Marks are contract values at the last close and at this one; equity and profit are money.
    """

    way: int
    mark_before: float
    mark: float
    equity_before: float
    profit: float


@inlined
def count_one(
    bar: a.AccountBar,
    counting: Counting,
    tape: RunTape,
    one: a.One,
    moved: OneBar,
    close: CloseFacts,
    t: int,
) -> None:
    """Add bar t of one position to the tally; a quiet bar without reading its ledger."""
    if moved.way == a.QUIET:
        quiet = QuietBar(
            quantity=one.position.quantity,
            mark_before=moved.mark_before,
            mark=moved.mark,
            profit=moved.profit,
            equity=one.wallet.equity,
            unit=one.wallet.unit,
        )
        count_quietly(counting, quiet, close, t)
    else:
        tape.before[0] = moved.mark_before
        count_bar(bar, counting, tape.before, moved.equity_before, False, close, t)


@inlined
def record_one(
    bar: a.AccountBar,
    tape: RunTape,
    columns: Columns,
    one: a.One,
    moved: OneBar,
    is_recorded: bool,
    t: int,
) -> None:
    """Write the row of bar t, if it is recorded, and what :func:`write_row` writes of each bar.

    A quiet bar leaves the ledger alone, so its profit is handed over.
    """
    is_quiet = moved.way == a.QUIET
    write_row(bar, tape, is_recorded and not is_quiet, False, t)
    if is_recorded and is_quiet:
        record_quietly(columns, one, moved.profit, t - tape.cursor[FIRST_ROW])


@inlined
def take_quietly(
    bar: a.AccountBar,
    rules: a.InstrumentRules,
    one: a.One,
    prices: a.Prices,
    bracket: margin.MarginBracket,
    t: int,
) -> tuple[int, float, float]:
    """Simulate bar t of an account of one position, if tests show that little happens in it.

    Returns the way in which it was simulated, the contract value of the mark at its close, and the
    profit of that mark: money, without what fills, funding and general steps booked. ``bracket`` is
    the row of the margin table in which the position lies, from the last close. The way is

    - LEFT: the bar was not simulated, and the account is as it was before;
    - QUIET: prices moved, and nothing else;
    - PAID: funding was settled too;
    - FILLED: orders filled;
    - WHOLE: orders filled, and the general steps ended the bar.

    Numbers of steps are those of a bar in ``docs/accounting.md``.
    """
    mark = a.value_one(one, prices.mark_close, t)
    due = a.find_due(bar.feed, bar.state, t)
    if due == a.MORE_DUE:
        return a.LEFT, mark, 0.0

    # 2. Funding at the open is paid before it is known whether the bar is quiet: the tests that
    # follow need what it leaves. Where the bar is not quiet, it is taken back.
    is_paid = due == a.OPEN_DUE
    unpaid = a.pick_unpaid(bar, one)
    if is_paid:
        mark_open = a.value_one(one, prices.mark_open, t)
        a.pay_at_open(bar, one, mark_open, t)

    way, profit = trade_quietly(bar, rules, one, prices, bracket, mark, is_paid, t)
    if is_paid and way == a.LEFT:
        a.put_back(bar, one, unpaid)
    return way, mark, profit


@inlined
def trade_quietly(
    bar: a.AccountBar,
    rules: a.InstrumentRules,
    one: a.One,
    prices: a.Prices,
    bracket: margin.MarginBracket,
    mark: float,
    is_paid: bool,
    t: int,
) -> tuple[int, float]:
    """Simulate steps 3 to 8 of bar t for an account of one position; return way and profit.

    The way is one of :func:`take_quietly`. The profit is that of ``mark``, the contract value at
    the close: money, 0 if the general steps booked it. ``is_paid``: funding was settled at the
    open, and has begun the ledger of the bar.

    Up to the fill nothing is written but the plan of the order, so the bar can still be LEFT to the
    general steps. After a fill it cannot: then they end the bar from the fill on (WHOLE).
    """
    terms = bar.terms
    position = one.position

    # 3. and 4. Nothing to do, if no price of the bar makes what is held fail or stop.
    opened = a.open_quietly(one, prices, t)
    a.plan_open(rules, one.wallet, position, one.quote, one.plan, opened)
    is_filling = one.plan.kind == r.FILLS
    # A venue with a grace may force reductions, which come before fills.
    has_reductions = terms.grace >= 0.0
    if is_filling and has_reductions:
        return a.LEFT, 0.0
    if not a.is_quiet_alone(terms, rules, one, prices, bracket, t):
        return a.LEFT, 0.0

    # 5. to 7. The order fills. What is held then is another position, and must be quiet again.
    equity_before: float = one.wallet.equity
    is_calm = True
    if is_filling:
        if not is_paid:
            a.begin_ledger(bar)
        a.fill_at_open(bar, t, opened)
        is_calm = position.quantity != 0.0
        is_calm = is_calm and a.is_quiet_alone(terms, rules, one, prices, bracket, t)

    # 8. The account is marked at the close, if that leaves nothing to do: no ruin, no debt.
    equity = a.compute_equity_of_one(one, mark)
    is_held = position.quantity != 0.0
    is_crossed = is_held and not one.is_isolated
    if is_calm and a.is_sound_with(terms, one.wallet, equity, is_held, is_crossed):
        way = a.PAID if is_paid else a.QUIET
        if is_filling:
            way = a.FILLED
        return way, a.close_quietly(one, mark, equity)

    # Without a fill nothing has changed yet. After one, the general steps end the bar.
    if not is_filling:
        return a.LEFT, 0.0
    a.finish_at_close(bar, t, equity_before)
    return a.WHOLE, 0.0


@inlined
def balance_quietly(
    bar: a.AccountBar, one: a.One, equity_before: float, profit: float, way: int, gross: float
) -> bool:
    """Check that the books of a bar of one position balance, and write the sums of the bar.

    Returns whether they do: whether the equity changed by what was booked, within float rounding.
    ``way`` is how the bar was simulated. A quiet bar changes the equity by ``profit`` alone; of
    others the profit is entered into the ledger, beside what fills and funding booked. ``gross`` is
    the notional held: money.
    """
    wallet = one.wallet
    change = profit
    if way != a.QUIET:
        bar.ledger[0].price_pnl += profit
        change = sum_bar(bar.ledger, bar.scratch.money, wallet, False)

    largest = max(
        equity_before, wallet.equity, gross, abs(wallet.cash), wallet.paid_in, wallet.turnover
    )
    difference = wallet.equity - equity_before - change
    is_right = abs(difference) <= IDENTITY_TOLERANCE * largest

    # The error that follows names what the ledger has, and a quiet bar does not write it.
    if way == a.QUIET and not is_right:
        a.clear_ledger(bar.ledger)
        bar.ledger[0].price_pnl = profit
    return is_right


@inlined
def look_quietly(
    bar: a.AccountBar,
    one: a.One,
    wants: Wants,
    bracket: margin.MarginBracket,
    initial: a.InitialBracket,
    way: int,
    notional: float,
) -> CloseFacts:
    """Return exposure and margin at the close of a bar that one position passed, if wanted.

    Without ``wants.has_close`` only the gross notional is measured. The shortcut for one position
    is taken unless the general steps ended the bar (WHOLE), or a policy reads failing prices.
    """
    if not wants.has_close:
        return measure_gross(bar)
    if way == a.WHOLE or wants.has_prices:
        return look_at_close(bar, wants.has_prices)
    return look_at_one_close(bar, one, bracket, initial, notional)


@inlined
def decide_quietly(
    bar: a.AccountBar, deciders: Deciders, asking: Asking, one: a.One, close: CloseFacts, t: int
) -> bool:
    """Let the policy of an account of one position decide at close t; return False for one below 0.

    What it sees of the account is written before it is asked.
    """
    if asking.wants_account != 0:
        show_account_totals(bar, deciders, close, count_days(deciders, asking.time[t]))
    is_silent = has_ended(bar.state)
    write_decision(bar, deciders, asking, one.position, is_silent, i=0, t=t, k=t)
    return not one.position.leverage < 0.0  # NaN decides nothing, and is allowed


# What policies decide at a close.


def decide_all(bar: a.AccountBar, deciders: Deciders, close: CloseFacts, t: int) -> bool:
    """Let all policies decide at close t; return False if a decision is not allowed.

    The decisions are written into the positions. Not allowed are a leverage below 0, and a venue
    leverage (``asked``) of 0 or less. Policies may decide on longer bars than those of the market:
    then only at the closes of these. Bar k is the one that they see: bar t, or the longer bar that
    closes with it.
    """
    state = bar.state
    k = t
    if sees_longer_bars(deciders):
        k = deciders.rows[t]
        closes_with_bar = k >= 0  # -1 if none of their bars closes here
        if not closes_with_bar:
            decide_nothing(state)
            return True
        # Their drawdown counts from the highest unit value at their own closes. It stands last in
        # the memory, behind that of the policies.
        deciders.memory[-1] = max(deciders.memory[-1], state.wallet.unit)

    # What all policies see of the account is written once, and of each position as it is asked.
    n = len(state.positions)
    has_overlay = deciders.asks[n] == 1  # the policy after those of the instruments
    time = find_open(deciders, bar.feed, k)
    if has_overlay or is_any_set(deciders.wants_account):
        show_account_totals(bar, deciders, close, count_days(deciders, time))

    is_over = has_ended(state)
    for i in range(n):
        decide(bar, deciders, is_over, i, t, k)
        position = state.positions[i]
        if position.leverage < 0.0 or position.asked <= 0.0:
            return False

    # The overlay comes last: its view of the account takes the place of the last position's.
    if has_overlay and not is_over:
        return decide_overlay(bar, deciders, close, time, k)
    return True


def decide_nothing(state: a.AccountState) -> None:
    """Write a close at which no policy decides: one that lies between the closes of longer bars.

    Nothing waits for a fill, and positions stay. Counts of bars since events are those of the bars
    that policies see, so they stand still.
    """
    for i in range(len(state.positions)):
        position = state.positions[i]
        position.leverage = math.nan
        position.asked = math.nan
        position.is_pending = 0
        # A signal of 0 would close the position; without a leverage, 1 leaves it as it is.
        position.signal = 1.0
        position.since = hold_count(position.since)
        position.since_stop = hold_count(position.since_stop)
    state.wallet.since_pool = hold_count(state.wallet.since_pool)


def hold_count(since: float) -> float:
    """Return a count of bars less one, to which the next bar adds one: so it stands still.

    A count begins at -1, in the bar of its event; infinite stays infinite.
    """
    return since - 1.0 if since > 0.0 else -1.0


def decide_overlay(
    bar: a.AccountBar, deciders: Deciders, close: CloseFacts, time: int, k: int
) -> bool:
    """Let the policy of the whole account decide the overlay, a factor on all positions.

    It is written into the wallet. Returns False if it is not allowed: negative or infinite. NaN
    leaves the overlay as it is. ``time`` is the open of bar k, the one that policies see, ns.
    """
    # The overlay is the policy after those of the instruments.
    overlay_policy = len(bar.state.positions)
    row = k - deciders.firsts[overlay_policy]
    show_account(deciders, bar.state, close)
    show_index_bar(deciders, k)

    # Until each of its columns has had a value, the policy decides nothing.
    if row < deciders.known[overlay_policy]:
        return True
    overlay = ask(deciders, bar.terms, bar.quotes, overlay_policy, time, row)
    if math.isnan(overlay):
        return True
    if overlay < 0.0 or overlay == math.inf:
        return False
    bar.state.wallet.overlay = min(overlay, bar.terms.max_overlay)
    return True


def find_open(deciders: Deciders, feed: a.MarketFeed, k: int) -> int:
    """Return the time, ns, at which the bar opens that policies see."""
    time: int = deciders.seen_time[k] if sees_longer_bars(deciders) else feed.time[k]
    return time


@inlined
def count_days(deciders: Deciders, time: int) -> float:
    """Return the days from the start of the account to the close of the bar that opens at time."""
    days: float = (time + deciders.interval - deciders.start[0]) / DAY_NS
    return days


@inlined
def has_ended(state: a.AccountState) -> bool:
    """Return whether the account is ruined or has ended: its policies decide nothing any more."""
    ended: float = state.wallet.is_ruined + state.wallet.is_over
    return ended != 0.0


class Asking(NamedTuple):
    """What decides whether a policy is asked at a close, and what it is shown.

    By bar: its signal, whether a decision can fill, and when bars open, ns. ``first`` is the bar of
    the first row of its columns, ``known`` the row from which on all of them have had values.
    """

    signal: FloatArray
    tradable: IntArray
    time: IntArray
    first: int
    known: int
    wants_account: int
    wants_bar: int
    sets_margin: int


@inlined
def pick_asking(feed: a.MarketFeed, deciders: Deciders, i: int) -> Asking:
    """Return the columns and numbers of policy i, which compiled code keeps in registers."""
    return Asking(
        signal=feed.signal[:, i],
        tradable=deciders.tradable[:, i],
        time=deciders.seen_time if sees_longer_bars(deciders) else feed.time,
        first=deciders.firsts[i],
        known=deciders.known[i],
        wants_account=deciders.wants_account[i],
        wants_bar=deciders.wants_bar[i],
        sets_margin=deciders.sets_margin[i],
    )


@inlined
def decide(bar: a.AccountBar, deciders: Deciders, is_over: bool, i: int, t: int, k: int) -> None:
    """Let the policy of instrument i decide at the close of bar t, and write it into its position.

    The signal and the prices are those of bar t of the market. The policy sees bar k, the same
    unless policies decide on longer bars; of its columns it reads the row that bar k has, counted
    from ``asking.first``. An account that ``is_over``, ruined or ended, asks no policy.
    """
    asking = pick_asking(bar.feed, deciders, i)
    position = bar.state.positions[i]

    # Longer bars of a market that begins later, or ends sooner, have no row there.
    row = k - asking.first
    has_no_row = sees_longer_bars(deciders) and (row < 0 or row >= deciders.lengths[i])
    is_silent = is_over or has_no_row
    write_decision(bar, deciders, asking, position, is_silent, i=i, t=t, k=k)

    # Where longer bars leave out a part of a market, no policy was there to decide: so nothing
    # waits for a fill, as between two decisions.
    if has_no_row:
        position.is_pending = 0


@inlined
def write_decision(
    bar: a.AccountBar,
    deciders: Deciders,
    asking: Asking,
    position: PositionState,
    is_silent: bool,
    i: int,
    t: int,
    k: int,
) -> None:
    """Write into a position what the policy of instrument i decides at close t: its new target.

    There are three outcomes. If the instrument cannot be traded then, nothing is decided and
    nothing waits for a fill. If the policy is not asked (it ``is_silent``, the position is halted,
    or a column of it has had no value yet), the leverage is NaN: the position stays, but counts as
    decided. Else it is asked: its leverage and, if it sets it, its venue leverage (``asked``) are
    written.

    ``is_pending`` says that a decision waits for a fill. The policy sees its own bar k.
    """
    position.leverage = math.nan
    position.asked = math.nan
    position.signal = r.at(asking.signal, t)
    position.is_pending = 0
    if r.at(asking.tradable, t) == 0:
        return
    position.is_pending = 1
    if is_silent or position.is_halted == 1:
        return

    # Until each of its columns has had a value, the policy decides nothing.
    row = k - asking.first
    if row < asking.known:
        return

    if asking.wants_account != 0:
        show_position(bar, deciders, i)
    if asking.wants_bar == 1:
        show_bar(bar, deciders, i, t, k)
    position.leverage = ask(deciders, bar.terms, bar.quotes, i, asking.time[k], row)
    if asking.sets_margin == 1:
        position.asked = deciders.shown[SETTING]
