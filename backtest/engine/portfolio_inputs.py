"""Convert markets, venues and account to the arrays of the loop of several positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.account import Account, InstrumentRules
from backtest.account.account import FEE_DATES
from backtest.account.account_records import CLOSE
from backtest.account.by_instrument import pick_value
from backtest.account.portfolio_ledger import N_TERMS, WIDTH
from backtest.account.portfolio_records import (
    AT_OPEN,
    BY_NAME,
    CASH,
    DISTANCE,
    EARLY,
    EQUITY,
    FLAGS,
    HIGHEST,
    LARGEST_LOSS,
    LARGEST_NOTIONAL,
    LARGEST_REQUIREMENT,
    LATE,
    MAKER_ROW,
    MARKET_BAR,
    MOST_RELIEF,
    NUMBERS,
    OVERLAY,
    PAID_IN,
    PATH,
    PEAK,
    RESERVE,
    RESTING,
    SCALE,
    SINCE_POOL,
    UNIT,
    WORST,
    AccountState,
    BookFeed,
    BookLog,
    MarketBar,
    Scratch,
    Terms,
)
from backtest.base.units import FloatArray, IntArray, parse_duration
from backtest.engine.collateral_prices import ASSET, find_prices, read_assets
from backtest.engine.feed_arrays import (
    as_of,
    earn_cash,
    read_cash,
    read_instrument,
)
from backtest.engine.loop_inputs import (
    mark_samples,
    measure_log_returns,
    read_account_rules,
    read_margin_tables,
    read_plan,
    read_whole,
)
from backtest.engine.placed_costs import place_costs
from backtest.engine.portfolio_fees import BookFees, read_book_fees
from backtest.market.markets import Markets
from backtest.measures.tally import Clock
from backtest.venue import MarginRules, Venue
from backtest.venue.book_rules import Holdings
from backtest.venue.book_tables import pack_brackets, pack_spot
from backtest.venue.collateral_value import compute_collateral_value
from backtest.venue.dated_costs import find_newest
from backtest.venue.scenario_margin import ScenarioMargin

ORDERS = {
    "most_relief": MOST_RELIEF,
    "largest_loss": LARGEST_LOSS,
    "largest_requirement": LARGEST_REQUIREMENT,
    "largest_notional": LARGEST_NOTIONAL,
}
FILLS = {"next_open": AT_OPEN, "next_close": LATE, "same_close": EARLY, "limit": RESTING}
ON_CLOCK = (
    "open", "high", "low", "close", "mark_open", "mark_high", "mark_low", "mark_close", "volume",
)  # fmt: skip


class BookInputs(NamedTuple):
    """Everything that the loop needs besides the policies and the state.

    ``changes`` are the later margin tables: bar, instrument, rules. ``fees`` are fee tiers, if a
    venue has any.
    """

    terms: Terms
    feed: BookFeed
    clock: Clock
    log_returns: FloatArray
    changes: tuple[tuple[int, int, MarginRules], ...]
    started: int
    fees: BookFees | None


def read_book_inputs(
    markets: Markets,
    venues: Mapping[str, Venue],
    account: Account,
    *,
    signal: FloatArray,
    sampling: str,
    first: int,
    started: int,
    like: BookInputs | None = None,
) -> BookInputs:
    """Return the records and arrays of a run from bar ``first``; ``signal`` is (n, n_bars).

    ``like`` are inputs of another account for the same markets, signal and sampling, whose arrays
    are shared.
    """
    own = {name: account.for_instrument(name) for name in markets.names}
    tables = [
        read_margin_tables(venues[name], own[name], markets.time, first) for name in markets.names
    ]
    rules = [
        read_account_rules(venues[name], own[name], table[0][1]).instrument
        for name, table in zip(markets.names, tables, strict=True)
    ]
    width = max(len(margin.floors) for table in tables for _, margin in table)
    terms = read_terms(markets, venues, account, rules, width)
    known = None if like is None else like.feed.signal
    weights = np.ascontiguousarray(np.nan_to_num(signal.T, nan=0.0)) if known is None else known
    feed = read_feed(markets, venues, account, own, weights, first, started)
    changes = sorted(
        (bar, i, margin) for i, table in enumerate(tables) for bar, margin in table[1:]
    )
    clock, log_returns = read_book_clock(markets, feed, sampling, terms, like)
    fees = read_book_fees([venues[name] for name in markets.names], markets.time)
    return BookInputs(terms, feed, clock, log_returns, tuple(changes), started, fees)


# ------------------------------------------------------------------------------------- terms


def read_terms(
    markets: Markets,
    venues: Mapping[str, Venue],
    account: Account,
    rules: Sequence[InstrumentRules],
    width: int,
) -> Terms:
    """Return the rules of the account and its instruments."""
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
        numbers=np.array([[getattr(own, name) for own in rules] for name in NUMBERS], np.float64),
        flags=np.array(
            [[1 if getattr(own, name) else 0 for own in rules] for name in FLAGS], np.int64
        ),
        rules=packed,
        markets=number_markets(markets, account),
        ranks=ranks,
        modes=np.array([own.liquidation_mode for own in rules], dtype=np.int64),
        intrabar=WORST if account.intrabar == "worst" else PATH,
        liquidation_mode=modes.pop() if modes else CLOSE,
        order=order,
        has_interest=whole.has_interest is not None or pays_for_coins(venues),
        is_loan=whole.is_loan,
        top_up_to=whole.top_up_to,
        ruin_at=whole.ruin_at,
        **read_plan(venue, account)._asdict(),
        negative_limit=account.negative_limit or 0.0,
        conversion_is_pro_rata=account.conversion == "pro_rata",
        max_gross_leverage=account.max_gross_leverage,
        max_overlay=account.max_overlay,
        fill=FILLS[account.fill],
        equity_stop=account.equity_stop or 0.0,
        max_holding=(held := read_max_holding(account, names)),
        has_time_stop=bool(np.any(held)),
        has_fund_fees=account.management_fee > 0.0 or account.performance_fee > 0.0,
        management_fee=account.management_fee,
        performance_fee=account.performance_fee,
        mirrored=np.zeros(len(names) + len(account.collateral), np.int64),
        offsets=np.array([pick_value(account.offset, name) or 0.0 for name in names]),
        makers=np.array([find_newest(venues[name].fees.maker) for name in names]),
        rests_closing=account.closing == "limit",
    )


def read_max_holding(account: Account, names: Sequence[str]) -> FloatArray:
    """Return the longest time of a position in each instrument, in ns; 0 for none."""
    given = [pick_value(account.max_holding, name) for name in names]
    where = "Account.max_holding"
    found = [0 if each is None else parse_duration(each, where=where) for each in given]
    return np.array(found, dtype=np.float64)


def find_fee_dates(time: IntArray, account: Account, started: int) -> IntArray:
    """Return 1 for the first bar of each period of the performance fee after the start; else 0.

    A single 0 without a performance fee.
    """
    if account.performance_fee == 0.0:
        return np.zeros(1, np.int64)
    days = pd.DatetimeIndex(time.astype("datetime64[ns]"))
    period = days.to_period(FEE_DATES[account.performance_every]).to_numpy()
    is_first = np.concatenate([[False], period[1:] != period[:-1]])
    return np.asarray(is_first & (time > started), dtype=np.int64)


def read_order(account: Account, venue: Venue, names: Sequence[str]) -> tuple[int, IntArray]:
    """Return the order of a partial liquidation, and the rank of each instrument by name."""
    order = venue.liquidation.order
    ranks = np.arange(len(names), dtype=np.int64)
    if order is None:
        has_scenarios = isinstance(account.requirement, ScenarioMargin)
        return (MOST_RELIEF if has_scenarios else LARGEST_LOSS), ranks
    if isinstance(order, str):
        return ORDERS[order], ranks
    first = [name for name in order if name in names]
    listed = [*first, *(name for name in names if name not in first)]
    return BY_NAME, np.array([listed.index(name) for name in names], dtype=np.int64)


def number_markets(markets: Markets, account: Account) -> IntArray:
    """Return numbers of what moves together under ``"worst"``: instruments, then collateral.

    Under scenarios the groups; otherwise the same market under several names.
    """
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
) -> BookFeed:
    """Return the markets as the loop takes them; ``signal`` is (n_bars, n)."""
    venue = venues[markets.names[0]]
    panel = markets.panel(parse_duration(venue.funding_jitter, where="Venue.funding_jitter"))
    is_paid = np.array([venues[name].contract.is_spot for name in markets.names])
    kept = (panel.funding_bar >= first) & ~is_paid[panel.funding_instrument]  # coins pay no funding
    ends = (markets.spans[:, 1] < markets.n_bars) | ~markets.tradable()[:, -1]
    return BookFeed(
        **{name: np.ascontiguousarray(getattr(panel, name).T) for name in ON_CLOCK},
        **read_by_instrument(markets, venues, own),
        costs=read_costs(markets, venues),
        signal=signal,
        span=markets.spans.astype(np.int64),
        ends=ends.astype(np.int64),
        **read_assets(markets, account),
        **read_cash(markets, venue, account, first, started),  # type: ignore[arg-type] # the clock
        coin_rate=read_coin_rates(markets, venues),
        funding_bar=panel.funding_bar[kept].astype(np.int64),
        funding_is_open=panel.funding_is_open[kept].astype(np.int64),
        funding_instrument=panel.funding_instrument[kept].astype(np.int64),
        funding_price=panel.funding_price[kept],
        funding_rate=panel.funding_rate[kept],
        is_fee_date=find_fee_dates(markets.time, account, started),
        time=markets.time,
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
    found = np.full((n_bars, MAKER_ROW + 1, len(placed)), np.nan)
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
    """Return whether a short of any spot leg ever pays for its coins."""
    rates = [each.contract.borrow_rate for each in venues.values()]
    return any(bool(np.any(np.asarray(rate) > 0.0)) for rate in rates if rate is not None)


def stack(values: Sequence[FloatArray], markets: Markets) -> FloatArray:
    """Return arrays of the instruments' bars on the clock, or one row if none changes."""
    if all(len(each) == 1 for each in values):
        return np.array(values, dtype=np.float64).reshape(1, len(values))
    found = np.full((markets.n_bars, len(values)), np.nan)
    for row, each, (first, stop) in zip(found.T, values, markets.spans, strict=True):
        row[first:stop] = each
    return found


def read_book_clock(
    markets: Markets,
    feed: BookFeed,
    sampling: str,
    terms: Terms,
    like: BookInputs | None,
) -> tuple[Clock, FloatArray]:
    """Return ends of samples and the risk-free rate by bar, and log mark returns (bars, n)."""
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


def start_book(
    inputs: BookInputs, account: Account, first: int, *, has_overlay: bool
) -> AccountState:
    """Return the state of an account before its first bar; collateral counts at its open."""
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
    wallet = np.zeros(17)
    wallet[[CASH, RESERVE, EQUITY, HIGHEST]] = account.capital, account.reserve, equity, equity
    wallet[[UNIT, PEAK, SCALE, PAID_IN]] = wealth, wealth, 1.0, wealth
    wallet[OVERLAY] = np.nan if has_overlay else 1.0
    wallet[SINCE_POOL] = np.inf
    backing = compute_collateral_value(inputs.terms.rules.collateral, held)
    wallet[DISTANCE] = account.capital + backing
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
        opened=np.full(n, np.nan),
        fund=np.array([wealth]),
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
        fallen=np.zeros(n + 3),
        shares=np.zeros(n + len(amounts)),
    )


def new_quotes(n: int, assets: int) -> MarketBar:
    """Return an empty quotes."""
    flags: dict[str, Any] = {"is_listed": np.zeros(n, np.int64), "is_last": np.zeros(n, np.int64)}
    own: dict[str, Any] = {name: np.full(n, np.nan) for name in MARKET_BAR}
    prices: dict[str, Any] = {f"asset_{name}": np.zeros(assets) for name in (*ASSET, "fill")}
    return MarketBar(**own, **flags, **prices)


def new_scratch(n: int, assets: int) -> Scratch:
    """Return arrays to compute in."""
    sizes = {
        "price": assets,
        "price_end": assets,
        "kept_assets": assets,
        "shares": n + assets,
        "falls": n + 3,
    }
    found: dict[str, Any] = {name: np.zeros(sizes.get(name, n)) for name in Scratch._fields}
    return Scratch(**{**found, "kind": np.zeros(n, np.int64)})


def new_ledger_array(n: int) -> FloatArray:
    """Return an empty ledger."""
    return np.zeros((N_TERMS, n + 1))


def new_book_log(capacity: int) -> BookLog:
    """Return an empty log."""
    return BookLog(True, np.empty((capacity, WIDTH)), np.zeros(1, np.int64))


def write_table(terms: Terms, i: int, margin: MarginRules) -> Terms:
    """Return the terms with another margin table of one instrument."""
    own = list(terms.instruments)
    own[i] = own[i]._replace(margin=margin)
    width = terms.rules.brackets.floors.shape[1]
    brackets = pack_brackets([each.margin for each in own], width)
    return terms._replace(instruments=own, rules=terms.rules._replace(brackets=brackets))
