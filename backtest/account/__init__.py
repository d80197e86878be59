"""The account: what the trader brings, the eight steps of a bar, the ledger, and ruin.

Money moves here and nowhere else. Every function is scalar, and has a compiled twin. The rules of
one position are used by accounts of several too; what only those need is in ``portfolio_records``,
``portfolio_bar`` and the files that they use.
"""

from backtest.account.account import Account
from backtest.account.account_records import (
    AccountRules,
    Balances,
    Feed,
    InstrumentRules,
    Plan,
    Position,
    Quote,
    Rules,
    State,
    Watch,
)
from backtest.account.balances import compute_backing, compute_equity
from backtest.account.bar import as_index, live_bar
from backtest.account.ledger import Ledger, Log
from backtest.account.multiple import Multiple
from backtest.account.position import compute_requirement, find_adverse

__all__ = [
    "Account",
    "AccountRules",
    "Balances",
    "Feed",
    "InstrumentRules",
    "Ledger",
    "Log",
    "Multiple",
    "Plan",
    "Position",
    "Quote",
    "Rules",
    "State",
    "Watch",
    "as_index",
    "compute_backing",
    "compute_equity",
    "compute_requirement",
    "find_adverse",
    "live_bar",
]
