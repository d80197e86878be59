"""Money that moves without a trade: deposits and withdrawals, top-ups, funding and interest."""

from __future__ import annotations

from backtest.account.account_records import Balances, InstrumentRules, Quote
from backtest.account.balances import (
    charge,
    compute_equity,
    compute_uncounted,
    make_balances,
)
from backtest.account.position import add_margin
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
