"""Arrays of the feed: multipliers, rates by date, funding, flows, stops and impact by bar."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtest.account import Account, find_column, read_scale
from backtest.base import (
    Cost,
    DataError,
    FloatArray,
    IntArray,
    ParameterError,
    format_duration,
    format_time,
    parse_duration,
)
from backtest.base.units import DAY
from backtest.market import Market, Markets, find_clock, has_gaps, place_on_bars, read_settlements
from backtest.market.tables import DIVIDEND
from backtest.venue import (
    Collateral,
    Venue,
    choose_multipliers,
    effective_initial,
    list_dated,
    pick_cost,
    read_open_interest,
)
from backtest.venue.venue import DATED, MAKER

if TYPE_CHECKING:
    from backtest.account import Account
    from backtest.market import Market
    from backtest.venue import OpenInterestMargin, Venue


def check_contract(market: Market, venue: Venue) -> None:
    lowest, tick = float(market.low.min()), venue.contract.tick
    if venue.contract.round_to_tick and not tick <= lowest:
        raise ParameterError(
            f"tick must be at most the lowest price, {lowest:g}, with round_to_tick, got {tick:g}"
        )
    has_dividends = not market.funding_time.size and bool(read_settlements(market).time.size)
    if has_dividends and venue.contract.kind == "inverse":
        raise ParameterError(
            f"dividends are paid on linear contracts, got 'inverse' and a column {DIVIDEND!r}"
        )


def read_multipliers(market: Market, venue: Venue) -> tuple[FloatArray, FloatArray]:
    given = {
        name: as_of(rate, market.time, f"venue.{name}")
        for name, rate in choose_multipliers(venue).items()
    }
    both = given.get("margin_multiplier", np.ones(1))
    initial = given.get("initial_multiplier", both)
    if venue.open_interest_margin is not None:
        initial = raise_initial(market, venue, venue.open_interest_margin)
    return initial, given.get("maintenance_multiplier", both)


def raise_initial(market: Market, venue: Venue, rising: OpenInterestMargin) -> FloatArray:
    interest = read_open_interest(market, rising.column)
    known = np.concatenate([[0.0], interest[:-1]])
    raised = np.ones(market.n_bars)
    for table in venue.in_use(market.time):
        bars = slice(table.first, table.stop)
        base = 1.0 / table.brackets[0].max_leverage
        raised[bars] = effective_initial(base, known[bars], rising.lower, rising.upper) / base
    return raised


def read_instrument(market: Market, venue: Venue, account: Account) -> dict[str, Any]:
    check_contract(market, venue)
    sigma, adv = measure_impact(market, venue)
    initial, maintenance = read_multipliers(market, venue)
    per_order = venue.fees.per_order
    order_fee = per_order if isinstance(per_order, pd.Series) else 0.0
    return {
        "multiplier": maintenance,
        "initial": initial,
        "sigma": sigma,
        "adv": adv,
        "limit": as_of(account.max_leverage, market.time, "account.max_leverage"),
        "order_fee": as_of(order_fee, market.time, "venue.fees.per_order"),
        **read_scales(market, account),
    }


def read_cash(
    market: Market, venue: Venue, account: Account, first: int, started: int
) -> dict[str, Any]:
    flow_bar, flow_amount = place_flows(market, account, first, started)
    return {
        "years": measure_years(market, venue, first, started),
        **{name: as_of(r, market.time, f"venue.{name}") for name, r in venue.rates().items()},
        "flow_bar": flow_bar,
        "flow_amount": flow_amount,
    }


def measure_years(market: Market, venue: Venue, first: int, started: int) -> FloatArray:
    year = venue.day_count * DAY
    if has_gaps(market):
        years = np.diff(market.time, prepend=market.time[0]) / year
    else:
        years = np.array([market.interval / year])
    if first == 0 or started != market.time[first]:
        return years
    own = np.broadcast_to(years, (market.n_bars,)).copy()
    own[first] = 0.0
    return own


def earn_cash(cash_rate: FloatArray, years: FloatArray, n_bars: int) -> FloatArray:
    free = np.zeros(n_bars)
    if np.any(cash_rate != 0.0):
        rates, spans = (np.broadcast_to(each, free.shape) for each in (cash_rate, years))
        free[1:] = rates[:-1] * spans[1:]
    return free


def as_of(rate: float | pd.Series, time: IntArray, key: str) -> FloatArray:
    """Return the value in force at each time: of shape (n,), or (1,) for a constant."""
    if not isinstance(rate, pd.Series):
        return np.array([float(rate)])
    stamps = pd.DatetimeIndex(rate.index).as_unit("ns").asi8
    found = np.searchsorted(stamps, time, side="right") - 1
    if found[0] < 0:
        raise ParameterError(
            f"{key}: a series must begin by the first bar, {format_time(int(time[0]))} UTC, "
            f"got one from {format_time(int(stamps[0]))} UTC"
        )
    return np.asarray(rate.to_numpy(dtype=np.float64)[found])


def place_funding(market: Market, venue: Venue, first: int) -> dict[str, Any]:
    jitter = parse_duration(venue.funding_jitter)
    settled = read_settlements(market)
    bar, is_open = place_on_bars(settled.time, market.time, market.interval, jitter)
    kept = (bar >= first) & (bar < market.n_bars)
    return {
        "funding_bar": bar[kept].astype(np.int64),
        "funding_is_open": is_open[kept].astype(np.int64),
        "funding_price": settled.price[kept],
        "funding_rate": settled.rate[kept],
    }


def place_flows(
    market: Market, account: Account, first: int, started: int
) -> tuple[IntArray, FloatArray]:
    if account.flows is None:
        return np.empty(0, np.int64), np.empty(0)
    stamps = pd.DatetimeIndex(account.flows.index).as_unit("ns").asi8
    if stamps[0] < started:
        raise ParameterError(
            f"flows must not lie before the first bar, {format_time(started)} UTC, "
            f"got {format_time(int(stamps[0]))} UTC; add it to capital"
        )
    bar = np.searchsorted(market.time, stamps, side="left")
    kept = (bar < market.n_bars) & (bar >= first)
    amounts = np.asarray(account.flows, dtype=np.float64)
    return bar[kept].astype(np.int64), amounts[kept]


def read_scales(market: Market, account: Account) -> dict[str, Any]:
    stops = (account.stop_loss, account.take_profit, account.trailing_stop)
    names = ("stop_scale", "profit_scale", "trail_scale")
    keys = ("stop_loss", "take_profit", "trailing_stop")
    return {
        name: read_scale(stop, market, f"account.{key}")
        for name, stop, key in zip(names, stops, keys, strict=True)
    }


def measure_impact(market: Market, venue: Venue) -> tuple[FloatArray, FloatArray]:
    if venue.slippage.impact == 0.0 and venue.liquidation.impact == 0.0:
        return np.zeros(1), np.zeros(1)
    if not market.sessions and has_gaps(market):  # bars of two lengths
        clock = find_clock(market)
        longer = measure_impact(clock.seen, venue)
        rows = np.where(clock.rows >= 0, clock.rows, -clock.rows - 1)
        rows = np.minimum(rows, clock.seen.n_bars - 1)
        return longer[0][rows], longer[1][rows]
    window = parse_duration(venue.slippage.impact_window)
    n = window // market.interval
    if n < 2:
        raise ParameterError(
            f"impact_window must hold two bars of {format_duration(market.interval)} or more, "
            f"got {venue.slippage.impact_window}"
        )
    if not np.any(market.volume > 0.0):
        raise DataError(
            f"impact needs volumes, {market!r} has none; load bars with a volume column"
        )
    per_day = DAY / market.interval
    size = venue.contract.size
    unit = size / market.close if venue.contract.kind == "inverse" else size * market.close
    returns = pd.Series(np.log(market.close)).diff()
    sigma = returns.rolling(n).std().shift(1) * math.sqrt(per_day)
    adv = pd.Series(market.volume * unit).rolling(n).mean().shift(1) * per_day
    # copies, because pandas gives read-only arrays, for which numba would compile another loop
    return sigma.to_numpy(dtype=np.float64, copy=True), adv.to_numpy(dtype=np.float64, copy=True)


FEE, TAKER, SLIPPAGE, LIQUIDATION_FEE, LIQUIDATION_SLIPPAGE, MAKER_FEE = range(6)


def place_costs(market: Market, venue: Venue) -> dict[int, FloatArray]:
    """Return the costs that change over time by row, each of shape (n_bars,) or (1,)."""
    dated = set(list_dated(venue))
    if not dated:
        return {}
    taker, maker, rate, spread, fee, worse = (
        read_cost(pick_cost(venue, name), market, f"venue.{name}") for name in DATED
    )
    share = venue.fees.maker_share
    found = {
        FEE: taker * (1.0 - share) + maker * share,
        TAKER: taker,
        SLIPPAGE: rate + 0.5 * spread,
        LIQUIDATION_FEE: fee,
        LIQUIDATION_SLIPPAGE: worse,
        MAKER_FEE: maker,
    }
    return {row: values for row, values in found.items() if len(values) > 1}


def read_cost(cost: Cost, market: Market, key: str) -> FloatArray:
    """Return a cost by bar, of shape (n_bars,), or (1,) for a constant."""
    if not isinstance(cost, str):
        return as_of(cost, market.time, key)
    values = pd.Series(find_column(market, cost, key)).ffill().to_numpy()
    low = MAKER.low if key.endswith("maker") else 0.0
    wrong = np.flatnonzero(~((values >= low) & (values < 1.0)))
    if len(wrong):
        at = format_time(int(market.time[wrong[0]]))
        raise DataError(
            f"{key} must be a fraction of the price from {low:g} up to 1 (1 bp is 0.0001), known "
            f"from the first bar on, got {cost} {values[wrong[0]]:g} in {len(wrong):,} of "
            f"{market.n_bars:,} bars, first at {at} UTC"
        )
    return np.concatenate([values[:1], values[:-1]])


ASSET = (
    "open", "high", "low", "close", "mark_open", "mark_high", "mark_low", "mark_close",
)  # fmt: skip


def read_assets(markets: Markets, account: Account) -> dict[str, Any]:
    """Return the prices of the collateral on the clock, each of shape (C, n_bars)."""
    found = {f"asset_{name}": np.empty((len(account.collateral), markets.n_bars)) for name in ASSET}
    for c, asset in enumerate(account.collateral):
        prices: Any = find_prices(asset, markets)
        is_market = isinstance(prices, Market)
        rows = find_rows(prices, markets, f"collateral {asset.name!r}") if is_market else None
        for name in ASSET:
            found[f"asset_{name}"][c] = prices if rows is None else getattr(prices, name)[rows]
    return found


def find_prices(asset: Collateral, markets: Markets) -> Market | float:
    prices = asset.prices
    if isinstance(prices, str) and prices in markets:
        return markets[prices]
    if isinstance(prices, Market | float):
        return prices
    raise DataError(
        f"prices of collateral {asset.name!r} must be a Market, a number or one of "
        f"{', '.join(markets)}, got {prices!r:.60}"
    )


def find_rows(prices: Market, markets: Markets, what: str) -> IntArray:
    rows = np.searchsorted(prices.time, markets.time)
    inside = np.minimum(rows, prices.n_bars - 1)
    missing = np.flatnonzero(prices.time[inside] != markets.time)
    if len(missing):
        at = format_time(int(markets.time[missing[0]]))
        raise DataError(
            f"{what} must have a price in every bar of the markets, got none in {len(missing):,} "
            f"of {markets.n_bars:,}, first at {at} UTC"
        )
    return rows.astype(np.int64)
