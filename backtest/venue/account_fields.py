"""What ``total`` and ``collateral`` of ccxt's balances and positions mean at each exchange.

``presets/account_fields.csv`` has a row for each meaning that was looked up, with its source. What
is not there depends on the kind of account (the total at Gate, Bitget and Kraken) or is unknown.
"""

from __future__ import annotations

import csv
from functools import cache
from typing import NamedTuple

from backtest.venue.preset_files import FOLDER

FILE = FOLDER / "account_fields.csv"
WITH_PROFIT = "equity"
WITHOUT_PROFIT = "wallet"


class AccountField(NamedTuple):
    """Whether a field contains unrealized profit at exchanges, by their ids in ccxt.

    ``settles`` is the settlement currency for which that holds, empty for all others.
    """

    exchanges: tuple[str, ...]
    field: str
    settles: str
    has_profit: bool
    source: str


@cache
def read_account_fields() -> tuple[AccountField, ...]:
    meanings = []
    with FILE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            meaning = AccountField(
                exchanges=tuple(row["exchanges"].split()),
                field=row["field"],
                settles=row["settles"],
                has_profit=row["has_profit"] == "yes",
                source=row["source"],
            )
            meanings.append(meaning)
    return tuple(meanings)


def find_meaning(exchange: str, field: str, currency: str) -> str | None:
    """Return what an exchange's field of an account means: with profit or without; None if unknown.

    WITH_PROFIT is the equity, WITHOUT_PROFIT the wallet. ``currency`` is that of the settlement, as
    one field may mean both by currency.
    """
    for row in read_account_fields():
        is_same = exchange.lower() in row.exchanges and field == row.field
        if not is_same or row.settles not in ("", currency):
            continue

        if row.has_profit:
            return WITH_PROFIT
        return WITHOUT_PROFIT
    return None
