"""Use of capital at each close: initial margin, money for new orders, profit by kind, loans."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backtest.base.units import TOLERANCE, FloatArray, IntArray
from backtest.engine.result_tables import ARRAYS, value_of
from backtest.measures.margin_use import count_available, divide_by_equity, margin_used
from backtest.measures.path_measures import AccountPath
from backtest.venue.requirement import MarginRules, read_rules

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from backtest.account import Account
    from backtest.venue import Venue


class CapitalUse(NamedTuple):
    """Columns of the table of bars, each of shape (n_bars,); docs/accounting.md defines them."""

    initial_margin: FloatArray
    available: FloatArray
    margin_used: FloatArray
    position_leverage: FloatArray
    realized_pnl: FloatArray
    unrealized_pnl: FloatArray


class TableSpan(NamedTuple):
    """Margin rules, and the bars of a run to which they apply, ``first`` up to ``stop``."""

    first: int
    stop: int
    rules: MarginRules


def list_tables(venue: Venue, account: Account, time: IntArray) -> list[TableSpan]:
    """Return the margin rules of a run, under the account's setting."""
    setting = account.venue_leverage or 0.0
    return [
        TableSpan(each.first, each.stop, read_rules(venue.with_table(each), setting))
        for each in venue.in_use(time)
    ]


def compute_use(
    venue: Venue,
    account: Account,
    book: Mapping[str, FloatArray],
    mark: FloatArray,
    x: FloatArray,
    tables: Sequence[TableSpan],
    first_unrealized: float,
) -> CapitalUse:
    """Return the use of capital of the record of a run.

    ``x`` is the multiplier of initial margin of each bar, ``tables`` are the margin tables in use,
    and ``first_unrealized`` is the unrealized profit at the close before the first bar.
    """
    value, quantity, equity = value_of(venue, mark), book["position"], book["equity"]
    notional = np.abs(quantity) * np.abs(value)
    unrealized = find_unrealized(book, value)
    uncounted = (1.0 - venue.profit_share()) * np.maximum(unrealized, 0.0)
    initial, available = split_capital(account, book, notional, uncounted, x, tables)
    before = np.concatenate([[first_unrealized], unrealized[:-1]])
    gained = book["price_pnl"] - book["slippage"] - book["impact"]
    realized = gained - (unrealized - before)
    is_noise = np.abs(realized) <= TOLERANCE * (notional + np.abs(book["price_pnl"]))
    with np.errstate(divide="ignore", invalid="ignore"):
        turns = np.where(quantity != 0.0, notional / initial, 0.0)
    return CapitalUse(
        initial_margin=initial,
        available=np.array(available),
        margin_used=margin_used(initial, equity),
        position_leverage=turns,
        realized_pnl=np.where(is_noise, 0.0, realized),
        unrealized_pnl=unrealized,
    )


def find_unrealized(book: Mapping[str, FloatArray], value: FloatArray) -> FloatArray:
    """Return the profit since the average entry at values u."""
    quantity = book["position"]
    return np.where(quantity != 0.0, quantity * (value - book["entry"]), 0.0)


def split_capital(
    account: Account,
    book: Mapping[str, FloatArray],
    notional: FloatArray,
    uncounted: FloatArray,
    x: FloatArray,
    tables: Sequence[TableSpan],
    first: int = 0,
) -> tuple[FloatArray, FloatArray]:
    """Return the initial margin and the money for new orders at each close.

    ``uncounted`` is the unrealized profit that backs no order. ``first`` is the number of the first
    of these bars in the tables' run.
    """
    if account.margin == "isolated":
        margin = np.where(book["position"] != 0.0, book["margin"], 0.0)
        return margin, count_available(book["cash"], 0.0, 0.0)
    initial = np.zeros(len(notional))
    for table in tables:
        begin, end = max(table.first - first, 0), table.stop - first
        if begin < end and begin < len(notional):
            rows = slice(begin, end)
            initial[rows] = compute_initial(table.rules, notional[rows], x[rows])
    return initial, count_available(book["equity"], initial, uncounted)


def compute_initial(rules: MarginRules, notional: FloatArray, x: FloatArray) -> FloatArray:
    """Return the initial margin of notionals, from the brackets that they reach."""
    n = int(np.searchsorted(rules.caps, np.max(notional))) + 1
    reached = rules._replace(caps=rules.caps[:n], leverages=rules.leverages[:n])
    return np.asarray(ARRAYS.compute_initial(reached, notional, x))


def read_path(
    venue: Venue,
    account: Account,
    book: Mapping[str, FloatArray],
    marks: FloatArray,
    x: FloatArray,
    tables: Sequence[TableSpan],
    first: int,
) -> AccountPath:
    """Return the path of an account over some bars of its record, from bar ``first`` of the run.

    ``marks`` are the mark closes, with the one before those bars.
    """
    value = value_of(venue, marks)
    size = np.abs(value)
    signed, equity = book["position"] * size[1:], book["equity"]
    uncounted = (1.0 - venue.profit_share()) * np.maximum(find_unrealized(book, value[1:]), 0.0)
    initial, available = split_capital(account, book, np.abs(signed), uncounted, x, tables, first)
    return AccountPath(
        unit=book["unit"],
        equity=equity,
        initial=initial,
        available=available,
        used=margin_used(initial, equity),
        leverage=divide_by_equity(signed, equity),
        moves=np.diff(value) / size[:-1],
    )


def find_available(
    book: Mapping[str, FloatArray],
    margin: FloatArray,
    profits: FloatArray,
    modes: Sequence[str],
    venues: Sequence[Venue],
) -> FloatArray:
    """Return the money for new orders at each close: that of the cross pool, without its margin.

    ``margin`` and ``profits`` are those of the positions, of shape (n_bars, n), and ``modes`` their
    margin modes. With isolated positions only, the pool is the wallet.
    """
    is_own = np.array([mode == "isolated" for mode in modes])
    shares = np.array([venue.profit_share() for venue in venues])
    uncounted = np.where(is_own, 0.0, (1.0 - shares) * np.maximum(profits, 0.0)).sum(axis=1)
    posted = margin[:, is_own].sum(axis=1)
    return count_available(book["backing"], book["initial"] - posted, uncounted)


def compute_loan_columns(
    venue: Venue,
    account: Account,
    book: Mapping[str, FloatArray],
    mark: FloatArray,
    maintenance: FloatArray,
) -> dict[str, FloatArray]:
    """Return health factor and loan-to-value ratio at each close, where money is borrowed.

    The collateral is what the position's account owns (a long position, cash), the debt what it
    owes (borrowed cash, a short position).
    """
    quantity = book["position"]
    owned = np.where(quantity != 0.0, quantity * value_of(venue, mark), 0.0)
    cash = book["cash"]
    if account.margin == "isolated":
        cash = book["margin"] - quantity * book["entry"]
    collateral = np.maximum(cash, 0.0) + np.maximum(owned, 0.0)
    debt = np.maximum(-cash, 0.0) + np.maximum(-owned, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        of_long = (collateral - maintenance) / debt
        of_short = collateral / (debt + maintenance)
        ltv = np.where(debt > 0.0, debt / collateral, 0.0)
    health = np.where(owned < 0.0, of_short, of_long)
    return {"health_factor": np.where(debt > 0.0, health, np.inf), "ltv": ltv}
