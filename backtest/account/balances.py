"""Functions on the balances: equity, margin ratio, costs, bad debt, and mark to market."""

from __future__ import annotations

from backtest.account.account_records import Balances, InstrumentRules, Position
from backtest.account.position import compute_profit, compute_requirement
from backtest.base.units import TOLERANCE
from backtest.venue import compute_liquidation_value


def compute_equity(rules: InstrumentRules, balances: Balances, value: float) -> float:
    position = balances.positions[0]
    if rules.is_isolated is not None:
        return balances.cash + (position.margin + compute_profit(position, value))
    return balances.cash + position.quantity * value


def compute_backing(rules: InstrumentRules, balances: Balances, value: float) -> float:
    position = balances.positions[0]
    if rules.is_isolated is not None:
        return position.margin + compute_profit(position, value)
    return balances.cash + position.quantity * value


def compute_uncounted(rules: InstrumentRules, balances: Balances, value: float) -> float:
    if rules.has_profit_share is None:
        return 0.0
    profit = compute_profit(balances.positions[0], value)
    return (1.0 - rules.profit_share) * max(profit, 0.0)


def compute_base(rules: InstrumentRules, balances: Balances) -> float:
    position = balances.positions[0]
    if rules.is_isolated is not None:
        return position.margin - position.quantity * position.entry
    return balances.cash


def is_failing(rules: InstrumentRules, balances: Balances, value: float, multiplier: float) -> bool:
    position = balances.positions[0]
    needed = compute_requirement(rules, position, value, multiplier)
    is_short = compute_backing(rules, balances, value) <= needed * (1.0 + TOLERANCE)
    return is_short & (position.quantity != 0.0)


def compute_root(rules: InstrumentRules, balances: Balances, multiplier: float) -> float:
    position = balances.positions[0]
    base = compute_base(rules, balances)
    return compute_liquidation_value(
        rules.margin, position.quantity, position.entry, base, multiplier
    )


def make_balances(cash: float, position: Position) -> Balances:
    return Balances(cash, (position,))


def make_flat_balances(cash: float, margin: float, value: float) -> Balances:
    return Balances(cash, (Position(0.0, 0.0, margin, value),))


def charge(rules: InstrumentRules, balances: Balances, amount: float) -> Balances:
    position = balances.positions[0]
    cash, margin = balances.cash - amount, position.margin
    if rules.is_isolated is not None:
        is_empty = (cash < 0.0) & (position.quantity != 0.0)
        missing = cash if is_empty else 0.0
        cash, margin = 0.0 if is_empty else cash, margin + missing
    return make_balances(cash, Position(position.quantity, position.entry, margin, position.value))


def record_shortfall(rules: InstrumentRules, balances: Balances) -> tuple[Balances, float]:
    position = balances.positions[0]
    if position.quantity != 0.0:
        return balances, 0.0
    cash, bad_debt = balances.cash, 0.0
    if rules.is_isolated is not None:
        if position.margin < 0.0:
            bad_debt = -position.margin
        else:
            cash += position.margin
    if cash < 0.0:
        bad_debt -= cash
        cash = 0.0
    return make_flat_balances(cash, 0.0, position.value), bad_debt
