"""Markets, venues and an account as the terms and the feed of the loop.

====================  ==============================================================================
word                  what it is
====================  ==============================================================================
setup                 the test of a run with its policies: what everything here is read from
terms                 numbers and flags of venue and account, which hold at each bar
feed                  arrays of the market, of venue and account by bar
rules                 the terms of one instrument, ``InstrumentRules``; its margin table apart
accounts              the settings of the account for each instrument, by name
by bar                an array of shape (n_bars,), or (1,) for what never changes
change                a margin table that replaces another at a bar: (bar, instrument, table)
====================  ==============================================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import attrgetter
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
from backtest.venue.venue import INTEREST_RATES

# Fees by what was traded.

ROUNDING = 1e-9
"""Relative rounding of a volume that reaches a tier."""


def start_day(day: IntArray, traded: r.TradedDays | None, t: int) -> tuple[r.TradedDays, int]:
    """Return the traded volume known on the day of bar t, and the first bar of the next day."""
    today = int(day[t])
    next_day = int(np.searchsorted(day, day[t], side="right"))
    if traded is None:
        return r.TradedDays(today, 0.0, np.zeros(r.WINDOW)), next_day
    return traded.at(today), next_day


class DailyFees(NamedTuple):
    """The fees of the instruments whose tiers change from day to day, None for the others."""

    fees: tuple[Fees | None, ...]
    day: IntArray

    def find(self, past: FloatArray) -> FloatArray:
        """Return the fees of each instrument by what was traded on each of the last 30 days.

        ``past`` are these amounts, of shape (30, ...): money. The answer has shape (n, 3, ...): the
        taker and the maker rate, and what is charged, a blend of both. NaN for fees without tiers.
        """
        # A running sum adds in one order on every Python; a sum does not. Rounding counts for the
        # trader, who reaches a tier at its volume.
        traded: Any = np.cumsum(past, axis=0)[-1]
        volume = traded * (1.0 + ROUNDING)

        rates = np.full((len(self.fees), 3, *np.shape(volume)), np.nan)
        for i, fees in enumerate(self.fees):
            if fees is not None:
                taker, maker = find_tier_rates(fees, volume)
                rates[i, 0] = taker
                rates[i, 1] = maker
                rates[i, 2] = blend(taker, maker, fees.maker_share)
        return rates

    def write(self, terms: a.Terms, rates: FloatArray) -> a.Terms:
        """Return terms with the fees that :meth:`find` returned, of shape (n, 3).

        The fees of an instrument stand in three places of the terms: its numbers, ``makers``, and
        its margin table.
        """
        for i, (taker, maker, fee) in enumerate(rates.tolist()):
            has_tiers = self.fees[i] is not None
            if not has_tiers:
                continue

            # The arrays of terms are shared, so they are copied.
            numbers = terms.numbers.copy()
            numbers[i, r.NUMBERS.index("fee")] = fee
            numbers[i, r.NUMBERS.index("taker")] = taker
            makers = terms.makers.copy()
            makers[i] = maker

            table = terms.instruments[i].margin._replace(taker=taker)
            terms = terms._replace(numbers=numbers, makers=makers)
            terms = write_table(terms, i, table, fee=fee, taker=taker)
        return terms


def find_tier_rates(fees: Fees, volume: Any) -> Any:
    """Return taker and maker fee at traded volumes, of shape (2, ...): those of the tier reached.

    Below the first tier they are the fees themselves.
    """
    tables: list[Any] = [fees, *fees.tiers]
    rates_by_tier = np.array([(table.taker, table.maker) for table in tables])
    least_volumes = [tier.volume for tier in fees.tiers]
    n_reached = np.searchsorted(least_volumes, volume, side="right")
    return rates_by_tier[n_reached].T


def blend(taker: Any, maker: Any, maker_share: float) -> Any:
    """Return the fee of a fill that is a maker's for a share of it."""
    return taker * (1.0 - maker_share) + maker * maker_share


# One instrument: what never changes, and what does by bar.

UNKNOWN_TICK = 1e-6
"""How far beyond a limit the price must trade where no tick is known: a touch fills nothing."""
MODES = {"close": r.CLOSE, "takeover": r.TAKEOVER, "partial": r.PARTIAL}


def read_instrument_rules(
    venue: Venue, account: a.Account, margin: MarginRules
) -> a.InstrumentRules:
    """Return the terms of one instrument, numbers and flags, as the loop reads them.

    ``account`` are the account's settings for this instrument, ``margin`` its margin table. Of
    costs that have dates the terms have the newest; what changes by bar is in the feed
    (:func:`read_changing`). A limit that is not set is infinite, a cost or minimum that is not
    set 0.
    """
    newest = {name: v.find_newest(v.pick_cost(venue, name)) for name in DATED}
    taker = newest["fees.taker"]
    maker = newest["fees.maker"]
    # Half a spread is paid on each side of a trade.
    slippage = newest["slippage.rate"]
    if v.has_spread(venue):
        slippage += 0.5 * newest["slippage.spread"]

    contract = venue.contract
    liquidation = venue.liquidation
    min_notional = contract.min_notional or 0.0
    max_participation = venue.slippage.max_participation
    has_smallest = contract.order_step > 0.0 or min_notional > 0.0
    max_leverage = account.max_leverage
    per_order = venue.fees.per_order
    profit_share = venue.profit_share()
    return a.InstrumentRules(
        has_stop=account.stop_loss is not None,
        has_impact=venue.slippage.impact > 0.0,
        has_rounding=has_smallest or max_participation is not None,
        margin=margin,
        lot=contract.order_step,
        min_notional=min_notional,
        fee=blend(taker, maker, venue.fees.maker_share),
        taker=taker,
        slippage=slippage,
        impact=venue.slippage.impact,
        participation=float(max_participation or math.inf),
        liquidation_mode=MODES[liquidation.mode],
        liquidation_fee=newest["liquidation.fee"],
        liquidation_slippage=newest["liquidation.slippage"],
        step=0.0 if isinstance(liquidation.step, str) else liquidation.step,
        full_below=liquidation.full_below,
        is_funded_by_wallet=venue.isolated_funding == "wallet",
        min_leverage=account.min_leverage,
        max_leverage=math.inf if is_series(max_leverage) else max_leverage,
        band=account.band,
        stop_loss=a.find_factor(account.stop_loss),
        has_exits=account.has_exits,
        take_profit=a.find_factor(account.take_profit),
        trailing_stop=a.find_factor(account.trailing_stop),
        is_stop_distance=a.is_price_distance(account.stop_loss),
        is_profit_distance=a.is_price_distance(account.take_profit),
        is_trail_distance=a.is_price_distance(account.trailing_stop),
        has_limits=is_series(max_leverage),
        rounds_price=contract.round_to_tick,
        tick=contract.tick or UNKNOWN_TICK,
        has_auto_margin=account.auto_margin,
        has_profit_share=profit_share < 1.0,
        has_order_fee=bool(np.any(np.asarray(per_order) > 0.0)),
        profit_share=profit_share,
        order_fee=0.0 if is_series(per_order) else per_order,
        liquidation_impact=liquidation.impact,
        full_below_health=liquidation.full_below_health,
        margin_share=account.margin_share or math.inf,
    )


def read_instrument(market: Market, venue: Venue, account: a.Account) -> dict[str, Any]:
    """Return what changes by bar for one instrument, by the name of the feed's field.

    Each array has shape (n_bars,), or (1,) if it never changes. They are the multipliers of
    maintenance and initial margin (``multiplier``, ``initial``); ``sigma`` and ``adv``, which
    impact goes by; the ``limit`` of leverage; the fixed ``order_fee``; and what the distances of
    stops are multiplied by. Raises ParameterError for a tick that prices cannot be rounded to.
    """
    lowest = float(market.low.min())
    tick = venue.contract.tick or UNKNOWN_TICK
    if venue.contract.round_to_tick and not tick <= lowest:
        raise ParameterError(
            f"tick must be at most the lowest price, {lowest:g}, with round_to_tick, got {tick:g}"
        )
    sigma, adv = measure_impact(market, venue)

    # Multipliers of margin: dated ones of both margins or of one, times that of a rule.
    multipliers = {
        name: as_of(rate, market.time, f"venue.{name}")
        for name, rate in v.choose_multipliers(venue).items()
    }
    by_rule, _ = venue.multiply_margin(market)
    of_both = multipliers.get("margin_multiplier", np.ones(1))

    per_order = venue.fees.per_order
    order_fee = per_order if is_series(per_order) else 0.0
    return {
        "multiplier": multipliers.get("maintenance_multiplier", of_both) * by_rule,
        "initial": multipliers.get("initial_multiplier", of_both) * by_rule,
        "sigma": sigma,
        "adv": adv,
        "limit": as_of(account.max_leverage, market.time, "account.max_leverage"),
        "order_fee": as_of(order_fee, market.time, "venue.fees.per_order"),
        "stop_scale": a.read_scale(account.stop_loss, market, "account.stop_loss"),
        "profit_scale": a.read_scale(account.take_profit, market, "account.take_profit"),
        "trail_scale": a.read_scale(account.trailing_stop, market, "account.trailing_stop"),
    }


def measure_impact(market: Market, venue: Venue) -> tuple[FloatArray, FloatArray]:
    """Return the volatility and the traded notional per day that market impact goes by, by bar.

    Both come from a window of bars that ends before each bar, and are NaN while it is not full: the
    standard deviation of log returns and the mean notional, scaled to a day. Each has shape
    (n_bars,), or (1,) of zeros without impact.
    """
    if venue.slippage.impact == 0.0 and venue.liquidation.impact == 0.0:
        return np.zeros(1), np.zeros(1)

    # Bars of two lengths: the longer ones are measured, and hold for the shorter ones in them.
    if not market.sessions and has_gaps(market):
        clock = find_clock(market)
        sigma_of_longer, adv_of_longer = measure_impact(clock.seen, venue)
        # Of each bar the longer one that it lies in; after the last one, that one.
        rows = np.minimum(clock.find_next(), clock.seen.n_bars - 1)
        return sigma_of_longer[rows], adv_of_longer[rows]

    n_window = core.parse_duration(venue.slippage.impact_window) // market.interval
    if n_window < 2:
        raise ParameterError(
            f"impact_window must hold two bars of {core.format_duration(market.interval)} or more, "
            f"got {venue.slippage.impact_window}"
        )
    if not np.any(market.volume > 0.0):
        raise DataError(
            f"impact needs volumes, {market!r} has none; load bars with a volume column"
        )

    size = venue.contract.size
    notional_of_contract = size * market.close
    if venue.contract.kind == "inverse":
        notional_of_contract = size / market.close

    # A bar knows the bars before it, so both are those of one bar earlier.
    returns = pd.Series(np.log(market.close)).diff()
    traded = pd.Series(market.volume * notional_of_contract)
    bars_per_day = DAY / market.interval
    sigma = returns.rolling(n_window).std().shift(1) * math.sqrt(bars_per_day)
    adv = traded.rolling(n_window).mean().shift(1) * bars_per_day

    # Copies: pandas gives read-only arrays, for which numba would compile another loop.
    return sigma.to_numpy(dtype=np.float64, copy=True), adv.to_numpy(dtype=np.float64, copy=True)


def read_cost(cost: core.Cost, market: Market, key: str) -> FloatArray:
    """Return a cost by bar, of shape (n_bars,), or (1,) for a constant."""
    if not isinstance(cost, str):
        return as_of(cost, market.time, key)

    values = pd.Series(find_column(market, cost, key)).ffill().to_numpy()
    lowest = MAKER.low if key.endswith("maker") else 0.0
    wrong = np.flatnonzero(~((values >= lowest) & (values < 1.0)))
    if len(wrong):
        first_time = core.format_time(int(market.time[wrong[0]]))
        raise DataError(
            f"{key} must be a fraction of the price from {lowest:g} up to 1 (1 bp is 0.0001), "
            f"known from the first bar on, got {cost} {values[wrong[0]]:g} in {len(wrong):,} of "
            f"{market.n_bars:,} bars, first at {first_time} UTC"
        )
    # The column of a bar is known at its close, and charged from the next bar on.
    return np.concatenate([values[:1], values[:-1]])


# The clock, cash and collateral of the account.


def measure_years(market: Market | Markets, venue: Venue, first: int, started: int) -> FloatArray:
    """Return the time from the open before to each open, in years, for which interest is due.

    Of shape (n_bars,), or (1,) if all bars are equal. It is 0 at the first bar of a run, as no
    interest is due for the time before it.
    """
    year = venue.day_count * DAY
    if has_gaps(market):
        years = np.diff(market.time, prepend=market.time[0]) / year
    else:
        years = np.array([market.interval / year])

    # The first bar of the data is 0 already, or charges no interest; a resumed run owes it.
    if first == 0 or started != market.time[first]:
        return years
    by_bar = np.broadcast_to(years, (market.n_bars,)).copy()
    by_bar[first] = 0.0
    return by_bar


def earn_cash(cash_rate: FloatArray, years: FloatArray, n_bars: int) -> FloatArray:
    """Return what cash earns in each bar as a fraction, by the rate of the bar before it."""
    earned = np.zeros(n_bars)
    rates = np.broadcast_to(cash_rate, earned.shape)
    spans = np.broadcast_to(years, earned.shape)
    earned[1:] = rates[:-1] * spans[1:]
    return earned


ASSET = (*PRICES, *MARK_PRICES)


def read_assets(markets: Markets, account: a.Account) -> dict[str, Any]:
    """Return the prices of the collateral on the clock, each of shape (C, n_bars)."""
    shape = (len(account.collateral), markets.n_bars)
    fields = {f"asset_{name}": np.empty(shape) for name in ASSET}

    for c, asset in enumerate(account.collateral):
        prices: Any = find_prices(asset, markets)
        if isinstance(prices, Market):
            rows = find_rows(asset, prices, markets)
            for name in ASSET:
                fields[f"asset_{name}"][c] = getattr(prices, name)[rows]
        else:
            for name in ASSET:
                fields[f"asset_{name}"][c] = prices
    return fields


def find_prices(asset: Collateral, markets: Markets) -> Market | float:
    """Return the prices of collateral: those of a market, or a number."""
    prices = asset.prices
    if isinstance(prices, str) and prices in markets:
        return markets[prices]
    if isinstance(prices, Market | float):
        return prices
    raise DataError(
        f"prices of collateral {asset.name!r} must be a Market, a number or one of "
        f"{', '.join(markets)}, got {prices!r:.60}"
    )


def find_rows(asset: Collateral, prices: Market, markets: Markets) -> IntArray:
    """Return the bar of the collateral's own market at each bar of the markets, (n_bars,).

    Raises DataError if it lacks the bar that opens at the same time.
    """
    rows = np.searchsorted(prices.time, markets.time)
    inside = np.minimum(rows, prices.n_bars - 1)
    missing = np.flatnonzero(prices.time[inside] != markets.time)
    if len(missing):
        first_time = core.format_time(int(markets.time[missing[0]]))
        raise DataError(
            f"collateral {asset.name!r} must have a price in every bar of the markets, got "
            f"none in {len(missing):,} of {markets.n_bars:,}, first at {first_time} UTC"
        )
    return rows


def mark_samples(market: Market | Markets, sampling: str) -> FloatArray:
    """Return 1 at each bar that ends a sampling period, the last one too, else 0."""
    ends = np.ones(market.n_bars)
    period = market.time // core.parse_duration(sampling, "sampling")
    ends[:-1] = period[1:] != period[:-1]
    return ends


# All inputs of a run.

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
    """What the loop reads of a setup; accounts share it, and none writes into it.

    ``log_returns`` (n_bars, n) are those of the marks. ``changes`` are later margin tables: bar,
    instrument and table, in the order of bars. ``started`` is when the account began, ns. ``fees``
    are those whose tiers follow the traded volume, ``trader`` asks policies for option orders.
    """

    terms: a.Terms
    feed: a.MarketFeed
    clock: Clock
    log_returns: FloatArray
    changes: tuple[tuple[int, int, MarginRules], ...]
    started: int
    fees: DailyFees | None
    trader: Any = None


def read_inputs(setup: Any, like: AccountInputs | None = None) -> AccountInputs:
    """Return what the loop reads of a setup: its terms, its markets and its clock, as arrays.

    ``like`` are inputs of another setup on the same markets, such as the first set of a sweep. What
    they have in common is not made again: the signal, the ends of samples, and log returns if the
    contracts are of the same kind.
    """
    markets = setup.markets
    venues = setup.venues
    accounts = {name: setup.account.for_instrument(name) for name in markets.names}

    # Each instrument has its margin tables by date. The first one is in its rules; each later one
    # is a change at a bar.
    tables = read_margin_tables(setup, accounts)
    rules = []
    changes = []
    widest = 0
    for i, name in enumerate(markets.names):
        (_, first_table), *later_tables = tables[i]
        rules.append(read_instrument_rules(venues[name], accounts[name], first_table))
        for bar, table in later_tables:
            changes.append((bar, i, table))
        for _, table in tables[i]:
            widest = max(widest, len(table.floors))

    signal = like.feed.signal if like is not None else read_signal(setup)
    feed = read_feed(setup, accounts, signal)
    terms = read_terms(setup, rules, width=widest, options=feed.options)

    log_returns = find_log_returns(terms, feed, like)
    return AccountInputs(
        terms=terms,
        feed=feed,
        clock=read_clock(setup, feed, log_returns, like),
        log_returns=log_returns,
        changes=tuple(sorted(changes)),
        started=setup.started,
        fees=find_daily_fees(setup),
    )


def find_log_returns(terms: a.Terms, feed: a.MarketFeed, like: AccountInputs | None) -> FloatArray:
    """Return the log returns of all instruments by bar, those of ``like`` if they are the same."""
    are_inverse = terms.rules.brackets.are_inverse
    if like is not None and np.array_equal(like.terms.rules.brackets.are_inverse, are_inverse):
        return like.log_returns
    return measure_log_returns(feed.mark_close, are_inverse)


def read_clock(
    setup: Any, feed: a.MarketFeed, log_returns: FloatArray, like: AccountInputs | None
) -> Clock:
    """Return sampling, returns of the first instrument, and what cash earns, by bar.

    Of ``like``, inputs on the same markets, all but what cash earns is taken.
    """
    earned = earn_cash(feed.cash_rate, feed.years, setup.markets.n_bars)
    if like is not None:
        return like.clock._replace(risk_free=earned)
    ends = mark_samples(setup.markets, setup.test.sampling)
    return Clock(ends, np.ascontiguousarray(log_returns[:, 0]), earned)


def find_daily_fees(setup: Any) -> DailyFees | None:
    """Return the fees whose tiers follow the traded volume; None if no instrument has any."""
    fees = []
    for name in setup.markets.names:
        table = setup.venues[name].fees
        fees.append(table if table.tiers else None)
    if not any(fees):
        return None
    return DailyFees(tuple(fees), setup.markets.time // DAY)


def read_margin_tables(
    setup: Any, accounts: Mapping[str, a.Account]
) -> list[list[tuple[int, MarginRules]]]:
    """Return the margin tables of each instrument in a run: pairs of bar and table.

    A table holds from its bar on. The first one of each holds at the first bar of the run.
    """
    first = setup.first
    times = setup.markets.time[first:]
    tables = []
    for name, account in accounts.items():
        venue = setup.venues[name]
        venue_leverage = account.venue_leverage or 0.0
        is_isolated = account.margin == "isolated"

        dated = []
        for table in venue.in_use(times):
            rules = margin.read_rules(venue.with_table(table), venue_leverage, is_isolated)
            dated.append((first + table.first, rules))
        tables.append(dated)
    return tables


def read_signal(setup: Any) -> FloatArray:
    """Return the signal by bar, (n_bars, n); between decisions it is 1, as nothing reads it."""
    signal = np.nan_to_num(setup.signal.T, nan=0.0)
    clock = find_clock(setup.markets)
    if not clock.is_every:
        is_decided = clock.rows >= 0
        signal = np.where(is_decided, signal.T, 1.0).T
    return np.ascontiguousarray(signal)


def measure_log_returns(marks: FloatArray, are_inverse: Any) -> FloatArray:
    """Return the log returns of a position of leverage 1 in each instrument, (n_bars, n).

    From mark close to mark close. A linear contract grows by after / before. An inverse contract
    gains 1 - before / after of its notional. NaN in the first bar, and where a return is not
    finite.
    """
    log_returns = np.full(marks.shape, np.nan)
    before = marks[:-1]
    after = marks[1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        growth = after / before
        # 1 plus the gain, as one sum.
        growth[:, are_inverse] = 2.0 - before[:, are_inverse] / after[:, are_inverse]
        log_returns[1:] = np.log(growth)

    log_returns[~np.isfinite(log_returns)] = np.nan
    return log_returns


# The terms.


def read_terms(
    setup: Any, rules: Sequence[a.InstrumentRules], *, width: int, options: a.OptionFeed
) -> a.Terms:
    """Return the rules of the account and its instruments as numbers that the loop reads.

    ``rules`` are those of the instruments, ``width`` the number of brackets of the longest margin
    table, ``options`` the contracts of the markets. A rule that is not set has a number that never
    acts, such as 0 or infinity.
    """
    account = setup.account
    venues = setup.venues
    names = setup.markets.names
    venue = venues[names[0]]
    packed = pack_requirement(setup, rules, width)
    order, ranks = order_liquidations(setup)

    max_holding = read_holding_times(account, names)
    fixed = find_fixed_exits(account, names)
    expenses = np.array([venues[name].contract.expense for name in names], dtype=np.float64)
    # What a fund costs, and borrowed coins, are charged with the interest.
    has_interest = v.find_charged(venue) or np.any(expenses) or pays_for_coins(setup)

    # The pool has one mode: cross instruments whose modes differ are refused before.
    modes = [of_instrument.liquidation_mode for of_instrument in rules]
    cross_modes = {
        of_instrument.liquidation_mode
        for of_instrument in rules
        if not of_instrument.margin.is_isolated
    }
    margin_call = account.margin_call or 0.0
    # Without a ratio to top up to, a reduction after a grace ends just under that of the call.
    just_under_call = margin_call * (1.0 - 1e-11)
    makers = [v.find_newest(venues[name].fees.maker) for name in names]
    offsets = [core.pick_value(account.offset, name) or 0.0 for name in names]
    return a.Terms(
        instruments=list(rules),
        numbers=tabulate_rules(rules, r.NUMBERS).astype(np.float64),
        flags=tabulate_rules(rules, r.FLAGS).astype(np.bool_).astype(np.int64),
        rules=packed,
        markets=number_prices(setup),
        ranks=ranks,
        modes=np.array(modes, dtype=np.int64),
        intrabar=r.WORST if account.intrabar == "worst" else r.PATH,
        liquidation_mode=cross_modes.pop() if cross_modes else r.CLOSE,
        order=order,
        has_interest=bool(has_interest),
        is_loan=venue.interest_on == "loan",
        top_up_to=account.top_up_to or 1.0,
        ruin_at=account.ruin_at or 0.0,
        margin_call=margin_call,
        grace=-1.0 if venue.call_grace is None else float(venue.call_grace),
        grace_ratio=account.top_up_to or just_under_call,
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
        max_holding=max_holding,
        tracks_openings=bool(np.any(max_holding) or np.any(fixed)),
        fixed=fixed,
        offsets=np.array(offsets),
        makers=np.array(makers),
        expenses=expenses,
        rests_closing=account.closing == "limit",
        options=r.pack_option_terms(account.requirement, options, names),
    )


def tabulate_rules(rules: Sequence[a.InstrumentRules], fields: Sequence[str]) -> Any:
    """Return some fields of the rules, (n, fields)."""
    read = attrgetter(*fields)
    return np.array([read(rule) for rule in rules])


def find_fixed_exits(account: a.Account, names: Sequence[str]) -> IntArray:
    """Return 1 where an exit stays at the distance it had at the entry, (exits, n).

    The exits are stop, take-profit and trailing stop.
    """
    exits = (account.stop_loss, account.take_profit, account.trailing_stop)
    fixed = np.zeros((len(exits), len(names)), np.int64)
    for row, by_instrument in enumerate(exits):
        for i, name in enumerate(names):
            fixed[row, i] = a.is_fixed_distance(core.pick_value(by_instrument, name))
    return fixed


def pack_requirement(setup: Any, rules: Sequence[a.InstrumentRules], width: int) -> Any:
    """Return the account's requirement and the haircuts of spot legs as the kernels read them.

    ``rules`` are those of the instruments, whose margin tables are packed into arrays of ``width``
    brackets.
    """
    account = setup.account
    names = setup.markets.names
    tables = {name: rule.margin for name, rule in zip(names, rules, strict=True)}
    packed = account.requirement.pack(tables, account.collateral, width)
    haircuts = [setup.venues[name].contract.haircut for name in names]
    return packed._replace(spot=margin.pack_spot(haircuts))


def order_liquidations(setup: Any) -> tuple[int, IntArray]:
    """Return by what order a pool is liquidated, and the rank of each instrument, of shape (n,).

    The order is one of ORDERS, or BY_NAME if the venue lists names; only then do the ranks count,
    and instruments that it leaves out come last. Without an order, the one that relieves most comes
    first under scenarios, else the one with the largest loss.
    """
    names = setup.markets.names
    order = setup.venues[names[0]].liquidation.order
    by_place = np.arange(len(names), dtype=np.int64)
    if order is None and has_scenarios(setup.account):
        return r.MOST_RELIEF, by_place
    if order is None:
        return r.LARGEST_LOSS, by_place
    if isinstance(order, str):
        return ORDERS[order], by_place

    listed = [name for name in order if name in names]
    listed += [name for name in names if name not in order]
    return r.BY_NAME, np.array([listed.index(name) for name in names], dtype=np.int64)


def has_scenarios(account: a.Account) -> bool:
    return isinstance(account.requirement, margin.ScenarioMargin)


def number_prices(setup: Any) -> IntArray:
    """Return a number for each instrument and collateral, (n + C,), equal if they move together.

    Under scenarios these are the members of a group; else those with the same prices.
    """
    # What moves together has the same key; its number is the place of the first one.
    keys = list_price_keys(setup.markets, setup.account)
    if has_scenarios(setup.account):
        keys = list_group_keys(setup.markets, setup.account)
    return np.array([keys.index(key) for key in keys], dtype=np.int64)


def list_price_keys(markets: Markets, account: a.Account) -> list[object]:
    """Return a key for each instrument and collateral: the same for the same market of prices."""
    of_instruments = [id(markets[name]) for name in markets.names]
    of_collateral = [id(find_prices(asset, markets)) for asset in account.collateral]
    return [*of_instruments, *of_collateral]


def list_group_keys(markets: Markets, account: a.Account) -> list[object]:
    """Return a key for each instrument and collateral: the group whose scenarios move it.

    Collateral that cancels no risk of a group moves alone.
    """
    rule: Any = account.requirement
    group_of: dict[str, object] = {}
    for group, members in rule.list_groups(list(markets.names)).items():
        group_of.update(dict.fromkeys(members, group))

    of_instruments = [group_of[name] for name in markets.names]
    of_collateral = [asset.cancels_risk or id(asset) for asset in account.collateral]
    return [*of_instruments, *of_collateral]


def read_holding_times(account: a.Account, names: Sequence[str]) -> FloatArray:
    """Return the longest time that each position may be held, in ns; 0 for any."""
    times = []
    for name in names:
        longest = core.pick_value(account.max_holding, name)
        time = 0
        if longest is not None:
            time = core.parse_duration(longest)
        times.append(time)
    return np.array(times, dtype=np.float64)


def pays_for_coins(setup: Any) -> bool:
    """Return whether a short spot leg pays for the coins that it borrows."""
    for name in setup.markets.names:
        rate = setup.venues[name].contract.borrow_rate
        if rate is not None and np.any(np.asarray(rate) > 0.0):
            return True
    return False


# The feed.


def number_days(markets: Markets, account: a.Account) -> IntArray:
    """Return the local day and the week, from Monday, of each open, (n_bars, 2); or no rows."""
    if account.daily_loss is None and account.weekly_loss is None:
        return np.zeros((0, 2), np.int64)
    local_time = core.utc_index(markets.time).tz_convert(account.day).tz_localize(None)
    days = local_time.as_unit("ns").asi8 // DAY
    weeks = (days + 3) // 7  # 1970 began on a Thursday
    return np.stack([days, weeks], axis=1)


def find_pause_ends(markets: Markets, account: a.Account) -> FloatArray:
    """Return when an account that an equity stop closes in a bar trades again, ns; or no rows."""
    if account.after_stop == "continue":
        return np.zeros(0)
    return a.find_pause_ends(account, markets.time)


def read_feed(setup: Any, accounts: Mapping[str, a.Account], signal: FloatArray) -> a.MarketFeed:
    """Return the markets in the form that the loop reads: arrays by bar and instrument.

    ``signal`` has shape (n_bars, n); ``accounts`` are the settings of the account for each
    instrument, by name. Fields that each instrument has for itself are stacked to columns.
    """
    markets = setup.markets
    venues = setup.venues
    account = setup.account
    venue = venues[markets.names[0]]
    panel = markets.panel(core.parse_duration(venue.funding_jitter))

    by_instrument: dict[str, list[FloatArray]] = {}
    for name in markets.names:
        fields = read_instrument(markets[name], venues[name], accounts[name])
        for field, values in fields.items():
            by_instrument.setdefault(field, []).append(values)
    stacked = {field: stack(values, markets) for field, values in by_instrument.items()}

    # What the account has as a whole: flows, and yearly rates of the first venue.
    flow_bar, flow_amount = read_flows(setup)
    yearly = {}
    for name in INTEREST_RATES:
        rate = getattr(venue, name)
        yearly[name] = as_of(rate, markets.time, f"venue.{name}")

    # Where policies decide on longer bars, their volume bounds the order of a decision.
    bars = {name: np.ascontiguousarray(getattr(panel, name).T) for name in ON_CLOCK}
    clock = find_clock(markets)
    if not clock.is_every:
        volume_seen = clock.seen.panel().volume.T
        bars["volume"] = clock.place(volume_seen, bars["volume"])

    # Settlements before the run are paid, and coins pay no funding.
    is_spot = np.array([venues[name].contract.is_spot for name in markets.names])
    is_in_run = panel.funding_bar >= setup.first
    is_due = is_in_run & ~is_spot[panel.funding_instrument]

    # An instrument ends where others go on, or where its own data say so.
    stops_early = markets.spans[:, 1] < markets.n_bars
    ends = stops_early | ~markets.tradable()[:, -1]
    return a.MarketFeed(
        **bars,
        **stacked,
        costs=read_costs(markets, venues),
        signal=signal,
        span=markets.spans.astype(np.int64),
        ends=ends.astype(np.int64),
        **read_assets(markets, account),
        years=measure_years(markets, venue, setup.first, setup.started),
        **yearly,
        flow_bar=flow_bar,
        flow_amount=flow_amount,
        days=number_days(markets, account),
        pause_ends=find_pause_ends(markets, account),
        coin_rate=read_coin_rates(markets, venues),
        funding_time=panel.funding_time[is_due].astype(np.int64),
        funding_bar=panel.funding_bar[is_due].astype(np.int64),
        funding_is_open=panel.funding_is_open[is_due].astype(np.int64),
        funding_instrument=panel.funding_instrument[is_due].astype(np.int64),
        funding_price=panel.funding_price[is_due],
        funding_rate=panel.funding_rate[is_due],
        time=markets.time,
        options=read_option_feed(markets, venues, panel, setup.first),
    )


def read_flows(setup: Any) -> tuple[IntArray, FloatArray]:
    """Return the bar and the amount of each deposit or withdrawal inside the run.

    An amount is money, below 0 for a withdrawal. Raises ParameterError if one comes before the
    account begins.
    """
    account = setup.account
    markets = setup.markets
    if account.flows is None:
        return np.empty(0, np.int64), np.empty(0)

    stamps = pd.DatetimeIndex(account.flows.index).as_unit("ns").asi8
    if stamps[0] < setup.started:
        raise ParameterError(
            f"flows must not lie before the first bar, {core.format_time(setup.started)} UTC, "
            f"got {core.format_time(int(stamps[0]))} UTC; add it to capital"
        )
    # A flow between two opens is booked at the next one; those outside of the run are left out.
    bars = np.searchsorted(markets.time, stamps, side="left")
    is_inside = (bars < markets.n_bars) & (bars >= setup.first)
    amounts = np.asarray(account.flows, dtype=np.float64)
    return bars[is_inside].astype(np.int64), amounts[is_inside]


def read_coin_rates(markets: Markets, venues: Mapping[str, Venue]) -> FloatArray:
    """Return what short spot legs pay a year by bar, (n_bars or 1, n); (1, 1) if none pays."""
    declared = [venues[name].contract.borrow_rate for name in markets.names]
    if all(rate is None for rate in declared):
        return np.zeros((1, 1))

    by_bar = []
    for rate in declared:
        known = 0.0 if rate is None else rate
        by_bar.append(as_of(known, markets.time, "Contract.borrow_rate"))
    return np.ascontiguousarray(np.stack(np.broadcast_arrays(*by_bar), axis=1))


def read_costs(markets: Markets, venues: Mapping[str, Venue]) -> FloatArray:
    """Return the costs that change over time by bar, of shape (n_bars or 1, 6, n).

    The six rows are those of :func:`read_changing`. NaN stands for what does not change, which the
    loop takes from the terms, and for bars outside of an instrument's span.
    """
    changing = [read_changing(market, venues[name]) for name, market in markets.items()]
    n_bars = markets.n_bars if any(changing) else 1
    n_rows = r.MAKER_ROW + 1
    costs = np.full((n_bars, n_rows, len(changing)), np.nan)
    for i, costs_of_instrument in enumerate(changing):
        first, stop = markets.spans[i]
        for row, values in costs_of_instrument.items():
            costs[first:stop, row, i] = values
    return costs


def read_changing(market: Market, venue: Venue) -> dict[int, FloatArray]:
    """Return the costs of an instrument that change over time, by row of the feed's costs.

    Each has shape (n_bars,). Costs that stay the same are left out: they are in the terms.
    """
    if not v.list_dated(venue):
        return {}

    # Each cost by bar, of length 1 if it never changes.
    by_name = {}
    for name in DATED:
        by_name[name] = read_cost(v.pick_cost(venue, name), market, f"venue.{name}")
    taker = by_name["fees.taker"]
    maker = by_name["fees.maker"]

    # The rows of the feed's costs, in their order. Half a spread is paid on each side of a trade.
    rows = (
        blend(taker, maker, venue.fees.maker_share),
        taker,
        by_name["slippage.rate"] + 0.5 * by_name["slippage.spread"],
        by_name["liquidation.fee"],
        by_name["liquidation.slippage"],
        maker,
    )
    return {row: values for row, values in enumerate(rows) if len(values) > 1}


def stack(values: Sequence[FloatArray], markets: Markets) -> FloatArray:
    """Return a field of all instruments, (n_bars, n), NaN outside their spans; or (1, n)."""
    if all(len(by_bar) == 1 for by_bar in values):
        return np.array(values, dtype=np.float64).reshape(1, len(values))
    stacked = np.full((markets.n_bars, len(values)), np.nan)
    for i, (first, stop) in enumerate(markets.spans):
        stacked[first:stop, i] = values[i]
    return stacked


# The account at its start.


def start_account_state(setup: Any) -> a.AccountState:
    """Return the state of an account before its first bar: its capital, and nothing held.

    The unit value begins as all the money of the account. Collateral is valued at the open of the
    first bar. What has never been is infinite (bars since a liquidation) or NaN (an overlay, the
    time of a margin call). A margin call counts its closes from 0 on; -1 is none.
    """
    inputs = setup.inputs
    account = setup.account
    feed = inputs.feed
    n = feed.open.shape[1]
    amounts = np.array([asset.amount for asset in account.collateral], dtype=np.float64)
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

    positions = Structs(r.PositionState, n)
    for position, rules in zip(positions, inputs.terms.instruments, strict=True):
        begin_position(position, rules)
    calls = Structs(r.MarginCall, n + 1)
    for call in calls:
        call.unmet = -1.0
        call.called_at = math.nan
    return a.AccountState(
        held=r.view_holdings(positions, amounts, prices.copy()),
        positions=positions,
        calls=calls,
        priced=prices,
        wallet=wallet,
        cursor=np.zeros(2, np.int64),
        options=r.start_options(inputs.terms.options, feed.options),
    )


def begin_position(position: r.PositionState, rules: a.InstrumentRules) -> None:
    """Write a position that holds nothing and for which nothing was decided.

    It was 0 in all fields before.
    """
    # Factors that change nothing.
    position.signal = 1.0
    position.factor = 1.0

    # What is not known, or not decided, yet.
    position.value = math.nan
    position.leverage = math.nan
    position.asked = math.nan
    position.opened = math.nan
    position.last_funding = math.nan

    # Bars since a liquidation and since a stop: none was ever.
    position.since = math.inf
    position.since_stop = math.inf
    position.setting = rules.margin.setting


# Terms for compiled code, and terms that change.

WITH_OPTIONS, WITHOUT_OPTIONS = 0, None
"""Stand for the list of rules in terms for compiled code, which knows by the type of the two."""


def pack_terms(terms: a.Terms) -> a.Terms:
    """Return terms for compiled code, which knows by their type whether there are options."""
    has_options = len(terms.options.instruments) > 0
    return terms._replace(instruments=WITH_OPTIONS if has_options else WITHOUT_OPTIONS)


def write_table(terms: a.Terms, i: int, margin: MarginRules, **changes: Any) -> a.Terms:
    """Return terms in which instrument i has another margin table, and other rules of its own."""
    instruments = list(terms.instruments)
    instruments[i] = instruments[i]._replace(margin=margin, **changes)
    width = terms.rules.brackets.floors.shape[1]
    brackets = pack_brackets([rules.margin for rules in instruments], width)
    return terms._replace(instruments=instruments, rules=terms.rules._replace(brackets=brackets))
