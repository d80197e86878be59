"""Options that a liquidation of the pool trades: all at once, step by step, or written off.

The words are those of :mod:`.options` and :mod:`.pool_liquidation`. While a pool closes at once,
:func:`close_options_of_pool` writes the contracts that it trades of each option, their loss from
the mark and the fee asked, and :func:`end_close` books them: only then is known what of the fees
the account can pay.
"""

from __future__ import annotations

import math

from backtest import margin
from backtest.account import balance, liquidation, options
from backtest.account import records as r
from backtest.account.events import Event
from backtest.core.kernels import of_options
from backtest.core.units import TOLERANCE

SLIPPAGE = r.NUMBERS.index("liquidation_slippage")
STEP = r.NUMBERS.index("step")
FULL_BELOW = r.NUMBERS.index("full_below")
"""Columns of ``Terms.numbers``."""
LEAST_PART = 1e-9
"""Part of what an option position was at the start up to which its rest closes whole."""


# One option.


def price_forced(terms: r.Terms, state: r.AccountState, k: int, side: float) -> float:
    """Return the price at which a liquidation trades option k: money per contract.

    ``side`` is 1 for a purchase (of a short that closes), -1 for a sale. The price is that of the
    model at a volatility moved against the account, by points: half of the quoted spread, and for a
    purchase the liquidation slippage of the underlying. 0 for a sale where nobody bids.
    """
    option_state = state.options
    is_purchase = side > 0.0
    # The chain is quoted, but nobody bids for this contract.
    if not is_purchase and option_state.has_quotes[k] == 1 and math.isnan(option_state.bids[k]):
        return 0.0

    worsening = 0.0
    if is_purchase:
        worsening = terms.numbers[terms.options.instruments[k], SLIPPAGE]
    # NaN: the spread is unknown.
    if not math.isnan(option_state.half_spreads[k]):
        worsening += option_state.half_spreads[k]
    return options.price_by_volatility(terms, state, k, side, worsening)


def force_option(bar: r.AccountBar, k: int, contracts_traded: float) -> tuple[float, float]:
    """Trade some contracts of option k in a liquidation; return its loss, and the fee asked.

    ``contracts_traded`` are signed: positive to buy a short back. The loss is money, what the price
    is worse than the mark. Writes position, cash and premiums traded, for the price alone. The fee,
    money, is not charged: the caller charges what the account can pay of it.
    """
    terms = bar.terms
    state = bar.state
    side = 1.0 if contracts_traded > 0.0 else -1.0
    price = price_forced(terms, state, k, side)
    quantity_before = state.options.positions.quantities[k]
    mark = state.options.positions.marks[k]

    options.trade_option(state, bar.ledger, k, quantity_before + contracts_traded, price)
    fee_asked = abs(contracts_traded) * options.compute_option_fee(terms, state, k, price)
    loss = contracts_traded * (price - mark)
    return loss, fee_asked


def book_forced(bar: r.AccountBar, t: int, k: int, contracts_traded: float, loss: float) -> None:
    """Enter what was liquidated of option k into ledger and log.

    ``contracts_traded`` are signed, ``loss`` is money: what the trade cost beyond the mark, with
    the fee that was paid. The log has it in place of the fee.
    """
    state = bar.state
    mark = state.options.positions.marks[k]
    state.options.losses[k] += loss
    # Options count in the last row of the ledger, that of the account.
    bar.ledger[len(bar.ledger) - 1].liquidation_loss += loss

    owner = options.find_log_owner(state, k)
    premium = abs(contracts_traded) * mark
    r.log_event(bar.log, t, owner, Event.LIQUIDATED, mark, contracts_traded, premium)
    r.log_costs(bar.log, fee=loss, slippage=0.0, impact=0.0)


def compute_option_notional(state: r.AccountState, k: int) -> float:
    """Return the notional of an option position, in the settlement currency, without sign."""
    positions = state.options.positions
    index = 1.0 if positions.are_coin[k] else positions.indices[k]
    return float(abs(positions.quantities[k]) * positions.sizes[k] * index)


# All at once.


@of_options(returns=(0.0, 0.0))
def close_options_of_pool(bar: r.AccountBar) -> tuple[float, float]:
    """Close options of a failed pool; return the fees asked, and the premiums that share them.

    Both are money. Shorts are bought back first: only what the balance lacks then is raised from
    longs. No fee is charged yet. What was closed of each option is written into the options of the
    account (``quantities_closed``, ``losses_of_close``, ``fees_of_close``) for :func:`end_close`,
    which must follow.
    """
    option_state = bar.state.options
    for k in range(len(option_state.targets)):
        option_state.quantities_closed[k] = 0.0
        option_state.losses_of_close[k] = 0.0
        option_state.fees_of_close[k] = 0.0

    # Purchases (side 1), then sales (-1).
    fees_asked = 0.0
    premiums = 0.0
    for side in (1.0, -1.0):
        for k in range(len(option_state.targets)):
            contracts_traded = size_close(bar.terms, bar.state, k, side)
            if contracts_traded == 0.0:
                continue
            premiums_before = option_state.traded[k]
            loss, fee_asked = force_option(bar, k, contracts_traded)
            option_state.quantities_closed[k] = contracts_traded
            option_state.losses_of_close[k] = loss
            option_state.fees_of_close[k] = fee_asked

            # What asks no fee has no share of what is left for fees.
            fees_asked += fee_asked
            if fee_asked > 0.0:
                premiums += option_state.traded[k] - premiums_before

    return fees_asked, premiums


def size_close(terms: r.Terms, state: r.AccountState, k: int, side: float) -> float:
    """Return the signed contracts to trade in option k while a failed pool is closed.

    It is asked twice. With ``side`` 1, for purchases: a short is bought back whole. Then with
    ``side`` -1, for sales: a long is sold, but only as much as a negative balance needs. 0 if there
    is nothing to trade on that side.
    """
    quantity = state.options.positions.quantities[k]
    if side > 0.0:
        return -quantity if quantity < 0.0 else 0.0

    # A long owes nothing, so it stays unless the balance is negative.
    missing = -balance.compute_balance(terms, state)
    if not (quantity > 0.0 and missing > 0.0):
        return 0.0
    # Each contract brings its price. A price of 0 brings nothing: all are sold.
    price = price_forced(terms, state, k, side)
    if price * quantity > missing:
        return float(-missing / price)
    return float(-quantity)


@of_options(returns=None)
def end_close(bar: r.AccountBar, t: int, fees_asked: float, fees_paid: float) -> None:
    """Charge the fees of the options that :func:`close_options_of_pool` closed, and book losses.

    ``fees_asked`` is the sum of the fees that the venue asks for, ``fees_paid`` what the account
    can pay of it: money. Each option pays the same share of its own fee. Reads what that function
    wrote for each option, and sets ``quantities_closed`` back to 0. Writes cash, ledger and log.
    """
    option_state = bar.state.options
    # Fees of 0 are paid in full: 0 / 0 is no share.
    share = 1.0 if fees_asked == fees_paid else fees_paid / fees_asked

    for k in range(len(option_state.targets)):
        contracts_traded = option_state.quantities_closed[k]
        if contracts_traded == 0.0:
            continue
        fee = option_state.fees_of_close[k] * share
        bar.state.wallet.cash -= fee
        book_forced(bar, t, k, contracts_traded, loss=option_state.losses_of_close[k] + fee)
        option_state.quantities_closed[k] = 0.0


@of_options(returns=None)
def end_forfeit(bar: r.AccountBar, t: int, rate: float) -> None:
    """Write all options off in a takeover, each with its share of the loss.

    ``rate`` is the loss per unit of premium, which is contracts times mark, without sign. No cash
    moves: the caller has taken what the pool is worth. Writes positions, ledger and log.
    """
    option_state = bar.state.options
    for k in range(len(option_state.targets)):
        quantity = option_state.positions.quantities[k]
        premium = abs(quantity * option_state.positions.marks[k])
        if quantity == 0.0:
            continue

        option_state.traded[k] += premium
        # The log needs what was held, so it comes before the position is emptied.
        book_forced(bar, t, k, -quantity, loss=rate * premium)
        options.release(bar.state, k)


# Step by step.


def size_option_step(terms: r.Terms, state: r.AccountState, k: int) -> float:
    """Return the signed contracts to trade in option k in one step of a pool liquidation.

    Their sign is opposite to the position. A venue that liquidates the underlying in parts closes
    the share ``step`` of the position; other venues close all of it. A small position, and one of a
    pool that nothing backs any more, is closed whole in any case.
    """
    i = terms.options.instruments[k]
    quantity = state.options.positions.quantities[k]
    close_all = float(-quantity)
    share = terms.numbers[i, STEP]
    if terms.modes[i] != r.PARTIAL or not share > 0.0:
        return close_all

    # A notional that the venue does not divide.
    notional = compute_option_notional(state, k)
    if notional <= terms.numbers[i, FULL_BELOW] * (1.0 + TOLERANCE):
        return close_all
    # Each step leaves a share, so steps alone would never end.
    if abs(quantity) <= LEAST_PART * abs(state.options.started[k]):
        return close_all
    # Nothing is left behind the pool but rounding.
    if balance.compute_pool(terms, state) <= TOLERANCE * notional:
        return close_all
    return float(-quantity * share)


def may_step(terms: r.Terms, state: r.AccountState, k: int) -> bool:
    """Return whether a step of a liquidation may close option k.

    A long option whose whole value backs the pool helps the others, so it goes last: it may be
    closed where no cross position and no short option is left.
    """
    positions = state.options.positions
    quantity = positions.quantities[k]
    if quantity == 0.0:
        return False
    is_short = quantity < 0.0
    if is_short or margin.compute_counted_rate(terms.options.rules, positions, k) < 1.0:
        return True

    for i in range(len(state.positions)):
        if r.is_held(state, i) and not r.is_isolated(terms, i):
            return False
    return not balance.has_short_options(state)


@of_options(returns=None)
def take_option_step(bar: r.AccountBar, t: int, k: int) -> None:
    """Close a step of option k, charge its fee, and book it; writes account, ledger and log.

    The fee is at most what the pool has left after the trade.
    """
    contracts_traded = size_option_step(bar.terms, bar.state, k)
    loss, fee_asked = force_option(bar, k, contracts_traded)
    fee = liquidation.cap_fee(fee_asked, balance.compute_pool(bar.terms, bar.state))
    bar.state.wallet.cash -= fee
    book_forced(bar, t, k, contracts_traded, loss + fee)


@of_options(returns=-1)
def choose_option_step(bar: r.AccountBar, least: float, best: float) -> int:
    """Return the option to close a part of next in a liquidation, -1 if no option is to be closed.

    Each option's step is tried and taken back. It counts if it raises the excess of the pool (what
    backs the pool less its requirement) by more than ``least``, money: less is rounding. Of these
    the one with the highest score is returned, if that is over ``best``: the score of the best
    step among the positions, which the caller has found before.
    """
    terms = bar.terms
    state = bar.state
    best_option = -1
    for k in range(len(state.options.targets)):
        if not may_step(terms, state, k):
            continue

        gain, part = try_option_step(bar, k)
        if gain > least:
            score = score_option_step(bar, k, gain, part)
            if score > best:
                best_option = k
                best = score

    return best_option


def try_option_step(bar: r.AccountBar, k: int) -> tuple[float, float]:
    """Return what one liquidation step of option k would do, without doing it.

    The first number is how much the excess would rise, money: the excess is what backs the pool,
    less its requirement. The second is the part of the position, 0 to 1, that the step would trade.
    Position and cash are changed for the trial, and are as before when the function returns.
    """
    terms = bar.terms
    state = bar.state
    positions = state.options.positions
    quantity = positions.quantities[k]
    cash = state.wallet.cash
    excess_before = balance.compute_excess(terms, state)

    contracts_traded = size_option_step(terms, state, k)
    side = 1.0 if contracts_traded > 0.0 else -1.0
    price = price_forced(terms, state, k, side)
    state.wallet.cash -= contracts_traded * price
    positions.quantities[k] = quantity + contracts_traded
    fee_asked = abs(contracts_traded) * options.compute_option_fee(terms, state, k, price)
    fee = liquidation.cap_fee(fee_asked, balance.compute_pool(terms, state))
    gain = balance.compute_excess(terms, state) - fee - excess_before

    positions.quantities[k] = quantity
    state.wallet.cash = cash
    return gain, abs(contracts_traded / quantity)


def score_option_step(bar: r.AccountBar, k: int, gain: float, part: float) -> float:
    """Return how a step of option k ranks among the steps of a liquidation; the largest is first.

    ``gain`` is what the step adds to the excess of the pool: money. ``part`` is the share of the
    position that it trades. :func:`rank` picks the measure by which the account orders its steps.
    """
    terms = bar.terms
    state = bar.state
    positions = state.options.positions
    quantity = positions.quantities[k]

    # Relief: what the step gains per notional that it trades.
    notional_held = compute_option_notional(state, k)
    relief = gain / (notional_held * part)

    # The unrealized loss, positive. A short, whose quantity is negative, loses as the mark rises.
    mark_gain = positions.marks[k] - state.options.paid[k]
    loss = -quantity * mark_gain

    # Where options come after the futures, they rank by their deltas: notional of the underlying.
    notional_of_order = notional_held
    if terms.order == r.OPTIONS_LAST:
        delta = margin.compute_option_delta(positions, k)
        notional_of_order = abs(quantity * delta) * positions.indices[k]
    return rank(
        terms,
        relief=relief,
        loss=loss,
        needed=compute_requirement_of_option(bar, k),
        notional=notional_of_order,
        place=1.0 * (len(state.positions) + k),
    )


def compute_requirement_of_option(bar: r.AccountBar, k: int) -> float:
    """Return the maintenance margin that option k would need if nothing else were held: money.

    Only accounts whose liquidation goes by LARGEST_REQUIREMENT ask for it; for others it is 0. A
    trial: all other positions and options are written as 0, the requirement is computed, and what
    was held is written back. Collateral stays.
    """
    terms = bar.terms
    state = bar.state
    option_state = state.options
    if terms.order != r.LARGEST_REQUIREMENT:
        return 0.0

    for i in range(len(state.positions)):
        position = state.positions[i]
        bar.scratch.walk[i].quantity_aside = position.quantity
        position.quantity = 0.0
    for j in range(len(option_state.targets)):
        option_state.quantities_aside[j] = option_state.positions.quantities[j]
        option_state.positions.quantities[j] = option_state.quantities_aside[j] if j == k else 0.0
    needed = balance.compute_with_options(terms, state, False)

    for i in range(len(state.positions)):
        state.positions[i].quantity = bar.scratch.walk[i].quantity_aside
    for j in range(len(option_state.targets)):
        option_state.positions.quantities[j] = option_state.quantities_aside[j]
    return needed


def rank(
    terms: r.Terms, relief: float, loss: float, needed: float, notional: float, place: float
) -> float:
    """Return the score of a liquidation step; the step with the largest score is taken first.

    ``terms.order`` says which measure of the step is its score: ``relief``, the gain of excess per
    notional closed (the default); ``loss``, the unrealized loss; ``needed``, the requirement of the
    position alone; ``notional``; or ``place``, its place in an order by name, 0 for the first.
    Loss, needed and notional are money.
    """
    if terms.order == r.LARGEST_LOSS:
        return loss
    if terms.order == r.LARGEST_REQUIREMENT:
        return needed
    # Futures and options have lists of their own under OPTIONS_LAST, each by notional.
    if terms.order in (r.LARGEST_NOTIONAL, r.OPTIONS_LAST):
        return notional
    if terms.order == r.BY_NAME:
        return -place  # the first place is the largest
    return relief
