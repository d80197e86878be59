"""The bar after the last close, in which a decision would fill at a stated price."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.account import (
    AccountBar,
    AccountState,
    Terms,
    ledger,
    portfolio_bar,
    set_quotes,
    value_at,
    write_settings,
)
from backtest.account.order_cuts import ALL, ASKED, CAUSES, COUNT, CUT
from backtest.account.portfolio_ledger import RESTED
from backtest.account.portfolio_records import EQUITY
from backtest.base import (
    Number,
    ParameterError,
    bind_functions,
    did_you_mean,
    format_time,
    repr_plain,
    utc_index,
)
from backtest.engine import (
    Deciders,
    PortfolioInputs,
    TradedDays,
    append_last_bar,
    ask_plain,
    copy_state,
    gather_deciders,
    look_at_close,
    new_cuts,
    new_event_log,
    new_ledger_array,
    new_quotes,
    new_scratch,
    portfolio_loop,
    read_tables,
    report_bad_decision,
    start_day,
)
from backtest.engine.bar_loop import DAY_NS
from backtest.engine.portfolio_loop import N_SHOWN
from backtest.market import Market, Markets, remake
from backtest.market.settlements import JITTER
from backtest.policy import AccountView, sets_margin
from backtest.venue import OwnMargin, make_own_twins

if TYPE_CHECKING:
    from backtest.account import Account
    from backtest.base import FloatArray, IntArray
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
    fill = setup.account.fill
    for name, market in setup.markets.items():
        price, mark = find_price(market, name, stated)
        last = float(market.close[-1])
        if fill == "same_close" and price != last:
            raise ParameterError(
                f"at must be the last close, {last:.12g}, with fill='same_close', got {price:.12g}"
            )
        if fill == "next_open" and not market.has_mark and mark != price:
            raise ParameterError(
                f"mark must be the price, {price:.12g}, as {name} has no mark prices, got "
                f"{mark:.12g}"
            )
    return stated


def read_settlements(setup: Setup, given: Any) -> dict[str, pd.DataFrame]:
    names, time = setup.markets.names, int(setup.markets.time[-1]) + setup.markets.interval
    found = {}
    for name, each in name_given("funding", given, names, len(names)).items():
        if isinstance(each, pd.DataFrame):
            frame = check_frame(each, time - JITTER, time + setup.markets.interval)
        else:
            rate = RATE.check(f"funding of {name}", each)
            stamps = utc_index(np.array([time]))
            frame = pd.DataFrame({"rate": [rate], "mark": [np.nan]}, index=stamps)
        found[name] = frame
        known, due = setup.markets[name].funding_time[-1:], stamps_of(frame)
        if len(known) and len(due) and due[0] - known[0] < JITTER:
            raise ParameterError(
                f"funding must leave out settlements of the market, {format_time(int(known[0]))}, "
                f"got one at {format_time(int(due[0]))}"
            )
    return found


def check_frame(frame: pd.DataFrame, start: int, end: int) -> pd.DataFrame:
    if "rate" not in frame or not isinstance(frame.index, pd.DatetimeIndex):
        raise ParameterError(
            f"funding must have a column rate by UTC time, got {list(frame.columns)}"
        )
    stamps = stamps_of(frame)
    if not np.all((stamps >= start) & (stamps < end)):
        raise ParameterError(
            f"funding must lie in the next bar, up to {format_time(end)}, "
            f"got {format_time(int(stamps[0]))} to {format_time(int(stamps[-1]))}"
        )
    return frame if "mark" in frame else frame.assign(mark=np.nan)


def stamps_of(frame: pd.DataFrame) -> IntArray:
    return pd.DatetimeIndex(frame.index).as_unit("ns").asi8


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
    stamps = stamps_of(due)
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


# ------------------------------------------------------------------ the account in it

CAPACITY = 4_096
"""Entries that the log of one bar may have."""
OWNER = 8
ORDERS = (ledger.FILL, ledger.TIME_STOPPED)
FORCED = (*(kind for kind in ledger.STOP_KINDS if kind not in ORDERS), ledger.LIQUIDATED)


class Filled(NamedTuple):
    entries: FloatArray
    views: tuple[AccountView, ...]
    equity: float
    cuts: list[tuple[int, str, float, float]]

    def sum_fills(self, i: int) -> float:
        return float(sum(self._find_orders(i)[:, 3].tolist()))

    def find_value(self, i: int) -> float:
        rows = self._find_orders(i)
        traded = rows[rows[:, 3] != 0.0]
        return float(traded[-1, 2]) if len(traded) else float("nan")

    def sum_costs(self, i: int) -> dict[str, float]:
        rows = self._of(i)
        filled = rows[np.isin(rows[:, 1], ORDERS)]
        names = ("fee", "slippage", "impact")
        return {name: float(filled[:, 5 + k].sum()) for k, name in enumerate(names)}

    def is_forced(self, i: int) -> bool:
        return bool(np.isin(self._of(i)[:, 1], FORCED).any())

    def _find_orders(self, i: int) -> FloatArray:
        rows = self._of(i)
        resting = np.flatnonzero(rows[:, 1] == RESTED)
        last = resting[0] if len(resting) else len(rows)
        at_market = np.flatnonzero(np.isin(rows[:last, 1], ORDERS))
        return np.asarray(rows[np.concatenate([at_market, resting])])

    def _of(self, i: int) -> FloatArray:
        return np.asarray(self.entries[self.entries[:, OWNER] == i])


def find_functions(setup: Setup) -> Any:
    own = setup.account.requirement
    if isinstance(own, OwnMargin):
        from backtest.engine.compile.general_compiler import MODULES  # noqa: PLC0415 - numba

        return make_own_twins(MODULES, own.rule, setup.markets.names, {"ask": ask_plain})
    bound = bind_functions(portfolio_loop, ask=ask_plain)
    return SimpleNamespace(**{**vars(portfolio_bar), **bound, "look_at_close": look_at_close})


def read_terms(inputs: PortfolioInputs, traded: TradedDays | None, t: int) -> Terms:
    terms = read_tables(inputs, t + 1)
    if inputs.fees is None:
        return terms
    return inputs.fees.write(terms, start_day(inputs.fees.day, traded, t)[0])


def new_bar(
    setup: Setup, inputs: PortfolioInputs, state: AccountState, traded: TradedDays | None, t: int
) -> AccountBar:
    terms, n, assets = read_terms(inputs, traded, t), len(state.margin), len(state.priced)
    if any(sets_margin(policy) for policy in setup.policies.values()):
        write_settings(terms, state)
    return AccountBar(
        terms=terms, feed=inputs.feed, state=copy_state(state), quotes=new_quotes(n, assets),
        scratch=new_scratch(n, assets, new_cuts(n)), ledger=new_ledger_array(n),
        log=new_event_log(CAPACITY),
    )  # fmt: skip


def show(
    functions: Any, setup: Setup, bar: AccountBar, deciders: Deciders, t: int
) -> tuple[AccountView, ...]:
    terms, state, quotes, scratch = bar.terms, bar.state, bar.quotes, bar.scratch
    close = functions.look_at_close(bar, True)
    days = (bar.feed.time[t] + setup.markets.interval - deciders.start) / DAY_NS
    functions.show_account_totals(terms, deciders, state, quotes, close, days)
    deciders.wants_price[:] = 1
    views = []
    for i in range(len(setup.markets)):
        functions.show_position(terms, deciders, state, quotes, scratch, i)
        views.append(AccountView._make((*deciders.shown[:N_SHOWN].tolist(), None)))
    return tuple(views)


def set_close(bar: AccountBar, t: int) -> None:
    set_quotes(bar.terms, bar.feed, bar.quotes, t)
    value_at(bar.state, bar.quotes.mark_close, bar.quotes.asset_mark_close)


def view_close(
    setup: Setup, state: AccountState, traded: TradedDays | None
) -> tuple[AccountView, ...]:
    t = setup.markets.n_bars - 1
    bar = new_bar(setup, setup.inputs, state, traded, t)
    deciders = gather_deciders(setup, setup.observed)
    with np.errstate(all="ignore"):
        set_close(bar, t)
        return show(find_functions(setup), setup, bar, deciders, t)


def ask(
    setup: Setup, state: AccountState, memory: list[tuple[float, ...]], traded: TradedDays | None
) -> AccountState:
    t, functions = setup.markets.n_bars - 1, find_functions(setup)
    bar = new_bar(setup, setup.inputs, state, traded, t)
    deciders = gather_deciders(setup, setup.observed)
    deciders.memory[:] = [x for numbers in memory for x in (*numbers, 0.0)]
    functions.begin_peak(deciders, bar.state)
    with np.errstate(all="ignore"):
        set_close(bar, t)
        close = functions.look_at_close(bar, True)
        is_good = functions.decide_all(bar, deciders, close, t)
    if not is_good:
        raise report_bad_decision(setup.inputs, t)
    return bar.state


def fill(setup: Setup, state: AccountState, traded: TradedDays | None, stated: Stated) -> Filled:
    later = look_ahead(setup, stated)
    t, functions, n = setup.markets.n_bars, find_functions(setup), len(state.margin)
    bar = new_bar(setup, later.inputs, state, traded, t)
    deciders = gather_deciders(setup, setup.observed)
    with np.errstate(all="ignore"):
        functions.simulate_portfolio_bar(bar, t)
        views = show(functions, setup, bar, deciders, t)
    entries = bar.log.entries[: bar.log.written[0]]
    sums = bar.scratch.cuts
    cuts = [
        (i, CAUSES[k], float(sums[i, k, CUT]), float(sums[i, ALL, ASKED]))
        for i in range(n)
        for k in np.flatnonzero(sums[i, ALL + 1 :, COUNT]) + ALL + 1
    ]
    return Filled(entries, views, float(bar.state.wallet[EQUITY]), cuts)
