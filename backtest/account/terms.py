"""The terms of money of an account, each declared once."""

from __future__ import annotations

from typing import NamedTuple


class MoneyTerm(NamedTuple):
    name: str
    sign: float
    words: str
    in_growth: bool = False
    in_trades: bool = False


MONEY_TERMS = (
    MoneyTerm("price_pnl", 1.0, "price profit and loss", in_trades=True),
    MoneyTerm("fees", -1.0, "fees", in_growth=True, in_trades=True),
    MoneyTerm("slippage", -1.0, "slippage", in_growth=True, in_trades=True),
    MoneyTerm("impact", -1.0, "impact", in_growth=True, in_trades=True),
    MoneyTerm("funding", -1.0, "funding", in_growth=True, in_trades=True),
    MoneyTerm("interest", -1.0, "interest", in_growth=True),
    MoneyTerm("liquidation_loss", -1.0, "liquidation loss", in_growth=True, in_trades=True),
    MoneyTerm("flows", 1.0, "deposits and withdrawals"),
    MoneyTerm("bad_debt", 1.0, "bad debt, the venue's loss"),
    MoneyTerm("collateral_pnl", 1.0, "profit of collateral"),
    MoneyTerm("conversion", -1.0, "cost of conversions"),
)
SIGNS = {each.name: each.sign for each in MONEY_TERMS}
TERMS = tuple(SIGNS)
GROWTH_TERMS = tuple(each.name for each in MONEY_TERMS if each.in_growth)
