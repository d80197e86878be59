"""What is stated of the next bar, its prices and its funding, and the market that is longer by it.

A decision is filled in a bar that has not happened. It opens at the price that the user states
``at``, by default the last close, with a ``mark`` price beside it, and settles the ``funding`` that
is stated for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from backtest import core, engine
from backtest.core import IntArray, ParameterError, Real, format_time
from backtest.core.code_names import pd
from backtest.engine import Setup
from backtest.market import Market, Markets, remake
from backtest.market.tables import JITTER

PRICE = Real(0.0, open_low=True)
RATE = Real(-1.0, 1.0)


class Stated(NamedTuple):
    """Prices, mark prices and settlements of the next bar, by instrument."""

    at: dict[str, float]
    mark: dict[str, float]
    funding: dict[str, pd.DataFrame]


def read_stated(
    setup: Setup,
    at: Any,
    mark: Any,
    funding: Any,
) -> Stated:
    stated = Stated(
        at=read_prices(setup, "at", at),
        mark=read_prices(setup, "mark", mark),
        funding=read_settlements(setup, funding),
    )
    for name, market in setup.markets.items():
        check_prices(setup, name, market, stated)
    return stated


def read_prices(setup: Setup, argument: str, value: Any) -> dict[str, float]:
    """Return the prices that an argument of ``decide`` states, by instrument or collateral."""
    names = [*setup.markets.names]
    names.extend(asset.name for asset in setup.account.collateral)

    prices = {}
    for name, price in name_values(argument, value, names, len(setup.markets)).items():
        place = f"{argument} of {name}" if isinstance(value, Mapping) else argument
        prices[name] = PRICE.check(place, price)
    return prices


def name_values(
    argument: str,
    value: Any,
    names: Sequence[str],
    n_markets: int,
) -> Mapping[str, Any]:
    """Return what ``decide`` was given for an argument, by the name of the instrument.

    A single value is that of the only market; with several, each needs its name.
    """
    if value is None:
        return {}

    if isinstance(value, Mapping):
        core.check_names(
            f"{argument}: the market",
            value,
            names,
            noun="instrument",
        )
        return value

    if n_markets > 1:
        raise ParameterError(
            f"{argument} must be a number for each of several instruments, as {{{names[0]!r}: "
            f"...}}, got {core.repr_plain(value)}"
        )
    return {names[0]: value}


def check_prices(
    setup: Setup,
    name: str,
    market: Market,
    stated: Stated,
) -> None:
    """Raise ParameterError if stated prices contradict how the account fills, or each other."""
    price, mark = find_price(market, name, stated)
    last = float(market.close[-1])

    if setup.account.fill == "same_close" and price != last:
        raise ParameterError(
            f"at must be the last close, {last:.12g}, with fill='same_close', got {price:.12g}"
        )

    # Without mark prices an open is its own mark.
    if setup.account.fill == "next_open" and not market.has_mark and mark != price:
        raise ParameterError(
            f"mark must be the price, {price:.12g}, as {name} has no mark prices, got {mark:.12g}"
        )


def find_price(market: Market, name: str, stated: Stated) -> tuple[float, float]:
    """Return the price and the mark price of the next bar; a mark not stated moves as the price."""
    last = float(market.close[-1])
    last_mark = float(market.mark_close[-1])
    price = stated.at.get(name, last)

    if name in stated.mark:
        return price, stated.mark[name]
    if not market.has_mark:
        return price, price
    if price == last:
        return price, last_mark
    return price, price * (last_mark / last)


def read_settlements(setup: Setup, value: Any) -> dict[str, pd.DataFrame]:
    """Return what ``funding`` states by instrument: a rate, and a mark, by UTC time."""
    names = setup.markets.names
    tables = {}
    for name, stated in name_values("funding", value, names, len(names)).items():
        table = read_settlement_table(setup, name, stated)
        stamps = core.read_stamps(table.index, name="funding", error=ParameterError)
        check_settlement_stamps(setup, name, stamps)

        if "mark" not in table:
            table = table.assign(mark=np.nan)
        tables[name] = table
    return tables


def read_settlement_table(setup: Setup, name: str, stated: Any) -> pd.DataFrame:
    """Return a stated table of settlements; a rate alone is settled at the next open."""
    table: pd.DataFrame = core.by_dates(stated)
    if not isinstance(stated, pd.DataFrame):
        rate = RATE.check(f"funding of {name}", stated)
        next_open = int(setup.markets.time[-1]) + setup.markets.interval
        table = pd.DataFrame({"rate": [rate]}, index=core.utc_index(np.array([next_open])))

    if "rate" not in table or not isinstance(table.index, pd.DatetimeIndex):
        raise ParameterError(
            f"funding must have a column rate by UTC time, got {list(table.columns)}"
        )
    return table


def check_settlement_stamps(setup: Setup, name: str, stamps: IntArray) -> None:
    """Raise ParameterError if settlements are not of the next bar, or the market has them."""
    start = int(setup.markets.time[-1]) + setup.markets.interval
    end = start + setup.markets.interval
    if not np.all((stamps >= start - JITTER) & (stamps < end)):
        raise ParameterError(
            f"funding must lie in the next bar, up to {format_time(end)}, "
            f"got {format_time(int(stamps[0]))} to {format_time(int(stamps[-1]))}"
        )

    known = setup.markets[name].funding_time[-1:]
    if len(known) and len(stamps) and stamps[0] - known[0] < JITTER:
        raise ParameterError(
            f"funding must leave out settlements of the market, {format_time(int(known[0]))}, "
            f"got one at {format_time(int(stamps[0]))}"
        )


def extend_market(
    market: Market,
    name: str,
    time: int,
    stated: Stated,
) -> Market:
    """Return a market with one more bar, whose prices and settlements are those stated."""
    price, mark = find_price(market, name, stated)
    longer = engine.append_last_bar(market, time, price, mark)
    changes: dict[str, Any] = {}

    # Without mark prices the close is the mark, and the bar reaches from it to the price.
    if not market.has_mark and mark != price:
        changes["open"] = np.append(market.open, mark)
        changes["high"] = np.append(market.high, max(mark, price))
        changes["low"] = np.append(market.low, min(mark, price))

    due = stated.funding.get(name)
    if due is not None:
        stamps = core.read_stamps(due.index, name="funding")
        rates = due["rate"].to_numpy(dtype=float)
        marks = due["mark"].to_numpy(dtype=float)
        changes["funding_time"] = np.append(longer.funding_time, stamps)
        changes["funding_rate"] = np.append(longer.funding_rate, rates)
        changes["funding_mark"] = np.append(longer.funding_mark, marks)
    return replace(longer, **changes)


def look_ahead(setup: Setup, stated: Stated) -> Setup:
    """Return a setup that is longer by the stated bar, and whose account begins before it."""
    markets = setup.markets
    first = markets.n_bars
    time = int(markets.time[-1]) + markets.interval

    account = setup.account
    collateral = []
    for asset in account.collateral:
        prices: Any = asset.prices
        if isinstance(prices, Market) and not np.isin(time, prices.time):
            prices = extend_market(prices, asset.name, time, stated)
        collateral.append(replace(asset, prices=prices))
    if collateral:
        account = replace(account, collateral=collateral)

    signal = setup.signal
    if signal.size > 1:  # a single entry is that of all bars
        signal = np.concatenate([signal, signal[..., -1:]], axis=-1)

    extended = extend_markets(markets, time, stated)
    later = setup.change(
        markets=extended,
        account=account,
        signal=signal,
        first=first,
    )
    return later._replace(first=first - 1)


def extend_markets(markets: Markets, time: int, stated: Stated) -> Markets:
    """Return markets in which each that is still listed has one more bar."""
    longer = {}
    for (name, market), (_, stop) in zip(markets.items(), markets.spans.tolist(), strict=True):
        is_listed = stop == markets.n_bars
        longer[name] = extend_market(market, name, time, stated) if is_listed else market
    return remake(markets, longer)
