"""The liquidation of the cross positions: taken over, closed at once, or reduced in steps.

The rules are those of ``docs/portfolio.md``, "Liquidation of the cross positions". Options of the
pool are liquidated with it, by :mod:`.forced_options`; :mod:`.causes` logs before what it came
from.

====================  ============================================================================
word                  what it is, and its unit
====================  ============================================================================
loss                  what closing costs beyond the contract value at which the pool failed: money
asked                 the fee that the venue asks; an account pays at most what is left: money
gross                 notional that was closed, which fees and losses are shared by
excess                D = M - level R; a step must raise it
relief                gain of excess per notional closed
score                 rank of a step in the order of the account: the largest comes first
====================  ============================================================================
"""

from __future__ import annotations

import math
from typing import NamedTuple

from backtest import margin
from backtest.account import balance, forced_options, liquidation, options
from backtest.account import records as r
from backtest.account.causes import log_causes
from backtest.account.events import Event
from backtest.account.order_limits import hide_others, show_others
from backtest.core.units import TOLERANCE

MOST_STEPS = 100_000
"""Steps of a partial liquidation after which everything closes at once."""


class ClosedPart(NamedTuple):
    """What closing a part of a cross position did: loss, notional and the fee asked."""

    loss: float
    notional: float
    fee_asked: float


def liquidate_pool(bar: r.AccountBar, t: int, is_alone: bool) -> None:
    """Liquidate the cross positions and options by the mode of the account (accounting 5).

    At the contract values at which the pool failed, ``position.value``. ``is_alone``: one position
    and money are all that the account holds, so the simpler rules of one position apply. Writes
    account, ledger and log, and drops what was decided.
    """
    terms = bar.terms
    state = bar.state
    options.price_options(terms, state, state.held.values)
    # Causes are asked for before anything is marked, as they count what is not booked yet.
    log_causes(bar, t)
    start_liquidation(bar)

    if is_alone and not options.holds_options(state):
        liquidate_only(bar, t)
    elif terms.liquidation_mode == r.TAKEOVER:
        forfeit_pool(bar, t)
    elif terms.liquidation_mode == r.CLOSE:
        close_pool(bar, t)
    else:
        reduce_pool(bar, t)

    # What nothing backs any more is bad debt, which the venue bears.
    has_backing = balance.can_sell_collateral(state) or balance.count_cross(terms, state) > 0
    if state.wallet.cash < 0.0 and not has_backing:
        balance.write_off(bar, t, -state.wallet.cash)
    drop_after_pool_failure(terms, state)


def start_liquidation(bar: r.AccountBar) -> None:
    """Enter all profits into the ledger, and note what the pool holds, before anything closes.

    Profits count up to the values at which the pool failed. The steps of a partial liquidation are
    sized by what was held at its start, so that is kept: positions in ``quantity_at_start`` of
    their walks, options in ``options.started``. Counts one liquidation in the last row of the
    ledger, that of the account.
    """
    terms = bar.terms
    state = bar.state
    for i in range(len(state.positions)):
        walk = bar.scratch.walk[i]
        walk.quantity_at_start = 0.0
        if r.is_held(state, i) and not r.is_isolated(terms, i):
            position = state.positions[i]
            walk.quantity_at_start = position.quantity
            balance.mark_to_ledger(state, i, position.value, bar.ledger)

    options_held = state.options.positions.quantities
    for k in range(len(state.options.targets)):
        state.options.started[k] = options_held[k]
    options.book_profits(state, bar.ledger)
    balance.mark_collateral(state, state.held.prices, bar.ledger)

    account_row = len(bar.ledger) - 1
    bar.ledger[account_row].liquidations += 1.0


def liquidate_only(bar: r.AccountBar, t: int) -> None:
    """Liquidate the only position, as an isolated one with all cash behind it."""
    state = bar.state
    for i in range(len(state.positions)):
        if r.is_held(state, i):
            before = r.Balances(state.wallet.cash, r.pick_position(state, i))
            after = liquidation.liquidate(bar, t, i, before, state.positions[i].value)
            balance.put_balances(bar.terms, state, i, before, after)


def drop_after_pool_failure(terms: r.Terms, state: r.AccountState) -> None:
    """Drop all decisions of cross positions and options after the pool failed, and count from now.

    Bars since the liquidation begin at -1: the close of this bar adds 1. An account that halts
    after a liquidation trades never again (``is_over``).
    """
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


# Takeover.


def forfeit_pool(bar: r.AccountBar, t: int) -> None:
    """Let the venue take over the whole pool: positions, options, collateral and cash.

    What the pool is still worth is the loss of the account, shared by positions and options in
    proportion to notional and premium. A pool that is worth less than nothing leaves that as
    negative cash, which :func:`liquidate_pool` writes off. Writes account, ledger and log.
    """
    state = bar.state
    # Both are asked for before anything is written off.
    pool_value, gross = sum_forfeit(bar)
    forfeit_collateral(bar, t)
    state.wallet.cash = min(pool_value, 0.0)
    loss = max(pool_value, 0.0)

    # Money lost per unit of premium or notional.
    loss_rate = loss / gross if gross > 0.0 else 0.0
    forced_options.end_forfeit(bar, t, loss_rate)
    for i in range(len(state.positions)):
        if not r.is_held(state, i) or r.is_isolated(bar.terms, i):
            continue

        position = state.positions[i]
        value = position.value
        notional = abs(position.quantity * value)
        share = loss * (notional / gross) if gross > 0.0 else 0.0

        bar.ledger[i].liquidation_loss += share
        bar.ledger[i].traded += notional
        r.log_liquidation(bar.log, t, i, value, -position.quantity, share)
        r.put_position(state, i, r.Position(quantity=0.0, entry=0.0, margin=0.0, marked=value))


def sum_forfeit(bar: r.AccountBar) -> tuple[float, float]:
    """Return the value of the pool, which a takeover takes, and the gross by which it is shared.

    Both are money. The value is that of cash, collateral, cross positions and options together, and
    may be negative. The gross is the sum of notionals of positions and premiums of options, without
    sign: each bears the loss in proportion to its part of the gross.
    """
    state = bar.state
    pool_value = 0.0
    gross = 0.0
    for k in range(len(state.options.targets)):
        value = state.options.positions.quantities[k] * state.options.positions.marks[k]
        if value != 0.0:
            pool_value += value
            gross += abs(value)

    # Cash and collateral have no notional: the loss is shared by positions and options.
    pool_value += state.wallet.cash
    for c in range(len(state.held.amounts)):
        pool_value += state.held.amounts[c] * state.held.prices[c]

    for i in range(len(state.positions)):
        if r.is_held(state, i) and not r.is_isolated(bar.terms, i):
            position = state.positions[i]
            pool_value += position.quantity * position.value
            gross += abs(position.quantity * position.value)
    return pool_value, gross


def forfeit_collateral(bar: r.AccountBar, t: int) -> None:
    """Set all amounts of collateral to 0 in a takeover, and log each as liquidated.

    No loss is booked for it here: its value is in the value of the pool, whose loss positions and
    options share. In the log, collateral c has the number n + c as its owner, after n instruments.
    """
    state = bar.state
    for c in range(len(state.held.amounts)):
        amount = state.held.amounts[c]
        price = state.held.prices[c]
        if amount != 0.0:
            owner = len(state.positions) + c
            worth = abs(amount) * price
            r.log_event(bar.log, t, owner, Event.LIQUIDATED, price, -amount, worth)

        state.held.amounts[c] = 0.0


# Closing at once.


class VenueFees(NamedTuple):
    """What the venue's fees of a close may take: money, and the gross notional that shares it.

    ``is_paid_in_full``: the fees that it asks are less than what is left.
    """

    left: float
    gross: float
    is_paid_in_full: bool


def close_pool(bar: r.AccountBar, t: int) -> None:
    """Close all cross positions and options at once, and pay the venue's fees from what is left.

    Writes positions, options, collateral, cash, ledger and log. Everything closes before any fee is
    paid: only then is it known what is left for fees, which the parts that closed share.
    """
    terms = bar.terms
    state = bar.state

    # What closes goes into the cash; its fees are only asked for, and not paid yet.
    fees_asked, notional_closed = close_positions(bar)
    fees_of_options, premiums = forced_options.close_options_of_pool(bar)
    balance.sell_collateral(bar, t, -balance.compute_balance(terms, state))
    fees = limit_fees(
        bar, fees_asked=fees_asked + fees_of_options, gross=notional_closed + premiums
    )

    # Each part that closed pays its fee now, or its share of what is left.
    for i in range(len(state.positions)):
        closed = bar.scratch.walk[i]
        if closed.notional_closed > 0.0:
            book_close(bar, t, i, find_fee(fees, closed.fee_closed, closed.notional_closed))
    fee_paid = find_fee(fees, fees_of_options, premiums)
    forced_options.end_close(bar, t, fees_of_options, fee_paid)

    # Fees may have made the balance negative: collateral pays for it.
    balance.sell_collateral(bar, t, -balance.compute_balance(terms, state))
    # Shares of all that was left add up to it, so nothing is left: what remains is rounding.
    if not fees.is_paid_in_full and fees.left > 0.0:
        state.wallet.cash = 0.0


def limit_fees(bar: r.AccountBar, fees_asked: float, gross: float) -> VenueFees:
    """Return what the fees of a close may take, once all has closed and no fee is paid yet.

    ``fees_asked`` are the fees of the venue, money, ``gross`` is the notional that shares them.
    """
    # What is left: a positive balance, and what the rest of the collateral would sell for.
    money_left = max(balance.compute_balance(bar.terms, bar.state), 0.0)
    left = money_left + balance.compute_proceeds(bar.terms, bar.state)
    # Fees that equal what is left, give or take rounding, use it up.
    is_paid_in_full = fees_asked * (1.0 + TOLERANCE) < left
    return VenueFees(left=left, gross=gross, is_paid_in_full=is_paid_in_full)


def find_fee(fees: VenueFees, fee_asked: float, notional: float) -> float:
    """Return the fee that a closed part pays: what is asked, or its share of what is left."""
    if fees.is_paid_in_full:
        return fee_asked
    if not fees.gross > 0.0:
        return 0.0
    return fees.left * (notional / fees.gross)


def close_positions(bar: r.AccountBar) -> tuple[float, float]:
    """Close all cross positions into cash; return the fees asked for it and the notional closed.

    Both are money. No fee is charged and no loss is booked yet: :func:`book_close` does that for
    each position, and must be called afterwards. It reads what this function writes into the walk
    of each instrument: contracts, notional, loss (``cost_closed``) and fee asked. A notional of 0
    means that nothing was closed.
    """
    state = bar.state
    fees_asked = 0.0
    notional_closed = 0.0
    for i in range(len(state.positions)):
        walk = bar.scratch.walk[i]
        walk.notional_closed = 0.0
        if r.is_held(state, i) and not r.is_isolated(bar.terms, i):
            walk.quantity_closed = state.positions[i].quantity
            closed = close_part(bar, i, walk.quantity_closed)
            walk.cost_closed = closed.loss
            walk.notional_closed = closed.notional
            walk.fee_closed = closed.fee_asked

            fees_asked += closed.fee_asked
            notional_closed += closed.notional
            bar.ledger[i].traded += closed.notional

    return fees_asked, notional_closed


def book_close(bar: r.AccountBar, t: int, i: int, fee: float) -> None:
    """Charge the fee that a closed position pays, and book and log its loss, with that fee.

    Reads what :func:`close_positions` wrote into its walk. Writes cash, ledger and log.
    """
    walk = bar.scratch.walk[i]
    bar.state.wallet.cash -= fee
    loss = walk.cost_closed + fee
    bar.ledger[i].liquidation_loss += loss
    value = bar.state.positions[i].marked
    r.log_liquidation(bar.log, t, i, value, -walk.quantity_closed, loss)


def close_part(bar: r.AccountBar, i: int, closed: float) -> ClosedPart:
    """Close some contracts of a cross position; return loss, notional, and the fee asked for it.

    ``closed`` are contracts with the sign of the position. Slippage and impact make the fill worse
    than the contract value at which the pool failed; the difference is the loss. Writes position
    and cash. The fee is not charged here: the caller must charge what the account can pay of it.
    """
    state = bar.state
    position = state.positions[i]
    rules = r.by_reference(r.pick_instrument(bar.terms, i))
    value = position.value
    filled = liquidation.find_fill(rules, value, closed, bar.quotes.instruments[i])
    state.wallet.cash += closed * filled
    quantity_left = position.quantity - closed
    entry = position.entry if quantity_left != 0.0 else 0.0
    r.put_position(state, i, r.Position(quantity_left, entry, margin=0.0, marked=value))

    notional = abs(closed) * abs(filled)
    return ClosedPart(
        loss=closed * (value - filled),
        notional=notional,
        fee_asked=rules.liquidation_fee * notional,
    )


# Step by step.


def reduce_pool(bar: r.AccountBar, t: int) -> None:
    """Close in steps, the best first, until the pool holds; all at once where no step helps.

    Each step closes a part of one position or option. After each the pool is tested anew, at the
    same prices. Writes account, ledger and log.
    """
    terms = bar.terms
    state = bar.state
    n_instruments = len(state.positions)
    for _ in range(MOST_STEPS):
        # Nothing is left behind the positions.
        if balance.compute_pool(terms, state) <= 0.0:
            break
        chosen = choose_step(bar)
        if chosen < 0:
            break

        # Options are numbered after the n instruments.
        if chosen < n_instruments:
            close_step(bar, t, chosen)
        else:
            forced_options.take_option_step(bar, t, chosen - n_instruments)

        if not balance.is_pool_short(terms, state):
            return
    close_pool(bar, t)


def close_step(bar: r.AccountBar, t: int, i: int) -> None:
    """Close the next part of cross position i, charge its fee, and book it.

    The fee is at most what the pool has left after the close. Writes position, cash, ledger and
    log.
    """
    state = bar.state
    quantity_closed = liquidation.choose_pool_reduction(bar, i)
    closed = close_part(bar, i, quantity_closed)
    fee = liquidation.cap_fee(closed.fee_asked, balance.compute_pool(bar.terms, state))
    state.wallet.cash -= fee

    loss = closed.loss + fee
    bar.ledger[i].liquidation_loss += loss
    bar.ledger[i].traded += closed.notional
    r.log_liquidation(bar.log, t, i, state.positions[i].value, -quantity_closed, loss)


def choose_step(bar: r.AccountBar) -> int:
    """Return what the next step of a pool liquidation closes a part of; -1 if no step helps.

    The answer is the index of an instrument, 0 to n - 1, or n + k for option k. Each step is tried
    and taken back. It helps if it raises the excess (what backs the pool less its requirement) by
    more than rounding. Of these the one with the highest score is chosen (:func:`score_step`).
    """
    terms = bar.terms
    state = bar.state
    n_instruments = len(state.positions)
    needed = balance.compute_needed(terms, state, is_initial=False)
    least_gain = TOLERANCE * terms.rules.level * needed

    best_instrument = -1
    best_score = -math.inf
    for i in range(n_instruments):
        if not r.is_held(state, i) or r.is_isolated(terms, i):
            continue

        gain, notional = try_step(bar, i)
        if gain > least_gain:
            score = score_step(bar, i, relief=gain / notional)
            if score > best_score:
                best_instrument = i
                best_score = score

    # Under OPTIONS_LAST no option is closed while a future helps. Else options compete with the
    # best future.
    if best_instrument >= 0 and terms.order == r.OPTIONS_LAST:
        return best_instrument
    best_option = forced_options.choose_option_step(bar, least_gain, best_score)
    if best_option < 0:
        return best_instrument
    return n_instruments + best_option


def try_step(bar: r.AccountBar, i: int) -> tuple[float, float]:
    """Return what one step of a partial liquidation of position i would do, without doing it.

    The first number is how much the excess would rise, money: the excess is what backs the pool,
    less its requirement. The second is the notional that the step would trade. Position and cash
    are changed for the trial, and are the same as before when the function returns.
    """
    terms = bar.terms
    state = bar.state
    position_before = r.pick_position(state, i)
    cash_before = state.wallet.cash
    excess_before = balance.compute_excess(terms, state)

    closed = close_part(bar, i, liquidation.choose_pool_reduction(bar, i))
    # close_part does not charge the fee. It is capped at what the pool still has after the step.
    fee = liquidation.cap_fee(closed.fee_asked, balance.compute_pool(terms, state))
    gain = balance.compute_excess(terms, state) - fee - excess_before

    r.put_position(state, i, position_before)
    state.wallet.cash = cash_before
    return gain, closed.notional


def score_step(bar: r.AccountBar, i: int, relief: float) -> float:
    """Return how a step of position i ranks among the steps of a liquidation; the largest is first.

    ``relief`` is what the step adds to the excess of the pool per notional that it closes. Of this
    and the other measures, :func:`.forced_options.rank` picks the one by which the account orders.
    """
    position = bar.state.positions[i]
    profit_of_contract = position.value - position.entry
    return forced_options.rank(
        bar.terms,
        relief=relief,
        loss=-position.quantity * profit_of_contract,
        needed=compute_requirement_alone(bar, i),
        notional=abs(position.quantity * position.value),
        place=1.0 * bar.terms.ranks[i],
    )


def compute_requirement_alone(bar: r.AccountBar, i: int) -> float:
    """Return the maintenance margin of position i as if nothing else were held: money.

    0 where the account does not order the steps of a liquidation by it. Hides all other positions
    and the collateral, asks for the requirement of the pool, and shows them again.
    """
    state = bar.state
    if bar.terms.order != r.LARGEST_REQUIREMENT:
        return 0.0
    hide_others(state, bar.scratch, i, state.positions[i].quantity)
    needed = margin.compute_portfolio_requirement(bar.terms.rules, state.held, is_initial=False)
    show_others(state, bar.scratch)
    return needed
