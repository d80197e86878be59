"""One position that is liquidated, or given margin from the wallet (section 5).

====================  ============================================================================
word                  what it is, and its unit
====================  ============================================================================
value                 mark value at which the position fails: it is closed from there
closed                signed contracts that a step of a liquidation closes
step                  one reduction; a partial liquidation has as many as it needs
rest                  what a step leaves: a small one is closed whole
loss                  what closing costs beyond the value: slippage, impact and fee, money
health factor         assets at their liquidation thresholds / debts, of a loan
====================  ============================================================================
"""

from __future__ import annotations

from typing import NamedTuple

from backtest import margin
from backtest.account import balance
from backtest.account import position as p
from backtest.account import records as r
from backtest.account.events import Event
from backtest.account.orders import LARGEST_WORSENING, compute_square_root_impact, floor
from backtest.account.records import Balances, InstrumentRules, Position, Quote
from backtest.core.kernels import cold
from backtest.core.units import TOLERANCE, Contracts, Value
from backtest.margin import compute_setting, compute_step_floor

LEAST_PART = 1e-9
"""Part of what was there at the start that is as good as nothing: rounding of repeated steps."""


class Step(NamedTuple):
    """What a step of a liquidation did: balances after it, its loss and the notional closed.

    The loss is what fill and fee take beyond the contract value at which the position failed. Both
    are money.
    """

    balances: Balances
    loss: float
    notional: float


class Loan(NamedTuple):
    """A pool read as a margin loan, whose health factor is assets / debts: money.

    ``borrowed_cash`` is the part of the debts that is money, 0 if none is borrowed; the rest are
    coins that were sold short.
    """

    assets: float
    debts: float
    borrowed_cash: float


@cold
def liquidate(bar: r.AccountBar, t: int, i: int, balances: Balances, value: Value) -> Balances:
    """Liquidate one position by the mode of its venue; return the balances after it (accounting 5).

    In a takeover the venue takes the position and all that backs it. In the other modes it closes
    the position at once, or step by step until it no longer fails. ``value`` is the contract value,
    by the mark price, at which it failed; ``balances`` are cash and position before. The position
    is isolated, or the only one of the pool. Writes ledger and log, one entry for all steps.

    The margin left of a closed isolated position goes to the cash; if it is negative, the venue
    bears it as bad debt. A closed cross position may leave negative cash, which the caller,
    the liquidation of the pool, writes off.
    """
    rules = r.by_reference(r.pick_instrument(bar.terms, i))
    is_isolated = rules.margin.is_isolated
    money = bar.ledger[i]
    quantity_before = balances.position.quantity
    marked, pnl = p.mark_position(balances.position, value)
    now = Balances(balances.cash, marked)

    # A takeover leaves nothing to reduce, so the loop below does not run after it.
    loss = 0.0
    mode = rules.liquidation_mode if is_isolated else bar.terms.liquidation_mode
    if mode == r.TAKEOVER:
        money.traded += abs(quantity_before) * abs(value)
        now, loss = forfeit(rules, now, value)
    while now.position.quantity != 0.0:
        step = take_step(bar, i, before=balances, now=now, value=value)
        now = step.balances
        loss += step.loss
        money.traded += step.notional
        if now.position.quantity != 0.0 and not is_still_failing(bar, i, now, value):
            break

    r.log_liquidation(bar.log, t, i, value, now.position.quantity - quantity_before, loss)
    money.price_pnl += pnl
    money.liquidation_loss += loss
    # That of a pool is counted by the liquidation of the pool.
    money.liquidations += 1.0 if is_isolated else 0.0
    if is_isolated and now.position.quantity == 0.0:
        return release_margin(bar, t, i, now, value)
    return now


def take_step(bar: r.AccountBar, i: int, before: Balances, now: Balances, value: Value) -> Step:
    """Take the next step of a liquidation: close a part of the position, or all; return the step.

    ``before`` are the balances at the start of the liquidation, ``now`` those after the steps so
    far, ``value`` the contract value at which the position failed.

    The test after a step, :func:`is_still_failing`, reads a cross position from the account, so the
    balances of a cross position are written there. Those of an isolated one are returned alone.
    """
    terms = bar.terms
    rules = r.by_reference(r.pick_instrument(terms, i))
    quote = bar.quotes.instruments[i]

    # The size of a step may depend on the health factor, assets / debts. ``choose_reduction``
    # computes it from the position alone, which is all that the pool has, at a level of
    # liquidation of 1. At another level it is computed from the account.
    has_health_of_pool = not rules.margin.is_isolated and rules.full_below_health > 0.0
    if has_health_of_pool and terms.rules.level != 1.0:
        closed = choose_pool_reduction(bar, i)
    else:
        size_at_start = abs(before.position.quantity)
        closed = choose_reduction(rules, now, value, size_at_start, quote.multiplier)

    step = close_contracts(rules, now, value, closed, quote)
    if not rules.margin.is_isolated:
        balance.put_balances(terms, bar.state, i, before, after=step.balances)
    return step


def is_still_failing(bar: r.AccountBar, i: int, now: Balances, value: Value) -> bool:
    """Return whether the requirement still fails after a step of a liquidation.

    ``now`` are the balances of an isolated position after it. A cross position is tested as a part
    of the pool, on what stands in the account: its step must be written there before.
    """
    rules = r.by_reference(r.pick_instrument(bar.terms, i))
    if rules.margin.is_isolated:
        return p.is_failing(rules, now, value, bar.quotes.instruments[i].multiplier)
    return balance.is_pool_short(bar.terms, bar.state)


def release_margin(bar: r.AccountBar, t: int, i: int, now: Balances, value: Value) -> Balances:
    """Return the balances without a closed isolated position: its margin goes to the cash.

    Where it is negative, that is bad debt, which the venue bears; the cash is not touched.
    """
    left = now.position.margin
    if left < 0.0:
        balance.book_bad_debt(bar, t, i, value, debt=-left)
    return Balances(now.cash + max(left, 0.0), Position(0.0, 0.0, 0.0, value))


@cold
def forfeit(rules: InstrumentRules, balances: Balances, value: Value) -> tuple[Balances, float]:
    """Return the balances after a takeover at a contract value, and the loss; writes nothing.

    The venue takes the position and all that backs it: that is the loss, money. What backs an
    isolated position is its margin with the profit, so the cash stays. What backs a cross one is
    the cash with the value of the position, so no cash is left. A backing under 0 cannot be taken:
    it is no loss, but stays as a debt, a negative margin or cash, which is bad debt later.
    """
    backing = p.compute_backing(rules, balances, value)
    debt = min(backing, 0.0)
    loss = backing - debt  # 0 where there is a debt
    if rules.margin.is_isolated:
        owing = Position(quantity=0.0, entry=0.0, margin=debt, marked=value)
        return Balances(balances.cash, owing), loss
    flat = Position(quantity=0.0, entry=0.0, margin=0.0, marked=value)
    return Balances(debt, flat), loss


# How much a step closes.


@cold
def choose_reduction(
    rules: InstrumentRules,
    balances: Balances,
    value: Value,
    size_at_start: float,
    multiplier: float,
) -> float:
    """Return the signed contracts that the next liquidation step of one position closes.

    That is all of them, the venue's share, or what brings the notional down to the floor of its
    bracket in the margin table. A margin loan whose health factor is low closes as many as repay
    it. ``value`` is the contract value at which the position failed, ``size_at_start`` the number
    of contracts, without sign, with which the liquidation began.
    """
    held = balances.position.quantity
    if is_step_whole(rules, balances, value, size_at_start):
        return held
    # Only margin loans have a health factor.
    if not rules.full_below_health > 0.0:
        return choose_share(rules, held, value)

    # Assets and debts of the loan, money: backing = assets - debts. The lender counts against the
    # trader, so the maintenance margin is taken off the assets, or added to the debts.
    notional = abs(held) * abs(value)
    backing = p.compute_backing(rules, balances, value)
    needed = p.compute_requirement(rules, balances.position, value, multiplier)
    if held < 0.0:
        # A short owes its coins, and has the money that they were sold for.
        assets = notional + backing
        debts = notional + needed
    else:
        # A long has its coins, and owes the money that they were bought with.
        assets = notional - needed
        debts = notional - backing

    # The health factor, assets / debts, is low: the step repays the whole debt.
    if assets <= rules.full_below_health * debts * (1.0 + TOLERANCE):
        return repay_all(rules, held, value, debts)
    return choose_share(rules, held, value)


def is_step_whole(
    rules: InstrumentRules, balances: Balances, value: Value, size_at_start: float
) -> bool:
    """Return whether the next step of a liquidation closes all that is left of a position.

    ``value`` is the contract value at which it failed, ``size_at_start`` the contracts, without
    sign, with which the liquidation began.
    """
    held = balances.position.quantity
    notional = abs(held) * abs(value)
    if rules.liquidation_mode != r.PARTIAL:
        return True

    # The venue does not divide a small notional.
    if notional <= rules.full_below * (1.0 + TOLERANCE):
        return True
    # Steps that close a share each leave ever less, and would never end.
    if abs(held) <= LEAST_PART * size_at_start:
        return True
    # Nothing backs the position any more, give or take rounding.
    return p.compute_backing(rules, balances, value) <= TOLERANCE * notional


def choose_share(rules: InstrumentRules, held: Contracts, value: Value) -> float:
    """Return how many of the ``held`` signed contracts a partial liquidation step closes.

    ``rules.step`` is the share that the venue closes in each step. A venue without such a share, 0,
    closes as much as brings the notional, at contract ``value``, down to the floor of its bracket
    in the margin table.
    """
    if rules.step > 0.0:
        return held * rules.step

    # A notional that stands on the floor of its bracket goes down to the next floor. LEAST_PART is
    # more than rounding.
    notional = abs(held) * abs(value)
    floor_below = compute_step_floor(rules.margin, notional * (1.0 - LEAST_PART))
    # The lowest bracket has none below: all closes.
    if floor_below == 0.0:
        return held
    side = 1.0 if held > 0.0 else -1.0
    return held - side * floor_below / abs(value)


@cold
def repay_all(rules: InstrumentRules, held: Contracts, value: Value, debt: float) -> float:
    """Return the signed contracts that repay a debt at a contract value, fee and slippage included.

    The debt of a short is all of it.
    """
    if held < 0.0:
        return held
    received = (1.0 - rules.liquidation_fee) * (1.0 - rules.liquidation_slippage)
    return min(held, debt / (received * abs(value)))


def find_fill(rules: InstrumentRules, value: Value, closed: Contracts, quote: Quote) -> float:
    """Return the contract value at which a liquidation fills, with slippage and impact.

    ``closed`` are contracts signed as the position is: a long one is sold, below ``value``, the
    contract value at which it failed; a short one is bought back above it.
    """
    worsening = rules.liquidation_slippage
    if rules.liquidation_impact > 0.0:
        notional = abs(closed) * abs(value)
        impact = compute_square_root_impact(rules.liquidation_impact, quote, notional)
        worsening = min(worsening + impact, LARGEST_WORSENING)
    side = -1.0 if closed > 0.0 else 1.0
    return p.worsen(rules, value, side, worsening)


def choose_pool_reduction(bar: r.AccountBar, i: int) -> float:
    """Return the signed contracts of instrument i that a liquidation step of the pool closes.

    That is all of them, the venue's share, or, for a margin loan whose health factor is low, as
    many as repay the borrowed cash. :func:`choose_reduction` has the same rules for a position on
    its own; here backing and health factor are those of the whole pool.
    """
    state = bar.state
    rules = r.by_reference(r.pick_instrument(bar.terms, i))
    position = r.pick_position(state, i)
    held = position.quantity
    value = state.positions[i].value

    # ``is_step_whole`` adds up the backing as cash + quantity * value. The cash is chosen here so
    # that this sum is the backing of the whole pool.
    backing = balance.compute_pool(bar.terms, state)
    balances = r.Balances(backing - held * value, position)
    size_at_start = abs(bar.scratch.walk[i].quantity_at_start)
    if is_step_whole(rules, balances, value, size_at_start):
        return held
    # Only margin loans have a health factor.
    if not rules.full_below_health > 0.0:
        return choose_share(rules, held, value)

    # A low health factor, assets / debts, makes a step repay the whole debt: a short buys back its
    # coins, a long is sold to repay borrowed cash. A long without borrowed cash has no debt.
    loan = sum_loan(bar, backing)
    is_low = loan.assets <= rules.full_below_health * loan.debts * (1.0 + TOLERANCE)
    if is_low and (held < 0.0 or loan.borrowed_cash > 0.0):
        return repay_all(rules, held, value, loan.borrowed_cash)
    return choose_share(rules, held, value)


def sum_loan(bar: r.AccountBar, backing: float) -> Loan:
    """Return assets and debts of the pool as a lender sees them, for its health factor.

    A long position is an asset that was bought for cash. A short position is a debt: coins that
    were borrowed and sold for cash. The cash itself is an asset, or a debt where it is negative.
    The lender counts an asset less its maintenance margin, and a debt plus its maintenance margin.

    ``backing`` is the net worth of the pool, money: cash, collateral, and the value of positions,
    positive for longs and negative for shorts. Positions count at their ``value``.
    """
    terms = bar.terms
    held = bar.state.held
    assets = margin.compute_collateral_value(terms.rules.collateral, held)
    debts = 0.0

    # Backing less collateral and positions leaves the cash. The loop takes the positions out.
    cash = backing - assets
    for j in range(len(bar.state.positions)):
        if not r.is_held(bar.state, j) or r.is_isolated(terms, j):
            continue
        position = bar.state.positions[j]
        notional = abs(position.quantity * position.value)
        # The pool fails where its backing is under ``level`` times its maintenance margin.
        needed = terms.rules.level * margin.find_own_maintenance(terms.rules, held, j)

        if position.quantity > 0.0:
            cash -= notional
            assets += notional - needed
        else:
            cash += notional
            debts += notional + needed

    borrowed_cash = max(-cash, 0.0)
    assets += max(cash, 0.0)
    debts += borrowed_cash
    return Loan(assets=assets, debts=debts, borrowed_cash=borrowed_cash)


# What closing costs.


def cap_fee(asked: float, left: float) -> float:
    """Return the fee that is paid: what is asked, but at most what is left, money.

    A fee that equals what is left, give or take rounding, takes exactly that, so that no dust of it
    remains.
    """
    largest = max(left, 0.0)
    if asked * (1.0 + TOLERANCE) >= largest:
        return largest
    return asked


@cold
def close_contracts(
    rules: InstrumentRules, balances: Balances, value: Value, closed: Contracts, quote: Quote
) -> Step:
    """Return the balances after closing some contracts of a liquidated position, loss and notional.

    ``closed`` are contracts with the sign of the position. ``value`` is the contract value at which
    the position failed its maintenance margin; the close fills worse than that. The loss is that
    difference and the liquidation fee, money. Writes nothing.
    """
    position = balances.position
    filled = find_fill(rules, value, closed, quote)
    quantity_left = position.quantity - closed
    entry = position.entry if quantity_left != 0.0 else 0.0

    # The cash has paid the full price of a cross position, so a close pays its value into the cash.
    # Behind an isolated position stands only its posted margin, so the profit goes into that.
    cash = balances.cash
    margin = position.margin
    if rules.margin.is_isolated:
        margin += closed * (filled - position.entry)
    else:
        cash += closed * filled

    # The fee is at most what backs the position after the fill.
    before_fee = Balances(cash, Position(quantity_left, entry, margin, value))
    notional = abs(closed) * abs(filled)
    fee = cap_fee(rules.liquidation_fee * notional, p.compute_backing(rules, before_fee, value))
    if rules.margin.is_isolated:
        margin -= fee
    else:
        cash -= fee
    return Step(
        balances=Balances(cash, Position(quantity_left, entry, margin, value)),
        loss=closed * (value - filled) + fee,
        notional=notional,
    )


# Margin from the wallet.


@cold
def add_from_wallet(
    bar: r.AccountBar, t: int, i: int, balances: Balances, value: Value
) -> Balances:
    """Return the balances after automatic margin: cash posted to a position that fails.

    Margin is added in portions of the initial margin at the entry, as many as it takes until the
    maintenance margin is covered again, or as the cash has (accounting 3). ``value`` is the
    contract value, by the mark price, at which the position fails. Writes the log alone.
    """
    rules = r.by_reference(r.pick_instrument(bar.terms, i))
    quote = bar.quotes.instruments[i]
    position = balances.position

    # Rounding of the requirement counts against the position.
    requirement = p.compute_requirement(rules, position, value, quote.multiplier)
    needed = requirement * (1.0 + TOLERANCE)
    backing = p.compute_backing(rules, balances, value)
    missing = max(needed - backing, 0.0)

    # A portion is one initial margin. One more than the whole portions that are missing: at
    # equality the requirement still fails.
    setting = compute_setting(rules.margin, quote.initial)
    portion = abs(position.quantity * position.entry) / setting
    n_portions = floor(missing / portion) + 1.0
    amount = min(n_portions * portion, balances.cash)
    r.log_event(bar.log, t, i, Event.MARGIN_ADDED, value, quantity=0.0, amount=amount)
    return Balances(balances.cash - amount, p.add_margin(position, amount))
