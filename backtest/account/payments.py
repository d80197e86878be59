"""What an account pays and gets without a trade: flows, funding, interest and expenses.

====================  ============================================================================
word                  what it is, and its unit
====================  ============================================================================
flow                  a deposit, or negative a withdrawal: money
withdrawable          the most that may leave the account at the mark open: money
settlement            a funding payment that is due: one instrument, one rate, one time
paid                  money that leaves the account; negative if it gets it
base                  money on which interest is earned or paid
====================  ============================================================================

Step numbers are those of section 2 of ``docs/accounting.md``, others are its sections.
"""

from __future__ import annotations

import math

from backtest import margin
from backtest.account import balance, money
from backtest.account import position as p
from backtest.account import records as r
from backtest.account.events import Event
from backtest.account.liquidation import add_from_wallet, liquidate
from backtest.account.options import EXPIRES_INSIDE, expire_options
from backtest.core.kernels import inlined

# Step 1: deposits and withdrawals.


def take_flows(bar: r.AccountBar, t: int) -> None:
    """Pay deposits and withdrawals of the bar, as far as margin allows (step 1)."""
    feed = bar.feed
    flow = bar.state.cursor[r.FLOW_NEXT]
    while flow < len(feed.flow_bar) and feed.flow_bar[flow] == t:
        take_flow(bar, t, feed.flow_amount[flow])
        flow += 1
    bar.state.cursor[r.FLOW_NEXT] = flow


def take_flow(bar: r.AccountBar, t: int, amount: float) -> None:
    """Pay one flow: write cash, capital paid in, ledger and log.

    ``amount`` is money, negative for a withdrawal. Of that only what nothing needs at the mark
    opens may leave; the rest is refused, which is an event of its own.
    """
    state = bar.state
    balance.value_at(state, bar.quotes.mark_open, bar.quotes.asset_mark_open)
    wealth = balance.compute_account_equity(bar.terms, state) + state.wallet.reserve
    moved = amount
    if amount < 0.0:
        moved = -min(-amount, compute_withdrawable(bar))
    state.wallet.cash += moved

    # A withdrawal reduces the capital paid in, which ruin is measured by, in proportion (5): by
    # the part of the wealth that leaves.
    if moved >= 0.0:
        state.wallet.paid_in += moved
    else:
        wealth_left = wealth + moved
        state.wallet.paid_in *= wealth_left / wealth if wealth_left > 0.0 else 0.0

    account_row = len(bar.ledger) - 1
    bar.ledger[account_row].flows += moved
    owner = balance.NO_INSTRUMENT
    if moved != 0.0:
        r.log_event(bar.log, t, owner, Event.FLOW, value=1.0, quantity=0.0, amount=moved)
    if moved != amount:
        refused = moved - amount
        r.log_event(bar.log, t, owner, Event.REFUSED, value=1.0, quantity=0.0, amount=refused)


def compute_withdrawable(bar: r.AccountBar) -> float:
    """Return the money that may leave an account at the mark open (step 1).

    What is left keeps the initial margin of what is held, and profits that do not count back
    nothing. In isolated margin it is at most the available balance. The account must be valued at
    the mark opens before.
    """
    terms = bar.terms
    state = bar.state
    if not balance.is_for_one_position(terms, state):
        return compute_free(terms, state)

    # One position alone has no limit by the balance B: its profit can be withdrawn.
    rules = r.by_reference(r.pick_instrument(terms, 0))
    quote = bar.quotes.instruments[0]
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
    """Return the money that no position of an account needs, never negative.

    At the values that the account has now: what backs the pool less its initial margin, but at most
    the balance (money realized). With collateral the balance may become negative, down to the
    venue's limit.
    """
    free = balance.compute_pool(terms, state)
    for i in range(len(state.positions)):
        if not r.is_held(state, i) or r.is_isolated(terms, i):
            continue
        # Profits that do not count back nothing (`profit_counts`, 4.3).
        rules = r.by_reference(r.pick_instrument(terms, i))
        position = r.pick_position(state, i)
        value = state.positions[i].value
        free -= p.compute_uncounted(rules, position, value)
    free -= balance.compute_needed(terms, state, is_initial=True)

    lowest = 0.0
    if balance.has_collateral(state):
        lowest = terms.negative_limit
    in_balance = balance.compute_balance(terms, state) + lowest
    return max(min(free, in_balance), 0.0)


# Steps 2 and 6: funding.


def is_funding_due(feed: r.MarketFeed, state: r.AccountState, t: int, is_open: int) -> bool:
    """Return whether the next settlement is in bar t, at its open (1) or inside it (0)."""
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
    """Pay the next settlement of funding of one instrument, and liquidate what fails by it.

    ``is_open`` is 1 for a settlement at the open of bar t, 0 for one inside of it. The cursor of
    the account numbers the settlements: :func:`pay_next` moves it on to the one after this.
    """
    state = bar.state
    settlement = state.cursor[r.FUNDING_NEXT]
    # Options that expire inside the bar before the settlement do not meet it, so they go first.
    # Those that expire at the open have gone already.
    if is_open == 0:
        expire_options(bar, t, EXPIRES_INSIDE, bar.feed.funding_time[settlement])
    pay_next(bar, t)

    # The margin of an isolated position pays: one that fails now is liquidated at once (3).
    i = bar.feed.funding_instrument[settlement]
    if r.is_held(state, i) and r.is_isolated(bar.terms, i):
        liquidate_isolated(bar, t, i, bar.quotes.instruments[i].mark_open, is_failed=False)


def pay_next(bar: r.AccountBar, t: int) -> None:
    """Pay the next funding settlement of the feed, without a test of what that leaves.

    ``cursor`` counts the settlements that are done, so it is the number of the next one in the
    columns of the feed; it moves on by one. Writes the rate into the position of its instrument,
    which policies see, and pays where that is held.
    """
    state = bar.state
    feed = bar.feed
    settlement = state.cursor[r.FUNDING_NEXT]
    state.cursor[r.FUNDING_NEXT] = settlement + 1

    i = feed.funding_instrument[settlement]
    rate = feed.funding_rate[settlement]
    state.positions[i].last_funding = rate
    if not r.is_held(state, i):
        return

    # At the venue's settlement price, where the data have it, else at the mark open.
    rules = r.by_reference(r.pick_instrument(bar.terms, i))
    value = bar.quotes.instruments[i].mark_open
    if not math.isnan(feed.funding_price[settlement]):
        value = p.compute_value_of(rules, feed.funding_price[settlement])
    pay_settlement(bar, t, i, value, rate)


def pay_settlement(bar: r.AccountBar, t: int, i: int, value: float, rate: float) -> None:
    """Pay the funding of one position at a contract value into balances, ledger and log."""
    rules = r.by_reference(r.pick_instrument(bar.terms, i))
    before = balance.pick_balances(bar.terms, bar.state, i)
    after, paid = p.pay_funding(rules, before, value, rate)
    balance.put_balances(bar.terms, bar.state, i, before, after)
    bar.ledger[i].funding += paid
    r.log_event(bar.log, t, i, Event.FUNDING, value, after.position.quantity, paid)


def liquidate_isolated(bar: r.AccountBar, t: int, i: int, value: float, is_failed: bool) -> bool:
    """Liquidate an isolated position if it fails at a mark value; return whether it was liquidated.

    ``is_failed`` says that it is known to fail there, and is not tested. First the wallet adds
    margin, where the account does so by itself: then the position is tested again. Writes account,
    ledger and log.
    """
    terms = bar.terms
    state = bar.state
    rules = r.by_reference(r.pick_instrument(terms, i))
    multiplier = bar.quotes.instruments[i].multiplier
    before = balance.pick_balances(terms, state, i)
    after = before

    # 3 Automatic margin: the wallet pays first, as far as it can.
    is_failed = is_failed or p.is_failing(rules, before, value, multiplier)
    if is_failed and rules.has_auto_margin and before.cash > 0.0:
        after = add_from_wallet(bar, t, i, before, value)
        is_failed = p.is_failing(rules, after, value, multiplier)

    # 5 A liquidation drops the pending decision, and may halt the instrument.
    if is_failed:
        after = liquidate(bar, t, i, after, value)
        position = state.positions[i]
        position.is_pending = 0
        position.since = -1.0
        if terms.is_halting:
            position.is_halted = 1
    balance.put_balances(terms, state, i, before, after)
    return is_failed


# Step 3: interest.


def charge_interest(bar: r.AccountBar, t: int) -> None:
    """Charge what the time since the last open costs (step 3); writes account, ledger and log.

    First interest on the money of the account, then of each position the rent of borrowed coins and
    the yearly expense of its contract. The feed has the time in years.
    """
    years = r.at(bar.feed.years, t)
    # What the wallet owed before is no charge: isolated margins do not pay it.
    debt_before = balance.compute_debt(bar.state)
    charge_on_balance(bar, t, years)
    for i in range(len(bar.state.positions)):
        if r.is_held(bar.state, i):
            charge_coins(bar, t, i, years)
            charge_expense(bar, t, i, years)
    # Isolated margins pay once the wallet is empty, all together (3).
    balance.take_from_isolated(bar.terms, bar.state, debt_before)


def charge_on_balance(bar: r.AccountBar, t: int, years: float) -> None:
    """Charge or pay interest on the money of the account, for the time since the last open.

    Money that is there earns ``cash_rate``, money that is borrowed pays ``borrow_rate``, both per
    year as in force at the last open. A margin loan also pays ``short_rate`` on the notional that
    it has sold short. ``years`` is that time. Interest is booked as positive if the account pays.
    Writes cash, ledger and log.
    """
    feed = bar.feed
    last_bar = max(t - 1, 0)
    borrow_rate = r.at(feed.borrow_rate, last_bar)
    cash_rate = r.at(feed.cash_rate, last_bar)
    # Money that is there earns, a negative base is borrowed and pays.
    base, sold_short = sum_interest_base(bar)
    interest = -base * (cash_rate if base > 0.0 else borrow_rate) * years
    if bar.terms.is_loan and sold_short > 0.0:
        short_rate = r.at(feed.short_rate, last_bar)
        interest += sold_short * short_rate * years
    if interest == 0.0:
        return

    bar.state.wallet.cash -= interest
    account_row = len(bar.ledger) - 1
    bar.ledger[account_row].interest += interest
    owner = balance.NO_INSTRUMENT
    r.log_event(bar.log, t, owner, Event.INTEREST, value=1.0, quantity=0.0, amount=interest)


def sum_interest_base(bar: r.AccountBar) -> tuple[float, float]:
    """Return the money on which interest is due at this open, and the notional sold short.

    The first is positive where it earns interest, and negative where it is borrowed. The second is
    money too, and is 0 unless the account is a margin loan (``terms.is_loan``).

    - With derivatives, interest is on the balance (cash without the profit of positions) and on
      posted margins.
    - In a margin loan positions are bought, so interest is on the cash that is left.

    ``wallet.cash`` has paid the price of each cross position, quantity * entry, but only the margin
    of an isolated one. The loop adds or subtracts that price where the rule wants it otherwise.
    """
    terms = bar.terms
    state = bar.state
    # What flows and top-ups moved at this open was not there since the last one: no interest yet.
    base = state.wallet.cash - money.total_from_outside(bar.ledger)
    sold_short = 0.0
    for i in range(len(state.positions)):
        position = state.positions[i]
        is_isolated = r.is_isolated(terms, i)
        if is_isolated:
            base += position.margin
        if not r.is_held(state, i):
            continue

        price_paid = position.quantity * position.entry
        if terms.is_loan:
            # Cross positions are paid for from cash, isolated ones here.
            base -= price_paid if is_isolated else 0.0
            if position.quantity < 0.0:
                sold_short += abs(position.quantity * bar.quotes.instruments[i].mark_open)

        # A derivative is not bought, so its price comes back into the base; a spot leg is bought.
        elif not is_isolated and not r.is_spot(terms, i):
            base += price_paid
    return base, sold_short


def charge_coins(bar: r.AccountBar, t: int, i: int, years: float) -> None:
    """Charge a short spot leg interest on its borrowed coins, on their value at the mark open.

    For ``years``, the time since the last open, at the rate per year in force then. Writes cash,
    ledger and log. Does nothing for any other position.
    """
    quantity = bar.state.positions[i].quantity
    if quantity > 0.0 or not r.is_spot(bar.terms, i):
        return
    mark_open = bar.quotes.instruments[i].mark_open
    rate = r.at_column(bar.feed.coin_rate, max(t - 1, 0), i)
    interest = abs(quantity * mark_open) * rate * years
    if interest == 0.0:
        return

    bar.state.wallet.cash -= interest
    bar.ledger[i].interest += interest
    r.log_event(bar.log, t, i, Event.INTEREST, mark_open, quantity, interest)


def charge_expense(bar: r.AccountBar, t: int, i: int, years: float) -> None:
    """Charge the yearly expense of a contract, as that of a fund, on the notional at the mark open.

    Longs and shorts pay it, for ``years``, the time since the last open. ``terms.expenses`` has the
    rate per year. Writes cash, ledger and log.
    """
    quantity = bar.state.positions[i].quantity
    mark_open = bar.quotes.instruments[i].mark_open
    expense = abs(quantity * mark_open) * bar.terms.expenses[i] * years
    if expense == 0.0:
        return

    bar.state.wallet.cash -= expense
    bar.ledger[i].expense += expense
    r.log_event(bar.log, t, i, Event.EXPENSE, mark_open, quantity, expense)
