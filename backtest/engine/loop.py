"""The loop over the bars of an account: what happens in each, what is shown and recorded."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from backtest import account as a
from backtest import margin, results
from backtest.account import records as r
from backtest.account.cut_counts import count_over_cap
from backtest.account.money import MONEY, POSITION_ROWS, TERM_ROWS, sum_bar, total
from backtest.account.options import holds_options
from backtest.core.kernels import inlined, of_options
from backtest.core.structs import view_numbers
from backtest.engine.closes import (
    CloseFacts,
    QuietBar,
    count_bar,
    count_quietly,
    look_at_close,
    look_at_one_close,
    measure_gross,
)

if TYPE_CHECKING:
    from backtest.account.money import Money
    from backtest.account.records import PositionState
    from backtest.core import FloatArray, IntArray
    from backtest.core.structs import Structs
    from backtest.results.record import Closes, HeldAtCloses, TermRows
    from backtest.results.tally import Tally


def fill_closes(bar: a.AccountBar, held: HeldAtCloses, closes: Closes, first: int) -> None:
    """Write what follows from what an account holds at closes, that of bar ``first`` and later."""
    bar = a.share(
        a.AccountBar(
            terms=a.share(bar.terms), feed=a.share(bar.feed), state=a.share(bar.state),
            quotes=a.share(bar.quotes), scratch=a.share(bar.scratch), ledger=bar.ledger,
            log=a.share(bar.log),
        )
    )  # fmt: skip
    terms, state, scratch = bar.terms, bar.state, bar.scratch
    n = len(state.positions)
    for row in range(len(held.cash)):
        set_close(bar, held, row, first + row)
        closes.backing[row] = a.compute_pool(terms, state)
        closes.balance[row] = a.compute_balance(terms, state)
        closes.collateral[row] = margin.compute_full_value(state.held)
        at_rate = margin.compute_collateral_value(terms.rules.collateral, state.held)
        closes.collateral_at_rate[row] = at_rate
        needed = a.measure_shares(bar)
        closes.distance[row] = closes.backing[row] - terms.rules.level * needed
        a.write_parts(bar, closes.own[row], closes.withheld[row], terms.rules.level * needed)
        for i in range(n):
            closes.share[row, i] = scratch.shares[i]
        for c in range(len(state.held.amounts)):
            closes.collateral_share[row] += scratch.shares[n + c]
        close = look_at_close(bar, True)
        closes.requirement[row], closes.initial[row] = close.needed, close.initial
        write_posted(bar, closes.posted[row], needed)
        for i in range(n):
            closes.failure[row, i] = scratch.walk[i].failure


def write_posted(bar: a.AccountBar, posted: FloatArray, needed: float) -> None:
    """Write the initial margin of each position; ``needed`` is the requirement R of the pool.

    Where positions need margin together, each has its share of R in that of the pool.
    """
    terms, state = bar.terms, bar.state
    rules = terms.rules
    is_joint = rules.own > 0 or rules.has_scenarios or holds_options(state)
    pool = a.compute_needed(terms, state, True) if is_joint else 0.0
    for i in range(len(state.positions)):
        position = state.positions[i]
        if a.is_isolated(terms, i):
            posted[i] = position.margin
        elif is_joint:
            posted[i] = pool * bar.scratch.shares[i] / needed if needed > 0.0 else 0.0
        else:
            notional = abs(position.quantity * position.value)
            x = rules.brackets.initial_multipliers[i]
            own = margin.compute_initial(margin.pick_rules(rules.brackets, i), notional, x)
            posted[i] = own - margin.compute_haircut(rules, state.held, i)


def set_close(bar: a.AccountBar, held: HeldAtCloses, row: int, t: int) -> None:
    """Write what the account held at the close of bar t, and its marks."""
    terms, feed, state, quotes = bar.terms, bar.feed, bar.state, bar.quotes
    state.wallet.cash = held.cash[row]
    for i in range(len(state.positions)):
        quote = quotes.instruments[i]
        if feed.span[i, 0] <= t < feed.span[i, 1]:
            r.read_mark_close(terms, feed, quote, t, i)
            r.read_multipliers(terms, feed, quote, t, i)
        position = state.positions[i]
        position.value = quote.mark_close
        position.quantity = held.quantity[row, i]
        position.entry = held.entry[row, i]
        position.margin = held.margin[row, i]
    for c in range(len(state.held.amounts)):
        state.held.amounts[c] = held.amounts[row, c]
        state.held.prices[c] = feed.asset_mark_close[c, t]
    for k in range(len(state.options.targets)):
        state.options.positions.quantities[k] = held.options[row, k]
    a.close_options(bar, t)


class Lanes(NamedTuple):
    """Lives of one account on bars that lie end to end; none in a run.

    ``places`` of shape (lanes, 6) has the first bar of each lane, the first one simulated, one
    past the last, the numbers of its first settlement and flow, and the time, ns, at which it
    began. ``known`` of shape (lanes, n + 1) has the first bar at which each policy is asked.
    ``lives`` of shape (8, bars) are wealth, liquidations, bad debt, margin calls, whether the
    account is ruined, the base of the day, and the least and the most wealth of the bar.
    ``numbers`` are those of the account and of the memory of its policies, which begin each life as
    in ``begun``.
    """

    places: IntArray
    known: IntArray
    lives: FloatArray
    begun: FloatArray
    numbers: FloatArray


class RunTape(NamedTuple):
    """What a run writes; ``pool`` are requirement and backing of the pool at the last close."""

    log: a.EventLog
    record: Any
    terms: TermRows
    cursor: IntArray
    before: FloatArray
    is_on: IntArray
    units: FloatArray
    pool: FloatArray
    lanes: Lanes


def record_account(bar: a.AccountBar, tape: RunTape, is_quiet: bool, t: int) -> None:
    """Write one bar; in one that ``is_quiet`` prices moved, and nothing filled."""
    state, ledger = bar.state, bar.ledger
    account, wallet = tape.record.account, state.wallet
    account.equity[t] = wallet.equity
    write(account.cash, wallet.cash, t)
    write(account.reserve, wallet.reserve, t)
    account.unit[t] = wallet.unit
    account.overlay[t] = wallet.overlay
    write(account.price_pnl, total(ledger, MONEY.price_pnl), t)
    if not is_quiet:
        money = bar.scratch.money
        for row in range(len(TERM_ROWS)):
            write_of(tape.terms.account, total(ledger, TERM_ROWS[row]), row, t)
        write(account.top_up, money.top_up, t)
        write(account.flows, money.flows + money.top_up, t)  # with those from the reserve
    for i in range(len(state.positions)):
        record_position(bar, tape, is_quiet, i, t)
    for k in range(len(state.options.targets)):
        record_option(tape, state, k, t)


def write(column: FloatArray, value: float, t: int) -> None:
    """Write what is not 0: new memory that stays untouched costs nothing."""
    if value != 0.0:
        column[t] = value


def write_of(column: FloatArray, value: float, t: int, i: int) -> None:
    """Write what is not 0 into column i."""
    if value != 0.0:
        column[t, i] = value


def record_position(bar: a.AccountBar, tape: RunTape, is_quiet: bool, i: int, t: int) -> None:
    """Write what is held of instrument i, its target, and its terms of money."""
    state, ledger, held = bar.state, bar.ledger, tape.record.positions
    rows, position = view_numbers(ledger), state.positions[i]
    write_of(held.quantity, position.quantity, t, i)
    write_of(held.entry, position.entry, t, i)
    write_of(held.margin, position.margin, t, i)
    write_of(held.target, position.leverage, t, i)
    is_alone = len(state.positions) == 1 and len(state.options.targets) == 0
    if not is_alone:  # whose money is the account's, but bad debt: see new_record
        write_of(held.price_pnl, ledger[i].price_pnl, t, i)
    if is_quiet:
        return
    write_of(held.bad_debt, ledger[i].bad_debt, t, i)
    if is_alone:
        return
    for k in range(len(POSITION_ROWS)):
        write_of(tape.terms.positions[k], rows[i, POSITION_ROWS[k]], t, i)


@of_options(returns=None)
def record_option(tape: RunTape, state: a.AccountState, k: int, t: int) -> None:
    """Write what is held of option k, its value, and its terms of money."""
    own, options = state.options, tape.record.options
    options.quantity[t, k], options.value[t, k] = own.positions.quantities[k], own.priced[k]
    options.price_pnl[t, k], options.fees[t, k] = own.profits[k], own.fees[k]
    options.slippage[t, k], options.liquidation_loss[t, k] = own.slippage[k], own.losses[k]


DONE, FULL, BROKEN, NEGATIVE = range(4)
ADDRESS = -1
"""A ``stop`` that no run has: :func:`simulate_batch` returns an address for it."""
IDENTITY_TOLERANCE = 1e-9
DAY_NS = 86_400_000_000_000.0


class Deciders(NamedTuple):
    """The policies: those of the n instruments, and last the overlay.

    ``methods`` are called in plain Python; compiled code calls ``addresses``. Parameters, columns
    and memory of policy i are flat arrays that begin at ``*_at[i]``; the columns of one policy are
    ``lengths[i]`` apart, and bar t is its bar ``t - firsts[i]``. It is asked from its bar
    ``known[i]`` on, before which some column has had no value yet. ``asks`` is 1 if there is a
    policy, ``wants_price`` if it reads the liquidation price, ``wants_table`` if it reads the
    brackets, ``sets_margin`` if it decides the venue leverage, ``wants_bar`` if
    it reads anything of the bar but its columns, ``wants_account`` 0 if it reads nothing of the
    account, 1 if nothing of its margin, else 2. ``bars`` has the fields of a
    bar by policy, of shape (n + 1, 8): the numbers that it sees. ``shown`` is the view of the
    account, ``margin`` and ``levels`` room for the margin rules it sees, ``width`` the most
    brackets. Where policies do not decide at each close, ``rows`` says where the longer bars close
    that they see, as :class:`backtest.market.clock.PolicyClock` does, ``seen_time`` has
    their opens, ``seen_bars`` of shape (6, bars, n) their prices and volume, and the last number of
    the memory is the highest unit value at a decision. ``start`` (1,) is when it began, ns.
    """

    methods: Any
    addresses: IntArray
    params: FloatArray
    params_at: IntArray
    columns: FloatArray
    columns_at: IntArray
    lengths: IntArray
    firsts: IntArray
    known: IntArray
    memory: FloatArray
    memory_at: IntArray
    asks: IntArray
    wants_price: IntArray
    wants_table: IntArray
    wants_account: IntArray
    wants_bar: IntArray
    sets_margin: IntArray
    index_bars: FloatArray
    rows: IntArray
    seen_time: IntArray
    seen_bars: FloatArray
    tradable: IntArray
    shown: FloatArray
    bar: FloatArray
    margin: FloatArray
    levels: FloatArray
    width: int
    interval: int
    start: IntArray


(
    SHOWN_EQUITY, SHOWN_PEAK, SHOWN_DRAWDOWN, SHOWN_LEVERAGE, SHOWN_POSITION, SHOWN_ENTRY,
    SHOWN_WALLET, SHOWN_RESERVE, SHOWN_MAINTENANCE, SHOWN_RATIO, SHOWN_PRICE, SHOWN_SINCE,
    SHOWN_SINCE_STOP, SHOWN_DAYS, SHOWN_GROSS, SHOWN_NET, SHOWN_POOL_RATIO,
) = range(17)  # fmt: skip
N_SHOWN = 16
BEGIN, FIRST, STOP, SETTLED, FLOWED, STARTED = range(6)
"""Columns of ``Lanes.places``."""
N_LIVES = 8
WEALTH, LIQUIDATED, LOST, CALLED, RUINED, DAY_OPEN, LEAST_WEALTH, MOST_WEALTH = range(N_LIVES)
"""Rows of ``Lanes.lives``."""
PART, WHOLE = 1, 2
"""What a policy reads of the account: nothing of its margin, or anything."""
SETTING = 17
"""Entry of ``shown`` into which a policy writes the venue leverage that it decides."""


def ask(
    deciders: Deciders, terms: a.Terms, quotes: a.MarketBar, i: int, time: int, local: int
) -> float:
    raise NotImplementedError


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
    """Take the account through the bars from start to stop, or through each lane of the tape.

    If ``stop`` is :data:`ADDRESS`, return the address of :func:`simulate_account` instead.
    """
    terms, feed, deciders, state = a.share(terms), a.share(feed), a.share(deciders), a.share(state)
    quotes, scratch, tape, clock = a.share(quotes), a.share(scratch), a.share(tape), a.share(clock)
    given = (terms, feed, clock, log_returns, deciders, state, quotes, scratch, ledger, tally, tape)
    if stop == ADDRESS:
        return locate(simulate_account, (*given, start, stop)), DONE
    lanes, reached, why = tape.lanes, start, DONE
    for k in range(max(len(lanes.places), 1)):
        first, end = start, stop
        if len(lanes.places) > 0:
            first, end = lanes.places[k, FIRST], lanes.places[k, STOP]
            begin_lane(lanes, feed, deciders, state, k)
        reached, why = simulate_account(*given, first, end)
        if why != DONE:
            break
    return reached, why


def locate(function: Any, arguments: Any) -> int:
    raise NotImplementedError


def begin_lane(
    lanes: Lanes, feed: a.MarketFeed, deciders: Deciders, state: a.AccountState, k: int
) -> None:
    """Write the numbers with which lane k starts: account, memory, cursor, span, warm-up."""
    for j in range(len(lanes.begun)):
        lanes.numbers[j] = lanes.begun[j]
    state.cursor[r.FUNDING_NEXT] = lanes.places[k, SETTLED]
    state.cursor[r.FLOW_NEXT] = lanes.places[k, FLOWED]
    deciders.start[0] = lanes.places[k, STARTED]
    for i in range(lanes.known.shape[1]):
        deciders.known[i] = lanes.known[k, i]
    for i in range(len(state.positions)):
        feed.span[i, 0], feed.span[i, 1] = lanes.places[k, BEGIN], lanes.places[k, STOP]


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
    """Take the account through bars start to stop; return the bar reached, and why it stopped."""
    bar = a.AccountBar(
        terms=terms, feed=feed, state=state, quotes=quotes, scratch=scratch, ledger=ledger,
        log=tape.log,
    )  # fmt: skip
    bar = a.share(bar)
    may_be_quiet = begin_bars(terms, feed, deciders, state)
    is_alone = may_be_quiet and may_pass_alone(bar, deciders)
    is_recorded, was_quiet = tape.is_on[0] == 1, False
    has_prices = is_any_set(deciders.wants_price)
    lives, is_counted = tape.lanes.lives, len(tape.lanes.places) == 0
    money = scratch.money
    has_close = is_counted or wants_close(deciders)
    t = start
    while t < stop:
        if is_alone and t > start:
            t, why = pass_quiet(bar, clock, log_returns, deciders, tally, tape, t, stop)
            if why != DONE or t == stop:
                return t, why
        tape.cursor[0] = t
        equity = state.wallet.equity
        if is_counted:
            remember_marks(bar, tape, t, t == start)
        # The first bar writes the whole quotes.
        how = a.LEFT
        if may_be_quiet and not is_alone and t > start:
            how = a.take_together(bar, t, was_quiet)
        is_quiet = was_quiet = how == a.QUIET
        if how == a.LEFT:
            a.process_bar(bar, t)
        if is_recorded and tape.log.written[0] > len(tape.log.entries):
            return t, FULL
        close = look_at_close(bar, has_prices) if has_close else measure_gross(bar)
        tape.pool[0], tape.pool[1] = close.needed, close.backing
        change = sum_bar(ledger, money, state.wallet, is_quiet)
        if not is_balanced(equity, state, change, close.gross):
            return t, BROKEN
        if is_counted:
            count_bar(bar, clock, tally, tape.before, equity, is_quiet, close, log_returns, t)
            count_over_cap(bar, close.gross)
        if lives.shape[1] > 0:
            write_life(bar, lives, is_quiet, is_quiet or how == a.FILLED, t)
        if not decide_all(bar, deciders, close, t):
            return t, NEGATIVE
        write_row(bar, tape, is_recorded, is_quiet, t)
        t += 1
    return stop, DONE


def may_pass_alone(bar: a.AccountBar, deciders: Deciders) -> bool:
    """Return whether :func:`pass_quiet` knows the account, and each close asks its policy alone."""
    is_each_close = len(deciders.rows) <= 1 and deciders.asks[1] == 0
    return bool(is_each_close and a.is_one_plain(bar.terms, bar.state))


class Wants(NamedTuple):
    """What is asked of each bar: records, the tally, causes of cuts, margin, failing prices."""

    is_recorded: bool
    is_counted: bool
    has_cuts: bool
    has_close: bool
    has_prices: bool


def pass_quiet(
    bar: a.AccountBar,
    clock: results.Clock,
    log_returns: FloatArray,
    deciders: Deciders,
    tally: Tally,
    tape: RunTape,
    t: int,
    stop: int,
) -> tuple[int, int]:
    """Take one position through quiet bars and fills, as :mod:`backtest.account.quiet` has them.

    Returns the bar that may not be quiet, with nothing changed by it, or ``stop``, and why it
    stopped. An order that fills may be followed by anything: then the general steps end its bar.
    """
    terms, state = bar.terms, bar.state
    is_isolated: bool = a.is_isolated(terms, 0)
    one = a.share(
        a.One(
            wallet=state.wallet,
            position=state.positions[0],
            quote=bar.quotes.instruments[0],
            plan=bar.scratch.plans[0],
            size=terms.rules.brackets.sizes[0],
            is_inverse=terms.rules.brackets.are_inverse[0],
            is_isolated=is_isolated,
            has_stop=terms.flags[0, r.HAS_STOP] == 1,
            level=1.0 if is_isolated else terms.rules.level,
        )
    )
    wants = Wants(
        is_recorded=tape.is_on[0] == 1,
        is_counted=len(tape.lanes.places) == 0,
        has_cuts=len(bar.scratch.cuts) > 0,
        has_close=len(tape.lanes.places) == 0 or wants_close(deciders),
        has_prices=deciders.wants_price[0] != 0,
    )
    prices, rules = a.pick_prices(bar.feed), a.pick_instrument(terms, 0)
    asking, columns, clock = pick_asking(bar.feed, deciders, 0), pick_columns(tape), pick(clock)
    end = a.find_quiet_end(bar, t, stop)
    notional = abs(one.position.quantity) * abs(one.position.value)
    bracket = margin.find_bracket(terms.rules.brackets, 0, notional)
    initial = a.find_initial_bracket(terms, notional)

    t = max(t, 0)  # so that compiled code need not look for places counted from the end
    while t < end:
        before: float = one.wallet.equity
        mark_before: float = one.quote.mark_close
        how, mark, profit = take_quietly(bar, rules, one, prices, bracket, t)
        if how == a.LEFT:
            break
        tape.cursor[0] = t
        if how != a.QUIET and wants.is_recorded and tape.log.written[0] > len(tape.log.entries):
            return t, FULL
        notional = abs(one.position.quantity) * abs(mark)
        bracket = a.follow_bracket(terms, bracket, notional)
        initial = a.follow_initial_bracket(terms, initial, notional)
        if not balance_quietly(bar, one, before, profit, how, notional):
            return t, BROKEN
        if wants.has_cuts and how == a.QUIET:
            a.count_quiet_decisions(bar, t, a.compute_equity_of_one(one, one.quote.open))

        close = look_quietly(bar, one, wants, bracket, initial, how, notional)
        tape.pool[0], tape.pool[1] = close.needed, close.backing
        if wants.is_counted and how == a.QUIET:
            quiet = QuietBar(
                quantity=one.position.quantity, mark_before=mark_before, mark=mark, profit=profit,
                equity=one.wallet.equity, unit=one.wallet.unit,
            )  # fmt: skip
            count_quietly(clock, tally, log_returns, quiet, close, t)
        elif wants.is_counted:
            tape.before[0] = mark_before
            count_bar(bar, clock, tally, tape.before, before, False, close, log_returns, t)
        if tape.lanes.lives.shape[1] > 0:
            write_life(bar, tape.lanes.lives, how == a.QUIET, how != a.WHOLE, t)

        if not decide_quietly(bar, deciders, asking, one, close, t):
            return t, NEGATIVE
        write_row(bar, tape, wants.is_recorded and how != a.QUIET, False, t)
        if wants.is_recorded and how == a.QUIET:
            record_quietly(columns, one, profit, t - tape.cursor[1])
        t += 1
    return t, DONE


@inlined
def take_quietly(
    bar: a.AccountBar,
    rules: a.InstrumentRules,
    one: a.One,
    prices: a.Prices,
    bracket: margin.MarginBracket,
    t: int,
) -> tuple[int, float, float]:
    """Take the account through bar t; return how, the mark u at its close, and the profit.

    The profit is that of the mark, without what fills and the general steps booked.
    """
    terms, position = bar.terms, one.position
    mark = a.value_one(one, prices.mark_close, t)

    # Steps 1 to 4 have nothing to do, if no price of the bar makes what is held fail or stop.
    opened = a.open_quietly(one, prices, t)
    is_filling = a.plan_quietly(rules, one.wallet, position, one.quote, one.plan, opened)
    has_reductions = terms.grace >= 0.0  # which come before fills
    if is_filling and has_reductions:
        return a.LEFT, mark, 0.0
    if not a.is_quiet_alone(terms, rules, one, prices, bracket, t):
        return a.LEFT, mark, 0.0

    # 5. and 7. The order fills. What is held then is another position, and must be quiet again.
    before: float = one.wallet.equity
    is_calm = True
    if is_filling:
        a.fill_at_open(bar, t, opened)
        is_calm = position.quantity != 0.0
        is_calm = is_calm and a.is_quiet_alone(terms, rules, one, prices, bracket, t)

    # 8. The account is marked at the close.
    equity = a.compute_equity_of_one(one, mark)
    is_held = position.quantity != 0.0
    is_crossed = is_held and not one.is_isolated
    if is_calm and a.is_sound_with(terms, one.wallet, equity, is_held, is_crossed):
        return a.FILLED if is_filling else a.QUIET, mark, a.close_quietly(one, mark, equity)
    if not is_filling:
        return a.LEFT, mark, 0.0
    a.finish_at_close(bar, t, before)
    return a.WHOLE, mark, 0.0


@inlined
def balance_quietly(
    bar: a.AccountBar, one: a.One, before: float, profit: float, how: int, gross: float
) -> bool:
    """Write the sums of a bar that was taken; return whether its books balance."""
    change = profit
    if how != a.QUIET:
        bar.ledger[0].price_pnl += profit
        change = sum_bar(bar.ledger, bar.scratch.money, one.wallet, False)
    wallet, after = one.wallet, one.wallet.equity
    scale = max(before, after, gross, abs(wallet.cash), wallet.paid_in, wallet.turnover)
    is_right = abs(after - before - change) <= IDENTITY_TOLERANCE * scale
    if how == a.QUIET and not is_right:  # for what is said of it
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
    how: int,
    notional: float,
) -> CloseFacts:
    """Return what is at the close of a bar that was taken, as far as it is asked for."""
    if not wants.has_close:
        return measure_gross(bar)
    if how == a.WHOLE or wants.has_prices:
        return look_at_close(bar, wants.has_prices)
    return look_at_one_close(bar, one, bracket, initial, notional)


@inlined
def decide_quietly(
    bar: a.AccountBar, deciders: Deciders, asking: Asking, one: a.One, close: CloseFacts, t: int
) -> bool:
    """Write what the policy decides at close t; return False if it is not allowed."""
    if asking.wants_account != 0:
        days = (asking.time[t] + deciders.interval - deciders.start[0]) / DAY_NS
        show_account_totals(bar, deciders, close, days)
    is_done = one.wallet.is_ruined + one.wallet.is_over != 0.0
    decide_as(bar, deciders, asking, one.position, is_done, 0, t, t)
    return not one.position.leverage < 0.0


@inlined
def write_row(bar: a.AccountBar, tape: RunTape, is_recorded: bool, is_quiet: bool, t: int) -> None:
    """Write the unit value and the record of bar t, where they are asked for."""
    if len(tape.units) > 0:
        tape.units[t - tape.cursor[1]] = bar.state.wallet.unit
    if is_recorded:
        record_account(bar, tape, is_quiet, t - tape.cursor[1])


@inlined
def pick(clock: results.Clock) -> results.Clock:
    """Return the same clock, by value: its arrays stay in registers."""
    return results.Clock(
        ends_sample=clock.ends_sample, log_return=clock.log_return, risk_free=clock.risk_free
    )


class Columns(NamedTuple):
    """Columns of the record that a quiet bar writes, of shape (n_bars,) and (n_bars, 1)."""

    equity: FloatArray
    cash: FloatArray
    reserve: FloatArray
    unit: FloatArray
    overlay: FloatArray
    price_pnl: FloatArray
    quantity: FloatArray
    entry: FloatArray
    margin: FloatArray
    target: FloatArray


@inlined
def pick_columns(tape: RunTape) -> Columns:
    account, positions = tape.record.account, tape.record.positions
    return Columns(
        equity=account.equity,
        cash=account.cash,
        reserve=account.reserve,
        unit=account.unit,
        overlay=account.overlay,
        price_pnl=account.price_pnl,
        quantity=positions.quantity,
        entry=positions.entry,
        margin=positions.margin,
        target=positions.target,
    )


@inlined
def record_quietly(columns: Columns, one: a.One, profit: float, row: int) -> None:
    """Write one bar in which nothing filled: what is held, and its profit."""
    wallet, position = one.wallet, one.position
    columns.equity[row] = wallet.equity
    columns.unit[row] = wallet.unit
    columns.overlay[row] = wallet.overlay
    write(columns.cash, wallet.cash, row)
    write(columns.reserve, wallet.reserve, row)
    write(columns.price_pnl, profit, row)
    write_of(columns.quantity, position.quantity, row, 0)
    write_of(columns.entry, position.entry, row, 0)
    write_of(columns.margin, position.margin, row, 0)
    write_of(columns.target, position.leverage, row, 0)


def write_life(
    bar: a.AccountBar, lives: FloatArray, is_quiet: bool, has_no_walk: bool, t: int
) -> None:
    """Write wealth, ruin, liquidations, calls and the day's base into the outcomes of paths.

    Wealth is that at the close, and the least and the most on the way of prices to it.
    """
    wallet, money = bar.state.wallet, bar.scratch.money
    if has_no_walk:
        a.note_extremes(bar, t)
    extremes = bar.scratch.extremes
    lives[WEALTH, t] = wallet.equity + wallet.reserve
    lives[LEAST_WEALTH, t] = min(extremes[0], wallet.equity) + wallet.reserve
    lives[MOST_WEALTH, t] = max(extremes[1], wallet.equity) + wallet.reserve
    lives[DAY_OPEN, t] = wallet.day_open
    lives[RUINED, t] = wallet.is_ruined
    if not is_quiet:
        lives[LIQUIDATED, t], lives[LOST, t] = money.liquidations, money.bad_debt
        lives[CALLED, t] = money.calls


def begin_bars(
    terms: a.Terms, feed: a.MarketFeed, deciders: Deciders, state: a.AccountState
) -> bool:
    begin_peak(deciders, state)
    if is_any_set(deciders.sets_margin):
        a.write_settings(terms, state)
        return False
    return a.may_be_quiet(terms, feed, state)


def wants_close(deciders: Deciders) -> bool:
    is_any = deciders.asks[len(deciders.asks) - 1] == 1
    for i in range(len(deciders.wants_account)):
        is_any = is_any or deciders.wants_account[i] == WHOLE
    return bool(is_any)


def begin_peak(deciders: Deciders, state: a.AccountState) -> None:
    if len(deciders.rows) > 1 and deciders.memory[-1] == 0.0:
        deciders.memory[-1] = state.wallet.peak


def is_any_set(flags: IntArray) -> bool:
    is_any = False
    for i in range(len(flags)):
        is_any = is_any or flags[i] != 0
    return bool(is_any)


def remember_marks(bar: a.AccountBar, tape: RunTape, t: int, is_first: bool) -> None:
    """Keep the mark closes of the last bar as values u in tape.before."""
    last = max(t - 1, 0)
    for i in range(len(tape.before)):
        tape.before[i] = bar.quotes.instruments[i].mark_close
        if is_first:
            tape.before[i] = r.read_value(bar.terms, bar.feed.mark_close, last, i)


@inlined
def is_balanced(before: float, state: a.AccountState, change: float, gross: float) -> bool:
    wallet = state.wallet
    after, assets = wallet.equity, 0.0
    for c in range(len(state.held.amounts)):
        assets += abs(state.held.amounts[c] * state.held.prices[c])
    scale = max(before, after, gross, assets, abs(wallet.cash))
    scale = max(scale, wallet.paid_in, wallet.turnover)
    return bool(abs(after - before - change) <= IDENTITY_TOLERANCE * scale)


def decide_all(bar: a.AccountBar, deciders: Deciders, close: CloseFacts, t: int) -> bool:
    """Write the decisions of close t into the positions; False if one is not allowed."""
    terms, state, quotes = bar.terms, bar.state, bar.quotes
    n, k = len(state.positions), t
    if len(deciders.rows) > 1:
        k = deciders.rows[t]
        if k < 0:  # between decision bars counters since events stand still
            for i in range(n):
                position = state.positions[i]
                position.leverage = position.asked = math.nan
                position.is_pending, position.signal = 0, 1.0
                position.since = hold_count(position.since)
                position.since_stop = hold_count(position.since_stop)
            state.wallet.since_pool = hold_count(state.wallet.since_pool)
            return True
        deciders.memory[-1] = max(deciders.memory[-1], state.wallet.unit)
    time = open_of(deciders, bar.feed, k)
    is_done = state.wallet.is_ruined + state.wallet.is_over != 0.0
    if deciders.asks[n] == 1 or is_any_set(deciders.wants_account):
        days = (time + deciders.interval - deciders.start[0]) / DAY_NS
        show_account_totals(bar, deciders, close, days)
    for i in range(n):
        decide(bar, deciders, is_done, i, t, k)
        position = state.positions[i]
        if position.leverage < 0.0 or position.asked <= 0.0:
            return False
    if deciders.asks[n] == 1 and not is_done:
        show_account(deciders, state, close)
        for row in range(len(deciders.bar)):
            deciders.bar[row] = deciders.index_bars[row, k]
        local, overlay = k - deciders.firsts[n], math.nan
        if local >= deciders.known[n]:
            overlay = ask(deciders, terms, quotes, n, time, local)
        if overlay < 0.0 or overlay == math.inf:
            return False
        if not math.isnan(overlay):
            state.wallet.overlay = min(overlay, terms.max_overlay)
    return True


def open_of(deciders: Deciders, feed: a.MarketFeed, k: int) -> int:
    time: int = deciders.seen_time[k] if len(deciders.rows) > 1 else feed.time[k]
    return time


def hold_count(since: float) -> float:
    return since - 1.0 if since > 0.0 else -1.0


class Asking(NamedTuple):
    """What decides whether a policy is asked at a close, and what it is shown."""

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
    return Asking(
        signal=feed.signal[:, i],
        tradable=deciders.tradable[:, i],
        time=deciders.seen_time if len(deciders.rows) > 1 else feed.time,
        first=deciders.firsts[i],
        known=deciders.known[i],
        wants_account=deciders.wants_account[i],
        wants_bar=deciders.wants_bar[i],
        sets_margin=deciders.sets_margin[i],
    )


@inlined
def decide(bar: a.AccountBar, deciders: Deciders, is_done: bool, i: int, t: int, k: int) -> None:
    """Write what the policy of instrument i decides at close t, at which its bar k closes."""
    asking, position = pick_asking(bar.feed, deciders, i), bar.state.positions[i]
    local = k - asking.first
    has_no_bar = len(deciders.rows) > 1 and (local < 0 or local >= deciders.lengths[i])
    decide_as(bar, deciders, asking, position, is_done or has_no_bar, i, t, k)
    if has_no_bar:
        position.is_pending = 0


@inlined
def decide_as(
    bar: a.AccountBar,
    deciders: Deciders,
    asking: Asking,
    position: PositionState,
    is_done: bool,
    i: int,
    t: int,
    k: int,
) -> None:
    position.leverage = math.nan
    position.is_pending = 0
    position.asked = math.nan
    position.signal = r.at(asking.signal, t)
    if r.at(asking.tradable, t) == 0:
        return
    position.is_pending = 1
    if is_done or position.is_halted == 1:
        return

    # 4. Until each of its columns has had a value, the policy decides nothing.
    local = k - asking.first
    if local < asking.known:
        return
    if asking.wants_account != 0:
        show_position(bar, deciders, i)
    if asking.wants_bar == 1:
        show_bar(bar, deciders, i, t, k)
    position.leverage = ask(deciders, bar.terms, bar.quotes, i, asking.time[k], local)
    if asking.sets_margin == 1:
        position.asked = deciders.shown[SETTING]


def show_account_totals(
    bar: a.AccountBar, deciders: Deciders, close: CloseFacts, days: float
) -> None:
    """Write what all policies see of the account into deciders.shown."""
    state, shown, net = bar.state, deciders.shown, 0.0
    equity = state.wallet.equity
    for i in range(len(state.positions)):
        if a.is_held(state, i):
            net += state.positions[i].quantity * abs(bar.quotes.instruments[i].mark_close)
    shown[SHOWN_EQUITY] = equity
    peak = deciders.memory[-1] if len(deciders.rows) > 1 else state.wallet.peak
    unit = state.wallet.unit
    shown[SHOWN_PEAK] = equity * (peak / unit if unit != 0.0 else math.inf)
    shown[SHOWN_DRAWDOWN] = 1.0 - unit / peak
    shown[SHOWN_WALLET] = a.compute_balance(bar.terms, state)
    shown[SHOWN_RESERVE] = state.wallet.reserve
    shown[SHOWN_DAYS] = days
    shown[SHOWN_GROSS] = close.gross / equity if equity > 0.0 else 0.0
    shown[SHOWN_NET] = net / equity if equity > 0.0 else 0.0
    shown[SHOWN_POOL_RATIO] = 0.0
    if close.needed > 0.0:
        shown[SHOWN_POOL_RATIO] = close.needed / close.backing if close.backing > 0.0 else math.inf


def show_position(bar: a.AccountBar, deciders: Deciders, i: int) -> None:
    """Write what the policy of instrument i sees of its position into deciders.shown."""
    terms, state, quotes, shown = bar.terms, bar.state, bar.quotes, deciders.shown
    equity = state.wallet.equity
    shown[SHOWN_LEVERAGE], shown[SHOWN_POSITION], shown[SHOWN_ENTRY] = 0.0, 0.0, math.nan
    shown[SHOWN_MAINTENANCE], shown[SHOWN_PRICE] = 0.0, math.nan
    shown[SHOWN_RATIO] = shown[SHOWN_POOL_RATIO]
    if a.is_isolated(terms, i):
        shown[SHOWN_RATIO] = a.compute_pool_ratio(bar, i)
    position = state.positions[i]
    shown[SHOWN_SINCE] = position.since
    shown[SHOWN_SINCE_STOP] = position.since_stop
    if not a.is_held(state, i):
        return
    held, brackets = position.quantity, terms.rules.brackets
    size, is_inverse = brackets.sizes[i], brackets.are_inverse[i]
    factor = position.factor if position.factor > 0.0 else 1.0
    if equity > 0.0:
        shown[SHOWN_LEVERAGE] = held * abs(quotes.instruments[i].mark_close) / equity / factor
    shown[SHOWN_POSITION] = held
    shown[SHOWN_ENTRY] = margin.compute_price(size, is_inverse, position.entry)
    if deciders.wants_account[i] == WHOLE:
        shown[SHOWN_MAINTENANCE] = margin.find_own_maintenance(terms.rules, state.held, i) / factor
    if deciders.wants_price[i] == 1:
        shown[SHOWN_PRICE] = margin.compute_price(size, is_inverse, bar.scratch.walk[i].failure)


def show_account(deciders: Deciders, state: a.AccountState, close: CloseFacts) -> None:
    """Write what the overlay sees, beside the totals, into deciders.shown."""
    shown = deciders.shown
    shown[SHOWN_LEVERAGE], shown[SHOWN_RATIO] = shown[SHOWN_NET], shown[SHOWN_POOL_RATIO]
    shown[SHOWN_POSITION], shown[SHOWN_ENTRY] = math.nan, math.nan
    shown[SHOWN_MAINTENANCE], shown[SHOWN_PRICE] = close.needed, math.nan
    shown[SHOWN_SINCE] = state.wallet.since_pool
    shown[SHOWN_SINCE_STOP] = math.inf
    for i in range(len(state.positions)):
        shown[SHOWN_SINCE_STOP] = min(shown[SHOWN_SINCE_STOP], state.positions[i].since_stop)


def show_bar(bar: a.AccountBar, deciders: Deciders, i: int, t: int, k: int) -> None:
    """Write the bar that the policy of instrument i sees into deciders.bar."""
    feed, seen = bar.feed, deciders.bar
    seen[6] = bar.state.positions[i].last_funding
    if len(deciders.rows) > 1:
        for j in range(6):
            seen[j] = deciders.seen_bars[j, k, i]
        return
    seen[0], seen[1], seen[2] = feed.open[t, i], feed.high[t, i], feed.low[t, i]
    seen[3], seen[4], seen[5] = feed.close[t, i], feed.mark_close[t, i], feed.volume[t, i]
