"""When options expire on the clock of a run, and the price at which they settle."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from backtest.base import DataError, FloatArray, format_duration, format_time, parse_duration
from backtest.market import Markets
from backtest.options import find_expiry
from backtest.venue import Option, Venue

HOUR = 3_600 * 10**9
"""The longest bars at whose mark open an option settles that expires inside them."""


class Expiry(NamedTuple):
    bar: int
    is_inside: bool
    price: float


def find_settlement(markets: Markets, venue: Venue, option: Option, owner: str) -> Expiry:
    expiry, time = find_expiry(option), markets.time
    jitter = parse_duration(venue.funding_jitter)
    listed, gone = markets.spans[markets.names.index(owner)].tolist()
    bar = int(np.searchsorted(time, expiry - jitter))
    is_at_open = bar < len(time) and int(time[bar]) <= expiry + jitter
    is_inside = not is_at_open and bar > 0 and expiry < int(time[bar - 1]) + markets.interval
    bar = bar - 1 if is_inside else bar
    if gone < len(time) and bar >= gone:
        raise DataError(
            f"an option must expire in the data of its underlying, got {option.name!r}, which "
            f"expires at {option.expiry}, after the last bar of {owner}, "
            f"{format_time(int(time[gone - 1]))} UTC"
        )
    if not listed <= bar < gone:
        return Expiry(-1, is_inside=False, price=float("nan"))
    if is_inside:
        check_inside(markets, option, bar)
    return Expiry(bar, is_inside, find_price(markets, venue, option, owner, bar))


def check_inside(markets: Markets, option: Option, bar: int) -> None:
    if option.settlement_price is None and markets.interval > HOUR:
        raise DataError(
            "an option that expires inside a bar of over an hour needs a settlement_price, got "
            f"none for {option.name!r}, which expires at {option.expiry} in the bar of "
            f"{format_duration(markets.interval)} from {format_time(int(markets.time[bar]))} UTC"
        )


def find_price(markets: Markets, venue: Venue, option: Option, owner: str, bar: int) -> float:
    if option.settlement_price is not None:
        return option.settlement_price
    market, expiry = markets[owner], find_expiry(option)
    window = None if venue.option_costs is None else venue.option_costs.delivery_window
    if window is not None:
        length = parse_duration(window)
        closes = market.time + market.interval
        known: FloatArray = market.mark_close[(closes > expiry - length) & (closes <= expiry)]
        if market.interval < length and len(known):
            return float(np.mean(known))
    return float(market.mark_open[bar - int(markets.spans[markets.names.index(owner), 0])])
