"""The currencies of an account: in which it counts, what others cost, what it has of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from backtest.base import (
    Argument,
    FrozenTable,
    Number,
    ParameterError,
    Phrase,
    is_currency,
    repr_plain,
)
from backtest.base.fields import POSITIVE
from backtest.venue import Prices, StoredMarket

AMOUNT = Number(0)


@dataclass(frozen=True)
class Currency:
    """The name of a currency."""

    kind: ClassVar[type] = str

    def check(self, name: str, value: object, *, where: str) -> str:
        if not is_currency(value):
            raise ParameterError(
                f"{name} must be a currency in capital letters, got {repr_plain(value)}",
                where=where,
                cure=Phrase("give for example {}", Argument(name, "USDT")),
            )
        return str(value)


@dataclass(frozen=True)
class ByCurrency:
    """A table with one entry for each currency."""

    example: str
    kind: ClassVar[type] = object
    is_table: ClassVar[bool] = True

    def check(self, name: str, value: object, *, where: str) -> FrozenTable:
        if not isinstance(value, Mapping) or not value:
            raise ParameterError(
                f"{name} must be a table by currency, got {repr_plain(value)}",
                where=where,
                cure=f"write {name}={self.example}",
            )
        entries: dict[str, Any] = {}
        for currency, entry in value.items():
            place = f"{where}, {currency}"
            entries[Currency().check("a currency", currency, where=place)] = self.read(
                name, entry, place
            )
        return FrozenTable(entries)

    def read(self, name: str, entry: Any, where: str) -> object:
        """Return an entry: the money in that currency."""
        return AMOUNT.check(name, entry, where=where)


class RateTable(ByCurrency):
    """What a unit of each currency costs: a market, an instrument of the run, or a number."""

    def read(self, name: str, entry: Any, where: str) -> object:
        """Return the prices of a currency."""
        if isinstance(entry, Mapping):
            return StoredMarket.from_dict(entry, where=where)
        if isinstance(entry, int | float) and not isinstance(entry, bool):
            return float(POSITIVE.check(name, entry, where=where))
        return Prices().check(name, entry, where=where)


RATES = RateTable('{"BTC": "BTCUSDT"}')
BALANCES = ByCurrency('{"BTC": 0.5}')


def check_currencies(account: Any) -> None:
    for name in ("balances", "transfers"):
        if getattr(account, name) is not None and account.rates is None:
            raise ParameterError(
                f"{name} is used only with rates, got {repr_plain(getattr(account, name))}",
                where=f"Account.{name}",
                cure=Phrase(
                    "give {}, or leave {} out",
                    Argument("rates", {"BTC": "BTCUSDT"}),
                    Argument(name),
                ),
            )
    check_transfer_cost(account)
    if account.rates is None:
        return
    if account.currency is None:
        raise ParameterError(
            "rates are prices in the currency of the account, got none",
            where="Account.currency",
            cure="give the account a currency, 'USDT' for example",
        )
    if account.currency in account.rates:
        raise ParameterError(
            f"the currency of the account costs 1 of itself, got a rate for {account.currency}",
            where=f"Account.rates, {account.currency}",
            cure="leave it out of the rates",
        )
    unknown = [each for each in account.balances or () if each not in account.rates]
    if unknown:
        is_own = unknown[0] == account.currency
        raise ParameterError(
            f"each balance needs a rate, got none for {unknown[0]}",
            where=f"Account.balances, {unknown[0]}",
            cure=Phrase("add it to {}", Argument("capital"))
            if is_own
            else Phrase("add it to {}", Argument("rates")),
        )
    check_supported(account)


def check_transfer_cost(account: Any) -> None:
    if (account.transfers is None) != (account.transfer_cost is None):
        found = f"{account.transfer_cost!r} with transfers {account.transfers!r}"
        raise ParameterError(
            f"transfer_cost is given with transfers, and only with them, got {found}",
            where="Account.transfer_cost",
            cure=Phrase(
                "give {} and {}: what a conversion costs, as a fraction",
                Argument("transfers", "to-cover"),
                Argument("transfer_cost", 0.001),
            ),
        )


def check_supported(account: Any) -> None:
    if account.equity_stop is not None:
        raise ParameterError(
            "an account in several currencies has no equity_stop: its pools go through a bar one "
            f"after the other, got {account.equity_stop:g}",
            where="Account.equity_stop",
            cure="give a stop_loss or a trailing_stop, or an account for each currency",
        )


def refuse_currencies(account: Any, *, where: str) -> None:
    if account.rates is not None:
        raise ParameterError(
            "an account in several currencies can be run, searched, validated and compared, and "
            f"not more, got rates for {', '.join(account.rates)}",
            where=where,
            cure="give an account for each currency, with the instruments that settle in it",
        )


def list_currencies(account: Any) -> tuple[str, ...]:
    if account.rates is None:
        return ()
    return (account.currency or "", *account.rates)


def write_rates(rates: Mapping[str, Any]) -> dict[str, Any]:
    return {name: write_rate(each) for name, each in rates.items()}


def write_rate(rate: Any) -> Any:
    if isinstance(rate, str | float):
        return rate
    if isinstance(rate, StoredMarket):
        return rate.to_dict()
    return StoredMarket(instrument=rate.instrument, content=rate.content_hash).to_dict()
