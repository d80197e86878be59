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
    """Return the price at which a liquidation trades an option on a side; money per contract.

    The worsening moves the volatility of the price, in points: half of the quoted spread, and for a
    purchase the slippage of the underlying's rules.
    """
    own = state.options
    worsening = 0.0
    if side > 0.0:
        worsening = terms.numbers[terms.options.instruments[k], SLIPPAGE]
    elif own.has_quotes[k] == 1 and math.isnan(own.bids[k]):
        # The chain is quoted, but nobody bids for this contract.
        return 0.0

    if not math.isnan(own.half_spreads[k]):
        worsening += own.half_spreads[k]
    return options.price_by_volatility(terms, state, k, side, worsening)


def force_option(bar: r.AccountBar, k: int, traded: float) -> tuple[float, float]:
    """Trade some signed contracts of option k by force; return loss from its mark, and fee asked.

    Both are money. Writes position, cash and notional traded. The fee is not charged: how much of
    it the account can pay is the caller's to say.
    """
    terms = bar.terms
    state = bar.state
    side = 1.0 if traded > 0.0 else -1.0
    price = price_forced(terms, state, k, side)
    quantity = state.options.positions.quantities[k]
    mark = state.options.positions.marks[k]

    options.trade_option(state, bar.ledger, k, quantity + traded, price)
    fee = abs(traded) * options.compute_option_fee(terms, state, k, price)
    return traded * (price - mark), fee


def book_forced(bar: r.AccountBar, t: int, k: int, traded: float, loss: float) -> None:
    """Enter the loss of an option that was liquidated into ledger and log."""
    state = bar.state
    mark = state.options.positions.marks[k]
    state.options.losses[k] += loss
    bar.ledger[len(bar.ledger) - 1].liquidation_loss += loss
    owner = options.name_option(state, k)
    r.log_event(bar.log, t, owner, Event.LIQUIDATED, mark, traded, abs(traded) * mark)
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
    longs. No fee is charged yet: what each was closed by is written for :func:`end_close`, which
    must follow.
    """
    own = bar.state.options
    for k in range(len(own.targets)):
        own.quantities_closed[k] = 0.0
        own.losses_of_close[k] = 0.0
        own.fees_of_close[k] = 0.0

    asked = 0.0
    premiums = 0.0
    for side in (1.0, -1.0):
        for k in range(len(own.targets)):
            traded = size_close(bar.terms, bar.state, k, side)
            if traded == 0.0:
                continue
            traded_before = own.traded[k]
            loss, fee = force_option(bar, k, traded)
            own.quantities_closed[k] = traded
            own.losses_of_close[k] = loss
            own.fees_of_close[k] = fee

            # What asks no fee has no share of what is left for fees.
            asked += fee
            if fee > 0.0:
                premiums += own.traded[k] - traded_before

    return asked, premiums


def size_close(terms: r.Terms, state: r.AccountState, k: int, side: float) -> float:
    """Return the signed contracts of an option that closing trades on a side.

    Shorts close whole; longs are sold as far as the balance is negative.
    """
    quantity = state.options.positions.quantities[k]
    if side > 0.0:
        return -quantity if quantity < 0.0 else 0.0

    # A long one brings its price.
    missing = -balance.compute_balance(terms, state)
    if not (quantity > 0.0 and missing > 0.0):
        return 0.0
    price = price_forced(terms, state, k, side)
    if price * quantity > missing:
        return float(-missing / price)
    return float(-quantity)


@of_options(returns=None)
def end_close(bar: r.AccountBar, t: int, asked: float, paid: float) -> None:
    """Charge closed options the fees that the account can pay, and book and log their losses.

    ``asked`` are the fees of all of them, ``paid`` what the account pays of that: money. Each pays
    the same share of its own fee. Reads what :func:`close_options_of_pool` has written of each, and
    empties its quantity.
    """
    own = bar.state.options
    # Fees of 0 are paid in full: 0 / 0 is no share.
    share = 1.0 if asked == paid else paid / asked

    for k in range(len(own.targets)):
        traded = own.quantities_closed[k]
        if traded == 0.0:
            continue
        fee = own.fees_of_close[k] * share
        bar.state.wallet.cash -= fee
        book_forced(bar, t, k, traded, loss=own.losses_of_close[k] + fee)
        own.quantities_closed[k] = 0.0


@of_options(returns=None)
def end_forfeit(bar: r.AccountBar, t: int, rate: float) -> None:
    """Write options off, each with its share of the loss: ``rate`` of its premium."""
    own = bar.state.options
    for k in range(len(own.targets)):
        quantity = own.positions.quantities[k]
        premium = abs(quantity * own.positions.marks[k])
        if quantity != 0.0:
            own.traded[k] += premium
            book_forced(bar, t, k, traded=-quantity, loss=rate * premium)
            options.release(bar.state, k)


# Step by step.


def size_option_step(terms: r.Terms, state: r.AccountState, k: int) -> float:
    """Return the signed contracts of an option that a step of a liquidation trades.

    A share of it, or all: by the mode of its underlying, at a small rest, or with nothing left
    behind the pool.
    """
    i = terms.options.instruments[k]
    quantity = state.options.positions.quantities[k]
    share = terms.numbers[i, STEP]
    if terms.modes[i] != r.PARTIAL or not share > 0.0:
        return float(-quantity)

    notional = compute_option_notional(state, k)
    if notional <= terms.numbers[i, FULL_BELOW] * (1.0 + TOLERANCE):
        return float(-quantity)
    if abs(quantity) <= LEAST_PART * abs(state.options.started[k]):
        return float(-quantity)
    if balance.compute_pool(terms, state) <= TOLERANCE * notional:
        return float(-quantity)
    return float(-quantity * share)


def may_step(terms: r.Terms, state: r.AccountState, k: int) -> bool:
    """Return whether a step may close an option.

    A long one that counts in full backs the others, so it goes last: where no position and no short
    option is left.
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
    """Trade a step of option k, and book it."""
    traded = size_option_step(bar.terms, bar.state, k)
    loss, asked = force_option(bar, k, traded)
    fee = liquidation.cap_fee(asked, balance.compute_pool(bar.terms, bar.state))
    bar.state.wallet.cash -= fee
    book_forced(bar, t, k, traded, loss + fee)


@of_options(returns=-1)
def choose_option_step(bar: r.AccountBar, least: float, best: float) -> int:
    """Return the option whose step of a liquidation ranks best, -1 if none beats what is given.

    ``least`` is what a step must add to the excess of the pool (backing less level times
    requirement): money, more than rounding. ``best`` is the score that it must beat.
    """
    terms = bar.terms
    state = bar.state
    chosen = -1
    for k in range(len(state.options.targets)):
        if not may_step(terms, state, k):
            continue

        gain, part = try_option_step(bar, k)
        if gain > least:
            score = score_option_step(bar, k, gain, part)
            if score > best:
                chosen = k
                best = score

    return chosen


def try_option_step(bar: r.AccountBar, k: int) -> tuple[float, float]:
    """Return what a step of option k adds to the excess of the pool, and the part that it trades.

    Writes position and cash as after the step, asks, and takes them back.
    """
    terms = bar.terms
    state = bar.state
    positions = state.options.positions
    quantity = positions.quantities[k]
    cash = state.wallet.cash
    excess_before = balance.compute_excess(terms, state)

    traded = size_option_step(terms, state, k)
    side = 1.0 if traded > 0.0 else -1.0
    price = price_forced(terms, state, k, side)
    state.wallet.cash -= traded * price
    positions.quantities[k] = quantity + traded
    asked = abs(traded) * options.compute_option_fee(terms, state, k, price)
    fee = liquidation.cap_fee(asked, balance.compute_pool(terms, state))
    gain = balance.compute_excess(terms, state) - fee - excess_before

    positions.quantities[k] = quantity
    state.wallet.cash = cash
    return gain, abs(traded / quantity)


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
    """Return the requirement of option k alone, 0 if no step ranks by it: money.

    Hides all other positions and options, asks, and takes that back. Collateral stays.
    """
    terms = bar.terms
    state = bar.state
    own = state.options
    if terms.order != r.LARGEST_REQUIREMENT:
        return 0.0

    for i in range(len(state.positions)):
        position = state.positions[i]
        bar.scratch.walk[i].quantity_aside = position.quantity
        position.quantity = 0.0
    for j in range(len(own.targets)):
        own.quantities_aside[j] = own.positions.quantities[j]
        own.positions.quantities[j] = own.quantities_aside[j] if j == k else 0.0
    needed = balance.compute_with_options(terms, state, False)

    for i in range(len(state.positions)):
        state.positions[i].quantity = bar.scratch.walk[i].quantity_aside
    for j in range(len(own.targets)):
        own.positions.quantities[j] = own.quantities_aside[j]
    return needed


def rank(
    terms: r.Terms, relief: float, loss: float, needed: float, notional: float, place: float
) -> float:
    """Return how a step of a liquidation ranks in the order of the account: the largest first.

    ``relief`` is the gain of excess per notional closed, ``loss`` the unrealized loss, ``needed``
    the requirement of the position alone: money. ``place`` is its place in an order by name.
    """
    if terms.order == r.LARGEST_LOSS:
        return loss
    if terms.order == r.LARGEST_REQUIREMENT:
        return needed
    if terms.order in (r.LARGEST_NOTIONAL, r.OPTIONS_LAST):
        return notional
    if terms.order == r.BY_NAME:
        return -place
    return relief
