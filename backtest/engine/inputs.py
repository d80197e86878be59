"""Markets, venues and an account as the terms and the feed of the loop."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from backtest import account as a
from backtest import core, margin
from backtest import venue as v
from backtest.account import records as r
from backtest.account.money import Wallet
from backtest.core import DataError, FloatArray, IntArray, ParameterError, as_of
from backtest.core.code_names import is_series, pd
from backtest.core.structs import Structs
from backtest.core.units import DAY
from backtest.margin import Collateral, MarginRules, pack_brackets
from backtest.market import Market, Markets, find_clock, find_column, has_gaps
from backtest.market.tables import MARK_PRICES, PRICES
from backtest.options.option_inputs import read_option_feed
from backtest.results import Clock
from backtest.venue import Fees, Venue
from backtest.venue.trade_costs import DATED, MAKER
from backtest.venue.venue import RATES

ROUNDING = 1e-9
"""Relative rounding of a volume that reaches a tier."""


def start_day(day: IntArray, traded: r.TradedDays | None, t: int) -> tuple[r.TradedDays, int]:
    """Return the traded volume known on the day of bar t, and the first bar of the next day."""
    now, end = int(day[t]), int(np.searchsorted(day, day[t], side="right"))
    return (r.TradedDays(now, 0.0, np.zeros(r.WINDOW)) if traded is None else traded.at(now)), end


class DailyFees(NamedTuple):
    """The fees of the instruments whose tiers change from day to day, None for the others."""

    fees: tuple[Fees | None, ...]
    day: IntArray

    def find(self, past: FloatArray) -> FloatArray:
        """Return taker, maker and charged fee by what was traded on each of the last 30 days.

        Of shape (n, 3, ...) for ``past`` of shape (30, ...); NaN for fees without tiers.
        """
        volume: Any = np.cumsum(past, axis=0)[-1] * (1.0 + ROUNDING)  # in one order on every Python
        found = np.full((len(self.fees), 3, *np.shape(volume)), np.nan)
        for i, fees in enumerate(self.fees):
            if fees is not None:
                k = np.searchsorted([each.volume for each in fees.tiers], volume, side="right")
                tables: list[Any] = [fees, *fees.tiers]
                rates = np.array([(each.taker, each.maker) for each in tables])
                taker, maker = rates[k].T
                found[i] = taker, maker, blend(taker, maker, fees.maker_share)
        return found

    def write(self, terms: a.Terms, found: FloatArray) -> a.Terms:
        """Return terms with the fees that :meth:`find` returned, of shape (n, 3)."""
        for i, (taker, maker, fee) in enumerate(found.tolist()):
            if self.fees[i] is not None:
                numbers, makers = terms.numbers.copy(), terms.makers.copy()
                numbers[i, r.NUMBERS.index("fee")] = fee
                numbers[i, r.NUMBERS.index("taker")], makers[i] = taker, maker
                margin = terms.instruments[i].margin._replace(taker=taker)
                terms = terms._replace(numbers=numbers, makers=makers)
                terms = write_table(terms, i, margin, fee=fee, taker=taker)
        return terms


def blend(taker: Any, maker: Any, maker_share: float) -> Any:
    return taker * (1.0 - maker_share) + maker * maker_share


UNKNOWN_TICK = 1e-6
"""How far beyond a limit the price must trade where no tick is known: a touch fills nothing."""
MODES = {"close": r.CLOSE, "takeover": r.TAKEOVER, "partial": r.PARTIAL}


def read_instrument_rules(
    venue: Venue, account: a.Account, margin: MarginRules
) -> a.InstrumentRules:
    taker, maker, slippage, spread, liquidation_fee, worsening = (
        v.find_newest(v.pick_cost(venue, name)) for name in DATED
    )
    contract, share = venue.contract, venue.profit_share()
    most, limit = venue.slippage.max_participation, account.max_leverage
    lot = contract.order_step
    least = contract.min_notional or 0.0
    step, per_order = venue.liquidation.step, venue.fees.per_order
    return a.InstrumentRules(
        has_stop=account.stop_loss is not None,
        has_impact=venue.slippage.impact > 0.0,
        has_rounding=lot > 0.0 or least > 0.0 or most is not None,
        margin=margin,
        lot=lot,
        min_notional=least,
        fee=blend(taker, maker, venue.fees.maker_share),
        taker=taker,
        slippage=slippage + 0.5 * spread if v.has_spread(venue) else slippage,
        impact=venue.slippage.impact,
        participation=float(most or math.inf),
        liquidation_mode=MODES[venue.liquidation.mode],
        liquidation_fee=liquidation_fee,
        liquidation_slippage=worsening,
        step=0.0 if isinstance(step, str) else step,
        full_below=venue.liquidation.full_below,
        is_funded_by_wallet=venue.isolated_funding == "wallet",
        min_leverage=account.min_leverage,
        max_leverage=math.inf if is_series(limit) else limit,
        band=account.band,
        stop_loss=a.find_factor(account.stop_loss),
        has_exits=account.has_exits,
        take_profit=a.find_factor(account.take_profit),
        trailing_stop=a.find_factor(account.trailing_stop),
        is_stop_distance=a.is_price_distance(account.stop_loss),
        is_profit_distance=a.is_price_distance(account.take_profit),
        is_trail_distance=a.is_price_distance(account.trailing_stop),
        has_limits=is_series(limit),
        rounds_price=contract.round_to_tick,
        tick=contract.tick or UNKNOWN_TICK,
        has_auto_margin=account.auto_margin,
        has_profit_share=share < 1.0,
        has_order_fee=bool(np.any(np.asarray(per_order) > 0.0)),
        profit_share=share,
        order_fee=0.0 if is_series(per_order) else per_order,
        liquidation_impact=venue.liquidation.impact,
        full_below_health=venue.liquidation.full_below_health,
        margin_share=account.margin_share or math.inf,
    )


def read_instrument(market: Market, venue: Venue, account: a.Account) -> dict[str, Any]:
    """Return what venue and settings give an instrument by bar, each (n_bars,) or (1,)."""
    lowest, tick = float(market.low.min()), venue.contract.tick or UNKNOWN_TICK
    if venue.contract.round_to_tick and not tick <= lowest:
        raise ParameterError(
            f"tick must be at most the lowest price, {lowest:g}, with round_to_tick, got {tick:g}"
        )
    sigma, adv = measure_impact(market, venue)
    multipliers = {
        name: as_of(rate, market.time, f"venue.{name}")
        for name, rate in v.choose_multipliers(venue).items()
    }
    by_rule, _ = venue.multiply_margin(market)
    both = multipliers.get("margin_multiplier", np.ones(1))
    per_order = venue.fees.per_order
    order_fee = per_order if is_series(per_order) else 0.0
    return {
        "multiplier": multipliers.get("maintenance_multiplier", both) * by_rule,
        "initial": multipliers.get("initial_multiplier", both) * by_rule,
        "sigma": sigma,
        "adv": adv,
        "limit": as_of(account.max_leverage, market.time, "account.max_leverage"),
        "order_fee": as_of(order_fee, market.time, "venue.fees.per_order"),
        "stop_scale": a.read_scale(account.stop_loss, market, "account.stop_loss"),
        "profit_scale": a.read_scale(account.take_profit, market, "account.take_profit"),
        "trail_scale": a.read_scale(account.trailing_stop, market, "account.trailing_stop"),
    }


def measure_impact(market: Market, venue: Venue) -> tuple[FloatArray, FloatArray]:
    """Return volatility and traded volume per day by bar, each (1,) of zeros without impact."""
    if venue.slippage.impact == 0.0 and venue.liquidation.impact == 0.0:
        return np.zeros(1), np.zeros(1)
    if not market.sessions and has_gaps(market):  # bars of two lengths
        clock = find_clock(market)
        longer = measure_impact(clock.seen, venue)
        rows = np.where(clock.rows >= 0, clock.rows, -clock.rows - 1)
        rows = np.minimum(rows, clock.seen.n_bars - 1)
        return longer[0][rows], longer[1][rows]
    n = core.parse_duration(venue.slippage.impact_window) // market.interval
    if n < 2:
        raise ParameterError(
            f"impact_window must hold two bars of {core.format_duration(market.interval)} or more, "
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


def read_cost(cost: core.Cost, market: Market, key: str) -> FloatArray:
    """Return a cost by bar, of shape (n_bars,), or (1,) for a constant."""
    if not isinstance(cost, str):
        return as_of(cost, market.time, key)
    values = pd.Series(find_column(market, cost, key)).ffill().to_numpy()
    low = MAKER.low if key.endswith("maker") else 0.0
    wrong = np.flatnonzero(~((values >= low) & (values < 1.0)))
    if len(wrong):
        at = core.format_time(int(market.time[wrong[0]]))
        raise DataError(
            f"{key} must be a fraction of the price from {low:g} up to 1 (1 bp is 0.0001), known "
            f"from the first bar on, got {cost} {values[wrong[0]]:g} in {len(wrong):,} of "
            f"{market.n_bars:,} bars, first at {at} UTC"
        )
    return np.concatenate([values[:1], values[:-1]])


def measure_years(market: Market | Markets, venue: Venue, first: int, started: int) -> FloatArray:
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
    rates, spans = (np.broadcast_to(each, free.shape) for each in (cash_rate, years))
    free[1:] = rates[:-1] * spans[1:]
    return free


ASSET = (*PRICES, *MARK_PRICES)


def read_assets(markets: Markets, account: a.Account) -> dict[str, Any]:
    """Return the prices of the collateral on the clock, each of shape (C, n_bars)."""
    found = {f"asset_{name}": np.empty((len(account.collateral), markets.n_bars)) for name in ASSET}
    for c, asset in enumerate(account.collateral):
        prices: Any = find_prices(asset, markets)
        rows = None
        if isinstance(prices, Market):
            rows = np.searchsorted(prices.time, markets.time)
            inside = np.minimum(rows, prices.n_bars - 1)
            missing = np.flatnonzero(prices.time[inside] != markets.time)
            if len(missing):
                at = core.format_time(int(markets.time[missing[0]]))
                raise DataError(
                    f"collateral {asset.name!r} must have a price in every bar of the markets, got "
                    f"none in {len(missing):,} of {markets.n_bars:,}, first at {at} UTC"
                )
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


def mark_samples(market: Market | Markets, sampling: str) -> FloatArray:
    ends, bucket = np.ones(market.n_bars), market.time // core.parse_duration(sampling, "sampling")
    ends[:-1] = bucket[1:] != bucket[:-1]
    return ends


ORDERS = {
    "most_relief": r.MOST_RELIEF,
    "largest_loss": r.LARGEST_LOSS,
    "largest_requirement": r.LARGEST_REQUIREMENT,
    "largest_notional": r.LARGEST_NOTIONAL,
    "futures_then_options": r.OPTIONS_LAST,
}
FILLS = {"next_open": r.AT_OPEN, "next_close": r.LATE, "same_close": r.EARLY, "limit": r.RESTING}
ON_CLOCK = (*ASSET, "volume")


class AccountInputs(NamedTuple):
    terms: a.Terms
    feed: a.MarketFeed
    clock: Clock
    log_returns: FloatArray
    changes: tuple[tuple[int, int, MarginRules], ...]
    started: int
    fees: DailyFees | None
    trader: Any = None


def read_inputs(setup: Any, like: AccountInputs | None = None) -> AccountInputs:
    """Return the records and arrays of a setup; it shares signal and clock of the one ``like``."""
    markets, venues, first = setup.markets, setup.venues, setup.first
    own = {name: setup.account.for_instrument(name) for name in markets.names}
    tables: list[list[tuple[int, MarginRules]]] = []
    for name, each in own.items():
        venue, setting = venues[name], (each.venue_leverage or 0.0, each.margin == "isolated")
        used = venue.in_use(markets.time[first:])
        read = [(first + x.first, margin.read_rules(venue.with_table(x), *setting)) for x in used]
        tables.append(read)
    rules = [
        read_instrument_rules(venues[name], own[name], table[0][1])
        for name, table in zip(markets.names, tables, strict=True)
    ]
    width = max(len(each.floors) for table in tables for _, each in table)
    if like is not None:
        weights = like.feed.signal
    else:
        weights, seen = np.nan_to_num(setup.signal.T, nan=0.0), find_clock(markets)
        if not seen.is_every:  # between its decisions the account ignores it
            weights = np.where(seen.rows >= 0, weights.T, 1.0).T
        weights = np.ascontiguousarray(weights)
    feed = read_feed(setup, own, weights)
    terms = read_terms(setup, rules, width, feed.options)
    changes = sorted((bar, i, own) for i, table in enumerate(tables) for bar, own in table[1:])
    inverse = terms.rules.brackets.are_inverse
    free = earn_cash(feed.cash_rate, feed.years, markets.n_bars)
    if like is not None and np.array_equal(like.terms.rules.brackets.are_inverse, inverse):
        log_returns = like.log_returns
    else:
        log_returns = np.full(feed.mark_close.shape, np.nan)
        before, after = feed.mark_close[:-1], feed.mark_close[1:]
        with np.errstate(invalid="ignore", divide="ignore"):
            growth = after / before
            growth[:, inverse] = 2.0 - before[:, inverse] / after[:, inverse]
            log_returns[1:] = np.log(growth)
        log_returns[~np.isfinite(log_returns)] = np.nan
    if like is not None:
        clock = Clock(like.clock.ends_sample, like.clock.log_return, free)
    else:
        ends = mark_samples(markets, setup.test.sampling)
        clock = Clock(ends, np.ascontiguousarray(log_returns[:, 0]), free)
    tiered = [venues[name].fees if venues[name].fees.tiers else None for name in markets.names]
    fees = DailyFees(tuple(tiered), markets.time // DAY) if any(tiered) else None
    return AccountInputs(terms, feed, clock, log_returns, tuple(changes), setup.started, fees)


def read_terms(
    setup: Any, rules: Sequence[a.InstrumentRules], width: int, options: a.OptionFeed
) -> a.Terms:
    markets, venues, account = setup.markets, setup.venues, setup.account
    names, venue = markets.names, venues[markets.names[0]]
    margins = {name: own.margin for name, own in zip(names, rules, strict=True)}
    packed = account.requirement.pack(margins, account.collateral, width)
    has_scenarios = isinstance(account.requirement, margin.ScenarioMargin)
    wanted, ranks = venue.liquidation.order, np.arange(len(names), dtype=np.int64)
    if wanted is None:
        order = r.MOST_RELIEF if has_scenarios else r.LARGEST_LOSS
    elif isinstance(wanted, str):
        order = ORDERS[wanted]
    else:
        order = r.BY_NAME
        listed = [x for x in wanted if x in names] + [x for x in names if x not in wanted]
        ranks = np.array([listed.index(name) for name in names], dtype=np.int64)
    call = account.margin_call or 0.0
    packed = packed._replace(spot=margin.pack_spot([venues[x].contract.haircut for x in names]))
    given = [core.pick_value(account.max_holding, name) for name in names]
    held = np.array([0 if x is None else core.parse_duration(x) for x in given], dtype=np.float64)
    stops = (account.stop_loss, account.take_profit, account.trailing_stop)
    fixed = [[a.is_fixed_distance(core.pick_value(x, name)) for name in names] for x in stops]
    paths: list[object] = [id(markets[name]) for name in names]  # prices that move together
    assets: list[object] = [id(find_prices(each, markets)) for each in account.collateral]
    if has_scenarios:
        groups = account.requirement.list_groups(list(names)).items()
        group_of = {name: group for group, members in groups for name in members}
        paths = [group_of[name] for name in names]
        assets = [each.cancels_risk or id(each) for each in account.collateral]
    keys = [*paths, *assets]
    flags = [[getattr(own, name) for name in r.FLAGS] for own in rules]
    modes = {own.liquidation_mode for own in rules if not own.margin.is_isolated}
    expenses = np.array([venues[name].contract.expense for name in names], dtype=np.float64)
    borrowed = [venues[name].contract.borrow_rate for name in names]
    pays_for_coins = any(np.any(np.asarray(x) > 0.0) for x in borrowed if x is not None)
    return a.Terms(
        instruments=list(rules),
        numbers=np.array([[getattr(own, name) for name in r.NUMBERS] for own in rules], np.float64),
        flags=np.array(flags, np.bool_).astype(np.int64),
        rules=packed,
        markets=np.array([keys.index(key) for key in keys], dtype=np.int64),
        ranks=ranks,
        modes=np.array([own.liquidation_mode for own in rules], dtype=np.int64),
        intrabar=r.WORST if account.intrabar == "worst" else r.PATH,
        liquidation_mode=modes.pop() if modes else r.CLOSE,
        order=order,
        has_interest=bool(v.find_charged(venue) or np.any(expenses) or pays_for_coins),
        is_loan=venue.interest_on == "loan",
        top_up_to=account.top_up_to or 1.0,
        ruin_at=account.ruin_at or 0.0,
        margin_call=call,
        grace=-1.0 if venue.call_grace is None else float(venue.call_grace),
        grace_ratio=account.top_up_to or call * (1.0 - 1e-11),
        is_halting=account.after_liquidation == "halt",
        negative_limit=account.negative_limit or 0.0,
        conversion_is_pro_rata=account.conversion == "pro_rata",
        max_gross_leverage=account.max_gross_leverage,
        max_overlay=account.max_overlay,
        fill=FILLS[account.fill],
        equity_stop=account.equity_stop or 0.0,
        daily_loss=account.daily_loss or 0.0,
        weekly_loss=account.weekly_loss or 0.0,
        is_of_paid_in=account.daily_basis == "initial",
        has_floor=any((account.equity_stop, account.daily_loss, account.weekly_loss)),
        max_holding=held,
        has_time_stop=bool(np.any(held) or np.any(fixed)),
        fixed=np.array(fixed, np.int64),
        offsets=np.array([core.pick_value(account.offset, name) or 0.0 for name in names]),
        makers=np.array([v.find_newest(venues[name].fees.maker) for name in names]),
        expenses=expenses,
        rests_closing=account.closing == "limit",
        options=r.pack_option_terms(account.requirement, options, names),
    )


def number_days(markets: Markets, account: a.Account) -> IntArray:
    """Return the local day and the week, from Monday, of each open, (n_bars, 2); or no rows."""
    if account.daily_loss is None and account.weekly_loss is None:
        return np.zeros((0, 2), np.int64)
    local = core.utc_index(markets.time).tz_convert(account.day).tz_localize(None)
    days = local.as_unit("ns").asi8 // DAY
    return np.stack([days, (days + 3) // 7], axis=1)  # 1970 began on a Thursday


def find_pause_ends(markets: Markets, account: a.Account) -> FloatArray:
    """Return when an account that an equity stop closes in a bar trades again, ns; or no rows."""
    if account.after_stop == "continue":
        return np.zeros(0)
    return a.find_pause_ends(account, markets.time)


def read_feed(setup: Any, own: Mapping[str, a.Account], signal: FloatArray) -> a.MarketFeed:
    """Return the markets as the loop takes them; ``signal`` is (n_bars, n)."""
    markets, venues, account, first = setup.markets, setup.venues, setup.account, setup.first
    venue = venues[markets.names[0]]
    panel = markets.panel(core.parse_duration(venue.funding_jitter))
    is_paid = np.array([venues[name].contract.is_spot for name in markets.names])
    kept = (panel.funding_bar >= first) & ~is_paid[panel.funding_instrument]  # coins pay no funding
    ends = (markets.spans[:, 1] < markets.n_bars) | ~markets.tradable()[:, -1]
    bars = {name: np.ascontiguousarray(getattr(panel, name).T) for name in ON_CLOCK}
    clock = find_clock(markets)
    by_bar: dict[str, list[FloatArray]] = {}
    for name in markets.names:
        for field, values in read_instrument(markets[name], venues[name], own[name]).items():
            by_bar.setdefault(field, []).append(values)
    flow_bar, flow_amount = np.empty(0, np.int64), np.empty(0)
    if account.flows is not None:
        stamps = pd.DatetimeIndex(account.flows.index).as_unit("ns").asi8
        if stamps[0] < setup.started:
            raise ParameterError(
                f"flows must not lie before the first bar, {core.format_time(setup.started)} UTC, "
                f"got {core.format_time(int(stamps[0]))} UTC; add it to capital"
            )
        bar = np.searchsorted(markets.time, stamps, side="left")
        is_in = (bar < markets.n_bars) & (bar >= first)
        flow_bar = bar[is_in].astype(np.int64)
        flow_amount = np.asarray(account.flows, dtype=np.float64)[is_in]
    borrowed = [venues[name].contract.borrow_rate for name in markets.names]
    coin_rate = np.zeros((1, 1))
    if any(each is not None for each in borrowed):  # what short spot legs pay per year
        known = (0.0 if each is None else each for each in borrowed)
        rates = [as_of(each, markets.time, "Contract.borrow_rate") for each in known]
        coin_rate = np.ascontiguousarray(np.stack(np.broadcast_arrays(*rates), axis=1))
    if not clock.is_every:
        bars["volume"] = clock.place(clock.seen.panel().volume.T, bars["volume"])
    return a.MarketFeed(
        **bars,
        **{field: stack(values, markets) for field, values in by_bar.items()},
        costs=read_costs(markets, venues),
        signal=signal,
        span=markets.spans.astype(np.int64),
        ends=ends.astype(np.int64),
        **read_assets(markets, account),
        years=measure_years(markets, venue, first, setup.started),
        **{x: as_of(getattr(venue, x), markets.time, f"venue.{x}") for x in RATES},
        flow_bar=flow_bar,
        flow_amount=flow_amount,
        days=number_days(markets, account),
        pause_ends=find_pause_ends(markets, account),
        coin_rate=coin_rate,
        funding_time=panel.funding_time[kept].astype(np.int64),
        funding_bar=panel.funding_bar[kept].astype(np.int64),
        funding_is_open=panel.funding_is_open[kept].astype(np.int64),
        funding_instrument=panel.funding_instrument[kept].astype(np.int64),
        funding_price=panel.funding_price[kept],
        funding_rate=panel.funding_rate[kept],
        time=markets.time,
        options=read_option_feed(markets, venues, panel, first),
    )


def read_costs(markets: Markets, venues: Mapping[str, Venue]) -> FloatArray:
    """Return the costs that change over time by bar, of shape (n_bars or 1, 6, n)."""
    placed: list[dict[int, FloatArray]] = [{} for _ in markets]
    for (name, market), rows in zip(markets.items(), placed, strict=True):
        if v.list_dated(venues[name]):
            taker, maker, rate, spread, fee, worse = (
                read_cost(v.pick_cost(venues[name], each), market, f"venue.{each}")
                for each in DATED
            )
            blended = blend(taker, maker, venues[name].fees.maker_share)
            costs = (blended, taker, rate + 0.5 * spread, fee, worse, maker)
            rows.update({row: values for row, values in enumerate(costs) if len(values) > 1})
    n_bars = markets.n_bars if any(placed) else 1
    found = np.full((n_bars, r.MAKER_ROW + 1, len(placed)), np.nan)
    for i, (rows, (first, stop)) in enumerate(zip(placed, markets.spans, strict=True)):
        for row, values in rows.items():
            found[first:stop, row, i] = values
    return found


def stack(values: Sequence[FloatArray], markets: Markets) -> FloatArray:
    if all(len(each) == 1 for each in values):
        return np.array(values, dtype=np.float64).reshape(1, len(values))
    found = np.full((markets.n_bars, len(values)), np.nan)
    for row, each, (first, stop) in zip(found.T, values, markets.spans, strict=True):
        row[first:stop] = each
    return found


def start_account_state(setup: Any) -> a.AccountState:
    inputs, account, feed = setup.inputs, setup.account, setup.inputs.feed
    n = feed.open.shape[1]
    amounts = np.array([each.amount for each in account.collateral], dtype=np.float64)
    prices = feed.asset_open[:, setup.first].copy() if len(amounts) else np.zeros(0)
    equity = account.capital + float(np.sum(amounts * prices))
    wealth = equity + account.reserve
    wallet = Wallet(
        cash=account.capital,
        reserve=account.reserve,
        equity=equity,
        highest=equity,
        unit=wealth,
        peak=wealth,
        scale=1.0,
        paid_in=wealth,
        overlay=1.0 if setup.overlay is None else np.nan,
        since_pool=np.inf,
    )
    positions, calls = Structs(r.PositionState, n), Structs(r.MarginCall, n + 1)
    for position, rules in zip(positions, inputs.terms.instruments, strict=True):
        position.signal = position.factor = 1.0
        position.value = position.leverage = position.asked = math.nan
        position.opened = position.last_funding = math.nan
        position.since = position.since_stop = math.inf
        position.setting = rules.margin.setting
    for call in calls:
        call.unmet, call.called_at = -1.0, math.nan
    return a.AccountState(
        held=r.view_holdings(positions, amounts, prices.copy()),
        positions=positions,
        calls=calls,
        priced=prices,
        wallet=wallet,
        cursor=np.zeros(2, np.int64),
        options=r.start_options(inputs.terms.options, feed.options),
    )


WITH_OPTIONS, WITHOUT_OPTIONS = 0, None
"""Stand for the list of rules in terms for compiled code, which knows by the type of the two."""


def pack_terms(terms: a.Terms) -> a.Terms:
    """Return terms for compiled code, which knows by their type whether there are options."""
    has_options = len(terms.options.instruments) > 0
    return terms._replace(instruments=WITH_OPTIONS if has_options else WITHOUT_OPTIONS)


def write_table(terms: a.Terms, i: int, margin: MarginRules, **changes: Any) -> a.Terms:
    own = list(terms.instruments)
    own[i] = own[i]._replace(margin=margin, **changes)
    width = terms.rules.brackets.floors.shape[1]
    brackets = pack_brackets([each.margin for each in own], width)
    return terms._replace(instruments=own, rules=terms.rules._replace(brackets=brackets))
