"""Automatic margin: what the wallet adds to an isolated position that fails its requirement.

See docs/accounting.md, section 3. Source: Bybit, Auto-Margin Replenishment.
"""

from __future__ import annotations

from backtest.account.account_records import Balances, InstrumentRules, Quote
from backtest.account.balances import compute_backing, make_balances
from backtest.account.ledger import MARGIN_ADDED, Log, write_event
from backtest.account.orders import floor
from backtest.account.position import add_margin, compute_requirement
from backtest.base.units import TOLERANCE
from backtest.venue import compute_setting


def can_add(rules: InstrumentRules, balances: Balances) -> bool:
    if rules.has_auto_margin is None:
        return False
    return balances.cash > 0.0


def add_from_wallet(
    rules: InstrumentRules, balances: Balances, value: float, quote: Quote, log: Log, t: int
) -> Balances:
    position = balances.positions[0]
    needed = compute_requirement(rules, position, value, quote.multiplier) * (1.0 + TOLERANCE)
    missing = max(needed - compute_backing(rules, balances, value), 0.0)
    each = abs(position.quantity * position.entry) / compute_setting(rules.margin, quote.initial)
    amount = min((floor(missing / each) + 1.0) * each, balances.cash)
    write_event(log, t, MARGIN_ADDED, value, 0.0, amount)
    return make_balances(balances.cash - amount, add_margin(position, amount))
