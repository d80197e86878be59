"""The terms of money of an account, each declared once."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from backtest.account.account import Account

MANAGEMENT_FEE, PERFORMANCE_FEE = 23, 24
"""Rows of the ledger of the terms that a setting switches on, after those of all accounts."""
MANAGED, PERFORMED = 33, 34
"""Kinds of their entries in the log."""


class MoneyTerm(NamedTuple):
    name: str
    sign: float
    words: str
    growth: str = ""
    in_trades: bool = False
    row: int = -1
    kind: int = -1
    setting: str = ""
    is_marked: bool = False


MONEY_TERMS = (
    MoneyTerm("price_pnl", 1.0, "price profit and loss", in_trades=True),
    MoneyTerm("fees", -1.0, "fees", growth="fees", in_trades=True),
    MoneyTerm("slippage", -1.0, "slippage", growth="slippage", in_trades=True),
    MoneyTerm("impact", -1.0, "impact", growth="impact", in_trades=True),
    MoneyTerm("funding", -1.0, "funding", growth="funding", in_trades=True),
    MoneyTerm("interest", -1.0, "interest", growth="interest"),
    MoneyTerm(
        "liquidation_loss", -1.0, "liquidation loss", growth="liquidation_loss", in_trades=True
    ),
    MoneyTerm("flows", 1.0, "deposits and withdrawals"),
    MoneyTerm("bad_debt", 1.0, "bad debt, the venue's loss"),
    MoneyTerm("collateral_pnl", 1.0, "profit of collateral"),
    MoneyTerm("conversion", -1.0, "cost of conversions"),
    MoneyTerm(
        "management_fee", -1.0, "management fee", growth="fund_fees",
        row=MANAGEMENT_FEE, kind=MANAGED, setting="management fee a year of",
    ),
    MoneyTerm(
        "performance_fee", -1.0, "performance fee", growth="fund_fees",
        row=PERFORMANCE_FEE, kind=PERFORMED, setting="performance fee of", is_marked=True,
    ),
    MoneyTerm("fx_pnl", 1.0, "profit of currencies"),
)  # fmt: skip
SIGNS = {each.name: each.sign for each in MONEY_TERMS}
OPTIONAL_TERMS = tuple(each for each in MONEY_TERMS if each.row >= 0)
OPTIONAL = tuple(each.name for each in OPTIONAL_TERMS)
OPTIONAL_ROWS = tuple(each.row for each in OPTIONAL_TERMS)
TERMS = tuple(each.name for each in MONEY_TERMS if each.row < 0)[:-1]
GROWTH_LINES = {
    line: tuple(each.name for each in MONEY_TERMS if each.growth == line)
    for line in dict.fromkeys(each.growth for each in MONEY_TERMS if each.growth)
}


def list_optional(account: Account) -> tuple[str, ...]:
    lines = {each.growth for each in OPTIONAL_TERMS if getattr(account, each.name) > 0.0}
    return tuple(each.name for each in OPTIONAL_TERMS if each.growth in lines)
