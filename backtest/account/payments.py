"""Money that moves without a trade: deposits and withdrawals, top-ups, funding and interest."""

from __future__ import annotations

from backtest.account.account_records import Balances, InstrumentRules, Quote, Rules
from backtest.account.balances import (
    charge,
    compute_backing,
    compute_equity,
    compute_uncounted,
    make_balances,
)
from backtest.account.position import add_margin, compute_requirement
from backtest.venue import compute_initial, compute_payment


def compute_free_of_one(rules: InstrumentRules, balances: Balances, quote: Quote) -> float:
    """Return what may leave an account of one position: RULES 2.1, without a limit on B."""
    notional = abs(balances.positions[0].quantity) * abs(quote.mark_open)
    free = compute_equity(rules, balances, quote.mark_open)
    free -= compute_uncounted(rules, balances, quote.mark_open)
    if notional > 0.0:
        free -= compute_initial(rules.margin, notional, quote.initial)
    if rules.is_isolated is not None:
        free = min(free, balances.cash)
    return max(free, 0.0)


def apply_flow(
    rules: InstrumentRules, balances: Balances, quote: Quote, amount: float
) -> tuple[Balances, float]:
    moved = amount
    if amount < 0.0:
        moved = -min(-amount, compute_free_of_one(rules, balances, quote))
    return make_balances(balances.cash + moved, balances.positions[0]), moved


def top_up(
    rules: Rules, balances: Balances, quote: Quote, reserve: float
) -> tuple[Balances, float, float]:
    instrument, position = rules.instrument, balances.positions[0]
    if position.quantity == 0.0:
        return balances, 0.0, 0.0
    needed = compute_requirement(instrument, position, quote.mark_open, quote.multiplier)
    backing = compute_backing(instrument, balances, quote.mark_open)
    missing = needed / rules.account.top_up_to - backing
    moved = min(max(missing, 0.0), reserve)
    if instrument.is_isolated is not None:
        return make_balances(balances.cash, add_margin(position, moved)), moved, missing
    return make_balances(balances.cash + moved, position), moved, missing


def pay_funding(
    rules: InstrumentRules, balances: Balances, value: float, rate: float
) -> tuple[Balances, float]:
    position = balances.positions[0]
    paid = compute_payment(position.quantity, value, rate)
    if rules.is_isolated is None:
        return make_balances(balances.cash - paid, position), paid
    if rules.is_funded_by_wallet:
        return charge(rules, balances, paid), paid
    return make_balances(balances.cash, add_margin(position, -paid)), paid


def charge_interest(
    rules: Rules,
    balances: Balances,
    quote: Quote,
    years: float,
    borrow_rate: float,
    cash_rate: float,
    short_rate: float,
) -> tuple[Balances, float]:
    instrument, position = rules.instrument, balances.positions[0]
    if rules.account.is_loan:
        balance = balances.cash
        if instrument.is_isolated is not None:
            balance += position.margin - position.quantity * position.entry
    elif instrument.is_isolated is not None:
        balance = balances.cash + position.margin
    else:
        balance = balances.cash + position.quantity * position.entry
    rate = cash_rate if balance > 0.0 else borrow_rate
    interest = -balance * rate * years
    if rules.account.is_loan and position.quantity < 0.0:
        interest += abs(position.quantity * quote.mark_open) * short_rate * years
    return charge(instrument, balances, interest), interest
