"""Ruin: when an account is ruined, and how it is closed. See docs/accounting.md, section 5."""

from __future__ import annotations

from typing import Any

from backtest.account.account_records import Balances, InstrumentRules, Quote, Rules
from backtest.account.balances import compute_equity, make_flat_balances, record_shortfall
from backtest.account.orders import find_limit
from backtest.base.units import TOLERANCE
from backtest.venue import compute_best_leverage

NOTHING_LEFT = 1e-9
"""Equity up to this share of the capital paid in counts as nothing."""

CAUTION = 4e-12
"""Share of the capital paid in that :func:`find_line` adds as a margin for rounding."""


def is_ruin(
    rules: Rules,
    balances: Balances,
    quote: Quote,
    equity: float,
    reserve: float,
    paid_in: float,
) -> bool:
    wealth = equity + reserve
    is_under = wealth <= rules.account.ruin_at * paid_in * (1.0 + TOLERANCE)
    is_under |= equity <= NOTHING_LEFT * paid_in * (1.0 + TOLERANCE)
    is_flat = balances.positions[0].quantity == 0.0
    return is_under | (is_poor(rules.instrument, quote, wealth, 1.0 - TOLERANCE) & is_flat)


def is_poor(rules: InstrumentRules, quote: Quote, wealth: float, tolerance: float) -> bool:
    if rules.has_rounding is None:
        return False
    most = compute_best_leverage(rules.margin, quote.initial)
    limit = find_limit(rules, quote)
    most = limit if limit < most else most
    least = max(rules.min_notional, rules.lot * abs(quote.mark_close))
    is_under = wealth * most < least * tolerance
    if rules.has_limits is not None:
        is_under &= limit > 0.0  # a ban passes
    return is_under


def close_ruined(
    rules: InstrumentRules, balances: Balances, quote: Quote
) -> tuple[Balances, float]:
    left = compute_equity(rules, balances, quote.mark_close)
    return record_shortfall(rules, make_flat_balances(left, 0.0, quote.mark_close))


def find_line(ruin_at: Any, reserve: Any, paid_in: Any) -> Any:
    least, line = NOTHING_LEFT * paid_in, ruin_at * paid_in - reserve
    return least * (line <= least) + line * (line > least) + CAUTION * paid_in


def pay_in(paid_in: float, wealth: float, moved: float) -> float:
    if moved >= 0.0:
        return paid_in + moved
    left = wealth + moved
    return paid_in * (left / wealth) if left > 0.0 else 0.0
