"""The currencies of an account on the clock of its markets: pools, rates, money at the start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from backtest.account import Account, list_currencies
from backtest.account.currency_pools import (
    OWN_CALLED_AT,
    OWN_CASH,
    OWN_DISTANCE,
    OWN_EQUITY,
    OWN_RATE,
    OWN_SINCE,
    OWN_UNMET,
)
from backtest.base import DataError, FloatArray, IntArray
from backtest.engine.collateral_prices import find_rows
from backtest.engine.feed_arrays import as_of
from backtest.engine.portfolio_checks import check_pools
from backtest.market import Market, Markets
from backtest.venue import Holdings, Venue


def number_pools(markets: Markets, venues: Mapping[str, Venue], account: Account) -> IntArray:
    currencies = list_currencies(account)
    if not currencies:
        return np.zeros(len(markets.names) + len(account.collateral), np.int64)
    pools = check_pools(markets, venues, account)
    listed = [
        0 if each.currency is None else currencies.index(each.currency)
        for each in account.collateral
    ]
    return np.array([*(pools[name] for name in markets.names), *listed], np.int64)


def read_rates(markets: Markets, venues: Mapping[str, Venue], account: Account) -> dict[str, Any]:
    currencies = list_currencies(account)
    if not currencies:
        return {
            "rate_open": np.ones((1, 1)),
            "rate_close": np.ones((1, 1)),
            "pool_rates": np.zeros((3, 1, 1)),
        }
    opens, closes = np.ones((2, markets.n_bars, len(currencies)))
    rates: Any = account.rates
    for pool, currency in enumerate(currencies[1:], start=1):
        opens[:, pool], closes[:, pool] = place_rate(rates[currency], markets, currency)
    return {
        "rate_open": opens,
        "rate_close": closes,
        "pool_rates": read_interest(markets, venues, account),
    }


def read_interest(markets: Markets, venues: Mapping[str, Venue], account: Account) -> FloatArray:
    """Return what is paid and earned on the balances of the pools: (3, n_bars or 1, P)."""
    pools, n_pools = check_pools(markets, venues, account), len(list_currencies(account))
    default = next((n for n in markets.names if pools[n] == 0), markets.names[0])
    found = []
    for pool in range(n_pools):
        name = next((n for n in markets.names if pools[n] == pool), default)
        rates = venues[name].rates()
        found.append([as_of(rates[key], markets.time, f"Venue.{key}") for key in RATES])
    length = max(len(each) for rows in found for each in rows)
    wide = [[np.broadcast_to(each, length) for each in rows] for rows in found]
    return np.ascontiguousarray(np.transpose(np.array(wide), (1, 2, 0)))


RATES = ("borrow_rate", "cash_rate", "short_rate")


def place_rate(given: Any, markets: Markets, currency: str) -> tuple[Any, Any]:
    """Return the price of a currency at each open, and at each close of the clock."""
    if isinstance(given, float):
        return given, given
    where = f"Account.rates, {currency}"
    prices = markets.get(given) if isinstance(given, str) else given
    if not isinstance(prices, Market):
        raise DataError(
            f"a rate must be a Market, an instrument of the run or a number, got {given!r:.60}",
            where=where,
            cure=f"give bt.Market.load(...), one of {', '.join(markets)}, or a number",
        )
    rows = find_rows(prices, markets, "a rate", where)
    return prices.open[rows], prices.mark_close[rows]


def start_pools(
    pools: FloatArray, inputs: Any, account: Account, held: Holdings, first: int
) -> float:
    currencies, rates = list_currencies(account), inputs.feed.rate_open[first]
    n, terms = len(held.quantities), inputs.terms
    equity = 0.0
    for pool, currency in enumerate(currencies):
        cash = account.capital if pool == 0 else (account.balances or {}).get(currency, 0.0)
        of_pool = terms.pools[n:] == pool
        own = cash + float(np.sum(held.amounts[of_pool] * held.prices[of_pool]))
        pools[pool, [OWN_CASH, OWN_EQUITY, OWN_DISTANCE]] = cash, own, own
        pools[pool, [OWN_RATE, OWN_SINCE]] = rates[pool], np.inf
        pools[pool, [OWN_UNMET, OWN_CALLED_AT]] = -1.0, np.nan
        equity += own * rates[pool]
    return equity
