"""The liquidation of the cross positions of an account, at the values being tested."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backtest.account.account_records import CLOSE, TAKEOVER, Balances, Position
from backtest.account.contagion import log_causes
from backtest.account.ledger import BAD_DEBT as DEBT
from backtest.account.ledger import LIQUIDATED
from backtest.account.liquidation import (
    choose_reduction,
    close_contracts,
    forfeit,
)
from backtest.account.option_holdings import holds_options
from backtest.account.option_liquidation import (
    begin_forced,
    close_options_of_pool,
    end_close,
    end_forfeit,
    forfeit_options,
    take_option_step,
)
from backtest.account.option_marks import book_profits, price_options
from backtest.account.pool_steps import (
    choose_step,
    close_part,
    find_step,
    note_liquidation,
    take_step,
)
from backtest.account.portfolio_balance import (
    compute_balance,
    compute_pool,
    compute_proceeds,
    count_cross,
    has_collateral_to_sell,
    is_pool_short,
    mark_to_ledger,
    sell_collateral,
)
from backtest.account.portfolio_ledger import (
    BAD_DEBT,
    COLLATERAL_PNL,
    LIQUIDATIONS,
    LOSS,
    TRADED,
    note,
)
from backtest.account.portfolio_payments import drop_after_pool_failure
from backtest.account.portfolio_records import (
    CASH,
    AccountBar,
    AccountState,
    is_held,
    is_isolated,
    pick_instrument,
    pick_position,
    pick_quote,
    put_position,
    share,
)
from backtest.base.units import TOLERANCE

if TYPE_CHECKING:
    from backtest.base import FloatArray

MOST_STEPS = 100_000
"""Steps of a partial liquidation after which everything closes at once."""


def liquidate_pool(bar: AccountBar, t: int, is_alone: bool) -> None:
    terms, state, scratch, ledger = bar.terms, bar.state, bar.scratch, bar.ledger
    price_options(terms, state, state.held.values)
    log_causes(bar, t)
    for i in range(len(state.margin)):
        scratch.start[i] = 0.0
        if is_held(state, i) and not is_isolated(terms, i):
            scratch.start[i] = state.held.quantities[i]
            mark_to_ledger(state, i, state.held.values[i], ledger)
    begin_forced(state)
    book_profits(state, ledger)
    last = ledger.shape[1] - 1
    ledger[LIQUIDATIONS, last] += 1.0
    mark_assets(state, ledger)
    if is_alone and not holds_options(state):
        liquidate_only_position(bar, t)
    elif terms.liquidation_mode == TAKEOVER:
        forfeit_pool(bar, t)
    elif terms.liquidation_mode == CLOSE:
        close_pool(bar, t)
    else:
        reduce_pool(bar, t)
    record_bad_debt(bar, t)
    drop_after_pool_failure(terms, state)


def mark_assets(state: AccountState, ledger: FloatArray) -> None:
    last = ledger.shape[1] - 1
    for c in range(len(state.held.amounts)):
        if state.held.amounts[c] != 0.0:
            change = state.held.prices[c] - state.priced[c]
            ledger[COLLATERAL_PNL, last] += state.held.amounts[c] * change
            state.priced[c] = state.held.prices[c]


def liquidate_only_position(bar: AccountBar, t: int) -> None:
    terms, state, quotes, ledger = bar.terms, bar.state, bar.quotes, bar.ledger
    for i in range(len(state.margin)):
        if is_held(state, i):
            rules, quote = share(pick_instrument(terms, i)), pick_quote(quotes, i)
            held, value = state.held.quantities[i], state.held.values[i]
            balances = Balances(state.wallet[CASH], (pick_position(state, i),))
            loss = 0.0
            if terms.liquidation_mode == TAKEOVER:
                ledger[TRADED, i] += abs(held) * abs(value)
                balances, loss = forfeit(rules, balances, value)
            while balances.positions[0].quantity != 0.0:
                if rules.full_below_health > 0.0 and terms.rules.level != 1.0:
                    closed = find_step(terms, state, bar.scratch, i)
                else:
                    x = quotes.multiplier[i]
                    closed = choose_reduction(rules, balances, value, abs(held), x)
                balances, cost, notional = close_contracts(rules, balances, value, closed, quote)
                loss += cost
                ledger[TRADED, i] += notional
                put_position(state, i, balances.positions[0])
                state.wallet[CASH] = balances.cash
                if is_held(state, i) and not is_pool_short(terms, state):
                    break
            state.wallet[CASH] = balances.cash
            put_position(state, i, balances.positions[0])
            ledger[LOSS, i] += loss
            note_liquidation(bar.log, t, i, value, state.held.quantities[i] - held, loss)


def record_bad_debt(bar: AccountBar, t: int) -> None:
    state, ledger = bar.state, bar.ledger
    if count_cross(bar.terms, state) > 0 or has_collateral_to_sell(state):
        return
    if state.wallet[CASH] < 0.0:
        debt = -state.wallet[CASH]
        state.wallet[CASH] = 0.0
        ledger[BAD_DEBT, ledger.shape[1] - 1] += debt
        note(bar.log, t, -1, DEBT, 1.0, 0.0, debt)


# --------------------------------------------------------------------------------- the modes


def forfeit_pool(bar: AccountBar, t: int) -> None:
    terms, state, ledger, log = bar.terms, bar.state, bar.ledger, bar.log
    lost, gross = forfeit_options(state)
    lost += state.wallet[CASH]
    for c in range(len(state.held.amounts)):
        amount, price = state.held.amounts[c], state.held.prices[c]
        lost += amount * price
        if amount != 0.0:
            note(log, t, len(state.margin) + c, LIQUIDATED, price, -amount, abs(amount) * price)
        state.held.amounts[c] = 0.0
    for i in range(len(state.margin)):
        if is_held(state, i) and not is_isolated(terms, i):
            lost += state.held.quantities[i] * state.held.values[i]
            gross += abs(state.held.quantities[i] * state.held.values[i])
    state.wallet[CASH] = min(lost, 0.0)
    loss = max(lost, 0.0)
    end_forfeit(state, ledger, log, t, loss / gross if gross > 0.0 else 0.0)
    for i in range(len(state.margin)):
        if is_held(state, i) and not is_isolated(terms, i):
            value = state.held.values[i]
            notional = abs(state.held.quantities[i] * value)
            share = loss * (notional / gross) if gross > 0.0 else 0.0
            ledger[LOSS, i] += share
            ledger[TRADED, i] += notional
            note_liquidation(log, t, i, value, -state.held.quantities[i], share)
            put_position(state, i, Position(0.0, 0.0, 0.0, value))


def close_pool(bar: AccountBar, t: int) -> None:
    terms, state, scratch, ledger, log = bar.terms, bar.state, bar.scratch, bar.ledger, bar.log
    asked, gross = 0.0, 0.0
    for i in range(len(state.margin)):
        scratch.cost[i], scratch.taken[i] = 0.0, 0.0
        if is_held(state, i) and not is_isolated(terms, i):
            rules, quote = share(pick_instrument(terms, i)), pick_quote(bar.quotes, i)
            scratch.reach[i] = state.held.quantities[i]
            scratch.cost[i], scratch.taken[i] = close_part(rules, state, quote, i, scratch.reach[i])
            scratch.fee[i] = rules.liquidation_fee * scratch.taken[i]
            asked += scratch.fee[i]
            gross += scratch.taken[i]
            ledger[TRADED, i] += scratch.taken[i]
    asked_of_options, premiums = close_options_of_pool(terms, state, ledger)
    asked, gross = asked + asked_of_options, gross + premiums
    sell_collateral(bar, t, -compute_balance(terms, state))
    left = max(compute_balance(terms, state), 0.0) + compute_proceeds(terms, state)
    is_all = asked * (1.0 + TOLERANCE) < left
    for i in range(len(state.margin)):
        if scratch.taken[i] > 0.0:
            fee = scratch.fee[i] if is_all else left * (scratch.taken[i] / gross)
            state.wallet[CASH] -= fee
            loss = scratch.cost[i] + fee
            ledger[LOSS, i] += loss
            note_liquidation(log, t, i, state.marked[i], -scratch.reach[i], loss)
    paid = asked_of_options if is_all else left * (premiums / gross) if gross > 0.0 else 0.0
    end_close(state, ledger, log, t, asked_of_options, paid)
    sell_collateral(bar, t, -compute_balance(terms, state))
    if not is_all and left > 0.0:
        state.wallet[CASH] = 0.0  # the shares of the fee add up to all that was left


def reduce_pool(bar: AccountBar, t: int) -> None:
    terms, state = bar.terms, bar.state
    for _ in range(MOST_STEPS):
        if compute_pool(terms, state) <= 0.0:
            close_pool(bar, t)
            return
        i = choose_step(bar)
        if i < 0:
            close_pool(bar, t)
            return
        if i < len(state.margin):
            take_step(bar, t, i)
        else:
            take_option_step(bar, t, i - len(state.margin))
        if not is_pool_short(terms, state):
            return
    close_pool(bar, t)
