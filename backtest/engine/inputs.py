"""Markets, venues and account as the terms and the feed of the loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest.account import (
    Account,
    AccountState,
    InstrumentRules,
    MarketFeed,
    OptionFeed,
    OptionState,
    OptionTerms,
    Terms,
    make_option_feed,
)
from backtest.account import records as r
from backtest.account.account_records import CLOSE
from backtest.base import FloatArray, IntArray, ParameterError, parse_duration, pick_value
from backtest.engine.feed_arrays import (
    DailyFees,
    as_of,
    earn_cash,
    find_prices,
    mark_samples,
    measure_log_returns,
    place_costs,
    read_account_rules,
    read_assets,
    read_cash,
    read_daily_fees,
    read_instrument,
    read_margin_tables,
    read_plan,
    read_whole,
)
from backtest.engine.option_inputs import read_option_feed
from backtest.market import Markets, find_clock
from backtest.measures import Clock
from backtest.venue import (
    Holdings,
    MarginRule,
    MarginRules,
    OptionPositions,
    ScenarioMargin,
    Venue,
    find_newest,
    index_names,
    pack_brackets,
    pack_option_rules,
    pack_spot,
)

if TYPE_CHECKING:
    from backtest.engine.run_data import RunOptions


BY_BAR = ("years", "volatilities", "bases", "indices", "values", "marks")


def name_groups(
    rule: MarginRule, feed: OptionFeed, names: Sequence[str]
) -> tuple[tuple[str, ...], list[str]]:
    found = [names[i] for i in feed.instruments]
    if not isinstance(rule, ScenarioMargin):
        return tuple(dict.fromkeys(found)), found
    groups = rule.list_groups(names)
    of_names = {name: group for group, members in groups.items() for name in members}
    return tuple(groups), [of_names[name] for name in found]


def pack_positions(feed: OptionFeed, groups: Any) -> OptionPositions:
    n = len(feed.signs)
    return OptionPositions(
        signs=feed.signs,
        strikes=feed.strikes,
        sizes=feed.sizes,
        are_coin=feed.are_coin,
        groups=groups,
        expiries=feed.expiries,
        pairs=feed.pairs,
        rates=feed.rates,
        quantities=np.zeros(n),
        **{name: np.full(n, np.nan) for name in BY_BAR},
    )


def pack_option_terms(rule: MarginRule, feed: OptionFeed, names: Sequence[str]) -> OptionTerms:
    groups, found = name_groups(rule, feed, names)
    used = rule if len(feed.signs) else MarginRule()
    positions = pack_positions(feed, index_names(found, groups))
    return OptionTerms(
        rules=pack_option_rules(used, positions, groups if len(feed.signs) else (), names),
        instruments=feed.instruments,
        groups=positions.groups,
        fee_rates=feed.fee_rates,
        fee_caps=feed.fee_caps,
        delivery_rates=feed.delivery_rates,
        delivery_caps=feed.delivery_caps,
        ticks=feed.ticks,
    )


def start_options(terms: OptionTerms, feed: OptionFeed) -> OptionState:
    n = len(feed.signs)
    empty: dict[str, Any] = {name: np.zeros(n) for name in OptionState._fields}
    targets: dict[str, Any] = {"targets": np.full(n, np.nan)}
    flags: dict[str, Any] = {"has_quotes": np.zeros(n, np.int64)}
    positions: dict[str, Any] = {"positions": pack_positions(feed, terms.groups)}
    return OptionState(**{**empty, **targets, **flags, **positions})


def resume_options(inputs: Any, names: Sequence[str], held: RunOptions | None) -> OptionState:
    found = start_options(inputs.terms.options, inputs.feed.options)
    if held is None:
        return found
    for j, name in enumerate(held.terms.names):
        quantity = float(held.record.quantity[-1, j])
        if quantity == 0.0:
            continue
        if name not in names:
            raise ParameterError(
                f"the markets of a resumed run must list the options that are held, got none named "
                f"{name!r}"
            )
        k = names.index(name)
        found.positions.quantities[k] = quantity
        found.priced[k] = held.record.value[-1, j]
        found.paid[k] = held.entries[-1, j]
    return found


def no_options() -> OptionState:
    feed = make_option_feed(0, 1)
    return start_options(pack_option_terms(MarginRule(), feed, ()), feed)


# ---------------------------------------------------------------------------------- terms and feed

ORDERS = {
    "most_relief": r.MOST_RELIEF,
    "largest_loss": r.LARGEST_LOSS,
    "largest_requirement": r.LARGEST_REQUIREMENT,
    "largest_notional": r.LARGEST_NOTIONAL,
    "futures_then_options": r.OPTIONS_LAST,
}
FILLS = {"next_open": r.AT_OPEN, "next_close": r.LATE, "same_close": r.EARLY, "limit": r.RESTING}
ON_CLOCK = (
    "open", "high", "low", "close", "mark_open", "mark_high", "mark_low", "mark_close", "volume",
)  # fmt: skip


class AccountInputs(NamedTuple):
    terms: Terms
    feed: MarketFeed
    clock: Clock
    log_returns: FloatArray
    changes: tuple[tuple[int, int, MarginRules], ...]
    started: int
    fees: DailyFees | None
    trader: Any = None


def read_inputs(
    markets: Markets,
    venues: Mapping[str, Venue],
    account: Account,
    *,
    signal: FloatArray,
    sampling: str,
    first: int,
    started: int,
    like: AccountInputs | None = None,
) -> AccountInputs:
    """Return the records and arrays of a run from bar ``first``; ``signal`` is (n, n_bars)."""
    own = {name: account.for_instrument(name) for name in markets.names}
    tables = [
        read_margin_tables(venues[name], own[name], markets.time, first) for name in markets.names
    ]
    rules = [
        read_account_rules(venues[name], own[name], table[0][1]).instrument
        for name, table in zip(markets.names, tables, strict=True)
    ]
    width = max(len(margin.floors) for table in tables for _, margin in table)
    known = None if like is None else like.feed.signal
    weights = np.ascontiguousarray(np.nan_to_num(signal.T, nan=0.0)) if known is None else known
    weights = find_clock(markets).ignore_between(weights) if known is None else known
    feed = read_feed(markets, venues, account, own, weights, first, started)
    terms = read_terms(markets, venues, account, rules, width, feed.options)
    changes = sorted(
        (bar, i, margin) for i, table in enumerate(tables) for bar, margin in table[1:]
    )
    clock, log_returns = read_clock(markets, feed, sampling, terms, like)
    fees = read_daily_fees([venues[name] for name in markets.names], markets.time)
    return AccountInputs(terms, feed, clock, log_returns, tuple(changes), started, fees)


# ------------------------------------------------------------------------------------- terms


def read_terms(
    markets: Markets,
    venues: Mapping[str, Venue],
    account: Account,
    rules: Sequence[InstrumentRules],
    width: int,
    options: OptionFeed,
) -> Terms:
    names, venue = markets.names, venues[markets.names[0]]
    margins = {name: own.margin for name, own in zip(names, rules, strict=True)}
    packed = account.requirement.pack(margins, account.collateral, width)
    order, ranks = read_order(account, venue, names)
    whole = read_whole(venue, account)
    legs = [venues[name].contract.haircut for name in names]
    packed = packed._replace(spot=pack_spot(legs))
    modes = {own.liquidation_mode for own in rules if own.is_isolated is None}
    return Terms(
        instruments=list(rules),
        numbers=np.array([[getattr(own, name) for own in rules] for name in r.NUMBERS], np.float64),
        flags=np.array(
            [[1 if getattr(own, name) else 0 for own in rules] for name in r.FLAGS], np.int64
        ),
        rules=packed,
        markets=number_markets(markets, account),
        ranks=ranks,
        modes=np.array([own.liquidation_mode for own in rules], dtype=np.int64),
        intrabar=r.WORST if account.intrabar == "worst" else r.PATH,
        liquidation_mode=modes.pop() if modes else CLOSE,
        order=order,
        has_interest=whole.has_interest is not None or pays_for_coins(venues),
        is_loan=whole.is_loan,
        top_up_to=whole.top_up_to,
        ruin_at=whole.ruin_at,
        **read_plan(venue, account),
        negative_limit=account.negative_limit or 0.0,
        conversion_is_pro_rata=account.conversion == "pro_rata",
        max_gross_leverage=account.max_gross_leverage,
        max_overlay=account.max_overlay,
        fill=FILLS[account.fill],
        equity_stop=account.equity_stop or 0.0,
        max_holding=(held := read_max_holding(account, names)),
        has_time_stop=bool(np.any(held)),
        offsets=np.array([pick_value(account.offset, name) or 0.0 for name in names]),
        makers=np.array([find_newest(venues[name].fees.maker) for name in names]),
        rests_closing=account.closing == "limit",
        options=pack_option_terms(account.requirement, options, names),
    )


def read_max_holding(account: Account, names: Sequence[str]) -> FloatArray:
    """Return the longest time of a position in each instrument, in ns; 0 for none."""
    given = [pick_value(account.max_holding, name) for name in names]
    found = [0 if each is None else parse_duration(each) for each in given]
    return np.array(found, dtype=np.float64)


def read_order(account: Account, venue: Venue, names: Sequence[str]) -> tuple[int, IntArray]:
    order = venue.liquidation.order
    ranks = np.arange(len(names), dtype=np.int64)
    if order is None:
        has_scenarios = isinstance(account.requirement, ScenarioMargin)
        return (r.MOST_RELIEF if has_scenarios else r.LARGEST_LOSS), ranks
    if isinstance(order, str):
        return ORDERS[order], ranks
    first = [name for name in order if name in names]
    listed = [*first, *(name for name in names if name not in first)]
    return r.BY_NAME, np.array([listed.index(name) for name in names], dtype=np.int64)


def number_markets(markets: Markets, account: Account) -> IntArray:
    paths: list[object] = [id(markets[name]) for name in markets.names]
    assets: list[object] = [id(find_prices(each, markets)) for each in account.collateral]
    if isinstance(account.requirement, ScenarioMargin):
        groups = account.requirement.list_groups(list(markets.names))
        group_of = {name: group for group, members in groups.items() for name in members}
        paths = [group_of[name] for name in markets.names]
        assets = [each.cancels_risk or id(each) for each in account.collateral]
    keys = [*paths, *assets]
    return np.array([keys.index(key) for key in keys], dtype=np.int64)


# -------------------------------------------------------------------------------------- feed


def read_feed(
    markets: Markets,
    venues: Mapping[str, Venue],
    account: Account,
    own: Mapping[str, Account],
    signal: FloatArray,
    first: int,
    started: int,
) -> MarketFeed:
    """Return the markets as the loop takes them; ``signal`` is (n_bars, n)."""
    venue = venues[markets.names[0]]
    panel = markets.panel(parse_duration(venue.funding_jitter))
    is_paid = np.array([venues[name].contract.is_spot for name in markets.names])
    kept = (panel.funding_bar >= first) & ~is_paid[panel.funding_instrument]  # coins pay no funding
    ends = (markets.spans[:, 1] < markets.n_bars) | ~markets.tradable()[:, -1]
    bars = {name: np.ascontiguousarray(getattr(panel, name).T) for name in ON_CLOCK}
    clock = find_clock(markets)
    if not clock.is_every:
        bars["volume"] = clock.place(clock.seen.panel().volume.T, bars["volume"])
    return MarketFeed(
        **bars,
        **read_by_instrument(markets, venues, own),
        costs=read_costs(markets, venues),
        signal=signal,
        span=markets.spans.astype(np.int64),
        ends=ends.astype(np.int64),
        **read_assets(markets, account),
        **read_cash(markets, venue, account, first, started),  # type: ignore[arg-type] # the clock
        coin_rate=read_coin_rates(markets, venues),
        funding_time=panel.funding_time[kept].astype(np.int64),
        funding_bar=panel.funding_bar[kept].astype(np.int64),
        funding_is_open=panel.funding_is_open[kept].astype(np.int64),
        funding_instrument=panel.funding_instrument[kept].astype(np.int64),
        funding_price=panel.funding_price[kept],
        funding_rate=panel.funding_rate[kept],
        time=markets.time,
        options=read_option_feed(markets, venues, panel),
    )


def read_by_instrument(
    markets: Markets, venues: Mapping[str, Venue], own: Mapping[str, Account]
) -> dict[str, Any]:
    """Return the inputs from venues and settings by bar, of shape (n_bars or 1, n)."""
    found: dict[str, list[FloatArray]] = {}
    for name in markets.names:
        each = read_instrument(markets[name], venues[name], own[name])
        for field, values in each.items():
            found.setdefault(field, []).append(values)
    return {field: stack(values, markets) for field, values in found.items()}


def read_costs(markets: Markets, venues: Mapping[str, Venue]) -> FloatArray:
    """Return the costs that change over time by bar, of shape (n_bars or 1, 6, n)."""
    placed = [place_costs(markets[name], venues[name]) for name in markets.names]
    n_bars = markets.n_bars if any(placed) else 1
    found = np.full((n_bars, r.MAKER_ROW + 1, len(placed)), np.nan)
    for i, (rows, (first, stop)) in enumerate(zip(placed, markets.spans, strict=True)):
        for row, values in rows.items():
            found[first:stop, row, i] = values
    return found


def read_coin_rates(markets: Markets, venues: Mapping[str, Venue]) -> FloatArray:
    """Return what short spot legs pay per year by bar, of shape (n_bars or 1, n); else (1, 1)."""
    rates = [venues[name].contract.borrow_rate for name in markets.names]
    if all(each is None for each in rates):
        return np.zeros((1, 1))
    found = [
        as_of(0.0 if each is None else each, markets.time, "Contract.borrow_rate") for each in rates
    ]
    return np.ascontiguousarray(np.stack(np.broadcast_arrays(*found), axis=1))


def pays_for_coins(venues: Mapping[str, Venue]) -> bool:
    rates = [each.contract.borrow_rate for each in venues.values()]
    return any(bool(np.any(np.asarray(rate) > 0.0)) for rate in rates if rate is not None)


def stack(values: Sequence[FloatArray], markets: Markets) -> FloatArray:
    if all(len(each) == 1 for each in values):
        return np.array(values, dtype=np.float64).reshape(1, len(values))
    found = np.full((markets.n_bars, len(values)), np.nan)
    for row, each, (first, stop) in zip(found.T, values, markets.spans, strict=True):
        row[first:stop] = each
    return found


def read_clock(
    markets: Markets,
    feed: MarketFeed,
    sampling: str,
    terms: Terms,
    like: AccountInputs | None,
) -> tuple[Clock, FloatArray]:
    free = earn_cash(feed.cash_rate, feed.years, markets.n_bars)
    inverse = terms.rules.brackets.are_inverse
    if like is not None and np.array_equal(like.terms.rules.brackets.are_inverse, inverse):
        returns = like.log_returns
    else:
        columns = zip(feed.mark_close.T, inverse, strict=True)
        returns = np.stack([measure_log_returns(p, is_inverse=bool(i)) for p, i in columns], axis=1)
    if like is not None:
        return Clock(True, like.clock.ends_sample, like.clock.log_return, free), returns
    ends = mark_samples(markets, sampling)  # type: ignore[arg-type] # their clock
    return Clock(True, ends, np.ascontiguousarray(returns[:, 0]), free), returns


# ------------------------------------------------------------------------------ state and scratch


def start_account_state(
    inputs: AccountInputs, account: Account, first: int, *, has_overlay: bool
) -> AccountState:
    n, feed = inputs.feed.open.shape[1], inputs.feed
    amounts = np.array([each.amount for each in account.collateral], dtype=np.float64)
    prices = feed.asset_open[:, first].copy() if len(amounts) else np.zeros(0)
    held = Holdings(
        quantities=np.zeros(n),
        entries=np.zeros(n),
        values=np.full(n, np.nan),
        amounts=amounts,
        prices=prices.copy(),
    )
    equity = account.capital + float(np.sum(amounts * prices))
    wealth = equity + account.reserve
    wallet = np.zeros(r.N_WALLET)
    wallet[[r.CASH, r.RESERVE, r.EQUITY, r.HIGHEST]] = (
        account.capital,
        account.reserve,
        equity,
        equity,
    )
    wallet[[r.UNIT, r.PEAK, r.SCALE, r.PAID_IN]] = wealth, wealth, 1.0, wealth
    wallet[r.OVERLAY] = np.nan if has_overlay else 1.0
    wallet[r.SINCE_POOL] = np.inf
    return AccountState(
        held=held,
        margin=np.zeros(n),
        marked=np.zeros(n),
        priced=prices,
        best=np.zeros(n),
        leverage=np.full(n, np.nan),
        signal=np.ones(n),
        is_pending=np.zeros(n, np.int64),
        is_halted=np.zeros(n, np.int64),
        factor=np.ones(n),
        setting=np.array([each.margin.setting for each in inputs.terms.instruments]),
        asked=np.full(n, np.nan),
        refused=np.zeros(n, np.int64),
        opened=np.full(n, np.nan),
        since=np.full(n, np.inf),
        since_stop=np.full(n, np.inf),
        last_funding=np.full(n, np.nan),
        ratio=np.zeros(n + 1),
        is_called=np.zeros(n + 1, np.int64),
        unmet=np.full(n + 1, -1.0),
        is_call_open=np.zeros(n + 1, np.int64),
        called_at=np.full(n + 1, np.nan),
        wallet=wallet,
        cursor=np.zeros(2, np.int64),
        options=start_options(inputs.terms.options, feed.options),
    )


def pack_terms(terms: Terms) -> Terms:
    """Return terms for compiled code, which knows by their type whether there are options."""
    has_options = len(terms.options.instruments) > 0
    return terms._replace(instruments=0 if has_options else None)


def write_table(terms: Terms, i: int, margin: MarginRules) -> Terms:
    own = list(terms.instruments)
    own[i] = own[i]._replace(margin=margin)
    width = terms.rules.brackets.floors.shape[1]
    brackets = pack_brackets([each.margin for each in own], width)
    return terms._replace(instruments=own, rules=terms.rules._replace(brackets=brackets))
