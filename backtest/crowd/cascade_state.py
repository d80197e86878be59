"""The books of a cascade: every account, the liquidity account, the insurance fund, the venue.

All arrays have one entry per account. Money is in the settlement currency, values are u. The sum of
all equities, the fund, the fees and what the venue owes never changes: :func:`check_conservation`
verifies it after every round.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from backtest.base import AccountingError, BoolArray, FloatArray, IntArray
from backtest.crowd.account_margin import find_liquidation_prices, to_value
from backtest.crowd.crowd import Crowd
from backtest.venue import MarginRules

SLACK = 1e-9
"""How far the books may be from balance, as a share of all money and notional in them."""


@dataclass
class CascadeState:
    rules: MarginRules
    quantity: FloatArray
    entry: FloatArray
    base: FloatArray
    safe: FloatArray
    liquidation: FloatArray
    insurance: float
    first_quantity: FloatArray
    first_equity: FloatArray
    fund_paid: float = 0.0
    fees: float = 0.0
    unpaid: float = 0.0
    deficit: float = 0.0
    liquidity_quantity: float = 0.0
    liquidity_base: float = 0.0
    multiplier: float = 1.0
    haircut: FloatArray = field(default_factory=lambda: np.zeros(0))
    deleveraged: FloatArray = field(default_factory=lambda: np.zeros(0))
    closed: FloatArray = field(default_factory=lambda: np.zeros(0))
    closed_money: FloatArray = field(default_factory=lambda: np.zeros(0))
    first_round: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    last: FloatArray = field(default_factory=lambda: np.zeros(0))

    @property
    def fund(self) -> float:
        return self.insurance - self.fund_paid

    def equity(self, value: float) -> FloatArray:
        return self.base + self.quantity * value + self.safe

    def recompute(self, rows: IntArray | BoolArray | slice) -> None:
        self.liquidation[rows] = find_liquidation_prices(
            self.rules, self.quantity[rows], self.entry[rows], self.base[rows], self.multiplier
        )


def open_state(
    crowd: Crowd, rules: MarginRules, insurance: float, multiplier: float, start: float
) -> CascadeState:
    n = len(crowd)
    entry = np.asarray(to_value(rules, crowd.entry))
    net = float(np.sum(crowd.quantity))
    state = CascadeState(
        rules=rules,
        quantity=crowd.quantity.copy(),
        entry=entry,
        base=crowd.collateral - crowd.quantity * entry,
        safe=crowd.equity - crowd.collateral,
        liquidation=np.full(n, np.nan),
        insurance=insurance,
        first_quantity=crowd.quantity.copy(),
        first_equity=crowd.equity.copy(),
        liquidity_quantity=-net,
        multiplier=multiplier,
        haircut=np.zeros(n),
        deleveraged=np.zeros(n),
        closed=np.zeros(n),
        closed_money=np.zeros(n),
        first_round=np.zeros(n, dtype=np.int64),
        last=np.full(n, start),
    )
    state.recompute(slice(None))
    return state


def sum_money(state: CascadeState, value: float) -> float:
    accounts = float(np.sum(state.equity(value)))
    liquidity = state.liquidity_base + state.liquidity_quantity * value
    return accounts + liquidity - state.fund_paid + state.fees - state.unpaid


def check_conservation(state: CascadeState, value: float, before: float, number: int) -> float:
    size = float(np.sum(np.abs(state.first_quantity)))
    gap = abs(float(np.sum(state.quantity)) + state.liquidity_quantity) / max(size, 1.0)
    money = max(float(np.sum(np.abs(state.first_equity))), size * abs(value), 1.0)
    after = sum_money(state, value)
    off = max(abs(after - before) / money, gap)
    if not off <= SLACK:
        raise AccountingError(
            f"the books of the crowd must balance to {SLACK:g}, were off by {off:.3g} in round "
            f"{number}: {before!r} before and {after!r} after"
        )
    return off
