"""The currencies of an account: in which it counts, what others cost, what it has of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from backtest.account.by_instrument import read_keyed
from backtest.base import (
    Currency,
    Declaration,
    Fault,
    Faults,
    FrozenTable,
    Number,
    ParameterError,
)
from backtest.base.fields import POSITIVE
from backtest.venue import Prices, StoredMarket

AMOUNT = Number(0)


@dataclass(frozen=True)
class ByCurrency(Declaration):
    """A table with one entry for each currency."""

    example: str
    is_table: ClassVar[bool] = True

    def read(self, value: Any) -> FrozenTable:
        if not isinstance(value, Mapping) or not value:
            raise Fault(f"must be a table by currency, {self.example} for example")
        return FrozenTable(
            {
                str(read_keyed(Currency().read, name, name)): read_keyed(
                    self.read_entry, name, entry
                )
                for name, entry in value.items()
            }
        )

    def read_entry(self, entry: Any) -> object:
        """Return an entry: the money in that currency."""
        return AMOUNT.read(entry)


class RateTable(ByCurrency):
    """What a unit of each currency costs: a market, an instrument of the run, or a number."""

    def read_entry(self, entry: Any) -> object:
        """Return the prices of a currency."""
        if isinstance(entry, Mapping):
            return StoredMarket.from_dict(entry)
        if isinstance(entry, int | float) and not isinstance(entry, bool):
            return float(POSITIVE.read(entry))
        return Prices().read(entry)


RATES = RateTable('{"BTC": "BTCUSDT"}')
BALANCES = ByCurrency('{"BTC": 0.5}')


def find_currency_faults(account: Any) -> Faults:
    for name in ("balances", "transfers"):
        if getattr(account, name) is not None and account.rates is None:
            yield name, "is used only with rates"
    if (account.transfers is None) != (account.transfer_cost is None):
        yield "transfer_cost", "is needed with transfers, 0.001 for example, and only with them"
    if account.rates is None:
        return
    if account.currency is None:
        yield "currency", "is needed with rates, which are prices in it: 'USDT' for example"
    if account.currency in account.rates:
        yield "rates", f"must leave out {account.currency}, in which the account counts"
    unknown = [each for each in account.balances or () if each not in account.rates]
    if unknown:
        kept = "capital" if unknown[0] == account.currency else "rates"
        yield "balances", f"needs a rate for {unknown[0]}: add it to {kept}"
    if account.equity_stop is not None:
        yield "equity_stop", "must be left out with rates: pools go through a bar one by one"


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
