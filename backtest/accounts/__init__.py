"""Several accounts on one clock: transfer rules, the book of all, and its result."""

from typing import TYPE_CHECKING

from backtest.core.code_names import find_lazily

if TYPE_CHECKING:
    from backtest.accounts.book import Accounts
    from backtest.accounts.result import AccountsResult
    from backtest.accounts.rules import AccountStatus, KeepShares, Never, SweepProfits, TopUp
    from backtest.accounts.rules import TransferRule
else:
    __getattr__ = find_lazily(__name__, {
        "accounts.book": "Accounts",
        "accounts.result": "AccountsResult",
        "accounts.rules": "AccountStatus KeepShares Never SweepProfits TopUp TransferRule",
    })  # fmt: skip
