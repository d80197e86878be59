"""What an account pays and is called for: flows, interest, funding, top-ups, margin calls."""

from __future__ import annotations

import math

from backtest import margin
from backtest.account import balance, orders
from backtest.account import position as p
from backtest.account import records as r
from backtest.account.events import Event
from backtest.account.fills import is_deciding, is_ending, trade_to
from backtest.account.liquidation import add_from_wallet, liquidate
from backtest.account.options import expire_options, holds_options, name_option, trade_option
from backtest.core.kernels import inlined
from backtest.core.units import DAY, TOLERANCE


def take_flows(bar: r.AccountBar, t: int) -> None:
    """Pay deposits and withdrawals of the bar, as far as margin allows (step 1)."""
    terms, feed, state = bar.terms, bar.feed, bar.state
    quotes, ledger, log = bar.quotes, bar.ledger, bar.log
    last = len(ledger) - 1
    flow = state.cursor[r.FLOW_NEXT]
    while flow < len(feed.flow_bar) and feed.flow_bar[flow] == t:
        amount = feed.flow_amount[flow]
        balance.value_at(state, quotes.mark_open, quotes.asset_mark_open)
        wealth = balance.compute_account_equity(terms, state) + state.wallet.reserve
        moved = amount
        if amount < 0.0:
            moved = -min(-amount, compute_withdrawable(bar))
        state.wallet.cash += moved
        if moved >= 0.0:
            state.wallet.paid_in += moved
        else:
            left = wealth + moved
            state.wallet.paid_in *= left / wealth if left > 0.0 else 0.0
        ledger[last].flows += moved
        if moved != 0.0:
            r.log_event(log, t, -1, Event.FLOW, 1.0, 0.0, moved)
        if moved != amount:
            r.log_event(log, t, -1, Event.REFUSED, 1.0, 0.0, moved - amount)
        flow += 1
    state.cursor[r.FLOW_NEXT] = flow


def compute_withdrawable(bar: r.AccountBar) -> float:
    """Return what may leave an account, of one position without a limit on B (RULES 2.1)."""
    terms, state = bar.terms, bar.state
    if not balance.has_one_position(terms, state):
        return compute_free(terms, state)
    rules, quote = r.share(r.pick_instrument(terms, 0)), bar.quotes.instruments[0]
    balances = balance.pick_balances(terms, state, 0)
    notional = abs(balances.position.quantity) * abs(quote.mark_open)
    free = p.compute_equity(rules, balances, quote.mark_open)
    free -= p.compute_uncounted(rules, balances.position, quote.mark_open)
    if notional > 0.0:
        free -= margin.compute_initial(rules.margin, notional, quote.initial)
    if rules.margin.is_isolated:
        free = min(free, balances.cash)
    return max(free, 0.0)


def compute_free(terms: r.Terms, state: r.AccountState) -> float:
    free = balance.compute_pool(terms, state)
    for i in range(len(state.positions)):
        if r.is_held(state, i) and not r.is_isolated(terms, i):
            rules = r.share(r.pick_instrument(terms, i))
            position, value = r.pick_position(state, i), state.positions[i].value
            free -= p.compute_uncounted(rules, position, value)
    free -= balance.compute_needed(terms, state, True)
    limit = terms.negative_limit if balance.has_collateral(state) else 0.0
    return max(min(free, balance.compute_balance(terms, state) + limit), 0.0)


def is_funding_due(feed: r.MarketFeed, state: r.AccountState, t: int, is_open: int) -> bool:
    event = state.cursor[r.FUNDING_NEXT]
    if event >= len(feed.funding_bar) or feed.funding_bar[event] != t:
        return False
    return bool(feed.funding_is_open[event] == is_open)


@inlined
def settle_funding(bar: r.AccountBar, t: int, is_open: int) -> None:
    """Pay the funding due at the open of the bar (1), or inside it (0) (steps 2 and 6)."""
    while is_funding_due(bar.feed, bar.state, t, is_open):
        settle_next(bar, t, is_open)


def settle_next(bar: r.AccountBar, t: int, is_open: int) -> None:
    """Pay the next settlement of one instrument."""
    terms, feed, state = bar.terms, bar.feed, bar.state
    event = state.cursor[r.FUNDING_NEXT]
    state.cursor[r.FUNDING_NEXT] = event + 1
    if is_open == 0:
        expire_options(bar, t, 1, feed.funding_time[event])
    i = feed.funding_instrument[event]
    rate = feed.funding_rate[event]
    state.positions[i].last_funding = rate
    if r.is_held(state, i):
        rules = r.share(r.pick_instrument(terms, i))
        value = bar.quotes.instruments[i].mark_open
        if not math.isnan(feed.funding_price[event]):
            value = p.compute_value_of(rules, feed.funding_price[event])
        before = balance.pick_balances(terms, state, i)
        after, paid = p.pay_funding(rules, before, value, rate)
        balance.put_balances(terms, state, i, before, after)
        bar.ledger[i].funding += paid
        r.log_event(bar.log, t, i, Event.FUNDING, value, after.position.quantity, paid)
        if r.is_isolated(terms, i):
            liquidate_isolated(bar, t, i, bar.quotes.instruments[i].mark_open, False)


def liquidate_isolated(bar: r.AccountBar, t: int, i: int, value: float, is_failed: bool) -> bool:
    """Liquidate an isolated position that fails at a mark u; return whether it was.

    ``is_failed`` says that it is known to fail there. The wallet may add margin to it before.
    """
    terms, state, position = bar.terms, bar.state, bar.state.positions[i]
    rules, quote = r.share(r.pick_instrument(terms, i)), bar.quotes.instruments[i]
    before = balance.pick_balances(terms, state, i)
    after, is_failed = before, is_failed or p.is_failing(rules, before, value, quote.multiplier)
    if is_failed and rules.has_auto_margin and before.cash > 0.0:
        after = add_from_wallet(bar, t, i, before, value)
        is_failed = p.is_failing(rules, after, value, quote.multiplier)
    if is_failed:
        after = liquidate(bar, t, i, after, value)
        position.is_pending, position.since = 0, -1.0
        position.is_halted = 1 if terms.is_halting else position.is_halted
    balance.put_balances(terms, state, i, before, after)
    return is_failed


def drop_after_pool_failure(terms: r.Terms, state: r.AccountState) -> None:
    """Drop all decisions of cross positions and options after the pool failed."""
    state.wallet.pool_failed = 1.0
    state.wallet.since_pool = -1.0
    if terms.is_halting:
        state.wallet.is_over = 1.0
    for i in range(len(state.positions)):
        if not r.is_isolated(terms, i):
            position = state.positions[i]
            position.is_pending = 0
            position.since = -1.0
    for k in range(len(state.options.targets)):
        state.options.targets[k] = math.nan


def charge_interest(bar: r.AccountBar, t: int) -> None:
    """Charge interest since the last open on balance or loan, and what is held costs (step 3)."""
    terms, feed, state, ledger = bar.terms, bar.feed, bar.state, bar.ledger
    before = max(t - 1, 0)
    years = r.at(feed.years, t)
    borrow = r.at(feed.borrow_rate, before)
    cash = r.at(feed.cash_rate, before)
    short = r.at(feed.short_rate, before)
    base, lent = state.wallet.cash, 0.0
    for i in range(len(state.positions)):
        if r.is_isolated(terms, i):
            base += state.positions[i].margin
        if r.is_held(state, i):
            position = r.pick_position(state, i)
            value = position.quantity * position.entry
            if terms.is_loan:
                base -= value if r.is_isolated(terms, i) else 0.0
                if position.quantity < 0.0:
                    lent += abs(position.quantity * bar.quotes.instruments[i].mark_open)
            elif not r.is_isolated(terms, i) and not r.is_spot(terms, i):
                base += value
    interest = -base * (cash if base > 0.0 else borrow) * years
    if terms.is_loan and lent > 0.0:
        interest += lent * short * years
    if interest != 0.0:
        state.wallet.cash -= interest
        ledger[len(ledger) - 1].interest += interest
        r.log_event(bar.log, t, -1, Event.INTEREST, 1.0, 0.0, interest)
    for i in range(len(state.positions)):
        if r.is_held(state, i):
            charge_coins(bar, t, i, years)
            charge_expense(bar, t, i, years)
    balance.take_from_isolated(terms, state)


def charge_coins(bar: r.AccountBar, t: int, i: int, years: float) -> None:
    """Charge a short spot leg for its borrowed coins, on the mark open."""
    held, value = bar.state.positions[i].quantity, bar.quotes.instruments[i].mark_open
    if held > 0.0 or not r.is_spot(bar.terms, i):
        return

    rate = r.at_column(bar.feed.coin_rate, max(t - 1, 0), i)
    interest = abs(held * value) * rate * years
    if interest != 0.0:
        bar.state.wallet.cash -= interest
        bar.ledger[i].interest += interest
        r.log_event(bar.log, t, i, Event.INTEREST, value, held, interest)


def charge_expense(bar: r.AccountBar, t: int, i: int, years: float) -> None:
    """Charge what a contract costs a year, on the mark open, of longs and shorts."""
    held, value = bar.state.positions[i].quantity, bar.quotes.instruments[i].mark_open
    expense = abs(held * value) * bar.terms.expenses[i] * years
    if expense != 0.0:
        bar.state.wallet.cash -= expense
        bar.ledger[i].expense += expense
        r.log_event(bar.log, t, i, Event.EXPENSE, value, held, expense)


def settle_debt(bar: r.AccountBar, t: int) -> None:
    """Write a negative equity off as bad debt, or a negative balance with nothing behind it."""
    terms, state = bar.terms, bar.state
    unbacked = -state.wallet.cash if balance.is_unbacked(terms, state) else 0.0
    debt = max(unbacked, -balance.compute_account_equity(terms, state))
    if debt > 0.0:
        balance.write_off(bar, t, debt)


def is_account_ruined(bar: r.AccountBar, equity: float) -> bool:
    """Return whether too little is left, or less than the smallest order of a flat account."""
    terms, state, quotes = bar.terms, bar.state, bar.quotes
    wealth, paid_in = equity + state.wallet.reserve, state.wallet.paid_in
    is_under = wealth <= terms.ruin_at * paid_in * (1.0 + TOLERANCE)
    is_under = is_under or equity <= p.NOTHING_LEFT * paid_in * (1.0 + TOLERANCE)
    if is_under or balance.count_open(state) > 0:
        return bool(is_under)
    is_any = False
    for i in range(len(quotes.instruments)):
        if quotes.instruments[i].is_listed == 1:
            rules, quote = r.share(r.pick_instrument(terms, i)), quotes.instruments[i]
            most = margin.compute_best_leverage(rules.margin, quote.initial)
            limit = orders.find_limit(rules, quote)
            most = limit if limit < most else most
            least = max(rules.min_notional, rules.lot * abs(quote.mark_close))
            is_ban = rules.has_limits and not limit > 0.0
            if not rules.has_rounding or is_ban:
                return False
            if not wealth * most < least * (1.0 - TOLERANCE):
                return False
            is_any = True
    return is_any


def end_account(bar: r.AccountBar, t: int) -> None:
    """Close everything at the mark close without costs: the account is ruined."""
    state, ledger, log = bar.state, bar.ledger, bar.log
    if balance.count_open(state) == 0:
        r.log_event(log, t, -1, Event.RUINED, 1.0, 0.0, 0.0)
    for i in range(len(state.positions)):
        if r.is_held(state, i):
            position = state.positions[i]
            value, held = bar.quotes.instruments[i].mark_close, position.quantity
            r.log_event(log, t, i, Event.RUINED, value, 0.0 - held, abs(held) * abs(value))
            ledger[i].traded += abs(held) * abs(value)
            if r.is_isolated(bar.terms, i):
                profit = held * (value - position.entry)
                state.wallet.cash += position.margin + profit
            else:
                state.wallet.cash += held * value
            r.put_position(state, i, r.Position(0.0, 0.0, 0.0, value))
    for k in range(len(state.options.targets)):
        held, mark = state.options.positions.quantities[k], state.options.positions.marks[k]
        if held != 0.0:
            trade_option(state, ledger, k, 0.0, mark)
            owner, amount = name_option(state, k), abs(held) * mark
            r.log_event(log, t, owner, Event.RUINED, mark, 0.0 - held, amount)
    if balance.is_unbacked(bar.terms, state):
        balance.write_off(bar, t, -state.wallet.cash)


TRIALS = 200


def is_pool(terms: r.Terms, pool: int) -> bool:
    return pool == len(terms.ranks) or r.is_isolated(terms, pool)


def is_pool_held(terms: r.Terms, state: r.AccountState, pool: int) -> bool:
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
    """Return the maintenance requirement of a pool at the values being tested."""
    terms, state = bar.terms, bar.state
    if pool == len(state.positions):
        return terms.rules.level * balance.compute_needed(terms, state, False)
    rules, x = r.share(r.pick_instrument(terms, pool)), bar.quotes.instruments[pool].multiplier
    position, value = r.pick_position(state, pool), state.positions[pool].value
    return p.compute_requirement(rules, position, value, x)


def compute_pool_ratio(bar: r.AccountBar, pool: int) -> float:
    """Return requirement / backing of a pool, 0 if nothing is held, infinite without backing."""
    terms, state = bar.terms, bar.state
    if not is_pool_held(terms, state, pool):
        return 0.0
    backing, needed = compute_pool_backing(terms, state, pool), compute_pool_needed(bar, pool)
    if needed == 0.0 and holds_options(state):
        return 0.0
    return needed / backing if backing > 0.0 else math.inf


def is_pool_under(terms: r.Terms, ratio: float) -> bool:
    return ratio < terms.margin_call * (1.0 - TOLERANCE)


def log_call(bar: r.AccountBar, t: int, pool: int, kind: int, amount: float) -> None:
    """Log an event of a pool; the owner of the cross pool is the account, -1."""
    owner = -1 if pool == len(bar.state.positions) else pool
    r.log_event(bar.log, t, owner, kind, 1.0, 0.0, amount)


def end_call(bar: r.AccountBar, t: int, pool: int, is_met: bool, ratio: float) -> None:
    """Log a margin call that ended at a ratio, and enter it into the ledger."""
    log_call(bar, t, pool, Event.CALL_MET if is_met else Event.CALL_FAILED, ratio)
    bar.ledger[pool].calls_met += 1.0 if is_met else 0.0
    bar.ledger[pool].calls_failed += 0.0 if is_met else 1.0


def answer_calls(bar: r.AccountBar, t: int) -> None:
    """Top up the pools that were called at the last close (step 1)."""
    terms, state, quotes = bar.terms, bar.state, bar.quotes
    if terms.margin_call == 0.0:
        return
    n = len(state.positions)
    balance.value_at(state, quotes.mark_open, quotes.asset_mark_open)
    for order in range(n + 1):
        pool = n if order == 0 else order - 1
        if is_pool(terms, pool) and state.calls[pool].is_called == 1:
            if terms.top_up_to < 1.0:
                top_up_pool(bar, t, pool)
            state.calls[pool].is_called = 0


def top_up_pool(bar: r.AccountBar, t: int, pool: int) -> None:
    """Move money from the reserve to a called pool, and log how the call ended."""
    terms, state = bar.terms, bar.state
    missing, moved = 0.0, 0.0
    if is_pool_held(terms, state, pool):
        needed = compute_pool_needed(bar, pool)
        missing = needed / terms.top_up_to - compute_pool_backing(terms, state, pool)
        moved = min(max(missing, 0.0), state.wallet.reserve)
    if not missing > 0.0:
        return
    state.wallet.reserve -= moved
    bar.ledger[pool].top_up += moved
    if pool == len(state.positions):
        state.wallet.cash += moved
    else:
        r.put_position(state, pool, p.add_margin(r.pick_position(state, pool), moved))
    ratio = compute_pool_ratio(bar, pool)
    is_met = is_pool_under(terms, ratio)
    if moved != 0.0:
        log_call(bar, t, pool, Event.TOPPED_UP, moved)
        state.calls[pool].ratio = ratio
        state.calls[pool].unmet = -1.0 if is_met else state.calls[pool].unmet
        if not is_met:
            log_call(bar, t, pool, Event.CALL_PARTLY_MET, ratio)
    end_call(bar, t, pool, is_met, ratio)
    state.calls[pool].is_open = 0
    if is_met:
        state.calls[pool].called_at = math.nan


def is_pool_forced(terms: r.Terms, state: r.AccountState, pool: int) -> bool:
    return bool(terms.grace >= 0.0 and state.calls[pool].unmet >= terms.grace)


def force_reductions(bar: r.AccountBar, t: int) -> None:
    """Reduce pools whose calls were not met in the time of grace."""
    terms, state = bar.terms, bar.state
    n = len(state.positions)
    is_due = is_pool_forced(terms, state, n) and balance.count_cross(terms, state) > 0
    if is_due and state.wallet.pool_failed == 0.0:
        force_pool(bar, t)
    for i in range(n):
        is_due = r.is_isolated(terms, i) and r.is_held(state, i) and is_pool_forced(terms, state, i)
        if is_due and state.positions[i].is_pending == 1:
            rules, quote = r.share(r.pick_instrument(terms, i)), bar.quotes.instruments[i]
            before = balance.pick_balances(terms, state, i)
            done = orders.reduce_to_ratio(rules, before, quote, terms.grace_ratio)
            if done.quantity != 0.0:
                balance.enter_fill(bar, t, i, Event.FILL, before, done, 0)
                state.positions[i].is_pending = 0
                freed = done.balances.cash - before.cash if r.is_held(state, i) else 0.0
                state.wallet.cash -= freed
                state.positions[i].margin += freed  # it stays posted
            end_pool_grace(bar, t, i, done.quantity != 0.0)


def force_pool(bar: r.AccountBar, t: int) -> None:
    """Reduce all cross positions by one factor to the ratio that ends their call."""
    terms, state, quotes = bar.terms, bar.state, bar.quotes
    n = len(state.positions)
    balance.value_at(state, quotes.fill, quotes.asset_fill)
    factor = find_reduction(bar)
    is_reduced = False
    for i in range(n):
        held = state.positions[i].quantity
        if r.is_held(state, i) and not r.is_isolated(terms, i):
            trade_to(bar, t, i, factor * held, False)
            is_reduced = is_reduced or state.positions[i].quantity != held
    for i in range(n):
        if is_reduced and not r.is_isolated(terms, i):
            state.positions[i].is_pending = 0
    end_pool_grace(bar, t, n, is_reduced)


def find_reduction(bar: r.AccountBar) -> float:
    """Return the largest factor of all cross positions whose margin ratio is met, by bisection."""
    terms, state, scratch = bar.terms, bar.state, bar.scratch
    for i in range(len(state.positions)):
        plan = scratch.plans[i]
        scratch.walk[i].quantity_aside = state.positions[i].quantity
        if r.is_held(state, i) and not r.is_isolated(terms, i):
            rules, quote = r.share(r.pick_instrument(terms, i)), bar.quotes.instruments[i]
            side = -1.0 if state.positions[i].quantity > 0.0 else 1.0
            worsening = orders.round_worsening(rules, quote.fill, side, rules.slippage)
            plan.cost = orders.compute_cost(rules, side, worsening)
            plan.fee = orders.compute_order_fee(rules, quote)
    low, high = 0.0, 1.0
    if spare(terms, state, scratch, 1.0) >= 0.0:
        return 1.0
    for _ in range(TRIALS):
        middle = low + 0.5 * (high - low)
        if not low < middle < high:
            break
        if spare(terms, state, scratch, middle) >= 0.0:
            low = middle
        else:
            high = middle
    return low


def spare(terms: r.Terms, state: r.AccountState, scratch: r.Scratch, factor: float) -> float:
    """Return what the pool would have over its requirement with all positions times a factor."""
    backing = margin.compute_full_backing(terms.rules, state.held, state.wallet.cash)
    if holds_options(state):
        backing += balance.compute_counted(terms, state)
    for i in range(len(state.positions)):
        plan, quantity = scratch.plans[i], scratch.walk[i].quantity_aside
        if quantity != 0.0 and not r.is_isolated(terms, i):
            position = state.positions[i]
            notional = abs(quantity * position.value)
            backing -= plan.cost * ((1.0 - factor) * notional) + plan.fee
            position.quantity = factor * quantity
    needed = terms.rules.level * balance.compute_needed(terms, state, False)
    backing -= margin.compute_haircuts(terms.rules, state.held)
    for i in range(len(state.positions)):
        state.positions[i].quantity = scratch.walk[i].quantity_aside
    return terms.grace_ratio * backing - needed


def end_pool_grace(bar: r.AccountBar, t: int, pool: int, is_reduced: bool) -> None:
    """Log and count how a call ended after a forced reduction."""
    terms, state, quotes = bar.terms, bar.state, bar.quotes
    if state.calls[pool].is_open == 0:
        return
    balance.value_at(state, quotes.fill, quotes.asset_fill)
    ratio = compute_pool_ratio(bar, pool)
    end_call(bar, t, pool, is_pool_under(terms, ratio) and not is_reduced, ratio)


def close_calls(bar: r.AccountBar, t: int, is_lost: bool) -> None:
    """Test margin calls of all pools at the close; writes calls, ledger and log (step 8)."""
    if bar.terms.margin_call == 0.0:
        return
    for pool in range(len(bar.state.positions) + 1):
        if is_pool(bar.terms, pool):
            close_call(bar, t, pool, is_lost)


def close_call(bar: r.AccountBar, t: int, pool: int, is_lost: bool) -> None:
    """Take the call of a pool over a close: what is open ends or goes on, or a call begins."""
    terms, state = bar.terms, bar.state
    call = state.calls[pool]
    ratio = compute_pool_ratio(bar, pool)
    is_under = is_pool_under(terms, ratio)
    was_over = call.ratio >= terms.margin_call * (1.0 - TOLERANCE)
    was_over = was_over and not is_pool_forced(terms, state, pool)

    # How long ago it was called is known until the pool is liquidated or under the ratio again.
    is_hit = bar.ledger[pool].liquidations > 0.0
    if is_hit:
        count_liquidated_call(bar, t, pool)
    if is_hit or is_under or bar.ledger[pool].calls_met > 0.0:
        call.called_at = math.nan

    if is_open_at_close(bar, pool):
        answer_at_close(bar, t, pool, is_hit or is_lost, is_under, ratio)
    else:
        call.is_open = 0.0

    call.is_called = 0.0
    if is_under:
        call.unmet = -1.0
    elif was_over:
        call.unmet = call.unmet + 1.0 if call.unmet >= 0.0 else -1.0
    else:
        begin_call(bar, t, pool, ratio)
    call.ratio = ratio


@inlined
def is_open_at_close(bar: r.AccountBar, pool: int) -> bool:
    """Return whether a call goes on that nothing in this bar has ended."""
    money = bar.ledger[pool]
    return bar.state.calls[pool].is_open == 1.0 and not money.calls_met + money.calls_failed > 0.0


def count_liquidated_call(bar: r.AccountBar, t: int, pool: int) -> None:
    """Count a call that no margin has met and that ended in a liquidation, and its days."""
    money, called_at = bar.ledger[pool], bar.state.calls[pool].called_at
    if money.calls_met == 0.0 and not math.isnan(called_at):
        money.liquidated_calls += 1.0
        money.call_days += (bar.feed.time[t] - called_at) / DAY


def answer_at_close(
    bar: r.AccountBar, t: int, pool: int, has_failed: bool, is_under: bool, ratio: float
) -> None:
    """End an open call that has failed, or is met; else it stays open."""
    call = bar.state.calls[pool]
    if has_failed or is_under:
        end_call(bar, t, pool, not has_failed, ratio)
        call.is_open = 0.0


def begin_call(bar: r.AccountBar, t: int, pool: int, ratio: float) -> None:
    """Call a pool that is over the ratio and was not at the last close."""
    call = bar.state.calls[pool]
    call.is_open = 1.0
    call.is_called = 1.0
    call.unmet = 0.0
    call.called_at = 1.0 * bar.feed.time[t]
    bar.ledger[pool].calls += 1.0
    log_call(bar, t, pool, Event.CALLED, ratio)


def write_settings(terms: r.Terms, state: r.AccountState) -> None:
    """Write the venue leverages of positions into the margin tables."""
    for i in range(len(state.positions)):
        position = state.positions[i]
        if position.setting > 0.0:
            terms.rules.brackets.settings[i] = position.setting


def change_settings(bar: r.AccountBar, t: int) -> None:
    """Move margin to the venue leverages asked for; what returns comes first (accounting 3)."""
    state, quotes, scratch, is_any = bar.state, bar.quotes, bar.scratch, False
    for i in range(len(state.positions)):
        is_any = is_any or state.positions[i].asked > 0.0
    if not is_any:
        return
    balance.value_at(state, quotes.fill, quotes.asset_fill)
    for i in range(len(state.positions)):
        scratch.walk[i].margin_moved = 0.0
        scratch.walk[i].is_new_setting = 0.0
        is_bound = is_ending(state, i) or not is_deciding(state, quotes, i)
        if state.positions[i].asked > 0.0 and r.is_isolated(bar.terms, i) and not is_bound:
            choose_setting(bar, i)
    for i in range(len(state.positions)):
        if scratch.walk[i].margin_moved < 0.0:
            shift_margin(bar, t, i, False)
    for i in range(len(state.positions)):
        if scratch.walk[i].margin_moved > 0.0:
            shift_margin(bar, t, i, True)


def choose_setting(bar: r.AccountBar, i: int) -> None:
    """Write the venue leverage of a position, and the margin to move."""
    terms, state, quotes = bar.terms, bar.state, bar.quotes
    own = bar.scratch.walk[i]
    position = state.positions[i]
    rules, asked = r.pick_margin(terms, i), position.asked
    quote = quotes.instruments[i]
    notional = abs(position.quantity) * abs(quote.fill)
    most = rules.leverages[len(rules.caps) - 1] / quote.initial
    for k in range(len(rules.caps)):
        if notional <= rules.caps[k]:
            most = max(most, rules.leverages[k] / quote.initial)
    setting = min(asked, max(most, position.setting))
    own.is_new_setting = 1.0 if setting != position.setting else 0.0
    position.setting = setting
    terms.rules.brackets.settings[i] = setting
    if r.is_held(state, i):
        entry = abs(position.quantity * position.entry)
        wanted = entry / (asked if asked < math.inf else setting)
        moved = wanted - position.margin
        own.margin_moved = moved if abs(moved) > TOLERANCE * entry else 0.0


def shift_margin(bar: r.AccountBar, t: int, i: int, is_adding: bool) -> None:
    """Post what is free in the wallet, or return margin down to what the new setting needs.

    Logs what moved, and what a new setting could not move.
    """
    terms, state, log = bar.terms, bar.state, bar.log
    own = bar.scratch.walk[i]
    position, quote = state.positions[i], bar.quotes.instruments[i]
    if is_adding:
        free = min(compute_free(terms, state), max(balance.compute_balance(terms, state), 0.0))
    else:
        setting = margin.compute_setting(r.pick_margin(terms, i), quote.initial)
        profit = p.compute_profit(r.pick_position(state, i), quote.fill)
        needed = abs(position.quantity * quote.fill) / setting - profit
        needed = max(needed, abs(position.quantity * position.entry) / setting)
        free = max(position.margin - needed, 0.0)
    wanted = abs(own.margin_moved)
    moved = min(wanted, free)
    position.margin += moved if is_adding else -moved
    state.wallet.cash -= moved if is_adding else -moved
    was_refused = position.refused_adding if is_adding else position.refused_returning
    refused = wanted - moved
    if moved > 0.0:
        kind = Event.MARGIN_ADDED if is_adding else Event.MARGIN_RETURNED
        r.log_event(log, t, i, kind, quote.fill, 0.0, moved)
    if refused <= TOLERANCE * wanted:
        was_refused = 0.0
    elif own.is_new_setting == 1.0 and was_refused == 0.0:
        r.log_event(log, t, i, Event.MARGIN_REFUSED, quote.fill, 0.0, refused)
        was_refused = 1.0
    if is_adding:
        position.refused_adding = was_refused
    else:
        position.refused_returning = was_refused
