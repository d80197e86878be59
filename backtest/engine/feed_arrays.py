"""Data as arrays on the bars of a run: series, flows, funding, days of fees, samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.account import (
    Account,
    AccountRules,
    InstrumentRules,
    Rules,
    Terms,
    find_column,
    find_factor,
    is_price_distance,
    read_scale,
)
from backtest.account.account_records import CLOSE, PARTIAL, TAKEOVER
from backtest.account.records import NUMBERS
from backtest.base import (
    Cost,
    DataError,
    FloatArray,
    IntArray,
    ParameterError,
    Rate,
    format_duration,
    format_time,
    parse_duration,
)
from backtest.base.units import DAY
from backtest.market import Market, Markets, find_clock, has_gaps, place_on_bars
from backtest.venue import (
    Collateral,
    MarginRules,
    Venue,
    choose_multipliers,
    find_charged,
    find_newest,
    has_spread,
    list_dated,
    pack_brackets,
    pick_cost,
    read_rules,
)
from backtest.venue.venue import DATED, MAKER

if TYPE_CHECKING:
    from backtest.venue import FeeTier


def check_contract(market: Market, venue: Venue) -> None:
    lowest, tick = float(market.low.min()), venue.contract.tick
    if venue.contract.round_to_tick and not tick <= lowest:
        raise ParameterError(
            f"tick must be at most the lowest price, {lowest:g}, with round_to_tick, got {tick:g}"
        )


def read_multipliers(market: Market, venue: Venue) -> tuple[FloatArray, FloatArray]:
    given = {
        name: as_of(rate, market.time, f"venue.{name}")
        for name, rate in choose_multipliers(venue).items()
    }
    both = given.get("margin_multiplier", np.ones(1))
    initial = given.get("initial_multiplier", both)
    return initial, given.get("maintenance_multiplier", both)


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
    bar, is_open = place_on_bars(market.funding_time, market.time, market.interval, jitter)
    kept = (bar >= first) & (bar < market.n_bars)
    return {
        "funding_bar": bar[kept].astype(np.int64),
        "funding_is_open": is_open[kept].astype(np.int64),
        "funding_price": market.funding_mark[kept],
        "funding_rate": market.funding_rate[kept],
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


# ------------------------------------------------------------------------------------ days of fees

FEE_ROW, TAKER_ROW = NUMBERS.index("fee"), NUMBERS.index("taker")
WINDOW = 30
"""Days of the volume that chooses a tier."""
ROUNDING = 1e-9
"""Relative rounding of a volume that reaches a tier."""


class TradedDays(NamedTuple):
    """Traded notional by UTC day: ``today``, of day number ``day``, and the 30 days before it.

    ``past`` has shape (30,), the oldest day first.
    """

    day: int
    today: float
    past: FloatArray

    def at(self, day: int) -> TradedDays:
        passed = min(day - self.day, WINDOW + 1)
        if passed <= 0:
            return self
        rows = np.concatenate([self.past, [self.today], np.zeros(passed - 1)])
        return TradedDays(day, 0.0, rows[-WINDOW:])

    def add(self, amount: float) -> TradedDays:
        return self._replace(today=self.today + amount)

    def sum_past(self) -> float:
        total = 0.0  # not sum(), which rounds in another way from Python 3.12 on
        for amount in self.past.tolist():
            total += amount
        return total

    def to_dict(self) -> dict[str, Any]:
        return {"day": self.day, "today": self.today, "past": self.past.tolist()}


def read_traded(data: Mapping[str, Any] | None) -> TradedDays | None:
    if data is None:
        return None
    return TradedDays(data["day"], data["today"], np.array(data["past"], dtype=np.float64))


def start_day(day: IntArray, traded: TradedDays | None, t: int) -> tuple[TradedDays, int]:
    now, end = int(day[t]), int(np.searchsorted(day, day[t], side="right"))
    return (TradedDays(now, 0.0, np.zeros(WINDOW)) if traded is None else traded.at(now)), end


class Rates(NamedTuple):
    taker: float
    maker: float
    maker_share: float

    @property
    def blended(self) -> float:
        return self.taker * (1.0 - self.maker_share) + self.maker * self.maker_share


class FeeSchedule(NamedTuple):
    day: IntArray
    tiers: tuple[FeeTier, ...]
    first: Rates
    charged: tuple[tuple[int, float], ...] = ()

    def choose(self, traded: TradedDays) -> Rates:
        rates = self.first
        volume = traded.sum_past() * (1.0 + ROUNDING)
        for tier in self.tiers:
            if volume >= tier.volume:
                rates = rates._replace(taker=tier.taker, maker=tier.maker)
        return rates


def read_schedule(venue: Venue, time: IntArray) -> FeeSchedule | None:
    fees = venue.fees
    if not fees.tiers:
        return None
    first = Rates(find_newest(fees.taker), find_newest(fees.maker), fees.maker_share)
    return FeeSchedule(time // DAY, tuple(fees.tiers), first)


# --------------------------------------------------------------------------- of several positions


class DailyFees(NamedTuple):
    schedules: tuple[FeeSchedule | None, ...]
    day: IntArray

    def write(self, terms: Terms, traded: TradedDays) -> Terms:
        for i, schedule in enumerate(self.schedules):
            if schedule is not None:
                terms = write_rates(terms, i, schedule.choose(traded))
        return terms


def read_daily_fees(venues: Sequence[Venue], time: IntArray) -> DailyFees | None:
    schedules = tuple(read_schedule(venue, time) for venue in venues)
    return DailyFees(schedules, time // DAY) if any(schedules) else None


def write_rates(terms: Terms, i: int, rates: Rates) -> Terms:
    own, numbers = list(terms.instruments), terms.numbers.copy()
    makers = terms.makers.copy()
    makers[i] = rates.maker
    margin = own[i].margin._replace(taker=rates.taker)
    own[i] = own[i]._replace(fee=rates.blended, taker=rates.taker, margin=margin)
    numbers[FEE_ROW, i], numbers[TAKER_ROW, i] = rates.blended, rates.taker
    width = terms.rules.brackets.floors.shape[1]
    brackets = pack_brackets([each.margin for each in own], width)
    rules = terms.rules._replace(brackets=brackets)
    return terms._replace(instruments=own, numbers=numbers, makers=makers, rules=rules)


# ----------------------------------------------------------------------------------------- samples

MODES = {"close": CLOSE, "takeover": TAKEOVER, "partial": PARTIAL}


def read_account_rules(venue: Venue, account: Account, margin: MarginRules) -> Rules:
    taker, maker, slippage, spread, liquidation_fee, worsening = (
        find_newest(pick_cost(venue, name)) for name in DATED
    )
    step, per_order = venue.liquidation.step, venue.fees.per_order
    instrument = InstrumentRules(
        is_inverse=True if venue.contract.kind == "inverse" else None,
        is_isolated=True if account.margin == "isolated" else None,
        has_stop=True if account.stop_loss is not None else None,
        has_impact=True if venue.slippage.impact > 0.0 else None,
        has_rounding=True if has_rounding(venue) else None,
        keeps_entry=True,
        marks_entry=True,
        margin=margin,
        lot=venue.contract.lot,
        min_notional=venue.contract.min_notional or 0.0,
        fee=taker * (1.0 - venue.fees.maker_share) + maker * venue.fees.maker_share,
        taker=taker,
        slippage=slippage + 0.5 * spread if has_spread(venue) else slippage,
        impact=venue.slippage.impact,
        participation=float(venue.slippage.max_participation or math.inf),
        liquidation_mode=MODES[venue.liquidation.mode],
        liquidation_fee=liquidation_fee,
        liquidation_slippage=worsening,
        step=0.0 if isinstance(step, str) else step,
        full_below=venue.liquidation.full_below,
        is_funded_by_wallet=venue.isolated_funding == "wallet",
        min_leverage=account.min_leverage,
        max_leverage=find_constant(account.max_leverage),
        band=account.band,
        stop_loss=find_factor(account.stop_loss),
        fills_late=True if account.fill == "next_close" else None,
        fills_early=True if account.fill == "same_close" else None,
        has_exits=True if account.has_exits else None,
        take_profit=find_factor(account.take_profit),
        trailing_stop=find_factor(account.trailing_stop),
        equity_stop=account.equity_stop or 0.0,
        is_stop_distance=True if is_price_distance(account.stop_loss) else None,
        is_profit_distance=True if is_price_distance(account.take_profit) else None,
        is_trail_distance=True if is_price_distance(account.trailing_stop) else None,
        has_limits=True if has_limits(account) else None,
        rounds_price=True if venue.contract.round_to_tick else None,
        tick=venue.contract.tick,
        has_auto_margin=True if account.auto_margin else None,
        has_profit_share=True if venue.profit_share() < 1.0 else None,
        has_order_fee=True if has_order_fee(venue) else None,
        has_liquidation_impact=True if venue.liquidation.impact > 0.0 else None,
        profit_share=venue.profit_share(),
        order_fee=0.0 if isinstance(per_order, pd.Series) else per_order,
        liquidation_impact=venue.liquidation.impact,
        full_below_health=venue.liquidation.full_below_health,
    )
    return Rules(account=read_whole(venue, account), instrument=instrument)


def read_whole(venue: Venue, account: Account) -> AccountRules:
    return AccountRules(
        has_interest=True if has_interest(venue) else None,
        is_loan=venue.interest_on == "loan",
        top_up_to=account.top_up_to or 1.0,
        ruin_at=account.ruin_at or 0.0,
    )


def has_interest(venue: Venue) -> bool:
    return bool(find_charged(venue.rates()))


def has_order_fee(venue: Venue) -> bool:
    return bool(np.any(np.asarray(venue.fees.per_order) > 0.0))


def has_rounding(venue: Venue) -> bool:
    contract, most = venue.contract, venue.slippage.max_participation
    return contract.lot > 0.0 or (contract.min_notional or 0.0) > 0.0 or most is not None


def has_limits(account: Account) -> bool:
    return isinstance(account.max_leverage, pd.Series)


def find_constant(limit: Rate) -> float:
    return math.inf if isinstance(limit, pd.Series) else limit


def read_plan(venue: Venue, account: Account) -> dict[str, Any]:
    call = account.margin_call or 0.0
    return {
        "margin_call": call,
        "has_top_up": account.top_up_to is not None,
        "grace": -1.0 if venue.call_grace is None else float(venue.call_grace),
        "grace_ratio": account.top_up_to or call * (1.0 - 1e-11),
        "is_halting": account.after_liquidation == "halt",
    }


def read_margin_tables(
    venue: Venue, account: Account, time: IntArray, first: int
) -> list[tuple[int, MarginRules]]:
    setting, is_isolated = account.venue_leverage or 0.0, account.margin == "isolated"
    return [
        (first + table.first, read_rules(venue.with_table(table), setting, is_isolated))
        for table in venue.in_use(time[first:])
    ]


def measure_log_returns(price: FloatArray, *, is_inverse: bool) -> FloatArray:
    returns = np.full(len(price), np.nan)
    before, after = price[:-1], price[1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        returns[1:] = np.log(2.0 - before / after if is_inverse else after / before)
    returns[~np.isfinite(returns)] = np.nan
    return returns


def mark_samples(market: Market, sampling: str) -> FloatArray:
    return mark_ends(market, max(parse_duration(sampling, "sampling"), 1))


def mark_ends(market: Market, period: int) -> FloatArray:
    ends = np.zeros(market.n_bars)
    if period % market.interval == 0 and not has_gaps(market):
        step = period // market.interval
        passed = (market.start % period) // market.interval
        ends[step - 1 - passed :: step] = 1.0
    else:
        bucket = market.time // period
        ends[:-1] = bucket[1:] != bucket[:-1]
    ends[-1] = 1.0
    return ends
