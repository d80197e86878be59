"""The bar after the last close, in which a decision would fill at a stated price."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import (
    Number,
    ParameterError,
    did_you_mean,
    format_time,
    repr_plain,
    utc_index,
)
from backtest.engine import append_last_bar
from backtest.market import Market, Markets, remake
from backtest.market.settlements import JITTER

if TYPE_CHECKING:
    from backtest.account import Account
    from backtest.engine import Setup

PRICE = Number(0.0, open_low=True)
RATE = Number(-1.0, 1.0)


class Stated(NamedTuple):
    at: dict[str, float]
    mark: dict[str, float]
    funding: dict[str, pd.DataFrame]


def read_stated(setup: Setup, at: Any, mark: Any, funding: Any) -> Stated:
    assets = [each.name for each in setup.account.collateral]
    names = setup.markets.names
    stated = Stated(
        read_by_name("at", at, [*names, *assets], PRICE, len(names)),
        read_by_name("mark", mark, [*names, *assets], PRICE, len(names)),
        read_settlements(setup, funding),
    )
    if setup.account.fill == "same_close":
        check_same_close(setup, stated)
    if setup.account.fill == "next_open":
        check_marks(setup, stated)
    return stated


def check_marks(setup: Setup, stated: Stated) -> None:
    for name, market in setup.markets.items():
        price, mark = find_price(market, name, stated)
        if not market.has_mark and mark != price:
            raise ParameterError(
                f"mark must be the price, {price:.12g}, as {name} has no mark prices, got "
                f"{mark:.12g}"
            )


def read_settlements(setup: Setup, given: Any) -> dict[str, pd.DataFrame]:
    names, time = setup.markets.names, int(setup.markets.time[-1]) + setup.markets.interval
    by_name = name_given("funding", given, names, len(names))
    frames = {n: x for n, x in by_name.items() if isinstance(x, pd.DataFrame)}
    rates = given if not frames else {n: x for n, x in by_name.items() if n not in frames}
    found = {
        name: pd.DataFrame({"rate": [rate], "mark": [np.nan]}, index=utc_index(np.array([time])))
        for name, rate in read_by_name("funding", rates, names, RATE, len(names)).items()
    }
    for name, frame in frames.items():
        found[name] = check_frame(frame, time - JITTER, time + setup.markets.interval)
    for name, frame in found.items():
        check_new(setup.markets[name], frame)
    return found


def check_new(market: Market, frame: pd.DataFrame) -> None:
    known, stamps = market.funding_time[-1:], pd.DatetimeIndex(frame.index).as_unit("ns").asi8
    if len(known) and len(stamps) and stamps[0] - known[0] < JITTER:
        raise ParameterError(
            "funding must leave out settlements of the market, "
            f"{pd.Timestamp(int(known[0]), tz='UTC')}, got one at {format_time(int(stamps[0]))}"
        )


def check_frame(frame: pd.DataFrame, start: int, end: int) -> pd.DataFrame:
    if "rate" not in frame or not isinstance(frame.index, pd.DatetimeIndex):
        raise ParameterError(
            f"funding must have a column rate by UTC time, got {list(frame.columns)}"
        )
    stamps = frame.index.as_unit("ns").asi8
    if not np.all((stamps >= start) & (stamps < end)):
        raise ParameterError(
            f"funding must lie in the next bar, up to {format_time(end)}, "
            f"got {format_time(int(stamps[0]))} to {format_time(int(stamps[-1]))}"
        )
    return frame if "mark" in frame else frame.assign(mark=np.nan)


def read_by_name(name: str, given: Any, names: Any, kind: Number, n: int) -> dict[str, float]:
    by_name = isinstance(given, Mapping)
    return {
        each: kind.check(f"{name} of {each}" if by_name else name, x)
        for each, x in name_given(name, given, names, n).items()
    }


def name_given(name: str, given: Any, names: Sequence[str], n: int) -> Mapping[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        if n > 1:
            raise ParameterError(
                f"{name} must be a number for each of several instruments, as {{{names[0]!r}: "
                f"...}}, got {repr_plain(given)}"
            )
        return {names[0]: given}
    for each in given:
        if each not in names:
            raise ParameterError(
                f"{name} must name instruments of the market, {', '.join(names)}, got {each!r}"
                f"{did_you_mean(each, names)}"
            )
    return given


def check_same_close(setup: Setup, stated: Stated) -> None:
    for name, price in stated.at.items():
        if name in setup.markets and price != float(setup.markets[name].close[-1]):
            raise ParameterError(
                f"at must be the last close, {float(setup.markets[name].close[-1]):.12g}, with "
                f"fill='same_close', got {price:.12g}"
            )


def find_price(market: Market, name: str, stated: Stated) -> tuple[float, float]:
    last, marked = float(market.close[-1]), float(market.mark_close[-1])
    price = stated.at.get(name, last)
    if name in stated.mark:
        return price, stated.mark[name]
    if not market.has_mark or price == last:
        return price, price if not market.has_mark else marked
    return price, price * (marked / last)


def extend_market(market: Market, name: str, time: int, stated: Stated) -> Market:
    price, mark = find_price(market, name, stated)
    longer = append_last_bar(market, time, price, mark)
    if not market.has_mark and mark != price:
        longer = open_at(longer, mark)
    due = stated.funding.get(name)
    if due is None:
        return longer
    stamps = pd.DatetimeIndex(due.index).as_unit("ns").asi8
    return replace(
        longer,
        funding_time=np.append(longer.funding_time, stamps),
        funding_rate=np.append(longer.funding_rate, due["rate"].to_numpy(dtype=float)),
        funding_mark=np.append(longer.funding_mark, due["mark"].to_numpy(dtype=float)),
        funding_predicted=np.append(longer.funding_predicted, np.full(len(due), np.nan)),
    )


def open_at(market: Market, price: float) -> Market:
    changes = {}
    for field, choose in (("open", None), ("high", max), ("low", min)):
        for name in (field, f"mark_{field}"):
            values = getattr(market, name).copy()
            values[-1] = price if choose is None else choose(price, values[-1])
            changes[name] = values
    return replace(market, **changes)


def extend_markets(setup: Setup, stated: Stated) -> Markets:
    markets = setup.markets
    time = int(markets.time[-1]) + markets.interval
    extended = {
        name: extend_market(market, name, time, stated) if stop == markets.n_bars else market
        for (name, market), (_, stop) in zip(markets.items(), markets.spans.tolist(), strict=True)
    }
    return remake(markets, extended)


def extend_account(account: Account, markets: Markets, stated: Stated) -> Account:
    time, changed = int(markets.time[-1]), []
    for each in account.collateral:
        prices: Any = each.prices
        if isinstance(prices, Market) and not np.isin(time, prices.time):
            prices = extend_market(prices, each.name, time, stated)
        changed.append(replace(each, prices=prices))
    return replace(account, collateral=changed) if changed else account


def look_ahead(setup: Setup, stated: Stated) -> Setup:
    markets, first = extend_markets(setup, stated), setup.markets.n_bars
    account = extend_account(setup.account, markets, stated)
    signal = setup.signal  # one entry is that of all bars
    longer = signal if signal.size == 1 else np.concatenate([signal, signal[..., -1:]], axis=-1)
    later = setup.extend(markets, account, longer, first)
    return later._replace(first=first - 1)
