"""One position that is liquidated, or given margin from the wallet."""

from __future__ import annotations

from backtest.account import position as p
from backtest.account import records as r
from backtest.account.events import Event
from backtest.account.orders import LARGEST_WORSENING, compute_square_root_impact, floor
from backtest.account.records import Balances, InstrumentRules, Liquidation, Position, Quote
from backtest.core.kernels import cold
from backtest.core.units import TOLERANCE, Contracts, Value
from backtest.margin import compute_setting, compute_step_floor


@cold
def liquidate(
    rules: InstrumentRules, balances: Balances, value: Value, quote: Quote
) -> Liquidation:
    """Liquidate a position at a mark u by the mode of its rules (accounting 5).

    One that is closed leaves its margin in the cash, and no debt.
    """
    held = balances.position.quantity
    marked, pnl = p.mark_position(balances.position, value)
    now = Balances(balances.cash, marked)
    loss, traded = 0.0, 0.0
    if rules.liquidation_mode == r.TAKEOVER:
        traded = abs(held) * abs(value)
        now, loss = forfeit(rules, now, value)
    while now.position.quantity != 0.0:
        closed = choose_reduction(rules, now, value, abs(held), quote.multiplier)
        now, cost, notional = close_contracts(rules, now, value, closed, quote)
        loss += cost
        traded += notional
        is_left = now.position.quantity != 0.0
        if is_left and not p.is_failing(rules, now, value, quote.multiplier):
            break
    bad_debt = 0.0
    if now.position.quantity == 0.0:
        cash, left = now.cash, now.position.margin
        if rules.margin.is_isolated and left < 0.0:
            bad_debt = -left
        elif rules.margin.is_isolated:
            cash += left
        if cash < 0.0:
            bad_debt -= cash
            cash = 0.0
        now = Balances(cash, Position(0.0, 0.0, 0.0, now.position.marked))
    return Liquidation(
        balances=now,
        price_pnl=pnl,
        loss=loss,
        bad_debt=bad_debt,
        quantity=now.position.quantity - held,
        traded=traded,
    )


@cold
def forfeit(rules: InstrumentRules, balances: Balances, value: Value) -> tuple[Balances, float]:
    """Return what a takeover at u leaves, and the loss: all that backed the position."""
    backing = p.compute_backing(rules, balances, value)
    left = min(backing, 0.0)
    if rules.margin.is_isolated:
        return Balances(balances.cash, Position(0.0, 0.0, left, value)), backing - left
    return Balances(left, Position(0.0, 0.0, 0.0, value)), backing - left


@cold
def choose_reduction(
    rules: InstrumentRules, balances: Balances, value: Value, initial: float, multiplier: float
) -> float:
    """Return the signed contracts that the next step of a liquidation closes at a mark u."""
    held = balances.position.quantity
    if is_step_whole(rules, balances, value, initial):
        return held
    if rules.full_below_health > 0.0:  # is the health factor so low that all debt is repaid
        notional, backing = abs(held) * abs(value), p.compute_backing(rules, balances, value)
        needed = p.compute_requirement(rules, balances.position, value, multiplier)
        above, below = notional - needed, notional - backing
        if held < 0.0:
            above, below = notional + backing, notional + needed
        if above <= rules.full_below_health * below * (1.0 + TOLERANCE):
            return repay_all(rules, held, value, held * abs(value) - backing)
    return choose_share(rules, held, value)


def is_step_whole(rules: InstrumentRules, balances: Balances, value: Value, initial: float) -> bool:
    """Return whether a liquidation at u closes all: by mode, small rest, or nothing behind it."""
    held = balances.position.quantity
    notional = abs(held) * abs(value)
    return (
        rules.liquidation_mode != r.PARTIAL
        or notional <= rules.full_below * (1.0 + TOLERANCE)
        or abs(held) <= 1e-9 * initial
        or p.compute_backing(rules, balances, value) <= TOLERANCE * notional
    )


def choose_share(rules: InstrumentRules, held: Contracts, value: Value) -> float:
    """Return the signed contracts of a partial step at u: its share, or down to the bracket."""
    notional = abs(held) * abs(value)
    if rules.step > 0.0:
        return held * rules.step
    floor = compute_step_floor(rules.margin, notional * (1.0 - 1e-9))
    if floor == 0.0:
        return held
    side = 1.0 if held > 0.0 else -1.0
    return held - side * floor / abs(value)


@cold
def repay_all(rules: InstrumentRules, held: Contracts, value: Value, debt: float) -> float:
    """Return the signed contracts that repay a debt at a value u, fee and slippage included."""
    if held < 0.0:
        return held
    kept = (1.0 - rules.liquidation_fee) * (1.0 - rules.liquidation_slippage)
    return min(held, debt / (kept * abs(value)))


def find_fill(rules: InstrumentRules, value: Value, closed: Contracts, quote: Quote) -> float:
    """Return the value u at which a liquidation closes contracts, with slippage and impact."""
    worsening = rules.liquidation_slippage
    if rules.has_liquidation_impact:
        size = abs(closed) * abs(value)
        impact = compute_square_root_impact(rules.liquidation_impact, quote, size)
        worsening = min(worsening + impact, LARGEST_WORSENING)
    return p.worsen(rules, value, -1.0 if closed > 0.0 else 1.0, worsening)


def cap_fee(asked: float, left: float) -> float:
    most = max(left, 0.0)
    return most if asked * (1.0 + TOLERANCE) >= most else asked


@cold
def close_contracts(
    rules: InstrumentRules, balances: Balances, value: Value, closed: Contracts, quote: Quote
) -> tuple[Balances, float, float]:
    """Close some contracts at u; return the balances, the loss beyond u, and the notional."""
    position, filled = balances.position, find_fill(rules, value, closed, quote)
    quantity = position.quantity - closed
    entry = position.entry if quantity != 0.0 else 0.0
    cash, margin = balances.cash, position.margin
    if rules.margin.is_isolated:
        margin += closed * (filled - position.entry)
    else:
        cash += closed * filled
    after = Balances(cash, Position(quantity, entry, margin, value))
    notional = abs(closed) * abs(filled)
    fee = cap_fee(rules.liquidation_fee * notional, p.compute_backing(rules, after, value))
    if rules.margin.is_isolated:
        margin -= fee
    else:
        cash -= fee
    loss = closed * (value - filled) + fee
    return Balances(cash, Position(quantity, entry, margin, value)), loss, notional


@cold
def add_from_wallet(
    bar: r.AccountBar, t: int, i: int, balances: Balances, value: Value
) -> Balances:
    """Return the balances with margin added from the cash at a mark u (3); writes the log."""
    rules, quote = r.share(r.pick_instrument(bar.terms, i)), bar.quotes.instruments[i]
    position = balances.position
    needed = p.compute_requirement(rules, position, value, quote.multiplier) * (1.0 + TOLERANCE)
    missing = max(needed - p.compute_backing(rules, balances, value), 0.0)
    each = abs(position.quantity * position.entry) / compute_setting(rules.margin, quote.initial)
    amount = min((floor(missing / each) + 1.0) * each, balances.cash)
    r.log_event(bar.log, t, i, Event.MARGIN_ADDED, value, 0.0, amount)
    return Balances(balances.cash - amount, p.add_margin(position, amount))
