"""One position that is liquidated, or given margin from the wallet."""

from __future__ import annotations

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


@cold
def liquidate(bar: r.AccountBar, t: int, i: int, balances: Balances, value: Value) -> Balances:
    """Liquidate a position at a mark u by its mode; return what it leaves (accounting 5).

    It is isolated, or all that the pool has. One that is closed leaves its margin in the cash, and
    no debt. Writes ledger and log.
    """
    terms, state, money = bar.terms, bar.state, bar.ledger[i]
    rules, quote = r.share(r.pick_instrument(terms, i)), bar.quotes.instruments[i]
    is_isolated, mode, loss = rules.margin.is_isolated, rules.liquidation_mode, 0.0
    has_level = not is_isolated and rules.full_below_health > 0.0 and terms.rules.level != 1.0
    held = balances.position.quantity
    marked, pnl = p.mark_position(balances.position, value)
    now = Balances(balances.cash, marked)
    if (mode if is_isolated else terms.liquidation_mode) == r.TAKEOVER:
        money.traded += abs(held) * abs(value)
        now, loss = forfeit(rules, now, value)
    while now.position.quantity != 0.0:
        closed = choose_reduction(rules, now, value, abs(held), quote.multiplier)
        closed = find_step(bar, i) if has_level else closed
        now, cost, notional = close_contracts(rules, now, value, closed, quote)
        loss += cost
        money.traded += notional
        is_failing = p.is_failing(rules, now, value, quote.multiplier)
        if not is_isolated:
            balance.put_balances(terms, state, i, balances, now)
            is_failing = balance.is_pool_short(terms, state)
        if now.position.quantity != 0.0 and not is_failing:
            break
    r.log_liquidation(bar.log, t, i, value, now.position.quantity - held, loss)
    money.price_pnl += pnl
    money.liquidation_loss += loss
    money.liquidations += 1.0 if is_isolated else 0.0
    left = now.position.margin
    if is_isolated and now.position.quantity == 0.0:
        if left < 0.0:
            r.log_event(bar.log, t, i, Event.BAD_DEBT, value, 0.0, -left)
            money.bad_debt -= left
        now = Balances(now.cash + max(left, 0.0), Position(0.0, 0.0, 0.0, value))
    return now


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
    if rules.liquidation_impact > 0.0:
        size = abs(closed) * abs(value)
        impact = compute_square_root_impact(rules.liquidation_impact, quote, size)
        worsening = min(worsening + impact, LARGEST_WORSENING)
    return p.worsen(rules, value, -1.0 if closed > 0.0 else 1.0, worsening)


def find_step(bar: r.AccountBar, i: int) -> float:
    """Return the signed contracts that the next step of a liquidation of the pool closes."""
    terms, state, scratch = bar.terms, bar.state, bar.scratch
    position, rules = r.pick_position(state, i), r.share(r.pick_instrument(terms, i))
    held, value = position.quantity, state.positions[i].value
    pool = balance.compute_pool(terms, state)
    balances = r.Balances(pool - held * value, position)
    if is_step_whole(rules, balances, value, abs(scratch.walk[i].quantity_at_start)):
        return held
    if rules.full_below_health > 0.0:  # assets and debts of the health factor, and debt in cash
        assets, debts = margin.compute_collateral_value(terms.rules.collateral, state.held), 0.0
        cash = pool - assets
        for j in range(len(state.positions)):
            if r.is_held(state, j) and not r.is_isolated(terms, j):
                other = state.positions[j]
                notional = abs(other.quantity * other.value)
                own = terms.rules.level * margin.find_own_maintenance(terms.rules, state.held, j)
                if other.quantity > 0.0:
                    cash -= notional
                    assets += notional - own
                else:
                    cash += notional
                    debts += notional + own
        debt = max(-cash, 0.0)
        most = rules.full_below_health * (debts + debt) * (1.0 + TOLERANCE)
        if assets + max(cash, 0.0) <= most and (held < 0.0 or debt > 0.0):
            return repay_all(rules, held, value, debt)
    return choose_share(rules, held, value)


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
